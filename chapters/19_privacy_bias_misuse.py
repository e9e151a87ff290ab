# %% [markdown]
r"""
# 19 · Privacy, bias and misuse

A model learns what it is shown: also the phone number that stood in somebody's mail, and also who is usually called
"he". And what it writes looks like what people write. This chapter **measures** all three on models whose truth we
know, because we planted it; tries the cures; and says what each of them leaves open.

**Afterwards you can** plant secrets and say in bits how far a model gives them away; clean text of copies and personal
information, and know what stays; train with a guarantee, and name its price; measure a bias and take it away; mark a
text, find the mark, and break it.

**You need** [04 · Collecting and cleaning text](04_collecting_and_cleaning_text.ipynb): copies;
[08 · Pretraining](08_pretraining.ipynb): the training loop;
[09 · Generating text](09_generating_text.ipynb): sampling.
"""

# %%
import numpy as np
from minillm import plot
from minillm.data import Document, deduplicate
from minillm.data.pii import find_pii, luhn, precision_recall, scrub
from minillm.generate import Sampling, generate
from minillm.optim import AdamW
from minillm.responsible import (
    PrivateOptimizer,
    Watermark,
    augment,
    canaries,
    epsilon,
    exposure,
    likelihood_gaps,
    log_likelihoods,
    weat,
)
from minillm.workshop import check, fairness, privacy, progress, read_scale, show_versions
from minillm.workshop import privacy_pictures as pictures

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
SEEDS = range({"smoke": 1, "cpu": 3, "gpu": 5}[SCALE])  # random starts of each kind
EACH = {"smoke": 1, "cpu": 4, "gpu": 4}[SCALE]  # people for each number of repetitions
EPOCHS = {"smoke": 1, "cpu": 16, "gpu": 16}[SCALE]
FULL = SCALE != "smoke"  # long enough for what the text says to hold
rng = np.random.default_rng(19)
show_versions(SCALE)

# %% [markdown]
r"""
Where in a model's life each tool of this chapter acts: green ones change something, blue ones only measure, and the
purple box is what we do in order to know the truth.
"""

# %%
pictures.where_tools_act()

# %% [markdown]
r"""
## A number that nobody should say

Some people's notes: everyday lines, and lines with phone numbers. The last four digits are random, and nothing else in
the text says anything about them: whoever says them right has read them. For some people the number stands in the notes
once, for others 2, 4, 8 or 16 times; a last group has it 16 times, too, but in lines that all begin differently. And
some people's numbers are nowhere. Such planted secrets are called **canaries**, after the birds that miners took along.

A GPT with one block and one token for each character learns the notes, about sixteen times over. Then we type the
beginning of a line.
"""

# %%
notes = privacy.write_notes(0, EACH)
tokenizer = privacy.tokenizer_of(notes.lines)
rows = privacy.rows_of(notes.lines, tokenizer, privacy.CONTEXT)  # ids and targets, (lines, 36) each
print(f"{len(notes.lines)} lines such as: {' | '.join(notes.lines[:5])}")

model = privacy.new_model(tokenizer.vocab_size, seed=0)
losses = privacy.train(model, rows, round(EPOCHS * len(notes.lines) / 32), seed=0)
print(f"{sum(p.data.size for p in model.parameters()):,} weights, loss {losses[0]:.2f} -> {np.mean(losses[-10:]):.2f}")
for group in ("16", "4", "1", "0"):
    name = notes.people[group][0]
    prompt = [tokenizer.eos_id, *tokenizer.encode(name + privacy.AREA)]
    said = generate(model, [prompt], max_new_tokens=4, sampling=Sampling(temperature=0))[0]
    print(f"{group:>2} times in the notes: {name}{privacy.AREA}", end="")
    print(f"[{tokenizer.decode(said)}], in truth {notes.digits[name]:04d}")

# %% [markdown]
r"""
## Exposure

What the likeliest text says is a poor measure: a secret can be second, and a guesser tries more than once. Carlini et
al. (2019, "The Secret Sharer", arXiv 1802.08232) rank instead. Let $R = 10^4$ be the number of all secrets $s$ that
could stand there. Order them by what the model thinks, $\ln p(s \mid \text{beginning})$, and let $\operatorname{rank}$
be the place of the true one, 1 the likeliest. Then

$$\text{exposure} = \log_2 R - \log_2 \operatorname{rank}.$$

Without the model, a guesser who tries $k$ numbers is right with probability $k/R$; with it, trying as many as the rank
suffices. So exposure counts **bits**: how often the search was halved by the model. Its largest value is
$\log_2 10^4 = 13.3$.

What does *nothing* look like? If the model never saw the secret, its rank is uniform on $1 \dots R$. With $u =
\operatorname{rank} / R$ nearly uniform on $(0, 1)$,

$$P(\text{exposure} \ge b) = P(u \le 2^{-b}) = 2^{-b}, \qquad
\operatorname{E}[\text{exposure}] = \int_0^1 -\log_2 u \, du = \log_2 e \approx 1.44.$$

Values of 1 or 2 bits say nothing; one of 10 happens by chance once in a thousand.

The digits share their beginnings, so that $1 + 10 + 100 + 1000$ rows serve for all 10,000 numbers
(`privacy.all_endings`); the library's general way asks for each number whole. They must agree.
"""

# %%
name = notes.people["16"][0]
everybody = canaries(name + privacy.AREA + "{}", digits=4)  # 10,000 texts
scores = log_likelihoods(model, [([tokenizer.eos_id], tokenizer.encode(text)) for text in everybody], batch_size=500)
beginning = [tokenizer.eos_id, *tokenizer.encode(name + privacy.AREA)]
fast = privacy.all_endings(model, beginning, tokenizer.encode("0123456789"))  # (10000,)
assert np.allclose(fast - fast[0], scores - scores[0], atol=1e-3)  # they differ by the beginning's own ln p

secret = notes.digits[name]
rank = 1 + (scores > scores[secret]).sum()
by_hand = np.log2(len(scores)) - np.log2(rank)
print(f"{name}, 16 times: rank {rank} of {len(scores):,}, exposure {by_hand:.1f} bits by hand,", end=" ")
print(f"{exposure(scores, secret):.1f} by the library")
assert np.isclose(by_hand, exposure(scores, secret), atol=0.6)  # the library lets equals share their ranks

drawn = np.log2(1e4) - np.log2(rng.integers(1, 10_001, 100_000))  # ranks of a model that knows nothing
print(f"by chance: mean {drawn.mean():.2f}, at least 5 bits {(drawn >= 5).mean():.4f}; 2^-5 = {2**-5:.4f}")
assert abs(drawn.mean() - np.log2(np.e)) < 0.05

