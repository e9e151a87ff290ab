"""Chapter 05's pictures and bookkeeping: its diagrams, short training runs, language models of equal size."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from minillm import nn, plot
from minillm.data import corpus_text
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.models.gpt import GPT, GPTConfig
from minillm.models.lstm import LSTM, LSTMConfig
from minillm.numpy_ops.cores import limit_blas_threads
from minillm.optim import AdamW, clip_grad_norm_
from minillm.settings import TrainConfig
from minillm.tensor import no_grad
from minillm.tokenizers import Tokenizer
from minillm.training import schedules
from minillm.training.baselines import NGramModel

from .scale import progress

MakeBatch = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
Results = dict[str, Any]

# --- diagrams ----------------------------------------------------------------------------------


def box(ax: Any, x: float, y: float, text: str, color: str, width: float = 0.9, height: float = 0.7) -> None:
    """A rounded box with a text, its middle at (x, y)."""
    from matplotlib.patches import FancyBboxPatch

    corner = (x - width / 2, y - height / 2)
    style = {"boxstyle": "round,pad=0.02,rounding_size=0.12", "facecolor": color, "edgecolor": plot.BLACK}
    ax.add_patch(FancyBboxPatch(corner, width, height, linewidth=1.2, zorder=3, **style))
    ax.text(x, y, text, ha="center", va="center", zorder=4)


def arrow(ax: Any, start: tuple[float, float], end: tuple[float, float], color: str = plot.BLACK) -> None:
    """A straight arrow."""
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style, zorder=2)


def line(ax: Any, *points: tuple[float, float], color: str = plot.BLACK) -> None:
    """A line through points."""
    ax.plot(*zip(*points), color=color, linewidth=1.6, zorder=2, solid_capstyle="round")


def drawing(width: float, height: float, size: float) -> tuple[Any, Any]:
    """An empty drawing whose units are as long in x as in y; `size` inches high."""
    figure, ax = plot.subplots(height=size)
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_aspect("equal")
    ax.axis("off")
    return figure, ax


def draw_unrolled(words: Sequence[str]) -> Any:
    """A recurrent network along a text: the same step at each token, the state handed on."""
    figure, ax = drawing(2.4 * len(words) + 1.2, 4.2, 2.8)
    ax.text(0.05, 2.1, "$h_0$", va="center", fontsize=12)
    for t, word in enumerate(words):
        x = 2.4 * t + 1.8
        ax.text(x, 0.3, word, ha="center", va="center", fontsize=11, family="monospace")
        arrow(ax, (x, 0.6), (x, 1.65))
        ax.text(x + 0.12, 1.05, f"$x_{t}$", fontsize=10)
        box(ax, x, 2.1, "step", plot.SKY, width=1.1, height=0.9)
        arrow(ax, (x - 1.2 if t == 0 else x - 1.8, 2.1), (x - 0.57, 2.1), plot.VERMILION)
        ax.text(x + 0.95, 2.25, f"$h_{t + 1}$", fontsize=10, color=plot.VERMILION)
        arrow(ax, (x, 2.55), (x, 3.35))
        ax.text(x, 3.7, f"guess {t + 1}", ha="center", va="center", fontsize=9)
    end = 2.4 * len(words)
    arrow(ax, (end - 0.03, 2.1), (end + 0.9, 2.1), plot.VERMILION)
    return figure


def draw_cell() -> Any:
    """One step of an LSTM: the cell's path along the top, the four gates below it."""
    figure, ax = drawing(11.6, 6.6, 4.0)
    path = plot.VERMILION
    ax.axvspan(1.3, 10.2, 0.06, 0.9, facecolor="#F4F4F4", edgecolor="#BBBBBB", zorder=0)
    for name, y in (("$c_t$", 5.2), ("$h_t$", 1.2)):
        ax.text(0.55, y, name, ha="center", va="center", fontsize=12)
    ax.text(11.1, 5.2, "$c_{t+1}$", ha="center", va="center", fontsize=12)
    ax.text(11.1, 1.2, "$h_{t+1}$", ha="center", va="center", fontsize=12)
    arrow(ax, (0.9, 5.2), (2.67, 5.2), path)
    arrow(ax, (3.33, 5.2), (5.17, 5.2), path)
    arrow(ax, (5.83, 5.2), (10.6, 5.2), path)
    line(ax, (0.9, 1.2), (7.6, 1.2))
    line(ax, (1.9, 0.1), (1.9, 1.2))
    ax.text(2.05, 0.12, "$x_t$", fontsize=12)
    for x, name, kind in ((3.0, "$f$", "σ"), (4.5, "$i$", "σ"), (6.2, "$g$", "tanh"), (7.6, "$o$", "σ")):
        arrow(ax, (x, 1.2), (x, 1.85))
        box(ax, x, 2.2, kind, plot.SKY)
        ax.text(x + 0.12, 2.68, name, fontsize=12)
    for x, y, sign in ((3.0, 5.2, "×"), (5.5, 5.2, "+"), (5.5, 3.6, "×"), (9.0, 3.1, "×")):
        box(ax, x, y, sign, "white", width=0.6, height=0.6)
    arrow(ax, (3.0, 2.57), (3.0, 4.88))
    for x, side in ((4.5, 5.17), (6.2, 5.83)):
        line(ax, (x, 2.57), (x, 3.6))
        arrow(ax, (x, 3.6), (side, 3.6))
    arrow(ax, (5.5, 3.92), (5.5, 4.88))
    arrow(ax, (9.0, 5.2), (9.0, 4.62))
    box(ax, 9.0, 4.25, "tanh", plot.YELLOW)
    arrow(ax, (9.0, 3.88), (9.0, 3.42))
    line(ax, (7.6, 2.57), (7.6, 3.1))
    arrow(ax, (7.6, 3.1), (8.67, 3.1))
    line(ax, (9.0, 2.78), (9.0, 1.2))
    arrow(ax, (9.0, 1.2), (10.6, 1.2))
    ax.text(6.9, 5.42, "no matrix on this path", fontsize=9, color=path)
    return figure


