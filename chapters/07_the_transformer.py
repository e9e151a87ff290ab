# %% [markdown]
r"""
# 07 · The Transformer

Attention lets a position read from others. By itself it is no language model: it only averages what it reads, it
cannot be stacked deep, and its outputs drift in size. The **Transformer** wraps it in three simple things, sums, norms
and a small network, and stacks the result. This chapter takes a GPT apart, measures what each part is for, exchanges
four parts to get a Llama, the design that most open models of today follow, and ends with a GPT in plain Python, number
by number, whose losses are the library's.

**Afterwards you can** draw a GPT from memory and write its forward; say what layer norm undoes, forward and backward;
say why deep models need careful initial weights; count parameters and operations of a model that you only know by its
config; explain RoPE, RMS norm, SwiGLU and grouped queries, and what each of them changes.

**You need** [02 · Tensors and autograd](02_autograd.ipynb) and [06 · Attention](06_attention.ipynb); the text and its
tokens come from [04](04_collecting_and_cleaning_text.ipynb) and [03](03_tokens.ipynb), counting as a baseline from
[01](01_what_is_a_language_model.ipynb).
"""

# %%
import inspect
import math
import time

import numpy as np
from IPython.display import Code
from minillm import nn, ops, plot
from minillm.costs.sizes import (
    cache_bytes,
    forward_flops,
    n_parameters,
    parameters_by_part,
    training_flops,
)
from minillm.models.gpt import GPT, CausalSelfAttention, GPTConfig
from minillm.models.llama import Llama, LlamaConfig
from minillm.models.rope import rope_tables
from minillm.optim import AdamW
from minillm.tensor import Parameter, Tensor
from minillm.workshop import (
    check,
    numerical_gradient,
    progress,
    read_scale,
    scalar_gpt,
    show_versions,
    type_into_debugger,
)
from minillm.workshop import transformer as shop  # pictures and bookkeeping
from minillm.workshop.deliverables import architecture

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
STEPS = {"smoke": 4, "cpu": 300, "gpu": 2000}[SCALE]  # training steps of each model
SEEDS = {"smoke": 2, "cpu": 3, "gpu": 5}[SCALE]  # random starts of each kind
SCALAR_STEPS = {"smoke": 8, "cpu": 100, "gpu": 100}[SCALE]  # of the GPT on single numbers

rng = np.random.default_rng(7)
show_versions(SCALE)

# %% [markdown]
r"""
## The idea: a stream that every layer reads and adds to

Each position of the text carries one vector of $D$ numbers from the first layer to the last: the **residual stream**.
A layer never replaces it. It reads a copy, computes something from it, and **adds** the result:

$$x \leftarrow x + \text{attention}(\text{norm}(x)), \qquad x \leftarrow x + \text{mlp}(\text{norm}(x)).$$

Here $x\,(T, D)$ holds the vectors of all $T$ positions, and a **norm** brings each of them to a standard size (derived
below). These two lines are a **block**. A GPT is a table that turns tokens into vectors, $L$ blocks, a last norm, and
the table once more, to turn vectors into scores for tokens.
"""

# %%
shop.draw_architecture()

# %% [markdown]
r"""
| symbol | what it counts | symbol | what it counts |
| --- | --- | --- | --- |
| $B$ | texts in a batch | $L$ | layers: how many blocks |
| $T$ | positions of a text | $H$ | heads of an attention layer |
| $D$ | features of the stream | $d = D/H$ | features of a head |
| $V$ | tokens in the vocabulary | $F = 4D$ | features inside the feed-forward network |

Attention is the only part in which positions meet. Everything else treats each position alone. Chapter 06 has derived
attention, and chapter 02 the norm; the feed-forward network and the sum are new. First the text that we will train on:
chapter 04's corpus, here in a small vocabulary.
"""

# %%
CONTEXT, D, HEADS = 32, 64, 4
text = shop.read_text(SCALE)
print(f"{len(text.train):,} tokens to learn from, {len(text.held_out):,} held out;", end=" ")
print(f"V = {text.vocab_size}, {text.bytes_per_token:.2f} bytes per token")

# %% [markdown]
r"""
## Layer norm, forward

Let $x$, of shape $(D)$, be the vector of one position. **Layer norm** (Ba et al. 2016, arXiv 1607.06450) shifts it to
mean 0 and scales it to variance 1, then scales and shifts each feature by learned numbers, the gain $w$ and the bias
$b$, both $(D)$:

$$\mu = \frac1D\sum_i x_i, \quad \sigma^2 = \frac1D\sum_i (x_i - \mu)^2, \quad
r = \frac{1}{\sqrt{\sigma^2 + \varepsilon}}, \quad \hat x_i = (x_i - \mu)\, r, \quad y_i = \hat x_i w_i + b_i.$$

The small $\varepsilon$ keeps $r$ finite where all features are equal. So whatever has piled up in the stream, a layer
reads numbers of size 1. Adding a constant to all features, or multiplying all by a positive factor, changes nothing
(but for the small $\varepsilon$):
"""


# %%
def layer_norm(x, w, b, eps=1e-5):
    """x (..., D), w and b (D) -> y (..., D), and x̂ (..., D) and r (..., 1) for the backward."""
    centred = x - x.mean(axis=-1, keepdims=True)
    r = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    xhat = centred * r
    return xhat * w + b, xhat, r


x = rng.standard_normal((3, 8))  # three positions, D = 8
w, b = rng.standard_normal((2, 8))
y, xhat, r = layer_norm(x, w, b)
moved, _, _ = layer_norm(100 * x + 7, w, b)
print(f"x̂: means {xhat.mean(axis=1).round(6)}, variances {xhat.var(axis=1).round(3)}")
print(f"y changes by at most {np.abs(moved - y).max():.0e} if x becomes 100 x + 7")
theirs = ops.layer_norm(*(Tensor(a) for a in (x, w, b))).data
print(f"largest gap to the library: {np.abs(theirs - y).max():.0e}")
assert np.abs(moved - y).max() < 1e-3 and np.allclose(theirs, y, atol=1e-12)

# %% [markdown]
r"""
## Layer norm, backward

[Chapter 02](02_autograd.ipynb) has derived it, path by path. With $g = dL/dy$, $(D)$, from above ($L$ is the loss here)
and $h_i := dL/d\hat x_i = g_i w_i$, the result is

$$\frac{dL}{dw_i} = g_i \hat x_i, \qquad \frac{dL}{db_i} = g_i, \qquad
\frac{dL}{dx_j} = r\Big(h_j - \operatorname{mean}(h) - \hat x_j \operatorname{mean}(h\hat x)\Big),$$

the first two summed over all positions, which share $w$ and $b$. In words: take $h$, and remove what points along
$(1, \dots, 1)$ and along $\hat x$. Those are the two directions in which moving $x$ does nothing: the constant and the
factor of the last cell. The $r$ in front says that the larger the stream, the smaller the gradient that comes back.
"""


# %%
def layer_norm_backward(g, xhat, r, w):
    """dL/dx (..., D), dL/dw and dL/db (D)."""
    h = g * w
    along = xhat * (h * xhat).mean(axis=-1, keepdims=True)
    dx = r * (h - h.mean(axis=-1, keepdims=True) - along)
    return dx, (g * xhat).sum(axis=0), g.sum(axis=0)


