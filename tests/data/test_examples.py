"""The user's own examples: what is written comes back, columns are found, and whatever is wrong is said with file, line
and remedy, or counted."""

import csv
import gzip
import io
import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from minillm.data import (
    Chat,
    Labelled,
    Pair,
    Preference,
    Prompt,
    check_labels,
    label_names,
    read_chats,
    read_labelled,
    read_pairs,
    read_preferences,
    read_prompts,
    read_table,
)

# Any text that UTF-8 has; csv of Python 3.10 knows no NUL, and a file that begins with one is no text for us.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30).filter(
    str.strip
)
ODD = st.sampled_from(
    ['say "hi", then\ngo', '"', '""', "a,b", "a;b", "a\tb", "\r\n x", "l1\rl2", "中文，\u2028好", "'", "\x0bx"]
)
ROWS = st.lists(st.tuples(st.one_of(TEXT, ODD), TEXT), min_size=1, max_size=8)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file into the current folder and gives its name, so that messages can be compared as they are."""
    monkeypatch.chdir(tmp_path)

    def write(name, content, encoding="utf-8"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return name

    return write


def lines(*records):
    return "\n".join(record if isinstance(record, str) else json.dumps(record) for record in records)


def error(read, *args, **kwargs):
    with pytest.raises(ValueError) as caught:
        read(*args, **kwargs)
    return str(caught.value)


# --- round trips ------------------------------------------------------------------------------------------------------


def line_starts(text):
    """How many lines end in a text, as an editor counts them."""
    return text.count("\n") + text.replace("\r\n", "").count("\r")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


@given(
    ROWS,
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_csv_wrote_is_read(folder, rows, delimiter, end, encoding):
    out = io.StringIO(newline="")
    bare = any("\r" in cell for row in rows for cell in row)  # which csv quotes only where it ends the lines, too
    quoting = csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    where = []
    for row in [("text", "label"), *rows]:
        where.append(line_starts(out.getvalue()) + 1)
        writer.writerow(row)
    (folder / "a.csv").write_bytes(out.getvalue().encode(encoding))
    read = read_labelled(folder / "a.csv")
    assert [(e.text, e.label) for e in read] == [(text, label.strip()) for text, label in rows]
    assert [e.where for e in read] == [f"{(folder / 'a.csv').as_posix()}, line {n}" for n in where[1:]]
    (folder / "a.csv.gz").write_bytes(gzip.compress(out.getvalue().encode(encoding)))
    assert [e.text for e in read_labelled(folder / "a.csv.gz")] == [text for text, _ in rows]


@given(ROWS, st.sampled_from([None, 1]), st.booleans())
def test_what_json_wrote_is_read(folder, rows, indent, ascii_only):
    records = [{"source": a, "target": b} for a, b in rows]
    (folder / "a.json").write_text(json.dumps(records, indent=indent, ensure_ascii=ascii_only), "utf-8")
    (folder / "a.jsonl").write_text("".join(json.dumps(r, ensure_ascii=ascii_only) + "\n" for r in records), "utf-8")
    for name, place in (("a.json", (lambda i: 2 + 4 * i) if indent else (lambda i: 1)), ("a.jsonl", lambda i: i + 1)):
        read = read_pairs(folder / name)
        assert [(e.source, e.target) for e in read] == rows
        assert [e.where for e in read] == [f"{(folder / name).as_posix()}, line {place(i)}" for i in range(len(rows))]


PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"'), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=1, max_size=8))
def test_a_tsv_is_read_as_it_stands(folder, rows):
    text = "source\ttarget\n" + "".join(f"{a}\t{b}\n" for a, b in rows)
    (folder / "a.tsv").write_text(text, "utf-8")
    assert [(e.source, e.target) for e in read_pairs(folder / "a.tsv")] == rows


def test_quotes_in_a_tsv(write):
    name = write("a.tsv", 'Hello\t你好\n"Go," he said\t走\n"all of it"\t"全"\n"say ""hi"""\t"open\n')
    read = read_pairs(name)
    assert [(e.source, e.target) for e in read] == [
        ("Hello", "你好"), ('"Go," he said', "走"), ('"all of it"', '"全"'), ('say "hi"', '"open'),
    ]  # fmt: skip
    assert not read.header
    assert str(read) == "a.tsv: 4 examples (no header, so the first column is the source and the second the target)."


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "text", "label"),
    [
        ("text,label", "text", "label"),
        ("id,Review , STARS", "Review", "STARS"),
        ("title,content,category", "content", "category"),
        ("label,sentence,score", "sentence", "label"),
        (",文本,标签", "文本", "标签"),
    ],
)
def test_usual_names_are_found(write, header, text, label):
    n = header.count(",") + 1
    read = read_labelled(write("a.csv", f"{header}\n{','.join(f'v{i}' for i in range(n))}\n"))
    assert read.columns == {"text": text, "label": label}
    names = [name.strip() for name in header.split(",")]
    assert (read[0].text, read[0].label) == (f"v{names.index(text)}", f"v{names.index(label)}")
    assert str(read) == f"a.csv: 1 example (text from {text!r}, label from {label!r})."


