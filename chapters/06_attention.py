# %% [markdown]
r"""
# 06 · Attention

To continue "Ada gave the book to Bo, and Bo thanked", a model has to find one earlier word among many. Where it
stands differs from sentence to sentence. **Attention** is the op that lets each position choose, by content, which
earlier positions to read from. It is the heart of the Transformer.

**Afterwards you can** write attention from the idea of an average, say why it divides by $\sqrt d$, derive its
backward, mask it, split it into heads, say what it costs, and read the pictures of what a trained head looks at.

**You need** [02 · Tensors and autograd](02_autograd.ipynb): shapes, softmax, and how a backward is derived and
checked.
"""

# %%
import time

import numpy as np
from minillm import nn, ops, plot
from minillm.baselines import NGramModel
from minillm.models.gpt import GPT, CausalSelfAttention, GPTConfig
from minillm.optim import AdamW
from minillm.tensor import Parameter, Tensor, no_grad

from workshop import check, numerical_gradient, read_scale, show_versions

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
STEPS = {"smoke": 30, "cpu": 500, "gpu": 1500}[SCALE]  # training steps for each model
SEEDS = {"smoke": 1, "cpu": 3, "gpu": 5}[SCALE]  # starts for each model that is compared
COUNTED = {"smoke": 500, "cpu": 20_000, "gpu": 100_000}[SCALE]  # sequences for the n-gram model
LONGEST = {"smoke": 10, "cpu": 12, "gpu": 13}[
    SCALE
]  # attention is timed up to 2 ** LONGEST positions

rng = np.random.default_rng(6)
show_versions(SCALE)

# %% [markdown]
r"""
## Why: a task that needs to look back

We want a task that shows the need in its purest form. A sequence assigns digits to variables, as a program does, and
then asks. A variable may be assigned again: the latest value counts. Each of `x=3`, `x?` and `7` is one **token**,
one symbol of the vocabulary, and the model has to predict the token after each question.
"""

# %%
VARIABLES, DIGITS = "abcdefgh", "0123456789"
VOCABULARY = [f"{v}={d}" for v in VARIABLES for d in DIGITS]
VOCABULARY += [f"{v}?" for v in VARIABLES] + list(DIGITS)
QUESTION = VOCABULARY.index("a?")  # the first id of the questions
ANSWER = VOCABULARY.index("0")  # the first id of the answers
ASSIGNMENTS, QUESTIONS = 8, 4


def make_batch(rng, size):
    """ids (size, T) and targets (size, T): the next token after each question, −100 (not counted) elsewhere."""
    variable = rng.integers(0, len(VARIABLES), (size, ASSIGNMENTS))
    digit = rng.integers(0, len(DIGITS), (size, ASSIGNMENTS))
    asked = np.take_along_axis(variable, rng.integers(0, ASSIGNMENTS, (size, QUESTIONS)), axis=1)
    same = variable[:, None, :] == asked[:, :, None]  # (size, QUESTIONS, ASSIGNMENTS)
    latest = ASSIGNMENTS - 1 - same[:, :, ::-1].argmax(axis=2)  # the last one
    answer = np.take_along_axis(digit, latest, axis=1)
    pairs = np.stack([QUESTION + asked, ANSWER + answer], axis=2).reshape(size, -1)
    sequence = np.concatenate([variable * len(DIGITS) + digit, pairs], axis=1)
    ids, targets = sequence[:, :-1], np.full_like(sequence[:, 1:], -100)
    targets[:, ASSIGNMENTS::2] = sequence[:, ASSIGNMENTS + 1 :: 2]
    return ids, targets


ids, targets = make_batch(np.random.default_rng(84), 1)
T = ids.shape[1]
example = [VOCABULARY[i] for i in ids[0]]
plot.token_spans(
    [*example, VOCABULARY[targets[0, -1]]], title="one sequence; the last token is the last answer"
)

# %% [markdown]
r"""
A count of what usually follows the last few tokens (an **n-gram** model, chapter 01) does not help: the assignment
that decides may stand anywhere. To see how far counting gets, we train the library's n-gram model on these sequences,
each token written as one character, and let it guess the answers of sequences it has not seen.
"""


# %%
def as_text(ids):
    """One character for each token, so that the n-gram model, made for text, can count them."""
    return "".join(chr(0x4E00 + i) for i in ids)


def whole(ids, targets):
    return np.append(ids, targets[-1])  # with the last answer


train_ids, train_targets = make_batch(np.random.default_rng(10), COUNTED)
lines = [as_text(whole(*pair)) for pair in zip(train_ids, train_targets)]
counted = NGramModel.fit("\n".join(lines), order=5, unit="char")

test_ids, test_targets = make_batch(np.random.default_rng(11), 500)
test_answers = test_targets != -100  # (500, T), True where the next token is an answer
right = []
for row, position in np.argwhere(test_answers[:200]):
    likely = counted.distribution(as_text(test_ids[row, : position + 1])[-4:]).argmax()
    right.append(counted.alphabet[likely] == 0x4E00 + test_targets[row, position])
