"""Which parameters learn, and how fast: freezing by name, layer-wise learning rates, gradual unfreezing.

A frozen parameter has `requires_grad` False. Neither engine then computes its gradient, nor anything below the lowest
layer that learns; no optimizer keeps a state for it, and no weight decay reaches it: it does not change by one bit.
Everything here takes a model of either engine.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from ..nn import Embedding, Linear
from ..optim import param_groups


def freeze(model: Any, *patterns: str) -> list[str]:
    """Freeze the parameters that the patterns match, all of them without a pattern; returns their names.

    A pattern is the name of a parameter or of a module with all that is in it, as a shell writes it (`fnmatch`: `*`
    any characters, dots too, `?` one, `[0-5]` one of these): "token_embedding", "blocks.[0-5]", "*.bias". Raises
    ValueError for one that matches nothing, with names that are near, before anything is changed.
    """
    return set_trainable(model, patterns, False)


def unfreeze(model: Any, *patterns: str) -> list[str]:
    """Let the parameters learn that the patterns match (see `freeze`); returns their names."""
    return set_trainable(model, patterns, True)


def set_trainable(model: Any, patterns: tuple[str, ...], trainable: bool) -> list[str]:
    names = matching(model, *patterns)
    parameters = dict(model.named_parameters())
    for name in names:
        parameters[name].requires_grad = trainable
        if not trainable:
            parameters[name].grad = None  # or the next step would still use it
    return names


def matching(model: Any, *patterns: str) -> list[str]:
    """The names of the parameters that at least one pattern matches, in the model's order; of all without a pattern."""
    owners = {name: list(owners_of(name)) for name, _ in model.named_parameters()}
    found: set[str] = set()
    for pattern in patterns:
        hits = [name for name, its in owners.items() if any(fnmatchcase(owner, pattern) for owner in its)]
        if not hits:
            known = {owner for its in owners.values() for owner in its}
            near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.4) or sorted(owners)[:3]
            raise ValueError(
                f"no parameter or module of this {type(model).__name__} is called {pattern!r}. Near it: "
                f"{', '.join(near)}; `*` stands for any characters."
            )
        found.update(hits)
    return [name for name in owners if name in found or not patterns]


def owners_of(name: str) -> Iterator[str]:
    """A parameter's name, and those of the modules that it is in.

    >>> list(owners_of("blocks.0.norm_1.bias"))
    ['blocks', 'blocks.0', 'blocks.0.norm_1', 'blocks.0.norm_1.bias']
    """
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


def trainable_parameters(model: Any) -> dict[str, Any]:
    """Name -> parameter, of those that learn."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def count(model: Any) -> tuple[int, int]:
    """(trainable, total): numbers in the parameters that learn, and in all, those in quantized layers included."""
    packed = sum(math.prod(getattr(module, "packed_shape", (0,))) for _, module in model.named_modules())
    sizes = {name: math.prod(parameter.shape) for name, parameter in model.named_parameters()}
    return sum(sizes[name] for name in trainable_parameters(model)), sum(sizes.values()) + packed


def count_line(model: Any) -> str:
    """What to print before a run: "trains 1,024 of 124,440 parameters (0.82%)"."""
    trainable, total = count(model)
    return f"trains {trainable:,} of {total:,} parameters ({trainable / max(total, 1):.2%})"


# --- layer by layer ---------------------------------------------------------------------------------------------------


def depths(model: Any) -> dict[str, int]:
    """How far below the top each parameter is: 0 for the head and what else stands behind the layers, 1 for the top
    layer, and so on down to the embeddings, the lowest, with what is computed beside them (BERT's first norm).

    Layers are the items of the model's outermost lists of modules; an encoder's lie below its decoder's.
    """
    tables = [name for name, module in model.named_modules() if isinstance(module, Embedding)]
    matrices = [name for name, module in model.named_modules() if isinstance(module, Linear)]
    layers: dict[str, int] = {}  # "decoder.blocks.3" -> 3
    places: dict[str, int | None] = {}  # parameter -> its layer; -1: below all; None: above all
    for name, _ in model.named_parameters():
        layer = next((owner for owner in owners_of(name) if owner.rpartition(".")[2].isdigit()), None)
        module = name.rpartition(".")[0]
        if layer is not None:
            places[name] = layers.setdefault(layer, len(layers))
        else:
            below = module in tables or (not layers and module not in matrices)
            places[name] = -1 if below else None
    return {name: 0 if place is None else len(layers) - place for name, place in places.items()}


def layer_wise_groups(model: Any, weight_decay: float, factor: float) -> list[dict[str, Any]]:
    """The groups of `param_groups`, split so that a parameter `depth` below the top learns with `lr · factor^depth`:
    what lies low is general and should change little (Howard & Ruder 2018, arXiv 1801.06146, section 3.2, with
    factor = 1/2.6). Engines take it as `partial(NumpyEngine, groups=partial(layer_wise_groups, factor=0.8))`.
    """
    if not 0 < factor <= 1:
        raise ValueError(f"layer_wise_groups: factor = {factor} must be above 0 and at most 1.")
    below = depths(model)
    depth_of = {id(parameter): below[name] for name, parameter in model.named_parameters()}
    groups = []
    for group in param_groups(model, weight_decay):
        for depth in sorted({depth_of[id(p)] for p in group["params"]}):
            members = [p for p in group["params"] if depth_of[id(p)] == depth]
            groups.append({**group, "params": members, "lr_scale": factor**depth})
    return groups


class GradualUnfreezing:
    """Begin with the head alone, and let one more layer learn every `every` steps, the top one first, the embeddings
    last (Howard & Ruder 2018, section 3.3). Call `at_step` before each step: it depends on the step's number alone, so
    that a resumed run has the layers learn that an uninterrupted one would have."""

    def __init__(self, model: Any, every: int) -> None:
        if every < 1:
            raise ValueError(f"GradualUnfreezing: every = {every} must be at least 1 step.")
        self.every = every
        learns = trainable_parameters(model)
        self.depths = {name: depth for name, depth in depths(model).items() if name in learns}
        if not self.depths:
            raise ValueError("GradualUnfreezing: every parameter is frozen for good: unfreeze what is to learn first.")
        self.highest = min(self.depths.values())
        self.at_step(0, model)

    def at_step(self, step: int, model: Any) -> list[str]:
        """Freeze and unfreeze for this step, of the run's model on any engine; returns the names of what learns. What
        was frozen when this object was made stays frozen."""
        deepest = self.highest + step // self.every
        for name, parameter in model.named_parameters():
            if name in self.depths:
                parameter.requires_grad = self.depths[name] <= deepest
                parameter.grad = parameter.grad if parameter.requires_grad else None
        return [name for name, depth in self.depths.items() if depth <= deepest]
