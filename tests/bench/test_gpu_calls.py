"""The calls of gpu.sh keep what they found, whatever happens to a stage or to them, and are rehearsed on a CPU."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).parent
GPU = BENCH / "gpu"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the calls are for Linux, as Triton is")


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of the calls as gpu.sh makes it possible."""
    for folder in (BENCH, GPU):
        monkeypatch.syspath_prepend(folder)
    return importlib.import_module


def run(*command, **environment):
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)


# --- the stages, with made-up ones ------------------------------------------------------------------------------------

DRIVER = """
import json, sys
from pathlib import Path
import stages
from summary import summarize
out = Path(sys.argv[1])
made = json.loads(sys.argv[2])
made = [stages.Stage(name, [sys.executable, "-c", code, str(out)], limit) for name, code, limit in made]
print(stages.run_stages(made, out, float(sys.argv[3]), summarize))
"""
ROW = "import result_rows, sys, time; from pathlib import Path; out = Path(sys.argv[1])\n"
ROW += "row = lambda **what: result_rows.append(out / 'rows.jsonl', **what)\n"
REPEATS = "row(stage='repeats {0}', shape='D64', repeats=100, differing={{'out': 0}}, ok=True,"
REPEATS += " **{{'error of the first': 0.0}})\n"
SLEEPS = "import os, subprocess; p = subprocess.Popen(['sleep', '600'])\n"
SLEEPS += "(out / 'pids').write_text(f'{os.getpid()} {p.pid}')\n"


