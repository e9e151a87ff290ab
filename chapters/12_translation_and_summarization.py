# %% [markdown]
r"""
# 12 · Translation and summarization

A classifier answers with one of a few labels. Here the answer is a *text*: a sentence in another language, or a report
in one line. It has its own length and its own order, and every word of it has to come from somewhere in the source. The
model for that is the oldest Transformer of all: an **encoder** that reads, a **decoder** that writes, and between them
**cross-attention**, the part for which attention was invented.

**Afterwards you can** build an encoder–decoder from blocks that you know; say what teacher forcing is and what it
hides; tell a search's fault from a model's; compute BLEU, chrF and ROUGE by hand and say what they do not see; and
explain why a small model cannot write a name that it has never met.

**You need** [06 · Attention](06_attention.ipynb), [07 · The Transformer](07_the_transformer.ipynb), beam search from
[09 · Generating text](09_generating_text.ipynb), masks from [10 · BERT](10_bert.ipynb).
"""

# %%
from collections import Counter

import numpy as np
from minillm import metrics, ops
from minillm.data.tasks import summarization, translation
from minillm.interpret import look_inside
from minillm.numpy_ops.attention import masked_softmax
from minillm.tensor import Tensor, no_grad
from minillm.workshop import (
    as_plain,
    check,
    progress,
    read_scale,
    show_versions,
    type_into_debugger,
)
from minillm.workshop import translating as tr
from minillm.workshop import translation_pictures as pictures
from minillm.workshop.deliverables import summarizers, translators

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
SEEDS = range(tr.SEEDS[SCALE])  # random starts of each model
MOST = {"smoke": 8, "cpu": 100, "gpu": 500}[SCALE]  # sentences for the slower measurements
show_versions(SCALE)


def mean_sd(values, digits=0):
    """Of one value for each start: mean ± sample standard deviation."""
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"


# %% [markdown]
r"""
## Why: the words are known, the sentence is not

The sentences come from a grammar of our own (`minillm.data.tasks.translation`), so that we know what is right. To
learn in seconds we take only those that begin with "There". To translate one into Chinese takes four rules. English
counts in thousands, Chinese in ten thousands (万), with 零 over a gap. The noun decides a **measure word** (本 for
books, 只 for cats). Time and place move to the front. And "at the market" becomes 市场里, "in Lima" just 利马.

Two ways to translate without a model: a **dictionary** that puts a word for each word, and the **nearest neighbour**,
the translation of the most similar training sentence.
"""

# %%
splits = tr.sentences(SCALE)
baselines = translation.baselines(splits)
for pair, by_word, near in zip(splits["test"][:3], *(rows["test"] for rows in baselines.values())):
    print(f"{pair.source}\n    right: {pair.target}\n    word by word: {by_word}\n    nearest: {near}")
print({name: len(pairs) for name, pairs in splits.items()}, "sentences")

# %% [markdown]
r"""
The dictionary has nearly all the words and no sentence; the neighbour is a fine sentence about something else. What is
needed is something that writes a sentence *and* looks up in the source, at each step, what to write next.

Of the splits, **test** has new sentences made of pairs that training has met. **compositional** has pairs that it has
*not*: some measure words never stood with some times, or with numbers of some length, though each of them is in
training many times. **longer** has numbers of six or seven words where training has at most five.

## The idea: two stacks and a bridge

The encoder is chapter 10's: every source position sees all others. The decoder is chapter 07's: every target position
sees those to its left. In the middle of each decoder block is one new thing: attention whose **queries come from the
target and whose keys and values come from the source** (Bahdanau et al. 2014, arXiv 1409.0473; in this form Vaswani et
al. 2017, arXiv 1706.03762, section 3.2.3). $S$ is the length of the source, $T$ that of the target, $D$ the features,
$V$ the vocabulary.
"""

# %%
pictures.two_stacks()

# %% [markdown]
r"""
## Cross-attention: the formula and its backward

With the decoder's features $X\,(T, D)$ and the encoder's $M\,(S, D)$, for one head of $d$ features:

$$Q = X W_Q^\top\ (T, d), \quad K = M W_K^\top\ (S, d), \quad U = M W_V^\top\ (S, d), \qquad
\underset{(T, S)}{P} = \operatorname{softmax}\!\Big(\frac{Q K^\top}{\sqrt d}\Big), \quad
\underset{(T, d)}{O} = P\,U.$$

($U$ are the values, since $V$ is taken; the weights $W$ are $(d, D)$.) Only one thing has changed since chapter 06: $P$
is not square. Row $t$ says where in the *source* one looks to write the target's next token. There is no causal mask,
since the whole source is there before the first word is written; a padding mask there is.

**Backward.** Write $dO$ for $dL/dO\ (T, d)$, and so on, as in chapter 06. Its steps give $dU = P^\top dO$,
$dP = dO\,U^\top$, $dZ = P \circ (dP - \operatorname{rowsum}(P \circ dP))$ for the scores $Z$, and $dK = dZ^\top Q /
\sqrt d$. New is where they go. $M$ was used twice, so its gradient is a sum:

$$\underset{(S, D)}{dM} = dK\,W_K + dU\,W_V.$$

**This is all that the encoder's blocks ever hear.** They have no loss of their own; they learn to describe a word by
what the decoder needed from it, at all the $T$ places where it looked ($P^\top$ and $dZ^\top$ sum over them).
"""

# %%
S, T, D, d = 5, 3, 8, 4
rng = np.random.default_rng(12)
X, M = rng.standard_normal((T, D)), rng.standard_normal((S, D))
W_Q, W_K, W_V = rng.standard_normal((3, d, D))
dO = rng.standard_normal((T, d))

Q, K, U = X @ W_Q.T, M @ W_K.T, M @ W_V.T  # (T, d), (S, d), (S, d)
Z = Q @ K.T / np.sqrt(d)  # (T, S)
P = np.exp(Z - Z.max(axis=1, keepdims=True))
P /= P.sum(axis=1, keepdims=True)  # (T, S)
O = P @ U  # (T, d)
dU, dP = P.T @ dO, dO @ U.T  # (S, d), (T, S)
dZ = P * (dP - (P * dP).sum(axis=1, keepdims=True))  # (T, S)
dK = dZ.T @ Q / np.sqrt(d)  # (S, d)
dM = dK @ W_K + dU @ W_V  # (S, D)