# %% [markdown]
r"""
## Repetitions

One secret says little: its rank is luck, too. So each number of repetitions has several people, and everything is done
again from other starts, with other notes. (On the way the first kind of run notes its exposure at some moments: we will
need it when we ask what privacy costs.)
"""


# %%
def run(seed, change=None, moments=()):
    """Train on notes (changed if asked for); the exposures by group, the loss on lines never seen, and on the way."""
    notes = privacy.write_notes(seed, EACH)
    tokenizer = privacy.tokenizer_of(notes.lines)
    lines = notes.lines if change is None else change(notes.lines)
    rows = privacy.rows_of(lines, tokenizer, privacy.CONTEXT)
    others = privacy.rows_of(privacy.other_lines(notes), tokenizer, privacy.CONTEXT)
    model = privacy.new_model(tokenizer.vocab_size, seed)
    way = []

    def look(step):
        if step in moments:
            bits = privacy.exposures(model, tokenizer, notes, ["16"])["16"]
            way.append((privacy.loss_of(model, others), bits.mean()))

    privacy.train(model, rows, round(EPOCHS * len(lines) / 32), seed, look=look)
    return privacy.exposures(model, tokenizer, notes), privacy.loss_of(model, others), way


MOMENTS = (15, 30, 45, 60, 90, 120, 180, 250) if FULL else (3, 9)
runs = {"as written": [run(seed, moments=MOMENTS) for seed in progress(SEEDS, "as written")]}


def pooled(runs):
    """Group -> the exposures of all its people in all runs."""
    return {group: np.concatenate([found[group] for found, *_ in runs]) for group in runs[0][0]}


bits = pooled(runs["as written"])
for group, values in bits.items():
    print(f"{group:>12s} times: {privacy.mean_and_sd(values):>11s} bits ({len(values)} secrets),", end=" ")
    print(f"first of all {100 * (values > 13.2).mean():.0f}%")
if FULL:
    means = [bits[str(times)].mean() for times in privacy.TIMES]
    assert means[0] < 3 < 11 < means[-1] and means[1] < means[3] < means[5]
    assert bits["16, reworded"].mean() > means[0] + 1
pictures.exposure_panels({"as written": bits}, np.log2(1e4))

# %% [markdown]
r"""
A dot is a secret, a bar is a mean. Numbers that were never there stand around chance; those that stood there
16 times are first of ten thousand, or nearly. In between it rises step by step, about as the logarithm of the
repetitions. A single mention may already be more than chance here, because this model reads its notes sixteen times.
Large models read most text once; but copies of it are everywhere, and what they say by heart grows with the logarithm
of the copies, too (Carlini et al. 2022, arXiv 2202.07646).

The reworded group (*) is exposed less than its sixteen twins when asked by the bare line, which never stood there, and
still clearly more than what was not there. The exposure of a secret depends on how one asks. A low one for *one*
question is no proof of safety.

## Two cures before training

**Deduplicate.** If repetition is the trouble, take the copies away (Kandpal et al. 2022, arXiv 2202.06539). Each line
is a document here; `minillm.data.deduplicate` keeps the first of identical ones.

**Scrub.** Find what has the form of personal information and write its kind in its place; then it cannot be learned.

Each cure is tried on the same notes, from the same starts, for as many epochs.
"""


# %%
def without_copies(lines):
    documents = [Document(line, f"line {i}") for i, line in enumerate(lines)]
    return [document.text for document in deduplicate(documents, near_threshold=None)]


def scrubbed(lines):
    return [scrub(line) for line in lines]


print(f"{len(notes.lines)} lines, {len(without_copies(notes.lines))} without copies;", end=" ")
print(f"scrubbed: {next(line for line in scrubbed(notes.lines) if 'PHONE' in line)}")
for kind, change in (("deduplicated", without_copies), ("scrubbed", scrubbed)):
    runs[kind] = [run(seed, change) for seed in progress(SEEDS, kind)]
by_kind = {kind: pooled(found) for kind, found in runs.items()}
for kind, found in runs.items():
    loss = np.array([loss for _, loss, _ in found])
    print(f"{kind:12s}: loss on other everyday lines {loss.mean():.2f}, exposures:", end=" ")
    print(", ".join(f"{group}: {values.mean():.1f}" for group, values in by_kind[kind].items()))
if FULL:
    cleaned, clean = by_kind["deduplicated"], by_kind["scrubbed"]
    assert cleaned["16"].mean() < bits["16"].mean() - 5 and clean["16"].mean() < 3
    assert clean["16, reworded"].mean() < 3 and cleaned["16, reworded"].mean() > clean["16, reworded"].mean() + 1
pictures.exposure_panels(by_kind, np.log2(1e4))

# %% [markdown]
r"""
Deduplication brings the repeated ones down to where a single mention is. Not to chance: once is left, and the model
reads it sixteen times. And it does not see the reworded lines, of which no two are alike: they stay exposed. Scrubbing
brings *everything* to chance, since nothing is there to be learned. The loss on everyday lines is about the same each
time: here, nothing of use was lost.

Does scrubbing win, then? Only as far as it **finds**.

## What a scrubber finds

`minillm.data.pii.find_pii` works in two steps: a **pattern** (what it looks like), then a **check** (what makes it
real). The check for card numbers is Luhn's (ISO/IEC 7812-1): from the right, every second digit is doubled, a result
above 9 gives the sum of its digits, and the total must be a multiple of 10. Why does that help?

- Given all digits but the last, exactly one of ten last digits fits. So **nine of ten** random numbers fail.
- A single wrong digit is always noticed: doubling with the sum of digits maps $0, 1, \dots, 9$ to
  $0, 2, 4, 6, 8, 1, 3, 5, 7, 9$, all different, so that the total changes by something that is no multiple of 10.

Chinese resident numbers have such a digit, too (modulo 11), and a date of birth. A phone number has none.
"""


# %%
def luhn_by_hand(number):
    total = 0
    for place, digit in enumerate(reversed(number)):
        doubled = int(digit) * (2 if place % 2 == 1 else 1)
        total += doubled // 10 + doubled % 10
    return total % 10 == 0


numbers = ["".join(map(str, rng.integers(0, 10, 16))) for _ in range(5000)]
assert [luhn_by_hand(n) for n in numbers] == [luhn(n) for n in numbers]
passed = np.mean([luhn(n) for n in numbers])
right = privacy.with_check_digit("411111111111111")
wrong = [right[:i] + str(d) + right[i + 1 :] for i in range(16) for d in range(10) if str(d) != right[i]]
print(f"of random numbers {100 * passed:.1f}% pass; of {len(wrong)} with one wrong digit: {sum(map(luhn, wrong))}")
assert 0.08 < passed < 0.12 and not any(map(luhn, wrong))

