# %% [markdown]
r"""
# 18 · Looking inside

A trained model is an array of numbers that answers. *How* it answers is written nowhere. But every number in it can be
read, and every one can be changed; few objects of study are so open. This chapter is about what to read, what to
change, and which conclusions that allows. Its refrain: **what can be seen inside a model need not be used by it.**

**Afterwards you can** record and replace any activation; read a model layer by layer with the logit lens; roll
attention out, and say where that fails; find by patching the place and the layer that decide; tell an induction head
from one that looks like it; probe with a control; and say what a picture of attention does not prove.

**You need** [06 · Attention](06_attention.ipynb): heads and their pictures;
[07 · The Transformer](07_the_transformer.ipynb): the stream, Llama; [08 · Pretraining](08_pretraining.ipynb), whose
Python model is looked into.
"""

# %%
import numpy as np
from minillm import plot
from minillm.data import corpus_text
from minillm.hub.checkpoint import load_model_and_tokenizer
from minillm.interpret import (
    activation_patching,
    attended_share,
    attention_rollout,
    induction_scores,
    logit_lens,
    look_inside,
    probe,
    recording,
    repeated_rows,
    replacing,
    run,
    what_followed,
)
from minillm.interpret.activations import write_down
from minillm.tensor import no_grad
from minillm.workshop import as_mask, as_plain, check, read_scale, show_versions, type_into_debugger
from minillm.workshop import inside as lab
from minillm.workshop.deliverables import corpus, python_model, small_insides

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
SEEDS = range(lab.SEEDS[SCALE])  # random starts of each kind of model
ROWS = 40 if SCALE == "smoke" else 200  # held-out rows to measure on
rng = np.random.default_rng(18)
show_versions(SCALE)

# %% [markdown]
r"""
## Why: right answers, and no reason given

The task is **recall**. A row holds six pairs of a key (a letter) and a value (a number); then keys are asked for, and
after each comes its value. It is chapter 06's task in a harder form: there, one token held a variable *and* its digit.
Here key and value are two tokens, and who finds the key again has not found the value yet: that stands **one further**.

The models are Llamas of two blocks, two heads and 32 features, trained from several starts for 500 steps of 32 rows.
`small_insides` trains them, and those of a later section, at the first call (about a minute) and reads them from
`made/` after that. They are drawn as in chapter 06, with matrices large enough for attention to begin unevenly.
"""

# %%
folder = small_insides(SCALE)
recallers = lab.load_models(folder, SCALE, "recall")
ids, answers, key = lab.questions(seed=1, rows=ROWS)  # (rows, 13), (rows,), (rows,): up to the first question
example = [lab.VOCABULARY[i] for i in ids[0]]
print("a row:", " ".join(example), "→", lab.VOCABULARY[answers[0]])


def right(logits):
    """The share of rows whose answer is the likeliest token at the end: logits (rows, T, V)."""
    return float((logits[:, -1].argmax(axis=-1) == answers).mean())


solved = [right(run(model, ids)) for model in recallers]
print(f"answers right on new rows: {lab.mean_sd(100 * np.array(solved), 0)}%", end=" ")
print(f"({len(SEEDS)} starts); one of the row's six values at random: {100 / 6:.0f}%")
if SCALE != "smoke":
    assert min(solved) > 0.9
weights = sum(p.data.size for p in recallers[0].parameters())
print(f"{weights:,} weights. Which of them know that the value stands behind the key?")

# %% [markdown]
r"""
## The stream, and two things to do with it

Every block **adds** to what it is given (chapter 07). So one array runs through the whole model, the **residual
stream**: $x_0\,(T, D)$ are the token vectors, $x_{l+1} = x_l + \text{block}_l(x_l)$, where $\text{block}_l$ stands for
what block $l$ adds by its attention and its feed-forward network; the norm and the output head (the matrix that makes
scores for tokens, not one of attention's heads) read the last one, here $x_2$. $T$ is the number of tokens, $D$ of
features, $V$ of the vocabulary.
"""

# %%
lab.draw_stream()

# %% [markdown]
r"""
All that follows is made of two operations: **record** what a part of the model gives, and **replace** it by something
else. By hand, for a model whose forward is a loop, both are a line in the loop:
"""


# %%
def run_by_hand(model, ids, kept=None, put=None):
    """The logits (B, T, V). The stream after each block goes into the list `kept`; where `put` has the number of a
    block, its array takes the place of the stream after that block."""
    x, rope = model.start(ids, None, None)  # the token vectors (B, T, D), and what turns queries and keys
    for number, block in enumerate(model.blocks):
        x = block(x, rope)  # (B, T, D)
        if put and number in put:
            x = put[number]
        if kept is not None:
            kept.append(x)
    return model.logits(model.norm(x)).data

# %% [markdown]
r"""
The library does it from outside, for any model on either engine, by a module's name (`model.named_modules()` lists
them): `recording` notes what goes in and comes out, `replacing` changes it on the way. Both wrap the modules' `forward`
while the `with` lasts, and leave nothing behind.
"""

# %%
model = recallers[0]
kept = []
with no_grad():
    by_hand = run_by_hand(model, ids[:5], kept)
with recording(model, ["blocks.0", "blocks.1"]) as calls:
    library = run(model, ids[:5])
gap = np.abs(kept[0].data - calls["blocks.0"].out.data).max()
print(f"recorded after block 0: {calls['blocks.0'].out.shape}, gap to ours {gap:.0e}")

nothing = kept[0] * 0.0
with no_grad():
    ours = run_by_hand(model, ids[:5], put={0: nothing})
with replacing(model, {"blocks.0": lambda x: x * 0.0}):
    theirs = run(model, ids[:5])
