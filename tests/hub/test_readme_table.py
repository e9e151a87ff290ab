"""The README's table of what loads and what is refused: every entry of every cell is tried.

A row's first cell names one thing or several, cut at commas; the other two list what is tried with each of them. A new
row, or an entry of one, needs its check, by the same words, below or in readme_texts.py, and a check needs its entry. A
refusal must name what stands in `backticks` in its entry. "—" says that there is nothing to try.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hf_models import FAMILIES, IDS, LLAMA3, build, torch, transformers
from readme_texts import TEXT, TEXTS_LOAD, TEXTS_REFUSED, config_json

from minillm.finetune.lora import LoraConfig, add_lora
from minillm.hub import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)
from minillm.hub.adapters import ADAPTER_CONFIG, save_adapter
from minillm.hub.checkpoint import open_checkpoint
from minillm.hub.configs import ARCHITECTURES
from minillm.hub.convert import convert
from minillm.models import MODELS, config_from_dict, config_to_dict
from minillm.tokenizers import BPETokenizer
from minillm.training.checkpoint import save_checkpoint

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
TABLE = README.partition("| what | loads | is refused, by name |\n")[2].partition("\n\n")[0]
ROWS = {cells[0]: cells[1:] for cells in (
    [cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines()[1:]
)}  # fmt: skip


def entries(cell):
    return [] if cell == "—" else cell.split(", ")


# --- models -----------------------------------------------------------------------------------------------------------

DECODERS = {
    "GPT-2": "gpt2", "Llama": "llama 3.1", "Mistral": "mistral", "Ministral": "ministral",
    "Qwen2": "qwen2 with windows", "Qwen2.5": "qwen2", "Qwen3": "qwen3", "Gemma 3 (text)": "gemma 3",
}  # fmt: skip
ENCODERS = {"BERT": "bert", "RoBERTa": "roberta", "XLM-R": "xlm-roberta", "DistilBERT": "distilbert"}
EXPERTS = {"Qwen3-MoE": "qwen3 moe", "gpt-oss": "gpt-oss"}
MODEL = {**DECODERS, **EXPERTS, **ENCODERS}
BARTS = {"BART": ("Bart", "ForConditionalGeneration"), "Marian": ("Marian", "MTModel")}


def beginning(name):
    """How the names of its classes in transformers begin."""
    return FAMILIES[MODEL[name]][0].removesuffix("Config").removesuffix("Text")


def compared(auto, theirs, folder, ids=IDS, **inputs):
    """What transformers computes in `folder` is what we compute."""
    theirs.save_pretrained(folder)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), **{key: torch.tensor(value) for key, value in inputs.items()})[0].numpy()
    found = auto.from_pretrained(folder)(ids, **inputs)
    found = found.last_hidden_state if getattr(found, "logits", None) is None else found.logits
    found = np.asarray(getattr(found, "data", found))
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max() + 1e-4


def head(*endings, auto, **settings):
    """A check that a model of one of these classes gives transformers' numbers."""

    def check(name, folder):
        cls = next(beginning(name) + ending for ending in endings if hasattr(transformers, beginning(name) + ending))
        text = "Text" * (name.startswith("Gemma"))
        cls = cls if not text or "CausalLM" in cls else cls.replace("Gemma3", "Gemma3Text")
        compared(auto, build(MODEL[name], cls=cls, pad_token_id=0, **settings), folder)

    return check


def rope(kind, **settings):
    def check(name, folder):
        values = {"rope_type": kind, "rope_theta": 300.0, **settings}
        compared(AutoModelForCausalLM, build("llama", rope_parameters=values), folder)

    return check


def bart(name, head=None, **settings):
    """A small model of transformers' with random weights."""
    family, ending = BARTS[name]
    sides = {f"{side}_{part}": n for side in ("encoder", "decoder")
             for part, n in {"layers": 1, "attention_heads": 2, "ffn_dim": 12}.items()}  # fmt: skip
    own = {"pad_token_id": 60, "decoder_start_token_id": 60, "eos_token_id": 0} if name == "Marian" else {}
    shape = {"vocab_size": 61, "d_model": 8, "max_position_embeddings": 24, "init_std": 0.5}
    config = getattr(transformers, f"{family}Config")(**{**shape, **sides, **own, **settings})
    return getattr(transformers, family + (head or ending))(config).eval()


def text_to_text(name, folder):
    compared(AutoModelForSeq2SeqLM, bart(name), folder, decoder_input_ids=IDS[:, :7])


def bart_reads(ending, auto, **settings):
    """A check of a BART that writes nothing: a text ends with its only token 2."""

    def check(name, folder):
        ids = np.where(IDS == 2, 3, IDS)
        ids[:, -1] = 2
        compared(auto, bart(name, ending, **settings), folder, ids)

    return check


