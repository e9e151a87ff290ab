"""`minillm tokenizer`: train one, encode with it, look at it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..data import Document, Dropped, check_half_pairs, corpus_documents, kinds_skipped, read_documents
from ..tokenizers import BPETokenizer, CharTokenizer, WordPieceTokenizer, load_tokenizer
from ..tokenizers.bert_text import CASED, UNCASED
from ..tokenizers.show import replay_encoding, show, show_merges
from ..training.config_file import ConfigError
from .options import HelpFormatter, typed_text, whole

PATTERNS = {"gpt2": "gpt2", "gpt4": "gpt4", "llama3": "gpt4", "qwen2": "qwen2", "qwen35": "qwen35"}  # --pattern
FITTING = {"bpe": ("vocab_size", "pattern"), "wordpiece": ("vocab_size", "cased"), "char": ()}  # beside --special
GIVEN = argparse.SUPPRESS  # an option that is not given leaves no trace: which of them fit depends on the kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=TextBehindOptions)
    for add, step, summary in (
        (add_train_arguments, run_train, "learn a tokenizer from text"),
        (add_encode_arguments, run_encode, "print the ids of a text or a file"),
        (add_decode_arguments, run_decode, "print the text of ids"),
        (add_show_arguments, run_show, "show the tokens of a text, or the merges"),
    ):
        name = step.__name__.removeprefix("run_")
        p = subparsers.add_parser(name, help=summary, description=summary, formatter_class=HelpFormatter)
        p.set_defaults(step=step)
        add(p)


def run(arguments: argparse.Namespace) -> int:
    return arguments.step(arguments)


class TextBehindOptions(argparse.ArgumentParser):
    """Takes `show TOKENIZER --steps TEXT` as `show TOKENIZER TEXT --steps`. Before Python 3.13 argparse thinks at the
    first option that TEXT was left out, and has no place for it when it comes."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        if len(rest) == 1 and not rest[0].startswith("-") and getattr(found, "text", "") is None:
            found.text = rest.pop()
        return found, rest


# --- train ------------------------------------------------------------------------------------------------------------


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="corpora (their training split), files, folders")
    parser.add_argument("--out", default="tokenizer.json", metavar="FILE", help="file to write")
    parser.add_argument(
        "--kind", choices=list(FITTING), default="bpe",
        help="byte-level BPE (GPT, Llama, Qwen), WordPiece (BERT), or one id per character",
    )  # fmt: skip
    parser.add_argument(
        "--vocab-size", type=whole(1), default=GIVEN, help="number of ids (bpe, wordpiece; default: 4096)"
    )
    parser.add_argument(
        "--pattern", choices=list(PATTERNS), default=GIVEN,
        help="how text is split before merging (bpe; default: gpt4). llama3 is gpt4's; qwen2 brings text into "
        "Unicode's form NFC first; qwen35 does so, too, and leaves vowel signs and accents with their letters: "
        "for Hindi, Thai and the like",
    )  # fmt: skip
    parser.add_argument(
        "--cased", action="store_true", default=GIVEN,
        help="keep capitals and accents (wordpiece; default: lower case, accents off)",
    )  # fmt: skip
    parser.add_argument(
        "--special", nargs="*", default=GIVEN, metavar="TOKEN",
        help="special tokens (default: <|endoftext|>; of wordpiece: [PAD] [UNK] [CLS] [SEP] [MASK])",
    )  # fmt: skip


def run_train(arguments: argparse.Namespace) -> int:
    kind, given = arguments.kind, vars(arguments)
    for name in ("vocab_size", "pattern", "cased"):
        if name in given and name not in FITTING[kind]:
            kinds = " or ".join(other for other, names in FITTING.items() if name in names)
            raise ConfigError(f"--{name.replace('_', '-')} is for --kind {kinds}, not {kind}: leave it out.")
    specials = {"special_tokens": given["special"]} if "special" in given else {}
    vocab_size, progress = given.get("vocab_size", 4096), sys.stderr.isatty()
    texts = (document.text for source in arguments.sources for document in training_documents(source))
    tokenizer: Any
    if kind == "char":
        tokenizer = CharTokenizer.train(texts, unk_token="<unk>", **specials)
    elif kind == "wordpiece":
        form = CASED if "cased" in given else UNCASED
        tokenizer = WordPieceTokenizer.train(texts, vocab_size, normalizer=form, progress=progress, **specials)
    else:
        pattern = PATTERNS[given.get("pattern", "gpt4")]
        nfc = pattern in ("qwen2", "qwen35")
        tokenizer = BPETokenizer.train(texts, vocab_size, pattern=pattern, nfc=nfc, progress=progress, **specials)
    tokenizer.save(arguments.out)
    print(f"wrote {arguments.out}: {tokenizer.vocab_size:,} ids, fingerprint {tokenizer.fingerprint()}")
    if kind != "char" and tokenizer.vocab_size < vocab_size:
        print(
            f"note: {tokenizer.vocab_size:,} ids, not {vocab_size:,}: the text is so small that there is nothing more "
            "to join in it. More text gives more."
        )
    return 0


