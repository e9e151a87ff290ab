"""GPT-2 and BERT out of Keras's own layers: models/gpt.py and models/bert.py once more, for TensorFlow.

    keras.Input (B, T) → layers, each called with what the one before gave → keras.Model(inputs, outputs)

A "functional" model: what a line gives stands for a tensor of unknown B and T, and `keras.Model` keeps the graph from
the inputs to the outputs. Compare the loops below with `Block` in those two files: the same lines. A layer with weights
bears the name that it has there ("blocks.0.norm_1", with _ for the dots), by which its weights find it
(keras_folder.py).

None of the layers is of our own making. So what Keras saves opens where minillm isn't installed, and no code has to be
trusted to open it. Keras computes with TensorFlow, or with what KERAS_BACKEND says ("torch"). What differs from ours:

- nothing computes a loss: `compile` is given one, of logits. SparseCategoricalCrossentropy(from_logits=True,
  ignore_class=-100) is ours for tokens and for classes;
- BERT takes its mask as an input, always: attention_mask = input_ids != pad_id.

A text that is longer than the context is an error on every device, as here (`counted`), and a row of padding alone has
the features that it has here.
"""

from __future__ import annotations

import os
from typing import Any

from ..models import BertConfig, GPTConfig, ModelConfig


def require_keras() -> Any:
    """The package keras, version 3. Raises ImportError that says how to get it, and what it computes with."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else TensorFlow begins by telling what processor this is
    try:
        import keras
    except ImportError as error:
        raise ImportError(
            "Keras models need the packages keras and tensorflow-cpu: install them, or the extra [keras]. With another "
            f"backend, name it in the environment: KERAS_BACKEND=torch ({error})."
        ) from None
    if not hasattr(keras.layers, "ReversibleEmbedding"):
        raise ImportError(f"Keras models need Keras 3.12 or newer, not {keras.__version__}: pip install -U keras.")
    return keras


def check_config(config: ModelConfig, head: str) -> None:
    """Raise ValueError for a model that is not built below."""
    if not (isinstance(config, BertConfig) or (isinstance(config, GPTConfig) and head == "causal")):
        raise ValueError(
            f"a {config.model_type!r} model for {head!r} has no twin in Keras here: take a GPT-2 that continues texts, "
            "or a BERT, RoBERTa or DistilBERT."
        )


def build(config: Any) -> Any:
    """The Keras model for a config, its weights drawn by Keras. Raises ValueError for a config that has none."""
    check_config(config, config.task)
    return gpt(config) if isinstance(config, GPTConfig) else bert(config)


def gpt(config: GPTConfig) -> Any:
    """input_ids (B, T) integers -> logits (B, T, V). T is at most the context."""
    keras = require_keras()
    layers, ops = keras.layers, keras.ops
    embedding_dropout = config.dropout if config.embedding_dropout is None else config.embedding_dropout
    attention_dropout = config.dropout if config.attention_dropout is None else config.attention_dropout
    token_embedding = layers.ReversibleEmbedding(config.vocab_size, config.d_model, name="token_embedding")
    position_embedding = layers.Embedding(config.context, config.d_model, name="position_embedding")

    input_ids = keras.Input((None,), dtype="int32", name="input_ids")
    positions = counted(config, input_ids)  # (B, T): 0, 1, 2 ...
    x = token_embedding(input_ids) + position_embedding(positions)  # (B, T, D)
    x = layers.Dropout(embedding_dropout)(x)
    for i in range(config.n_layers):
        h = layers.LayerNormalization(epsilon=config.norm_eps, name=f"blocks_{i}_norm_1")(x)
        attention = layers.MultiHeadAttention(
            config.n_heads, config.head_dim, dropout=attention_dropout, name=f"blocks_{i}_attn"
        )
        h = attention(h, h, use_causal_mask=True)
        x = x + layers.Dropout(config.dropout)(h)
        h = layers.LayerNormalization(epsilon=config.norm_eps, name=f"blocks_{i}_norm_2")(x)
        h = layers.Dense(config.ff_features, name=f"blocks_{i}_mlp_fc")(h)  # (B, T, F)
        h = ops.gelu(h, approximate=True)  # by tanh, as GPT-2 was trained
        h = layers.Dense(config.d_model, name=f"blocks_{i}_mlp_proj")(h)  # (B, T, D)
        x = x + layers.Dropout(config.dropout)(h)
    x = layers.LayerNormalization(epsilon=config.norm_eps, name="norm")(x)
    logits = token_embedding(x, reverse=True)  # (B, T, V): the token table again, "tied"
    return keras.Model(input_ids, logits, name="gpt")


def bert(config: BertConfig) -> Any:
    """{"input_ids", "attention_mask", "token_type_ids"}, each (B, T) integers, the last not for a DistilBERT -> what
    the head gives: logits (B, T, V) or (B, n_labels), or features (B, T, D).

    Where there is more than one thing to give, a dictionary: "logits" or "features", and "next_sentence" (B, 2) or
    "pooled" (B, D)."""
    keras = require_keras()
    layers, ops = keras.layers, keras.ops
    attention_dropout = config.dropout if config.attention_dropout is None else config.attention_dropout
    after_attention = 0.0 if config.family == "distilbert" else config.dropout
    token_embedding = layers.ReversibleEmbedding(config.vocab_size, config.d_model, name="token_embedding")
    rows = config.first_position + config.context
    position_embedding = layers.Embedding(rows, config.d_model, name="position_embedding")

    input_ids = keras.Input((None,), dtype="int32", name="input_ids")
    attention_mask = keras.Input((None,), dtype="int32", name="attention_mask")  # 1 = a token, 0 = padding
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    positions = counted(config, input_ids)  # (B, T)
    x = token_embedding(input_ids) + position_embedding(positions)  # (B, T, D)
    if config.token_types:
        inputs["token_type_ids"] = keras.Input((None,), dtype="int32", name="token_type_ids")  # which text of a pair
        token_type_embedding = layers.Embedding(config.token_types, config.d_model, name="token_type_embedding")
        x = x + token_type_embedding(inputs["token_type_ids"])
    x = layers.LayerNormalization(epsilon=config.norm_eps, name="norm")(x)
    x = layers.Dropout(config.dropout)(x)
    seen = ops.expand_dims(attention_mask != 0, 1)  # (B, 1, T): whom every position may look at
    for i in range(config.n_layers):
        attention = layers.MultiHeadAttention(
            config.n_heads, config.head_dim, dropout=attention_dropout, name=f"blocks_{i}_attn"
        )
        # asked for the weights, Keras makes them by its Softmax, which gives nothing to who may look at nobody, as ours
        # does; its fused attention would look at all that is hidden
        h, _ = attention(x, x, attention_mask=seen, return_attention_scores=True)
        h = layers.Dropout(after_attention)(h)
        x = layers.LayerNormalization(epsilon=config.norm_eps, name=f"blocks_{i}_norm_1")(x + h)
        h = layers.Dense(config.d_ff, activation="gelu", name=f"blocks_{i}_fc")(x)  # (B, T, F)
        h = layers.Dense(config.d_model, name=f"blocks_{i}_proj")(h)  # (B, T, D)
        h = layers.Dropout(config.dropout)(h)
        x = layers.LayerNormalization(epsilon=config.norm_eps, name=f"blocks_{i}_norm_2")(x + h)
    outputs = bert_outputs(config, x, input_ids, token_embedding)
    return keras.Model(inputs, outputs if len(outputs) > 1 else next(iter(outputs.values())), name=config.family)


def counted(config: GPTConfig | BertConfig, input_ids: Any) -> Any:
    """The positions of ids (B, T), (B, T) integers: 0, 1, 2 ...; for a RoBERTa pad_id + 1, pad_id + 2 ..., and pad_id
    for padding.

    A T beyond the context is an error that Keras raises. A table of positions alone would not do: on a GPU, TensorFlow
    reads zeros beyond its end, and under XLA its last row. None of Keras's layers raises for what a number is, so the
    length is told in shapes, twice: by a model inside that takes no token, and is given those beyond the context; and,
    in a graph that was compiled for any length, where shapes are met only when it runs, by setting the ids beside the
    positions, of which there are no more than the context. The names of both say what is wrong."""
    keras = require_keras()
    layers, ops, context = keras.layers, keras.ops, config.context
    nothing = keras.Input((0, 1), dtype="int32", name="tokens_beyond_the_context")
    zero = ops.sum(nothing, axis=1) * 0  # (B, 1)
    refuse_more = keras.Model(nothing, zero, name=f"a_text_has_at_most_{context}_tokens")
    within = input_ids[:, :context] + refuse_more(input_ids[:, context:, None])  # (B, min(T, context))
    if isinstance(config, BertConfig) and config.family == "roberta":
        real = ops.cast(within != config.pad_id, "int32")
        positions = ops.cumsum(real, axis=1) * real + config.pad_id
    else:
        positions = ops.cumsum(ops.ones_like(within), axis=1) - 1
    beside = layers.Concatenate(name=f"at_most_{context}_tokens")([input_ids[:, :, None], positions[:, :, None]])
    return beside[:, :, 1]


def bert_outputs(config: BertConfig, x: Any, input_ids: Any, token_embedding: Any) -> dict[str, Any]:
    """What a BERT gives, by name, from the last layer's features x (B, T, D)."""
    keras = require_keras()
    layers, D = keras.layers, config.d_model
    first = x[:, 0]  # (B, D): the features of [CLS]
    pooled = layers.Dense(D, activation="tanh", name="pooler")(first) if config.has_pooler else None
    if config.head == "classification":
        dropout = layers.Dropout(config.dropout if config.classifier_dropout is None else config.classifier_dropout)
        if config.family == "bert":
            h = pooled
        elif config.family == "distilbert":
            h = layers.Dense(D, activation="relu", name="classifier_dense")(first)
        else:
            h = layers.Dense(D, activation="tanh", name="classifier_dense")(dropout(first))
        return {"logits": layers.Dense(config.n_labels, name="classifier")(dropout(h))}
    outputs = {"features": x}
    if config.head == "mlm":
        h = layers.Dense(D, activation="gelu", name="mlm_transform")(x)
        h = layers.LayerNormalization(epsilon=config.norm_eps, name="mlm_norm")(h)
        bias = layers.Embedding(1, config.vocab_size, name="mlm")(input_ids[:, :1] * 0)  # (B, 1, V): its only row
        outputs = {"logits": token_embedding(h, reverse=True) + bias}  # (B, T, V)
    if config.next_sentence:
        outputs["next_sentence"] = layers.Dense(2, name="next_sentence")(pooled)
    elif pooled is not None:
        outputs["pooled"] = pooled
    return outputs
