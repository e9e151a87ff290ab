"""Build the notebooks: run each chapter's source (a .py file with cells) and write it, with its outputs, as .ipynb.

    python chapters/build.py                       all chapters, at cpu scale
    python chapters/build.py 02_autograd           one
    python chapters/build.py 02_autograd --scale smoke --check    run it, with answers to its exercises; write nothing
    python chapters/build.py --html pages          also write HTML pages into the folder `pages`

A run that leaves a warning, an error, an absolute path or a memory address in an output fails and writes nothing; the
notebook that is there stays as it is. A run that takes longer than a reader should wait says so.
Needs jupytext, nbclient and ipykernel (and nbconvert and latex2mathml for --html): `pip install -e ".[dev]"`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from minillm.disk import write_text

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))
import pages  # noqa: E402

ANSWERS = FOLDER.parent / "tests" / "chapters" / "answers"
MOST_CELLS = 60
MOST_SECONDS = {"smoke": 30, "cpu": 180}  # on two cores that nothing else uses

# The solution of an exercise stands in a folded part of the markdown cell below it.
SOLUTION = re.compile(r"<details>.*?```python\n(.*?)```.*?</details>", re.DOTALL)
CHECK = re.compile(r"^with check\(\):", re.MULTILINE)

# What a committed output must not hold. Paths of a machine and addresses in its memory differ on the next one.
UNWANTED = {
    "an absolute path": re.compile(
        r"(?<![\w.:/])/(?:home|root|work|usr|opt|tmp|mnt|Users|private|var)/|\b[A-Z]:\\"
    ),
    "a memory address": re.compile(r"\b0x[0-9a-f]{8,}\b"),
    "a warning": re.compile(r"\w*Warning: "),
}


def sources() -> list[Path]:
    """The chapters' sources, in the order of their numbers."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def read_source(path: Path) -> Any:
    """A chapter's source as a notebook without outputs, with cell ids and metadata that never change."""
    import jupytext

    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:02d}"
        cell["metadata"] = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
    return notebook


# A kept answer: "# %% exercise 2, wrong: greedy longest match", then "# says: part of the message", then code.
ANSWER = re.compile(
    r"^# %% exercise (?P<number>\d+), (?P<verdict>right|wrong): (?P<what>.+)\n"
    r"(?:# says: (?P<says>.+)\n)?(?P<code>(?:(?!# %%).*\n)*)",
    re.MULTILINE,
)


def read_answers(path: Path) -> list[dict[str, str]]:
    """The answers that readers may give to a chapter's exercises, from tests/chapters/answers; none if none are kept.

    Each has number, verdict ("right" or "wrong"), what, says and code. Raises ValueError for a cell that is none.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8").rstrip("\n") + "\n"
    answers = [match.groupdict(default="") for match in ANSWER.finditer(text)]
    cells = re.findall(r"^# %%.*", text, re.MULTILINE)
    if len(answers) != len(cells):
        shape = "# %% exercise 2, wrong: what it does"
        raise ValueError(f"{path.name}: {len(cells)} cells, {len(answers)} of them answers: begin each with {shape!r}.")
    return answers


def with_solutions(notebook: Any, answers: list[dict[str, str]]) -> Any:
    """The notebook with cells after each exercise in which others stand in for the reader's answer: those of `answers`,
    and at last the folded solution.

    An exercise is a code cell tagged "exercise" with the answer first and `with check():` after it; the next cell is
    markdown with the solution in <details>. Raises ValueError where that is not so.
    """
    import nbformat

    cells = []
    number = 0
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None]):
        cells.append(cell)
        if "exercise" not in cell.metadata.get("tags", []):
            continue
        number += 1
        solution = SOLUTION.search(following.source if following is not None else "")
        start = CHECK.search(cell.source)
        if solution is None or start is None:
            raise ValueError(
                f"{cell['id']}: an exercise needs `with check():` and, below, a solution in <details>."
            )
        given = [answer for answer in answers if answer["number"] == str(number)]
        given.append({"verdict": "right", "what": "the solution", "says": "", "code": solution[1]})
        for i, answer in enumerate(given):
            metadata = {"tags": ["answer"], "answer": {**answer, "exercise": number}}
            source = answer["code"] + "\n\n" + cell.source[start.start() :]
            tried = nbformat.v4.new_code_cell(source, metadata=metadata)
            tried["id"] = f"{cell['id']}-answer-{i}"
            cells.append(tried)
    notebook.cells = cells
    return notebook


def execute(notebook: Any, scale: str, timeout: float, title: str = "") -> Any:
    """Run all cells in a fresh kernel, in the chapters' folder; an error stops it. `timeout` seconds for each cell.

    Raises KeyboardInterrupt after Ctrl-C, which stops the cell that runs.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from tqdm import tqdm

    interruptions: list[Any] = []

    def interrupt_cell() -> None:
        interruptions.append(asyncio.ensure_future(client.km.interrupt_kernel()))

    def on_start(notebook: Any) -> None:  # nbclient's own handler would close the connection that it still waits on
        if os.name != "nt":
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt_cell)

    os.environ["MINILLM_SCALE"] = scale
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    os.environ["TQDM_DISABLE"] = "1"  # in the kernel: bars are no results
    with tqdm(total=len(notebook.cells), desc=title, unit="cell", leave=False, disable=None) as bar:
        options = {
            "timeout": timeout,
            "resources": {"metadata": {"path": str(FOLDER)}},
            "record_timing": False,
            "on_notebook_start": on_start,
            "on_cell_executed": lambda cell, cell_index, execute_reply: bar.update(cell_index + 1 - bar.n),
        }
        client = NotebookClient(notebook, kernel_name="python3", **options)
        try:
            return client.execute()
        except CellExecutionError:
            if interruptions:
                raise KeyboardInterrupt from None
            raise


