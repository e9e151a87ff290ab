# %% [markdown]
r"""
# 00 · Start here: a language model in one page

A **language model** reads the beginning of a text and says, for everything that could come next, how likely it is.
Ask it again and again, each time appending what you choose, and it writes. On this page you train a small one on your
own machine, in NumPy, without a network; it learns from the help pages of Python. Later chapters take it apart.

**Afterwards you can** name the five parts (text, tokens, model, loss, sampling), train, talk to what you trained,
look at what it looks at, and step into its code.

**You need** Python. Run the cells from top to bottom; change something; run again.
"""

# %%
import time

import numpy as np
from minillm import numpy_ops, plot
from minillm.data import deduplicate, stdlib_documents
from minillm.data.stdlib import documents_fingerprint
from minillm.generate import Sampling, next_logits, stream_text
from minillm.models.gpt import GPT, GPTConfig
from minillm.optim import AdamW, clip_grad_norm_
from minillm.tensor import no_grad
from minillm.tokenizers import BPETokenizer
from minillm.training import schedules
from minillm.training.baselines import NGramModel
from minillm.workshop import check, read_scale, show_versions, type_into_debugger

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
STEPS = {"smoke": 20, "cpu": 600, "gpu": 5000}[SCALE]  # training steps
TEXT = {"smoke": 60_000, "cpu": None, "gpu": None}[SCALE]  # bytes of text; None: all there is
show_versions(SCALE)

# %% [markdown]
r"""
## 1. Text

The model will know nothing but what stands here. The last tenth is kept aside: on text that it has never read, a
model shows what it has learned, not what it remembers. Help pages repeat whole paragraphs, and a paragraph in both
parts would spoil this test; so repetitions are removed first (chapter 04 measures what they do).
"""

# %%
pages = list(stdlib_documents("topics", max_bytes=TEXT))
documents = list(deduplicate(pages, paragraphs=True))
text = "\n\n".join(document.text for document in documents)
train_text, held_out = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
print(f"{sum(len(page.text) for page in pages):,} characters of help pages,", end=" ")
print(f"{len(text):,} without repetitions, fingerprint {documents_fingerprint(documents)}")
print(train_text[:300], "...")

# %% [markdown]
r"""
## 2. Tokens

A model computes with numbers, so text is cut into pieces from a fixed list, the **vocabulary**. A piece is called a
**token**, and its place in the list is its **id**. The vocabulary is learned from the text: it starts with single
letters (more precisely, bytes) and joins what often stands together, until it has 1024 tokens (chapter 03). Below, a
line in tokens, with their ids; ␣ is a space.
"""

# %%
tokenizer = BPETokenizer.train([train_text], vocab_size=1024)
line = "The return value is a string."
ids = tokenizer.encode(line)
labels = [tokenizer.token_bytes(i) for i in ids]
train_ids, held_out_ids = (np.array(tokenizer.encode(part)) for part in (train_text, held_out))
print(f"{len(train_ids):,} tokens to learn from, {len(held_out_ids):,} kept aside")
plot.token_spans(labels, ids)

# %% [markdown]
r"""
## 3. The model

A **GPT** turns each token into a vector, here of 96 numbers. Then come **layers**, here two. In each, every position
first gathers information from the positions before it (**attention**, chapter 06; it is done in four ways at once, by
four **heads**), then transforms what it has gathered. At the end, every position has a score, or **logit**, for each of
the 1024 tokens that could follow; the scores are turned into probabilities. All of this is arithmetic with the
**weights**, a few hundred thousand numbers. They are drawn at random, so the first guesses are random, too.

`talk` continues a text, one token after the other. What `temperature` does comes in section 5. (� is half a
character: tokens may be single bytes.)
"""

# %%
CONTEXT = 64  # how many tokens it sees at once
config = GPTConfig(tokenizer.vocab_size, context=CONTEXT, n_layers=2, n_heads=4, d_model=96)
model = GPT(config, rng=np.random.default_rng(0))
print(f"{sum(p.data.size for p in model.parameters()):,} weights")


def talk(prompt, tokens=60, seed=0, temperature=0.7):
    sampling = Sampling(temperature=temperature)
    options = {"max_new_tokens": tokens, "sampling": sampling, "seed": seed}
    return prompt + "".join(stream_text(model, tokenizer, prompt, **options))


print(talk("The return value"))

