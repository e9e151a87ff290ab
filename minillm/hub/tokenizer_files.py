"""A tokenizer's folder: the vocabulary, and what tokenizer_config.json and other small files change about it.

In transformers a class named in tokenizer_config.json ("BertTokenizer", or the one that config.json's model_type
implies) decides how text is normalised and split, whatever tokenizer.json says of it; here too, where we know how, and
otherwise an error names the setting. A folder without such a class is read as its tokenizer.json says.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..disk import about, check_values, read_json
from ..disk.records import DIGITS
from ..tokenizers import (
    BPETokenizer,
    CharTokenizer,
    PipelineTokenizer,
    Tokenizer,
    WordPieceTokenizer,
    load_tokenizer,
)
from ..tokenizers.added import AddedToken
from ..tokenizers.base import END_OF_TEXT
from ..tokenizers.bert_text import BertNormalizer
from ..tokenizers.gpt2_files import load_gpt2, read_vocab_json
from ..tokenizers.json_parts import TOKENIZER_JSON
from ..tokenizers.sentencepiece_tokenizer import FILES, MODEL_FILE
from ..tokenizers.template import bert_template
from ..tokenizers.wordpiece_formats import VOCAB_TXT, read_vocab_txt
from .configs import ARCHITECTURES, is_native, read_object
from .sentencepiece_folder import load_marian, load_model_file
from .special_tokens import ROLES, id_in_vocabulary

CONFIG_FILE = "tokenizer_config.json"
MAP_FILE = "special_tokens_map.json"  # before 2026
ADDED_FILE = "added_tokens.json"  # before 2024

# What transformers' classes assume where tokenizer_config.json says nothing.
BERT_TOKENS = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]",
}  # fmt: skip
GPT2_TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
QWEN2_TOKENS = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
MARIAN_TOKENS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
CLASS_TOKENS = {
    "BertTokenizer": BERT_TOKENS, "GPT2Tokenizer": GPT2_TOKENS, "Qwen2Tokenizer": QWEN2_TOKENS,
    "MarianTokenizer": MARIAN_TOKENS,
}  # fmt: skip
SPLITS = {"GPT2Tokenizer": ("gpt2", False), "Qwen2Tokenizer": ("qwen2", True)}  # class -> pattern, NFC


@dataclass
class TokenizerSettings:
    """The entries of tokenizer_config.json that are read here, by their types. See also `Declared`."""

    tokenizer_class: str | None
    model_max_length: float | None
    padding_side: Literal["left", "right"]
    truncation_side: Literal["left", "right"]
    model_input_names: list[str] | None
    pad_token_type_id: int
    do_lower_case: bool | None
    tokenize_chinese_chars: bool | None
    strip_accents: bool | None
    add_prefix_space: bool | None
    split_special_tokens: bool | None
    separate_vocabs: bool | None
    sp_model_kwargs: dict[str, Any] | None
    chat_template: str | list[dict[str, str]] | None
    additional_special_tokens: list[Any] | None
    extra_special_tokens: list[Any] | dict[str, Any] | None
    bos_token: str | dict[str, Any] | None
    eos_token: str | dict[str, Any] | None
    unk_token: str | dict[str, Any] | None
    sep_token: str | dict[str, Any] | None
    pad_token: str | dict[str, Any] | None
    cls_token: str | dict[str, Any] | None
    mask_token: str | dict[str, Any] | None


class TokenizerFolder(NamedTuple):
    """What a folder holds: the tokenizer, tokenizer_config.json, tokenizer.json if it alone makes the tokenizer, and
    how many tokens the file's model has without those added."""

    core: Tokenizer
    config: dict[str, Any]
    tokenizer_json: dict[str, Any] | None
    vocab_size: int


