"""Tokenizer speed beside tiktoken's and the `tokenizers` library's (both in Rust): one run, interleaved, as ratios.

    python tests/bench/tokenizer_speed.py                # all rows, several minutes; needs the dev extra
    python tests/bench/tokenizer_speed.py --only cores   # one | wordpiece | cores | bpe

Rows of one thread count the process's CPU time, which other work on the machine disturbs less than a clock; nothing is
kept from earlier texts. "cores" and "bpe" use all cores and go by the clock: leave the machine alone. Behind each row
stands its goal. The texts are on every machine with the dev extra: the standard library's source, what packages say of
themselves, Chinese sentences put together from those of data/chinese, letters of many scripts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cpu import Row, interleave

from minillm.data import Document, pack
from minillm.tokenizers import BPETokenizer, WordPieceTokenizer
from minillm.tokenizers.formats import tokenizer_json
from minillm.tokenizers.gpt2_files import mergeable_ranks
from minillm.tokenizers.split import UNICODE_PATTERNS

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
SENTENCES = Path(__file__).parents[2] / "data" / "chinese" / "sentences.txt"
SCRIPTS = "аб αβ אב عب हक กข あア 한글 ქა ñé ßø"  # a word is made of the letters around one of these


def stdlib_texts(megabytes: float, *, tests: bool = False) -> list[str]:
    """The first so many megabytes of the standard library's source, a text per file."""
    texts: list[str] = []
    left = megabytes * 1e6
    leave_out = {"site-packages"} if tests else {"site-packages", "test", "tests", "idlelib"}
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if left <= 0:
            break
        if not leave_out & set(path.parts):
            texts.append(path.read_bytes().decode("utf-8", "replace"))
            left -= len(texts[-1])
    return texts


def prose(megabytes: float = 2) -> str:
    """What the installed packages say of themselves, each paragraph once."""
    paragraphs: dict[str, None] = {}
    for pattern in ("*.dist-info/METADATA", "**/*LICENSE*", "**/*.md", "**/*.rst"):
        for path in sorted(Path(np.__file__).parents[1].glob(pattern)):
            if path.is_file():
                found = path.read_bytes().decode("utf-8", "replace").split("\n\n")
                paragraphs.update((text, None) for text in found if len(text) > 120)
    return "\n\n".join(paragraphs)[: int(megabytes * 1e6)]


