"""Special tokens, and files: the part that all tokenizers share (base.py)."""

import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_samples import SAMPLES, any_text, trained

from minillm.tokenizers import BPETokenizer, CharTokenizer, Tokenizer, WordPieceTokenizer
from minillm.tokenizers.gpt2_files import mergeable_ranks
from minillm.tokenizers.split import UNICODE_PATTERNS

END, MORE = "<|end|>", "<|end|><|more|>"
SPECIALS = ["<|endoftext|>", END, MORE]
special_text = st.lists(st.one_of(any_text, st.sampled_from([*SPECIALS, "<|end", "<|", "|>", "<|more|>"])), max_size=6)


# ---- the rule


def test_special_text_is_refused_unless_allowed() -> None:
    tok = trained("gpt4")
    with pytest.raises(ValueError, match=r"holds '<\|endoftext\|>' at character 2.*Pass allowed_special=.*disallowed"):
        tok.encode("a <|endoftext|> b")
    ids = tok.encode("a <|endoftext|> b", allowed_special="all")
    assert ids == [*tok.encode("a "), tok.eos_id, *tok.encode(" b")]
    assert tok.encode("a <|endoftext|> b", allowed_special={"<|endoftext|>"}) == ids
    plain = tok.encode("a <|endoftext|> b", disallowed_special=())
    assert tok.eos_id not in plain and tok.decode(plain) == tok.decode(ids) == "a <|endoftext|> b"


def test_only_what_is_named_is_allowed_and_only_what_is_named_refused() -> None:
    tok = trained("gpt4")
    with pytest.raises(ValueError, match=re.escape("holds '<|endoftext|>'")):
        tok.encode("<|end|><|endoftext|>", allowed_special={END})
    assert tok.encode("<|end|>", allowed_special={END}) == [tok.special_tokens[END]]
    assert tok.special_tokens[END] not in tok.encode("<|end|>", disallowed_special={"<|endoftext|>"})


def test_the_longer_special_token_wins() -> None:
    tok = trained("gpt4")
    ids = tok.encode("<|end|><|more|><|end|>x", allowed_special="all")
    assert ids == [tok.special_tokens[MORE], tok.special_tokens[END], *tok.encode("x")]


def test_names_that_are_no_special_tokens_are_refused() -> None:
    tok = trained("gpt4")
    with pytest.raises(ValueError, match=r"must be \"all\" or a collection of strings, so \{'<\|end\|>'\}"):
        tok.encode("x", allowed_special=END)
    with pytest.raises(ValueError, match=r"disallowed_special names '<\|x\|>', which is no special token"):
        tok.encode("x", disallowed_special=["<|x|>"])
    bare = BPETokenizer.train(["x"], 256, special_tokens=())
    assert bare.eos_id is None and bare.encode("<|endoftext|>", allowed_special="all") == bare.encode("<|endoftext|>")


@given(parts=special_text, allowed=st.sets(st.sampled_from([SPECIALS[0], END])))
def test_the_rule_is_that_of_tiktoken(parts: list[str], allowed: set[str]) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    tok = trained("gpt4")
    # tiktoken does not say which of two overlapping special tokens wins, so leave out the longest
    specials = {token: token_id for token, token_id in tok.special_tokens.items() if token != MORE}
    ours = BPETokenizer(tok.tokens, tok.merges, "gpt4", specials)
    peer = tiktoken.Encoding(
        "test",
        pat_str=UNICODE_PATTERNS["gpt4"],
        mergeable_ranks=mergeable_ranks(tok),
        special_tokens=specials,
    )
    text = "".join(parts)
    for disallowed in ("all", (), {END}):
        try:
            expected = peer.encode(text, allowed_special=allowed, disallowed_special=disallowed)
        except ValueError:
            with pytest.raises(ValueError, match="special token"):
                ours.encode(text, allowed_special=allowed, disallowed_special=disallowed)
        else:
            assert ours.encode(text, allowed_special=allowed, disallowed_special=disallowed) == expected


# ---- files


def encode_file(tok: Tokenizer, path: Path, chunk_bytes: int, **rule: object) -> list[int]:
    return [i for ids in tok.encode_file(path, chunk_bytes=chunk_bytes, **rule) for i in ids.tolist()]  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", sorted(UNICODE_PATTERNS))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=special_text, chunk_bytes=st.integers(1, 40))
def test_a_file_in_tiny_chunks_encodes_as_its_whole_text(
    pattern: str, tmp_path: Path, parts: list[str], chunk_bytes: int
) -> None:
    tok = trained(pattern)
    text = "".join(parts)
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    plain = tok.encode(text, disallowed_special=())
    assert encode_file(tok, path, chunk_bytes, disallowed_special=()) == plain
    special = tok.encode(text, allowed_special="all")
    assert encode_file(tok, path, chunk_bytes, allowed_special="all") == special
    if any(token in text for token in SPECIALS):
        with pytest.raises(ValueError, match="text of a special token"):
            encode_file(tok, path, chunk_bytes)


