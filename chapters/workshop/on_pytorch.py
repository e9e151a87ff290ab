"""Chapter 15's instruments and pictures: which ops run in which precision, what two graphs hold, where numbers part.

Imports PyTorch, as the chapter does; nothing else in the workshop imports this file.
"""

from __future__ import annotations

import difflib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from minillm import plot
from minillm.numpy_ops.cores import limit_blas_threads
from minillm.tensor import Tensor, topological_order
from torch.utils._python_dispatch import TorchDispatchMode

from .boxes import PALE_BLUE, PALE_GREEN, PALE_ORANGE, Box, draw_boxes

# --- instruments --------------------------------------------------------------------------------------------------


FREE = ("detach", "lift_fresh", "_unsafe_view")  # these compute nothing, although PyTorch calls them no views


class Watch(TorchDispatchMode):
    """Inside `with Watch() as watch:` every op that PyTorch really runs is noted in `watch.rows`: its name, the dtypes
    of the tensors that it takes and of the (first) one that it gives. Views, which compute nothing, are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, tuple[str, ...], str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple | list) else out
        name = func.overloadpacket.__name__
        if isinstance(first, torch.Tensor) and not func.is_view and name not in FREE:
            given = tuple(short(a.dtype) for a in args if isinstance(a, torch.Tensor))
            self.rows.append((name.strip("_"), given, short(first.dtype)))
        return out


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def saved_bytes(run: Callable[[], Any]) -> int:
    """How much memory PyTorch keeps for the backward pass of `run()`: each stretch of it counted once."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(kept.values())


def our_nodes(out: Tensor) -> list[Any]:
    """The nodes of our graph in the order in which `backward` visits them."""
    return topological_order(out.node)[::-1] if out.node is not None else []


def torch_nodes(out: torch.Tensor) -> list[Any]:
    """The nodes of PyTorch's graph, each after all that were computed from it (the walk is minillm.tensor's)."""
    order: list[Any] = []
    seen = {out.grad_fn}
    stack: list[tuple[Any, Iterator[Any]]] = [(out.grad_fn, iter(out.grad_fn.next_functions))]
    while stack:
        node, inputs = stack[-1]
        for parent, _ in inputs:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append((parent, iter(parent.next_functions)))
                break
        else:
            order.append(node)
            stack.pop()
    return order[::-1]


# PyTorch's names of what we call otherwise.
OUR_NAMES = {
    "Addmm": "linear", "NativeLayerNorm": "layer_norm", "Gelu": "gelu", "Add": "add", "View": "reshape",
    "Transpose": "transpose", "Select": "getitem", "ScaledDotProductFlashAttentionForCpu": "attention",
    "ScaledDotProductFlashAttention": "attention", "ScaledDotProductEfficientAttention": "attention",
}  # fmt: skip


def our_name(node: Any) -> str:
    """ "linear" for a node of ours or for PyTorch's AddmmBackward0."""
    if not hasattr(node, "next_functions"):
        return str(node.backward.__name__.removesuffix("_backward"))
    plain = re.sub(r"Backward\d*$", "", node.name())
    return OUR_NAMES.get(plain, plain)


def saved_by_op(nodes: Sequence[Any], parameters: Iterable[Any]) -> dict[str, int]:
    """Bytes that the nodes of either engine's graph keep, by our name of the op. What is a parameter's own memory is
    not counted, what several nodes keep counts for the first."""
    seen = {address(p)[0] for p in parameters}
    found: dict[str, int] = {}
    for node in nodes:
        for array in flat(saved_of(node)):
            start, size = address(array)
            if start not in seen:
                seen.add(start)
                found[our_name(node)] = found.get(our_name(node), 0) + size
    return found


def saved_of(node: Any) -> list[Any]:
    if not hasattr(node, "next_functions"):
        return list(node.saved)
    return [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]


