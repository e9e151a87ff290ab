"""Small programs to step through: `python tests/shared/step_through.py training-step | attention | kernel`.

The launch entries in .vscode/launch.json start these under VS Code's debugger, which stops at the first line marked
"step in here". Follow the call down: model → layer (its `__call__`, which calls `forward`) → op → NumPy.
"""

from __future__ import annotations

import sys

import numpy as np


def under_debugger() -> bool:
    """Whether VS Code's debugger runs this program: there a breakpoint stops at the next line, elsewhere
    it would open pdb."""
    debugpy = sys.modules.get("debugpy")
    return debugpy is not None and debugpy.is_client_connected()


def training_step() -> float:
    """One step of AdamW on a tiny GPT: forward, backward, update. Returns the loss."""
    from minillm.models import GPT, GPTConfig
    from minillm.optim import AdamW

    rng = np.random.default_rng(0)
    model = GPT(GPTConfig(vocab_size=32, context=8, n_layers=2, n_heads=2, d_model=16), rng)
    optimizer = AdamW(list(model.parameters()), lr=1e-3)
    ids = rng.integers(0, 32, (2, 9))
    if under_debugger():
        breakpoint()
    loss = model(ids[:, :-1], targets=ids[:, 1:])  # step in here: the forward pass
    loss.backward()  # step in here: the graph, node by node
    optimizer.step()  # step in here: the update
    return loss.item()


def attention() -> np.ndarray:
    """One causal attention call and its backward. Returns the gradient of the queries."""
    from minillm import ops
    from minillm.tensor import Tensor

    rng = np.random.default_rng(0)
    q, k, v = (Tensor(rng.standard_normal((1, 2, 4, 8)), requires_grad=True) for _ in range(3))  # (B, H, T, D)
    if under_debugger():
        breakpoint()
    out = ops.attention(q, k, v, causal=True)  # step in here: scores, softmax, weighted average
    out.sum().backward()  # step in here: numpy_ops/attention.py, attention_backward
    assert q.grad is not None
    return q.grad


def kernel() -> float:
    """One call of the Triton kernel, in Triton's interpreter where there is no GPU. Returns the largest output."""
    import torch
    from minillm.kernels import flash_attention

    device = "cuda" if torch.cuda.is_available() else "cpu"
    q, k, v = (torch.randn(1, 2, 32, 16, device=device) for _ in range(3))
    if under_debugger():
        breakpoint()
    return flash_attention(q, k, v, causal=True, impl="simple").max().item()  # step in here


def main(what: str) -> None:
    programs = {"training-step": training_step, "attention": attention, "kernel": kernel}
    if what not in programs:
        raise SystemExit(f"unknown program {what!r}; one of: {', '.join(programs)}")
    print(programs[what]())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "training-step")
