# %% [markdown]
r"""
# 01 · What a language model is

A language model says how likely every possible next piece of a text is. The simplest one only counts: what came after
these letters before? That is enough to write something that looks a little like English, to compress a text, and to
set the mark that every network of this course has to beat. And it is enough to see where counting ends.

**Afterwards you can** build, smooth and score an $n$-gram model; turn a loss into perplexity and into bits per byte,
and say which of them may be compared; let the model write; measure how much of a new text was never seen before; say
what pretraining is for, and when it does not help.

**You need** Python, logarithms, and [00 · Start here](00_start_here.ipynb), which has shown where this leads.
"""

# %%
from collections import Counter, defaultdict
from fractions import Fraction
from math import ceil, log2

import numpy as np
from minillm.data import corpus_text
from minillm.data.tasks import translation
from minillm.metrics import bits_per_byte
from minillm.training.baselines import NGramModel, xz_bits_per_byte
from minillm.workshop import (
    check,
    counting,
    progress,
    read_scale,
    show_versions,
    type_into_debugger,
)
from minillm.workshop.deliverables import baselines, corpus, tokenizer

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
DRAWS = {"smoke": 2, "cpu": 3, "gpu": 5}[SCALE]  # other splits of the documents, or other samples
BY_HAND = {"smoke": 20_000, "cpu": 200_000, "gpu": 400_000}[SCALE]  # bytes counted in plain Python
SCORED = {"smoke": 1_000, "cpu": 10_000, "gpu": 40_000}[SCALE]  # bytes scored in plain Python
show_versions(SCALE)

# %% [markdown]
r"""
## The idea: look up what came before

The text is the one that most chapters use: Python's help pages and the docstrings of its library, with repetitions
taken out. [Chapter 04](04_collecting_and_cleaning_text.ipynb) builds it and splits it by document: one part to learn
from, `train`, and one that is **held out**, `val`. Computers store text as **bytes**, numbers from 0 to 255; in this
text nearly every character is one byte. (A Chinese character is three.)

We walk along the text and note, for every **history** $h$ of $n - 1$ bytes, how often each byte $w$ came next. A
stretch of $n$ bytes is called an **$n$-gram**, and the model an $n$-gram model, of **order** $n$. The symbols:

| symbol | what it is |
| --- | --- |
| $V$ | number of symbols that can come: 256 bytes |
| $h$; $h'$ | a history, $n - 1$ bytes; the same without its first byte, $n - 2$ bytes |
| $c(hw)$ | how often $w$ followed $h$: $V$ numbers for each $h$, a **row** |
| $c(h) = \sum_w c(hw)$ | the sum of that row: how often $h$ occurred with something after it |
| $T(h)$ | how many *different* bytes followed $h$ |
"""

# %%
folder = corpus(SCALE)
train, val = (corpus_text(folder, split) for split in ("train", "val"))


def count(data, n):
    """history of n − 1 bytes -> how often each byte followed it."""
    rows = defaultdict(Counter)
    for i in range(n - 1, len(data)):
        rows[data[i - (n - 1) : i]][data[i]] += 1
    return rows


small = counting.first_bytes(train, 0, BY_HAND)  # a part of it for plain Python
print(f"{len(train.encode()):,} bytes to count, {len(val.encode()):,} bytes held out")
rows = {n: count(small.encode(), n) for n in range(1, 7)}
row = rows[4][b"ret"]
print("after “ret”:", {chr(w): c for w, c in row.most_common()})
counting.data_flow(b"ret", row, came=ord("u"))

# %% [markdown]
r"""
That is the whole machine, from left to right; the networks of later chapters replace the two boxes in the middle and
keep the rest. Divide a row by its sum, and it is a **distribution**: $V$ numbers that are not negative and sum to 1,
written $p(w \mid h)$, "the probability of $w$ after $h$". With it we can *score* a text that somebody else wrote, or
*write* one.

The rows of order 2, for small letters and the space ␣, are a table that you can look at. Each row sums to 1 (together
with the bytes that are not shown).
"""

# %%
counting.letter_table(rows[2])

# %% [markdown]
r"""
Find the row of q, the letters that often end a word (their first square is bright), and the columns of the vowels. The
row of j is not English but Python: in these texts j stands mostly in "object".

## Why divide? The cheapest table

Dividing by the sum looks obvious. It is also the best that can be done, in a sense that all of training rests on. Call
the **cost** of a byte $-\log_2 p$ **bits**: 0 if the model was sure of it, 1 if it gave it probability ½, 2 for ¼, and
without limit towards 0. After $h$, the counted text itself costs

$$-\sum_w c(hw) \log_2 p(w \mid h).$$

Which distribution $p$ makes this smallest? Let $q(w) = c(hw)/c(h)$ and compare any other $p$ with it. Since
$\ln x \le x - 1$ for every $x > 0$,

$$\sum_w q(w) \ln\frac{p(w)}{q(w)} \;\le\; \sum_w q(w)\Big(\frac{p(w)}{q(w)} - 1\Big) = \sum_w p(w) - \sum_w q(w)
\;\le\; 1 - 1 = 0,$$

with sums over the $w$ that occurred. Divided by $-\ln 2$ and multiplied by $c(h)$, this says that $p$ costs at least
as much as $q$. So the shares themselves are the cheapest: the **maximum likelihood** estimate. A network trained by
gradient descent (chapter 08) lowers the same cost, step by step, because it has no such formula. We try it with a
thousand random changes of one row.
"""

# %%
counts = np.array(list(row.values()))  # (T,): what followed "ret"
q = counts / counts.sum()  # (T,)
cheapest = -(counts * np.log2(q)).sum()
rng = np.random.default_rng(1)
others = q * np.exp(0.3 * rng.standard_normal((1000, len(q))))  # (1000, T)
others /= others.sum(axis=1, keepdims=True)
costs = -(counts * np.log2(others)).sum(axis=1)  # (1000,)
print(f"the shares: {cheapest:.2f} bits; 1000 others: {costs.min():.2f} to {costs.max():.2f} bits")
assert costs.min() > cheapest