def chinese(n_characters: int = 700_000) -> str:
    """Sentences put together from the clauses of data/chinese."""
    clauses = [
        clause for line in SENTENCES.read_text(encoding="utf-8").split() for clause in line.rstrip("。").split("，")
    ]
    draw = random.Random(0)
    words = [clause[i : i + 2] for clause in clauses for i in range(0, len(clause) - 1, 2)]
    lines = []
    for _ in range(n_characters // 20):
        mixed = "".join(draw.choices(words, k=3))  # clauses that nobody wrote before
        lines.append("，".join([*draw.choices(clauses, k=draw.randint(1, 3)), mixed]) + "。\n")
    return "".join(lines)


def mixed_scripts(n_words: int = 150_000) -> str:
    """Words of many scripts, as seldom alike as in a language (Zipf), with emoji among them."""
    draw = random.Random(0)
    words = []
    for _ in range(30_000):
        start = ord(draw.choice(SCRIPTS.replace(" ", "")))
        words.append("".join(chr(start + draw.randint(0, 12)) for _ in range(draw.randint(2, 9))))
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    ends = draw.choices([" ", ", ", ". ", "\n", " 😀 ", " 👨‍👩‍👧 ", "🎉\n"], [70, 8, 8, 4, 4, 2, 4], k=n_words)
    return "".join(word + end for word, end in zip(draw.choices(words, weights, k=n_words), ends))


def bench_one_thread(repeats: int = 20) -> list[Row]:
    """Encoding by one tokenizer of 8,192 tokens, in tiktoken and here, with nothing kept from before."""
    import tiktoken

    code = stdlib_texts(30, tests=True)
    draw = random.Random(0)
    cases = {
        "30 MB of Python, goal 1.0": "".join(code),
        "English prose, goal 0.9": prose(),
        "mixed scripts and emoji, goal 0.8": mixed_scripts(),
        "Chinese sentences, goal 1.0": chinese(),
        "400,000 Chinese characters, goal 0.5": "".join(draw.choices(chinese(50_000).replace("\n", ""), k=400_000)),
    }
    tok = BPETokenizer.train([*code[:300], *(text[:200_000] for text in list(cases.values())[1:])], 8192)
    peer = tiktoken.Encoding(
        "bench", pat_str=UNICODE_PATTERNS["gpt4"], mergeable_ranks=mergeable_ranks(tok), special_tokens={}
    )
    rows = []
    for name, text in cases.items():

        def ours(text: str = text) -> list[int]:
            tok.bulk.clear()
            tok._cache.clear()
            return tok.encode(text, disallowed_special=())

        def theirs(text: str = text) -> list[int]:
            return peer.encode_ordinary(text)

        assert ours() == theirs()
        mine, their = interleave(ours, theirs, max(repeats // 4, 3), time.process_time)
        rows.append(Row(name, mine, their, "tiktoken", "B/s", len(text.encode())))
    return rows


def bench_wordpiece(repeats: int = 20) -> list[Row]:
    """Encoding by WordPiece of 8,192 pieces on one thread, here and by the `tokenizers` library."""
    from tokenizers import Tokenizer

    texts = stdlib_texts(5)
    tok = WordPieceTokenizer.train(texts, 8192)
    peer = Tokenizer.from_str(json.dumps(tok.to_json()))
    text = "".join(texts)

    def ours() -> list[int]:
        tok._cache.clear()
        return tok.encode(text, disallowed_special=())

    def theirs() -> list[int]:
        return peer.encode(text, add_special_tokens=False).ids

    mine, their = interleave(ours, theirs, max(repeats // 7, 2), time.process_time)
    return [Row("WordPiece, 5 MB of Python, goal 4", mine, their, "tokenizers", "B/s", len(text.encode()))]


def bench_cores(repeats: int = 20) -> list[Row]:
    """A corpus into a token file by all cores; the peers' ids are only made, not written."""
    import tiktoken
    from tokenizers import Tokenizer

    texts = stdlib_texts(30, tests=True)
    tok = BPETokenizer.train(texts[:300], 8192)
    ranks = mergeable_ranks(tok)
    theirs = tiktoken.Encoding("bench", pat_str=UNICODE_PATTERNS["gpt4"], mergeable_ranks=ranks, special_tokens={})
    others = Tokenizer.from_str(json.dumps(tok.to_json()))
    n_bytes = sum(len(text.encode()) for text in texts)
    documents = [Document(text, str(i)) for i, text in enumerate(texts)]
    calls: dict[str, Callable[[], object]] = {
        "tiktoken": lambda: theirs.encode_ordinary_batch(texts, num_threads=os.cpu_count() or 1),
        "tokenizers": lambda: others.encode_batch_fast(texts, add_special_tokens=False),
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:

        def ours() -> object:
            tok.bulk.clear()
            return pack(documents, tok, Path(folder) / "tokens.bin")

        for name, call in calls.items():
            mine, their = interleave(ours, call, max(repeats // 7, 2))
            rows.append(Row("30 MB into a token file, goal 1.0", mine, their, name, "B/s", n_bytes))
    return rows


def bench_training(repeats: int = 20) -> list[Row]:
    """Learning by all cores, here and by the `tokenizers` library; the vocabularies are equal."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    texts = stdlib_texts(30, tests=True)
    rows = []
    for size, goal in ((8192, 1.5), (32768, 1.3)):

        def ours(size: int = size) -> dict[str, int]:
            return tokenizer_json(BPETokenizer.train(texts, size, special_tokens=()))["model"]["vocab"]

        def theirs(size: int = size) -> dict[str, int]:
            peer = Tokenizer(models.BPE())
            split = pre_tokenizers.Split(Regex(UNICODE_PATTERNS["gpt4"]), "isolated")
            byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            peer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet)
            peer.train_from_iterator(texts, trainer)
            return peer.get_vocab()

        mine, their = interleave(ours, theirs, max(repeats // 7, 2))
        amount = sum(len(text.encode()) for text in texts)
        rows.append(Row(f"BPE of {size:,} tokens, 30 MB, goal {goal}", mine, their, "tokenizers", "B/s", amount))
    return rows


GROUPS = {"one": bench_one_thread, "wordpiece": bench_wordpiece, "cores": bench_cores, "bpe": bench_training}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=GROUPS)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    for name, bench in GROUPS.items():
        if arguments.only in (None, name):
            for row in bench(arguments.repeats):
                print(row, flush=True)