ngram_accuracy = float(np.mean(right))
print(
    f"5-gram: {100 * ngram_accuracy:.0f}% of answers right; guessing a digit: {100 / len(DIGITS):.0f}%"
)
assert ngram_accuracy < 0.5

# %% [markdown]
r"""
Better than guessing, because sometimes the assignment, or an earlier answer to the same question, happens to stand
within the four tokens that it sees. Everywhere else it has nothing to go by.

## From averaging to weighted averaging

How can position $t$ use everything before it, when "everything before" has a different length at each position? The
simplest answer is to **average** the vectors of positions $0 \dots t$. For vectors $x_t$ stacked as rows of
$X\,(T, D)$ all these averages are one matrix product $AX$, where row $t$ of $A\,(T, T)$ holds $1/(t+1)$ up to $t$,
then zeros.
"""

# %%
X = rng.standard_normal((5, 3))
A = np.tril(np.ones((5, 5)))
A /= A.sum(axis=1, keepdims=True)
print(A.round(2))
assert np.allclose((A @ X)[3], X[:4].mean(axis=0))

# %% [markdown]
r"""
An average treats all alike: our question would drown among eight assignments. But the matrix product works for
**any** weights that are positive and sum to 1 in each row. So let the weights depend on the content:

- each position asks with a vector, its **query** $q_t$: "I need the value of `b`";
- each position shows a vector, its **key** $k_s$: "I am an assignment to `b`";
- the **score** of $s$ for $t$ is their dot product $q_t \cdot k_s$, large if they point the same way;
- **softmax** over the scores gives weights $p_{ts}$, positive with sum 1;
- what is averaged is not the key but a third vector, the **value** $v_s$: "the digit is 7".

A look-up in a dictionary, but soft: every entry answers a little, the best match most. Let us set up the three kinds
of vectors by hand for one sequence. The key says which variable the token assigns, the query which it asks for, the
value which digit it holds.
"""


# %%
def softmax(x):
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    return y / y.sum(axis=-1, keepdims=True)


tokens = ["b=7", "e=2", "a=4", "g=9", "b?"]
K, V = np.zeros((5, len(VARIABLES))), np.zeros((5, len(DIGITS)))
for s, token in enumerate(tokens[:-1]):
    K[s, VARIABLES.index(token[0])] = 1
    V[s, DIGITS.index(token[2])] = 1
q = np.zeros(len(VARIABLES))
q[VARIABLES.index("b")] = 1

figure, axes = plot.subplots(1, 3, height=2.4, sharey=True)
for ax, sharpness in zip(axes, (0, 2, 6)):
    weights = softmax(sharpness * (K @ q))  # (5,)
    ax.bar(tokens, weights, color=plot.BLUE)
    ax.set_title(f"query × {sharpness}: “7” gets {weights @ V[:, 7]:.2f}", fontsize=9)
axes[0].set_ylabel("weight of “b?”")
assert weights.argmax() == 0
figure

# %% [markdown]
r"""
With a query of length 0 all scores are equal and attention *is* plain averaging. The longer the query, the sharper
the choice. Nobody will set these vectors by hand, of course: queries, keys and values are three linear maps of the
position's vector, $q_t = W_Q x_t$, $k_t = W_K x_t$, $v_t = W_V x_t$, and training finds the maps. That is possible
because everything is smooth: a little more of query changes the weights a little.

## The formula

Stack queries, keys and values as rows of matrices, and all positions are done at once (Vaswani et al. 2017, section
3.2.1):

$$\operatorname{attention}(Q, K, V) = \operatorname{softmax}\!\Big(\frac{QK^\top}{\sqrt d}\Big) V.$$

| symbol | shape | what it is |
| --- | --- | --- |
| $Q$ | $(T_q, d)$ | a query for each position that looks |
| $K$ | $(T_k, d)$ | a key for each position that can be looked at |
| $V$ | $(T_k, d_v)$ | a value for each of those |
| $S = QK^\top/\sqrt d$ | $(T_q, T_k)$ | scores: row $t$ belongs to query $t$ |
| $P = \operatorname{softmax}(S)$ | $(T_q, T_k)$ | weights, each row sums to 1 |
| $O = PV$ | $(T_q, d_v)$ | the weighted averages |

Five lines of NumPy. The library's op takes two more axes in front, batch and heads, which come later; here both are
1.
"""


# %%
def attention(Q, K, V):
    d = Q.shape[-1]
    S = Q @ K.swapaxes(-1, -2) / np.sqrt(d)
    P = softmax(S)
    return P @ V


Q, K, V = rng.standard_normal((6, 4)), rng.standard_normal((6, 4)), rng.standard_normal((6, 3))
library = ops.attention(*(Tensor(M[None, None]) for M in (Q, K, V))).data[0, 0]
print(f"largest gap to the library: {np.abs(attention(Q, K, V) - library).max():.0e}")
assert np.allclose(attention(Q, K, V), library, atol=1e-12)

