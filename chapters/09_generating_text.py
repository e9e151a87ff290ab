# %% [markdown]
r"""
# 09 · Generating text

A trained language model does not write. It says, for every token, how likely it is to come next. To get a text,
somebody has to **choose**, again and again, and how one chooses makes the difference between a text that goes round in
circles, one that falls apart, and one that reads like the real thing.

**Afterwards you can** say and show what temperature, top-k, top-p, min-p and a repetition penalty do, and set them; say
when to search for the likeliest text and when never to; keep keys and values instead of computing them again, and prove
that nothing changes; stop in the right place; run many texts at once; and let a small model write ahead for a large
one.

**You need** [08 · Pretraining](08_pretraining.ipynb), whose model writes here; softmax and the causal mask from
[06 · Attention](06_attention.ipynb); bits per byte from
[01 · What a language model is](01_what_is_a_language_model.ipynb).
"""

# %%
import codecs

import numpy as np
from minillm import plot
from minillm.beam import beam_search
from minillm.data import corpus_text
from minillm.generate import Sampling, generate, known_ids, next_logits, softmax, stream_text
from minillm.hub.checkpoint import load_model_and_tokenizer
from minillm.models.gpt import GPT, GPTConfig
from minillm.tensor import no_grad
from minillm.workshop import (
    as_mask,
    as_plain,
    check,
    generating,
    progress,
    read_scale,
    show_versions,
    type_into_debugger,
)
from minillm.workshop.deliverables import corpus, python_model
from minillm.workshop.generating import CountingCache, Judge, TokenNGrams, complete, mean_sd, until

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
TEXTS = {"smoke": 3, "cpu": 48, "gpu": 96}[SCALE]  # held-out texts that are continued
NEW = {"smoke": 12, "cpu": 48, "gpu": 48}[SCALE]  # tokens that are generated for each
SEEDS = {"smoke": 1, "cpu": 3, "gpu": 5}[SCALE]  # draws for each setting
PLACES = {"smoke": 20, "cpu": 1500, "gpu": 6000}[SCALE]  # where one right answer is looked for
LONGEST = {"smoke": 7, "cpu": 10, "gpu": 11}[SCALE]  # time is measured up to 2 ** LONGEST tokens
show_versions(SCALE)

# %% [markdown]
r"""
## Why: probabilities are not yet a text

Chapter 08 ended with a small Llama that has read Python's standard library. Give it the **ids** of a text,
$T$ of them, and it returns a score for each of the $V$ tokens of its vocabulary, the **logits** $z$, of shape $(V)$.
Softmax turns them into probabilities $p$, $(V)$: of all tokens, how likely is each to be next? Everything in this
chapter happens in the loop around that call, which the picture shows.

The code of the loop is short. `next_logits` gives the logits after the last id of each row of a batch; what its `cache`
is comes later. How the next id is chosen is left to a function, `choose`. The first such rule takes the likeliest token
each time: **greedy** decoding. The second draws a token by its probability: **sampling**.
"""

# %%
model, tokenizer = load_model_and_tokenizer(python_model(SCALE))
V, CONTEXT = tokenizer.vocab_size, model.config.context
rng = np.random.default_rng(9)


def extend(prompt, choose, n):
    ids = list(prompt)
    for _ in range(n):
        logits = next_logits(model, np.array([ids]), cache=None)[0]  # (V,)
        ids.append(int(choose(logits)))
    return ids


def draw(p, rng=rng):
    return int(rng.choice(len(p), p=p))


prompt = tokenizer.encode("    def read(self, size=None):\n")
greedy = extend(prompt, np.argmax, NEW)
drawn = extend(prompt, lambda z: draw(softmax(z.astype(float))), NEW)
print(f"{sum(p.data.size for p in model.parameters()):,} weights, {V} tokens, context {CONTEXT}")
print(f"--- greedy\n{tokenizer.decode(greedy)}\n\n--- drawn\n{tokenizer.decode(drawn)}")
generating.loop_picture()

# %% [markdown]
r"""
Neither is satisfying. Greedy decoding falls into a rut. Drawing strays: sooner or later something unlikely comes, and
then the model has to continue *that*. This is the tension of the whole chapter, and we will measure both ends.

## Temperature

Divide the logits by a number $\tau > 0$, the **temperature**, before the softmax:

$$\underset{(V)}{p_i} = \frac{e^{z_i/\tau}}{\sum_j e^{z_j/\tau}}, \qquad
\frac{p_i}{p_j} = e^{(z_i - z_j)/\tau}.$$

A token that is 3 times as likely as another at $\tau = 1$ is $3^2 = 9$ times as likely at $\tau = \frac12$, and
$\sqrt 3$ times at $\tau = 2$. So with $\tau \to 0$ the likeliest takes all: greedy decoding. With $\tau \to \infty$ all
become equal. In between, the choice only ever gets more open as $\tau$ grows. **Entropy** measures how open:
$H = -\sum_i p_i \ln p_i$, which is 0 for one certain token and $\ln V$ for $V$ equal ones. Write $\beta = 1/\tau$,
$Z = \sum_j e^{\beta z_j}$, and $\langle z\rangle = \sum_i p_i z_i$ for the mean logit. As
$\ln p_i = \beta z_i - \ln Z$, and $dp_i/d\beta = p_i\,(z_i - \langle z\rangle)$ by the slopes of softmax (chapter 06),

$$H = \ln Z - \beta\langle z\rangle, \qquad \frac{d \ln Z}{d\beta} = \langle z\rangle, \qquad
\frac{d\langle z\rangle}{d\beta} = \langle z^2\rangle - \langle z\rangle^2 = \operatorname{Var}(z),$$

and with the product rule
$dH/d\beta = \langle z\rangle - \langle z\rangle - \beta\operatorname{Var}(z) = -\beta\operatorname{Var}(z) \le 0$:
cooler is never more open. We check that against a small difference.
"""


# %%
def with_temperature(z, tau):
    return softmax(z / tau)


def entropy(p):
    return -np.sum(p * np.log(np.maximum(p, 1e-300)), axis=-1)


z = next_logits(model, np.array([prompt]), cache=None)[0].astype(float)  # (V,)
for tau in (0.25, 0.5, 1.0, 2.0):
    beta, p = 1 / tau, with_temperature(z, tau)
    variance = p @ z**2 - (p @ z) ** 2
    nearby = [entropy(softmax((beta + step) * z)) for step in (-1e-5, 1e-5)]
    print(f"temperature {tau:4}: likeliest {p.max():.3f}, entropy {entropy(p):.3f},", end=" ")
    slope, by_trying = -beta * variance, (nearby[1] - nearby[0]) / 2e-5
    print(f"slope along 1/τ {slope:8.4f}, by trying {by_trying:8.4f}")
    assert abs(by_trying - slope) < 1e-4
assert entropy(with_temperature(z, 0.5)) < entropy(with_temperature(z, 1)) < np.log(V)

# %% [markdown]
r"""
## The tail, and four ways to deal with it

Most of the $V$ tokens are impossible at any one place. The model gives each a very small probability, never 0. But
there are very many of them. How much do they weigh *together*? We look at the model's probabilities at places in the
**held-out** text, which it was not trained on.
"""

# %%
folder = corpus(SCALE, "code")
train_text = corpus_text(folder, "train")
val_text = corpus_text(folder, "val")
held_ids = np.array(tokenizer.encode(val_text))
PROMPT = 20  # tokens of each held-out text that the model is given
starts = np.linspace(0, len(held_ids) - CONTEXT - 1, TEXTS).astype(int)
window = held_ids[starts[:, None] + np.arange(PROMPT + NEW)]  # (TEXTS, PROMPT + NEW)
prompts, real = window[:, :PROMPT].tolist(), window[:, PROMPT:].tolist()

