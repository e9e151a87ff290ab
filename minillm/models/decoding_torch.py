"""A decoder on PyTorch that only writes: the model's own forward over a cache of fixed shapes (static_cache.py).

A `TorchPlan` reads texts of different lengths in one call each, where the plain way moves all rows through the longest
prompt together. A `CompiledDecoder` is a model whose steps are compiled besides:

    model = CompiledDecoder(to_torch(model))
    generate(model, prompts, max_new_tokens=200)  # as any model: also for stream, speculate, Conversation

A step of a small batch does little for each of its hundreds of operations, so that most of the time goes into starting
them. torch.compile joins what belongs together, and on a CUDA device has the whole step replayed as one CUDA graph
(mode "reduce-overhead"). It compiles for shapes: so many slots, so many new tokens in each, so long a cache. Slots and
lengths are rounded up to powers of two, so that few shapes occur, and each is compiled once. Prompts are read as they
are, by the plain forward: they come once and in all lengths.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FunctionType
from typing import Any

import numpy as np
import torch

from ..nn import KVCache, evaluating
from ..numpy_ops.linear import check_ids
from .decoders import DECODERS
from .decoding_plan import DecodingPlan
from .int8 import INT8
from .static_cache import Buffers, Slots, StaticCache, Tensor, make_buffers

Array = np.ndarray
Watch = Callable[[str], AbstractContextManager[Any]]
SEVERAL = 8  # tokens of a text that are read in one compiled step, where there are more than one: guesses
SHORTEST = 64  # positions of the smallest cache
KNOWN = {model for _, model in DECODERS.values()} | set(INT8.values())


def torch_plan(model: Any) -> TorchPlan | None:
    """A plan for a decoder of this library on PyTorch; None for any other, and for what needs each text alone."""
    return TorchPlan(model) if why_not(model) is None else None


def why_not(model: Any) -> str | None:
    """Why texts of different lengths cannot be read together by this model, or None."""
    config, name = model.config, getattr(model, "numpy_class", type(model)).__name__
    if getattr(model, "numpy_class", None) not in KNOWN:
        return f"what a {name} remembers is no cache of keys and values alone"
    if config.attention == "triton":
        return "attention 'triton' is not made for it"
    scaling = getattr(config, "rope_scaling", None)
    if scaling is not None and scaling["rope_type"] == "dynamic" and len(model.cos) < config.context:
        return "with a 'dynamic' rope_scaling, angles depend on how long each text is"
    return None


def read(
    model: Any, ids: Tensor, places: Tensor, keys: Buffers, values: Buffers, reach: int, every: bool, rows: Any = None
) -> Tensor:
    """Logits after the last of ids (B, T), (B, 1, V), or with `every` after all (B, T, V): see StaticCache."""
    h = model.hidden(ids, StaticCache(keys, values, places, reach, rows))  # (B, T, D)
    return model.logits(h if every else h[:, -1:])


class TorchPlan(DecodingPlan):
    """The model's own forward, with texts that each have a length of their own."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def new_cache(self, rows: int, capacity: int, most: int = 0) -> Slots:
        return Slots(*make_buffers(self.model, max(rows, most), capacity), rows)

    @torch.no_grad()
    def logits(self, cache: Slots, pieces: Sequence[Sequence[int]], every: bool = False) -> Array:
        found: list[Any] = [None] * len(pieces)
        sizes = [self.size(piece) for piece in pieces]
        for piece, past in zip(pieces, cache.lengths):
            if not past:  # a prompt
                check_ids(np.asarray(piece), self.model.config.vocab_size)
        for size in sorted(set(sizes)):  # those of like length together: the others would be padded to the longest
            rows = [row for row, own in enumerate(sizes) if own == size]
            logits = self.read(cache, rows, pieces, every).cpu().double().numpy()  # (rows, 1 or T, V)
            for row, own in zip(rows, logits):
                found[row] = own[: len(pieces[row])] if every else own
        cache.lengths = [past + len(piece) for past, piece in zip(cache.lengths, pieces)]
        return np.concatenate(found)

    def size(self, piece: Sequence[int]) -> int:
        return power_of_two(len(piece))

    def read(self, cache: Slots, rows: Sequence[int], pieces: Sequence[Sequence[int]], every: bool) -> Tensor:
        """Logits of some rows, (rows, 1, V), or with `every` (rows, T, V), T the longest of their pieces."""
        n, counts, pasts = len(pieces), {len(pieces[row]) for row in rows}, {cache.lengths[row] for row in rows}
        keys, values = cache.first(n)
        if len(rows) == n and len(counts) == len(pasts) == 1:  # all alike: as ever
            alike = KVCache(len(keys), cache.capacity)
            alike.keys, alike.values, alike.length = keys, values, pasts.pop()
            h = self.model.hidden(self.tensor([*pieces]), alike)
            return self.model.logits(h if every else h[:, -1:])
        ids, places = zip(*(padded(pieces[row], cache.lengths[row], max(counts)) for row in rows))
        reach = max(cache.lengths[row] + len(pieces[row]) for row in rows)
        chosen = None if len(rows) == n else self.tensor(rows)
        return read(self.model, self.tensor(ids), self.tensor(places), keys, values, reach, every, chosen)

    def tensor(self, numbers: Any) -> Tensor:
        return torch.tensor(numbers, device=self.model.norm.weight.device)


