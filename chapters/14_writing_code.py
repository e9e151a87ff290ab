# %% [markdown]
r"""
# 14 · Writing code

A summary is good or bad in somebody's opinion. A program can be **run**. That changes how one measures a model (did it
pass the tests?), how one uses it (draw many programs, keep one that works), and what one has to be afraid of (somebody
has to run what a model wrote). This chapter does the three with a small model that is trained here.

**Afterwards you can** derive pass@k and say what is wrong with its simpler twin; run a stranger's expression without
trusting it; choose a temperature by what is measured; turn more samples into better answers, by tests or by a vote, and
say what each costs.

**You need** [09 · Generating text](09_generating_text.ipynb): temperature, drawing;
[08 · Pretraining](08_pretraining.ipynb): the Python model.
"""

# %%
import ast
import operator
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
from minillm.data import corpus_documents, corpus_text
from minillm.data.tasks import code
from minillm.data.tasks.execution import ExecutionError, evaluate
from minillm.data.tasks.execution.functions import Calls
from minillm.generate import Sampling, generate
from minillm.hub.checkpoint import load_model_and_tokenizer
from minillm.metrics import pass_at_k
from minillm.training.baselines import NGramModel
from minillm.workshop import check, progress, read_scale, show_versions, type_into_debugger, writing
from minillm.workshop import writing_pictures as pictures
from minillm.workshop.deliverables import corpus, python_model

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
SEEDS = range({"smoke": 1, "cpu": 3, "gpu": 5}[SCALE])  # starts of the model
STEPS = {"smoke": 100, "cpu": 180, "gpu": 180}[SCALE]  # of training: it is stopped half-way on purpose
PROBLEMS = {"smoke": 4, "cpu": 16, "gpu": 60}[SCALE]  # from each test split, with many samples for each
N = {"smoke": 8, "cpu": 32, "gpu": 64}[SCALE]  # samples for each problem
show_versions(SCALE)

# %% [markdown]
r"""
## Why: what is right has many spellings

The task (`minillm.data.tasks.code`): a request in English names a filter, a map and a reduction; the answer is a Python
expression over lists whose names the request gives.
"""

# %%
splits = code.make(0, train=4000)
for pair in splits["train"][:4]:
    print(f"{pair.source:66s} {pair.target}")
pair = splits["test"][0]
spellings = [pair.target, pair.target.replace(" for x", "  for  x"), "sum([0])"]
print(f"\nrequest: {pair.source}")
for text in spellings:
    right = code.passes(text, code.tests_of(pair))
    print(f"  {text!r:48s} same text: {text == pair.target!s:6s} passes its tests: {right}")
assert [code.passes(t, code.tests_of(pair)) for t in spellings] == [True, True, False]

# %% [markdown]
r"""
The same text is too strict a judge. Five **tests** are better: five drawings of all lists, and what the reference gives
for them (`code.tests_of`). Whatever passes is right, however it is written. The whole chapter in one picture:
"""

# %%
pictures.draw_loop()

# %% [markdown]
r"""
## Running what a model wrote

`eval(text)` would do anything that Python can: delete files, open a connection, never return. A model has no
intentions, but it has read the internet, and it is asked to draw at random. The usual advice "take the built-ins away"
does not help. From an empty tuple one gets to its class, from there to the root of all classes, and down again to
every class that this process has loaded, among them some that open files:
"""

# %%
climb = "().__class__.__base__.__subclasses__()"
found = eval(climb, {"__builtins__": {}})  # without any built-in function
print(f"eval without built-ins still reaches {len(found):,} classes")
assert len(found) > 100
try:
    evaluate(climb)
except ExecutionError as error:
    print(f"minillm's evaluator: {error} ({error.reason})")

# %% [markdown]
r"""
Chen et al. (2021, section 2.3) put generated programs in a container of their own. For expressions there is a simpler
way: **do not run them**. Python's parser turns the text into a tree (that runs nothing), and we walk over the tree
ourselves. What we have no case for does not exist. It begins as small as this:
"""

# %%
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
FUNCTIONS = {"sum": sum, "max": max, "len": len}