def test_columns_are_named_and_told_apart(write):
    name = write("a.csv", "text,label,mood\nx,1,good\n")
    assert read_labelled(name, text="Label", label="MOOD") == [Labelled("1", "good", "a.csv, line 2")]
    assert read_labelled(name, label="text", text="mood")[0].label == "x"
    assert "which column is the label?" in error(read_labelled, name, text="label")
    assert "text and label are both the column 'mood'" in error(read_labelled, name, text="mood", label="mood")
    message = error(read_labelled, name, label="modo")
    assert message == (
        "a.csv: there is no column 'modo' for label. Did you mean 'mood'? The file's columns: 'text', 'label', 'mood'."
    )
    assert "Did you mean" not in error(read_labelled, name, label="qqqq")
    alike = write("b.csv", "Text,TEXT,label\nx,y,1\n")  # of names that differ in capitals only the first is meant
    assert read_labelled(alike, text="text")[0].text == "x"
    for n, end in ((20, "'c19'."), (21, "'c19', ...")):
        many = write("c.csv", ",".join(f"c{i}" for i in range(n)) + "\n" + "1," * (n - 1) + "1\n")
        assert f"{end}" in error(read_labelled, many, label="other")
    assert "name both the source's and the target's" in error(read_pairs, name, source="text")
    assert read_pairs(name, source="text", target="mood") == [Pair("x", "good", "a.csv, line 2")]
    assert "are both the column" in error(read_pairs, name, source="text", target="TEXT")


def test_a_file_without_usual_names_says_what_to_do(write):
    message = error(read_labelled, write("a.csv", "I loved it,positive\nNever again,negative\n"))
    assert "a.csv: which column is the text?" in message and "The file's columns: 'I loved it', 'positive'." in message
    assert "--text COLUMN" in message and "add the first line" in message
    message = error(read_pairs, write("a.csv", "a,b\n1,2\n"))
    assert "There is no usual pair of names (source/target" in message and "--source" in message
    message = error(read_pairs, write("a.tsv", "Go.\t走。\tby x\nHi.\t你好。\tby y\n"))
    assert "give a .tsv of two columns" in message


@pytest.mark.parametrize(
    ("record", "source", "target"),
    [
        ({"input": "a", "output": "b"}, "a", "b"),
        ({"instruction": "do", "input": "a", "output": "b"}, "do\n\na", "b"),
        ({"instruction": "do", "input": "", "output": "b"}, "do", "b"),
        ({"instruction": "do", "response": "b"}, "do", "b"),
        ({"prompt": "a", "completion": "b", "id": 3}, "a", "b"),
        ({"zh": "b", "en": "a"}, "a", "b"),
        ({"document": "a", "summary": "b"}, "a", "b"),
    ],
)
def test_usual_pairs_are_found(write, record, source, target):
    assert read_pairs(write("a.jsonl", lines(record))) == [Pair(source, target, "a.jsonl, line 1")]