def read_tokenizer_folder(folder: Path, settings: Mapping[str, Any]) -> TokenizerFolder:
    """Read a folder; `settings` replace entries of its tokenizer_config.json. Raises FileNotFoundError, ValueError."""
    config = {**read_tokenizer_config(folder), **settings}
    with about(folder / CONFIG_FILE):
        for role in ROLES:
            if not isinstance(token_text(config.get(role)), str | None):
                raise ValueError(
                    f"{role} must be a text or an object with a text 'content', not {config[role]!r:.100}."
                )
        check_values(TokenizerSettings, config)
    class_name = class_of(config)
    file = folder / TOKENIZER_JSON
    marian = (folder / FILES["source"]).is_file() and class_name in ("", "MarianTokenizer")
    content = read_json(file) if file.exists() and not marian else None
    if marian:
        core: Tokenizer = load_marian(folder, config)
        size = core.vocab_size
        config = {"tokenizer_class": "MarianTokenizer", "model_max_length": 512, **config}
    elif content is not None:
        core = load_tokenizer(folder)
        model = content.get("model") if isinstance(content, dict) else None
        size = len(model["vocab"]) if isinstance(model, dict) and "vocab" in model else core.vocab_size
    elif (folder / VOCAB_TXT).is_file() and class_name in ("", "BertTokenizer"):
        core = WordPieceTokenizer.load_vocab(folder)
        size = core.vocab_size
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        core = read_gpt2_files(folder, config)
        size = len(read_json(folder / "vocab.json"))
    elif (folder / MODEL_FILE).is_file():
        texts = {role: token_text(value) for role, value in config.items() if role in ROLES}
        core, config = load_model_file(folder, config, class_of(config), texts)
        size = core.vocab_size
    elif (folder / VOCAB_TXT).is_file():
        raise ValueError(
            f"{folder} has only a {VOCAB_TXT}, which {class_name} reads in its own way; only BertTokenizer's is known. "
            f"In transformers, load and save it once: {TOKENIZER_JSON} says it all."
        )
    else:
        core = load_tokenizer(folder)  # explains what is missing
        size = core.vocab_size
    if isinstance(core, CharTokenizer):  # which transformers has not, whatever class a config implies
        return TokenizerFolder(core, config, content, size)
    read = core
    with about(folder / CONFIG_FILE):
        if class_name == "BertTokenizer" or (content is None and isinstance(core, WordPieceTokenizer)):
            core = bert_tokenizer(core, config, folder, content is None)
        elif class_name in SPLITS:
            check_split(core, class_name, config, folder, content is None)
        core = with_tokens(core, tokens_to_add(core, config, folder), folder)
    if not any((folder / name).exists() for name in (CONFIG_FILE, MAP_FILE)) and not class_name:
        config = {**tokens_made_here(core), **config}
    return TokenizerFolder(core, config, content if core is read else None, size)


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, completed by special_tokens_map.json and the class that the model's type implies."""
    values: dict[str, Any] = {}
    for name in (MAP_FILE, CONFIG_FILE):
        if (folder / name).exists():
            values.update(read_object(folder / name))
    if "tokenizer_class" not in values and (folder / "config.json").exists():
        model = read_object(folder / "config.json")
        architecture = ARCHITECTURES.get(str(model.get("model_type")))
        if architecture is not None and architecture.tokenizer_class and not is_native(model):
            values["tokenizer_class"] = architecture.tokenizer_class
    return values


def class_of(config: Mapping[str, Any]) -> str:
    """The tokenizer's class in transformers, "" if there is none. Its two names until 2025 are one here."""
    return str(config.get("tokenizer_class") or "").removesuffix("Fast")


def assumed_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """role -> text as the tokenizer's class has it where nothing is said."""
    return CLASS_TOKENS.get(class_of(config), {})


def tokens_made_here(core: Tokenizer) -> dict[str, str]:
    """role -> text for a tokenizer made by minillm, which has no tokenizer_config.json: by the tokens' usual names."""
    named = {"eos_token": END_OF_TEXT, **BERT_TOKENS}
    if END_OF_TEXT not in core.special_tokens and "</s>" in core.special_tokens:
        named |= {"bos_token": "<s>", **MARIAN_TOKENS, "mask_token": "<mask>"}
    return {role: text for role, text in named.items() if text in core.special_tokens}


def token_text(value: Any) -> str | None:
    """A token in tokenizer_config.json: its text, or an object with it."""
    return value.get("content") if isinstance(value, dict) else value


# --- how text is normalised and split