def value(node, scope):
    """The value of a node of the tree; `scope`: the variables."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return scope[node.id]
    if isinstance(node, ast.BinOp):
        operation = OPERATIONS[type(node.op)]
        return operation(value(node.left, scope), value(node.right, scope))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return FUNCTIONS[node.func.id](*(value(argument, scope) for argument in node.args))
    raise ValueError(f"{type(node).__name__} is not allowed")


scope = {"xs": [3, 1, 2], "k": 4}
for text in ("2 * sum(xs) + k", "max(xs) - len(xs)"):
    tree = ast.parse(text, mode="eval").body
    print(f"{text:20s} = {value(tree, scope)}")
    assert value(tree, scope) == evaluate(text, scope)
print(ast.dump(ast.parse("2 * sum(xs)", mode="eval").body))

# %% [markdown]
r"""
The tree in the last line is what is walked: a multiplication, of a constant and a call.

The library's evaluator (`minillm.data.tasks.execution`) has more cases (comprehensions, methods, lambda, `def`), and
one more thing. Even without any access, code can take **for ever**, or all the **memory**. So each step is counted,
and what may grow is asked for its size *before* it is computed: `10 ** 10 ** 10` is refused because of the two
numbers, not because of the result. What it refuses, and by which of its reasons:
"""

# %%
hostile = [
    "sum(xs",
    "max([])",
    "__import__('os').remove('notes.txt')",
    "open('notes.txt').read()",
    "xs.append(1)",
    "xs.__class__",
    "10 ** 10 ** 10",
    "'a' * 10 ** 9",
    "sum(1 for a in range(9999) for b in range(9999))",
    "(lambda f: f(f))(lambda f: f(f))",
]
reasons = {}
for text in hostile:
    try:
        evaluate(text, scope)
    except ExecutionError as error:
        reasons[text] = error.reason
        print(f"{text:50s} {error.reason:10s}{error}")
assert set(reasons) == set(hostile) and scope["xs"] == [3, 1, 2]
assert {"syntax", "raised", "forbidden", "size"} <= set(reasons.values())

# %% [markdown]
r"""
Each is an `ExecutionError`, and the program goes on. Nothing here changes a value (`append`), so that one test cannot
spoil the next. Chat templates are programs of strangers as well; `minillm.assistant.sandbox` applies the same idea to
them: the tree is changed before it runs, so that each loop looks at the clock and each value is asked for its size.

> **Step into it.** Put a breakpoint on the line `evaluate("2 * len(xs)", scope)` of the next cell, and step into it.
> You pass `minillm.data.tasks.execution.tree.evaluate` and `minillm.data.tasks.execution.tree.Run.guarded`, where the
> text is parsed, and come to `minillm.data.tasks.execution.tree.Run.value` once for each node; look at `node` there.
"""

# %%
evaluate("2 * len(xs)", scope)  # a breakpoint here
commands = ["tbreak Calls.operate", "continue", "print(kind, a, b)", "print(self.steps)"]
names = {"evaluate": evaluate, "scope": scope, "Calls": Calls}
shown = type_into_debugger('evaluate("2 * len(xs)", scope)', commands, names)
print("\n".join(line for line in shown.splitlines() if not line.startswith("Breakpoint")))
assert "Mult'> 2 3" in shown

# %% [markdown]
r"""
## pass@k: how good is a model that may try k times?

Let $p$ be the chance that one sample passes a problem's tests. Of $k$ independent samples at least one passes with
probability

$$\text{pass@}k = 1 - (1 - p)^k .$$

We do not know $p$. We draw $n \ge k$ samples and count $c$ that pass. How do we estimate pass@$k$ from $n$ and $c$? The
simplest: put $c/n$ in the place of $p$. That is **wrong**, on the average:

- $E[c/n] = p$, but $(1 - x)^k$ is convex in $x$, and the mean of a convex function is at least the function of the mean
  (Jensen): $E[(1 - c/n)^k] \ge (1 - p)^k$. So $1 - (1 - c/n)^k$ is **too low** for $k \ge 2$.
- By how much? To second order, with $\text{Var}(c/n) = p(1 - p)/n$, by half the second derivative times the variance:
  $\frac{k(k-1)}{2} (1 - p)^{k-2}\, p(1 - p)/n$. It depends on $n$: draw more, and the same model looks better.

