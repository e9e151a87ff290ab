"""The table of configurations, and the command that tunes it for a card."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")


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


@pytest.mark.parametrize("text", ["[]", "{", '{"dq": [1, 2]}', '{"dq": ["a", 1, 1, 1]}'])
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


def test_candidates_include_the_shipped_shapes(device):
    from minillm.kernels.configs import HEAD_SIZES, KERNELS, shipped
    from minillm.kernels.tune import candidates

    for kernel in KERNELS:
        tried = set(candidates(kernel))
        assert all(shipped(90, kernel, 2, head_size) in tried for head_size in HEAD_SIZES)