g = rng.standard_normal(y.shape)  # the loss is Σ g · y, so that dL/dy = g
ours = layer_norm_backward(g, xhat, r, w)
tensors = [Parameter(a.copy()) for a in (x, w, b)]
ops.layer_norm(*tensors).backward(g)
for name, array, gradient, tensor in zip("xwb", (x, w, b), ours, tensors):
    numerical = numerical_gradient(lambda: float((g * layer_norm(x, w, b)[0]).sum()), array)
    gaps = [np.abs(gradient - other).max() for other in (numerical, tensor.grad)]
    print(f"dL/d{name}: largest gap to finite differences {gaps[0]:.0e}, to the library {gaps[1]:.0e}")
    assert gaps[0] < 1e-7 and gaps[1] < 1e-12
print(f"dL/dx along (1, …, 1): {np.abs(ours[0].sum(axis=1)).max():.0e}")

# %% [markdown]
r"""
The library's is `minillm.numpy_ops.layer_norm.layer_norm`, with `minillm.numpy_ops.layer_norm.layer_norm_backward`
below it: the same lines, with less memory.

## The feed-forward network, and the whole GPT

What attention has gathered must be worked on. The **feed-forward network** (or MLP) does that at each position alone:
up to $4D$ features by a matrix $W_1\,(4D, D)$ and a bias $b_1\,(4D)$, a nonlinearity, back to $D$ by $W_2\,(D, 4D)$ and
$b_2\,(D)$,

$$\text{mlp}(x) = W_2\,\text{GELU}(W_1 x + b_1) + b_2.$$

Without the nonlinearity the two matrices would be one. **GELU** is a smooth ramp: $x$ times the probability that a
standard normal number is below $x$, so close to 0 far to the left and close to $x$ far to the right (Hendrycks &
Gimpel 2016, arXiv 1606.08415; GPT-2 uses the approximation with tanh below).

At the end the stream of each position is normed and multiplied with each row of the token table $E\,(V, D)$: the
**logits** are $E\,\text{norm}(x)$, one for each token. That the table which reads tokens also writes them is called
**tied** weights; it saves a second $(V, D)$ matrix. Here is all of it, on the weights of one of the library's models:
"""


# %%
def linear(x, layer):
    return x @ layer.weight.data.T + layer.bias.data  # (..., in) -> (..., out)


def norm(x, layer):
    return layer_norm(x, layer.weight.data, layer.bias.data)[0]


def attention(x, layer):  # chapter 06; x (B, T, D)
    B, T, D = x.shape
    qkv = linear(x, layer.qkv).reshape(B, T, 3, layer.n_heads, -1)  # (B, T, q k or v, H, d)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each (B, H, T, d)
    S = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])  # (B, H, T, T)
    P = np.exp(np.where(np.tri(T, dtype=bool), S - S.max(axis=-1, keepdims=True), -np.inf))
    P /= P.sum(axis=-1, keepdims=True)
    return linear((P @ v).swapaxes(1, 2).reshape(B, T, D), layer.proj)  # heads side by side, mixed


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def mlp(x, layer):
    return linear(gelu(linear(x, layer.fc)), layer.proj)  # (B, T, D) -> (B, T, 4D) -> (B, T, D)


def gpt(ids, model):
    """ids (B, T) -> logits (B, T, V)."""
    table = model.token_embedding.weight.data  # (V, D)
    x = table[ids] + model.position_embedding.weight.data[: ids.shape[1]]  # (B, T, D)
    for block in model.blocks:
        x = x + attention(norm(x, block.norm_1), block.attn)
        x = x + mlp(norm(x, block.norm_2), block.mlp)
    return norm(x, model.norm) @ table.T


example = GPT(GPTConfig(text.vocab_size, CONTEXT, n_layers=3, n_heads=HEADS, d_model=D), rng=rng).to(np.float64)
ids = text.train[: 2 * CONTEXT].reshape(2, CONTEXT)
gap = np.abs(gpt(ids, example) - example(ids).data).max()
print(f"logits {gpt(ids, example).shape}, largest gap to the library {gap:.0e}")
assert gap < 1e-12

# %% [markdown]
r"""
That is the whole model. `minillm.models.gpt.GPT.hidden` and `minillm.models.gpt.Block.forward` are the same lines,
with a backward.

## What each layer adds, measured

We train one, with $L = 4$ blocks, on random stretches of the text (AdamW and its schedule are chapter 08's). For
comparison two lines that counting reaches: the **unigram** model always answers with the tokens' frequencies, and the
**bigram** model with what followed the current token (chapter 01).
"""


# %%
def new_gpt(seed, layers=2, std=D**-0.5):
    """A GPT whose matrices and tables are drawn with `std`, the last matrix of each layer with std / √(2 L)."""
    model = GPT(GPTConfig(text.vocab_size, CONTEXT, layers, HEADS, D), rng=np.random.default_rng(seed))
    return redrawn(model, std)


def redrawn(model, std=D**-0.5):  # why this size, comes below
    for p in model.parameters():
        if p.ndim == 2:
            p.data *= np.float32(std / 0.02)  # the library draws with 0.02, like GPT-2 with its 768 features
    return model


