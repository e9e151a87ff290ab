"""Packing by several processes: the same file as by one, in order, and clean ends."""

import os
import signal
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from ended_scripts import end_script

from minillm.data import Document, encoding, pack
from minillm.data.documents import write_jsonl
from minillm.disk import processes
from minillm.tokenizers import BPETokenizer

TEXTS = [f"Document {i}: " + "words and more words, 中文 😀\n  " * (i % 7) for i in range(300)]


class Bytes:
    """One id a byte; some texts have consequences."""

    vocab_size, eos_id = 300, 256

    def encode(self, text: str, *, disallowed_special: tuple[str, ...]) -> list[int]:
        if text == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return [400] if text == "bad" else list(text.encode())

    def fingerprint(self) -> str:
        return "bytes"


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH", 500)
    monkeypatch.setattr(encoding, "ALONE", 2)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_file_is_the_same_for_any_number_of_processes(start: str, tmp_path: Path, monkeypatch) -> None:
    if start == "fork" and sys.platform == "win32":
        pytest.skip("Windows has no fork")
    monkeypatch.setattr(processes, "START", start)
    tokenizer = BPETokenizer.train(TEXTS, 400)
    documents = [Document(text, str(i)) for i, text in enumerate(TEXTS)]
    with open(tmp_path / "train.jsonl", "w", encoding="utf-8", newline="\n") as stream:
        for document in documents:
            write_jsonl(stream, document)
    packed = [pack(documents, tokenizer, tmp_path / f"{n}.bin", processes=n) for n in (1, 2, 3)]
    packed.append(pack(tmp_path / "train.jsonl", tokenizer, tmp_path / "file.bin", processes=2))
    expected = [tokenizer.eos_id]
    for text in TEXTS:
        expected += [*tokenizer.encode(text), tokenizer.eos_id]
    assert all(data.tokens.tolist() == expected for data in packed)
    assert len({data.info.sha256 for data in packed}) == 1 and packed[0].info == packed[2].info


def test_documents_are_read_as_they_are_needed() -> None:
    """At most two batches a process wait, so a corpus of any size fits."""
    read = 0

    def documents():
        nonlocal read
        for text in TEXTS:
            read += 1
            yield Document(text + "x" * 500, "")

    most = 0
    for done, _ in enumerate(encoding.encode_documents(documents(), Bytes(), 2), 1):
        most = max(most, read - done)
    assert read == done == len(TEXTS) and most <= 4


@pytest.mark.parametrize("place", [0, 299])
def test_ids_outside_the_vocabulary_are_refused_here_and_there(place: int, tmp_path: Path) -> None:
    documents = [Document("bad" if i == place else text, f"source {i}") for i, text in enumerate(TEXTS)]
    with pytest.raises(ValueError, match=rf"from 400 to 400 for 'source {place}', outside its vocabulary of 300"):
        pack(documents, Bytes(), tmp_path / "tokens.bin", processes=2)
    assert list(tmp_path.glob("*.bin")) == []


@pytest.mark.parametrize(("vocab_size", "size"), [(1 << 15, 2), (1 << 16, 2), ((1 << 16) + 1, 4)])
def test_ids_are_as_small_as_the_vocabulary_allows(vocab_size: int, size: int, monkeypatch) -> None:
    monkeypatch.setattr(Bytes, "vocab_size", vocab_size)
    (ids,) = encoding.encode_batch(Bytes(), [Document("two", "")])
    assert ids.dtype.itemsize == size and ids.tolist() == list(b"two")
    monkeypatch.setattr(Bytes, "encode", lambda *_, **__: [0, -1])
    with pytest.raises(ValueError, match="from -1 to 0 for 'one', outside"):
        encoding.encode_batch(Bytes(), [Document("two", "one")])


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_process_is_told(tmp_path: Path) -> None:
    documents = [Document(text, "") for text in [*TEXTS, "kill", *TEXTS]]
    with pytest.raises(OSError, match="was killed, perhaps for want of memory") as caught:
        pack(documents, Bytes(), tmp_path / "tokens.bin", processes=2)
    assert isinstance(caught.value.__cause__, BrokenProcessPool) and list(tmp_path.glob("*.bin")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_ctrl_c_ends_all_processes_without_a_word_of_theirs(start: str, tmp_path: Path) -> None:
    script = f"""
        import signal
        from minillm.data import Document, encoding, pack
        from minillm.disk import processes
        from minillm.tokenizers import BPETokenizer

        def documents():
            for i in range(10**9):
                if i == 400:
                    print("going", flush=True)
                yield Document("some text " * 50, "")

        if __name__ == "__main__":
            signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it would be ignored
            encoding.BATCH, processes.START = 500, {start!r}
            try:
                pack(documents(), BPETokenizer.train(["some text"], 260), {str(tmp_path / "tokens.bin")!r}, processes=2)
            except KeyboardInterrupt:
                print("interrupted")
        """
    assert end_script(script, tmp_path, signal.SIGINT) == ("interrupted\n", "", 0)
    assert not (tmp_path / "tokens.bin").exists()