The right way (Chen et al. 2021, arXiv 2107.03374, section 2.1): choose $k$ of the $n$ samples, any $k$. They are $k$
independent samples like any others, so "one of them passes" has expectation $1 - (1 - p)^k$ exactly. That holds for
each of the $\binom{n}{k}$ choices, hence for their mean. And the mean can be counted: a choice has no passing sample
if all $k$ come from the $n - c$ that fail,

$$\widehat{\text{pass@}k} = 1 - \binom{n-c}{k} \Big/ \binom{n}{k} .$$

Large binomials overflow. From $\binom{i-1}{k} / \binom{i}{k} = (i - k)/i$, applied for $i = n, n-1, \dots, n-c+1$, the
quotient is $\prod_{i=n-c+1}^{n} (1 - k/i)$, which is what the library computes. The three, on one example:
"""

# %%
n, c, k = 10, 3, 4
samples = [True] * c + [False] * (n - c)
by_choices = np.mean([any(chosen) for chosen in combinations(samples, k)])
by_binomials = 1 - comb(n - c, k) / comb(n, k)
by_product = pass_at_k(n, c, k)[0]
print(f"all {comb(n, k)} choices {by_choices:.6f}, binomials {by_binomials:.6f}, library {by_product:.6f}")
print(f"the twin, 1 − (1 − c/n)ᵏ: {1 - (1 - c / n) ** k:.6f}")
assert np.isclose(by_choices, by_binomials) and np.isclose(by_choices, by_product)

# %% [markdown]
r"""
Does it matter? A simulation: $p = 0.1$, $n = 20$ samples, drawn again and again, and both estimates of pass@$k$ each
time.
"""

# %%
p, n, ks = 0.1, 20, np.arange(1, 21)
draws = np.random.default_rng(14).binomial(n, p, 10_000)  # c of each
truth = 1 - (1 - p) ** ks
ours = np.array([1 - np.array([comb(n - c, k) / comb(n, k) for c in range(n + 1)])[draws] for k in ks])
twin = np.array([1 - (1 - draws / n) ** k for k in ks])  # (k, draws)
error = {name: e.std(axis=1) / np.sqrt(len(draws)) for name, e in (("ours", ours), ("twin", twin))}
second = ks * (ks - 1) / 2 * (1 - p) ** (ks - 2.0) * p * (1 - p) / n
print("k          1      5     10     20")
table = {"truth": truth, "unbiased": ours.mean(axis=1), "twin": twin.mean(axis=1)}
for name, row in {**table, "2nd order": truth - second}.items():
    print(f"{name:9s}" + "".join(f"{row[k - 1]:7.3f}" for k in (1, 5, 10, 20)))
assert np.all(np.abs(ours.mean(axis=1) - truth) < 5 * error["ours"] + 1e-12)
assert np.all((truth - twin.mean(axis=1))[4:] > 5 * error["twin"][4:])
pictures.estimators(ks, truth, (ours.mean(axis=1), error["ours"]), (twin.mean(axis=1), error["twin"]), n)

# %% [markdown]
r"""
The blue circles are on the line, the red squares below it for every $k > 1$, and the second order (the table's last
row) explains nearly all of the gap. The bias also depends on $n$: what the twin says, on the average, of pass@10 of
this one model:
"""

# %%
print("the truth:", f"{1 - (1 - p) ** 10:.3f}")
said = {}
for n in (10, 20, 50, 200, 1000):
    passing = np.arange(n + 1)
    weight = np.array([comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)])  # of each c
    said[n] = (weight * (1 - (1 - passing / n) ** 10)).sum()
    exact = (weight * pass_at_k(n, passing, 10)).sum()
    print(f"n = {n:4d}: twin {said[n]:.3f}, unbiased {exact:.3f}")
    assert np.isclose(exact, 1 - (1 - p) ** 10)
assert list(said.values()) == sorted(said.values())

# %% [markdown]
r"""
One could "improve" a model by drawing more samples. The unbiased estimate says the same for every $n \ge k$; a larger
$n$ only makes it less noisy. A benchmark's number is the mean over its problems, and each problem has its own $p$:
average pass@$k$ over problems, never $p$.

## A small model that writes

