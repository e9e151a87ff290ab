"""Chapter 09's pictures and bookkeeping, and what it leaves to others: `complete` and `SETTINGS`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from minillm import nn, plot
from minillm.generate import Sampling, decode_steps, known_ids, next_logits, prompt_ids, softmax
from minillm.metrics import distinct_n
from minillm.training.baselines import NGramModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What chapter 09 measured, as settings to begin with.
SETTINGS = {
    "one right answer": Sampling(temperature=0),
    "one good text": Sampling(temperature=0.55),
    "several different ones": Sampling(temperature=0.7),
}


# --- the deliverable -----------------------------------------------------------------------------


def complete(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    n: int = 1,
    max_new_tokens: int = 64,
    sampling: Sampling | None = None,
    stops: Sequence[str] = (),
    seed: int | None = 0,
) -> list[str]:
    """`n` continuations of a text. Each ends at the tokenizer's end of text, before the first of the texts `stops`, or
    after `max_new_tokens`. They are the rows of one batch; which one comes out depends on the seed and its row only.
    """
    ids, raw, texts = prompt_ids(tokenizer, prompt), [b""] * n, [""] * n
    going = set(range(n))
    rest = (sampling or Sampling(), seed, True, known_ids(tokenizer))
    with closing(decode_steps(model, [ids] * n, max_new_tokens, *rest)) as steps:
        for step in steps:
            for row in sorted(going):
                if step[row] == tokenizer.eos_id:
                    going.remove(row)
                    continue
                raw[row] += tokenizer.decode_bytes([step[row]])
                text = raw[row].decode("utf-8", errors="replace")
                texts[row] = until(text, stops)
                if texts[row] != text:
                    going.remove(row)
            if not going:
                break
    return texts


def until(text: str, stops: Sequence[str]) -> str:
    """The text before the earliest of the texts `stops`; all of it where none occurs."""
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places)] if places else text


# --- measuring text ------------------------------------------------------------------------------


class Judge:
    """Another kind of model than the one that writes: the library's n-gram model of bytes, to say how likely a text is,
    and how much a text repeats itself."""

    def __init__(self, text: str, tokenizer: Any, order: int = 5) -> None:
        self.ngrams, self.tokenizer = NGramModel.fit(text, order=order), tokenizer

    def measure(
        self, prompts: Sequence[Sequence[int]], news: Sequence[Sequence[int]]
    ) -> tuple[float, float]:
        """Of continuations, ids like their prompts: the bits that one of their bytes costs; and the share (%) of a
        text's 4-grams of tokens that it holds already, mean over texts."""
        bits, n_bytes = 0.0, 0
        for prompt, new in zip(prompts, news):
            before, both = self.tokenizer.decode(prompt), self.tokenizer.decode([*prompt, *new])
            bits += float(self.ngrams.total_bits(both)[-1] - self.ngrams.total_bits(before)[-1])
            n_bytes += len(both.encode()) - len(before.encode())
        return bits / n_bytes, 100 * float(np.mean([repeated(new) for new in news]))


def repeated(ids: Sequence[int], n: int = 4) -> float:
    """The share of the n-grams of a text that stand in it earlier: 1 − distinct-n of this text alone."""
    return 1 - distinct_n([list(ids)], n) if len(ids) >= n else 0.0


class TokenNGrams:
    """A draft model: the library's n-gram model over token ids, each id written as one character."""

    FIRST = 0x4E00  # any run of characters would do; these are Chinese

    def __init__(self, ids: Sequence[int], vocab_size: int, order: int = 3) -> None:
        text = "".join(chr(self.FIRST + i) for i in ids)
        self.ngrams, self.vocab_size = NGramModel.fit(text, order=order, unit="char"), vocab_size

    def probabilities(self, ids: Sequence[int], temperature: float = 1.0) -> np.ndarray:
        """The distribution (V,) of the token after `ids`."""
        recent = ids[max(0, len(ids) - self.ngrams.order + 1) :]
        known = self.ngrams.distribution("".join(chr(self.FIRST + i) for i in recent))
        p = np.zeros(self.vocab_size)
        p[self.ngrams.alphabet - self.FIRST] = known
        if temperature == 0:
            return np.eye(1, len(p), int(p.argmax()))[0]
        p = p ** (1 / temperature)
        return p / p.sum()


