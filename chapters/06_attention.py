# %% [markdown]
r"""
# 06 · Attention

To continue "Ada gave the book to Bo, and Bo thanked", a model has to find one earlier word among many, and where it
stands differs from sentence to sentence. **Attention** lets each position of a text choose, by content, which earlier
positions to read from.

**Afterwards you can** write attention from the idea of an average, say why it divides by $\sqrt d$, derive its
backward, mask it, split it into heads, say what it costs, and read the pictures of what a trained head looks at.

**You need** [02 · Tensors and autograd](02_autograd.ipynb): shapes, how a backward is derived and checked, softmax
with cross-entropy.
"""

# %%
import numpy as np
from minillm import nn, ops, plot
from minillm.models.gpt import GPT, CausalSelfAttention, GPTConfig
from minillm.numpy_ops.attention import masked_softmax
from minillm.tensor import Parameter, Tensor
from minillm.workshop import (
    as_mask,
    as_plain,
    check,
    looking_back,
    numerical_gradient,
    progress,
    read_scale,
    show_versions,
    type_into_debugger,
)
from minillm.workshop.boxes import draw_attention
from minillm.workshop.looking_back import DIGITS, GUESS, VARIABLES, VOCABULARY, T, make_batch

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
STEPS = {"smoke": 30, "cpu": 500, "gpu": 1500}[SCALE]  # training steps for each model
STARTS = {"smoke": 1, "cpu": 6, "gpu": 10}[SCALE]  # random starts for the two kinds that are raced
SEEDS = {"smoke": 1, "cpu": 3, "gpu": 5}[SCALE]  # random starts for each other kind of model
COUNTED = {"smoke": 500, "cpu": 20_000, "gpu": 100_000}[SCALE]  # sequences for the n-gram model
LONGEST = {"smoke": 10, "cpu": 12, "gpu": 13}[SCALE]  # attention is timed up to 2 ** LONGEST

rng = np.random.default_rng(6)
show_versions(SCALE)

# %% [markdown]
r"""
## Why: a task that needs to look back

The task is a small program to be followed. A sequence assigns digits to variables, then asks for some of them; after
each question stands the answer. A variable may be assigned again: the latest value counts. Each of `b=3`, `b?` and `7`
is one **token**, one entry of the vocabulary, and its place there is its **id**. A model reads the ids and has to
predict the token after each question. Only these answers are graded: the target at all other positions is −100, which
the library's loss leaves out. (`minillm.workshop.looking_back` makes the task.)
"""

# %%
ids, targets = make_batch(np.random.default_rng(84), 1)  # what is read, and what comes next: (1, T) each
example = [VOCABULARY[i] for i in ids[0]]
assert [v for v in VARIABLES if sum(v + "=" in token for token in example) > 1] == ["e", "f", "h"]
last_answer = VOCABULARY[targets[0, -1]]
plot.token_spans([*example, last_answer], title="one sequence; the last token is the last answer")

# %% [markdown]
r"""
Could we do without looking back? An **n-gram** model (chapter [01](01_what_is_a_language_model.ipynb)) counts which
token followed the last $n - 1$ tokens in a large text, and predicts what followed most often. With $n = 5$ it sees the
question and the three tokens before it.
"""

# %%
held_out = looking_back.hold_out(seed=11, size=500)  # 500 sequences, 2000 questions: for tests only
ngrams = looking_back.ngrams_right(held_out, COUNTED, (5, 8))  # n -> (2000,), whether it is right
in_sight = held_out.in_sight  # (2000,): does the answer stand in the 5-gram's window?
print(f"5-gram: {100 * ngrams[5].mean():.0f}% of answers right")
print(f"  answer within the 3 tokens before: {100 * ngrams[5][in_sight].mean():.0f}%")
print(f"  answer further back: {100 * ngrams[5][~in_sight].mean():.0f}%")
print(f"8-gram: {100 * ngrams[8].mean():.0f}% of answers right")
print(f"guessing one of {len(DIGITS)} digits: {100 / len(DIGITS):.0f}%")
assert max(right.mean() for right in ngrams.values()) < 0.5 and ngrams[5][~in_sight].mean() < 0.15
if SCALE != "smoke":
    assert 0.5 < ngrams[5][in_sight].mean() < 0.8

# %% [markdown]
r"""
What lies further back than the window is guessed, and even within it the n-gram is often wrong, since just these tokens
were hardly ever met together. A longer window helps little, for the same reason: eight assignments can stand in $80^8$
ways. What is needed is a rule, "find the latest token that assigns the variable
asked for", and the rule is the same wherever that token stands.

## From averaging to weighted averaging

How can position $t$ use all positions up to its own, when there are more of them at each position? Let $x_t$, of shape
$(D)$, be the vector that stands for the token at position $t$: the row of a learned table that its id picks (chapter
02, indexing). The simplest answer is to **average** the vectors of positions $0 \dots t$. Stack the vectors as rows of
$X\,(T, D)$. Then all averages are one matrix product $AX$, where row $t$ of $A\,(T, T)$ holds $1/(t+1)$ in columns
$0 \dots t$, and zeros after them.
"""

# %%
X = rng.standard_normal((5, 3))  # (T, D)
A = np.tril(np.ones((5, 5)))  # (T, T), ones on and below the diagonal
A /= A.sum(axis=1, keepdims=True)
print(A.round(2))
assert np.allclose((A @ X)[3], X[:4].mean(axis=0))

# %% [markdown]
r"""
An average treats all alike: the one assignment we want is lost among seven others. But the product works for **any**
weights that are not negative and sum to 1 in each row. So let the weights depend on the content:

- each position asks with a vector, its **query** $q_t$: "I need the value of `b`";
- each position shows a vector, its **key** $k_s$: "I am an assignment to `b`";
- the **score** of $s$ for $t$ is their dot product $q_t \cdot k_s$, large if they point the same way;
- **softmax** over the scores gives the weights, $p_{ts} = e^{q_t\cdot k_s} / \sum_r e^{q_t\cdot k_r}$, positive with
  sum 1; the sum over $r$ runs over all positions that $t$ may look at;
- what is averaged is not the key but a third vector, the **value** $v_s$: "the digit is 7".

It is a soft look-up in a dictionary: every entry answers a little, the best match most. Let us set up the three kinds
of vectors by hand for one sequence. The key says which variable the token assigns, the query which one it asks for,
the value which digit it holds; each has a 1 in one place and zeros elsewhere. Then we multiply the query by 0, 2 and 6:
as an arrow, it gets longer.
"""


