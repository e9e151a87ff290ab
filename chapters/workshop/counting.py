"""Chapter 01's pictures and bookkeeping: splits by document, what was seen before, curves with each draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from minillm import plot
from minillm.data import corpus_documents
from minillm.data.tasks import translation
from minillm.training.baselines import NGramModel, numbers_of

Array = npt.NDArray[Any]


def another_split(folder: Path, seed: int, share: float = 0.1) -> tuple[str, str]:
    """The corpus' documents, train and val together, split anew: (text to count, text held out, `share` of it all)."""
    documents = [d.text for split in ("train", "val") for d in corpus_documents(folder, split)]
    order = np.random.default_rng(seed).permutation(len(documents))
    ends = np.cumsum([len(documents[i]) for i in order])
    cut = 1 + int(np.searchsorted(ends, share * ends[-1]))
    return "\n\n".join(documents[i] for i in order[cut:]), "\n\n".join(
        documents[i] for i in order[:cut]
    )


def kind_of_text(folder: Path, kind: str, seed: int | None = None) -> str:
    """The corpus' documents of one kind, "topics" or "docstrings", shuffled where there is a seed."""
    documents = [d for split in ("train", "val") for d in corpus_documents(folder, split)]
    texts = [d.text for d in documents if d.source.startswith(kind)]
    if seed is not None:
        texts = [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]
    return "\n\n".join(texts)


OTHER_KINDS = ("help pages on the language", "Chinese sentences")


def other_kind(folder: Path, kind: str, seed: int) -> str:
    """A text of one of OTHER_KINDS, other ones with another seed."""
    if kind == OTHER_KINDS[0]:
        return kind_of_text(folder, "topics", seed)
    return "\n".join(pair.target for pair in translation.make(seed)["train"])


def first_bytes(text: str, start: int, stop: int) -> str:
    """Bytes start … stop of a text; a character that is cut in two is left out."""
    return text.encode()[start:stop].decode("utf-8", "ignore")


def first_seen(train: Sequence[Any], held_out: Sequence[Any], longest: int) -> Array:
    """How much of `train` must be read until each n-gram of `held_out` has been met: (longest, len(held_out)).

    Row n − 1, column i is for the n-gram that ends at i: the symbols of `train` read by then, infinity where it never
    comes (and where i < n − 1). Symbols are of any kind: bytes, characters, words.
    """
    both = np.unique(np.array([*held_out, *train]), return_inverse=True)[1].astype(
        np.int64
    )  # symbols as numbers
    where, v = len(held_out), int(both.max()) + 1
    node = np.zeros(len(both), dtype=np.int64)  # the number of the (n − 1)-gram before each symbol
    found = np.full((longest, where), np.inf)
    for n in range(1, longest + 1):
        node = np.unique(node * v + both[n - 1 :], return_inverse=True)[
            1
        ]  # the n-gram that ends at n − 1 + j
        first = np.full(node.max() + 1, np.inf)
        in_train = np.arange(
            len(node) - 1, where - 1, -1
        )  # starts that lie in train, the last first
        first[node[in_train]] = in_train - where + n  # so that the earliest stays
        found[n - 1, n - 1 :] = first[node[: where - n + 1]]
        node = node[:-1]
    return found


def never_seen_by_size(
    train: Sequence[Any], held_out: Sequence[Any], longest: int, sizes: Iterable[int]
) -> Array:
    """The share of `held_out`'s n-grams, n = 1 … longest, that the first `size` symbols of `train` lack:
    (longest, sizes)."""
    found = first_seen(train, held_out, longest)
    return np.array([[(row[n:] > size).mean() for size in sizes] for n, row in enumerate(found)])


def novelty(model: NGramModel, text: str, order: int) -> tuple[Array, Array]:
    """For each place of `text` whose history (order − 1 symbols) the model knows: Witten and Bell's estimate T/(c + T)
    that a symbol comes which is new after it, and whether one came (0 or 1)."""
    x, v = model._to_ids(numbers_of(text, model.unit)), len(model.alphabet)
    parent = np.zeros(
        len(x), dtype=np.int64
    )  # node of the history before each symbol, −1 where it was never seen
    for n, level in enumerate(model.levels[:order], start=1):
        code = np.where((parent >= 0) & (x >= 0), parent * v + x, -1)
        node = np.minimum(np.searchsorted(level.keys, code), len(level.keys) - 1)
        seen = level.keys[node] == code
        if n < order:
            parent = np.concatenate([[-1], np.where(seen, node, -1)[:-1]])
    counts, types = level.history_counts[parent], level.history_types[parent]
    known = (parent >= 0) & (counts > 0)
    return (types / np.maximum(counts + types, 1))[known], (~seen)[known].astype(float)


def copied_share(text: str, source: str, window: int) -> float:
    """The share of `text`'s stretches of `window` characters that stand in `source` word for word."""
    return float(np.mean([text[i : i + window] in source for i in range(len(text) - window + 1)]))


# --- pictures --------------------------------------------------------------------------------------------------


