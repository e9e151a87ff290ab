"""Packing: the file's layout, its sidecar, and that nothing incomplete or foreign loads."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from fuzz import folder_in_memory

from minillm.data import Document, TokenDataset, build_corpus, corpus_documents, pack, pack_split
from minillm.data.packing import own_checksum, read_sidecar
from minillm.disk import holding, write_json


class Bytes:
    """The least of a tokenizer: one id a byte, and one for the end of a text."""

    def __init__(self, vocab_size: int = 257, eos_id: int | None = 256, shift: int = 0) -> None:
        self.vocab_size = vocab_size
        self.eos_id = eos_id
        self.shift = shift

    def encode(self, text: str, *, disallowed_special: tuple[str, ...]) -> list[int]:
        return [b + self.shift for b in text.encode()]

    def fingerprint(self) -> str:
        return f"bytes-{self.vocab_size}-{self.shift}"


class Fixed(Bytes):
    """Gives the same ids whatever the text."""

    def __init__(self, ids: list[int]) -> None:
        super().__init__(vocab_size=200)
        self.ids = ids

    def encode(self, text: str, *, disallowed_special: tuple[str, ...]) -> list[int]:
        return self.ids


def some_documents() -> list[Document]:
    return [Document(f"document {i} of this small corpus is not document {i + 40}\n", str(i)) for i in range(40)]


DOCUMENTS = [Document("ab", "1"), Document("é", "2"), Document("", "3")]


def test_layout_and_sidecar(tmp_path: Path) -> None:
    data = pack(DOCUMENTS, Bytes(), tmp_path / "x" / "tokens.bin")
    assert data.tokens.tolist() == [256, 97, 98, 256, 195, 169, 256, 256]
    assert data.tokens.dtype == np.uint16 and isinstance(data.tokens, np.memmap)
    assert (len(data), data.n_bytes, data.vocab_size, data.info.n_documents) == (8, 4, 257, 3)
    assert (data.info.source, data.info.source_bytes) == ("", 0)  # a stream, no file
    with pytest.raises(ValueError):
        data.tokens[0] = 1  # read-only
    data.check_tokenizer(Bytes())
    with pytest.raises(ValueError, match="packed with the tokenizer bytes-257-0"):
        data.check_tokenizer(Bytes(shift=1))
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["tokens.bin", "tokens.json"]
    assert "8 tokens of 257" in repr(data)


def test_without_a_separator_and_with_a_large_vocabulary(tmp_path: Path) -> None:
    data = pack(DOCUMENTS, Bytes(eos_id=None), tmp_path / "a.bin")
    assert data.tokens.tolist() == [97, 98, 195, 169] and data.info.eos_id is None
    data = pack(DOCUMENTS, Bytes(vocab_size=70_000, shift=65_530), tmp_path / "b.bin")
    assert data.tokens.dtype == np.uint32 and data.tokens[1] == 65_530 + 97
    assert len(pack([Document("x", "s")], Bytes(vocab_size=65_536), tmp_path / "c.bin").tokens.tobytes()) == 6


def test_from_a_corpus_file(tmp_path: Path) -> None:
    build_corpus(some_documents(), tmp_path / "c")
    data = pack(tmp_path / "c" / "train.jsonl", Bytes(), tmp_path / "train.bin")
    texts = [d.text for d in corpus_documents(tmp_path / "c")]
    assert data.info.n_documents == len(texts)
    assert data.info.source_bytes == (tmp_path / "c" / "train.jsonl").stat().st_size and data.info.source
    assert bytes(t for t in data.tokens.tolist() if t != 256).decode() == "".join(texts)


def test_progress_is_shown_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        build_corpus(some_documents(), tmp_path / name, progress=name == "b")
        pack(tmp_path / name / "train.jsonl", Bytes(), tmp_path / f"{name}.bin", progress=name == "b")
        shown = capsys.readouterr().err
        assert [what in shown for what in ("clean", "deduplicate", "contamination", "pack")] == [name == "b"] * 4


def test_bad_input(tmp_path: Path) -> None:
    target = tmp_path / "t.bin"
    with pytest.raises(ValueError, match="nothing to pack"):
        pack([], Bytes(), target)
    with pytest.raises(ValueError, match="nothing to pack"):
        pack([Document("", "e")], Bytes(), target)
    with pytest.raises(ValueError, match="ids from 195 to 200 for 's', outside its vocabulary of 200"):
        pack([Document("x", "s")], Fixed([195, 200]), target)
    with pytest.raises(ValueError, match="half of a surrogate pair at character 1"):
        pack([Document("a\ud800", "s")], Bytes(), target)
    with pytest.raises(ValueError, match="name of the sidecar"):
        pack(DOCUMENTS, Bytes(), tmp_path / "t.json")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_packing_keeps_the_old_file(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Document]:
        yield Document("new", "n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(interrupted(), Bytes(), tmp_path / "t.bin")
    assert list(tmp_path.iterdir()) == []
    pack(DOCUMENTS, Bytes(), tmp_path / "t.bin")
    with pytest.raises(KeyboardInterrupt):
        pack(interrupted(), Bytes(), tmp_path / "t.bin")
    assert TokenDataset(tmp_path / "t.bin").tokens[1] == 97
    assert pack([Document("z", "z")], Bytes(), tmp_path / "t.bin").tokens.tolist() == [256, 122, 256]


def test_killed_between_the_two_files_nothing_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack([Document("old", "o")], Bytes(), tmp_path / "t.bin")

    def killed(path: Path, values: dict[str, object]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("minillm.data.packing.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        pack([Document("new", "n")], Bytes(), tmp_path / "t.bin")  # as many tokens as the old one
    with pytest.raises(FileNotFoundError, match="missing"):
        TokenDataset(tmp_path / "t.bin")


def test_incomplete_and_foreign_files_do_not_load(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing .*t\.bin"):
        TokenDataset(tmp_path / "t.bin")
    pack(DOCUMENTS, Bytes(), tmp_path / "t.bin")
    whole = (tmp_path / "t.bin").read_bytes()
    (tmp_path / "t.bin").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="has 15 bytes where its sidecar promises 16"):
        TokenDataset(tmp_path / "t.bin")
    (tmp_path / "t.bin").write_bytes(whole)
    sidecar = json.loads((tmp_path / "t.json").read_text())
    (tmp_path / "t.json").write_text(json.dumps(sidecar | {"dtype": "float16"}))
    with pytest.raises(ValueError, match="says dtype 'float16'"):
        TokenDataset(tmp_path / "t.bin")
    (tmp_path / "t.json").write_text(json.dumps(sidecar | {"n_tokens": "8"}))
    with pytest.raises(ValueError, match="n_tokens is '8' and no int"):
        TokenDataset(tmp_path / "t.bin")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ValueError, match="does not describe packed tokens"):
        TokenDataset(tmp_path / "t.bin")
    (tmp_path / "t.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"t\.json"):
        TokenDataset(tmp_path / "t.bin")


def test_a_file_of_no_tokens_does_not_load(tmp_path: Path) -> None:
    """No packing writes one: the sidecar says so, and is whole."""
    pack(DOCUMENTS, Bytes(), tmp_path / "t.bin")
    info = replace(read_sidecar(tmp_path / "t.json"), n_tokens=0, crc32="00000000")
    (tmp_path / "t.bin").write_bytes(b"")
    write_json(tmp_path / "t.json", {**asdict(info), "checksum": own_checksum(info)})
    for verify in (True, False):
        with pytest.raises(ValueError, match=r"t\.bin' has 0 bytes"):
            TokenDataset(tmp_path / "t.bin", verify=verify)


def test_with_our_own_tokenizer(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("minillm.tokenizers")
    if not hasattr(tokenizers, "BPETokenizer"):
        pytest.skip("no BPETokenizer")
    texts = ["some text <|endoftext|> that forges a separator", "other text"]
    tokenizer = tokenizers.BPETokenizer.train(texts, 270)
    data = pack([Document(t, t) for t in texts], tokenizer, tmp_path / "t.bin")
    ids = data.tokens.astype(np.int64)
    assert (ids == tokenizer.eos_id).sum() == 3 and ids[0] == ids[-1] == tokenizer.eos_id
    assert tokenizer.decode(ids[1:][: np.flatnonzero(ids[1:] == tokenizer.eos_id)[0]].tolist()) == texts[0]
    assert data.info.tokenizer == tokenizer.fingerprint()


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_535, np.uint16), (65_536, np.uint16), (65_537, np.uint32)])
def test_the_last_id_of_a_vocabulary_fits_its_type(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    data = pack([Document("x", "s")], Bytes(vocab_size, None, shift=vocab_size - 1 - ord("x")), tmp_path / "t.bin")
    assert data.tokens.dtype == dtype and data.tokens.tolist() == [vocab_size - 1]
    assert data.info.dtype == np.dtype(dtype).name


# ---- damage, staleness


def test_one_flipped_bit_anywhere_is_noticed() -> None:
    with folder_in_memory() as folder:
        pack(DOCUMENTS, Bytes(), folder / "t.bin")
        for name in ("t.bin", "t.json"):
            whole = (folder / name).read_bytes()
            for bit in range(8 * len(whole)):
                changed = bytearray(whole)
                changed[bit // 8] ^= 1 << bit % 8
                (folder / name).write_bytes(changed)
                with pytest.raises(ValueError, match=r"t\.(bin|json)"):
                    TokenDataset(folder / "t.bin")
            (folder / name).write_bytes(whole)
        assert TokenDataset(folder / "t.bin").tokens[1] == 97


def test_the_hurried_compare_no_checksum(tmp_path: Path) -> None:
    pack(DOCUMENTS, Bytes(), tmp_path / "t.bin")
    (tmp_path / "t.bin").write_bytes(b"\0\0" + (tmp_path / "t.bin").read_bytes()[2:])
    with pytest.raises(ValueError, match="is damaged: its checksum is not its sidecar's"):
        TokenDataset(tmp_path / "t.bin")
    assert TokenDataset(tmp_path / "t.bin", verify=False).tokens[0] == 0


def small_corpus(folder: Path) -> Path:
    build_corpus(some_documents(), folder, overwrite=True)
    return folder / "train.jsonl"


def test_a_changed_corpus_is_packed_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = small_corpus(tmp_path / "c")
    folder = tmp_path / "c" / "tokens-x"
    first = pack_split(source, Bytes(), folder)
    stamp = (folder / "train.bin").stat().st_mtime_ns
    assert pack_split(source, Bytes(), folder).info == first.info
    assert (folder / "train.bin").stat().st_mtime_ns == stamp and capsys.readouterr().err == ""
    text, before = source.read_text(), os.stat(source)
    source.write_text(text.replace("small", "SMALL", 1))  # of the same size, and ...
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))  # ... the same time
    second = pack_split(source, Bytes(), folder)
    assert b"SMALL" in bytes(t for t in second.tokens.tolist() if t != 256)
    assert "packing anew" in capsys.readouterr().err
    source.write_text("".join(text.splitlines(keepends=True)[:3]))
    assert pack_split(source, Bytes(), folder, verify=False).info.n_documents == 3
    (folder / "train.bin").write_bytes(b"\0\0" + (folder / "train.bin").read_bytes()[2:])
    assert pack_split(source, Bytes(), folder).tokens[0] == 256 and "is damaged" in capsys.readouterr().err
    small_corpus(tmp_path / "c")
    assert not folder.exists()  # it was ours, and of the old corpus


# ---- where and by whom


def test_a_corpus_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small_corpus(tmp_path / "c")
    mkdir = Path.mkdir

    def read_only(path: Path, *arguments: object, **options: object) -> None:
        if tmp_path / "c" in path.parents:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        mkdir(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(PermissionError, match=r"tokens-x' \(Read-only file system\): name another .* --tokens FOLDER"):
        pack_split(source, Bytes(), tmp_path / "c" / "tokens-x")
    assert pack_split(source, Bytes(), tmp_path / "elsewhere" / "tokens-x").info.n_documents > 30
    assert sorted(p.name for p in (tmp_path / "c").glob("token*")) == []


PACKER = """
import os, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1].split(os.pathsep)
from test_packing import Bytes
from minillm.data import pack_split
source, me, together = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
for number in range(int(sys.argv[5])):
    (source.parent / f"ready-{number}-{me}").touch()
    while len(list(source.parent.glob(f"ready-{number}-*"))) < together:
        time.sleep(0.001)
    data = pack_split(source, Bytes(), source.parent / f"tokens-{number}")
    print(data.info.sha256, data.tokens.tobytes().hex()[:20])
