"""Whatever is in a file of a checkpoint or a run, the answer is its content, or a ValueError or OSError that names it.

`python -m pytest -m long -s tests/hub/test_fuzz.py` reads 100,000 mutations with each reader (FUZZ_CASES: another
number) and prints what came of it.
"""

import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if os.name != "posix":
    pytest.skip("time limits by signals", allow_module_level=True)

from fuzz import folder_in_memory, fuzz, report
from sentencepiece_models import marian_folder, trained
from shards import cut

from minillm.data import Batcher, Document, TokenDataset, pack
from minillm.engines.numpy_engine import NumpyEngine
from minillm.finetune.lora import LoraConfig, add_lora
from minillm.hub import AutoModelForCausalLM, AutoTokenizer, PretrainedModel
from minillm.hub.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, save_adapter
from minillm.hub.checkpoint import open_checkpoint
from minillm.models import GPT, GPTConfig, LlamaConfig, LSTMConfig, config_to_dict, model_from_config
from minillm.models.bert import BertConfig
from minillm.models.classifier import ClassifierConfig
from minillm.models.encoder_decoder import EncoderDecoderConfig
from minillm.settings import TrainConfig
from minillm.tokenizers import BPETokenizer, CharTokenizer, WordPieceTokenizer, load_tokenizer
from minillm.tokenizers.gpt2_files import save_gpt2
from minillm.training.checkpoint import save_checkpoint
from minillm.training.health import examine
from minillm.training.pretrain import build_config, read_config
from minillm.training.run_folder import RunState, restore
from minillm.training.run_log import read_metrics
from minillm.training.saving import Saver