# %%
def softmax(x):
    """Softmax of each row (the last axis); its largest entry is subtracted first, as in chapter 02."""
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    return y / y.sum(axis=-1, keepdims=True)


tokens = ["b=7", "e=2", "a=4", "g=9", "b?"]
K, V = np.zeros((5, len(VARIABLES))), np.zeros((5, len(DIGITS)))  # (5, 8), (5, 10)
for s, token in enumerate(tokens[:-1]):  # the question assigns nothing: its key and value stay 0
    K[s, VARIABLES.index(token[0])] = 1
    V[s, DIGITS.index(token[2])] = 1
q = np.zeros(len(VARIABLES))  # (8,)
q[VARIABLES.index("b")] = 1

figure, axes = plot.subplots(1, 3, height=2.4, sharey=True)
for ax, factor in zip(axes, (0, 2, 6)):
    weights = softmax(K @ (factor * q))  # (5,)
    average = weights @ V  # (10,): one number for each digit
    ax.bar(tokens, weights, color=plot.BLUE)
    ax.set_title(f"query × {factor}:\n“7” gets {average[7]:.2f}", fontsize=10)
axes[0].set_ylabel("weight that “b?” gives")
assert weights.argmax() == 0
figure

# %% [markdown]
r"""
With a query of 0 all scores are equal, and attention *is* plain averaging. The longer the query, the sharper the
choice. Nobody sets these vectors by hand, of course. Queries, keys and values are three linear maps of the
position's own vector,

$$\underset{(d)}{q_t} = \underset{(d, D)}{W_Q}\,\underset{(D)}{x_t}, \qquad
\underset{(d)}{k_t} = \underset{(d, D)}{W_K}\,x_t, \qquad
\underset{(d_v)}{v_t} = \underset{(d_v, D)}{W_V}\,x_t,$$

and training finds the three matrices by gradient descent. It can, because nothing here jumps: a slightly different
query gives slightly different weights, so every step has a slope.

## The formula

With the $x_t$ as rows of $X\,(T, D)$, the queries are the rows of $Q = X W_Q^\top$, $(T, d)$; likewise $K$ and $V$.
Here $d$ counts the features of a query and of a key, $d_v$ those of a value; both may differ from $D$. Then all
positions are done at once (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1):

$$\operatorname{attention}(Q, K, V) = \operatorname{softmax}\!\Big(\frac{QK^\top}{\sqrt d}\Big) V.$$

| symbol | shape | what it is |
| --- | --- | --- |
| $Q$ | $(T_q, d)$ | a query for each position that looks |
| $K$ | $(T_k, d)$ | a key for each position that can be looked at |
| $V$ | $(T_k, d_v)$ | a value for each of those |
| $S = QK^\top/\sqrt d$ | $(T_q, T_k)$ | scores: row $t$ belongs to query $t$ |
| $P = \operatorname{softmax}(S)$ | $(T_q, T_k)$ | weights: softmax of each row, so each row sums to 1 |
| $O = PV$ | $(T_q, d_v)$ | the weighted averages |

Only the $\sqrt d$ is new; the next section is about it. When a text looks at itself, as here, $T_q = T_k = T$, and one
speaks of **self-attention**; in a translator (**cross-attention**, chapter 12) the new text looks at the old one, and
the two lengths differ. What flows where:
"""

# %%
draw_attention()

# %% [markdown]
r"""
In code it is five lines. The library's op wants two more axes in front, batch and heads, which come later; here both
are 1.
"""


# %%
def attention(Q, K, V):
    d = Q.shape[-1]
    S = Q @ K.T / np.sqrt(d)  # (Tq, Tk)
    P = softmax(S)  # (Tq, Tk)
    return P @ V  # (Tq, dv)


Q, K, V = rng.standard_normal((4, 8)), rng.standard_normal((6, 8)), rng.standard_normal((6, 3))
tensors = [Tensor(M[None, None]) for M in (Q, K, V)]  # each (1, 1, T, features)
library = ops.attention(*tensors).data[0, 0]  # (Tq, dv)
print("Q", Q.shape, "K", K.shape, "V", V.shape, "→", library.shape)
print(f"largest gap to the library: {np.abs(attention(Q, K, V) - library).max():.0e}")
assert np.allclose(attention(Q, K, V), library, atol=1e-12)

# %% [markdown]
r"""
## Why divide by $\sqrt d$?

A score is a sum of $d$ products. Take one query $q$ and one key $k$, with entries $q_i$ and $k_i$ that are independent,
with mean 0 and variance 1 (so the mean of each square is 1). The product $q_i k_i$ has mean 0, and its variance is the
mean of $q_i^2 k_i^2$, by independence $1 \cdot 1 = 1$. The variances of independent terms add up, so the score has
variance $d$ and standard deviation $\sqrt d$. We call this the **spread** of the scores.

What does softmax do with scores that lie far apart? It gives almost everything to the largest, here by pure chance.
And then it hardly moves any more. Take one row of scores and call them $s_1, s_2, \dots$ (numbers; $s$ is no longer a
position). In $p_i = e^{s_i}/Z$ with $Z = \sum_r e^{s_r}$, the numerator moves with $s_j$ only if $i = j$, by $e^{s_i}$,
and $Z$ moves by $e^{s_j}$. By the quotient rule

$$\frac{\partial p_i}{\partial s_j} = [i = j]\,\frac{e^{s_i}}{Z} - \frac{e^{s_i}}{Z}\,\frac{e^{s_j}}{Z}
= p_i\,([i = j] - p_j),$$

where $[i = j]$ is 1 if $i = j$, else 0. If one weight is close to 1 and the others are close to 0, *all* these slopes
are close to 0, and a gradient that passes through them vanishes: attention cannot learn to look elsewhere.

That is the argument; now the measurement. We draw random queries and keys for 64 positions, twenty times, and look at
the spread of the scores, at the largest weight of a row, and at the share of rows whose slopes are all but gone (the
root of the sum of their squares is below 0.05), with the division and without.
"""

# %%
dimensions = [4, 16, 64, 256, 1024]
measured = {"QKᵀ": [], "QKᵀ / √d": []}
for d in dimensions:
    Q, K = rng.standard_normal((2, 20, 64, d))  # each (20, 64, d)
    products = Q @ K.swapaxes(1, 2)  # (20, 64, 64)
    for name, S in (("QKᵀ", products), ("QKᵀ / √d", products / np.sqrt(d))):
        P = softmax(S)  # (20, 64, 64)
        slopes = P[..., :, None] * (np.eye(64) - P[..., None, :])  # (20, row, i, j): ∂pᵢ/∂sⱼ
        size = np.sqrt((slopes**2).sum(axis=(2, 3)))  # (20, 64), one for each row
        measured[name].append((S.std(), P.max(axis=2).mean(), 100 * (size < 0.05).mean()))