"""


def test_several_packers_of_one_corpus_give_one_right_file(tmp_path: Path) -> None:
    source = small_corpus(tmp_path / "c")
    right = pack(source, Bytes(), tmp_path / "right.bin")
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", PACKER, f"{tests / 'data'}{os.pathsep}{tests / 'shared'}", str(source)]
    packers = [
        subprocess.Popen([*command, str(i), "3", "20"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for i in range(3)
    ]
    for packer in packers:
        out, errors = packer.communicate(timeout=120)
        assert packer.returncode == 0, errors
        assert out.splitlines() == [f"{right.info.sha256} {right.tokens.tobytes().hex()[:20]}"] * 20
        assert "Traceback" not in errors and "packing anew" not in errors
    for number in range(20):
        folder = tmp_path / "c" / f"tokens-{number}"
        assert (folder / "train.bin").read_bytes() == (tmp_path / "right.bin").read_bytes()
        assert sorted(p.name for p in folder.iterdir()) == [".minillm.json", "train.bin", "train.json"]


def test_who_waits_in_vain_is_told_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minillm.data.packing.WAIT", 0.2)
    who = rf"in use by process {os.getpid()} on .*packing since.*waited 0 s"
    with holding(tmp_path / "t.bin", "packing"), pytest.raises(TimeoutError, match=who):
        pack(DOCUMENTS, Bytes(), tmp_path / "t.bin")
    assert pack(DOCUMENTS, Bytes(), tmp_path / "t.bin").info.n_documents == 3
