"""GGUF files: llama.cpp reads what we write and says the same, and what comes back is what went out."""

import itertools
import json

import numpy as np
import pytest

from minillm.commands.cli import main
from minillm.generate import Sampling, generate
from minillm.hub.checkpoint import open_checkpoint
from minillm.hub.convert import convert
from minillm.hub.gguf import in_halves, interleaved
from minillm.models import GPT, LSTM, GPTConfig, Llama, LlamaConfig, LSTMConfig, config_to_dict
from minillm.tensor import no_grad
from minillm.tokenizers import BPETokenizer, CharTokenizer
from minillm.training.checkpoint import save_checkpoint

gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf")

TEXT = ["The model learns in 2024: it's reading 12345 lines, returns None, 'writes' def f(x):\n    return x + 1\n" * 9]
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}  # fmt: skip
SHAPE = {"context": 128, "n_layers": 2, "n_heads": 4, "d_model": 64}
GROUPED = {**SHAPE, "n_kv_heads": 2, "d_ff": 96}
KINDS = {  # name: split pattern, config class, its settings
    "gpt2": ("gpt2", GPTConfig, SHAPE),
    "llama": ("gpt4", LlamaConfig, GROUPED),
    "llama with biases": ("gpt2", LlamaConfig, {**GROUPED, "qkv_bias": True, "out_bias": True}),
    "llama 3.1": ("gpt4", LlamaConfig, {**GROUPED, "rope_scaling": LLAMA3}),
    "llama, linear": ("gpt2", LlamaConfig, {**GROUPED, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "qwen2": ("qwen2", LlamaConfig, {**GROUPED, "qkv_bias": True}),
    "qwen3": ("qwen2", LlamaConfig, {**GROUPED, "qk_norm": True, "head_dim": 32, "tie_embeddings": True}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
PROMPTS = ["The model learns, and 2024 it", "def f(x):\n    return", "It's\n\n  12345 'None'"]


def make(kind, folder, template=None, seed=0):
    """A random model that says ASCII only (half characters have no text to compare), with a tokenizer trained here."""
    pattern, cls, settings = KINDS[kind]
    tokenizer = BPETokenizer.train(TEXT, 300, pattern=pattern, special_tokens=["<|endoftext|>"])
    config = cls(tokenizer.vocab_size, **settings)
    rng = np.random.default_rng(seed)
    model = (GPT if cls is GPTConfig else Llama)(config, rng=rng)
    silent = [i for i, token in enumerate(tokenizer.tokens) if not token.isascii() or i == tokenizer.eos_id]
    for name, parameter in model.named_parameters():
        size = 0.25 if parameter.data.ndim > 1 else 0.1
        parameter.data += rng.normal(0, size, parameter.data.shape).astype(parameter.data.dtype)
        if name in ("token_embedding.weight", "head.weight"):
            parameter.data[silent] = 0
    arrays = {"model": model.state_dict(), "optimizer": {}}
    save_checkpoint(folder, config=config_to_dict(config), **arrays, state={}, tokenizer=tokenizer)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return model, tokenizer


def greedy(model, tokenizer, prompt, n=64):
    return generate(model, [tokenizer.encode(prompt)], max_new_tokens=n, sampling=Sampling(temperature=0))[0]


def said_by_llama_cpp(file, prompts, n=64):
    """The ids that llama.cpp's own server answers with, greedily, to each prompt."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp itself, to compare with, is not installed")
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.n_parallel, parameters.warmup = str(file), 128, 1, False
    parameters.cpuparams.n_threads, parameters.verbosity = 1, -1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # by default float16
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it rounds, too
    server = xllamacpp.Server(parameters)
    found = []
    for prompt in prompts:
        asked = {"prompt": prompt, "n_predict": n, "temperature": 0, "logprobs": 1, "cache_prompt": False}
        answer = server.handle_completions(asked)
        answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
        found.append([token["id"] for token in answer["choices"][0]["logprobs"]["content"]])
    return found


def closest_call(model, tokenizer, prompt, said):
    """By how much the logit of the likeliest token exceeds that of the next, where that is least."""
    asked = tokenizer.encode(prompt)
    with no_grad():
        logits = model(np.array([asked + said])).data[0, len(asked) - 1 : -1]
    best = np.sort(logits, axis=1)
    return float((best[:, -1] - best[:, -2]).min())


@each_kind
def test_llama_cpp_says_the_same_64_tokens(kind, tmp_path):
    """Of a model for which no choice is a close call: rounding decides those."""
    for seed in itertools.count():
        model, tokenizer = make(kind, tmp_path / "run", seed=seed)
        ours = [greedy(model, tokenizer, prompt) for prompt in PROMPTS]
        if min(closest_call(model, tokenizer, *both) for both in zip(PROMPTS, ours)) > 2e-3:
            break
    (file,) = convert(tmp_path / "run", tmp_path / "model.gguf", to="gguf")
    assert said_by_llama_cpp(file, PROMPTS) == ours
    assert all(len(ids) == 64 for ids in ours) and len(set(map(tuple, ours))) == len(PROMPTS)


@each_kind
def test_a_file_comes_back_as_it_was(kind, tmp_path):
    model, tokenizer = make(kind, tmp_path / "run", template="{{ messages[0].content }}<|endoftext|>")
    convert(tmp_path / "run", tmp_path / "model.gguf", to="gguf")
    convert(tmp_path / "model.gguf", tmp_path / "back", to="minillm")
    back = open_checkpoint(tmp_path / "back")
    assert back.config == model.config
    weights = back.model().state_dict()
    assert all(np.array_equal(weights[name], array) for name, array in model.state_dict().items())
    for text in (*PROMPTS, "<|endoftext|>x", "中文 é \U0001f642"):
        assert back.tokenizer().encode(text, allowed_special="all") == tokenizer.encode(text, allowed_special="all")
    assert (tmp_path / "back" / "chat_template.jinja").read_text() == "{{ messages[0].content }}<|endoftext|>"
    assert back.tokenizer().eos_id == tokenizer.eos_id


@pytest.mark.parametrize("dtype, rtol", [("float16", 2**-11), ("q8_0", 1 / 254 + 2**-11)])
def test_smaller_types_round_matrices_only(dtype, rtol, tmp_path):
    model, _ = make("llama", tmp_path / "run")
    convert(tmp_path / "run", tmp_path / "model.gguf", to="gguf", dtype=dtype)
    convert(tmp_path / "model.gguf", tmp_path / "back", to="minillm")
    back = open_checkpoint(tmp_path / "back").model().state_dict()
    for name, array in model.state_dict().items():
        if array.ndim == 1:
            assert np.array_equal(back[name], array), name
        else:
            rows = array.reshape(-1, 32) if dtype == "q8_0" else array.reshape(-1, 1)
            limit = rtol * np.abs(rows).max(axis=1, keepdims=True) + 2**-24  # q8_0's scale is a float16, too
            assert np.all(np.abs(back[name].reshape(rows.shape) - rows) <= limit), name
    sizes = {d: (tmp_path / f"{d}.gguf") for d in ("float32", dtype)}
    for d, file in sizes.items():
        convert(tmp_path / "run", file, to="gguf", dtype=d)
    assert sizes[dtype].stat().st_size < 0.6 * sizes["float32"].stat().st_size
    said = said_by_llama_cpp(tmp_path / "model.gguf", PROMPTS[:1], 4)
    assert len(said[0]) == 4


def test_rows_of_no_multiple_of_32_are_float16(tmp_path):
    tokenizer = BPETokenizer.train(TEXT, 300, special_tokens=["<|endoftext|>"])
    config = GPTConfig(tokenizer.vocab_size, context=16, n_layers=1, n_heads=2, d_model=48)
    model = GPT(config, rng=np.random.default_rng(0))
    weights = {"model": model.state_dict(), "optimizer": {}}
    save_checkpoint(tmp_path / "run", config=config_to_dict(config), **weights, state={}, tokenizer=tokenizer)
    convert(tmp_path / "run", tmp_path / "m.gguf", to="gguf", dtype="q8_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert types["blk.0.attn_qkv.weight"] == "F16" and types["blk.0.ffn_down.weight"] == "Q8_0"
    assert types["position_embd.weight"] == types["blk.0.attn_qkv.bias"] == "F32"


def test_interleaving_and_back():
    rows = np.arange(16.0).reshape(8, 2)
    assert interleaved(rows, 2)[:, 0].tolist() == [0, 4, 2, 6, 8, 12, 10, 14]
    assert np.array_equal(in_halves(interleaved(rows, 2), 2), rows)
    assert np.array_equal(in_halves(interleaved(rows[:, 0], 1), 1), rows[:, 0])


def test_command_line_goes_there_and_back(tmp_path, capsys):
    make("qwen2", tmp_path / "run")
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "m.gguf"), "--to", "gguf"]) == 0
    assert main(["convert", str(tmp_path / "m.gguf"), str(tmp_path / "hf"), "--to", "hf"]) == 0
    out = capsys.readouterr().out
    assert f"wrote {tmp_path / 'm.gguf'}\n" in out and "model.safetensors" in out
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["model_type"] == "qwen2"
    before = (tmp_path / "m.gguf").read_bytes()
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "m.gguf"), "--to", "gguf"]) == 2
    assert "exists already" in capsys.readouterr().err and (tmp_path / "m.gguf").read_bytes() == before


def test_what_llama_cpp_has_not_is_refused_by_name(tmp_path):
    tokenizer = BPETokenizer.train(TEXT, 300, special_tokens=["<|endoftext|>"])
    shape = {"context": 16, "n_layers": 1, "n_heads": 2, "d_model": 32}
    yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}
    for i, (model, made, what) in enumerate([
        (LSTM(LSTMConfig(300, context=16, n_layers=1, d_model=32)), tokenizer, "'lstm' model"),
        (Llama(LlamaConfig(300, **shape, d_ff=32, rope_scaling=yarn)), tokenizer, "type 'yarn'"),
        (Llama(LlamaConfig(300, **shape, d_ff=32, head_dim=8)), tokenizer, "heads that share out d_model"),
        (GPT(GPTConfig(99, **shape)), CharTokenizer.train(["abc"]), "no byte-level BPE"),
        (GPT(GPTConfig(300, **shape)), BPETokenizer.train(TEXT, 300, pattern="qwen35"), "splits text by 'qwen35'"),
    ]):  # fmt: skip
        weights = {"model": model.state_dict(), "optimizer": {}}
        values = config_to_dict(model.config)
        save_checkpoint(tmp_path / str(i), config=values, **weights, state={}, tokenizer=made)
        with pytest.raises(ValueError, match=what):
            convert(tmp_path / str(i), tmp_path / "out.gguf", to="gguf")
    with pytest.raises(ValueError, match="dtype = 'bfloat16'"):
        convert(tmp_path / "1", tmp_path / "out.gguf", to="gguf", dtype="bfloat16")
    assert not list(tmp_path.glob("*.gguf"))


def test_a_damaged_file_is_refused_by_name(tmp_path):
    """Cut anywhere, or with any of its first bytes changed: ValueError with the file's name, and no folder left."""
    make("gpt2", tmp_path / "run")
    convert(tmp_path / "run", tmp_path / "m.gguf", to="gguf")
    good = (tmp_path / "m.gguf").read_bytes()
    rng = np.random.default_rng(0)
    bad = tmp_path / "bad.gguf"
    cut = [good[:n] for n in (0, 3, 30, 500, 5000, len(good) - 40_000)]
    changed = []
    for at in rng.integers(0, 3000, 40):
        data = bytearray(good)
        data[at] ^= int(rng.integers(1, 256))
        changed.append(bytes(data))
    refused = 0
    for data in itertools.chain(cut, changed):
        bad.write_bytes(data)
        try:
            convert(bad, tmp_path / "out", to="minillm")
        except ValueError as error:
            refused += 1
            assert "bad.gguf" in str(error) and not (tmp_path / "out").exists()
        else:  # a letter of a token, or of a name
            convert(tmp_path / "out", tmp_path / "again", to="minillm")
            for folder in ("out", "again"):
                for file in (tmp_path / folder).iterdir():
                    file.unlink()
    assert refused >= len(cut)
