"""What a model says, to be read as transformers' ModelOutput is: by attribute, by key, by place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FIELDS = (
    "loss", "aux_loss", "logits", "last_hidden_state", "pooler_output", "past_key_values", "hidden_states",
    "attentions", "decoder_hidden_states", "decoder_attentions", "cross_attentions", "encoder_last_hidden_state",
    "encoder_hidden_states", "encoder_attentions",
)  # fmt: skip


class Output(dict[str, Any]):
    """A dict of what was given and isn't None, in the order of FIELDS; the others, read as attributes, are None.

    On NumPy the arrays are ndarrays without a graph; to train with gradients, call the model inside (`.model`), or pass
    `labels` and take the loss. On PyTorch they are tensors with theirs. As in transformers, iterating gives the keys,
    `to_tuple()` the values, and a number or a slice counts among the values.

    >>> output = Output(logits=[0.5], loss=2.0)
    >>> output.loss, output["loss"], output[0], output[1:], output.attentions
    (2.0, 2.0, 2.0, ([0.5],), None)
    """

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), **named: Any) -> None:
        given = {**dict(values), **named}
        if unknown := [name for name in given if name not in FIELDS]:
            raise TypeError(f"Output: {unknown[0]!r} is not one of {', '.join(FIELDS)}.")
        super().__init__({name: given[name] for name in FIELDS if given.get(name) is not None})

    def __getattr__(self, name: str) -> Any:
        if name in FIELDS:
            return self.get(name)
        raise AttributeError(f"an Output has no {name!r}; this one has {', '.join(self)}.")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in FIELDS:
            raise AttributeError(f"an Output has no {name!r}: it is one of {', '.join(FIELDS)}.")
        self[name] = value

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self:
            raise KeyError(f"this output has no {key!r}; it has {', '.join(self)}.")
        return super().__getitem__(key)

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())
