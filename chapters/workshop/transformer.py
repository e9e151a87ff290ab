"""Chapter 07's pictures and bookkeeping: the drawn architecture, the text, a short training run, the plots."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from minillm import plot
from minillm.data import corpus_text
from minillm.interpret import watching
from minillm.nn import Module
from minillm.numpy_ops.cores import limit_blas_threads
from minillm.optim import AdamW, clip_grad_norm_
from minillm.tensor import no_grad
from minillm.training import schedules
from minillm.training.baselines import NGramModel

from .deliverables import corpus, tokenizer
from .scale import progress

# --- the drawing ------------------------------------------------------------------------------------------------------

PLAIN, CHANGED = "#EAF2F8", "#FCEBCB"  # the fill of a box: as in GPT; exchanged in Llama

GPT_BLOCK = [
    ("layer norm", "(B, T, D)"),
    ("causal self-attention\nheads look back", "(B, T, D)"),
    ("layer norm", "(B, T, D)"),
    ("feed-forward network\nD → 4D, GELU, 4D → D", "(B, T, D)"),
]
LLAMA_BLOCK = [
    ("RMS norm", "(B, T, D)"),
    ("causal self-attention\nq, k turned (RoPE); k, v shared", "(B, T, D)"),
    ("RMS norm", "(B, T, D)"),
    ("feed-forward network\nSwiGLU: gate · up, down", "(B, T, D)"),
]


def draw_architecture(llama: bool = False) -> Any:
    """A GPT, or a Llama with what differs in orange: the whole model on the left, one of its blocks on the right."""
    figure, (whole, block) = plot.subplots(1, 2, height=5.6, gridspec_kw={"width_ratios": [1, 1.35]})
    for ax in (whole, block):
        ax.set_axis_off()
        ax.set_xlim(0, 10)
        ax.set_ylim(0, 20)
    fill = CHANGED if llama else PLAIN
    whole.set_title("the whole model", fontsize=11)
    entry = "token embedding\n(nothing added)" if llama else "token embedding\n+ position embedding"
    stream_line(whole, 4, 16.4, 3.7)
    box(whole, 4, 18.9, 7.4, 1.2, "token ids  (B, T)", "white")
    box(whole, 4, 16.4, 7.4, 1.8, entry, fill)
    for y, text in ((13.2, "block 0"), (11.1, "block 1"), (7.5, "block L − 1")):
        box(whole, 4, y, 7.4, 1.4, text, PLAIN)
    arrow(whole, (4, 18.3), (4, 17.3))
    arrow(whole, (4, 2.5), (4, 1.5))
    whole.text(4.5, 9.3, "⋮", ha="center", va="center", fontsize=14)
    box(whole, 4, 5.0, 7.4, 1.2, "RMS norm" if llama else "layer norm", fill)
    box(whole, 4, 3.1, 7.4, 1.2, "head: token table again", PLAIN)
    box(whole, 4, 0.9, 7.4, 1.2, "logits  (B, T, V)", "white")
    whole.text(4.3, 14.75, "stream (B, T, D)", fontsize=8.5, va="center", color=plot.BLUE)

    block.set_title("one block", fontsize=11)
    stream_line(block, 1.0, 19.6, 0.2)
    block.text(1.35, 19.4, "stream (B, T, D)", fontsize=8.5, va="center", color=plot.BLUE)
    names = LLAMA_BLOCK if llama else GPT_BLOCK
    for top, (norm, layer) in zip((17.6, 8.6), (names[:2], names[2:])):
        arrow(block, (1.0, top), (3.0, top))
        box(block, 6.3, top, 6.6, 1.3, norm[0], fill)
        arrow(block, (6.3, top - 0.65), (6.3, top - 1.75))
        block.text(6.55, top - 1.2, norm[1], fontsize=8.5, va="center", color="#555555")
        box(block, 6.3, top - 2.85, 6.6, 2.2, layer[0], fill)
        block.plot([6.3, 6.3], [top - 3.95, top - 6.0], color=plot.BLACK, linewidth=1.3)
        block.text(6.55, top - 4.8, layer[1], fontsize=8.5, va="center", color="#555555")
        arrow(block, (6.3, top - 6.0), (1.35, top - 6.0))
        plus(block, 1.0, top - 6.0)
        block.text(1.8, top - 5.55, "added", fontsize=8.5, va="center")
    return figure


def box(ax: Any, x: float, y: float, width: float, height: float, text: str, fill: str) -> None:
    """A rounded box around (x, y) with its text in the middle."""
    from matplotlib.patches import FancyBboxPatch

    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.25"
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=fill, edgecolor=plot.BLACK, zorder=3))
    ax.text(x, y, text, ha="center", va="center", fontsize=9, zorder=4, linespacing=1.3)


def arrow(ax: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": plot.BLACK, "shrinkA": 0, "shrinkB": 0})


def stream_line(ax: Any, x: float, top: float, bottom: float) -> None:
    """The residual stream, thick, from top to bottom."""
    options = {"arrowstyle": "-|>", "linewidth": 4, "color": plot.SKY, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 18}
    ax.annotate("", (x, bottom), (x, top), arrowprops=options)


def plus(ax: Any, x: float, y: float) -> None:
    ax.plot([x], [y], "o", color="white", markeredgecolor=plot.BLACK, markersize=15, zorder=5)
    ax.text(x, y, "+", ha="center", va="center", fontsize=12, zorder=6)


# --- the text and short training runs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """Chapter 04's corpus in tokens."""

    train: np.ndarray  # (tokens,)
    held_out: np.ndarray  # (tokens,)
    vocab_size: int
    bytes_per_token: float  # of the held-out text
    train_text: str
    held_out_text: str

    def bits_per_byte(self, loss: Any) -> Any:
        """A loss in nats per token as bits per byte (chapter 01)."""
        return loss / np.log(2) / self.bytes_per_token