def test_the_column_that_most_records_have_is_taken(write):
    records = [{"title": "t", "label": "1"}] * 5 + [{"text": "x", "label": "2"}]
    read = read_labelled(write("a.jsonl", lines(*records)), skip_bad=True)
    assert read.columns["text"] == "title" and len(read) == 5 and read.skipped.counts == {"missing field": 1}


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "label"),
    [
        ("classification", " good ", "good"),
        ("classification", 3, "3"),
        ("classification", True, "true"),
        ("classification", 0.5, "0.5"),
        ("regression", "-1.5e3", -1500.0),
        ("regression", 2, 2.0),
        ("multi-label", ["a", 2, "a"], ("a", "2")),
        ("multi-label", "b, a,,b", ("b", "a")),
        ("multi-label", "", ()),
        ("multi-label", [], ()),
        ("multi-label", 7, ("7",)),
    ],
)
def test_labels(write, kind, value, label):
    read = read_labelled(write("a.jsonl", lines({"text": "x", "label": value})), kind=kind)[0].label
    assert read == label and type(read) is type(label)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("classification", None, "'label' is empty: write the label"),
        ("classification", "  ", "'label' is empty: write the label"),
        ("classification", ["a"], "several labels are kind 'multi-label'"),
        ("classification", {"a": 1}, "which is no name of a class"),
        ("classification", float("nan"), "which is no name of a class"),
        ("regression", "good", "'label' is 'good', but regression needs a number: names need 'classification'"),
        ("regression", "1,5", "a point, not a comma"),
        ("regression", "1_0", "regression needs a number"),
        ("regression", True, "regression needs a number"),
        ("regression", "nan", "regression needs a finite number"),
        ("regression", "", "'label' is empty: write the number"),
        ("regression", 10**400, "regression needs a number"),
        ("multi-label", None, "there is no 'label': write '' (or [])"),
        ("multi-label", {"a": 1}, "it must be a list of names"),
        ("multi-label", ["a", None], "'label' is empty"),
    ],
)
def test_wrong_labels(write, kind, value, message):
    name = write("a.jsonl", lines({"text": "x", "label": "1"}, {"text": "x", "label": value}))
    if kind == "regression" and value == 10**400:
        name = write("a.jsonl", lines({"text": "x", "label": "1"}, '{"text": "x", "label": 1' + "0" * 400 + "}"))
    text = error(read_labelled, name, kind=kind)
    assert text.startswith("a.jsonl, line 2: ") and message in text and text.endswith("(--skip-bad).")


def test_separator_and_kind(write):
    name = write("a.csv", "text,label\nx,a|b\n")
    assert read_labelled(name, kind="multi-label", separator="|")[0].label == ("a", "b")
    assert "separator must be" in error(read_labelled, name, separator="")
    assert "kind must be one of classification, regression, multi-label, not 'x'" in error(
        read_labelled, name, kind="x"
    )


def test_label_names_are_sorted_by_number_or_name():
    def names(*labels):
        return label_names([Labelled("x", label) for label in labels])

    assert names("10", "2", "-1", "2") == ["-1", "2", "10"]
    assert names("b", "a", "10", "2") == ["10", "2", "a", "b"]
    assert names(("b", "a"), (), ("c",)) == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"the label 1\.5 is a number"):
        names(1.5)


