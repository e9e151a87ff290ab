"""Chat templates: programs in the language Jinja that write a conversation out as one text.

They come with checkpoints, from strangers, so they run in Jinja's sandbox, where they can reach neither files nor
Python.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any


def render_chat(
    template: str,
    variables: Mapping[str, Any],
    where: str = "the chat template",
    marks: tuple[str, str] = ("", ""),
) -> str:
    """The text that a template makes of `variables` (messages, tools, add_generation_prompt, bos_token, ...).

    The surroundings are those of transformers: blocks leave no empty lines, `break` and `continue` work, `tojson`
    writes real characters, and there are `raise_exception(message)` and `strftime_now(format)`. What stands between
    {% generation %} and {% endgeneration %} is what the assistant says: `marks` are written at its two ends.

    Raises ImportError without jinja2, ValueError, which begins with `where` (the template's file), with the template's
    own message if it refuses the conversation, and for one that is not valid, fails, or goes beyond a limit (see
    sandbox.py).
    """
    try:
        import jinja2

        from .sandbox import LimitedEnvironment, TemplateLimit, compiled
    except ImportError:
        raise ImportError(
            "chat templates need the package jinja2: install minillm-from-scratch[hub] (in a checkout: pip install -e "
            "'.[hub]')."
        ) from None

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = LimitedEnvironment(marks)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = datetime.datetime.now().strftime
    try:
        program = jinja2.Template.from_code(environment, compiled(template), environment.make_globals(None))
        return program.render(**variables)
    except TemplateLimit as error:
        raise ValueError(f"{where} goes beyond what a template may do: {error}.") from None
    except RecursionError:
        raise ValueError(f"{where} calls itself, or is nested, too deeply.") from None
    except MemoryError:
        raise ValueError(f"{where} makes more than there is memory for.") from None
    except Exception as error:  # a template is a program: it can fail in any way
        raise ValueError(f"{where} refused the conversation, or is not valid: {error}") from None


def is_batch(conversation: Sequence[Any]) -> bool:
    """Whether it is a list of conversations. Raises ValueError for what is neither that nor a conversation."""
    if isinstance(conversation, (str, Mapping)) or not conversation:
        raise ValueError(f'a conversation is a list, [{{"role": "user", "content": "Hi"}}], not {conversation!r}.')
    several = not isinstance(conversation[0], Mapping)
    for messages in conversation if several else [conversation]:
        if isinstance(messages, str) or not messages or not all(isinstance(message, Mapping) for message in messages):
            raise ValueError(f"every message must be an object with a role and a content, not as in {messages!r}.")
    return several


def check_chat_options(variables: Mapping[str, Any], add_generation_prompt: bool, continue_final_message: bool) -> None:
    """Raise an error for options that exclude each other, or that transformers has and we have not."""
    for name in ("return_assistant_tokens_mask", "sanitize_control_tokens", "tokenizer_kwargs"):
        if variables.get(name):
            raise TypeError(f"apply_chat_template does not support {name}: leave it out.")
    if add_generation_prompt and continue_final_message:
        raise ValueError("add_generation_prompt begins an answer, continue_final_message goes on with one: give one.")


END_MARK = "CONTINUE_FINAL_MESSAGE_TAG "  # what no message holds; the space shows whether the template strips


def render_conversation(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    open_ended: bool,
    where: str = "the chat template",
) -> str:
    """One conversation as a text; open_ended: only up to the end of the last message's content."""
    if not open_ended:
        return render_chat(template, {"messages": list(messages), **variables}, where)
    content = messages[-1].get("content")
    if not isinstance(content, str):
        raise ValueError(f"continue_final_message: the last content must be a text to go on with: {content!r}.")
    marked = [*messages[:-1], {**messages[-1], "content": content + END_MARK}]
    text = render_chat(template, {"messages": marked, **variables}, where)
    at = text.rfind(END_MARK.strip())
    if at < 0 or content.strip() not in text:
        raise ValueError(f"continue_final_message: the template does not show the last message as it is, in {text!r}.")
    return text[:at] if text.startswith(END_MARK, at) else text[:at].rstrip()