CASES = int(os.environ.get("FUZZ_CASES", "100_000"))
TEXT = "The boat left at dawn. Café, 船 and e\u0301 were on board, said he's <|endoftext|>"
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8, "beta_fast": 32}
GPT2 = GPTConfig(vocab_size=31, context=8, n_layers=2, n_heads=2, d_model=8)
LLAMA = LlamaConfig(31, 16, 2, 2, 1, 8, d_ff=12, rope_scaling=YARN)
BERT = BertConfig(31, 8, 2, 2, 8, 12, head="classification", n_labels=3)
SEVERAL = EncoderDecoderConfig(31, None, 8, 2, 2, 8, 12)
LABELS = ClassifierConfig(LlamaConfig(31, 16, 1, 2, 1, 8, d_ff=12, tie_embeddings=True), 3)
MESSAGES = [{"role": "user", "content": "Where is the boat?"}, {"role": "assistant", "content": "At sea."}]
TEMPLATE = (
    "{% set ns = namespace(n=0) %}{% for m in messages if m.role %}{% set ns.n = ns.n + 1 %}"
    "{{ '<|' ~ m['role'] ~ '|>' }}{% generation %}{{ m.content | trim }}{% endgeneration %}"
    "{% if loop.last %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% macro twice(x) %}{{ x * 2 }}{% endmacro %}{{ twice(ns.n) }}{{ messages | tojson }}"
    "{% for i in range(3) %}{{ '%5d' % i }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
Files = dict[str, bytes]


def files_of(folder: Path, *names: str) -> Files:
    """The contents of these files, which go; the others stay as they are."""
    contents = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    return contents


def checkpoint_files(config: Any, names: tuple[str, ...], folder: Path, shards: bool = False) -> Files:
    model = model_from_config(config, np.random.default_rng(1))
    PretrainedModel(model, config.task).save_pretrained(folder, max_shard_size="2KB" if shards else "5GB")
    return files_of(folder, *(names or [path.name for path in sorted(folder.glob("model*"))]))


def native_files(config: Any, folder: Path) -> Files:
    weights = model_from_config(config, np.random.default_rng(1)).state_dict()
    save_checkpoint(folder / "last", config=config_to_dict(config), model=weights, optimizer={}, state={})
    return files_of(folder, "last/config.json")


def read_model(folder: Path) -> None:
    open_checkpoint(folder).model()


def adapter_files(name: str, folder: Path) -> Files:
    model = GPT(GPT2, np.random.default_rng(1))
    PretrainedModel(model).save_pretrained(folder / "base")
    add_lora(model, LoraConfig(2), np.random.default_rng(1))
    save_adapter(model, folder / "adapter", folder / "base")
    return files_of(folder, f"adapter/{name}")


def read_adapted(folder: Path) -> None:
    open_checkpoint(folder / "adapter", local_files_only=True).model()


def generation_files(folder: Path) -> Files:
    checkpoint_files(GPT2, ("config.json",), folder)
    model = PretrainedModel(GPT(GPT2))
    model.save_pretrained(folder)
    values = {"eos_token_id": [3, 4], "max_length": 9, "do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9}
    return {"generation_config.json": json.dumps({**values, "repetition_penalty": 1.1, "pad_token_id": 0}).encode()}


def read_generation(folder: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folder)


def bpe() -> BPETokenizer:
    text = "The boat left at dawn at dawn, the boat"
    return BPETokenizer.train([text], 270, pattern="gpt2", special_tokens=["<|endoftext|>"])


def wordpiece() -> WordPieceTokenizer:
    return WordPieceTokenizer.train(["The boat left at dawn at dawn, the boat"], 60)


def tokenizer_files(make: Callable[[], Any], folder: Path) -> Files:
    make().save(folder)
    return files_of(folder, "tokenizer.json")


def gpt2_files(folder: Path) -> Files:
    save_gpt2(bpe(), folder)
    return files_of(folder, "vocab.json", "merges.txt")


def vocab_files(folder: Path) -> Files:
    return {"vocab.txt": "".join(f"{token}\n" for token in wordpiece().vocab).encode()}


def read_core(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.fingerprint()
    tokenizer.special_tokens.get(tokenizer.end_of_text)
    try:
        tokenizer.encode_pair(TEXT, allowed_special="all")
    except ValueError as error:  # of the text: a character without an id
        assert "has no id" in str(error), error
    tokenizer.decode([token_id for token_id, token in enumerate(tokenizer.tokens[:300]) if token is not None])


def small_files(folder: Path) -> Files:
    config = {
        "tokenizer_class": "Qwen2Tokenizer", "model_max_length": 512, "padding_side": "left", "eos_token": "<|end|>",
        "added_tokens_decoder": {"270": {"content": "<|end|>", "special": True, "lstrip": False, "normalized": False}},
        "extra_special_tokens": ["<|image|>"], "clean_up_tokenization_spaces": False, "chat_template": TEMPLATE,
    }  # fmt: skip
    save_gpt2(bpe(), folder)
    return {"tokenizer_config.json": json.dumps(config).encode(), "special_tokens_map.json": b'{"pad_token": "<|p|>"}'}


def bert_files(folder: Path) -> Files:
    (folder / "vocab.txt").write_bytes(vocab_files(folder)["vocab.txt"])
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": None, "cls_token": "[CLS]"}
    roles = {"unk_token": "[UNK]", "pad_token": {"content": "[PAD]", "lstrip": False}, "mask_token": "[MASK]"}
    added = {"<a>": len(wordpiece().vocab)}
    named = {"tokenizer_config.json": config, "special_tokens_map.json": roles, "added_tokens.json": added}
    return {name: json.dumps(content).encode() for name, content in named.items()}


def marian_files(folder: Path) -> Files:
    marian_folder(folder)
    return files_of(folder, "source.spm", "vocab.json", "tokenizer_config.json")


def model_files(folder: Path) -> Files:
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    return {"tokenizer.model": trained("llama")}


def read_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer(TEXT)
    repr(tokenizer), len(tokenizer), tokenizer.all_special_ids


def template_files(folder: Path) -> Files:
    tokenizer_files(bpe, folder)
    bpe().save(folder)
    return {"chat_template.jinja": TEMPLATE.encode()}


def read_template(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)


@dataclass
class Run:
    """A small run, to be taken up again."""

    config = TrainConfig(max_steps=4, batch_size=2)

    def __init__(self, folder: Path) -> None:
        pack([Document(TEXT, "1")], Bytes(), folder / "made.bin")
        self.data = TokenDataset(folder / "made.bin")
        self.engine = NumpyEngine(GPT(GPTConfig(257, 4, 1, 1, 2)), self.config)
        self.batcher = Batcher(self.data, 2, 4, seed=1)


class Bytes:
    vocab_size, eos_id = 257, 256

    def encode(self, text: str, *, disallowed_special: tuple[str, ...]) -> list[int]:
        return list(text.encode())

    def fingerprint(self) -> str:
        return "bytes"


def run_files(names: tuple[str, ...], folder: Path) -> Files:
    run = Run(folder)
    run.engine.forward_backward([run.batcher.next()])
    run.engine.clip_gradients(1.0)
    run.engine.step(1e-3)
    Saver(run.engine, run.batcher, run.config, None).save(folder / "last", RunState(1, 8, 8, 0.1, 5.0, 1))
    rows = [{"step": i, "loss": 5.0 - i / 9, "lr": 1e-3, "grad_norm": 1.0, "tokens": 8 * i} for i in range(1, 30)]
    rows.append({"step": 30, "val_loss": 4.0, "val_perplexity": None, "best": True})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return files_of(folder, *names)


def read_run(folder: Path, verify: bool = True) -> None:
    if not hasattr(read_run, "run"):
        read_run.run = Run(folder)  # type: ignore[attr-defined]
    run: Run = read_run.run  # type: ignore[attr-defined]
    restore(folder, run.engine, run.batcher, run.config, None, verify)


def cut_files(folder: Path) -> Files:
    run_files((), folder)
    cut(folder / "last", [40])
    return files_of(folder, *(f"last/{path.name}" for path in sorted((folder / "last").glob("shard-*"))))


def read_shards(folder: Path) -> None:
    """By both readers, without checksums."""
    read_run(folder, verify=False)
    open_checkpoint(folder / "last").model(verify=False)


def read_log(folder: Path) -> None:
    for row in read_metrics(folder / "metrics.jsonl"):
        assert row["step"] <= 10**18
    str(examine(folder))


def toml_files(folder: Path) -> Files:
    bpe().save(folder)
    text = f'[data]\ncorpus = "c"\ntokenizer = "{folder}"\n[model]\nmodel_type = "llama"\nn_layers = 2\nn_heads = 2\n'
    text += "d_model = 64\ncontext = 64\ntie_embeddings = true\nrope_theta = 1e4\n"
    return {"config.toml": (text + "[train]\nlr = 1e-3\nmax_steps = 9\n[engine]\nthreads = 1\n").encode()}


def read_settings(folder: Path) -> None:
    sections = read_config(folder / "config.toml")
    sections.setdefault("data", {})["tokenizer"] = str(folder)
    try:
        build_config(sections)
    except ValueError as error:
        raise ValueError(f"config.toml: {error}") from error  # the command says it so


def tuned_files(folder: Path) -> Files:
    return {"tuned.json": b'{"forward 16-bit head 64": [128, 64, 4, 3], "dq 32-bit head 16": [32, 16, 4, 2]}'}


def read_tuned_file(folder: Path) -> None:
    read_tuned = pytest.importorskip("minillm.kernels.configs").read_tuned
    read_tuned(folder / "tuned.json")


CONFIG = ("config.json",)
READERS: dict[str, tuple[Callable[[Path], Files], Callable[[Path], None]]] = {
    "config.json, GPT-2": (partial(checkpoint_files, GPT2, CONFIG), read_model),
    "config.json, Llama": (partial(checkpoint_files, LLAMA, CONFIG), read_model),
    "config.json, BERT": (partial(checkpoint_files, BERT, CONFIG), read_model),
    "config.json, encoder-decoder": (partial(checkpoint_files, SEVERAL, CONFIG), read_model),
    "config.json, classifier": (partial(checkpoint_files, LABELS, CONFIG), read_model),
    "config.json, native Llama": (partial(native_files, LLAMA), read_model),
    "config.json, native classifier": (partial(native_files, LABELS), read_model),
    "config.json, LSTM": (partial(checkpoint_files, LSTMConfig(31, 8, 2, 8), CONFIG), read_model),
    "model.safetensors": (partial(checkpoint_files, GPT2, ("model.safetensors",)), read_model),
    "shards and index": (partial(checkpoint_files, GPT2, (), shards=True), read_model),
    "adapter_config.json": (partial(adapter_files, ADAPTER_CONFIG), read_adapted),
    "adapter_model.safetensors": (partial(adapter_files, ADAPTER_WEIGHTS), read_adapted),
    "generation_config.json": (generation_files, read_generation),
    "tokenizer.json, BPE": (partial(tokenizer_files, bpe), read_core),
    "tokenizer.json, WordPiece": (partial(tokenizer_files, wordpiece), read_core),
    "tokenizer.json, characters": (partial(tokenizer_files, lambda: CharTokenizer.train([TEXT])), read_core),
    "vocab.json and merges.txt": (gpt2_files, read_core),
    "vocab.txt": (vocab_files, read_core),
    "tokenizer_config.json and others, Qwen": (small_files, read_tokenizer),
    "tokenizer_config.json and others, BERT": (bert_files, read_tokenizer),
    **(
        {"Marian's tokenizer": (marian_files, read_tokenizer), "tokenizer.model": (model_files, read_tokenizer)}
        if find_spec("sentencepiece")
        else {}
    ),
    "chat_template.jinja": (template_files, read_template),
    "state.json": (partial(run_files, ("last/state.json", "last/config.json")), read_run),
    "a checkpoint's arrays": (
        partial(run_files, ("last/model.safetensors", "last/optimizer.safetensors")),
        partial(read_run, verify=False),  # a checksum would refuse them all
    ),
    "a checkpoint's shards": (cut_files, read_shards),
    "metrics.jsonl": (partial(run_files, ("metrics.jsonl", "last/state.json")), read_log),
    "config.toml": (toml_files, read_settings),
    "tuned kernels": (tuned_files, read_tuned_file),
}


def quietly(reader: Callable[[Path], None], folder: Path) -> None:
    """A warning about a strange file is no fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader(folder)


@pytest.mark.parametrize("name", READERS)
def test_mutated_files(name: str) -> None:
    files, reader = READERS[name]
    with folder_in_memory() as folder:
        fuzz(partial(quietly, reader), files(folder), folder, 300)


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_campaign(name: str) -> None:
    files, reader = READERS[name]
    began = time.monotonic()
    with folder_in_memory() as folder:
        report(name, fuzz(partial(quietly, reader), files(folder), folder, CASES, first=1_000_000), began)
