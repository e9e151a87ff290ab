"""A tokenizer as models want it: batches with padding and truncation, pairs, special tokens, chat templates.

The tokenizers of minillm.tokenizers turn text into ids. A checkpoint folder says more in tokenizer_config.json: which
token pads, how long a text may be, what a conversation looks like. tokenizer_files.py reads it, special_tokens.py knows
tokens by name, padding.py makes rows of one length, assistant/template.py conversations.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..assistant.template import check_chat_options, is_batch, render_conversation
from ..disk import about, write_json, write_text
from ..tokenizers import Tokenizer, WordPieceTokenizer
from ..tokenizers.json_parts import TOKENIZER_JSON
from . import tokenizer_files as files
from .padding import Inputs, pad, to_tensors, truncate
from .places import HUB_OPTIONS, TEXT, find_folder
from .special_tokens import ROLES, NamedTokens

TEMPLATE_FILE = "chat_template.jinja"
SETTINGS = (
    *ROLES, "additional_special_tokens", "extra_special_tokens", "model_max_length", "padding_side", "truncation_side",
    "model_input_names", "pad_token_type_id", "do_lower_case", "tokenize_chinese_chars", "strip_accents",
    "add_prefix_space", "split_special_tokens", "clean_up_tokenization_spaces", "chat_template",
)  # fmt: skip
UNLIMITED = 10**9  # files write 1e30 for "no limit"


class AutoTokenizer:
    """`AutoTokenizer.from_pretrained(name_or_folder)` reads a tokenizer with all that its folder says about it."""

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, use_fast: bool = True, **settings: Any
    ) -> PretrainedTokenizer:
        """`settings`: entries of tokenizer_config.json to change, such as model_max_length=128 or pad_token="[PAD]".

        They may be `revision`, `token`, `cache_dir` and `local_files_only` too, for names on the hub (places.py).
        `use_fast` is taken for programs written for transformers, and changes nothing. Raises TypeError for a setting
        that there is not, NotFound for a place with no model, FileNotFoundError or ValueError for one with no tokenizer
        that can be read.
        """
        hub = {name: settings.pop(name) for name in HUB_OPTIONS if name in settings}
        if unknown := [name for name in settings if name not in SETTINGS]:
            given = f"{unknown[0]!r} (given: {settings[unknown[0]]!r})"
            raise TypeError(f"AutoTokenizer.from_pretrained knows no {given}; it knows {', '.join(SETTINGS)}.")
        folder = find_folder(name_or_folder, only=TEXT, **hub)
        core, config, content, size = files.read_tokenizer_folder(folder, settings)
        file = folder / TEMPLATE_FILE
        from_file = file.exists() and "chat_template" not in settings
        with about(file):
            template = file.read_text(encoding="utf-8") if from_file else None
        made = PretrainedTokenizer(core, config, chat_template=template, tokenizer_json=content, vocab_size=size)
        made.template_name = f"the chat template in {file if from_file else folder / files.CONFIG_FILE}"
        return made


class PretrainedTokenizer(NamedTokens):
    """A tokenizer of minillm.tokenizers, `core`, called as transformers' are called."""

    template_name = "the chat template"  # in messages

    def __init__(
        self,
        core: Tokenizer,
        config: Mapping[str, Any] | None = None,
        *,
        chat_template: str | None = None,
        tokenizer_json: dict[str, Any] | None = None,
        vocab_size: int | None = None,
    ) -> None:
        """`config`: tokenizer_config.json ({} for a tokenizer made here). `tokenizer_json`: the file it was read from,
        which is saved again as it was. `vocab_size`: tokens without those added to the file's model; default: all."""
        self.core = core
        self.config = dict(config or {})
        self.tokenizer_json = tokenizer_json
        self.vocab_size = core.vocab_size if vocab_size is None else vocab_size
        self.chat_template = chat_template if chat_template is not None else template_in(self.config)
        assumed = files.assumed_tokens(self.config) if self.config else files.tokens_made_here(core)
        self.tokens = {}
        for role in ROLES:
            text = files.token_text(self.config.get(role, assumed.get(role)))
            if text is not None and (role in self.config or self.id_of(text) is not None):
                self.tokens[role] = text
        further = [files.token_text(value) for value in files.further_special_tokens(self.config)]
        self.further_tokens = [text for text in further if text and self.id_of(text) is not None]
        self.model_max_length = int(min(self.config.get("model_max_length") or UNLIMITED, UNLIMITED))
        self.padding_side = self.config.get("padding_side", "right")
        self.truncation_side = self.config.get("truncation_side", "right")
        split = self.config.get("split_special_tokens")  # their text is ordinary text then
        self.allowed_special: Literal["all"] | tuple[str, ...] = () if split else "all"
        named, name = self.config.get("model_input_names"), files.class_of(self.config)
        segments = name == "BertTokenizer" or (not name and isinstance(core, WordPieceTokenizer))
        self.model_input_names = list(named or ["input_ids", *["token_type_ids"] * segments, "attention_mask"])

    def __repr__(self) -> str:
        return f"PretrainedTokenizer({self.core!r}, {self.tokens})"

    # --- text -> ids

    def __call__(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
    ) -> Inputs:
        """One text or a list of texts, with `text_pair` (or as a list of pairs) two each -> `Inputs`.

        The text of a special token ("[MASK]") becomes that token. `padding`: True or "longest" to the longest of the
        batch, "max_length". `truncation`: True or "longest_first", "only_first", "only_second"; to `max_length`, by
        default the model's. A max_length without either truncates too. `return_tensors`: None gives lists, "np" int64
        arrays (B, T), "pt" torch tensors.
        """
        one = isinstance(text, str)
        if return_tensors not in (None, "np", "pt"):
            raise ValueError(f"return_tensors = {return_tensors!r} must be 'np', 'pt' or None.")
        if truncation is None:
            truncation = max_length is not None and padding is False
        strategy = "longest_first" if truncation is True else truncation or "do_not_truncate"
        limit = max_length if max_length is not None else self.model_max_length
        pairs = self.encode_texts(text, text_pair)
        rows = [self.join(a, b, add_special_tokens, strategy, limit) for a, b in pairs]
        ids = [row for row, _ in rows]
        columns = {"input_ids": ids, "token_type_ids": [types for _, types in rows]}
        columns["attention_mask"] = [[1] * len(row) for row in ids]
        if padding not in (False, None, "do_not_pad"):
            if self.pad_token_id is None:
                raise ValueError("this tokenizer has no padding token. Set tokenizer.pad_token = tokenizer.eos_token.")
            values = {"input_ids": self.pad_token_id, "token_type_ids": self.config.get("pad_token_type_id", 0)}
            length = max(map(len, ids), default=0)
            if padding == "max_length":
                length = limit if limit < UNLIMITED else 0  # no limit, no padding
            if padding not in (True, "longest", "max_length"):
                raise ValueError(f"padding = {padding!r} must be True, 'longest', 'max_length' or False.")
            columns = pad(columns, length, values, self.padding_side, pad_to_multiple_of)
        inputs = Inputs({name: columns[name] for name in self.model_input_names if name in columns})
        if return_tensors is None:
            return Inputs({name: rows[0] for name, rows in inputs.items()}) if one else inputs
        return to_tensors(inputs, return_tensors)

    def encode_texts(
        self, text: str | Sequence[Any], text_pair: str | Sequence[str] | None
    ) -> list[tuple[list[int], list[int] | None]]:
        """The ids of each text, and of its second text if there is one; nothing put around them yet."""
        firsts = [text] if isinstance(text, str) else list(text)
        seconds: list[Any] | None = None
        if text_pair is not None:
            seconds = [text_pair] if isinstance(text_pair, str) else list(text_pair)
            if len(firsts) != len(seconds):
                raise ValueError(f"{len(firsts)} texts and {len(seconds)} second texts do not pair up.")
        elif firsts and all(isinstance(item, (tuple, list)) and len(item) == 2 for item in firsts):
            firsts, seconds = [item[0] for item in firsts], [item[1] for item in firsts]
        encode = partial(self.core.encode_batch, allowed_special=self.allowed_special, disallowed_special=())
        return list(zip(encode(firsts), encode(seconds) if seconds is not None else [None] * len(firsts)))

    def join(
        self, a: list[int], b: list[int] | None, add_special_tokens: bool, strategy: str, limit: int
    ) -> tuple[list[int], list[int]]:
        """(ids, token types) of one row: cut to size, with the special tokens around."""
        template = self.core.template
        around = len(template.apply([], None if b is None else [])[0]) if add_special_tokens else 0
        a, b = truncate(a, b, limit - around, strategy, self.truncation_side)
        if add_special_tokens:
            return template.apply(a, b)
        second = b or []
        return a + second, [0] * len(a) + [1] * len(second)

    def encode(self, text: str, text_pair: str | None = None, **options: Any) -> list[int]:
        """The ids of one text or pair, special tokens around it."""
        return self(text, text_pair, **options)["input_ids"]

    def tokenize(self, text: str, pair: str | None = None, *, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text or a pair, as tokenizer.json writes them: ["Hello", "Ġworld"], ["hello", "##s"]."""
        return self.convert_ids_to_tokens(self.encode(text, pair, add_special_tokens=add_special_tokens))

    # --- ids -> text

    def decode(self, ids: Any, *, skip_special_tokens: bool = False) -> str:
        """The text that ids (T,), a list, array or tensor, stand for."""
        return self.core.decode(np.asarray(ids).reshape(-1).tolist(), skip_special_tokens=skip_special_tokens)

    def batch_decode(self, batch: Any, *, skip_special_tokens: bool = False) -> list[str]:
        """The text of each row."""
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in batch]

    # --- conversations

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        chat_template: str | None = None,
        **variables: Any,
    ) -> Any:
        """A conversation, [{"role": "user", "content": "Hi"}, ...], or a list of several, as the model was trained to
        see it.

        tokenize=True gives `Inputs` (as in transformers 5; return_dict=False only the ids), False the text, or a list
        of texts. `add_generation_prompt` adds what comes before an answer; `continue_final_message` leaves out what
        comes after the last message, for the model to go on with it. `padding`, `truncation`, `max_length` and
        `return_tensors` as when texts are encoded. `variables` go to the template. Needs jinja2. Raises ValueError if
        the tokenizer has no template.
        """
        template = chat_template or self.chat_template
        if template is None:
            raise ValueError("this tokenizer has no chat template: take a chat model's, or pass chat_template=.")
        check_chat_options(variables, add_generation_prompt, continue_final_message)
        shared = {"tools": tools, "documents": documents, "add_generation_prompt": add_generation_prompt}
        several = is_batch(conversation)
        where = "the chat template" if chat_template else self.template_name
        texts = [
            render_conversation(
                template, messages, {**shared, **self.tokens, **variables}, continue_final_message, where
            )
            for messages in (conversation if several else [conversation])
        ]
        if not tokenize:
            return texts if several else texts[0]
        inputs = self(
            texts if several or return_tensors else texts[0],
            add_special_tokens=False,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
        )
        return inputs if return_dict else inputs["input_ids"]

    # --- saving

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write tokenizer.json, tokenizer_config.json and, if there is one, chat_template.jinja."""
        folder = Path(folder)
        if self.tokenizer_json is None:
            self.core.save(folder)
        else:
            write_json(folder / TOKENIZER_JSON, self.tokenizer_json)
        values = {key: value for key, value in self.config.items() if key != "chat_template"}
        values.update(self.tokens)
        values.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        if "model_input_names" not in values and values["tokenizer_class"] == "PreTrainedTokenizerFast":
            values["model_input_names"] = self.model_input_names
        write_json(folder / files.CONFIG_FILE, dict(sorted(values.items())))
        if self.chat_template is not None:
            write_text(folder / TEMPLATE_FILE, self.chat_template)


def template_in(config: Mapping[str, Any]) -> str | None:
    """The chat template inside tokenizer_config.json, where it was before 2025; of several, the one named default."""
    value = config.get("chat_template")
    if isinstance(value, list):
        return {entry.get("name"): entry.get("template") for entry in value}.get("default")
    return value
