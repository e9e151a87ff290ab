"""Tokenizer speed beside tiktoken's and the `tokenizers` library's (both in Rust): one run, interleaved, as ratios.

    python tests/bench/tokenizer_speed.py      # about a minute; needs the dev extra; leave the machine alone

The text is the standard library's source, tests left out, which is on every machine. All run on one thread: tiktoken's
`encode_ordinary` does so by itself, `tokenizers` is told to (TOKENIZERS_PARALLELISM=false).
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from cpu import Row, interleave

from minillm.tokenizers import BPETokenizer
from minillm.tokenizers.formats import tokenizer_json
from minillm.tokenizers.gpt2_files import mergeable_ranks
from minillm.tokenizers.split import UNICODE_PATTERNS

CHINESE = "语言模型学习如何预测下一个词。我们先收集文本，然后训练分词器！她说：“今天是{}年{}月{}日，天气很好。”\n"


def stdlib_texts(megabytes: float) -> list[str]:
    """The first so many megabytes of the standard library's source, a text per file."""
    texts: list[str] = []
    left = megabytes * 1e6
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if left <= 0:
            break
        if not {"site-packages", "test", "tests", "idlelib"} & set(path.parts):
            texts.append(path.read_bytes().decode("utf-8", "replace"))
            left -= len(texts[-1])
    return texts


def chinese_text() -> str:
    """2 MB of Chinese sentences that differ in their numbers only: kind to a cache, so it measures splitting."""
    return "".join(CHINESE.format(1000 + i % 1000, i % 12 + 1, i % 28 + 1) for i in range(15_000))


def bench_encode(repeats: int = 20) -> list[Row]:
    """Encoding by one tokenizer of 8,192 tokens, in tiktoken and here: with a cold cache, a warm one, and Chinese."""
    import tiktoken

    texts = stdlib_texts(10)
    tok = BPETokenizer.train(texts, 8192)
    peer = tiktoken.Encoding(
        "bench", pat_str=UNICODE_PATTERNS["gpt4"], mergeable_ranks=mergeable_ranks(tok), special_tokens={}
    )
    rows = []
    code = "".join(texts)
    for name, text, cold in [
        (f"encode {len(code) / 1e6:.0f} MB of Python, cold cache", code, True),
        (f"encode {len(code) / 1e6:.0f} MB of Python, warm cache", code, False),
        ("encode 2 MB of Chinese, warm cache", chinese_text(), False),
    ]:

        def ours(text: str = text, cold: bool = cold) -> list[int]:
            if cold:
                tok._cache.clear()
            return tok.encode(text, disallowed_special=())

        def theirs(text: str = text) -> list[int]:
            return peer.encode_ordinary(text)

        assert ours() == theirs()
        mine, their = interleave(ours, theirs, max(repeats // 4, 3))
        rows.append(Row(name, mine, their, "tiktoken", "B/s", len(text.encode())))
    return rows


def bench_training(repeats: int = 20) -> list[Row]:
    """Learning 8,192 tokens, here and by the `tokenizers` library; the vocabularies are equal."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    texts = stdlib_texts(10)

    def ours() -> dict[str, int]:
        return tokenizer_json(BPETokenizer.train(texts, 8192, special_tokens=()))["model"]["vocab"]

    def theirs() -> dict[str, int]:
        peer = Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(UNICODE_PATTERNS["gpt4"]), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        peer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        peer.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=8192, show_progress=False, initial_alphabet=alphabet)
        )
        return peer.get_vocab()

    assert ours() == theirs()
    mine, their = interleave(ours, theirs, max(repeats // 7, 2))
    amount = sum(len(text.encode()) for text in texts)
    return [Row(f"BPE of 8,192 tokens from {amount / 1e6:.0f} MB", mine, their, "tokenizers", "B/s", amount)]


if __name__ == "__main__":
    for bench in (bench_encode, bench_training):
        for row in bench():
            print(row, flush=True)