A GPT of two blocks and 64 features, trained from nothing on "request, end of line, expression"; the loss is on the
expression's tokens only (`minillm.workshop.writing.Writer`). Three test splits say what it can be asked: `test` has
combinations of (filter, map, reduction) known from training in new words, names and numbers; in `compositional` the
three never stood together; in `pairs` not even filter and map did. It learns fast: to have something to improve, we
stop half-way. Two baselines: the commonest answer of the training, and the answer to the most similar request.
"""

# %%
TESTS = ("test", "compositional", "pairs")
COUNT = {"smoke": 8, "cpu": 60, "gpu": 200}[SCALE]
asked = {name: splits[name][:COUNT] for name in TESTS}
said = code.baselines({"train": splits["train"], **asked})
writers = [writing.Writer(splits["train"], seed) for seed in SEEDS]
for writer in writers:
    writer.learn(STEPS)
parameters = sum(weights.data.size for weights in writers[0].model.parameters())
print(f"{parameters:,} parameters, {STEPS} steps of 32 requests, {len(writers)} starts")

rows = {}
for name in TESTS:
    for method, answers in said.items():
        shares = [code.passes(t, code.tests_of(q)) for t, q in zip(answers[name], asked[name])]
        rows.setdefault(method, []).append([np.mean(shares)])
    greedy = [w.write(asked[name], 1, 0.0) for w in writers]
    scores = [writing.passed(asked[name], writing.run_all(asked[name], d)).mean() for d in greedy]
    rows.setdefault("model, greedy", []).append(scores)
print(f"{'right, by execution':22s}" + "".join(f"{name:>16s}" for name in TESTS))
for method, cells in rows.items():
    print(f"  {method:20s}" + "".join(f"{writing.mean_sd(cell):>16s}" for cell in cells))
if SCALE != "smoke":
    assert np.mean(rows["model, greedy"]) > np.mean(rows["retrieval"]) + 0.1 > 0.1

# %% [markdown]
r"""
Retrieval is right where a training request happens to be the same but for its words; the commonest answer never is.
The half-trained model is well above both, and what it has learned it can put together in new ways: it loses nothing
where three parts never met, and some where two never did. The full recipe, trained to its end, leaves nothing
to improve; `tests/bench/RESULTS.md` has its figures:
"""

# %%
command, table = writing.full_table(Path("../tests/bench/RESULTS.md"))
print(command + "\n" + table)

# %% [markdown]
r"""
## Temperature: what helps one try hurts many

Chapter 09: temperature divides the logits; low ones give the likeliest program again and again, high ones variety. For
**one** try variety is a loss. For $k$ tries it may be worth having, as $k$ equal programs are as good as one. For each
temperature and each start: $n$ samples for each problem, all executed, pass@$k$ for several $k$ from the same samples.
"""

# %%
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
KS = [k for k in (1, 2, 4, 8, 16, 32) if k <= N]
problems = [pair for name in TESTS for pair in splits[name][:PROBLEMS]]
drawn, values = {}, {}  # by (start, temperature): (P, n) texts, and what they gave
scores = {k: np.zeros((len(writers), len(TEMPERATURES))) for k in KS}
for i, writer in enumerate(writers):
    for j, t in enumerate(progress(TEMPERATURES, f"drawing, start {i}")):
        drawn[i, t] = writer.write(problems, N, t, seed=i)
        values[i, t] = writing.run_all(problems, drawn[i, t])
        passing = writing.passed(problems, values[i, t]).sum(axis=1)  # (P,) c of each problem
        for k in KS:
            scores[k][i, j] = pass_at_k(N, passing, k).mean()
greedy = np.array(
    [writing.passed(problems, writing.run_all(problems, w.write(problems, 1, 0.0))).mean() for w in writers]
)
print(f"{3 * PROBLEMS} problems, {N} samples each;  greedy: {writing.mean_sd(greedy)}")
print("temperature " + "".join(f"{t:14.1f}" for t in TEMPERATURES))
for k in KS:
    print(f"  pass@{k:<5d}" + "".join(f"{writing.mean_sd(column):>14s}" for column in scores[k].T))
pictures.by_temperature(TEMPERATURES, scores, greedy)

# %%
best = {k: TEMPERATURES[int(scores[k].mean(axis=0).argmax())] for k in KS}
print("best temperature:", ", ".join(f"pass@{k}: {t}" for k, t in best.items()))
if SCALE != "smoke":
    assert best[1] == min(TEMPERATURES) and best[1] <= best[KS[-1]] < max(TEMPERATURES)
    assert scores[KS[-1]].mean(axis=0).max() > greedy.mean() + 0.2

# %% [markdown]
r"""
pass@1 falls from the lowest temperature on, and greedy is about as good as that. For many tries the best temperature is
higher, but not by much; beyond it more variety only hurts, as all of the answer's tokens, ten to twenty in a row, must
be right together. (Chen et al. found the same direction with a model of 679 million parameters: 0.2 is best for pass@1
and 0.8 for pass@100. The place of the best depends on the model; the order does not.)