def bert_tokenizer(core: Tokenizer, config: Mapping[str, Any], folder: Path, bare: bool) -> WordPieceTokenizer:
    """WordPiece as BertTokenizer makes it: normalizer, [UNK], [CLS] and [SEP] by tokenizer_config.json. bare: no
    tokenizer.json, whose added tokens stay."""
    if not isinstance(core, WordPieceTokenizer):
        raise ValueError(f"{folder}: tokenizer_class is BertTokenizer, but {TOKENIZER_JSON} holds no WordPiece.")
    text = {role: token_text(config.get(role)) or assumed for role, assumed in BERT_TOKENS.items()}
    vocab = read_vocab_txt(folder) if bare else core.vocab
    added = [] if bare else core.added_tokens
    normalizer = BertNormalizer(
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=config.get("strip_accents"),
        lowercase=bool(config.get("do_lower_case", True)),
    )
    made = WordPieceTokenizer(vocab, {}, normalizer=normalizer, unk_token=text["unk_token"], added_tokens=added)
    made = with_tokens(made, [declared(text[role], None) for role in ROLES if role in text], folder)
    ids = {name: id_in_vocabulary(made, text[name]) for name in ("cls_token", "sep_token")}
    assert ids["cls_token"] is not None and ids["sep_token"] is not None
    made.template = bert_template(text["cls_token"], ids["cls_token"], text["sep_token"], ids["sep_token"])
    same = (made.fingerprint(), made.template, made.cleanup) == (core.fingerprint(), core.template, core.cleanup)
    return core if same else made


def read_gpt2_files(folder: Path, config: Mapping[str, Any]) -> BPETokenizer:
    """vocab.json and merges.txt, which do not say how text is split: the class does, or else ValueError is raised."""
    name = class_of(config)
    if not name and (folder / "config.json").exists():
        model = read_object(folder / "config.json")
        if not is_native(model):
            name = f"the tokenizer of model_type {str(model.get('model_type'))!r}"
    if name and name not in SPLITS:
        raise ValueError(
            f"{folder} has only vocab.json and merges.txt, which {name} splits and surrounds in its own way; only "
            f"{' and '.join(SPLITS)} are known. In transformers, load and save it once: {TOKENIZER_JSON} says it all."
        )
    vocab = read_vocab_json(folder / "vocab.json")
    texts = [item.text for item in tokens_listed(config, folder) + named_tokens(config)] + [END_OF_TEXT]
    core = load_gpt2(folder, special_tokens=[text for text in dict.fromkeys(texts) if text in vocab])
    pattern, nfc = SPLITS.get(name, ("gpt2", False))
    return BPETokenizer(core.tokens, core.merges, pattern, {}, nfc=nfc, added_tokens=core.added_tokens)


def check_split(core: Tokenizer, class_name: str, config: Mapping[str, Any], folder: Path, bare: bool) -> None:
    """Raise ValueError, naming the setting, if the class splits text as `core` does not."""
    where = folder / CONFIG_FILE
    if isinstance(core, PipelineTokenizer) and core.is_byte_level:
        return  # SmolLM and others name GPT-2's class, and have digits apart: the file is what they were trained with
    if not isinstance(core, BPETokenizer):
        raise ValueError(f"{where}: tokenizer_class is {class_name}, but {TOKENIZER_JSON} is no byte-level BPE.")
    pattern, nfc = SPLITS[class_name]
    if (core.pattern, core.nfc) != (pattern, nfc):
        by_class = f"{pattern!r} {'after' if nfc else 'without'} NFC"
        by_file = f"{core.pattern!r} {'after' if core.nfc else 'without'} NFC"
        raise ValueError(
            f"{where}: tokenizer_class is {class_name}, which splits by the pattern {by_class}, but {TOKENIZER_JSON} "
            f'says {by_file}. If that is right, write "tokenizer_class": "PreTrainedTokenizerFast" there.'
        )
    if config.get("add_prefix_space"):
        raise ValueError(f"{where}: add_prefix_space is true, which would begin each text with a space: not supported.")
    for key in ("add_bos_token", "add_eos_token"):
        if bare and config.get(key):
            raise ValueError(f"{where}: {key} is true, which needs a {TOKENIZER_JSON} that says where.")


# --- tokens beyond the vocabulary


@dataclass(frozen=True)
class Declared:
    """A token that a folder's small files name: as an added token, its id still open, and the id they give."""

    token: AddedToken
    given_id: int | None

    @property
    def text(self) -> str:
        return self.token.text


def declared(value: Any, given_id: int | None, special: bool = True) -> Declared:
    """A token from a file: a text, or an object with its flags."""
    flags = dict(value) if isinstance(value, dict) else {"content": value, "normalized": not special}
    flags.setdefault("special", special)
    flags.setdefault("normalized", not flags["special"])
    if not isinstance(flags.get("content"), str):
        raise ValueError(f"a token in {CONFIG_FILE} must be a text or an object with a text 'content', not {value!r}")
    return Declared(AddedToken.from_json({**flags, "id": -1}), given_id)


