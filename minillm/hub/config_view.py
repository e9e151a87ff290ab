"""A config.json, to be read and written as transformers' configs are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .architecture import Values
from .configs import n_labels, with_settings

DEFAULTS: Values = {  # what transformers' configs say where the file says nothing
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None, "problem_type": None,
    "is_encoder_decoder": False, "output_attentions": False, "output_hidden_states": False, "return_dict": True,
}  # fmt: skip


class ConfigView:
    """A config.json, its settings as attributes: `config.hidden_size`, `config.id2label`.

    They can be written: `config.pad_token_id = 0`. `change`, if given, is asked first, with the name and the value: a
    model's config, whose sizes its weights have already, refuses those, and the others change what the model does.
    """

    def __init__(self, values: Values, change: Callable[[str, Any], None] | None = None) -> None:
        vars(self)["values"] = values
        vars(self)["change"] = change

    @property
    def num_labels(self) -> int:
        return n_labels(self.values)

    @property
    def id2label(self) -> dict[int, str]:
        """Class number -> its name; LABEL_0 and so on where the checkpoint has none."""
        labels = self.values.get("id2label") or {i: f"LABEL_{i}" for i in range(self.num_labels)}
        return {int(number): label for number, label in labels.items()}

    @property
    def label2id(self) -> dict[str, int]:
        return {label: number for number, label in self.id2label.items()}

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("values", {})
        if name in values:
            return values[name]
        if name in DEFAULTS:
            return DEFAULTS[name]
        raise AttributeError(f"this config.json has no {name!r}; it has {', '.join(sorted(values))}.")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "id2label":
            value = {str(number): label for number, label in value.items()}
        if self.change is not None:
            self.change(name, value)
        changed = with_settings(self.values, {name: value})
        if name == "id2label":
            changed["label2id"] = {label: int(number) for number, label in value.items()}
        self.values.clear()
        self.values.update(changed)

    def update(self, values: Values) -> None:
        """Write several settings."""
        for name, value in values.items():
            setattr(self, name, value)

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)

    def to_dict(self) -> Values:
        return dict(self.values)

    def to_json_string(self, use_diff: bool = True) -> str:
        """The file's text; all settings, whatever `use_diff`."""
        return json.dumps(self.values, indent=2, sort_keys=True) + "\n"

    def __repr__(self) -> str:
        return f"ConfigView({self.values})"


class GenerationValues(dict[str, Any]):
    """A generation_config.json: a dict whose entries are attributes too; what it says nothing of is None."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def to_dict(self) -> dict[str, Any]:
        return dict(self)