with no_grad():
    logits = model(window[:, :-1]).data[:, PROMPT - 1 :].astype(float)  # (TEXTS, NEW, V)
p_held = np.array([softmax(z) for z in logits.reshape(-1, V)])  # (TEXTS · NEW, V)
next_held = window[:, PROMPT:].reshape(-1)  # (TEXTS · NEW,): what really comes

rare = p_held < 0.001
tail = np.where(rare, p_held, 0).sum(axis=1).mean()
at_least_one = 1 - (1 - tail) ** NEW  # as if every place were an average one
of_real = rare[np.arange(len(rare)), next_held].mean()
print(f"tokens with less than 0.1% each: {rare.sum(axis=1).mean():.0f} of {V} on average;", end=" ")
print(f"together {100 * tail:.1f}%")
print(
    f"a text of {NEW} drawn tokens has at least one of them in {100 * at_least_one:.0f}% of cases"
)
print(f"of the real tokens, {100 * of_real:.1f}% had so little")
if SCALE != "smoke":
    assert tail < 0.5 and at_least_one > 0.9 and abs(of_real - tail) < 0.1

# %% [markdown]
r"""
Real text has such tokens about as often: the model is right about how often something surprising comes, but not about
*what*. The real surprise is a name that makes sense there; one drawn from the tail is any of the rest. So nearly every
text drawn from all of $p$ has tokens that make no sense, and what follows has to make sense of them. A lower
temperature helps, but it also makes the good choices more unequal. The alternative is to cut the tail off, and to
divide the rest by its sum. Where to cut?

- **top-k**: keep the $k$ likeliest tokens.
- **top-p**, or nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751): keep the fewest tokens whose probabilities
  sum to at least a given share, such as 0.9 (which gave the filter's $p$ its name): go from the likeliest down, and
  keep a token if those before it do not reach the share yet.
- **min-p** (Nguyen et al. 2024, arXiv 2407.01082): keep tokens whose probability is at least a given share, such as
  0.03, of the likeliest one's.

And one that looks back at what stands there already: the **repetition penalty** $\theta > 1$ (Keskar et al. 2019, arXiv
1909.05858) lowers the logit of every token that occurred, by division if it is positive, by multiplication if it is
negative (dividing a negative number would *raise* it).
"""


# %%
def keep(p, mask):
    kept = np.where(mask, p, 0)
    return kept / kept.sum()


def top_k(p, k):
    return keep(p, p >= np.sort(p)[-k])


def top_p(p, share):
    order = np.argsort(-p)  # likeliest first
    before = np.cumsum(p[order]) - p[order]  # the sum of those before each
    mask = np.empty(len(p), dtype=bool)
    mask[order] = before < share
    return keep(p, mask)


def min_p(p, share):
    return keep(p, p >= share * p.max())


def penalised(z, previous, factor):
    z, seen = z.copy(), np.unique(previous)
    z[seen] = np.where(z[seen] > 0, z[seen] / factor, z[seen] * factor)
    return z


gap = 0.0
for _ in range(300):
    z, previous = 3 * rng.standard_normal(200), rng.integers(0, 200, 20)
    penalty, tau, share, least = rng.uniform((1, 0.3, 0.3, 0.01), (2, 2, 1, 0.3))
    k = int(rng.integers(1, 100))
    ours = with_temperature(penalised(z, previous, penalty), tau)
    ours = min_p(top_p(top_k(ours, k), share), least)
    library = Sampling(penalty, tau, k, share, least).probabilities(z, previous)
    gap = max(gap, np.abs(ours - library).max())
print(f"largest gap to the library in 300 random cases: {gap:.0e}")
assert gap < 1e-12

# %% [markdown]
r"""
All of them together, in the order of the loop above (penalty, temperature, top-k, top-p, min-p), are the library's
`minillm.generate.Sampling`. The picture shows what each leaves at one place, where much is possible. × marks a token
that was cut off; what a filter leaves grows, so that the sum is 1.
"""

# %%
names = [tokenizer.token_bytes(i) for i in range(V)]
settings = {
    "as it is": Sampling(),
    "temperature 0.5": Sampling(temperature=0.5),
    "top-k 6": Sampling(top_k=6),
    "top-p 0.8": Sampling(top_p=0.8),
    "min-p 0.2": Sampling(min_p=0.2),
}
beginning = tokenizer.encode("        return")
z_open = next_logits(model, np.array([beginning]), cache=None)[0]  # (V,)
plot.sampling_bars(z_open, names, settings, top=12, title="after “        return”")

# %% [markdown]
r"""
Where should one cut at *other* places? For all the held-out ones: how many tokens does each filter leave, and how often
does it cut off the token that really comes?
"""

# %%
filters = {"top-k 20": (top_k, 20), "top-p 0.9": (top_p, 0.9), "min-p 0.03": (min_p, 0.03)}
kept = {}
for name, (rule, value) in filters.items():
    mask = np.array([rule(p, value) > 0 for p in p_held])  # (places, V)
    kept[name] = mask.sum(axis=1)
    refused = 100 * (1 - mask[np.arange(len(mask)), next_held].mean())
    print(f"{name:10s} keeps {kept[name].min():3d} to {kept[name].max():4d} tokens,", end=" ")
    print(f"{kept[name].mean():5.1f} on average; cuts off the real one in {refused:.0f}% of places")
openness = entropy(p_held) / np.log(2)  # in bits
for name in ("top-p 0.9", "min-p 0.03") if SCALE != "smoke" else ():
    assert np.corrcoef(openness, np.log(kept[name]))[0, 1] > 0.6
generating.kept_figure(openness, kept)

# %% [markdown]
r"""
Each dot is a place in the held-out text, and entropy says how open the model thinks it is. Top-k is blind to that.
Top-p and min-p follow it: one token where the model is sure, a hundred or more where it is not. (The more a filter
keeps, the less often it cuts off the real token. These three keep different amounts, so that share alone does not say
which is best.)

## Which setting writes like the real thing?

A good continuation is not the likeliest one. It should be about *as* likely as real text, and repeat itself about as
often. Both can be measured:

- **How likely**, according to somebody else: a 5-gram model of bytes (chapter 01), counted on the same training text. A
  model that judges its own texts would find them likely by construction. The unit is bits per byte; fewer is likelier.
- **How repetitive**: the share of a text's 4-grams of tokens that stand in it already.

The model continues held-out beginnings with many settings, several draws each. The same two numbers are taken from what
*really* comes after these beginnings. The end-of-text token is not allowed, so that all texts have the same length.
"""

# %%
judge = Judge(train_text, tokenizer)
allowed = known_ids(tokenizer)
allowed[tokenizer.eos_id] = False


def write(sampling, seed):
    options = {"max_new_tokens": NEW, "sampling": sampling, "seed": seed, "allowed": allowed}
    return generate(model, prompts, **options)  # all texts as one batch


