"""minillm tokenizer: every kind trained, encoded with and shown."""

import io
import shutil

import pytest
from command_line import minillm

from minillm.tokenizers import load_tokenizer


def test_tokenizer_encode_and_show(made, tmp_path, capsys):
    ids = minillm("tokenizer", "encode", made / "tokenizer.json", "the cat 你好", capsys=capsys)
    (tmp_path / "text.txt").write_text("the cat 你好", encoding="utf-8")
    assert ids == minillm("tokenizer", "encode", made, "--file", tmp_path / "text.txt", capsys=capsys)
    assert len(minillm("tokenizer", "encode", made, "<|endoftext|>", capsys=capsys).split()) > 1
    assert len(minillm("tokenizer", "encode", made, "<|endoftext|>", "--special", capsys=capsys).split()) == 1
    shown = minillm("tokenizer", "show", made, "the cat 你好", "--steps", capsys=capsys)
    assert "你好" in shown and "' cat'" in shown
    assert len(minillm("tokenizer", "show", made, "--merges", 5, capsys=capsys).splitlines()) == 6


def test_ids_become_their_text(made, tmp_path, monkeypatch, capsys):
    ids = minillm("tokenizer", "encode", made, "the cat 你好", capsys=capsys)
    (tmp_path / "ids.txt").write_text(ids)
    monkeypatch.setattr("sys.stdin", io.StringIO(ids))
    for words in (ids.split(), [",".join(ids.split())], [str(ids.split())], ["--file", tmp_path / "ids.txt"], ["-"]):
        if "'" in str(words[0]):
            words = [words[0].replace("'", "")]  # a list as Python prints it
        assert minillm("tokenizer", "decode", made, *words, capsys=capsys) == "the cat 你好\n"


def test_a_text_too_small_for_the_vocabulary_is_said(tmp_path, capsys):
    (tmp_path / "small.txt").write_text("hello hello there, hello you\n" * 3)
    train = ["tokenizer", "train", tmp_path / "small.txt", "--out", tmp_path]
    for kind in ("bpe", "wordpiece"):
        out = minillm(*train, "--kind", kind, "--vocab-size", 5000, capsys=capsys)
        n = load_tokenizer(tmp_path).vocab_size
        assert n < 400 and f"note: {n} ids, not 5,000: the text is so small" in out
    assert "note" not in minillm(*train, "--vocab-size", 258, capsys=capsys)