# %% [markdown]
r"""
## 4. The loss, and what there is to beat

Show the model a stretch of text and ask at every position for the next token. The **loss** is how surprised it is by
what really comes: $-\ln p$, where $p$ is the probability that it gave to the right token, averaged over all positions.
It is 0 for a model that is always certain and right, and $\ln 1024$ for one that thinks all 1024 tokens equally likely.
The untrained model is near that.
"""


# %%
def stretches(ids, starts):
    """What the model reads, and what comes next at every position: both (len(starts), CONTEXT)."""
    window = starts[:, None] + np.arange(CONTEXT)
    return ids[window], ids[window + 1]


def held_out_loss():
    starts = np.arange(0, len(held_out_ids) - CONTEXT - 1, CONTEXT)[:60]
    x, y = stretches(held_out_ids, starts)
    with no_grad():  # only to look: nothing is prepared for learning
        return model(x, targets=y).item()


print(f"before training: {held_out_loss():.2f}, all tokens equally likely: {np.log(1024):.2f}")

# %% [markdown]
r"""
Is a loss of 3 good? Simple counting tells. An **$n$-gram** model guesses the next byte from the $n - 1$ bytes before
it, by how often it has seen them together (chapter 01). It works on bytes, not on tokens, so the two are compared in
**bits per byte**: what one byte of the held-out text costs. (A bit is $\ln 2$ of the loss's units, and a token is
several bytes.) Without any knowledge it is 8, since a byte has $2^8$ values.
"""

# %%
bytes_per_token = len(held_out.encode()) / len(held_out_ids)


def to_bits_per_byte(loss):
    return loss / np.log(2) / bytes_per_token


counting = NGramModel.fit(train_text, order=3)
ngrams = {f"{n}-gram": counting.bits_per_byte(held_out, n) for n in (1, 2, 3)}
print(f"a token has {bytes_per_token:.2f} bytes on average; bits per byte of the held-out text:")
for name, value in ngrams.items():
    print(f"{name}: {value:.2f}")
print(f"our model, untrained: {to_bits_per_byte(held_out_loss()):.2f}")

# %% [markdown]
r"""
(Untrained, it needs less than 8 already. Its tokens do that: they were learned from the text, and one guess covers
several bytes.)

## 5. Training, and letting it talk

`loss.backward()` finds, for each weight, in which direction and how strongly it moves the loss (chapter 02); the
**optimizer** moves all weights a little so that the loss falls; then comes the next stretch of text. Watch both curves
fall. *Validation* is the loss on the held-out text, which is never trained on. The horizontal lines are the $n$-grams.
"""

