# %% [markdown]
r"""
# 00 · Start here: a language model in one page

A **language model** reads the beginning of a text and says, for everything that could come next, how likely it is. Ask
it again and again, each time appending what you choose, and it writes. On this page you train a small one on your own
machine, in NumPy, without a network; it learns from the help pages of Python. Later chapters take it apart. All cells
together take a minute or two on a laptop, nearly all of it for the training in section 5.

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
from minillm.workshop import as_plain, check, read_scale, show_versions, type_into_debugger
from minillm.workshop.boxes import draw_language_model

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
STEPS = {"smoke": 20, "cpu": 600, "gpu": 5000}[SCALE]  # training steps
TEXT = {"smoke": 60_000, "cpu": None, "gpu": None}[SCALE]  # bytes of text; None: all there is
show_versions(SCALE)

# %% [markdown]
r"""
The parts, and how they fit together. The middle row is what the model does with any text. Above it, how it writes;
below it, how it learns. The first five sections of this page take them in turn.
"""

# %%
draw_language_model()

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
four **heads**), then transforms what it has gathered (its **feed-forward** part, chapter 07). At the end, every
position has a score, or **logit**, for each of the 1024 tokens that could follow; the scores are turned into
probabilities. All of this is arithmetic with the **weights**, a few hundred thousand numbers. They are drawn at random,
so the first guesses are random, too.

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
**bits per byte**: what one byte of the held-out text costs. (The loss, by the natural logarithm, counts in **nats**; a
bit is $\ln 2$ nats, and a token is several bytes.) Without any knowledge it is 8, since a byte has $2^8$ values.
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
fall. *Validation* is the loss on the held-out text, which is never trained on. The horizontal lines are the $n$-grams,
their bits per byte turned into nats per token.
"""

# %%
lines = {name: bits * np.log(2) * bytes_per_token for name, bits in ngrams.items()}
curve = plot.LiveCurve(title="a model learns", baselines=lines, every_seconds=1.0)
rng = np.random.default_rng(0)
optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)  # derived in chapter 08
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
| n-grams, bits per byte | [01 What a language model is](01_what_is_a_language_model.ipynb) |
| `loss.backward()` | [02 Tensors and autograd](02_autograd.ipynb) |
| the tokenizer | [03 Text into tokens](03_tokens.ipynb) |
| the text, without repetitions | [04 Collecting and cleaning text](04_collecting_and_cleaning_text.ipynb) |
| (not used: what came before attention) | [05 Recurrent networks](05_recurrent_networks.ipynb) |
| heads | [06 Attention](06_attention.ipynb) |
| layers, weights; Llama | [07 The Transformer](07_the_transformer.ipynb) |
| the training loop | [08 Pretraining](08_pretraining.ipynb) |
| `talk`, temperature | [09 Generating text](09_generating_text.ipynb) |

| then the model is | in |
| --- | --- |
| put to work | [10 BERT](10_bert.ipynb), [11 Classification](11_fine_tuning_a_classifier.ipynb) |
| | [12 Translation and summaries](12_translation_and_summarization.ipynb) |
| | [13 Dialogue](13_dialogue.ipynb), [14 Code](14_writing_code.ipynb) |
| made fast | [15 PyTorch](15_the_same_model_on_pytorch.ipynb) |
| | [16 A GPU kernel for attention](16_a_gpu_kernel_for_attention.ipynb) |
| | [17 Training at real size](17_training_at_real_size.ipynb) |
| examined | [18 Looking inside](18_looking_inside.ipynb) |
| | [19 Privacy, bias and misuse](19_privacy_bias_misuse.ipynb), [20 The ecosystem](20_the_ecosystem.ipynb) |

[The contents page](README.md) says how long each takes and what it builds on.

## Summary

Text becomes tokens; the model turns tokens into probabilities for the next one; the loss says how surprised it was;
`backward` and the optimizer make it a little less surprised, many times over; sampling turns probabilities into text
again.

## Exercises

Write your answer in place of `None` and run the cell; the check says what is still wrong. Solutions are folded below.
"""

# %% [markdown]
r"""
### Exercise 1: what the loss means (easy, core, 5 minutes)