def read_text(scale: str) -> Text:
    """The corpus of that scale, cut by the small tokenizer of 400 tokens: with more, most of a small model's work would
    be the choice among them."""
    folder, cut = corpus(scale), tokenizer("smoke")
    parts = [corpus_text(folder, split) for split in ("train", "val")]
    train, held_out = (np.array(cut.encode(part)) for part in parts)
    return Text(train, held_out, cut.vocab_size, len(parts[1].encode()) / len(held_out), *parts)


def token_ngrams(text: Text) -> dict[str, float]:
    """Losses of counting on the held-out text, in nats per token. The library's counts characters: one for a token."""
    parts = ["".join(chr(0x4E00 + i) for i in ids) for ids in (text.train, text.held_out)]
    bits = NGramModel.fit(parts[0], order=2, unit="char").total_bits(parts[1])
    return dict(zip(("unigram", "bigram"), (bits * np.log(2) / len(text.held_out)).tolist()))


def held_out_loss(model: Module, text: Text, context: int, most: int = 200) -> float:
    """The mean loss on the first `most` stretches of the held-out text, in nats per token."""
    n = min(most, (len(text.held_out) - 1) // context)
    x = text.held_out[: n * context].reshape(n, context)
    y = text.held_out[1 : n * context + 1].reshape(n, context)
    with no_grad(), limit_blas_threads(1):
        return model(x, targets=y).item()


def train(
    model: Module, text: Text, *, steps: int, seed: int, lr: float, batch: int, context: int, curve: Any = None
) -> Module:
    """A short run of AdamW (chapter 08) on random stretches; the same seed draws the same stretches for any model."""
    rng = np.random.default_rng(1000 + seed)
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.01)
    for step in range(steps):
        starts = rng.integers(0, len(text.train) - context - 1, batch)
        window = starts[:, None] + np.arange(context)  # (batch, context)
        with limit_blas_threads(1):  # such small products are slower on two
            loss = model(text.train[window], targets=text.train[window + 1])
            optimizer.zero_grad()
            loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = lr * schedules.linear(step, steps, warmup=10, final=0.1)
        optimizer.step()
        if curve is not None:
            due = step == steps - 1 or step % max(1, steps // 10) == 0
            curve.update(step, train=loss.item(), val=held_out_loss(model, text, context) if due else None)
    return model


# --- models that lack a part ------------------------------------------------------------------------------------------


class Unchanged(Module):
    """Stands where a norm stood."""

    def forward(self, x: Any) -> Any:
        return x


class WithoutSums(Module):
    """A block whose layers replace the stream instead of adding to it."""

    def __init__(self, block: Any) -> None:
        self.norm_1, self.attn, self.norm_2, self.mlp = block.norm_1, block.attn, block.norm_2, block.mlp

    def forward(self, x: Any, cache: Any = None, segments: Any = None) -> Any:
        x = self.attn(self.norm_1(x), cache)
        return self.mlp(self.norm_2(x))


# --- what is measured, drawn ------------------------------------------------------------------------------------------


def additions(model: Any, ids: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Run the model on ids (B, T). The stream before each addition and after the last, 2L + 1 arrays (B, T, D), what is
    added, 2L arrays, and the names of the 2L layers that add."""
    parts = {f"{part} {i}": getattr(block, part) for i, block in enumerate(model.blocks) for part in ("attn", "mlp")}
    blocks = {f"block {i}": block for i, block in enumerate(model.blocks)}
    with no_grad(), watching({**parts, **blocks}) as calls:
        model.hidden(ids)
    added = [calls[name].out.data for name in parts]
    streams = [calls["block 0"].x.data]
    for what in added:
        streams.append(streams[-1] + what)
    last = calls[f"block {len(blocks) - 1}"].out.data
    assert np.allclose(streams[-1], last, atol=1e-4)
    return streams, added, list(parts)


def rms(x: np.ndarray) -> float:
    """Root mean square: the typical size of the entries."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def likeness(x: np.ndarray) -> float:
    """The mean cosine between the vectors of different positions of a text; x (B, T, D)."""
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    T = x.shape[1]
    cosines = unit @ unit.swapaxes(1, 2)  # (B, T, T)
    return float((cosines.sum(axis=(1, 2)) - T).mean() / (T * (T - 1)))


def plot_additions(names: Sequence[str], sizes: Mapping[str, Sequence[float]], cost: Sequence[float]) -> Any:
    """Left, what each layer adds relative to the stream that it reads; right, what its absence costs."""
    figure, axes = plot.subplots(1, 2, height=3.4, sharey=True)
    places = np.arange(len(names))
    for i, ((label, values), color) in enumerate(zip(sizes.items(), (plot.SKY, plot.BLUE))):
        axes[0].barh(places + 0.38 * (i - 0.5), values, 0.36, color=color, label=label)
    axes[0].set_yticks(places, names)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("size of what it adds / size of the stream")
    axes[0].legend(fontsize=9)
    axes[1].barh(places, cost, 0.6, color=plot.ORANGE)
    axes[1].set_xlabel("rise of the loss (nats) without it")
    return figure


def plot_by_depth(measured: Mapping[str, tuple[Sequence[float], ...]]) -> Any:
    """For each kind of model, block by block: size of the stream, of the gradients, and likeness of the positions."""
    figure, axes = plot.subplots(1, 3, height=3.7)
    for (name, columns), marker in zip(measured.items(), "osD^vPX"):
        for ax, values in zip(axes, columns):
            ax.plot(range(len(values)), values, marker=marker, markersize=4, label=name)
    for ax, title in zip(axes, ("size of the stream", "size of the gradients", "likeness of positions")):
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("block")
    for ax in axes[:2]:
        ax.set_yscale("log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def plot_runs(runs: Mapping[str, Sequence[float]], label: str, title: str = "") -> Any:
    """A row for each kind of model: every run a dot, their mean a line, the first kind's mean dashed."""
    figure, ax = plot.subplots(height=0.42 * len(runs) + 1.1)
    for place, (values, color) in enumerate(zip(runs.values(), plot.CYCLE)):
        ax.plot(values, [place] * len(values), "o", color=color, markerfacecolor="none", markeredgewidth=1.8)
        ax.plot([np.mean(values)] * 2, [place - 0.32, place + 0.32], color=color, linewidth=3)
    ax.axvline(np.mean(next(iter(runs.values()))), color=plot.BLACK, linestyle=":", linewidth=1.2)
    ax.set_yticks(range(len(runs)), list(runs))
    ax.set_ylim(len(runs) - 0.5, -0.5)
    ax.set_xlabel(label)
    ax.set_title(title, fontsize=10)
    return figure


def mean_and_sd(values: Sequence[float]) -> str:
    """Such as "4.40 ± 0.02": mean and standard deviation of a few runs."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1 if len(values) > 1 else 0):.3f}"


def seconds_per_step(model: Module, vocab_size: int, batch: int, context: int, repeats: int = 5) -> float:
    """The shortest of a few training steps: the one least disturbed by what else the machine does."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, vocab_size, (batch, context + 1))
    optimizer = AdamW(model.parameters(), lr=1e-4)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        loss = model(ids[:, :-1], targets=ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return min(times[1:])  # the first one also makes buffers


def plot_times(flops: Sequence[float], seconds: Sequence[float], names: Sequence[str], peak: float) -> Any:
    """Counted operations against measured time, with the line of a machine that always works at `peak` a second."""
    figure, ax = plot.subplots(height=3.2, width=5.8)
    ax.loglog(flops, 1e3 * np.array(seconds), "o-", color=plot.BLUE, label="a training step, measured")
    ax.loglog(flops, 1e3 * np.array(flops) / peak, "--", color=plot.BLACK, label="at the speed of a large product")
    for x, y, name in zip(flops, seconds, names):
        ax.annotate(name, (x, 1e3 * y), xytext=(4, -13), textcoords="offset points", fontsize=9)
    ax.set_xmargin(0.18)  # room for the last name
    ax.set_xlabel("floating-point operations of a step, counted")
    ax.set_ylabel("milliseconds")
    ax.legend(fontsize=9, loc="upper left")
    return figure


def plot_positions(scores: Mapping[str, np.ndarray], distances: np.ndarray, turned: np.ndarray) -> Any:
    """Scores (T, T) of one query with one key at all pairs of positions, and how the pairs of RoPE turn."""
    figure, axes = plot.subplots(1, 3, height=2.9, gridspec_kw={"width_ratios": [1, 1, 1.25]})
    for ax, (title, S) in zip(axes, scores.items()):
        ax.grid(False)
        image = ax.imshow(np.where(np.tri(len(S), dtype=bool), S, np.nan), cmap="viridis")
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("position of the key")
        figure.colorbar(image, ax=ax, shrink=0.75)
    axes[0].set_ylabel("position of the query")
    for i, values in enumerate(turned):
        axes[2].plot(distances, values, label=f"pair {i}")
    axes[2].set_title("cosine of the angle", fontsize=10)
    axes[2].set_xlabel("distance")
    axes[2].set_ylim(-1.1, 2.2)
    axes[2].set_yticks([-1, 0, 1])
    axes[2].legend(fontsize=8, loc="upper center", ncols=2)
    return figure


def plot_scalar_losses(ours: Sequence[float], theirs: Sequence[float]) -> Any:
    """Both losses, which lie on each other, and the gap between them."""
    figure, axes = plot.subplots(1, 2, height=2.7)
    steps = np.arange(1, len(ours) + 1)
    axes[0].plot(steps, theirs, color=plot.SKY, linewidth=5, label="minillm, NumPy")
    axes[0].plot(steps, ours, color=plot.BLACK, linewidth=1.2, label="single numbers")
    axes[0].set_ylabel("loss")
    axes[0].set_ylim(min(theirs) - 0.1, max(theirs) + 0.6)  # room for the legend
    axes[0].legend(fontsize=9, loc="upper right")
    gap = np.abs(np.array(ours) - np.array(theirs))
    axes[1].semilogy(steps, np.maximum(gap, 1e-17), ".", color=plot.VERMILION)
    axes[1].axhline(1e-9, color=plot.BLACK, linestyle=":", label="the tolerance")
    axes[1].set_ylabel("gap (none: 1e−17)")
    axes[1].legend(fontsize=9, loc="center right")
    for ax in axes:
        ax.set_xlabel("training step")
    return figure


def matrix_speed(size: int = 1024) -> float:
    """Operations per second of one large matrix product on this machine."""
    a = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(times)


def compare_runs(kinds: Sequence[str], seeds: int, run: Callable[[str, int], float]) -> dict[str, list[float]]:
    """What `run(kind, seed)` gives, for each kind a list over the seeds."""
    pairs = [(kind, seed) for kind in kinds for seed in range(seeds)]
    results: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind, seed in progress(pairs, "training"):
        results[kind].append(run(kind, seed))
    return results
