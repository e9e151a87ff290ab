"""Mixtures of experts against transformers, in float64: losses with load balancing and their gradients, decoding, both
forms of the experts' tensors; and what is refused."""

import json

import numpy as np
import pytest
import safetensors.numpy
from hf_models import IDS, build, their_logits, torch
from moe_shapes import moe_model

from minillm.generate import Sampling, generate
from minillm.hub import AutoModelForCausalLM, ConfigurationError, WeightsError
from minillm.hub.checkpoint import open_checkpoint
from minillm.hub.convert import convert

NAMES = ("Qwen3Moe", "GptOss")
both = pytest.mark.parametrize("name", NAMES)
engines = pytest.mark.parametrize("engine", ["numpy", "torch"])


def tokens(model, seed):
    """A batch with padding, which is no target, as arrays."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, model.config.vocab_size, (3, int(rng.integers(3, 15))))
    mask = np.arange(ids.shape[1]) < rng.integers(2, ids.shape[1] + 1, (3, 1))
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64), "labels": np.where(mask, ids, -100)}


def check_losses(name, seed, folder, engine):
    """Loss, the part of it that balances, and every gradient."""
    model = moe_model(name, seed)
    batch = tokens(model, seed)
    inputs = {key: torch.tensor(value) for key, value in batch.items()}
    expected = model.train()(**inputs)
    expected.loss.backward()
    model.save_pretrained(folder)
    ours = AutoModelForCausalLM.from_pretrained(folder, engine=engine).train()
    found = ours(**(inputs if engine == "torch" else batch))
    assert abs(found.loss.item() - expected.loss.item()) < 1e-9, (name, seed)
    assert (found.aux_loss is None) == (expected.aux_loss is None) == (not model.config.output_router_logits)
    if found.aux_loss is not None:
        assert abs(found.aux_loss.item() - expected.aux_loss.item()) < 1e-9, (name, seed)
    found.loss.backward()
    theirs = as_ours(model, ours.architecture, ours.model.config)
    for key, parameter in ours.model.named_parameters():
        grad = parameter.grad if engine == "numpy" else parameter.grad.numpy()
        assert np.abs(grad - theirs[key]).max() < 1e-9, (name, seed, key)


def as_ours(model, architecture, config):
    """Their gradients by our names: written to a file as if they were weights, and read by our loader."""
    import tempfile

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = open_checkpoint(folder).model(dtype="float64")
    return {key: parameter.data for key, parameter in loaded.named_parameters()}


@engines
@both
def test_losses_and_gradients(exact, name, engine, tmp_path):
    for seed in range(3):
        check_losses(name, seed, tmp_path / str(seed), engine)


@pytest.mark.long
@engines
@both
def test_100_losses_and_gradients(exact, name, engine, tmp_path):
    for seed in range(100, 200):
        check_losses(name, seed, tmp_path / str(seed), engine)


@engines
@both
def test_decoding_with_a_cache_and_without_and_theirs(exact, name, engine, tmp_path):
    model = moe_model(name, 3)
    model.save_pretrained(tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path, engine=engine)
    prompt = [5, 9, 6]
    how = {"max_new_tokens": 12, "sampling": Sampling(temperature=0.0)}
    cached = generate(ours.model, [prompt], **how)[0]
    assert cached == generate(ours.model, [prompt], use_cache=False, **how)[0]
    found = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=-1)
    assert [*prompt, *cached] == found[0].tolist() or cached == found[0].tolist()


# --- files ------------------------------------------------------------------------------------------------------------


def fused(folder):
    """Rewrite Qwen3-MoE's tensors of each expert as one for all, as transformers has them in memory."""
    path = folder / "model.safetensors"
    tensors, joined = safetensors.numpy.load_file(path), {}
    for name in [name for name in tensors if ".experts." in name]:
        owner, rest = name.split(".experts.")
        number, part, _ = rest.split(".")
        joined.setdefault(f"{owner}.experts", {})[int(number), part] = tensors.pop(name)
    for owner, parts in joined.items():
        n = 1 + max(number for number, _ in parts)
        both = [np.concatenate([parts[i, "gate_proj"], parts[i, "up_proj"]]) for i in range(n)]
        tensors[f"{owner}.gate_up_proj"] = np.stack(both)
        tensors[f"{owner}.down_proj"] = np.stack([parts[i, "down_proj"] for i in range(n)])
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})