print(f"block 0 replaced by zeros: the logits move by {np.abs(theirs - library).max():.1f}", end=", ")
print(f"by hand and by the library alike (gap {np.abs(ours - theirs).max():.0e})")
assert gap < 1e-5 and np.allclose(by_hand, library, atol=1e-4) and np.allclose(ours, theirs, atol=1e-4)
assert np.array_equal(run(model, ids[:5]), library)  # nothing was left behind

# %% [markdown]
r"""
> **Step into it.** Put a breakpoint on the line `seen = look_inside(model, ids[:1])` of the next cell (VS Code: click
> left of the line, then *Debug Cell*; JupyterLab: the bug at the top right) and step into it. You pass
> `minillm.interpret.looking.look_inside`, `minillm.interpret.activations.watching`,
> `minillm.interpret.activations.wrapping` (here a module gets its other `forward`), and, once the model runs,
> `minillm.interpret.activations.write_down` at each block. Then
> `minillm.interpret.looking.attention_shares` asks the layer for its weights by a trick: attention over values that are
> one-hot vectors returns the weights themselves.

The same without an editor: stop in `write_down`, go on, and print which module it is and what came to it.
"""

# %%
seen = look_inside(model, ids[:1])  # a breakpoint here
assert seen.residual.shape == (3, 1, 13, 32)  # (layers + 1, B, T, D)
commands = ["tbreak write_down", "continue", "print(name, x.shape)"]
namespace = {"look_inside": look_inside, "model": model, "ids": ids[:1], "write_down": write_down}
shown = type_into_debugger("look_inside(model, ids)", commands, namespace)
print(shown)
assert "(1, 13, 32)" in shown

# %% [markdown]
r"""
## The logit lens: what would it say already?

The output head reads the last stream. Because all blocks write into the same stream, it can be held to earlier ones,
too (nostalgebraist 2020, "interpreting GPT: the logit lens"):

$$\text{logits}_l = E\,\operatorname{norm}(x_l), \qquad p_l = \operatorname{softmax}(\text{logits}_l),$$

with $E\,(V, D)$ the head's matrix and norm the last norm; $p_l\,(T, V)$ is what the model would answer if it ended
after $l$ blocks. How far is that from its answer $p_L$, with $L$ the number of blocks? By the **Kullback–Leibler
divergence**, at each position

$$\operatorname{KL}(p_L \,\|\, p_l) = \sum_{w=1}^{V} p_L(w)\,\ln\frac{p_L(w)}{p_l(w)},$$

the surprise that someone who believes in $p_l$ has from tokens drawn from $p_L$, less the surprise that is inevitable
(chapter 01: cross-entropy less entropy). It is 0 if the two are equal, else positive. We take chapter 08's model that
completes Python, three blocks of it.
"""

# %%
python, tokenizer = load_model_and_tokenizer(python_model(SCALE))
code = "class Reader:\n    def __init__(self, name):\n        self.name = name\n"
code_ids = np.array([tokenizer.encode(code)])  # (1, T)
lens = logit_lens(python, code_ids[:, :-1])
guesses, p = lens.top()[:, 0, :, 0], np.exp(lens.log_probs).max(axis=-1)[:, 0]  # (layers + 1, T) each
pieces = [tokenizer.token_bytes(i) for i in code_ids[0]]
WIDE = 13  # the columns that are shown: the last ones
lab.lens_table(pieces[-WIDE - 1 :], guesses[:, -WIDE:], p[:, -WIDE:], tokenizer.token_bytes)

# %% [markdown]
r"""
Read a column upwards. The lowest row of guesses is the token's own vector, read by the head: the model's head is its
token table again (tied), so what stands there is the token itself, or its like. Each block then moves the guess, from
what goes with this token towards what goes with the text. An orange frame marks what really comes next; darker is more
certain. On held-out code, over many positions:
"""