raw, scaled = (np.array(values) for values in measured.values())  # each (5, 3): d, what is measured
for name, values in measured.items():
    for d, (spread, largest, stuck) in zip(dimensions, values):
        print(f"{name:8s} d = {d:4d}: spread {spread:4.1f}, largest weight {largest:.2f}, hardly move {stuck:2.0f}%")
assert np.all(np.abs(scaled[:, 0] - 1) < 0.2) and scaled[:, 1].max() < 0.3 < 0.8 < raw[-1, 1]
assert scaled[:, 2].max() < 1 and np.all(np.diff(raw[:, 2]) > 0)
assert raw[1, 2] < 10 and 20 < raw[2, 2] < 40 and raw[-1, 2] > 60
looking_back.spread_curves(dimensions, measured)

# %% [markdown]
r"""
Divided by $\sqrt d$, the scores keep spread 1 at every $d$, and no row is stuck. Undivided, their spread is close to
$\sqrt d$; few rows are stuck at $d = 16$, more than a quarter at 64, most at 1024.

## The causal mask

A language model predicts the next token. While it trains, all positions of a text are computed at once, so position
$t$ must not see what comes after it, or it would just copy the answer. Set the forbidden scores to $-\infty$
**before** the softmax: $e^{-\infty} = 0$, and the rest of the row still sums to 1. (Zeroing weights *after* the
softmax would leave rows that sum to less than 1.) This is the **causal mask**. The test is direct: change the keys and
values of the future, and the results of the past must not change. (A query touches only its own row anyhow.) Printed
are the weights before the change.
"""


# %%
def causal_attention(Q, K, V):
    """Q and K (T, d), V (T, dv) -> the averages (T, dv) and the weights (T, T)."""
    T, d = Q.shape
    S = Q @ K.T / np.sqrt(d)  # (T, T)
    allowed = np.tri(T, dtype=bool)  # True on and below the diagonal, where key ≤ query
    S[~allowed] = -np.inf
    P = softmax(S)  # (T, T)
    return P @ V, P


Q, K, V = rng.standard_normal((6, 4)), rng.standard_normal((6, 4)), rng.standard_normal((6, 3))
before, P = causal_attention(Q, K, V)
K[4:], V[4:] = 9.9, -9.9  # another future: positions 4 and 5
after, _ = causal_attention(Q, K, V)
print(P.round(2))
assert np.array_equal(before[:4], after[:4]) and not np.allclose(before[4:], after[4:])
assert np.allclose(P.sum(axis=1), 1)

# %% [markdown]
r"""
## The backward, by hand

Let $G = dL/dO$, of shape $(T_q, d_v)$, be what arrives from above. We walk back through the three steps.

**Mixing.** $O = PV$ is a matrix product. For $Y = AB$, chapter 02 found $dL/dA = \frac{dL}{dY} B^\top$ and
$dL/dB = A^\top \frac{dL}{dY}$, so

$$\underset{(T_q, T_k)}{\frac{dL}{dP}} = \underset{(T_q, d_v)}{G}\;\underset{(d_v, T_k)}{V^\top}, \qquad
\underset{(T_k, d_v)}{\frac{dL}{dV}} = \underset{(T_k, T_q)}{P^\top}\;\underset{(T_q, d_v)}{G}.$$

**Softmax.** Each row of $P$ depends on its own row of $S$ only. In one row, $s_j$ reaches the loss through every
$p_i$, so by the chain rule we sum over $i$, with the slopes from above:

$$\frac{dL}{ds_j} = \sum_i \frac{dL}{dp_i}\, p_i\,([i = j] - p_j)
= p_j\Big(\frac{dL}{dp_j} - \sum_i p_i \frac{dL}{dp_i}\Big).$$

In words: $dL/dp_j$ says what more weight on $j$ does to the loss. If that is lower than the row's average, weighted by
$p$, then $dL/ds_j$ is negative, and gradient descent raises the score. For all rows at once: multiply $P$ and $dL/dP$
element by element, sum each row, subtract the sums, multiply by $P$. A forbidden position has $p_j = 0$ and so gets
gradient 0: the mask needs no line of its own.

**Scores.** $S = QK^\top/\sqrt d$ is a matrix product again, of $Q$ and $K^\top$:

$$\underset{(T_q, d)}{\frac{dL}{dQ}} = \underset{(T_q, T_k)}{\frac{dL}{dS}}\;\underset{(T_k, d)}{K}\,\Big/\sqrt d,
\qquad \underset{(T_k, d)}{\frac{dL}{dK}} = \underset{(T_k, T_q)}{\frac{dL}{dS}^{\!\top}}\,
\underset{(T_q, d)}{Q}\,\Big/\sqrt d.$$

(The rule gives $dL/dK^\top = Q^\top \frac{dL}{dS}/\sqrt d$; transposed, that is the formula for $dL/dK$.) In the code,
`dP` is short for $dL/dP$, and so on. We check against finite differences, with the loss $L = \sum_{tj} G_{tj} O_{tj}$
for a random $G$, so that $dL/dO = G$, and against the library.
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
G = rng.standard_normal(out.shape)
ours = causal_attention_backward(G, Q, K, V, P)

tensors = [Parameter(M[None, None].copy()) for M in (Q, K, V)]  # each (1, 1, T, ...)
ops.attention(*tensors, causal=True).backward(G[None, None])


def loss():
    return float((G * causal_attention(Q, K, V)[0]).sum())


for name, M, gradient, tensor in zip("QKV", (Q, K, V), ours, tensors):
    numerical = np.abs(gradient - numerical_gradient(loss, M)).max()
    library = np.abs(gradient - tensor.grad[0, 0]).max()
    print(f"dL/d{name}: largest gap to finite differences {numerical:.0e}, to the library {library:.0e}")
    assert numerical < 1e-7 and library < 1e-12

# %% [markdown]
r"""
## Heads

A softmax has one row of weights for each position: one place to look at, or a blend. A word may need several places
at once, each for another reason: its verb, its adjective, the end of the last sentence. So we make
queries, keys and values of $D$ features ($W_Q$, $W_K$ and $W_V$ are now $(D, D)$) and cut them into $H$ **heads** of
$d = D/H$ features. Each head attends on its own, and the results are put side by side, $(T, D)$ again, and mixed by a
last matrix $W_O\,(D, D)$. $QK^\top$ and $PV$ of all heads together take as many multiplications as those of one head of
$D$ features would, $H \cdot T \cdot T \cdot d = T \cdot T \cdot D$ each; there are $H$ times as many weights $P$.

