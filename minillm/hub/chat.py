"""Chat templates: programs in the language Jinja that write a conversation out as one text.

They come with checkpoints, from strangers, so they run in Jinja's sandbox, where they can reach neither files nor
Python.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any


def render_chat(template: str, variables: Mapping[str, Any]) -> str:
    """The text that a template makes of `variables` (messages, tools, add_generation_prompt, bos_token, ...).

    The surroundings are those of transformers: blocks leave no empty lines, `break` and `continue` work, `tojson`
    writes real characters, and there are `raise_exception(message)` and `strftime_now(format)`. Raises ImportError
    without jinja2, ValueError with the template's own message if it refuses the conversation or is not valid.
    """
    try:
        import jinja2
        import jinja2.ext
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise ImportError(
            "chat templates need the package jinja2: install it, or build the prompt's text yourself"
        ) from None

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = now
    try:
        return environment.from_string(template).render(**variables)
    except jinja2.TemplateError as error:
        raise ValueError(f"the chat template refused the conversation, or is not valid: {error}") from None


def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def now(pattern: str) -> str:
    """The time here and now, as the template's pattern wants it."""
    return datetime.datetime.now().strftime(pattern)
