"""Random shapes of every family against transformers, in float64, in both directions, on both engines; dropouts where
config.json has them; what is refused, and when."""

import json
import warnings

import numpy as np
import pytest
from hf_models import torch, transformers
from moe_shapes import gpt_oss, qwen3_moe

from minillm import ops
from minillm.hub import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    ConfigurationError,
)
from minillm.hub.checkpoint import open_checkpoint

HEADS = {
    "ForMaskedLM": AutoModelForMaskedLM, "LMHeadModel": AutoModelForCausalLM, "ForCausalLM": AutoModelForCausalLM,
    "Model": AutoModel, "ForSequenceClassification": AutoModelForSequenceClassification, "TextModel": AutoModel,
    "TextForSequenceClassification": AutoModelForSequenceClassification,
}  # fmt: skip


def some(rng, *values):
    return values[rng.integers(len(values))]


def decoder(rng, *, max_layers=3, **more):
    """The shape of a small Llama: grouped heads, a head size of its own, ties, angles."""
    n_kv_heads = int(rng.integers(1, 4))
    n_heads = n_kv_heads * int(rng.integers(1, 4))
    head_dim = 2 * int(rng.integers(1, 5))
    return {
        "vocab_size": int(rng.integers(20, 70)), "hidden_size": n_heads * 2 * int(rng.integers(1, 5)),
        "intermediate_size": int(rng.integers(5, 40)), "num_hidden_layers": int(rng.integers(1, max_layers + 1)),
        "num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads, "head_dim": head_dim,
        "max_position_embeddings": int(rng.integers(16, 40)), "tie_word_embeddings": bool(rng.integers(2)),
        "rms_norm_eps": float(10.0 ** -rng.integers(3, 8)),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(rng.integers(50, 20000))}, **more,
    }  # fmt: skip


def layer_types(rng, n):
    return [some(rng, "full_attention", "sliding_attention") for _ in range(n)]


def windows(rng):
    """Qwen's ways to say which layers have a window."""
    values = decoder(rng)
    if rng.integers(4) == 0:
        return values
    values |= {"use_sliding_window": True, "sliding_window": int(rng.integers(1, 14))}
    if rng.integers(2):
        return {**values, "max_window_layers": int(rng.integers(0, 4))}
    return {**values, "layer_types": layer_types(rng, values["num_hidden_layers"])}


def ministral(rng):
    values = decoder(rng, sliding_window=int(rng.integers(1, 14)))
    return {**values, "layer_types": layer_types(rng, values["num_hidden_layers"])} if rng.integers(3) else values


def gemma(rng):
    values = decoder(rng, sliding_window=int(rng.integers(1, 14)), query_pre_attn_scalar=int(rng.integers(1, 40)))
    values |= {"layer_types": layer_types(rng, values["num_hidden_layers"]), "attention_bias": bool(rng.integers(2))}
    if rng.integers(3) == 0:
        del values["layer_types"]
        values["sliding_window_pattern"] = int(rng.integers(1, 4))
    full = {"rope_type": "default", "rope_theta": float(rng.integers(50, 20000))}
    if rng.integers(2):
        full |= {"rope_type": "linear", "factor": 8.0}
    local = {"rope_type": "default", "rope_theta": float(rng.integers(50, 2000))}
    return {**values, "rope_parameters": {"full_attention": full, "sliding_attention": local}}


def encoder(rng, **more):
    n_heads = int(rng.integers(1, 5))
    return {
        "vocab_size": int(rng.integers(20, 70)), "hidden_size": n_heads * int(rng.integers(1, 7)),
        "intermediate_size": int(rng.integers(5, 40)), "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": n_heads, "max_position_embeddings": int(rng.integers(24, 40)),
        "type_vocab_size": int(rng.integers(1, 4)), "layer_norm_eps": float(10.0 ** -rng.integers(3, 12)), **more,
    }  # fmt: skip


def roberta(rng):
    return encoder(rng, pad_token_id=int(rng.integers(0, 5)))