The loss is $\ell = -\ln p$. A model has loss $\ell$ at a position: which probability $p$ did it give to the right
token? Write the function. (For a loss averaged over many positions, the result is their typical probability: the
geometric mean.)
"""


# %% tags=["exercise"]
def typical_probability(loss):
    return None


with check():
    answer = as_plain(typical_probability(np.log(1024)))
    assert answer is not None, (
        "typical_probability returns nothing yet. The loss is −ln p; solve for p."
    )
    assert np.ndim(answer) == 0, f"Return one number, not {answer}."
    assert 0 <= answer <= 1, f"A probability lies between 0 and 1; of a loss of ln 1024 you make {answer:.3g}."
    assert abs(answer - 1 / 1024) < 1e-9, (
        f"A loss of ln 1024 is that of guessing among 1024 tokens; you make {answer:.3g} of it."
    )
    assert abs(as_plain(typical_probability(0.0)) - 1) < 1e-9, (
        "A loss of 0 is that of a model that was certain and right."
    )
    for p in (0.3, 0.5, 0.9):
        answer = as_plain(typical_probability(-np.log(p)))
        assert abs(answer - p) < 1e-9, (
            f"A model that gives the right token p = {p} has loss {-np.log(p):.3f}; of this you make {answer:.3g}."
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
### Exercise 2: no dice (easy, core, 5 minutes)

With temperature 0 the likeliest token is always taken. Write `greedy(prompt, tokens, seed)`, which continues a prompt
by so many tokens in this way and returns prompt and continuation (use `talk`). Will two different seeds give different
texts?
"""


# %% tags=["exercise"]
def greedy(prompt, tokens, seed):
    return None


with check():
    text_1, text_2 = greedy("A class", 8, 1), greedy("A class", 8, 2)
    assert text_1 is not None, (
        "greedy returns nothing yet: return what talk(...) gives with temperature 0."
    )
    assert isinstance(text_1, str), f"Return a text, not {type(text_1).__name__}."
    assert text_1 == text_2, (
        "Two seeds give two texts: there is still chance in it. Which temperature did you use?"
    )
    for prompt, tokens in (("A class", 8), ("The return value", 12)):
        text = greedy(prompt, tokens, 3)
        assert text.startswith(prompt), f"The text must begin with the prompt {prompt!r}: {text!r}"
        expected = tokenizer.encode(prompt)
        for _ in range(tokens):
            likeliest = next_logits(model, np.array([expected]), cache=None)[0].argmax()
            if likeliest == tokenizer.eos_id:  # the end of a text: it stops here
                break
            expected.append(int(likeliest))
        assert text == tokenizer.decode(expected), (
            f"{text!r} is not what comes of {prompt!r} by taking the likeliest token {tokens} times. Is chance in it, "
            "or another number of tokens?"
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def greedy(prompt, tokens, seed):
    return talk(prompt, tokens=tokens, seed=seed, temperature=0)
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: where are the weights? (medium, useful, 10 minutes)

What share of the model's weights sits in the feed-forward parts, the modules called `mlp`? Use
`model.named_parameters()`, which yields names such as `blocks.0.mlp.fc.weight` and parameters, whose array is
`.data`.
"""


# %% tags=["exercise"]
def share_of_mlp(model):
    return None


with check():
    share = as_plain(share_of_mlp(model))
    assert share is not None, (
        "share_of_mlp returns nothing yet: add up p.data.size where '.mlp.' is in the name."
    )
    assert np.ndim(share) == 0 and 0 < share < 1, f"A share lies between 0 and 1; you return {share}."
    for layers, width in ((2, 96), (3, 32), (1, 64)):
        other = GPTConfig(500, context=16, n_layers=layers, n_heads=2, d_model=width)
        other = model if layers == 2 else GPT(other, rng=np.random.default_rng(0))
        D = other.config.d_model
        mlp = other.config.n_layers * (8 * D**2 + 5 * D)
        whole = sum(p.data.size for p in other.parameters())
        answer = as_plain(share_of_mlp(other))
        assert abs(answer - mlp / whole) < 1e-9, (
            f"Of a model with {layers} layers and {D} numbers in a vector you count {answer:.3f}, which is too "
            f"{'much' if answer > mlp / whole else 'little'}. Count numbers (sizes), not arrays; biases are weights, "
            "too."
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

# %% [markdown]
r"""
## Quick questions

**1.** Why is the loss on the text that was kept aside the one to watch?

<details><summary>Answer</summary>

On text that it has read, a model may show what it remembers. New text shows what it has learned.

</details>

**2.** Two models use different vocabularies. Why can't their losses be compared as they are?

<details><summary>Answer</summary>

A loss is for each token, and a token of one vocabulary may cover more text than a token of the other. Bits per byte can
be compared.

</details>

**3.** The temperature is lowered from 1 to 0.3. Which tokens gain, which lose?

<details><summary>Answer</summary>

The logits are divided by 0.3, so their differences grow: likely tokens become likelier, unlikely ones rarer still.

</details>

**4.** What do the numbers in a row of a head's picture add up to, and why are the places after the position white?

<details><summary>Answer</summary>

To 1: they say how the position shares out its look. What comes after it is what it has to guess, so it may not look
there.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now train a small language model, judge it on text that it has not read, let it talk, look into its heads, and
step into its code.

**What you take along**: the measure, **bits per byte** on text kept aside, and the first rival,
`minillm.training.baselines.NGramModel`. Later chapters judge their models in this way. The next one opens the rival up,
counts by hand what it counts, and shows where counting ends:
[01 · What a language model is](01_what_is_a_language_model.ipynb).
"""
