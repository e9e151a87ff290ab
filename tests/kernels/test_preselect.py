"""Choosing what is worth timing on a card, and timing no more than that."""

import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")


def rated(*numbers, teraflops, stack=0):
    from minillm.kernels.configs import Config
    from minillm.kernels.occupancy import Rated
    from minillm.kernels.offline import Compiled

    got = Compiled("", numbers[2], numbers[3], 100, stack, 0, 1, 0, "")
    return Rated(Config(*numbers), got, 2, None, teraflops)


def test_the_best_are_kept_two_of_a_tile_and_the_shipped_one_among_them():
    from minillm.kernels.configs import Config
    from minillm.kernels.preselect import select

    of = {
        name: rated(*numbers, **rest)
        for name, numbers, rest in (
            ("best", (64, 64, 4, 2), {"teraflops": 500}),
            ("deeper", (64, 64, 4, 3), {"teraflops": 500}),
            ("third of its tile", (64, 64, 4, 4), {"teraflops": 499}),
            ("spills", (128, 128, 4, 2), {"teraflops": 480, "stack": 400}),
            ("next", (128, 64, 4, 2), {"teraflops": 460}),
            ("after", (128, 32, 4, 2), {"teraflops": 450}),
            ("shipped", (16, 16, 4, 1), {"teraflops": None}),
        )
    }
    name_of = {id(r): name for name, r in of.items()}
    kept = [name_of[id(r)] for r in select(reversed(of.values()), 4, Config(16, 16, 4, 1))]
    assert kept == ["deeper", "best", "next", "shipped"]  # of equal ones the deeper first
    assert [name_of[id(r)] for r in select(of.values(), 2, Config(1, 1, 1, 1))] == ["deeper", "best"]
    assert select([], 8, Config(16, 16, 4, 1)) == []


@pytest.mark.parametrize(
    "text", ["[]", "{", "{}", '{"candidates": {"dq": [[1, 2, 3]]}}', '{"candidates": {"dq": [["a", 1, 1, 1]]}}']
)
def test_a_file_of_no_candidates_says_so(tmp_path, text):
    from minillm.kernels.preselect import read_candidates

    (tmp_path / "candidates.json").write_text(text)
    with pytest.raises(ValueError, match="holds no candidates"):
        read_candidates(tmp_path / "candidates.json")


SCRIPT = """
import math, sys, torch
from minillm.kernels import offline
from minillm.kernels.attention import BACKWARD
from minillm.kernels.call import Call
from minillm.kernels.configs import shipped
from minillm.kernels.preselect import HEADS, main
main(["--out", sys.argv[1], "--kernel", "dq", "--head-size", "64", "--of", "2", "--processes", "2"])
meta = lambda *shape: torch.empty(*shape, dtype=torch.bfloat16, device="meta").transpose(1, 2)
with offline.compiling_for(90) as compiled:
    for b, t, h, d in [(2, 4096, HEADS, 64), (16, 1024, HEADS, 64), (4, 4096, HEADS, 64), (1, 16384, 32, 64)]:
        q, lse = meta(b, t, h, d), torch.empty(b, h, t, device="meta")
        BACKWARD["dq"](q, q, q, q, lse, lse, Call(scale=1 / math.sqrt(d), right=0), shipped(90, "dq", 2, d))
print("kernels:", len(compiled))
"""


def test_the_command_writes_what_the_tuner_reads(tmp_path):
    """Two processes compile. What they leave in Triton's cache is what the tuner and causal attention launch: Triton
    compiles anew where a size is no multiple of 16, or a constant is another one."""
    from minillm.kernels.configs import shipped
    from minillm.kernels.preselect import read_candidates

    out = tmp_path / "candidates.json"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", SCRIPT, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    said = ("Rates are ESTIMATES", "dq 16-bit head 64: 2 of 2", "(shipped)")
    assert all(words in done.stdout for words in said), done.stdout
    assert shipped(90, "dq", 2, 64) in read_candidates(out)["dq 16-bit head 64"]
    assert "kernels: 1" in done.stdout


