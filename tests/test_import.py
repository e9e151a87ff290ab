"""`import minillm` is light: the core needs NumPy and a few small packages, never torch, triton, matplotlib or
transformers."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "triton", "matplotlib", "transformers", "tiktoken", "tokenizers", "IPython", "scipy", "pandas",
         "pyarrow", "trafilatura", "zstandard", "huggingface_hub", "keras", "tensorflow", "h5py")  # fmt: skip

# Modules that belong to PyTorch or Triton as a whole: imported only from inside the functions that need them; and the
# one that belongs to the lm-eval harness.
FOR_TORCH = (
    "minillm.kernels", "minillm.port", "minillm.torch_ops", "minillm.engines.torch_", "minillm.engines.read_ahead",
    "minillm.finetune.quantize", "minillm.models.decoding_torch", "minillm.models.static_cache",
    "minillm.hub.lm_eval",
)  # fmt: skip

PROGRAM = f"""
import importlib, pkgutil, sys
import minillm
for module in pkgutil.walk_packages(minillm.__path__, "minillm."):
    if module.name.startswith({FOR_TORCH!r}) or module.name.endswith("__main__"):
        continue
    importlib.import_module(module.name)
print(sorted(set(sys.modules) & set({HEAVY!r})))
"""


def run(program: str, *flags: str) -> str:
    done = subprocess.run([sys.executable, *flags, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_minillm_is_light():
    program = f"import sys, minillm; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    assert run(program).strip() == "[]"


def test_no_module_of_the_core_imports_a_heavy_package():
    assert run(PROGRAM).strip() == "[]"


ENGINE = """
import sys
for name in ("torch", "triton", "matplotlib", "transformers"):
    sys.modules[name] = None  # as if it were not installed
import numpy as np
from minillm.models import GPT, GPTConfig
model = GPT(GPTConfig(vocab_size=11, context=8, n_layers=2, n_heads=2, d_model=8))
ids = np.arange(10).reshape(2, 5)
model(ids, targets=ids).backward()
print(model(ids).shape, all(p.grad is not None for p in model.parameters()))
"""


def test_the_engine_trains_where_torch_is_not_installed():
    assert run(ENGINE, "-W", "error").strip() == "(2, 5, 11) True"


def test_python_without_torch_says_what_is_missing():
    """A value that is not our Tensor goes to torch: where there is none, the error names torch."""
    program = "import sys; sys.modules['torch'] = None\nfrom minillm import ops\nops.silu(1.0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode != 0 and "torch" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("module", ["minillm.tensor", "minillm.ops", "minillm.nn", "minillm.models.gpt"])
def test_each_module_can_be_imported_first(module):
    """No import order is needed: the arrows between files run one way."""
    run(f"import {module}")