def test_a_text_may_stand_behind_the_options(made, capsys):
    for command, option in [("show", ["--steps"]), ("encode", ["--special"])]:
        first = minillm("tokenizer", command, made, "the cat", *option, capsys=capsys)
        assert first == minillm("tokenizer", command, made, *option, "the cat", capsys=capsys) != ""
        assert first == minillm("tokenizer", command, *option, made, "the cat", capsys=capsys)
    with pytest.raises(SystemExit):
        minillm("tokenizer", "show", made, "the", "--steps", "cat")
    assert "unrecognized arguments: cat" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encode", "t.txt"], "give either a text or --file FILE behind the tokenizer"),
        (["encode", "t.txt", "hello"], "t.txt is not a tokenizer's file: give a tokenizer.json, or a folder with one."),
        (["show", "t.txt"], "t.txt is not a tokenizer's file"),
        (["encode", "tokenizer.json", "--file", "nofile"], "minillm: nofile: No such file or directory."),
        (["encode", "tokenizer.json", "--file", ""], "give either a text or --file FILE"),
        (["show", "tokenizer.json", "--steps"], "--steps replays how a text was encoded: give TEXT, too."),
        (["show", "tokenizer.json", "the", "--merges", "3"], "--merges is for what was learned, not for a TEXT"),
        (["decode", "tokenizer.json"], "give either ids, - for those of standard input, or --file FILE"),
        (["decode", "tokenizer.json", "1", "two"], "line: 'two' is no id of this tokenizer: they are from 0 to"),
        (["decode", "tokenizer.json", "1", "300000"], "'300000' is no id of this tokenizer"),
        (["decode", "tokenizer.json", "--file", "t.txt"], "t.txt: 'hello' is no id of this tokenizer"),
        (["decode", "nofile", "1"], "there is no file nofile/tokenizer.json, nor its folder."),
        (["train", "t.txt", "--vocab-size", "9"], "--vocab-size must be from 257"),
        (["encode", "nofile", "hello"], "there is no file nofile/tokenizer.json, nor its folder."),
    ],
)
def test_what_is_no_tokenizer_or_file_is_said(made, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("hello")
    shutil.copy(made / "tokenizer.json", tmp_path)
    assert message in minillm("tokenizer", *words, status=2, capsys=capsys)


def test_a_wordpiece_tokenizer(made, tmp_path, capsys):
    train = ["tokenizer", "train", made / "corpus", "--kind", "wordpiece", "--vocab-size", 80]
    for options, shown in [([], "'the'"), (["--cased"], "'[UNK]'")]:  # the corpus has no capitals
        assert "80 ids" in minillm(*train, *options, "--out", tmp_path, capsys=capsys)
        lines = minillm("tokenizer", "show", tmp_path, "The cat, the [MASK]", capsys=capsys).splitlines()
        assert lines[0].startswith("WordPieceTokenizer(vocab_size=80, special_tokens=['[PAD]', '[UNK]', '[CLS]', ")
        assert lines[1].endswith(shown) and lines[-1] == "    4  '[MASK]'"
        ids = minillm("tokenizer", "encode", tmp_path, "THE cat", capsys=capsys)
        assert (ids == minillm("tokenizer", "encode", tmp_path, "the cat", capsys=capsys)) is not bool(options)
        (tmp_path / "text.txt").write_text("THE cat")
        assert ids == minillm("tokenizer", "encode", tmp_path, "--file", tmp_path / "text.txt", capsys=capsys)
    for option in (["--steps"], ["--merges", 3]):
        error = minillm("tokenizer", "show", tmp_path, "the", *option, status=2, capsys=capsys)
        assert f"{option[0]} is for byte-level BPE, and this is a WordPieceTokenizer" in error
    special = ["--special", "[UNK]", "<|endoftext|>", "--out", tmp_path]
    minillm(*train, *special, capsys=capsys)
    assert "special_tokens=['[UNK]', '<|endoftext|>']" in minillm("tokenizer", "show", tmp_path, capsys=capsys)


def test_patterns_of_the_field(made, tmp_path, capsys):
    """Each gives numbers to its own rule: three digits to a token at most, or one."""
    shown = {}
    for pattern in ("gpt2", "gpt4", "llama3", "qwen2", "qwen35"):
        out = tmp_path / f"{pattern}.json"
        minillm("tokenizer", "train", made / "corpus", "--vocab-size", 300, "--pattern", pattern, "--out", out)
        shown[pattern] = minillm("tokenizer", "show", out, "12345", "--steps", capsys=capsys)
        nfc = load_tokenizer(out).nfc
        assert nfc is (pattern in ("qwen2", "qwen35"))
    pieces = {pattern: text.split("is ")[1].split(" ")[0] for pattern, text in shown.items()}
    assert pieces == {"gpt2": "1", "gpt4": "2", "llama3": "2", "qwen2": "5", "qwen35": "5"}


def test_a_character_tokenizer(made, tmp_path, capsys):
    minillm("tokenizer", "train", made / "corpus", "--kind", "char", "--out", tmp_path / "char.json", capsys=capsys)
    assert "你" in minillm("tokenizer", "show", tmp_path / "char.json", "你", capsys=capsys)


def test_skips_are_told_and_half_a_pair_names_file_and_line(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("some text " * 50)
    (tmp_path / "in" / "a.css").write_text("p {}")
    arguments = ["--vocab-size", 260, "--out", tmp_path / "t.json"]
    minillm("tokenizer", "train", tmp_path / "in", *arguments)
    assert "1 .css skipped: extension '.css' is not one of text" in capsys.readouterr().err
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": "\\ud800"}\n')
    error = minillm("tokenizer", "train", tmp_path / "a.jsonl", *arguments, status=2, capsys=capsys)
    assert "a.jsonl, line 2) holds half of a surrogate pair" in error