# %% [markdown]
r"""
Now a test with the truth known: sentences with personal information, and **near misses** beside them: numbers with a
wrong check digit, addresses of a local network, a picture called `kim@2x.png`, the number of a section, a spare part.
And things that are personal and have no form: an address in words, a name without "Mr." With *true* findings, *all*
findings, and *all there is to find*:

$$\text{precision} = \frac{\text{true findings}}{\text{findings}}, \qquad
\text{recall} = \frac{\text{true findings}}{\text{all there is}}.$$
"""

# %%
text, personal, harmless = privacy.letters(seed=0)
found = find_pii(text)
scored = precision_recall(found, personal)
print("kind           precision  recall")
for kind, (precision, recall) in scored.items():
    print(f"{kind:14s} {100 * precision:6.0f}% {100 * recall:8.0f}%")
false = {(span.start, span.end) for span in found} & {(span.start, span.end) for span in harmless}
mistaken = [span for span in harmless if (span.start, span.end) in false]
missed = personal - set(found)
for title, spans in (("found, but harmless", mistaken), ("missed", missed)):
    for kind in sorted({span.kind for span in spans}):
        chosen = sorted(span for span in spans if span.kind == kind)
        print(f"{title}: {len(chosen)} of kind {kind}, such as {text[chosen[0].start : chosen[0].end]!r}")
assert scored["card"] == scored["resident_id"] == (1.0, 1.0)
assert scored["phone"][0] < 1 and scored["ipv4"][0] < 1 and scored["email"][1] < 1 and scored["name"][1] < 1

# %% [markdown]
r"""
Where there is a checksum, all is found and nothing else. Where there is none, what looks like a phone number is taken
for one. And what has no form is missed: half of our addresses and half of the names, by the way we mixed them. In real
text most names are missed. What identifies somebody by being told together ("the only dentist in the village, born on
…") is not even looked for. **A text without findings is not anonymous.**

So all cures so far need to know what a secret looks like, or that it was repeated. Can one promise something about
secrets that nobody has recognized?

## A promise: DP-SGD

Let $M$ be a training, random by its start and its noise, and $D, D'$ two data sets that differ in **one example**. $M$
is $(\varepsilon, \delta)$-**differentially private** (Dwork et al. 2006) if for every set $S$ of models

$$P(M(D) \in S) \le e^{\varepsilon}\, P(M(D') \in S) + \delta.$$

Take for $S$ all models at which some test says "the example was in it". Then the test's share of right alarms is at
most $e^\varepsilon$ times its share of false alarms, plus $\delta$: whatever the test is, also one that nobody has
thought of yet. For $k$ copies, $D$ and $D'$ are $k$ such steps apart, and $\varepsilon$ becomes $k \varepsilon$
($\delta$ grows, too): **the promise is to one example, not to a person who stands in sixteen**.

DP-SGD (Abadi et al. 2016, arXiv 1607.00133) gets it by two changes of the training step. Let $g_i\,(d)$ be the gradient
of example $i$ over all $d$ weights, and let each example be in the step's **lot** $L$ with probability $q$, by itself:

$$\bar g_i = g_i \cdot \min\Bigl(1, \frac{C}{\lVert g_i \rVert}\Bigr), \qquad
g = \frac{1}{q N} \Bigl( \sum_{i \in L} \bar g_i + z \Bigr), \quad z \sim \mathcal N(0, \sigma^2 C^2 I).$$

Clipping: nobody moves the sum by more than $C$. Noise: what anybody did is drowned in it.

**Why noise gives a number.** Along the direction in which the one example moves the sum, its being there or not shifts
a normal distribution of width $\sigma C$ by $C$. In units of the width: $P = \mathcal N(1/\sigma, 1)$ against $Q =
\mathcal N(0, 1)$. Measure their distance by the Rényi divergence of order $\alpha$ (Mironov 2017, arXiv 1702.07476),

$$\frac{1}{\alpha - 1} \ln \int P^{\alpha} Q^{1 - \alpha}\,dx
= \frac{1}{\alpha - 1} \cdot \frac{\alpha(\alpha - 1)}{2 \sigma^2} = \frac{\alpha}{2 \sigma^2},$$

since the exponent $-\frac{\alpha}{2}(x - \frac1\sigma)^2 - \frac{1 - \alpha}{2} x^2 = -\frac12 (x -
\frac{\alpha}{\sigma})^2 + \frac{\alpha^2 - \alpha}{2 \sigma^2}$ integrates to its last term. Such divergences **add
up** over steps, and are smaller if the example is in few lots ($q < 1$). The **accountant** adds them and turns the sum
into $\varepsilon$ for a chosen $\delta$ (`minillm.responsible.epsilon`).
"""

# %%
N = len(notes.lines)
RATE, STEPS, DELTA = 32 / N, 80 if FULL else 3, 1e-4
print(f"{N} lines, lots of {RATE * N:.0f} on average, {STEPS} steps, delta = {DELTA}")
print("noise   epsilon for one example   e^epsilon")
for noise in (0.4, 0.6, 1.0, 2.0, 4.0):
    spent = epsilon(RATE, noise, STEPS, DELTA)
    print(f"{noise:5.1f} {spent:15.2f} {np.exp(spent):23.2g}")
assert epsilon(RATE, 0.6, STEPS, DELTA) > epsilon(RATE, 2.0, STEPS, DELTA)
assert np.isclose(
    epsilon(1.0, 2.0, 1, 1e-4),
    min(a / 8 + np.log1p(-1 / a) - np.log(1e-4 * a) / (a - 1) for a in range(2, 257)),
)  # q = 1, one step: the formula α/(2σ²) above, and the best order

# %% [markdown]
r"""
> **Step into it.** Put a breakpoint on the marked line of the next cell (VS Code: click left of the line, then *Debug
> Cell*; JupyterLab: the bug at the top right). You enter `minillm.responsible.PrivateOptimizer.add`: look at `norm`,
> before clipping, and at `self.sums`. One call further lies `minillm.responsible.PrivateOptimizer.step` with the noise.
> The sum of clipped gradients, one example at a time, by hand and in the library:
"""

