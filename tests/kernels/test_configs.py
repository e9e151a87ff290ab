"""The table of configurations, and the command that tunes it for a card."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")


def test_the_table_is_complete_and_legal(device):
    from minillm.kernels.configs import HEAD_SIZES, KERNELS, TABLES, shipped

    for arch in TABLES:
        for kernel in KERNELS:
            for element_size in (2, 4):
                for head_size in HEAD_SIZES:
                    c = shipped(arch, kernel, element_size, head_size)
                    assert all(n & (n - 1) == 0 for n in (c.block_m, c.block_n, c.num_warps))
                    assert min(c.block_m, c.block_n) >= 16 and c.num_warps <= 16 and 1 <= c.num_stages <= 4
    assert shipped(103, "dq", 2, 64) == shipped(100, "dq", 2, 64)  # the nearest one below


def test_tuning_writes_what_lookup_reads(device, tmp_path, capsys):
    from minillm.kernels.configs import read_tuned
    from minillm.kernels.tune import main

    out = tmp_path / "deep" / "tuned.json"
    for kernel in ("forward", "dkdv", "dq", "decode"):  # one after another: the file grows
        main(["--smoke", "--kernel", kernel, "--head-size", "16", "--dtype", "float32", "--out", str(out)])
    assert set(read_tuned(out)) == {f"{kernel} 32-bit head 16" for kernel in ("forward", "dkdv", "dq", "decode")}
    assert "wrote" in capsys.readouterr().out
    main(["--smoke", "--kernel", "dq", "--head-size", "16", "--dtype", "float32", "--out", str(out)])
    assert "is in the file already (--again" in capsys.readouterr().out
    out.write_text("{")
    with pytest.raises(SystemExit):
        main(["--smoke", "--out", str(out)])
    assert "delete it or tune again" in capsys.readouterr().err


def test_a_candidate_that_fails_or_computes_something_else_is_passed_over(device, tmp_path, monkeypatch, capsys):
    from minillm.kernels import tune
    from minillm.kernels.configs import Config, read_tuned

    sound = tune.problem

    def problem(*arguments):
        run = sound(*arguments)

        def spoiled(config):
            if config == Config(32, 32, 4, 1):
                raise triton.CompilationError("", None, "no such instruction")
            return run(config) + (config == Config(16, 64, 4, 1))

        return spoiled

    monkeypatch.setattr(tune, "problem", problem)
    out = tmp_path / "tuned.json"
    command = ["--smoke", "--kernel", "dq", "--head-size", "16", "--dtype", "float32", "--out", str(out)]
    assert tune.main(command) == 0
    printed = capsys.readouterr().out
    assert "passed over: CompilationError" in printed and "differs from the shipped configuration by up to 1" in printed
    now = tune.lookup("dq", torch.empty(1, 1, 1, 16, device=device))
    assert read_tuned(out) == {"dq 32-bit head 16": now}

    def broken(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(tune, "problem", broken)
    assert tune.main([*command, "--again"]) == 1
    assert "not tuned: CUDA error: an illegal memory access" in capsys.readouterr().out

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "problem", interrupted)
    assert tune.main([*command, "--again"]) == 130
    assert read_tuned(out) == {"dq 32-bit head 16": now}


def test_descriptors_are_a_1_behind_the_four_numbers(device, tmp_path):
    from minillm.kernels.configs import Config, read_tuned

    (tmp_path / "tuned.json").write_text('{"forward 16-bit head 64": [64, 64, 4, 2, 1], "dq": [64, 64, 4, 2]}')
    found = read_tuned(tmp_path / "tuned.json")
    assert found == {"forward 16-bit head 64": Config(64, 64, 4, 2, descriptors=1), "dq": Config(64, 64, 4, 2)}
    assert [config.numbers() for config in found.values()] == [[64, 64, 4, 2, 1], [64, 64, 4, 2]]


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"dq": [1, 2]}', '{"dq": ["a", 1, 1, 1]}', '{"dq": [1, 1, 1, 1, 2]}', '{"dq": [1, 1, 1, 1, 1, 1]}'],
)
def test_a_broken_tuned_file_says_so(device, tmp_path, text):
    from minillm.kernels.configs import read_tuned

    (tmp_path / "tuned.json").write_text(text)
    with pytest.raises(ValueError, match="delete it or tune again"):
        read_tuned(tmp_path / "tuned.json")


def test_tuning_refuses_where_times_mean_nothing(device, capsys):
    from minillm.kernels.tune import main

    if device == "cuda":
        pytest.skip("there is a card to tune for")
    with pytest.raises(SystemExit):
        main([])
    assert "only --smoke" in capsys.readouterr().err


def test_candidates_include_the_shipped_ones_and_are_few(device):
    from minillm.kernels.configs import HEAD_SIZES, KERNELS, shipped
    from minillm.kernels.offline import SHARED_LIMIT
    from minillm.kernels.tune import candidates

    for kernel in KERNELS:
        for element_size in (2, 4):
            for head_size in HEAD_SIZES:
                tried = candidates(kernel, head_size, element_size, 90, SHARED_LIMIT[90])
                assert 5 <= len(set(tried)) == len(tried) <= 70, (kernel, element_size, head_size, len(tried))
                now = shipped(90, kernel, element_size, head_size)
                assert now in tried and not now.descriptors, (kernel, element_size, head_size)
                described = [config for config in tried if config.descriptors]
                assert bool(described) == (kernel == "forward" and element_size == 2)
                assert not any(c.descriptors for c in candidates(kernel, head_size, element_size, 80, SHARED_LIMIT[80]))


def test_tuning_without_triton_says_what_to_install():
    program = (
        "import runpy, sys; sys.modules['triton'] = None; runpy.run_module('minillm.kernels.tune', None, '__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr and '".[triton]"' in done.stderr