families = {
    "temperature": {str(t): Sampling(temperature=t) for t in (0, 0.4, 0.55, 0.7, 1.0)},
    "top-p": {str(p): Sampling(top_p=p) for p in (0.3, 0.5, 0.7, 0.9)},
    "min-p": {str(m): Sampling(min_p=m) for m in (0.3, 0.1, 0.03)},
    "top-k": {str(k): Sampling(top_k=k) for k in (3, 7, 20, 100)},
}
measured = {family: {} for family in families}
jobs = [(family, name) for family, settings in families.items() for name in settings]
for family, name in progress(jobs, "writing"):
    sampling = families[family][name]
    seeds = range(SEEDS if sampling.temperature > 0 else 1)  # greedy is the same for each
    runs = [judge.measure(prompts, write(sampling, seed)) for seed in seeds]
    measured[family][name] = np.array(runs)  # (seeds, 2)
stars = np.array([judge.measure(prompts[i::3], real[i::3]) for i in range(3)])  # (3, 2)
real_bits, real_repeats = judge.measure(prompts, real)

print(f"{'setting':18s}bits per byte   repeated (%)   ({SEEDS} draws of {TEXTS} texts: mean ± sd)")
print(f"{'real text':18s}{real_bits:.2f}            {real_repeats:.1f}")
for family, name in jobs:
    bits, repeats = measured[family][name].T
    print(f"{family + ' ' + name:18s}{mean_sd(bits):16s}{mean_sd(repeats, 1)}")
    if SCALE != "smoke" and bits.mean() >= real_bits:
        assert repeats.mean() < real_repeats
if SCALE != "smoke":
    cold, warm = measured["temperature"]["0"], measured["temperature"]["1.0"]
    assert cold[0, 0] < real_bits < warm[:, 0].min()
    assert cold[0, 1] > 5 * real_repeats and real_repeats > warm[:, 1].max()
generating.trade_off_figure(measured, stars)

# %% [markdown]
r"""
Each small mark is one draw, the line goes through the means, the stars are three thirds of the real text. Read it from
the right: the model's own distribution (temperature 1) is too wild, its texts cost far more bits than real ones. Cool
it or cut its tail, and you move to the left; go too far, and the texts go round in circles, up to greedy decoding at
the top. All four ways lead from the same corner towards the other: how far one goes matters more than by which of
them.

And all of them **pass below the real text**. Where the model's texts are as likely as real ones, they repeat themselves
less; where they repeat themselves as often, they are too likely. Real code repeats on purpose, in columns of similar
lines, and brings something new in between; this model cannot do both. A setting mends a weak model only so far. Two
temperatures from the middle of the road are kept in the table `SETTINGS` of `minillm.workshop.generating`: the cooler
one for a single good text, the warmer one for several different ones.

## Looking for the likeliest text

Greedy decoding takes the likeliest *token*, which is not the way to the likeliest *text*. Say `A` has probability 0.6
and `B` 0.4; after `A` the best next token has 0.3, after `B` it has 0.9. Greedy goes to `A` and ends at
$0.6 \cdot 0.3 = 0.18$; by way of `B` it would have been 0.36. A continuation $y$ of $n$ tokens has the probability

$$p(y) = \prod_{t=1}^{n} p(y_t \mid \text{all before}), \qquad
\ln p(y) = \sum_{t=1}^{n} \ln p(y_t \mid \text{all before}),$$

and there are $V^n$ of them. **Beam search** looks at a small part: keep the $k$ best beginnings (the **beams**), extend
each by every token, keep the $k$ best of these $k \cdot V$, and so on. One beam is greedy decoding. Each step is one
call of the model, with the beams as its batch. (`double` is the same model in double precision: two ways to compute the
same should agree in all digits but the last.)
"""


# %%
def beam_by_hand(prompt, n_beams, n):
    """The n_beams best continuations found, best first: (log-probability, ids)."""
    beams = [(0.0, [])]
    for _ in range(n):
        batch = np.array([prompt + new for _, new in beams])  # (beams, T)
        log_p = np.log([softmax(z) for z in next_logits(double, batch, cache=None)])  # (beams, V)
        candidates = []
        for (total, new), row in zip(beams, log_p):
            for token in np.argsort(-row)[:n_beams]:  # no other can be among the n_beams best
                candidates.append((total + row[token], [*new, int(token)]))
        beams = sorted(candidates, reverse=True)[:n_beams]
    return beams


double, _ = load_model_and_tokenizer(python_model(SCALE), dtype=np.float64)
ours = beam_by_hand(prompts[0], n_beams=5, n=10)
options = {"max_new_tokens": 10, "n_return": 5, "length_penalty": 0.0}  # 0: compare by the sum
theirs = beam_search(double, [prompts[0]], n_beams=5, **options)[0]
for (total, new), hypothesis in zip(ours, theirs):
    print(f"{total:8.4f} {hypothesis.score:8.4f}  {tokenizer.decode(new)!r}")
    assert abs(total - hypothesis.score) < 1e-9 and new == hypothesis.ids

# %% [markdown]
r"""
The left numbers are ours, the right ones those of `minillm.beam.beam_search`, which has two things on top: texts may
end at different lengths (a sum only falls, so it prefers short texts; `length_penalty` makes up for that), and it keeps
the past instead of computing it again. Look at the texts: the beams are variations of one or two, not five ideas.

**When is it bad?** We let it continue the held-out texts, and compare how likely the model itself finds the results,
the real continuations among them.
"""


# %%
def log_probabilities(new):
    """What the model gives to each token of continuations (TEXTS, NEW) of the prompts: (TEXTS, NEW)."""
    both = np.column_stack([prompts, new])
    with no_grad():
        z = model(both[:, :-1]).data[:, PROMPT - 1 :].astype(float)  # (TEXTS, NEW, V)
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return np.take_along_axis(log_p, np.array(new)[..., None], axis=-1)[..., 0]


found = beam_search(model, prompts, max_new_tokens=NEW, n_beams=8, allowed=allowed)
written = {
    "real text": real,
    "drawn": write(Sampling(), 0),
    "drawn, top-p 0.5": write(Sampling(top_p=0.5), 0),
    "greedy": write(Sampling(temperature=0), 0),
    "8 beams": [row[0].ids for row in found],
}
log_p = {name: log_probabilities(new) for name, new in written.items()}  # name -> (TEXTS, NEW)
thirds = {name: [rows[i::3].mean() for i in range(3)] for name, rows in log_p.items()}
for name, new in written.items():
    _, repeats = judge.measure(prompts, new)
    print(f"{name:18s} mean ln p of a token {log_p[name].mean():5.2f}, {repeats:4.1f}% repeated")
if SCALE != "smoke":
    assert min(thirds["8 beams"]) > max(thirds["drawn, top-p 0.5"]) > max(thirds["real text"])
    assert all(beams > greedy for beams, greedy in zip(thirds["8 beams"], thirds["greedy"]))
    assert abs(log_p["drawn"].mean() - log_p["real text"].mean()) < 0.5
generating.likelihood_figure({name: log_p[name][1] for name in ("real text", "8 beams")}, thirds)

# %% [markdown]
r"""
The search does its work: its texts are likelier than greedy ones. And they are worse. On the left, one text of each:
in the real one most tokens are a surprise for this model; that of the search is soon caught in a circle, the same few
probabilities again and again. On the right, each circle is a third of the texts, a stroke the mean of all. What
people write is *not* what a model finds likeliest. It is about as likely as what is drawn from the model: the model
is right about how surprising text is. (By its own measure, that is; the 5-gram model above could tell drawn texts
from real ones well.)

**When is it good?** When one answer is right and all others are wrong, as in recognising speech, where beam search
comes from (Lowerre 1976). Say an answer is worth 1 if it is exactly right, else 0. Then, if the model is right about
$p$, the expected worth of the answer $y$ is its probability $p(y)$, and the best answer is the likeliest. Drawing
instead is worth $\sum_y p(y)^2$, which is never more than the largest $p(y)$. We ask for the next three tokens at
many held-out places and count the answers that are exactly right. For drawing we need not draw: its chance to be
right is the probability of the real tokens.
"""