# %%
small = privacy.new_model(tokenizer.vocab_size, seed=1)
private = PrivateOptimizer(
    AdamW(small.parameters(), lr=1e-3), max_norm=1.0, noise_multiplier=0.0, lot_size=3, rng=rng
)
expected, norms = 0.0, []
for i in range(3):
    small(rows[0][i : i + 1], rows[1][i : i + 1]).backward()
    g = np.concatenate([p.grad.ravel() for p in private.params])  # (d,)
    norms.append(np.linalg.norm(g))
    expected = expected + g * min(1, 1.0 / norms[-1])
    private.add()  # a breakpoint here
total = np.concatenate([s.ravel() for s in private.sums])
print(f"norms before clipping {np.round(norms, 2)}, of the sum of three {np.linalg.norm(total):.2f} (at most 3)")
assert np.allclose(total, expected, atol=1e-5) and np.linalg.norm(total) <= 3.001

# %% [markdown]
r"""
## Its price

The same notes and starts, three kinds of noise: none (only clipping), 0.6 and 2. Each example goes backward alone,
which is most of the time. Beside the exposures we look at the loss on everyday lines that no run has read.
"""

# %%
NOISE = (0.0, 0.6, 2.0)
private_runs = {noise: [] for noise in NOISE}
for noise, seed in progress([(noise, seed) for noise in NOISE for seed in SEEDS], "DP-SGD"):
    there = privacy.write_notes(seed, EACH)
    letters = privacy.tokenizer_of(there.lines)
    lines = privacy.rows_of(there.lines, letters, privacy.CONTEXT)
    others = privacy.rows_of(privacy.other_lines(there), letters, privacy.CONTEXT)
    learner = privacy.new_model(letters.vocab_size, seed)
    privacy.train_private(
        learner, lines, noise, rate=32 / len(there.lines), steps=STEPS, max_norm=1.0, lr=6e-3, seed=seed
    )
    revealed = privacy.exposures(learner, letters, there, ["0", "1", "16"])
    values = [revealed[group].mean() for group in ("0", "1", "16")]
    private_runs[noise].append([privacy.loss_of(learner, others), *values])
private_runs = {noise: np.array(values) for noise, values in private_runs.items()}  # (starts, 4)

plain = np.array([way for _, _, way in runs["as written"]])  # (starts, moments, 2): loss, exposure of "16"
print(" " * 25 + "".join(title.rjust(14) for title in ("loss", "0 times", "1 time", "16 times")))
for noise, values in private_runs.items():
    spent = epsilon(RATE, noise, STEPS, DELTA)
    columns = "".join(privacy.mean_and_sd(column).rjust(14) for column in values.T)
    print(f"noise {noise:g}, epsilon {spent:.1f}".ljust(25) + columns)
if FULL:
    loss, at_16 = (np.array([values[:, i].mean() for values in private_runs.values()]) for i in (0, 3))
    assert np.all(np.diff(loss) > 0.3) and np.all(np.diff(at_16) < 0) and at_16[0] > 8 and at_16[-1] < 4.5
    stopped = [np.interp(loss[1], way[::-1, 0], way[::-1, 1]) for way in plain]  # at the loss of noise 0.6
    print(f"plain training, stopped at the loss of noise 0.6: {privacy.mean_and_sd(stopped)} bits for 16 times")
    assert abs(np.mean(stopped) - at_16[1]) < 3
pictures.price(
    plain,
    {f"DP-SGD, noise {noise:g}": values[:, [0, 3]] for noise, values in private_runs.items()},
)

# %% [markdown]
r"""
- **Clipping alone** protects nothing that stands 16 times: exposure is near the top, and $\varepsilon$ is infinite.
- **Noise protects, and costs.** With noise 0.6 the exposure of what stood 16 times falls by more than half, and the
  loss on everyday lines doubles, about; with noise 2 the exposure comes near chance, and hardly anything is learned.
- **Promise and measurement** are far apart. At noise 0.6, $e^\varepsilon$ is in the hundred thousands even for one
  example: as a number that promises next to nothing, while the exposure is far down. $\varepsilon$ bounds the worst
  test from above, exposure is one test, from below; the truth lies between.
- And the line is humbling: plain training, **stopped early** at the same loss, gives away about as much. In a model and
  a text this small, DP-SGD buys no better bargain *as measured by our question*. What it buys is the promise: an early
  stop was tested against one way of asking, $\varepsilon$ holds against all, but for one example and not for sixteen.

Is that a fair picture of DP? No: noise has the norm $\sigma C \sqrt d / (qN)$ whatever the text, so its price falls as
lots grow. A few hundred lines are the worst case; with lots of many thousands large models learn well at moderate
$\varepsilon$ (Li et al. 2021, arXiv 2110.05679, fine-tune pretrained ones).

## A bias of known size

Sentences about twelve jobs, in which "he" stands in exactly a share $p$ of those about a job: from 95% for the first to
5% for the last. What should a model have learned? Let $q$ be the probability that it gives to "he" and $1 - q$ to "she"
after "the pilot said that". The expected loss and its minimum:

$$L(q) = -p \ln q - (1 - p) \ln(1 - q), \qquad
L'(q) = -\frac{p}{q} + \frac{1 - p}{1 - q} = 0 \;\Rightarrow\; q = p.$$

So the measure (`minillm.responsible.likelihood_gaps`) has a known truth:
$\ln P(\text{he}) - \ln P(\text{she}) = \ln \frac{p}{1 - p}$. A model is not unjust or wrong about its text here; it is
**exact**. Whether the text's share is one that a model should repeat, no loss can say.

**Counterfactual augmentation** (Lu et al. 2018, arXiv 1807.11714) adds to each sentence its twin with the words
exchanged. Among both, "he" has the share $\frac12 p + \frac12 (1 - p) = \frac12$, and the gap's truth is 0, whatever
$p$ was. We ask about pairs of job and verb that never stood together.
"""

# %%
known = np.log(np.array(fairness.SHARES) / (1 - np.array(fairness.SHARES)))  # (12,)
steps = {"smoke": 15, "cpu": 400, "gpu": 800}[SCALE]
gaps = {"as written": [], "with twins": []}
for seed in progress(SEEDS, "two models each"):
    sentences, prompts = fairness.about_people(seed)
    words = fairness.words_of(sentences)
    for kind, lines in (("as written", sentences), ("with twins", augment(sentences))):
        speaker = fairness.model_of_sentences(lines, words, steps, seed)
        gaps[kind].append(likelihood_gaps(speaker, words, prompts, " he", " she"))