@pytest.mark.parametrize("chunk_bytes", range(1, 12))
def test_a_forbidden_token_that_begins_inside_an_allowed_one_is_found(tmp_path: Path, chunk_bytes: int) -> None:
    tok = BPETokenizer.train(["abc"], 260, special_tokens=["<a><b>", "<b><c>"])
    (tmp_path / "text.txt").write_text("x<a><b><c>y")
    with pytest.raises(ValueError, match="holds '<b><c>'"):
        tok.encode("x<a><b><c>y", allowed_special={"<a><b>"})
    with pytest.raises(ValueError, match="holds '<b><c>'"):
        encode_file(tok, tmp_path / "text.txt", chunk_bytes, allowed_special={"<a><b>"})


@given(text=any_text)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_by_characters(tmp_path: Path, text: str) -> None:
    tok = CharTokenizer.train(SAMPLES, unk_token="<unk>")
    (tmp_path / "text.txt").write_bytes(text.encode())
    ids = tok.encode(text, disallowed_special=())
    assert encode_file(tok, tmp_path / "text.txt", 3, disallowed_special=()) == ids


def test_a_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    tok = trained("gpt4")
    path = tmp_path / "big.txt"
    path.write_bytes(("".join(SAMPLES) * 10_000).encode())
    size = path.stat().st_size
    assert size > 6_000_000
    tok.encode("".join(SAMPLES) * 100)  # what is made once, whatever the size: patterns and tables
    tracemalloc.start()
    n_tokens, arrays = 0, 0
    for ids in tok.encode_file(path, chunk_bytes=1 << 15):
        n_tokens += len(ids)
        arrays += 1
        assert ids.dtype == np.uint16
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 4 and arrays > 100
    assert n_tokens * 1.05 > 7000 * len(tok.encode("".join(SAMPLES)))


@pytest.mark.parametrize(
    "tok",
    [
        BPETokenizer.train(SAMPLES, 300),
        BPETokenizer.train(SAMPLES, 300, nfc=True),
        WordPieceTokenizer.train(SAMPLES, 300),
        CharTokenizer.train(["some words"]),
    ],
)
def test_ids_come_as_soon_as_they_are_sure(tok: Tokenizer) -> None:
    read = []

    def texts() -> Iterator[str]:
        for number in range(50):
            read.append(number)
            yield "some words "

    stream = tok._encode_stream(texts(), [])
    assert next(stream) and len(read) <= 3
    assert sum(map(len, stream)) > 90


def test_line_ends_are_kept_and_empty_files_are_empty(tmp_path: Path) -> None:
    tok = trained("gpt2")
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\n")
    assert tok.decode(encode_file(tok, tmp_path / "a.txt", 5)) == "one\r\ntwo\rthree\n"
    (tmp_path / "empty.txt").touch()
    assert list(tok.encode_file(tmp_path / "empty.txt")) == []


def test_ids_above_65535_need_four_bytes(tmp_path: Path) -> None:
    tok = CharTokenizer("".join(map(chr, range(0x20, 0xD7FF))) + "".join(map(chr, range(0xE000, 0x16000))), [])
    (tmp_path / "a.txt").write_bytes("\u0020\U00015fff".encode())
    (ids,) = tok.encode_file(tmp_path / "a.txt")
    assert ids.dtype == np.uint32 and ids.tolist() == [0, tok.vocab_size - 1]
    for n, dtype in ((65_535, np.uint16), (65_536, np.uint16), (65_537, np.uint32)):
        tok = CharTokenizer("".join(map(chr, [*range(0xD800), *range(0xE000, 0xE000 + n - 0xD800)])), [])
        (tmp_path / "a.txt").write_bytes(tok.characters[-1].encode())
        (ids,) = tok.encode_file(tmp_path / "a.txt")
        assert tok.vocab_size == n and ids.dtype == dtype and ids.tolist() == [n - 1]


@pytest.mark.parametrize("chunk_bytes", [1, 2, 1000])
@pytest.mark.parametrize(
    ("content", "place"), [(b"abc\xff", "0xff at offset 3"), ("ab中".encode()[:-1], "0xe4 at offset 2")]
)
def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path, content: bytes, place: str, chunk_bytes: int) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.txt is not UTF-8: byte {place}"):
        list(trained("gpt4").encode_file(tmp_path / "a.txt", chunk_bytes=chunk_bytes))


def test_a_file_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        trained("gpt4").encode_file(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="chunk_bytes must be at least 1"):
        trained("gpt4").encode_file(tmp_path, chunk_bytes=0)


def test_progress_shows_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("some text")
    list(trained("gpt4").encode_file(tmp_path / "a.txt"))
    assert capsys.readouterr().err == ""
    list(trained("gpt4").encode_file(tmp_path / "a.txt", progress=True))
    assert "9.00/9.00" in capsys.readouterr().err