In arrays: $(B, T, D)$, with $B$ texts in a batch, becomes $(B, T, H, d)$ by `reshape`, then $(B, H, T, d)$ by
**swapping** axes, so that batch and heads stand in front and the matrix products see $(T, d)$. Beware of the short
cut: `reshape(B, H, T, d)` has the right shape and the wrong numbers, for `reshape` never moves a number, it only puts
the brackets elsewhere.
"""

# %%
x = np.arange(12).reshape(1, 3, 4)  # (B, T, D): row t holds position t
heads = x.reshape(1, 3, 2, 2).swapaxes(1, 2)  # (B, T, H, d) -> (B, H, T, d)
broken = x.reshape(1, 2, 3, 2)  # (B, H, T, d), it seems
print("positions with their four features:", x[0].tolist())
print("head 0, first two features of each:", heads[0, 0].tolist())
print("head 0, by reshape alone:          ", broken[0, 0].tolist())
assert heads[0, 0].tolist() == [[0, 1], [4, 5], [8, 9]]
assert heads.shape == broken.shape and not np.array_equal(heads, broken)

# %% [markdown]
r"""
By reshape alone, "head 0" gets both halves of position 0, half of position 1, and nothing of position 2. Nothing
complains: the shapes fit, the model runs and trains.

With the right order, our few lines give what the library's layer gives. The layer holds $W_Q$, $W_K$ and $W_V$ of all
heads as one matrix `qkv` $(3D, D)$, so that one product makes all three, and $W_O$ as `proj`; both have biases.
"""

# %%
config = GPTConfig(n_layers=1, n_heads=2, d_model=8)
layer = CausalSelfAttention(config, layer=0, rng=np.random.default_rng(0))
layer.to(np.float64)
layer.qkv.weight.data *= 20  # a fresh GPT's matrices are small: larger ones have effects to see
x = rng.standard_normal((1, 5, 8))  # (B, T, D)
qkv = x @ layer.qkv.weight.data.T + layer.qkv.bias.data  # (B, T, 3D)
parts = qkv.reshape(1, 5, 3, 2, 4)  # (B, T, q k or v, H, d)
by_head = []
for h in range(2):
    q, k, v = (parts[0, :, which, h] for which in range(3))  # each (T, d)
    by_head.append(causal_attention(q, k, v)[0])  # (T, d)
side_by_side = np.concatenate(by_head, axis=1)  # (T, D)
ours = side_by_side @ layer.proj.weight.data.T + layer.proj.bias.data  # (T, D)
theirs = layer(Tensor(x)).data[0]
print(f"largest gap to the library's layer: {np.abs(ours - theirs).max():.0e}")
assert np.allclose(ours, theirs, atol=1e-12)

# %% [markdown]
r"""
## Positions

Nothing in the formula knows *where* a key stands; the mask decides only *which* keys are there, and the last position
sees all of them. Shuffle the earlier positions, and the result at the last one stays the same: a sum does not depend on
the order of its terms. For "the latest value counts", order is everything. The remedy of GPT, the model of chapter 07,
is a learned vector for each position, a row of a second table, **added** to the token's vector before the first layer.
Then queries and keys can contain "I am position 7". For example, a part of the key that grows with the position raises
the scores of later keys, so that of two assignments to one variable the later scores higher.
"""

# %%
x = rng.standard_normal((1, 5, 8))  # (B, T, D)
positions = rng.standard_normal((5, 8))  # (T, D)
order = [2, 0, 3, 1, 4]  # the last stays last
shuffled = x[:, order]


def last_output(x):
    return layer(Tensor(x)).data[0, -1]  # (D,)


without = np.abs(last_output(x) - last_output(shuffled)).max()
added = np.abs(last_output(x + positions) - last_output(shuffled + positions)).max()
print(f"shuffling changes the output at the last position by {without:.0e}")
print(f"with positions added, by {added:.0e}")
assert without < 1e-12 < 1e-6 < added

# %% [markdown]
r"""
## What it costs

$QK^\top$ and $PV$ take $T\cdot T\cdot d$ multiplications each, and $S$ and $P$ hold $T^2$ numbers each. Twice the text
is four times the work. A linear layer treats each position alone: $T$ times the size of its matrix, twice the work for
twice the text. We measure both, forward only: one head of $d = 64$ features, and a linear layer from 64 features to
256. On logarithmic axes, time $\sim T^a$ is a line of slope $a$; we fit the slope to the four longest texts, where the
work outweighs the overhead of the calls.
"""

# %%
lengths = [2**i for i in range(6, LONGEST + 1)]
seconds = looking_back.time_both(progress(lengths, "timing"), rng)  # the shortest of 7 runs each
slope = {
    name: np.polyfit(np.log(lengths[-4:]), np.log(values[-4:]), 1)[0] for name, values in seconds.items()
}
for i in (0, -1):
    ratio = seconds["attention"][i] / seconds["linear layer"][i]
    print(f"T = {lengths[i]:4d}: attention takes {ratio:.1f} times as long as the linear layer;", end=" ")
    megabytes = 4 * lengths[i] ** 2 / 1e6  # 4 bytes for each number
    print(f"one head's P would fill {megabytes:.2f} MB")
if SCALE != "smoke":
    assert slope["attention"] > 1.4 and slope["attention"] > slope["linear layer"]
looking_back.cost_curves(lengths, seconds, slope)

# %% [markdown]
r"""
The ratio grows with the length: the longer the text, the more of a model's time and memory goes into attention. Counted
in multiplications it is $2\,T^2 \cdot 64$ to $T \cdot 64 \cdot 256$, or $T/128$, 32 at $T = 4096$; the softmax comes on
top. In training all of $P$ is kept for the backward; this forward alone drops it block by block. It is one reason why
the length of text that a model can read is limited, and why chapter 16 computes the same formula without ever storing
all of $P$.

## The library's version

`minillm.ops.attention` is the contract (shapes, masks, what it raises), `minillm.numpy_ops.attention.attention` the
NumPy forward, with its backward below it. What it has beyond ours: it takes the queries in blocks of rows, so that
the forbidden half of the scores is mostly never computed, and several query heads may share a key head. The arithmetic
is the five lines above.