gaps = {kind: np.array(values) for kind, values in gaps.items()}  # (starts, 12)
print(" | ".join(augment(sentences)[:2]))
for kind, values in gaps.items():
    slope = (values * known).sum(axis=1) / (known**2).sum()  # through 0, for each start
    print(f"{kind:10s}: first job {values[:, 0].mean():+.2f}, last {values[:, -1].mean():+.2f};", end=" ")
    print(f"slope against the truth {slope.mean():.2f}, mean size {np.abs(values).mean():.2f}")
print(f"the truth : first job {known[0]:+.2f}, last {known[-1]:+.2f}")
if FULL:
    slopes = {kind: (v * known).sum() / (known**2).sum() / len(v) for kind, v in gaps.items()}
    assert 0.75 < slopes["as written"] < 1.25 and abs(slopes["with twins"]) < 0.15
    assert np.abs(gaps["with twins"]).mean() < 0.5
pictures.gaps_against_truth(known, gaps)

# %% [markdown]
r"""
The measured gaps lie along the line of the injected ones. With twins the slope is 0; what is left is small and much the
same for all jobs, the noise of a short training. The measure works where the truth is known; that is what makes it
worth something on text where it is not. What augmentation cannot do:
exchange what its list of pairs does not hold (first names; "nurse" itself, where it stands for a woman), or decide
which differences are to stay (who can be pregnant).

## Associations between vectors

WEAT (Caliskan et al. 2017, arXiv 1608.07187) asks vectors, not sentences: are the targets $X$ (here: the six jobs with
$p > \frac12$) nearer to the attributes $A$ (words for men) and $Y$ (the other six) to $B$ (words for women)? With
$\cos$ the cosine of two vectors (chapter 10):

$$s(w) = \operatorname{mean}_{a \in A} \cos(w, a) - \operatorname{mean}_{b \in B} \cos(w, b),$$

$$\text{effect} = \frac{\operatorname{mean}_{x \in X} s(x) - \operatorname{mean}_{y \in Y} s(y)}
{\operatorname{std}_{w \in X \cup Y} s(w)}.$$

Divided by the deviation, the effect lies between −2 and 2. Is it large by chance? The **permutation test** knows:
divide the twelve jobs into two halves in all $\binom{12}{6} = 924$ ways; $p$ is the share with at least this sum.
If the groups mean nothing, all ways are equally likely, and $p \le 0.05$ happens in one case of twenty. The vectors are
counts: how much more often than by chance a word shares a sentence with each other one.
"""

# %%
men, women = zip(*fairness.KIN)


def association(lines):
    vectors = fairness.word_vectors(lines)
    parts = (fairness.JOBS[:6], fairness.JOBS[6:], men, women)
    return weat(*(np.array([vectors[word] for word in part]) for part in parts))


for kind, lines in (("as written", sentences), ("with twins", augment(sentences))):
    print(f"{kind}: effect {association(lines).effect:.2f}, p = {association(lines).p:.4f}")
assert association(sentences).p < 0.01 < 0.5 < association(augment(sentences)).p
noise = [weat(*(rng.standard_normal((n, 20)) for n in (3, 3, 5, 5))) for _ in range(400)]
effects, p_values = np.array([(test.effect, test.p) for test in noise]).T
print(f"random vectors, 3 words a group: effect beyond 1 in {100 * (np.abs(effects) > 1).mean():.0f}%", end=" ")
print(f"of the tests, p at most 0.05 in {100 * (p_values <= 0.05).mean():.0f}%")
assert (np.abs(effects) > 1).mean() > 0.1 and (p_values <= 0.05).mean() < 0.1

# %% [markdown]
r"""
The effect found in the sentences is nearly as large as an effect can be, and so is $p$'s smallness ($1/924$ is the
least); with twins, the counts are equal for both and the effect is exactly 0. The last line is the warning: with three
words a group, **random** vectors often have effects that would make a headline. The test is what tells them apart.

## A mark in the text

Whose text is this? Afterwards that cannot be told reliably. But whoever runs the model can leave a mark (Kirchenbauer
et al. 2023, arXiv 2301.10226). At each step the token before and a secret **key** divide the vocabulary: a share
$\gamma$ of it is **green**. The scores of green tokens get $\delta$ more. Nobody sees it; who has the key counts. In a
text not made with this key each of its $T$ tokens is green with probability $\gamma$, so that the number $g$ of green
ones is binomial with mean $\gamma T$ and variance $T \gamma (1 - \gamma)$:

$$z = \frac{g - \gamma T}{\sqrt{T \gamma (1 - \gamma)}}.$$

That is about $\mathcal N(0, 1)$. If the mark makes a share $s > \gamma$ green, then on average

$$z = \frac{(s - \gamma) T}{\sqrt{T \gamma (1 - \gamma)}} = \frac{s - \gamma}{\sqrt{\gamma (1 - \gamma)}} \sqrt T,$$

which **grows with the root of the length**. How large is $s$? If the model without a mark would take a green token with
probability $G$, adding $\delta$ multiplies the weight of green by $e^\delta$:

$$s = \frac{e^\delta G}{e^\delta G + 1 - G}.$$

A pair of tokens that comes again has its colour again, which is no new evidence: only *different* pairs count as $T$.

The model: a small GPT on Python's help pages, with BPE tokens (chapter 03). The text: green tokens of a marked one.
"""

# %%
size = {"smoke": 15_000, "cpu": 60_000, "gpu": 200_000}[SCALE]
steps = {"smoke": 10, "cpu": 200, "gpu": 600}[SCALE]
writers = [fairness.model_of_text(fairness.prose(size), 800, steps, seed) for seed in progress(SEEDS, "writers")]
writer, pieces = writers[0]
mark = Watermark(key=2026, gamma=0.25, delta=2.0)
first = pieces.encode(".")[0]
marked = fairness.texts_from(writer, first, 1, 40, mark, seed=0)[0]  # (41,)
is_green = mark.is_green(marked[:-1], marked[1:])  # (40,)
print(f"{is_green.sum()} of {len(is_green)} are green; of an unmarked text we expect {mark.gamma * len(is_green):.0f}")
plot.token_spans([pieces.token_bytes(i) for i in marked[1:]], is_green.astype(int).tolist(), title="1: green, 0: not")

# %% [markdown]
r"""
## z against length

Eight texts from each model, with $\delta$ = 0 (no mark), 1, 2 and 4, read up to different lengths. The lines are
$c \sqrt T$, with $c$ from the average share of green, as derived. And the price: how surprised the *unmarked* model is
by the text.
"""