TINY = {"vocab_size": 61, "context": 16, "n_layers": 1, "n_heads": 2, "d_model": 8, "d_ff": 12}
OWN = {
    "GPT": "gpt", "Llama": "llama", "Gemma": "gemma", "BERT": "bert", "LSTM": "lstm",
    "encoder–decoder": "encoder-decoder",
}  # fmt: skip


def saved(folder, values, tokenizer=None):
    """A new model of ours, written as a training run writes it."""
    config = config_from_dict(values)
    model = MODELS[config.model_type][1](config, np.random.default_rng(3)).eval()
    weights = {"model": model.state_dict(), "optimizer": {}}
    save_checkpoint(folder, config=config_to_dict(config), **weights, state={}, tokenizer=tokenizer)
    return model


def saved_run(name, folder):
    values = {**TINY, "dropout": 0.0, "model_type": OWN[name.removeprefix("runs of our own: ")]}
    values |= {"full_layers": [0]} if values["model_type"] == "gemma" else {}
    without = ("n_heads", "d_ff") if values["model_type"] == "lstm" else ()
    return saved(folder / "best", {key: value for key, value in values.items() if key not in without})


def own_run(name, folder):
    model = saved_run(name, folder)
    inputs = (IDS[:, :4], IDS[:, 4:7]) if model.config.task == "seq2seq" else (IDS,)
    assert np.array_equal(open_checkpoint(folder).model()(*inputs).data, model(*inputs).data)


def base_model(folder):
    """A small Llama of transformers', saved."""
    theirs = build("llama")
    theirs.save_pretrained(folder)
    return theirs


def adapter(folder, **lora):
    base_model(folder / "base")
    model = open_checkpoint(folder / "base").model()
    add_lora(model, LoraConfig(3, targets="all-linear", **lora), np.random.default_rng(0))
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("lora_B"):
            parameter.data += 0.2
    save_adapter(model, folder / "adapter", folder / "base")
    return model(IDS).data


def plain_adapter(name, folder, **lora):
    expected = adapter(folder, **lora)
    assert np.array_equal(open_checkpoint(folder / "adapter").model()(IDS).data, expected)


def whole_modules(name, folder):
    build("llama", cls="LlamaForSequenceClassification", num_labels=3, pad_token_id=0).save_pretrained(folder / "base")
    model = open_checkpoint(folder / "base").model()
    add_lora(model, LoraConfig(3, targets="all-linear"), np.random.default_rng(0))
    model.score.weight.data[...] = 0.5
    save_adapter(model, folder / "adapter", folder / "base")
    assert json.loads((folder / "adapter" / ADAPTER_CONFIG).read_text(encoding="utf-8"))["modules_to_save"] == ["score"]
    assert np.array_equal(open_checkpoint(folder / "adapter").model()(IDS).data, model(IDS).data)


GROUPED = {**TINY, "d_model": 64, "d_ff": 96, "model_type": "llama", "n_kv_heads": 1}
IN_GGUF = {
    "GPT-2": ("gpt2", {**TINY, "d_model": 64, "model_type": "gpt"}), "Llama": ("gpt4", GROUPED),
    "Qwen2": ("qwen2", {**GROUPED, "qkv_bias": True}), "Qwen3": ("qwen2", {**GROUPED, "qk_norm": True}),
}  # fmt: skip


def gguf(kind, dtype=None):
    def check(name, folder):
        pytest.importorskip("gguf", reason="GGUF files need the package gguf")
        pattern, values = IN_GGUF[kind]
        tokenizer = BPETokenizer.train([TEXT], 300, pattern=pattern, special_tokens=["<|endoftext|>"])
        model = saved(folder / "run", {**values, "vocab_size": tokenizer.vocab_size}, tokenizer)
        convert(folder / "run", folder / "model.gguf", to="gguf", dtype=dtype)
        convert(folder / "model.gguf", folder / "back", to="minillm")
        found, expected = open_checkpoint(folder / "back").model()(IDS).data, model(IDS).data
        assert np.abs(found - expected).max() <= (0.1 if dtype else 0) * np.abs(expected).max()

    return check


IN_KERAS = {
    "GPT-2": {"model_type": "gpt"}, "BERT": {"model_type": "bert"}, "DistilBERT": {"family": "distilbert"},
    "RoBERTa": {"family": "roberta", "pad_id": 60, "token_types": 1},
}  # fmt: skip