class CompiledPlan(TorchPlan):
    """The same with compiled steps. `watch(what)` is entered while one compiles."""

    def __init__(self, model: Any, watch: Watch, shortest: int) -> None:
        super().__init__(model)
        if reason := why_not(model):
            raise ValueError(f"CompiledDecoder: {reason}. Write with the model as it is.")
        self.mode = "reduce-overhead" if model.norm.weight.device.type == "cuda" else None  # with CUDA graphs
        self.watch, self.shortest, self.compiled = watch, shortest, dict[tuple[int, ...], Any]()
        self.free: dict[tuple[int, int], list[tuple[Buffers, Buffers]]] = {}  # buffers that no text uses

    def new_cache(self, rows: int, capacity: int, most: int = 0) -> Slots:
        """Buffers that were made before, where there are some: a CUDA graph knows them by their addresses."""
        longest = min(self.model.config.context, power_of_two(max(capacity, self.shortest)))
        shape = (power_of_two(max(rows, most)), longest)
        if shape not in self.free:
            self.free.clear()  # of shapes that are asked for in turn, one is kept
        free = self.free.setdefault(shape, [])
        if free:
            keys, values = free.pop()
            for buffer in (*keys, *values):
                buffer.zero_()
        else:
            keys, values = make_buffers(self.model, *shape)
            for buffer in (*keys, *values):
                torch._dynamo.mark_static_address(buffer)
        cache = Slots(keys, values, rows)
        weakref.finalize(cache, free.append, (keys, values))
        return cache

    def size(self, piece: Sequence[int]) -> int:
        return 1 if len(piece) == 1 else max(SEVERAL, power_of_two(len(piece)))

    def read(self, cache: Slots, rows: Sequence[int], pieces: Sequence[Sequence[int]], every: bool) -> Tensor:
        size = self.size(pieces[rows[0]])
        is_prompt = (size > 1 and not every) or not all(cache.lengths[row] for row in rows)
        if is_prompt:  # neither a step nor guesses
            return super().read(cache, rows, pieces, every)
        # Every slot takes part. One whose turn it is not reads what it reads anyway, a free one anything.
        ids, places = [[0] * size] * cache.most, [[0] * size] * cache.most
        for row, (piece, past) in enumerate(zip(pieces, cache.lengths)):
            ids[row], places[row] = padded(piece if row in rows else piece[:1], past, size)
        key = (cache.most, size, cache.capacity)
        inputs = (self.model, self.tensor(ids), self.tensor(places), cache.keys, cache.values, cache.capacity, size > 1)
        if key in self.compiled:
            logits = self.compiled[key](*inputs)
        else:
            step = torch.compile(twin(read), fullgraph=True, dynamic=False, mode=self.mode)
            with self.watch(f"a step of {cache.most} x {size} tokens, cache {cache.capacity}"), explained():
                logits = step(*inputs)
            self.compiled[key] = step
        return logits[: len(pieces)] if len(rows) == len(pieces) else logits[rows]


@contextmanager
def explained() -> Iterator[None]:
    """Inside, what torch.compile cannot do is a ValueError that says so."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"compile: PyTorch could not compile a step ({said:.200}). On a CPU it needs a C++ compiler, such as g++. "
            "Write without compiling."
        ) from error


class CompiledDecoder:
    """A decoder on PyTorch whose steps are compiled when texts are written (`generate`, `stream`, `speculate`).

    `watch(what)`: a context manager that is entered while something is compiled, to show it. `shortest`: positions of
    the smallest cache, for texts that grow, as a conversation does. Raises ValueError for a model whose steps cannot be
    compiled.
    """

    def __init__(self, model: Any, watch: Watch = nullcontext, *, shortest: int = SHORTEST) -> None:
        self.model, self.config = model, model.config
        self.decoding_plan = CompiledPlan(model, watch, shortest)

    def prepare(self, rows: int, longest: int, ahead: int = 0) -> None:
        """Compile now what it will take to write `rows` texts of up to `longest` ids each, and to read `ahead` guesses:
        else it is done when the first step comes. A context of one token has no steps: each is read as a prompt."""
        if rows < 1:
            raise ValueError(f"CompiledDecoder.prepare: rows = {rows} must be at least 1.")
        plan = self.decoding_plan
        with evaluating(self.model):
            cache = plan.new_cache(rows, min(longest, self.config.context))
            for n in {min(n, cache.capacity - 1) for n in (1, 1 + ahead)} - {0}:
                cache.lengths = [1] * rows
                plan.logits(cache, [[0] * n] * rows, every=n > 1)

    @property
    def training(self) -> bool:
        return self.model.training

    def train(self, mode: bool = True) -> CompiledDecoder:
        self.model.train(mode)
        return self

    def eval(self) -> CompiledDecoder:
        return self.train(False)

    def parameters(self) -> Any:
        return self.model.parameters()

    def hidden(self, ids: Any, cache: Any = None) -> Any:
        return self.model.hidden(ids, cache)

    def logits(self, h: Any) -> Any:
        return self.model.logits(h)

    def new_cache(self, capacity: int | None = None) -> Any:
        return self.model.new_cache(capacity)


def padded(piece: Sequence[int], past: int, size: int) -> tuple[list[int], list[int]]:
    """Ids and places of a piece that stands behind `past` ids, its last one repeated up to `size`."""
    end, rest = past + len(piece), size - len(piece)
    return [*piece, *[piece[-1]] * rest], [*range(past, end), *[end - 1] * rest]


def power_of_two(n: int) -> int:
    """The first one that is n at least."""
    return 1 << (n - 1).bit_length()


def twin(function: Any) -> Any:
    """The same function with a code object of its own: torch.compile keeps by it what it has compiled, and gives up a
    function of which it has compiled eight forms."""
    return FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__)
