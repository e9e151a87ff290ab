"""A model called with labels computes its features once: loss and logits come from the same draw of dropout."""

import numpy as np
import pytest

from minillm import ops
from minillm.hub import PretrainedModel
from minillm.models import (
    BertConfig,
    ClassifierConfig,
    EncoderDecoderConfig,
    GPTConfig,
    LlamaConfig,
    LSTMConfig,
    model_from_config,
)

SHAPE = {"vocab_size": 31, "context": 12, "n_layers": 2, "n_heads": 2, "d_model": 8, "dropout": 0.4}
BERT = {**SHAPE, "d_ff": 12}
IDS = np.random.default_rng(0).integers(1, 31, (3, 7))
SOME = np.where(np.arange(7) % 3 == 1, IDS, -100)
CLASSES, MARKS = np.array([2, 0, 1]), np.array([[1.0, 0, 1], [0, 0, 1], [1, 1, 0]])
MULTI_LABEL = "multi_label_classification"
CASES = {
    "gpt": (GPTConfig(**SHAPE), IDS),
    "llama": (LlamaConfig(**SHAPE, d_ff=12), SOME),
    "lstm": (LSTMConfig(vocab_size=31, d_model=8, dropout=0.4), IDS),
    "mlm": (BertConfig(**BERT), SOME),
    "bert labels": (BertConfig(**BERT, head="classification", n_labels=3), CLASSES),
    "bert marks": (BertConfig(**BERT, head="classification", n_labels=3, problem_type=MULTI_LABEL), MARKS),
    "gpt labels": (ClassifierConfig(GPTConfig(**SHAPE), n_labels=3, pad_id=0), CLASSES),
    "gpt number": (ClassifierConfig(GPTConfig(**SHAPE), n_labels=1, pad_id=0, problem_type="regression"), MARKS[:, 0]),
    "encoder-decoder": (EncoderDecoderConfig(**BERT, pad_id=0), SOME),
}  # fmt: skip


def loss_from(logits, labels, config):
    """The loss in NumPy, from nothing but logits and labels."""
    if getattr(config, "problem_type", "") == "regression":
        return np.mean((logits[:, 0] - labels) ** 2)
    if labels.dtype.kind == "f":
        return np.mean(np.logaddexp(0, logits) - logits * labels)
    if config.task == "causal":
        logits, labels = logits[:, :-1], labels[:, 1:]
    logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    kept = np.flatnonzero(labels != -100)
    logs = logits[kept] - np.logaddexp.reduce(logits[kept], axis=1, keepdims=True)
    return -logs[np.arange(len(kept)), labels[kept]].mean()


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_loss_and_logits_come_from_one_forward(name, engine, monkeypatch):
    config, labels = CASES[name]
    model = model_from_config(config, np.random.default_rng(1)).to(np.float64)
    ids, targets = IDS, labels
    if engine == "torch":
        torch = pytest.importorskip("torch")
        from minillm.port import to_torch

        model, ids, targets = to_torch(model), torch.tensor(IDS), torch.tensor(labels)
    wrapped = PretrainedModel(model).train()
    looked_up = []

    def embedding(ids, weight, original=ops.embedding):
        looked_up.append(tuple(ids.shape))
        return original(ids, weight)

    monkeypatch.setattr(ops, "embedding", embedding)
    decoder = {"decoder_input_ids": ids} if config.task == "seq2seq" else {}
    output = wrapped(ids, labels=targets, **decoder)
    assert len(looked_up) == (2 if decoder else 1)  # source and target of an encoder–decoder
    logits = output.logits if engine == "numpy" else output.logits.detach().numpy()
    assert float(output.loss.item()) == pytest.approx(loss_from(logits, labels, config), abs=1e-9)
    again = wrapped(ids, **decoder).logits
    assert np.abs(np.asarray(again if engine == "numpy" else again.detach()) - logits).max() > 1e-3  # dropout is on
