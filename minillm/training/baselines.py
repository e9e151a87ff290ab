"""Baselines: what a language model has to beat, in bits per UTF-8 byte of held-out text.

Counting models (unigram to 6-gram, over bytes or characters) and a compressor. All are scored on the same text in the
same unit, so that a neural network with any tokenizer can stand in the same table.

An n-gram model predicts a symbol w from the n−1 before it, its history h, by counting. Most histories are seen rarely,
so the counts must be mixed with those of shorter histories h′. Witten and Bell (1991, "The zero-frequency problem",
method C) set the weight of the shorter history by how many *different* symbols T(h) have followed h in its c(h)
occurrences: a history that is often followed by something new is trusted less.

    p(w | h) = (c(h w) + T(h) · p(w | h′)) / (c(h) + T(h)),     p(w | h) = p(w | h′) where h was never seen

and at the bottom every symbol that exists has the same probability. Derived, and the weight checked on held-out text,
in chapters/01_what_is_a_language_model.ipynb.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Unit = Literal["byte", "char"]
Ids = npt.NDArray[np.int64]
Nodes = npt.NDArray[np.int32]  # 2³¹ distinct n-grams are more than memory holds

N_SYMBOLS = {"byte": 256, "char": 0x110000 - 0x800}  # all bytes; all of Unicode without the half surrogate pairs
DENSE = 1 << 24  # count n-grams in a table up to this size, by sorting beyond it
CHUNK = 1 << 20  # symbols scored at once


@dataclass(frozen=True)
class Level:
    """All distinct n-grams of one length n, as a level of a tree: a node is an (n−1)-gram's node and one more symbol.

    Node i has keys[i] = parent · V + symbol; keys are sorted, so that the children of a parent stand together.
    """

    keys: Ids  # (m,)
    counts: npt.NDArray[np.int64]  # (m,) occurrences of each n-gram
    history_counts: npt.NDArray[np.int64]  # (m_parent,) c(h): occurrences of each parent before some symbol
    history_types: npt.NDArray[np.int64]  # (m_parent,) T(h): its distinct next symbols


class NGramModel:
    """An interpolated Witten-Bell model of all orders 1 … `order`, over the bytes or the characters of a text.

    Made by `NGramModel.fit`. A model of order 5 contains those of orders 1 to 4; every method takes the order to use.

    >>> model = NGramModel.fit("abab" * 50, order=2)
    >>> model.bits_per_byte("abab", order=2) < model.bits_per_byte("abab", order=1)
    True
    """

    def __init__(self, unit: Unit, alphabet: Ids, levels: list[Level]) -> None:
        self.unit = unit
        self.alphabet = alphabet  # (V,) the symbols seen in training, as numbers, sorted
        self.levels = levels

    @property
    def order(self) -> int:
        """The longest n-gram counted."""
        return len(self.levels)

    @classmethod
    def fit(cls, text: str, order: int = 5, unit: Unit = "byte") -> NGramModel:
        """Count the n-grams of `text`. Memory: about 60 bytes for each of its symbols at the peak."""
        if order < 1:
            raise ValueError(
                f"order must be at least 1, not {order}: a unigram model has order 1, a 5-gram model order 5."
            )
        symbols = numbers_of(text, unit)  # (n,)
        if len(symbols) < order:
            raise ValueError(f"cannot count {order}-grams in a text of {len(symbols)} {unit}s: give more text.")
        alphabet, x = dense_ids(symbols, N_SYMBOLS["byte"] if unit == "byte" else 0x110000)
        v = len(alphabet)
        levels: list[Level] = []
        parent = np.zeros(len(x), dtype=np.int32)  # the node of the history before each x; the empty one is node 0
        n_parents = 1
        for n in range(1, order + 1):
            codes = parent * np.int64(v) + x  # (n_positions,), one for each n-gram in the text
            keys, counts, nodes = count_codes(codes, n_parents * v, with_nodes=n < order)
            parents_of_keys = keys // v
            history_counts = np.bincount(parents_of_keys, weights=counts, minlength=n_parents).astype(np.int64)
            history_types = np.bincount(parents_of_keys, minlength=n_parents)
            levels.append(Level(keys, counts, history_counts, history_types))
            # The n-gram that ends before position i is the history of x[i] one level further down.
            parent, x, n_parents = nodes[:-1], x[1:], len(keys)
        return cls(unit, alphabet, levels)

    def symbol_bits(self, text: str) -> npt.NDArray[np.float64]:
        """−log₂ of the probability of each of the text's n symbols under each order: (order, n) bits."""
        return np.concatenate([np.empty((self.order, 0)), *self._bits_in_chunks(text)], axis=1)

    def total_bits(self, text: str) -> npt.NDArray[np.float64]:
        """−log₂ of the probability of `text` under each order: (order,) bits. Histories are short at the start."""
        total = np.zeros(self.order)
        for bits in self._bits_in_chunks(text):
            total += bits.sum(axis=1)
        return total

    def _bits_in_chunks(self, text: str) -> Iterator[npt.NDArray[np.float64]]:
        symbols = numbers_of(text, self.unit)
        for start in range(0, len(symbols), CHUNK):
            lead = min(start, self.order - 1)  # symbols scored already, needed as history
            p = self._probabilities(symbols[start - lead : start + CHUNK])  # (order, n)
            yield -np.log2(p[:, lead:])

    def bits_per_byte(self, text: str, order: int | None = None) -> float:
        """Bits needed for each UTF-8 byte of `text` by the model of this order (None: the highest)."""
        order = self._check_order(order)
        if text == "":
            raise ValueError("cannot score an empty text: bits per byte needs at least one byte.")
        return float(self.total_bits(text)[order - 1]) / len(text.encode())

    def distribution(self, history: str, order: int | None = None) -> npt.NDArray[np.float64]:
        """p(w | history) for every w of `alphabet`: (V,). What is missing from a sum of 1 is for symbols never seen."""
        return self._distribution(numbers_of(history, self.unit), self._check_order(order))

    def _distribution(self, history: Ids, order: int) -> npt.NDArray[np.float64]:
        x = self._to_ids(history)
        p = np.full(len(self.alphabet), 1 / N_SYMBOLS[self.unit])
        for n in range(1, order + 1):
            level = self.levels[n - 1]
            node = self._find(x[len(x) - (n - 1) :]) if n - 1 <= len(x) else -1
            if node < 0 or level.history_counts[node] == 0:
                break
            first, last = np.searchsorted(level.keys, [node * len(self.alphabet), (node + 1) * len(self.alphabet)])
            types = level.history_types[node]
            p = p * types
            p[level.keys[first:last] - node * len(self.alphabet)] += level.counts[first:last]
            p /= level.history_counts[node] + types
        return p

    def sample(self, n: int, rng: np.random.Generator, prompt: str = "", order: int | None = None) -> str:
        """Continue `prompt` by `n` symbols drawn one after the other; invalid UTF-8 shows as the replacement sign."""
        order = self._check_order(order)
        symbols = numbers_of(prompt, self.unit).tolist()
        for _ in range(n):
            recent = np.array(symbols[max(0, len(symbols) - order + 1) :], dtype=np.int64)
            p = self._distribution(recent, order)
            symbols.append(int(rng.choice(self.alphabet, p=p / p.sum())))
        return self._text(symbols)

    def _check_order(self, order: int | None) -> int:
        if order is not None and not 1 <= order <= self.order:
            raise ValueError(f"order must be from 1 to {self.order}, for which this model was fitted, not {order}.")
        return self.order if order is None else order

    def _probabilities(self, symbols: Ids) -> npt.NDArray[np.float64]:
        """(order, n): the probability of each symbol given those before it, under each order."""
        x = self._to_ids(symbols)
        v = len(self.alphabet)
        out = np.empty((self.order, len(x)))
        p = np.full(len(x), 1 / N_SYMBOLS[self.unit])
        history = np.zeros(len(x), dtype=np.int64)  # node of the history before each symbol, −1 where never seen
        for n, level in enumerate(self.levels, start=1):
            code = np.where((history >= 0) & (x >= 0), history * v + x, -1)
            node = np.minimum(np.searchsorted(level.keys, code), len(level.keys) - 1)
            seen = level.keys[node] == code
            count = np.where(seen, level.counts[node], 0)
            total = np.where(history >= 0, level.history_counts[history], 0)
            types = np.where(history >= 0, level.history_types[history], 0)
            p = np.where(total > 0, (count + types * p) / np.maximum(total + types, 1), p)
            out[n - 1] = p
            history = np.concatenate([[-1], np.where(seen, node, -1)[:-1]])  # the n-gram before each symbol
        return out

    def _find(self, ids: Ids) -> int:
        """The node of an n-gram, or −1."""
        node = 0
        for n, symbol in enumerate(ids):
            keys = self.levels[n].keys
            code = node * len(self.alphabet) + symbol
            node = int(np.searchsorted(keys, code))
            if symbol < 0 or node == len(keys) or keys[node] != code:
                return -1
        return node

    def _to_ids(self, symbols: Ids) -> Ids:
        """Symbols as indices into the alphabet, −1 for those never seen."""
        ids = np.minimum(np.searchsorted(self.alphabet, symbols), len(self.alphabet) - 1)
        return np.where(self.alphabet[ids] == symbols, ids, -1)

    def _text(self, symbols: list[int]) -> str:
        if self.unit == "byte":
            return bytes(symbols).decode("utf-8", "replace")
        return "".join(map(chr, symbols))