def test_labels_that_training_lacks_are_named():
    train = [Labelled("x", label) for label in ("good", "good", "bad", "bad", "rare")]
    assert check_labels(train, {"val": train}) == ["The class 'rare' has 1 of the training examples, fewer than 2."]
    assert check_labels(train, {}, fewest=1) == check_labels(train[:4], {}) == []
    others = {
        "val": [train[0]],
        "test": [Labelled("x", "Good", "t.csv, line 4"), Labelled("y", "Good", "t.csv, line 9")],
    }
    with pytest.raises(
        ValueError, match=r"test has labels that no training example has: 'Good' \(first in t.csv, line 4\)"
    ):
        check_labels(train, others)
    unknown = [Labelled("x", str(i), f"v.csv, line {i}") for i in range(7)]
    for n, end in (
        (5, r"line 4\)\. Nobody"),
        (6, r"line 4\) and 1 more\. Nobody"),
        (7, r"line 4\) and 2 more\. Nobody"),
    ):
        with pytest.raises(ValueError, match=end):
            check_labels(train, {"val": unknown[:n]})
    with pytest.raises(ValueError, match="only the class 'good'"):
        check_labels(train[:2], {})
    with pytest.raises(ValueError, match="no class"):
        check_labels([Labelled("x", ())], {})
    assert check_labels([Labelled("x", ("a",)), Labelled("y", ())], {}, fewest=1) == []


# --- chats and preferences --------------------------------------------------------------------------------------------


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


USER, ANSWER, SYSTEM = ("user", "a"), ("assistant", "b"), ("system", "s")


def test_both_spellings_of_chats(write):
    share = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    name = write("a.jsonl", lines({"messages": chat(SYSTEM, USER, ANSWER, USER, ANSWER), "id": 1}))
    assert read_chats(name) == [Chat(tuple(chat(SYSTEM, USER, ANSWER, USER, ANSWER)), "a.jsonl, line 1")]
    read = read_chats(write("b.json", json.dumps([{"conversations": share}])))
    assert read == [Chat(tuple(chat(USER, ANSWER)), "b.json, line 1")] and read.columns == {"messages": "conversations"}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (chat(ANSWER), "begins with the assistant"),
        (chat(ANSWER, USER, ANSWER), "begins with the assistant: user and assistant must speak in turn"),
        (chat(SYSTEM, ANSWER), "begins with the assistant"),
        (chat(USER, USER, ANSWER), "has two messages of the user in a row"),
        (chat(USER, ANSWER, ANSWER), "has two messages of the assistant in a row"),
        (chat(USER, ANSWER, SYSTEM), "has a system message as number 3"),
        (chat(SYSTEM, SYSTEM, USER), "has a system message as number 2"),
        (chat(USER, ANSWER, USER), "ends without an answer"),
        (chat(SYSTEM), "ends without an answer"),
        (
            chat(("bot", "a")),
            "message 1 of 'messages' has the role 'bot': it must be system, user, assistant, human, gpt",
        ),
        (chat((None, "a")), "has the role None"),
        (chat((["user"], "a")), "has the role ['user']"),
        (chat(USER, ("assistant", " ")), "content in message 2 of 'messages' is empty"),
        (chat(USER, ("assistant", None)), "there is no content in message 2"),
        (chat(USER, ("assistant", 3)), "is 3, which is no text"),
        (chat(USER, ("assistant", "\ud800")), "half of a surrogate pair at character 0"),
        ([], "'messages' is []: it must be a list of objects"),
        (["a"], "it must be a list of objects"),
        ("a", "it must be a list of objects"),
        (None, "there is no 'messages'"),
    ],
)
def test_wrong_chats(write, messages, message):
    name = write("a.jsonl", lines({"messages": chat(USER, ANSWER)}, "", {"messages": messages}))
    text = error(read_chats, name)
    assert text.startswith("a.jsonl, line 3: ") and message in text
    assert len(read_chats(name, skip_bad=True)) == 1


def test_chats_are_not_in_tables(write):
    assert "a chat doesn't fit into a table" in error(read_chats, write("a.csv", "messages\nx\n"))


