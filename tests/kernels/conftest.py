"""Where there is no GPU, the kernels run in Triton's interpreter, which must be chosen before triton is imported."""

import os
import sys

import pytest

try:
    import torch
except ImportError:
    HAS_GPU = False
else:
    HAS_GPU = torch.cuda.is_available()
    if not HAS_GPU and "triton" not in sys.modules:
        os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(items):
    if not HAS_GPU:
        skip = pytest.mark.skip(reason="needs a CUDA device: torch.cuda.is_available() is False")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def device():
    """The device that kernels run on here: the GPU, or the CPU in the interpreter."""
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    from minillm.kernels.call import interpreted

    if not HAS_GPU and not interpreted():
        pytest.fail(
            "triton was imported before tests/kernels could set TRITON_INTERPRET=1 (by an import at the top of another "
            "test module); set it in the environment, or run pytest tests/kernels by itself"
        )
    return "cuda" if HAS_GPU else "cpu"


@pytest.fixture(autouse=True)
def one_thread():
    """The interpreter gains nothing from torch's thread pool."""
    if not HAS_GPU and "torch" in sys.modules:
        torch.set_num_threads(1)