def numbers_of(text: str, unit: Unit) -> Ids:
    """The bytes or the code points of a text: (n,) int64."""
    if unit == "byte":
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
    if unit == "char":
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4").astype(np.int64)
    raise ValueError(f"unit must be 'byte' or 'char', what n-grams are counted over, not {unit!r}.")


def dense_ids(symbols: Ids, n: int) -> tuple[Ids, Nodes]:
    """(the distinct symbols sorted, each symbol as an index into them)."""
    present = np.bincount(symbols, minlength=n) > 0
    return np.flatnonzero(present).astype(np.int64), (np.cumsum(present, dtype=np.int32) - 1)[symbols]


def count_codes(codes: Ids, n_codes: int, with_nodes: bool) -> tuple[Ids, Ids, Nodes]:
    """(distinct codes sorted, how often each occurs, each code's index among them: left empty unless wanted)."""
    nodes = np.empty(0, dtype=np.int32)
    if n_codes <= DENSE:
        table = np.bincount(codes, minlength=n_codes)
        keys = np.flatnonzero(table).astype(np.int64)
        counts = table[keys]
        if with_nodes:
            nodes = (np.cumsum(table > 0, dtype=np.int32) - 1)[codes]
    elif with_nodes:
        keys, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
        nodes = inverse.astype(np.int32)
    else:
        keys, counts = np.unique(codes, return_counts=True)
    return keys, counts.astype(np.int64), nodes


def xz_bits_per_byte(held_out: str, given: str = "") -> float:
    """Bits per UTF-8 byte that xz (LZMA, `xz -9`'s settings) needs for `held_out` once it has seen `given`.

    Measured as size(xz(given + held_out)) − size(xz(given)), with a dictionary that reaches back over all of it: the
    compressor's counterpart of training on one text and being scored on another. About 2 s for each MB of `given`.
    """
    data, before = held_out.encode(), given.encode()
    if not data:
        raise ValueError("cannot score an empty text: bits per byte needs at least one byte.")
    size = max(1 << 16, len(data) + len(before))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": size}]
    with ThreadPoolExecutor(2) as pool:  # lzma releases the interpreter lock: the two run side by side
        both = pool.submit(lzma.compress, before + data, lzma.FORMAT_RAW, filters=filters)
        alone = pool.submit(lzma.compress, before, lzma.FORMAT_RAW, filters=filters)
        n_bytes = len(both.result()) - len(alone.result())
    return 8 * n_bytes / len(data)