# %%
places = np.linspace(0, len(held_ids) - 30, PLACES).astype(int)
texts = held_ids[places[:, None] + np.arange(27)]  # (PLACES, 27)
before, answers = texts[:, :24].tolist(), texts[:, 24:].tolist()
z = next_logits(model, texts[:, :-1], None, at=slice(-3, None)).astype(float)  # (PLACES, 3, V)
log_z = np.log(np.exp(z).sum(axis=-1))  # (PLACES, 3)
by_chance = np.exp((np.take_along_axis(z, texts[:, 24:, None], -1)[..., 0] - log_z).sum(axis=1))
likeliest = generate(model, before, max_new_tokens=3, sampling=Sampling(temperature=0))
best = beam_search(model, before, max_new_tokens=3, n_beams=4)
right = {
    "drawn": by_chance,
    "greedy": np.array([new == answer for new, answer in zip(likeliest, answers)]),
    "4 beams": np.array([row[0].ids == answer for row, answer in zip(best, answers)]),
}
for name, values in right.items():
    share = [100 * values[i::3].mean() for i in range(3)]
    each = ", ".join(f"{value:.2f}" for value in share)
    print(f"{name:8s} right in {100 * values.mean():.2f}% of {PLACES} places (thirds: {each})")
if SCALE != "smoke":
    assert right["4 beams"].mean() > right["greedy"].mean() > 1.5 * right["drawn"].mean()

# %% [markdown]
r"""
Three tokens in a row are hard for so small a model, but the order is what the argument says: drawing is right least
often, in every third of the places. The search is ahead of greedy decoding on the whole, though not in every third:
there are too few right answers here to tell these two apart well. So: **search for an answer, draw a text.**

## Loops

Why does the likeliest text go in circles? For one thing, a rule without chance in it has no way out: the same situation
leads to the same choice. For another, a loop feeds itself: a line that stands there already is likelier to come again.
We measure that with lines of the held-out text: how likely is a line after copies of itself, and after as many other
lines? (Means over the lines of $\ln p$ of a token, for thirds of the lines.) Beside it stands how sure the model is of
what was written above, along the text.

Then we try the repetition penalty on greedy decoding. What does it cost? It also punishes what *must* come again. To
see how much, we let it change the model's distribution on the real texts and measure the loss there, in nats per token.
(What is repeated is a mean ± sd over thirds of the texts.)
"""

# %%
print("repetition penalty   repeated (%, greedy)   loss on real text")
for penalty in (1.0, 1.1, 1.2, 1.5):
    new = write(Sampling(repetition_penalty=penalty, temperature=0), 0)
    rates = [judge.measure(prompts[i::3], new[i::3])[1] for i in range(3)]
    punished = Sampling(repetition_penalty=penalty)
    losses = [
        -np.log(punished.probabilities(logits[row, t], ids[: PROMPT + t])[ids[PROMPT + t]])
        for row, ids in enumerate(window)
        for t in range(NEW)
    ]
    print(f"{penalty:<20} {mean_sd(rates, 1):22s} {np.mean(losses):.2f}")
    if penalty == 1:
        free = rates, np.mean(losses)
    elif SCALE != "smoke":
        assert max(rates) < min(free[0]) and np.mean(losses) > free[1]
lines = [
    tokenizer.encode(line + "\n") for line in sorted(set(val_text.splitlines())) if line.strip()
]
lines = [ids for ids in lines if 6 <= len(ids) <= CONTEXT // 7]
chosen = [lines[i] for i in rng.permutation(len(lines))[: 30 * SEEDS]]
after = generating.after_lines(model, chosen, copies=6)  # name -> (lines, copies)
if SCALE != "smoke":
    assert (after["copies of it"] - after["other lines"]).mean(axis=0).min() > 0
generating.loop_figure(after, {name: np.exp(rows) for name, rows in log_p.items()})

# %% [markdown]
r"""
On the left, the first copy of a line makes it clearly likelier than other lines do, and further copies a little more;
so the first round of a loop already pays for the second. On the right, what greedy decoding and the search write begins
surer than real text and stays so. The penalty breaks the loops, and makes real text less likely.

## The past is kept: the KV cache

The loop above gives the model the whole text for every new token. But attention is causal (chapter 06): what a position
computes depends on itself and on what stands before it. A new token changes **nothing** that was computed for the
earlier ones, and of them only keys and values are ever needed again. So keep those, in every layer, and compute query,
key and value of the new token only:

$$\underset{(1, d)}{o_t} = \operatorname{softmax}\!\Big(\frac{q_t\,K_{\le t}^\top}{\sqrt d}\Big)\,V_{\le t}, \qquad
\underset{(t+1,\, d)}{K_{\le t}} = \begin{pmatrix} K_{<t} \\ k_t \end{pmatrix}, \qquad
\underset{(t+1,\, d)}{V_{\le t}} = \begin{pmatrix} V_{<t} \\ v_t \end{pmatrix}.$$

Here positions $t$ count from 0, $d$ is the size of a head, and $V$ with an index is the values (without one it stays
the size of the vocabulary). This is row $t$ of causal attention, word for word: the mask had hidden the later keys
anyhow. We check it for one head, and then for the whole model, in double precision: the logits after each position of a
held-out text, computed all at once, and one token at a time with the library's cache, `minillm.nn.KVCache`.
"""

# %%
T, d = 12, 8
Q, K, U = rng.standard_normal((3, T, d))  # queries, keys, values (V is taken)
S = np.where(np.tri(T, dtype=bool), Q @ K.T / np.sqrt(d), -np.inf)  # (T, T)
all_at_once = np.array([softmax(row) for row in S]) @ U  # (T, d)

keys, values = np.empty((0, d)), np.empty((0, d))  # the cache
for t in range(T):  # one position at a time
    keys, values = np.vstack([keys, K[t]]), np.vstack([values, U[t]])
    out = softmax(Q[t] @ keys.T / np.sqrt(d)) @ values  # (d,)
    assert np.allclose(out, all_at_once[t], atol=1e-14)

ids = window[:1]  # (1, T)
with no_grad():
    at_once = double(ids).data[0]  # (T, V)
cache = double.new_cache()
steps = [
    next_logits(double, ids[:, t : t + 1], cache)[0] for t in range(ids.shape[1])
]  # T times (V,)
gap, largest = np.abs(np.array(steps) - at_once).max(), np.abs(at_once).max()
print(f"{len(steps)} positions × {V} logits up to {largest:.0f}: largest gap {gap:.0e}")
assert gap < 1e-10

# %% [markdown]
r"""
Equal up to rounding. **What is saved?** With $L$ layers of $D$ features, a token's way through the layers' matrices
takes $12 L D^2$ multiplications (chapter 07), and its attention to $t$ positions $2 L t D$. Without a cache, all $t$
tokens are sent through for each new one, so the work for *one* token grows at least like $t$, and that for a whole
text of $T$ tokens at least like $T^2$. With it, only the small second part grows. We measure both for a model with a
longer context, untrained (time does not depend on the weights' values). The price is memory: two numbers for each
layer, feature and position, $2 L T D$, for every text.
"""

# %%
config = GPTConfig(2000, context=2**LONGEST, n_layers=4, n_heads=4, d_model=128)
timed = GPT(config, rng=np.random.default_rng(0))
lengths = [2**i for i in range(5, LONGEST + 1)]
milliseconds = {
    name: 1e3 * np.array(generating.seconds_per_step(timed, lengths, use_cache=use_cache))
    for name, use_cache in (("without a cache", False), ("with a cache", True))
}
for name, values in milliseconds.items():
    print(f"{name:15s}: {values[0]:5.1f} ms after {lengths[0]} tokens,", end=" ")
    print(f"{values[-1]:5.1f} after {lengths[-1]}")
if SCALE != "smoke":
    growth = {name: values[-1] / values[0] for name, values in milliseconds.items()}
    assert growth["without a cache"] > 10 and growth["without a cache"] > 4 * growth["with a cache"]

cache = timed.new_cache()
next_logits(timed, np.ones((1, 10), dtype=int), cache)
held_bytes = sum(buffer.nbytes for buffer in [*cache.keys, *cache.values])
assert held_bytes == 2 * config.n_layers * config.context * config.d_model * 4  # float32: 4 bytes
print(f"this model's cache for {config.context} positions: {held_bytes / 1e6:.1f} MB")
large = 2 * 32 * 4096 * 4096 * 2  # Llama 2 7B: 32 layers, 4096 features and positions, 2 bytes
print(f"Llama 2 7B's for 4096 positions: {large / 1e9:.1f} GB; its 6.7e9 weights:", end=" ")
print(f"{2 * 6.7:.1f} GB, as much as the caches of {2 * 6.7e9 / large:.0f} such texts")
generating.cost_figure(lengths, milliseconds)

# %% [markdown]
r"""
The caches of a handful of long texts are as large as the whole model: it is they that limit how many texts a machine
can write at the same time. That is why newer models let several query heads share one key and value head (chapter 07).
And the cache has a condition: the past must really not change. When a text outgrows the context and its beginning is
dropped, everything that was computed from what is gone changes, and with learned positions every position moves, too;
so the library starts a new cache (`minillm.generate.window_start`). A model that looks in both directions (chapter
[10](10_bert.ipynb)) cannot have one.

## Stopping

A loop needs an end. There are three.

- An **end token**: the model was trained with a token between documents, and when it draws that, the text is over.
- **Enough**: `max_new_tokens`, always, for a model may never draw the end token.
- A **stop string**: for a function, the text is over at the next line that begins with `def`, or at an empty line. One
  must look for it in the *text*, not among the ids: tokens may end in the middle of it, or reach beyond it.
"""

# %%
for text in ("x\n\ny", "f(x)\n\ny"):
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(text)]
    print(f"{text!r} is {pieces}")