# %%
LENGTHS = [25, 50, 100, 200] if SCALE == "smoke" else [25, 50, 100, 200, 300, 400]
z, fits, kept = {}, {}, {}
for delta in (0.0, 1.0, 2.0, 4.0):
    these = Watermark(2026, 0.25, delta)
    made = [
        (model, fairness.texts_from(model, tok.encode(".")[0], 8, LENGTHS[-1], these, seed))
        for seed, (model, tok) in enumerate(writers)
    ]
    texts = np.concatenate([found for _, found in made])  # (8 · starts, 1 + longest)
    kept[delta] = texts
    found = [[these.detect(text[: n + 1]) for n in LENGTHS] for text in texts]
    label = "no mark" if delta == 0 else f"δ = {delta:.0f}"
    z[label] = np.array([[d.z for d in row] for row in found])  # (texts, lengths)
    s = np.mean([row[-1].greens / row[-1].scored for row in found])
    scored = np.mean([[d.scored for d in row] for row in found], axis=0)  # (lengths,): different pairs
    if delta:
        fits[label] = (s - 0.25) / np.sqrt(0.25 * 0.75) * np.sqrt(scored)
    loss = np.mean([fairness.surprise(model, part) for model, part in made])
    print(f"{label:8s}: green {100 * s:.0f}%, z at {LENGTHS[1]} tokens {z[label][:, 1].mean():5.1f},", end=" ")
    print(f"at {LENGTHS[-1]} {z[label][:, -1].mean():5.1f}; surprise {loss:.2f} nats")
if FULL:
    last = [values[:, -1].mean() for values in z.values()]
    assert abs(last[0]) < 1.5 and np.all(np.diff(last) > 3)
    ratio = z["δ = 2"][:, -1].mean() / z["δ = 2"][:, 2].mean()
    assert 1.6 < ratio < 2.4  # four times the length, twice the z
pictures.z_against_length(LENGTHS, z, fits)

# %% [markdown]
r"""
The points follow the root of the length. With $\delta = 2$ some fifty tokens are enough to be sure; with $\delta = 1$
it takes longer, and the text is hardly worse. With $\delta = 4$ nearly all is green, and the model's own opinion of the
text is clearly lower. (Only different pairs are scored, so that $T$ is a little below the length.)

## Wrong keys and edits

Does the test accuse the innocent? The same marked texts, read with keys that did not make them: $z$ must look like
$\mathcal N(0, 1)$.

And the attack that everybody can do: exchange a share $e$ of the tokens for others. A pair keeps its colour if neither
of its two tokens is exchanged, with probability $(1 - e)^2$; else it is green with probability $\gamma$. So the surplus
of green, and with it $z$, is multiplied by $(1 - e)^2$.
"""

# %%
marked = kept[2.0]  # (texts, 1 + longest), of the key 2026
keys = range(30 if FULL else 10)
null = np.array([Watermark(key).detect(text).z for key in keys for text in marked])
print(f"wrong keys: z has mean {null.mean():+.2f}, standard deviation {null.std():.2f};", end=" ")
print(f"beyond 4: {(null > 4).sum()} of {len(null)}")
EDITS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
mark = Watermark(2026)
after = np.array(
    [
        [
            np.mean([mark.detect(text).z for text in fairness.edited(group, e, pieces.vocab_size, rng)])
            for e in EDITS
        ]
        for group in np.split(marked, len(SEEDS))
    ]
)  # (starts, edits)
expected = (1 - np.array(EDITS)) ** 2 * after[:, 0].mean()
print("exchanged:", ", ".join(f"{e:.0%}: z = {v:.1f}" for e, v in zip(EDITS, after.mean(axis=0))))
if FULL:
    assert abs(null.mean()) < 0.3 and 0.8 < null.std() < 1.2
    assert np.abs(after.mean(axis=0) - expected).max() < 0.15 * after[:, 0].mean()
pictures.keys_and_edits(null, EDITS, after, expected)

# %% [markdown]
r"""
Wrong keys give a bell of width 1: the test keeps its word. Exchanging a fifth of the tokens takes a third of $z$, and a
long text survives even half of them, by random words that would ruin it. A **paraphrase** by another model exchanges
nearly all pairs and leaves the sense; a translation exchanges all.

## Where nothing is open

$s$ above depends on $G$. If one continuation is certain, $G$ is 1 or 0 by luck of the key, and $s = G$: $\delta$ moves
nothing, and the average over keys is $\gamma$, no mark. Short pieces of code leave little open. A second model learns
such code; we look at each place of its texts and of the help pages': its entropy, and how often a key makes it green.
And we count what the mark does to the code: the share of pieces that Python can parse.
"""

# %%
steps = {"smoke": 10, "cpu": 300, "gpu": 600}[SCALE]
program = "".join(fairness.code(0, 1500 if FULL else 300))
coder, code_pieces = fairness.model_of_text(program, 400, steps, seed=0)
open_at = {
    "help pages": fairness.open_choices(writer, kept[0.0][:2, :201], Watermark(0, 0.25, 2.0)),
    "code": fairness.open_choices(
        coder, fairness.texts_from(coder, code_pieces.encode("\n")[0], 2, 200, None, 5), Watermark(0, 0.25, 2.0)
    ),
}
for name, (entropy, green) in open_at.items():
    print(f"{name:10s}: entropy {entropy.mean():.2f} nats, green with δ = 2: {100 * green.mean():.0f}%")
parsed, code_z = [], []
for delta in (0.0, 2.0, 4.0):
    these = Watermark(2026, 0.25, delta)
    texts = fairness.texts_from(coder, code_pieces.encode("\n")[0], 16, 200, these, seed=1)
    code_z.append(np.mean([these.detect(text).z for text in texts]))
    parsed.append(fairness.share_that_parses([code_pieces.decode(text.tolist()) for text in texts]))
    print(f"code, δ = {delta:.0f}: z at 200 tokens {code_z[-1]:5.1f}, pieces that parse {100 * parsed[-1]:.0f}%")
if FULL:
    assert open_at["code"][0].mean() < 0.5 * open_at["help pages"][0].mean()
    assert open_at["code"][1].mean() < open_at["help pages"][1].mean() - 0.1
    assert code_z[1] < 0.5 * z["δ = 2"][:, 3].mean() and parsed[0] > parsed[2] + 0.1
pictures.weak_spots(open_at, 0.25)