def test_experts_in_one_tensor_or_in_many(tmp_path):
    model = moe_model("Qwen3Moe", 0)
    model.save_pretrained(tmp_path)
    ids = np.arange(5, 12)[None]
    expected = open_checkpoint(tmp_path).model()(ids).data
    values = json.loads((tmp_path / "config.json").read_text())
    values["num_experts"] = values.pop("num_local_experts")  # as before transformers 5
    (tmp_path / "config.json").write_text(json.dumps(values))
    fused(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert np.array_equal(checkpoint.model()(ids).data, expected)
    convert(tmp_path, tmp_path / "many")
    names = set(safetensors.numpy.load_file(tmp_path / "many/model.safetensors"))
    assert sum(".experts.0." in name for name in names) and not any("gate_up" in name for name in names)


@both
def test_by_way_of_our_own_format(name, tmp_path):
    model = moe_model(name, 1)
    model.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours", to="minillm")
    convert(tmp_path / "ours", tmp_path / "back")
    first = safetensors.numpy.load_file(tmp_path / "theirs/model.safetensors")
    last = safetensors.numpy.load_file(tmp_path / "back/model.safetensors")
    assert set(first) == set(last) and all(np.array_equal(first[key], last[key]) for key in first)
    with pytest.raises(ValueError, match="a 'moe' model for 'causal' has no place in GGUF here"):
        convert(tmp_path / "theirs", tmp_path / "model.gguf", to="gguf")


def test_experts_beyond_the_tenth_stay_in_their_order(tmp_path):
    model = build("gpt-oss", num_local_experts=12, num_experts_per_tok=5)
    model.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "back")
    first = safetensors.numpy.load_file(tmp_path / "theirs/model.safetensors")
    last = safetensors.numpy.load_file(tmp_path / "back/model.safetensors")
    assert all(np.array_equal(first[key], last[key]) for key in first)
    found = open_checkpoint(tmp_path / "back").model()(IDS).data
    np.testing.assert_allclose(found, their_logits(model), atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}, r"a gpt_oss with .* \(mxfp4\)"),
        ({"model_type": "gpt_oss", "sliding_window": None}, "sliding_window of a gpt_oss must be a whole number"),
        ({"model_type": "gpt_oss", "hidden_act": "gelu"}, "a gpt_oss with hidden_act = 'gelu'"),
        ({"model_type": "gpt_oss", "architectures": ["GptOssForTokenClassification"]}, "a gpt_oss with architectures"),
        ({"model_type": "qwen3_moe", "hidden_act": "gelu"}, "a qwen3_moe with hidden_act = 'gelu'"),
        ({"model_type": "qwen3_moe", "num_experts": "many"}, "num_experts of a qwen3_moe must be of type int"),
        ({"model_type": "qwen3_moe", "num_local_experts": 2.5}, "num_local_experts = 2.5 must be a whole number"),
        (
            {"model_type": "qwen3_moe", "num_experts": 2, "num_experts_per_tok": 3},
            "top_k = 3 must be at most n_experts",
        ),
        ({"model_type": "qwen3_moe", "decoder_sparse_step": 0}, "decoder_sparse_step = 0 must be a whole number"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": ["0"]}, "mlp_only_layers = .'0'. must be a list of numbers"),
        ({"model_type": "qwen3_moe", "router_aux_loss_coef": -1}, "router_aux_loss_coef = -1 must be a number"),
    ],
)
def test_refusals_come_before_weights_are_looked_for(values, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(values))  # there are none
    with pytest.raises(ConfigurationError, match=message):
        open_checkpoint(tmp_path)


@both
def test_more_experts_than_the_files_have(name, tmp_path):
    model = moe_model(name, 1)
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for n, message in ((values["num_local_experts"] + 1, "do not fit config.json"), (1000, "experts, and the weights")):
        (tmp_path / "config.json").write_text(json.dumps({**values, "num_local_experts": n}))
        with pytest.raises(WeightsError, match=message):
            open_checkpoint(tmp_path)