def named_tokens(config: Mapping[str, Any]) -> list[Declared]:
    """The tokens with a role, then those of further roles ("image_token"), then special ones without a role."""
    assumed = assumed_tokens(config)
    values = [config.get(role, assumed.get(role)) for role in ROLES]
    values += further_special_tokens(config)
    if class_of(config) == "Qwen2Tokenizer":  # which takes their texts only
        values = [token_text(value) for value in values]
    found = [declared(value, None) for value in values if token_text(value)]
    return [Declared(replace(item.token, special=True), None) for item in found]  # whatever a file says


def further_special_tokens(config: Mapping[str, Any]) -> list[Any]:
    """The special tokens without one of the usual roles, as they stand in tokenizer_config.json."""
    values = [v for key, v in config.items() if key.endswith("_token") and key not in ROLES and isinstance(v, str)]
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    return [*values, *(extra.values() if isinstance(extra, dict) else extra)]


def tokens_to_add(core: Tokenizer, config: Mapping[str, Any], folder: Path) -> list[Declared]:
    """Every token that the folder names outside of its vocabulary file, in the order in which transformers adds them:
    those with ids first, in order. added_tokens.json, the older file, changes nothing about a token that there is."""
    listed = sorted(tokens_listed(config, folder), key=attrgetter("given_id"))
    if "added_tokens_decoder" not in config:
        known = {token.text for token in core.added_tokens}
        listed = [item for item in listed if item.text not in known]
    return [*listed, *named_tokens(config)]


def tokens_listed(config: Mapping[str, Any], folder: Path) -> list[Declared]:
    """The tokens that come with ids: in added_tokens_decoder, or in added_tokens.json, which came before it."""
    if "added_tokens_decoder" in config:
        entries = config["added_tokens_decoder"]
        if not isinstance(entries, dict) or not all(key.isdecimal() and len(key) < DIGITS for key in entries):
            raise ValueError(f"{folder / CONFIG_FILE}: added_tokens_decoder must be an object of id -> token.")
        return [declared(value, int(key), special=False) for key, value in entries.items()]
    if not (folder / ADDED_FILE).exists():
        return []
    special = {item.text for item in named_tokens(config)}
    ids = read_object(folder / ADDED_FILE)
    if not all(type(token_id) is int for token_id in ids.values()):  # true is no id
        raise ValueError(f"{folder / ADDED_FILE} must be an object of token -> id.")
    return [declared(text, token_id, special=text in special) for text, token_id in ids.items()]


def added_tokens_decoder(core: Tokenizer) -> dict[str, Any]:
    """The added tokens as tokenizer_config.json writes them: id -> text and flags."""
    tokens = [token.to_json() for token in core.added_tokens]
    return {str(token.pop("id")): token for token in tokens}


def with_tokens(core: Any, items: list[Declared], folder: Path) -> Any:
    """The tokenizer with these tokens as added ones: those in its vocabulary keep their ids, others get the next.

    Raises ValueError for one whose file gives it another id: the model's embedding rows would not fit.
    """
    made = copy.copy(core)  # of what is shared with the original, nothing is changed below
    made.tokens, made.added_tokens = list(core.tokens), list(core.added_tokens)
    for item in items:
        found = id_in_vocabulary(made, item.text)
        token_id = len(made.tokens) if found is None else found
        if item.given_id not in (None, token_id):
            known = f"{'the next free id is' if found is None else 'elsewhere its id is'} {token_id}"
            raise ValueError(f"{folder} gives the added token {item.text!r} the id {item.given_id}, but {known}.")
        if found is None:
            made.tokens.append(item.text.encode())
        token = replace(item.token, id=token_id)
        at = next((i for i, old in enumerate(made.added_tokens) if old.text == item.text), None)
        if at is None:
            made.added_tokens.append(token)
        elif item.given_id is not None:  # a list with ids says how they are found, too
            made.added_tokens[at] = token
    if made.added_tokens == core.added_tokens:
        return core
    made.special_tokens = {token.text: token.id for token in made.added_tokens if token.special}
    if isinstance(made, PipelineTokenizer):
        made.name_added()
    return made