def training_documents(source: str) -> Iterator[Document]:
    """The training split of a corpus folder, or the documents of any file or folder."""
    is_corpus = (Path(source) / "report.json").exists()
    skipped: list[Dropped] = []
    for document in corpus_documents(source, "train") if is_corpus else read_documents(source, skipped=skipped):
        check_half_pairs(document)
        yield document
    for kind in kinds_skipped((one.source, one.reason) for one in skipped):
        print(kind, file=sys.stderr)


# --- encode -----------------------------------------------------------------------------------------------------------


def add_encode_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="tokenizer.json, or a folder with one")
    parser.add_argument("text", nargs="?", metavar="TEXT", type=typed_text, help="text to encode")
    parser.add_argument("--file", metavar="FILE", help="UTF-8 file to encode, of any size")
    parser.add_argument("--special", action="store_true", help="read special tokens in TEXT as those tokens")


def run_encode(arguments: argparse.Namespace) -> int:
    if (arguments.text is None) == (not arguments.file):
        raise ConfigError("give either a text or --file FILE behind the tokenizer.")
    tokenizer = load_tokenizer(arguments.tokenizer)
    if arguments.text is not None:
        allowed = "all" if arguments.special else ()
        print(*tokenizer.encode(arguments.text, allowed_special=allowed, disallowed_special=()))
        return 0
    separator = ""
    for ids in tokenizer.encode_file(arguments.file, disallowed_special=()):
        print(separator, " ".join(map(str, ids.tolist())), sep="", end="")
        separator = " "
    print()
    return 0


# --- decode -----------------------------------------------------------------------------------------------------------


def add_decode_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="tokenizer.json, or a folder with one")
    parser.add_argument("ids", nargs="*", metavar="ID", help="ids, with spaces or commas between; -: standard input")
    parser.add_argument("--file", metavar="FILE", help="file with ids, as `encode` prints them")


def run_decode(arguments: argparse.Namespace) -> int:
    if bool(arguments.ids) == bool(arguments.file):
        raise ConfigError("give either ids, - for those of standard input, or --file FILE behind the tokenizer.")
    tokenizer = load_tokenizer(arguments.tokenizer)
    text, where = " ".join(arguments.ids), "the command line"
    if arguments.file:
        text, where = Path(arguments.file).read_text(encoding="utf-8"), arguments.file
    elif arguments.ids == ["-"]:
        text, where = sys.stdin.read(), "standard input"
    print(tokenizer.decode(read_ids(text, where, tokenizer.vocab_size)))
    return 0


def read_ids(text: str, where: str, vocab_size: int) -> list[int]:
    """The ids in a text, with spaces or commas between, or as a Python list. Raises ValueError for what is none."""
    ids = []
    for word in text.replace(",", " ").replace("[", " ").replace("]", " ").split():
        if not (word.isascii() and word.isdigit() and len(word) < 20 and int(word) < vocab_size):
            raise ValueError(
                f"{where}: {word!r:.30} is no id of this tokenizer: they are from 0 to {vocab_size - 1:,}."
            )
        ids.append(int(word))
    return ids


# --- show -------------------------------------------------------------------------------------------------------------


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="tokenizer.json, or a folder with one")
    cut = "text to cut; without it, the first merges (bpe)"
    parser.add_argument("text", nargs="?", metavar="TEXT", type=typed_text, help=cut)
    parser.add_argument("--merges", type=whole(1), default=GIVEN, help="how many merges to show (bpe; default: 50)")
    parser.add_argument("--steps", action="store_true", help="replay how the text was encoded, merge by merge (bpe)")


def run_show(arguments: argparse.Namespace) -> int:
    tokenizer = load_tokenizer(arguments.tokenizer)
    if (arguments.steps or "merges" in arguments) and not isinstance(tokenizer, BPETokenizer):
        option = "--steps" if arguments.steps else "--merges"
        raise ConfigError(f"{option} is for byte-level BPE, and this is a {type(tokenizer).__name__}: leave it out.")
    merges = vars(arguments).get("merges", 50)
    if arguments.steps and arguments.text is None:
        raise ConfigError("--steps replays how a text was encoded: give TEXT, too.")
    if "merges" in arguments and arguments.text is not None:
        raise ConfigError("--merges is for what was learned, not for a TEXT: leave one of the two out.")
    print(tokenizer)
    if arguments.text is not None:
        print(show(tokenizer, arguments.text))
    if not isinstance(tokenizer, BPETokenizer):
        return 0
    if arguments.text is None:
        print(show_merges(tokenizer, 0, merges))
    elif arguments.steps:
        print(replay_encoding(tokenizer, arguments.text))
    return 0