def flat(values: Iterable[Any]) -> Iterator[Any]:
    """The arrays and tensors among the values, also inside tuples and lists."""
    for value in values:
        if isinstance(value, np.ndarray | torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from flat(value)


def address(array: Any) -> tuple[int, int]:
    """Where the memory behind an array, a tensor or one of our Tensors begins, and how many bytes it has."""
    if isinstance(array, torch.Tensor):
        storage = array.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    array = array.data if isinstance(array, Tensor) else array
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.__array_interface__["data"][0], array.nbytes


@contextmanager
def outputs_by_name(model: Any) -> Iterator[dict[str, np.ndarray]]:
    """Inside, what each module of a model (of either engine) gives is noted by the module's name, in the order in which
    they end. A module that is called twice is noted once."""
    found: dict[str, np.ndarray] = {}
    modules = [(name, module) for name, module in model.named_modules() if name and hasattr(module, "forward")]

    def noting(name: str, forward: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            out = forward(*args, **kwargs)
            if isinstance(out, Tensor | torch.Tensor):
                found.setdefault(name, as_array(out))
            return out

        return noted

    modules = [(name, module) for name, module in modules if type(module).__name__ != "ModuleList"]
    before = [vars(module).get("forward") for _, module in modules]
    for name, module in modules:
        module.forward = noting(name, module.forward)
    try:
        yield found
    finally:
        for (_, module), forward in zip(modules, before):
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def as_array(x: Any) -> np.ndarray:
    """The numbers of a Tensor, a tensor, or an array, as float64."""
    if isinstance(x, torch.Tensor):
        return x.detach().double().cpu().numpy()
    return np.asarray(x.data if isinstance(x, Tensor) else x, dtype=np.float64)


def largest_gap(a: Iterable[Any], b: Iterable[Any]) -> float:
    """The largest difference of two numbers that stand in the same place."""
    return max(float(np.abs(as_array(x) - as_array(y)).max()) for x, y in zip(a, b, strict=True))


def relative_error(x: Any, exact: Any) -> float:
    """The length of the error over the length of what is right."""
    x, exact = as_array(x), as_array(exact)
    return float(np.linalg.norm(x - exact) / np.linalg.norm(exact))


def ratio_of_times(one: Callable[[], Any], other: Callable[[], Any], rounds: int = 4) -> float:
    """How many times the processor time of `other` `one` takes, on one thread: the best of a few rounds in turn."""
    times = np.zeros((rounds, 2))
    with limit_blas_threads(1):
        for row in times:
            for i, action in enumerate((one, other)):
                start = time.process_time()
                action()
                row[i] = time.process_time() - start
    first, second = times.min(axis=0)
    return float(first / max(second, 1e-9))


def without_folders(text: str) -> str:
    """What the debugger printed, without the folder that PyTorch lies in."""
    return text.replace(str(Path(torch.__file__).parents[1]) + os.sep, "")


def generated_code(run: Callable[[], Any]) -> tuple[list[str], str]:
    """The sources that PyTorch's compiler writes when `run()` first calls what it compiled, and "", or none and the
    reason: it needs a C++ compiler on a CPU."""
    try:
        import torch._functorch.config as aot
        import torch._inductor.config as inductor
        from torch._inductor.utils import run_and_get_code

        # A graph that was compiled before would be taken from the disk, and no code be written.
        with inductor.patch(fx_graph_cache=False, compile_threads=1), aot.patch(enable_autograd_cache=False):
            return run_and_get_code(run)[1], ""
    except Exception as error:  # it has its own kinds, and they change
        return [], f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.90}"


def kernels_in(source: str) -> list[str]:
    """The names of the kernels that were generated in one source, by the ops that were fused in each."""
    names = dict.fromkeys(re.findall(r"\b(?:cpp|triton_\w+?)_fused_(\w+?)_\d+\b", source))
    return [name for name in names if name]


# --- pictures -----------------------------------------------------------------------------------------------------


def draw_engines() -> Any:
    """One model, one list of ops, two engines below it."""
    boxes = {
        "model": Box(3.2, 4.0, 1.9, "models/gpt.py, nn.py\nwhat a GPT computes, said once", PALE_BLUE),
        "ops": Box(3.2, 2.7, 1.9, "ops.py\nbackend(x): whose tensor is x?", PALE_ORANGE),
        "numpy": Box(1.45, 1.4, 1.2, "numpy_ops/\nforward, and a\nbackward by hand"),
        "torch": Box(4.95, 1.4, 1.2, "torch_ops.py\ncalls of PyTorch's\nfunctions", PALE_GREEN),
        "tensor": Box(1.45, 0.1, 1.2, "Tensor, Node\nNumPy on a CPU"),
        "autograd": Box(4.95, 0.1, 1.2, "torch.Tensor, grad_fn\nCPU or GPU", PALE_GREEN),
        "port": Box(8.0, 4.0, 1.3, "port.py\nto_torch, to_numpy:\nweights and structure", PALE_ORANGE),
    }
    arrows = [("model", "ops"), ("ops", "numpy"), ("ops", "torch"), ("numpy", "tensor"), ("torch", "autograd")]
    return draw_boxes(boxes, [*arrows, ("port", "model")], height=4.0, tall=0.85)


def draw_graphs(ours: Sequence[Any], theirs: Sequence[Any]) -> Any:
    """Both graphs as columns, in the order of the backward pass; lines join what is the same op."""
    theirs = [node for node in theirs if "AccumulateGrad" not in node.name()]
    names, their_names = [our_name(n) for n in ours], [our_name(n) for n in theirs]
    figure, ax = plot.subplots(height=6.2)
    left_rows: dict[int, int] = {}
    right_rows: dict[int, int] = {}
    pairs, row = [], 0
    for tag, a, b, c, d in difflib.SequenceMatcher(None, names, their_names, autojunk=False).get_opcodes():
        for i in range(max(b - a, d - c)):
            if a + i < b:
                left_rows[a + i] = row
            if c + i < d:
                right_rows[c + i] = row
            if tag == "equal":
                pairs.append(row)
            row += 1
    for rows, nodes, x, align in ((left_rows, ours, 0.0, "right"), (right_rows, theirs, 1.0, "left")):
        for i, place in rows.items():
            text = nodes[i].backward.__name__ if x == 0 else nodes[i].name()
            color = plot.BLACK if place in pairs else "#777777"
            ax.text(x, -place, text, ha=align, va="center", fontsize=8, color=color, family="monospace")
    for place in pairs:
        ax.plot([0.03, 0.97], [-place, -place], color=plot.BLUE, linewidth=1)
    ax.text(0.0, 1.3, "minillm (NumPy)", ha="right", fontsize=10, fontweight="bold")
    ax.text(1.0, 1.3, "torch.autograd", ha="left", fontsize=10, fontweight="bold")
    ax.annotate("backward", (0.5, -row + 0.4), (0.5, 1.0), ha="center", fontsize=9, arrowprops={"arrowstyle": "->"})
    ax.set_xlim(-1.1, 2.6)
    ax.set_ylim(-row, 2.0)
    ax.axis("off")
    return figure


def plot_gaps(gaps: Mapping[str, np.ndarray], limit: float) -> Any:
    """The gap of two engines' losses at each step, for several pairs of models: (seeds, steps) each."""
    figure, ax = plot.subplots(height=3.6)
    for (name, runs), color, style in zip(gaps.items(), plot.CYCLE, ("-", "-", "--", ":")):
        for i, run in enumerate(runs):
            shown = np.maximum.accumulate(np.maximum(run, 1e-17))  # the largest so far: zeros have no logarithm
            ax.semilogy(shown, color=color, linestyle=style, linewidth=1.4, label=name if i == 0 else None)
    ax.axhline(limit, color=plot.BLACK, linewidth=1)
    ax.text(1, limit * 1.6, "where we draw the line", fontsize=8)
    ax.set_xlabel("step")
    ax.set_ylabel("largest gap of the losses so far")
    ax.set_ylim(1e-17, 10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def plot_eps(eps: Sequence[float], gaps: Mapping[str, Sequence[float]]) -> Any:
    """What Adam's ε does to the gap of each part of a bias."""
    figure, ax = plot.subplots(height=3.2, width=5.8)
    for (name, values), marker in zip(gaps.items(), "osD"):
        ax.loglog(eps, np.maximum(values, 1e-19), marker=marker, label=name)
    ax.set_xlabel("ε of AdamW")
    ax.set_ylabel("largest gap of the weights")
    ax.legend(fontsize=9)
    return figure


def plot_depth(errors: Mapping[str, np.ndarray], expected: np.ndarray) -> Any:
    """Relative error after each layer, (seeds, layers) for each way to compute; dotted: what rounding alone predicts
    for the first of them."""
    figure, ax = plot.subplots(height=3.6)
    layers = np.arange(1, expected.size + 1)
    for (name, runs), color, marker in zip(errors.items(), plot.CYCLE, "osD^v"):
        ax.semilogy(layers, runs.T, color=color, linewidth=0.8, alpha=0.6)
        ax.semilogy(layers, runs.mean(axis=0), color=color, marker=marker, markersize=4, label=name)
    ax.semilogy(layers, expected, ":", color=plot.BLACK, label="r √(2 layers + 3)")
    ax.set_xlabel("layer")
    ax.set_ylabel("relative error of the features")
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure


def plot_continued(curves: Mapping[str, np.ndarray], steps: Sequence[int]) -> Any:
    """How far the held-out loss has fallen since precisions part: (seeds, times) for each."""
    figure, ax = plot.subplots(height=3.2)
    for (name, runs), color, style, width in zip(curves.items(), plot.CYCLE, ("-", "--", "-"), (4, 2, 2)):
        ax.plot(steps, runs.T, color=color, linestyle=style, linewidth=0.8, alpha=0.5)
        ax.plot(steps, runs.mean(axis=0), color=color, linestyle=style, linewidth=width, label=name)
    ax.set_xlabel("step since all went on from the same weights")
    ax.set_ylabel("change of the held-out loss")
    ax.legend(fontsize=9)
    return figure


def plot_memory(lengths: Sequence[int], kept: Mapping[str, Any], formulas: Mapping[str, Any]) -> Any:
    """What attention keeps for its backward pass, measured (dots) and counted (lines), against the length."""
    figure, ax = plot.subplots(height=3.2, width=5.8)
    for (name, values), color, marker in zip(kept.items(), plot.CYCLE, "osD"):
        ax.loglog(lengths, np.array(values) / 1e6, marker, color=color, markersize=7, label=f"{name}, measured")
        if name in formulas:
            ax.loglog(lengths, np.array(formulas[name]) / 1e6, color=color, linewidth=1, label=f"{name}, counted")
    ax.set_xticks(lengths, [str(n) for n in lengths])
    ax.minorticks_off()
    ax.set_xlabel("length T")
    ax.set_ylabel("megabytes kept")
    ax.legend(fontsize=9)
    return figure


# --- exercise 4 ---------------------------------------------------------------------------------------------------


def suspects(port: Callable[[], Any]) -> dict[str, Any]:
    """Three ports of one model, of which some have a fault. Read this after you have answered."""
    first, second, third = port(), port(), port()
    square = first.blocks[0].attn.proj.weight.data
    square.copy_(square.T.clone())
    second.blocks[1].norm_2.eps = 1e-6
    return {"1": first, "2": second, "3": third}
