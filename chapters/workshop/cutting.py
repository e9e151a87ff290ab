"""Chapter 03's pictures and bookkeeping: text on its way into tokens, a race of trainers, vocabularies compared."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from minillm import ops, plot
from minillm.models.gpt import GPT, GPTConfig
from minillm.optim import AdamW
from minillm.tensor import no_grad
from minillm.tokenizers import BPETokenizer
from minillm.tokenizers.split import split_text
from minillm.training import schedules


def stacked(pictures: Iterable[plot.Html]) -> plot.Html:
    """Pictures of tokens, one below the other."""
    pictures = list(pictures)
    return plot.Html("".join(p.html for p in pictures), "\n".join(p.text for p in pictures))


def spans(tokenizer: BPETokenizer, ids: Sequence[int], title: str) -> plot.Html:
    """The tokens of those ids, each in a box with its id."""
    return plot.token_spans([tokenizer.token_bytes(i) for i in ids], ids, title=title)


def journey(tokenizer: BPETokenizer, text: str) -> plot.Html:
    """A text on its way to a model: as characters, cut into pre-tokens, as bytes, as tokens with their ids."""
    ids = tokenizer.encode(text)
    pieces = split_text(text, "gpt4")
    data = [bytes([byte]) for byte in text.encode()]
    return stacked(
        [
            plot.token_spans(list(text), title=f"text: {len(text)} characters"),
            plot.token_spans(pieces, title=f"cut into {len(pieces)} pre-tokens (no token reaches beyond one)"),
            plot.token_spans(data, title=f"as {len(data)} bytes"),
            spans(tokenizer, ids, f"joined to {len(ids)} tokens; their ids are what the model gets"),
        ]
    )


def timed(trainer: Iterable[Any]) -> tuple[list[Any], list[float]]:
    """The merges that a trainer yields, and the seconds since the start at which each was found."""
    found, seconds = [], []
    start = time.perf_counter()
    for merge in trainer:
        found.append(merge)
        seconds.append(time.perf_counter() - start)
    return found, seconds


def race(runs: dict[str, list[float]]) -> Any:
    """For each trainer, when it found its merges; on a logarithmic axis."""
    figure, ax = plot.subplots(height=2.6)
    for (name, seconds), style in zip(runs.items(), ("-", "--", ":")):
        ax.plot(range(1, len(seconds) + 1), seconds, linestyle=style, label=name)
    ax.set_yscale("log")
    ax.set_xlabel("merges found")
    ax.set_ylabel("seconds since the start")
    ax.legend()
    return figure


def bytes_per_token(tokenizer: BPETokenizer, text: str) -> float:
    """How much text one token covers, on average."""
    return len(text.encode()) / len(tokenizer.encode(text))


def table_of_bytes(table: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Any:
    """Bytes per token, a row for each tokenizer, a column for each text; each column is shaded by its best."""
    figure, ax = plot.subplots(height=0.5 * len(rows) + 1.0, width=5.5)
    shade = table / table.max(axis=0)
    ax.imshow(shade, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    ax.grid(visible=False)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xlabel("held-out text")
    ax.set_ylabel("tokenizer trained on")
    for (row, column), value in np.ndenumerate(table):
        color = "black" if shade[row, column] > 0.6 else "white"
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
    ax.set_title("bytes per token", fontsize=10)
    return figure


def bigram_bits(ids: np.ndarray, held_out: np.ndarray, vocab_size: int) -> float:
    """Bits that a bigram model of tokens, counted on `ids`, needs for all of `held_out`.

    p(b | a) = (count(a, b) + f(a) · p(b)) / (count(a) + f(a)), with f(a) the number of different tokens seen after a:
    the more often something new has followed a, the more is left to p(b), which is mixed with 1/V in the same way
    (Witten & Bell 1991; chapter 01).
    """
    counts = np.bincount(ids, minlength=vocab_size)
    different = (counts > 0).sum()
    alone = (counts + different / vocab_size) / (len(ids) + different)  # (V,): p(b)
    pairs, times = np.unique(ids[:-1] * vocab_size + ids[1:], return_counts=True)
    followers = np.bincount(pairs // vocab_size, minlength=vocab_size)  # (V,): f(a)
    begun = np.bincount(ids[:-1], minlength=vocab_size)  # (V,): count(a)

    a, b = held_out[:-1], held_out[1:]
    place = np.minimum(np.searchsorted(pairs, a * vocab_size + b), len(pairs) - 1)
    met = np.where(pairs[place] == a * vocab_size + b, times[place], 0)
    p = np.where(begun[a] > 0, (met + followers[a] * alone[b]) / np.maximum(begun[a] + followers[a], 1), alone[b])
    return float(-np.log2(p).sum() - np.log2(alone[held_out[0]]))


def compare_sizes(largest: BPETokenizer, text: str, unseen: str, sizes: Iterable[int]) -> dict[str, list[float]]:
    """What vocabularies of those sizes come to, the first tokens of `largest`, which was trained on `text`.

    Bytes per token of the text and of `unseen`; how often the median of the merged tokens occurs in the text; a
    bigram's bits per byte on `unseen`, counted on the text, and with all (its tokenizer, too) made from a third of it.
    """
    part = text[: len(text) // 3]
    largest_of_part = BPETokenizer.train([part], largest.vocab_size, special_tokens=[])
    names = ("bytes per token, training", "bytes per token, held out", "median", "bits, all", "bits, third")
    measured: dict[str, list[float]] = {name: [] for name in names}
    n_bytes = len(unseen.encode())
    for size in sizes:
        smaller, smaller_of_part = (
            BPETokenizer(t.tokens[:size], t.merges[: size - 256], "gpt4", {}) for t in (largest, largest_of_part)
        )
        ids, ids_of_unseen = (np.array(smaller.encode(t)) for t in (text, unseen))
        bits_of_part = bigram_bits(
            *(np.array(smaller_of_part.encode(t)) for t in (part, unseen)), smaller_of_part.vocab_size
        )
        values = (
            len(text.encode()) / len(ids),
            n_bytes / len(ids_of_unseen),
            float(np.median(np.bincount(ids, minlength=size)[256:])),
            bigram_bits(ids, ids_of_unseen, size) / n_bytes,
            bits_of_part / n_bytes,
        )
        for name, value in zip(names, values):
            measured[name].append(value)
    return measured


def vocabulary_curves(sizes: Sequence[int], measured: dict[str, list[float]], chosen: int) -> Any:
    """Bytes per token, the median token's occurrences and the bigram's bits per byte, against the vocabulary's size."""
    figure, (covers, occurs, costs) = plot.subplots(1, 3, height=3.0)
    covers.plot(sizes, measured["bytes per token, training"], marker="o", label="training text")
    covers.plot(sizes, measured["bytes per token, held out"], marker="s", linestyle="--", label="held-out text")
    covers.set_title("bytes per token", fontsize=10)
    occurs.plot(sizes, measured["median"], marker="o", color=plot.GREEN)
    occurs.set_yscale("log")
    occurs.set_title("the median token occurs", fontsize=10)
    costs.plot(sizes, measured["bits, all"], marker="o", color=plot.BLUE, label="all of the text")
    costs.plot(sizes, measured["bits, third"], marker="s", linestyle="--", color=plot.ORANGE, label="a third of it")
    costs.set_title("bigram, bits per byte", fontsize=10)
    for ax in (covers, occurs, costs):
        ax.axvline(chosen, color=plot.BLACK, linestyle=":", linewidth=1)
        ax.set_xscale("log")
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8, rotation=60)
        ax.minorticks_off()
        ax.set_xlabel("vocabulary")
    covers.legend(fontsize=8)
    costs.legend(fontsize=8)
    return figure