# %%
lines = {name: bits * np.log(2) * bytes_per_token for name, bits in ngrams.items()}
curve = plot.LiveCurve(title="a model learns", baselines=lines, every_seconds=1.0)
rng = np.random.default_rng(0)
optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
started = time.perf_counter()
for step in range(STEPS):
    starts = rng.integers(0, len(train_ids) - CONTEXT - 1, 16)
    x, y = stretches(train_ids, starts)  # 16 random stretches: both (16, 64)
    loss = model(x, targets=y)
    optimizer.zero_grad()  # forget the directions of the step before
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)  # these three lines: no step too long (chapter 08)
    rate = schedules.linear(step, STEPS, warmup=20, final=0.1)
    optimizer.param_groups[0]["lr"] = 3e-3 * rate
    optimizer.step()
    last = step == STEPS - 1
    val = held_out_loss() if last or step % (STEPS // 10) == 0 else None
    curve.update(step, train=loss.item(), val=val)
figure = curve.finish()
seconds = time.perf_counter() - started

# %%
bits = to_bits_per_byte(held_out_loss())
print(f"trained for {seconds:.0f} seconds: {bits:.2f} bits per byte")
if SCALE != "smoke":
    assert bits < ngrams["3-gram"] < ngrams["2-gram"] < ngrams["1-gram"] < 8

# %% [markdown]
r"""
It beats all three. Now let it talk. The model gives probabilities, **sampling** draws a token from them. Before the
logits become probabilities, they are divided by the **temperature**: below 1, likely tokens become likelier still;
above 1, unlikely ones get a chance. Expect the sound of English, not sense: it has read the equivalent of one short
book.
"""

# %%
for temperature in (0.3, 0.8, 1.5):
    print(f"--- temperature {temperature}\n{talk('The return value', temperature=temperature)}\n")

# %% [markdown]
r"""
The ten likeliest next tokens after one beginning, and the chance that each is drawn:
"""

# %%
beginning = np.array([tokenizer.encode("The return value is")])  # (1, tokens)
logits = next_logits(model, beginning, cache=None)[0]  # (1024,); chapter 09 explains the cache
settings = {f"temperature {t}": Sampling(temperature=t) for t in (0.3, 0.8, 1.5)}
names = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
plot.sampling_bars(logits, names, settings, top=10, title="after “The return value is”")

# %% [markdown]
r"""
## 6. Look inside a head

Attention decides, for each position, which earlier positions to read from. A head's decisions are a table of weights:
each row is a position, and its weights on itself and on those before it add up to 1. (Positions after it stay white:
they are what it has to guess.) Nobody told the heads where to look. We search all heads, on our line, for the most
decided look back: the largest weight on an earlier token. The first three rows don't count, since they have little
choice.
"""

# %%
attention = plot.look_inside(model, np.array([ids])).attention[:, 0]  # (layers, heads, T, T)
back = np.tril(attention, -1)  # without the weights on the position itself
back[:, :, :3] = 0
layer, head, t, s = np.unravel_index(back.argmax(), back.shape)
looks, at = plot.readable(labels[t]), plot.readable(labels[s])
print(f"layer {layer}, head {head}: {looks} looks at {at} with weight {back.max():.2f};", end=" ")
print(f"evenly spread over {t + 1} positions it would be {1 / (t + 1):.2f}")
plot.attention_grid(attention[layer, head], labels, titles=[[f"layer {layer}, head {head}"]])

# %% [markdown]
r"""
All eight heads, on the same line. Change `line` in section 2 and see which of their habits stay.
"""

# %%
plot.attention_grid(attention, labels)

# %% [markdown]
r"""
## 7. Step into it

> **Step into it.** The library is written to be walked through. Put a breakpoint on the first line of the next cell
> (VS Code: click left of the line, then *Debug Cell*; JupyterLab: the bug at the top right) and step into it. You pass
> `minillm.models.gpt.GPT.forward`, `minillm.models.gpt.GPT.hidden`, `minillm.models.gpt.Block.forward`, a layer such
> as `minillm.nn.Linear.forward`, the op `minillm.ops.linear`, and arrive in `minillm.numpy_ops.linear.linear`: a NumPy
> matrix product. Look at `x2.shape` and `weight.shape`. Above it stands the formula, below it its backward.
> Every module's `forward` is called by `minillm.nn.Module.__call__`. Beside this line you meet what returns at once:
> checks of shapes, `minillm.ops.backend`, which picks NumPy or PyTorch, and, where a NumPy function ends,
> `minillm.tensor.Tensor.from_op`, which notes for the backward what was computed from what (chapter 02).
> (If VS Code steps over the library, set `jupyter.debugJustMyCode` to false.)
"""

# %%
logits = model(np.array([ids]))  # a breakpoint here
print("ids", (1, len(ids)), "→ logits", logits.shape, "= (texts, positions, vocabulary)")
assert logits.shape == (1, len(ids), tokenizer.vocab_size)

# %% [markdown]
r"""
The same without an editor, in Python's own debugger. Each line after `(Pdb)` is a command: stop in `numpy_ops.linear`,
go on, say where we are (outermost call first), run to the end of the function, print. Between the model and the matrix
product stand only the modules (each twice: `__call__`, which calls `forward`), two methods of theirs, and the op. To
type yourself: `import pdb`, then `pdb.run("model(np.array([ids]))")`.
"""

# %%
commands = [
    "tbreak numpy_ops.linear",
    "continue",
    "where",
    "return",
    "print(x2.shape, weight.shape, y.shape)",
]
namespace = {"model": model, "ids": np.array([ids]), "numpy_ops": numpy_ops}
seen = type_into_debugger("model(ids)", commands, namespace)
print(seen)
assert "backend(x).linear(x, weight, bias)" in seen and f"({len(ids)}, 96) (288, 96)" in seen

# %% [markdown]
r"""
We are in the first layer's first matrix product. `x2` holds one vector of 96 numbers for each token of the line. From
each of them the product makes three, which attention calls query, key and value: 3 × 96 = 288 numbers. So `weight` is
(288, 96), and `y` is (texts, tokens, 288).

## The map

| you have just used | taken apart in |
| --- | --- |
| n-grams, bits per byte | 01 What a language model is |
| `loss.backward()` | [02 Tensors and autograd](02_autograd.ipynb) |
| the tokenizer | [03 Text into tokens](03_tokens.ipynb) |
| the text, without repetitions | 04 Collecting and cleaning text |
| what came before attention | 05 Recurrent networks |
| heads | [06 Attention](06_attention.ipynb) |
| layers, weights; Llama | 07 The Transformer |
| the training loop | 08 Pretraining |
| `talk`, temperature | 09 Generating text |

| then the model is | in |
| --- | --- |
| put to work | 10 BERT · 11 Classification · 12 Translation and summaries · 13 Dialogue · 14 Code |
| made fast | 15 PyTorch · 16 A GPU kernel for attention · 17 Training at real size |
| examined | 18 Looking inside · 19 Privacy, bias and misuse · 20 The ecosystem |

[The contents page](README.md) says which chapters are there already.

## Summary

Text becomes tokens; the model turns tokens into probabilities for the next one; the loss says how surprised it was;
`backward` and the optimizer make it a little less surprised, many times over; sampling turns probabilities into text
again.

## Exercises

Write your answer in place of `None` and run the cell; the check says what is still wrong. Solutions are folded below.
"""

# %% [markdown]
r"""
### Exercise 1: what the loss means (easy, 5 minutes)

The loss is $\ell = -\ln p$. A model has loss $\ell$ at a position: which probability $p$ did it give to the right
token? Write the function. (For a loss averaged over many positions, the result is their typical probability: the
geometric mean.)
"""


# %% tags=["exercise"]
def typical_probability(loss):
    return None


with check():
    answer = typical_probability(np.log(1024))
    assert answer is not None, (
        "typical_probability returns nothing yet. The loss is −ln p; solve for p."
    )
    assert abs(answer - 1 / 1024) < 1e-9, (
        f"A loss of ln 1024 is that of guessing among 1024 tokens: 1/1024, not {answer}."
    )
    assert abs(typical_probability(0.0) - 1) < 1e-9, "A loss of 0 means certainty: probability 1."
    assert abs(typical_probability(-np.log(0.3)) - 0.3) < 1e-9, (
        "The loss −ln 0.3 comes from p = 0.3."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def typical_probability(loss):
    return np.exp(-loss)
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: no dice (easy, 5 minutes)

With temperature 0 the likeliest token is always taken. Write `greedy(prompt, tokens)` that continues a prompt in this
way (use `talk`). Will two different seeds give different texts?
"""


# %% tags=["exercise"]
def greedy(prompt, tokens, seed=0):
    return None


with check():
    text_1, text_2 = greedy("A class", 8, seed=1), greedy("A class", 8, seed=2)
    assert text_1 is not None, (
        "greedy returns nothing yet: return what talk(...) gives with temperature 0."
    )
    assert text_1 == text_2, (
        "Two seeds give two texts: there is still chance in it. Which temperature did you use?"
    )
    expected = tokenizer.encode("A class")
    for _ in range(8):
        expected.append(int(next_logits(model, np.array([expected]), cache=None)[0].argmax()))
        if expected[-1] == tokenizer.eos_id:  # the end of a text: it stops here
            expected.pop()
            break
    assert text_1 == tokenizer.decode(expected), (
        f"Eight times the likeliest token gives {tokenizer.decode(expected)!r}, not {text_1!r}."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def greedy(prompt, tokens, seed=0):
    return talk(prompt, tokens=tokens, seed=seed, temperature=0)
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: where are the weights? (medium, 10 minutes)

What share of the model's weights sits in the feed-forward parts, the modules called `mlp`? Use
`model.named_parameters()`, which yields names such as `blocks.0.mlp.fc.weight` and parameters, whose array is
`.data`.
"""


# %% tags=["exercise"]
def share_of_mlp(model):
    return None


with check():
    share = share_of_mlp(model)
    assert share is not None, (
        "share_of_mlp returns nothing yet: add up p.data.size where '.mlp.' is in the name."
    )
    assert 0 < share < 1, f"A share lies between 0 and 1; you return {share}."
    D = config.d_model
    mlp = config.n_layers * (8 * D**2 + 5 * D)  # each D → 4D → D, with biases
    whole = sum(p.data.size for p in model.parameters())
    assert abs(share - mlp / whole) < 1e-9, (
        f"Expected {mlp / whole:.3f}, you have {share:.3f}. Biases count, too."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def share_of_mlp(model):
    sizes = {name: p.data.size for name, p in model.named_parameters()}
    return sum(size for name, size in sizes.items() if ".mlp." in name) / sum(sizes.values())
```

</details>
"""