def after_lines(model: Any, lines: Sequence[Sequence[int]], copies: int) -> dict[str, np.ndarray]:
    """For each line of ids the mean ln p of its tokens after 1 ... `copies` copies of itself, and after as many of the
    other lines: (lines, copies) each."""
    found: dict[str, list[list[float]]] = {"copies of it": [], "other lines": []}
    for i, line in enumerate(lines):
        others = [lines[(i + j) % len(lines)] for j in range(1, copies + 1)]
        for name, before in (("copies of it", [line] * copies), ("other lines", others)):
            found[name].append([mean_log_p(model, before[:n], line) for n in range(1, copies + 1)])
    return {name: np.array(rows) for name, rows in found.items()}


def mean_log_p(model: Any, before: Sequence[Sequence[int]], line: Sequence[int]) -> float:
    """The mean ln p of the tokens of a line after other lines."""
    ids = np.array([[*(i for other in before for i in other), *line]])
    z = next_logits(model, ids[:, :-1], None, at=slice(-len(line), None))[0].astype(float)
    p = np.array([softmax(row) for row in z])
    return float(np.log(p[np.arange(len(line)), list(line)]).mean())


def seconds_per_step(
    model: Any, lengths: Sequence[int], *, rows: int = 1, new: int = 1, use_cache: bool = True
) -> list[float]:
    """The time of one call for the logits after texts of these lengths, the least of several: a batch of `rows` whose
    last `new` tokens are read, or all of them without a cache."""
    found = []
    for length in lengths:
        ids = np.ones((rows, length), dtype=int)
        cache = model.new_cache() if use_cache else None
        if cache is not None:
            next_logits(model, ids[:, :-new], cache)
        times = []
        for _ in range(9 if use_cache or length <= 256 else 4):
            started = time.perf_counter()
            next_logits(model, ids[:, -new:] if use_cache else ids, cache)
            times.append(time.perf_counter() - started)
            if cache is not None:
                cache.length = length - new  # forget what was just read
        found.append(min(times))
    return found


class CountingCache(nn.KVCache):
    """A cache that counts the positions whose keys and values were computed for it."""

    computed = 0

    def update(self, layer: int, k: Any, v: Any) -> tuple[Any, Any]:
        if layer == 0:
            self.computed += k.shape[2]
        return super().update(layer, k, v)


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """ "mean ± standard deviation" of a few runs; of one, the number."""
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"


# --- the check of an exercise --------------------------------------------------------------------


def check_stream(stream_until: Any) -> None:
    """Raise AssertionError, saying what is wrong, unless this generator of text up to a stop string is right."""
    assert stream_until(iter([]), ["STOP"]) is not None, (
        "stream_until gives nothing yet: in the loop, `yield` the part of `text` that may be shown, and keep the rest."
    )
    cases = [
        (["ab", "cd", "ef"], ["STOP"]),
        (["x = 1\n", "\ny = 2"], ["\n\n"]),
        (["a ST", "O", "P b"], ["STOP"]),
        (["a ST", "ART S", "T"], ["STOP"]),
        (["one END two STOP three"], ["STOP", "END"]),
        (["S", "S", "TO", "P"], ["STOP"]),
        (["a", "b"], []),
        (["STOP"], ["STOP"]),
    ]
    rng = np.random.default_rng(0)
    for _ in range(100):
        pieces = ["".join(rng.choice(list("ab\n"), rng.integers(1, 5))) for _ in range(6)]
        cases.append((pieces, ["\n\n", "ba"] if rng.random() < 0.5 else ["ab\n"]))
    for pieces, stops in cases:
        check_one_stream(stream_until, pieces, stops)


