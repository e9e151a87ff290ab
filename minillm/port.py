"""From NumPy to PyTorch and back: the same model object, with the same weights, on the other engine.

`to_torch(model)` walks the model that was built, not the code that built it. Every Module becomes a `torch.nn.Module`
whose class is made on the spot from its own: `class GPT(torch.nn.Module, minillm.models.gpt.GPT)`. From torch come
`__call__`, `parameters`, `state_dict`, `to`; from ours `forward` and every other method of the model, unchanged: it
calls ops.py, which sees torch tensors and takes the other branch. Parameters become `nn.Parameter`s of the same name,
lists of Modules `ModuleList`s, constant ndarrays buffers that are not saved; anything else is copied. What is one
object in the NumPy model (a tied weight, the random generator) is one object in the torch model.

The classes have no importable name, so pickling a ported model fails: save its weights (safetensors), not the object.
chapters/15_the_same_model_on_pytorch.ipynb builds a small port by hand, and measures how near the two models stay.
"""

from __future__ import annotations

import copy
from collections.abc import Container
from functools import cache
from typing import Any

import numpy as np
import torch

from .models.sketch import is_sketched
from .nn import Embedding, Linear, Module
from .tensor import Parameter


def to_torch(
    model: Module, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None, seed: int = 0
) -> Any:
    """A `torch.nn.Module` that computes what `model` computes, with copies of its weights.

    `device`: "cpu" by default. `dtype`: that of the floating-point weights and constants, the model's own by default.
    A model that was only sketched (see `sketch`) gets its initial weights here, drawn on `device` with `seed`; on the
    device "meta" it stays without, until `allocate` and `fill` give it some.
    """
    if isinstance(model, torch.nn.Module):
        raise TypeError(f"to_torch: this {type(model).__name__} is on torch already. To move it, call its .to(device).")
    if not isinstance(model, Module):
        raise TypeError(f"to_torch: {type(model).__name__} is not a minillm.nn.Module.")
    device = torch.device("cpu" if device is None else device)
    ported = port_module(model, device, dtype, {})
    if device.type != "meta":
        fill(ported, model, seed)
    return ported


def to_numpy(model: Any) -> Module:
    """The NumPy model again, from a ported one: copies of the weights, float16 and bfloat16 as float32.

    A compiled or DDP-wrapped model is unwrapped. Under FSDP every rank must call this, since each holds only a part.
    """
    model = unwrap(model)
    if not isinstance(model, torch.nn.Module) or not isinstance(model, Module):
        raise TypeError(f"to_numpy: {type(model).__name__} was not made by to_torch(): it has no NumPy class.")
    return unport_module(model, {})