start, stops = "def is_empty(self):\n", ["\n\n", "\ndef ", "\nclass "]
for text in complete(
    model, tokenizer, start, n=3, stops=stops, sampling=Sampling(temperature=0.5), seed=1
):
    print("---", start + text, sep="\n")
    assert until(text, stops) == text

# %% [markdown]
r"""
`complete` is what this chapter leaves to whoever wants whole answers from a model. It draws `n` continuations as the
rows of one batch and cuts each before the first stop string.

When text is shown as it comes, there is one more trap. Tokens are made of **bytes**, and a character may have several:
one token may hold half a character. Decoded on its own it is not text. The remedy is a decoder that keeps incomplete
bytes until the rest arrives. Python has one; `minillm.generate.stream_text` uses it.
"""

# %%
ids = tokenizer.encode("# 你好")
each = [tokenizer.decode([i]) for i in ids]
decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
kept_back = [decoder.decode(tokenizer.decode_bytes([i])) for i in ids]
print("each token alone:  ", each)
print("with a memory:     ", kept_back)
assert "".join(kept_back) == "# 你好" != "".join(each)

wild = {"max_new_tokens": NEW, "sampling": Sampling(temperature=4.0), "seed": 0, "allowed": allowed}
streamed = "".join(stream_text(model, tokenizer, start, **wild))
whole = tokenizer.decode(generate(model, [tokenizer.encode(start)], **wild)[0])
assert streamed == whole  # even at a temperature at which anything comes, half characters included

# %% [markdown]
r"""
## Many texts at once

A model takes a batch $(B, T)$, and eight rows cost much less than eight times one row. But prompts differ in length.
The usual way is **left padding**: fill the short ones up with some token at the *left*, so that all end in the same
column, where the next token is chosen. Then each row must be computed as if it were alone. A mask sees to that, which
hides the filling from every query. And the positions? Ours is a Llama, whose rotary positions make a score depend on
the distance of the two tokens only (chapter 07), so it does not matter in which column a text begins. A GPT's learned
positions would have to be shifted as well, to count from the first real token.
"""


# %%
def padded_logits(model, rows, hide=True):
    """Logits (B, V) after prompts of different lengths, as one padded batch."""
    T = max(map(len, rows))
    ids = np.array([[0] * (T - len(row)) + row for row in rows])  # (B, T), filled with token 0
    is_real = np.array([[False] * (T - len(row)) + [True] * len(row) for row in rows])  # (B, T)
    mask = is_real[:, None, None, :] if hide else None  # (B, 1, 1, T): which keys are there
    with no_grad():
        x = model.token_embedding(ids)  # (B, T, D)
        for block in model.blocks:
            x = x + block.attn(block.norm_1(x), rope=model.rope(0, T), mask=mask)
            x = x + block.mlp(block.norm_2(x))
        return model.logits(model.norm(x)[:, -1]).data


uneven = [row[: 5 + 4 * i] for i, row in enumerate(prompts[:3])]  # 5, 9 and 13 ids
alone = np.array([next_logits(double, np.array([row]), None)[0] for row in uneven])  # (3, V)
for name, hide in {"masked": True, "without the mask": False}.items():
    gap = np.abs(padded_logits(double, uneven, hide) - alone).max()
    print(f"{name:16s} largest gap to each row alone: {gap:.0e}")
    assert gap < 1e-10 if hide else gap > 1e-3

# %% [markdown]
r"""
Nothing complains when the mask is forgotten; the texts are just worse. The library avoids the question: in
`minillm.generate.decode_steps` all rows stand at the same position, and a row whose prompt is longer takes its next
token from the prompt. (For GPT and Llama `minillm.models.decoding` goes further: each row has a place of its own.) Each
row has its own random generator, so it writes the same whatever stands beside it. And the gain:
"""

# %%
short = {"max_new_tokens": 12, "sampling": Sampling(temperature=0.8), "seed": 3}
together = generate(double, uneven, **short)
first = generate(double, uneven[:1], **short)
plain = generate(double, uneven, use_cache=False, **short)
assert together[:1] == first and together == plain
for rows in (1, 4, 16):
    (seconds,) = generating.seconds_per_step(timed, [64], rows=rows)
    print(f"{rows:2d} texts at once: {rows / seconds:6.0f} tokens per second")
(one,), (five,) = (generating.seconds_per_step(timed, [64], new=new) for new in (1, 5))
print(f"one text, one call: {1e3 * one:.1f} ms to read one token, {1e3 * five:.1f} ms to read five")

