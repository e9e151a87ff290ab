"""Pictures and bookkeeping of chapter 04: what a rule changed, pairs of known likeness, the traps measured."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from minillm import plot
from minillm.data import CorpusReport, Document, MinHash, NearDuplicates
from minillm.data.dedup import text_digest
from minillm.data.stopwords import remove_stop_words
from minillm.data.tasks.baselines import words_of
from minillm.models.gpt import GPT, GPTConfig
from minillm.optim import AdamW, clip_grad_norm_
from minillm.tensor import no_grad
from minillm.tokenizers import BPETokenizer
from minillm.training import schedules

# The folder with planted faults, from where the notebook runs.
MESSY = Path(os.path.relpath(Path(__file__).parents[2] / "data" / "messy")).as_posix()

SIGNS = {"\n": "↵", "\t": "⇥", "\r": "␍"}


def spelled(text: str) -> str:
    """The text in one line, with what cannot be seen as its code point in <>: controls, marks, invisible ones."""
    shown = []
    for character in text:
        hidden = (
            unicodedata.category(character)[0] == "C" or unicodedata.category(character) == "Mn"
        )
        code = f"<U+{ord(character):04X}>" if hidden else character
        shown.append(SIGNS.get(character, code))
    return "".join(shown)


def change(before: str, after: str, around: int = 18) -> tuple[str, str]:
    """The place where two texts differ first, with a few characters around it, spelled out."""
    start = next(
        (i for i, (a, b) in enumerate(zip(before, after)) if a != b), min(len(before), len(after))
    )
    first = max(0, start - around)
    return spelled(before[first : start + around]), spelled(after[first : start + around])


def pair_of_sets(size: int, common: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of `size` random 64-bit numbers, `common` of them in both: their Jaccard similarity is known."""
    numbers = rng.integers(0, 2**64, 2 * size - common, dtype=np.uint64)
    return numbers[:size], numbers[size - common :]


def signatures_of_pairs(
    likeness: float, pairs: int, k: int, seed: int, size: int = 90
) -> tuple[float, np.ndarray]:
    """(J, agree): for `pairs` random pairs of sets of Jaccard similarity J, the nearest to `likeness` that whole
    numbers allow, whether each of k min-hashes agrees, each pair with hash functions of its own: (pairs, k)."""
    rng = np.random.default_rng(seed)
    common = round(2 * size * likeness / (1 + likeness))  # J = c / (2·size − c)
    agree = np.empty((pairs, k), dtype=bool)
    for i in range(pairs):
        a, b = pair_of_sets(size, common, rng)
        minhash = MinHash(k, seed=int(rng.integers(2**31)))
        agree[i] = minhash.of_shingles(a) == minhash.of_shingles(b)
    return common / (2 * size - common), agree


def paragraphs_of(text: str) -> list[str]:
    """What blank lines separate."""
    return [part for part in re.split(r"\n[ \t]*\n\s*", text) if part.strip()]


def long_paragraphs(documents: Iterable[Document], words: int = 8) -> list[Document]:
    """Each paragraph of at least that many words, split at white space (for English), as a document of its own."""
    return [
        Document(part, f"{document.source}, paragraph {i}")
        for document in documents
        for i, part in enumerate(paragraphs_of(document.text))
        if len(part.split()) >= words
    ]


def meetings(near: NearDuplicates, documents: Sequence[Document]) -> int:
    """How many pairs of these documents share a whole band, and so are compared."""
    met: set[tuple[int, int]] = set()
    signatures = [near.minhash.signature(document.text) for document in documents]
    for band in range(near.bands):
        buckets: dict[bytes, list[int]] = {}
        for i, signature in enumerate(signatures):
            if signature is not None:
                key = signature[band * near.rows : (band + 1) * near.rows].tobytes()
                buckets.setdefault(key, []).append(i)
        for members in buckets.values():
            met.update(combinations(members, 2))
    return len(met)


def telling_pairs(found: list[tuple[Document, str, float]]) -> list[tuple[Document, str, float]]:
    """Of near copies (paragraph, source of the earlier one, estimate): the two shortest with the same words, and the
    first two others."""
    same = sorted((one for one in found if one[2] == 1), key=by_length)
    return same[:2] + [one for one in found if one[2] < 1][:2]


