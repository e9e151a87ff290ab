"""A tokenizer as models want it: batches with padding and truncation, pairs, special tokens, chat templates.

The tokenizers of minillm.tokenizers turn text into ids. A checkpoint folder says more in tokenizer_config.json: which
token pads, how long a text may be, what a conversation looks like. tokenizer_files.py reads it, special_tokens.py knows
tokens by name, padding.py makes rows of one length, assistant/template.py conversations.
"""

from __future__ import annotations

import copy
import datetime
import os
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from ..assistant.conversations import ChatTemplate
from ..assistant.template import check_chat_options, is_batch, render_conversation
from ..disk import about, write_bytes, write_json, write_text
from ..tokenizers import PipelineTokenizer, SentencePieceTokenizer, Tokenizer, WordPieceTokenizer
from ..tokenizers.added import FLAGS
from ..tokenizers.json_parts import TOKENIZER_JSON
from . import tokenizer_files as files
from .offsets import Tokens, encode_words, overflowing, token_mask, with_places
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
        text: str | Sequence[Any] | None = None,
        text_pair: str | Sequence[str] | None = None,
        *,
        text_target: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Inputs:
        """One text or a list of texts -> `Inputs`; `options` are those of `inputs_of`, which does it.

        `text_target`: what is to be written, as a translator's other model cuts it (Marian); with `text` too, its ids
        are the column "labels".
        """
        if text_target is None:
            if text is None:
                raise ValueError("a tokenizer needs a text, or a text_target.")
            return self.inputs_of(text, text_pair, **options)
        writer = copy.copy(self)
        writer.core = self.core.target_side
        target = writer.inputs_of(text_target, **options)
        if text is None:
            return target
        inputs = self.inputs_of(text, text_pair, **options)
        inputs["labels"] = target["input_ids"]
        return inputs

    def inputs_of(
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
        return_offsets_mapping: bool = False,
        return_special_tokens_mask: bool = False,
        return_overflowing_tokens: bool = False,
        stride: int = 0,
        is_split_into_words: bool = False,
    ) -> Inputs:
        """One text or a list of texts, with `text_pair` (or as a list of pairs) two each -> `Inputs`.

        The text of a special token ("[MASK]") becomes that token. `padding`: True or "longest" to the longest of the
        batch, "max_length". `truncation`: True or "longest_first", "only_first", "only_second"; to `max_length`, by
        default the model's. A max_length without either truncates too. `return_tensors`: None gives lists, "np" int64
        arrays (B, T), "pt" torch tensors.

        `return_offsets_mapping` adds for each token the (first, last + 1) characters that it stands for.
        `is_split_into_words`: each text is a list of words; offsets are those within a word, and `Inputs.word_ids(i)`
        says which word each token of row i belongs to. `return_overflowing_tokens`: what truncation cuts off comes
        in rows of its own, each with `stride` tokens of the one before; overflow_to_sample_mapping says whose they are.
        """
        one = isinstance(text[0], str) if is_split_into_words and len(text) else isinstance(text, str)
        if return_tensors not in (None, "np", "pt"):
            raise ValueError(f"return_tensors = {return_tensors!r} must be 'np', 'pt' or None.")
        if truncation is None:
            truncation = max_length is not None and padding is False
        strategy = "longest_first" if truncation is True else truncation or "do_not_truncate"
        limit = max_length if max_length is not None else self.model_max_length
        asked = {
            "offset_mapping": return_offsets_mapping,
            "special_tokens_mask": return_special_tokens_mask,
            "overflow_to_sample_mapping": return_overflowing_tokens,
        }
        tokens = Tokens() if any(asked.values()) or is_split_into_words else None
        pairs = self.encode_texts(text, text_pair, tokens, is_split_into_words)
        owners = list(range(len(pairs)))
        if return_overflowing_tokens:
            pairs, owners = self.overflow(pairs, add_special_tokens, strategy, limit, stride)
            one = one and len(pairs) == 1 and return_tensors is not None
        rows = [self.join(a, b, add_special_tokens, strategy, limit) for a, b in pairs]
        columns: dict[str, list[Any]] = {"input_ids": [row for row, _ in rows]}
        if tokens is not None:
            columns = tokens.columns(columns["input_ids"])
        words = columns.pop("words", None)
        ids = columns["input_ids"]
        columns["token_type_ids"] = [types for _, types in rows]
        columns["attention_mask"] = [[1] * len(row) for row in ids]
        if padding not in (False, None, "do_not_pad"):
            if self.pad_token_id is None:
                raise ValueError("this tokenizer has no padding token. Set tokenizer.pad_token = tokenizer.eos_token.")
            values = self.fillers()
            length = max(map(len, ids), default=0)
            if padding == "max_length":
                length = limit if limit < UNLIMITED else 0  # no limit, no padding
            if padding not in (True, "longest", "max_length"):
                raise ValueError(f"padding = {padding!r} must be True, 'longest', 'max_length' or False.")
            columns = pad(columns, length, values, self.padding_side, pad_to_multiple_of)
            if words is not None:
                none: dict[str, Any] = {"words": None}
                words = pad({"words": words}, length, none, self.padding_side, pad_to_multiple_of)["words"]
        columns["overflow_to_sample_mapping"] = owners
        names = [*self.model_input_names, *(name for name, is_asked in asked.items() if is_asked)]
        inputs = Inputs({name: columns[name] for name in names if name in columns})
        if return_tensors is not None:
            inputs = to_tensors(inputs, return_tensors)
        elif one:
            inputs = Inputs({name: rows[0] for name, rows in inputs.items()})
        inputs.words = words
        return inputs

    def fillers(self) -> dict[str, Any]:
        """column -> what padding fills it with."""
        types = self.config.get("pad_token_type_id", 0)
        more = {"special_tokens_mask": 1, "offset_mapping": (0, 0)}
        return {"input_ids": self.pad_token_id, "token_type_ids": types, **more}

    def encode_texts(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[Any] | None,
        tokens: Tokens | None = None,
        split: bool = False,
    ) -> list[tuple[list[int], list[int] | None]]:
        """The ids of each text, and of its second text if there is one; nothing put around them yet. With `tokens`,
        numbers that point at tokens there (offsets.py); `split`: each text is a list of words."""
        firsts: list[Any]
        seconds: list[Any] | None
        if split:
            one = bool(text) and isinstance(text[0], str)
            firsts = [text] if one else list(text)
            seconds = None if text_pair is None else [text_pair] if one else list(text_pair)
        else:
            firsts, seconds = self.firsts_and_seconds(text, text_pair)
        if tokens is not None:
            core, allowed = self.with_places, self.allowed_special
            numbers = [
                [tokens.add(encode_words(core, item, split, allowed)) for item in items]
                for items in (firsts, seconds or [])
            ]
            return list(zip(numbers[0], numbers[1] if seconds is not None else [None] * len(firsts)))
        encode = partial(self.core.encode_batch, allowed_special=self.allowed_special, disallowed_special=())
        return list(zip(encode(firsts), encode(seconds) if seconds is not None else [None] * len(firsts)))

    @cached_property
    def with_places(self) -> PipelineTokenizer:
        """The tokenizer that knows places in a text."""
        return with_places(self.core, self.tokenizer_json)

    def firsts_and_seconds(
        self, text: str | Sequence[Any], text_pair: str | Sequence[Any] | None
    ) -> tuple[list[Any], list[Any] | None]:
        """Texts, and second texts if there are any."""
        firsts: list[Any] = [text] if isinstance(text, str) else list(text)
        seconds: list[Any] | None = None
        if text_pair is not None:
            seconds = [text_pair] if isinstance(text_pair, str) else list(text_pair)
            if len(firsts) != len(seconds):
                raise ValueError(f"{len(firsts)} texts and {len(seconds)} second texts do not pair up.")
        elif firsts and all(isinstance(item, (tuple, list)) and len(item) == 2 for item in firsts):
            firsts, seconds = [item[0] for item in firsts], [item[1] for item in firsts]
        return firsts, seconds

    def overflow(
        self, pairs: Sequence[tuple[list[int], list[int] | None]], special: bool, strategy: str, limit: int, stride: int
    ) -> tuple[list[tuple[list[int], list[int] | None]], list[int]]:
        """Each text or pair in as many parts as it takes, and for each part whose it is."""
        parts, owners = [], []
        for owner, (a, b) in enumerate(pairs):
            around = self.around(b is not None) if special else 0
            made = overflowing(a, b, limit - around, strategy, stride, self.truncation_side)
            parts += made
            owners += [owner] * len(made)
        return parts, owners

    def around(self, pair: bool) -> int:
        """How many tokens the template puts around."""
        return len(self.core.template.apply([], [] if pair else None)[0])

    def join(
        self, a: list[int], b: list[int] | None, add_special_tokens: bool, strategy: str, limit: int
    ) -> tuple[list[int], list[int]]:
        """(ids, token types) of one row: cut to size, with the special tokens around."""
        template = self.core.template
        around = self.around(b is not None) if add_special_tokens else 0
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

    def decode(
        self, ids: Any, skip_special_tokens: bool = False, *, clean_up_tokenization_spaces: bool | None = None
    ) -> Any:
        """The text that ids (T,), a list, array or tensor, or one id stand for; of rows of ids (B, T) a list of texts.

        `clean_up_tokenization_spaces`: no space before "." and "n't"; by default as tokenizer_config.json says.
        """
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        ids = [ids] if isinstance(ids, int) else list(ids)
        if ids and not hasattr(ids[0], "__index__"):
            return self.batch_decode(
                ids, skip_special_tokens, clean_up_tokenization_spaces=clean_up_tokenization_spaces
            )
        text = self.core.decode(ids, skip_special_tokens=skip_special_tokens)
        clean = clean_up_tokenization_spaces
        clean = bool(self.config.get("clean_up_tokenization_spaces")) if clean is None else clean
        return cleaned_up(text) if clean else text

    def batch_decode(self, batch: Any, skip_special_tokens: bool = False, **options: Any) -> list[str]:
        """The text of each row."""
        return [self.decode(row, skip_special_tokens, **options) for row in batch]

    # --- what is given further

    def pad(
        self,
        encoded: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        *,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
    ) -> Inputs:
        """Rows made before, as a mapping of columns or a list of mappings, filled up to one length. Other columns than
        a tokenizer makes (labels) stay as they are. Raises ValueError without a padding token."""
        rows = [encoded] if isinstance(encoded, Mapping) else list(encoded)
        if isinstance(encoded, Mapping) and len(encoded["input_ids"]) and hasattr(encoded["input_ids"][0], "__len__"):
            columns = {name: [listed(row) for row in column] for name, column in encoded.items()}
        else:
            columns = {name: [listed(row[name]) for row in rows] for name in rows[0]}
        columns.setdefault("attention_mask", [[1] * len(row) for row in columns["input_ids"]])
        if padding not in (False, None, "do_not_pad"):
            if self.pad_token_id is None:
                raise ValueError("this tokenizer has no padding token. Set tokenizer.pad_token = tokenizer.eos_token.")
            length = max(map(len, columns["input_ids"]), default=0)
            if padding == "max_length":
                length = self.model_max_length if max_length is None else max_length
            known = {*self.fillers(), "attention_mask"}
            own = {name: column for name, column in columns.items() if name in known}
            columns.update(pad(own, length, self.fillers(), self.padding_side, pad_to_multiple_of))
        inputs = Inputs(columns)
        if return_tensors is not None:
            return to_tensors(inputs, return_tensors)
        one = isinstance(encoded, Mapping) and not hasattr(encoded["input_ids"][0], "__len__")
        return Inputs({name: column[0] for name, column in inputs.items()}) if one else inputs

    def add_tokens(self, new_tokens: str | Sequence[Any], special_tokens: bool = False) -> int:
        """Add tokens that are found before all else; those that the vocabulary lacks get the next ids, and a model then
        needs `len(tokenizer)` rows of embeddings. Returns how many were no added tokens before, or others."""
        one = isinstance(new_tokens, (str, Mapping)) or hasattr(new_tokens, "content")
        items: list[Any] = [new_tokens] if one else list(new_tokens)
        items = [item if isinstance(item, (str, Mapping)) else vars_of(item) for item in items]
        texts = [str(files.token_text(item)) for item in items]
        named = [
            files.declared(item, self.id_of(text), special=special_tokens) for item, text in zip(items, texts) if text
        ]
        before = set(self.core.added_tokens)
        added = files.with_tokens(self.core, named, Path(files.CONFIG_FILE))
        if added is not self.core:
            self.core, self.tokenizer_json = added, None
            for name in ("token_of", "id_of_name", "with_places"):
                vars(self).pop(name, None)
        return len(set(self.core.added_tokens) - before)

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any]) -> int:
        """{"pad_token": "[PAD]", "additional_special_tokens": ["<a>", "<b>"]}: add them, give those with a role their
        role, and return how many are new. Raises ValueError for a role that there is not."""
        further = ("additional_special_tokens", "extra_special_tokens")
        if unknown := [role for role in special_tokens_dict if role not in (*ROLES, *further)]:
            raise ValueError(f"no special token has the role {unknown[0]!r}: the roles are {(*ROLES, *further)}.")
        n_new = 0
        for role, value in special_tokens_dict.items():
            n_new += self.add_tokens(value, special_tokens=True)
            values = list(value) if role in further else [value]
            texts = [str(files.token_text(item)) for item in values]
            if role in further:
                self.further_tokens += [text for text in texts if text not in self.further_tokens]
                self.config["extra_special_tokens"] = list(self.further_tokens)
            else:
                self.tokens[role] = texts[0]
        return n_new

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
        return_assistant_tokens_mask: bool = False,
        chat_template: str | None = None,
        **variables: Any,
    ) -> Any:
        """A conversation, [{"role": "user", "content": "Hi"}, ...], or a list of several, as the model was trained to
        see it.

        tokenize=True gives `Inputs` (as in transformers 5; return_dict=False only the ids), False the text, or a list
        of texts. `add_generation_prompt` adds what comes before an answer; `continue_final_message` leaves out what
        comes after the last message, for the model to go on with it. `padding`, `truncation`, `max_length` and
        `return_tensors` as when texts are encoded. `return_assistant_tokens_mask` adds assistant_masks: 1 for the
        tokens that the template has between {% generation %} and {% endgeneration %}. `variables` go to the template.
        Needs jinja2. Raises ValueError if the tokenizer has no template.
        """
        template = chat_template or self.chat_template
        if template is None:
            raise ValueError("this tokenizer has no chat template: take a chat model's, or pass chat_template=.")
        check_chat_options(variables, add_generation_prompt, continue_final_message)
        shared: dict[str, Any] = {
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
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
            return_tensors=None if return_assistant_tokens_mask else return_tensors,
            return_offsets_mapping=return_assistant_tokens_mask,
        )
        if return_assistant_tokens_mask:
            chat = ChatTemplate(template, self.core, {**shared, **self.tokens, **variables}, where)
            rows = inputs["offset_mapping"] if several or return_tensors else [inputs["offset_mapping"]]
            spans = [
                chat.marked_spans(messages, datetime.datetime.now(), add_generation_prompt, text)
                for messages, text in zip(conversation if several else [conversation], texts)
            ]
            masks = [token_mask(row, of_row) for row, of_row in zip(rows, spans)]
            del inputs["offset_mapping"]
            inputs["assistant_masks"] = masks if several or return_tensors else masks[0]
            if return_tensors is not None:
                inputs = to_tensors(inputs, return_tensors)
        return inputs if return_dict else inputs["input_ids"]

    # --- saving

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write tokenizer.json, tokenizer_config.json and, if there is one, chat_template.jinja; in place of
        tokenizer.json SentencePiece's model files, where it was read from these."""
        folder = Path(folder)
        values = {key: value for key, value in self.config.items() if key != "chat_template"}
        if isinstance(self.core, SentencePieceTokenizer):
            for name, content in self.core.files().items():
                (write_bytes if isinstance(content, bytes) else write_json)(folder / name, content)
            values["added_tokens_decoder"] = files.added_tokens_decoder(self.core)
            values.setdefault("tokenizer_class", "MarianTokenizer" if self.core.is_marian else "LlamaTokenizer")
        elif self.tokenizer_json is None:
            self.core.save(folder)
        else:
            write_json(folder / TOKENIZER_JSON, self.tokenizer_json)
        values.update(self.tokens)
        values.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        if "model_input_names" not in values and values["tokenizer_class"] == "PreTrainedTokenizerFast":
            values["model_input_names"] = self.model_input_names
        write_json(folder / files.CONFIG_FILE, dict(sorted(values.items())))
        if self.chat_template is not None:
            write_text(folder / TEMPLATE_FILE, self.chat_template)


def listed(row: Any) -> Any:
    """A row as a list, if it is an array or a tensor."""
    return row.tolist() if hasattr(row, "tolist") else row


def vars_of(token: Any) -> dict[str, Any]:
    """An AddedToken of the `tokenizers` library as its file writes it."""
    return {name: getattr(token, name) for name in ("content", *FLAGS)}


def cleaned_up(text: str) -> str:
    """Without the spaces before punctuation and English endings, as transformers has them."""
    for ending in (".", "?", "!", ","):
        text = text.replace(" " + ending, ending)
    text = text.replace(" ' ", "'")
    for ending in ("n't", "'m", "'s", "'ve", "'re"):
        text = text.replace(" " + ending, ending)
    return text


def template_in(config: Mapping[str, Any]) -> str | None:
    """The chat template inside tokenizer_config.json, where it was before 2025; of several, the one named default."""
    value = config.get("chat_template")
    if isinstance(value, list):
        return {entry.get("name"): entry.get("template") for entry in value}.get("default")
    return value