def data_flow(history: bytes, row: dict[int, int], came: int) -> Any:
    """The way of one prediction: history → its row of counts → probabilities → a score, or the next symbol."""
    from matplotlib.patches import FancyBboxPatch

    total = sum(row.values())
    top = sorted(row.items(), key=lambda item: -item[1])[:3]
    names = [plot.readable(bytes([w])) for w, _ in top]
    counts = (
        "\n".join(f"{name}  {c:,}" for name, (_, c) in zip(names, top)) + f"\n… {len(row) - 3} more"
    )
    chances = "\n".join(f"{name}  {c / total:.3f}" for name, (_, c) in zip(names, top)) + "\n…"
    p, new = row[came] / total, plot.readable(bytes([came]))
    shown = "".join(plot.readable(bytes([w])) for w in history)
    boxes = [
        (
            0.4,
            1.0,
            2.0,
            f"the text so far:\nits last {len(history)} bytes,\nthe history h\n\n“{shown}”",
            plot.BLUE,
        ),
        (3.0, 1.0, 2.0, f"how often\neach byte\ncame after h\n\n{counts}", plot.GREEN),
        (5.6, 1.0, 2.0, f"divided by\ntheir sum:\np(w | h)\n\n{chances}", plot.ORANGE),
        (8.2, 2.1, 2.4, f"score: “{new}” came,\n−log₂ p = {-np.log2(p):.2f} bits", plot.PURPLE),
        (8.2, 0.0, 2.4, "write: draw a byte\nby these chances,\nappend it", plot.VERMILION),
    ]
    figure, ax = plot.subplots(height=2.5)
    for x, y, width, text, color in boxes:
        height = 2.9 if y == 1.0 else 1.4
        y = y - 0.5 if y == 1.0 else y
        style = {
            "boxstyle": "round,pad=0.08",
            "facecolor": "white",
            "edgecolor": color,
            "linewidth": 1.8,
        }
        ax.add_patch(FancyBboxPatch((x, y), width, height, **style))
        ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)
    arrow = {"arrowstyle": "->", "color": plot.BLACK, "linewidth": 1.2}
    for start, end in (((2.5, 1.95), (2.9, 1.95)), ((5.1, 1.95), (5.5, 1.95)), ((7.7, 2.4), (8.1, 2.8)),
                       ((7.7, 1.5), (8.1, 0.8))):  # fmt: skip
        ax.annotate("", xy=end, xytext=start, arrowprops=arrow)
    ax.set_xlim(0.2, 10.8)
    ax.set_ylim(-0.2, 3.7)
    ax.axis("off")
    return figure