And pass@$k$ at the best temperature is far above greedy: the right program is often among the samples. Now we have to
find it.

## Choosing one: verify or vote

pass@$k$ supposes somebody who recognizes the right program: a **perfect verifier**. It is the upper limit for anybody
who has to hand in *one* program. What can be done without knowing the answer?

- **Examples.** A request often comes with one ("for these lists it should give 12"). Run all samples on it and hand in
  the first one that agrees: **best-of-n with a verifier**. We let it see one or two tests; what counts are all five.
- **Majority by text.** Hand in the commonest program.
- **Majority by values.** Run all samples on five drawings of the lists, whose right results *nobody knows*, and group
  programs that give the same five values; hand in one of the largest group. Right programs agree with each other, and
  wrong ones are each wrong in their own way. This is **self-consistency** (Wang et al. 2022, arXiv 2203.11171), for
  programs as in AlphaCode (Li et al. 2022, arXiv 2203.07814). A program that gives no value has no vote.

The same samples as above, at one temperature; for each number of samples the mean over 20 random orders.
"""

# %%
T = 0.6
curves = {}
for rule in writing.RULES:
    curves[rule] = np.array(
        [writing.curve(rule, problems, drawn[i, T], values[i, T], KS) for i in range(len(writers))]
    )  # (starts, numbers of samples)
print(f"{'right':22s}" + "".join(f"{f'n = {k}':>14s}" for k in KS))
for rule, shares in curves.items():
    print(f"  {rule:20s}" + "".join(f"{writing.mean_sd(column):>14s}" for column in shares.T))
pictures.compute_curve(KS, curves, greedy)

# %%
spellings = [  # for each problem: how many different programs among its samples are right
    len({text for text, v in zip(texts, found) if v == writing.right_values(pair)})
    for i in range(len(writers))
    for pair, texts, found in zip(problems, drawn[i, T], values[i, T])
]
solved = [n for n in spellings if n]
print(f"different right programs, where there is one: {np.mean(solved or [0]):.2f} on the average")
end = {rule: shares[:, -1].mean() for rule, shares in curves.items()}
exact = np.array([scores[k][:, TEMPERATURES.index(T)] for k in KS]).T  # pass@n, (starts, numbers)
assert np.allclose(curves["a perfect verifier"], exact, atol=0.15 if SCALE == "smoke" else 0.08)
if SCALE != "smoke":
    assert end["one sample"] < end["commonest values"] < end["a perfect verifier"] + 1e-9
    assert end["commonest values"] > end["commonest text"] - 0.03
    assert end["one sample"] + 0.03 < end["commonest values"] < greedy.mean() + 0.15
    assert end["passes one example"] > end["commonest values"] + 0.03
    assert end["passes two examples"] > end["passes one example"] - 0.01
    gains = np.diff(curves["commonest values"].mean(axis=0))
    print(f"majority by values, gain of each doubling: {gains.round(3)}")

# %% [markdown]
r"""
This is an **inference-time compute curve**: nothing was learned, and the answers get better with the computing spent on
each. What it shows:

- *One sample* stays where it is. The perfect verifier's curve is pass@$n$, as it must be.
- *Examples* gain far more than a vote, and two more than one. They stay below the perfect verifier: where right
  programs are rare, wrong ones that agree by chance are in the way.
- *Voting* gains without any knowledge, but slowly, a few points for a doubling: if the commonest program is wrong, more
  samples only confirm it. And it ends about where greedy decoding is: it wins back what temperature had cost, and
  little more. A vote finds what the model believes most, a verifier also what it believes seldom. (On word problems
  Wang et al. gain much more over greedy: there many ways of reasoning lead to one number. Here a right answer has few
  spellings, as printed.)