def unwrap(model: Any) -> Any:
    """The module inside torch.compile's and DistributedDataParallel's wrappers."""
    while True:
        if isinstance(model, torch.nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


@cache
def torch_class(cls: Any) -> Any:
    """One torch class per class of ours. Naming `forward` again puts ours before torch.nn.Module's. A Linear and an
    Embedding are torch's own kinds too, which peft and others look for, with the sizes of the weight that they have."""
    own = {"forward": cls.forward, "numpy_class": cls, "__doc__": cls.__doc__}
    kind, sizes = TORCH_KINDS.get(cls, (torch.nn.Module, {}))
    return type(cls.__name__, (kind, cls), {**own, **sizes})


def rows(layer: Any) -> int:
    return int(layer.weight.shape[0])


def columns(layer: Any) -> int:
    return int(layer.weight.shape[1])


def table_sizes(layer: Any) -> str:
    return f"{rows(layer)}, {columns(layer)}"


TORCH_KINDS: dict[Any, tuple[Any, dict[str, Any]]] = {
    Linear: (torch.nn.Linear, {"in_features": property(columns), "out_features": property(rows)}),
    Embedding: (torch.nn.Embedding, {
        "num_embeddings": property(rows), "embedding_dim": property(columns), "padding_idx": None, "max_norm": None,
        "norm_type": 2.0, "scale_grad_by_freq": False, "sparse": False, "extra_repr": table_sizes,
    }),
}  # fmt: skip


def port_module(module: Module, device: torch.device, dtype: torch.dtype | None, memo: dict[int, Any]) -> Any:
    """`module` as a torch module whose tensors have the right shape and type, on `device`, their values not yet set."""
    if id(module) in memo:
        return memo[id(module)]
    cls: Any = type(module)
    ported = torch_class(cls).__new__(torch_class(cls))
    memo[id(module)] = ported
    torch.nn.Module.__init__(ported)
    for name, value in vars(module).items():
        if isinstance(value, Module):
            setattr(ported, name, port_module(value, device, dtype, memo))
        elif isinstance(value, list) and value and all(isinstance(item, Module) for item in value):
            setattr(ported, name, torch.nn.ModuleList(port_module(item, device, dtype, memo) for item in value))
        elif isinstance(value, Parameter):
            if id(value) not in memo:
                empty = torch.empty(value.shape, dtype=torch_dtype(value.data, dtype), device=device)
                memo[id(value)] = torch.nn.Parameter(empty, requires_grad=value.requires_grad)
            setattr(ported, name, memo[id(value)])
        elif isinstance(value, np.ndarray):
            empty = torch.empty(value.shape, dtype=torch_dtype(value, dtype), device=device)
            ported.register_buffer(name, empty, persistent=False)
        else:
            setattr(ported, name, copy.deepcopy(value, memo))
    return ported


def unport_module(module: Any, memo: dict[int, Any]) -> Module:
    if id(module) in memo:
        return memo[id(module)]
    plain = module.numpy_class.__new__(module.numpy_class)
    memo[id(module)] = plain
    values = {**torch_attributes(module), **module._parameters, **module._buffers, **module._modules}
    for name, value in values.items():
        if isinstance(value, torch.nn.Parameter):
            if id(value) not in memo:
                memo[id(value)] = Parameter(array_of(value), requires_grad=value.requires_grad)
            setattr(plain, name, memo[id(value)])
        elif isinstance(value, torch.Tensor):
            setattr(plain, name, array_of(value))
        elif isinstance(value, torch.nn.ModuleList):
            setattr(plain, name, [unport_module(item, memo) for item in value])
        elif isinstance(value, torch.nn.Module):
            setattr(plain, name, unport_module(value, memo))
        else:
            setattr(plain, name, copy.deepcopy(value, memo))
    return plain


def torch_attributes(module: torch.nn.Module) -> dict[str, Any]:
    """What a ported module carries besides tensors, modules and torch's own book-keeping."""
    own = vars(torch.nn.Module())  # every module has these: hooks, and the three dictionaries
    return {name: value for name, value in vars(module).items() if name not in own or name == "training"}


def torch_dtype(array: np.ndarray, dtype: torch.dtype | None) -> torch.dtype:
    """The torch dtype for an array: `dtype` if that is given and the array holds floats, else its own."""
    if dtype is not None and array.dtype.kind == "f":
        return dtype
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A copy of a tensor as an ndarray, the whole of it if it is sharded, in float32 if NumPy lacks its dtype."""
    tensor = whole(tensor.detach())
    dtype = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype
    return tensor.to("cpu", dtype, copy=True).numpy()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that FSDP has cut up, put together again (all ranks must ask for it); any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


# --- large models: no weights in NumPy's memory --------------------------------------------------------------------


def allocate(ported: Any, device: str | torch.device) -> None:
    """Give a port on the device "meta" memory on `device`, values not yet set. (torch's `to_empty` unties weights.)"""
    memo: dict[int, torch.Tensor] = {}
    for module in ported.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and id(tensor) not in memo:
                memo[id(tensor)] = torch.empty_like(tensor, device=device)
                if name in module._parameters:
                    memo[id(tensor)] = torch.nn.Parameter(memo[id(tensor)], tensor.requires_grad)
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                own[name] = tensor if tensor is None else memo[id(tensor)]


@torch.no_grad()
def fill(ported: Any, model: Module, seed: int = 0, *, but: Container[str] = ()) -> None:
    """Give the tensors of `ported`, a port of `model` on a real device, their values, except the parameters named in
    `but`: copies of `model`'s, and for sketched weights normal draws with `seed`, on the device, in the order of the
    parameters, the same however FSDP has cut them up."""
    generator = torch.Generator(device=next(ported.parameters()).device).manual_seed(seed)
    arrays = dict(model.named_parameters())
    for name, parameter in ported.named_parameters():
        if name in but:
            continue
        array = arrays[name].data
        if is_sketched(array):
            value = torch.empty(array.shape, dtype=parameter.dtype, device=parameter.device)
            value.normal_(0.0, float(array.flat[0]), generator=generator)
        else:
            value = torch.tensor(array)
        assign(parameter, value)
    theirs = dict(model.named_modules())
    for name, module in ported.named_modules():
        for key, buffer in module._buffers.items():
            buffer.copy_(torch.tensor(getattr(theirs[name], key)))


@torch.no_grad()
def assign(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a whole tensor into `tensor`, of which this rank may hold only a part (FSDP)."""
    if hasattr(tensor, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        value = value.to(device=tensor.device, dtype=tensor.dtype)
        value = distribute_tensor(value, tensor.device_mesh, tensor.placements)  # type: ignore[attr-defined]
    tensor.copy_(value)
