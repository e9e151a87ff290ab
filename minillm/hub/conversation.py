"""A conversation with a model: its turns, the chat template around them, and an answer piece by piece."""

from __future__ import annotations

import codecs
import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..assistant.conversations import ChatTemplate, stop_ids_of
from ..assistant.run import check_speaks
from ..data.fields import Message, messages_of
from ..data.rows import BadRecord
from ..disk import about, read_json, write_json
from ..generate import Sampling, check_continues, known_ids, stream
from .architecture import Values
from .assistants import is_assistant, open_assistant
from .checkpoint import check_engine, open_checkpoint
from .configs import read_generation_config
from .generation import drawing_in, rules_in, settings_of, stop_ids_in, stop_texts_in
from .rules import until
from .tokenizer import AutoTokenizer, PretrainedTokenizer


@dataclass
class Conversation:
    """The turns so far, and what answers.

    model: of either engine. template: with the model's tokenizer. stop_ids: what ends an answer. messages: the turns,
    maybe with a system message at the head. dropped: how many turns the last answer did without, since the context was
    full. settings: of generation_config.json, which hold for the answers, but for `max_length`: a conversation grows.
    """

    model: Any
    template: ChatTemplate
    stop_ids: tuple[int, ...]
    messages: list[Message] = field(default_factory=list)
    dropped: int = 0
    settings: Values = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        name_or_folder: str | os.PathLike[str],
        *,
        engine: str = "numpy",
        dtype: Any = None,
        device: Any = None,
        verify: bool = True,
    ) -> Conversation:
        """A new conversation with the model of a folder, or of a name on the hub; with that of a run of an assistant it
        begins with the system message that it was trained with. Raises ValueError for one that has no chat template,
        whose answers would not end, or whose generation_config.json asks for what is not done here."""
        check_engine(engine, device)
        if is_assistant(name_or_folder):
            model, template, config = open_assistant(
                name_or_folder, engine=engine, dtype=dtype, device=device, verify=verify
            )
            check_speaks(model, os.fspath(name_or_folder))
            conversation = cls(model, template, template.stop_ids)
            conversation.system = config.chat.system
            return conversation
        checkpoint = open_checkpoint(name_or_folder)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.tokenizer_folder)
        with about(checkpoint.folder):
            template = chat_template_of(tokenizer)
        with about(checkpoint.folder):
            settings = settings_of(read_generation_config(checkpoint.folder) or {}, {}, {})
            for name in ("num_beams", "num_return_sequences"):
                if settings.get(name, 1) != 1:
                    raise ValueError(
                        f"generation_config.json: {name} = {settings[name]} must be 1 to chat: one answer is written, "
                        "piece by piece."
                    )
        model = checkpoint.model(engine=engine, dtype=dtype, device=device, verify=verify)
        check_continues(model)
        return cls(model, template, stop_ids_of(template, stop_ids_in(settings)), settings=settings)

    @property
    def drawing(self) -> dict[str, Any]:
        """How the model's folder asks for tokens to be drawn: fields of `Sampling`."""
        return drawing_in(self.settings)

    @property
    def system(self) -> str:
        """What the model is told before the first turn; "" for nothing."""
        return self.messages[0]["content"] if self.messages and self.messages[0]["role"] == "system" else ""

    @system.setter
    def system(self, text: str) -> None:
        turns = self.messages[1:] if self.system else self.messages
        self.messages = [*([{"role": "system", "content": text}] if text else []), *turns]

    def reset(self) -> None:
        """Forget all turns but the system message."""
        self.messages = self.messages[:1] if self.system else []

    def answer(
        self, text: str, *, max_new_tokens: int, sampling: Sampling | None = None, seed: int | None = None
    ) -> Generator[str, None, None]:
        """The answer to the user's `text`, piece by piece; both become turns of the conversation. `sampling`: by
        default as the model's folder asks for.

        An answer that the caller does not read to its end (`close`) stays in the conversation as far as it was read; if
        that is nothing, or white space, the user's turn goes, too. Raises ValueError for a turn that does not fit into
        the context, and for one with a control token's text.
        """
        self.messages.append({"role": "user", "content": text})
        said: list[str] = []
        try:
            ids = self.fitting_ids(max_new_tokens)
            with closing(self.pieces(ids, max_new_tokens, sampling, seed)) as pieces:
                for piece in until(pieces, stop_texts_in(self.settings)):
                    said.append(piece)
                    yield piece
        finally:
            if "".join(said).strip():
                self.messages.append({"role": "assistant", "content": "".join(said)})
            else:
                self.messages.pop()

    def pieces(
        self, ids: list[int], max_new_tokens: int, sampling: Sampling | None, seed: int | None
    ) -> Generator[str, None, None]:
        """New text, whole characters at a time."""
        core = self.template.tokenizer
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        sampling = Sampling(**self.drawing) if sampling is None else sampling
        options: dict[str, Any] = {"sampling": sampling, "seed": seed, "allowed": known_ids(core)}
        rest_of_settings = {**self.settings, "repetition_penalty": 1.0}  # which `sampling` has
        options["rules"] = rules_in(rest_of_settings, self.stop_ids, max_new_tokens, len(ids))
        special = set(core.special_tokens.values())
        with closing(
            stream(self.model, ids, max_new_tokens=max_new_tokens, stop_ids=self.stop_ids, **options)
        ) as tokens:
            for token in tokens:
                piece = "" if token in special else decoder.decode(core.decode_bytes([token]))
                if piece:
                    yield piece
        if rest := decoder.decode(b"", final=True):
            yield rest

    def fitting_ids(self, max_new_tokens: int) -> list[int]:
        """The ids of the conversation up to the next answer, for which there is room: where it is too long, its oldest
        turns are left out, two at a time (question and answer), and counted in `dropped`."""
        context, head = self.model.config.context, 1 if self.system else 0
        room = context - min(max_new_tokens, context // 2)
        for dropped in range(0, len(self.messages) - head, 2):
            ids = self.template.prompt([*self.messages[:head], *self.messages[head + dropped :]])
            if len(ids) <= room:
                self.dropped = dropped
                return ids
        self.dropped = 0
        raise ValueError(
            f"this turn alone has {len(ids)} tokens{' with the system message' if head else ''}, and the model takes "
            f"{context} with the answer: shorten it."
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the turns to a JSON file. Raises FileExistsError for a file that holds no conversation."""
        path = Path(path)
        if path.exists():
            try:
                read_messages(path)
            except ValueError:
                raise FileExistsError(f"{path} exists and holds no conversation: choose another name.") from None
        write_json(path, {"messages": self.messages})

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on with the turns of a JSON file. Raises FileNotFoundError or ValueError, and keeps the ones it has."""
        self.messages = read_messages(Path(path))


def read_messages(path: Path) -> list[Message]:
    """The turns in a file that `save` wrote: {"messages": [{"role", "content"}, ...]}."""
    content = read_json(path)
    with about(path):
        try:
            value = content.get("messages") if isinstance(content, dict) else content
            messages = [] if value == [] else [dict(message) for message in messages_of(value, "messages")]
        except BadRecord as error:
            raise ValueError(f"it holds no conversation: {error}.") from None
        if messages and messages[-1]["role"] == "user":
            raise ValueError("its last turn is the user's: it must end with an answer.")
    return messages


def chat_template_of(tokenizer: PretrainedTokenizer) -> ChatTemplate:
    """How conversations are written for this tokenizer's model. Raises ValueError if it has no chat template."""
    if tokenizer.chat_template is None:
        raise ValueError(
            "there is no chat template, by which the model would know who speaks: it continues texts (minillm "
            "generate). Take a chat model, or put its chat_template.jinja into the folder."
        )
    return ChatTemplate(tokenizer.chat_template, tokenizer.core, dict(tokenizer.tokens), tokenizer.template_name)
