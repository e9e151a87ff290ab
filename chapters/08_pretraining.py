# %% [markdown]
r"""
# 08 · Pretraining

A new GPT is a large array of random numbers. **Pretraining** turns it into a language model: show it text, measure how
surprised it was, move every number a little, and repeat that some hundred to some million times. The model is the same
in a good run and in a bad one; what differs is how the numbers are moved. This chapter is about that.

**Afterwards you can** derive AdamW and say what each of its lines is for; choose learning rate, warmup and schedule;
clip and accumulate without changing what is learned; say where 16-bit numbers fail and what is done about it; tell a
sick run from a healthy one by its curves; fit a scaling law and say how far to trust it; and train a model that
completes Python with the library's own command.

**You need** [02 · Tensors and autograd](02_autograd.ipynb), [03 · Text into tokens](03_tokens.ipynb),
[04 · Collecting and cleaning text](04_collecting_and_cleaning_text.ipynb) (whose corpus is used here), and from
[07 · The Transformer](07_the_transformer.ipynb) what a GPT is made of.
"""

# %%
import tempfile
from pathlib import Path

import numpy as np
from minillm import nn
from minillm.data import corpus_text
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.sgd import SGD
from minillm.engines.threads import Replicas
from minillm.generate import Sampling, stream_text
from minillm.hub.checkpoint import load_model_and_tokenizer
from minillm.models.gpt import GPT, GPTConfig
from minillm.optim import AdamW, clip_grad_norm_, param_groups
from minillm.settings import TrainConfig
from minillm.tensor import no_grad
from minillm.tokenizers import BPETokenizer
from minillm.training import schedules
from minillm.training.baselines import NGramModel, xz_bits_per_byte
from minillm.training.evaluate import evaluate
from minillm.training.health import examine
from minillm.training.pretrain import DataConfig, packed, read_config
from minillm.training.text import TextData
from minillm.training.train import train as library_train
from minillm.workshop import (
    as_plain,
    check,
    progress,
    read_scale,
    show_versions,
    type_into_debugger,
)
from minillm.workshop import pretraining as lab
from minillm.workshop import pretraining_pictures as pictures
from minillm.workshop.deliverables import corpus, python_model, python_sections

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
STEPS = {"smoke": 10, "cpu": 150, "gpu": 600}[SCALE]  # of each small run
SEEDS = {"smoke": 1, "cpu": 3, "gpu": 5}[SCALE]  # random starts, wherever two ways are compared
WARMUP = max(2, STEPS // 10)
show_versions(SCALE)

# %% [markdown]
r"""
## One step, and a small laboratory

All of pretraining is one step, over and over. Grey is what chapters 03 and 04 explained, blue chapters 02 and 07;
orange is this chapter.
"""

# %%
pictures.draw_step()

# %% [markdown]
r"""
Most of what is to be seen here shows in a model so small that a run takes some seconds. So we set up a laboratory:
chapter 04's corpus of Python source, a vocabulary of only 512 tokens (so that a small model spends its numbers on
layers, not on a table), and a GPT of two layers and 32 features. At the end a larger one learns the same text
properly. (`lab` and `pictures`, imported above, are this chapter's bookkeeping and plotting; nothing of the idea is
in them.)

`random_windows` draws stretches of text at random: `ids`, what the model reads, and `targets`, what comes next at
every position; both are $(B, T)$, $B = 8$ texts of $T = 64$ tokens. The **held-out** loss is measured on files that
are never trained on, on the same windows each time. To have something to compare with: the loss of a "model" that
knows only how often each token occurs.
"""

# %%
text = corpus(SCALE, "code")
train_text, held_out_text = corpus_text(text, "train"), corpus_text(text, "val")
small = BPETokenizer.train([train_text], 512, pattern="gpt4")
train_ids, held_out_ids = (np.array(small.encode(t)) for t in (train_text, held_out_text))
VOCABULARY, CONTEXT, BATCH = small.vocab_size, 64, 8


def windows(ids, starts):
    """The stretches that begin at `starts` (B,), and what comes next: both (B, T)."""
    places = starts[:, None] + np.arange(CONTEXT)  # (B, T)
    return ids[places], ids[places + 1]


def random_windows(ids, rng):
    return windows(ids, rng.integers(0, len(ids) - CONTEXT - 1, BATCH))


LOOKED_AT = 12 if SCALE == "smoke" else 96  # windows
HELD_OUT = windows(
    held_out_ids, np.linspace(0, len(held_out_ids) - CONTEXT - 1, LOOKED_AT).astype(int)
)


def held_out_loss(model):
    with nn.evaluating(model), no_grad():
        return model(*HELD_OUT).item()


def new_model(seed, width=32, dropout=0.0):
    config = GPTConfig(VOCABULARY, CONTEXT, n_layers=2, n_heads=2, d_model=width, dropout=dropout)
    return GPT(config, rng=np.random.default_rng(seed))


# each token counted once more than it occurs, so that none has probability 0 (chapter 01)
frequency = (np.bincount(train_ids, minlength=VOCABULARY) + 1) / (len(train_ids) + VOCABULARY)
unigram = -np.log(frequency[HELD_OUT[1]]).mean()
print(f"{len(train_ids):,} tokens to learn from, {len(held_out_ids):,} held out")
print(f"{sum(p.data.size for p in new_model(0).parameters()):,} weights in the small model")
print(f"loss when all tokens are equally likely: ln {VOCABULARY} = {np.log(VOCABULARY):.2f}")
print(f"loss by how often each token occurs: {unigram:.2f}")
print(f"loss of a new model: {held_out_loss(new_model(0)):.2f}")

# %% [markdown]
r"""
## The loss, briefly

At each position the model gives **logits** $x_1 \dots x_V$, one number for each of the $V$ tokens, and softmax makes
probabilities of them, $p_j = e^{x_j}/\sum_k e^{x_k}$. The loss at the position is $\ell = -\ln p_c$, where $c$ is the
token that really came: the **cross-entropy**. Its slopes, which chapter [02](02_autograd.ipynb) derived, are short,

$$\frac{\partial \ell}{\partial x_j} = p_j - [j = c],$$

where $[j = c]$ is 1 for the token that came and 0 else: a step against the slope pushes the logit of what came up, by
as much as $p_c$ falls short of 1, and each other one down, by the probability that it had wrongly. The loss $L$ of a
batch is the **mean** over its $N$ targets, so that each of these slopes is divided by $N = BT$. (A target of −100 is
left out and not counted; that will matter.) $e^L$ is the **perplexity**: as if the model chose among that many
equally likely tokens. We check the formula against the library's gradient of the logits' last ingredient, the token
table: in a GPT the logits are $H E^\top$, with the features $H\,(N, D)$ and the table $E\,(V, D)$.
"""

# %%
model = new_model(0)
ids, targets = random_windows(train_ids, np.random.default_rng(0))
features = (
    model.hidden(ids).detach().reshape(-1, 32)
)  # H: (N, D), as a constant: no gradient goes further back
logits = model.logits(features)  # (N, V)
p = np.exp(logits.data - logits.data.max(axis=1, keepdims=True))
p /= p.sum(axis=1, keepdims=True)  # (N, V)
loss_by_hand = -np.log(p[np.arange(p.shape[0]), targets.ravel()]).mean()
slopes = (p - np.eye(VOCABULARY)[targets.ravel()]) / targets.size  # dL/dx: (N, V)

loss = model.loss(features, targets.ravel())
loss.backward()
table = model.token_embedding.weight
gap = np.abs(slopes.T @ features.data - table.grad).max() / np.abs(table.grad).max()
print(
    f"loss by hand {loss_by_hand:.4f}, library {loss.item():.4f}, perplexity {np.exp(loss_by_hand):.0f}"
)
print(f"gradient of the table: largest gap {gap:.0e} of the largest entry")
assert np.isclose(loss_by_hand, loss.item(), rtol=1e-5) and gap < 1e-4

# %% [markdown]
r"""
## From gradient descent to AdamW

Let $w$ be all weights as one long vector and $g_t$ the gradient of the loss on the batch of step $t = 1, 2, \dots$, of
the same shape. **Stochastic gradient descent** (SGD) steps against it, $w \leftarrow w - \eta\, g_t$, with the
**learning rate** $\eta$; "stochastic", since each batch is a random sample of the text.

**Its weak spot: a ravine.** Take a loss with two weights, $L = \frac12(h_1 w_1^2 + h_2 w_2^2)$. Its slopes are
$h_i w_i$, so one step multiplies $w_i$ by $1 - \eta h_i$. The steep direction, say $h_2 = 1$, only gets smaller if
$|1 - \eta h_2| < 1$, that is $\eta < 2/h_2$; beyond that it jumps from wall to wall, higher each time. The flat one,
$h_1 = 0.01$, shrinks by $1 - 0.01\,\eta$, at most 2% a step. The steepest direction dictates the rate, the flattest one
pays for it. A network has thousands of directions, and their slopes differ by factors of thousands.

**Momentum** keeps a running sum of gradients, $b \leftarrow \mu b + g_t$, and steps along it,
$w \leftarrow w - \eta\,b$, with $\mu = 0.9$, say. Where gradients agree, the sum grows to
$g(1 + \mu + \mu^2 + \dots) = g/(1-\mu)$, ten times one gradient for $\mu = 0.9$; where they change sign, they cancel.
So momentum runs up to ten times as fast along the ravine's floor.

**A scale for each weight.** Better than to run faster along the floor would be to have no ravine: divide each weight's
step by how large *its own* gradients usually are. That is Adam (Kingma & Ba 2015, arXiv 1412.6980). It keeps two
running means for each weight, of the gradient and of its square (all products element by element):

$$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2,$$

both of the shape of $w$, and steps by $\eta\, m_t/\sqrt{v_t}$. Multiply all gradients of a weight by 1000: $m$ and
$\sqrt v$ both grow by 1000, and the step stays. So the step does not depend on the gradient's size at all, but on how
consistent it is: $|m|/\sqrt v$ is 1 if the gradients are always the same, and small if their signs are random (then
$m$ is a mean of about $(1+\beta_1)/(1-\beta_1)$ independent gradients, so about $\sqrt{(1-\beta_1)/(1+\beta_1)}$ of
their size, 0.23 for $\beta_1 = 0.9$). **Each weight moves by about $\eta$ a step, at most.** The learning rate has
become a length.

**The start.** Both means begin at 0. Written out, $m_t = (1-\beta_1)\sum_{i=1}^t \beta_1^{t-i} g_i$. If the $g_i$ have
the mean $\bar g$, then $m_t$ has the mean $\bar g\,(1-\beta_1)\sum_{i=1}^{t}\beta_1^{t-i} = \bar g\,(1-\beta_1^t)$, by
the sum of a geometric series: too small by the factor $1 - \beta_1^t$. The same holds for $v$ and $\beta_2$. So divide:

$$\hat m_t = \frac{m_t}{1-\beta_1^t}, \qquad \hat v_t = \frac{v_t}{1-\beta_2^t}, \qquad
w \leftarrow w - \eta\,\frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon},$$

with a tiny $\epsilon$ against division by 0. At $t = 1$ this gives $\hat m = g_1$ and $\hat v = g_1^2$: the first step
is $\eta$ in each weight, up or down, whatever its gradient. Remember that; it will hurt.

Here are the three in the ravine, SGD with a learning rate near the highest possible, momentum with the same and
$\mu = 0.7$. The noise of batches is left out.
"""

# %%
curvature = np.array([0.01, 1.0])  # h: flat, steep
start = np.array([-9.0, 1.0])


def descend(move, steps=60):
    w, memory, path = start, (np.zeros(2), np.zeros(2)), [start]
    for t in range(1, steps + 1):
        w, memory = move(w, curvature * w, memory, t)
        path.append(w)
    return np.array(path)  # (steps + 1, 2)


def sgd(w, g, memory, t):
    return w - 1.8 * g, memory


def momentum(w, g, memory, t):
    b = 0.7 * memory[0] + g
    return w - 1.8 * b, (b, None)


def adam(w, g, memory, t, lr=0.4, beta1=0.9, beta2=0.95):
    m = beta1 * memory[0] + (1 - beta1) * g
    v = beta2 * memory[1] + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return w - lr * m_hat / (np.sqrt(v_hat) + 1e-8), (m, v)


paths = {"SGD": descend(sgd), "momentum": descend(momentum), "Adam": descend(adam)}
to_the_floor = {name: int(np.argmax(path[:, 0] > -0.9)) for name, path in paths.items()}
print("steps until the flat weight has done nine tenths of its way (0: not yet):", to_the_floor)
first = np.abs(paths["Adam"][1] - start)
print(f"Adam's first step: {first[0]:.2f} in the flat direction, {first[1]:.2f} in the steep one")
assert np.allclose(first, 0.4) and to_the_floor["Adam"] > 0 and to_the_floor["SGD"] == 0
pictures.plot_paths(paths, curvature)

# %% [markdown]
r"""
SGD zigzags and creeps. Momentum goes faster along the floor. Adam's first step is equally long in both directions,
although one gradient is about ten times the other: it does not see the ravine. At the end it runs past the minimum
and circles, and momentum ends with the lower loss (right): at a constant rate Adam's steps do not get shorter as the
gradient does. Schedules will take care of that.

**Weight decay.** To keep weights small, one pulls each towards 0 a little in each step. In SGD one adds $\lambda w$ to
the gradient, the slope of $\frac\lambda2 w^2$. In Adam this would go wrong: the pull, too, would be divided by
$\sqrt v$, and a weight with large gradients would hardly be pulled. AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101)
**decouples** it: $w \leftarrow w - \eta\lambda w$, apart from the gradient. Only matrices are decayed, not biases,
gains of norms or embeddings (`minillm.optim.param_groups` says why).

That is all of AdamW. We train a model with our own function, and the same model with `minillm.optim.AdamW`, both in
float64 (so that rounding does not hide a mistake), and compare all weights.
"""


# %%
def adamw_step(w, g, m, v, t, lr, decay, beta1=0.9, beta2=0.95, eps=1e-8):
    """One step for one array; all arrays have its shape. t = 1 for the first."""
    w = w - lr * decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return w - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


ours, theirs = (new_model(0).to(np.float64) for _ in range(2))
optimizer = AdamW(theirs.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
means = [(np.zeros_like(p.data), np.zeros_like(p.data)) for p in ours.parameters()]  # m, v
rng = np.random.default_rng(0)
for t in range(1, 6 if SCALE == "smoke" else 21):
    batch = random_windows(train_ids, rng)
    for model in (ours, theirs):
        for p in model.parameters():
            p.grad = None
        model(*batch).backward()
    optimizer.step()
    for i, p in enumerate(ours.parameters()):
        p.data[...], *means[i] = adamw_step(p.data, p.grad, *means[i], t, lr=3e-3, decay=0.1)

gap = max(np.abs(a.data - b.data).max() for a, b in zip(ours.parameters(), theirs.parameters()))
print(
    f"after {t} steps the largest gap between {sum(p.data.size for p in ours.parameters()):,} weights is {gap:.0e}"
)
assert gap < 1e-10

# %% [markdown]
r"""
## The training loop

Here is all that the orange boxes do, in a loop that this chapter uses for every small run. `schedule` gives a factor
on the learning rate for each step; the default warms up and then falls along a cosine to a tenth. The options behind
it are for the experiments to come. `run` notes what we want to look at: losses, the norm of the gradients, and by
what part of its size a certain matrix was moved (the first of the two in the first layer's feed-forward part).
"""


# %%
def adamw(model):
    return AdamW(param_groups(model, weight_decay=0.1), betas=(0.9, 0.95))


def sgd_momentum(model):
    return SGD(model.parameters(), momentum=0.9)


def train(
    seed, steps=STEPS, lr=6e-3, schedule=schedules.cosine, warmup=WARMUP, clip=1.0, optimizer=adamw, ids=train_ids,
    model=None, change_batch=None, look_every=None,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    model = (new_model(seed) if model is None else model).train()  # dropout on, if there is any
    run = lab.Run(model, optimizer(model))
    for step in range(steps):
        inputs, targets = random_windows(ids, rng)
        if change_batch is not None:
            inputs, targets = change_batch(step, inputs, targets)
        loss = model(inputs, targets)  # forward: the mean cross-entropy
        run.optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(model.parameters(), clip)
        for group in run.optimizer.param_groups:
            group["lr"] = lr * schedule(step, steps, warmup, 0.1)
        run.before_step()
        run.optimizer.step()
        run.after_step(loss.item(), norm)
        if step == steps - 1 or (look_every and (step + 1) % look_every == 0):
            run.val.append((step + 1, held_out_loss(model)))
    return run


def train_seeds(title, **options):
    return [train(seed, **options) for seed in progress(range(SEEDS), title)]


healthy = train_seeds("healthy runs", look_every=STEPS // 6)
print(
    f"held-out loss after {STEPS} steps: {lab.mean_sd(run.final for run in healthy)} ({SEEDS} seeds)"
)
print(f"by how often each token occurs: {unigram:.3f}")
if SCALE != "smoke":
    assert max(run.final for run in healthy) < unigram - 0.3

# %% [markdown]
r"""
## AdamW, watched

What do its means look like at the end of such a run? For each matrix we look at three root mean squares: of its
gradients, $\sqrt{\hat v}$; of the step that AdamW would take with $\eta = 1$, $\hat m/\sqrt{\hat v}$; and of that step
over the weights. `state_dict` gives $m$ and $v$ by name.
"""


# %%
def inside_adamw(run):
    """For each matrix, root mean squares: √v̂, |m̂| / √v̂, and that over the weights."""
    names = {id(p): name for name, p in run.model.named_parameters()}
    state = run.optimizer.state_dict(names)
    rows = {}
    for name, p in run.model.named_parameters():
        if p.ndim == 2:
            m_hat = state[f"{name}.exp_avg"] / (1 - 0.9**STEPS)
            v_hat = state[f"{name}.exp_avg_sq"] / (1 - 0.95**STEPS)
            step = lab.rms(m_hat / (np.sqrt(v_hat) + 1e-8))  # for a learning rate of 1
            rows[name] = (lab.rms(np.sqrt(v_hat)), step, step / lab.rms(p.data))
    return rows


rows = inside_adamw(healthy[0])
gradient, step, _ = np.array(list(rows.values())).T  # one number for each matrix
spread = gradient.max() / gradient.min(), step.max() / step.min()
print(
    f"between the matrices gradients differ {spread[0]:.0f}-fold, AdamW's steps {spread[1]:.1f}-fold"
)
if SCALE != "smoke":
    assert spread[0] > 2 * spread[1] and step.max() < 1
pictures.plot_matrices(rows)

# %% [markdown]
r"""
SGD has one learning rate for gradients that differ that much between the matrices. AdamW's steps differ far less. And
none comes near $\eta$: in the middle picture all are well below 1, for the gradients of a weight mostly contradict each
other from batch to batch: it is about the size of step that random signs give. The right picture, times $\eta$, is by
what part of itself a step moves a matrix; with the rate of these runs, some hundredths at most.

Does it matter? SGD with momentum against AdamW, each at three learning rates: one run each to choose the rate, then
more seeds for the best. (All with warmup, cosine and clipping.)
"""

# %%
rates = {"SGD, momentum": (0.3, 1.0, 3.0), "AdamW": (2e-3, 6e-3, 2e-2)}
makers = {"SGD, momentum": sgd_momentum, "AdamW": adamw}
swept, best = {}, {"AdamW": healthy}
for name in rates:
    swept[name] = {
        lr: healthy[0] if (name, lr) == ("AdamW", 6e-3) else train(0, lr=lr, optimizer=makers[name])
        for lr in progress(rates[name], name)
    }
chosen = min(rates["SGD, momentum"], key=lambda lr: swept["SGD, momentum"][lr].final)
more = [train(seed, lr=chosen, optimizer=sgd_momentum) for seed in range(1, SEEDS)]
best["SGD, momentum"] = [swept["SGD, momentum"][chosen], *more]

for name, runs in best.items():
    print(f"{name:14s} held-out loss {lab.mean_sd(run.final for run in runs)}")
if SCALE != "smoke":
    assert max(run.final for run in best["AdamW"]) < min(run.final for run in best["SGD, momentum"])
    assert min(swept["AdamW"][lr].final for lr in (2e-3, 2e-2)) > swept["AdamW"][6e-3].final + 0.1
pictures.plot_sweep(swept, best, unigram)

# %% [markdown]
r"""
During the warmup SGD is ahead; then AdamW passes it, and at the end AdamW is ahead at every seed. And the learning rate
is the number that matters most: a rate three times too high costs AdamW a good part of its lead, one three times too
low all of it, and SGD breaks down at three times its best.

## Schedules

**Why warm up?** At $t = 1$ Adam moves every weight by the full $\eta$, and for some steps $v$ rests on a handful of
batches. A new model's matrices have a standard deviation of 0.02; with $\eta = 0.006$ the first step alone changes them
by a large part of their size, in a direction that one batch chose. So the rate climbs from near 0 over the first steps.

**Why fall?** A batch's gradient is the text's gradient plus noise. Far from the goal the first matters; near it the
steps are mostly noise, and a constant rate keeps the weights dancing around. A falling rate lets them settle. It has
a price: what is spent on settling is not spent on getting on. With $f_0$ the factor at the end, $s$ the step, $w$ the
warmup and $S$ the steps in all, `minillm.training.schedules` has

- **linear**: $1 + (f_0 - 1)\,u$, with $u = (s - w)/(S - 1 - w)$ from 0 to 1 after the warmup;
- **cosine**: $f_0 + (1 - f_0)\,\frac12(1 + \cos \pi u)$: slow at both ends;
- **wsd** (warmup, stable, decay): constant, then linear over the last fifth.

We train with four: three with warmup, and the cosine without.
"""

# %%
kinds = {
    "constant": {"schedule": schedules.constant},
    "wsd": {"schedule": schedules.wsd},
    "cosine": {},
    "cosine, no warmup": {"warmup": 0},
}
scheduled = {"cosine": healthy}
for name, options in kinds.items():
    if name != "cosine":
        scheduled[name] = train_seeds(name, **options)
scheduled = {name: scheduled[name] for name in kinds}

factors = {
    name: [
        options.get("schedule", schedules.cosine)(s, STEPS, options.get("warmup", WARMUP), 0.1)
        for s in range(STEPS)
    ]
    for name, options in kinds.items()
}
settled = [a.final - b.final for a, b in zip(scheduled["constant"], scheduled["wsd"])]
for name, runs in scheduled.items():
    first, norm = np.mean([run.moved[0] for run in runs]), np.max([run.norm for run in runs])
    print(f"{name:18s} held-out loss {lab.mean_sd(run.final for run in runs)};", end=" ")
    print(
        f"the first step moved the matrix by {100 * first:.0f}%, largest gradient norm {norm:.0f}"
    )
print(
    f"seed by seed, wsd ends lower than constant by {', '.join(f'{gain:.3f}' for gain in settled)}"
)
if SCALE != "smoke":
    final = {name: np.mean([run.final for run in runs]) for name, runs in scheduled.items()}
    assert final["constant"] < final["cosine"] < final["cosine, no warmup"]
    assert abs(np.mean(settled)) < 0.05  # level
pictures.plot_schedules(factors, scheduled)

# %% [markdown]
r"""
**Warmup.** Without it the loss falls faster at first, as longer steps make it. But the first step has changed the
matrix by a large part of its size, in a direction that one batch chose. Most starts get over that and end where those
with warmup do; one does not and ends far above all others, though in the first steps (middle picture) nothing tells it
apart. So what one warms up against is a risk, not a sure loss, and a few steps are a small price.

**The fall.** The constant rate and `wsd` are the same run, step for step and batch for batch, until the last fifth; so
they compare best, seed by seed. They end nearly level: settling gains here a little more than is lost in getting on,
and not from every seed. The cosine, which begins to settle early, comes last of the three: these runs are so short that
they still have far to go when the rate falls. In longer runs less is to be gained by going on, and a fall pays. Three
times as many steps are enough to see it: try `train(seed, steps=3 * STEPS, warmup=WARMUP, schedule=schedules.wsd)`
beside the same with `schedules.constant`. (The library's default is the cosine.)

## Clipping

The gradient of one unlucky batch can be many times the usual one. **Clipping** limits its length: with the norm
$\|g\| = \sqrt{\sum g_i^2}$ over *all* weights together and a limit $c$,

$$g \leftarrow g\cdot\min\Big(1, \frac{c}{\|g\|}\Big).$$

One factor for all, so that the direction stays. (Clipping each array, or each entry, by itself would change it.) What
does it prevent? We make the bad batch ourselves: at two thirds of the run, a batch that holds one single token over and
over, as from a file full of zeros. Then we look at the loss right after it and at the end, with the limit and without,
for both optimizers.
"""

# %%
BAD = 2 * STEPS // 3


def one_token_only(step, inputs, targets):
    return (
        (np.full_like(inputs, 300), np.full_like(targets, 300))
        if step == BAD
        else (inputs, targets)
    )


hit = {}
for name, lr in (("SGD, momentum", 0.3), ("AdamW", 6e-3)):
    for clip in (1.0, np.inf):
        options = {"lr": lr, "optimizer": makers[name], "clip": clip}
        options |= {"schedule": schedules.constant, "change_batch": one_token_only}
        hit[name, clip] = train_seeds(f"{name}, {clip}", **options)

for (name, clip), runs in hit.items():
    usual, worst = np.median([run.norm for run in runs]), np.max([run.norm[:BAD] for run in runs])
    print(
        f"{name:13s} clip {clip:3g}: gradient norm usually {usual:.2f}, at most {worst:.1f} before,",
        end=" ",
    )
    print(f"{np.mean([run.norm[BAD] for run in runs]):.1f} at the bad batch;", end=" ")
    print(f"held out at the end {lab.mean_sd(run.final for run in runs)}")
print(f"(1 − β₁) / √(1 − β₂) = {(1 - 0.9) / np.sqrt(1 - 0.95):.2f}")
if SCALE != "smoke":
    for name in ("SGD, momentum", "AdamW"):
        pairs = zip(hit[name, 1.0], hit[name, np.inf])
        assert all(clipped.final < other.final for clipped, other in pairs)
pictures.plot_bad_batch(hit, BAD)

# %% [markdown]
r"""
SGD's step is as long as the gradient, and momentum goes on along it for ten more steps: without a limit, the bad batch
throws the weights off, and at the end the run has not made up for it. Clipped, the same batch leaves hardly a trace.

AdamW takes the batch more calmly, for it has a limit of its own: the bad gradient is in $v$, too. If it is $k$ times
the usual size and $k$ is large, then $\hat m$ becomes about $1-\beta_1$ of it and $\sqrt{\hat v}$ about
$\sqrt{1-\beta_2}$ of it, and their quotient is the number printed last, however large $k$. Still, clipping helps it at
every seed. A likely reason: what is let in stays in $v$ for about $1/(1 - \beta_2)$ steps, in which all other gradients
are divided by it.

## Accumulation, and the mean of means

A batch that does not fit into memory is cut into **micro-batches**; their gradients are added up before one step. For
the same step as with the whole batch, the sum has to be that of the whole: $L = \frac1N\sum_{i=1}^N \ell_i$ over *all*
$N$ targets. It is tempting to let each micro-batch compute its own mean loss and to average those. With micro-batches
$k = 1\dots K$ of $n_k$ targets,

$$\frac1K\sum_k \frac1{n_k}\sum_{i\in k} \ell_i \;\ne\; \frac{1}{N}\sum_k\sum_{i\in k}\ell_i
\qquad\text{unless all } n_k \text{ are equal.}$$

On the left a target of micro-batch $k$ weighs $1/(K n_k)$, on the right $1/N$. When texts have different lengths, and
short ones are filled up with padding whose targets are −100, the $n_k$ differ. We cut a batch in two and leave fewer
and fewer targets to the second half.
"""

# %%
model = new_model(0)
inputs, whole = random_windows(train_ids, np.random.default_rng(3))  # (8, 64) each


def gradient_of(loss):
    for p in model.parameters():
        p.grad = None
    loss.backward()
    return np.concatenate([p.grad.ravel() for p in model.parameters()])


weights, errors, library = [], [], []
kept = [64, 32, 16, 8, 4, 2]  # targets in each row of the second half
for n in kept:
    targets = whole.copy()
    targets[4:, n:] = -100  # padding: not counted
    halves = [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]
    right = gradient_of(model(inputs, targets))  # the whole batch at once
    mean_of_means = np.mean([gradient_of(model(*half)) for half in halves], axis=0)
    engine = NumpyEngine(model, TrainConfig())
    engine.forward_backward(halves)  # what the library does with micro-batches
    accumulated = np.concatenate([p.grad.ravel() for p in model.parameters()])
    weights.append([(4 * 64 + 4 * n) / (2 * 4 * 64), (4 * 64 + 4 * n) / (2 * 4 * n)])
    errors.append(np.linalg.norm(mean_of_means - right) / np.linalg.norm(right))
    library.append(np.linalg.norm(accumulated - right) / np.linalg.norm(right))

print(
    f"equal halves: mean of means off by {100 * errors[0]:.4f}%; {kept[-1]} of 64: by {100 * errors[-1]:.0f}%",
    end=" ",
)
print(f"(a target there weighs {weights[-1][1]:.0f} times its share)")
print(f"library: off by at most {100 * max(library):.4f}%")
assert max(library) < 1e-4 and errors[0] < 1e-4 and np.all(np.diff(errors) > 0) and errors[-1] > 0.2
pictures.plot_mean_of_means(kept, weights, errors, library)

# %% [markdown]
r"""
The mistake raises no error, the run trains, and the loss looks plausible: the tokens of short texts just count more
than those of long ones. `minillm.engines.numpy_engine.NumpyEngine.forward_backward` counts the targets of all
micro-batches first, lets each give the *sum* of its losses, and divides by the count of all. The same holds for several
processes, each of which has a part of the batch (chapter 17).

## Dropout: for when the text is short

**Dropout** (Srivastava et al. 2014) sets each feature to 0 with probability $p$ while training, and divides the
others by $1 - p$, so that the sum stays the same on average. No feature can rely on another being there. In use all
features are there: `model.train()` and `model.eval()` switch it on and off, and forgetting `eval()` means to measure
a model with parts missing.

Does it help? That depends on how often the text is seen. One pass over the text, an **epoch**, brings new text all the
time, and there is nothing to learn by heart. So we try both: all of the text, of which these runs see a small part, and
a short one, seen many times over.
"""

# %%
TEXTS = {"all text": train_ids, "short text": train_ids[:5000]}
LENGTHS = {"all text": STEPS, "short text": 2 * STEPS}  # steps
cases = {
    ("all text", 0.0): healthy,
    ("all text", 0.2): [],
    ("short text", 0.0): [],
    ("short text", 0.2): [],
}
for (name, p), runs in list(cases.items())[1:]:  # the first are there already
    for seed in progress(range(SEEDS), f"{name}, dropout {p}"):
        options = {"ids": TEXTS[name], "steps": LENGTHS[name], "look_every": LENGTHS[name] // 6}
        runs.append(train(seed, model=new_model(seed, dropout=p), **options))

at_end, lowest = {}, {}
for case, runs in cases.items():
    at_end[case] = [run.final for run in runs]
    lowest[case] = [min(loss for _, loss in run.val) for run in runs]
    train_loss = np.mean([np.mean(run.loss[-20:]) for run in runs])
    print(f"{case[0]:10s} dropout {case[1]}: training loss {train_loss:.2f};", end=" ")
    print(
        f"held out {lab.mean_sd(at_end[case])} at the end, {lab.mean_sd(lowest[case])} at its best"
    )
if SCALE != "smoke":
    assert min(at_end["short text", 0.0]) > max(at_end["short text", 0.2])
    assert np.mean(at_end["all text", 0.0]) < np.mean(at_end["all text", 0.2])
epochs = {name: LENGTHS[name] * BATCH * CONTEXT / len(TEXTS[name]) for name in TEXTS}
pictures.plot_dropout(cases, epochs)

# %% [markdown]
r"""
On text that is new all the time dropout only costs: a part of the model is missing in every step, and it learns more
slowly. (Its training loss is measured with that part missing, too.) On the short text both learn it by heart: the
training loss goes on falling while the held-out loss turns and climbs; that is **overfitting**. With dropout it climbs
later and less. But compare the lowest points: there it gains nothing; what is between them is about as much as the
seeds scatter. Whoever stops in time (`patience` in the library's settings) needs it less; it is a matter of trying.
Today's large models read so much text that most are pretrained without.
"""

# %% [markdown]
r"""
## Sixteen bits

Graphics cards multiply 16-bit numbers several times as fast as 32-bit ones, and 16 bits need half the memory. **Mixed
precision** computes forward and backward in 16 bits and keeps the weights in 32. Two formats, both written as a sign,
an exponent (which power of 2) and a mantissa (the digits after the leading 1):

| format | exponent | mantissa | largest | smallest above 0 | neighbours differ by |
| --- | --- | --- | --- | --- | --- |
| fp32 | 8 bits | 23 bits | 3·10³⁸ | 10⁻⁴⁵ | one part in 8 million |
| fp16 | 5 bits | 10 bits | 65504 | 6·10⁻⁸ = 2⁻²⁴ | one part in 1000 |
| bf16 | 8 bits | 7 bits | 3·10³⁸ | 10⁻⁴⁰ | one part in 128 |

Each of the 16-bit formats has its own way to fail, and both can be watched without a graphics card. NumPy has fp16;
bf16 is the upper half of an fp32, which `minillm.hub.dtypes.encode` rounds to.

**fp16 ends too early.** Gradients are small: that of a logit is $(p_j - [j = c])/N$, and most probabilities are tiny.
Here are the sizes of the gradients of a trained small model: of the logits (by the formula above) and of the weights.
What is below $2^{-25}$, half of the smallest number, becomes 0 in fp16. The cure is **loss scaling**: multiply the
loss by $2^k$, so that every gradient, by the chain rule, is $2^k$ times as large; divide the weights' gradients by it
in fp32, before clipping and the optimizer. Too large a scale makes the largest overflow to ∞; then the step is
skipped and the scale halved.
"""

# %%
model = healthy[0].model.eval()
ids, targets = random_windows(train_ids, np.random.default_rng(1))
for p in model.parameters():
    p.grad = None
model(ids, targets).backward()
with no_grad():
    x = model(ids).data.reshape(-1, VOCABULARY)  # logits: (N, V)
p = np.exp(x - x.max(axis=1, keepdims=True))
p /= p.sum(axis=1, keepdims=True)
parts = {
    "logits": (p - np.eye(VOCABULARY, dtype=np.float32)[targets.ravel()]) / targets.size,
    "weights": np.concatenate([q.grad.ravel() for q in model.parameters()]),
}

scales = np.arange(0, 29, 2)
lost, overflown = {}, {}
for name, values in parts.items():
    scaled = [lab.through(values * 2.0**k, "F16") for k in scales]
    lost[name] = [100 * ((s == 0) & (values != 0)).mean() for s in scaled]
    overflown[name] = [np.isinf(s).any() for s in scaled]
in_bf16 = {
    name: 100 * ((lab.through(v, "BF16") == 0) & (v != 0)).mean() for name, v in parts.items()
}

for name in parts:
    fine = [
        int(k)
        for k, share, over in zip(scales, lost[name], overflown[name])
        if share < 0.5 and not over
    ]
    print(f"{name:8s} become 0: fp16 {lost[name][0]:.1f}%, bf16 {in_bf16[name]:.1f}%;", end=" ")
    print(f"with k from {fine[0]} to {fine[-1]} less than 0.5% are lost and none overflows")
assert max(in_bf16.values()) < 0.01
if SCALE != "smoke":
    assert lost["logits"][0] > 1 > lost["logits"][6]
pictures.plot_fp16(parts, scales, lost, overflown)

# %% [markdown]
r"""
In fp16 a part of the logits' gradients is simply gone; between "too small" and "too large" lies a wide window of
scales in which all is well. bf16 has the range of fp32 and needs none of this.

**bf16 has too few digits.** Between 1 and 2 its neighbours are $1/128$ apart, between 0.02 and 0.03 they are $1/8192$.
A number is rounded to the nearest, so adding less than half that distance adds **nothing**. An update is a small part
of its weight: if the weights themselves were kept in bf16, how many of them would a step change at all? We take the
trained small model and let AdamW do one step of learning rate $\eta$ in fp32, then round to bf16.

And if one trains like that, late in a run, when the rate has become small? We go on from the healthy models at a low
rate in three ways: weights in fp32; weights rounded to bf16 after each step; and **master weights**: fp32 weights take
the updates, and the model computes with their rounded copy.
"""

# %%
LOW = 1e-4
rates_tried = np.logspace(-5, -2, 10)
changed = [
    100 * lab.share_changed(model, AdamW(model.parameters(), lr, (0.9, 0.95))) for lr in rates_tried
]


def go_on(start, seed, form):
    """Train on from `start` at the rate LOW; returns by how much the held-out loss fell."""
    model, rng = new_model(0), np.random.default_rng(100 + seed)
    model.load_state_dict({name: array.copy() for name, array in start.state_dict().items()})
    begin = held_out_loss(model)
    parameters = list(model.parameters())
    optimizer = AdamW(parameters, lr=LOW, betas=(0.9, 0.95), weight_decay=0.0)
    masters = [p.data.copy() for p in parameters]
    for _ in range(STEPS // 2):
        optimizer.zero_grad()
        model(*random_windows(train_ids, rng)).backward()
        for p, master in zip(parameters, masters):
            if form == "master":
                p.data[...] = master  # the step is added to these
        optimizer.step()
        masters = [p.data.copy() for p in parameters]
        for p in parameters:
            if form != "fp32":
                p.data[...] = lab.through(p.data, "BF16")  # what the next forward computes with
    return begin - held_out_loss(model)


gained = {
    form: [go_on(run.model, seed, form) for seed, run in enumerate(healthy)]
    for form in progress(("fp32", "bf16", "master"), "going on")
}
for form, values in gained.items():
    print(f"{form:8s} the held-out loss falls by {lab.mean_sd(values, 4)}")
at_low = np.interp(LOW, rates_tried, changed)
print(f"at η = {LOW:g} one step changes {at_low:.0f}% of the bf16 weights")
if SCALE != "smoke":
    assert at_low < 50
    assert max(gained["bf16"]) < min(gained["master"]) and np.allclose(
        gained["master"], gained["fp32"], atol=3e-3
    )
pictures.plot_bf16(rates_tried, changed, LOW, gained)

# %% [markdown]
r"""
At the low rate most updates are smaller than half the distance to the next bf16 number, and vanish: with weights in
bf16 only, the model learns a fraction of what it could, and no error tells you. With fp32 masters nothing is lost:
the updates add up there until the rounded copy moves. That is why mixed precision still keeps 4 bytes for each weight
(besides those for $m$ and $v$). (The library does it on a GPU with `precision = "bf16"` or `"fp16"`: weights stay in
fp32 and each matrix product rounds its inputs; chapter 15.)

## One healthy run, two sick ones

A sick run rarely stops with an error. It prints losses, writes checkpoints, and is worth nothing. Three curves say
nearly all: the loss, training and held out; the norm of the gradients; and **update over weight**, how much of its size
a matrix is moved in a step. Healthy is about a thousandth in large runs, up to some hundredths in small ones with
large rates.

Now with the library's own loop, `minillm.training.train.train`, which writes a run folder. Model and settings are those
of "debug", the smallest of the configurations that come with the library (**presets**), but for more steps and a higher
rate. In one of three runs all is well. In one the learning rate is 50 times as high. And in one the targets were **not
shifted**: each token is asked for at its own position, instead of the next one, a mistake that one wrong index makes.
Before you read on: which is which in the picture? (Dotted: the loss of a 5-gram model that has counted the training
text.)
"""

# %%
RUN_STEPS = {"smoke": 24, "cpu": 300, "gpu": 300}[SCALE]
train_data, val_data = (packed(DataConfig(str(text)), split, small) for split in ("train", "val"))
debug = read_config("debug")
settings = {**debug["train"], "lr": 4e-3, "max_steps": RUN_STEPS}
settings |= {"eval_every": RUN_STEPS // 6, "save_every": RUN_STEPS}
folders, moved = {}, {}
clinic = Path(tempfile.mkdtemp())
runs = lab.clinic_runs(VOCABULARY)  # what differs in each; look into it when you have judged
for name, (changes, objective) in progress(runs.items(), "three runs"):
    config = TrainConfig(**{**settings, **changes})
    shape = GPTConfig(vocab_size=VOCABULARY, **debug["model"])
    model = GPT(shape, np.random.default_rng(config.seed))
    data = TextData(train_data, val_data, objective)
    folders[name], watch = clinic / name, lab.Movement()
    library_train(
        model, data, config, folders[name], tokenizer=small, before_step=watch, progress=False
    )
    moved[name] = watch.moved

counted = NGramModel.fit(train_text, order=5)
n_bytes = len(held_out_text.encode())
ngrams = dict(zip(range(1, 6), counted.total_bits(held_out_text) / n_bytes))  # bits per byte
nats = np.log(2) * val_data.n_bytes / len(val_data)  # per token, of one bit per byte
pictures.plot_health(folders, moved, ngrams[5] * nats)

# %% [markdown]
r"""
**A** has the high rate. Its loss jumps up, falls, and soon comes to rest, above where the others go; its gradients
stay large and ragged, and the first step changed the matrix by more than its own size. **B** is the healthy one:
training and validation fall together, the gradient norm stays near 1 but for single batches, an update is at first
some hundredths of the weights and gets smaller with the rate. (It is still far above the 5-gram model, being tiny and
trained for a few hundred steps: healthy does not mean good.) **C** looks best of all, and that is what is wrong with
it: it falls below what a 5-gram model reaches within a few dozen steps and goes on towards 0. No model predicts
unseen code with certainty. What is asked for stands in the input, and the validation loss does not warn, since it
makes the same mistake. The same curves come from a mask that lets a position see the next one, or from held-out text
that was in the training text (chapter 04). *A loss that is too good is a finding.*

The library looks at the same things, and compares with what healthy runs of its presets had
(`minillm.training.bands`). On the command line it is `minillm check FOLDER`.
"""

# %%
found = {}
for name, folder in folders.items():
    health = examine(folder)
    found[name] = health.findings
    print(f"--- {name}")
    for fact in ("band", "train loss", "val loss", "layers"):
        if fact in health.facts:
            print(f"{fact}: {health.facts[fact]}")
    for finding in health.findings or ["healthy"]:
        print(f"  * {finding}")
last = {
    name: [row["val_loss"] for row in lab.rows_of(f) if "val_loss" in row][-1]
    for name, f in folders.items()
}
if SCALE != "smoke":
    assert (
        found["A"] and not found["B"] and last["C"] < 0.1 * ngrams[5] * nats < last["B"] < last["A"]
    )
    assert moved["A"][0] > 1 > 0.1 > moved["B"][0]

# %% [markdown]
r"""
The check finds A, by the norm of its gradients, and finds nothing wrong with B, although B's rate is not the preset's
either. It does not find out about C: what it notes there are jumps of a loss that has become tiny. Programs check what
is usual; that the number cannot be true is for you to see.

## How large should it be? A small scaling law

With more weights the loss falls, and over many sizes what is above a floor falls on a remarkably straight line if
both axes are logarithmic (Kaplan et al. 2020, arXiv 2001.08361, who need no floor):

$$L(N) = E + A\,N^{-\alpha},$$

with $N$ now the number of weights, $E$ the floor, which no model of this kind gets below, and $A$ and $\alpha$ to be
found. It is how labs decide what to train: fit small runs, read off the large one. Let us do exactly that, and then
check it. Four sizes, several seeds each, the same number of tokens for all; the learning rate is divided by the
square root of the width. We fit, predict a **fifth size** that the fit has not seen, and train it. Error bars come
from the **bootstrap**: draw seeds with replacement, fit again, many times, and see how the result scatters.
"""

# %%
WIDTHS = (8, 16, 32, 64)
LARGEST = 96


def sized(width):
    rate = 3e-3 * (64 / width) ** 0.5
    seeds = progress(range(SEEDS), f"width {width}")
    return [train(seed, model=new_model(seed, width), lr=rate) for seed in seeds]


def weights_in(width):
    return sum(p.data.size for p in new_model(0, width).parameters())


losses = np.array([[run.final for run in sized(width)] for width in WIDTHS])  # (4, SEEDS)
largest = np.array([run.final for run in sized(LARGEST)])  # (SEEDS,)
N, N_largest = np.array([weights_in(width) for width in WIDTHS]), weights_in(LARGEST)
floors = {"E = 0": np.zeros(1), "E free": np.linspace(0, losses.min() - 0.05, 60)}
fits, scatter = {}, {}
for name, values in floors.items():
    fits[name] = lab.fit_power_law(N, losses.mean(axis=1), values)
    scatter[name] = lab.bootstrap(
        losses,
        lambda means, values=values: lab.fit_power_law(N, means, values),
        np.random.default_rng(0),
    )  # (200, 3): E, A, α


def law(parameters, n):
    E, A, alpha = np.asarray(parameters, dtype=float).T
    return E + A * n ** (-alpha)


print(f"largest: {N_largest:,} weights, measured {lab.mean_sd(largest)}")
for name in floors:
    E, A, alpha = fits[name]
    low, high = np.percentile(scatter[name], (5, 95), axis=0)
    predicted = np.percentile(law(scatter[name], N_largest), (5, 95))
    print(
        f"{name:7s} α = {alpha:.3f} ({low[2]:.3f} to {high[2]:.3f}), E = {E:.2f} ({low[0]:.2f} to {high[0]:.2f});",
        end=" ",
    )
    print(f"predicts {law(fits[name], N_largest):.3f} ({predicted[0]:.3f} to {predicted[1]:.3f})")

if SCALE != "smoke":
    assert np.all(np.diff(losses.mean(axis=1)) < 0)
    off = largest.mean() - law(fits["E = 0"], N_largest)
    assert -0.15 < off < 0 and np.ptp(scatter["E free"][:, 2]) > 3 * np.ptp(scatter["E = 0"][:, 2])
pictures.plot_law(N, losses, N_largest, largest, law, fits, scatter)

# %% [markdown]
r"""
On these axes the four sizes lie nearly on a line, and the fifth comes out close to where the line says. That is the
good news, and it is why small runs are worth making. Now the error bars:

- **The exponent** depends on what is taken for $E$. With $E = 0$ the seeds leave a narrow range for $\alpha$; with $E$
  free, anything from that up to several times as much fits as well, with $E$ anywhere between 0 and about a nat below
  the lowest loss. Four sizes within a factor of about twenty cannot tell a line from the beginning of a bend.
- **The prediction** is better than the parameters, for a step of factor two beyond the data: all fits agree there.
  Still the measured loss lies at the lower edge of the bands or beyond. The bootstrap knows how seeds scatter. It does
  not know whether the form is right, whether the learning rate suits all sizes equally, or that the number of steps was
  fixed.
- **The range** is tiny, and so are the runs. What is fitted here says nothing about models a thousand times as large;
  published laws come from many orders of magnitude, with the tokens growing along with $N$ (Hoffmann et al. 2022, arXiv
  2203.15556).

## A model that completes Python

Now everything together, with the library's own command. The model is the Llama that chapter 07 chose, and the training
that of the library's preset "laptop", with fewer steps. Written to a file, the two sections that the next cell prints
are all that the command needs. In a terminal:

    minillm pretrain --config python.toml --corpus CORPUS --tokenizer TOKENIZER --out RUN
    minillm check RUN

`minillm.workshop.deliverables.python_model` calls the same function, `minillm.training.pretrain.pretrain`, with the
same settings, and keeps the run folder for the chapters to come; it takes about a minute, the first time. (Among the
settings you meet this chapter again: `lr` at the peak, `warmup_steps`, `beta2`; what is not named has its default.)

How good does it get? **Bits per byte** of the held-out code (chapter 01) compare models with different tokens, and with
none: $n$-grams that counted the same training text, and the compressor xz, alone and after it has read the training
text.
"""

# %%
sections = python_sections(SCALE)
folder = python_model(SCALE)
llama, llama_tokenizer = load_model_and_tokenizer(folder)
val_data = packed(DataConfig(str(text)), "val", llama_tokenizer)
nats = np.log(2) * val_data.n_bytes / len(val_data)
for name in ("model", "train"):
    print(f"[{name}]", ", ".join(f"{key} = {value}" for key, value in sections[name].items()))
print(f"{sum(p.data.size for p in llama.parameters()):,} weights; in the run folder:", end=" ")
print(", ".join(sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))))

measured = evaluate(
    Replicas(llama, 2).batch_loss, val_data, batch_size=8, context=llama.config.context
)
bits = {f"{n}-gram": float(value) for n, value in ngrams.items() if n in (1, 3, 5)}
bits["xz alone"] = xz_bits_per_byte(held_out_text)
bits["xz after the training text"] = xz_bits_per_byte(held_out_text, train_text)
bits["Llama, this run"] = measured.bits_per_byte
for name, value in sorted(bits.items(), key=lambda item: -item[1]):
    print(f"{name:26s} {value:.2f} bits per byte")
if SCALE != "smoke":
    assert bits["Llama, this run"] < min(bits["5-gram"], bits["3-gram"], bits["1-gram"])
    assert bits["xz after the training text"] < min(bits["xz alone"], bits["Llama, this run"])
pictures.plot_python(folder, bits, ngrams[5] * nats)

# %% [markdown]
r"""
The Llama beats all $n$-grams that counted the same text. (In the left picture its validation loss lies well above its
training loss: files have names and phrases of their own, and those of the held-out files it has never seen. As long
as the validation loss falls, there is no harm in that.) It does **not** beat xz that has read the training text; with
xz that has read nothing but the held-out text itself it is about level. xz has an advantage: it looks back over
everything that it has compressed so far, the earlier files and all of the present one, and source code repeats itself
over long distances; our model sees 128 tokens. It has also had no more than a minute or so of training. More steps
bring it further down (`minillm quickstart` trains for three minutes; the course comes back to size in chapter 17).

Let it complete some code.
"""

# %%
for prompt in ("def read(self", "import os\nimport ", "class Queue:\n    def __init__(self"):
    sampling = Sampling(temperature=0.5)
    written = stream_text(
        llama, llama_tokenizer, prompt, max_new_tokens=48, sampling=sampling, seed=8
    )
    print(prompt + "".join(written), "\n" + "─" * 60)

# %% [markdown]
r"""
It has learned how code looks: indentation, colons, `self`, names that recur. It has not learned what code does.
Chapter 09 chooses its next tokens with more care, chapter 14 runs what a model has written.

## The library's version

> **Step into it.** Put a breakpoint on the line `optimizer.step()` of the next cell (VS Code: click left of the line,
> then *Debug Cell*; JupyterLab: the bug at the top right) and step into it. You pass `minillm.optim.Optimizer.step`,
> which goes through the parameters block by block, and arrive in `minillm.optim.AdamW._update`: our six lines, in
> place. At its end `tmp` holds by how much the weights have moved; in the first step that is $\pm\eta$, whatever the
> gradient. The loop around it is `minillm.training.train.train`: look for `forward_backward`, `clip_gradients` and
> `step`, and for where the schedule comes in (`minillm.training.schedules.lr_factor`).

Below, the same is shown in Python's own debugger: stop in `_update`, go on, say where we are (outermost call first),
run to the end of the function, print.
"""


# %%
def with_gradients():
    """An optimizer whose parameters wait for their first step."""
    model = new_model(0)
    model(*random_windows(train_ids, np.random.default_rng(0))).backward()
    return AdamW(model.parameters(), lr=6e-3, betas=(0.9, 0.95), weight_decay=0.0)


optimizer = with_gradients()
optimizer.step()  # a breakpoint here

commands = [
    "tbreak AdamW._update",
    "continue",
    "where",
    "return",
    "print(step, g[:4])",
    "print(tmp[:4].round(4))",
    "print(step_size, sqrt_correction2)",
]
names = {"optimizer": with_gradients(), "AdamW": AdamW}
seen = type_into_debugger("optimizer.step()", commands, names)
print(seen)
assert "optim.py" in seen and "self._update(group" in seen and "0.006" in seen

# %% [markdown]
r"""
`g` is the gradient of the first four weights, `tmp` what they move by: only the sign is left (and less where a gradient
is as small as $\epsilon$). `step_size` is $\eta/(1 - \beta_1^t)$ and `sqrt_correction2` is $\sqrt{1 - \beta_2^t}$:
instead of two arrays, the library divides two numbers.

## Summary

- The loss is the mean of $-\ln p$ over all targets of a step; its slope at the logits is $p$ minus 1 at what came.
- AdamW: running means of the gradient and of its square, both freed from their start at 0; each weight moves by
  $\eta\,\hat m/\sqrt{\hat v}$, at most about $\eta$ whatever the size of its gradients; decay apart from the gradient.
- Warm up, because Adam's first steps are as long as they can be. Let the rate fall in a long run, because near its
  end steps are mostly noise.
- Clip the norm of all gradients together, so that one bad batch is one bad step, not the end.
- Micro-batches add up **sums**, divided by the count of all targets; a mean of means weighs targets unequally.
- Dropout is for text that is seen many times.
- fp16 loses small gradients (scale the loss); bf16 loses small updates (keep master weights in fp32).
- Look at loss, gradient norm and update over weight. Distrust a loss that is too good.
- A scaling law is a fit: error bars from seeds say nothing about whether the form holds beyond the sizes fitted.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are
folded below.
"""

# %% [markdown]
r"""
### Exercise 1: a schedule (easy, core, 10 minutes)

Write the factor on the learning rate that climbs along a straight line over the first `warmup` steps and then falls
along a straight line, in a run of `total` steps. Steps count from 0. The first step must already move (its factor is
not 0), step `warmup − 1` and step `warmup` have the full rate, and the last step, `total − 1`, has the factor
`final`.
"""


# %% tags=["exercise"]
def rate(step, total, warmup, final):
    return None


with check():
    assert rate(0, 100, 10, 0.1) is not None, (
        "rate returns nothing yet: return a number, the factor at this step."
    )
    for total, warmup, final in ((100, 10, 0.1), (50, 5, 0.0), (31, 1, 0.5)):
        factors = as_plain(
            np.array([rate(s, total, warmup, final) for s in range(total)], dtype=float)
        )
        assert factors[0] > 0, (
            "The first step does not move: its factor is 0. What is the factor of the first of n equal steps?"
        )
        assert np.isclose(factors[warmup - 1], 1), (
            f"With warmup = {warmup} the climb is done at step {warmup - 1}; there you have {factors[warmup - 1]:.3f}."
        )
        assert np.isclose(factors[warmup], 1), (
            f"The fall begins with the full rate at step {warmup}; there you have {factors[warmup]:.3f}."
        )
        assert np.isclose(factors[-1], final), (
            f"The last of {total} steps is step {total - 1}; its factor must be {final}, yours is {factors[-1]:.3f}."
        )
        expected = [schedules.linear(s, total, warmup, final) for s in range(total)]
        assert np.allclose(factors, expected), (
            "Both ends are right, but in between it is no straight line."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

After the warmup, $u = (s - w)/(S - 1 - w)$ goes from 0 to 1.

```python
def rate(step, total, warmup, final):
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / (total - 1 - warmup)
    return 1 + (final - 1) * done
```

It is `minillm.training.schedules.linear`.

</details>
"""

# %% [markdown]
r"""
### Exercise 2: clip (easy, core, 10 minutes)

`gradients` is a list of arrays. Return a list of new arrays, scaled by one factor, so that their joint norm is at most
`limit`; gradients that are short enough stay as they are. The arrays that were given must not change (two parameters
may share one).
"""


# %% tags=["exercise"]
def clipped(gradients, limit):
    return None


with check():
    given = [np.array([[1.0, -4.0], [2.0, 0.0]]), np.array([2.0])]  # joint norm 5
    copies = [g.copy() for g in given]
    answer = clipped(given, 2.0)
    assert answer is not None, (
        "clipped returns nothing yet: return a list with an array for each gradient."
    )
    assert all(np.array_equal(g, c) for g, c in zip(given, copies)), (
        "The arrays that were given have changed: make new ones."
    )
    answer = [np.asarray(g, dtype=float) for g in answer]
    assert [g.shape for g in answer] == [g.shape for g in given], "Each gradient keeps its shape."
    joint = np.sqrt(sum((g**2).sum() for g in answer))
    assert joint < 2 + 1e-4, (
        f"The joint norm is {joint:.3f} after clipping at 2. Is the norm taken over all arrays together?"
    )
    assert joint > 1.998, (
        f"The joint norm is {joint:.3f}: clipping at 2 must not make it smaller than that."
    )
    direction = all(np.allclose(a, g * 2 / 5, rtol=1e-3) for a, g in zip(answer, given))
    assert direction, "The direction has changed: one factor for all arrays and all entries."
    short = [np.asarray(g, dtype=float) for g in clipped(given, 10.0)]
    assert all(np.allclose(s, g) for s, g in zip(short, given)), (
        "Gradients shorter than the limit must stay as they are."
    )
    zero = clipped([np.zeros(3)], 1.0)
    assert np.all(np.isfinite(zero[0])), "Gradients of norm 0 must stay 0, without a division by 0."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def clipped(gradients, limit):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    factor = min(1.0, limit / (norm + 1e-12))
    return [g * factor for g in gradients]
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: micro-batches (medium, core, 15 minutes)

Each micro-batch gives the gradient of its own **mean** loss, and its `targets`, in which −100 stands where nothing is
asked. Combine them into the gradient of the mean loss over all targets of all micro-batches. A micro-batch may happen
to have no target at all; the gradient of its mean is then NaN, and it must not spoil the rest.
"""


# %% tags=["exercise"]
def combined(gradients, targets):
    """gradients: a list of arrays of one shape; targets: as many integer arrays, of any shapes. -> one array"""
    return None


with check():
    ones, twos = np.ones(3), np.full(3, 2.0)
    full, part = (
        np.arange(1, 9).reshape(2, 4),
        np.array([[5, 6, -100, -100], [-100, -100, -100, -100]]),
    )
    answer = combined([ones, twos], [full, full])
    assert answer is not None, (
        "combined returns nothing yet: return an array of the shape of one gradient."
    )
    assert np.shape(answer) == (3,), (
        f"The result has the shape of one gradient, (3,), not {np.shape(answer)}."
    )
    assert np.allclose(answer, 1.5), (
        "Wrong even for two micro-batches with equally many targets, gradients 1 and 2."
    )
    answer = combined([ones, twos], [full, part])
    assert not np.allclose(answer, 1.5), (
        "Each target must weigh the same, whichever micro-batch it is in."
    )
    assert np.allclose(answer, 1.2), (
        "Wrong for 8 and 2 targets. Which targets count, and which do not?"
    )
    rows = combined([ones, twos], [full, full[:1]])
    assert np.allclose(rows, 4 / 3), "Wrong for micro-batches of 2 and 1 rows, without padding."
    zero_id = combined([ones, twos], [full, np.zeros((2, 4), dtype=int)])
    assert np.allclose(zero_id, 1.5), "A target with the id 0 is a target like any other."
    nothing = combined([ones, np.full(3, np.nan)], [full, np.full((2, 4), -100)])
    assert np.allclose(nothing, 1), (
        "A micro-batch without targets must not count, and NaN times 0 is NaN."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

$n_k$ times the gradient of the mean is the gradient of the sum.

```python
def combined(gradients, targets):
    counts = [int((t != -100).sum()) for t in targets]
    total = sum(n * g for n, g in zip(counts, gradients) if n)
    return total / sum(counts)
```

</details>
"""

# %% [markdown]
r"""
### Exercise 4: four patients (medium, useful, 15 minutes)

Four runs of the small model, in no order: one is **healthy**, one has a learning rate ten times too **high**, one was
given a **short** text of a few thousand tokens again and again, and in one the targets were not **shifted**. The upper
row shows the losses (a point that is missing lies above the picture), the lower one update over weight. Say which is
which, by their curves.
"""

# %%
unknown = {
    name: train(9, steps=2 * STEPS, look_every=STEPS // 3, **options)
    for name, options in progress(lab.patients(train_ids).items(), "four runs")
}
for name, run in unknown.items():
    print(
        f"run {name}: in the end training loss {np.mean(run.loss[-20:]):.2f}, held out {run.final:.2f}"
    )
pictures.plot_unknown(unknown)


# %% tags=["exercise"]
# Each is "healthy", "high", "short" or "shifted".
diagnosis = {"1": None, "2": None, "3": None, "4": None}


with check():
    given = {str(k): str(v).strip().lower() for k, v in as_plain(diagnosis).items()}
    assert set(given.values()) != {"none"}, (
        "No diagnosis yet: give each of the four runs one of the four words."
    )
    assert sorted(given) == ["1", "2", "3", "4"], "The keys are the runs' names: 1, 2, 3 and 4."
    assert sorted(given.values()) == ["healthy", "high", "shifted", "short"], (
        "Each of the four words is used once."
    )
    assert given == {"1": "short", "2": "shifted", "3": "high", "4": "healthy"}, (
        "Not all four are right. For each run ask: does the training loss get where no model of code could? Do "
        "training and held-out loss part, and which way? Of two whose losses both fall, does one stay above the other?"
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
diagnosis = {"1": "short", "2": "shifted", "3": "high", "4": "healthy"}
```

In run 1 the training loss goes on falling while the held-out loss turns and climbs: it learns its few tokens by heart.
In run 2 the training loss goes towards 0, and the held-out loss, which is measured with the right targets here, is far
*worse* than guessing. (In the clinic above it was measured with the same mistake, and looked fine.) Run 3 falls as
well, but stays above run 4 all the way: its first steps moved the matrix by up to a third of its size, and it does not
make up for that.

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** Multiply the loss by 100. What changes in a step of SGD, and what in one of AdamW (without clipping)?

<details><summary>Answer</summary>

SGD's step gets 100 times as long. AdamW's stays: $m$ and $\sqrt v$ both grow by 100. (Only $\epsilon$ notices.)

</details>

**2.** Why does AdamW's weight decay not simply go into the gradient?

<details><summary>Answer</summary>

It would be divided by $\sqrt{\hat v}$ with the rest: weights with large gradients would hardly be decayed.

</details>

**3.** The gradients are clipped at 1 in 100% of the steps, and their norm is about 50. Is that clipping?

<details><summary>Answer</summary>

No, it is a normalisation: each step has the same length of gradient, whatever the loss says. For AdamW, which divides
by the usual size anyhow, it changes little; a rare outlier then gets no more than its share. But the limit is set
wrongly, or something is.

</details>

**4.** Your validation loss is 0.02. Do you celebrate?

<details><summary>Answer</summary>

Look for the leak first: targets that are not shifted, a mask that shows the future, held-out text in the training text.

</details>

**5.** Why are loss scales powers of 2?

<details><summary>Answer</summary>

Multiplying by a power of 2 changes the exponent only: no digit is lost on the way there or back.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now train a language model so that it learns what it can in the time that it has, and say from its curves
whether it does.

**What you take along**: a Llama that completes Python, in its run folder with its tokenizer: `python_model(SCALE)` of
`minillm.workshop.deliverables`. Another question to the same loop, gaps instead of the next token, is chapter
[10](10_bert.ipynb); 16 bits for real are in [15](15_the_same_model_on_pytorch.ipynb), and chapter 17 is about size. The
next chapter, [09 · Generating text](09_generating_text.ipynb), lets it write.
"""