- Two samples give a vote by text nothing: two programs that differ are one against one.

What does it cost? Reading or writing a token takes about two operations for each weight, training on it about six
(chapter [07](07_the_transformer.ipynb)):
"""

# %%
tokens = np.mean([len(question) + len(answer) for question, answer in writers[0].rows])
one_sample, one_training = 2 * parameters * tokens, 6 * parameters * tokens * 32 * STEPS
requests = one_training / ((N - 1) * one_sample)
print(f"a sample: {one_sample:.1e} operations; these {STEPS} steps of training: {one_training:.1e}")
print(f"{N} samples instead of 1, for {requests:,.0f} requests, cost as much as that training again")
assert requests > 1

# %% [markdown]
r"""
For a few requests more samples are the cheap way to better answers; for many it is more training, which is paid once.
(Snell et al. 2024, arXiv 2408.03314, draw this comparison for large models.)

## A verifier that sees little is fooled

The example must tell right from wrong. How often does a wrong program pass? Of all samples that agree with the first
$m$ tests, the share that passes all five:
"""

# %%
print(f"{'tests seen':12s}{'samples that agree':>20s}{'of these right':>18s}")
precision = []
for m in range(5):
    agree, right = 0, 0
    for i in range(len(writers)):
        for pair, found in zip(problems, values[i, T]):
            wanted = writing.right_values(pair)
            some = [v for v in found if v is not None and v[:m] == wanted[:m]]
            agree, right = agree + len(some), right + sum(v == wanted for v in some)
    precision.append(right / max(agree, 1))
    print(f"{m:<12d}{agree:>20,}{precision[-1]:>18.3f}")
if SCALE != "smoke":
    assert precision[0] < precision[1] - 0.2 and precision[1] <= precision[4] + 1e-9

# %% [markdown]
r"""
(With none seen: of those that give any values.) One test does most of it, the further ones the rest. A wrong program
can agree by chance: the smallest of all numbers and the smallest of those below 5 are often the same number. Five
tests are no proof either: benchmarks were found whose tests let many wrong programs through (Liu et al. 2023, arXiv
2305.01210). A model *trained* on such tests will find their holes.

## Completing Python

Where no tests exist, one can still ask a weaker question: is it Python at all? Chapter 08's model has read the
standard library. We give it the first three lines of functions that it has not seen, let it write on, and keep the
first 1, 2 and 4 lines: what share **parses**? (Who does not finish so many has failed.) Beside it the 6-gram of
chapter 01 on the same text, both at two temperatures; and the true continuations, which are the ceiling: a statement
that runs over several lines does not parse when cut.
"""

# %%
LINES = (1, 2, 4)
DRAWS = {"smoke": 1, "cpu": 3, "gpu": 5}[SCALE]
model, tokenizer = load_model_and_tokenizer(python_model(SCALE))
text = corpus(SCALE, "code")
held_out = [document.text for document in corpus_documents(text, "val")]
functions = writing.beginnings(held_out, {"smoke": 6, "cpu": 40, "gpu": 100}[SCALE])
starts = [start for start, _ in functions]
grams = NGramModel.fit(corpus_text(text, "train"), order=6)


def by_the_model(temperature, seed):
    prompts = [tokenizer.encode(start) for start in starts]
    options = {"sampling": Sampling(temperature=temperature), "stop_ids": [tokenizer.eos_id]}
    ids = generate(model, prompts, max_new_tokens=96, seed=seed, **options)
    return [tokenizer.decode(row) for row in ids]


def by_counting(temperature, seed):
    rng = np.random.default_rng([seed, 3])
    return [writing.continue_by_counting(grams, start, 300, temperature, rng) for start in starts]


completions = {"true text": [[rest for _, rest in functions]]}
for t in (0.3, 1.0):
    completions[f"model, temperature {t:g}"] = [by_the_model(t, seed) for seed in range(DRAWS)]
    completions[f"6-gram, temperature {t:g}"] = [by_counting(t, seed) for seed in range(DRAWS)]
shares = {
    name: np.array([writing.parsing_shares(starts, texts, LINES) for texts in several])
    for name, several in completions.items()
}  # (draws, lines)
print(f"{len(starts)} functions, {DRAWS} draws;  lines: " + "".join(f"{n:>13d}" for n in LINES))
for name, several in shares.items():
    print(f"  {name:34s}" + "".join(f"{writing.mean_sd(column):>13s}" for column in several.T))
print("\n" + starts[0] + "    ---- the model goes on:\n" + completions["model, temperature 0.3"][0][0][:300])
pictures.parsing(LINES, {name: several.mean(axis=0) for name, several in shares.items()})

# %%
mean = {name: several.mean(axis=0) for name, several in shares.items()}
if SCALE != "smoke":
    assert np.all(mean["true text"] > mean["model, temperature 0.3"])
    assert np.all(mean["model, temperature 0.3"] > mean["model, temperature 1"])
    for t in ("0.3", "1"):
        assert np.all(mean["model, temperature 0.3"] > mean[f"6-gram, temperature {t}"] + 0.1)
    assert max(mean[f"{who}, temperature 1"][-1] for who in ("model", "6-gram")) < 0.2
    assert mean["6-gram, temperature 0.3"][0] < mean["6-gram, temperature 1"][0] + 0.05

# %% [markdown]
r"""
Brackets, quotation marks and indents have to fit over many tokens. At temperature 1 neither gets far, and what is
between the two is within the spread of the draws. At 0.3 the model, which sees all that stands before, parses far more
often. The 6-gram gains nothing: after five blanks, all that it sees, the likeliest byte is one more blank, and most of
its completions never end their first line.