def test_preferences_in_every_form(write):
    said = chat(("user", "hm"), ("assistant", "so?"), USER)
    name = write(
        "a.jsonl",
        lines(
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            {"prompt": chat(USER), "chosen": chat(ANSWER), "rejected": chat(("assistant", "c"))},
            {"chosen": chat(USER, ANSWER), "rejected": chat(USER, ("assistant", "c"))},
            {"prompt": "a", "chosen": chat(USER, ANSWER), "rejected": chat(USER, ("assistant", "c"))},
            {"prompt": said, "chosen": "b", "rejected": "c"},
        ),
    )
    read = read_preferences(name)
    assert read[:4] == [Preference("a", "b", "c", f"a.jsonl, line {i}") for i in (1, 2, 3, 4)]
    assert read[4:] == [Preference(tuple(said), "b", "c", "a.jsonl, line 5")]
    assert read_preferences(write("a.csv", "prompt,chosen,rejected\na,b,c\n"))[0].chosen == "b"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same answer"),
        ({"prompt": "a", "chosen": "b"}, "there is no 'rejected'"),
        ({"chosen": "b", "rejected": "c"}, "there is no prompt"),
        (
            {"prompt": "x", "chosen": chat(USER, ANSWER), "rejected": chat(USER, ANSWER)},
            "other messages than the prompt",
        ),
        ({"chosen": chat(USER, ANSWER), "rejected": chat(("user", "x"), ANSWER)}, "don't answer the same messages"),
        ({"prompt": chat(USER, ANSWER), "chosen": "b", "rejected": "c"}, "'prompt' ends with the assistant"),
        ({"prompt": "a", "chosen": chat(USER), "rejected": "c"}, "'chosen' ends with the user"),
    ],
)
def test_wrong_preferences(write, record, message):
    name = write("a.jsonl", lines({"prompt": "a", "chosen": "b", "rejected": "c"}, record))
    text = error(read_preferences, name)
    assert text.startswith("a.jsonl, line 2: ") and message in text


def test_a_column_without_a_name_is_no_prompt(write):
    name = write("a.jsonl", lines({"": "a", "chosen": "b", "rejected": "c"}))
    assert "there is no prompt: add the key 'prompt'" in error(read_preferences, name)
    assert "there is no prompt" in error(read_preferences, write("a.csv", ",chosen,rejected\na,b,c\n"))
    records = (
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": "a", "Prompt": "z", "chosen": "b", "rejected": "c"},
    )
    assert [e.prompt for e in read_preferences(write("a.jsonl", lines(*records)))] == ["a", "a"]


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_prompts_in_every_form(write):
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}, {"from": "human", "value": "7 + 1?"}]
    name = write("a.jsonl", lines({"prompt": "2 + 3?", "right": 5, "list": [1, None]}, {"prompt": talk, "right": 8}))
    first, second = read_prompts(name)
    one = {"role": "user", "content": "2 + 3?"}
    fields = {"prompt": "2 + 3?", "right": 5, "list": [1, None]}
    assert first == Prompt((one,), {**fields, "messages": [one]}, "a.jsonl, line 1")
    assert [m["role"] for m in second.messages] == ["user", "assistant", "user"]
    assert second.record == {"prompt": talk, "right": 8, "messages": list(second.messages)}
    assert read_prompts(write("b.csv", "question,right\n2 + 3?,5\n"))[0].record["right"] == "5"
    assert read_prompts(write("c.jsonl", lines({"messages": [one]})))[0].messages == (one,)
    assert read_prompts(write("d.csv", "prompt,asked\nx,y\n"), prompt="asked")[0].messages[0]["content"] == "y"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": ""}, "'prompt' is empty: write a text, or remove the record"),
        ({"prompt": 3}, "'prompt' is 3, which is no text: put it in quotes"),
        ({"right": 3}, "there is no 'prompt': add it, or remove the record"),
        ({"prompt": []}, "'prompt' is []: it must be a list of objects with role and content"),
        ({"prompt": chat(USER, ANSWER)}, "'prompt' ends with the assistant: it must end with the user"),
        ({"prompt": chat(USER, USER)}, "has two messages of the user in a row"),
    ],
)
def test_wrong_prompts(write, record, message):
    name = write("a.jsonl", lines({"prompt": "fine"}, record))
    text = error(read_prompts, name)
    assert text.startswith("a.jsonl, line 2: ") and message in text
    read = read_prompts(name, skip_bad=True)
    assert len(read) == 1 and read.skipped.counts.total() == 1


