# %% [markdown]
r"""
# 16 · A GPU kernel for attention

Attention compares every token with every other one. The comparisons are cheap; what takes the time on a GPU is carrying
their table to memory and back. **FlashAttention** (Dao et al. 2022, arXiv 2205.14135) computes the same numbers without
ever storing the table. In this chapter you count what is carried, derive the softmax that needs one pass only, build
the algorithm in NumPy, and step through the same algorithm as a GPU program.

**Afterwards you can** count bytes and operations and read a roofline; derive the online softmax and its merge; write
attention in tiles, forward and backward; step through a Triton kernel in a debugger; say what limits a kernel on a
card, and which of such statements are estimates.

**You need** [06 · Attention](06_attention.ipynb): attention, its mask and its backward. No GPU. The cells that run the
kernel need PyTorch and Triton: `pip install -e ".[triton]"` (Linux; on other systems read their outputs here). All
other cells need NumPy only.
"""

# %%
import os

# Triton programs normally run on a GPU. This makes them run on the CPU, slowly, as Python and NumPy. It is read once,
# when triton is imported: so it stands before all other imports.
os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
from minillm import ops, plot
from minillm.costs.cards import CARDS
from minillm.numpy_ops.attention import masked_softmax
from minillm.tensor import Parameter
from minillm.workshop import as_plain, check, read_scale, show_versions, tiling, type_into_debugger

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
SEEDS = {"smoke": 2, "cpu": 5, "gpu": 10}[SCALE]
LONG = {"smoke": 256, "cpu": 1024, "gpu": 2048}[SCALE]  # tokens, where only NumPy computes

show_versions(SCALE)
WHY_NOT = tiling.why_not()  # None where the kernels run
if WHY_NOT is None:
    import torch
    import triton
    from minillm.kernels import flash_attention, flash_simple

    torch.set_num_threads(1)
    print(f"PyTorch {torch.__version__}, Triton {triton.__version__}, in its interpreter")
else:
    print(f"The cells with Triton are left out here: {WHY_NOT}")

# %% [markdown]
r"""
## Why: carrying costs more than computing

A GPU has two kinds of memory. **Main memory** is large and far from where numbers are multiplied. Each of its more than
a hundred **multiprocessors** has a small memory of its own, close by. All that is computed is carried in first.
"""

# %%
tiling.draw_memory()

# %% [markdown]
r"""
Plain attention of one head, with $Q, K, V\,(T, d)$, is three steps, and each of them reads from main memory what the
one before wrote:

$$S = Q K^\top / \sqrt d\ \ (T, T) \qquad P = \mathrm{softmax}(S)\ \ (T, T) \qquad O = P V\ \ (T, d)$$

To count, let main memory be an object that notes how many numbers go in and out:
"""


# %%
class Memory:
    """Arrays by name, of one dtype, and how many of their numbers were carried in or out."""

    def __init__(self, dtype=np.float64, **arrays):
        self.arrays = {name: array.astype(dtype) for name, array in arrays.items()}
        self.dtype, self.carried = np.dtype(dtype), 0
        self.wide = np.promote_types(dtype, np.float32)  # sums are kept in at least float32

    def read(self, name, rows=slice(None)):
        part = self.arrays[name][rows]
        self.carried += part.size
        return part.astype(self.wide)

    def write(self, name, rows, part, shape):
        self.arrays.setdefault(name, np.zeros(shape, self.dtype))[rows] = part  # rounded to dtype
        self.carried += part.size


def plain_attention(memory):
    T, d = memory.arrays["Q"].shape
    everything = slice(None)
    S = memory.read("Q") @ memory.read("K").T / np.sqrt(d)
    memory.write("S", everything, S, (T, T))
    S = memory.read("S")
    P = np.exp(S - S.max(axis=1, keepdims=True))
    memory.write("P", everything, P / P.sum(axis=1, keepdims=True), (T, T))
    memory.write("O", everything, memory.read("P") @ memory.read("V"), (T, d))
    return memory.arrays["O"]


def example(T, d, seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((T, d)) for name in "QKV"}


T, d = 48, 16
first = Memory(**example(T, d, seed=0))
O_plain = plain_attention(first)
print(f"carried: {first.carried} numbers;  4 T d + 4 T² = {4 * T * d + 4 * T * T}")
assert first.carried == 4 * T * d + 4 * T * T

# %% [markdown]
r"""
So $4Td + 4T^2$ numbers, and the second term is the table, carried four times. The operations: each of the two products
takes $T^2$ dot products of $d$ multiplications and additions, $4T^2d$ together. (The softmax needs a few more for each
score; they are fewer by a factor of about $d$.) Now the two side by side at real sizes, with 16-bit numbers:
"""


# %%
def operations(T, d):
    return 4 * T * T * d


def plain_bytes(T, d, size=2):
    return size * (4 * T * d + 4 * T * T)


print("tokens   table, one head   carried   operations   operations/byte")
for tokens in (1024, 4096, 16384):
    table, carried, work = 2 * tokens**2, plain_bytes(tokens, 64), operations(tokens, 64)
    print(f"{tokens:6d} {table / 1e6:12.0f} MB {carried / 1e6:9.0f} MB {work / 1e9:9.1f} G {work / carried:12.1f}")
assert all(operations(n, 64) / plain_bytes(n, 64) < 32 for n in (1024, 4096, 16384))