def by_length(one: tuple[Document, str, float]) -> int:
    return len(one[0].text)


def rise(scores: np.ndarray) -> float:
    """From the 5-gram to the 10-gram, of scores by n = 1, 2, ..."""
    return float(scores[9] - scores[4])


def joined(documents: Iterable[Document]) -> str:
    return "\n\n".join(document.text for document in documents)


def copied_and_own(
    train: Sequence[Document], held_out: Sequence[Document]
) -> tuple[str, str, list[Document]]:
    """(the held-out paragraphs that also stand in training documents, the other ones, the training documents without
    those paragraphs). Only paragraphs of 8 words or more count as copied."""
    known = {text_digest(part.text) for part in long_paragraphs(train)}
    copied = [part.text for part in long_paragraphs(held_out) if text_digest(part.text) in known]
    taken = {text_digest(part) for part in copied}
    own = [
        p
        for document in held_out
        for p in paragraphs_of(document.text)
        if text_digest(p) not in taken
    ]
    without = [
        Document(
            "\n\n".join(p for p in paragraphs_of(d.text) if text_digest(p) not in taken), d.source
        )
        for d in train
    ]
    return "\n\n".join(copied), "\n\n".join(own), without


def small_gpt(tokenizer: BPETokenizer, text: str, steps: int, seed: int, context: int = 64) -> GPT:
    """A GPT as in chapter 00, trained on `text`."""
    ids = np.array(tokenizer.encode(text))
    rng = np.random.default_rng(seed)
    config = GPTConfig(tokenizer.vocab_size, context=context, n_layers=2, n_heads=4, d_model=64)
    model = GPT(config, rng=np.random.default_rng(seed))
    optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    for step in range(steps):
        starts = rng.integers(0, len(ids) - context - 1, 16)
        window = ids[starts[:, None] + np.arange(context + 1)]  # (16, context + 1)
        loss = model(window[:, :-1], targets=window[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 3e-3 * schedules.linear(step, steps, warmup=20, final=0.1)
        optimizer.step()
    return model


def gpt_bits_per_byte(model: GPT, tokenizer: BPETokenizer, text: str) -> float:
    """Bits for each byte of `text`, read in windows of the model's context."""
    context = model.config.context
    ids = np.array(tokenizer.encode(text))
    rows = (len(ids) - 1) // context
    x, y = (
        ids[: rows * context].reshape(rows, context),
        ids[1 : rows * context + 1].reshape(rows, context),
    )
    with no_grad():
        nats = sum(
            model(x[i : i + 64], targets=y[i : i + 64]).item() * len(x[i : i + 64])
            for i in range(0, rows, 64)
        )
    return float(nats / rows / np.log(2) * len(ids) / len(text.encode()))


def without_words(text: str, language: str, negations: str = "") -> str:
    """The text without the library's stop words of that language, and without these further words."""
    kept = remove_stop_words(text, [language])[0]
    if language == "zh":
        return re.sub(f"[{negations}]", "", kept) if negations else kept
    return (
        re.sub(rf"\b(?:{'|'.join(negations.split())})\b ?", "", kept, flags=re.IGNORECASE)
        if negations
        else kept
    )


def mark_negated(text: str, negations: str) -> str:
    """Each word after a negation, up to the next punctuation, as another word, "not_" in front; a second negation ends
    it (Das and Chen 2001). Chinese characters are spelled as numbers, so that "not_" stays with them."""
    marked = []
    for clause in re.split(r"[,.，。]", text):
        negated = False
        for word in words_of(clause):
            if word in negations.split():
                negated = not negated
                continue
            name = word if word.isascii() else f"u{ord(word)}"
            marked.append(f"not_{name}" if negated else name)
    return " ".join(marked)


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation; the mean alone where there is one value."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def print_table(
    title: str, rows: dict[str, Sequence[Sequence[float]]], columns: Sequence[object]
) -> None:
    """A line for each row: mean ± standard deviation under each column."""
    for name, cells in rows.items():
        shown = [f"{column}: {mean_sd(values, 1)}" for column, values in zip(columns, cells)]
        print(f"{title}, {name:13s}", "   ".join(shown))


# --- figures ---------------------------------------------------------------------------------------------------------


def flow_picture(report: CorpusReport, title: str) -> Any:
    """The pipeline as boxes from left to right, with what a report counted in each."""
    dropped = report.dropped
    copies = sum(dropped.get(stage, 0) for stage in ("exact", "near"))
    boxes = [
        ("read", f"{report.documents_in:,} documents\n{report.bytes_in / 1e6:.2f} MB", plot.SKY),
        (
            "clean",
            f"{sum(report.rules.values()):,} changes\n{dropped.get('clean', 0)} too short",
            plot.ORANGE,
        ),
        (
            "drop copies",
            f"{copies} {'document' if copies == 1 else 'documents'}\n{dropped.get('paragraph', 0)} paragraphs",
            plot.ORANGE,
        ),
        ("split", "by a hash of\nthe text", plot.ORANGE),
        ("check leaks", f"{dropped.get('contamination', 0)} documents\ndropped", plot.ORANGE),
    ]
    figure, ax = plot.subplots(height=2.1, title=title)
    ax.set_xlim(0, 6)
    ax.set_ylim(0, 2)
    ax.axis("off")

    def box(x: float, y: float, name: str, text: str, color: str) -> None:
        style = {
            "boxstyle": "round,pad=0.45",
            "facecolor": color,
            "alpha": 0.35,
            "edgecolor": "none",
        }
        ax.text(
            x,
            y,
            f"{name}\n{text}",
            ha="center",
            va="center",
            fontsize=7.5,
            bbox=style,
            linespacing=1.35,
        )

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        ax.annotate(
            "", end, start, arrowprops={"arrowstyle": "->", "color": plot.BLACK, "linewidth": 1.2}
        )

    for i, (name, text, color) in enumerate(boxes):
        box(0.5 + i, 1, name, text, color)
        if i:
            arrow((0.5 + i - 0.56, 1), (0.5 + i - 0.44, 1))
    for y, name in ((1.55, "train"), (0.45, "val")):
        counts = report.splits[name]
        box(
            5.55,
            y,
            name,
            f"{counts['documents']:,} documents\n{counts['bytes'] / 1e6:.2f} MB",
            plot.GREEN,
        )
        arrow((4.98, 1), (5.12, y))
    return figure


def error_picture(ks: Sequence[int], errors: dict[float, list[list[float]]]) -> Any:
    """Standard deviation of the estimate against k, for each J: a dot for each seed, the theory as a line."""
    figure, ax = plot.subplots(height=3.2, width=6)
    smooth = np.geomspace(ks[0], ks[-1], 50)
    for (likeness, by_seed), color, marker in zip(errors.items(), plot.CYCLE, "os^Dv"):
        ax.plot(smooth, np.sqrt(likeness * (1 - likeness) / smooth), color=color, linewidth=1.2)
        for j, values in enumerate(by_seed):
            label = f"J = {likeness:.2f}" if j == 0 else None
            ax.plot(ks, values, marker, color=color, mfc="none", markersize=6, label=label)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(ks, ks)
    ax.set_yticks([0.02, 0.05, 0.1, 0.2], ["0.02", "0.05", "0.1", "0.2"])
    ax.minorticks_off()
    ax.set_xlabel("k, min-hashes in a signature")
    ax.set_ylabel("standard deviation\nof the estimate")
    ax.legend(title="dots measured, lines √(J(1−J)/k)", fontsize=8, title_fontsize=8)
    return figure


def banding_picture(
    curves: dict[tuple[int, int], list[tuple[float, list[float]]]], threshold: float
) -> Any:
    """P(meet) against J for some (bands, rows): the theory as a line, a dot for each seed."""
    figure, ax = plot.subplots(height=3.2, width=6)
    smooth = np.linspace(0, 1, 300)
    for ((bands, rows), points), color, marker in zip(curves.items(), plot.CYCLE, "os^Dv"):
        ax.plot(smooth, 1 - (1 - smooth**rows) ** bands, color=color, linewidth=1.2)
        for i, (likeness, shares) in enumerate(points):
            label = f"{bands} bands of {rows}" if i == 0 else None
            ax.plot(
                [likeness] * len(shares),
                shares,
                marker,
                color=color,
                mfc="none",
                markersize=6,
                label=label,
            )
    ax.axvline(threshold, color=plot.BLACK, linestyle=":")
    ax.set_xlabel("J, the true similarity of a pair (dotted: the threshold)")
    ax.set_ylabel("share of pairs\nthat meet")
    ax.set_ylim(-0.05, 1.4)
    ax.set_yticks(np.linspace(0, 1, 6))
    title = "dots measured, lines 1−(1−Jʳ)ᵇ"
    ax.legend(title=title, fontsize=8, title_fontsize=8, loc="upper center", ncols=len(curves))
    return figure


def orders_picture(scores: dict[str, np.ndarray], xz: dict[str, list[float]]) -> Any:
    """Bits per byte against the n-gram's order, (seeds, orders), before and after; xz as dashed lines."""
    figure, axes = plot.subplots(1, 2, height=3.2, sharey=True)
    for ax, (name, values), color in zip(axes, scores.items(), (plot.VERMILION, plot.BLUE)):
        orders = np.arange(1, values.shape[1] + 1)
        for i, row in enumerate(values):
            ax.plot(
                orders,
                row,
                color=color,
                alpha=0.35,
                linewidth=1,
                label="n-gram, one split" if i == 0 else None,
            )
        ax.plot(orders, values.mean(axis=0), marker="o", color=color, label="n-gram, mean")
        best = values.mean(axis=0).argmin()
        ax.plot(
            orders[best],
            values.mean(axis=0)[best],
            "*",
            color=plot.BLACK,
            markersize=12,
            label="its lowest",
        )
        for i, value in enumerate(xz[name]):
            ax.axhline(
                value,
                color=plot.GREEN,
                alpha=0.5,
                linestyle="--",
                linewidth=1,
                label="xz" if i == 0 else None,
            )
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("n")
        ax.set_xticks(orders[1::2])
        ax.legend(fontsize=7.5)
    axes[0].set_ylabel("bits per held-out byte")
    axes[0].set_ylim(bottom=0)
    return figure


def bars_with_dots(
    groups: Sequence[object],
    series: dict[str, Sequence[Sequence[float]]],
    ylabel: str,
    ax: Any = None,
) -> Any:
    """Bars of means, grouped, a dot for each seed: series[name][group] holds the seeds' values."""
    figure = None
    if ax is None:
        figure, ax = plot.subplots(height=3.0)
    width = 0.8 / len(series)
    places = np.arange(len(groups))
    for i, ((name, values), color) in enumerate(
        zip(series.items(), (plot.BLUE, plot.ORANGE, plot.GREEN))
    ):
        at = places + (i - (len(series) - 1) / 2) * width
        ax.bar(at, [np.mean(v) for v in values], width * 0.92, color=color, label=name)
        for x, v in zip(at, values):
            ax.plot([x] * len(v), v, "o", color=plot.BLACK, mfc="white", markersize=3.5)
    ax.set_xticks(places, [str(group) for group in groups])
    ax.set_ylabel(ylabel)
    ax.grid(visible=False, axis="x")
    if figure is not None:
        ax.legend(fontsize=8)
    return figure


def stop_words_picture(
    topic: dict[str, Sequence[Sequence[float]]],
    sizes: Sequence[int],
    sentiment: dict[str, dict[str, Sequence[Sequence[float]]]],
) -> Any:
    """Percent right: topic by number of labels, sentiment by classifier for each language, bars by what is removed."""
    figure, axes = plot.subplots(1, 3, height=3.4, sharey=True)
    bars_with_dots(sizes, topic, "right (%)", axes[0])
    axes[0].set_title("topic, English", fontsize=10)
    axes[0].set_xlabel("labels to learn from")
    for ax, guess in zip(axes, (100 / 6, 50, 50)):  # six topics, two sentiments
        ax.axhline(guess, color=plot.BLACK, linestyle=":", label="guessing")
    for ax, (language, results) in zip(axes[1:], sentiment.items()):
        bars_with_dots(["bag of words", "negation read"], results, "", ax)
        ax.set_title(f"sentiment, {'English' if language == 'en' else 'Chinese'}", fontsize=10)
    figure.legend(
        *axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8.5
    )
    return figure