memory = Tensor(M, requires_grad=True)
q, k, u = (
    ops.linear(x, Tensor(W)).reshape(1, 1, -1, d)  # one text, one head
    for x, W in ((Tensor(X), W_Q), (memory, W_K), (memory, W_V))
)
out = ops.attention(q, k, u)  # (1, 1, T, d)
(out * dO).sum().backward()
print(f"forward: largest gap to the library {np.abs(out.data[0, 0] - O).max():.0e},", end=" ")
print(f"gradient of the memory: {np.abs(memory.grad - dM).max():.0e}")
assert np.allclose(out.data[0, 0], O, atol=1e-12) and np.allclose(memory.grad, dM, atol=1e-12)

# %% [markdown]
r"""
## The model from known blocks

`minillm.models.encoder_decoder.EncoderDecoder` is built of those: an encoder block is self-attention and a feed-forward
network, a decoder block has cross-attention in between. Both use the same class, `MultiHeadAttention`, once with its
own keys and values and once with those of the memory. We count the weights, and test what each target position can
*see*, as in chapter 10: change one token and look where the output changes. The last source position is padding.
"""

# %%
tokenizer = tr.new_tokenizer(splits["train"], 1000)
untrained, objective = tr.new_model(tokenizer, 48, seed=9)
D = untrained.config.d_model


def matrices(block):
    """How many weights stand in the matrices of a block."""
    return sum(p.data.size for p in block.parameters() if p.data.ndim == 2)


print(f"D = {D}: encoder block {matrices(untrained.encoder[0]):,} weights in matrices, 12 D²;", end=" ")
print(f"decoder block {matrices(untrained.decoder[0]):,}, 16 D²", end="; ")
print(f"in all, with the table and the rest: {sum(p.data.size for p in untrained.parameters()):,}")
assert matrices(untrained.encoder[0]) == 12 * D**2 and matrices(untrained.decoder[0]) == 16 * D**2

source, target = np.array([[11, 12, 13, untrained.config.pad_id]]), np.array([[21, 22, 23]])
with no_grad():
    before = untrained.hidden(source, target).data[0]  # (T, D)
    for name, ids in (("source", source), ("target", target)):
        print(f"what a change of each {name} token changes, a row for each target position:")
        seen = np.zeros((3, ids.shape[1]), dtype=int)
        for s in range(ids.shape[1]):
            if ids[0, s] == untrained.config.pad_id:
                continue  # another token there would be no padding
            other = ids.copy()
            other[0, s] += 1
            pair = (other, target) if name == "source" else (source, other)
            seen[:, s] = np.any(untrained.hidden(*pair).data[0] != before, axis=1)
        print(seen)
        assert np.array_equal(seen, [[1, 1, 1, 0]] * 3 if name == "source" else np.tri(3))
shorter = untrained.hidden(source[:, :3], target).data[0]
assert np.allclose(shorter, before, atol=1e-5)  # without its padding the source says the same

# %% [markdown]
r"""
The whole source, always; the target only to the left. And a text says the same with and without its padding.

## Teacher forcing

A translation $y_1 \dots y_T$ of the source $x$, the last token being `</s>`, the end, has the probability

$$p(y \mid x) = \prod_{t=1}^{T} p(y_t \mid y_1 \dots y_{t-1},\, x), \qquad
L = -\frac1T \sum_{t=1}^{T} \ln p(y_t \mid y_1 \dots y_{t-1},\, x),$$

by the rule of chapter 01, with $x$ as a condition everywhere. In training, the $y$ on the right of the bar are the
**true** ones: the decoder is asked for the next token of a beginning that a teacher wrote. So all $T$ questions of a
sentence are answered in *one* run, as in a GPT: the decoder reads the target shifted right by one, with `<s>` in front.
"""

# %%
pairs = splits["train"][:2]
source, ids, targets = objective.collate([objective.encode(pair) for pair in pairs])


def words(row):
    """The tokens of a row of ids; · where there is none to be predicted."""
    shown = ("·" if i < 0 else tokenizer.token_bytes(int(i)).decode("utf-8", "replace") for i in row)
    return "|".join(shown)


for name, rows in (("source", source), ("ids", ids), ("targets", targets)):
    print(f"{name:8s}{rows.shape}", *(words(row) for row in rows), sep="\n    ")

with no_grad():
    log_p = untrained(source, ids).data.astype(float)  # logits (B, T, V)
log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
asked = targets >= 0  # (B, T)
by_hand = -log_p[asked][np.arange(asked.sum()), targets[asked]].mean()
library = untrained(source, ids, targets=targets).item()
print(f"loss by hand {by_hand:.5f}, library {library:.5f}; by guessing among all {np.log(log_p.shape[-1]):.2f}")
assert np.isclose(by_hand, library, rtol=1e-5)

# %% [markdown]
r"""
> **Step into it.** Put a breakpoint on the last line of the next cell and step into it:
> `minillm.models.encoder_decoder.EncoderDecoder.forward`, then `minillm.models.encoder_decoder.EncoderDecoder.encode`
> (once for the source), `minillm.models.encoder_decoder.DecoderBlock.forward`, which calls attention twice, the second
> time with `kv` from `minillm.models.attention.MultiHeadAttention.keys_values`, then `minillm.ops.attention`.
"""

# %%
source, ids = np.array([[11, 12, 13, untrained.config.pad_id]]), np.array([[21, 22]])
logits = untrained(source, ids)  # a breakpoint here
assert logits.shape == (1, 2, untrained.config.vocab_size)

# %% [markdown]
r"""
The same without an editor. Each line after `(Pdb)` is a command. The softmax of attention is called three times: for
the encoder, for the decoder's own self-attention, and for the cross-attention, whose first head is printed.
"""

# %%
commands = ["tbreak masked_softmax", "continue", "return"] * 3
commands += ["print(p.shape)", "print(p[0, 0, 0].round(2))"]
namespace = {"untrained": untrained, "s": source, "ids": ids, "masked_softmax": masked_softmax}
shown = type_into_debugger("untrained.hidden(s, ids)", commands, namespace)
print(shown[shown.rindex("(Pdb) tbreak") :])
assert "2, 4)" in shown

# %% [markdown]
r"""
Two rows for the target's positions, four columns for the source's; the last one, the padding, gets nothing.
"""

