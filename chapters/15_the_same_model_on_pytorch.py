# %% [markdown]
r"""
# 15 · The same model on PyTorch

Everything so far ran on NumPy, with derivatives written by hand. Real models are trained with PyTorch, on GPUs. This
chapter takes the models of this course there **without writing them again**, and proves that they are the same: in
float64, after a hundred training steps, ten digits and more agree. After that, PyTorch holds few secrets: what its
autograd does is what you have derived.

**Afterwards you can** bring a model from one engine to the other and prove that nothing changed on the way; read
PyTorch's graph; say what autocast rounds, how the error grows, and which numbers must not be rounded; read what
`torch.compile` makes of a model; choose an implementation of attention and say what it keeps in memory.

**You need** [02 · Tensors and autograd](02_autograd.ipynb), [06 · Attention](06_attention.ipynb),
[07 · The Transformer](07_the_transformer.ipynb) and [08 · Pretraining](08_pretraining.ipynb); for the last section,
[09 · Generating text](09_generating_text.ipynb). And **PyTorch**:

    pip install -e ".[chapters,torch]"      # or, on Linux, ".[chapters,triton]", with our GPU kernels

A CPU is enough. Where Triton or a C++ compiler is missing, the cells that would use them say so and go on.
"""

# %%
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch  # not there? See the line `pip install` above
import torch.nn.functional as F

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # our kernels run step by step, on the CPU

from minillm import nn, ops, torch_ops
from minillm.data import corpus_text
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.torch_engine import TorchEngine
from minillm.generate import Sampling, generate
from minillm.hub.checkpoint import load_model_and_tokenizer
from minillm.kernels.availability import flash_unavailable_reason
from minillm.models import config_to_dict
from minillm.models.gpt import GPT, GPTConfig
from minillm.numpy_ops.layer_norm import layer_norm_backward
from minillm.optim import AdamW, param_groups
from minillm.port import to_numpy, to_torch
from minillm.settings import EngineConfig, TrainConfig
from minillm.tensor import Parameter, Tensor
from minillm.training.checkpoint import read_checkpoint, save_checkpoint
from minillm.workshop import check, progress, read_scale, show_versions, type_into_debugger
from minillm.workshop import on_pytorch as lab
from minillm.workshop.deliverables import corpus, python_model

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
STEPS = {"smoke": 10, "cpu": 100, "gpu": 300}[SCALE]
SEEDS = range({"smoke": 1, "cpu": 3, "gpu": 5}[SCALE])  # random starts, wherever two are compared
torch.set_num_threads(1)  # so that sums are taken in the same order on every machine
show_versions(SCALE)
print(f"PyTorch {torch.__version__.split('+')[0]}")

# %% [markdown]
r"""
## One model, two kinds of tensor

A model of ours never says "NumPy". `models/gpt.py` calls methods that both engines have (`+`, `reshape`, `transpose`)
and, for everything that has a name in a paper, functions of `ops.py`. Such a function checks shapes and asks one
question: whose tensor is this? `minillm.ops.backend` is the answer, three lines long.
"""

# %%
lab.draw_engines()

# %% [markdown]
r"""
So a layer is a piece of arithmetic that waits for numbers of either kind. Here the same function, `ops.layer_norm`,
gets ours and then PyTorch's. $x$ is $(N, D)$, 4 rows of 6 features.
"""

# %%
rng = np.random.default_rng(15)
x, w, b = rng.standard_normal((4, 6)), rng.standard_normal(6), rng.standard_normal(6)
ours = ops.layer_norm(Tensor(x), Parameter(w), Parameter(b))
theirs = ops.layer_norm(torch.tensor(x), torch.tensor(w, requires_grad=True), torch.tensor(b))
for y in (ours, theirs):
    print(f"{type(y).__module__}.{type(y).__name__:8s} from {ops.backend(y).__name__}", end="; ")
    print("remembers", y.node.backward.__name__ if isinstance(y, Tensor) else y.grad_fn.name())
print(f"largest difference {lab.largest_gap([ours], [theirs]):.0e}")
assert lab.largest_gap([ours], [theirs]) < 1e-14

# %% [markdown]
r"""
## The port, opened up

What is left: a *model* holds its weights as our `Parameter`s, and PyTorch's tools (optimizers, `state_dict`, several
GPUs) want a `torch.nn.Module`. One could write the model a second time as such a module. Then there would be two, and
each change would have to be made twice. Instead we build the second class **from the first, on the spot**: Python's
`type(name, bases, attributes)` makes a class while the program runs. Its bases are `torch.nn.Module`, which brings
`parameters()`, `to(device)`, hooks and the call, and ours, which brings `forward` and everything else. Then walk the
model that was *built*, and give each thing its counterpart:

| in our model | in the port |
| --- | --- |
| `Module` | an object of the class made for it |
| list of modules | `torch.nn.ModuleList` |
| `Parameter` | `torch.nn.Parameter`, a copy of its numbers |
| constant array (say RoPE's angles) | a buffer, which moves to a GPU with the rest |
| anything else | a copy |

Constructors are not run: they would draw other random weights. A memo remembers what was ported, so that what is *one*
object in our model (a layer used twice, a tied weight) is one object in the port. In short:
"""


# %%
def small_port(module, memo):
    """A module of ours, and all inside it, as one of PyTorch's."""
    if id(module) in memo:
        return memo[id(module)]
    cls = type(module)
    # torch.nn.Module comes first, and has a forward of its own that only raises: name ours again.
    made = type(cls.__name__, (torch.nn.Module, cls), {"forward": cls.forward})
    ported = memo[id(module)] = made.__new__(made)  # without our constructor
    torch.nn.Module.__init__(ported)
    for name, value in vars(module).items():
        if isinstance(value, nn.Module):
            value = small_port(value, memo)
        elif isinstance(value, list):
            value = torch.nn.ModuleList(small_port(item, memo) for item in value)
        elif isinstance(value, Parameter):
            value = memo.setdefault(id(value), torch.nn.Parameter(torch.tensor(value.data)))
        setattr(ported, name, value)
    return ported


V, T = 256, 32  # bytes as tokens: no tokenizer; positions


def new_gpt(seed=0, dtype=np.float64, n_layers=2):
    config = GPTConfig(V, T, n_layers=n_layers, n_heads=2, d_model=32)
    return GPT(config, rng=np.random.default_rng(seed)).to(dtype)


model = new_gpt()
ids = rng.integers(0, V, (2, T))
small, library = small_port(model, {}), to_torch(model)
bases = [f"{c.__module__}.{c.__name__}" for c in type(small).__bases__]
print("the port is a", " and a ".join(bases))
names = [name for name, _ in model.named_parameters()]
assert names == [name for name, _ in small.named_parameters()] == list(library.state_dict())
logits = model(ids)  # (2, T, V)
for name, ported in {"by hand": small, "minillm.port.to_torch": library}.items():
    gap = lab.largest_gap([logits], [ported(torch.tensor(ids))])
    print(f"{name}: {len(names)} parameters of the same names, logits differ by at most {gap:.0e}")
    assert gap < 1e-12

