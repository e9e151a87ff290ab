"""A tokenizer as models want it: batches with padding and truncation, pairs, special tokens, chat templates.

The tokenizers of minillm.tokenizers turn text into ids. A checkpoint folder says more in tokenizer_config.json: which
token pads, how long a text may be, what a conversation looks like.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..tokenizers import Tokenizer, load_tokenizer
from ..tokenizers.files import TOKENIZER_JSON, read_json, write_json, write_text
from .chat import render_chat
from .padding import Inputs, pad, to_tensors, truncate
from .places import find_folder

CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# What transformers' classes assume where tokenizer_config.json says nothing.
BERT_TOKENS = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]",
}  # fmt: skip
GPT2_TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
QWEN2_TOKENS = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
CLASS_TOKENS = {"BertTokenizer": BERT_TOKENS, "GPT2Tokenizer": GPT2_TOKENS, "Qwen2Tokenizer": QWEN2_TOKENS}
CLASS_OF_MODEL = {
    "bert": "BertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
}
UNLIMITED = 10**9  # files write 1e30 for "no limit"


class AutoTokenizer:
    """`AutoTokenizer.from_pretrained(name_or_folder)` reads a tokenizer with all that its folder says about it."""

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, revision: str | None = None, **settings: Any
    ) -> PretrainedTokenizer:
        """`settings`: entries of tokenizer_config.json to change, such as model_max_length=128 or pad_token="[PAD]".

        Raises NotFound for a place with no model, FileNotFoundError or ValueError for one with no tokenizer that can
        be read.
        """
        folder = find_folder(name_or_folder, revision)
        tokenizer_json = folder / TOKENIZER_JSON
        template = folder / TEMPLATE_FILE
        return PretrainedTokenizer(
            load_tokenizer(folder),
            {**read_tokenizer_config(folder), **settings},
            chat_template=template.read_text(encoding="utf-8") if template.exists() else None,
            tokenizer_json=read_json(tokenizer_json) if tokenizer_json.exists() else None,
        )


class PretrainedTokenizer:
    """A tokenizer of minillm.tokenizers, `core`, called as transformers' are called."""

    def __init__(
        self,
        core: Tokenizer,
        config: Mapping[str, Any] | None = None,
        *,
        chat_template: str | None = None,
        tokenizer_json: dict[str, Any] | None = None,
    ) -> None:
        """`config`: tokenizer_config.json ({} for a tokenizer made here). `tokenizer_json`: the file it was read from,
        which is saved again as it was."""
        self.core = core
        self.config = dict(config or {})
        self.tokenizer_json = tokenizer_json
        self.chat_template = chat_template if chat_template is not None else template_in(self.config)
        name = str(self.config.get("tokenizer_class", "")).removesuffix("Fast")
        assumed = CLASS_TOKENS.get(name, {})
        if not self.config and core.eos_id is not None:
            assumed = {"eos_token": core.decode([core.eos_id])}
        self.tokens: dict[str, str] = {}  # role -> text, "pad_token" -> "[PAD]"
        for role in ROLES:
            text = token_text(self.config.get(role, assumed.get(role)))
            if text is not None and (role in self.config or self.id_of(text) is not None):
                self.tokens[role] = text
        self.model_max_length = int(min(self.config.get("model_max_length") or UNLIMITED, UNLIMITED))
        self.padding_side = self.config.get("padding_side", "right")
        self.truncation_side = self.config.get("truncation_side", "right")
        named = self.config.get("model_input_names")
        types = ["token_type_ids"] if name == "BertTokenizer" else []
        self.model_input_names = list(named or ["input_ids", *types, "attention_mask"])

    # --- special tokens

    def id_of(self, text: str) -> int | None:
        """The id of a special or added token, None if there is none of this text."""
        for token in self.core.added_tokens:
            if token.text == text:
                return token.id
        return None

    def token_id(self, role: str) -> int | None:
        text = self.tokens.get(role)
        return None if text is None else self.id_of(text)

    @property
    def pad_token(self) -> str | None:
        return self.tokens.get("pad_token")

    @pad_token.setter
    def pad_token(self, text: str) -> None:
        """Decoders often come without one; `tokenizer.pad_token = tokenizer.eos_token` is the usual remedy."""
        if self.id_of(text) is None:
            raise ValueError(f"{text!r} is no special token of this tokenizer: {list(self.core.special_tokens)}")
        self.tokens["pad_token"] = text

    @property
    def eos_token(self) -> str | None:
        return self.tokens.get("eos_token")

    @property
    def bos_token(self) -> str | None:
        return self.tokens.get("bos_token")

    @property
    def mask_token(self) -> str | None:
        return self.tokens.get("mask_token")

    @property
    def pad_token_id(self) -> int | None:
        return self.token_id("pad_token")

    @property
    def eos_token_id(self) -> int | None:
        return self.token_id("eos_token")

    @property
    def bos_token_id(self) -> int | None:
        return self.token_id("bos_token")

    @property
    def mask_token_id(self) -> int | None:
        return self.token_id("mask_token")

    @property
    def vocab_size(self) -> int:
        return self.core.vocab_size

    def __len__(self) -> int:
        return self.core.vocab_size

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
        ids, types = [], []
        for a, b in self.encode_texts(text, text_pair):
            row = self.join(a, b, add_special_tokens, strategy, limit)
            ids.append(row[0])
            types.append(row[1])
        columns: dict[str, list[list[int]]] = {
            "input_ids": ids,
            "token_type_ids": types,
            "attention_mask": [[1] * len(row) for row in ids],
        }
        if padding not in (False, None, "do_not_pad"):
            if self.pad_token_id is None:
                raise ValueError(
                    "this tokenizer has no padding token. Set one: tokenizer.pad_token = tokenizer.eos_token will "
                    "do, since the attention mask hides it."
                )
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
        a = self.core.encode_batch(firsts, allowed_special="all")
        if seconds is None:
            return [(ids, None) for ids in a]
        return list(zip(a, self.core.encode_batch(seconds, allowed_special="all")))

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
        conversation: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_tensors: str | None = None,
        chat_template: str | None = None,
        **variables: Any,
    ) -> str | Inputs:
        """A conversation, [{"role": "user", "content": "Hi"}, ...], as the model was trained to see it.

        tokenize=True gives `Inputs` (as in transformers 5), False the text. `add_generation_prompt` adds what comes
        before an answer. `variables` go to the template. Needs jinja2. Raises ValueError if the tokenizer has no
        template.
        """
        template = chat_template or self.chat_template
        if template is None:
            raise ValueError(
                f"this tokenizer has no chat template: its folder has no {TEMPLATE_FILE}. A base model does not know "
                "conversations; take the model's chat version, or pass chat_template=."
            )
        text = render_chat(
            template,
            {
                "messages": list(conversation),
                "tools": tools,
                "add_generation_prompt": add_generation_prompt,
                **self.tokens,
                **variables,
            },
        )
        if not tokenize:
            return text
        return self([text] if return_tensors else text, add_special_tokens=False, return_tensors=return_tensors)

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
        write_json(folder / CONFIG_FILE, dict(sorted(values.items())))
        if self.chat_template is not None:
            write_text(folder / TEMPLATE_FILE, self.chat_template)


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, completed by special_tokens_map.json (before 2026) and the class that the model's type
    implies."""
    values: dict[str, Any] = {}
    for name in ("special_tokens_map.json", CONFIG_FILE):
        if (folder / name).exists():
            content = read_json(folder / name)
            if not isinstance(content, dict):
                raise ValueError(f"{folder / name} must hold an object, not a {type(content).__name__}")
            values.update(content)
    if "tokenizer_class" not in values and (folder / "config.json").exists():
        kind = CLASS_OF_MODEL.get(read_json(folder / "config.json").get("model_type"))
        if kind is not None and not (kind == "BertTokenizer" and "n_layers" in read_json(folder / "config.json")):
            values["tokenizer_class"] = kind
    return values


def token_text(value: Any) -> str | None:
    """A token in tokenizer_config.json: its text, or an object with it."""
    return value.get("content") if isinstance(value, dict) else value


def template_in(config: Mapping[str, Any]) -> str | None:
    """The chat template inside tokenizer_config.json, where it was before 2025; of several, the one named default."""
    value = config.get("chat_template")
    if isinstance(value, list):
        return {entry["name"]: entry["template"] for entry in value}.get("default")
    return value