# --- gradients against distance ----------------------------------------------------------------


def plot_shrinking(panels: Mapping[str, Mapping[str, tuple]], title: str, lowest: float = 1e-12) -> Any:
    """Norms against the distance k, a panel each: {name: {label: (norms, factor of the theory)}}.

    A measured line is solid; factor**k is dashed, in its colour.
    """
    figure, axes = plot.subplots(1, len(panels), height=3.6, title=title, sharey=True, squeeze=False)
    for ax, (name, curves) in zip(axes[0], panels.items()):
        for (label, (norms, factor)), color in zip(curves.items(), plot.CYCLE):
            k = np.arange(len(norms))
            ax.semilogy(k, norms, color=color, label=label)
            ax.semilogy(k, float(factor) ** k, color=color, linestyle=(0, (2, 2)), linewidth=1.1)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("k, steps back from the loss")
        ax.legend(fontsize=8)
    top = max(np.max(norms) for curves in panels.values() for norms, _ in curves.values())
    axes[0, 0].set_ylim(lowest, 10 * top)
    axes[0, 0].set_ylabel("norm of the gradient\n(1 at k = 0)")
    return figure


# --- short runs on made-up tasks ---------------------------------------------------------------


def learn(model: Any, make_batch: MakeBatch, *, steps: int, lr: float, seed: int, size: int = 32) -> Any:
    """Train on `steps` fresh batches, as chapter 00 does: AdamW, gradients cut to norm 1, the rate falling to 5%."""
    rng = np.random.default_rng(seed)
    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    with limit_blas_threads(1):  # the products are so small that two threads would only wait for each other
        for step in range(steps):
            loss = model(*make_batch(rng, size))
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.param_groups[0]["lr"] = lr * schedules.linear(step, steps, warmup=20, final=0.05)
            optimizer.step()
    return model


def percent_right(model: Any, make_batch: MakeBatch, size: int = 400) -> float:
    """How many of the graded answers of fresh sequences are the model's likeliest token, in percent."""
    ids, targets = make_batch(np.random.default_rng(12345), size)
    with no_grad():
        likeliest = model(ids).data.argmax(axis=-1)
    return 100 * float((likeliest == targets)[targets != -100].mean())


def count_weights(model: Any) -> int:
    """Numbers that training moves."""
    return sum(p.data.size for p in model.parameters())


def small_gpt(vocabulary: int, context: int, seed: int, n_layers: int = 1, n_heads: int = 2, d_model: int = 28) -> GPT:
    """A GPT whose matrices start with standard deviation 1/√d_model, with which small ones learn best (chapter 06)."""
    config = GPTConfig(vocabulary, context, n_layers=n_layers, n_heads=n_heads, d_model=d_model)
    model = GPT(config, rng=np.random.default_rng(seed))
    for _, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.weight.data *= d_model**-0.5 / 0.02  # the library drew them with 0.02
    return model