# %% [markdown]
r"""
## Bits, perplexity, bits per byte

**The chain rule.** A text of $L$ symbols $w_1 \dots w_L$ comes about one symbol after the other, so its probability is
a product, and its cost in bits a sum:

$$p(w_1 \dots w_L) = \prod_{t=1}^{L} p(w_t \mid w_1 \dots w_{t-1}), \qquad
\text{bits} = -\log_2 p(w_1 \dots w_L) = \sum_{t=1}^{L} -\log_2 p(w_t \mid w_1 \dots w_{t-1}).$$

The first equation is exact, for every text and every model. An $n$-gram model adds an assumption that is wrong but
makes counting possible: only the last $n - 1$ symbols matter. From the bits follow the usual scores. Let the text have
$B$ bytes:

| score | formula | in words |
| --- | --- | --- |
| loss, in **nats** | $\ell = \text{bits}\cdot\ln 2\,/\,L$ | the mean of $-\ln p_t$, as in chapter 00 |
| **perplexity** | $2^{\text{bits}/L} = e^{\ell} = \big(\prod_t 1/p_t\big)^{1/L}$ | choosing among so many alike |
| **bits per byte** | $\text{bits}/B = \ell\,L\,/\,(B \ln 2)$ | what a byte costs, whatever the symbols are |

Here $p_t$ is short for the probability that the $t$-th symbol was given. If it is $1/K$ at every place, the perplexity
is $K$: it is as if the model chose among $K$ equally likely symbols each time. (The last form is the **geometric mean**
of the $1/p_t$.)

The first two depend on what a *symbol* is, the third does not. To see it, count the same text twice at order 2: in
bytes, and in the **tokens** of [chapter 03](03_tokens.ipynb), pieces of a few bytes each. (The library's `NGramModel`
counts bytes or characters, so each token is written as one character. How it copes with what it has never seen comes
next.)
"""


# %%
def as_text(ids):
    return "".join(chr(0x4E00 + i) for i in ids)  # any characters would do; these are Chinese


tokens = tokenizer(SCALE)
B = len(val.encode())
train_tokens, val_tokens = (as_text(tokens.encode(text)) for text in (train, val))
of_bytes = NGramModel.fit(train, order=2).total_bits(val)[-1]  # bits for all of val
of_tokens = NGramModel.fit(train_tokens, order=2, unit="char").total_bits(val_tokens)[-1]
L = len(val_tokens)
print("order 2, held-out text              symbols   perplexity   bits per byte")
for name, symbols, bits in (
    ("bytes", B, of_bytes),
    ("tokens", L, of_tokens),
    ("bytes, spread over the tokens", L, of_bytes),
):
    print(f"{name:32s} {symbols:10,} {2 ** (bits / symbols):12.1f} {bits / B:15.3f}")
assert 2 ** (of_tokens / L) > 2 * 2 ** (of_bytes / B) and of_tokens < of_bytes
assert np.isclose(bits_per_byte(of_bytes * np.log(2), B), of_bytes / B)  # the library's, from nats

# %% [markdown]
r"""
By perplexity the token model looks far worse, by bits per byte it is better: two tokens reach much further than two
bytes. The last line is the whole trap: it is the byte model again, the very same predictions. Their bits, spread over
many bytes, are a small perplexity; spread over fewer tokens, a huge one. So models with different symbols are compared
in bits per byte, **on the same text**. Perplexities may be compared only between models that cut the text alike.

And between two texts? Here are sentences about numbers, dates and places, made by one of the library's generators, each
in English and in Chinese. We train a byte model on the English ones, another on the Chinese ones, and score held-out
pairs.
"""

# %%
languages = ("English", "Chinese")
bits = {unit: np.zeros((DRAWS, 2)) for unit in ("byte", "character", "sentence")}
places = np.zeros((DRAWS, 3))  # bits of the first, second and third byte of a Chinese character
for seed in progress(range(DRAWS), "two languages"):
    pairs = translation.make(seed)["train"][: 1500 if SCALE == "smoke" else None]
    cut = len(pairs) * 3 // 4
    for i, side in enumerate(("source", "target")):
        lines = [getattr(pair, side) for pair in pairs]
        counted, held = "\n".join(lines[:cut]), "\n".join(lines[cut:])
        each = NGramModel.fit(counted, order=8).symbol_bits(held)[-1]  # (bytes of held,)
        for unit, size in zip(bits, (len(held.encode()), len(held), len(pairs) - cut)):
            bits[unit][seed, i] = each.sum() / size
    data = np.frombuffer(held.encode(), dtype=np.uint8)  # the Chinese, which came last
    first = np.flatnonzero(data >= 0xE0)  # the first bytes of characters of three
    places[seed] = [each[first + k].mean() for k in range(3)]
for unit, values in bits.items():
    counting.print_draws(f"bits per {unit}", languages, values)
counting.print_draws("bits by byte of a Chinese character", ("1st", "2nd", "3rd"), places)
assert np.all(bits["character"][:, 1] > 2 * bits["character"][:, 0])
if SCALE != "smoke":
    ratio = bits["sentence"][:, 1] / bits["sentence"][:, 0]
    assert np.all((ratio > 0.85) & (ratio < 1.15)) and np.all(places[:, 2] < places[:, 0])
counting.languages_figure(bits, languages)

# %% [markdown]
r"""
(A bar is the mean over several draws of sentences, a circle one draw.) Per character, Chinese looks several times as
hard; per byte, somewhat harder; per sentence, it is about the same, and it should be: a pair of sentences says the same
thing. A Chinese character is a lot of information in three bytes, and the last of the three costs least, since the
first two have narrowed the choice. So even bits per byte compare *models*, not languages or texts.

## The zero

Now score held-out text with the shares. One byte that never followed its history has probability 0 and costs
$-\log_2 0 = \infty$ bits, and so does the text. How many such bytes are there, by the counts from above?
"""

# %%
piece = counting.first_bytes(val, 0, SCORED).encode()
for n in range(1, 7):
    places = [(piece[i - (n - 1) : i], piece[i]) for i in range(5, len(piece))]  # h and w
    new = [w not in rows[n].get(h, ()) for h, w in places]
    print(f"order {n}: {100 * np.mean(new):4.1f}% of held-out bytes never followed their history")
assert np.mean(new) > 0.1