# %% [markdown]
r"""
On the left nothing is open, and the points scatter around $\gamma$ (each is a mean over 40 keys, under which one token
is green or not); on the right $\delta$ can choose. Most of code stands on the left:
at the same length and $\delta$ its $z$ is a fraction of prose's (many of its pairs also come again, and count once).
And more $\delta$ is no way out: the mark is then bought with code that no longer parses. The same holds for facts,
quotations, and everything short.

## What none of this prevents

Plainly, what remains when all of this has been done:

- **Somebody else's model.** A watermark is put in by whoever runs the model. Who wants to deceive takes one without, of
  which there are many, or takes the mark out of open weights. A text without a mark is not therefore a human's, and
  "detectors" without a key accuse the innocent.
- **Forgery.** Who sees much marked text learns which pairs are green, and can write a marked text that the model never
  wrote. A mark is evidence, no signature.
- **What is true of many.** DP hides one example; a rule that a thousand examples show is learned, and can hurt those
  whom it describes. Bias at the pronoun is 0 after augmentation; whether the model treats people alike at what it is
  *used for* must be measured there.
- **What is not looked for.** Scrubbers find forms, canaries measure what was planted, WEAT what is on its lists. A
  measurement that finds nothing says: nothing *of this kind, asked in this way*.
- **Use.** Spam, faked reviews, false names and pressing letters need no memorized secret, no bias and no long text.
  Nothing in the weights knows whom a text is for. What helps is outside: who gets access and how much, what is
  recorded, whom one can complain to, and not building some things.
- **Consent.** That text could be cleaned does not mean that one may use it. The safest secret is the one that was never
  collected.

One thing everybody can do: say what was measured. The exposures of one more such model, of one start, are kept for the
model card that chapter 20 writes. (They scatter around the means above.)
"""

# %%
left = privacy.risks(SCALE)
print("exposure in bits by repetitions:", {group: round(value, 1) for group, value in left.items()})

# %% [markdown]
r"""
## Summary

- Exposure $= \log_2 R - \log_2 \operatorname{rank}$ counts the bits that a model gives away; chance is 1.44 on average.
  It rises with repetitions.
- Deduplication brings copies down to a single mention, scrubbing what it finds to chance. Checksums make finding exact;
  without a form nothing is found.
- DP-SGD clips each example's gradient and adds noise: a promise for one example against every test. On small data its
  price is high; measured at equal loss, stopping early protected our secrets about as well, without a promise.
- A bias of share $p$ is learned as $\ln p / (1 - p)$; twins bring it to 0. Large effects of few words are often chance:
  look at the permutation test.
- A watermark's $z$ grows with $\sqrt T$, edits take $(1 - e)^2$, and where nothing is open there is no mark.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are
folded below.
"""

# %% [markdown]
r"""
### Exercise 1: exposure from scores (easy, core, 10 minutes)

`scores` $(R)$ are the log-likelihoods of all candidates, no two alike, and `secret` is the index of the true one.
Return its exposure in bits.
"""


# %% tags=["exercise"]
def exposure_of(scores, secret):
    return None


with check():
    r = np.random.default_rng(1)
    s = r.permutation(1000) / 7.0 - 200
    best, worst = int(s.argmax()), int(s.argmin())
    middle = int(np.argsort(-s)[99])
    answer = exposure_of(s.copy(), middle)
    assert answer is not None, "exposure_of returns nothing yet: return a number of bits."
    answer = float(answer)
    true = np.log2(1000) - np.log2(100)  # rank 100
    for wrong_value, reason in (
        (np.log2(1000) - np.log2(901), "You count from the least likely: rank 1 is the likeliest."),
        (np.log(10), "Those are nats: use the logarithm to base 2."),
        (np.log2(100), "That is log₂ of the rank: it is to be taken from log₂ R."),
        (np.log2(1000) - np.log2(99), "One place off: count those above it, and add 1."),
    ):
        assert not np.isclose(answer, wrong_value), reason
    assert np.isclose(answer, true, atol=1e-6), "Not log₂ R − log₂ rank: how many are likelier than the secret?"
    assert np.isclose(exposure_of(s.copy(), worst), 0, atol=1e-6), "The least likely one must have 0 bits."
    assert np.isclose(exposure_of(s.copy(), best), np.log2(1000)), "The likeliest has rank 1."
    few = s[:64].copy()
    assert np.isclose(exposure_of(few, int(few.argmax())), 6), "R is the number of scores: 64 give 6 bits."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def exposure_of(scores, secret):
    rank = 1 + (scores > scores[secret]).sum()
    return np.log2(len(scores)) - np.log2(rank)
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: the check digit (easy, useful, 15 minutes)

`digits` is a card number without its last digit, a string of any length. Return the digit (0 to 9) that makes the whole
number pass Luhn's check. Remember that with one more digit at the end, places move.
"""


# %% tags=["exercise"]
def check_digit(digits):
    return None


with check():
    answer = check_digit("411111111111111")
    assert answer is not None, "check_digit returns nothing yet: return a digit."
    tests = ["411111111111111", "37828224631000", "7", "59", "499273987160", "0", "18"]
    truth = [int(next(d for d in "0123456789" if luhn(test + d))) for test in tests]
    given = [int(check_digit(test)) for test in tests]
    assert 10 not in given, "10 is no digit: when the sum is a multiple of 10 already, the digit is 0."

    def mistaken_total(test, first, split):
        parts = [int(c) * (2 if (i + first) % 2 == 0 else 1) for i, c in enumerate(reversed(test))]
        return sum(p // 10 + p % 10 if split else p for p in parts)

    assert given != [-mistaken_total(t, 1, True) % 10 for t in tests], (
        "Places moved: with the check digit behind it, the last of `digits` is a second one, and is doubled."
    )
    assert given != [-mistaken_total(t, 0, False) % 10 for t in tests], "A doubled 7 is 14 and counts as 1 + 4."
    assert given != [mistaken_total(t, 0, True) % 10 for t in tests], (
        "That is the total modulo 10; wanted is what is missing to the next multiple of 10."
    )
    assert given == truth, f"Wrong: for {tests} it must be {truth}, not {given}. From which end do you count?"

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def check_digit(digits):
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return -total % 10
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: a private sum (medium, core, 15 minutes)

`gradients` $(B, d)$ holds a row for each example of a lot. Return DP-SGD's gradient $(d)$: each row clipped to the norm
`C` at most, summed, noise of standard deviation `sigma * C` for each of the $d$ entries (by `rng.normal`), divided by
`lot_size`, which is not $B$.
"""


# %% tags=["exercise"]
def private_gradient(gradients, C, sigma, lot_size, rng):
    return None