Beware of what this measures: a comment parses whatever it says, `pass` always does, and the sample above is no function
that anybody wants. **Parsing is necessary, passing tests is the aim.**

## Summary

- Programs are judged by running them. The evaluator walks the tree itself; what has no case does not exist, and what
  could grow or last is asked before it does.
- pass@$k$ is estimated without bias by $1 - \binom{n-c}{k}/\binom{n}{k}$; the twin with $c/n$ is too low, and
  less so the more one draws.
- The best temperature rises with the number of tries.
- More samples for each request buy accuracy: most with a verifier, less by a vote, nothing without a way to choose.

## Exercises

### Exercise 1: pass@k by yourself (easy, core, 10 minutes)

`estimate(n, c, k)`: the unbiased estimate for one problem, as a number, from whole numbers. It must be right for large
$n$, too ($n = 2000$), and where fewer than $k$ samples failed.
"""


# %% tags=["exercise"]
def estimate(n, c, k):
    return None


with check():
    answer = estimate(10, 3, 4)
    assert answer is not None, "estimate returns nothing yet: return 1 − C(n−c, k) / C(n, k)."
    assert not np.isclose(answer, 1 - (1 - 3 / 10) ** 4), "That is the biased twin: choose k of n, none twice."
    assert not np.isclose(answer, comb(7, 4) / comb(10, 4)), "That is the chance that none passes."
    assert not np.isclose(answer, 0), "C(c, k) / C(n, k) is the chance that all k pass: one is enough."
    assert np.isclose(answer, 1 - comb(7, 4) / comb(10, 4)), "Not 1 − C(7, 4) / C(10, 4) for n = 10, c = 3, k = 4."
    assert np.isclose(estimate(5, 5, 2), 1) and np.isclose(estimate(5, 4, 2), 1), (
        "Fewer than k samples failed: then one of any k passes, and the estimate is 1."
    )
    assert np.isclose(estimate(5, 0, 2), 0), "Nothing passed: the estimate is 0."
    assert np.isclose(estimate(2000, 3, 1000), pass_at_k(2000, 3, 1000)[0]), "n = 2000 must work as well."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def estimate(n, c, k):
    return 1 - comb(n - c, k) / comb(n, k)
```

Python's whole numbers do not overflow, and `comb` is 0 where there are too few to choose from.

</details>
"""

# %% [markdown]
r"""
### Exercise 2: a vote by behaviour (medium, core, 15 minutes)

`vote(outputs)`: a list with what each sample gave on the same inputs, a list of values, or `None` where it gave none.
Return the index of the first sample of the largest group with equal outputs; of groups of the same size, the one whose
first sample comes first. `None` has no vote; if nobody has one, return 0. Values may be lists.
"""