def check_one_stream(stream_until: Any, pieces: Sequence[str], stops: Sequence[str]) -> None:
    """One case of `check_stream`."""
    shown, given, expected = "", "", until("".join(pieces), stops)
    longest = max(map(len, stops), default=1)
    case = f"With the pieces {list(pieces)} and the stop strings {list(stops)}"

    def feed() -> Iterator[str]:
        nonlocal given
        for piece in pieces:
            assert until(given, stops) == given, (
                f"{case}: a stop string had come, and yours asked for more."
            )
            behind = len(given) - len(shown)
            assert behind <= longest - 1, (
                f"{case}: when yours asked for the piece {piece!r}, {behind} characters were held back, "
                f"where {longest - 1} would do. Yield while the pieces come."
            )
            given += piece
            yield piece

    result = stream_until(feed(), list(stops))
    for part in result:
        assert isinstance(part, str), f"Yield text, not {type(part).__name__}."
        shown += part
        assert "".join(pieces).startswith(shown), (
            f"{case}: {shown!r} was shown, which the text does not begin with."
        )
        assert expected.startswith(shown), (
            f"{case}: {shown!r} was shown, which holds a part of a stop string or what comes after it."
        )
    assert shown == expected, (
        f"{case}: {shown!r} was shown in the end, {expected!r} should have been."
    )


# --- pictures ------------------------------------------------------------------------------------


def loop_picture() -> Figure:
    """How a text grows: the loop from the ids so far to one more id."""
    figure, ax = plot.subplots(height=2.0, width=7.6)
    ax.set_axis_off()
    ax.set_xlim(0.1, 9.3)
    ax.set_ylim(0.2, 2.9)
    boxes = [
        (0.9, "ids so far\n(T)", plot.SKY),
        (2.75, "model", plot.BLUE),
        (4.5, "logits\n(V)", plot.SKY),
        (6.4, "settings:\ntemperature,\nfilters", plot.ORANGE),
        (8.45, "probabilities\n(V)", plot.SKY),
    ]
    for x, text, color in boxes:
        style = {
            "boxstyle": "round,pad=0.5",
            "facecolor": color,
            "alpha": 0.35,
            "edgecolor": plot.BLACK,
        }
        ax.text(x, 2.2, text, ha="center", va="center", fontsize=9, bbox=style)
    arrow = {"arrowstyle": "-|>", "color": plot.BLACK, "linewidth": 1.4}
    for start, end in ((1.5, 2.3), (3.2, 4.05), (4.95, 5.65), (7.15, 7.65)):
        ax.annotate("", (end, 2.2), (start, 2.2), arrowprops=arrow)
    ax.annotate("", (8.45, 0.4), (8.45, 1.7), arrowprops={**arrow, "arrowstyle": "-"})
    ax.annotate("", (0.9, 0.4), (8.45, 0.4), arrowprops={**arrow, "arrowstyle": "-"})
    ax.annotate("", (0.9, 1.75), (0.9, 0.4), arrowprops=arrow)
    text = "draw one id, append it, ask again, until it is time to stop"
    ax.text(4.7, 0.62, text, ha="center", fontsize=9)
    ax.text(
        2.75,
        1.35,
        "keeps keys and values\nof the past: the cache",
        ha="center",
        va="center",
        fontsize=8,
    )
    return figure


def kept_figure(entropy: np.ndarray, kept: Mapping[str, np.ndarray]) -> Figure:
    """How many tokens each filter leaves at each position, against how open the choice is there."""
    figure, axes = plot.subplots(1, len(kept), height=2.7, sharey=True)
    for ax, (name, counts), color in zip(axes, kept.items(), plot.CYCLE):
        ax.plot(entropy, counts, "o", color=color, markersize=3, alpha=0.5)
        ax.set_yscale("log")
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("entropy (bits)")
    axes[0].set_ylabel("tokens that stay")
    return figure