pair = nn.Module()
pair.first = pair.second = nn.Linear(3, 3, rng=rng)  # one layer under two names
together, apart = small_port(pair, {}), torch.nn.Module()
apart.first, apart.second = small_port(pair.first, {}), small_port(pair.second, {})
counts = [sum(p.numel() for p in m.parameters()) for m in (together, apart)]
print(f"a layer used twice: {counts[0]} numbers to learn with a memo, {counts[1]} without")
assert counts == [12, 24] and together.first is together.second

# %% [markdown]
r"""
`minillm.port.to_torch` does this, and a little more: dtype and device, constants as buffers, models too large for
NumPy's memory. `minillm.port.to_numpy` walks back.

> **Step into it.** Put a breakpoint on the line `y = library.blocks[0].mlp.fc(stream)` of the next cell (VS Code: click
> left of the line, then *Debug Cell*; JupyterLab: the bug at the top right) and step into it. You pass two functions of
> PyTorch's (`_wrapped_call_impl` and `_call_impl`, which run hooks), then `minillm.nn.Linear.forward`,
> `minillm.ops.linear` and `minillm.torch_ops.linear`. There our code ends; below begins PyTorch's C++. Do the same with
> `model` in place of `library` and a `Tensor`: you end in `minillm.numpy_ops.linear`, at the product itself.

Below, the same in Python's own debugger: stop in `linear`, go on, say where we are (outermost call first).
"""

# %%
stream = torch.tensor(rng.standard_normal((1, 3, 32)))  # (B, T, D)
y = library.blocks[0].mlp.fc(stream)  # a breakpoint here
names = {"library": library, "stream": stream, "linear": torch_ops.linear}
commands = ["tbreak linear", "continue", "where", "print(x.shape, weight.shape)"]
shown = type_into_debugger("library.blocks[0].mlp.fc(stream)", commands, names)
shown = lab.without_folders(shown)
print(shown)
assert "ops.py" in shown and "torch_ops.py" in shown and y.shape == (1, 3, 128)

# %% [markdown]
r"""
## The same numbers, to ten digits and more

Equal logits are a beginning. The backward passes were written by different people in different languages, and so were
the optimizers. So we train: the same batches, loss, backward and AdamW on both, and compare each loss on the way and
all weights at the end. The text is chapter 04's Python code, as bytes.
"""

# %%
folder = corpus(SCALE, "code")
text = {
    part: np.frombuffer(corpus_text(folder, part).encode(), np.uint8).astype(np.int64)
    for part in ("train", "val")
}


def batches(steps, seed, part="train", rows=8):
    """What is read and what comes next, (rows, T) each, at random places."""
    draw = np.random.default_rng(seed)
    for _ in range(steps):
        starts = draw.integers(0, len(text[part]) - T - 1, rows)
        window = text[part][starts[:, None] + np.arange(T + 1)]  # (rows, T + 1)
        yield window[:, :-1], window[:, 1:]


def train_both(model, ported, steps=STEPS, seed=0, eps=1e-6):
    """Train both, each by its own engine. -> the gap of the losses at each step (steps,), all losses (steps,)."""
    settings = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": eps}
    ours = AdamW(param_groups(model, 0.1), **settings)
    theirs = torch.optim.AdamW(param_groups(ported, 0.1), **settings)
    gaps, losses = [], []
    for ids, targets in batches(steps, seed):
        model.zero_grad()
        ported.zero_grad()
        our_loss = model(ids, targets)
        their_loss = ported(torch.tensor(ids), torch.tensor(targets))
        our_loss.backward()
        their_loss.backward()
        ours.step()
        theirs.step()
        gaps.append(abs(our_loss.item() - their_loss.item()))
        losses.append(our_loss.item())
    return np.array(gaps), np.array(losses)


gaps = {"float64": []}
for seed in progress(SEEDS, "training both"):
    model = new_gpt(seed)
    ported = to_torch(model)
    gap, losses = train_both(model, ported, seed=seed)
    apart = lab.largest_gap(model.parameters(), ported.parameters())
    gaps["float64"].append(gap)
    print(
        f"start {seed}: loss {losses[0]:.2f} → {losses[-1]:.2f}; largest gap of the losses {gap.max():.0e}, "
        f"of the weights at the end {apart:.0e}"
    )
    assert gap.max() < 1e-10 and apart < 1e-9 and losses[-1] < losses[0] - 0.2

# %% [markdown]
r"""
**Why not 0?** A computer's sum depends on the order of its terms: each addition is rounded, with a relative error of at
most $u = 2^{-53} \approx 10^{-16}$ in float64. A sum of $n$ terms $x_i$, taken in any order, is off by no more than
about $(n - 1)\,u \sum_i |x_i|$ (Higham 2002, *Accuracy and Stability of Numerical Algorithms*, section 4.2). NumPy,
PyTorch and a GPU take different orders, and all are right. From step to step the gap then goes through the model, the
optimizer and into the next weights, and tends to grow, in some starts more than in others.

**Why in float64, when nobody trains in it?** Because there a mistake has nowhere to hide. We train three more pairs:
one in float32, where $u = 2^{-24} \approx 6 \cdot 10^{-8}$, and two in float64 in which the port has a small mistake of
a kind that really happens: GELU computed exactly instead of by its tanh formula, and a layer norm with
$\epsilon = 10^{-6}$ instead of $10^{-5}$.
"""

# %%
gaps["float32"] = []
for seed in progress(SEEDS, "in float32"):
    model = new_gpt(seed, np.float32)
    gaps["float32"].append(train_both(model, to_torch(model), seed=seed)[0])

model = new_gpt()
wrong_gelu = to_torch(model)
for block in wrong_gelu.blocks:
    block.mlp.forward = lambda x, mlp=block.mlp: mlp.proj(F.gelu(mlp.fc(x)))  # exact
gaps["float64, another GELU"] = [train_both(model, wrong_gelu)[0]]

model = new_gpt()
wrong_eps = to_torch(model)
for block in wrong_eps.blocks:
    block.norm_1.eps = block.norm_2.eps = 1e-6
gaps["float64, another ε in the norms"] = [train_both(model, wrong_eps)[0]]

for name, runs in gaps.items():
    first = np.mean([run[0] for run in runs])
    print(f"{name:32s}: first gap {first:.0e}, largest {np.max(runs):.0e}")
hidden = gaps["float64, another GELU"][0]
assert np.max(gaps["float64"]) < 1e-10 < hidden[0] < hidden.max()
assert hidden[0] < max(1e-6, np.max(gaps["float32"]))  # at first, less than float32's rounding
lab.plot_gaps({name: np.array(runs) for name, runs in gaps.items()}, 1e-10)