> **Step into it.** Put a breakpoint on the line `logits = model(ids)` of the next cell (VS Code: click left of the
> line, then *Debug Cell*; JupyterLab: the bug at the top right) and step into it, always into the deepest call. You
> pass `minillm.models.gpt.GPT.forward`, `minillm.models.gpt.GPT.hidden`, `minillm.models.gpt.Block.forward`,
> `minillm.models.gpt.CausalSelfAttention.forward` (look at `q.shape`: batch, heads, positions, features of a head),
> `minillm.ops.attention`, and arrive in `minillm.numpy_ops.attention.attention`. Stop after
> `minillm.numpy_ops.attention.masked_softmax`: `p[0, 0, 0]` says who looks at whom in the first text's first head. Its
> rows sum to 1, and above the diagonal it is zero. For the backward, set a second breakpoint in
> `minillm.numpy_ops.attention.attention_backward`; the cell's last line leads there: after `ds *= p`, `ds` is our
> $dL/dS$.
"""

# %%
model = GPT(GPTConfig(vocab_size=len(VOCABULARY), context=T, n_layers=1, n_heads=2, d_model=32))
logits = model(ids)  # a breakpoint here
print("ids", ids.shape, "→ logits", logits.shape, "= (batch, positions, vocabulary)")
assert logits.shape == (1, T, len(VOCABULARY))
model(ids, targets).backward()  # for the second breakpoint

# %% [markdown]
r"""
The same without an editor, in Python's own debugger, for a text of four tokens. Each line after `(Pdb)` is a command:
stop in `masked_softmax`, go on, say where we are (outermost call first), run to the end of the function, print.
"""

# %%
commands = [
    "tbreak masked_softmax",
    "continue",
    "where",
    "return",
    "print(p.shape)",
    "print(p[0, 0, 0].round(2))",
]
namespace = {"model": model, "ids": ids[:, :4], "masked_softmax": masked_softmax}  # for tbreak
seen = type_into_debugger("model(ids)", commands, namespace)
print(seen)
assert "(1, 2, 1, 4, 4)" in seen and "0.33" in seen

# %% [markdown]
r"""
`p` is (batch, key heads, query heads that share one, queries, keys). The weights are nearly even: a fresh GPT's
matrices are so small that all scores are close to 0, and attention starts as plain averaging. Training has to change
that.

## Experiment: does it learn to look?

One Transformer block with two heads learns the task. Around attention, the block has layer norms, a feed-forward layer
and sums, which chapter 07 explains; all of them treat each position alone, so only attention can carry anything from
one position to another. Three variants are trained in the same way, to see what each part is for:

- **no positions**: the position vectors are zero and stay zero;
- **plain averaging**: all queries are multiplied by 0, so that all positions up to its own get the same weight;
- **small start**: the matrices are as the library draws them, with standard deviation 0.02, like GPT-2 with its 768
  features. In all the others those of the linear layers are multiplied by $1/(0.02\sqrt{32})$, about 9: the matrices
  that make queries, keys and values then have standard deviation $1/\sqrt{32}$, and 32 such numbers times numbers of
  size 1 have a sum of size 1.

All are trained alike by `looking_back.train`: every step takes 64 fresh sequences; AdamW (chapter
[08](08_pretraining.ipynb)) is a form of gradient descent. No model trains on the sequences of the 2000 held-out
questions. A question that was asked before in the same sequence can be answered by copying the earlier answer. So we
look at the new questions in two groups: the variable was assigned **once**, or **again**, that is more than once. The
group "all" has every question.
"""


# %%
class PlainAveraging(CausalSelfAttention):
    def heads(self, x):
        q, k, v = super().heads(x)
        return q * 0.0, k, v


def new_model(kind, seed):
    config = GPTConfig(vocab_size=len(VOCABULARY), context=T, n_layers=1, n_heads=2, d_model=32)
    r = np.random.default_rng(seed)
    model = GPT(config, rng=r)
    if kind == "plain averaging":
        model.blocks[0].attn = PlainAveraging(config, layer=0, rng=r)
    if kind == "no positions":
        model.position_embedding.weight.data[:] = 0  # position_embedding: the table of position vectors
        model.position_embedding.weight.requires_grad = False
    if kind != "small start":
        for _, module in model.named_modules():
            if isinstance(module, nn.Linear):
                module.weight.data *= 32**-0.5 / 0.02  # the library drew them with 0.02
    return model


curve = plot.LiveCurve(title="learning to look", baselines={"guessing a digit": GUESS})
trained, first_losses = looking_back.train(new_model("attention", 0), 0, STEPS, held_out, curve)
figure = curve.finish()
share = looking_back.answers_right(trained, held_out).mean()
print(f"answers right on sequences it has never seen: {100 * share:.1f}%")
if SCALE != "smoke":
    assert curve.val[-1][1] < 0.5 * GUESS

# %% [markdown]
r"""
A guess gives each digit probability 1/10: its loss is $-\ln\frac{1}{10} = \ln 10$, the dashed line (the unit of a loss
with $\ln$ is called a nat). "Validation" is the loss on the held-out questions. For a while both stay at the line: the
model knows that a digit comes, not which. Then the heads find the rule, and they fall. Now the comparison, with several
random starts for each kind; each start is a mark.
"""

# %%
starts_of = {
    "attention": STARTS,
    "no positions": SEEDS,
    "plain averaging": SEEDS,
    "small start": STARTS,
}
models, losses = ({kind: [] for kind in starts_of} for _ in range(2))
runs = [(kind, seed) for kind, count in starts_of.items() for seed in range(count)]
for kind, seed in progress(runs, "training"):
    if (kind, seed) == ("attention", 0):
        model, run = trained, first_losses  # trained already
    else:
        model, run = looking_back.train(new_model(kind, seed), seed, STEPS)
    models[kind].append(model)
    losses[kind].append(run)

score = {}  # kind -> (starts, 3), in percent: of all questions, of the groups "once" and "again"
for kind, trained_models in models.items():
    right = [looking_back.answers_right(model, held_out) for model in trained_models]
    score[kind] = looking_back.in_groups(right, held_out)
score["5-gram"] = looking_back.in_groups([ngrams[5]], held_out)  # counted once: no random start
looking_back.print_scores(score)
groups = held_out.groups  # "all", "once", "again" -> (2000,), which questions are in it
picked = 100 * looking_back.one_at_random(held_out)[groups["again"]].mean()
print(f"one of the variable's assignments at random, again: {picked:.0f}%")
back = held_out.position - held_out.latest  # (2000,)
once, again = (back[groups[name]].mean() for name in ("once", "again"))
print(f"the latest assignment stands {once:.1f} tokens back if once, {again:.1f} if again")

if SCALE != "smoke":
    lowest = {kind: values.min(axis=0) for kind, values in score.items()}
    highest = {kind: values.max(axis=0) for kind, values in score.items()}
    assert lowest["attention"][0] > 95 > highest["no positions"][0]
    assert lowest["no positions"][0] > highest["plain averaging"][0]
    assert lowest["no positions"][1] > 95 and highest["no positions"][2] < 75
    assert abs(score["no positions"][:, 2].mean() - picked) < 5
looking_back.right_dots(score)

# %% [markdown]
r"""
- **Plain averaging** hands the model one blend of all assignments. This model does not get the one asked for out of it
  again; it is far from solving either group.