# %% [markdown]
r"""
Some of the probability must be kept back for what was never seen. That is called **smoothing**. The oldest way, due to
Laplace, pretends that each of the $V$ symbols has followed every history once before counting begins; more generally,
$\alpha$ times each:

$$p(w \mid h) = \frac{c(hw) + \alpha}{c(h) + \alpha V}.$$

It sums to 1, and nothing is 0. But look at who decides: of the sum below the line, $\alpha V$ is pretended. With
$\alpha = 1$, a history that was seen ten times is $10/266$ data and $256/266$ invention, and the invention says that
all bytes are equally likely.

## Lean on the shorter history

We know something better than "equally likely": what follows the *shorter* history $h'$, which was seen more often. So
mix the two, with a weight $\lambda$ between 0 and 1 for the shorter one, its $p$ mixed in the same way, and $1/V$ below
order 1:

$$p(w \mid h) = (1 - \lambda)\,\frac{c(hw)}{c(h)} + \lambda\, p(w \mid h').$$

This is **interpolation**. How large should $\lambda$ be? It pays for what is new after $h$, so let it be the chance
that something new comes. That, too, can be counted (Witten and Bell 1991). Walk along the occurrences of $h$ and note
two kinds of events: at each of the $c(h)$ occurrences, "a symbol"; and, in addition, "something new" whenever that
symbol had not followed $h$ before. The second happened $T(h)$ times: each different symbol was new once. Of the
$c(h) + T(h)$ events, a share

$$\lambda = \frac{T(h)}{c(h) + T(h)}, \qquad 1 - \lambda = \frac{c(h)}{c(h) + T(h)}$$

was "something new". Put into the mix, $c(h)$ cancels:

$$p(w \mid h) = \frac{c(hw) + T(h)\,p(w \mid h')}{c(h) + T(h)}, \qquad
\sum_w p(w \mid h) = \frac{c(h) + T(h)\cdot 1}{c(h) + T(h)} = 1.$$

After a history that was always followed by the same byte, over and over, $\lambda$ is close to 0; after a history seen
once, it is ½. If $h$ was never seen, $p(w \mid h) = p(w \mid h')$.
"""


# %%
def add_alpha(n, history, w, alpha):
    row = rows[n].get(history, Counter())
    return (row[w] + alpha) / (row.total() + 256 * alpha)


def interpolated(history, w, floor=1 / 256):
    """Witten and Bell's p(w | history), from the shortest history to the longest."""
    p = floor
    for n in range(1, len(history) + 2):
        row = rows[n].get(history[len(history) - (n - 1) :])  # the last n − 1 bytes
        if row is None:
            break  # never seen: what the shorter history says
        c, T = row.total(), len(row)
        p = (row[w] + T * p) / (c + T)
    return p


for history in (b"retur", b"in th", b"zebra"):
    row = rows[len(history) + 1].get(history, Counter())
    print(f"after {history.decode()!r}: c = {row.total()}, T = {len(row)}", end=", ")
    p = [interpolated(history, w) for w in range(256)]
    print(f"likeliest {chr(np.argmax(p))!r} with p = {max(p):.3f}, sum of all {sum(p):.6f}")

ours = [-log2(interpolated(piece[max(0, i - 5) : i], w)) for i, w in enumerate(piece)]
theirs = NGramModel.fit(small, order=6).symbol_bits(piece.decode())[-1]  # (bytes,), under order 6
print(f"largest gap to the library on {len(ours):,} bytes: {np.abs(ours - theirs).max():.0e} bits")
assert np.allclose(ours, theirs, atol=1e-10)

# %% [markdown]
r"""
"zebra" did not occur, nor did "ebra"; so the answer is what followed "bra", mostly the c of "brackets" and
"braces".

The library's `minillm.training.baselines.NGramModel` is the same formula on sorted arrays, so that millions of bytes
take seconds. Now the comparison, by order: adding 1, adding 0.01, and interpolation. How hard held-out text is depends
on which documents are held out, so we split the corpus several times anew; a thin line is one split, a thick one the
mean.
"""

# %%
ORDERS = range(1, 7)
smoothed = {name: np.zeros((DRAWS, len(ORDERS))) for name in ("add 1", "add 0.01", "interpolated")}
for seed in progress(range(DRAWS), "splits"):
    counted, held = counting.another_split(folder, seed)
    start = np.random.default_rng(seed).integers(0, max(1, len(held) - SCORED))
    piece = held[start : start + SCORED].encode()
    rows = {n: count(counted.encode()[:BY_HAND], n) for n in ORDERS}
    for n in ORDERS:
        places = [(piece[i - (n - 1) : i], piece[i]) for i in range(5, len(piece))]
        chances = {
            "add 1": [add_alpha(n, h, w, 1) for h, w in places],
            "add 0.01": [add_alpha(n, h, w, 0.01) for h, w in places],
            "interpolated": [interpolated(h, w) for h, w in places],
        }
        for name, p in chances.items():
            smoothed[name][seed, n - 1] = -np.log2(p).mean()
for name, values in smoothed.items():
    counting.print_draws(name, ORDERS, values)
assert np.all(np.diff(smoothed["add 1"][:, 2:], axis=1) > 0)
assert np.all(smoothed["interpolated"][:, 2:] < smoothed["add 0.01"][:, 2:])
assert np.all(smoothed["add 0.01"][:, 3:] < smoothed["add 1"][:, 3:])
counting.smoothing_figure(ORDERS, smoothed)

# %% [markdown]
r"""
At order 1, where the one row holds all the counts, smoothing hardly matters. From order 3 on it decides: adding 1 gets
worse with every further byte of history, because longer histories are rarer and the invention weighs more. A smaller
$\alpha$ postpones that. Interpolation is best in every split, and has nothing to tune.

But is its $\lambda$ right? It claims to be a probability, so it can be checked like a weather forecast: collect all
places of the held-out texts where it said "5% chance of something new", and see how often something new came. For the
picture, the places are sorted by the estimate and cut into ten groups of equal size. Each group is a point: its mean
estimate, and the share of its places where something new came (both axes logarithmic). Histories that were never seen
make no forecast, and are left out.
"""

# %%
splits = [counting.another_split(folder, seed) for seed in range(DRAWS)]
LONGEST = 10
models = [NGramModel.fit(counted, order=LONGEST) for counted, _ in progress(splits, "counting")]
held_outs = [held for _, held in splits]
figure, points = counting.novelty_figure(list(zip(models, held_outs)), orders=(3, 5, 7))
for order, pairs in points.items():
    estimate, measured = pairs[pairs[:, 0] > 0.01].T
    print(f"order {order}: measured / estimated, above 0.01:", (measured / estimate).round(2))
    if SCALE != "smoke":
        assert 0.3 < np.mean(measured / estimate) < 1
        assert np.corrcoef(np.log(estimate), np.log(measured))[0, 1] > 0.9
figure

# %% [markdown]
r"""
For a rule without anything fitted, that is remarkable: while the estimate grows a hundredfold, so does the measured
share, at long histories and at short ones. But nearly all points lie below the dotted line, where forecast and weather
would agree: the rule expects more news than there is. (What the formula then *does* with $\lambda$ has another fault,
which goes the other way; exercise 3 finds it.)
"""