# %% [markdown]
r"""
In float64 there is an empty band of many powers of ten between what is right (blue) and what is wrong (green and
purple): the line at $10^{-10}$ needs no judgement. In float32 there is no such band: the wrong GELU begins *below* the
rounding of a port that is right, and at the end its gap is no larger than that port's. One would have said: rounding.
(A gap of 0 is drawn at the lower edge.) So the order is: prove in float64, then run in what you like.

## A weight that does nothing, and Adam

Above, AdamW's $\epsilon$ was $10^{-6}$, not the usual $10^{-8}$. Here is why. The bias of the keys, $b_K\,(D)$, adds
the same number to all scores of a query: $q_t \cdot (k_s + b_K) = q_t \cdot k_s + q_t \cdot b_K$, and the last term
does not depend on $s$. Softmax does not change when the same number is added to all its inputs. So this bias has no
effect, and its gradient $g$ is exactly 0, in mathematics. On a computer it is what is left when numbers cancel, say
$10^{-19}$, with another sign on each engine. Adam divides it by its own size (chapter 08): the step is
$\eta\,\hat m/(\sqrt{\hat v} + \epsilon)$, so

$$|\text{step}| \approx \eta\,\frac{|g|}{|g| + \epsilon} \approx \eta\,\frac{|g|}{\epsilon}
\quad\text{for } |g| \ll \epsilon.$$

Noise is made larger by $1/\epsilon$, step after step. If that is the reason, the gap of the keys' bias must grow as
$1/\epsilon$, and the other two thirds of the same array, the biases of queries and values, must not.
"""