- **Without positions**, attention finds the right *variable*: what was assigned once is answered as well as with
  positions. If it was assigned again, the model is right about as often as one that picks one of the variable's
  assignments at random: it cannot tell which is the latest.
- **With both** the task is solved. The 5-gram fails in both groups (less in "again", where the latest assignment stands
  closer on average).
- **The small start** has all the parts of "attention", and its marks lie far apart: some starts solve the task, some do
  not. The losses of all the starts show what happens.
"""

# %%
raced = {kind: losses[kind] for kind in ("attention", "small start")}
left = {kind: [looking_back.left_at(run) for run in runs] for kind, runs in raced.items()}
for kind, steps in left.items():
    shown = ", ".join("never" if np.isinf(step) else f"{step:.0f}" for step in sorted(steps))
    print(f"{kind}: the loss falls below ¾ of a guess's at step {shown}")
if SCALE == "cpu":
    assert max(left["attention"]) < min(left["small start"]) and max(left["attention"]) < STEPS / 2
    free = np.isfinite(left["small start"])
    assert 0 < free.sum() < STARTS and score["small start"][free, 0].min() > 95
looking_back.plateau_curves(raced)

# %% [markdown]
r"""
Every start first stays at about the loss of a guess. Those of "attention" then fall within a hundred steps or so, the
small ones that get away within some hundreds. (A short bump there is one step with a large loss, which stays in the
mean of ten steps for ten steps.) What differs is how long they stay: **each** of the small starts stays longer than
**every** start of "attention"; those that are printed as "never" have not left within these steps. The small starts
that have left end about as well as the others. So what a small start lacks is no part, but time: its scores begin so
close to 0 that attention begins as plain averaging. Exercise 1 measures how close. (Since the learning rate falls
towards the end, a start that is too late gets no second chance here.)

Where does the trained model look? Each row is a position that looks; bright is where it looks. Rows that end in `?` are
questions.
"""

# %%
inside = plot.look_inside(trained, ids)
weights = inside.attention[:, 0]  # (layers, B, H, T, T) -> (layers, H, T, T)
plot.attention_grid(weights, example, title="one sequence in the trained model")

# %% [markdown]
r"""
In the rows of questions, look for the bright spots: in at least one head they stand at assignments to the variable that
is asked for. And where it was assigned more than once, as `h`, `f` and `e` here, at the latest of them. So much for one
sequence. Over the questions of the group "again", which share of the weight falls on the latest assignment to the
variable, and which on the outdated ones? In each model we take the head that looks more at both together.
"""

# %%
looks = {}  # kind -> on the latest, on outdated ones; mean over the starts
for kind in ("attention", "no positions"):
    pairs = []
    for model in models[kind]:
        marked = (held_out.is_latest, held_out.is_outdated)  # each (2000, 8)
        both = np.array([looking_back.weight_on(model, held_out, places) for places in marked])
        both = both[:, groups["again"]].mean(axis=1)  # (2, 2000, H) -> (2, H)
        pairs.append(both[:, both.sum(axis=0).argmax()])
    looks[kind] = 100 * np.mean(pairs, axis=0)
    print(f"{kind:12s}: {looks[kind][0]:.0f}% on the latest, {looks[kind][1]:.0f}% on outdated ones")
even = 100 * np.mean(1 / (held_out.position + 1))  # at position t there are t + 1 places to look at
outdated = held_out.is_outdated[groups["again"]].sum(axis=1).mean()
print(f"(spread evenly, each place would get about {even:.0f}%;", end=" ")
print(f"outdated assignments to the variable: {outdated:.1f} on average)")
if SCALE != "smoke":
    assert looks["attention"][0] > 3 * looks["attention"][1] and looks["attention"][0] > 3 * even
    assert looks["no positions"][0] < 1.5 * looks["no positions"][1]

# %% [markdown]
r"""
So the model without positions does look at the right variable, and shares its weight among all values that it ever had:
each outdated one gets about as much as the latest.

Is looking there also what *makes* the answers right? Take one head away after training: set to zero the columns of
$W_O$ that read its output. Then the other head answers alone. We do that for each head of each trained model, and plot
how much it looks at the assignment with the answer (mean over all questions) against how much it can answer alone.
"""

# %%
heads = [(model, head) for model in models["attention"] for head in range(2)]
looked = [looking_back.weight_on(m, held_out, held_out.is_latest)[:, h].mean() for m, h in heads]
alone = [looking_back.right_alone(model, head, held_out) for model, head in heads]
looked, alone = 100 * np.array(looked).reshape(-1, 2), np.array(alone).reshape(-1, 2)  # (starts, 2)
for i in range(STARTS):
    for head in range(2):
        x, y = looked[i, head], alone[i, head]
        print(f"start {i}, head {head}: {x:3.0f}% of the weight on the answer, alone {y:3.0f}% right")
    if SCALE != "smoke":
        less, more = sorted(zip(looked[i], alone[i]))
        assert more[0] > 3 * even and more[1] > less[1] - 10
if SCALE != "smoke":
    assert np.corrcoef(looked.ravel(), alone.ravel())[0, 1] > 0.8
looking_back.heads_alone(looked, alone)

# %% [markdown]
r"""
The more a head looks at the answer, the better it does alone: here the picture shows what the model uses. It also shows
that heads share the work differently from start to start. Where one head does nearly all of it, the other one can be
taken away without loss; where both look nearly always at the answer, each could nearly do alone. And head 0 of one
start is not head 0 of another: the index says nothing about what a head does.

## Summary

- Attention is an average whose weights depend on content: score = query · key, weight = softmax of the scores, result
  = weighted average of the values. All positions at once: $\operatorname{softmax}(QK^\top/\sqrt d)\,V$.
- Dividing by $\sqrt d$ keeps the spread of the scores near 1 when queries and keys have entries of size 1; without it,
  softmax loses its slopes as $d$ grows.
- The causal mask is $-\infty$ before the softmax; its backward needs no line of its own.
- Backward, with $G = dL/dO$ and $\circ$ for the product element by element: $dP = GV^\top$, $dV = P^\top G$,
  $dS = P\circ(dP - \text{row sums of } P\circ dP)$, $dQ = dS\,K/\sqrt d$, $dK = dS^\top Q/\sqrt d$.