RUN = {"steps": STEPS, "lr": 4e-3, "batch": 8, "context": CONTEXT}
counted = shop.token_ngrams(text)  # losses in nats per token
curve = plot.LiveCurve(title="a GPT with four blocks", baselines=counted)
trained = shop.train(new_gpt(0, layers=4), text, seed=0, curve=curve, **{**RUN, "steps": 3 * STEPS // 2})
figure = curve.finish()
loss = shop.held_out_loss(trained, text, CONTEXT)
print(f"held-out loss {loss:.2f} nats per token, {text.bits_per_byte(loss):.2f} bits per byte;", end=" ")
print(", ".join(f"{name} {value:.2f} nats" for name, value in counted.items()))
if SCALE != "smoke":
    assert loss < counted["unigram"]

# %% [markdown]
r"""
The GPT leaves the unigram's line behind soon. How near it comes to the bigram's depends on how long it may train: the
bigram has counted the whole text, of which a short run sees a part. Chapter 08 trains longer. How a GPT compares with
an LSTM that has as many weights and has read as many tokens, [chapter 05](05_recurrent_networks.ipynb) has measured: at
that size, and after so little text, the LSTM is ahead.

Every layer only adds. So the stream at the end is the sum of the embedding and of $2L$ additions, and we can look at
each of them. For held-out text we compare the size (root mean square) of what a layer adds to the size of the stream
that it reads, before training and after. And we take each layer away from the trained model, its addition set to 0, and
see how much the loss rises.
"""

# %%
held_out_ids = text.held_out[: 16 * CONTEXT].reshape(16, CONTEXT)
sizes = {}
for name, model in (("fresh", new_gpt(0, layers=4)), ("trained", trained)):
    streams, added, layers = shop.additions(model, held_out_ids)
    assert np.allclose(streams[-1], streams[0] + sum(added), atol=1e-4)  # nothing but sums
    sizes[name] = [shop.rms(what) / shop.rms(before) for what, before in zip(added, streams)]

cost = []
for block in trained.blocks:
    for last in (block.attn.proj, block.mlp.proj):  # what a layer adds comes out of this matrix
        kept = last.weight.data.copy(), last.bias.data.copy()
        last.weight.data[:], last.bias.data[:] = 0, 0
        cost.append(shop.held_out_loss(trained, text, CONTEXT) - loss)
        last.weight.data[:], last.bias.data[:] = kept

for name, fresh, now, rise in zip(layers, *sizes.values(), cost):
    print(f"{name}: adds {fresh:.2f} of the stream when fresh, {now:.2f} when trained; without it {rise:+.2f}")
if SCALE != "smoke":
    assert cost[1] == max(cost) > 5 * np.median(cost)
shop.plot_additions(layers, sizes, cost)

# %% [markdown]
r"""
When fresh, the first block adds more than it finds, since a token's vector is small, and later layers add less and
less, relative to a stream that has grown. Training has made this uneven. The feed-forward network of block 0 now writes
most of the stream, and it is by far the most expensive layer to lose: all later ones read what it wrote. Each of those
adds a little, and losing one of them costs little: the others still find in the stream what they need. (After so short
a run there is also little in them yet: much of what this model knows is which token follows which.) A chain
of layers in which each *replaces* its input breaks if one is taken out, and a gradient would have to pass through all
of them; through the sums it passes unchanged to every layer. The next experiment shows what happens without.
"""

# %% [markdown]
r"""
## Initial weights: what breaks without care

How large should the random numbers be that training starts from? Follow the size through the model.

**One matrix.** Let all matrices, the tables included, be drawn with standard deviation $s$. If the $D$ entries of $x$
are independent with variance 1, each entry of $Wx$ is a sum of $D$ terms of variance $s^2$: it has variance $D s^2$.
Size is kept if $s = 1/\sqrt D$. A pile of $n$ matrices without norms multiplies the size by $(s\sqrt D)^n$: it
vanishes or explodes.

**One sum.** At the start a layer's addition is independent of the stream, so variances add: if each of the $2L$
additions has variance $a^2$, then

$$\operatorname{var}(x_{\text{end}}) = \operatorname{var}(x_{\text{start}}) + 2L\,a^2.$$

The stream grows like $\sqrt{\text{depth}}$. GPT-2 therefore divides the last matrix of each layer, which scales its
addition, by $\sqrt{2L}$: then all additions together bring a variance of $a^2$, whatever the depth (Radford et al.
2019, section 2.3; `minillm.models.gpt.residual_std`). A stream that has grown also means small gradients in the later
blocks: their norms multiply by $r$, one over its size.

We build models with 16 blocks and look, block by block, at three things: the size of the stream; the size of the
gradients of the block's matrices; and how alike the positions are, by the mean cosine between the vectors of different
positions of a text (1: all point the same way). The last two models have lost a part: in one the layers replace the
stream, in the other the blocks have no norms.
"""


# %%
def deep_gpt(kind, seed=0, layers=16):
    size = {"large (× 4)": 4, "small (÷ 10)": 0.1}.get(kind, 1)
    model = new_gpt(seed, layers, std=size * D**-0.5)
    if kind == "small tables":
        for table in (model.token_embedding, model.position_embedding):
            table.weight.data *= np.float32(0.02 * D**0.5)  # back to the library's 0.02
    for block in model.blocks:
        if kind not in ("divided by √2L", "small tables"):
            for last in (block.attn.proj, block.mlp.proj):
                last.weight.data *= np.float32(math.sqrt(2 * layers))  # as if it had not been divided
        if kind == "without norms":
            block.norm_1 = block.norm_2 = shop.Unchanged()
    if kind == "without sums":
        model.blocks = [shop.WithoutSums(block) for block in model.blocks]
    return model


KINDS = ["divided by √2L", "not divided", "large (× 4)", "small (÷ 10)", "small tables"]
KINDS += ["without sums", "without norms"]
measured = {}
for kind in KINDS:
    model = deep_gpt(kind)
    stream = plot.look_inside(model, held_out_ids[:4]).residual[1:]  # (L, B, T, D): after each block
    model(held_out_ids[:4, :-1], targets=held_out_ids[:4, 1:]).backward()
    matrices = [[p.grad.ravel() for p in block.parameters() if p.ndim == 2] for block in model.blocks]
    gradients = [shop.rms(np.concatenate(parts)) for parts in matrices]
    measured[kind] = [shop.rms(x) for x in stream], gradients, [shop.likeness(x) for x in stream]

end = {kind: [column[-1] for column in columns] for kind, columns in measured.items()}
print("from the first block to the last:", *(f"{name:>18s}" for name in ("stream", "gradients", "likeness")))
for kind, columns in measured.items():
    print(kind.ljust(33), *(f"{column[0]:8.2g} →{column[-1]:8.2g}" for column in columns))
grown = {kind: columns[0][-1] / columns[0][0] for kind, columns in measured.items()}
assert 0.5 < end["divided by √2L"][0] < 2 < end["not divided"][0] < end["large (× 4)"][0]
assert grown["without norms"] > 10 * grown["not divided"]
assert end["without sums"][2] > 0.95 and end["divided by √2L"][2] < 0.8
shop.plot_by_depth(measured)

# %% [markdown]
r"""
Divided by $\sqrt{2L}$, the stream ends near size 1. Without the division it ends several times larger, and with large
matrices far larger; the gradients of the last blocks are smaller for it. The stream grows like a root all the same,
since a norm hides its size from the layers. With small matrices sizes and gradients are small throughout. Without norms
each layer's addition is proportional to what it reads, and sizes multiply from block to block: a straight line on the
logarithmic axis. Without sums sizes are fine (norms see to that), but look at the right picture: fresh attention is
close to averaging, and averaged again and again all positions become the same vector. Then no layer can tell the tokens
apart any more. Sums keep each position's own token in the stream, as long as the additions don't bury it: without
norms they do, and positions become alike there, too.

The tables matter, too. With "small tables", drawn with 0.02 like the library's for GPT-2 while the matrices stay as
they are, the first block adds much more than the token's own vector: positions are more alike from the start.

Does it matter for training? Models with 4 blocks, several starts each, the same text and the same steps:
"""


# %%
def train_deep(kind, seed):
    model = deep_gpt(kind, seed, layers=4)
    shop.train(model, text, seed=seed, **{**RUN, "steps": STEPS // 2})
    return shop.held_out_loss(model, text, CONTEXT)


deep_losses = shop.compare_runs(KINDS, SEEDS, train_deep)
for kind, values in deep_losses.items():
    print(f"{kind:16s} held-out loss {shop.mean_and_sd(values)}")
if SCALE != "smoke":
    best, *others = (np.mean(values) for values in deep_losses.values())
    assert best < min(others) and min(others) < counted["unigram"] + 0.1
shop.plot_runs(deep_losses, "held-out loss (nats per token); each dot a start", "the same model, other first weights")

# %% [markdown]
r"""
Dividing by $\sqrt{2L}$ gives the best start, and every other choice is worse. Next comes the model that lacks only the
division; the others have hardly learned more than the tokens' frequencies in these steps (the unigram's line above).
These are short runs: they show how fast a model begins to learn, not where it ends. But nobody pays for a long run that
begins like this. (GPT-2's 0.02, which the library draws with, is about half of $1/\sqrt{768}$, for its 768 features.
For our 64 features it is a sixth of $1/\sqrt{64}$: far to the small side. That is why `new_gpt` draws anew.)

## Counting parameters

Everything about a model's size follows from its config. A block has, in matrices, $3D^2$ for queries, keys and values,
$D^2$ to mix the heads, $4D^2$ up and $4D^2$ down: $12D^2$. Their biases are $3D + D + 4D + D = 9D$, its two norms
$4D$. With the tables and the last norm, for texts of at most $T_{\max}$ tokens:

$$N = \underbrace{VD}_{\text{tokens}} + \underbrace{T_{\max} D}_{\text{positions}} + L\,(12D^2 + 13D) +
\underbrace{2D}_{\text{last norm}}.$$

## Counting operations

A matrix with $n$ weights takes $n$ multiplications and $n$ additions for each token: $2n$ **floating-point operations**
(FLOPs). The tied head is such a matrix too, with $VD$ weights. Attention's scores add 4 operations for each key and
feature ($QK^\top$ and $PV$), and position $t$ sees $t + 1$ keys, on average $(T + 1)/2$:

$$\text{forward per token} = 2\,(12 L D^2 + VD) + 2 L D\,(T + 1).$$

Backward, each product $Y = XW^\top$ becomes two of the same size, for $dL/dX$ and for $dL/dW$. So a training step takes
three times the forward, about $6N$ per token where the matrices are most of it. Norms, GELU and softmax are left out:
they take far fewer, since nothing in them grows with $D^2$.
"""


# %%
def count_parameters(V, T_max, D, L):
    return V * D + T_max * D + L * (12 * D**2 + 13 * D) + 2 * D


def count_forward_flops(V, T, D, L):  # per token
    return 2 * (12 * L * D**2 + V * D) + 2 * L * D * (T + 1)


config = trained.config
ours = count_parameters(config.vocab_size, config.context, config.d_model, config.n_layers)
real = sum(p.data.size for p in trained.parameters())
flops = count_forward_flops(config.vocab_size, CONTEXT, config.d_model, config.n_layers)
print(f"our GPT: {ours:,} parameters counted, {real:,} in the model, {n_parameters(config):,} by minillm.costs")
print(f"forward per token: {flops:,} operations;", end=" ")
print({name: f"{n:,.0f}" for name, n in forward_flops(config, CONTEXT).items()})
gpt2 = GPTConfig()  # the defaults are GPT-2's smallest
print(f"GPT-2: {count_parameters(50257, 1024, 768, 12):,} parameters:", parameters_by_part(gpt2))
share = training_flops(gpt2, 1024) / (6 * n_parameters(gpt2))
print(f"GPT-2: a training step takes {share:.2f} times 6 N operations per token")
assert ours == real == n_parameters(config) and flops == sum(forward_flops(config, CONTEXT).values())
assert count_parameters(50257, 1024, 768, 12) == n_parameters(gpt2) and 0.9 < share < 1.2
assert count_forward_flops(50257, 1024, 768, 12) * 3 == training_flops(gpt2, 1024)

# %% [markdown]
r"""
Does the count tell the time? We measure a training step of GPTs of several widths, and the speed of this machine in a
single large matrix product, which is about the best that it can do.
"""

# %%
WIDTHS = {"smoke": [16, 32], "cpu": [32, 64, 128, 256], "gpu": [32, 64, 128, 256, 512]}[SCALE]
peak = shop.matrix_speed()
counted_flops, seconds = [], []
for width in progress(WIDTHS, "timing"):
    config = GPTConfig(text.vocab_size, 64, n_layers=2, n_heads=4, d_model=width)
    model = GPT(config, rng=np.random.default_rng(0))
    counted_flops.append(training_flops(config, 64) * 16 * 64)  # 16 texts of 64 tokens
    seconds.append(shop.seconds_per_step(model, text.vocab_size, batch=16, context=64))
speed = np.array(counted_flops) / np.array(seconds)
for width, n, s, v in zip(WIDTHS, counted_flops, seconds, speed):
    print(f"D = {width:3d}: {n / 1e9:6.2f} GFLOP in {1e3 * s:6.1f} ms: {100 * v / peak:3.0f}% of", end=" ")
    print(f"{peak / 1e9:.0f} GFLOP/s, the speed of a large product")
if SCALE != "smoke":
    assert speed[-1] > speed[0]
shop.plot_times(counted_flops, seconds, [f"D = {width}" for width in WIDTHS], peak)

# %% [markdown]
r"""
The two lines draw nearer to each other as the model grows. In a narrow model much of the time goes into what the count
leaves out: norms, GELU and softmax, whose work does not grow with $D^2$, and Python's calls. In a wide one the matrices
take over, and counting predicts the time ever better: operations ÷ speed. The share of the peak that is reached is
called **MFU**, model FLOPs utilisation (chapter 17).

## From GPT to Llama, part 1: RMS norm

The models of today differ from GPT-2 in a few places, which Llama (Touvron et al. 2023, arXiv 2302.13971) brought
together. In the drawing they are orange. We take them one at a time, then measure each.
"""

# %%
shop.draw_architecture(llama=True)

# %% [markdown]
r"""
**RMS norm** (Zhang & Sennrich 2019, arXiv 1910.07467; in code and papers mostly written RMSNorm) leaves out layer
norm's mean and its bias. It only divides by the root mean square:

$$r = \frac{1}{\sqrt{\operatorname{mean}(x^2) + \varepsilon}}, \qquad y_i = x_i\, r\, w_i.$$

It has half the parameters and one pass less over the data, and as we will see it learns as well. Its backward
was exercise 4 of chapter 02. Llama also drops the biases of all linear layers.

## Part 2: rotary positions

GPT adds a learned vector for each position. It learns "position 7" and "position 8" separately, though what counts is
mostly the **distance**: "the word before" is the same relation everywhere. Can a score depend on the distance only?
That is asked of a function $f$ with

$$f(q, t)\cdot f(k, s) = \text{something that depends on } q,\ k \text{ and } t - s.$$

Take two features. A rotation by the angle $\alpha$ is the matrix

$$R(\alpha) = \begin{pmatrix}\cos\alpha & -\sin\alpha\\ \sin\alpha & \cos\alpha\end{pmatrix}, \qquad
R(\alpha)^\top = R(-\alpha), \qquad R(\alpha)R(\beta) = R(\alpha + \beta).$$

Turn the query at position $t$ by the angle $t\theta$ and the key at $s$ by $s\theta$. Then

$$(R(t\theta)\,q)\cdot(R(s\theta)\,k) = q^\top R(t\theta)^\top R(s\theta)\,k = q^\top R\big((s - t)\theta\big)\,k:$$

only the distance is left. Rotations don't change lengths, so nothing grows. This is **RoPE** (Su et al. 2021, arXiv
2104.09864). One angle is not enough: after a full turn, distances repeat. So the $d$ features of a head are taken in
$d/2$ pairs, and pair $i = 0, \dots, d/2 - 1$ turns by $\theta_i = 10000^{-2i/d}$ per position: the first pairs tell
neighbours apart, the last ones regions of the text. The library pairs feature $i$ with $i + d/2$. Values are not
turned: what is read should not depend on where it stood. The backward of a rotation is the rotation back.
"""


# %%
def rotate(x, positions, base=10_000.0):
    """x (..., T, d), positions (T): each pair (i, i + d/2) turned by position · θᵢ."""
    half = x.shape[-1] // 2
    theta = base ** (-np.arange(half) / half)  # (d/2,): 10000^(−2i/d)
    angle = positions[:, None] * theta  # (T, d/2)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)


d, places = 8, np.arange(24)
q, k = rng.standard_normal((2, d))
Q, K = np.tile(q, (24, 1)), np.tile(k, (24, 1))  # (T, d): the same query and key everywhere
rotary = rotate(Q, places) @ rotate(K, places).T  # (T, T)
far_away = rotate(Q, places + 1000) @ rotate(K, places + 1000).T
theirs = ops.rope(Tensor(Q[None, None]), *rope_tables(24, d, 10_000.0)).data[0, 0]
print(f"1000 positions further on the scores differ by {np.abs(far_away - rotary).max():.0e};", end=" ")
print(f"largest gap to the library {np.abs(theirs - rotate(Q, places)).max():.0e}")

token = trained.token_embedding.weight.data[text.held_out[0]]  # (D,): one token at all positions
x = token + trained.position_embedding.weight.data[:24]  # (T, D), as GPT does it
q1, k1, _ = trained.blocks[0].attn.heads(trained.blocks[0].norm_1(Tensor(x[None])))
learned = q1.data[0, 0] @ k1.data[0, 0].T / math.sqrt(D // HEADS)  # (T, T): head 0 of the trained GPT


def spread_at_a_distance(S):
    """How much the scores of equal distance differ, relative to all (the mask leaves distances 0 … T−1)."""
    diagonals = [S.diagonal(-distance) for distance in range(len(S) - 1)]
    return np.mean([row.std() for row in diagonals]) / S[np.tri(len(S), dtype=bool)].std()


turned = np.cos(places * 10_000.0 ** (-np.arange(d // 2) / (d // 2))[:, None])  # (d/2, T)
for name, S in (("learned positions", learned), ("RoPE", rotary)):
    print(f"{name}: scores at the same distance differ by {100 * spread_at_a_distance(S):.0f}% of their spread")
assert np.allclose(far_away, rotary, atol=1e-9) and np.allclose(theirs, rotate(Q, places))
assert spread_at_a_distance(rotary) < 1e-9 < spread_at_a_distance(learned)
shop.plot_positions({"learned positions": learned, "RoPE": rotary}, places, turned)

# %% [markdown]
r"""
Left and middle: the score of one and the same pair of tokens, wherever they stand. With RoPE every diagonal, that is
every distance, has one colour; the trained GPT's are mottled. Right: the first pair goes through whole turns
within a few positions, the last one hardly moves.

The code is `minillm.numpy_ops.rope.rope` with the angles of `minillm.models.rope.rope_tables`.

## Part 3: a gate in the feed-forward network

**SwiGLU** (Shazeer 2020, arXiv 2002.05202) has two matrices up, and lets one decide how much of the other passes:

$$\text{mlp}(x) = W_{\text{down}}\big(\text{SiLU}(W_{\text{gate}}\,x) \circ (W_{\text{up}}\,x)\big), \qquad
\text{SiLU}(z) = \frac{z}{1 + e^{-z}},$$

with $W_{\text{gate}}$ and $W_{\text{up}}$ $(F, D)$, $W_{\text{down}}\,(D, F)$, $\circ$ for the product element by
element, and SiLU a smooth ramp much like GELU. A product of two functions of
$x$ can do what one ramp cannot. To compare fairly, the number of parameters must stay: three matrices with $F$ features
inside have $3DF$ weights, GPT's two have $8D^2$, so $F = \tfrac83 D$.

## Part 4: grouped queries

When a model writes, it keeps the keys and values of all past tokens in memory, the **cache** (chapter 09): $2LD$
numbers for each token. **Grouped-query attention** (Ainslie et al. 2023, arXiv 2305.13245) lets several query heads
share one head of keys and values: with $H_{kv} < H$ of those the cache shrinks to $H_{kv}/H$, and so do the two
matrices that make them. Query head $h$ uses key head $\lfloor h \cdot H_{kv}/H \rfloor$ (exercise 2).

Now a Llama by hand, as we did with GPT. It has the same two lines in its loop.
"""


# %%
def rms_norm(x, layer):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + layer.eps) * layer.weight.data


def swiglu(x, layer):
    gate, up = x @ layer.gate.weight.data.T, x @ layer.up.weight.data.T  # each (B, T, F)
    return (gate / (1 + np.exp(-gate)) * up) @ layer.down.weight.data.T  # (B, T, D)


def grouped_attention(x, layer):
    B, T, _ = x.shape
    parts = [x @ matrix.weight.data.T for matrix in (layer.q_proj, layer.k_proj, layer.v_proj)]
    q, k, v = (p.reshape(B, T, -1, d).swapaxes(1, 2) for p in parts)  # (B, H, T, d), (B, Hkv, T, d)
    q, k = rotate(q, np.arange(T)), rotate(k, np.arange(T))
    k, v = (np.repeat(a, layer.n_heads // layer.n_kv_heads, axis=1) for a in (k, v))  # (B, H, T, d)
    S = np.where(np.tri(T, dtype=bool), q @ k.swapaxes(-1, -2) / np.sqrt(d), -np.inf)
    P = np.exp(S - S.max(axis=-1, keepdims=True))
    mixed = P / P.sum(axis=-1, keepdims=True) @ v  # (B, H, T, d)
    return mixed.swapaxes(1, 2).reshape(B, T, -1) @ layer.o_proj.weight.data.T


def llama(ids, model):
    x = model.token_embedding.weight.data[ids]  # (B, T, D): no positions are added
    for block in model.blocks:
        x = x + grouped_attention(rms_norm(x, block.norm_1), block.attn)
        x = x + swiglu(rms_norm(x, block.norm_2), block.mlp)
    return rms_norm(x, model.norm) @ model.token_embedding.weight.data.T


settings = {"n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_model": 32, "d_ff": 85, "tie_embeddings": True}
example = Llama(LlamaConfig(text.vocab_size, CONTEXT, **settings), rng=rng).to(np.float64)
example.make_rope(np.float64)  # its angles were kept in float32
gap = np.abs(llama(ids, example) - example(ids).data).max()
print(f"largest gap to the library's Llama {gap:.0e}")
assert gap < 1e-12

# %% [markdown]
r"""
## What does each change bring?

Six models with two blocks: the GPT, the GPT with **one** part exchanged, and a Llama, which has all four and no biases.
The exchanged parts are the library's. All see the same stretches of text in the same order (seed by seed), with the
same learning rate and as many steps. RMS norm, RoPE and SwiGLU keep the number of parameters (nearly); grouped queries,
here half as many key heads, are meant to save some.
"""


# %%
class Rotary(CausalSelfAttention):
    def heads(self, x):
        q, k, v = super().heads(x)  # each (B, H, T, d)
        cos, sin = (table[: q.shape[2]] for table in rope_tables(CONTEXT, D // HEADS, 10_000.0, dtype=np.float32))
        return ops.rope(q, cos, sin), ops.rope(k, cos, sin), v


class Grouped(CausalSelfAttention):
    def __init__(self, config, layer, rng):
        super().__init__(config, layer, rng)
        self.qkv = nn.Linear(D, 2 * D, std=D**-0.5, rng=rng)  # D for queries, half of D for keys and for values

    def heads(self, x):
        qkv = self.qkv(x).reshape(*x.shape[:2], 2 * HEADS, D // HEADS).transpose(1, 2)  # (B, 2 H, T, d)
        return qkv[:, :HEADS], qkv[:, HEADS : HEADS * 3 // 2], qkv[:, HEADS * 3 // 2 :]


class Gated(nn.Module):
    def __init__(self, layers, rng):
        std, F = D**-0.5, 8 * D // 3
        self.gate, self.up = (nn.Linear(D, F, bias=False, std=std, rng=rng) for _ in range(2))
        self.down = nn.Linear(F, D, bias=False, std=std / math.sqrt(2 * layers), rng=rng)

    def forward(self, x):
        return self.down(ops.swiglu(self.gate(x), self.up(x)))


def variant(kind, seed, layers=2):
    r = np.random.default_rng(seed)
    if kind == "Llama":
        settings = {"n_layers": layers, "n_heads": HEADS, "n_kv_heads": HEADS // 2, "d_model": D, "d_ff": 8 * D // 3}
        return redrawn(Llama(LlamaConfig(text.vocab_size, CONTEXT, tie_embeddings=True, **settings), rng=r))
    model = new_gpt(seed, layers)
    for i, block in enumerate(model.blocks):
        if kind in ("RoPE", "grouped queries"):
            old, new = block.attn, {"RoPE": Rotary, "grouped queries": Grouped}[kind]
            block.attn = new(model.config, i, r)  # the attention layer with another heads()
            block.attn.proj = old.proj
            if kind == "RoPE":
                block.attn.qkv = old.qkv
        if kind == "SwiGLU":
            block.mlp = Gated(layers, r)
        if kind == "RMS norm":
            block.norm_1, block.norm_2 = nn.RMSNorm(D), nn.RMSNorm(D)
    if kind == "RMS norm":
        model.norm = nn.RMSNorm(D)
    if kind == "RoPE":
        model.position_embedding.weight.data[:] = 0  # no positions are added
        model.position_embedding.weight.requires_grad = False
    return model


# %%
VARIANTS = ["GPT", "RMS norm", "RoPE", "SwiGLU", "grouped queries", "Llama"]


def train_variant(kind, seed):
    model = shop.train(variant(kind, seed), text, seed=seed, **RUN)
    return shop.held_out_loss(model, text, CONTEXT)


losses = shop.compare_runs(VARIANTS, SEEDS, train_variant)
gains = {kind: np.array(losses["GPT"]) - np.array(values) for kind, values in losses.items()}
print(f"held-out loss after {STEPS} steps ({SEEDS} starts); how much lower than the GPT's of the same seed:")
for kind, values in losses.items():
    n = sum(p.data.size for p in variant(kind, 0).parameters() if p.requires_grad)
    kept = 2 * 2 * D // (2 if kind in ("grouped queries", "Llama") else 1)
    print(f"{kind:16s} {shop.mean_and_sd(values)}  gain {shop.mean_and_sd(gains[kind])};", end=" ")
    print(f"{n:,} parameters, {kept} numbers in the cache per token")
if SCALE != "smoke":
    assert gains["RoPE"].min() > 0 and gains["Llama"].min() > 0
    assert abs(gains["RMS norm"].mean()) < gains["RoPE"].mean() / 2
    assert -gains["RoPE"].mean() < gains["grouped queries"].mean() < 0.02
shop.plot_runs(losses, "held-out loss (nats per token); each dot a start", "one part exchanged at a time")

# %% [markdown]
r"""
RoPE helps most, and from every start. SwiGLU's gain is smaller, and its spread is about as large as itself: three
starts do not settle it. RMS norm changes next to nothing, and saves a pass over the data. Grouped queries cost a
little, less than RoPE brings; they have fewer parameters and half of the cache. The Llama has all four, no biases and
the fewest parameters, and is about as good as RoPE alone. This is a small model in a short run; what holds at other
sizes has to be measured there. The papers found SwiGLU's gain small and steady, and that grouped queries cost a little,
which their cache is worth.

## A GPT on single numbers

Now the last step: the same GPT without NumPy, without arrays, without any package. Each of its numbers is an object
that remembers from which numbers it was computed, as at the beginning of chapter 02; a vector is a list of them. Only
one thing is new: `dot`, a sum of products, is one step of the graph, since nearly all of a GPT is dot products. The
file imports `math` and `random`, and runs on its own, too: it learns a few names and invents others.
"""

# %%
source = inspect.getsource(scalar_gpt)
print(f"{sum(bool(line.strip()) for line in source.splitlines())} lines that are not blank")
Code(source, language="python")

# %% [markdown]
r"""
It has everything: the embedding, norms, heads, the mask (a loop up to `t + 1`), GELU, the residual sums,
the tied head, the backward of all of it, and AdamW. Is it the same model? We give it the weights of a library's GPT in
double precision, and train both side by side: same windows of text, same optimizer. The text is the corpus in small
letters, everything else a space.
"""

# %%
letters = " abcdefghijklmnopqrstuvwxyz"
plain = "".join(c if c in letters else " " for c in text.train_text[:20_000].lower())
characters = np.array([letters.index(c) for c in " ".join(plain.split())])

small = GPTConfig(len(letters), context=8, n_layers=1, n_heads=2, d_model=16)
theirs = GPT(small, rng=np.random.default_rng(0)).to(np.float64)
weights = {name: scalar_gpt.as_values(array.tolist()) for name, array in theirs.state_dict().items()}
values = scalar_gpt.all_values(list(weights.values()))
moments = [[0.0, 0.0] for _ in values]
optimizer = AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.01)
r = np.random.default_rng(1)
scalar_losses, numpy_losses, spent = [], [], {"single numbers": [], "NumPy": []}
for step in progress(range(1, SCALAR_STEPS + 1), "both"):
    start = r.integers(0, len(characters) - 9)
    window = characters[start : start + 9]

    began = time.perf_counter()
    loss = scalar_gpt.cross_entropy(scalar_gpt.gpt(window[:-1].tolist(), weights, 1, 2), window[1:].tolist())
    loss.backward()
    scalar_gpt.adamw(values, moments, step, lr=1e-2, weight_decay=0.01)
    spent["single numbers"].append(time.perf_counter() - began)
    scalar_losses.append(loss.data)

    began = time.perf_counter()
    loss = theirs(window[None, :-1], targets=window[None, 1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    spent["NumPy"].append(time.perf_counter() - began)
    numpy_losses.append(loss.item())

gap = np.abs(np.array(scalar_losses) - np.array(numpy_losses)).max()
print(f"{len(values):,} weights, {SCALAR_STEPS} steps: losses differ by at most {gap:.0e}")
slow, fast = (np.median(seconds_each) for seconds_each in spent.values())
many = shop.seconds_per_step(theirs, small.vocab_size, batch=256, context=8) / 256  # for each text
print(f"NumPy is {slow / fast:.0f} times as fast with one text in a step,", end=" ")
print(f"{slow / many:,.0f} times for each text with 256 of them in a step")
assert gap < 1e-9 and slow > 5 * fast and fast > 3 * many
shop.plot_scalar_losses(scalar_losses, numpy_losses)

# %% [markdown]
r"""
(Each loss is that of eight letters, so it jumps from step to step.) The losses are equal up to rounding (the dots on
the right are far below the tolerance), step after step: nothing is hidden in the library. What NumPy brings is speed.
With one short text in a step most of its time is the overhead of calls; with 256 texts the same calls do 256 times the
work, and the factor grows accordingly. A GPU is the next step in the same direction (chapter 15).

## The library's version

> **Step into it.** Put a breakpoint on the line `logits = model(ids)` of the next cell (VS Code: click left of the
> line, then *Debug Cell*; JupyterLab: the bug at the top right) and step into it. You pass
> `minillm.models.gpt.GPT.forward` and `minillm.models.gpt.GPT.hidden`; watch `x` in `minillm.models.gpt.Block.forward`:
> it is the stream, before and after each addition. Step into `minillm.models.gpt.MLP.forward` and see `h.shape`. Then
> replace `model` by `example`, our small Llama: `minillm.models.llama.Llama.hidden` makes the tables of angles,
> `minillm.models.attention.MultiHeadAttention.heads` turns queries and keys, and `minillm.models.llama.MLP.forward` is
> the gate.
"""

# %%
model = new_gpt(0)
ids = text.held_out[None, :4]  # (B, T) = (1, 4)
logits = model(ids)  # a breakpoint here
assert logits.shape == (1, 4, text.vocab_size)
commands = ["tbreak Block.forward", "continue", "where", "next", "next", "print(x.shape)"]
seen = type_into_debugger("model(ids)", commands, {"model": model, "ids": ids, "Block": type(model.blocks[0])})
print(seen)
assert "(1, 4, 64)" in seen and "hidden" in seen

# %% [markdown]
r"""
## The model to take along

Which architecture do we take along? The comparison says: RoPE. RMS norm and SwiGLU cost nothing here, grouped queries
cost a little and halve the cache; together they are a Llama, in the form in which it has been trained at all sizes. Its
width comes from a budget: how many steps can you wait for? `architecture` of the workshop returns the config, and
counting says what it will cost, before anything is trained.
"""

# %%
chosen = architecture(SCALE, vocab_size=2000)
tokens = 500 * 16 * chosen.context  # of 500 steps of 16 texts
needed = training_flops(chosen, chosen.context) * tokens
pace = np.interp(chosen.d_model, WIDTHS, speed)  # operations per second at about this width
print(chosen)
print(f"{n_parameters(chosen):,} parameters:", parameters_by_part(chosen))
print(f"500 steps: {needed / 1e12:.2f} · 10¹² operations,", end=" ")
print(f"{needed / pace:.0f} s at the speed measured above;", end=" ")
print(f"the cache of a full context: {cache_bytes(chosen, 1, chosen.context) / 1e3:.0f} kB")
assert n_parameters(chosen) == sum(p.data.size for p in Llama(chosen).parameters())

# %% [markdown]
r"""
## Summary

- A GPT is a stream $x\,(B, T, D)$ to which $2L$ layers add: attention, which moves information between positions, and a
  feed-forward network, which works on each position alone. Each reads the stream through a norm.
- Layer norm's backward removes from $h = g \circ w$ its parts along $(1, \dots, 1)$ and along $\hat x$, and divides by
  the size of what was normed.
- Matrices of standard deviation $1/\sqrt D$ keep sizes; dividing the last matrix of each layer by $\sqrt{2L}$ keeps
  the stream's size at any depth. Without norms sizes run away; without sums all positions become the same vector.
- $N \approx VD + 12LD^2$; forward $2N$ operations per token, a training step $6N$, and the scores on top.
- Llama: RMS norm (no mean, no bias), RoPE (a rotation, so that scores depend on the distance), SwiGLU (a gate), grouped
  queries (a smaller cache). In our runs RoPE lowers the loss, SwiGLU perhaps; the others lower costs.
- All of it fits in about 150 lines of plain Python, and NumPy only makes it fast.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are
folded below.
"""

# %% [markdown]
r"""
### Exercise 1: how large is that Llama? (easy, core, 10 minutes)

You read in a report: vocabulary $V$, $D$ features, $L$ layers, $H$ heads, of which $H_{kv}$ for keys and values, $F$
features inside the feed-forward network; the head is tied to the token table. How many parameters are that? (A Llama
has no biases and no table of positions; a head has $D/H$ features.)
"""


# %% tags=["exercise"]
def llama_parameters(V, D, L, H, Hkv, F):
    return None


with check():
    mine = llama_parameters(400, 32, 2, 4, 2, 80)
    assert mine is not None, "llama_parameters returns nothing yet: add up tables, matrices and gains of the norms."
    for V, D_, L, H, Hkv, F in ((400, 32, 2, 4, 2, 80), (1000, 48, 3, 6, 1, 100), (333, 40, 5, 5, 5, 111)):
        shape = {"n_layers": L, "n_heads": H, "n_kv_heads": Hkv, "d_model": D_, "d_ff": F, "tie_embeddings": True}
        right, mine = n_parameters(LlamaConfig(V, 64, **shape)), llama_parameters(V, D_, L, H, Hkv, F)
        over = mine - right
        hint = "Draw the block once more and list what has weights, with shapes."
        if over == V * D_:
            hint = "The head is tied: which of your matrices is the same one twice?"
        elif Hkv < H and over == 2 * L * D_ * (D_ - Hkv * D_ // H):
            hint = "Look at the matrices of keys and values: how many heads do they make?"
        elif over in (-D_, -L * D_, -2 * L * D_, -(2 * L + 1) * D_):
            hint = "The matrices are right. Which gains of norms are missing?"
        elif over in (D_, (2 * L + 1) * D_):
            hint = "The matrices are right. What does an RMS norm have, and how many are there?"
        elif over == -L * D_ * F:
            hint = "How many matrices has a feed-forward network with a gate?"
        assert over == 0, f"Wrong for V={V}, D={D_}, L={L}, H={H}, Hkv={Hkv}, F={F}. {hint}"

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def llama_parameters(V, D, L, H, Hkv, F):
    attention = 2 * D * D + 2 * D * Hkv * (D // H)  # queries and the mixing; keys and values
    gated = 3 * D * F
    norms = 2 * D  # of a block
    return V * D + L * (attention + gated + norms) + D  # the table; blocks; the last norm
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: sharing keys (easy, core, 10 minutes)

With grouped queries, attention gets `k` of shape $(H_{kv}, T, d)$ for $H$ query heads. Query heads
$0, \dots, H/H_{kv} - 1$ use key head 0, the next as many use key head 1, and so on. Return the keys as $(H, T, d)$, so
that query head $h$ finds its own at index $h$. (Fast code never makes this copy. Here it shows the order.)
"""


# %% tags=["exercise"]
def share(k, n_heads):
    return None


with check():
    k = rng.standard_normal((3, 5, 2))
    assert share(k, 6) is not None, "share returns nothing yet: return an array (n_heads, T, d)."
    for n_heads in (6, 3, 12):
        mine = np.asarray(share(k, n_heads))
        assert mine.shape == (n_heads, 5, 2), (
            f"For {n_heads} query heads and keys {k.shape} the result must be {(n_heads, 5, 2)}, not {mine.shape}."
        )
        found = [[float(np.abs(row - key).max()) < 1e-12 for key in k] for row in mine]
        assert np.any(found, axis=1).all(), "Some head's keys are none of the given ones: copy whole heads, unmixed."
        used = np.argmax(found, axis=1)
        assert np.bincount(used, minlength=3).tolist() == [n_heads // 3] * 3, (
            f"With {n_heads} query heads, key heads 0, 1, 2 are used {np.bincount(used, minlength=3).tolist()} times."
        )
        assert np.all(np.diff(used) >= 0), f"The query heads use key heads {used.tolist()}: neighbours should share."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def share(k, n_heads):
    return np.repeat(k, n_heads // len(k), axis=0)
```

`np.tile` has the right shape and another order: 0, 1, 2, 0, 1, 2. A model trained with one order and run with the other
gives nonsense without any error. The library's `minillm.ops.attention` writes its order down: head $h$ uses key head
$\lfloor h / (H/H_{kv}) \rfloor$.

</details>
"""

# %% [markdown]
r"""
### Exercise 3: the gate, backward (medium, core, 20 minutes)

SwiGLU's two matrices up give $z = W_{\text{gate}}\,x$ and $u = W_{\text{up}}\,x$, and the gate makes of them
$y = \text{SiLU}(z) \circ u$. With $T$ positions all three are $(T, F)$. Given $g = dL/dy$, return $dL/dz$ and $dL/du$,
both $(T, F)$. First find the slope of $\text{SiLU}(z) = z\,\sigma(z)$, where $\sigma(z) = 1/(1 + e^{-z})$ has the slope
$\sigma(z)\,(1 - \sigma(z))$.
"""

# %% tags=["exercise"]
def swiglu_backward(g, z, u):
    sigma = 1 / (1 + np.exp(-z))  # (T, F)
    return None, None


with check():
    g, z, u = rng.standard_normal((3, 5, 6))
    dz, du = swiglu_backward(g.copy(), z.copy(), u.copy())
    assert dz is not None and du is not None, "swiglu_backward returns nothing yet: return dL/dz and dL/du."
    dz, du = np.asarray(dz), np.asarray(du)
    for name, mine in (("z", dz), ("u", du)):
        assert mine.shape == (5, 6), f"dL/d{name} must have the shape of {name}, (5, 6), not {mine.shape}."
    tensors = [Parameter(a.copy()) for a in (z, u)]
    ops.swiglu(*tensors).backward(g)
    right_dz, right_du = (tensor.grad for tensor in tensors)
    swapped = np.allclose(dz, right_du) and np.allclose(du, right_dz)
    assert not swapped, "Both are right, in the other order: dL/dz comes first."
    assert np.allclose(du, right_du), "dL/du is wrong: in the product y, what is u multiplied by?"
    assert not np.allclose(dz * u, right_dz), "dL/dz is wrong: SiLU(z) is multiplied by something, too."
    assert np.allclose(dz, right_dz), (
        "dL/dz is wrong: z stands in z σ(z) twice. Is your slope of SiLU ½ at z = 0, and about 1 at a large z?"
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

By the product rule $\frac{d}{dz}\,z\,\sigma(z) = \sigma(z) + z\,\sigma(z)(1 - \sigma(z))$, and $y$ has the slope
$\text{SiLU}(z)$ along $u$ and $u$ along $\text{SiLU}(z)$.

```python
def swiglu_backward(g, z, u):
    sigma = 1 / (1 + np.exp(-z))
    slope = sigma + z * sigma * (1 - sigma)
    return g * u * slope, g * z * sigma
```

</details>
"""

# %% [markdown]
r"""
### Exercise 4: other people's pairs (hard, useful, 25 minutes)

The first Llama's code turns **neighbouring** features, pairs $(0, 1), (2, 3), \dots$; our library, like most, turns
feature $i$ with $i + d/2$. Its checkpoints can be used all the same, if the rows of $W_Q$ and $W_K$ are put in another
order, once, when they are loaded. $W\,(H d, D)$ makes the queries of $H$ heads of $d$ features each, head after head.
Return $W$ with its rows reordered so that `rotate` (pairs of halves) gives the scores that `rotate_neighbours` gave
with the original.
"""


# %% tags=["exercise"]
def rotate_neighbours(x, positions, base=10_000.0):
    a, b = x[..., 0::2], x[..., 1::2]
    angle = positions[:, None] * base ** (-np.arange(a.shape[-1]) / a.shape[-1])
    y = np.empty_like(x)
    y[..., 0::2], y[..., 1::2] = a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)
    return y


def reorder_rows(W, n_heads):
    return None


with check():
    W_Q, W_K = rng.standard_normal((2, 3 * 8, 10))  # three heads of 8 features, D = 10
    assert reorder_rows(W_Q, 3) is not None, "reorder_rows returns nothing yet: return W with its rows reordered."
    mine = [np.asarray(reorder_rows(W.copy(), 3)) for W in (W_Q, W_K)]
    assert mine[0].shape == (24, 10), f"W keeps its shape, (24, 10); yours has {mine[0].shape}."
    assert np.array_equal(np.sort(mine[0], axis=0), np.sort(W_Q, axis=0)), "All rows must be there once, unchanged."
    from_head = [int(np.flatnonzero((row == W_Q).all(axis=1))[0]) // 8 for row in mine[0]]
    assert from_head == [0] * 8 + [1] * 8 + [2] * 8, f"Rows must stay in their heads; yours come from {from_head}."
    x, places = rng.standard_normal((7, 10)), np.arange(7)

    def scores(turn, matrices):
        q, k = ((x @ W.T).reshape(7, 3, 8).swapaxes(0, 1) for W in matrices)  # each (H, T, d)
        return turn(q, places) @ turn(k, places).swapaxes(1, 2)

    theirs = scores(rotate_neighbours, (W_Q, W_K))
    assert not np.allclose(scores(rotate, (W_Q, W_K)), theirs)  # the order matters
    assert np.allclose(scores(rotate, mine), theirs), (
        f"The scores differ. Head 0 of your W has the features "
        f"{[int(np.flatnonzero((row == W_Q).all(axis=1))[0]) for row in mine[0][:8]]}: which two does `rotate` pair?"
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

`rotate` pairs places $i$ and $i + 4$, so the even features go to the first half and the odd ones to the second:
0, 2, 4, 6, 1, 3, 5, 7. The scores are sums over features, so their order does not matter otherwise.

```python
def reorder_rows(W, n_heads):
    pairs = W.reshape(n_heads, -1, 2, W.shape[1])  # (H, d/2, first or second of the pair, D)
    return pairs.swapaxes(1, 2).reshape(W.shape)
```

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** Which parts of a GPT let positions exchange information?

<details><summary>Answer</summary>

Attention only. Norms, feed-forward networks, embeddings and the head treat each position alone.

</details>

**2.** Why does the gradient of an early layer not vanish in a deep GPT?

<details><summary>Answer</summary>

The stream is a sum, and a sum hands its gradient on unchanged to both terms: there is a path from the loss to each
layer's addition on which, before the last norm, nothing is multiplied.

</details>

**3.** From which length on do the scores cost more operations than the block's matrices?

<details><summary>Answer</summary>

Per token and block $2D(T + 1)$ against $24D^2$: from $T \approx 12D$ on, for GPT-2's 768 features beyond 9000 tokens.

</details>

**4.** What would go wrong if RoPE turned the values, too?

<details><summary>Answer</summary>

What is read from a position would arrive turned by an angle that depends on where it stood, so the same content would
read differently at each place. Scores depend on distances; contents should not.

</details>

**5.** You double $D$ and leave everything else. How do parameters and time per token grow?

<details><summary>Answer</summary>

The matrices of the blocks four times, the tables and the head twice: between two and four times, closer to four the
more layers there are. The time likewise, or less in small models, where overhead is most of it.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now draw and write a GPT and a Llama, count what they cost, say what each part is for, and back it with a
measurement.

**What you take along**: `architecture(SCALE, vocab_size)` from `minillm.workshop.deliverables`, the config of the Llama
that chapter 08 trains; and `chapters/workshop/scalar_gpt.py`, a whole GPT to read on a train. The same model goes to
PyTorch in chapter [15](15_the_same_model_on_pytorch.ipynb), and its stream is what chapter
[18](18_looking_inside.ipynb) reads and changes.

Next: [08 · Pretraining](08_pretraining.ipynb) trains for real: the optimizer, the schedule, and how to tell a
healthy run from a sick one.
"""