def clean(notebook: Any) -> Any:
    """Outputs as small and as stable as they can be: text printed piece by piece joined, empty metadata."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
    }
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        outputs: list[Any] = []
        for output in cell.outputs:
            if (
                outputs
                and output.output_type == "stream" == outputs[-1].output_type
                and output.name == outputs[-1].name
            ):
                outputs[-1].text += output.text
            else:
                outputs.append(output)
            if "metadata" in output:
                output["metadata"] = {}
            output.pop("transient", None)
        cell.outputs = outputs
    return notebook


def problems(notebook: Any) -> list[str]:
    """What stands in the way of committing this notebook, a line for each; empty if nothing does."""
    found = []
    if len(notebook.cells) > MOST_CELLS:
        found.append(f"{len(notebook.cells)} cells: at most {MOST_CELLS}, or nobody finishes it")
    count = 0
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        count += 1
        if cell.execution_count != count:
            found.append(
                f"cell {i}: not run in order (its number is {cell.execution_count}, expected {count})"
            )
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {i}: raised {output.ename}: {output.evalue}")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"cell {i}: wrote to stderr: {output.text.strip()[:200]}")
            for text in texts(output):
                found += [
                    f"cell {i}: {what} in its output: {hit[0]!r}"
                    for what, p in UNWANTED.items()
                    if (hit := p.search(text))
                ]
    return found


def texts(output: Any) -> list[str]:
    """The parts of an output that are text."""
    if output.output_type == "stream":
        return [output.text]
    return [
        value for key, value in output.get("data", {}).items() if not key.startswith("image/png")
    ]


def verdicts(notebook: Any) -> list[str]:
    """What is wrong with the exercises of an executed notebook `with_solutions`, a line for each."""
    found = []
    for cell in notebook.cells:
        printed = "".join(
            output.text for output in cell.get("outputs", []) if output.output_type == "stream"
        )
        tags = cell.metadata.get("tags", [])
        if "exercise" in tags:
            if "✗ Not yet." not in printed:
                found.append(f"{cell['id']}: the unsolved exercise passes its check")
            elif "raised" in printed or len(printed) < 40:
                found.append(
                    f"{cell['id']}: the unsolved exercise gets no helpful message: {printed!r}"
                )
        if "answer" in tags:
            answer = cell.metadata["answer"]
            name = f"exercise {answer['exercise']}, {answer['verdict']}: {answer['what']}"
            if answer["verdict"] == "right" and "✓ Correct." not in printed:
                found.append(f"{name}: does not pass: {printed!r}")
            if answer["verdict"] == "wrong" and "✗ Not yet." not in printed:
                found.append(f"{name}: passes: {printed!r}")
            if answer["verdict"] == "wrong" and not (answer["says"] and answer["says"] in printed):
                found.append(f"{name}: is not told {answer['says']!r}, but {printed!r}")
    return found


def build(source: Path, scale: str, check: bool, html: Path | None) -> list[str]:
    """Run one chapter and, unless `check`, write its notebook; returns what is wrong."""
    import nbformat
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = read_source(source)
    too_long = len(notebook.cells) > MOST_CELLS
    if check:
        notebook = with_solutions(notebook, read_answers(ANSWERS / source.name))
    try:
        notebook = clean(execute(notebook, scale, timeout=600, title=source.stem))
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return [re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()]
    found = problems(notebook) + (verdicts(notebook) if check else [])
    if check and not too_long:
        found = [
            line for line in found if "at most" not in line
        ]  # the solutions' cells do not count
    if found:
        return found
    if html is not None:
        pages.write_html(notebook, html / source.with_suffix(".html").name)
    if not check:
        nbformat.validate(notebook)
        write_text(source.with_suffix(".ipynb"), nbformat.writes(notebook) + "\n")
    return []


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="*", help="names such as 02_autograd; all by default")
    parser.add_argument("--scale", default="cpu", choices=("smoke", "cpu", "gpu"))
    parser.add_argument(
        "--check", action="store_true", help="run, with answers to the exercises; write no notebook"
    )
    parser.add_argument("--html", type=Path, help="also write an HTML page into this folder")
    options = parser.parse_args(arguments)
    known = {path.stem: path for path in sources()}
    unknown = [name for name in options.chapters if Path(name).stem not in known]
    if unknown:
        parser.error(f"no chapter is called {unknown[0]!r}; there are: {', '.join(known)}")
    failed = False
    for name in options.chapters or known:
        source = known[Path(name).stem]
        started = time.perf_counter()
        try:
            found = build(source, options.scale, options.check, options.html)
        except KeyboardInterrupt:
            print(f"{source.stem}: interrupted; its notebook is as it was", file=sys.stderr)
            return 130
        seconds, most = time.perf_counter() - started, MOST_SECONDS.get(options.scale, float("inf"))
        slow = f": more than the {most} s that a reader should wait" if seconds > most else ""
        print(f"{source.stem}: {seconds:.0f} s at scale {options.scale}{slow}", flush=True)
        for line in found:
            print(f"  {line}", flush=True)
        failed = failed or bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