def plot_scores(
    scores: Mapping[str, Mapping[Any, Sequence[float]]], xlabel: str, chance: float, title: str = ""
) -> Any:
    """Percent right of several kinds of model against a size: {kind: {size: one score for each start}}.

    Lines are means, dots single starts.
    """
    figure, ax = plot.subplots(height=3.4, title=title)
    sizes = list(next(iter(scores.values())))
    markers = "osD^v"
    for i, ((kind, by_size), color) in enumerate(zip(scores.items(), plot.CYCLE)):
        place = np.arange(len(sizes)) + 0.05 * (i - (len(scores) - 1) / 2)
        means = [np.mean(by_size[size]) for size in sizes]
        style = {"color": color, "marker": markers[i % 5], "markerfacecolor": "none", "markersize": 5}
        ax.plot(place, means, color=color, linewidth=1.4)
        ax.plot([], [], label=kind, linewidth=1.4, **style)
        for x, size in zip(place, sizes):
            ax.plot([x] * len(by_size[size]), by_size[size], linestyle="", **style)
    ax.axhline(chance, color=plot.BLACK, linestyle=":", linewidth=1.2, label="guessing")
    ax.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    ax.set_ylim(0, 105)
    ax.set_xlabel(xlabel)
    ax.set_ylabel("answers right (%)")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def print_scores(scores: Mapping[str, Mapping[Any, Sequence[float]]], name: str) -> None:
    """The same as a table: mean ± standard deviation over the starts."""
    sizes = list(next(iter(scores.values())))
    print(name.ljust(26), *(f"{size!s:>12s}" for size in sizes))
    for kind, by_size in scores.items():
        cells = []
        for size in sizes:
            values = np.asarray(by_size[size])
            spread = f" ± {values.std(ddof=1):4.1f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():5.1f}{spread}".rjust(12))
        print(kind.ljust(26), *cells)


# --- language models at equal parameters and tokens --------------------------------------------

# Both kinds have nearly as many weights and read the same stretches in the same order. Tried on seed 0 and the best
# kept: learning rates 0.003, 0.006, 0.012 (GPT) and 0.015, 0.03, 0.06 (LSTM); tables of standard deviation 0.1, 0.2,
# 0.4. The library's starts suit wider models: with them the LSTM is about 0.1, the GPT 0.2 bits per byte worse.
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 12, "batch": 8, "context": 32, "seeds": 1, "lstm": 32, "gpt": 24},
    "cpu": {"steps": 500, "batch": 8, "context": 64, "seeds": 3, "lstm": 88, "gpt": 64},
    "gpu": {"steps": 3000, "batch": 16, "context": 128, "seeds": 5, "lstm": 200, "gpt": 160},
}
RATES = {"LSTM": 0.03, "GPT": 0.006}
TABLE = 0.2  # standard deviation of the token table at the start


def language_model(kind: str, vocabulary: int, recipe: Mapping[str, Any], seed: int) -> Any:
    """An untrained model of that kind: an LSTM of one layer or a GPT of two, both with one table
    that reads and writes."""
    if kind == "GPT":
        model = small_gpt(vocabulary, recipe["context"], seed, n_layers=2, n_heads=4, d_model=recipe["gpt"])
        model.token_embedding.weight.data *= TABLE / 0.02  # the library drew it with 0.02
        return model
    shape = {"context": recipe["context"], "n_layers": 1, "d_model": recipe["lstm"], "tie_embeddings": True}
    lstm = LSTM(LSTMConfig(vocabulary, **shape), rng=np.random.default_rng(seed))
    lstm.token_embedding.weight.data *= TABLE / 0.1  # the library drew it with 0.1
    return lstm