# %% [markdown]
r"""
## Writing ahead: speculative decoding

A large model is slow for each token mostly because all its weights have to be fetched from memory for every call. So
reading five tokens in one call costs far less than five calls, as the last line above shows even for a CPU. But to
*write* five, it needs five calls. Unless somebody guesses (Leviathan et al. 2022, arXiv 2211.17192): a small **draft**
model writes $\gamma$ tokens ahead, each drawn from its own distribution $q$, $(V)$. The large model reads all of them
in one call, which gives its own distribution $p$, $(V)$, at every one of these places. Going from left to right,

- **accept** the guess $x$ with probability $\min(1, p(x)/q(x))$;
- at the first refusal draw instead from what $p$ has more than $q$, $r(x) = \max(0, p(x) - q(x)) / R$ with
  $R = \sum_y \max(0, p(y) - q(y))$, and throw the other guesses away;
- if all are accepted, the call has also given the next distribution: draw one token more from it.

**What comes out is distributed exactly by $p$**, as if there were no draft. The token $x$ comes out in two ways:
guessed and accepted, or as a replacement:

$$q(x)\min\!\Big(1, \frac{p(x)}{q(x)}\Big) + \Big(1 - \sum_y q(y)\min\!\Big(1, \frac{p(y)}{q(y)}\Big)\Big)\, r(x)
= \min(p(x), q(x)) + \Big(1 - \sum_y \min(p(y), q(y))\Big)\, r(x).$$

As $\max(0, p - q) = p - \min(p, q)$ and the $p(y)$ sum to 1, the bracket is just $R$. So the second term is
$\max(0, p(x) - q(x))$, and the sum is $p(x)$. ∎ What follows an accepted token is chosen in the same way, given that
token, so the whole text is distributed as if the large model had written it. The share of guesses that are accepted is
$\sum_y \min(p(y), q(y))$: 1 if the draft is equal to the model. In code, with the exact computation, and with a rule
that looks right and is not:
"""


# %%
def accepting(p, q):
    return np.minimum(1, p / np.maximum(q, 1e-300))


def replacement(p, q):
    more = np.maximum(0, p - q)
    return more / more.sum() if more.sum() > 0 else p


worst = {"replaced from max(0, p − q)": 0.0, "replaced from p": 0.0}
for _ in range(1000):
    p, q = softmax(2 * rng.standard_normal(7)), softmax(2 * rng.standard_normal(7))
    accepted = q * accepting(p, q)  # (V,): guessed and accepted
    refused = 1 - accepted.sum()
    for name, instead in zip(worst, (replacement(p, q), p)):
        worst[name] = max(worst[name], np.abs(accepted + refused * instead - p).max())
for name, gap in worst.items():
    print(f"{name:28s}: largest gap to p in 1000 cases {gap:.0e}")
assert worst["replaced from max(0, p − q)"] < 1e-14 < 0.01 < worst["replaced from p"]

# %% [markdown]
r"""
Now for real. The draft need not be a network: we take a 3-gram model over tokens, counted on the training text. The
model's cache holds what it has read; guesses that were refused are forgotten by setting its `length` back.
"""

# %%
draft = TokenNGrams(tokenizer.encode(train_text), V, order=3)


def speculate(prompt, n, guesses, temperature, rng):
    """n new ids, drawn as from `double` alone; how often it was called; and for each guess that was looked at, whether
    it was accepted and how likely that was."""
    sampling = Sampling(temperature=temperature)
    ids, calls, seen, cache = list(prompt), 0, [], double.new_cache()
    next_logits(double, np.array([ids[:-1]]), cache)  # the prompt is read
    while len(ids) < len(prompt) + n:
        ahead, q = [], []
        for _ in range(guesses):
            q.append(draft.probabilities(ids + ahead, temperature))  # (V,)
            ahead.append(draw(q[-1], rng))
        cache.length = len(ids) - 1  # what was refused is forgotten
        z = next_logits(double, np.array([[ids[-1], *ahead]]), cache, at=slice(None))[0]
        p = [sampling.probabilities(row, ids) for row in z]  # guesses + 1 times (V,)
        calls += 1
        for i, guess in enumerate(ahead):
            accepted = rng.random() < accepting(p[i], q[i])[guess]
            seen.append((accepted, np.minimum(p[i], q[i]).sum()))
            ids.append(guess if accepted else draw(replacement(p[i], q[i]), rng))
            if not accepted:
                break
        else:  # all were accepted: one token more
            ids.append(draw(p[-1], rng))
    return ids[len(prompt) : len(prompt) + n], calls, seen


few, most = prompts[:8], min(NEW, 40)
for temperature in (0, 0.5, 1.0):
    per_call, share, expected = [], [], []
    for seed in range(SEEDS):
        r = np.random.default_rng(seed)
        texts, calls, seen = zip(*(speculate(row, most, 4, temperature, r) for row in few))
        per_call.append(most * len(few) / sum(calls))
        share.append(100 * np.mean([accepted for run in seen for accepted, _ in run]))
        expected.append(100 * np.mean([overlap for run in seen for _, overlap in run]))
    print(f"temperature {temperature}: {mean_sd(per_call)} tokens for each call;", end=" ")
    print(f"{mean_sd(share, 1)}% of guesses accepted, Σ min(p, q) is {mean_sd(expected, 1)}%")
    if temperature == 0:  # no chance in it: exactly what the model writes alone
        options = {"max_new_tokens": most, "sampling": Sampling(temperature=0)}
        assert list(texts) == generate(double, few, **options)
    if SCALE != "smoke":
        assert min(per_call) > 1.2 and abs(np.mean(share) - np.mean(expected)) < 5

# %% [markdown]
r"""
A model that only counts saves a good part of the large model's calls, and at temperature 0 the text is, token for
token, the one that the large model writes alone. A draft closer to the model would save more: what is accepted is the
overlap of the two distributions, as computed. Exercise 5 asks how far ahead to guess.

## The library's version

`minillm.generate.generate` is the loop for a batch, `minillm.generate.stream` and `minillm.generate.stream_text` the
same for one text as it comes, and all of them are `minillm.generate.decode_steps`. For GPT and Llama on NumPy it hands
over to `minillm.models.decoding`, the same arithmetic with nothing around it, unless it is asked to be `plain`. At the
command line it is `minillm generate MODEL --prompt ... --temperature 0.8 --top-p 0.95`, or `--beams 4`.

> **Step into it.** Put a breakpoint on the marked line of the next cell (VS Code: click left of the line, then *Debug
> Cell*; JupyterLab: the bug at the top right) and step into it. You pass `minillm.generate.generate` and
> `minillm.generate.decode_steps` (look at `start`, `position` and `cache.length`, and at which branch is taken the
> first time and after that), `minillm.generate.next_logits`, which leads through the model to
> `minillm.nn.KVCache.update`, and `minillm.generate.Sampling.choose`, where a random number becomes an id. Stop in
> `minillm.generate.Sampling.probabilities` after `x[order[below]] = -np.inf`: what top-p has cut off is −∞ there.

The rest of the cell does the same in Python's own debugger: stop where the probabilities are made, say where we are,
run to the end of the function, print how many tokens may still be drawn, and three calls further up how many positions
the cache holds.
"""

# %%
sampling = Sampling(temperature=0.8, top_p=0.9)
options = {"max_new_tokens": 2, "sampling": sampling, "seed": 0, "plain": True}
generate(model, [prompt], **options)  # a breakpoint here

commands = [
    "tbreak Sampling.probabilities",
    "continue",
    "where",
    "return",
    "print(len(x), 'tokens,', np.isfinite(x).sum(), 'may be drawn')",
    "up",
    "up",
    "up",
    "print(ids.shape, start, position, cache.length)",
]
namespace = {"generate": generate, "model": model, "prompt": prompt, "options": options}
namespace["Sampling"] = Sampling
seen = type_into_debugger("generate(model, [prompt], **options)", commands, namespace)
print(seen)
assert f"{V} tokens," in seen and f"(1, {len(prompt) + 2}) 0 {len(prompt)} {len(prompt)}" in seen

