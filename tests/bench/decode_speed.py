"""How fast text is generated, beside transformers and llama.cpp, and beside what the memory allows: see cpu.py.

    python tests/bench/cpu.py --only decode

A peer that is not installed is left out, and that is said. Models have random weights, which changes no time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from cpu import Row, interleave

from minillm.generate import Sampling, generate
from minillm.models import GPT, GPTConfig, config_to_dict
from minillm.models.int8 import quantize_int8
from minillm.tokenizers import BPETokenizer
from minillm.training.checkpoint import save_checkpoint

GREEDY = Sampling(temperature=0)
SHAPES = {  # vocabulary, context, layers, heads, features; new tokens; goals beside transformers and llama.cpp
    "4 layers x 128": ((1024, 256, 4, 4, 128), 100, (5.0, 0.6)),
    "6 layers x 384": ((4096, 256, 6, 6, 384), 100, (3.0, 0.6)),
    "GPT-2 124M": ((50257, 1024, 12, 12, 768), 40, (2.3, 0.9)),
}
PROMPT = list(range(1, 33))


def make(shape: tuple[int, ...], **changes: int) -> GPT:
    names = ("vocab_size", "context", "n_layers", "n_heads", "d_model")
    return GPT(GPTConfig(**{**dict(zip(names, shape)), **changes})).eval()


def transformers_model(model: GPT) -> Any:
    """A GPT-2 of transformers of the same shape."""
    from transformers import GPT2Config, GPT2LMHeadModel

    c = model.config
    shape = {"vocab_size": c.vocab_size, "n_positions": c.context, "n_embd": c.d_model, "n_layer": c.n_layers}
    return GPT2LMHeadModel(GPT2Config(**shape, n_head=c.n_heads, bos_token_id=0, eos_token_id=None)).eval()


def their_generate(theirs: Any, prompts: list[list[int]], n: int) -> None:
    """Greedily, with a cache; prompts of different lengths padded on the left."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    theirs.generate(ids, attention_mask=mask, max_new_tokens=n, do_sample=False, pad_token_id=0)


def llama_cpp(model: GPT, folder: Path) -> Callable[[list[int], int], Any]:
    """llama.cpp with the same weights as float32, its cache too, on two threads: prompt, n -> its answer."""
    import xllamacpp

    from minillm.hub.convert import convert

    tokenizer = BPETokenizer.train(["a few words, a few words"], 258, pattern="gpt2", special_tokens=["<|endoftext|>"])
    arrays = {"model": model.state_dict(), "optimizer": {}}
    save_checkpoint(folder / "run", config=config_to_dict(model.config), **arrays, state={}, tokenizer=tokenizer)
    (file,) = convert(folder / "run", folder / "model.gguf", to="gguf")
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.n_parallel = str(file), model.config.context, 1
    parameters.cpuparams.n_threads, parameters.cpuparams_batch.n_threads, parameters.verbosity = 2, 2, -1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(parameters)

    def ask(prompt: list[int], n: int) -> Any:
        asked = {"prompt": prompt, "n_predict": n, "temperature": 0, "cache_prompt": False, "ignore_eos": True}
        return server.handle_completions(asked)

    return ask


def missing(*packages: str) -> str | None:
    """What to say of the packages that are not installed; None if all are."""
    absent = [name for name in packages if find_spec(name) is None]
    return f"decode: left out what needs {', '.join(absent)}: not installed." if absent else None


