# %% [markdown]
r"""
# 00 · Start here: a language model in one page

A **language model** reads the beginning of a text and says, for everything that could come next, how likely it is.
That is all. Ask it again and again, each time appending what you choose, and it writes. In the next few minutes you
train a small one on your own machine, in NumPy, without a network; it learns from the help pages of Python. Later
chapters take every part of it apart.

**Afterwards you can** name the five parts (text, tokens, model, loss, sampling), train, talk to what you trained,
look at what it looks at, and step into its code.

**You need** Python. Run the cells from top to bottom; change something; run again.
"""

# %%
import numpy as np
from minillm import nn, plot
from minillm.baselines import NGramModel
from minillm.data import stdlib_documents
from minillm.data.stdlib import documents_fingerprint
from minillm.generate import Sampling, next_logits, stream_text
from minillm.models.gpt import GPT, GPTConfig
from minillm.optim import AdamW, clip_grad_norm_
from minillm.tensor import no_grad
from minillm.tokenizers import BPETokenizer

from workshop import check, read_scale, show_versions

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
STEPS = {"smoke": 20, "cpu": 600, "gpu": 5000}[SCALE]
TEXT = {"smoke": 60_000, "cpu": 400_000, "gpu": 400_000}[SCALE]  # bytes of text
show_versions(SCALE)

# %% [markdown]
r"""
## 1. Text

The model will know nothing but what stands here. The last tenth is kept aside, to see whether it has learned
something or only remembers.
"""

# %%
documents = list(stdlib_documents("topics", max_bytes=TEXT))
text = "\n\n".join(document.text for document in documents)
train_text, held_out = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
print(f"{len(text):,} characters, fingerprint {documents_fingerprint(documents)}")
print(train_text[:300])

# %% [markdown]
r"""
## 2. Tokens

A model computes with numbers, so text is cut into pieces from a fixed list, each with a number. The list is learned
too: pieces that occur often become one **token** (chapter 03).
"""

# %%
tokenizer = BPETokenizer.train([train_text], vocab_size=512)
line = "The return value is a string."
ids = tokenizer.encode(line)
train_ids, held_out_ids = (np.array(tokenizer.encode(part)) for part in (train_text, held_out))
print(f"{len(train_ids):,} tokens to learn from, {len(held_out_ids):,} kept aside")
plot.token_spans([tokenizer.token_bytes(i) for i in ids], ids)

# %% [markdown]
r"""
## 3. The model

A **GPT**: each token becomes a vector; in each layer every position first gathers from the positions before it
(**attention**, chapter 06), then transforms what it has gathered; at the end, each position gives a score to every
token that could follow. All of it is arithmetic with a few hundred thousand numbers, the **weights**, drawn at
random. So its first guesses are random, too.
"""

# %%
CONTEXT, WIDTH = 64, 96  # tokens that it sees at once; numbers in each vector
config = GPTConfig(tokenizer.vocab_size, context=CONTEXT, n_layers=2, n_heads=4, d_model=WIDTH)
model = GPT(config, rng=np.random.default_rng(0))
for _, module in model.named_modules():
    if isinstance(module, nn.Linear):  # GPT-2's start suits wide models: see chapter 06
        module.weight.data *= np.float32(WIDTH**-0.5 / 0.02)

print(f"{sum(p.data.size for p in model.parameters()):,} weights")


def talk(prompt, tokens=60, seed=0, temperature=0.7):
    sampling = Sampling(temperature=temperature, top_k=40)
    options = {"max_new_tokens": tokens, "sampling": sampling, "seed": seed}
    pieces = stream_text(model, tokenizer, prompt, **options)
    return prompt + "".join(pieces)


print(talk("The return value"))

# %% [markdown]
r"""
## 4. The loss, and training

Show the model a stretch of text and ask at every position for the next token. The **loss** is how surprised it is by
what really comes, $-\ln p(\text{next token})$, averaged. `loss.backward()` finds for each weight which way to move it
to be less surprised (chapter 02), the optimizer moves all of them a little, and we repeat with another stretch. Watch
both curves fall: the second is text that it never trains on. The lines are what simple counting achieves on that
text: an **n-gram** model guesses the next byte from the $n - 1$ bytes before it (chapter 01).
"""

# %%
# bits per byte × NATS = nats per token
NATS = np.log(2) * len(held_out.encode()) / len(held_out_ids)
counting = NGramModel.fit(train_text, order=3)
ngrams = {f"{n}-gram": counting.bits_per_byte(held_out, n) for n in (1, 2, 3)}
rng = np.random.default_rng(0)


def stretches(ids, starts):
    window = starts[:, None] + np.arange(CONTEXT)
    return ids[window], ids[window + 1]  # what it reads, and what comes next: both (batch, CONTEXT)


def held_out_loss():
    starts = np.arange(0, len(held_out_ids) - CONTEXT - 1, CONTEXT)[:60]
    x, y = stretches(held_out_ids, starts)
    with no_grad():
        return model(x, targets=y).item()