# %% tags=["exercise"]
def vote(outputs):
    return -1


with check():
    assert vote([[1], [2], [2]]) != -1, "vote returns -1 so far: return the index of a sample."
    assert vote([[1], [2], [2]]) == 1, "[[1], [2], [2]]: two samples agree, the first of them is number 1."
    assert vote([None, None, None, [4], [5], [5]]) == 4, "Samples without a value have no vote: group the others only."
    assert vote([None, [3], [3]]) == 1, "The index counts all samples, also those without a value."
    assert vote([[7], [2], [7], [2]]) == 0, "Of groups of the same size take the one whose first sample comes first."
    assert vote([[[2, 1]], [[1, 2]], [[1, 2]]]) == 1, "[2, 1] and [1, 2] are different answers: do not sort them."
    assert vote([[1, 9], [1, 8], [1, 7], [2, 5], [2, 5]]) == 3, "All values must agree, not only the first."
    assert vote([None, None]) == 0, "If no sample gave a value, return 0."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def vote(outputs):
    sizes = [0 if mine is None else sum(mine == other for other in outputs) for mine in outputs]
    return sizes.index(max(sizes))
```

`index` finds the first one, and `max` of zeros is 0. The vote of the cells above is `minillm.workshop.writing.chosen`.

</details>
"""

# %% [markdown]
r"""
### Exercise 3: how many tries? (easy, useful, 10 minutes)

One sample passes with probability `p`, $0 < p < 1$. `tries(p, target)`: the smallest whole number of independent
samples of which at least one passes with probability `target` or more, $0 < \text{target} < 1$.
"""


# %% tags=["exercise"]
def tries(p, target):
    return None


with check():
    answer = tries(0.1, 0.9)
    assert answer is not None, "tries returns nothing yet: solve 1 − (1 − p)ᵏ ≥ target for k."
    assert answer != 9, "9 = target / p: chances of independent tries do not add up."
    assert answer != 21, "21 is one too few: 1 − 0.9²¹ < 0.9. Round up."
    assert float(answer).is_integer(), "A number of tries is whole: round up."
    assert answer != 1, "For p = 0.1 one try is right in one of ten cases only: which logarithm is divided by which?"
    assert answer == 22, "Not the smallest k with 1 − 0.9ᵏ ≥ 0.9."
    assert tries(0.9, 0.5) == 1, "With p = 0.9 and target 0.5 one try is enough."
    assert tries(0.5, 0.75) == 2, "1 − 0.5² = 0.75 exactly: two tries are enough."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def tries(p, target):
    k = 1
    while 1 - (1 - p) ** k < target:
        k += 1
    return k
```

Or, from $(1 - p)^k \le 1 - \text{target}$, $k = \lceil \ln(1 - \text{target}) / \ln(1 - p) \rceil$; the sign turns
because $\ln(1 - p) < 0$.

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** Why is pass@100 of a model at temperature 0 the same as its pass@1?

<details><summary>Answer</summary>

All 100 samples are the same program.

</details>

**2.** Two papers report pass@10, one from 10 samples for each problem, one from 200. Can they be compared?

<details><summary>Answer</summary>

If both use the unbiased estimate, yes: the first is noisier. With $1 - (1 - c/n)^k$, no: the first is lower for the
same model.

</details>

**3.** When does a vote hand in a wrong program although most samples are different from it?

<details><summary>Answer</summary>

When the others are wrong or right in many different ways: the largest group wins, and it need not be a majority.

</details>

**4.** Why is `10 ** 10 ** 10` refused before it is computed, and not stopped by a clock?

<details><summary>Answer</summary>

It is one step: inside it no line of ours runs that could look at a clock.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now measure a model by what its programs do, run them without trusting them, and spend computing at the time of
the answer where it pays.

**What you take along**: `pass_at_k` and the evaluator are in the library (`minillm.metrics`,
`minillm.data.tasks.execution`), the model with its samples in `minillm.workshop.writing`; `minillm finetune code`
trains the full recipe and `minillm evaluate RUN --samples 20` gives its pass@k. The same reward, "did it pass?", can
also train; that is [chapter 13](13_dialogue.ipynb). The next chapter,
[15 · The same model on PyTorch](15_the_same_model_on_pytorch.ipynb), runs what you know on another engine.
"""