def keras(kind):
    def check(name, folder):
        if name != "Keras":
            return  # how it is done, which is no second thing to try
        keras = pytest.importorskip("keras", reason="Keras models need the extra [keras]")
        model = saved(folder / "run", {**TINY, "dropout": 0.0, "model_type": "bert", **IN_KERAS[kind]})
        convert(folder / "run", folder / "keras", to="keras")
        inputs = {"input_ids": IDS, "attention_mask": 0 * IDS + 1, "token_type_ids": 0 * IDS}
        opened = keras.saving.load_model(folder / "keras" / "model.keras")
        found = opened({name: inputs[name] for name in opened.input} if isinstance(opened.input, dict) else IDS)
        assert np.abs(keras.ops.convert_to_numpy(found) - model(IDS).data).max() < 1e-5
        convert(folder / "keras", folder / "back", to="minillm")
        assert np.array_equal(open_checkpoint(folder / "back").model()(IDS).data, model(IDS).data)

    return check


def stored_as(dtype=None, **how):
    def check(name, folder):
        theirs = build("llama")
        theirs = theirs.to(getattr(torch, dtype)) if dtype else theirs
        theirs.save_pretrained(folder, **how)
        assert (folder / "model.safetensors.index.json").exists() == bool(how)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            expected = theirs(torch.tensor(IDS)).logits.numpy()
        assert np.abs(AutoModelForCausalLM.from_pretrained(folder)(IDS).logits - expected).max() < 1e-4

    return check


HEADS = {
    "next token": head("ForCausalLM", "LMHeadModel", auto=AutoModelForCausalLM),
    "classes": head("ForSequenceClassification", auto=AutoModelForSequenceClassification, num_labels=3),
    "features": head("Model", auto=AutoModel),
}
LOADS = {
    ", ".join(DECODERS): HEADS,
    ", ".join(EXPERTS): HEADS,
    "rotary positions": {
        "`default`": rope("default"),
        "`linear`": rope("linear", factor=2.0),
        "`dynamic`": rope("dynamic", factor=2.0),
        "`yarn`": rope("yarn", factor=4.0, original_max_position_embeddings=16),
        "`llama3`": rope(**{("kind" if key == "rope_type" else key): value for key, value in LLAMA3.items()}),
    },
    ", ".join(ENCODERS): {
        "hidden tokens": head("ForMaskedLM", auto=AutoModelForMaskedLM),
        "classes": head("ForSequenceClassification", auto=AutoModelForSequenceClassification, num_labels=3),
        "features": head("Model", auto=AutoModel),
    },
    "BART": {
        "text to text": text_to_text,
        "classes": bart_reads("ForSequenceClassification", AutoModelForSequenceClassification, num_labels=3),
        "features": bart_reads("Model", AutoModel),
    },
    "Marian": {"text to text": text_to_text},
    "runs of our own: " + ", ".join(OWN): {"the run folder": own_run},
    "LoRA adapters in PEFT's format": {
        "plain": plain_adapter,
        "rank-stabilized": lambda name, folder: plain_adapter(name, folder, rslora=True),
        "with whole modules": whole_modules,
    },
    "GGUF, by `minillm convert`": {
        **{kind: gguf(kind) for kind in IN_GGUF}, "8 bits": gguf("GPT-2", "q8_0"),
    },
    "Keras, by `minillm convert`": {kind: keras(kind) for kind in IN_KERAS},
    "weights": {
        "safetensors": stored_as(), "shards": stored_as(max_shard_size="3KB"), "float32": stored_as("float32"),
        "bfloat16": stored_as("bfloat16"), "float16": stored_as("float16"),
    },
    **TEXTS_LOAD,
}  # fmt: skip

# --- refusals: what is tried, and what the message says ---------------------------------------------------------------


def changed(says, **changes):
    """The model's folder, with these entries of config.json instead."""

    def attempt(name, folder):
        build(MODEL.get(name, "llama")).save_pretrained(folder)
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config_json(folder, **{**values, **{key: value for key, value in changes.items() if key in values}})
        open_checkpoint(folder)

    return attempt, says


def architecture(kind):
    def attempt(name, folder):
        config_json(folder, model_type=kind, architectures=["SomeModel"])
        open_checkpoint(folder)

    return attempt, "is not an architecture that minillm has"


def other_head(ending):
    def attempt(name, folder):
        build(MODEL[name], cls=beginning(name) + ending).save_pretrained(folder)
        open_checkpoint(folder)

    return attempt, f"{ending}'] is not supported"


def longrope(name, folder):
    factors = {"short_factor": [1.0] * 3, "long_factor": [2.0] * 3, "factor": 2.0}
    values = {"rope_type": "longrope", "rope_theta": 300.0, "original_max_position_embeddings": 16, **factors}
    build("llama", rope_parameters=values).save_pretrained(folder)
    open_checkpoint(folder)


def bart_head(head):
    def attempt(name, folder):
        bart(name, head).save_pretrained(folder)
        open_checkpoint(folder)

    return attempt, f"{head}'] is not supported"


def two_widths(name, folder):
    bart(name, decoder_ffn_dim=41).save_pretrained(folder)
    open_checkpoint(folder)