def distilbert(rng):
    n_heads = int(rng.integers(1, 5))
    return {
        "vocab_size": int(rng.integers(20, 70)), "dim": n_heads * int(rng.integers(1, 7)), "n_heads": n_heads,
        "hidden_dim": int(rng.integers(5, 40)), "n_layers": int(rng.integers(1, 4)),
        "max_position_embeddings": int(rng.integers(16, 40)), "sinusoidal_pos_embds": bool(rng.integers(2)),
    }  # fmt: skip


def gpt2(rng):
    n_heads = int(rng.integers(1, 5))
    return {
        "vocab_size": int(rng.integers(20, 70)), "n_positions": int(rng.integers(16, 40)), "n_head": n_heads,
        "n_embd": n_heads * int(rng.integers(1, 7)), "n_layer": int(rng.integers(1, 4)),
        "n_inner": some(rng, None, int(rng.integers(3, 60))), "bos_token_id": None, "eos_token_id": None,
        "layer_norm_epsilon": float(10.0 ** -rng.integers(2, 9)),
    }  # fmt: skip


FAMILIES = {  # how the names of the classes begin -> a random config
    "GPT2": gpt2,
    "Llama": lambda rng: decoder(rng, mlp_bias=bool(rng.integers(2)), attention_bias=bool(rng.integers(2))),
    "Mistral": lambda rng: decoder(rng, sliding_window=some(rng, None, int(rng.integers(1, 14)))),
    "Ministral": ministral,
    "Qwen2": windows,
    "Qwen3": lambda rng: {**windows(rng), "attention_bias": bool(rng.integers(2))},
    "Qwen3Moe": qwen3_moe,
    "GptOss": gpt_oss,
    "Gemma3": gemma,
    "Bert": encoder,
    "Roberta": roberta,
    "XLMRoberta": roberta,
    "DistilBert": distilbert,
}


def family_of(name):
    """The ending of the class that predicts tokens, hidden ones or the next."""
    return next(ending for ending in HEADS if hasattr(transformers, name + ending))


def drawn(name, seed, ending=None, **more):
    """A transformers model in float64, every parameter random, its class and a batch of inputs with padding."""
    rng = np.random.default_rng(seed)
    values = FAMILIES[name](rng)
    text = "Text" * (name == "Gemma3")  # the larger ones see pictures, too
    config = getattr(transformers, f"{name}{text}Config")(**values, **more)
    ending = ending or some(rng, family_of(name), family_of(name), f"{text}Model", f"{text}ForSequenceClassification")
    config.num_labels = 3
    config.pad_token_id = config.pad_token_id if family_of(name) == "ForMaskedLM" else 0
    torch.manual_seed(seed)
    model = getattr(transformers, name + ending)(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape) + (parameter.ndim == 1))
    vocab, length = config.vocab_size, int(rng.integers(3, 15))
    ids = rng.integers(5, vocab, (3, length))
    mask = np.arange(length) < rng.integers(1, length + 1, (3, 1))
    if config.pad_token_id is not None:
        ids = np.where(mask, ids, config.pad_token_id)
    inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    if getattr(config, "type_vocab_size", 1) > 1 and rng.integers(2):
        inputs["token_type_ids"] = rng.integers(0, config.type_vocab_size, ids.shape)
    return model, name + ending, HEADS[ending], inputs


def result(model, inputs, mask):
    """Logits or features, at the places of tokens where there is one for each."""
    if not isinstance(model, torch.nn.Module):
        on_torch = model.on_torch
        inputs = {key: torch.tensor(value) if on_torch else value for key, value in inputs.items()}
        output = model(**inputs)
    else:
        output = model(**{key: torch.tensor(value) for key, value in inputs.items()})
    found = output.last_hidden_state if getattr(output, "logits", None) is None else output.logits
    found = found.detach().numpy() if hasattr(found, "detach") else np.asarray(found)
    return found[mask] if found.ndim == 3 else found