# %%
held_out = np.array(tokenizer.encode(corpus_text(corpus(SCALE, "code"), "val", max_chars=60_000)))
CONTEXT = 64
count = min(len(held_out) // CONTEXT, 8 if SCALE == "smoke" else 40)
windows = held_out[: count * CONTEXT].reshape(count, CONTEXT)  # (windows, 64)
lens = logit_lens(python, windows)
kl = lens.kl()  # (layers + 1, windows, T)
same = (lens.top()[..., 0] == lens.top()[-1:, ..., 0]).mean(axis=(1, 2))  # (layers + 1,)
for name, values, share in zip(lab.layer_names(len(kl)), kl, same):
    print(f"{name:8s}: KL {lab.mean_sd(values.mean(axis=1))} nats, first guess as at the end {100 * share:3.0f}%")
falls = np.diff(kl.mean(axis=2), axis=0) < 0  # (layers, windows)
print(f"windows in which the KL falls with every block: {100 * falls.all(axis=0).mean():.0f}%")
if SCALE != "smoke":
    assert np.all(np.diff(kl.mean(axis=(1, 2))) < 0) and np.all(np.diff(same) > 0)
assert np.abs(kl[-1]).max() < 1e-6
lab.lens_figure(kl.reshape(len(kl), -1), same)

# %% [markdown]
r"""
(± is the standard deviation over windows of 64 tokens.) The answer is approached block by block, in the mean and in the
share of first guesses alike. But the lens sees only what is written **in the head's language**. Nobody trained the
earlier streams to be read by the head, and where a block writes notes for a later block, the lens shows nothing. Our
recall models are an example: at the question, after block 0,
"""

# %%
by_depth = []
for model in recallers:
    lens = logit_lens(model, ids)
    by_depth.append([float((guess[:, -1, 0] == answers).mean()) for guess in lens.top()])
by_depth = 100 * np.array(by_depth)  # (starts, 3)
for name, values in zip(lab.layer_names(3), by_depth.T):
    print(f"recall, read after {name}: {lab.mean_sd(values, 0)}% of answers")
if SCALE != "smoke":
    assert by_depth[:, 1].max() < 40 < 90 < by_depth[:, 2].min()

# %% [markdown]
r"""
nothing is to be seen, as if block 0 were idle. It is not, as patching will show: it does the half of the work that the
head cannot read. (The *tuned lens*, Belrose et al. 2023, arXiv 2303.08112, learns a translation for each layer.)

## Attention, rolled out

Chapter 06 drew where each head looks. Here is a recall model on one row: block 0 above, block 1 below.
"""

# %%
model, row = recallers[0], slice(0, 1)
weights = look_inside(model, ids[row]).attention[:, 0]  # (layers, B, H, T, T) -> (layers, H, T, T)
plot.attention_grid(weights, example, title="one row of the recall task")

# %% [markdown]
r"""
In block 1 the last row, the question, has bright spots at the answer. In block 0, one head's rows of numbers look at
the letter just before them. But which position of the **input** does the answer come from? A position in block 1 is not
its token any more: block 0 has mixed others into it. **Rollout** (Abnar & Zuidema 2020, arXiv 2005.00928, section 3)
multiplies through. Let $A_l\,(T, T)$ be the mean of block $l$'s heads, and assume that a position keeps half of what it
had (the residual) and takes half by attention. With $I$ the identity, all $(T, T)$,

$$\tilde A_l = \tfrac12 I + \tfrac12 A_l, \qquad R_0 = \tilde A_0, \qquad R_l = \tilde A_l R_{l-1}.$$

Entry $(t, s)$ of $R_l$ sums over all paths from input $s$ to position $t$ the product of the shares along the path. Its
rows sum to 1, since those of each factor do. By hand and by the library:
"""

# %%
mean = weights.mean(axis=1)  # (layers, T, T)
mixed = 0.5 * np.eye(13) + 0.5 * mean
rolled = mixed[1] @ mixed[0]  # (T, T)
assert np.allclose(rolled, attention_rollout(weights)[-1], atol=1e-6)
assert np.allclose(rolled.sum(axis=1), 1, atol=1e-5)
print("rolled out from the question:", dict(zip(range(13), rolled[-1].round(2).tolist())))

# %% [markdown]
r"""
Is that right? There is a judge: **change the input and see what happens.** At each position in turn we put another key
for a key, another value for a value, one that the row has not, and note by how much the right answer's logit falls,
against the mean logit of the row's six values (this difference, the **margin**, is what we will use from here on). For
the picture, rows whose asked key stands in the third pair, positions 4 and 5.
"""


# %%
def margins(logits, ids, answers):
    """The logit of the right value less the mean of the row's values, at the last position: (rows,)."""
    last = logits[:, -1]  # (rows, V)
    return last[np.arange(len(last)), answers] - np.take_along_axis(last, ids[:, 1:12:2], axis=1).mean(axis=1)


third, third_answers, _ = lab.questions(seed=2, rows=ROWS // 4, place=4)  # the key at 4, its value at 5
shares = {"rolled out": [], "effect of a change": []}
for model in recallers:
    shares["rolled out"].append(attention_rollout(look_inside(model, third).attention)[-1][:, -1].mean(axis=0))
    before = margins(run(model, third), third, third_answers)
    effect = []
    for t in range(13):
        after = margins(run(model, lab.other_token(third, t, rng)), third, third_answers)
        effect.append((before - after).mean())
    shares["effect of a change"].append(np.array(effect))
shares = {name: np.mean(values, axis=0) for name, values in shares.items()}
idle = [t for t in range(12) if t not in (4, 5)]
total = np.abs(shares["effect of a change"]).sum()
on_idle = shares["rolled out"][idle].sum(), np.abs(shares["effect of a change"][idle]).sum() / total
print("on the ten positions that are not asked for:", end=" ")
print(f"{100 * on_idle[0]:.0f}% of the rollout, {100 * on_idle[1]:.0f}% of the effects")
if SCALE != "smoke":
    assert shares["rolled out"][[4, 5]].min() > shares["rolled out"][idle].max()
    assert on_idle[0] > 3 * on_idle[1]
labels = ["key", "val"] * 2 + ["KEY", "VAL"] + ["key", "val"] * 3 + ["?"]  # in capitals: the pair asked for
lab.bars_by_position(shares, labels)

# %% [markdown]
r"""
On this task rollout points the right way: the pair and the question stand out. Its shares are another matter: a good
part goes to positions that have no effect at all, and the key, without which nothing is found, gets less than its
value. Now the model of Python, where nobody knows the answer beforehand. We change one token of a text after the other
and measure how much the next token's distribution moves (KL); then we ask how well the *order* of positions by rollout
agrees with the order by effect (Spearman's rank correlation: 1 for the same order, 0 for none). The baseline is a rule
that never looks into the model: the nearer a token, the more it matters.
"""

# %%
SHORT = 24
texts = windows[:, :SHORT]
attention = look_inside(python, texts).attention
effects = lab.change_of_answer(python, texts, rng)  # (windows, 24)
near = np.tile(np.arange(SHORT), (len(texts), 1))
by_rank = {
    "rollout": attention_rollout(attention)[-1][:, -1],
    "last block's mean head": attention[-1].mean(axis=1)[:, -1],
    "the nearer, the more": near,
}
agrees = {name: lab.rank_agreement(values[:, :-1], effects[:, :-1]) for name, values in by_rank.items()}
for name, values in agrees.items():
    error = values.std(ddof=1) / np.sqrt(len(values))
    print(f"{name:22s}: agreement {values.mean():.2f} (± {error:.2f}, standard error over {count} texts)")
if SCALE == "cpu":
    assert agrees["rollout"].mean() > 0.1 and agrees["the nearer, the more"].mean() > 0.1
    assert agrees["rollout"].mean() < agrees["the nearer, the more"].mean() + 0.15
    assert agrees["last block's mean head"].mean() > agrees["rollout"].mean()

# %% [markdown]
r"""
Rollout does no better than the rule that looks at nothing but the distance, and the last block's attention alone, *not*
rolled out, agrees better than both. Abnar and Zuidema found the opposite for their models: rollout above raw attention.
Here is one model of three blocks, on one kind of text; what carries over is the method. Without a baseline, rollout's
agreement, well above 0, would have looked like a finding.

The deeper failure can be proved. Rollout, like the picture, uses the weights $P$ alone. What a head *does* is
$W_O P V$: how large the values are and whether anything reads the result stands in other matrices. So give a model two
more heads in each block, which look where its own look least, and whose columns in $W_O$ are 0:
"""

# %%
model = recallers[0]
other = lab.with_silent_heads(model)
moved = np.abs(run(other, ids) - run(model, ids)).max()
spots = np.arange(len(ids)), key + 1  # where each row's answer stands
rows = {}
for name, m in (("the model", model), ("with silent heads", other)):
    seen = look_inside(m, ids).attention
    rolled = attention_rollout(seen)[-1][:, -1]  # (rows, T)
    best = rolled[:, :-1].argmax(axis=1)  # the question itself is left out
    rows[name] = 100 * (best == key + 1).mean()
    on_answer = seen[1][spots[0], :, -1, spots[1]].mean(axis=0)  # (H,): by the heads of block 1, at the question
    print(f"{name:17s}: {100 * right(run(m, ids)):.0f}% right; rollout's first place is the answer", end=" ")
    print(f"in {rows[name]:.0f}%; heads of block 1 look at it with", (100 * on_answer).round().astype(int), "%")
print(f"largest difference between the two models' logits: {moved:.0e}")
assert moved < 1e-4
if SCALE != "smoke":
    assert rows["with silent heads"] < rows["the model"] - 20
weights = look_inside(other, ids[row]).attention[:, 0]
plot.attention_grid(weights, example, title="same answers, another picture (heads 2 and 3 are silent)")

# %% [markdown]
r"""
Two models that agree on every row, up to rounding, and two different pictures. Nothing that is computed from the
pictures alone can tell what they do, and rollout now names a wrong token far more often. (That other weights, put in
the place of a trained model's, often leave its answers as they were: Jain & Wallace 2019, arXiv 1902.10186. What that
does and does not refute: Wiegreffe & Pinter 2019, arXiv 1908.04626.)

## Patching: where is it decided?

Changing the input says which *token* matters. To find the **place and the layer**, make two runs that differ in one
thing, and carry one vector over:

1. the **clean** run: the row as it is. The model knows the answer.
2. the **corrupted** run: the asked key is replaced in its pair by another letter. Nothing matches the question.
3. the corrupted run again, with **one** vector, that of one module at one position, from the clean run.

How much of the answer comes back? With $m$ the mean margin of a run,

$$\text{won back} = \frac{m(\text{corrupted, patched}) - m(\text{corrupted})}{m(\text{clean}) - m(\text{corrupted})}.$$

0: that vector had nothing to do with it, or was not enough; 1: it carries all that the two runs differ in. (Meng et al.
2022, arXiv 2202.05262, section 2; Zhang & Nanda 2023, arXiv 2309.16042, show how much the choice of the corruption and
of the measure matters.) Before you look: where will the answer be won back, after each block?
"""

# %%
corrupted = lab.other_token(third, 4, np.random.default_rng(4))  # another key in the place of the asked one
modules = ["token_embedding", "blocks.0", "blocks.1"]
found = []
for model in recallers:
    measure = lambda logits: float(margins(logits, third, third_answers).mean())  # noqa: E731
    clean_margin, bad_margin = measure(run(model, third)), measure(run(model, corrupted))
    found.append(activation_patching(model, third, corrupted, measure, modules))
    print(f"margin: clean {clean_margin:.1f}, corrupted {bad_margin:.1f}", end="; ")
    print("won back most at the positions", found[-1].argmax(axis=1).tolist())
found = np.array(found)  # (starts, modules, T)
if SCALE != "smoke":
    assert np.all(found.argmax(axis=2) == [4, 5, 12]) and found.max(axis=2).min() > 0.8
    assert np.sort(np.abs(found), axis=2)[..., :-1].max() < 0.3
lab.patch_map(found.mean(axis=0)[::-1], ["after block 1", "after block 0", "token vectors"], labels)

# %% [markdown]
r"""
A staircase, the same from every start. In the input the key is at the key (that is how the two runs were made). **After
block 0 it is at the value**, one further to the right: block 0 has written into each value's vector which key stood
before it. After block 1 it is at the question. No lens showed the middle step, since a note "my key was d" is not a
next token; and no picture of the question's row shows it, since it happens elsewhere. Which part of each block does it?
"""

# %%
parts = ["blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp"]
by_part = np.array([
    activation_patching(
        model, third, corrupted, lambda logits: float(margins(logits, third, third_answers).mean()), parts
    )
    for model in recallers
])  # (starts, parts, T)
for i, part in enumerate(parts):
    best = int(by_part[:, i].mean(axis=0).argmax())
    print(f"{part:13s}: most at {labels[best]:4s} {lab.mean_sd(by_part[:, i, best])}")
if SCALE != "smoke":
    assert by_part[:, 0, 5].min() > 0.8 and by_part[:, 2, 12].min() > 0.8
    assert by_part[:, [1, 3]].max() < 0.5
lab.patch_map(by_part.mean(axis=0)[::-1], parts[::-1], labels)

# %% [markdown]
r"""
Attention does it, both times; the feed-forward networks could nearly be left out. So now we know the algorithm, and it
needs two layers: a head of block 0 looks **one back** and notes what it finds; a head of block 1 looks for the position
whose note is its own token, and copies the token there.

## A head's picture, and a head's work

Patching put something in. Now take something away: replace what one head gives to $W_O$ by its mean over rows and
positions, so that it says the same whatever the row (the mean and not 0: the rest of the model is used to the mean).
In the library's model $W_O$ is `o_proj`, and its input holds the heads side by side. Against what a picture would
suggest: how much of its attention each head gives, at the question, to the answer.
"""


# %%
def without_head(model, block, head):
    """The share of answers that is right when this head gives its mean."""
    d = model.config.head_dim

    def silence(x):  # (B, T, H·d): all heads side by side
        array = x.data.copy()
        mine = slice(head * d, (head + 1) * d)
        array[..., mine] = array[..., mine].mean(axis=(0, 1))
        return x * 0.0 + array

    with replacing(model, inputs={f"blocks.{block}.attn.o_proj": silence}):
        return right(run(model, ids))


looked, lost = np.empty((2, len(SEEDS), 2, 2))  # (starts, layers, heads) each
for start, model in enumerate(recallers):
    attention = look_inside(model, ids).attention  # (layers, rows, H, T, T)
    for block in range(2):
        on_answer = attention[block][spots[0], :, -1, spots[1]]  # (rows, H)
        looked[start, block] = 100 * on_answer.mean(axis=0)
        for head in range(2):
            lost[start, block, head] = 100 * (solved[start] - without_head(model, block, head))
            print(f"start {start}, block {block}, head {head}: {looked[start, block, head]:3.0f}%", end=" ")
            print(f"on the answer, {lost[start, block, head]:3.0f} points lost without it")
if SCALE != "smoke":
    assert lost[:, 0].max(axis=1).min() > 30 and looked[:, 0].max() < 20 < looked[:, 1].max(axis=1).min()
lab.heads_figure(looked, lost)

# %% [markdown]
r"""
From every start there is one head of block 0 (the highest squares) without which most of the answers are lost. At the
question it gives the answer no more than about an even share, 1 in 13 positions: a reader of the last row's picture
would have called it useless. Its neighbour in block 0 has the same picture there, and costs little. In block 1 both
heads look at the answer, and what they cost differs widely. And which of the two in block 0 does the work is another
from start to start.

## Induction heads: look where it went on last time

The two steps are worth more than this task. Take any text that repeats: "... $a\;b$ ... $a$". A head of block 1 that
asks "who has noted my own token as the one before it?" lands on $b$, and copying it continues the repetition. Olsson et
al. 2022 (arXiv 2209.11895) found such **induction heads** in all the Transformers of two layers or more that they
examined, and none in those of one. How to test for one:

- rows of random ids that repeat, so that nothing but the repetition helps;
- its **score**: of a head's attention, the share that goes to the positions *behind* earlier occurrences of the token;
- **periods that vary**. If every row repeats after 8, a head that looks 7 back, always, gets the full score, and has
  understood nothing. It needs no second layer, either.

We train three kinds, from several starts each: two layers, one layer with **as many weights**, both on periods from 3
to 12 (the library's `repeated_rows`), and one layer on rows that always repeat after 8. All are tested on periods that
vary.
"""

# %%
kinds = [kind for kind in lab.KINDS if kind != "recall"]
copiers = {kind: lab.load_models(folder, SCALE, kind) for kind in kinds}
rows_vary, periods = repeated_rows(np.random.default_rng(3), 400, lab.COPY + 1, lab.IDS)  # (400, T + 1), (400,)
rows_8 = np.array([np.resize(rng.permutation(lab.IDS)[:8], lab.COPY + 1) for _ in range(400)])
losses, scores = {}, {}  # kind -> (2 tests, starts)
for kind, models in copiers.items():
    losses[kind], scores[kind] = np.empty((2, 2, len(SEEDS)))
    for test, (rows, after) in enumerate(((rows_vary, periods), (rows_8, np.full(400, 8)))):
        ids_in, next_ids = rows[:, :-1], rows[:, 1:]  # (400, T) each
        for start, m in enumerate(models):
            losses[kind][test, start] = lab.loss_by_round(m, ids_in, next_ids, after)[0]
            share = attended_share(look_inside(m, ids_in).attention, what_followed(ids_in))  # (layers, heads)
            scores[kind][test, start] = share.max()
        name = ("periods vary", "always 8")[test]
        print(f"learned {kind:20s} tested {name:12s}: loss {lab.mean_sd(losses[kind][test])}", end=", ")
        print(f"best head's score {lab.mean_sd(scores[kind][test])}")
library = induction_scores(copiers["two layers"][0], n_rows=400)  # (layers, heads): rows of its own
assert np.isclose(library.max(), scores["two layers"][0, 0], atol=0.05)
p = np.exp(logit_lens(copiers["one layer"][0], rows_vary[:, :-1]).log_probs[-1])  # (400, T, V)
shown = np.cumsum(np.eye(lab.IDS)[rows_vary[:, :-1]], axis=1) > 0  # (400, T, V): has the row had this id by now?
known = np.arange(1, lab.COPY + 1) > periods[:, None]  # (400, T): the second time round, or later
of_one_layer, of_a_guess = (100 * (q * ~shown).sum(axis=2)[known].mean() for q in (p, 1 / lab.IDS))
print("ids that the row has not had so far get", end=" ")
print(f"{of_one_layer:.0f}% of one layer's probability, {of_a_guess:.0f}% of a guess's")
marked = what_followed(rows_vary[:, :-1])  # (rows, T, T)
even = (marked.sum(axis=2) / np.arange(1, lab.COPY + 1))[marked.any(axis=2)].mean()
if SCALE != "smoke":
    assert of_one_layer < 0.5 * of_a_guess
    two, one, fixed = (losses[kind] for kind in kinds)  # (2, starts) each
    assert two.max() < 0.5 * one.min() and scores["two layers"].min() > 2 * scores["one layer"].max()
    assert fixed[1].max() < 0.5 * fixed[0].min() and fixed[0].min() > np.log(lab.IDS)
    assert scores["one layer, always 8"][1].mean() > 2 * scores["one layer, always 8"][0].mean()
lab.copying_figure(losses, scores, even)

# %% [markdown]
r"""
Look at the blue marks first: where periods vary, two layers copy from the second time on; one layer of as many weights
does not, and none of its heads scores much above one that looks everywhere alike. It is below the dotted line all the
same: it knows *which* ids the row holds (the last line printed), only not which of them comes next. Now the trap, the
bottom row. On rows that always repeat after 8 (orange), a model of **one** layer copies well, and its best head scores
several times as high as on other rows. Where periods vary it is worse than a guess: sure of itself, and wrong. Who
tests with one period cannot tell that head from an induction head.

In the two-layer models, as in recall, the pair should be found: heads of block 0 that look one back, heads of block 1
with a high score.
"""

# %%
for start, model in enumerate(copiers["two layers"]):
    attention = look_inside(model, rows_vary[:, :-1]).attention
    back = attended_share(attention, np.tile(np.eye(lab.COPY, k=-1) > 0, (len(rows_vary), 1, 1)))  # (layers, heads)
    induct = attended_share(attention, marked)
    print(f"start {start}: one back, block 0 {back[0].round(2)}, block 1 {back[1].round(2)};", end=" ")
    print(f"induction, block 0 {induct[0].round(2)}, block 1 {induct[1].round(2)}")
    if SCALE != "smoke":
        assert back[0].max() > back[1].max() and induct[1].max() > induct[0].max()

# %% [markdown]
r"""
## Probing, with a control

Last, reading without a head: train a **linear classifier** on the stream, and see what it can tell. Does chapter 08's
model know whether it stands inside a bracket? For each token of held-out code, the label is 1 if a bracket is open
after it that was opened in the same stretch. The features are the stream after each block, $(N, D)$ for $N$ tokens.

A high accuracy may mean little: many properties can be guessed from the token alone, and a probe with $D$ inputs can
learn by heart which token goes with which label. Hence the **control task** (Hewitt & Liang 2019, arXiv 1909.03368):
draw a label at random for each *kind of token*, as often as the true ones occur, and train a like probe on those. There
is nothing to know; what it gets right, it has memorized. What counts is the difference, the **selectivity**. Half of
the windows train, the other half test; the three marks are three draws of the control.
"""

# %%
used = windows[: 10 if SCALE == "smoke" else 40]
labels = np.array([lab.within_brackets([tokenizer.token_bytes(i) for i in w]) for w in used])  # (windows, T)
streams = look_inside(python, used).residual  # (layers + 1, windows, T, D)
half = np.repeat(np.arange(len(used)) % 2 == 0, CONTEXT)
probes = [
    [probe(x.reshape(-1, x.shape[-1]), labels.ravel(), used.ravel(), train=half, seed=seed) for x in streams]
    for seed in range(3)
]
accuracy = np.array([[one.accuracy for one in row] for row in probes])  # (draws, layers + 1)
control = np.array([[one.control for one in row] for row in probes])
majority = max(labels.ravel()[~half].mean(), 1 - labels.ravel()[~half].mean())
for name, a, c in zip(lab.layer_names(len(streams)), accuracy.T, control.T):
    print(f"{name:8s}: {100 * a.mean():.0f}% right, control {lab.mean_sd(100 * c, 0)}%", end=", ")
    print(f"selectivity {100 * (a - c).mean():+.0f}")
if SCALE == "cpu":
    selectivity = (accuracy - control).mean(axis=0)
    assert accuracy[0, 1:].max() > accuracy[0, 0] and selectivity[1:].max() > selectivity[0]
lab.probe_figure(accuracy, control, majority)

# %% [markdown]
r"""
By accuracy alone, the probe without any block seems to know something: it beats the more frequent answer a little. The
control says how little that is worth: labels drawn by lot are read there with *more* success, since the token's own
vector gives away which token it is. With the blocks the true label is read better, the drawn one worse. Only after the
last block is the selectivity clearly positive: there is something that is not in the token, and the model has brought
it there.

And a probe does not show **use**. In the recall models, which key stood before a value can be read at the value's
position after block 0, where we know that it is used, and also after block 1:
"""

# %%
values_at = np.arange(1, 12, 2)  # the six values' positions
for depth, name in enumerate(lab.layer_names(3)):
    can_read = []
    for model in recallers:
        x = look_inside(model, ids).residual[depth][:, values_at]  # (rows, 6, D)
        can_read.append(probe(x.reshape(-1, 32), ids[:, values_at - 1].ravel(), ids[:, values_at].ravel()).accuracy)
    won = "" if depth == 0 else f"; won back by patching the value there: {lab.mean_sd(found[:, depth, 5])}"
    print(f"{name:8s}: the key can be read in {lab.mean_sd(100 * np.array(can_read), 0)}%{won}")
    if SCALE != "smoke":
        assert (max(can_read) < 0.2) if depth == 0 else (min(can_read) > 0.6)
if SCALE != "smoke":
    assert np.abs(found[:, 2, 5]).max() < 0.1 < 0.8 < found[:, 1, 5].min()

# %% [markdown]
r"""
After block 1 it is still there, since blocks only add, and nobody reads it any more: nothing comes after block 1 but
the head, and that reads each position for itself. A probe finds it nearly as surely as before; a patch does nothing.
(The control would be useless here, by the way: with 16 values it can be learned by heart.)

## What a picture of attention does not prove

| you saw | it does not follow that | what would show it |
| --- | --- | --- |
| a head looks at a token | the token's content is used | silence the head, change the token |
| a head does not look at the answer | it has no part in it | silence the head: block 0's did the first half |
| rollout points at a token | the answer depends on it | change the token; two models with one answer had two rollouts |
| a head scores on repetitions | it does induction | other periods |
| a probe reads a property | the model uses it, or has it from the context | patch it; a control task |
| the lens shows nothing | nothing is there | patch it |

The first line has a common case. A head's weights sum to 1 at every position, whether it has something to do there or
not. Heads of larger models often rest on the first token of a text, whatever it is: an **attention sink** (Xiao et al.
2023, arXiv 2309.17453).

## Summary

- Two operations, **record** and **replace**, make every method here. Recording shows what is there, only replacing
  shows what is used.
- The logit lens reads the stream with the model's own head; the KL to the output falls with depth. It is blind to notes
  that the head cannot read.
- Rollout multiplies attention through the layers, $R_l = (\tfrac12 I + \tfrac12 A_l)\,R_{l-1}$. It leaves out values
  and feed-forward networks, and can be led anywhere by heads that do nothing.
- Patching finds place and layer: in recall, the key moves to its value in block 0, and the value to the question in
  block 1.
- Induction heads continue what repeats; they need two layers, and a test needs periods that vary.
- A probe needs a control, and shows presence, not use.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are
folded below.
"""

# %% [markdown]
r"""
### Exercise 1: the distance of a layer (easy, core, 10 minutes)

`log_probs` $(L + 1, V)$ holds $\ln p_l$ for one position, the last row the model's own answer. Return
$\operatorname{KL}(p_L \,\|\, p_l)$ for each row, $L + 1$ numbers.
"""


# %% tags=["exercise"]
def distance_to_output(log_probs):
    return None


with check():
    r = np.random.default_rng(1)
    z = r.standard_normal((4, 7)) * [[0.5], [1], [2], [2]]
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    answer = distance_to_output(log_p.copy())
    assert answer is not None, "distance_to_output returns nothing yet: return L + 1 numbers."
    answer = np.asarray(as_plain(answer), dtype=float)
    assert answer.shape == (4,), f"Return one number for each of the 4 rows, not an array of shape {answer.shape}."
    P = np.exp(log_p)
    wanted = (P[-1] * (log_p[-1] - log_p)).sum(axis=1)
    assert not np.allclose(answer, -wanted), "The sign: a divergence is never below 0."
    assert not np.allclose(answer, (P * (log_p - log_p[-1])).sum(axis=1)), (
        "That is KL(p_l ‖ p_L): the other way round. The tokens are drawn from the output."
    )
    assert not np.allclose(answer, -(P[-1] * log_p).sum(axis=1)), (
        "That is the cross-entropy: subtract the output's own entropy, so that the last row gets 0."
    )
    assert not np.allclose(answer, wanted / np.log(2)), "These are bits; the formula has the natural logarithm."
    assert not np.allclose(answer, wanted / 7), "A sum over the vocabulary, weighted by p_L, is no mean of V numbers."
    assert np.allclose(answer, wanted), "Not the sum of p_L(w) · (ln p_L(w) − ln p_l(w)) over all tokens w."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def distance_to_output(log_probs):
    last = log_probs[-1]  # (V,)
    return (np.exp(last) * (last - log_probs)).sum(axis=1)
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: rollout (medium, useful, 15 minutes)

`attention` $(L, H, T, T)$ holds the weights of $L$ layers, the first block's first. Return the rollout after the last
layer, $(T, T)$: row $t$ says how much of each input is in position $t$. Use `for`, not the library's function.
"""


# %% tags=["exercise"]
def roll_out(attention):
    return None


with check():
    r = np.random.default_rng(2)
    A = np.exp(2 * r.standard_normal((3, 2, 5, 5))) * np.tri(5)
    A /= A.sum(axis=-1, keepdims=True)
    answer = roll_out(A.copy())
    assert answer is not None, "roll_out returns nothing yet: return a (T, T) array."
    answer = np.asarray(as_plain(answer), dtype=float)
    assert answer.shape == (5, 5), f"Return the last layer's rollout, (T, T) = (5, 5), not {answer.shape}."
    half = 0.5 * np.eye(5) + 0.5 * A.mean(axis=1)
    assert not np.allclose(answer, half[0] @ half[1] @ half[2]), (
        "The order: what a later layer mixes are positions that the earlier layers mixed already. R = Ã_l R."
    )
    M = A.mean(axis=1)
    assert not np.allclose(answer, M[2] @ M[1] @ M[0]), "The residual is missing: half of each position is its own."
    assert not np.allclose(answer, half.mean(axis=0)), "That is a mean of the layers; multiply them."
    assert np.allclose(answer.sum(axis=1), 1), (
        f"Rows must sum to 1; yours sum to {answer.sum(axis=1).round(2).tolist()}: half its own, half the mean head."
    )
    assert np.allclose(answer, half[2] @ half[1] @ half[0]), (
        "Rows sum to 1, but the shares differ: each layer is ½ I + ½ the mean over its heads, the first one rightmost."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def roll_out(attention):
    T = attention.shape[-1]
    rolled = np.eye(T)
    for layer in attention:  # (H, T, T)
        rolled = (0.5 * np.eye(T) + 0.5 * layer.mean(axis=0)) @ rolled
    return rolled
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: where an induction head looks (medium, core, 15 minutes)

For one row of `ids` $(T)$, return a mask $(T, T)$: True at $(t, s)$ if an induction head at $t$ should look at $s$.
That is, $s \le t$, and the token *before* $s$ is the token at $t$.
"""


# %% tags=["exercise"]
def behind_earlier(ids):
    return None


with check():
    row_ = np.array([3, 5, 7, 3, 5, 5, 3])
    answer = behind_earlier(row_.copy())
    assert answer is not None, "behind_earlier returns nothing yet: return a (T, T) mask."
    answer = as_mask(answer)
    assert answer.shape == (7, 7), f"The mask has a row for each position that looks: (7, 7), not {answer.shape}."
    wanted = what_followed(row_[None])[0]
    same_token = (row_[:, None] == row_[None]) & np.tri(7, k=-1, dtype=bool)
    assert not np.array_equal(answer, same_token), (
        "You mark the earlier occurrences themselves. What should be copied stands one behind them."
    )
    assert not np.triu(answer, 1).any(), "Nothing may be marked to the right of the position that looks."
    assert not answer[:, 0].any(), "Position 0 has no token before it: index −1 is the row's end."
    assert answer[5, 5], "At position 5 (token 5), position 5 itself stands behind a 5: s = t counts."
    assert answer[6].sum() == 2, "At position 6 (token 3), both 1 and 4 stand behind a 3: all earlier ones count."
    assert np.array_equal(answer, wanted), "Not right: (t, s) is True if s ≤ t, s ≥ 1 and ids[s − 1] equals ids[t]."
    for n in (1, 2, 12):
        more = np.random.default_rng(n).integers(0, 4, n)
        assert np.array_equal(as_mask(behind_earlier(more)), what_followed(more[None])[0]), f"Wrong for the row {more}."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def behind_earlier(ids):
    T = len(ids)
    mask = np.zeros((T, T), dtype=bool)
    for t in range(T):
        for s in range(1, t + 1):
            mask[t, s] = ids[s - 1] == ids[t]
    return mask
```

</details>
"""

# %% [markdown]
r"""
### Exercise 4: a control task (medium, useful, 15 minutes)

Make the labels of a control task: for `ids` $(N)$ and the true `labels` $(N)$, return $N$ labels such that all
positions with one id have **one** label, drawn for that id by `rng.choice(labels)`, so that labels are about as
frequent as the true ones.
"""


# %% tags=["exercise"]
def control_task(ids, labels, rng):
    return None


with check():
    r = np.random.default_rng(3)
    ids_ = r.integers(100, 900, 3000)
    labels_ = (r.random(3000) < 0.2).astype(int) * 3
    answer = control_task(ids_.copy(), labels_.copy(), np.random.default_rng(0))
    assert answer is not None, "control_task returns nothing yet: return a label for each position."
    answer = np.asarray(as_plain(answer))
    assert answer.shape == (3000,), f"Return one label for each of the 3000 positions, not {answer.shape}."
    assert set(answer.tolist()) <= {0, 3}, "A label that is none of the true ones: draw from `labels`."
    by_id = {i: set(answer[ids_ == i].tolist()) for i in np.unique(ids_)}
    assert all(len(found_) == 1 for found_ in by_id.values()), (
        "An id has two labels in different places. Draw once for each id, not for each position."
    )
    assert len(set(answer.tolist())) == 2, "All ids have the same label: draw anew for each id."
    share = np.mean([3 in found_ for found_ in by_id.values()])
    assert share < 0.35, f"{100 * share:.0f}% of the ids have label 3, of the true labels 20%: draw from `labels`."
    assert share > 0.08, "Label 3 is too rare: is it each id's most frequent label? Nothing may be true in a control."
    again = np.asarray(as_plain(control_task(ids_, labels_, np.random.default_rng(1))))
    assert not np.array_equal(again, answer), "Another generator gives the same labels: use `rng`."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def control_task(ids, labels, rng):
    drawn = {i: rng.choice(labels) for i in np.unique(ids)}
    return np.array([drawn[i] for i in ids])
```

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** The lens at the question shows noise after block 0. Somebody concludes that block 0 can be left out. What do you
answer?

<details><summary>Answer</summary>

That the lens reads only what is written for the head. Replace block 0's output and see: here, all is lost.

</details>

**2.** Why does patching after the last block win everything back at the last position, in any model?

<details><summary>Answer</summary>

Only norm and head come after it, and they treat each position alone: whoever puts in the last position's vector has put
in the answer. It teaches nothing; the steps before it do.

</details>

**3.** Why can one layer not do induction, however many heads it has?

<details><summary>Answer</summary>

In the first layer, a key says what stands at its own position and where; it does not know the token before. So "what
stands behind a token like mine" cannot be asked for before another layer has noted it there.

</details>

**4.** A probe finds a property with 97%, its control task gets 96%. What is known?

<details><summary>Answer</summary>

That a probe this strong can learn nearly any labelling of the tokens by heart. Whether the model knows the property is
open.

</details>

**5.** A head puts 90% of its attention on the first token of every text. Is the first token important?

<details><summary>Answer</summary>

Probably not: its weights must sum to 1 somewhere, and a head with nothing to do rests there. Change the token and see.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now record and replace, read layers, find where an answer is made, and doubt a picture.

**What you take along**: the small models whose algorithm you know, in the folder that
`minillm.workshop.deliverables.small_insides(SCALE)` names, in the format of Hugging Face (each is opened by
`minillm.AutoModelForCausalLM`), and `minillm.interpret`, which works on every model of the course, on yours, and on one
from the hub. What a model has learned by heart from its text, and should not say, is the next chapter's question:
[19 · Privacy, bias and misuse](19_privacy_bias_misuse.ipynb).
"""