# %% [markdown]
r"""
## The library's version

`minillm.training.baselines.NGramModel.fit` stores the $n$-grams of each length as a sorted array, a level of a tree: an
$n$-gram is its history's number and one more symbol. A row is then a stretch of that array.

> **Step into it.** Put a breakpoint on the first line of the next cell (VS Code: click left of the line, then *Debug
> Cell*; JupyterLab: the bug at the top right) and step into `minillm.training.baselines.NGramModel.distribution`, and
> from it into `minillm.training.baselines.NGramModel._distribution`. For each order,
> `minillm.training.baselines.NGramModel._find` looks for the history's number, `node`; the lines after it are our
> formula for all $w$ at once: `p * types` is $T(h)\,p(w \mid h')$, then the counts are added where there are any, and
> the last line divides by $c(h) + T(h)$. How a level is made you see in `minillm.training.baselines.count_codes`, which
> `NGramModel.fit` calls.

The cell does the same in Python's own debugger. Each line after `(Pdb)` is a command: stop in `_distribution`, say
where we are (outermost call first), run to the end of the function, print. There the loop has arrived at order 3.
"""

# %%
p = models[0].distribution("re", order=3)  # a breakpoint here: (symbols that were seen,)
commands = [
    "tbreak model._distribution",
    "continue",
    "where",
    "return",
    "print(n, node)",
    "print(level.history_counts[node], types, level.counts[first:last][:8])",
    "print(repr(chr(self.alphabet[p.argmax()])), p.max().round(3))",
]
seen = type_into_debugger("model.distribution('re', order=3)", commands, {"model": models[0]})
print(seen)
likeliest = chr(models[0].alphabet[p.argmax()])
assert "_distribution(" in seen and f"\n{likeliest!r} {p.max().round(3)}" in seen

# %% [markdown]
r"""
The numbers are $c(h)$, $T(h)$ and the first counts of the row of “re”; then the likeliest byte and its probability. The
counts are larger than in our dictionary, since this model has counted the whole text, not the first part of it.

## Experiment: how long a history?

More history means more knowledge, and fewer examples of it. We count the training part of each split at orders 1 to 10
and score two texts: the counted one itself, and the one held out. Beside them stands `xz`, a program that compresses
files; the next section is about it.
"""

# %%
orders = range(1, LONGEST + 1)
fit = {"counted": [], "held out": []}  # each (DRAWS, orders)
xz = []
for (counted, held), model in progress(list(zip(splits, models)), "scoring"):
    fit["counted"].append(model.total_bits(counted) / len(counted.encode()))
    fit["held out"].append(model.total_bits(held) / len(held.encode()))
    xz.append(xz_bits_per_byte(held, given=counted))
fitted, held_bits = np.array(fit["counted"]), np.array(fit["held out"])
for name, values in fit.items():
    counting.print_draws(name, (1, 3, 5, 7, 10), np.array(values)[:, [0, 2, 4, 6, 9]])
best = 1 + held_bits.argmin(axis=1)  # (DRAWS,)
print(f"best order on held-out text, split by split: {best}; xz: {counting.spread(xz)}")
assert np.all(np.diff(fitted[:, 1:]) < 0) and np.all(held_bits[:, -1] > held_bits.min(axis=1))
if SCALE != "smoke":
    assert np.all((best >= 4) & (best <= 6)) and np.all(np.array(xz) < held_bits.min(axis=1))
counting.fit_figure(orders, fitted, held_bits, xz)

# %% [markdown]
r"""
On the text that it has counted, the model gets better with every byte of history, and it would go on until it knows
that text by heart. On held-out text it improves up to order five or six, then gets worse. The gap between the two
curves is **overfitting**: what was learned is true of the counted text and of no other. This is why everything in this
course is measured on text that was not trained on, and why the cleaning in chapter 04 takes so much care that none of
it slips in.

## A model is a compressor, and xz is a rival

A cost of $-\log_2 p$ bits is meant literally. Split the numbers from 0 to 1 among the 256 possible first bytes, each
getting a stretch as wide as its probability. The first byte of the text picks a stretch; split that in the same way
among the second bytes, and so on. In the end the text has a stretch of its own, whose width is the product of all its
probabilities: $p(\text{text})$. Any number in it names the text. Numbers with $k$ binary digits lie $2^{-k}$ apart, so
with $k = \lceil -\log_2 p(\text{text}) \rceil$ digits one of them is in it: the first one from the stretch's lower end
on. ($\lceil\;\rceil$ rounds up. We take one more digit, since the computer rounds the logarithm.) This is **arithmetic
coding**. Whoever has the model can read the text back from those digits; exercise 4 does. The model is the one that we
counted by hand last.
"""


# %%
def exact(history, w):
    """p(w | the last three bytes) as a fraction, so that nothing is rounded."""
    return interpolated(history[-3:], w, floor=Fraction(1, 256))


def encode(data):
    low, width = Fraction(0), Fraction(1)  # the stretch from low to low + width
    for i, w in enumerate(data):
        low += width * sum(exact(data[:i], other) for other in range(w))
        width *= exact(data[:i], w)
    k = ceil(-log2(width)) + 1
    return f"{ceil(low * 2**k):0{k}b}"  # k binary digits of a number in the stretch


for message in (b"Return a list of strings.", b"Zqx! Vwk? 8#Jf~ gNt}x $pQ"):
    cost = sum(-log2(exact(message[:i], w)) for i, w in enumerate(message))
    digits = encode(message)
    print(f"{message.decode()}: {8 * len(message)} bits as a file,", end=" ")
    print(f"−log₂ p = {cost:.2f} bits, coded in {len(digits)}")
    assert cost <= len(digits) <= cost + 2

# %% [markdown]
r"""
The second message pays for the first: what the model holds for unlikely costs more than the 8 bits of a byte in a file.

So a better model is a better compressor, and the other way round: a compressor is a rival. **xz** works differently. It
looks for the longest stretch that it has met before and writes "copy 40 bytes from 3000 bytes back", however long ago
that was. Only what it cannot copy is coded byte by byte, predicted from hardly more than the byte before. We give it
the same text first: what does the held-out text add to the size of the compressed file?

In the last figure xz was ahead of every order. It has two advantages there: help pages share long phrases, and xz goes
on learning while it reads the held-out text, whereas our counts stand still. The second can be taken away: let the
5-gram, too, count each quarter of the held-out text once it has been scored. And the first: score the generated
sentences from above, in which short patterns return in ever new combinations.
"""