# --- bad files --------------------------------------------------------------------------------------------------------

BAD = 'text,label\ngood,1\n"two\nlines",2\n,1\nalone\n"open,1\na,b,c\nnone,\nlast,2\n'


def test_the_first_fault_is_raised_and_the_others_counted(write):
    text = error(read_labelled, write("a.csv", BAD))
    assert text == (
        "a.csv, line 5: 'text' is empty: write a text, or remove the record. 4 more are bad; in all: 2 wrong number of "
        "fields (lines 6, 8), 1 empty text (line 5), 1 unbalanced quotes (line 7), 1 missing label (line 9). Mend the "
        "file, or leave such records out with skip_bad (--skip-bad)."
    )


def test_skipped_records_are_counted_with_their_lines(write):
    read = read_labelled(write("a.csv", BAD), skip_bad=True)
    assert [(e.text, e.where) for e in read] == [
        ("good", "a.csv, line 2"), ("two\nlines", "a.csv, line 3"), ("last", "a.csv, line 10"),
    ]  # fmt: skip
    assert read.skipped.counts == {
        "empty text": 1, "wrong number of fields": 2, "unbalanced quotes": 1, "missing label": 1,
    }  # fmt: skip
    assert read.skipped.lines["wrong number of fields"] == [6, 8]
    assert str(read).endswith("; 5 skipped: " + str(read.skipped) + ".")
    many = read_labelled(write("b.csv", "text,label\n" + ",1\n" * 9 + "x,1\n"), skip_bad=True)
    assert str(many.skipped) == "9 empty text (lines 2, 3, 4, 5, 6, ...)"
    assert str(read_labelled(write("c.csv", "text,label\nx,1\n")).skipped) == "nothing"


def test_fields_are_counted(write):
    text = error(read_labelled, write("a.csv", "text,label\nyes, but no,1\n"))
    assert (
        "line 2: 3 fields where there are 2 columns (text, label): put a text that holds the separator in quotes"
        in text
    )
    assert "line 2: 1 field where there are 2 columns" in error(read_labelled, write("a.csv", "text,label\nyes\n"))


def test_quotes_that_do_not_match(write):
    text = error(read_labelled, write("a.csv", 'text,label\nx,1\n"say "hi"",1\n'))
    assert text.startswith("a.csv, line 3: its quotes don't match") and "double those inside" in text
    endless = 'text,label\nx,1\n"open,1\n' + "y,2\n" * 60_000
    read = read_labelled(write("a.csv", endless), skip_bad=True)
    assert len(read) == 60_001 and read.skipped.lines == {"unbalanced quotes": [3]}
    assert "a field of over 131,072 characters: close its quote" in error(read_labelled, "a.csv")


def test_broken_json_at_line_7(write):
    good = [{"text": "x", "label": i} for i in range(9)]
    text = error(read_labelled, write("a.jsonl", lines(*good[:6], '{"text": "x", "label"', *good)))
    assert text.startswith("a.jsonl, line 7: not JSON (Expecting ':' delimiter at column 22)")
    for wrong, kind in (("[1]", "no object"), ('"x"', "no object"), ("{" * 3000, "broken JSON")):
        name = write("a.jsonl", lines(*good[:6], wrong, *good))
        assert error(read_labelled, name).startswith("a.jsonl, line 7: ")
        read = read_labelled(name, skip_bad=True)
        assert len(read) == 15 and read.skipped.counts == {kind: 1}
    assert len(read_labelled(write("a.jsonl", lines(*good, "9" * 5000)), skip_bad=True)) == 9