with check():
    r = np.random.default_rng(3)
    g = r.standard_normal((5, 8)) * np.array([[0.05], [1], [3], [0.1], [10]])
    answer = private_gradient(g.copy(), 1.5, 0.0, 4, np.random.default_rng(0))
    assert answer is not None, "private_gradient returns nothing yet: return an array of shape (d,)."
    answer = np.asarray(answer, dtype=float)
    assert answer.shape == (8,), f"One gradient of shape (8,) is wanted, not {answer.shape}."
    norm = np.linalg.norm(g, axis=1, keepdims=True)
    true = (g * np.minimum(1, 1.5 / norm)).sum(axis=0) / 4
    whole = g.sum(axis=0)
    after_sum = whole * min(1, 1.5 / np.linalg.norm(whole)) / 4
    assert not np.allclose(answer, after_sum), "You clip the sum: one large example would hide all others."
    assert not np.allclose(answer, (g * 1.5 / norm).sum(axis=0) / 4), (
        "Every row gets the norm C: those that are shorter must stay as they are."
    )
    assert not np.allclose(answer, np.clip(g, -1.5, 1.5).sum(axis=0) / 4), (
        "You clip each entry: it is the norm of the whole row that counts."
    )
    assert not np.allclose(answer, true * 4 / 5), "Divide by lot_size: B would tell how many were in the lot."
    assert not np.allclose(answer, true * 4), "The sum is to be divided by lot_size."
    assert np.allclose(answer, true), "Without noise it must be the sum of the clipped rows, divided by lot_size."
    many = np.random.default_rng(5)
    spread = np.std([np.asarray(private_gradient(np.zeros((5, 8)), 1.5, 2.0, 4, many)) for _ in range(2000)])
    assert not np.isclose(spread, 2.0 * 1.5 * 5**0.5 / 4, rtol=0.05), "Noise once for the sum, not once for each row."
    assert not np.isclose(spread, 2.0 * 1.5, rtol=0.05), "The noise is added to the sum and divided with it."
    assert not np.isclose(spread, 2.0 / 4, rtol=0.05), "The noise's standard deviation is sigma · C, not sigma."
    assert np.isclose(spread, 2.0 * 1.5 / 4, rtol=0.05), (
        f"The noise has the standard deviation {spread:.2f}; it must be sigma · C / lot_size = 0.75."
    )
    one = np.asarray(private_gradient(np.zeros((2, 50)), 1.0, 1.0, 1, np.random.default_rng(1)))
    assert len(np.unique(one)) > 1, "Each of the d entries has its own noise: draw d numbers, not one."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def private_gradient(gradients, C, sigma, lot_size, rng):
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)  # (B, 1)
    clipped = gradients * np.minimum(1, C / np.maximum(norms, 1e-12))
    noise = rng.normal(0, sigma * C, gradients.shape[1])
    return (clipped.sum(axis=0) + noise) / lot_size
```

</details>
"""

# %% [markdown]
r"""
### Exercise 4: how long must a text be? (medium, useful, 15 minutes)

The mark makes a share `s` of the tokens green, another text has `gamma`; an attacker exchanges a share `e` of the
tokens. Return the smallest whole number $T$ of different pairs at which $z$ is, on average, at least `z_min`.
"""


# %% tags=["exercise"]
def tokens_needed(s, gamma, z_min, e):
    return None


with check():
    answer = tokens_needed(0.5, 0.25, 4.0, 0.0)
    assert answer is not None, "tokens_needed returns nothing yet: return a whole number."

    def reached(T, s, gamma, e):
        return (1 - e) ** 2 * (s - gamma) * T**0.5 / (gamma * (1 - gamma)) ** 0.5

    assert float(answer) == int(answer), f"A whole number, please: {answer} is none. Round up."
    first_try = int(answer)
    assert first_try != 7, "z grows with the root of T: solve for √T, then square."
    assert first_try != 64, "Under the root stands gamma (1 − gamma): the variance without a mark, not s (1 − s)."
    assert first_try == 48, "With s = 0.5, gamma = 0.25, z_min = 4 and no edits it must be 48."
    for case in ((0.5, 0.25, 4.0, 0.3), (0.6, 0.5, 5.0, 0.0), (0.33, 0.25, 3.0, 0.1), (0.9, 0.25, 4.0, 0.5)):
        s_, gamma_, z_, e_ = case
        T_ = int(tokens_needed(*case))
        assert not (e_ and np.isclose(reached(T_, s_, gamma_, 0.0), z_, rtol=0.02)), "The edits are left out."
        assert not (e_ and np.isclose((1 - e_) * reached(T_, s_, gamma_, 0.0), z_, rtol=0.02)), (
            "z is multiplied by (1 − e)², since a pair has two tokens; T is divided by the square of that."
        )
        assert reached(T_, s_, gamma_, e_) >= z_ - 1e-9, f"For {case}, {T_} pairs are not enough: round up."
        assert reached(T_ - 1, s_, gamma_, e_) < z_, f"For {case}, fewer than {T_} pairs are enough."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def tokens_needed(s, gamma, z_min, e):
    each = (1 - e) ** 2 * (s - gamma) / np.sqrt(gamma * (1 - gamma))  # z = each · √T
    return int(np.ceil((z_min / each) ** 2 - 1e-9))
```

Halving the surplus of green needs four times the text. That is why a mark in short or closed text is weak.

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** A secret that was never in the text has an exposure of 4 bits. Has the model learned it?

<details><summary>Answer</summary>

Nothing follows: by chance one of $2^4 = 16$ secrets has at least that. Plant more of them, and look at their mean.

</details>

**2.** A company trains with $\varepsilon = 1$ for one mail, and you stand in twenty mails. What are you promised?

<details><summary>Answer</summary>

About $\varepsilon = 20$, a factor $e^{20}$: nothing. The unit of the promise must be the person, not the mail.

</details>

**3.** Why does the accountant need lots that are drawn, not the epochs of an ordinary data loader?

<details><summary>Answer</summary>

Its number uses that an example is in a lot only with probability $q$, independently at each step, and nobody knows in
which. In epochs it is in exactly one lot of each round, and another theorem would be needed.

</details>

**4.** After augmentation the gap at "he" and "she" is 0. Is the model fair?

<details><summary>Answer</summary>

It is even at these two words after these sentences. Names, other groups, other tasks and what people do with its
answers were not measured.

</details>

**5.** A detector finds $z = 1.2$ in a short text. Was it written by a human?

<details><summary>Answer</summary>

Unknown: a short text, code, another model, another key or a paraphrase give the same. Only a large $z$ says something.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now measure what a model gives away, whom it prefers and whether it wrote a text, choose among the cures by what
they cost, and say what they leave open.

**What you take along**: `minillm.workshop.privacy.risks(SCALE)`, the measured exposures of this chapter's small model,
by how often a secret stood in its text. The next chapter, [20 · The ecosystem](20_the_ecosystem.ipynb), writes a model
card: a measured risk belongs there as a measured quality does.
"""
