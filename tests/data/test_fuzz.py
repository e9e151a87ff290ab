"""Whatever is in a file that data/ reads, the answer is the content, or a ValueError or OSError that names the file.

`python -m pytest -m long -s tests/data/test_fuzz.py` reads 100,000 mutations with each reader (FUZZ_CASES: another
number) and prints what came of it.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

if os.name != "posix":
    pytest.skip("time limits by signals", allow_module_level=True)

from fuzz import folder_in_memory, fuzz, report

from minillm.data import (
    Document,
    TokenDataset,
    build_corpus,
    corpus_documents,
    load_report,
    pack,
    pack_split,
    read_chats,
    read_documents,
    read_jsonl,
    read_labelled,
    read_pairs,
    read_preferences,
    read_prompts,
    wiki_documents,
)
from minillm.data.documents import Dropped
from minillm.disk import claim, foreign_files
from minillm.training.config_file import build, read_toml, to_toml
from minillm.training.pretrain import SECTIONS, DataConfig

TEXT = "The boat left at dawn.\r\n\r\nCafé, 船 and e\u0301 were on board.\n# a line\n"
CASES = int(os.environ.get("FUZZ_CASES", "100_000"))


class Bytes:
    vocab_size, eos_id = 257, 256

    def encode(self, text: str, *, disallowed_special: tuple[str, ...]) -> list[int]:
        return list(text.encode())

    def fingerprint(self) -> str:
        return "bytes"


def text_files(folder: Path) -> dict[str, bytes]:
    text = TEXT.encode()
    return {
        "a.txt": text * 3,
        "b.md": "\ufeff".encode("utf-16-le") + TEXT.encode("utf-16-le"),
        "c.py": b"# -*- coding: latin-1 -*-\nx = 1  # \xe9\n",
        "d.txt.gz": gzip.compress(text * 20, mtime=0),
        "e.txt.bz2": bz2.compress(text * 20),
        "f.txt.xz": lzma.compress(text * 20),
        "g.txt": "\ufeff".encode("utf-32-be") + TEXT.encode("utf-32-be"),
    }


def json_files(folder: Path) -> dict[str, bytes]:
    records = [{"text": TEXT, "source": "s"}, {"text": "half \ud800"}, {"id": 3, "text": "", "more": [1.5, None, {}]}]
    lines = "\n".join(map(json.dumps, records)).encode()
    return {"a.jsonl": lines, "b.json": json.dumps(records).encode(), "c.jsonl.gz": gzip.compress(lines, mtime=0)}


def row_files(folder: Path) -> dict[str, bytes]:
    table = 'id,text\n1,"a ""b"",\nc"\n2,d\n'
    rows = "\n".join(json.dumps({"url": f"u{i}", "content": TEXT * i}) for i in range(1, 4)).encode() + b"\n"
    return {
        "a.csv": table.encode("utf-8-sig"),
        "b.csv": table.replace(",", ";").encode("utf-16"),
        "c.tsv": b'n\ttext\n1\ta\n2\t"b ""c"""\n',
        "d.csv.gz": gzip.compress(table.encode(), mtime=0),
        "e": rows,
        "f.jsonl.zst": pytest.importorskip("zstandard", reason="the extra `data`").compress(rows) * 2,
    }


def page_files(folder: Path) -> dict[str, bytes]:
    pytest.importorskip("trafilatura", reason="the extra `data`")
    body = "".join(f"<p>{TEXT} <b>No {i}</b> of <a href='x'>them</a>.</p><ul><li>{i}</li></ul>" for i in range(4))
    head = "<html><head><meta charset='utf-8'><title>t</title></head><body><nav><a>x</a></nav><article>"
    return {"a.html": f"{head}{body}</article></body></html>".encode(), "b.htm": body.encode("utf-16")}


def parquet_files(folder: Path) -> dict[str, bytes]:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `data`")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"id": list(range(40)), "text": [None, *[TEXT * i for i in range(39)]]})
    folder.mkdir(exist_ok=True)
    files = {}
    for name, codec in (("a.parquet", "snappy"), ("b.parquet", "none"), ("c.parquet", "zstd")):
        parquet.write_table(table, folder / "made", compression=codec, row_group_size=15)
        files[name] = (folder / "made").read_bytes()
    (folder / "made").unlink()
    return files


def archive_files(folder: Path) -> dict[str, bytes]:
    files = {}
    for name, method in (("a.zip", zipfile.ZIP_DEFLATED), ("b.zip", zipfile.ZIP_STORED), ("c.zip", zipfile.ZIP_BZIP2)):
        with io.BytesIO() as stream:
            with zipfile.ZipFile(stream, "w", method) as archive:
                for member in ("a.txt", "b/c.md", "d.jsonl"):
                    archive.writestr(member, json.dumps({"text": TEXT}) if "json" in member else TEXT * 9)
            files[name] = stream.getvalue()
    return files


def dump_files(folder: Path) -> dict[str, bytes]:
    page = (
        "<page><title>T{0}</title><ns>{0}</ns><revision><text>{{{{x|[[y]]}}}} '''a''' [[b|c]]</text></revision></page>"
    )
    dump = f"<mediawiki>{page.format(0)}{page.format(1)}{page.format(0)}</mediawiki>".encode()
    return {"a.xml": dump, "b.xml.bz2": bz2.compress(dump), "c.xml.gz": gzip.compress(dump, mtime=0)}


def corpus_files(folder: Path) -> dict[str, bytes]:
    documents = [Document(f"document {i} is not document {i + 40}\n", str(i)) for i in range(12)]
    build_corpus(documents, folder / "made")
    return {p.name: p.read_bytes() for p in (folder / "made").iterdir() if p.name != "dropped.jsonl"}