def accuracy_on_new_words(
    encoded: Sequence[Sequence[int]], answers: np.ndarray, n_test: int, *, seed: int, steps: int
) -> float:
    """The share of right answers on the first `n_test` words, after `steps` steps of training on the others.

    encoded: a list of ids for each word; answers: 0, 1 or 2 for each. A small GPT reads the ids, then a token that
    asks, and must name the answer as the next token.
    """
    ask = max(max(ids) for ids in encoded) + 1  # the token that asks; the answers are the next three
    length = max(map(len, encoded))
    config = GPTConfig(ask + 4, context=length + 1, n_layers=2, n_heads=2, d_model=32)
    model = GPT(config, rng=np.random.default_rng(seed))
    ids = np.full((len(encoded), length + 1), ask)  # (words, length + 1)
    for row, piece in enumerate(encoded):
        ids[row, length - len(piece) : length] = piece  # at the right end; the left is filled with `ask`, too
    targets = ask + 1 + answers  # (words,)
    r = np.random.default_rng(seed)
    optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * schedules.linear(step, steps, warmup=20, final=0.05)
        rows = r.integers(n_test, len(encoded), 64)
        last = model.hidden(ids[rows])[:, -1]  # (64, D): only the last position has to answer
        loss = ops.linear_cross_entropy(last, model.token_embedding.weight, targets[rows])  # logits, then −ln p
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with no_grad():
        logits = model.logits(model.hidden(ids[:n_test])[:, -1]).data  # (n_test, V)
    said = logits[:, ask + 1 :].argmax(axis=1)
    return float((said == answers[:n_test]).mean())


def right_bars(right: dict[str, np.ndarray], baseline: float) -> Any:
    """Shares of right answers: a bar for the mean of each kind, a dot for each start, a line for the baseline."""
    figure, ax = plot.subplots(height=1.9)
    ax.barh(list(right), [100 * values.mean() for values in right.values()], color=plot.BLUE)
    for place, values in enumerate(right.values()):
        ax.plot(100 * values, [place] * len(values), "o", color=plot.BLACK, mfc="white", markersize=5)
    ax.axvline(100 * baseline, color=plot.BLACK, linestyle="--", label="always the commonest answer")
    ax.set_xlabel("new words answered right (%); a dot is one start")
    ax.set_xlim(0, 105)
    ax.invert_yaxis()
    ax.legend(fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)  # above the bars
    return figure


def longest_match(tokens: set[bytes], word: bytes) -> list[bytes]:
    """The word cut greedily: each time the longest token that fits. It looks like BPE, and isn't."""
    pieces = []
    while word:
        length = next(n for n in range(len(word), 0, -1) if word[:n] in tokens or n == 1)
        pieces.append(word[:length])
        word = word[length:]
    return pieces


def words_that_tell(tokenizer: BPETokenizer, words: Iterable[str]) -> Iterator[str]:
    """Those of the pre-tokens `words` that the tokenizer cuts otherwise than the longest match does."""
    tokens = set(tokenizer.tokens[: 256 + len(tokenizer.merges)])
    for word in words:
        pieces = [tokenizer.token_bytes(i) for i in tokenizer.encode_piece(word)]
        if pieces != longest_match(tokens, word.encode()):
            yield word
