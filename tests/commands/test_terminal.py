"""What is typed and read in a terminal that knows ASCII only, in a folder with a space in its name."""

import csv
import json
import os
import shlex
import subprocess
import sys

import pytest

# Several commands in one process, as they were typed: the words of each end with a semicolon.
DRIVER = """
import sys
from minillm.commands import cli

words = sys.argv[1:]
while words:
    end = words.index(";")
    sys.argv, words = ["minillm", *words[:end]], words[end + 1 :]
    if (status := cli.main()) > 1:  # 1: what `check` says of a run that is not healthy
        sys.exit(status)
"""
C_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
STEPS = "--set train.max_steps=2 --set train.eval_every=2 --set train.batch_size=4 --set engine.threads=1"


def typed(folder, *lines, answers="", status=0):
    """What the commands of these lines print, one after the other, in `folder`; `answers`: on standard input. With a
    `status` what they say is wrong."""
    words = [word for line in lines for word in [*shlex.split(line), ";"]]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"} | C_LOCALE
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRIVER, *words], cwd=folder, env=environment, input=answers.encode(),
        capture_output=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == status, run.stderr.decode()
    assert run.stdout.isascii() and b"Traceback" not in run.stderr
    return (run.stderr if status else run.stdout).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One's own files, in more than ASCII."""
    folder = tmp_path_factory.mktemp("terminal") / "mini llm"
    (folder / "texts").mkdir(parents=True)
    for i in range(30):
        said = f"Le café n° {i} est fermé, 但是{i * 7}号开门 – naïvement, {i % 4} fois.\n" * (3 + i % 5)
        (folder / "texts" / f"{i}.txt").write_text(said, encoding="utf-8")
    with open(folder / "reviews.csv", "w", encoding="utf-8", newline="") as file:
        rows = [[f"Das Café {i * 13} war {['schlecht, 不好', 'schön, 很好'][i % 2]}", "–✓"[i % 2]] for i in range(60)]
        csv.writer(file).writerows([["text", "Überschrift"], *rows])
    chats = [
        [{"role": "user", "content": f"Où est {i}?"}, {"role": "assistant", "content": f"在{i}."}] for i in range(12)
    ]
    lines = [json.dumps({"messages": chat}, ensure_ascii=False) + "\n" for chat in chats]
    (folder / "my.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def test_the_road_in_an_ascii_locale_and_a_folder_with_a_space(folder):
    out = typed(
        folder,
        "corpus 'a corpus' --from texts --val-fraction 0.2 --near-threshold 0",
        "tokenizer train 'a corpus' --vocab-size 300 --out tok.json",
        "tokenizer encode tok.json 'café 开'",
        "tokenizer show tok.json 'café 开'",
        "pretrain --config debug --corpus 'a corpus' --tokenizer tok.json --set train.max_steps=4 --set "
        "train.eval_every=2 --set train.save_every=2 --out 'a run'",
        "generate 'a run' --prompt 'café 开' --max-new-tokens 4 --seed 1",
        "evaluate 'a run' --max-tokens 64",
    )
    assert r"caf\xe9 \u5f00" in out and "surrogate" not in out
    (ids,) = (line for line in out.splitlines() if line.replace(" ", "").isdecimal())
    assert r"caf\xe9 \u5f00" in typed(folder, f"tokenizer decode tok.json {ids}")
    advice = [line.partition(": minillm ")[2].strip(")") for line in out.splitlines() if ": minillm " in line]
    assert advice and all("'a run'" in line for line in advice)
    typed(folder, *advice)


def test_a_task_in_an_ascii_locale(folder):
    out = typed(
        folder,
        f"finetune classify --data reviews.csv --label Überschrift --out 'a task' {STEPS}",
        "predict 'a task' --data reviews.csv --out answers.csv",
        "evaluate 'a task' --json scores.json",
    )
    assert r"\u2713" in out and "to use it: minillm predict 'a task'" in out
    with open(folder / "answers.csv", encoding="utf-8", newline="") as file:
        answers = list(csv.DictReader(file))
    assert len(answers) == 60 and {row["prediction"] for row in answers} <= {"–", "✓"}
    assert {row["Überschrift"] for row in answers} == {"–", "✓"}


def test_a_chat_in_an_ascii_locale(folder):
    given = "--data my.jsonl --system 'Réponds en 中文.' --set chat.max_new_tokens=4"
    typed(folder, f"finetune sft {given} --out 'an assistant' {STEPS}")
    assert 'system = "Réponds en 中文."' in (folder / "an assistant/assistant.toml").read_text(encoding="utf-8")
    asked = "Où est 3?\n" * 8  # an empty answer, which three tokens can be, takes its question with it
    typed(folder, "chat 'an assistant' --max-new-tokens 3 --seed 1", answers=f"{asked}/save talk.json\n")
    turns = json.loads((folder / "talk.json").read_text(encoding="utf-8"))["messages"]
    questions = [turn["content"] for turn in turns if turn["role"] == "user"]
    assert questions and set(questions) == {"Où est 3?"}


def test_a_name_that_the_locale_cannot_write_is_refused_with_the_way_out(folder):
    (folder / "été").mkdir()
    (folder / "été/reviews.csv").write_bytes((folder / "reviews.csv").read_bytes())
    line = f"finetune classify --data été/reviews.csv --label Überschrift --out named {STEPS}"
    assert "this locale knows nothing else: set LC_ALL=C.UTF-8" in typed(folder, line, status=2)