# %% [markdown]
r"""
## Why divide by $\sqrt d$?

A score is a sum of $d$ products. If queries and keys have independent entries with variance 1, each product has
variance 1, and the sum has variance $d$: typical scores grow like $\sqrt d$. What does softmax do with large scores?
It becomes almost one-hot, *whatever the content*, and that has a price: its slope,
$\partial p_i/\partial s_j = p_i([i = j] - p_j)$, vanishes when every $p$ is close to 0 or 1. A head that starts like
that cannot learn to look elsewhere. We draw random queries and keys for 64 positions and look at the scores, the
largest weight, and the size of the slopes, with the division and without.
"""

# %%
dimensions = [4, 16, 64, 256, 1024]
measured = {"S = QKᵀ": [], "S = QKᵀ / √d": []}
for d in dimensions:
    Q, K = rng.standard_normal((2, 64, d))
    for name, S in (("S = QKᵀ", Q @ K.T), ("S = QKᵀ / √d", Q @ K.T / np.sqrt(d))):
        P = softmax(S)
        slopes = P[:, :, None] * (np.eye(64) - P[:, None, :])  # (query, i, j): ∂pᵢ/∂sⱼ
        measured[name].append(
            (S.std(), P.max(axis=1).mean(), np.sqrt((slopes**2).sum(axis=(1, 2))).mean())
        )

figure, axes = plot.subplots(1, 3, height=2.8)
for (name, values), marker in zip(measured.items(), "os"):
    for ax, column in zip(axes, np.array(values).T):
        ax.plot(dimensions, column, marker=marker, label=name)
for ax, title in zip(
    axes, ("spread of the scores", "largest weight of a row", "size of softmax's slopes")
):
    ax.set_xscale("log", base=2)
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("d")
axes[0].set_yscale("log", base=2)
axes[0].legend(fontsize=8)
raw, scaled = (np.array(values) for values in measured.values())
print(
    f"largest weight at d = {dimensions[-1]}: {raw[-1, 1]:.2f}, divided by √d: {scaled[-1, 1]:.2f}"
)
assert raw[-1, 1] > 0.8 > 0.3 > scaled[:, 1].max() and np.all(np.abs(scaled[:, 0] - 1) < 0.2)
figure

# %% [markdown]
r"""
Divided by $\sqrt d$, scores keep spread 1 at every size, and all three curves are flat. (Right: without the division
the slopes first grow, while the weights are moderately uneven, then collapse.)

## The causal mask

A language model predicts the next token. While it trains, all positions of a text are computed at once, so position
$t$ must not see what comes after it, or it would just copy the answer. Set the forbidden scores to $-\infty$
**before** the softmax: $e^{-\infty} = 0$, and the rest of the row still sums to 1. (Zeroing weights *after* the
softmax would leave rows that sum to less than 1.) The test is direct: change the future, and the past must not
change.
"""


# %%
def causal_attention(Q, K, V):
    T, d = Q.shape
    S = Q @ K.T / np.sqrt(d)
    S[~np.tri(T, dtype=bool)] = -np.inf  # np.tri: True on and below the diagonal, where key ≤ query
    P = softmax(S)
    return P @ V, P


Q, K, V = rng.standard_normal((6, 4)), rng.standard_normal((6, 4)), rng.standard_normal((6, 3))
before, P = causal_attention(Q, K, V)
K[4:], V[4:] = 9.9, -9.9  # another future
after, _ = causal_attention(Q, K, V)
print(P.round(2))
assert np.array_equal(before[:4], after[:4]) and not np.allclose(before[4:], after[4:])
assert np.allclose(P.sum(axis=1), 1)

# %% [markdown]
r"""
## The backward, by hand

Let $G = dL/dO$, of shape $(T_q, d_v)$. Walk back through three steps, each of which chapter 02 has derived:

**Mixing.** $O = PV$ is a matrix product, so $\;\dfrac{dL}{dV} = P^\top G\;$ and $\;\dfrac{dL}{dP} = G V^\top$.

**Softmax.** $P = \operatorname{softmax}(S)$, row by row. With $\partial p_i/\partial s_j = p_i([i=j] - p_j)$,

$$\frac{dL}{ds_j} = \sum_i \frac{dL}{dp_i}\, p_i\,([i = j] - p_j)
= p_j\Big(\frac{dL}{dp_j} - \sum_i p_i \frac{dL}{dp_i}\Big).$$

In words: raise a score if reading there helps *more than the row's average reading* does. A forbidden position has
$p_j = 0$ and so gets gradient 0: the mask needs no line of its own.

**Scores.** $S = QK^\top/\sqrt d$: $\;\dfrac{dL}{dQ} = \dfrac{dL}{dS}\, K/\sqrt d\;$ and
$\;\dfrac{dL}{dK} = \dfrac{dL}{dS}^{\!\top} Q/\sqrt d$.
"""