def letter_table(counts: dict[bytes, Any]) -> Any:
    """p(next | letter) for the small letters and the space, from counts of pairs of bytes, as a picture."""
    letters = b" abcdefghijklmnopqrstuvwxyz"
    rows = [counts.get(bytes([a]), {}) for a in letters]
    table = np.array([[row.get(b, 0) / max(1, sum(row.values())) for b in letters] for row in rows])
    names = [plot.readable(bytes([a])) for a in letters]
    figure, ax = plot.subplots(height=4.6, width=5.6)
    image = ax.imshow(table, cmap="viridis")
    ax.set_xticks(range(len(names)), names, fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.grid(False)
    ax.set_xlabel("next letter")
    ax.set_ylabel("letter before it")
    figure.colorbar(image, ax=ax, shrink=0.8, label="p(next | letter before it)")
    return figure


def draw_curves(
    ax: Any, x: Sequence[float], values: Any, label: str, color: str, marker: str = "o"
) -> None:
    """One line for each draw, thin, and their mean, thick: `values` (draws, len(x))."""
    values = np.asarray(values)
    for line in values:
        ax.plot(x, line, color=color, linewidth=0.8, alpha=0.5)
    ax.plot(x, values.mean(axis=0), color=color, marker=marker, markersize=4, label=label)


def spread(values: Any, digits: int = 3) -> str:
    """Mean ± standard deviation over draws, as text; the mean alone of a single draw."""
    values = np.asarray(values, dtype=float)
    return f"{values.mean():.{digits}f}" + (
        f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    )


def print_draws(title: str, names: Iterable[Any], values: Any, digits: int = 2) -> None:
    """A line of a table: the title, then each name with its mean ± standard deviation; values (draws, names)."""
    columns = zip(names, np.asarray(values).T)
    print(f"{title}:", ", ".join(f"{name}: {spread(column, digits)}" for name, column in columns))


def smoothing_figure(orders: Sequence[int], bits: dict[str, Any]) -> Any:
    """Bits per byte of held-out text by order, a curve for each way of smoothing: `bits[name]` (draws, orders)."""
    figure, ax = plot.subplots(height=3.2)
    for (name, values), color, marker in zip(bits.items(), plot.CYCLE, "os^D"):
        draw_curves(ax, orders, values, name, color, marker)
    ax.set_xticks(list(orders))
    ax.set_xlabel("order n (history of n − 1 bytes)")
    ax.set_ylabel("bits per byte, held out")
    ax.legend(fontsize=9)
    return figure


def novelty_figure(
    models: Sequence[tuple[NGramModel, str]], orders: Sequence[int]
) -> tuple[Any, dict[int, Array]]:
    """Estimated against measured chance of a new symbol, a point for each tenth of the places by estimate: the figure,
    and order -> (tenths, 2) of the estimates and the measured shares, over all (model, held-out text)."""
    figure, ax = plot.subplots(height=3.4, width=4.6)
    ax.plot([1e-3, 0.6], [1e-3, 0.6], color=plot.BLACK, linestyle=":", label="estimate = measured")
    points = {}
    for order, color, marker in zip(orders, plot.CYCLE, "os^D"):
        both = [novelty(model, text, order) for model, text in models]
        estimate, new = (np.concatenate([pair[k] for pair in both]) for k in (0, 1))
        edges = np.quantile(estimate, np.linspace(0, 1, 11)[1:-1])
        group = np.searchsorted(edges, estimate, side="left")
        used = np.unique(group)
        points[order] = np.array(
            [[estimate[group == g].mean(), new[group == g].mean()] for g in used]
        )
        ax.loglog(
            *points[order].T,
            color=color,
            marker=marker,
            markersize=5,
            linestyle="",
            label=f"order {order}",
        )
    ax.set_xlabel("estimate T / (c + T)")
    ax.set_ylabel("share of places where\na new byte came")
    ax.legend(fontsize=8)
    return figure, points


def languages_figure(bits: dict[str, Array], names: Sequence[str]) -> Any:
    """A panel for each unit: bits[unit] (draws, languages)."""
    figure, axes = plot.subplots(1, len(bits), height=2.5)
    for ax, (unit, values) in zip(axes, bits.items()):
        ax.bar(names, values.mean(axis=0), color=[plot.BLUE, plot.ORANGE], width=0.6)
        for i, column in enumerate(values.T):
            ax.plot([i] * len(column), column, "o", color=plot.BLACK, mfc="white", markersize=4)
        ax.set_title(f"bits per {unit}", fontsize=10)
    return figure


def fit_figure(orders: Sequence[int], train: Any, held_out: Any, xz: Sequence[float]) -> Any:
    """Bits per byte of the counted and of the held-out text by order, (draws, orders) each, and xz, (draws,)."""
    figure, ax = plot.subplots(height=3.2)
    draw_curves(ax, orders, train, "the counted text itself", plot.BLUE, "s")
    draw_curves(ax, orders, held_out, "held-out text", plot.VERMILION)
    ax.axhline(float(np.mean(xz)), color=plot.BLACK, linestyle="--", label="xz, held-out text")
    ax.set_xticks(list(orders))
    ax.set_ylim(0, None)
    ax.set_xlabel("order n")
    ax.set_ylabel("bits per byte")
    ax.legend(fontsize=9)
    return figure


def sparsity_figure(panels: dict[str, tuple[Sequence[int], Any]]) -> Any:
    """unit -> (sizes, (draws, longest, sizes)): the share of held-out n-grams never seen, a line for each n."""
    figure, axes = plot.subplots(1, len(panels), height=3.4, sharey=True)
    for ax, (unit, (sizes, shares)) in zip(axes, panels.items()):
        lowest = -10.0  # where the last label stands: the next one stays clear of it
        for n, line in enumerate(np.mean(shares, axis=0), start=1):
            color = plot.CYCLE[n % 3]
            draw_curves(ax, sizes, 100 * np.asarray(shares)[:, n - 1], "", color)
            lowest = max(100 * line[-1], lowest + 4.5)
            ax.text(sizes[-1] * 1.25, lowest, str(n), fontsize=8, va="center", color=color)
        ax.set_ylim(-4, 108)
        ax.set_xscale("log")
        ax.set_xlim(None, sizes[-1] * 1.9)
        ax.set_title(f"n-grams of {unit}; the number is n", fontsize=10)
        ax.set_xlabel(f"{unit} counted")
    axes[0].set_ylabel("held-out n-grams\nnever seen (%)")
    return figure


WAYS = {  # how a model comes to a little text: colour, marker
    "little alone": (plot.BLUE, "o"),
    "general alone": (plot.VERMILION, "s"),
    "counted on": (plot.GREEN, "^"),
    "mixed": (plot.PURPLE, "D"),
}


def transfer_figure(sizes: Sequence[int], targets: dict[str, dict[str, Any]]) -> Any:
    """A panel for each target text: how -> bits per byte (draws, sizes)."""
    figure, axes = plot.subplots(1, len(targets), height=3.4)
    for ax, (target, curves) in zip(axes, targets.items()):
        for how, values in curves.items():
            draw_curves(ax, sizes, values, how, *WAYS[how])
        ax.set_xscale("log")
        ax.set_title(target, fontsize=10)
        ax.set_xlabel("bytes of the little text")
    axes[0].set_ylabel("bits per byte, held out")
    axes[0].legend(fontsize=8)
    return figure
