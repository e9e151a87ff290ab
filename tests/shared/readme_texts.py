"""Checks of the README's table of what loads and what is refused: tokenizers, examples, texts for a corpus.

Row -> entry -> a check that it loads, or (an attempt, what its refusal says), as in hub/test_readme_table.py.
"""

import bz2
import gzip
import json
import lzma
import zipfile

import pytest
from hf_models import transformers
from sentencepiece_models import marian_folder, trained
from small_hub import COMMIT, Hub, corpus, serving
from tokenizer_shapes import made

from minillm.commands.corpus import source_documents
from minillm.data import read_documents
from minillm.data.records import read_table
from minillm.hub import AutoTokenizer
from minillm.tokenizers import BPETokenizer, CharTokenizer, WordPieceTokenizer
from minillm.tokenizers.gpt2_files import save_gpt2

TEXT = "Hello World! naïve café, 中文字 don't stop 12345\n  x"


def pipeline(shape):
    def check(name, folder):
        made(shape).save(str(folder / "tokenizer.json"))
        expected = made(shape).encode(TEXT)
        assert AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"] == expected.ids

    return check


def same_ids(folder):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"] == theirs(TEXT)["input_ids"]


def wordpiece(name, folder):
    WordPieceTokenizer.train([TEXT], 120).save(folder)
    same_ids(folder)


def characters(name, folder):
    core = CharTokenizer.train([TEXT])
    core.save(folder)
    assert AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"] == core.encode(TEXT)


def config_json(folder, name="config.json", **values):
    (folder / name).write_text(json.dumps(values), encoding="utf-8")


def berts(name, folder):
    WordPieceTokenizer.train([TEXT], 120).save_vocab(folder)
    config_json(folder, model_type="bert")
    same_ids(folder)


def two_files(kind):
    def check(name, folder):
        save_gpt2(BPETokenizer.train([TEXT], 300, pattern="gpt2", special_tokens=["<|endoftext|>"]), folder)
        config_json(folder, model_type=kind)
        same_ids(folder)

    return check


LETTERS = {"bos_piece": "<bos>", "eos_piece": "<eos>", "pad_piece": "<pad>"}
GEMMAS = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, **LETTERS}


def model_file(kind, first, **settings):
    """A check of a folder with nothing but a SentencePiece model and whose it is; `first` stands before a text."""

    def check(name, folder):
        sentencepiece = pytest.importorskip("sentencepiece")
        (folder / "tokenizer.model").write_bytes(trained(kind, **settings))
        config_json(folder, "tokenizer_config.json", tokenizer_class=f"{kind.title()}Tokenizer")
        expected = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode(TEXT)
        assert AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"] == [first, *expected]

    return check


def marians(name, folder):
    pytest.importorskip("sentencepiece")
    theirs = marian_folder(folder)
    ours, text = AutoTokenizer.from_pretrained(folder), f">>fra<< {TEXT}"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours(text_target=TEXT)["input_ids"] == theirs(text_target=TEXT)["input_ids"]


def zst(data):
    return pytest.importorskip("zstandard", reason="reads .zst: the extra `data`").ZstdCompressor().compress(data)


COMPRESSIONS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}
EXAMPLES = {
    ".csv": 'text,label\n"Good, 好",yes\n', ".tsv": "text\tlabel\nGood, 好\tyes\n",
    ".jsonl": '{"text": "Good, 好", "label": "yes"}\n', ".json": '[{"text": "Good, 好", "label": "yes"}]',
}  # fmt: skip


def examples_in(ending, content):
    def check(name, folder):
        (folder / f"a{ending}").write_bytes(content)
        assert [row for _, row in read_table(folder / f"a{ending}").records] == [{"text": "Good, 好", "label": "yes"}]

    return check


def texts_from(source):
    """The texts of what is given to --from."""
    how = {"skipped": [], "tell": lambda note: None, "progress": False}
    return [document.text.strip() for document in source_documents([str(source)], None, how)]


def text_in(*endings):
    def check(name, folder):
        for ending in endings:
            (folder / f"a{ending}").write_text(CORPUS.get(ending, "Good, 好"), encoding="utf-8")
            assert texts_from(folder / f"a{ending}") == ["Good, 好"]

    return check


PARAGRAPHS = "".join(f"<p>The lamp on pier {n} was dark, and the boats found their way by ear.</p>" for n in range(9))
PAGE = f"<html><body><nav><a href='/'>Home</a></nav><article>{PARAGRAPHS}<p>Good, 好</p></article></body></html>"
CORPUS = {**EXAMPLES, ".json": '["Good, 好"]', ".html": PAGE, ".txt": "Good, 好", ".md": "Good, 好", ".py": "Good, 好"}


def page(name, folder):
    pytest.importorskip("trafilatura", reason="reads pages: the extra `data`")
    for ending in (".html", ".htm"):
        (folder / f"a{ending}").write_text(PAGE, encoding="utf-8")
        (text,) = texts_from(folder / f"a{ending}")
        assert text.startswith("The lamp on pier 0") and text.endswith("Good, 好")


def parquet(name, folder):
    pyarrow = pytest.importorskip("pyarrow", reason="reads Parquet: the extra `data`")
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"text": ["Good, 好"], "n": [1]}), folder / "a.parquet")
    assert texts_from(folder / "a.parquet") == ["Good, 好"]


def archive(name, folder):
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        for ending in (".txt", ".csv"):
            file.writestr(f"notes/a{ending}", CORPUS[ending])
    assert texts_from(folder / "a.zip") == ["Good, 好"] * 2


def compressed(read, contents):
    """A check that each way to compress is read, too, of files with these endings."""

    def check(name, folder):
        for ending, content in contents.items():
            for compression, compress in COMPRESSIONS.items():
                (file := folder / f"a{ending}{compression}").write_bytes(compress(content.encode()))
                assert "Good, 好" in str(read(file))

    return check