# %%
def causal_attention_backward(G, Q, K, V, P):
    scale = 1 / np.sqrt(Q.shape[1])
    dV = P.T @ G  # (Tk, dv)
    dP = G @ V.T  # (Tq, Tk)
    dS = P * (dP - (P * dP).sum(axis=1, keepdims=True))  # (Tq, Tk)
    dQ = dS @ K * scale  # (Tq, d)
    dK = dS.T @ Q * scale  # (Tk, d)
    return dQ, dK, dV


Q, K, V = rng.standard_normal((6, 4)), rng.standard_normal((6, 4)), rng.standard_normal((6, 3))
out, P = causal_attention(Q, K, V)
G = rng.standard_normal(out.shape)  # L = Σ G·O, so dL/dO = G
ours = causal_attention_backward(G, Q, K, V, P)

tensors = [Parameter(M[None, None].copy()) for M in (Q, K, V)]
ops.attention(*tensors, causal=True).backward(G[None, None])


def loss():
    return float((G * causal_attention(Q, K, V)[0]).sum())


for name, M, gradient, tensor in zip("QKV", (Q, K, V), ours, tensors):
    numerical = np.abs(gradient - numerical_gradient(loss, M)).max()
    library = np.abs(gradient - tensor.grad[0, 0]).max()
    print(
        f"dL/d{name}: largest gap to finite differences {numerical:.0e}, to the library {library:.0e}"
    )
    assert numerical < 1e-7 and library < 1e-12

# %% [markdown]
r"""
## Heads

One softmax per position means one place to look at. A word may need several: its verb, its adjective, the end of the
last sentence. So the $D$ features of a position are cut into $H$ **heads** of $d = D/H$, each head attends on its
own, and the results are put side by side and mixed by a last matrix. The cost stays the same.

In arrays: $(B, T, D)$ becomes $(B, T, H, d)$ by `reshape`, then $(B, H, T, d)$ by **swapping** axes, so that batch
and heads stand in front and the matrix products see $(T, d)$. Beware of the short cut: `reshape(B, H, T, d)` has the
right shape and the wrong numbers. `reshape` never moves numbers; it only puts the brackets elsewhere.
"""

# %%
B, T_small, H, d = 1, 3, 2, 2
x = np.arange(B * T_small * H * d).reshape(
    B, T_small, H * d
)  # row t holds position t: features of head 0, then of head 1
heads = x.reshape(B, T_small, H, d).swapaxes(1, 2)  # (B, H, T, d)
broken = x.reshape(B, H, T_small, d)
print("positions (rows) with their features:", x[0].tolist())
print("head 0, right:", heads[0, 0].tolist(), "  head 0, by reshape alone:", broken[0, 0].tolist())
assert (
    heads[0, 0].tolist() == [[0, 1], [4, 5], [8, 9]]
    and heads.shape == broken.shape
    and not np.array_equal(heads, broken)
)

# %% [markdown]
r"""
By reshape alone, "head 0" mixes features of both heads and of neighbouring positions: a model built like that runs,
trains, and is worse for no visible reason. With the right order, our few lines give what the library's layer gives:
"""

# %%
layer = CausalSelfAttention(
    GPTConfig(n_layers=1, n_heads=2, d_model=8), layer=0, rng=np.random.default_rng(0)
)
layer.to(np.float64)
layer.qkv.weight.data *= (
    20  # a fresh GPT's weights are small; larger ones make the effects below easy to see
)
x = rng.standard_normal((1, 5, 8))  # (B, T, D)
qkv = (
    x @ layer.qkv.weight.data.T + layer.qkv.bias.data
)  # (B, T, 3D): queries, keys and values in one product
parts = qkv.reshape(1, 5, 3, 2, 4)  # (B, T, 3, H, d)
by_head = []
for h in range(2):
    out, _ = causal_attention(*(parts[0, :, which, h] for which in range(3)))
    by_head.append(out)  # (T, d)
ours = (
    np.concatenate(by_head, axis=1) @ layer.proj.weight.data.T + layer.proj.bias.data
)  # side by side, then mixed
print(f"largest gap to the library's layer: {np.abs(ours - layer(Tensor(x)).data[0]).max():.0e}")
assert np.allclose(ours, layer(Tensor(x)).data[0], atol=1e-12)

# %% [markdown]
r"""
## Positions

Nothing in the formula knows *where* a key stands. Shuffle the earlier positions, and the last position's result stays
the same: a sum does not care about the order of its terms. For "the latest value counts", order is everything. GPT's
remedy is simple: a learned vector for each position is **added** to the token's vector before the first layer. Then
queries and keys can contain "I am position 7".
"""