# %% [markdown]
r"""
The last column is the **arithmetic intensity**: operations for each byte that is carried. For long texts it comes near
$4T^2d / (2 \cdot 4T^2) = d/2$: more tokens do not raise it.

A card can do so many operations in a second (its peak) and carry so many bytes (its bandwidth). A program with
intensity $I$ can be no faster than

$$\text{rate} \le \min(\text{peak},\ \text{bandwidth} \times I),$$

the **roofline** (Williams, Waterman and Patterson 2009, *Roofline: an insightful visual performance model*). Below the
bend, at $I = \text{peak} / \text{bandwidth}$, carrying decides; above it, computing. Peak and bandwidth are those of
the data sheets (`minillm.costs.cards`); nothing here is measured.

If tiles of $M$ queries stay on the chip, while all keys and values pass by once for each of them, then $Q$ and $O$ are
carried once and $K$ and $V$ are carried $T/M$ times, and nothing else: $2Td + 2Td \cdot T/M$ numbers. At best $K$ and
$V$ stay in the cache between main memory and the multiprocessors, and each number is carried once. Where do these lie?
"""


# %%
def tiled_bytes(T, d, M, size=2):
    return size * (2 * T * d + 2 * T * d * -(-T // M))


CHOSEN = ["H100", "RTX 4090"]
tokens = 4096
moved = {
    "plain": plain_bytes(tokens, 64),
    "tiles of 32 queries": tiled_bytes(tokens, 64, 32),
    "tiles of 128 queries": tiled_bytes(tokens, 64, 128),
    "each number once": tiled_bytes(tokens, 64, tokens),
}
points = {}
for name, carried in moved.items():
    intensity = operations(tokens, 64) / carried
    roofs = [min(CARDS[c].flops, CARDS[c].bandwidth_gb * 1e9 * intensity) / 1e12 for c in CHOSEN]
    points[name] = (intensity, roofs)
    print(f"{name:21s} {intensity:7.0f} operations/byte;  at most", *(
        f"{100 * r * 1e12 / CARDS[c].flops:4.0f}% of the {c}'s peak" for c, r in zip(CHOSEN, roofs)))
assert points["plain"][0] < points["tiles of 128 queries"][0] < points["each number once"][0]
tiling.draw_roofline(points, CHOSEN)

# %% [markdown]
r"""
Plain attention (the rings) lies far down the slope: most of the card waits. Tiles climb it, the larger the higher:
with 16-bit numbers their intensity is about $4T^2d / (2 \cdot 2Td \cdot T/M) = M$. Tiles of 32 queries win nothing yet:
carrying $K$ and $V$ again for each of them costs what the table did. With large tiles, or with the cache's help, the
bend is in reach. So the aim is clear: **keep a large tile of queries on the chip until it is done.** One thing stands
in the way: a softmax needs the largest score and the sum over the whole row before it can give the first weight, and a
row's scores are never all there.

## A softmax in one pass

For one query, let the scores $s_1, s_2, \dots$ come one by one. Keep two numbers: the largest score so far, $m$, and
the sum of the weights so far **relative to it**, $l = \sum_j e^{s_j - m}$. When a new score raises the maximum from $m$
to $m'$, each term is too large by the same factor:

$$e^{s_j - m'} = e^{s_j - m}\, e^{m - m'}, \qquad\text{so}\qquad
m' = \max(m, s),\quad \alpha = e^{m - m'},\quad l' = \alpha\, l + e^{s - m'}.$$

Nothing has to be looked at again (Milakov and Gimelshein 2018, arXiv 1805.02867; exercise 4 of chapter
[06](06_attention.ipynb) asked for it). It starts at $m = -\infty$, $l = 0$: then $\alpha = 0$.
"""

# %%
rng = np.random.default_rng(5)
s = rng.standard_normal(40) + np.linspace(0, 3, 40)  # the scores of one query, (40,)
m, l = -np.inf, 0.0
running_m, running_l = [], []
for score in s:
    m_new = max(m, score)
    alpha = np.exp(m - m_new)  # what was summed so far is too large by this
    l = alpha * l + np.exp(score - m_new)
    m = m_new
    running_m.append(m)
    running_l.append(l)

softmax = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
online = np.exp(s - m) / l
print(f"largest difference from softmax: {np.abs(online - softmax).max():.1e}")
assert np.allclose(online, softmax, rtol=0, atol=1e-12)
tiling.draw_running(s, np.array(running_m), np.array(running_l))

# %% [markdown]
r"""
At each grey line the maximum rises and the sum so far is scaled down. The dashed line is what we could only have drawn
knowing the last maximum; both end at the same place. Why not leave out the maximum? Then $e^{s}$ overflows for scores
that are not even rare:
"""

# %%
with np.errstate(over="ignore"):
    print("e^s in 16 bits:", np.exp(np.float16([5, 11, 12])), " in 32 bits:", np.exp(np.float32([50, 88, 89])))
    assert np.isinf(np.exp(np.float16(12))) and np.isinf(np.exp(np.float32(89)))

# %% [markdown]
r"""
The weighted sum of values obeys the same rule: $a = \sum_j e^{s_j - m} v_j$, a row of $d$ numbers, becomes
$a' = \alpha\, a + e^{s - m'} v$, and the result is $a / l$ at the end: **one** division for each number of the output.
And it does not matter whether one score comes or a block of them:

$$m' = \max(m, \max_j s_j), \quad \alpha = e^{m - m'}, \quad p_j = e^{s_j - m'}, \quad
l' = \alpha\, l + \sum_j p_j, \quad a' = \alpha\, a + \sum_j p_j v_j .$$

## Tiles in NumPy

Now for $M$ queries at a time and $N$ keys at a time: $m$ and $l$ have shape $(M)$, the sum is $(M, d)$, and a tile of
scores $(M, N)$ is all that ever exists of the table. Causal attention needs no keys after the tile's last query, so the
inner loop ends there. Besides $O$ each row leaves one number, $L = m + \ln l$, the logarithm of its whole sum. The
backward pass will need it.
"""


# %%
def tiled_attention(memory, M, N, causal=False, watch=None):
    """O (T, d) and L (T,) are written to memory. watch(i0, j0, m, l) is called after each tile."""
    T, d = memory.arrays["Q"].shape
    for i0 in range(0, T, M):  # on a GPU: one program for each, all at once
        i = np.arange(i0, min(i0 + M, T))
        Q = memory.read("Q", i)  # (M, d)
        m, l = np.full(len(i), -np.inf), np.zeros(len(i))  # (M,)
        acc = np.zeros((len(i), d), memory.wide)  # (M, d)
        last = i[-1] + 1 if causal else T
        for j0 in range(0, last, N):
            j = np.arange(j0, min(j0 + N, T))
            K, V = memory.read("K", j), memory.read("V", j)  # (N, d)
            S = Q @ K.T / np.sqrt(d)  # (M, N)
            if causal:
                S = np.where(j <= i[:, None], S, -np.inf)
            m_new = np.maximum(m, S.max(axis=1))
            alpha = np.exp(m - m_new)
            P = np.exp(S - m_new[:, None])
            l = alpha * l + P.sum(axis=1)
            acc = alpha[:, None] * acc + P.astype(memory.dtype).astype(memory.wide) @ V
            m = m_new
            if watch:
                watch(i0, j0, m, l)
        memory.write("O", i, acc / l[:, None], (T, d))
        memory.write("L", i, m + np.log(l), (T,))
    return memory.arrays["O"]


M, N = 16, 16
second = Memory(**example(T, d, seed=0))
O_tiled = tiled_attention(second, M, N)
print(f"largest difference from plain attention: {np.abs(O_tiled - O_plain).max():.1e}")
print(f"carried: {second.carried} numbers instead of {first.carried}")
assert np.allclose(O_tiled, O_plain, rtol=0, atol=1e-12)
assert second.carried == tiled_bytes(T, d, M, size=1) + T  # and L

# %% [markdown]
r"""
The same numbers, and the count is the formula's (plus $T$ for $L$). For so short a text little is saved; the table
grows with $T^2$ and its price with it. Does the library agree, causal and with sizes that no tile divides?
"""

# %%
for T_, M_, N_ in ((48, 16, 16), (37, 16, 8), (50, 7, 64)):
    x = example(T_, d, seed=T_)
    tiled = tiled_attention(Memory(**x), M_, N_, causal=True)
    q, k, v = (Parameter(x[name][None, None]) for name in "QKV")  # (1, 1, T, d)
    library = ops.attention(q, k, v, causal=True).data[0, 0]
    print(f"T = {T_}, tiles ({M_}, {N_}): largest difference {np.abs(tiled - library).max():.1e}")
    assert np.allclose(tiled, library, rtol=0, atol=1e-12)

# %% [markdown]
r"""
### Does it cost digits?

The sums are taken in another order, and every block may scale them again. Is the result worse for it? Against float64,
for several drawn texts: plain attention and tiles of three sizes, all with 32-bit numbers; then both with 16-bit
numbers in memory, sums in 32 bits, as on a GPU; and plain attention once more, with only the scores $S$ kept in 32
bits. The queries are four times as long as usual, so that scores are large.
"""


# %%
class WideScores(Memory):
    """Main memory that keeps the scores S, and nothing else, as wide as they are computed."""

    def write(self, name, rows, part, shape):
        super().write(name, rows, part, shape)
        if name == "S":
            self.arrays["S"] = part


def error(run, dtype, seed, kind=Memory):
    """Root mean square difference from float64, in units of the output's own root mean square."""
    drawn = example(LONG, 64, seed)
    x = {name: array.astype(dtype).astype(np.float64) for name, array in drawn.items()}
    x["Q"] *= 4
    exact = plain_attention(Memory(**x))
    got = run(kind(dtype, **x)).astype(np.float64)
    return np.sqrt(np.mean((got - exact) ** 2) / np.mean(exact**2))


runs = {"plain": plain_attention}
for size in (8, 32, 128):
    runs[f"tiles of {size}"] = lambda memory, size=size: tiled_attention(memory, 128, size)
errors = {
    (name, bits): np.array([error(run, f"float{bits}", seed) for seed in range(SEEDS)])
    for bits in (32, 16)
    for name, run in runs.items()
    if bits == 32 or name in ("plain", "tiles of 128")
}
errors["plain, wide S", 16] = np.array(
    [error(plain_attention, "float16", seed, WideScores) for seed in range(SEEDS)]
)
for (name, bits), e in errors.items():
    print(f"{bits} bits  {name:14s} {e.mean():.2e} ± {e.std(ddof=1):.1e}  ({SEEDS} texts)")
assert errors["tiles of 8", 32].mean() < 3 * errors["plain", 32].mean()
assert errors["tiles of 128", 16].mean() < 0.7 * errors["plain", 16].mean()
assert errors["plain, wide S", 16].mean() < 1.5 * errors["tiles of 128", 16].mean()

# %% [markdown]
r"""
With 32 bits the order costs nothing; short sums may even be better. With 16 bits the tiles are **better**: plain
attention rounds every score on its way to memory, and an error in a score is an error in an exponent. The tiles' scores
never leave the chip, and stay in 32 bits. The last line is the proof: keep the scores wide, and most of the difference
is gone.

## The kernel

A **kernel** is a program that a GPU runs many times at once. In Triton it is written in Python for a whole tile: one
program for each tile of queries, which is the outer loop above. `kernels/flash_simple.py` is our loop with more
options. The names, beside ours:

| here | in the kernel | |
| --- | --- | --- |
| `for i0 in range(0, T, M)` | `tl.program_id(0) * BLOCK_M` | the programs run at once, in no order |
| `memory.read("K", j)` | `load_keys`, `load_tile` | rows outside the text are masked and read as 0 |
| `Q @ K.T` | `tl.dot(q_tile, tl.trans(k_tile))` | the matrix units |
| `np.exp(S - m)` | `tl.exp2(s - m)` | $e^x = 2^{x \log_2 e}$: the scale holds $\log_2 e$, the hardware has $2^x$ |
| `P.astype(memory.dtype)` | `p.to(COMPUTE)` | the matrix units multiply 16-bit numbers |
| `memory.write("L", …)` | `tl.store(lse + …)` | in base 2, too |
"""

# %%
NEEDS = f"This cell needs Triton: {WHY_NOT}"
x = example(T, d, seed=0)
if WHY_NOT is None:
    q, k, v = (torch.from_numpy(x[name])[None, None] for name in "QKV")  # (1, 1, T, d), float64
    kernel = flash_attention(q, k, v, causal=True, impl="simple")[0, 0].numpy()
    numpy_tiles = tiled_attention(Memory(**x), 16, 16, causal=True)
    print(f"kernel and NumPy: largest difference {np.abs(kernel - numpy_tiles).max():.1e}")
    assert np.allclose(kernel, numpy_tiles, rtol=0, atol=1e-12)
else:
    print(NEEDS)

# %% [markdown]
r"""
> **Step into it.** Put a breakpoint on the line `acc = acc * alpha[:, None]` of `forward_kernel` in
> `kernels/flash_simple.py`, and debug the cell above. On the way the debugger passes `kernels/attention.py` (checks),
> PyTorch's operator (hidden: it lets autograd and `torch.compile` know the kernel), `forward` in `flash_simple.py`,
> which says how many programs to start, and Triton's interpreter. In a tile, look at `s.handle.data`: a NumPy array.
> For the NumPy library's version step into `minillm.ops.attention`, which arrives in
> `minillm.numpy_ops.attention.attention`: it computes blocks of rows, and needs no online softmax, since in a CPU's
> cache a block's whole rows of scores fit (`minillm.numpy_ops.attention.masked_softmax`).

Here the debugger is typed into. It stops at the end of the loop in the **third** program only, the queries 32 … 47.
They see three blocks of keys, the last of them the diagonal. Of its rows we look at one whose maximum rises:
"""

# %%
ours = []  # what the NumPy tiles hold at the same moments


def note(i0, j0, m, l):
    if i0 == 32:
        ours.append((m / np.log(2), l))  # m in base 2, as in the kernel


tiled_attention(Memory(**x), 16, 16, causal=True, watch=note)
row = int(np.argmax(ours[2][0] - ours[0][0]))  # of the tile; its maximum rises most
print(f"NumPy, query {32 + row}, m and l after each block:")
print(*(f"  {m[row]:8.4f} {l[row]:8.4f}" for m, l in ours), sep="\n")
if WHY_NOT is None:
    look = f"p int(n0), m.handle.data[{row}].round(4).item(), l.handle.data[{row}].round(4).item()"
    stop = tiling.line_of(flash_simple, "m = m_new")
    commands = [f"break {stop}, int(m0) == 32", "continue", "next", look, "continue", "next", look]
    commands += ["continue", "next", look, "p s.handle.data[:3, :5].round(2)", "clear 1"]
    call = {"attend": lambda: flash_attention(q, k, v, causal=True, impl="simple")}
    print(type_into_debugger("attend()", commands, call))
else:
    print(NEEDS)

# %% [markdown]
r"""
The kernel's $m$ and $l$ are those of NumPy after each block (the first number is the block's first key). The last lines
are the corner of the last tile of scores: its first query may see one of these keys only; `-inf` hides the others, and
$2^{-\infty} = 0$.

### What is never computed

The picture is drawn by watching the fast kernel run (`minillm.plot.tiles_visited`). Its loop is cut in two: tiles that
count whole, where no positions are compared, and tiles at an edge, where they are.
"""

# %%
if WHY_NOT is None:
    long = {"smoke": 64, "cpu": 384, "gpu": 384}[SCALE]
    picture = plot.tiles_visited({
        "everything": {"tq": long},
        "causal": {"tq": long, "causal": True},
        f"causal, window {5 * long // 12}": {"tq": long, "causal": True, "window": 5 * long // 12},
    })
else:
    print(NEEDS)
    picture = None
picture

# %% [markdown]
r"""
A causal mask halves the work, but for the diagonal's tiles; a window makes it grow with $T$ instead of $T^2$. What is
white costs nothing: neither its products nor its keys. For plain attention a mask is more work, not less.

## Backward, without the table

From chapter 06, with $dO = \partial \mathcal L / \partial O\ (T, d)$ and the same for the others:

$$dV = P^\top dO \qquad dP = dO\,V^\top \qquad dS = P \circ (dP - D) \qquad
dQ = dS\,K / \sqrt d \qquad dK = dS^\top Q / \sqrt d$$

where $D_i = \sum_j P_{ij}\, dP_{ij}$, $(T)$, from the softmax. Each step names a $(T, T)$ table. Two ideas remove them
(Dao et al. 2022, appendix B; Dao 2023, arXiv 2307.08691, section 3.1):

1. **Recompute.** $P$ is not kept but computed again, tile by tile, from $Q$ and $K$. No maximum and no sum is needed
   for it this time: $P_{ij} = e^{s_{ij} - m_i} / l_i = e^{s_{ij} - L_i}$ with the $L_i = m_i + \ln l_i$ that we kept.
2. **$D$ needs no table.** It is a sum over all keys, which a tile does not have. But
   $$D_i = \sum_j P_{ij} \,(dO_i \cdot V_j) = dO_i \cdot \sum_j P_{ij} V_j = dO_i \cdot O_i,$$
   the row sum of $dO \circ O$: $d$ numbers for each query.

First the second claim, on whole tables:
"""

# %%
dO = np.random.default_rng(1).standard_normal((T, d))  # the gradient that arrives
P = masked_softmax(x["Q"] @ x["K"].T / np.sqrt(d), small=False)  # (T, T)
dP = dO @ x["V"].T
with_table, without = (P * dP).sum(axis=1), (dO * (P @ x["V"])).sum(axis=1)
print(f"D, from the table and from O: largest difference {np.abs(with_table - without).max():.1e}")
assert np.allclose(with_table, without, rtol=0, atol=1e-12)

# %% [markdown]
r"""
Then the tiles, in two passes: $dQ$ walks over the keys of its queries, $dK$ and $dV$ over the queries of their keys. So
each output belongs to one program, which adds it up on the chip: nothing is added by two programs at once, and a second
run gives the same bits. The price: $S$ and $dP$ are computed twice, seven products for each pair of a query and a key
instead of five.
"""


# %%
def tile_of_dS(memory, i, j, D, causal):
    """P and dS of the tile (i, j), recomputed."""
    Q, K, V, dO = (memory.read(name, rows) for name, rows in (("Q", i), ("K", j), ("V", j), ("dO", i)))
    S = Q @ K.T / np.sqrt(Q.shape[1])
    if causal:
        S = np.where(j <= i[:, None], S, -np.inf)
    P = np.exp(S - memory.read("L", i)[:, None])  # (M, N); e^-inf = 0
    return P, P * (dO @ V.T - D[i, None]), Q, K, dO


def tiled_backward(memory, M, N, causal=False):
    """dQ, dK, dV (T, d) from Q, K, V, O, L and dO in memory."""
    T, d = memory.arrays["Q"].shape
    D = (memory.read("dO") * memory.read("O")).sum(axis=1)  # (T,)
    query_tiles = [np.arange(i, min(i + M, T)) for i in range(0, T, M)]
    key_tiles = [np.arange(j, min(j + N, T)) for j in range(0, T, N)]
    for i in query_tiles:  # dq_kernel
        dQ = np.zeros((len(i), d))
        for j in (j for j in key_tiles if not causal or j[0] <= i[-1]):
            P, dS, Q, K, dO = tile_of_dS(memory, i, j, D, causal)
            dQ += dS @ K / np.sqrt(d)
        memory.write("dQ", i, dQ, (T, d))
    for j in key_tiles:  # dkdv_kernel
        dK, dV = np.zeros((len(j), d)), np.zeros((len(j), d))
        for i in (i for i in query_tiles if not causal or j[0] <= i[-1]):
            P, dS, Q, K, dO = tile_of_dS(memory, i, j, D, causal)
            dV += P.T @ dO
            dK += dS.T @ Q / np.sqrt(d)
        memory.write("dK", j, dK, (T, d))
        memory.write("dV", j, dV, (T, d))
    return [memory.arrays[name] for name in ("dQ", "dK", "dV")]


third = Memory(**x, dO=dO)
tiled_attention(third, 16, 16, causal=True)
gradients = tiled_backward(third, 16, 16, causal=True)

inputs = [Parameter(x[name][None, None]) for name in "QKV"]
ops.attention(*inputs, causal=True).backward(dO[None, None])
for name, ours, parameter in zip(("dQ", "dK", "dV"), gradients, inputs):
    print(f"{name}: largest difference from the library's autograd {np.abs(ours - parameter.grad[0, 0]).max():.1e}")
    assert np.allclose(ours, parameter.grad[0, 0], rtol=0, atol=1e-12)

# %% [markdown]
r"""
The kernels `dq_kernel` and `dkdv_kernel` in `kernels/flash_simple.py` are these two loops. Against PyTorch's autograd,
which differentiates the plain formula and knows nothing of tiles:
"""

# %%
if WHY_NOT is None:
    def gradients_of(attend):
        leaves = [torch.from_numpy(x[name])[None, None].requires_grad_() for name in "QKV"]
        attend(*leaves).backward(torch.from_numpy(dO)[None, None])
        return [leaf.grad[0, 0].numpy() for leaf in leaves]

    def formula(q, k, v):
        hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
        return (q @ k.mT / d**0.5).masked_fill(hidden, float("-inf")).softmax(-1) @ v

    by_kernel = gradients_of(lambda q, k, v: flash_attention(q, k, v, causal=True, impl="simple"))
    for name, a, b, c in zip(("dQ", "dK", "dV"), by_kernel, gradients_of(formula), gradients):
        print(f"{name}: kernel and autograd {np.abs(a - b).max():.1e}, kernel and NumPy {np.abs(a - c).max():.1e}")
        assert np.allclose(a, b, rtol=0, atol=1e-12) and np.allclose(a, c, rtol=0, atol=1e-12)
else:
    print(NEEDS)

# %% [markdown]
r"""
What did recomputing save, and what did it cost? Between forward and backward plain attention keeps $P$; the tiles keep
$O$ and $L$, of which $O$ is needed anyway.
"""

# %%
print("tokens   kept by plain (P)   kept by tiles (L)   products forward + backward")
for tokens in (1024, 4096, 16384):
    P_bytes, L_bytes = 2 * tokens**2, 4 * tokens
    print(f"{tokens:6d} {P_bytes / 1e6:13.0f} MB {L_bytes / 1e3:16.0f} kB {'2 + 4 against 2 + 7':>29s}")
assert 2 * 16384**2 / (4 * 16384) > 1000

# %% [markdown]
r"""
These are one head's; a layer has a dozen, a model dozens of layers. Half as many operations again, and still faster:
they are done where the card would have waited.

## What limits it now: estimates without a card

With the table gone, other limits show. A multiprocessor runs several programs at once, and while one waits the others
work. How many fit is the kernel's **occupancy**: the **registers** of its threads (the few numbers that each worker of
a multiprocessor has at hand) and each program's share of the close memory are fixed when it is compiled, and compiling
needs no card. The estimator (`kernels/occupancy.py`) compiles the **fast** kernels (the same algorithm, larger tiles,
the loop cut in two) and reads from their machine code how many cycles one tile takes each unit. All rates below are
**estimates**: the data sheet's speeds, a simple rule for how much overlaps, and one factor fitted to a published chart.
"""

# %%
if WHY_NOT is None:
    printed, rows = tiling.estimates(SCALE)
    print(printed)
    assert rows and all(row["all"] >= max(row["tensor"], row["loads"]) for row in rows)
else:
    print(NEEDS)
    rows = []
tiling.draw_estimates(rows) if rows else None

# %% [markdown]
r"""
Read it so: were the blue bar alone and as high as the line, the kernel would run at the peak of the matrix units. For
$d = 64$ the forward pass's exponentials take about as long as its products: a multiprocessor has far fewer units for
them, and each score needs one, however small $d$ is. So a longer row ($d = 128$) does more products for each
exponential, and has the higher estimate. The black line lies above every bar, since a program's phases wait for each
other: more programs at once bring it down. The two backward kernels' rates count what they recompute as work. The
published measurements below the forward rows say what is possible: the best kernels of others are faster than ours is
estimated to be. And the roofline? Its flat part is the estimate's ceiling:
"""

# %%
peak = CARDS["H100"].flops / 1e12
for row in rows:
    share, busy = 100 * row["rate"] / peak, 100 * row["tensor"] / row["all"]
    print(f"{row['kernel']:8s} d = {row['size']:3d}: ESTIMATE {row['rate']:4d} TFLOP/s, "
          f"{share:3.0f}% of the H100's peak; matrix units busy {busy:3.0f}% of the time")
    assert row["rate"] < peak
if not rows:
    print(NEEDS)

# %% [markdown]
r"""
## Timed, if there is a GPU

Only a clock on a card settles it. Where there is one, the next cell times causal attention, forward and backward
together, in a process of its own: plain, PyTorch's own, and our two kernels, in turns, so that a slow moment meets all
alike.
"""

# %%
times = tiling.time_on_gpu() if WHY_NOT is None else None
if times is None:
    print("No GPU (or no Triton) here: nothing is timed. In the interpreter a time says nothing about a card.")
else:
    for row in times:
        print(f"{row.pop('tokens')} tokens:", *(f"{name} {ms:.2f} ms " for name, ms in row.items()))

# %% [markdown]
r"""
## What is fixed by tests

A kernel that is slightly wrong trains a model that is slightly worse, and nobody notices. `tests/kernels` holds:

- **numbers**: both kernels against float64, forward and backward, at lengths and head sizes that no tile divides, with
  every mask, window and packing; gradients against finite differences; the same bits in a second run;
- **tiles**: no pair that counts is left out, no tile is computed in vain;
- **compiling**, for several cards without having one: each kernel fits, and what does not fit into registers stays
  within known bounds;
- **cards**, where there is one: the rest. The interpreter does not see **races** (two programs that write to one place
  at the same time), may read beyond an array's end without a word, and has no 16-bit arithmetic of the kind called
  bfloat16.

How close is close enough? A fixed tolerance is either too lax or too strict. The FlashAttention authors' tests compare
with what plain attention in the same precision gets wrong: a kernel may be off by no more than **twice** that.
"""

# %%
if WHY_NOT is None:
    worst = []
    for seed in range(SEEDS):
        exact = [torch.from_numpy(a)[None, None].half() for a in example(T, 32, seed).values()]
        truth = torch.softmax(exact[0].double() @ exact[1].double().mT / 32**0.5, -1) @ exact[2].double()
        low = torch.softmax(exact[0] @ exact[1].mT / 32**0.5, -1) @ exact[2]  # all in float16
        kernel = flash_attention(*exact, impl="simple")
        worst.append([(out.double() - truth).abs().max().item() for out in (kernel, low)])
    worst = np.array(worst)
    for name, e in zip(("kernel", "plain, 16 bits"), worst.T):
        print(f"{name:15s} largest error {e.mean():.1e} ± {e.std(ddof=1):.0e}  ({SEEDS} texts)")
    assert (worst[:, 0] <= 2 * worst[:, 1]).all()
else:
    print(NEEDS)

# %% [markdown]
r"""
## Summary

- Plain attention carries its $(T, T)$ table four times; its intensity stays below $d/2$ operations for each byte.
- A running maximum and sum, scaled when the maximum rises, make a softmax in one pass, exact up to rounding.
- With it, tiles of queries stay on the chip; the table is never stored, and what a mask hides is never computed.
- Backward recomputes $P = e^{S - L}$; $D$ is the row sum of $dO \circ O$.
- More operations and fewer bytes are faster, as long as bytes are what is waited for.

## Exercises

### Exercise 1: merge two halves (easy, core, 10 minutes)

When one query meets a very long text, several programs take a part of the keys each ("flash decoding"). Each ends
with $m\,(T)$, $l\,(T)$ and $a\,(T, d)$, the sum **before** the division. Return `m, l, acc` of both parts together. A
part that has seen no key has $m = -\infty$, $l = 0$, $a = 0$.
"""


# %% tags=["exercise"]
def merge(m1, l1, acc1, m2, l2, acc2):
    return None


def part_of(S, V):
    """m, l, acc of some keys' scores S (T, n) and values V (n, d)."""
    top = S.max(axis=1)
    weights = np.exp(S - top[:, None])
    return top, weights.sum(axis=1), weights @ V


with check():
    r = np.random.default_rng(1)
    S_, V_ = 3 * r.standard_normal((5, 12)), r.standard_normal((12, 4))
    one, two, whole = part_of(S_[:, :7], V_[:7]), part_of(S_[:, 7:], V_[7:]), part_of(S_, V_)
    answer = merge(*(a.copy() for a in one + two))
    assert answer is not None, "merge returns nothing yet: return m, l, acc."
    got_m, got_l, got_acc = (np.array(as_plain(a)) for a in answer)
    assert got_acc.shape == (5, 4), f"acc must have shape (5, 4), as each part's; yours has {got_acc.shape}."
    assert np.allclose(got_m, whole[0]), "m is the larger of the two, row by row."
    assert not np.allclose(got_l, one[1] + two[1]), "l: each part's sum is relative to its own m. Scale it first."
    assert np.allclose(got_l, whole[1]), "l is wrong: the part with the smaller m shrinks, by e^(its m − the new m)."
    assert not np.allclose(got_acc, whole[2] / whole[1][:, None]), "acc is the sum before the division by l."
    assert np.allclose(got_acc, whole[2]), "acc is wrong: it is scaled by the same factors as l."
    nothing = (np.full(5, -np.inf), np.zeros(5), np.zeros((5, 4)))
    for both in (nothing + one, one + nothing):
        assert all(np.allclose(as_plain(a), b) for a, b in zip(merge(*both), one)), (
            "A part that has seen no key (m = −inf, l = 0) must change nothing."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def merge(m1, l1, acc1, m2, l2, acc2):
    m = np.maximum(m1, m2)
    a1, a2 = np.exp(m1 - m), np.exp(m2 - m)  # (T,)
    return m, a1 * l1 + a2 * l2, a1[:, None] * acc1 + a2[:, None] * acc2
```

The order of merging does not matter: so the parts can be merged in any way, in pairs, or as they are done.

</details>

### Exercise 2: which tiles (medium, useful, 15 minutes)

Causal attention with a window $w$: query $i$ sees the keys $i - w + 1, \dots, i$ (those that exist). A tile holds the
queries `i0` … `i0 + M − 1`; keys come in blocks that begin at $0, N, 2N, \dots$ Return the list of the first keys of
all blocks that some query of the tile sees, and of no other, in order, for a text of `T` tokens (the last tile may be
cut).
"""


# %% tags=["exercise"]
def key_blocks(i0, M, N, T, w):
    return None


with check():
    assert key_blocks(8, 4, 4, 16, 16) is not None, "key_blocks returns nothing yet: return a list of first keys."
    cases = [(8, 4, 4, 16, 100), (8, 4, 4, 16, 5), (8, 4, 4, 16, 1), (9, 3, 4, 16, 6)]
    cases += [(12, 8, 4, 14, 3), (16, 16, 8, 64, 9), (16, 16, 8, 64, 10), (0, 4, 16, 40, 2), (32, 16, 4, 34, 6)]
    for i0_, M_, N_, T_, w_ in cases:
        have = as_plain(key_blocks(i0_, M_, N_, T_, w_))
        rows_ = range(i0_, min(i0_ + M_, T_))
        need = sorted({j // N_ * N_ for i in rows_ for j in range(max(0, i - w_ + 1), i + 1)})
        case = f"i0 = {i0_}, M = {M_}, N = {N_}, T = {T_}, w = {w_}"
        assert isinstance(have, list), f"Return a list of numbers, not {type(have).__name__}."
        assert all(j % N_ == 0 for j in have), f"{case}: blocks begin at multiples of N; yours are {have}."
        missing, vain = sorted(set(need) - set(have)), sorted(set(have) - set(need))
        assert not missing, f"{case}: the block at {missing[0]} is left out. Which query sees furthest back?"
        assert not vain, f"{case}: the block at {vain[0]} is visited in vain: no query of the tile sees it."
        assert have == need, f"{case}: each block once, in order: {need}, not {have}."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def key_blocks(i0, M, N, T, w):
    first = max(0, i0 - w + 1) // N * N  # the tile's first query sees furthest back
    last = min(T, i0 + M)  # its last query sees up to itself
    return list(range(first, last, N))
```

The kernel's `first` and `last` are these two lines.

</details>

### Exercise 3: the gradients of one block of keys (medium, core, 20 minutes)

No mask. Given all queries `Q` $(T, d)$, **one block** of keys and values `K`, `V` $(N, d)$, the gradient `dO` $(T, d)$,
and of the whole rows `L` $(T)$ and `D` $(T)$: return `dK, dV` $(N, d)$ of this block. Scores are divided by $\sqrt d$.
"""


# %% tags=["exercise"]
def block_gradients(Q, K, V, dO, L, D):
    return None


with check():
    r = np.random.default_rng(3)
    Q_, K_, V_, dO_ = (r.standard_normal((n, 6)) for n in (9, 12, 12, 9))
    S_ = Q_ @ K_.T / np.sqrt(6)
    L_ = np.log(np.exp(S_).sum(axis=1))
    P_ = np.exp(S_ - L_[:, None])
    D_ = (dO_ * (P_ @ V_)).sum(axis=1)
    answer = block_gradients(Q_, K_[4:8], V_[4:8], dO_, L_, D_)
    assert answer is not None, "block_gradients returns nothing yet: return dK, dV."
    got_dK, got_dV = (np.array(as_plain(a)) for a in answer)
    assert got_dK.shape == got_dV.shape == (4, 6), f"Both must be (4, 6), not {got_dK.shape}, {got_dV.shape}."
    want_dS = P_ * (dO_ @ V_.T - D_[:, None])
    want_dK, want_dV = (want_dS.T @ Q_ / np.sqrt(6))[4:8], (P_.T @ dO_)[4:8]
    own = P_[:, 4:8] / P_[:, 4:8].sum(axis=1, keepdims=True)
    assert not np.allclose(got_dV, own.T @ dO_), "Your P sums to 1 within the block: it is a part of the row. Use L."
    assert np.allclose(got_dV, want_dV), "dV = Pᵀ dO, with P = e^(S − L) and S divided by √d."
    assert not np.allclose(got_dK, want_dK * np.sqrt(6)), "dK lacks the 1/√d of the scores."
    assert not np.allclose(got_dK, ((P_ * (dO_ @ V_.T)).T @ Q_ / np.sqrt(6))[4:8]), "dS lacks D: P ∘ (dP − D)."
    assert np.allclose(got_dK, want_dK), "dK = dSᵀ Q / √d with dS = P ∘ (dP − D): D belongs to the rows."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def block_gradients(Q, K, V, dO, L, D):
    scale = 1 / np.sqrt(Q.shape[1])
    P = np.exp(scale * Q @ K.T - L[:, None])  # (T, N)
    dS = P * (dO @ V.T - D[:, None])  # (T, N)
    return scale * dS.T @ Q, P.T @ dO
```

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** Does FlashAttention approximate?

<details><summary>Answer</summary>

No. It computes the same sums in another order; only rounding differs, and with 16-bit numbers in its favour.

</details>

**2.** Why does a longer text not raise the intensity of plain attention?

<details><summary>Answer</summary>

Operations and carried bytes both grow with $T^2$: the table is what is computed, and what is carried.

</details>

**3.** Why is $L$ kept and not $m$ and $l$?

<details><summary>Answer</summary>

Backward needs $e^{s - m} / l$ only, and that is $e^{s - L}$: one number for each row instead of two.

</details>

**4.** Backward does more operations than it must. Why is it not slower?

<details><summary>Answer</summary>

Reading $P$ from main memory would take longer than computing it again from tiles that are there anyway.

</details>

**5.** A test passes in the interpreter. What may still be wrong on a card?

<details><summary>Answer</summary>

Races between programs, bfloat16's rounding, reads outside an array, too many registers: the interpreter has none of
them.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now count what a computation carries and place it under a roofline, make a softmax in one pass, write attention
in tiles, forward and backward, find your way in a Triton kernel with a debugger, and tell an estimate from a
measurement.

**What you take along**: the roofline and the card's data sheets (`minillm.costs.cards`,
`minillm.workshop.tiling.draw_roofline`). The next chapter,
[17 · Training at real size](17_training_at_real_size.ipynb), asks of a whole training step what we asked of one layer.
"""