lines = {name: bits * NATS for name, bits in ngrams.items()}
curve = plot.LiveCurve(title="a model learns", baselines=lines, every_seconds=1.0)
optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
for step in range(STEPS):
    x, y = stretches(train_ids, rng.integers(0, len(train_ids) - CONTEXT - 1, 16))
    loss = model(x, targets=y)
    optimizer.zero_grad()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20) * (1 - 0.9 * step / STEPS)
    optimizer.step()
    last = step == STEPS - 1
    val = held_out_loss() if last or step % (STEPS // 10) == 0 else None
    curve.update(step, train=loss.item(), val=val)
figure = curve.finish()

# %% [markdown]
r"""
Nats per token depend on the tokens. To compare with other models, one counts **bits per byte**: how many bits one
byte of the held-out text costs. A model that knows nothing needs 8.
"""

# %%
bits = held_out_loss() / NATS
for name, value in ngrams.items():
    print(f"{name}: {value:.2f} bits per byte")
print(f"our model: {bits:.2f} bits per byte")
if SCALE != "smoke":
    assert bits < ngrams["2-gram"] < ngrams["1-gram"] < 8

# %% [markdown]
r"""
## 5. Let it talk

The model gives probabilities, **sampling** chooses. Low **temperature** favours the likeliest tokens, high
temperature takes risks. It has read one small book for a minute, so expect the sound of English, not sense.
"""

# %%
for temperature in (0.3, 0.8, 1.5):
    print(f"--- temperature {temperature}\n{talk('The return value', temperature=temperature)}\n")

# %%
logits = next_logits(model, np.array([tokenizer.encode("The return value is")]), None)[0]
labels = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
settings = {f"temperature {t}": Sampling(temperature=t) for t in (0.3, 0.8, 1.5)}
plot.sampling_bars(logits, labels, settings, top=10, title="after “The return value is”")

# %% [markdown]
r"""
## 6. Look inside one head

Attention decides, for each position, which earlier positions to read from. Here is one of the model's eight heads on
one line: each row is a position, bright is where it looks. Change `layer` and `head`:
the eight look in different ways, and nobody told them how.
"""

# %%
layer, head = 0, 0
inside = plot.look_inside(model, np.array([ids]))
plot.attention_grid(
    inside.attention[layer, 0, head],
    [tokenizer.token_bytes(i) for i in ids],
    titles=[[f"layer {layer}, head {head}"]],
)

# %% [markdown]
r"""
## 7. Step into it

> **Step into it.** The whole library is written to be walked through. Put a breakpoint on the line below (VS Code:
> click left of the line, then *Debug Cell*) and step into it. You pass `minillm.models.gpt.GPT.forward`,
> `minillm.models.gpt.GPT.hidden`, `minillm.models.gpt.Block.forward`, a layer such as `minillm.nn.Linear.forward`,
> the op `minillm.ops.linear`, and arrive in `minillm.numpy_ops.linear.linear`: a NumPy matrix product. Look at
> `x2.shape` and `weight.shape`. Below it stands its backward, with the derivation above. One frame for each, nothing
> between.
"""

# %%
logits = model(np.array([ids]))
print("ids", (1, len(ids)), "→ logits", logits.shape, "= (texts, positions, vocabulary)")
assert logits.shape == (1, len(ids), tokenizer.vocab_size)

# %% [markdown]
r"""
## The map

| you have just used | taken apart in |
| --- | --- |
| n-grams, perplexity, bits per byte | 01 What a language model is |
| `loss.backward()` | [02 Tensors and autograd](02_autograd.ipynb) |
| the tokenizer | [03 Text into tokens](03_tokens.ipynb) |
| the text | 04 Collecting and cleaning text |
| what came before attention | 05 Recurrent networks |
| heads | [06 Attention](06_attention.ipynb) |
| layers, norms, parameters; Llama | 07 The Transformer |
| training: optimizer, schedule, health | 08 Pretraining |
| `talk` | 09 Generating text |

Then the model is put to work: BERT (10), classification (11), translation and summaries (12), dialogue (13), code
(14); made fast: PyTorch (15), a GPU kernel (16), real size (17); and examined: inside (18), privacy, bias and misuse
(19), the ecosystem (20). [The contents page](README.md) says which chapters are there already.

## Summary

Text → tokens → model → probabilities for the next token → loss → gradients → slightly better weights, many times
over; then sampling. Everything else is scale and care.

## Exercises

Write your answer in place of `None` and run the cell; the check says what is still wrong. Solutions are folded below.
"""

# %% [markdown]
r"""
### Exercise 1: what the loss means (easy, 5 minutes)

A loss of $\ell$ nats means that the model gave the right token, on (geometric) average, which probability? Write the
function.
"""


# %% tags=["exercise"]
def typical_probability(loss):
    return None


with check():
    answer = typical_probability(np.log(512))
    assert answer is not None, (
        "typical_probability returns nothing yet. The loss is −ln p; solve for p."
    )
    assert abs(answer - 1 / 512) < 1e-9, (
        f"A loss of ln 512 is that of guessing among 512 tokens: 1/512, not {answer}."
    )
    assert abs(typical_probability(0.0) - 1) < 1e-9, "A loss of 0 means certainty: probability 1."

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
    first = int(next_logits(model, np.array([tokenizer.encode("A class")]), None)[0].argmax())
    expected = "A class" + tokenizer.decode([first])
    assert text_1.startswith(expected), (
        f"The first new token should be the likeliest: {expected!r}, not {text_1!r}."
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
    mlp = 2 * (8 * WIDTH**2 + 5 * WIDTH)  # two layers, each W → 4W → W with biases
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