def data_set(name, folder):
    pytest.importorskip("huggingface_hub", reason="downloads: the extra `hub`")
    with serving() as address:
        Hub.branches[COMMIT]["train.jsonl"] = b"".join(b'{"text": "The boat %d left at dawn."}\n' % i for i in range(9))
        run = corpus(address, folder, "--from", "hf:sea/boats")
    assert run.returncode == 0, run.stderr
    assert (folder / "c" / "train.jsonl").read_text().count("left at dawn.") in (8, 9)


DUMP = """<mediawiki><page><title>Good</title><ns>0</ns><revision><text>'''Good''', [[a|好]]</text></revision></page>
</mediawiki>"""


def dump(name, folder):
    (folder / "a.xml.bz2").write_bytes(bz2.compress(DUMP.encode()))
    assert texts_from(f"wiki:{folder / 'a.xml.bz2'}") == ["Good\n\nGood, 好"]


# --- refusals ---------------------------------------------------------------------------------------------------------


def changed_tokenizer(says, **changes):
    def attempt(name, folder):
        content = json.loads(made("llama").to_str())
        content["model"].update({key: value for key, value in changes.items() if key == "dropout"})
        config_json(folder, "tokenizer.json", **{**content, **{k: v for k, v in changes.items() if k != "dropout"}})
        AutoTokenizer.from_pretrained(folder)

    return attempt, says


def mpnets(name, folder):
    berts(name, folder)
    config_json(folder, "tokenizer_config.json", tokenizer_class="MPNetTokenizer")
    AutoTokenizer.from_pretrained(folder)


def robertas(name, folder):
    two_files("gpt2")(name, folder)
    config_json(folder, "tokenizer_config.json", tokenizer_class="RobertaTokenizer")
    AutoTokenizer.from_pretrained(folder)


def t5s(name, folder):
    pytest.importorskip("sentencepiece")
    (folder / "tokenizer.model").write_bytes(trained("t5"))
    config_json(folder, "tokenizer_config.json", tokenizer_class="T5Tokenizer")
    AutoTokenizer.from_pretrained(folder)


def separate(name, folder):
    pytest.importorskip("sentencepiece")
    marian_folder(folder)
    values = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config_json(folder, "tokenizer_config.json", **{**values, "separate_vocabs": True})
    AutoTokenizer.from_pretrained(folder)


def spreadsheet(name, folder):
    (folder / "a.xlsx").write_bytes(b"PK")
    read_table(folder / "a.xlsx")


def binary(name, folder):
    (folder / "a.bin").write_bytes(bytes(range(256)))
    list(read_documents(folder / "a.bin"))


def no_text(ending):
    def attempt(name, folder):
        (folder / f"a{ending}").write_text("{}")
        texts_from(folder / f"a{ending}")

    return attempt, "is no text: convert it first"


def other_xml(name, folder):
    (folder / "a.xml").write_text("<feed><entry/></feed>")
    texts_from(f"wiki:{folder / 'a.xml'}")


TEXTS_LOAD = {
    "`tokenizer.json`": {
        "byte-level BPE": pipeline("smollm"), "BPE on characters": pipeline("llama"), "Unigram": pipeline("xlm-r"),
        "WordPiece": wordpiece, "characters": characters,
    },
    "`vocab.txt`": {"BERT's": berts},
    "`vocab.json` with `merges.txt`": {
        "GPT-2's": two_files("gpt2"), "Qwen2's": two_files("qwen2"),
    },
    "`tokenizer.model`": {"Llama's": model_file("llama", 1), "Gemma's": model_file("gemma", 2, **GEMMAS)},
    "`source.spm` with `target.spm`": {"Marian's": marians},
    "examples (`--data`)": {
        **{ending: examples_in(ending, content.encode()) for ending, content in EXAMPLES.items()},
        "each as .gz or .bz2 or .xz or .zst": compressed(lambda file: read_table(file).records, EXAMPLES),
    },
    "text for a corpus (`--from`)": {
        "prose and code": text_in(".txt", ".md", ".rst", ".py", ".c", ".rs"), ".html": page,
        **{ending: text_in(ending) for ending in EXAMPLES},
        "each as .gz or .bz2 or .xz or .zst": compressed(texts_from, CORPUS), ".parquet": parquet, ".zip": archive,
    },
    "text by name (`--from`)": {"a data set of the hub (`hf:`)": data_set, "a dump of Wikipedia (`wiki:`)": dump},
}  # fmt: skip
TEXTS_REFUSED = {
    "`tokenizer.json`": {
        "random merges (`dropout`)": changed_tokenizer("for training only", dropout=0.1),
        "any unknown part": changed_tokenizer("Shuffle", pre_tokenizer={"type": "Shuffle"}),
    },
    "`vocab.txt`": {"`MPNetTokenizer` and others": (mpnets, "in its own way")},
    "`vocab.json` with `merges.txt`": {"`RobertaTokenizer` and others": (robertas, "in its own way")},
    "`tokenizer.model`": {"`T5Tokenizer` and others": (t5s, "in its own way")},
    "`source.spm` with `target.spm`": {"`separate_vocabs`": (separate, "one vocabulary for both languages")},
    "examples (`--data`)": {"`.xlsx` and others": (spreadsheet, "rename or convert it")},
    "text for a corpus (`--from`)": {
        "binary files": (binary, "cannot read"), **{f"`{kind}`": no_text(kind) for kind in (".pdf", ".docx", ".ipynb")},
        "`.tar` and others": no_text(".tar"),
    },
    "text by name (`--from`)": {"XML of other kinds": (other_xml, "no dump of Wikipedia")},
}  # fmt: skip
