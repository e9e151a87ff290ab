"""A debugger's "step into" goes from model(ids) to NumPy with one frame per module, layer and op, nothing between."""

import sys
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm.models.gpt import GPT, GPTConfig
from minillm.nn import Linear
from minillm.tensor import Tensor

PACKAGE = str(Path(minillm.__file__).parent)


def frames_to(target, call):
    """The frames (file: qualified name) between `call` and the first call of the function `target` in numpy_ops."""
    found = []

    def profile(frame, event, _):
        if event == "call" and not found and frame.f_code.co_name == target and "numpy_ops" in frame.f_code.co_filename:
            while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
                name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)  # the class too, from Python 3.11 on
                found.append(f"{Path(frame.f_code.co_filename).stem}: {name.rpartition('.')[2]}")
                frame = frame.f_back

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found[::-1]


MODEL = ["nn: __call__", "gpt: forward", "gpt: hidden"]
BLOCK = [*MODEL, "nn: __call__", "gpt: forward"]


@pytest.mark.parametrize(
    "op, expected",
    [
        ("embedding", [*MODEL, "nn: __call__", "nn: forward", "ops: embedding", "linear: embedding"]),
        ("layer_norm", [*BLOCK, "nn: __call__", "nn: forward", "ops: layer_norm", "layer_norm: layer_norm"]),
        ("attention", [*BLOCK, "nn: __call__", "gpt: forward", "ops: attention", "attention: attention"]),
        ("gelu", [*BLOCK, "nn: __call__", "gpt: forward", "ops: gelu", "gelu: gelu"]),
    ],
)  # fmt: skip
def test_one_frame_per_module_layer_and_op(op, expected):
    model = GPT(GPTConfig(vocab_size=11, context=8, n_layers=1, n_heads=2, d_model=8), rng=np.random.default_rng(0))
    ids = np.arange(5)[None]
    assert frames_to(op, lambda: model(ids)) == expected


MET = ["nn: __call__", "nn: forward", "ops: linear", "linear: linear", "tensor: from_op"]
ASIDE = {f"ops: {name}" for name in ("check_features", "backend")}
ASIDE |= {f"tensor: {name}" for name in ("like", "ndim", "shape", "dtype", "records_graph")}


def test_stepping_into_everything_meets_what_the_readme_says():
    """The line of calls, and beside it only what returns at once: checks, the engine's choice, the graph's node."""
    met = []

    def profile(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and code.co_name not in ("<genexpr>", "__init__"):
            met.append(f"{Path(code.co_filename).stem}: {code.co_name}")

    layer, x = Linear(3, 4, rng=np.random.default_rng(0)), Tensor(np.ones((2, 3), np.float32))
    sys.setprofile(profile)
    try:
        layer(x)
    finally:
        sys.setprofile(None)
    assert [call for call in met if call not in ASIDE] == MET


def test_backward_is_called_by_backward():
    model = GPT(GPTConfig(vocab_size=11, context=8, n_layers=1, n_heads=2, d_model=8), rng=np.random.default_rng(0))
    ids = np.arange(5)[None]
    loss = model(ids, targets=ids)
    assert frames_to("layer_norm_backward", loss.backward) == ["tensor: backward", "layer_norm: layer_norm_backward"]