def start(out, made, seconds=1000.0):
    path = os.pathsep.join(map(str, (BENCH, GPU)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", DRIVER, str(out), json.dumps(made), str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def gone(out):
    """Whether the processes that a stage wrote down have ended, within some seconds."""
    pids = [int(pid) for pid in (out / "pids").read_text().split()]
    for _ in range(100):
        states = [Path(f"/proc/{pid}/stat") for pid in pids]
        if all(not s.exists() or s.read_text().rpartition(")")[2].split()[0] in "ZX" for s in states):
            return True
        time.sleep(0.1)
    return False


def test_a_stage_that_hangs_or_fails_costs_the_others_nothing(tmp_path, bench):
    made = [
        ("repeats hangs", ROW + REPEATS.format("hangs") + SLEEPS + "p.wait()", 3.0),
        ("repeats fails", ROW + REPEATS.format("fails") + "print('the reason'); sys.exit(3)", 100.0),
        ("repeats cannot", "import nothing_of_that_name", 100.0),
        ("repeats works", ROW + REPEATS.format("works") + "print('as it should')", 100.0),
    ]
    printed = start(tmp_path, made).communicate()[0]
    assert printed.splitlines()[-1] == "['repeats hangs', 'repeats fails', 'repeats cannot']", printed
    assert gone(tmp_path)  # what the stage had started, too
    found = bench("result_rows").read(tmp_path / "rows.jsonl")
    assert [row["stage"] for row in found if "shape" in row] == ["repeats hangs", "repeats fails", "repeats works"]
    ended = {row["stage"]: (row["ended"], row["note"]) for row in found if "ended" in row}
    assert ended["repeats hangs"][0] == "ENDED at its limit of 3 s" and ended["repeats fails"] == (
        "FAILED, exit status 3", "the reason"
    )  # fmt: skip
    assert "nothing_of_that_name" in ended["repeats cannot"][1] and ended["repeats works"] == ("done", "as it should")
    summary = (tmp_path / "summary.md").read_text()
    assert summary.count("- D64: 100 times, differing {'out': 0}") == 3 and "## repeats works: done" in summary
    assert "the reason" in (tmp_path / "log.txt").read_text()


def test_what_has_no_time_left_is_left_out(tmp_path, bench):
    made = [("repeats one", ROW + REPEATS.format("one"), 100.0), ("repeats two", "", 100.0)]
    printed = start(tmp_path, made, seconds=bench("stages").LEAST + 0.02).communicate()[0]
    assert printed.splitlines()[-1] == "['repeats two']"
    assert "## repeats two: left out: no time, 0 s" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_call_that_is_killed_leaves_all_that_was_measured(tmp_path, bench, sent):
    """The summary is whole at any instant, each row is on the disk, and no process goes on and keeps the card."""
    more = "for n in range(10**6): row(stage='repeats two', shape=str(n), repeats=1, differing={}, ok=True,"
    more += " **{'error of the first': 0.0}); time.sleep(0.01)"
    made = [("repeats one", ROW + REPEATS.format("one"), 100.0), ("repeats two", ROW + SLEEPS + more, 100.0)]
    process = start(tmp_path, made)
    summary = tmp_path / "summary.md"
    while not (summary.exists() and "- 20: 1 times" in summary.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(sent)
    process.communicate()
    found = bench("result_rows").read(tmp_path / "rows.jsonl")
    assert len(found) > 20 and found[0]["shape"] == "D64"
    text = summary.read_text()
    assert text.startswith("## repeats one: done") and "- 20: 1 times, differing {}" in text and text.endswith("\n")
    if sent == signal.SIGKILL:  # which leaves nobody to end what the stage started; the stage itself is gone
        stage, child = (tmp_path / "pids").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        (tmp_path / "pids").write_text(stage)
    assert gone(tmp_path)


# --- rows and tables --------------------------------------------------------------------------------------------------


def test_a_line_that_was_cut_short_is_passed_over(tmp_path, bench):
    rows = bench("result_rows")
    rows.append(tmp_path / "rows.jsonl", stage="a", x=1)
    rows.append(None, stage="nowhere")
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"stage": "b", "x"')
    assert rows.read(tmp_path / "rows.jsonl") == [{"stage": "a", "x": 1}] and rows.read(tmp_path / "none") == []


def attention_row(direction, size, length, flash):
    ms = {"fast": 1.0, "flash": flash}
    return {
        "stage": "attention", "direction": direction, "head_size": size, "causal": True, "length": length, "ms": ms,
        "tflops": {name: 300 / t for name, t in ms.items()}, "ratio": {"flash": flash}, "error": {"fast": 0.001},
        "refused": {"cudnn": "RuntimeError: no kernel"}, "matmul_share": 0.4,
    }  # fmt: skip


def test_the_tables_of_a_call_that_is_not_over(bench):
    summarize = bench("summary").summarize
    rows = [
        {"stage": "machine", "card": "A card", "torch": "2.11"}, {"stage": "machine", "matmul_tflops": 700.0},
        {"stage": "checks", "check": "D64", "ok": True, "of the error allowed": 0.5, "worst": "dq"},
        {"stage": "checks", "check": "D128", "ok": False, "error": "OutOfResources: shared memory"},
        {"stage": "checks", "ended": "FAILED, exit status 1", "seconds": 9.0, "note": "the end of the log"},
        attention_row("forward", 64, 1024, 1.2), attention_row("forward", 64, 4096, 1.4),
        {"tuned": "dq 16-bit head 64", "config": [64, 64, 4, 2], "ms of lengths": [1.0, 2.0]},
        {"tuned": "dq 16-bit head 64", "winner": [64, 64, 4, 3], "ms": 2.5, "ms before": 3.0, "passed over": ["x"]},
        {"tuned": "dkdv 16-bit head 64", "config": [64, 64, 4, 2], "ms of lengths": [1.0, 2.0]},
        {"stage": "step", "name": "pytorch", "first_losses": [10.0], "peak_memory_gb": 20.0, "prepared_seconds": 30.0},
        {"stage": "step", "name": "minillm triton", "first_losses": [10.0], "peak_memory_gb": 10.0},
        {"stage": "step", "name": "pytorch", "step": 0.1, "tokens_per_second": 100_000.0},
        {"stage": "step", "name": "minillm triton", "step": 0.08, "tokens_per_second": 125_000.0},
        {"stage": "profile", "kernel": "forward", "head_size": 64, "ms": 1.0, "tflops": 300.0},
        {"stage": "profile", "kernel": "forward", "head_size": 64,
         "counters": {"Duration": "1 ms", "stall": {"a": "2", "b": "1,000"}, "tensor": {"c": "5 %"}}},
        {"stage": "run", "step": 1, "loss": 10.5, "tokens": 64, "seconds": 30.0, "tokens_per_second": 50.0,
         "memory_gb": 9.0, "mfu": 0.4},
        {"stage": "run", "step": 1, "val_loss": 10.0, "val_bits_per_byte": 4.0, "seconds": 31.0},
    ]  # fmt: skip
    text = summarize(rows)
    for line in (
        "card A card, torch 2.11, matmul_tflops 700.0",
        "1 of 2 as exact as they must be; nearest to the limit: D64, 50% of it (dq)",
        "- FAILED D128: OutOfResources: shared memory",
        "## checks: FAILED, exit status 1, 9 s",
        "the end of the log",
        "| forward D64 against flash | 1.20 | 1.30 | 1.10 | 1.25 |",
        "cudnn did not run in 2 rows",
        "| dq 16-bit head 64 | [64, 64, 4, 3] | 2.500 | 3.000 | 1 |",
        "| dkdv 16-bit head 64 | not finished | - | - | 1 |",
        "| minillm triton | 125,000 | 1.250 | 10.00 | 1 |",
        "    - stalls: b 1,000; a 2",
        "1 steps, 64 tokens in 30 s, the first step 30 s; 50 tokens/s, MFU 40.0%, 9.0 GB at most",
        "- step 1, 31 s: val loss 10.0000, 4.0000 bits per byte",
    ):
        assert line in text, (line, text)
    for n in range(len(rows)):  # cut off anywhere it is a text, without a table that failed
        assert "could not be put" not in summarize(rows[:n])
    assert "could not be put into a table (KeyError: 'repeats')" in summarize([{"stage": "repeats", "shape": "D64"}])


def test_what_ncu_prints_is_read(bench):
    """The form of `ncu --csv`: a line for each kernel and metric, after lines of its own."""
    head = '"ID","Process ID","Process Name","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"'
    lines = [
        "==PROF== Connected to process 1",
        head,
        '"0","1","python","fast_forward_kernel","GPU Speed Of Light Throughput","Duration","us","1,234.5"',
        '"0","1","python","fast_forward_kernel","WarpStateStats","Stall Wait","inst","2.5"',
        '"0","1","python","fast_forward_kernel","SOL","",""',
        '"1","1","python","fast_dkdv_kernel","GPU Speed Of Light Throughput","Duration","ms","2"',
    ]
    read = bench("profile_kernels").read_csv
    assert read("\n".join(lines)) == [
        {"kernel": "fast_forward_kernel", "Duration": "1,234.5 us", "Stall Wait": "2.5 inst"},
        {"kernel": "fast_dkdv_kernel", "Duration": "2 ms"},
    ]
    assert read("==ERROR== the user may not read counters") == read("") == []


# --- the script -------------------------------------------------------------------------------------------------------


def test_the_script_explains_itself(tmp_path):
    for command in ([], ["first"], ["wheels"], ["frist", tmp_path]):
        usage = run("bash", BENCH / "gpu.sh", *command)
        assert usage.returncode == 2 and "tests/bench/gpu.sh second OUT" in usage.stdout
        assert "pipefail" not in usage.stdout
    pytest.importorskip("triton")
    unknown = run("bash", BENCH / "gpu.sh", "rehearse", tmp_path, "trainign")
    assert unknown.returncode == 2 and "rehearse has no stage 'trainign'; it has 'prepare', 'machine'" in unknown.stderr


def test_a_python_that_lacks_packages_is_told_which(tmp_path):
    """Its own have been taken away; those of made/gpu/site, if there are any, are of another version, or enough."""
    if (BENCH.parents[1] / "made/gpu/site").exists():
        pytest.skip("made/gpu/site is there, and stands in")
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    done = run("bash", BENCH / "gpu.sh", "first", tmp_path / "out", PYTHON=bare, PYTHONPATH="")
    assert done.returncode == 1 and "has no torch, triton, numpy, regex, safetensors, tqdm." in done.stderr
    assert "gpu.sh wheels 3." in done.stderr and not (tmp_path / "out").exists()


def test_first_refuses_where_there_is_no_card(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: it would run")
    done = run("bash", BENCH / "gpu.sh", "first", tmp_path / "out")
    assert done.returncode == 1 and "gpu.sh rehearse OUT` tries everything without one" in done.stderr


def test_every_stage_has_a_command_and_the_limits_of_a_call_are_enough_for_it(bench, tmp_path):
    calls = bench("calls")
    for call, names in calls.STAGES.items():
        made = calls.make_stages(call, names, tmp_path / call, tmp_path / f"work {call}")
        for stage in made:
            assert Path(stage.command[1]).is_file() or stage.command[1] == "-m", stage
            assert ("--smoke" in stage.command) == (call == "rehearse" and stage.name != "prepare"), stage
            assert stage.limit <= calls.SECONDS[call], stage
    assert calls.SECONDS["first"] + 25 <= 560 and calls.SECONDS["second"] + 20 <= 180
    first = calls.make_stages("first", calls.STAGES["first"], tmp_path / "out", tmp_path / "work")
    places = {stage.name: stage.environment for stage in first}
    assert places["attention"] != places["attention tuned"] == places["step"]


def test_the_candidates_are_few_and_the_tuners_own(bench):
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    from minillm.kernels.configs import key_of, shipped
    from minillm.kernels.offline import SHARED_LIMIT
    from minillm.kernels.preselect import candidates, read_candidates

    found = read_candidates(GPU / "candidates.json")
    assert set(found) == {key_of(kernel, 2, size) for kernel in ("forward", "dkdv", "dq") for size in (64, 128)}
    for kernel in ("forward", "dkdv", "dq"):
        for size in (64, 128):
            chosen = found[key_of(kernel, 2, size)]
            assert set(chosen) <= set(candidates(kernel, size, 2, 90, SHARED_LIMIT[90])) and len(chosen) <= 8
            assert shipped(90, kernel, 2, size) in chosen and len(set(chosen)) == len(chosen)


def test_some_stages_are_rehearsed(tmp_path):
    """One that takes seconds; all of them: `-m long`. With a stand-in for ncu that runs the kernels and may not read
    counters."""
    pytest.importorskip("triton")
    ncu = tmp_path / "bin" / "ncu"
    ncu.parent.mkdir()
    ncu.write_text('#!/bin/sh\nwhile [ "$1" != "--target" ]; do last=$1; shift; done\necho ==ERROR== no permission\n'
                   f'exec "{sys.executable}" "$last" --target --smoke\n')  # fmt: skip
    ncu.chmod(0o755)
    out = tmp_path / "out"
    out.mkdir()
    earlier = [{"stage": "machine", "card": "A card"}, {"stage": "profile", "kernel": "gone", "ms": 1.0}]
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in earlier))
    done = run("bash", BENCH / "gpu.sh", "rehearse", out, "profile", PATH=f"{ncu.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout[-3000:]
    summary = (out / "summary.md").read_text()
    assert summary in done.stdout and "a rehearsal: these times mean nothing" in done.stdout
    assert "card A card" in summary and "gone" not in summary  # of other stages what they left stays
    assert "- forward D64: " in summary and "- dkdv D128: " in summary
    assert "no counters: ncu, exit status 0, saw no kernel: ==ERROR== no permission" in summary
    assert {file.name for file in out.iterdir()} == {"log.txt", "rows.jsonl", "summary.md"}


@pytest.mark.long
def test_checks_are_shared_among_processes(tmp_path):
    pytest.importorskip("triton")
    path = os.pathsep.join(map(str, (BENCH, BENCH.parent / "shared")))
    names = ["norms", "cache, one query", "D32 float16"]
    command = [sys.executable, GPU / "checks.py", "--smoke", "--processes", "2", "--rows", tmp_path / "rows"]
    done = run(*command, "--only", *names, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert {row["check"] for row in rows} == set(names) and all(row["ok"] for row in rows)
    assert all(0 < row["of the error allowed"] <= 1 for row in rows)


def test_a_check_that_fails_is_counted_and_the_others_go_on(bench, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    checks = bench("checks")
    made = {"wrong": lambda *_: (2.0, "dq"), "raises": lambda *_: 1 / 0, "nan": lambda *_: (float("nan"), "out"),
            "right": lambda *_: (0.5, "dq")}  # fmt: skip
    monkeypatch.setattr(checks, "CHECKS", made)
    assert checks.main(["--processes", "1", "--rows", str(tmp_path / "rows"), "--only", *made]) == 1
    rows = {row["check"]: row for row in bench("result_rows").read(tmp_path / "rows")}
    assert [rows[name]["ok"] for name in made] == [False, False, False, True]
    assert rows["raises"]["error"] == "ZeroDivisionError: division by zero"


@pytest.mark.long
@pytest.mark.parametrize(("most", "status"), [("0.3", 0), ("0.02", 1)])
def test_tokens_take_no_more_room_than_they_may(tmp_path, most, status):
    sizes = ["--megabytes", "0.6", "--ids", "300", "--most", most]
    done = run(sys.executable, GPU / "prepare.py", "--out", tmp_path, *sizes)
    assert done.returncode == status, done.stderr[-1000:]
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert 0.5 * float(most) * 1e6 < size <= float(most) * 1e6 or "allow more by --most" in done.stderr


@pytest.mark.long
def test_all_stages_are_rehearsed(tmp_path):
    """As on a bare machine: a Python in which minillm is not installed, started in the repository, with its packages in
    a folder on PYTHONPATH, which is a relative one."""
    import sysconfig

    pytest.importorskip("triton")
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # -S: without what .pth files add
    bare.chmod(0o755)
    folders = {sysconfig.get_path("purelib"), str(Path(pytest.__file__).parents[1])}
    path = os.pathsep.join(os.path.relpath(folder, BENCH.parents[1]) for folder in folders)
    environment = {**os.environ, "PYTHON": str(bare), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = ["bash", str(BENCH / "gpu.sh"), "rehearse", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=BENCH.parents[1])
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert summary.count(": done, ") == 12 and "FAILED" not in summary and "could not be put" not in summary
    assert "25 of 25 as exact as they must be" in summary and summary.count("2 times, differing") == 8
    assert "| minillm triton |" in summary and "4 steps, 64 tokens" in summary
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(files) <= 8, files