# %% [markdown]
r"""
## Summary

- Logits become probabilities, and somebody has to choose. **Temperature** divides the logits; a lower one never opens
  the choice. **Top-k, top-p, min-p** cut off the tail, which is long enough to spoil nearly every text that is drawn
  from all of it; the last two follow how sure the model is.
- **Likelier is not better.** Greedy decoding and beam search find texts far likelier than what people write, and go in
  circles. Search for an answer, draw a text. A **repetition penalty** breaks loops and punishes what must come again.
- The **KV cache** gives the same logits up to rounding, because causal attention never changes the past. The time for
  one token hardly grows with the text; the memory does, $2LTD$ numbers for each text.
- **Stop** at the end token, at a stop string (looked for in the text), and in any case after so many tokens. A token
  may hold half a character.
- In a **batch** a padded row needs a mask and its own positions; the library's rows need neither.
- **Speculative decoding**: accept with $\min(1, p/q)$, replace from $\max(0, p - q)$; the distribution is exactly $p$.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are folded
below.
"""

# %% [markdown]
r"""
### Exercise 1: a filter that temperature does not move (easy, useful, 10 minutes)

Heat the logits, and top-p and min-p let more tokens through: both look at probabilities, which temperature has changed.
**Top-nσ** (Tang et al. 2024, arXiv 2411.07641) looks at the logits instead: a token stays if its logit is within $n$
standard deviations of the **largest** one. The standard deviation is that of all logits of this place. Write the mask
$(V)$, True where a token stays. The check heats the logits, too.
"""


# %% tags=["exercise"]
def top_n_sigma(z, n):
    return None


with check():
    z = np.random.default_rng(3).standard_normal((5, 40)) * 2 + 1
    mask = top_n_sigma(z[0].copy(), 1.0)
    assert mask is not None, (
        "top_n_sigma returns nothing yet: return a boolean array of shape (V,), True where a token stays."
    )
    mask = as_mask(mask)
    assert mask.shape == (40,), f"The mask must have shape (V,) = (40,); yours is {mask.shape}."
    assert mask[z[0].argmax()], "The likeliest token must stay."
    assert (
        top_n_sigma(z[0].copy(), 100.0) is not None
        and as_mask(top_n_sigma(z[0].copy(), 100.0)).all()
    ), "Within 100 standard deviations of the largest logit lie all of them; yours cuts some off."
    cool, hot = (as_mask(top_n_sigma(z[0] / tau, 1.0)) for tau in (0.5, 3.0))
    assert np.array_equal(cool, mask) and np.array_equal(hot, mask), (
        "With another temperature other tokens stay. The distance must be measured in logits and shrink as they do."
    )
    for row in z:
        for n in (0.5, 1.0, 1.7):
            lowest = row.max() - n * np.sqrt(np.mean((row - row.mean()) ** 2))
            kept = as_mask(top_n_sigma(row.copy(), n)).sum()
            expected = int((row >= lowest).sum())
            assert np.array_equal(as_mask(top_n_sigma(row.copy(), n)), row >= lowest), (
                f"With n = {n}, {kept} tokens stay in one case, where {expected} should. From where do you measure, "
                "and in which unit?"
            )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def top_n_sigma(z, n):
    return z >= z.max() - n * z.std()
```

Divide $z$ by $\tau$, and the largest logit, its distances to all the others and the standard deviation are all divided
by $\tau$: the comparison comes out the same. So one can heat without letting the tail in.

</details>
"""

# %% [markdown]
r"""
### Exercise 2: never the same three tokens twice (medium, useful, 15 minutes)

A hard remedy against loops: no $n$-gram may occur twice in a text. Before each choice, find the tokens that would
complete an $n$-gram of ids that stands in `ids` already; their logits are then set to $-\infty$. Return them as a set.
(For example, with $n = 3$ and the ids 5 6 7 5 6, the token 7 is banned.) Mind short texts, and $n = 1$.
"""


# %% tags=["exercise"]
def banned_next(ids, n):
    return None


with check():
    answer = banned_next([5, 6, 7, 5, 6], 3)
    assert answer is not None, (
        "banned_next returns nothing yet: collect the ids that would complete an n-gram seen before, and return them."
    )
    assert set(as_plain(answer)) == {7}, (
        f"After 5 6 7 5 6 with n = 3, yours bans {set(as_plain(answer))}."
    )
    several = [1, 2, 3, 1, 2, 4, 2, 1, 2]
    assert set(as_plain(banned_next(several, 3))) != {4}, (
        "In 1 2 3 1 2 4 2 1 2 the pair 1 2 stood at two places before: look at all of them."
    )
    assert set(as_plain(banned_next(several, 3))) == {3, 4}, (
        f"After 1 2 3 1 2 4 2 1 2 with n = 3, yours bans {set(as_plain(banned_next(several, 3)))}: which tokens "
        "followed the same two before?"
    )
    assert set(as_plain(banned_next([8, 8, 8], 3))) == {8}, (
        "After 8 8 8 with n = 3 another 8 would repeat 8 8 8: two occurrences may overlap."
    )
    for short in ([], [4], [4, 4]):
        assert set(as_plain(banned_next(short, 4))) == set(), (
            f"{short} holds no 4-gram: nothing is banned."
        )
    assert set(as_plain(banned_next([3, 1, 3, 2], 1))) == {1, 2, 3}, (
        "With n = 1 every id that occurred is banned. (ids[-0:] is the whole list, not an empty one.)"
    )
    r = np.random.default_rng(2)
    for _ in range(50):
        ids, n = r.integers(0, 4, 30).tolist(), int(r.integers(1, 5))
        grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        expected = {x for x in range(4) if (*ids[len(ids) - n + 1 :], x) in grams}
        assert set(as_plain(banned_next(list(ids), n))) == expected, (
            f"Wrong for ids = {ids}, n = {n}."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def banned_next(ids, n):
    end = tuple(ids[len(ids) - n + 1 :]) if len(ids) >= n - 1 else None
    starts = range(len(ids) - n + 1)  # of the n-grams that stand there
    return {ids[i + n - 1] for i in starts if tuple(ids[i : i + n - 1]) == end}
```

A ban is exact and blind. It also forbids what *must* come again: a second `self.` followed by the same name. For code
it is a poor idea with $n$ as small as 3.

</details>
"""

# %% [markdown]
r"""
### Exercise 3: stop strings in a stream (medium, core, 20 minutes)

`complete` sees the whole text before it cuts. When pieces of text are shown as they come, a stop string may arrive in
parts: after `"x = 1\n"` nobody knows yet whether the next piece begins with `"\n"`. Write a generator that yields the
text before the earliest stop string, and nothing after it. It must not yield anything that may turn out to be a part of
a stop string; but what can no longer be a part of one must go out at once. At the end of the pieces all that is left
goes out. How much must be kept back? (To keep as many characters as the longest stop string has, less one, is enough.)
"""


# %% tags=["exercise"]
def stream_until(pieces, stops):
    text = ""  # what has come and has not been yielded yet
    for piece in pieces:
        text += piece
        ...  # yield what may be shown


with check():
    generating.check_stream(stream_until)

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def stream_until(pieces, stops):
    longest = max((len(stop) for stop in stops), default=1)
    text = ""
    for piece in pieces:
        text += piece
        if any(stop in text for stop in stops):
            break
        safe = max(len(text) - (longest - 1), 0)
        if safe:
            yield text[:safe]
            text = text[safe:]
    rest = until(text, stops)
    if rest:
        yield rest
```

A stop string that is not complete yet has at most `longest - 1` characters there, all of them at the end.

</details>
"""

