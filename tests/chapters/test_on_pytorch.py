"""Chapter 15's instruments: what they count, and that they leave nothing behind."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from minillm.workshop import on_pytorch as lab  # noqa: E402

from minillm import ops  # noqa: E402
from minillm.models.gpt import GPT, GPTConfig  # noqa: E402
from minillm.port import to_torch  # noqa: E402
from minillm.tensor import Tensor  # noqa: E402


@pytest.fixture
def models():
    model = GPT(GPTConfig(vocab_size=11, context=8, n_layers=2, n_heads=2, d_model=8)).to(np.float64)
    return model, to_torch(model)


def test_watch_sees_what_runs_and_no_views():
    x = torch.ones(3, 4)
    with lab.Watch() as watch:
        (x.T.reshape(2, 6).bfloat16() + 1).sum()
    assert watch.rows == [
        ("clone", ("float32",), "float32"),  # a transposed array cannot be reshaped where it lies
        ("to_copy", ("float32",), "bfloat16"),
        ("add", ("bfloat16",), "bfloat16"),
        ("sum", ("bfloat16",), "bfloat16"),
    ]


def test_saved_bytes_counts_each_stretch_of_memory_once():
    x = torch.ones(10, requires_grad=True)
    assert lab.saved_bytes(lambda: x * x) == 40  # one array, twice
    assert lab.saved_bytes(lambda: x.exp() + 1) == 40  # the result
    q = torch.ones(1, 2, 16, 4, requires_grad=True)
    assert lab.saved_bytes(lambda: ops.attention(q, q, q, impl="reference")) >= 4 * 2 * 16 * 16


def test_both_graphs_hold_the_same_ops(models):
    model, ported = models
    x = np.ones((1, 8, 8))
    ours = lab.our_nodes(model.blocks[0](Tensor(x, requires_grad=True)))
    theirs = lab.torch_nodes(ported.blocks[0](torch.tensor(x, requires_grad=True)))
    names = [lab.our_name(node) for node in ours]
    assert names[0] == "add" and names[-1] == "layer_norm"
    assert [name for name in map(lab.our_name, theirs) if name in names and name != "reshape"] == [
        name for name in names if name != "reshape"
    ]
    kept = lab.saved_by_op(ours, model.parameters())
    assert kept["gelu"] == 8 * 32 * 8 and not set(lab.saved_by_op(theirs, ported.parameters())) - set(kept)


def test_outputs_by_name_is_undone(models):
    ids = np.arange(8)[None]
    found = {}
    for model, given in zip(models, (ids, torch.tensor(ids))):
        own = vars(model.norm).get("forward")
        with pytest.raises(ZeroDivisionError), lab.outputs_by_name(model) as found[model]:
            model(given)
            raise ZeroDivisionError
        assert vars(model.norm).get("forward") is own is None
    ours, theirs = found.values()
    assert list(ours) == list(theirs) and "blocks.1.attn.qkv" in ours
    assert lab.largest_gap(ours.values(), theirs.values()) < 1e-12


def test_suspects_are_wrong_where_it_is_said(models):
    model, _ = models
    ids = np.arange(8)[None]
    for ported, wrong in zip(lab.suspects(lambda: to_torch(model)).values(), ("blocks.0.attn.proj", "blocks.1.norm_2")):
        with lab.outputs_by_name(model) as right, lab.outputs_by_name(ported) as found:
            model(ids)
            ported(torch.tensor(ids))
        assert next(name for name in right if lab.largest_gap([right[name]], [found[name]]) > 1e-10) == wrong


def test_without_a_compiler_the_reason_is_said():
    def fails():
        raise RuntimeError("No working C++ compiler found\nand so on")

    assert lab.generated_code(fails) == ([], "RuntimeError: No working C++ compiler found")
    source = "cpp_fused_gelu_view_0 = async_compile.cpp_pybinding(...)\ncpp_fused_gelu_view_0(x)\ncpp_fused_add_1(y)"
    assert lab.kernels_in(source) == ["gelu_view", "add"]
    assert lab.kernels_in("def triton_poi_fused_add_gelu_3(x):") == ["add_gelu"]