- Heads look at several places at once, with as many multiplications as one wide head. To cut them out: `reshape`, then
  swap axes.
- Apart from the mask, a layer of attention has no sense of order; positions are added to the input.
- Time and memory grow with the square of the length.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are
folded below.
"""

# %% [markdown]
r"""
### Exercise 1: a slow start (easy, useful, 10 minutes)

How far apart are the scores before any training? `new_model("small start", 0)` draws its matrices with standard
deviation 0.02, `new_model("attention", 0)` with $1/\sqrt{32}$, about nine times as much. The cell computes queries and
keys of the held-out sequences, each $(B, H, T, d)$; you compute the scores of all pairs of positions, without a mask,
and return their standard deviation. (`.T` would reverse all four axes; `swapaxes(-1, -2)` swaps the last two.) Guess
first: by which factor will the two differ?
"""


# %% tags=["exercise"]
def spread_of_scores(model):
    block = model.blocks[0]
    x = model.token_embedding(held_out.ids) + model.position_embedding.weight[:T]  # (B, T, D): tokens + positions
    q, k, _ = block.attn.heads(block.norm_1(x))  # each (B, H, T, d); q.data and k.data are arrays
    return None


with check():
    small, large = (
        as_plain(spread_of_scores(new_model(kind, 0))) for kind in ("small start", "attention")
    )
    assert small is not None and large is not None, (
        "spread_of_scores returns nothing yet: compute the scores from q.data and k.data, divide by √d, return .std()."
    )
    assert np.ndim(small) == 0, f"Return one number, not an array of shape {np.shape(small)}."
    assert not np.isnan(large), "NaN: take all pairs of positions, without a causal mask."
    assert 0 < small < large, (
        f"Larger matrices must give a larger spread; you have {small} and {large}."
    )
    for kind, seed, answer in (("small start", 0, small), ("attention", 0, large), ("attention", 1, None)):
        model = new_model(kind, seed)
        block = model.blocks[0]
        x = model.token_embedding(held_out.ids) + model.position_embedding.weight[:T]
        q, k, _ = block.attn.heads(block.norm_1(x))
        expected = np.einsum("bhtd,bhsd->bhts", q.data, k.data).std() / 4
        answer = as_plain(spread_of_scores(model)) if answer is None else answer
        assert not np.isclose(answer, 4 * expected, rtol=1e-3), (
            "These are the products alone: what does the formula divide them by? (Look at q.shape.)"
        )
        assert np.isclose(answer, expected, rtol=1e-3), (
            f"{answer:.3f} is not the spread of all scores ({kind}, start {seed}). Each query of a head meets each key "
            "of the same head, in the same sequence: (B, H, T, T) scores, one standard deviation over all of them."
        )
    print(f"spread of the scores: {small:.3f} with the small start, {large:.2f} with the other:", end=" ")
    print(f"{large / small:.0f} times as much")

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def spread_of_scores(model):
    block = model.blocks[0]
    x = model.token_embedding(held_out.ids) + model.position_embedding.weight[:T]
    q, k, _ = block.attn.heads(block.norm_1(x))
    scores = q.data @ k.data.swapaxes(-1, -2) / np.sqrt(q.shape[-1])  # (B, H, T, T)
    return float(scores.std())
```

Queries and keys are both proportional to the matrices, so their product, the score, falls with the **square** of the
matrices' size: $1/(0.02\sqrt{32}) = 8.84$, and $8.84^2 = 78$. With the small start the scores are nearly all equal:
attention begins as plain averaging. And the gradients of $Q$ and $K$ contain a factor $K$ or $Q$, so they are small as
well, and it takes long to leave that state.

</details>
"""

# %% [markdown]
r"""
### Exercise 2: a sliding window (easy, core, 10 minutes)

Some models let each position see only itself and the `window − 1` positions before it. Code that skips the forbidden
scores then costs $T \cdot$ `window` instead of $T^2$. Here we build only the mask: a boolean array $(T, T)$, True where
the query (row) may look at the key (column).
"""


# %% tags=["exercise"]
def window_mask(T, window):
    return None


with check():
    mask = window_mask(6, 3)
    assert mask is not None, (
        "window_mask returns nothing yet: return a boolean array of shape (T, T)."
    )
    mask = as_mask(mask)
    assert mask.shape == (6, 6), f"The mask must have shape (6, 6), not {mask.shape}."
    assert not np.triu(mask, 1).any(), (
        "Some position sees the future: nothing may be True above the diagonal."
    )
    assert mask.diagonal().all(), "Each position sees itself: the diagonal is True."
    assert not mask[3:, 0].any(), "Positions 3, 4 and 5 are three or more steps after 0: it is out of their window."
    for size, window in ((6, 3), (5, 1), (4, 9), (9, 4), (7, 7), (1, 2)):
        mask = as_mask(window_mask(size, window))
        assert mask.shape == (size, size), f"T = {size}: the mask has shape {mask.shape}."
        for t in range(size):
            seen = [s for s in range(size) if t - window < s <= t]
            assert np.flatnonzero(mask[t]).tolist() == seen, (
                f"T = {size}, window = {window}: position {t} sees {np.flatnonzero(mask[t]).tolist()}. Itself and how "
                "many before it should it be? There may be fewer than that."
            )

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
### Exercise 3: one new position (medium, core, 15 minutes)

When text is generated, the earlier keys and values are kept, and only the queries of the **new** tokens are computed:
$T_q$ rows against $T_k$ columns, with $T_q \le T_k$. The last query stands at the last key. Which keys may query $i$
see? Write the boolean mask $(T_q, T_k)$ so that the result equals the last $T_q$ rows of full causal attention.
"""


# %% tags=["exercise"]
def decoding_mask(t_q, t_k):
    return None


with check():
    mask = decoding_mask(1, 5)
    assert mask is not None, (
        "decoding_mask returns nothing yet: return a boolean array of shape (t_q, t_k)."
    )
    mask = as_mask(mask)
    assert mask.shape == (1, 5), f"The mask must have shape (1, 5), not {mask.shape}."
    assert mask.all(), "A single new query stands at the end: it sees all keys."
    for t_q, t_k in ((3, 7), (7, 7), (2, 3), (5, 6)):
        Q, K, V = rng.standard_normal((3, t_k, 4))
        expected, _ = causal_attention(Q, K, V)
        mask = as_mask(decoding_mask(t_q, t_k))
        assert mask.shape == (t_q, t_k), f"For {t_q} queries and {t_k} keys your mask is {mask.shape}."
        assert mask[-1].all(), f"{t_q} queries, {t_k} keys: the last query stands at the last key and sees all."
        assert mask.any(axis=1).all(), f"{t_q} queries, {t_k} keys: some query sees nothing."
        S = np.where(mask, Q[-t_q:] @ K.T / np.sqrt(4), -np.inf)
        wrong = np.flatnonzero(~np.isclose(softmax(S) @ V, expected[-t_q:]).all(axis=1))
        assert not len(wrong), (
            f"{t_q} queries, {t_k} keys: query {wrong[0]} sees {int(mask[wrong[0]].sum())} keys, and its result "
            f"differs from full attention. At which of the text's positions, 0 to {t_k - 1}, does it stand?"
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

Query $i$ of $T_q$ is position $i + T_k - T_q$ of the text.

```python
def decoding_mask(t_q, t_k):
    position = np.arange(t_q)[:, None] + t_k - t_q
    return np.arange(t_k)[None, :] <= position
```

This is what the library's `causal=True` means. PyTorch's `is_causal` aligns the *first* query with the first key
instead; with one new query, that would let it see one key only.

</details>
"""