# %%
def while_reading(counted, held, order):
    """Bits per byte if each quarter of the held-out text is counted, once it has been scored."""
    step, bits = len(held) // 4 + 1, 0.0
    for start in range(0, len(held), step):
        model = NGramModel.fit(counted + held[:start], order)
        before = held[max(0, start - order + 1) : start]  # history only
        each = model.symbol_bits(before + held[start : start + step])[-1]
        bits += each[len(before.encode()) :].sum()
    return bits / len(held.encode())


def rivals(counted, held):
    still = NGramModel.fit(counted, 5).bits_per_byte(held)
    return still, while_reading(counted, held, 5), xz_bits_per_byte(held, given=counted)


rival = {"help pages": [], "generated sentences": []}
for seed in progress(range(DRAWS), "rivals"):
    sentences = [pair.source for pair in translation.make(seed)["train"]]
    size = len(sentences) // (20 if SCALE == "smoke" else 2)
    rival["help pages"].append(rivals(*splits[seed]))
    rival["generated sentences"].append(
        rivals("\n".join(sentences[:size]), "\n".join(sentences[size : size + size // 8]))
    )
for name, values in rival.items():
    values = np.array(values)  # (DRAWS, 3)
    counting.print_draws(name, ("5-gram", "counting on", "xz"), values, digits=3)
    assert np.all(values[:, 1] < values[:, 0])
    if SCALE != "smoke":
        assert np.all((values[:, 2] < values[:, 1]) == (name == "help pages"))
values = np.array(rival["help pages"])
assert np.all(values[:, 0] - values[:, 1] < 0.5 * (values[:, 0] - values[:, 2]))

# %% [markdown]
r"""
Counting on closes a small part of the gap. What remains is what xz can do and a table of short histories cannot: copy
at length, from any distance, at once. Where that is worth little, in the generated sentences, xz loses to a 5-gram.
Both kinds of knowledge, patterns and copies from far back, are in text, and a network that is to beat both rivals on
the help pages has to have both.

## Let it write

To write, draw the next byte from $p(w \mid h)$, append it, look up the new history, and so on. How does one draw from a
distribution? Put the probabilities end to end on a line of length 1, and throw a dart at the line.
"""


# %%
def draw(p, rng):
    """The place of one draw from the distribution p."""
    return int(np.searchsorted(np.cumsum(p), rng.random() * p.sum(), side="right"))


rng = np.random.default_rng(0)
p = models[0].distribution("re", order=3)
drawn = np.bincount([draw(p, rng) for _ in range(5000)], minlength=len(p)) / 5000
for i in np.argsort(-p)[:4]:
    print(f"{chr(models[0].alphabet[i])!r}: probability {p[i]:.3f}, drawn {drawn[i]:.3f}")
assert np.abs(drawn - p).max() < 0.04

written = {}  # order -> texts by the library's sampler, which does just this
for n in progress((1, 2, 3, 4, 5, 7, 10), "writing"):
    written[n] = [models[i].sample(400, np.random.default_rng(i), order=n) for i in range(DRAWS)]
for n, texts in written.items():
    copied = [counting.copied_share(text, splits[i][0], 15) for i, text in enumerate(texts)]
    print(f"--- order {n}; {100 * np.mean(copied):.0f}% of its 15-character stretches are copied")
    print(texts[0][:180].replace("\n", "↵"))
real = np.mean([counting.copied_share(held[:4000], counted, 15) for counted, held in splits])
print(f"--- of people's own text, held out: {100 * real:.0f}% stand in the counted text")
assert SCALE == "smoke" or np.mean(copied) > 2 * real

# %% [markdown]
r"""
Order 1 knows how often each letter comes, order 2 which may stand together, 3 makes syllables, 5 words. (What order 3
seems to have copied is one long line of hyphens, as tables in the help pages have.) Long orders look best, and partly
for a dull reason: at order 10 far more is copied word for word than the held-out text shares with the counted one. And
no order mends that nothing hangs together beyond a few words: the model cannot know how its sentence began.

## Why counting fails

**There is never enough text.** Which share of the $n$-grams in a held-out text was never seen in the counted one? That
depends on $n$ and on how much was counted. On the left $n$ bytes, on the right $n$ words (text between white space),
with one line for each $n$. You write the count in exercise 2.
"""

# %%
panels = {}  # unit -> the sizes of the counted text, the shares never seen (DRAWS, longest, sizes)
for unit, cut_up, longest in (("bytes", str.encode, 10), ("words", str.split, 5)):
    sizes = [len(cut_up(splits[0][0])) // 4**k for k in (5, 4, 3, 2, 1, 0)]
    shares = [
        counting.never_seen_by_size(cut_up(counted), cut_up(held), longest, sizes)
        for counted, held in progress(splits, unit)
    ]
    panels[unit] = sizes, np.array(shares)
    for n in (3, 5, 10) if unit == "bytes" else (1, 2, 3):
        counting.print_draws(f"{n} {unit}, % new", sizes, 100 * panels[unit][1][:, n - 1], digits=0)
levels = models[0].levels
once = {n: (levels[n - 1].counts == 1).sum() / levels[n - 1].counts.sum() for n in (3, 5, 10)}
print("places of the counted text whose n-gram stands nowhere else in it:", end=" ")
print(", ".join(f"n = {n}: {100 * share:.0f}%" for n, share in once.items()))
for _, shares in panels.values():
    assert np.all(np.diff(shares, axis=2) <= 0) and np.all(np.diff(shares[:, :, -1], axis=1) >= 0)
assert np.all(panels["words"][1][:, 2] > 0.75) and once[10] > 0.3
counting.sparsity_figure(panels)

# %% [markdown]
r"""
(Thin lines are the splits.) The largest text is a thousand times the smallest. Short $n$-grams are soon all known. But
each step of $n$ moves the curve to the right: for the same share of known $n$-grams it takes several times as much
text. Of three words in a row most were never seen even in the largest text, although a reader would call that a *short*
context. More text brings each curve down, slowly: from one point of a curve to the next there is four times as much.
And what *was* seen was often seen just once, as the last line printed says of 10 bytes; that is little to count on.

**Nothing is shared between histories.** Having read "returns a list" a hundred times teaches the model nothing about
what follows "returns a tuple". Each row is filled on its own; that the two words are used alike cannot be said in a
table of counts.

**It is blind beyond $n - 1$ bytes.** Two texts that differ further back get the very same prediction:
"""

# %%
ends = " and returns"  # longer than the history
one, other = (models[0].distribution(start + ends) for start in ("It takes a list", "A cow sings"))
print("largest difference between the two predictions:", np.abs(one - other).max())
assert len(ends) > LONGEST - 1 and np.array_equal(one, other)

# %% [markdown]
r"""
The chapters that follow mend this: vectors instead of table rows, so that words used alike lie close together and share
what is learned; [recurrence](05_recurrent_networks.ipynb) and [attention](06_attention.ipynb), so that a prediction can
depend on what stands far back.

## What pretraining is for

Often the text that matters is little: the manual of one company, a language with few books. But there is much text of
other kinds. **Pretraining** is to learn from much general text first; then the model is adapted to the little one
(**fine-tuning**). What carries over is called **transfer**. It can be measured with nothing but counts. The general
text is the docstrings; the little text is of another kind, a thousand bytes or four, sixteen, ... times as much, and we
score held-out text of that kind:

- **little alone**: count the little text only;
- **general alone**: count the general text only;
- **counted on**: count the general text, then go on counting with the little one;
- **mixed**: $p = \mu\,p_{\text{general}} + (1 - \mu)\,p_{\text{little}}$, with the $\mu$ that is cheapest on the last
  fifth of the little text, which is kept out of $p_{\text{little}}$ while $\mu$ is chosen.

The little text is, on the left, Python's help pages on the language: another kind of text, but English about the same
things. On the right it is the Chinese sentences.
"""

# %%
general = counting.kind_of_text(folder, "docstrings")
general_model = NGramModel.fit(general, 5)
HELD = {"smoke": 3_000, "cpu": 50_000, "gpu": 50_000}[SCALE]
sizes = [1000 * 4**k for k in range({"smoke": 2, "cpu": 5, "gpu": 5}[SCALE])]
ways = ("little alone", "general alone", "counted on", "mixed")


def chances(model, text):
    return 2.0 ** -model.symbol_bits(text)[-1]  # (bytes,)


def choose_mix(little):
    """The weight of the general model that is cheapest on the last fifth of the little text."""
    cut = len(little) * 4 // 5
    p_general = chances(general_model, little[cut:])
    p_little = chances(NGramModel.fit(little[:cut], 5), little[cut:])
    weights = np.linspace(0.01, 0.99, 50)
    costs = [-np.log2(mu * p_general + (1 - mu) * p_little).sum() for mu in weights]
    return weights[np.argmin(costs)]


def adapt(little, held):
    """Bits per byte of the held-out text in each of the four ways."""
    p_general, p_little = (chances(m, held) for m in (general_model, NGramModel.fit(little, 5)))
    p_on = chances(NGramModel.fit(general + "\n\n" + little, 5), held)
    mu = choose_mix(little)
    p_mixed = mu * p_general + (1 - mu) * p_little
    return [-np.log2(p).mean() for p in (p_little, p_general, p_on, p_mixed)]


results = {kind: np.zeros((DRAWS, len(ways), len(sizes))) for kind in counting.OTHER_KINDS}
for seed in progress(range(DRAWS), "adapting"):
    for kind in results:
        text = counting.other_kind(folder, kind, seed)
        held = counting.first_bytes(text, 0, HELD)
        for i, size in enumerate(sizes):
            results[kind][seed, :, i] = adapt(counting.first_bytes(text, HELD, HELD + size), held)
for kind, values in results.items():
    for k, way in enumerate(ways):
        counting.print_draws(f"{kind}: {way}", sizes, values[:, k])
related, unrelated = (
    {way: values[:, k] for k, way in enumerate(ways)} for values in results.values()
)
if SCALE != "smoke":
    for way in ("mixed", "counted on"):
        assert np.all(related[way] < related["little alone"])
    assert np.all(related["mixed"][:, -1] < related["general alone"][:, -1])
    assert np.all(unrelated["mixed"] > unrelated["little alone"] - 0.02)
    assert np.all(unrelated["counted on"][:, 0] > unrelated["little alone"][:, 0])
    alone, mixed = related["little alone"].mean(axis=0), related["mixed"].mean(axis=0)
    same = np.exp(np.interp(-mixed[0], -alone, np.log(sizes)))  # where "little alone" is as good
    print(f"{sizes[0]:,} bytes with the general text are worth {same:,.0f} bytes without it")
del unrelated["general alone"]  # so bad that it would not fit into the picture
counting.transfer_figure(sizes, dict(zip(results, (related, unrelated))))

# %% [markdown]
r"""
On the left, whoever has the general text as well is better off in every draw and at every size, most of all when the
little text is smallest; and with enough of the little text, the adapted model is also better than the general one. The
more the two kinds of text have in common, the more carries over. On the right there is nothing in common ("general
alone" is left out: it would be far above the picture, at far more than the 8 bits of knowing nothing: to be sure of the
wrong thing is costly). The mixture notices, since $\mu$ is chosen on the little text, and does as well as the little
text alone, whose line it covers, and no better. Counting on cannot notice, and is *worse* while the little text is
small, which is called **negative transfer**.

For networks the same holds: chapter [11](11_fine_tuning_a_classifier.ipynb) adapts pretrained ones with few examples
and compares with starting from nothing. What carries over there is more than counts: vectors for words, and where to
look.

## The baselines

This is what networks have to beat: on the corpus of chapter 04, with its own split.
`minillm.workshop.deliverables.baselines` measures it once and keeps it. The last column is for source code of the
standard library in place of its help pages.
"""

# %%
marks = {kind: baselines(SCALE, kind) for kind in ("prose", "code")}
print("bits per byte      prose    code")
for name in marks["prose"]:
    print(f"{name:15s} {marks['prose'][name]:8.3f} {marks['code'][name]:7.3f}")
again = NGramModel.fit(train, order=3).bits_per_byte(val)
assert np.isclose(again, marks["prose"]["3-gram"])
for found in marks.values():
    assert 8 > found["1-gram"] > found["2-gram"] > found["3-gram"] > found["xz"]

# %% [markdown]
r"""
## Summary

- A language model gives $p(w \mid h)$: each possible next symbol's probability after a history. By the chain rule, the
  product over a text is the text's probability; its $-\log_2$ is a number of bits, and an arithmetic coder needs that
  many, and at most two more.
- Of all tables, the shares of the counts make the counted text cheapest.
- Perplexity is $2^{\text{bits per symbol}}$ and depends on the symbols. Bits per byte do not; they compare models on
  one and the same text.
- Smoothing keeps probability for what was never seen. Adding to every count invents too much; interpolation leans on
  the shorter history, by Witten and Bell with the weight $T/(c + T)$, the chance of something new.
- Longer histories fit the counted text ever better and held-out text, beyond order five or six, worse: overfitting.
- Counting fails because long $n$-grams are nearly all new, because rows share nothing, and because of its short sight.
- Pretraining helps as far as the general text has something in common with the one that matters.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are
folded below.
"""

# %% [markdown]
r"""
### Exercise 1: from a loss to bits per byte (easy, core, 5 minutes)

A model with a tokenizer has a mean loss of `loss` nats per token on a `text` that is `n_tokens` tokens long. How many
bits does it need for each byte of the text? (`text` is a string. All later chapters use this.)
"""


# %% tags=["exercise"]
def to_bits_per_byte(loss, n_tokens, text):
    return None


with check():
    answer = to_bits_per_byte(np.log(256), 8, "8 bytes.")
    assert answer is not None, (
        "to_bits_per_byte returns nothing yet. "
        "In words: all the nats, as bits, shared out among all the bytes."
    )
    assert np.ndim(answer) == 0, f"Return one number, not something of shape {np.shape(answer)}."
    cases = [(np.log(256), 8, "8 bytes."), (2.0, 3, "seven bytes and more"), (1.5, 3, "模型 é")]
    for loss, n_tokens, text in cases:
        answer, size = to_bits_per_byte(loss, n_tokens, text), len(text.encode())
        expected = loss * n_tokens / np.log(2) / size
        assert not np.isclose(answer, loss * n_tokens / size), (
            "That is nats per byte: a bit is ln 2 nats."
        )
        upside_down = expected * np.log(2) ** 2
        assert not np.isclose(answer, upside_down), (
            "ln 2 is on the wrong side: there are more bits than nats."
        )
        assert not np.isclose(answer, loss / np.log(2)) or n_tokens == size, (
            "That is bits per token."
        )
        assert not np.isclose(answer, expected * size / len(text)) or size == len(text), (
            f"{text!r} has {len(text)} characters, but more bytes of UTF-8: count those."
        )
        assert np.isclose(answer, expected), (
            f"{n_tokens} tokens of mean loss {loss:.2f}, {size} bytes: {answer:.3f} is wrong."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def to_bits_per_byte(loss, n_tokens, text):
    return loss * n_tokens / np.log(2) / len(text.encode())
```

The library's `minillm.metrics.bits_per_byte` takes the summed loss, `loss * n_tokens`, and the number of bytes.

</details>
"""

# %% [markdown]
r"""
### Exercise 2: never seen (medium, core, 15 minutes)

Which share of the $n$-grams of `held` does not occur in `counted`? Both are `bytes`. Every *place* counts: an $n$-gram
that stands in `held` three times counts three times. (Slices of `bytes` can be kept in a set. Chapter 04 finds copied
text in this way.)
"""


# %% tags=["exercise"]
def never_seen(counted, held, n):
    return None


with check():
    answer = never_seen(b"abcab", b"abcc", 2)
    assert answer is not None, "never_seen returns nothing yet: return a share from 0 to 1."
    assert np.ndim(answer) == 0 and 0 <= answer <= 1, (
        f"A share lies between 0 and 1; you return {answer}."
    )
    assert never_seen(b"abcab", b"abca", 2) == 0, (
        "All pairs of b'abca' stand in b'abcab': the share is 0."
    )
    assert not np.isclose(answer, 2 / 3), "You return the share that *was* seen."
    assert np.isclose(answer, 1 / 3), (
        "b'abcc' has the pairs ab, bc, cc; only the last one is not in b'abcab'."
    )
    assert np.isclose(never_seen(b"abab", b"zzzzab", 2), 4 / 5), (
        "b'zzzzab' has five pairs, of which zz (three times) and za are new: each place counts."
    )
    assert np.isclose(never_seen(b"xyz", b"yzx", 2), 1 / 2), (
        "b'yzx': yz was seen, right at the end of b'xyz'; zx was not."
    )
    assert never_seen(b"abc", b"bc", 2) == 0 and never_seen(b"abc", b"a-c", 3) == 1, (
        "Wrong where `held` is one n-gram long."
    )
    assert np.isclose(never_seen("é".encode(), "è".encode(), 1), 1 / 2), (
        "é and è are two bytes each, of which the first is the same: count bytes, not characters."
    )
    a, b = train.encode()[:5000], val.encode()[:1000]
    for n in (1, 3, 6):
        expected = counting.never_seen_by_size(a, b, n, [len(a)])[-1, 0]
        assert np.isclose(never_seen(a, b, n), expected), f"Wrong on real text for n = {n}."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def never_seen(counted, held, n):
    known = {counted[i : i + n] for i in range(len(counted) - n + 1)}
    places = [held[i : i + n] for i in range(len(held) - n + 1)]
    return sum(gram not in known for gram in places) / len(places)
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: what is new to the new (medium, useful, 20 minutes)

$\lambda = T/(c+T)$ is an estimate of the chance that something *new* comes. But the mix gives $\lambda$ to the shorter
history's $p(w \mid h')$, which spends a part of it on bytes that did follow $h$ before: for what is really new, less
than $\lambda$ is left. Mend it: bytes of the row get $c(hw)/(c(h) + T(h))$ and nothing more; all the others share
$\lambda$ in proportion to $p(w \mid h')$, so that the sum is 1 again. `row` is a Counter as above, `shorter` a list of
256 probabilities; return 256 probabilities. Does it still hurt to look back further? The check tries it.
"""


# %% tags=["exercise"]
def new_to_the_new(row, shorter):
    c, T = row.total(), len(row)
    return None


with check():
    even, row = [1 / 256] * 256, Counter({97: 6, 98: 2})
    answer = new_to_the_new(row, list(even))
    assert answer is not None, (
        "new_to_the_new returns nothing yet: return a list of 256 probabilities."
    )
    assert np.shape(answer) == (256,), (
        f"Return 256 probabilities; yours has the shape {np.shape(answer)}."
    )
    slope = np.arange(1, 257) / np.arange(1, 257).sum()
    for shorter in (even, slope.tolist()):
        answer = np.array(new_to_the_new(row, list(shorter)), dtype=float)
        assert np.isclose(answer[97], 0.6) and np.isclose(answer[98], 0.2), (
            f"Byte 97 came 6 times, c = 8, T = 2: it gets 6/10, not {answer[97]:.4f}."
        )
        new = np.delete(answer, [97, 98])
        assert np.isclose(answer.sum(), 1), (
            f"The sum is {answer.sum():.4f}, not 1: what the others get must add up to λ."
        )
        ratio = new / np.delete(np.array(shorter), [97, 98])
        assert np.allclose(ratio, ratio[0]), (
            "The others share λ in proportion to `shorter`, not evenly."
        )
    text = splits[0][1][: max(300, SCORED // 5)].encode()
    table = {n: count(splits[0][0].encode()[:BY_HAND], n) for n in range(1, 9)}
    cost = np.zeros((2, 8))  # the mix, the mended one; by order
    for i, w in enumerate(text):
        mix = mended = even
        for n in range(1, min(i + 1, 8) + 1):
            row = table[n].get(text[i - (n - 1) : i])
            if row is not None:
                c, T = row.total(), len(row)
                mix = [(row[v] + T * p) / (c + T) for v, p in enumerate(mix)]
                mended = list(new_to_the_new(row, list(mended)))
            cost[:, n - 1] += -log2(mix[w]), -log2(mended[w])
    for n in (3, 5, 8):
        before, after = cost[:, n - 1] / len(text)
        print(f"order {n}: {before:.3f} bits per byte, mended {after:.3f}")
    assert SCALE == "smoke" or cost[1, 7] < cost[0, 7], "It does not help at order 8: look again."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def new_to_the_new(row, shorter):
    c, T = row.total(), len(row)
    left = 1 - sum(shorter[w] for w in row)  # what `shorter` gives to bytes not in the row
    share = T / (c + T) / left
    return [row[w] / (c + T) if w in row else share * p for w, p in enumerate(shorter)]
```

With this the long orders hurt much less: a part of what looked like the price of a long history was a fault of the mix.
Compressors of the PPM family work this way; it is called *exclusion*. (A row in which all 256 bytes stand would divide
by 0; in text there is none.)

</details>
"""

# %% [markdown]
r"""
### Exercise 4: read it back (hard, extra, 30 minutes)

`encode` turned a text into binary digits. Write the way back: `decode(digits, length)` returns the `length` bytes. The
digits are those of a number `x` from 0 to 1. Start with the stretch from 0 to 1; find the byte whose part of the
stretch holds `x` (a part includes its lower end, not its upper one); that is the next byte and its part the next
stretch. `exact(history, w)` gives the width of a part as a share of the stretch.
"""


# %% tags=["exercise"]
def decode(digits, length):
    x = Fraction(int(digits, 2), 2 ** len(digits))
    low, width, data = Fraction(0), Fraction(1), b""
    ...  # length times: find the byte, append it, narrow the stretch
    return data


with check():
    for message in (b"R", b"\x00", b"Re", b"\x00\x00", b"Return", b"a list of strings"):
        answer = decode(encode(message), len(message))
        answer = answer.encode("latin-1") if isinstance(answer, str) else bytes(answer)
        assert answer, "decode returns no bytes yet: `data` is still empty."
        assert len(answer) == len(message), (
            f"{len(message)} bytes were asked for, {len(answer)} came."
        )
        assert answer[0] == message[0], (
            f"The first byte of {message} comes out as {answer[:1]}: in which part does x lie?"
        )
        assert answer == message, (
            f"{message} comes out as {answer}: is the next stretch only the byte's part, "
            "and does the history grow?"
        )
    longer = b"Zqx! Vwk? 8#Jf~"
    answer = decode(encode(longer), len(longer))
    answer = answer.encode("latin-1") if isinstance(answer, str) else bytes(answer)
    assert answer == longer, (
        "Right for short texts, not for a long one: "
        "a float has 53 binary digits, a Fraction all of them."
    )
    kept, rows = rows, {n: {} for n in ORDERS}  # nothing counted: all bytes alike
    try:
        edge = decode(encode(b"\x80"), 1)  # x = 128/256
    finally:
        rows = kept
    edge = edge.encode("latin-1") if isinstance(edge, str) else bytes(edge)
    assert edge == b"\x80", (
        "Wrong where x lies right at the lower end of a part: it belongs to that part."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def decode(digits, length):
    x = Fraction(int(digits, 2), 2 ** len(digits))
    low, width, data = Fraction(0), Fraction(1), b""
    for _ in range(length):
        for w in range(256):
            part = width * exact(data, w)
            if x < low + part:
                break
            low += part
        width = part
        data += bytes([w])
    return data
```

The decoder makes the same predictions as the encoder, from the bytes that it has decoded so far. So anything that
predicts the next symbol from those before it can compress, a GPT as well.

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** A model's perplexity is 20 with a vocabulary of 1000 tokens, another's is 35 with one of 50,000. Which is better?

<details><summary>Answer</summary>

One cannot tell. The second one's tokens will be longer, so each is harder to guess and there are fewer of them. Compare
bits per byte on the same text.

</details>

**2.** Why is the weight $\lambda$ of the shorter history small after “retur” and large after a history that is followed
by many different bytes?

<details><summary>Answer</summary>

$\lambda = T/(c + T)$ is the share of "something new" among the events at that history. After “retur” the same byte came
every time: $T = 1$ and $c$ is large. Where many different bytes came, the next one may well be new again.

</details>

**3.** On the text that it has counted, a 10-gram model is far better than a 5-gram. Is it the better model?

<details><summary>Answer</summary>

That says only that it remembers. On held-out text it is worse, as the experiment showed: what counts is text that was
not counted.

</details>

**4.** Could one not just count a thousand times as much text, and use $n = 10$?

<details><summary>Answer</summary>

It would help: the curves of what was never seen go down with more text, and for a fixed $n$ they reach the bottom. But
each step of $n$ asks for several times as much, and the history is then nine bytes, hardly two words. A table also
shares nothing between similar histories, however large it is.

</details>

**5.** When does pretraining not help?

<details><summary>Answer</summary>

When the general text has nothing in common with the one that matters (Chinese after English, in bytes), or when there
is so much of the latter that nothing is left to bring. It can even hurt, if the general text outweighs the little one.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now say what a language model is, build one by counting, score any model in bits per byte, and say how far
counting gets and why no further.

**What you take along**: `baselines(SCALE, kind)` of `minillm.workshop.deliverables`: the bits per byte that the
$n$-grams and xz need on the corpus. Chapter [05](05_recurrent_networks.ipynb) counts again, as much text as its
networks read, and the model of chapter [08](08_pretraining.ipynb) meets the column for code.

Next: [02 · Tensors and autograd](02_autograd.ipynb), the machine that lets a model learn what cannot be counted.
"""