def test_the_tuner_times_the_candidates_of_a_file_and_no_others(tmp_path, device, capsys):
    from minillm.kernels.configs import Config, read_tuned
    from minillm.kernels.tune import main

    out = tmp_path / "candidates.json"
    out.write_text(json.dumps({"candidates": {"dq 16-bit head 64": [[16, 16, 4, 1], [32, 16, 4, 1], [16, 32, 4, 1]]}}))
    tuned, times = tmp_path / "tuned.json", tmp_path / "times.jsonl"
    files = ["--candidates", str(out), "--out", str(tuned), "--times", str(times)]
    assert main(["--kernel", "dq", "--head-size", "64", "--smoke", *files]) == 0
    lines = [json.loads(line) for line in times.read_text().splitlines()]
    tried = {tuple(line["config"]) for line in lines[:-1]}
    assert tried == {(16, 16, 4, 1), (32, 16, 4, 1), (64, 32, 4, 1)}  # the first two, and the interpreter's own
    assert all(line["tuned"] == "dq 16-bit head 64" for line in lines) and lines[-1]["passed over"] == []
    assert read_tuned(tuned) == {"dq 16-bit head 64": Config(*lines[-1]["winner"])}
    with pytest.raises(SystemExit):
        main(["--smoke", "--kernel", "forward", "--head-size", "64", *files])
    assert "has none for 'forward 16-bit head 64'; leave it out" in capsys.readouterr().err


def test_a_winner_must_win_again(device, monkeypatch):
    """The least of many times is partly luck: it and the one in use are timed once more, in turn."""
    from minillm.kernels import tune
    from minillm.kernels.configs import Config, lookup

    now, lucky, good = (Config(*four) for four in ((64, 32, 4, 1), (16, 16, 4, 1), (32, 16, 4, 1)))
    assert lookup("dq", torch.empty(1, 1, 1, 16)) == now or device == "cuda"
    times = {now: [10.0] * 9, lucky: [5.0, 9.95, 9.95, 9.95]}
    monkeypatch.setattr(tune, "lookup", lambda *_: now)
    monkeypatch.setattr(tune, "milliseconds", lambda run, _: times[run.args[-1]].pop(0))
    how = ("dq", 16, torch.float32, device, (20,))
    assert tune.tune(*how, [now, lucky]) == (now, 10.0, 10.0, {})
    times |= {now: [10.0] * 9, lucky: [9.9, 1.0], good: [8.0, 9.0, 8.5, 8.4]}
    assert tune.tune(*how, [lucky, good]) == (good, 8.5, 10.0, {})


def test_a_file_for_all_is_used_where_nobody_tuned(tmp_path, device, monkeypatch):
    from minillm.kernels import configs

    own, for_all = tmp_path / "own" / "Card-triton-3.json", tmp_path / "all" / "Card-triton-3.json"
    monkeypatch.setattr(configs, "tuned_file", lambda _: own)
    monkeypatch.setattr(configs, "FOR_ALL", for_all.parent)
    monkeypatch.setattr(configs, "target", lambda: 90)

    def looked_up(kernel):
        return configs.on_device.__wrapped__(kernel, 2, 64, torch.device("cuda"))

    assert looked_up("dq") == configs.shipped(90, "dq", 2, 64)
    for_all.parent.mkdir()
    for_all.write_text('{"dq 16-bit head 64": [16, 16, 4, 2], "dkdv 16-bit head 64": [32, 32, 4, 2]}')
    assert looked_up("dq") == configs.Config(16, 16, 4, 2)
    own.parent.mkdir()
    own.write_text('{"dq 16-bit head 64": [64, 16, 4, 2]}')
    assert looked_up("dq") == configs.Config(64, 16, 4, 2) and looked_up("dkdv") == configs.Config(32, 32, 4, 2)
    assert looked_up("forward") == configs.shipped(90, "forward", 2, 64)


def test_files_for_all_are_sound():
    from minillm.kernels.configs import FOR_ALL, read_tuned

    assert (FOR_ALL / "README.md").is_file()
    for file in FOR_ALL.glob("*.json"):
        assert "-triton-" in file.name and read_tuned(file)