def train_language_model(model: Any, ids: np.ndarray, recipe: Mapping[str, Any], lr: float, seed: int) -> list[float]:
    """Train on stretches of `ids` that the seed chooses; the loss of each step, in nats per token."""
    steps, batch, context = recipe["steps"], recipe["batch"], recipe["context"]
    config = TrainConfig(max_steps=steps, batch_size=batch, weight_decay=0.01, beta2=0.99)
    engine = ThreadedNumpyEngine(model, config, threads=2)
    rng, losses = np.random.default_rng(seed), []
    for step in range(steps):
        window = rng.integers(0, len(ids) - context - 1, batch)[:, None] + np.arange(context)
        losses.append(float(engine.forward_backward([(ids[window], ids[window + 1])])))
        engine.clip_gradients(1.0)
        engine.step(lr * schedules.cosine(step, steps, warmup=steps // 20, final=0.05))
    return losses


def bits_per_byte(model: Any, ids: np.ndarray, n_bytes: int, context: int) -> float:
    """Of a held-out text of `n_bytes`, cut into windows of `context` tokens, each read from an empty state."""
    rows = (len(ids) - 1) // context
    x = ids[: rows * context].reshape(rows, context)
    y = ids[1 : rows * context + 1].reshape(rows, context)
    with no_grad():
        parts = [slice(first, first + 64) for first in range(0, rows, 64)]
        nats = sum(model(x[part], y[part], reduction="sum").item() for part in parts)
    return float(nats / x.size / np.log(2) * len(ids) / n_bytes)


def compare_language_models(scale: str, text: Path, encoder: Tokenizer) -> Results:
    """Train every kind from every seed on the corpus in `text`; what deliverables.recurrent_baseline keeps."""
    recipe = LANGUAGE_MODELS[scale]
    texts = {part: corpus_text(text, part) for part in ("train", "val")}
    ids = {part: np.array(encoder.encode(text)) for part, text in texts.items()}
    n_bytes = len(texts["val"].encode())
    tokens = recipe["steps"] * recipe["batch"] * recipe["context"]
    results: Results = {**recipe, "tokens": tokens, "corpus_tokens": len(ids["train"]), "models": {}}
    runs = [(kind, seed) for kind in RATES for seed in range(recipe["seeds"])]
    for kind, seed in progress(runs, "training language models"):
        model = language_model(kind, encoder.vocab_size, recipe, seed)
        row = results["models"].setdefault(kind, {"parameters": count_weights(model), "lr": RATES[kind]})
        losses = train_language_model(model, ids["train"], recipe, RATES[kind], seed)
        row.setdefault("losses", []).append(losses)
        row.setdefault("bits_per_byte", []).append(bits_per_byte(model, ids["val"], n_bytes, recipe["context"]))
    read = tokens / len(ids["train"])  # the share of the text that the networks read, if below 1
    characters = min(len(texts["train"]), round(read * len(texts["train"])))
    counted = NGramModel.fit(texts["train"][:characters], order=6)
    ngrams = counted.total_bits(texts["val"]) / n_bytes
    results["ngrams"] = {str(n): float(bits) for n, bits in enumerate(ngrams, start=1)}
    return results


def write_comparison(folder: Path, scale: str, text: Path, encoder: Tokenizer) -> None:
    """Fill a deliverable's folder."""
    results = compare_language_models(scale, text, encoder)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


def plot_language_models(results: Results) -> Any:
    """Bits per byte of n-grams and networks; and the loss while they train."""
    figure, (left, right) = plot.subplots(1, 2, height=3.4, gridspec_kw={"width_ratios": (1, 1.2)})
    bars = {f"{n}-gram": [bits] for n, bits in results["ngrams"].items() if int(n) > 1}
    bars |= {kind: row["bits_per_byte"] for kind, row in results["models"].items()}
    colors = [plot.SKY] * (len(bars) - 2) + [plot.BLUE, plot.VERMILION]
    left.barh(range(len(bars)), [np.mean(bits) for bits in bars.values()], color=colors, height=0.7)
    for place, bits in enumerate(bars.values()):
        if len(bits) > 1:
            left.plot(bits, [place] * len(bits), "o", color=plot.BLACK, markerfacecolor="white", markersize=4)
    left.set_yticks(range(len(bars)), list(bars))
    left.invert_yaxis()
    left.set_xlabel("bits per byte, held-out text\n(dots: single starts)")
    for (kind, row), color in zip(results["models"].items(), (plot.BLUE, plot.VERMILION)):
        losses = np.array(row["losses"])  # (seeds, steps)
        width = max(1, losses.shape[1] // 25)
        for i, values in enumerate(losses):
            smooth = np.convolve(values, np.ones(width) / width, "valid")
            tokens = (np.arange(len(smooth)) + width) * results["batch"] * results["context"] / 1000
            right.plot(tokens, smooth, color=color, linewidth=1.2, label=kind if i == 0 else None)
    right.set_xlabel("thousand tokens read")
    right.set_ylabel("training loss\n(nats per token)")
    right.legend()
    return figure


def plot_growing_cost(lengths: Sequence[int], milliseconds: Mapping[str, Sequence[float]], kilobytes: Mapping) -> Any:
    """Time and memory for one more token against the tokens before it."""
    figure, axes = plot.subplots(1, 2, height=3.0)
    for ax, values, label in zip(axes, (milliseconds, kilobytes), ("milliseconds for one token", "kilobytes kept")):
        for (kind, numbers), marker in zip(values.items(), "os"):
            ax.plot(lengths, numbers, marker=marker, markersize=4, label=kind)
        ax.set_xscale("log", base=2)
        ax.set_xticks(lengths[::2], [f"{n:,}" for n in lengths[::2]])
        ax.minorticks_off()
        ax.set_xlabel("tokens before it")
        ax.set_ylabel(label)
    axes[0].set_ylim(bottom=0)
    axes[1].set_yscale("log")
    axes[0].legend(fontsize=9)
    return figure