# %% [markdown]
r"""
### Exercise 4: the same beginning (medium, core, 20 minutes)

In a conversation each question comes with all that was said before, and a server has the keys and values of that still.
Given a `cache` that holds the ids `held`, and new `ids` that may begin in the same way, compute the logits after `ids`
and read no more tokens than necessary. Set `cache.length` to the number of positions that can be kept; `next_logits`
adds what you give it. It has to be given at least one token, or there is nothing to give logits for.
"""


# %% tags=["exercise"]
def answer_from(cache, held, ids):
    """Logits (V,) of `double` after `ids`; `cache` holds the keys and values of `held`. Both are lists of ids."""
    return None


with check():
    text = window[0].tolist()
    cases = {
        "ids go on after held": (text[:10], text[:18]),
        "they part after 8 ids": (text[:15], [*text[:8], (text[8] + 1) % V, *text[9:14]]),
        "ids are the beginning of held": (text[:15], text[:6]),
        "ids and held are the same": (text[:12], text[:12]),
        "nothing is alike": (text[:9], [(i + 1) % V for i in text[:7]]),
        "alike again after a difference": (text[:16], [*text[:4], (text[4] + 1) % V, *text[5:16]]),
    }
    for name, (held, ids) in cases.items():
        cache = CountingCache(double.config.n_layers, CONTEXT)
        next_logits(double, np.array([held]), cache)
        cache.computed = 0
        z = answer_from(cache, list(held), list(ids))
        assert z is not None, (
            "answer_from returns nothing yet: count how many ids at the beginning are the same, then call next_logits."
        )
        z = np.asarray(getattr(z, "data", z)).reshape(-1)
        assert z.shape == (V,), (
            f"Logits must have shape (V,) = ({V},), of the last position; yours are {z.shape}."
        )
        same = 0
        while same < min(len(held), len(ids) - 1) and held[same] == ids[same]:
            same += 1
        expected = next_logits(double, np.array([ids]), None)[0]
        assert np.allclose(z, expected, atol=1e-9), (
            f"{name}: other logits than without a cache. Which positions of it are still right, and which ids are "
            "missing there?"
        )
        assert cache.length == len(ids), (
            f"{name}: afterwards the cache should hold the {len(ids)} ids, not {cache.length} positions."
        )
        assert cache.computed == len(ids) - same, (
            f"{name}: {cache.computed} tokens were read, {len(ids) - same} would do."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def answer_from(cache, held, ids):
    same = 0
    while same < min(len(held), len(ids) - 1) and held[same] == ids[same]:
        same += 1
    cache.length = same
    return next_logits(double, np.array([ids[same:]]), cache)[0]
```

Only the common *beginning* counts: what comes after a difference has looked at it, so its keys and values are others.

</details>
"""

# %% [markdown]
r"""
### Exercise 5: how far ahead? (medium, extra, 15 minutes)

Say each guess is accepted with probability `alpha`, independently of the others, and one token of the draft costs
`cost` times a call of the large model. With `guesses` guesses, how many tokens does a round bring on average (the large
model's own included), divided by what the round costs, counted in calls of the large model? That is the speed-up.
`alpha` may be 0 or 1.
"""


# %% tags=["exercise"]
def speed_up(alpha, guesses, cost):
    return None


with check():
    value = speed_up(0.5, 2, 0.0)
    assert value is not None, (
        "speed_up returns nothing yet. How likely is it that at least i guesses in a row are accepted? Sum that."
    )
    assert np.ndim(value) == 0, f"Return one number, not an array of shape {np.shape(value)}."
    assert np.isclose(speed_up(0.0, 4, 0.0), 1), (
        f"If no guess is ever accepted, each round brings the large model's own token: 1, not {speed_up(0.0, 4, 0.0)}."
    )
    assert np.isclose(speed_up(1.0, 4, 0.0), 5), (
        f"If all 4 are accepted, a round brings 5 tokens, not {speed_up(1.0, 4, 0.0)}."
    )
    r = np.random.default_rng(3)
    for alpha, guesses, cost in ((0.5, 2, 0.0), (0.8, 4, 0.0), (0.8, 6, 0.1), (0.3, 3, 0.5)):
        run = np.cumprod(r.random((200_000, guesses)) < alpha, axis=1).sum(
            axis=1
        )  # accepted in each round
        expected = (run.mean() + 1) / (1 + guesses * cost)
        value = speed_up(alpha, guesses, cost)
        assert np.isclose(value, expected, rtol=0.01), (
            f"For alpha = {alpha}, {guesses} guesses at {cost} each, 200,000 simulated rounds give {expected:.3f}, "
            f"yours {value:.3f}. "
            + (
                "A guess counts only if all before it were accepted."
                if cost == 0
                else "Is the draft paid?"
            )
        )
    rows = [max(range(9), key=lambda g: speed_up(alpha, g, 0.1)) for alpha in (0.3, 0.6, 0.9)]
    print("with guesses at a tenth of a call, best for alpha = 0.3, 0.6, 0.9:", rows, "guesses")

# %% [markdown]
r"""
<details><summary>Solution</summary>

At least $i$ guesses are accepted with probability $\alpha^i$, and the mean of a count is the sum of the probabilities
that it is at least 1, at least 2, and so on. With the model's own token: $1 + \alpha + \dots + \alpha^\gamma$.

```python
def speed_up(alpha, guesses, cost):
    tokens = sum(alpha**i for i in range(guesses + 1))
    return tokens / (1 + guesses * cost)
```

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** Top-p 0.9 is applied after temperature 0.5 rather than before. Which of the two orders keeps fewer tokens?

<details><summary>Answer</summary>

After: the lower temperature has made the likely tokens likelier, so fewer of them are needed to reach 0.9. The library
cools first.

</details>

**2.** Why does a beam search with more beams not give a better story?

<details><summary>Answer</summary>

It finds what the model thinks likelier, and the likeliest texts are dull and repetitive; real text is much less likely
than that, token for token. A search helps where one answer is right and the likeliest one is it.

</details>

**3.** The cache saves a factor that grows with the length. Why is it useless while *training*?

<details><summary>Answer</summary>

In training the whole text is known, and all positions are computed at once, each once. The cache saves computing the
same position again for every later token; there is nothing of that kind to save.

</details>

**4.** Why is a stop string looked for in the text, not its ids among the ids?

<details><summary>Answer</summary>

The same characters may come as other tokens: the stop string may begin in the middle of one and end in the middle of
another.

</details>

**5.** A draft model that is always certain and mostly wrong: what does it do to the text, and to the speed?

<details><summary>Answer</summary>

Nothing to the text: its distribution stays that of the large model, whatever the draft does. But nearly every guess is
refused, so each call brings little more than one token, and the draft's time is lost.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now choose how a model writes, by measured settings instead of habit, and keep the past, stop, run batches and
write ahead without changing what it says.

**What you take along**: `complete(model, tokenizer, prompt, n=..., stops=...)` and the table `SETTINGS` of
`minillm.workshop.generating`. Chapter [13](13_dialogue.ipynb) asks a model with it that has not learned to answer. What
it is worth to draw several answers for one request, and how to choose among them, is the question of chapter
[14](14_writing_code.ipynb); there, at last, an answer can be tested. Beam search comes back for translations, in
[12](12_translation_and_summarization.ipynb). In [10 · BERT](10_bert.ipynb) the model looks in both
directions: it can fill gaps, and it can no longer write.
"""