def bench_decode(repeats: int) -> Iterator[Row | str]:
    turns = max(repeats // 4, 3)
    for name, (shape, n, goals) in SHAPES.items():
        model = make(shape)

        ours = partial(generate, model, [PROMPT], max_new_tokens=n, sampling=GREEDY)
        if (absent := missing("torch", "transformers")) is None:
            times = interleave(ours, partial(their_generate, transformers_model(model), [PROMPT], n), turns)
            yield Row(f"decode {name}", *times, "transformers", "tok/s", n, goals[0])
        else:
            yield absent
        if (absent := missing("xllamacpp", "gguf")) is None:
            with tempfile.TemporaryDirectory() as folder:
                ask = llama_cpp(model, Path(folder))
                times = interleave(ours, partial(ask, PROMPT, n), turns)
                yield Row(f"decode {name}", *times, "llama.cpp", "tok/s", n, goals[1])
                del ask
        else:
            yield absent
    yield from bench_memory(model, turns)
    yield from bench_batch(turns)
    yield from bench_torch(turns)


def bench_memory(model: GPT, turns: int) -> Iterator[Row | str]:
    """124M parameters: beside one large product of a matrix and a vector, and with weights of 8 bits."""
    n = 20
    table = model.token_embedding.weight.data
    n_bytes = sum(p.data.nbytes for p in model.parameters()) - model.position_embedding.weight.data.nbytes
    x, y = np.ones(table.shape[1], np.float32), np.empty(len(table), np.float32)
    read = n * n_bytes / table.nbytes  # how many such products read as many bytes

    def generated(written: Any = model) -> None:
        generate(written, [[1]], max_new_tokens=n, sampling=GREEDY)

    ours, one = interleave(generated, lambda: np.dot(table, x, out=y), turns)
    yield Row("decode GPT-2 124M, share of the bandwidth", ours, one * read, "its products", "tok/s", n, 0.9)
    small = quantize_int8(make(SHAPES["GPT-2 124M"][0]))
    yield Row("decode GPT-2 124M, int8", *interleave(lambda: generated(small), generated, turns), "our fp32", "tok/s",
              n, 1.3)  # fmt: skip
    if absent := missing("torch"):
        yield absent
        return
    from minillm.port import to_torch

    small, whole = to_torch(small), to_torch(model)
    times = interleave(lambda: generated(small), lambda: generated(whole), turns)
    yield Row("decode GPT-2 124M, int8 on torch", *times, "our torch fp32", "tok/s", n, 3.0)


def bench_batch(turns: int) -> Iterator[Row | str]:
    """16 prompts of 4 to 100 tokens, 64 new ones each; and the first token after 900."""
    if absent := missing("torch", "transformers"):
        yield absent
        return
    lengths = np.random.default_rng(0).integers(4, 101, 16)
    prompts = [[1 + i % 1000 for i in range(length)] for length in lengths]
    for name, goal in {"4 layers x 128": 2.0, "6 layers x 384": 2.0}.items():
        model = make(SHAPES[name][0])
        ours = partial(generate, model, prompts, max_new_tokens=64, sampling=GREEDY)
        times = interleave(ours, partial(their_generate, transformers_model(model), prompts, 64), turns)
        yield Row(f"decode {name}, 16 prompts", *times, "transformers", "tok/s", 16 * 64, goal)
    model = make(SHAPES["6 layers x 384"][0], context=1024)
    long = [[1 + i % 4000 for i in range(900)]]
    ours = partial(generate, model, long, max_new_tokens=1, sampling=GREEDY)
    times = interleave(ours, partial(their_generate, transformers_model(model), long, 1), turns)
    yield Row("first token after 900, 6 layers x 384", *times, "transformers", "tok/s", 900, 1.5)


def bench_torch(turns: int) -> Iterator[Row | str]:
    """Our models on PyTorch: texts that each have their own place in a static cache, as they are and with compiled
    steps, beside the cache that grows. Compiling, done before, takes a minute or more for the largest."""
    if absent := missing("torch"):
        yield absent
        return
    from minillm.models.decoding_torch import CompiledDecoder
    from minillm.port import to_torch

    lengths = np.random.default_rng(0).integers(4, 101, 16)
    batch = [[1 + i % 1000 for i in range(length)] for length in lengths]
    for name, (shape, n, _) in SHAPES.items():
        model = to_torch(make(shape))
        compiled = CompiledDecoder(model)
        for what, prompts in ((name, [PROMPT]), (f"{name}, 16 prompts", batch)):
            if len(prompts) > 1 and name == "GPT-2 124M":
                continue
            how: dict[str, Any] = {"max_new_tokens": n, "sampling": GREEDY}
            growing = partial(generate, model, prompts, **how, plain=True)
            tokens = n * len(prompts)
            times = interleave(partial(generate, model, prompts, **how), growing, turns)
            yield Row(f"decode torch {what}, static", *times, "growing cache", "tok/s", tokens)
            times = interleave(partial(generate, compiled, prompts, **how), growing, turns)
            yield Row(f"decode torch {what}, compiled", *times, "growing cache", "tok/s", tokens)