def test_a_broken_json_list(write):
    text = '[{"text": "a", "label": 1},\n {"text": "b", "label": 2}\n {"text": "c", "label": 3}]'
    assert error(read_labelled, write("a.json", text)).startswith("a.json, line 3: not JSON")
    assert len(read_labelled("a.json", skip_bad=True)) == 2
    assert error(read_labelled, write("a.json", text.replace("}\n", "},\n").replace('"c"', "c"))).startswith(
        "a.json, line 3"
    )
    assert error(read_labelled, write("a.json", text.replace("}\n", "},\n")[:-1])).startswith("a.json, line 3")
    assert len(read_labelled(write("a.json", text.replace("[", "").replace("},", "}").replace("]", "")))) == 3  # JSONL
    assert len(read_labelled(write("a.json", '\n{"text": "b",\n "label": 2}'))) == 1
    assert read_labelled(write("a.json", '\n[{"text": "b", "label": 2}]'))[0].where == "a.json, line 2"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv holds no example"),
        ("a.csv", "text,label\n", "a.csv holds no example"),
        ("a.csv", "text,label\n,\n", "line 2: 'text' is empty"),
        ("a.jsonl", "\n \n", "a.jsonl holds no example"),
        ("a.json", "[]", "a.json holds no example"),
        ("a.json", " ", "cannot read 'a.json'|a.json holds no example"),
        ("a.jsonl", "{\n", "a.jsonl, line 1: not JSON"),
        ("a.csv", "text,text\nx,1\n", "line 1 names the column 'text' twice"),
        ("a.csv", '"text,label\nx,1\n', "line 1, which names the columns: its quotes don't match"),
        ("a.csv", b"text,label\nx,1\ncaf\xe9,1\n", "cannot read 'a.csv': not utf-8 text: line 3, byte 0xe9"),
        ("a.csv", b"\0\1\2", "it is binary"),
        ("a.csv.gz", b"text,label", "cannot read 'a.csv.gz'"),
        ("a.txt", "text,label\n", "must be one of .csv .tsv .jsonl .ndjson .json"),
    ],
)
def test_bad_files(write, name, content, message):
    text = error(read_labelled, write(name, content))
    assert any(part in text for part in message.split("|")) and name in text and text.endswith(".")


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_labelled(tmp_path / "none.csv")
    assert "is a folder: name the file" in error(read_labelled, tmp_path)


def test_all_records_bad_is_an_error_in_spite_of_skipping(write):
    text = error(read_labelled, write("a.csv", "text,label\n,1\n,2\n"), skip_bad=True)
    assert text.startswith("a.csv holds no example: all 2 records are bad. The first: a.csv, line 2: 'text' is empty")


def test_a_named_encoding(write):
    name = write("a.csv", "text,label\ncafé,1\n", "latin-1")
    assert read_labelled(name, encoding="latin-1")[0].text == "café"


def test_a_table_keeps_every_column(write):
    table = read_table(write("a.csv", "id,text\n7,x\n"))
    assert table.records == [(2, {"id": "7", "text": "x"})] and list(table.columns) == ["id", "text"]


@settings(max_examples=40)
@given(st.lists(st.text('",\n;x\t', max_size=8), max_size=12), st.sampled_from([".csv", ".tsv"]))
def test_no_line_is_lost_in_silence(folder, rows, ending):
    """Whatever the quotes: every line that is not blank is in an example or named."""
    file = folder / f"b{ending}"
    file.write_text("text,label\n".replace(",", "," if ending == ".csv" else "\t") + "\n".join(rows), "utf-8")
    table = read_table(file)
    content = file.read_text("utf-8").split("\n")[1:]
    found = [line for line, _ in table.records]
    assert found == sorted(set(found))
    for number, line in enumerate(content, 2):
        if line.strip('" \t') and number not in found:  # inside a quoted field of a record that begins above
            begin = max((n for n in found if n < number), default=None)
            record = dict(table.records)[begin]
            assert isinstance(record, Exception) or any("\n" in str(value) for value in record.values())
