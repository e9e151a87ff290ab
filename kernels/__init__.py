"""Our own GPU kernels in Triton, imported as `minillm.kernels`: flash attention, the fused ends of a training step.

Read `tiles.py`, then `flash_simple.py` (the kernel that the chapter explains) and `attention.py` (how PyTorch calls
it, `checks.py` what it refuses); then what speed asks for: `flash_fast.py`, `flash_fast_backward.py`,
`flash_decode.py`, and `configs.py` with the commands `python -m minillm.kernels.tune`, `python -m
minillm.kernels.offline`, `python -m minillm.kernels.occupancy` and `python -m minillm.kernels.preselect`. `visited.py`
watches which tiles are computed. `cross_entropy.py` and `norms.py` stand alone. `import minillm.kernels` imports
neither torch nor triton: each name below is loaded at its first use.
"""

from importlib import import_module

WHERE = {
    "flash_attention": "attention",
    "flash_unavailable_reason": "availability",
    "layer_norm": "norms",
    "linear_cross_entropy": "cross_entropy",
    "register_with_transformers": "transformers_attention",
    "rms_norm": "norms",
}

__all__ = sorted(WHERE)


def __getattr__(name: str) -> object:
    if name not in WHERE:
        raise AttributeError(f"minillm.kernels has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f".{WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