# %%
EPSILONS = [1e-5, 1e-7, 1e-9, 1e-11, 1e-13, 1e-15]
by_eps = {"bias of the queries": [], "bias of the keys": [], "bias of the values": []}
losses_apart = []
for eps in progress(EPSILONS, "one run for each ε"):
    model = new_gpt()
    ported = to_torch(model)
    losses_apart.append(train_both(model, ported, steps=max(10, STEPS // 2), eps=eps)[0].max())
    ours, theirs = model.blocks[0].attn.qkv.bias, ported.blocks[0].attn.qkv.bias
    thirds = (lab.as_array(bias).reshape(3, -1) for bias in (ours, theirs))  # (3, D) each
    for values, a, b in zip(by_eps.values(), *thirds):
        values.append(np.abs(a - b).max())
slope = np.polyfit(np.log(EPSILONS[1:]), np.log(by_eps["bias of the keys"][1:]), 1)[0]
print(f"slope of the keys' bias in the picture: {slope:.2f}")
print(f"largest gap of the losses: {max(losses_apart):.0e}, at ε = 1e-15 {losses_apart[-1]:.0e}")
assert -1.3 < slope < -0.7 and max(losses_apart) < 1e-9
lab.plot_eps(EPSILONS, by_eps)

# %% [markdown]
r"""
The keys' bias follows $1/\epsilon$ over many powers of ten; the others stay. The losses do not notice, since the bias
does nothing: it only drifts. (Llama leaves such biases out altogether.) In our test, which asks for $10^{-10}$ in all
weights, $\epsilon = 10^{-6}$ keeps this drift small without a look at single weights:
`tests/models/test_parity_models.py` does this chapter's experiment for every model of the library.

## What autograd did for us

Call `backward()` on a PyTorch loss, and gradients appear. By now we know what must have happened. Every result of an
operation has a `grad_fn`, our `Node`; its `next_functions` are our `parents`; what the derivative needs is saved in it.
The same block, forward on both engines, and both graphs walked from the end, in the order of the backward pass:
"""

# %%
gpt, torch_gpt = new_gpt(), to_torch(new_gpt())
x = rng.standard_normal((4, T, 32))  # (B, T, D)
our_out = gpt.blocks[0](Tensor(x, requires_grad=True))
their_out = torch_gpt.blocks[0](torch.tensor(x, requires_grad=True))
our_nodes, their_nodes = lab.our_nodes(our_out), lab.torch_nodes(their_out)
their_names = [lab.our_name(node) for node in their_nodes]
unmatched = [name for name in map(lab.our_name, our_nodes) if name not in their_names]
print(f"{len(our_nodes)} nodes of ours; {len(their_nodes)} of PyTorch's, ", end="")
print(f"of which {sum('AccumulateGrad' in n.name() for n in their_nodes)} stand for leaves")
assert unmatched == []
lab.draw_graphs(our_nodes, their_nodes)

# %% [markdown]
r"""
Line by line the same skeleton. What PyTorch has in addition (grey) is bookkeeping of shapes: `linear` flattens
$(B, T, D)$ to rows (`View`), transposes the weight (`T`), multiplies (`Addmm`), and unflattens; we do the four in one
function. Each leaf has a node of its own, `AccumulateGrad`, which adds to `.grad` (not drawn). The derivation behind
each black name on the right stands in the file of `numpy_ops/` that has the name on the left.

**What is saved** between forward and backward decides how much memory training takes (chapter 17). Parameters are there
anyway and not counted.
"""

# %%
kept = {
    "minillm": lab.saved_by_op(our_nodes, gpt.parameters()),
    "PyTorch": lab.saved_by_op(their_nodes, torch_gpt.parameters()),
}
one = x.nbytes  # (B, T, D) in float64
print(f"kept for the backward pass of a block, in units of its input ({one:,} bytes):")
for name, by_op in kept.items():
    parts = ", ".join(f"{op} {size / one:.2f}" for op, size in sorted(by_op.items()))
    print(f"  {name:8s}: {parts}; together {sum(by_op.values()) / one:.2f}")
layer_norm = {name: by_op["layer_norm"] / one for name, by_op in kept.items()}
assert all(1.9 < size < 2.5 for size in layer_norm.values())

# %% [markdown]
r"""
Nearly the same, by different choices: our layer norm keeps $\hat x$ and $1/\sigma$ (chapter 02's $r$), PyTorch's keeps
$x$, mean and $1/\sigma$, and computes $\hat x$ again; our GELU keeps its slope, PyTorch's its input. Attention differs
for a reason that gets a section of its own.

**The same contract.** PyTorch takes a backward of one's own, as a `torch.autograd.Function`: a forward that saves, and
a backward that gets the gradient of the result and returns that of each input. It is our pair of functions, under other
names. So let PyTorch run *our* NumPy backward of layer norm, unchanged, and check it with PyTorch's own finite
differences. (Chapter 16 puts a GPU kernel in the same place.)
"""


# %%
class OurLayerNorm(torch.autograd.Function):
    """Forward in PyTorch; the backward is minillm.numpy_ops.layer_norm.layer_norm_backward itself."""

    @staticmethod
    def forward(ctx, x, weight, bias):  # x (N, D), weight and bias (D,)
        centred = x - x.mean(dim=-1, keepdim=True)
        rstd = 1 / torch.sqrt((centred**2).mean(dim=-1, keepdim=True) + 1e-5)  # (N, 1)
        ctx.save_for_backward(centred * rstd, rstd, weight)  # our Node's `saved`
        return centred * rstd * weight + bias

    @staticmethod
    def backward(ctx, grad):  # grad (N, D)
        saved = (tensor.numpy() for tensor in ctx.saved_tensors)
        ours = layer_norm_backward(grad.numpy(), ctx.needs_input_grad, *saved)
        return tuple(torch.from_numpy(g) for g in ours)


def doubles(*shape):
    return torch.tensor(rng.standard_normal(shape), requires_grad=True)


inputs = doubles(4, 6), doubles(6), doubles(6)
print("finite differences agree:", torch.autograd.gradcheck(OurLayerNorm.apply, inputs))
a = torch.autograd.grad(OurLayerNorm.apply(*inputs).square().sum(), inputs)
b = torch.autograd.grad(F.layer_norm(inputs[0], (6,), *inputs[1:]).square().sum(), inputs)
print(f"and PyTorch's own layer norm, to {lab.largest_gap(a, b):.0e}")
assert lab.largest_gap(a, b) < 1e-12

print("\na second backward through the same graph:")
for loss in (gpt(ids, ids), torch_gpt(torch.tensor(ids), torch.tensor(ids))):
    loss.backward()
    try:
        loss.backward()
    except RuntimeError as error:
        print(f"  {type(loss).__module__.split('.')[0]:8s}: {str(error)[:92]} ...")

z = torch.tensor(3.0, requires_grad=True)
(slope,) = torch.autograd.grad(z**3, z, create_graph=True)  # 3z², itself with a graph
(curvature,) = torch.autograd.grad(slope, z)
print(f"\nonly PyTorch's: a derivative of a derivative, (z³)'' at 3 = {curvature.item():.0f}")
assert curvature.item() == 18

# %% [markdown]
r"""
Both free a graph as they walk it, and say so in nearly the same words; in both, gradients of several calls add up.
PyTorch's backwards are themselves made of operations with a `grad_fn`, so that it can derive twice. Ours work on plain
arrays, which is why you can read them.

## Autocast, and where numbers part

Trained models are rounded everywhere, and it works. What exactly is rounded? Chapter 08 has met the two 16-bit formats;
here they are beside the others. A float has a sign, $e$ bits for the power of 2, and $m$ bits for the digits after it;
rounding to the nearest has a relative error of at most $u = 2^{-(m+1)}$.

| | sign, $e$, $m$ | $u$ | largest |
| --- | --- | --- | --- |
| float64 | 1, 11, 52 | $1.1 \cdot 10^{-16}$ | $10^{308}$ |
| float32 | 1, 8, 23 | $6.0 \cdot 10^{-8}$ | $3 \cdot 10^{38}$ |
| float16 | 1, 5, 10 | $4.9 \cdot 10^{-4}$ | 65,504 |
| bfloat16 | 1, 8, 7 | $3.9 \cdot 10^{-3}$ | $3 \cdot 10^{38}$ |

bfloat16 is float32 with 16 bits cut off: the same range, two to three decimal digits. Matrix units of GPUs multiply it
many times as fast, and it takes half the memory. **Autocast** does not change the weights. Inside
`with torch.autocast(...)`, each operation is on a list: matrix products round their inputs to 16 bits, losses and the
like stay in float32, the rest takes what comes. `lab.Watch` notes each operation that PyTorch runs, with the types that
go in and come out:
"""

# %%
single = to_torch(new_gpt(dtype=np.float32))
assert {p.dtype for p in single.parameters()} == {torch.float32}
t_ids = torch.tensor(ids)
with torch.autocast("cpu", torch.bfloat16), lab.Watch() as watch:
    loss = single(t_ids, t_ids)
counted = {}
for row in watch.rows:
    counted[row] = counted.get(row, 0) + 1
for (name, given, out), times in counted.items():
    if "int64" not in out:
        print(f"{times:2d} × {name:44s} {', '.join(given):40s} → {out}")
loss.backward()
print(f"gradients: {', '.join({str(p.grad.dtype) for p in single.parameters()})}; loss: {loss.dtype}")
products = [row for row in watch.rows if row[0] == "addmm"]
assert all(out == "bfloat16" for _, _, out in products) and loss.dtype == torch.float32
assert all(p.grad.dtype == torch.float32 for p in single.parameters())

# %% [markdown]
r"""
Read it as a story. Embeddings and the residual stream are float32: `add` takes a float32 stream and a bfloat16 branch,
and the wider type wins. Before each product (`addmm`), inputs and weights are copied to bfloat16 (`to_copy`). Attention
and GELU work on what the product left, in bfloat16. Layer norms read the stream, in float32. The loss is float32, and
each gradient comes back in the type of its weight.

**How the error grows.** Suppose a number goes through $n$ roundings that know nothing of each other, each with a
relative error of size $r$ (root mean square). Errors that are independent add up by their squares, so the result is off
by about $r\sqrt n$, not $rn$. A model kept wholly in bfloat16 rounds its residual stream twice in each layer, at its
two sums, and three times before the first (two tables, their sum): $n = 2l + 3$ after $l$ layers. $r$ can be measured
on random numbers. That makes a prediction without a free number; the branches' own errors come on top. We compare a GPT
of 16 layers, exact in float64, with the same in other precisions.
"""

# %%
LAYERS = 4 if SCALE == "smoke" else 16
sample = torch.tensor(rng.standard_normal(100_000))
r = lab.relative_error(sample.to(torch.bfloat16), sample)
print(f"rounding to bfloat16: relative error r = {r:.5f}")

ways = {
    "bfloat16 weights": (torch.bfloat16, None),
    "autocast to bfloat16": (torch.float32, torch.bfloat16),
    "autocast to float16": (torch.float32, torch.float16),
    "float32": (torch.float32, None),
}


def features(ported, low=None):
    """What each layer hands on, (B, T, D) each."""
    rounded = torch.autocast("cpu", low, enabled=low is not None)
    with torch.no_grad(), rounded, lab.outputs_by_name(ported) as found:
        ported(t_ids)
    return [found[f"blocks.{layer}"] for layer in range(LAYERS)]


errors = {name: [] for name in ways}
for seed in SEEDS:
    deep = new_gpt(seed, n_layers=LAYERS)
    exact = features(to_torch(deep))
    for name, (dtype, low) in ways.items():
        found = features(to_torch(deep, dtype=dtype), low)
        errors[name].append([lab.relative_error(a, e) for a, e in zip(found, exact)])
errors = {name: np.array(runs) for name, runs in errors.items()}  # (seeds, layers)
expected = r * np.sqrt(2 * np.arange(1, LAYERS + 1) + 3)
last = {name: runs[:, -1].mean() for name, runs in errors.items()}
for name, error in last.items():
    grown = error / errors[name][:, 0].mean()
    print(f"{name:21s}: {error:.1e} after {LAYERS} layers, {grown:.1f} times the error after one")
bits = last["autocast to bfloat16"] / last["autocast to float16"]
print(f"bfloat16 has 3 bits fewer than float16: {bits:.1f} times the error")
assert 0.6 < last["bfloat16 weights"] / expected[-1] < 1.6 and 5 < bits < 12
assert last["float32"] < last["autocast to float16"] < last["autocast to bfloat16"] < last["bfloat16 weights"]
lab.plot_depth(errors, expected)

# %% [markdown]
r"""
The prediction (dotted) meets the measured error of the bfloat16 model within a few tenths, and all curves grow slowly,
about as a root: depth is not what makes low precision fail. Autocast does several times better with the same products,
since it rounds on the branches and leaves the stream alone. (A trained model is no random one; its features have
outliers. The last section measures one.)

**Learning** is another matter. Chapter 08 found that an update smaller than half the spacing of bfloat16 is lost, and
imitated it. Now for real. From three starts, a model is trained in float32; then all go on from the same weights with a
small, falling learning rate, as near the end of a run: in float32, under autocast, and with weights, gradients and
Adam's means in bfloat16. Same batches for all.
"""

# %%
held_out = [torch.tensor(a) for a in next(batches(1, 99, "val", rows=256))]  # (256, T) each


def held_out_loss(ported):
    with torch.no_grad():
        return ported(*held_out).item()


def go_on(ported, steps, seed, lr, autocast=False, falls=True):
    """Train; -> held-out losses, five of them, and the share of weights that a step changes, on average."""
    optimizer = torch.optim.AdamW(param_groups(ported, 0.1), lr=lr, betas=(0.9, 0.95))
    measured, changed = [], []
    for step, batch in enumerate(batches(steps, seed), start=1):
        factor = 1 - 0.9 * step / steps if falls else min(1, step / 20)
        for group in optimizer.param_groups:
            group["lr"] = lr * factor
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = ported(*map(torch.tensor, batch))
        optimizer.zero_grad()
        loss.backward()
        before = [p.detach().clone() for p in ported.parameters()]
        optimizer.step()
        moved = sum((a != p).sum().item() for a, p in zip(before, ported.parameters()))
        changed.append(moved / sum(p.numel() for p in ported.parameters()))
        if step % (steps // 5) == 0:
            measured.append(held_out_loss(ported))
    return measured, np.mean(changed)


kinds = {
    "float32": (torch.float32, False),
    "autocast": (torch.float32, True),
    "bfloat16 weights": (torch.bfloat16, False),
}
curves, shares = {name: [] for name in kinds}, {name: [] for name in kinds}
for seed in progress(SEEDS, "three precisions"):
    first = to_torch(new_gpt(seed, np.float32))
    go_on(first, 2 * STEPS, seed, 3e-3, falls=False)
    start, base = to_numpy(first), held_out_loss(first)
    for name, (dtype, autocast) in kinds.items():
        ported = to_torch(start, dtype=dtype)
        measured, share = go_on(ported, STEPS, 100 + seed, 3e-4, autocast)
        curves[name].append(np.array([base, *measured]) - base)
        shares[name].append(share)
fallen = {name: -np.array(runs)[:, -1] for name, runs in curves.items()}  # (seeds,)
for name, values in fallen.items():
    sd = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
    part = 100 * np.mean(shares[name])
    print(f"{name:16s}: fell by {values.mean():.4f}{sd}; a step changes {part:.0f}% of the weights")
lag = fallen["float32"] - fallen["bfloat16 weights"]
print(f"float32 against bfloat16 weights, start by start: {np.round(lag, 4)}")
print(f"float32 against autocast: {np.round(fallen['float32'] - fallen['autocast'], 4)}")
if SCALE != "smoke":
    assert np.all(lag > 0) and np.all(lag > 5 * np.abs(fallen["float32"] - fallen["autocast"]))
    assert np.mean(shares["bfloat16 weights"]) < 0.5 < np.mean(shares["float32"])
lab.plot_continued({k: np.array(v) for k, v in curves.items()}, range(0, STEPS + 1, STEPS // 5))

# %% [markdown]
r"""
Autocast's curve lies on float32's: what it rounds is used once and thrown away. The model in bfloat16 falls behind in
every start, because most weights do not move: their updates are below half the spacing. So the rule is not "16 bits are
enough" but: **round what flows, keep what accumulates** (weights, Adam's means, sums) in float32.

## Compile, and what it fuses

PyTorch runs one operation after the other, each a loop over memory: read all inputs, write the output. GELU alone
reads and writes megabytes to do a little arithmetic. `torch.compile` looks at many operations at once. Step one,
**tracing**: it runs our Python with stand-ins for tensors, notes each operation, and keeps the list as a graph. Anyone
may take that graph: a *backend* is a function. Ours only looks.
"""

# %%
graphs = []


def look(graph, inputs):
    """A backend for torch.compile that keeps the graph and runs it as it is."""
    graphs.append([n for n in graph.graph.nodes if n.op.startswith("call")])
    return graph


block = single.blocks[0]
stream = torch.tensor(rng.standard_normal((4, T, 32)), dtype=torch.float32)
torch.compiler.reset()
traced = torch.compile(block, backend=look, fullgraph=True)(stream)
print(f"a block: {len(graphs)} graph of {len(graphs[0])} calls:")
called = [getattr(n.target, "__name__", str(n.target)) for n in graphs[0]]
print("  " + ", ".join(called))
assert len(graphs) == 1 and lab.largest_gap([traced], [block(stream)]) < 1e-5


def by_value(x):
    """Which way it goes depends on numbers that a stand-in does not have."""
    y = x * 2
    if y.sum() > 0:
        y = y + 1
    return y * 3


graphs.clear()
torch.compile(by_value, backend=look)(torch.ones(3))
print(f"a function with an `if` on a tensor's value: {len(graphs)} graphs")
assert len(graphs) == 2

# %% [markdown]
r"""
Gone are the modules, `ops.backend` and all checks of shapes: they were Python, ran once while tracing, and left a flat
list. (If a later call comes with another shape, the tracing is done again.) An `if` on a tensor's *value* breaks the
graph in two, with Python in between; a model of ours has none, and `fullgraph=True` says "raise, if there is".

Step two, **fusing**: PyTorch's own backend, Inductor, puts neighbouring operations into one loop, so that numbers are
read once, taken through several operations in registers, and written once. It writes C++ for a CPU and Triton for a
GPU. We compile one block, forward and backward, and read only the names of what it wrote: each names the operations
inside. It takes some seconds and a C++ compiler; without one, or in a test, the cell only counts operations.
"""

# %%
stream.requires_grad_()
with lab.Watch() as watch:
    block(stream).sum().backward()
eager = [name for name, _, out in watch.rows]
print(f"not compiled: {len(eager)} operations, forward and backward, each a trip through memory")

torch.compiler.reset()
compiled = torch.compile(block, fullgraph=True)
written, reason = [], "not compiled at smoke scale"
if SCALE != "smoke":
    print("compiling ...")
    written, reason = lab.generated_code(lambda: compiled(stream).sum().backward())
if not written:
    print(f"No kernels to show ({reason}); the chapter goes on without.")
for direction, source in zip(("forward", "backward"), written):
    names = lab.kernels_in(source)
    print(f"{direction}: {len(names)} generated loops")
    print("\n".join(f"    {name}" for name in names))
if written:
    loops = sum(len(lab.kernels_in(source)) for source in written)
    gap = lab.largest_gap([compiled(stream)], [block(stream)])
    print(f"compiled and plain differ by {gap:.0e}: sums in another order")
    assert 0 < loops < len(eager) and gap < 1e-5

# %% [markdown]
r"""
Read a name as a sentence: `add_native_layer_norm` is the residual sum and the norm after it, in one loop. What was not
fused are the big products and attention: they have hand-made kernels already, and are called as they are. In the
backward pass the same happens with derivatives: GELU's slope, the sums for the bias. So what stands *between* two
products costs about one trip through memory. How much time that saves depends on what one waits for; chapter 16 counts
it for a GPU.

## Three attentions

Attention is where fusing pays most and where a compiler cannot find it alone, since the softmax needs a whole row
before it can go on. There are three implementations, chosen by `impl`: **reference** writes down the $(T, T)$ scores of
each head, as chapter 06; **sdpa** is PyTorch's; **triton** our own kernel, which chapter 16 builds. The last two never
hold a whole row of scores. First: do they agree? Errors are relative, against float64.
"""

# %%
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
shape = (1, 2, 64, 32)  # (B, H, T, D)
q64, k64, v64, g64 = (torch.tensor(rng.standard_normal(shape), device=DEVICE) for _ in range(4))


def attend(impl, dtype):
    """Output and the gradients of q, k and v, (B, H, T, D) each."""
    q, k, v = (x.to(dtype, copy=True).requires_grad_() for x in (q64, k64, v64))
    out = ops.attention(q, k, v, causal=True, impl=impl)
    out.backward(g64.to(dtype))
    return out, q.grad, k.grad, v.grad


truth = attend("reference", torch.float64)
roundoff = {torch.float64: 2**-53, torch.float32: 2**-24, torch.bfloat16: 2**-8}
print(f"{'':10s} {'dtype':9s} {'output':>8s} {'dq':>8s} {'dk':>8s} {'dv':>8s}")
for dtype, u in roundoff.items():
    for impl in ("reference", "sdpa", "triton"):
        reason = flash_unavailable_reason(*(x.to(dtype) for x in (q64, k64, v64)))
        if impl == "triton" and reason is not None:
            print(f"triton cannot run here in {lab.short(dtype)}: {reason}.")
            continue
        found = [lab.relative_error(a, e) for a, e in zip(attend(impl, dtype), truth)]
        print(f"{impl:10s} {lab.short(dtype):9s} " + " ".join(f"{error:8.0e}" for error in found))
        assert max(found) < 30 * u or DEVICE == "cuda"

# %% [markdown]
r"""
The three agree as well as their precision allows, forward and backward: within a few roundings. Which is "more exact"
is a matter of luck and of the order of sums.

**What they keep.** For the backward pass, reference keeps the weights $P$: for $B = 1$ these are $H T^2$ numbers, in
float32 $4HT^2$ bytes, and some masks and copies besides. The others keep $q, k, v$ and the output, each $H T D$
numbers, and one number for each row, the logarithm of its sum: $4\,(4HTD + HT)$ bytes. Quadratic against linear.
"""

# %%
H, D = 2, 32
LENGTHS = [64, 128, 256] if SCALE == "smoke" else [64, 128, 256, 512, 1024]


def heads(length):
    return [torch.randn(1, H, length, D, requires_grad=True) for _ in range(3)]


kept = {"reference": [], "sdpa": []}
for length in LENGTHS:
    q, k, v = heads(length)
    for impl, sizes in kept.items():
        sizes.append(lab.saved_bytes(partial(ops.attention, q, k, v, causal=True, impl=impl)))
counted = {
    "reference": [4 * H * n * n for n in LENGTHS],
    "sdpa": [4 * (4 * H * n * D + H * n) for n in LENGTHS],
}
for i, length in enumerate(LENGTHS):
    ratio = kept["reference"][i] / kept["sdpa"][i]
    print(f"T = {length:4d}: reference keeps {ratio:.1f} times the memory of sdpa")
assert np.allclose(kept["sdpa"], counted["sdpa"], rtol=0.1)
assert 1 < kept["reference"][-1] / counted["reference"][-1] < 2
reason = flash_unavailable_reason(*heads(LENGTHS[0]))
if reason is None:
    triton = partial(ops.attention, *heads(LENGTHS[0]), causal=True, impl="triton")
    ratio = lab.saved_bytes(triton) / kept["sdpa"][0]
    print(f"T = {LENGTHS[0]}: triton keeps {ratio:.2f} times as much as sdpa")
lab.plot_memory(LENGTHS, kept, counted)

# %% [markdown]
r"""
The points of sdpa lie on the line that was counted. Reference has more than its $P$ while $T$ is short, since $q$, $k$,
$v$ and their scaled copies are kept too.

**And time?** Figures depend on your machine, so nothing is asserted: ratios of processor time on one thread, measured
in turn. Triton is not among them: its interpreter runs the kernel as Python, for looking and not for speed. NumPy and
PyTorch are compared on chapter 08's Llama, which completes Python code.
"""

# %%
llama, tokenizer = load_model_and_tokenizer(python_model(SCALE))
torch_llama = to_torch(llama)
code = np.array(tokenizer.encode(corpus_text(folder, "val")[:20_000]))
context = llama.config.context
rows = code[: 4 * context].reshape(4, context)  # (4, context)
t_rows = torch.tensor(rows)
prompt = tokenizer.encode("def read(self")


def step(model, ids):
    model.zero_grad()
    model(ids, ids).backward()


def write(model, seed=0):
    sampling = Sampling(temperature=0.7)
    return generate(model, [prompt], max_new_tokens=40, sampling=sampling, seed=seed)[0]


def attention_step(impl, qkv):
    return ops.attention(*qkv, causal=True, impl=impl).sum().backward()


for length in LENGTHS[::2]:
    qkv = heads(length)
    both = (partial(attention_step, impl, qkv) for impl in ("reference", "sdpa"))
    ratio = lab.ratio_of_times(*both)
    print(f"attention, T = {length:4d}: reference takes {ratio:.1f} times as long as sdpa")
ratio = lab.ratio_of_times(lambda: step(llama, rows), lambda: step(torch_llama, t_rows))
print(f"forward and backward of the Llama: NumPy takes {ratio:.2f} times as long as PyTorch")
ratio = lab.ratio_of_times(lambda: write(llama), lambda: write(torch_llama), rounds=2)
print(f"writing 40 tokens, one by one: NumPy takes {ratio:.2f} times as long as PyTorch")

# %% [markdown]
r"""
Below 1, NumPy is faster. On one core, and at this size, that is no wonder: both call the same kind of library for the
products, and where tensors are small, what remains is the price of each call. PyTorch's reasons are elsewhere: GPUs,
16-bit matrix units, many processes.

## Checkpoints cross

A checkpoint holds arrays by name, weights and Adam's means for each (in the format safetensors, which chapter
[20](20_the_ecosystem.ipynb) reads byte by byte), and names are the same on both engines. So a run may change engines in
its middle. We train ten steps, save, load and train ten more, in all four combinations, by the library's engines,
`minillm.engines.numpy_engine.NumpyEngine` and `minillm.engines.torch_engine.TorchEngine`. The roads must end at the
same weights.
"""

# %%
config = TrainConfig(eps=1e-6)
plain = EngineConfig("torch", device="cpu", precision="full", compile="off")
engines = {"numpy": NumpyEngine, "torch": partial(TorchEngine, settings=plain)}


def walk(name, seed, to, start=None):
    """Ten steps on an engine, from a checkpoint if one is given, then a checkpoint. -> its weights by name"""
    run = engines[name](new_gpt(), config)
    if start is not None:
        point = read_checkpoint(start)
        run.load(point.model, point.optimizer, None)
    for batch in batches(10, seed):
        run.forward_backward([batch])
        run.clip_gradients(1.0)
        run.step(3e-3)
    arrays = {"model": run.model_arrays(), "optimizer": run.optimizer_arrays()}
    save_checkpoint(to, config=config_to_dict(run.model.config), state={}, **arrays)
    return read_checkpoint(to).model


with tempfile.TemporaryDirectory() as work:
    ends = {}
    for first in engines:
        walk(first, 1, Path(work, first))
        for second in engines:
            road = Path(work, f"{first}-{second}")
            ends[f"{first} → {second}"] = walk(second, 2, road, Path(work, first))
home = ends["numpy → numpy"]
for road, weights in ends.items():
    gap = lab.largest_gap(weights.values(), [home[name] for name in weights])
    print(f"{road}: {len(weights)} arrays, largest gap to numpy → numpy {gap:.0e}")
    assert gap < 1e-10

# %% [markdown]
r"""
With whole runs it is one command, whichever engine began: `minillm pretrain --resume --out RUN --engine torch`. So a
model can be begun on a laptop, in code that one can read, and go on where there is a GPU.

## Writing on either

Last, the Llama writes. `generate` draws from NumPy's random numbers on both engines (chapter 09), so with the same
seed both must write the same text, unless a draw falls into the narrow gap between two roundings. And in bfloat16?
"""

# %%
low_llama = to_torch(llama, dtype=torch.bfloat16)
texts = {}
for name, llm in {"NumPy": llama, "PyTorch": torch_llama, "bfloat16": low_llama}.items():
    texts[name] = [write(llm, seed) for seed in range(5)]


def same_until(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


for name in ("PyTorch", "bfloat16"):
    agreed = [same_until(a, b) for a, b in zip(texts["NumPy"], texts[name])]
    print(f"{name} and NumPy: tokens until the texts part, of 40, for five seeds: {agreed}")
with torch.no_grad():
    losses = [m(t_rows[:, :-1], t_rows[:, 1:]).item() for m in (torch_llama, low_llama)]
print(f"loss on held-out code: float32 {losses[0]:.4f}, bfloat16 {losses[1]:.4f}")
print("\n" + tokenizer.decode(prompt + texts["PyTorch"][0]))
print("─" * 60 + "\n" + tokenizer.decode(prompt + texts["bfloat16"][0]))
assert sum(a == b for a, b in zip(texts["NumPy"], texts["PyTorch"])) >= 4
assert abs(losses[0] - losses[1]) < 0.03

# %% [markdown]
r"""
The loss of the rounded model is the same to a few thousandths: as a language model it has lost nothing that one can
measure here. Its texts are others all the same. One draw that lands on the other side of a border is enough; from then
on it reads another text. So equal texts are a hard test of an engine, and unequal ones are no sign of a worse model.

## Summary

- A model is said once; `ops.backend` asks whose tensor it is. The port makes a class from ours and `torch.nn.Module`,
  and walks the model that was built, with a memo.
- Prove a port in float64: right and wrong lie many powers of ten apart. In float32 a small mistake looks like rounding.
- A gradient that is 0 in mathematics is noise on a computer, and Adam makes noise larger by up to $1/\epsilon$.
- `grad_fn` is our `Node`, `next_functions` our `parents`, `save_for_backward` our `saved`.
- Autocast rounds the inputs of products, not weights, sums or losses. Errors grow as the root of the depth. Round what
  flows, keep what accumulates.
- Compiling: trace to a flat graph, fuse what lies between the products.
- The three attentions agree; reference keeps $T^2$ numbers, the others $T$.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are
folded below.
"""

# %% [markdown]
r"""
### Exercise 1: an operation for both engines (easy, core, 10 minutes)

Gemma 2 keeps its logits within bounds by $\operatorname{softcap}(x) = c \tanh(x/c)$. Write it so that it runs on our
`Tensor` and on PyTorch's, and gradients flow on both.
"""


# %% tags=["exercise"]
def softcap(x, c):
    """x: a Tensor or a torch.Tensor of any shape; c: a number. -> the same kind and shape"""
    return None


with check():
    for kind in (Tensor, torch.tensor):
        given = kind(np.array([[-40.0, 0.5, 3.0], [0.0, 10.0, 90.0]]), requires_grad=True)
        out = softcap(given, 30.0)
        side = "NumPy engine" if kind is Tensor else "PyTorch"
        assert out is not None, "softcap returns nothing yet: return a tensor of the kind of x."
        assert type(out) is type(given), (
            f"On the {side} the result is a {type(out).__name__}, not a {type(given).__name__}."
        )
        want = 30 * np.tanh(lab.as_array(given) / 30)
        assert out.shape == given.shape and np.allclose(lab.as_array(out), want), (
            f"On the {side} the values are wrong: the largest possible is c, and near 0 it is x."
        )
        assert out.requires_grad, (
            f"On the {side} the result has no graph: compute with the tensor, not with its numbers."
        )
        out.sum().backward()
        assert given.grad is not None and np.allclose(lab.as_array(given.grad), 1 - (want / 30) ** 2), (
            f"On the {side} the gradient is wrong: something was computed outside the graph."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

Methods that both kinds have, and a Python number:

```python
def softcap(x, c):
    return (x / c).tanh() * c
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: a backward for PyTorch (medium, core, 20 minutes)

RMS norm (chapter 07) is $y = x\,r\,w$ with $r = 1/\sqrt{\operatorname{mean}(x^2) + \epsilon}$; $x$ is $(B, T, D)$, $w$
is $(D)$, $r$ is $(B, T, 1)$. With $\hat x = x r$ and $h = \frac{dL}{dy} w$: $\frac{dL}{dx} = r\,(h - \hat x
\operatorname{mean}(h \hat x))$, means over the last axis. What is $\frac{dL}{dw}$, of which shape? Write `backward`; it
returns a gradient for each input of `forward` (None for `eps`).
"""


# %% tags=["exercise"]
class RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, eps):
        r = 1 / torch.sqrt((x**2).mean(dim=-1, keepdim=True) + eps)
        ctx.save_for_backward(x * r, r, w)
        return x * r * w

    @staticmethod
    def backward(ctx, grad):
        xhat, r, w = ctx.saved_tensors
        return None, None, None


with check():
    made = np.random.default_rng(2)
    leaves = [torch.tensor(made.standard_normal(s), requires_grad=True) for s in ((2, 3, 5), (5,))]
    weights = torch.tensor(made.standard_normal((2, 3, 5)))  # of the outputs in the loss
    out = RMSNorm.apply(*leaves, 1e-6)
    found = RMSNorm.backward(out.grad_fn, weights)
    assert isinstance(found, tuple) and len(found) == 3, (
        "backward returns three things: for x, for w, and None for eps."
    )
    dx, dw, _ = found
    assert dx is not None, "backward gives x no gradient yet."
    assert dw is not None, "backward gives w no gradient yet."
    want = torch.autograd.grad((F.rms_norm(leaves[0], (5,), leaves[1], 1e-6) * weights).sum(), leaves)
    assert tuple(dw.shape) == (5,), (
        f"dw has shape {tuple(dw.shape)}: w was used in every row, so sum over all rows to get (5,)."
    )
    assert torch.allclose(dw, want[1]), "dw is wrong: y = xhat · w, so what does each row add to it?"
    assert tuple(dx.shape) == (2, 3, 5), f"dx has shape {tuple(dx.shape)}, x has (2, 3, 5)."
    assert torch.allclose(dx, want[0]), (
        "dx is wrong. r depends on x too: is the second term there, with its mean over the last axis only? "
        "Does h hold the weight, and is all of it times r?"
    )
    assert torch.autograd.gradcheck(lambda x, w: RMSNorm.apply(x, w, 1e-6), leaves)

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
class RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, eps):
        r = 1 / torch.sqrt((x**2).mean(dim=-1, keepdim=True) + eps)
        ctx.save_for_backward(x * r, r, w)
        return x * r * w

    @staticmethod
    def backward(ctx, grad):
        xhat, r, w = ctx.saved_tensors
        h = grad * w
        dx = r * (h - xhat * (h * xhat).mean(dim=-1, keepdim=True))
        dw = (grad * xhat).sum(dim=(0, 1))
        return dx, dw, None
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: which type comes out? (easy, useful, 10 minutes)

`x` (a residual stream), `w` and `b` are float32. Inside `torch.autocast("cpu", torch.bfloat16)` this runs:

    y = F.linear(x, w, b)
    a = F.gelu(y)
    s = x + a
    m = s.mean()

and after it, outside, `m.backward()`. Say for each of `y`, `a`, `s`, `m` and for `w.grad` whether it is "float32" or
"bfloat16".
"""


# %% tags=["exercise"]
types = {"y": None, "a": None, "s": None, "m": None, "w.grad": None}


with check():
    given = {key: str(value).removeprefix("torch.") for key, value in types.items()}
    assert set(given.values()) != {"None"}, 'No types yet: give each name "float32" or "bfloat16".'
    x, b = torch.ones(4, 4), torch.zeros(4)
    w = torch.eye(4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = F.linear(x, w, b)
        a = F.gelu(y)
        s = x + a
        m = s.mean()
    m.backward()
    why = {
        "y": "a matrix product is what autocast is there for",
        "a": "GELU takes what comes: nobody casts back",
        "s": "of two types the wider one wins",
        "m": "a mean takes what comes, too",
        "w.grad": "a gradient has the type of what it is the gradient of",
    }
    truth_of = {"y": y, "a": a, "s": s, "m": m, "w.grad": w.grad}
    assert sorted(given) == sorted(why), "The keys are y, a, s, m and w.grad."
    for key, tensor in truth_of.items():
        assert given[key] == lab.short(tensor.dtype), f"{key} is not {given[key]}: {why[key]}."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
types = {"y": "bfloat16", "a": "bfloat16", "s": "float32", "m": "float32", "w.grad": "float32"}
```

</details>
"""

# %% [markdown]
r"""
### Exercise 4: find the fault (medium, useful, 20 minutes)

Somebody ported the GPT of this chapter three times; at most one module of each is wrong. Which? The logits alone tell
whether, not where. Compare what *each module* gives: `lab.outputs_by_name` notes it for either engine, in the order in
which modules end (a module ends after those inside it). Say the name of the innermost module that is wrong
("blocks.0.mlp.fc", "blocks.1.norm_1", ...), or "none".
"""

# %%
right = new_gpt()
ports = lab.suspects(lambda: to_torch(right))
with lab.outputs_by_name(right) as expected_outputs:
    right(ids)
print(f"{len(expected_outputs)} modules; the first to end: {', '.join(list(expected_outputs)[:4])}")
for name, ported in ports.items():
    print(f"port {name}: logits differ by {lab.largest_gap([right(ids)], [ported(t_ids)]):.0e}")


# %% tags=["exercise"]
fault = {"1": None, "2": None, "3": None}


with check():
    given = {str(key): str(value) for key, value in fault.items()}
    assert set(given.values()) != {"None"}, (
        "Nothing named yet: for each port give a module's name, or 'none'."
    )
    assert sorted(given) == ["1", "2", "3"], "The keys are the ports' names: 1, 2 and 3."
    unknown = [v for v in given.values() if v != "none" and v not in expected_outputs]
    assert not unknown, f"No module is called {unknown[0]!r}: use the names of expected_outputs."
    wanted = {"1": "blocks.0.attn.proj", "2": "blocks.1.norm_2", "3": "none"}
    assert given["3"] == "none", (
        "Port 3 is right: a gap of 1e-16 is rounding. Where, in float64, does rounding end?"
    )
    for key in ("1", "2"):
        assert given[key] != "none", f"Port {key} is wrong: such a gap is no rounding in float64."
        outputs = list(expected_outputs)
        assert outputs.index(given[key]) <= outputs.index(wanted[key]), (
            f"Port {key}: an earlier module than {given[key]} differs already. What comes later only hands it on."
        )
        assert given[key] == wanted[key], (
            f"Port {key}: {given[key]} still gives the right numbers. Go on to the first that does not."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

The first module whose output differs by more than rounding:

```python
fault = {}
for name, ported in ports.items():
    with lab.outputs_by_name(ported) as found:
        ported(t_ids)
    off = [key for key, out in expected_outputs.items() if lab.largest_gap([out], [found[key]]) > 1e-10]
    fault[name] = off[0] if off else "none"
```

In port 1 a square matrix was copied transposed, which no check of shapes notices. In port 2 a norm has another
$\epsilon$.

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** A port agrees with its original in float32 to 5 · 10⁻⁶. Is it right?

<details><summary>Answer</summary>

It may be; a small mistake can look the same. Compare in float64, where rounding is 10⁻¹⁴ and a mistake keeps its size.

</details>

**2.** Why does the port not simply call the model's constructor?

<details><summary>Answer</summary>

It would draw new weights, and make two of what had become one after it (tied weights), or forget what was put in later
(chapter 11's LoRA beside a layer).

</details>

**3.** Why does autocast leave weights in float32, if each product rounds them anyway?

<details><summary>Answer</summary>

A product's rounding is thrown away after use. A weight's would stay, and updates below half the spacing would be lost.

</details>

**4.** bfloat16 has fewer digits than float16. Why is it preferred for training?

<details><summary>Answer</summary>

It has float32's range: small gradients do not become 0, so that no loss scaling is needed (chapter 08).

</details>

**5.** A compiled model is no faster than before. Its layers print the mean of their output. Why might that be?

<details><summary>Answer</summary>

Printing needs a value: it breaks the graph at each layer, and nothing is fused across a break.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now take a model from NumPy to PyTorch and back, prove that it is the same, say what its graph holds, and say
what 16 bits cost and what compiling saves.

**What you take along**: `minillm.workshop.on_pytorch`, with three instruments: `Watch` (what runs, in which types),
`saved_bytes` (what is kept for the backward pass) and `outputs_by_name` (where two models part). The next chapter,
[16 · A GPU kernel for attention](16_a_gpu_kernel_for_attention.ipynb), opens the third attention.
"""