# %%
x = rng.standard_normal((1, 5, 8))
shuffled = x[:, [2, 0, 3, 1, 4]]  # the last stays last
positions = rng.standard_normal((5, 8))
without = np.abs(layer(Tensor(x)).data[0, -1] - layer(Tensor(shuffled)).data[0, -1]).max()
added = np.abs(
    layer(Tensor(x + positions)).data[0, -1] - layer(Tensor(shuffled + positions)).data[0, -1]
).max()
print(
    f"shuffling changes the last position's output by {without:.0e} without positions, by {added:.0e} with them"
)
assert without < 1e-12 < 1e-6 < added

# %% [markdown]
r"""
## What it costs

$QK^\top$ and $PV$ take $T\cdot T\cdot d$ multiplications each, and $S$ and $P$ hold $T^2$ numbers. Twice the text is
four times the work; a linear layer needs only twice. We measure both on the same input, one head of 64 features,
forward only.
"""

# %%
lengths = [2**i for i in range(6, LONGEST + 1)]
seconds = {"attention": [], "linear layer": []}
weight = Tensor(rng.standard_normal((256, 64)).astype(np.float32))
for T_long in lengths:
    q, k, v = (Tensor(rng.standard_normal((1, 1, T_long, 64)).astype(np.float32)) for _ in range(3))
    with no_grad():
        for name in seconds:
            times = []
            for _ in range(7):
                start = time.perf_counter()
                ops.attention(q, k, v) if name == "attention" else ops.linear(q, weight)
                times.append(time.perf_counter() - start)
            seconds[name].append(min(times))

figure, ax = plot.subplots(height=3.0)
slopes = {}
for (name, values), marker in zip(seconds.items(), "os"):
    tail = slice(-4, None)  # the longest four, where the work outweighs the overhead of the calls
    slopes[name] = np.polyfit(np.log(lengths[tail]), np.log(values[tail]), 1)[0]
    ax.loglog(
        lengths,
        [1e3 * s for s in values],
        marker=marker,
        base=2,
        label=f"{name}: time ~ T^{slopes[name]:.1f}",
    )
ax.set_xlabel("T, positions")
ax.set_ylabel("milliseconds")
ax.legend()
for T_long in (lengths[0], lengths[-1]):
    print(f"all weights of one head at T = {T_long}: {T_long**2 * 4 / 1e6:.2f} MB")
if SCALE != "smoke":
    assert slopes["attention"] > 1.4 and slopes["attention"] > slopes["linear layer"]
figure

# %% [markdown]
r"""
For short texts attention is cheap; for long ones it dominates everything. This is why context lengths are limited,
and why chapter 16 computes the same formula without ever storing $P$.

## The library's version

`minillm.ops.attention` is the contract (shapes, masks, grouped heads, three implementations),
`minillm.numpy_ops.attention.attention` the NumPy forward, with its backward below it. Next to ours it takes the
queries in blocks of rows, so that the causal half of the scores is never computed and each block stays in the
processor's cache; the arithmetic is the five lines above.

> **Step into it.** Put a breakpoint on `model(ids)` in the next cell and step into it, always into the deepest call.
> You pass `minillm.models.gpt.GPT.forward`, `minillm.models.gpt.GPT.hidden`, `minillm.models.gpt.Block.forward`,
> `minillm.models.gpt.CausalSelfAttention.forward` (look at `q.shape`: batch, heads, positions, features of a head),
> `minillm.ops.attention` and arrive in `minillm.numpy_ops.attention.attention`. Stop after `masked_softmax`:
> `p[0, 0, 0]` is a picture of who looks at whom, its rows sum to 1, and above the diagonal it is zero. To see the
> backward, break in `minillm.numpy_ops.attention.attention_backward`: `ds` is our $dL/dS$.
"""

# %%
model = GPT(GPTConfig(vocab_size=len(VOCABULARY), context=T, n_layers=1, n_heads=2, d_model=32))
logits = model(ids)
print("ids", ids.shape, "→ logits", logits.shape, "= (batch, positions, vocabulary)")
assert logits.shape == (1, T, len(VOCABULARY))

# %% [markdown]
r"""
## Experiment: does it learn to look?

One Transformer block with two heads (chapter 07 explains the rest of the block) learns the task. Two models with a
part taken away are trained in the same way, so that we can see what each part is for:

- **no positions**: the position vectors are zero and stay zero;
- **plain averaging**: all queries are multiplied by 0, so that every earlier position gets the same weight, as in the
  first section.

Each is trained from several random starts, on fresh sequences at every step. One remark on the start: GPT-2 draws its
weights with standard deviation 0.02, which suits its 768 features. A model of 32 features needs larger ones,
$1/\sqrt{32}$, or all scores are almost zero at first and attention learns very slowly (exercise 1 lets you see it).
"""


# %%
class PlainAveraging(CausalSelfAttention):
    def heads(self, x):
        q, k, v = super().heads(x)
        return q * 0.0, k, v


