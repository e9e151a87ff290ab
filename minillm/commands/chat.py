"""`minillm chat`: talk with a model, in the terminal or through a pipe."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from dataclasses import replace
from typing import Any

from ..generate import Sampling
from ..hub.checkpoint import load_model_and_tokenizer
from ..hub.conversation import Conversation
from ..settings import EngineConfig
from .ahead import add_compile, check_compile, compiled
from .options import add_option, add_sampling, choices, keywords, sampling_settings, typed_text, whole

TEMPERATURE = 0.7  # when none is given, and the model's generation_config.json says nothing either
MAX_NEW_TOKENS = 400  # the same
LONGEST = 4096  # tokens of a conversation for which steps are compiled at once; a longer one compiles again
COMMANDS = {  # what may be typed in place of a turn -> what it does
    "/temperature T": "0: always the likeliest token; more: more surprising",
    "/system TEXT": "tell the model something before the first turn; nothing: take it back",
    "/retry": "another answer to the last turn",
    "/reset": "forget the turns so far",
    "/save FILE": "write the turns to a JSON file",
    "/load FILE": "go on with the turns of one",
    "/help": "this list",
    "/exit": "leave",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    typed = "\n".join(f"  {name:16} {what}" for name, what in COMMANDS.items())
    parser.epilog = (
        f"Type a turn, or one of these:\n\n{typed}\n\nCtrl-C stops an answer, Ctrl-D leaves. Through a pipe each line "
        "is a turn, and the answers\nare all that is written."
    )
    model = "checkpoint or run folder with a chat template, of either format, or a name on the hub"
    parser.add_argument("model", metavar="MODEL", help=model)
    system = "what the model is told before the first turn; default: a run's own"
    parser.add_argument("--system", metavar="TEXT", type=typed_text, help=system)
    parser.add_argument("--load", metavar="FILE", help="go on with a conversation that /save wrote")
    length = f"length of an answer (default: the folder's, or {MAX_NEW_TOKENS})"
    parser.add_argument("--max-new-tokens", type=whole(1), help=length)
    add_sampling(parser, f"the folder's, or {TEMPERATURE}")
    parser.add_argument("--seed", type=whole(0), help="of the first answer; without it each run differs")
    add_compile(parser)
    add_option(parser, load_model_and_tokenizer, "engine", "what computes", choices=choices(EngineConfig, "name"))
    add_option(parser, load_model_and_tokenizer, "device", "PyTorch's: cpu, cuda, mps")
    add_option(parser, load_model_and_tokenizer, "verify", "compare a run's weights with their checksum")


def run(arguments: argparse.Namespace) -> int:
    drawing = sampling_settings(arguments)
    Sampling(**drawing)  # checked before the model is read
    check_compile(arguments)
    conversation = Conversation.open(arguments.model, **keywords(Conversation.open, arguments))
    if arguments.load:
        conversation.load(arguments.load)
    if arguments.system is not None:
        conversation.system = arguments.system
    sampling = Sampling(**{"temperature": TEMPERATURE, **conversation.drawing, **drawing})
    n_new = arguments.max_new_tokens or conversation.settings.get("max_new_tokens", MAX_NEW_TOKENS)
    context = conversation.model.config.context
    conversation.model = compiled(arguments, conversation.model, 1, min(context, LONGEST))
    chat = Chat(conversation, sampling, n_new, arguments.seed, sys.stdin.isatty())
    chat.talk()
    return 0


class Chat:
    """What is typed, and what comes of it. In a terminal there is a prompt, and a slip does not end the chat; through a
    pipe nothing is written but answers, and an error ends it."""

    def __init__(
        self, conversation: Conversation, sampling: Sampling, max_new_tokens: int, seed: int | None, terminal: bool
    ) -> None:
        self.conversation, self.sampling, self.max_new_tokens = conversation, sampling, max_new_tokens
        self.seed, self.terminal = seed, terminal

    def talk(self) -> None:
        """Until /exit, or the end of what is typed."""
        if self.terminal:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (the arrow keys, in `input`)
            self.note("Type, and press Enter. /help lists what else you can type; Ctrl-C stops an answer.")
        while True:
            try:
                line = input("> " if self.terminal else "").rstrip()
            except EOFError:
                if self.terminal:
                    print()
                return
            except KeyboardInterrupt:
                if not self.terminal:
                    raise
                print()
                self.note("/exit, or Ctrl-D, leaves.")
                continue
            if line == "/exit":
                return
            try:
                self.obey(line) if line.startswith("/") else self.say(line.strip())
            except (ValueError, OSError) as error:
                if not self.terminal:
                    raise
                self.note(str(error))

    def note(self, text: str) -> None:
        """Something that is no answer."""
        print(f"({text})", file=sys.stderr, flush=True)

    def say(self, text: str, instead: str = "your turn is not kept: ask again, or otherwise") -> None:
        """Answer a turn, each piece as soon as it is chosen; Ctrl-C ends the answer, not the chat. Where no answer
        comes, it is said what happens `instead`."""
        if not text:
            return
        pieces = self.conversation.answer(
            text, max_new_tokens=self.max_new_tokens, sampling=self.sampling, seed=self.seed
        )
        if self.seed is not None:
            self.seed += 1
        before = len(self.conversation.messages)
        stopped, first = False, True
        with contextlib.closing(pieces):
            try:
                for piece in pieces:
                    if first and self.conversation.dropped:
                        n = self.conversation.dropped
                        self.note(f"The context is full: the model no longer sees the {n} oldest turns.")
                    print(piece, end="", flush=True)
                    first = False
            except KeyboardInterrupt:
                if not self.terminal:
                    raise
                stopped = True
        print(flush=True)
        if stopped:
            self.note("stopped")
        elif len(self.conversation.messages) == before:
            self.note(f"No answer came, and {instead}.")

    def obey(self, line: str) -> None:
        """Do what a line that begins with / asks for."""
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "/temperature":
            self.set_temperature(rest)
        elif word == "/system":
            self.conversation.system = rest
        elif word == "/retry":
            self.retry()
        elif word == "/reset":
            self.conversation.reset()
        elif word in ("/save", "/load"):
            self.conversation_file(word, rest)
        elif word == "/help":
            self.note("\n".join(f"{name:16} {what}" for name, what in COMMANDS.items()))
        else:
            known = ", ".join(name.split()[0] for name in COMMANDS)
            raise ValueError(f"{word} is none of {known}. To begin a turn with a slash, put a space before it.")

    def set_temperature(self, text: str) -> None:
        try:
            value: Any = float(text)
        except ValueError:
            raise ValueError(f"/temperature takes a number, such as 0.7, not {text!r}.") from None
        self.sampling = replace(self.sampling, temperature=value)

    def retry(self) -> None:
        """Another answer to the last turn."""
        turns = self.conversation.messages
        if not turns or turns[-1]["role"] != "assistant":
            raise ValueError("there is no answer yet to try again.")
        kept = list(turns)
        del turns[-2:]
        before = len(turns)
        try:
            self.say(kept[-2]["content"], "the one before stays")
        finally:
            if len(turns) == before:  # no new answer came: the old one stays
                turns += kept[-2:]

    def conversation_file(self, word: str, rest: str) -> None:
        names = shlex.split(rest)
        if len(names) != 1:
            raise ValueError(f"{word} takes one file name, such as talk.json; one with spaces in quotes.")
        if word == "/save":
            self.conversation.save(names[0])
            self.note(f"wrote {names[0]}")
        else:
            self.conversation.load(names[0])
            self.note(f"{len(self.conversation.messages)} turns")