# %% [markdown]
r"""
## Training

One encoder block, one decoder block, 64 features: chapter 08's loop on batches of 16 pairs, from several starts, two
at a time. (The models are kept in `made/`; the second time this cell only reads them.) Along the way each model
translates a hundred sentences of each kind by itself, always taking the likeliest token. The batches are made by
`minillm.finetune.objectives.Write`, the translations by `minillm.finetune.predict.predict`. A translation counts if
it is **exactly** right.
"""

# %%
folder = translators(SCALE)
models, halves, notes = [], [], []
for seed in SEEDS:
    model, objective, note = tr.load_writer(folder / f"{seed}")
    halves.append(tr.load_writer(folder / f"half-{seed}")[0])
    models.append(model)
    notes.append(note)
tokenizer = objective.tokenizer
pictures.curves(
    notes,
    {"test": "test: new sentences", "compositional": "new combinations", "longer": "longer numbers"},
    "translated exactly (%)",
)

# %% [markdown]
r"""
In a few hundred steps the model goes from nothing to nearly all. What it does with combinations that it never saw, and
with longer numbers, we come to below. First: how does it know where to look?

## A picture of the alignment

Row $t$ of $P$ says where the decoder looked when it wrote token $t$; `minillm.interpret.look_inside` keeps it. Here is
the mean of the four heads.
"""


# %%
def alignment(model, pair):
    """The cross-attention of the last block for a pair: (heads, T, S), and the tokens of both sides."""
    source, ids, targets = objective.collate([objective.encode(pair)])
    weights = look_inside(model, source, ids).cross[-1, 0]
    sides = ([tokenizer.token_bytes(int(i)).decode("utf-8", "replace") for i in r[0]] for r in (source, targets))
    return weights, *sides


chosen = max(splits["test"][:60], key=lambda pair: ("half" in pair.source) + len(pair.target) / 100)
weights, source_words, target_words = alignment(models[0], chosen)
pictures.alignment(weights.mean(axis=0), source_words, target_words, chosen.source)

# %% [markdown]
r"""
Read it row by row: for the first characters it looks at the *end* of the source, where the time stands; then at the
place; then it goes through the number; and for the measure word it looks ahead at the noun. Nobody told it so. It found
out that this is where the answers are. (For some characters, such as the second of a word, there is nothing left to
look up, and attention goes anywhere.)

One picture proves little. We know from the grammar which words belong together, so it can be **measured** over many
sentences and all starts: on the left, how much of the attention goes to each part of the source, for each part of the
translation; on the right, the answer to a different question: by how much does $\ln p$ of the right token fall if that
part of the source is **hidden** from the model (masked like padding)?
"""