def check_family(name, seed, folder, engine):
    """One random model: theirs into ours, ours back into theirs."""
    model, cls, auto, inputs = drawn(name, seed)
    mask = inputs["attention_mask"] > 0
    with torch.no_grad(), warnings.catch_warnings():
        expected = result(model, inputs, mask)
        model.save_pretrained(folder / "theirs")
        ours = auto.from_pretrained(folder / "theirs", engine=engine)
        assert np.abs(result(ours, inputs, mask) - expected).max() < 1e-9, (name, seed)
        ours.save_pretrained(folder / "ours")
        back, info = getattr(transformers, cls).from_pretrained(folder / "ours", output_loading_info=True)
        assert not any(info.values()), (name, seed, info)
        assert back.config.model_type == model.config.model_type
        assert np.abs(result(back.eval(), inputs, mask) - expected).max() < 1e-9, (name, seed)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("name", FAMILIES)
def test_random_shapes(exact, name, engine, tmp_path):
    for seed in range(3):
        check_family(name, seed, tmp_path / str(seed), engine)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("name", FAMILIES)
def test_100_random_shapes(exact, name, engine, tmp_path):
    for seed in range(100, 200):
        check_family(name, seed, tmp_path / str(seed), engine)


# --- dropout ----------------------------------------------------------------------------------------------------------

DROPOUTS = {
    "GPT2": {"resid_pdrop": 0.11, "attn_pdrop": 0.12, "embd_pdrop": 0.13},
    "Llama": {"attention_dropout": 0.21},
    "Bert": {"hidden_dropout_prob": 0.31, "attention_probs_dropout_prob": 0.32, "classifier_dropout": 0.33},
    "Roberta": {"hidden_dropout_prob": 0.41, "attention_probs_dropout_prob": 0.42, "classifier_dropout": 0.43},
    "DistilBert": {"dropout": 0.51, "attention_dropout": 0.52, "seq_classif_dropout": 0.53},
}


@pytest.mark.parametrize("ending", [None, "ForSequenceClassification"])
@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_is_where_config_json_has_it(name, ending, tmp_path, monkeypatch):
    """The shares that are dropped, in their order in the forward pass, and that they come back."""
    ending = ending or family_of(name)
    model, _, auto, inputs = drawn(name, 1, ending, **DROPOUTS[name])
    model.set_attn_implementation("eager")
    theirs, ours = [], []
    dropout, attention, own = torch.nn.functional.dropout, ops.attention, ops.dropout
    monkeypatch.setattr(
        torch.nn.functional, "dropout", lambda x, p=0.5, *a, **k: theirs.append(p) or dropout(x, p, *a, **k)
    )
    model.train()(**{key: torch.tensor(value) for key, value in inputs.items()})
    monkeypatch.undo()
    model.save_pretrained(tmp_path / "theirs")
    loaded = auto.from_pretrained(tmp_path / "theirs").train()
    monkeypatch.setattr(ops, "attention", lambda *a, **k: ours.append(k["dropout_p"]) or attention(*a, **k))
    monkeypatch.setattr(ops, "dropout", lambda x, p, **k: ours.append(p) or own(x, p, **k))
    loaded(**inputs)
    assert [p for p in ours if p] == [p for p in theirs if p]
    assert set(theirs) - {0.0} <= set(DROPOUTS[name].values()) and ours
    loaded.save_pretrained(tmp_path / "ours")
    written = json.loads((tmp_path / "ours/config.json").read_text())
    assert {key: written[key] for key in DROPOUTS[name]} == DROPOUTS[name]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "'t5' is not an architecture"),
        ({"model_type": "mamba", "num_labels": "many"}, "'mamba' is not an architecture"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "a llama with hidden_act = 'gelu'"),
        ({"model_type": "llama", "hidden_size": "wide"}, "hidden_size of a llama must be of type int"),
        ({"model_type": "gpt2", "quantization_config": {}, "scale_attn_weights": False}, "a gpt2 with scale_attn"),
    ],
)
def test_refusals_come_before_weights_are_looked_for(values, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(values))  # there are none
    with pytest.raises(ConfigurationError, match=message):
        open_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ConfigurationError, match=message):
        AutoModelForCausalLM.from_pretrained(tmp_path, num_labels=2)