def new_model(kind, seed, std=None):
    config = GPTConfig(vocab_size=len(VOCABULARY), context=T, n_layers=1, n_heads=2, d_model=32)
    r = np.random.default_rng(seed)
    model = GPT(config, rng=r)
    if kind == "plain averaging":
        model.blocks[0].attn = PlainAveraging(config, layer=0, rng=r)
    for _, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.weight.data *= np.float32((std or config.d_model**-0.5) / 0.02)
    if kind == "no positions":
        model.wpe.weight.data[:] = 0
        model.wpe.weight.requires_grad = False
    return model


def train(model, seed, curve=None, steps=STEPS):
    r = np.random.default_rng(seed)
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20) * (1 - 0.95 * step / steps)
        ids, targets = make_batch(r, 64)
        loss = model(ids, targets=targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if curve is not None:
            last = step == steps - 1
            val = held_out_loss(model) if step % (steps // 10) == 0 or last else None
            curve.update(step, train=loss.item(), val=val)
    return model


def held_out_loss(model):
    with no_grad():
        return model(test_ids, targets=test_targets).item()


def accuracy(model):
    with no_grad():
        guesses = model(test_ids).data.argmax(axis=-1)
    return float((guesses == test_targets)[test_answers].mean())


curve = plot.LiveCurve(
    title="learning to look", baselines={"guessing a digit": np.log(len(DIGITS))}
)
trained = train(new_model("attention", 0), 0, curve)
figure = curve.finish()
print(f"answers right on sequences it has never seen: {100 * accuracy(trained):.1f}%")

# %% [markdown]
r"""
The loss falls far below that of guessing. Now the comparison, and a look at what made the difference.
"""

# %%
kinds = ("attention", "no positions", "plain averaging")
scores = {}
for kind in kinds:
    ready = [trained] if kind == "attention" else []
    models = ready + [train(new_model(kind, s), s) for s in range(len(ready), SEEDS)]
    scores[kind] = np.array([accuracy(model) for model in models])
    spread = f" ± {100 * scores[kind].std(ddof=1):.1f}" if SEEDS > 1 else ""
    print(f"{kind:16s} {100 * scores[kind].mean():5.1f}%{spread} of answers right ({SEEDS} starts)")

figure, ax = plot.subplots(height=2.2)
means = [100 * scores[kind].mean() for kind in kinds]
ax.barh(kinds, means, xerr=[100 * scores[kind].std() for kind in kinds], color=plot.BLUE, capsize=4)
ax.axvline(100 * ngram_accuracy, color=plot.BLACK, linestyle="--", label="5-gram")
ax.axvline(100 / len(DIGITS), color=plot.BLACK, linestyle=":", label="guessing")
ax.invert_yaxis()
ax.set_xlabel("answers right (%)")
ax.legend(fontsize=8)
if SCALE != "smoke":
    assert (
        scores["attention"].min()
        > 0.95
        > scores["no positions"].max()
        > scores["plain averaging"].max()
    )
figure

# %% [markdown]
r"""
Three lessons in one picture. Averaging gives the model a bag of all assignments, from which it cannot single out the
one that was asked for. Attention without positions finds the right *variable*, but if it was assigned twice it cannot
tell which value is the latest. With both, the task is solved. And where does the trained model look? Row by row: the
position that looks; bright: where it looks.
"""

# %%
shown = make_batch(np.random.default_rng(84), 1)[0]
inside = plot.look_inside(trained, shown)
plot.attention_grid(
    inside.attention[:, 0],
    [VOCABULARY[i] for i in shown[0]],
    title="one sequence in the trained model",
)

# %% [markdown]
r"""
Look at the rows of questions, `x?`: bright spots stand at assignments to the variable that is asked for. One picture
proves little, so let us count. For every question of the held-out sequences, how much of its weight goes to *the*
assignment that holds the answer? And what if a variable was assigned several times?
"""

# %%
inside = plot.look_inside(trained, test_ids)
weights = inside.attention[0]  # (sequences, heads, T, T)
assigned = test_ids[:, :ASSIGNMENTS] // len(DIGITS)  # which variable each assignment sets
on_answer, on_older, n_older = np.zeros(2), np.zeros(2), 0
questions = np.argwhere(test_answers)
for row, position in questions:
    places = np.flatnonzero(assigned[row] == test_ids[row, position] - QUESTION)
    on_answer += weights[row, :, position, places[-1]]
    if len(places) > 1:
        on_older += weights[row, :, position, places[:-1]].sum(axis=0)
        n_older += 1

even = 1 / (ASSIGNMENTS + QUESTIONS)
print(f"share of a question's weight (spread evenly: about {100 * even:.0f}% for each place)")
for head in range(2):
    share, older = on_answer[head] / len(questions), on_older[head] / n_older
    print(f"head {head}: {100 * share:.0f}% on the assignment that holds the answer,")
    print(f"        {100 * older:.0f}% on outdated ones, where there are any")
best = int(on_answer.argmax())
if SCALE != "smoke":
    assert on_answer[best] / len(questions) > 3 * even

# %% [markdown]
r"""
Is looking there also what *makes* the answers right? Take one head away after training, by setting to zero the
columns of the last matrix that read its output, and see what breaks.
"""

# %%
without_head = []
projection = trained.blocks[
    0
].attn.proj.weight  # (D, D): columns 0–15 read head 0, columns 16–31 head 1
for head in range(2):
    kept = projection.data.copy()
    projection.data[:, 16 * head : 16 * (head + 1)] = 0
    without_head.append(accuracy(trained))
    projection.data[:] = kept
    print(f"without head {head}: {100 * without_head[-1]:.0f}% of answers right")
print(f"with both: {100 * accuracy(trained):.0f}%")
if SCALE != "smoke":
    assert min(without_head) < accuracy(trained) - 0.1
    assert int(np.argmin(without_head)) == best

# %% [markdown]
r"""
The head that looks at the answers is the one that cannot be spared: what we saw in the picture is what the model
uses. (Nothing forces heads to share the work. What the other one does, if anything, a picture alone does not tell.)
"""

# %% [markdown]
r"""
## Summary

- Attention is an average whose weights depend on content: score = query · key, weight = softmax of the scores, result
  = weighted average of the values. All positions at once: $\operatorname{softmax}(QK^\top/\sqrt d)\,V$.
- Dividing by $\sqrt d$ keeps the spread of the scores at 1, so that softmax keeps slopes to learn by.
- The causal mask is $-\infty$ before the softmax; its backward needs no line of its own.
- Backward: $dV = P^\top G$, $dP = GV^\top$, $dS = P\circ(dP - \text{row sums of } P\circ dP)$, $dQ = dS\,K/\sqrt d$,
  $dK = dS^\top Q/\sqrt d$.
- Heads look at several places at once, at the same cost. To cut them out: `reshape`, then swap axes.
- Attention has no sense of order; positions are added to the input.
- Time and memory grow with the square of the length.

Next: 07 · The Transformer puts attention between norms, feed-forward layers and residual sums.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are
folded below.
"""

# %% [markdown]
r"""
### Exercise 1: a slow start (easy, 10 minutes)

`new_model("attention", 0, std=0.02)` draws the weights as GPT-2 does. Before any training: how large is the **spread
of the scores** (their standard deviation over all pairs of positions) in this model, and in
`new_model("attention", 0)`? The cell computes queries and keys; you compute the scores and their
spread. Then train both for 100 steps and compare losses, if you have
half a minute.
"""


# %% tags=["exercise"]
def spread_of_scores(model):
    x = model.blocks[0].ln_1(model.wte(test_ids) + model.wpe.weight[:T])  # (B, T, D)
    q, k, _ = model.blocks[0].attn.heads(x)  # (B, H, T, d)
    return None


small = spread_of_scores(new_model("attention", 0, std=0.02))
large = spread_of_scores(new_model("attention", 0))

with check():
    assert small is not None, (
        "Compute the scores from q.data and k.data, divided by √d, and return their .std()."
    )
    assert 0 < small < large, (
        f"Larger weights must give a larger spread; you have {small} and {large}."
    )
    assert 0.5 < large / small / ((32**-0.5 / 0.02) ** 2) < 2, (
        "A score holds a query and a key: it grows with std squared."
    )
    assert 0.5 < large < 2, (
        f"With std 1/√32 the scores should have a spread near 1, not {large:.3f}: divided by √d, d = 16?"
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

Queries and keys are both proportional to the weights, so their product, the score, falls with the **square** of the
weights' size. With 0.02 the scores are nearly all equal: attention starts as plain averaging, and gets hardly any
gradient to become something else.

```python
def spread_of_scores(model):
    x = model.blocks[0].ln_1(model.wte(test_ids) + model.wpe.weight[:T])
    q, k, _ = model.blocks[0].attn.heads(x)  # (B, H, T, d)
    scores = q.data @ k.data.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    return float(scores.std())


small = spread_of_scores(new_model("attention", 0, std=0.02))
large = spread_of_scores(new_model("attention", 0))
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: a sliding window (easy, 10 minutes)

Some models let each position see only itself and the `window − 1` positions before it: the cost then grows with $T$
instead of $T^2$. Build the mask: a boolean array $(T, T)$, True where the query (row) may look at the key (column).
"""


# %% tags=["exercise"]
def window_mask(T, window):
    return None


with check():
    mask = window_mask(6, 3)
    assert mask is not None, (
        "window_mask returns nothing yet: return a boolean array of shape (T, T)."
    )
    assert np.shape(mask) == (6, 6) and np.asarray(mask).dtype == bool, (
        "The mask must be boolean, of shape (T, T)."
    )
    assert not np.triu(mask, 1).any(), (
        "Some position sees the future: nothing may be True above the diagonal."
    )
    assert mask.sum(axis=1).tolist() == [1, 2, 3, 3, 3, 3], (
        f"Visible per row: {mask.sum(axis=1)}; expected 1 2 3 3 3 3."
    )
    q, k, v = (Tensor(rng.standard_normal((1, 1, 6, 4))) for _ in range(3))
    far = Tensor(
        np.concatenate([v.data[:, :, :1] + 5, v.data[:, :, 1:]], axis=2)
    )  # changed at position 0
    near, distant = (ops.attention(q, k, values, mask=mask).data[0, 0, 3:] for values in (v, far))
    same = near == distant
    assert same.all(), "Position 0 still reaches position 3, which is three steps away."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def window_mask(T, window):
    query, key = np.arange(T)[:, None], np.arange(T)[None, :]
    return (key <= query) & (key > query - window)
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: one new position (medium, 15 minutes)

When text is generated, the earlier keys and values are kept, and only the **new** tokens' queries are computed: $T_q$
rows against $T_k$ columns, with $T_q \le T_k$. The last query stands at the last key. Which keys may query $i$ see?
Write the mask $(T_q, T_k)$ so that the result equals the last $T_q$ rows of full causal attention.
"""


# %% tags=["exercise"]
def decoding_mask(t_q, t_k):
    return None


with check():
    mask = decoding_mask(1, 5)
    assert mask is not None, (
        "decoding_mask returns nothing yet: return a boolean array of shape (t_q, t_k)."
    )
    assert np.shape(mask) == (1, 5) and mask.all(), (
        "A single new query stands at the end: it sees all keys."
    )
    Q, K, V = rng.standard_normal((3, 7, 4))
    S = np.where(decoding_mask(3, 7), Q[-3:] @ K.T / np.sqrt(4), -np.inf)
    expected, _ = causal_attention(Q, K, V)
    assert np.allclose(softmax(S) @ V, expected[-3:]), (
        "For 3 queries and 7 keys, query 0 is position 4: it sees keys 0 to 4."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

Query $i$ of $T_q$ is position $i + T_k - T_q$ of the text. (This is what the library's `causal=True` means; PyTorch's
`is_causal` aligns the *first* query with the first key instead, a classic source of wrong generations.)

```python
def decoding_mask(t_q, t_k):
    position = np.arange(t_q)[:, None] + t_k - t_q
    return np.arange(t_k)[None, :] <= position
```

</details>
"""

# %% [markdown]
r"""
### Exercise 4: softmax in pieces (hard, 30 minutes)

The secret of fast attention kernels (chapter 16): the weighted average can be computed from keys and values that
arrive in **blocks**, without ever holding all scores. For one query, keep three things: the largest score so far $m$,
the sum $\ell = \sum_s e^{s - m}$, and the unnormalised result $o = \sum_s e^{s - m} v_s$. When a block brings a
larger maximum $m'$, what must $\ell$ and $o$ be multiplied by before the block's own terms are added?
"""


# %% tags=["exercise"]
def attention_in_blocks(q, K, V, block=4):
    """q (d,), K (T, d), V (T, dv) -> (dv,), looking at `block` keys at a time."""
    m, total, out = -np.inf, 0.0, np.zeros(V.shape[1])
    for start in range(0, len(K), block):
        scores = K[start : start + block] @ q / np.sqrt(len(q))
        new_m = max(m, scores.max())
        ...  # bring total and out from m to new_m, then add the block's terms
        m = new_m
    return out if total == 0 else out / total


with check():
    q, K, V = rng.standard_normal(4), rng.standard_normal((10, 4)), rng.standard_normal((10, 3))
    answer, expected = attention_in_blocks(q, K, V), softmax(K @ q / 2) @ V
    assert np.any(answer), (
        "The result is all zeros: nothing has been added to `total` and `out` yet."
    )
    one_block = attention_in_blocks(q, K, V, block=10)
    assert np.allclose(one_block, expected), (
        "Wrong even with all keys in one block: terms are exp(scores − new_m)."
    )
    assert np.allclose(answer, expected), (
        "Right in one block, wrong in several: are `total` and `out` rescaled to new_m?"
    )
    big = attention_in_blocks(100 * q, 100 * K, V)
    assert np.all(np.isfinite(big)), "Overflow with large scores: subtract new_m before taking exp."

# %% [markdown]
r"""
<details><summary>Solution</summary>

$e^{s - m'} = e^{s - m}\, e^{m - m'}$: both sums are multiplied by $e^{m - m'}$. At the first block $m = -\infty$, the
factor is 0, and it multiplies zeros.

```python
def attention_in_blocks(q, K, V, block=4):
    m, total, out = -np.inf, 0.0, np.zeros(V.shape[1])
    for start in range(0, len(K), block):
        scores = K[start : start + block] @ q / np.sqrt(len(q))
        new_m = max(m, scores.max())
        terms = np.exp(scores - new_m)
        total = total * np.exp(m - new_m) + terms.sum()
        out = out * np.exp(m - new_m) + terms @ V[start : start + block]
        m = new_m
    return out / total
```

</details>
"""