# %% [markdown]
r"""
### Exercise 4: softmax in pieces (hard, useful, 30 minutes)

Fast programs for GPUs (**kernels**, chapter 16) compute the weighted average from keys and values that arrive in
**blocks**, and never hold all scores. For one query, keep three things: the largest score so far $m$, the sum
$\ell = \sum_j e^{s_j - m}$ over the keys $j$ so far, with $s_j$ the score of key $j$, and the unnormalised result
$o = \sum_j e^{s_j - m}\, v_j$ of shape $(d_v)$; at the end the average is $o/\ell$. When a block brings a
larger maximum $m'$, what must $\ell$ and $o$ be multiplied by before the block's own terms are added?
"""


# %% tags=["exercise"]
def attention_in_blocks(q, K, V, block=4):
    """q (d,), K (T, d), V (T, dv) -> (dv,), looking at `block` keys at a time."""
    m, total, out = -np.inf, 0.0, np.zeros(V.shape[1])  # total is ℓ, out is o
    for start in range(0, len(K), block):
        scores = K[start : start + block] @ q / np.sqrt(len(q))  # (block,)
        new_m = max(m, scores.max())
        ...  # bring total and out from m to new_m, then add the block's terms
        m = new_m
    return out if total == 0 else out / total


with check():
    q, K, V = rng.standard_normal(4), rng.standard_normal((10, 4)), rng.standard_normal((10, 3))
    K = K[np.argsort(K @ q)]  # each block brings a larger score than those before it
    expected = softmax(K @ q / 2) @ V
    answer = attention_in_blocks(q, K, V)
    assert answer is not None and np.any(as_plain(answer)), (
        "The result is all zeros: nothing has been added to `total` and `out` yet."
    )
    answer = np.array(as_plain(answer))
    assert answer.shape == (3,), f"The result must have shape (dv,) = (3,), not {answer.shape}."
    assert not np.isnan(answer).any(), (
        "NaN: at the first block m is −∞. Is some exponent ∞ − ∞, or is something divided by 0?"
    )
    one_block = np.array(as_plain(attention_in_blocks(q, K, V, block=10)))
    assert np.allclose(one_block, expected), (
        "Wrong in one block already: what is summed in `total`, and what in `out`? Are both measured from new_m?"
    )
    assert np.allclose(answer, expected), (
        "Right in one block, wrong in several. When new_m is larger than m, what do the sums so far have to become?"
    )
    for keys in (K, K[::-1], K[rng.permutation(10)]):  # in the second, no later block does
        for block in (1, 3, 7):
            answer = np.array(as_plain(attention_in_blocks(q, keys, V, block)))
            assert np.allclose(answer, softmax(keys @ q / 2) @ V), f"Wrong with blocks of {block}."
    with np.errstate(all="ignore"):
        big = np.array(as_plain(attention_in_blocks(100 * q, 100 * K, V)))
    assert np.all(np.isfinite(big)), "Overflow with large scores: subtract new_m before taking exp."
    assert np.allclose(big, softmax(100 * K @ (100 * q) / 2) @ V), "Wrong for large scores."

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
        terms = np.exp(scores - new_m)  # (block,)
        total = total * np.exp(m - new_m) + terms.sum()
        out = out * np.exp(m - new_m) + terms @ V[start : start + block]
        m = new_m
    return out / total
```

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** Why are the forbidden scores set to $-\infty$ before the softmax, and not their weights to 0 after it?

<details><summary>Answer</summary>

After the softmax the rest of the row would no longer sum to 1, and how much is missing would depend on the future: what
must not be seen would still have an effect.

</details>

**2.** Two tokens of a text are exchanged, both before the last position. Without position vectors, what happens to
the output there?

<details><summary>Answer</summary>

Nothing: it is a sum over the positions, and a sum does not depend on the order. (In one layer. In a second one, the
vectors at the earlier positions have seen different things.)

</details>

**3.** Does splitting $D$ features into more heads cost more multiplications?

<details><summary>Answer</summary>

No: $H$ heads of $D/H$ features take $H \cdot T^2 \cdot D/H = T^2 D$ for the scores, as one wide head does. There are
$H$ times as many weights to compute and keep.

</details>

**4.** A row of weights has become $(1, 0, 0, 0)$ up to rounding. Can gradient descent still change it?

<details><summary>Answer</summary>

Hardly. All slopes $p_i([i = j] - p_j)$ are close to 0, so almost no gradient reaches the scores. That is why scores are
kept small at the start, by the division by $\sqrt d$ and by the size of the matrices; but not so small that all weights
are equal.

</details>

**5.** A text is made three times as long. How much longer does attention take?

<details><summary>Answer</summary>

About nine times, where its own work dominates: $T^2$ scores. The linear layers around it take three times as long.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now derive attention and its backward, mask it, split it into heads, say what it costs, and measure whether a
head looks where it should.

**What you take along**: the library's layer `minillm.models.gpt.CausalSelfAttention`, which you have rebuilt, and its
price: $2\,T^2 d$ multiplications for each head. From here several roads go on: a text that looks at another text, in
chapter [12](12_translation_and_summarization.ipynb); the keys and values that are kept while a model writes, in
[09](09_generating_text.ipynb); the same formula without its table, on a GPU, in
[16](16_a_gpu_kernel_for_attention.ipynb); and what a head's picture does and does not prove, in
[18](18_looking_inside.ipynb). The next chapter puts this layer between norms, feed-forward layers and residual sums,
and counts what all of it costs: [07 · The Transformer](07_the_transformer.ipynb).
"""