def trade_off_figure(families: Mapping[str, Mapping[str, np.ndarray]], real: np.ndarray) -> Figure:
    """Two measures of generated text, a line for each family of settings, a dot for each seed, stars for real text."""
    figure, ax = plot.subplots(height=4.8)
    for (family, settings), color, marker in zip(families.items(), plot.CYCLE, "os^D"):
        means = np.array([runs.mean(axis=0) for runs in settings.values()])  # (settings, 2)
        ax.plot(*means.T, marker=marker, color=color, label=family, markersize=6)
        for runs in settings.values():
            ax.plot(*runs.T, linestyle="", marker=marker, color=color, markersize=3, alpha=0.6)
        for (name, _), (x, y) in zip(settings.items(), means):
            ax.annotate(name, (x, y), (4, 4), textcoords="offset points", fontsize=7, color=color)
    ax.plot(*real.T, marker="*", color=plot.BLACK, markersize=13, linestyle="", label="real text")
    ax.set_yscale("symlog", linthresh=1)
    ax.set_yticks([0, 0.5, 1, 2, 5, 10, 20, 50], ["0", "0.5", "1", "2", "5", "10", "20", "50"])
    ax.set_ylim(-0.15, 100)
    ax.set_xlabel("bits per byte, as judged by a 5-gram model")
    ax.set_ylabel("4-grams that stand earlier\nin the same text (%)")
    ax.legend(fontsize=8)
    return figure


def likelihood_figure(lines: Mapping[str, np.ndarray], means: Mapping[str, np.ndarray]) -> Figure:
    """The probability of each token of a few texts; and the mean log-probability of a token, a dot for each group."""
    figure, (left, right) = plot.subplots(1, 2, height=3.1, gridspec_kw={"width_ratios": [1.7, 1]})
    for (name, values), color, marker in zip(lines.items(), (plot.BLACK, plot.VERMILION), "os"):
        left.plot(np.exp(values), color=color, marker=marker, markersize=3, linewidth=1, label=name)
    left.set_xlabel("token")
    left.set_ylabel("probability under the model")
    left.set_ylim(-0.03, 1.25)
    left.legend(fontsize=8, loc="upper center", ncol=2)
    for row, (name, values) in enumerate(means.items()):
        color = plot.BLACK if name == "real text" else plot.BLUE
        right.plot(values, [row] * len(values), "o", mfc="none", color=color)
        right.plot(np.mean(values), row, "|", color=color, markersize=16, markeredgewidth=2)
    right.set_yticks(range(len(means)), list(means))
    right.set_ylim(len(means) - 0.5, -0.5)
    right.set_xlabel("mean log-probability\nof a token")
    return figure


def loop_figure(after: Mapping[str, np.ndarray], probabilities: Mapping[str, np.ndarray]) -> Figure:
    """Left: ln p of a token of a line after 1, 2, ... lines, a thin line for each third of the lines. Right: the
    probability of the tokens along the texts that were written, mean over texts, smoothed a little."""
    figure, (left, right) = plot.subplots(1, 2, height=3.2, gridspec_kw={"width_ratios": [1, 1.4]})
    for (name, rows), color, marker in zip(after.items(), (plot.VERMILION, plot.BLACK), "os"):
        n = np.arange(1, rows.shape[1] + 1)
        left.plot(
            n, rows.mean(axis=0), color=color, marker=marker, markersize=5, label=f"after {name}"
        )
        for i in range(3):
            left.plot(n, rows[i::3].mean(axis=0), color=color, linewidth=0.7, alpha=0.6)
    left.set_xlabel("how many lines before it")
    left.set_ylabel("ln p of a token of the line")
    left.legend(fontsize=8)
    colors = (plot.BLACK, plot.GREEN, plot.ORANGE, plot.VERMILION, plot.BLUE)
    for (name, values), color in zip(probabilities.items(), colors):
        smooth = np.convolve(values.mean(axis=0), np.ones(7) / 7, mode="valid")
        right.plot(np.arange(len(smooth)) + 4, smooth, color=color, label=name)
    right.set_ylim(0, 1.6 * max(values.mean(axis=0).max() for values in probabilities.values()))
    right.set_xlabel("token of the continuation")
    right.set_ylabel("its probability")
    right.legend(fontsize=7, ncol=2)
    return figure


def cost_figure(lengths: Sequence[int], milliseconds: Mapping[str, Sequence[float]]) -> Figure:
    """Time for the next token against the length of the text, both axes logarithmic."""
    figure, ax = plot.subplots(height=3.2)
    for (name, values), marker in zip(milliseconds.items(), "os^"):
        ax.loglog(lengths, values, marker=marker, label=name)
    ax.set_xticks(lengths, lengths)
    ax.minorticks_off()
    ax.set_xlabel("tokens so far")
    ax.set_ylabel("milliseconds per token")
    ax.legend(fontsize=9)
    return figure