def another_head(name, folder):
    saved_run(name, folder)
    AutoModel.from_pretrained(folder)


def changed_adapter(**changes):
    def attempt(name, folder):
        adapter(folder)
        values = json.loads((folder / "adapter" / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        config_json(folder / "adapter", ADAPTER_CONFIG, **{**values, **changes})
        open_checkpoint(folder / "adapter")

    return attempt, ADAPTER_CONFIG


def other_gguf(name, folder):
    writer = pytest.importorskip("gguf").GGUFWriter(folder / "m.gguf", "gemma3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    convert(folder / "m.gguf", folder / "out", to="minillm")


def llama_to_keras(name, folder):
    saved_run("runs of our own: Llama", folder / "run")
    convert(folder / "run", folder / "out", to="keras")


def pickled(name, folder):
    base_model(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    open_checkpoint(folder)


def integers(name, folder):
    from safetensors.numpy import load_file, save_file

    base_model(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.norm.weight": np.zeros(12, np.int8)}, folder / "model.safetensors")
    open_checkpoint(folder).model()


def quantized(how):
    def attempt(name, folder):
        config_json(
            folder, **build(MODEL.get(name, "llama")).config.to_dict(), quantization_config={"quant_method": how}
        )
        open_checkpoint(folder)

    return attempt, "minillm reads floats"


def remote_code(name, folder):
    base_model(folder)
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)


ACTIVATIONS = {"activation_function": "relu", "hidden_act": "relu", "hidden_activation": "relu"}
TWO_WIDTHS = (two_widths, "no encoder-decoder of two widths")
REFUSED = {
    ", ".join(DECODERS): {"another activation": changed("which must be", **ACTIVATIONS)},
    ", ".join(EXPERTS): {"`mxfp4`": quantized("mxfp4")},
    "rotary positions": {"`longrope`": (longrope, "is not supported")},
    ", ".join(ENCODERS): {
        "a class for each token": other_head("ForTokenClassification"),
        "a span of the text": other_head("ForQuestionAnswering"),
    },
    "BART": {"two widths in one model": TWO_WIDTHS, "a span of the text": bart_head("ForQuestionAnswering")},
    "Marian": {"two widths in one model": TWO_WIDTHS, "`MarianModel`": bart_head("Model")},
    "runs of our own: " + ", ".join(OWN): {"another head": (another_head, "convert it first")},
    "other architectures": {f"`{kind}`": architecture(kind) for kind in ("t5", "mamba", "gemma2", "phi3", "mixtral")},
    "LoRA adapters in PEFT's format": {
        "`use_dora`": changed_adapter(use_dora=True), "`IA3`": changed_adapter(peft_type="IA3"),
    },
    "GGUF, by `minillm convert`": {"`gemma3` and others": (other_gguf, "can be read")},
    "Keras, by `minillm convert`": {"`llama` and others": (llama_to_keras, "has no twin in Keras")},
    "weights": {
        "pickles such as `pytorch_model.bin`": (pickled, "a pickle"), "integers": (integers, "I8"),
        **{f"`{how}`": quantized(how) for how in ("gptq", "awq", "bitsandbytes")},
        "code beside them (`trust_remote_code`)": (remote_code, "Only False is accepted"),
    },
    **TEXTS_REFUSED,
}  # fmt: skip


def test_every_entry_has_its_check_and_every_check_its_entry():
    assert 10 < len(ROWS) <= 20
    for column, checks in enumerate((LOADS, REFUSED)):
        wanted = {(row, entry) for row, cells in ROWS.items() for entry in entries(cells[column])}
        assert wanted == {(row, entry) for row, found in checks.items() for entry in found}
    listed = {beginning(name) for name in MODEL} | {family for family, _ in BARTS.values()}
    assert listed == {architecture.family for architecture in ARCHITECTURES.values()}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # TensorFlow's own
@pytest.mark.parametrize(("row", "entry"), [(row, entry) for row, found in LOADS.items() for entry in found])
def test_what_is_said_to_load_does(row, entry, tmp_path):
    for number, name in enumerate(entries(row)):
        (folder := tmp_path / str(number)).mkdir()
        LOADS[row][entry](name, folder)


@pytest.mark.parametrize(("row", "entry"), [(row, entry) for row, found in REFUSED.items() for entry in found])
def test_what_is_said_to_be_refused_is_refused_by_name(row, entry, tmp_path):
    attempt, says = REFUSED[row][entry]
    for number, name in enumerate(entries(row)):
        (folder := tmp_path / str(number)).mkdir()
        with pytest.raises((ValueError, TypeError)) as error:
            attempt(name, folder)
        for word in (says, *re.findall("`(.+?)`", entry)):
            assert word in str(error.value)