def token_files(folder: Path) -> dict[str, bytes]:
    pack([Document(TEXT, "1"), Document("é", "2")], Bytes(), folder / "made.bin")
    return {f"t.{kind}": (folder / f"made.{kind}").read_bytes() for kind in ("bin", "json")}


def labelled_files(folder: Path) -> dict[str, bytes]:
    table = 'text,label\n"a ""b"",\nc",1\nd,2\n中文,3\n'
    records = [{"text": f"t{i}", "label": i} for i in range(4)]
    return {
        "a.csv": table.encode(),
        "b.csv": table.replace(",", ";").encode("utf-16"),
        "c.tsv": b'text\tlabel\na\t1\n"b ""c"""\t2\n',
        "d.jsonl": "\n".join(map(json.dumps, records)).encode(),
        "e.json": json.dumps(records, indent=1).encode(),
        "f.csv.gz": gzip.compress(table.encode(), mtime=0),
    }


def example_files(folder: Path) -> dict[str, bytes]:
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    shared = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    asked, other = {"prompt": said[:2], "chosen": said[2:], "rejected": "c"}, [*said[:2], {**said[2], "content": "c"}]
    return {
        "pairs.tsv": b"a\tb\nc\td\n" * 5,
        "pairs.jsonl": b'{"instruction": "a", "input": "b", "output": "c"}\n{"instruction": "d", "output": "e"}\n',
        "chats.jsonl": "\n".join(map(json.dumps, [{"messages": said}, {"messages": said[1:]}])).encode(),
        "chats.json": json.dumps([{"conversations": shared}] * 2, indent=1).encode(),
        "preferences.jsonl": "\n".join(map(json.dumps, [asked, {"chosen": said, "rejected": other}])).encode(),
        "prompts.jsonl": "\n".join(map(json.dumps, [{"prompt": "a", "right": 1}, {"prompt": said[:2]}])).encode(),
    }


def read_every_label(folder: Path) -> None:
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        for kind in ("classification", "regression", "multi-label"):
            str(read_labelled(file, kind=kind, skip_bad=True))
        read_labelled(file)


def read_every_example(folder: Path) -> None:
    readers = {"pairs": read_pairs, "chats": read_chats, "preferences": read_preferences}
    readers |= {"prompts": read_prompts}
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        for skip_bad in (True, False):
            read = readers[file.name.split(".")[0]](file, skip_bad=skip_bad)
            assert all(repr(example).encode() for example in read)  # no half of a surrogate pair


def read_named(folder: Path) -> None:
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        for document in read_documents(file):
            str(document.text)


def read_found(folder: Path) -> None:
    skipped: list[Dropped] = []
    list(read_documents(folder, skipped=skipped, part_chars=50))


def read_dumps(folder: Path) -> None:
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        list(wiki_documents(file))


def read_corpus(folder: Path) -> None:
    load_report(folder).summary()
    for split in ("train", "val"):
        list(corpus_documents(folder, split))
        list(read_jsonl(folder / f"{split}.jsonl"))


def read_marker(folder: Path) -> None:
    foreign_files(folder)
    claim(folder, "corpus", ["tokens-x"])


def read_tokens(folder: Path) -> None:
    """What is read in spite of a change (of white space in the sidecar) is what was written."""
    data = TokenDataset(folder / "t.bin")
    text = f"\0{TEXT}\0é\0".encode()
    assert [256 if byte == 0 else byte for byte in text] == data.tokens.tolist() and data.n_bytes == len(text) - 3


def read_tokens_in_a_hurry(folder: Path) -> None:
    TokenDataset(folder / "t.bin", verify=False).tokens.sum()


def pack_a_split(folder: Path) -> None:
    pack_split(folder / "train.jsonl", Bytes(), folder / "tokens-x")


def config_files(folder: Path) -> dict[str, bytes]:
    sections = {"data": DataConfig("c", "t"), "train": SECTIONS["train"](), "engine": SECTIONS["engine"]()}
    return {"config.toml": to_toml("A run.", sections).encode()}


def read_config(folder: Path) -> None:
    for name, section in read_toml(folder / "config.toml", SECTIONS).items():
        build(SECTIONS[name], section, f"config.toml: [{name}]")


READERS: dict[str, tuple[Callable[[Path], dict[str, bytes]], Callable[[Path], None]]] = {
    "documents, named": (text_files, read_named),
    "documents, in a folder": (text_files, read_found),
    "JSON and JSONL": (json_files, read_named),
    "JSON and JSONL, in a folder": (json_files, read_found),
    "rows, named": (row_files, read_named),
    "rows, in a folder": (row_files, read_found),
    "pages": (page_files, read_found),
    "Parquet": (parquet_files, read_named),
    "archives": (archive_files, read_named),
    "Wikipedia dumps": (dump_files, read_dumps),
    "labelled texts": (labelled_files, read_every_label),
    "pairs, chats, preferences, prompts": (example_files, read_every_example),
    "a corpus": (corpus_files, read_corpus),
    "a folder's marker": (corpus_files, read_marker),
    "token file and sidecar": (token_files, read_tokens),
    "token file and sidecar, unverified": (token_files, read_tokens_in_a_hurry),
    "packing": (corpus_files, pack_a_split),
    "config.toml": (config_files, read_config),
}


@pytest.mark.parametrize("name", READERS)
def test_mutated_files(name: str) -> None:
    files, reader = READERS[name]
    with folder_in_memory() as folder:
        fuzz(reader, files(folder), folder / "read", 300)


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_campaign(name: str) -> None:
    files, reader = READERS[name]
    began = time.monotonic()
    with folder_in_memory() as folder:
        report(name, fuzz(reader, files(folder), folder / "read", CASES, first=1_000_000), began)
