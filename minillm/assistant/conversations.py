"""A conversation as ids, and which of them the assistant says: what a chat model is trained on.

    ids   <|im_start|> user \\n Hi <|im_end|> \\n <|im_start|> assistant \\n | Hello ! <|im_end|> | \\n
    mask        0       0   0  0      0      0        0           0      0 |   1   1      1     |  0

An answer begins where the model is asked for it, at the end of the template's generation prompt, and ends with the
token that ends the turn: that one is learned too, or answers would not end. A text is cut into tokens anew at every
place where an answer begins, in training as when the model is asked: so the ids before an answer are those that the
model will see there (a BPE would otherwise join the prompt's last characters with the answer's first).

Where the answers stand in the text is found in one of two ways. A template can say it with {% generation %} marks, and
is believed. Any other is asked for each answer in turn: the text of the messages before it, with the generation prompt,
must be the beginning of the text of all. Where that is not so (it leaves out the thoughts of earlier turns, say), a
mask would be a guess, and `encode` refuses.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from ..data.fields import Message, chat_of, messages_of
from ..data.rows import BadRecord
from ..disk import write_json, write_text
from ..tokenizers import Tokenizer
from ..tokenizers.base import END_OF_TEXT
from .template import render_chat

CHATML = Path(__file__).parent / "templates" / "chatml.jinja"
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
TRAIN_ON = ("assistant", "last", "all")
MARKED = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
PRIVATE = range(0xF0000, 0xFFFFE)  # characters that Unicode gives no meaning
QUESTION, ANSWER = "plugh", "xyzzy"  # what no template changes
Span = tuple[int, int]  # from, to: places in a text


@dataclass(frozen=True)
class ChatTemplate:
    """How a model's conversations are written.

    source: the template, in Jinja. tokenizer: of minillm.tokenizers. variables: what the template may use besides the
    messages (bos_token, eos_token, ...). where: what it is called in errors.

    Messages are {"role": "system" | "user" | "assistant", "content": a text}: at most one of the system, at the head,
    then user and assistant in turn. No content may be empty, or hold the text of a special token: it would end the
    turn, and speak on in another's name. The template writes all special tokens itself; what the tokenizer's own
    template (`encode_pair`) puts around a text is left out.
    """

    source: str
    tokenizer: Tokenizer
    variables: Mapping[str, str]
    where: str = "the chat template"

    @classmethod
    def chatml(cls, tokenizer: Tokenizer) -> ChatTemplate:
        """ChatML (OpenAI 2023), for a tokenizer with its two tokens: see vocabulary.py. Raises ValueError without."""
        missing = [text for text in CHATML_TOKENS if text not in tokenizer.special_tokens]
        if missing:
            raise ValueError(f"ChatML needs the special token {missing[0]!r}: add it by with_chat_tokens.")
        variables = {"eos_token": CHATML_TOKENS[1]}
        return cls(CHATML.read_text(encoding="utf-8"), tokenizer, variables, "the ChatML template")

    # What a training run keeps beside its weights: a tokenizer, with all that the conversations need.

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def fingerprint(self) -> str:
        return self.tokenizer.fingerprint()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write tokenizer.json, tokenizer_config.json with the variables, and chat_template.jinja."""
        self.tokenizer.save(folder)
        values = {**self.variables, "tokenizer_class": "PreTrainedTokenizerFast"}
        write_json(Path(folder) / "tokenizer_config.json", dict(sorted(values.items())))
        write_text(Path(folder) / "chat_template.jinja", self.source)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids of these messages, the user's last, up to where the assistant begins to speak. Raises ValueError."""
        turns = self.checked(messages)
        if turns[-1]["role"] != "user":
            raise ValueError(f"a prompt ends with the user's message, not with the {turns[-1]['role']}'s.")
        written = self.write(turns, prompt=True)
        return self.ids_of(written, [])[0]

    def encode(self, messages: Sequence[Message], train_on: str = "assistant") -> tuple[list[int], list[bool]]:
        """(ids, mask): all ids of a conversation that ends with the assistant, and which of them are learned:
        everything that the assistant says ("assistant"), its last turn ("last") or "all".

        The ids before message i, if it is the assistant's, are `prompt(messages[:i])`, as long as the template writes
        the messages before it alike in both. Raises ValueError for bad messages, or a template that leaves open which
        tokens are the assistant's.
        """
        if train_on not in TRAIN_ON:
            raise ValueError(f"train_on must be one of {', '.join(TRAIN_ON)}, not {train_on!r}.")
        turns = self.checked(messages, ends_with_answer=True)
        written = self.write(turns)
        spans = [] if train_on == "all" else self.answers(turns, written, only_last=train_on == "last")
        ids, before = self.ids_of(written, spans)
        mask = [train_on == "all"] * len(ids)
        for begin, end in spans:
            mask[before[begin] : before[end]] = [True] * (before[end] - before[begin])
        return ids, mask

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """What ends an answer: see `stop_ids_of`."""
        return stop_ids_of(self)

    @property
    def end_of_turn(self) -> int | None:
        """The special token that the template puts behind an answer, None where it puts none: <|im_end|>, <|eot_id|>,
        <end_of_turn>."""
        found = self.end_in_tail
        return None if found is None else found[1]

    @cached_property
    def tail(self) -> str | None:
        """What the template writes behind the last answer; None if it does not write the answer."""
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
        _, found, behind = self.render(turns, datetime.datetime.now()).rpartition(ANSWER)
        return behind if found else None

    @cached_property
    def end_in_tail(self) -> tuple[int, int] | None:
        """(where in the tail its first special token ends, its id)."""
        places = {text: (self.tail or "").find(text) for text in self.tokenizer.special_tokens}
        found = [(place, -len(text), text) for text, place in places.items() if place >= 0]
        if not found:
            return None
        place, _, text = min(found)  # of those that begin at one place the longest
        return place + len(text), self.tokenizer.special_tokens[text]

    def checked(self, messages: Sequence[Message], ends_with_answer: bool = False) -> tuple[Message, ...]:
        """The messages with role and content only. Raises ValueError for what is wrong with them."""
        try:
            turns = (chat_of if ends_with_answer else messages_of)(list(messages), "messages")
        except BadRecord as error:
            raise ValueError(f"{error}.") from None
        for number, message in enumerate(messages, 1):
            if message.get("tool_calls"):
                raise ValueError(f"message {number} calls a tool: write the call into its content, or leave it out.")
        for number, turn in enumerate(turns, 1):
            for text in self.tokenizer.special_tokens:
                if text in turn["content"]:
                    raise ValueError(
                        f"message {number} holds {text!r}, which is a control token of this model: write it in another "
                        "way."
                    )
        return turns

    def render(
        self,
        turns: Sequence[Message],
        now: datetime.datetime,
        prompt: bool = False,
        marks: tuple[str, str] = ("", ""),
    ) -> str:
        """The text of a conversation, with the generation prompt behind it if `prompt`; `now` is its time."""
        given = {"tools": None, "documents": None, "strftime_now": now.strftime, **self.variables}
        variables = {**given, "messages": list(turns), "add_generation_prompt": prompt}
        return render_chat(self.source, variables, self.where, marks)

    def write(self, turns: Sequence[Message], prompt: bool = False) -> Written:
        """The text of a conversation, with the places where answers begin in it."""
        now = datetime.datetime.now()
        text = self.render(turns, now, prompt)
        heads = {
            number: self.render(turns[:number], now, prompt=True)
            for number, turn in enumerate(turns)
            if turn["role"] == "assistant"
        }
        marked = self.marked_spans(turns, now, prompt, text) if MARKED.search(self.source) else []
        return Written(text, heads, marked, now)

    def marked_spans(
        self, turns: Sequence[Message], now: datetime.datetime, prompt: bool, text: str | None = None
    ) -> list[Span]:
        """What stands between {% generation %} and {% endgeneration %}: the text is written a second time, with two
        characters as marks that do not occur in it."""
        text = self.render(turns, now, prompt) if text is None else text
        begin, end = islice((chr(code) for code in PRIVATE if chr(code) not in text), 2)
        pieces = re.split(f"([{begin}{end}])", self.render(turns, now, prompt, (begin, end)))
        if "".join(pieces[::2]) != text or pieces[1::2] != [begin, end] * (len(pieces) // 4):
            raise ValueError(
                f"{self.where} changes what it has between {{% generation %}} and {{% endgeneration %}}, or has such "
                "tags within each other: put them where the assistant's text is written out."
            )
        places, at = [], 0
        for piece in pieces[:-1:2]:
            at += len(piece)
            places.append(at)
        return [(a, b) for a, b in zip(places[::2], places[1::2]) if a < b]

    def answers(self, turns: Sequence[Message], written: Written, only_last: bool) -> list[Span]:
        """Where in the text the assistant speaks, the end of each turn included."""
        if written.marked:
            earlier = len(self.marked_spans(turns[:-1], written.now, prompt=False)) if only_last else 0
            if earlier == len(written.marked):
                raise ValueError(f"{self.where} has no {{% generation %}} marks around the last turn.")
            return written.marked[earlier:]
        wanted = list(written.heads)[-1:] if only_last else list(written.heads)
        return [self.answer(turns, number, written) for number in wanted]

    def answer(self, turns: Sequence[Message], number: int, written: Written) -> Span:
        """Where in the text the assistant's turn `number` stands. Raises ValueError where that is not certain."""
        head, text, content = written.heads[number], written.text, turns[number]["content"].strip()
        here = text if number == len(turns) - 1 else self.render(turns[: number + 1], written.now)
        if not text.startswith(head):
            raise self.refusal(number, "what it writes before the answer is another text once the answer is there")
        if self.tail is None:
            raise self.refusal(number, "it changes the answer's text, or leaves it out")
        if self.end_in_tail is None:
            has = ", ".join(self.tokenizer.special_tokens) or "none"
            raise self.refusal(
                number,
                f"it puts no special token behind the answer (the tokenizer has {has}), so that answers would not end",
            )
        end_of_content = len(here) - len(self.tail)
        said = here[len(head) : end_of_content]
        if not here.endswith(self.tail) or not said.rstrip().endswith(content):
            raise self.refusal(number, "it changes the answer's text")
        end = end_of_content + self.end_in_tail[0]
        if text[:end] != here[:end]:
            raise self.refusal(number, 'it writes the answer in another way once turns follow (train_on="last" works)')
        return len(head), end

    def refusal(self, number: int, reason: str) -> ValueError:
        return ValueError(
            f"message {number + 1}: {self.where} does not show which tokens are the assistant's: {reason}. Put "
            "{% generation %} and {% endgeneration %} around them in the template, or take another template."
        )

    def ids_of(self, written: Written, spans: Sequence[Span]) -> tuple[list[int], dict[int, int]]:
        """The ids of a text, and for both ends of each span how many ids stand before it.

        The text is cut where answers begin, and at the ends of spans if otherwise a token would reach across.
        """
        text = written.text
        cuts = sorted({0, len(text), *(len(head) for head in written.heads.values() if text.startswith(head))})
        places = sorted({place for span in (*written.marked, *spans) for place in span})
        ids: list[int] = []
        before = {0: 0}
        for start, end in pairwise(cuts):
            part = self.encoded(text[start:end])
            for place in places:
                if start < place < end:
                    head = self.encoded(text[start:place])
                    if part[: len(head)] != head:
                        ids, start, part, head = ids + head, place, self.encoded(text[place:end]), []
                    before[place] = len(ids) + len(head)
            ids += part
            before[end] = len(ids)
        return ids, before

    def encoded(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, allowed_special="all", disallowed_special=())


@dataclass(frozen=True)
class Written:
    """The text of a conversation; for each of the assistant's turns, by number, the text that should come before it;
    what the template marks as said by the assistant; and the time at which it was written."""

    text: str
    heads: dict[int, str]
    marked: list[Span]
    now: datetime.datetime


def stop_ids_of(template: ChatTemplate, further: Any = None) -> tuple[int, ...]:
    """What ends an answer: the end of text (whatever eos_token is: <|endoftext|>, too, as in llama.cpp), what `further`
    (generation_config.json's eos_token_id: an id, several or None) says, and the special token that the template puts
    behind an answer. Raises ValueError if there is none."""
    tokenizer = template.tokenizer
    ids = {token.text: token.id for token in tokenizer.added_tokens}
    named = further if isinstance(further, list) else [further]
    ends = [ids.get(template.variables.get("eos_token", "")), tokenizer.eos_id, ids.get(END_OF_TEXT)]
    found = [*ends, *named, template.end_of_turn]
    stops = tuple(dict.fromkeys(int(token_id) for token_id in found if token_id is not None))
    if not stops:
        raise ValueError(
            f"nothing ends an answer: neither has {tokenizer!r} an end-of-text token, nor does its chat template put a "
            "special token behind an answer."
        )
    return stops