# %%
looks, needs = tr.looks_and_needs(models, objective, splits["test"][: MOST // 2])
blind, _ = tr.looks_and_needs([untrained], objective, splits["test"][: MOST // 4])
own = np.array([0, 1, 2, 3, 3])  # the part of the source that belongs to each row; to a measure word, the noun
at_own, blind_own = (100 * table[np.arange(5), own].mean() for table in (looks, blind))
print(f"attention to the part that belongs to it: {at_own:.0f}%; of an untrained model: {blind_own:.0f}%")
if SCALE != "smoke":
    assert at_own > 1.8 * blind_own and np.all(needs.argmax(axis=1) == own)
    elsewhere = needs[np.arange(4) != own[:, None]]
    assert elsewhere.max() < 0.5 and needs[np.arange(5), own].min() > 0.7
    assert (looks.argmax(axis=1) == own).sum() >= 4
pictures.looks_and_needs(looks, needs, [*tr.PARTS, "measure word"], tr.PARTS)

# %% [markdown]
r"""
Both are diagonal, with the measure word on the noun: the model looks where it should, and needs what it looks at. But
they are not the same. Attention is spread: a good part of it goes where it makes no difference (other words, the full
stop), while hiding is clear-cut: what does not belong to a part is not needed for it at all. **Where a model looks is a
hint; what it needs is an experiment.** Chapter [18](18_looking_inside.ipynb), Looking inside, takes that up.

## What has it learned? The compositional split

Every *part* of a sentence in "compositional" was in training; only some pairs of parts never stood together. A model
that has learned the four rules does not care. One that has stored sentences must fail. "longer" asks for more: numbers
of more words than it ever saw.
"""

# %%
tests = ("test", "compositional", "longer")
table = {
    name: {split: [metrics.exact_match(rows[split], [p.target for p in splits[split]]).mean()] for split in tests}
    for name, rows in baselines.items()
}
table["the model"] = {split: [tr.exact(model, objective, splits[split]) for model in models] for split in tests}
print("exactly right (%)".ljust(20), *(split.rjust(16) for split in tests))
for name, row in table.items():
    print(name.ljust(20), *(mean_sd(100 * np.array(row[split]), 1).rjust(16) for split in tests))
if SCALE != "smoke":
    for split in tests[:2]:
        without = [table[name][split][0] for name in baselines]
        assert min(table["the model"][split]) > 0.75 > 0.2 > max(without)
    assert SCALE == "gpu" or max(table["the model"]["longer"]) < min(table["the model"]["compositional"])
for pair in splits["longer"][:40]:
    answer = tr.answers(models[0], objective, [pair])[0]
    if answer != pair.target:
        print(f"{pair.source}\n    right: {pair.target}\n    model: {answer}")
        break

# %% [markdown]
r"""
Said plainly: new **combinations** of known parts are nearly as easy for it as new sentences of known combinations,
and storing sentences (the neighbour) would have given nothing. That is more than stored examples, in a small world
that was made of parts. New **lengths** are another thing: there it fails on most, and how often depends much on the
start. The example shows how: it starts well and then leaves something out, or says something twice. It has learned
where to look in numbers of up to five words.

The whole task of the library, with people and verbs, takes a larger model and a few minutes, and then even most longer
numbers come right. From `tests/bench/RESULTS.md`, `minillm ablate translate --vary nothing --seeds 3` (1.06 million
weights, 1,500 steps):

```
                       runs           test  compositional         longer
  the run                 3  1.000 ± 0.000  1.000 ± 0.000  0.970 ± 0.014
  (word by word)             0.020 ± 0.000  0.014 ± 0.000  0.000 ± 0.000
  (nearest neighbour)        0.000 ± 0.000  0.000 ± 0.000  0.000 ± 0.000
```

## The gap of teacher forcing

In training the decoder always read a true beginning; when it writes, it reads its own. It has never seen a beginning
with a mistake, and nobody has shown it how to go on from there: **exposure bias** (Ranzato et al. 2015, arXiv
1511.06732). How much does that cost? We compare what it says when fed the truth and when fed its own output, for the
models at the end and halfway through training, who make more mistakes. A token is right if it stands in the right
place.
"""

# %%
print("right tokens (%)".ljust(22) + "fed the truth".rjust(16) + "fed its own".rjust(16), end="")
print("whole sentences".rjust(18) + "aᵀ".rjust(10))
gap = {}
for stage, group in (("halfway", halves), ("at the end", models)):
    for split in ("test", "longer"):
        scores = [tr.token_scores(model, objective, splits[split][:MOST]) for model in group]
        truth, fed_own = (100 * np.array([s[name] for s in scores]) for name in ("truth", "own"))
        whole = np.array([100 * s["whole own"].mean() for s in scores])
        if_alone = 100 * np.array([s["truth"] ** s["length"] for s in scores])
        cells = mean_sd(truth).rjust(16) + mean_sd(fed_own).rjust(16) + mean_sd(whole).rjust(18)
        print(f"{stage}, {split}".ljust(22) + cells + f"{if_alone.mean():.0f}".rjust(10))
        gap[stage, split] = truth.mean() - fed_own.mean()
        for s in scores:
            assert np.array_equal(s["whole truth"], s["whole own"])
if SCALE == "cpu":
    assert gap["halfway", "test"] > 4 and gap["halfway", "longer"] > 15
    assert gap["at the end", "longer"] > 8 > 3 > gap["at the end", "test"]

# %% [markdown]
r"""
Three things to see.

- The gap is there, and wide where the model is weak. Fed the truth, 9 of 10 tokens can be right while its own output
  is mostly wrong: **the loss of training, and accuracy computed along the truth, say little about what comes out.**
- Whole sentences multiply it. If each of $T$ tokens were right with the same chance $a$, independent of the others,
  all would be with $a^T$, the last column, and so it nearly is: a small share of wrong tokens is a large share of
  wrong sentences.
- The share of **whole** sentences is *the same* whether the truth is fed or the own output; the cell asserts it for
  each sentence. It must be: up to the first mistake, what the model has written **is** the truth. So teacher forcing
  cannot cause the first mistake. Exposure concerns only what happens *after* it.

So what does happen after it? We make one mistake for the model: at one place of each sentence the decoder is shown a
wrong token, and then the truth again; we measure by how much the loss at the next places rises. Two kinds: of all
wrong tokens the one that the model itself finds likeliest; and only of digits, another **digit**, after which the
rest of the sentence stays right.
"""

# %%
REACH = 5
rises = {}
for split in ("test", "longer"):
    rises[split] = {}
    for name, digits_only in (("likeliest wrong token", False), ("another digit", True)):
        runs = [tr.after_a_mistake(m, objective, splits[split], REACH, digits_only) for m in models]
        rises[split][name] = np.array([fooled - fine for fooled, fine in runs])  # (starts, REACH)
        mean = rises[split][name].mean(axis=0)
        print(f"{split}, {name}: the loss rises by", ", ".join(f"{value:.2f}" for value in mean))
if SCALE == "cpu":
    for wrong, digit in (rows.values() for rows in rises.values()):
        assert np.all(wrong[:, :2] > 0.3) and wrong[:, 0].min() > 3 and np.abs(digit).max() < 0.3
        assert wrong[:, 3:].mean() < wrong[:, 0].mean() / 5
pictures.after_mistake(rises)

# %% [markdown]
r"""
A wrong **digit** does it no harm at all: the decoder does not go by what it wrote but looks at the source, and goes on
as if nothing had happened. The **likeliest wrong token** is another matter. It is mostly one that belongs *elsewhere*,
the next character, or one left out; now the model goes on from there, and the true next token is a great surprise. That
is not confusion: after a skipped character, going on behind it is quite sensible. Then, with the truth before its eyes
again, it recovers within about three places; in longer sentences than it knows, more slowly.

So in this task, mistakes do not grow like a snowball; they shift the place. What was said about exposure bias with
some alarm has been found mild elsewhere, too (He et al. 2019, arXiv 1905.10617). One remedy mixes the model's own
tokens into the beginnings that it trains on (scheduled sampling, Bengio et al. 2015, arXiv 1506.03099). The one that
helps most is dull: a better model, which makes fewer first mistakes.

## Beam search: whose fault is it?

Greedy decoding can miss the likeliest translation. Here, one answer is right, the case for which chapter 09 recommends
a search. For each wrong answer we can tell *whose fault* it is. Let $\hat y$ be what was found and $y$ the right one.

- $\ln p(\hat y) < \ln p(y)$: the right one was likelier, the **search** missed it. More beams may help.
- $\ln p(\hat y) \ge \ln p(y)$: the **model** prefers the wrong one. No search helps; a perfect one would hurt.

`minillm.beam.beam_search` searches with `model.given(source)`: a model that has its source is a model of the target
alone. `length_penalty=0` compares by the sum of $\ln p$, as here.
"""

# %%
shares = {}
for title, group, split in (
    ("halfway, test", halves, "test"),
    ("at the end, longer", models, "longer"),
):
    shares[title] = {
        n: np.array([tr.search(model, objective, splits[split][:MOST], n) for model in group])
        for n in progress((1, 2, 4), title)
    }
    for n, values in shares[title].items():
        right, missed, preferred = (mean_sd(column, 1) for column in values.T)
        print(f"{title}, {n} beams: right {right}%, search missed it {missed}%, model prefers another {preferred}%")
    if SCALE == "cpu":
        greedy, most = shares[title][1], shares[title][4]
        assert most[:, 1].mean() <= greedy[:, 1].mean() and greedy[:, 1].mean() < greedy[:, 2].mean()
        assert abs(most[:, 0].mean() - greedy[:, 0].mean()) < 8
pictures.search_bars(shares)

# %% [markdown]
r"""
The search does its work: with a few beams hardly anything likelier is missed. And it hardly matters: nearly all
mistakes are the model's own, and on longer numbers a better search finds *wrong* translations that are likelier
still. That is what one finds in large systems, too: with many beams, translation gets worse (Koehn and Knowles 2017,
arXiv 1706.03872, section 3.6), and the likeliest translation of all is often the empty one (Stahlberg and Byrne 2019,
arXiv 1908.10090). The length penalty of chapter 09 is a patch for that.

## BLEU, chrF, ROUGE: by hand

"Exactly right" is too strict for real translations: there are many good ones. So one counts what a translation
**shares** with a reference. We take one sentence with two mistakes: a 零 is missing, and the measure word is wrong.

**BLEU** (Papineni et al. 2002). Let $p_n$ be the share of the hypothesis' $n$-grams that stand in the reference, each
counted at most as often as there ("clipped", or 的的的的 would be perfect). With $h$ and $r$ the two lengths:

$$\text{BLEU} = 100 \cdot \underbrace{e^{\min(0,\, 1 - r/h)}}_{\text{brevity}} \cdot\, (p_1\, p_2\, p_3\, p_4)^{1/4}.$$

There is no recall; the brevity factor stands in for it, or a single safe word would win. Chinese has no spaces, so here
each character is a token.
"""

# %%
reference = "星期日车站里有三万五千零七十七本词典。"
hypothesis = "星期日车站里有三万五千七十七个词典。"


def grams(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


h, r = len(hypothesis), len(reference)
shared, total = [], []
for n in range(1, 5):
    ours, theirs = grams(hypothesis, n), grams(reference, n)
    shared.append((ours & theirs).total())  # the smaller of both counts: clipped
    total.append(ours.total())
    lost = ["".join(gram) for gram in ours - theirs]
    print(f"{n}-grams: {shared[-1]} of {total[-1]} are in the reference; not: {' '.join(lost)}")
brevity = np.exp(min(0, 1 - r / h))
bleu = 100 * brevity * np.prod(np.divide(shared, total)) ** (1 / 4)
library = metrics.bleu([hypothesis], [reference], tokenize="zh")
print(f"brevity exp(1 − {r}/{h}) = {brevity:.3f}; BLEU {bleu:.4f}, library {library.score:.4f}")
assert np.isclose(bleu, library.score)

# %% [markdown]
r"""
**chrF** (Popović 2015) counts $n$-grams of *characters* up to 6, and both ways: precision $P$ (of ours, how many are
right) and recall $R$ (of theirs, how many we have), each a mean over $n$; then the $F_\beta$ of the two with $\beta =
2$, which lets recall weigh more. (With $\beta = 1$ it is the harmonic mean.)

$$\text{chrF} = 100 \cdot \frac{(1 + \beta^2)\,P R}{\beta^2 P + R}.$$

**ROUGE** (Lin 2004), for summaries: ROUGE-$n$ is the $F_1$ of shared word $n$-grams. **ROUGE-L** is that of the longest
common *subsequence*, words in the same order with anything in between. Its length is found by a table $L\,(m+1, n+1)$
for words $a_1 \dots a_m$, $b_1 \dots b_n$, with zeros in row and column 0:

$$L_{ij} = \begin{cases} L_{i-1,\,j-1} + 1 & a_i = b_j \\ \max(L_{i-1,\,j},\, L_{i,\,j-1}) & \text{else.} \end{cases}$$

For ROUGE the sentence is a summary with two *facts* wrong.
"""


# %%
def longest_common(a, b):
    L = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, j in np.ndindex(len(a), len(b)):
        L[i + 1, j + 1] = L[i, j] + 1 if a[i] == b[j] else max(L[i, j + 1], L[i + 1, j])
    return L[-1, -1]


def f_score(p, r, beta):
    return (1 + beta**2) * p * r / (beta**2 * p + r)


both = [(grams(hypothesis, n), grams(reference, n)) for n in range(1, 7)]
precision = np.mean([(a & b).total() / a.total() for a, b in both])
recall = np.mean([(a & b).total() / b.total() for a, b in both])
chrf = 100 * f_score(precision, recall, beta=2)
print(f"precision {precision:.3f}, recall {recall:.3f}, chrF {chrf:.4f},", end=" ")
print(f"library {metrics.chrf([hypothesis], [reference]):.4f}")
assert np.isclose(chrf, metrics.chrf([hypothesis], [reference]))

summary = "Mei Tarokeni won the 42 km race in Kolemar on Friday."
claimed = "Mei Tarokeni won the 24 km race in Bazoport on Friday."
a, b = (text.lower().rstrip(".").split() for text in (claimed, summary))
library = metrics.rouge([claimed], [summary])
for name, hits, ours, theirs in (
    ("rouge1", (grams(a, 1) & grams(b, 1)).total(), len(a), len(b)),
    ("rouge2", (grams(a, 2) & grams(b, 2)).total(), len(a) - 1, len(b) - 1),
    ("rougeL", longest_common(a, b), len(a), len(b)),
):
    f1 = f_score(hits / ours, hits / theirs, beta=1)
    print(f"{name}: {hits} in common, F1 {f1:.4f}, library {library[name][0, 2]:.4f}")
    assert np.isclose(f1, library[name][0, 2])

# %% [markdown]
r"""
Equal to the library's, which agrees with sacreBLEU and rouge-score in its own tests. ROUGE-1 finds nine of eleven words
right, and a reader learns a wrong place and a wrong distance.

**What do these scores see?** We change each right translation of the test split in one way, so that exact match is 0,
and score the results. Two changes keep the meaning (\*): naming the place before the time, and writing the number in
figures. The others do not.
"""

# %%
some = splits["test"]
ways = {name: [tr.changed(pair)[name] for pair in some] for name in tr.changed(some[0])}
ways |= {name: rows["test"] for name, rows in baselines.items()}
right = [pair.target for pair in some]
scores = {}
for name, texts in ways.items():
    scores[name] = {
        "BLEU": metrics.bleu(texts, right, tokenize="zh").score,
        "chrF": metrics.chrf(texts, right),
    }
    print(name.ljust(22), *(f"{metric} {value:5.1f}" for metric, value in scores[name].items()))
same = ["place before time", "number in figures"]
for metric in ("BLEU", "chrF"):
    assert scores["another digit"][metric] > max(scores[name][metric] for name in same)
    assert scores["nearest neighbour"][metric] < scores["another digit"][metric]
pictures.score_bars(scores, same)

# %% [markdown]
r"""
The two translations that a reader would accept score *below* the one that has the amount wrong. $n$-grams weigh all
characters alike, and one digit is one character. Such scores are good for telling a good system from a hopeless one
(look at the last two rows) and for following one system over time. They do not say what is true. If something
particular must be right, test that: as exact match does for numbers here, and fact accuracy for summaries below. And
never compare BLEU of different tokenizations: the library returns a **signature** with each score for that reason
(Post 2018, arXiv 1804.08771).

## Summarization

The same model, another task: a report of four to seven sentences becomes one. The reports are made
(`minillm.data.tasks.summarization`): who did what, where, when and how many, told in any order, among sentences that do
not matter and sentences about an **earlier** event with another person, town, day and number. Ours are about few people
and towns. Two baselines: the **lead**, the report's first sentence, and the **oracle**, the sentence that shares most
words with the true summary, which one would have to know for that: the best that *picking a sentence* can do.
"""

# %%
reports = tr.reports(SCALE)
picked = summarization.baselines(reports)
pair = reports["seen"][0]
print(f"{pair.source}\n    summary: {pair.target}")
for name, rows in picked.items():
    print(f"    {name}: {rows['seen'][0]}")
print("facts:", summarization.facts(pair))

folder = summarizers(SCALE)
writers, writer_notes = [], []
for seed in SEEDS:
    writer, report_objective, note = tr.load_writer(folder / f"{seed}")
    writers.append(writer)
    writer_notes.append(note)
pictures.curves(
    writer_notes,
    {"seen": "new reports,\nknown names", "test": "unknown names"},
    "summaries exactly right (%)",
)

# %% [markdown]
r"""
"seen" are new reports about names that were in training; "test" about others. The curves already show that something is
odd. What do the scores say, and which **facts** are told?
"""

# %%
FACTS = ("who", "where", "when", "how many")
said, rouge_l, whole = {}, {}, {}
for split in ("seen", "test"):
    pairs = reports[split]
    written = {name: [rows[split]] for name, rows in picked.items()}
    written["the model"] = [tr.answers(writer, report_objective, pairs) for writer in writers]
    true = [pair.target for pair in pairs]
    said[split] = {n: np.array([tr.facts_said(texts, pairs) for texts in runs]) for n, runs in written.items()}
    for name, runs in written.items():
        rouge_l[split, name] = [metrics.rouge(texts, true)["rougeL"][:, 2].mean() for texts in runs]
        whole[split, name] = [metrics.exact_match(texts, true).mean() for texts in runs]
        facts = said[split][name].mean(axis=1)
        by_library = [summarization.fact_accuracy(text, p) for text, p in zip(runs[0], pairs)]
        assert np.isclose(facts[0], np.mean(by_library))
        print(f"{split}, {name}:".ljust(24) + f"ROUGE-L {mean_sd(rouge_l[split, name], 2)},", end=" ")
        print(f"facts {mean_sd(100 * facts)}%, all right {mean_sd(100 * np.array(whole[split, name]))}%")
    print("    for example:", written["the model"][0][0], "| right:", true[0])
if SCALE != "smoke":
    assert min(rouge_l["seen", "the model"]) > rouge_l["seen", "oracle sentence"][0] + 0.3
    assert np.mean(rouge_l["test", "the model"]) > rouge_l["test", "oracle sentence"][0] + 0.1
    assert rouge_l["seen", "oracle sentence"] > rouge_l["seen", "lead sentence"]
    assert min(whole["seen", "the model"]) > 0.25 and max(whole["test", "the model"]) == 0
    who, where, when, how_many = said["test"]["the model"].mean(axis=0)
    assert max(who, where) < 0.05 < 0.5 < min(when, how_many)
pictures.fact_bars({"known names": said["seen"], "unknown names": said["test"]}, FACTS)

# %% [markdown]
r"""
With known names the model does what no picked sentence can: it collects the facts from several sentences into one,
and keeps the earlier event out. (The oracle, chosen by common words, has the place and the day; the whole is never in
one sentence.) With unknown names it still tells most days and amounts, but the **persons and towns are gone**. Its
ROUGE-L is still far above the oracle's: a score at which one might publish, for summaries of which *none* is right.

## Names never seen

What does it write instead? Names that it knows. The unknown ones are not even hard to spell for the tokenizer: it
cuts them into pieces, and each piece has an id. Two experiments. First, **where does it look** when the town is to be
written? Second, the **control**: the same reports, only the names of the event's person and town replaced by known
ones. If names are the trouble, and nothing else about these reports, that should mend it.
"""

# %%
known = [summarization.facts(pair) for pair in reports["train"]]
mixed = np.random.default_rng(5)
people, towns = (
    [known[mixed.integers(len(known))][i] for _ in reports["test"]] for i in (0, 1)
)
swapped = [tr.renamed(pair, *names) for pair, *names in zip(reports["test"], people, towns)]
unknown_town = summarization.facts(reports["test"][0])[1]
pieces = [
    [report_objective.tokenizer.token_bytes(i).decode() for i in report_objective.ids(f" {town}")]
    for town in (towns[0], unknown_town)
]
print(f"cut into pieces: known {pieces[0]}, unknown {pieces[1]}")
found = {}
for name, pairs in (("known", reports["seen"]), ("unknown", reports["test"])):
    right_town = [summarization.facts(pair)[1] for pair in pairs[:MOST]]
    looked = [tr.looks_at_town(w, report_objective, pairs[:MOST]) for w in writers]
    found[name] = [100 * np.mean([a == b for a, b in zip(row, right_town)]) for row in looked]
    print(f"looks at the right town, {name} names: {mean_sd(found[name])}%")
after = [tr.facts_said(tr.answers(w, report_objective, swapped), swapped) for w in writers]
after = np.array(after)  # (starts, 4)
print(f"facts told when names are replaced by known ones: {mean_sd(100 * after.mean(axis=1))}%,", end=" ")
print(f"before {mean_sd(100 * said['test']['the model'].mean(axis=1))}%")
if SCALE != "smoke":
    assert min(found["known"]) > 60 > 40 > max(found["unknown"]) and after[:, :2].min() > 0.6

# %% [markdown]
r"""
With known names in the same reports it tells nearly everything again. And with unknown ones it does not even *look* at
the right place: its heads find a town by knowing each town, not by "what stands behind *in*".

Why can it not simply copy? To copy is to write *the token that stands at the place I look at*, whatever it is. But
the only way from the source to the output is $P\,U$, a mixture of **value vectors**, and then a product with each row
of the token table. For a name that was in training, that path has been learned: from this vector to this row. For a
piece that never had to be written, it was not. There is no part of this model that says "the same token again": it
has to be learned from very many different names, until the map from vector to row works for all tokens alike. The
library's own run, with thousands of names, tells 0.735 ± 0.008 of all facts about unknown names (0.986 ± 0.006 about
known ones; `minillm ablate summarize --vary nothing --seeds 3`, in `tests/bench/RESULTS.md`), and even there no
summary is right as a whole.

A **copy mechanism** builds the missing path (See et al. 2017, arXiv 1704.04368). With a gate $g_t$ from 0 to 1,
computed from the decoder's features,

$$p(w) = g_t\; p_\text{vocab}(w) + (1 - g_t) \sum_{s:\, x_s = w} P_{ts},$$

so that attention itself becomes a probability of writing what stands there; exercise 4 computes it. Large models do
without: they have read so many names that copying is one of the things they learn (chapter
[18](18_looking_inside.ipynb) finds the heads that do).

## Summary

- An encoder–decoder is two known stacks and cross-attention: queries from the target, keys and values from the
  source. All that the encoder learns, it learns through that.
- Teacher forcing asks for all tokens in one run, on true beginnings. It hides what happens after a mistake, but it
  cannot cause the first one: whole sentences are right equally often either way.
- Attention pictures an alignment; hiding parts of the source measures what is needed.
- New combinations of known parts: nearly as good as anything. Longer than trained: poor. Never-seen names: none.
- Most wrong answers are the model's preference, not the search's fault.
- BLEU, chrF and ROUGE count shared pieces. They can prefer a wrong number to a right paraphrase, and give a good mark
  to summaries of which none is true. Test what must be right.

## Exercises

Write your answer in place of `None` and run the cell; the check says what is still wrong. Solutions are folded below.
"""

# %% [markdown]
r"""
### Exercise 1: a batch for the decoder (easy, core, 10 minutes)

`texts` is a list of lists of target ids, without start and end. Return `ids` and `targets`, arrays $(B, T)$: what the
decoder reads (`start` first) and what it must say (`end` last). Fill up `ids` with `pad` and `targets` with −100.
"""


# %% tags=["exercise"]
def decoder_batch(texts, start, end, pad):
    return None


with check():
    answer = decoder_batch([[5, 6, 7], [8]], 1, 2, 0)
    assert answer is not None, "decoder_batch returns nothing yet: return ids and targets."
    assert len(answer) == 2, "Return two arrays: ids, targets."
    read, say = (np.asarray(as_plain(part)) for part in answer)
    assert read.shape == say.shape == (2, 4), (
        f"The shapes must be (2, 4): the longest text and one more; yours are {read.shape}, {say.shape}."
    )
    assert not np.array_equal(read[0, 1:], say[0, 1:]), (
        "The decoder reads what it must say at the same place: it would only copy. Shift by one."
    )
    assert (read[:, 0] == 1).all(), "Every row of ids begins with start."
    assert 2 in say[1].tolist() and say[0, -1] == 2, "Every row of targets ends with end: the model must learn to stop."
    assert 2 not in read, "ids never holds the end: nothing is asked after it."
    assert 0 not in say, "Padding in targets would be learned: fill up with −100, which the loss leaves out."
    assert say[1].tolist() == [8, 2, -100, -100], "Targets: the end comes right behind the text, then −100."
    assert read[1].tolist() == [1, 8, 0, 0], "ids: the start, the text, then pad."
    longer = [np.asarray(as_plain(part)) for part in decoder_batch([[4], [4, 4, 3], []], 9, 8, 7)]
    assert longer[0].tolist() == [[9, 4, 7, 7], [9, 4, 4, 3], [9, 7, 7, 7]], "Wrong for [[4], [4, 4, 3], []]: ids."
    assert longer[1].tolist() == [[4, 8, -100, -100], [4, 4, 3, 8], [8, -100, -100, -100]], (
        "Wrong for [[4], [4, 4, 3], []]: targets. An empty text is just an end."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def decoder_batch(texts, start, end, pad):
    T = max(len(text) for text in texts) + 1
    ids, targets = np.full((len(texts), T), pad), np.full((len(texts), T), -100)
    for row, text in enumerate(texts):
        ids[row, : len(text) + 1] = [start, *text]
        targets[row, : len(text) + 1] = [*text, end]
    return ids, targets
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: clipping with several references (medium, core, 15 minutes)

There may be several right translations. BLEU then allows each $n$-gram as often as it stands in the reference that has
it **most** often. Return $p_n$ of a `hypothesis`, a list of tokens, for `references`, a list of such lists; 0 if the
hypothesis has no $n$-gram. (`grams` from above is there.)
"""


# %% tags=["exercise"]
def clipped_precision(hypothesis, references, n):
    return None


with check():
    the = ["the"] * 4
    answer = clipped_precision(the, [["the", "cat", "on", "the", "mat"]], 1)
    assert answer is not None, "clipped_precision returns nothing yet: return a number from 0 to 1."
    assert not np.isclose(answer, 1), "“the the the the” is not perfect: clip each count to that of the reference."
    assert not np.isclose(answer, 2 / 5), "Precision: divide by the n-grams of the hypothesis, not of the reference."
    assert not np.isclose(answer, 1 / 4), "An n-gram that stands in the reference twice may count twice."
    assert np.isclose(answer, 0.5), f"“the the the the” against “the cat on the mat” must give 2/4, not {answer}."
    two = [["the", "cat"], ["the", "a", "the"]]
    answer = clipped_precision(the, two, 1)
    assert not np.isclose(answer, 0.75), "Counts of several references are not added: take the largest of them."
    assert not np.isclose(answer, 0.25), "Each n-gram may count as often as in the reference that has it most often."
    assert np.isclose(answer, 0.5), "Wrong for two references: the largest count of “the” is 2."
    a_b = clipped_precision(["a", "x", "b"], [["a", "y"], ["b", "z"]], 1)
    assert np.isclose(a_b, 2 / 3), "The best reference may differ from n-gram to n-gram: do not choose one for all."
    assert clipped_precision(["a"], [["a", "b"]], 2) == 0, "A hypothesis without an n-gram has precision 0."
    for n in (1, 2, 3):
        count = metrics.bleu_counts(["a b a b c"], [["a b c a", "b a b"]], tokenize="none")[0]
        got = clipped_precision("a b a b c".split(), ["a b c a".split(), "b a b".split()], n)
        assert np.isclose(got, count[1 + n] / count[5 + n]), f"Not the library's for n = {n}."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def clipped_precision(hypothesis, references, n):
    ours, allowed = grams(hypothesis, n), Counter()
    for reference in references:
        allowed |= grams(reference, n)  # the larger of both counts
    return (ours & allowed).total() / max(ours.total(), 1)
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: whose fault? (medium, useful, 10 minutes)

For $B$ sentences you have `found` and `right`, lists of texts, and `p_found` and `p_right`, the $\ln p$ of each. Return
a dict with the three **shares** "right", "search" and "model" as in the section on beam search. They sum to 1.
"""


# %% tags=["exercise"]
def faults(found, right, p_found, p_right):
    return None


with check():
    case = (list("abcde"), list("axxxe"), [-1.0, -5.0, -2.0, -3.0, -9.0], [-1.0, -4.0, -7.0, -3.0, -9.0])
    answer = faults(*case)
    assert answer is not None, "faults returns nothing yet: return a dict of three shares."
    answer = as_plain(answer)
    assert isinstance(answer, dict) and set(answer) == {"right", "search", "model"}, (
        "Return a dict with the keys right, search and model."
    )
    assert not np.isclose(sum(answer.values()), 5), "Shares, not counts: divide by the number of sentences."
    assert np.isclose(answer["right"], 0.4), "right: the texts are equal. How likely they are does not matter."
    assert not np.isclose(answer["search"], 0.4), (
        "search and model are changed round (ln p nearer to 0 is likelier), or ties count for the search."
    )
    assert np.isclose(answer["search"], 0.2), "search: wrong, and the right one is likelier than the one found."
    assert np.isclose(answer["model"], 0.4), "model: wrong, and at least as likely as the right one."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def faults(found, right, p_found, p_right):
    correct = np.array([a == b for a, b in zip(found, right)])
    missed = ~correct & (np.array(p_found) < np.array(p_right))
    shares = correct.mean(), missed.mean(), (~correct & ~missed).mean()
    return dict(zip(("right", "search", "model"), shares))
```

</details>
"""

# %% [markdown]
r"""
### Exercise 4: a copy mechanism (medium, useful, 20 minutes)

Compute the distribution with copying: `p_vocab` $(V)$, `attention` $(S)$, the weights on the source positions,
`source_ids` $(S)$, the token at each, and the gate `g`, a number. Return $p$, $(V)$. A token may stand in the source
**several** times. Do not change what you are given.
"""


# %% tags=["exercise"]
def with_copying(p_vocab, attention, source_ids, g):
    return None


with check():
    p_vocab, attention = np.array([0.5, 0.3, 0.2, 0.0, 0.0]), np.array([0.1, 0.4, 0.2, 0.3])
    source_ids = np.array([3, 1, 3, 2])
    answer = with_copying(p_vocab.copy(), attention.copy(), source_ids.copy(), 0.25)
    assert answer is not None, "with_copying returns nothing yet: return V probabilities."
    answer = np.asarray(as_plain(answer), dtype=float)
    assert answer.shape == (5,), f"Return one probability for each token of the vocabulary, (5,), not {answer.shape}."
    once = 0.25 * p_vocab + 0.75 * np.array([0, 0.4, 0.3, 0.2, 0])
    assert not np.allclose(answer, once), (
        "Token 3 stands in the source twice, and only one of its weights was taken: p[ids] += w adds each index once."
    )
    swapped_ = 0.75 * p_vocab + 0.25 * np.array([0, 0.4, 0.3, 0.3, 0])
    assert not np.allclose(answer, swapped_), "The gate the wrong way round: g belongs to the vocabulary."
    assert np.isclose(answer.sum(), 1), f"The sum must be 1, not {answer.sum():.3f}: weigh both parts, g and 1 − g."
    assert np.allclose(answer, 0.25 * p_vocab + 0.75 * np.array([0, 0.4, 0.3, 0.3, 0])), "Not the formula's values."
    given = p_vocab.copy()
    with_copying(given, attention, source_ids, 0.25)
    assert np.array_equal(given, p_vocab), "You changed p_vocab itself: make a new array."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def with_copying(p_vocab, attention, source_ids, g):
    copied = np.bincount(source_ids, weights=attention, minlength=len(p_vocab))  # (V,)
    return g * p_vocab + (1 - g) * copied
```

Token 4 keeps probability 0: neither the vocabulary nor the source has it. A name that the vocabulary gives nothing gets
$(1 - g)$ times the attention to it.

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** Why does cross-attention have no causal mask?

<details><summary>Answer</summary>

The whole source is there before the first target token is written; looking ahead in it is no cheating. The target's own
self-attention keeps its causal mask.

</details>

**2.** The validation loss of a translator is excellent, its translations are poor. How can that be?

<details><summary>Answer</summary>

The loss is computed along true beginnings. One wrong token in a sentence costs little there, and the sentence is wrong
all the same; what comes after it is never looked at.

</details>

**3.** With ten beams instead of one, the translations get worse. What does that say about the model?

<details><summary>Answer</summary>

That it finds worse translations likelier: the greedy search had failed to find them. The fault is the model's.

</details>

**4.** A summarizer has ROUGE-L 0.7. Is it fit for use?

<details><summary>Answer</summary>

One cannot say: ours had that on unknown names, and not one of its summaries was right. Test the facts that matter.

</details>

**5.** Why does it help to replace the names in a report by known ones before the model reads it?

<details><summary>Answer</summary>

It can then write them: the path from their vectors to their rows of the token table was learned. (One can put the true
names back afterwards; systems did that before copy mechanisms.)

</details>
"""

# %% [markdown]
r"""
## You can now

You can now build, train and judge a model that turns one text into another: say what it looks at and what it needs,
what its loss hides, whose fault a mistake is, and what its score does not see.

**What you take along**: the translators and summarizers, in the folders that
`minillm.workshop.deliverables.translators(SCALE)` and `minillm.workshop.deliverables.summarizers(SCALE)` name, with
`minillm.workshop.translating.load_writer` to open them; and `minillm finetune translate --data pairs.tsv`, which does
the same with your own pairs. The next chapter, [13 · Dialogue](13_dialogue.ipynb), needs no encoder: there source and
answer stand in one text.
"""
