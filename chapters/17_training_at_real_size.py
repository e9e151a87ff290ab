# %% [markdown]
r"""
# 17 · Training at real size

Everything so far fitted into a laptop. A model of real size does not: not into the memory of one card, not into the
time that you want to wait, and perhaps not into what you want to pay. None of that has to be found out by trying. What
fills the memory can be counted, time is operations divided by speed, and a budget has a best size of model. In this
chapter you count, and check each count against something that really happened.

**Afterwards you can** say what fills the memory, and what each remedy costs; compute MFU from a log or from a bill;
train with several processes and prove that they compute what one would; save so that a kill at any moment costs only
time; fit a scaling law, say how sure it is, and spend a budget by it; choose a pretrained model by numbers.

**You need** [07 · The Transformer](07_the_transformer.ipynb): counting weights and operations;
[08 · Pretraining](08_pretraining.ipynb): AdamW, accumulation; [15 · The same model on
PyTorch](15_the_same_model_on_pytorch.ipynb); [16 · A GPU kernel](16_a_gpu_kernel_for_attention.ipynb): data sheets.
PyTorch, for two processes that this notebook starts (`pip install -e ".[torch]"`). No GPU.
"""

# %%
import io
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from minillm.costs.cards import CARDS
from minillm.costs.scaling import (
    CHINCHILLA,
    ScalingLaw,
    bootstrap_fits,
    fit_isoflop,
    fit_scaling_law,
)
from minillm.costs.sizes import (
    cache_bytes,
    duration,
    forward_flops,
    n_parameters,
    training_flops,
    training_memory,
)
from minillm.disk import whole
from minillm.engines.numpy_engine import NumpyEngine
from minillm.models import GPT, GPTConfig, LlamaConfig
from minillm.numpy_ops.cores import limit_blas_threads
from minillm.settings import TrainConfig
from minillm.training.checkpoint import read_checkpoint
from minillm.training.run_folder import run_in
from minillm.training.train import train
from minillm.workshop import (
    as_plain,
    at_size,
    check,
    progress,
    read_scale,
    show_versions,
    type_into_debugger,
)
from minillm.workshop import at_size_jobs as jobs
from minillm.workshop import at_size_pictures as pictures
from minillm.workshop.deliverables import corpus, runs_of_many_sizes, runs_of_sweep

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
show_versions(SCALE)
print(f"PyTorch {torch.__version__}")
scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
work = Path(scratch.name)  # where processes write; removed at the end

# %% [markdown]
r"""
## What fills the memory

For each weight, training with AdamW keeps four numbers: the weight, its gradient, and the two moments. In 32 bits that
is 16 bytes for each of $N$ weights. (With 16-bit arithmetic it stays about that: chapter 08 showed why the masters stay
in 32 bits.) On top come the **activations**: all that the backward pass will want, which grows with the tokens of a
batch, $B \cdot T$, while the four numbers do not.

**Guess before you run on.** A GPT-2 of 124 million weights, 8 texts of 1024 tokens: which is more, the four numbers or
the activations? And for a Llama of 7 billion weights, with the same batch?
"""

# %%
models = {
    "GPT-2, 0.12 billion": GPTConfig(),
    "GPT-2 XL, 1.6 billion": GPTConfig(n_layers=48, n_heads=25, d_model=1600),
    "Llama 2, 6.7 billion": LlamaConfig(),
}
ways = {"fp32": (4, "none"), "bf16": (2, "none"), "bf16,\nrecompute": (2, "layers")}
needs = {}
for name, config in models.items():
    needs[name] = {way: training_memory(config, 8, 1024, *how) for way, how in ways.items()}
    need, n = needs[name]["bf16"], n_parameters(config)
    print(f"{name}: 16 N = {16 * n / 1e9:.1f} GB, activations in bf16 {need.activations / 1e9:.1f} GB")
    assert need.weights + need.gradients + need.optimizer == 16 * n
CHOSEN = {"RTX 4090": CARDS["RTX 4090"].memory_gb, "H100": CARDS["H100"].memory_gb}
pictures.memory_bars(needs, CHOSEN)

# %% [markdown]
r"""
Small models are mostly activations, large ones mostly the four numbers. So there are two problems with two kinds of
cure. Activations are paid for by the token: compute them again (the third bars), or take fewer tokens at a time. The
four numbers are paid for by the weight: no batch is small enough, they have to be **divided among cards**.

Are these counts true? Python can tell how much memory NumPy has asked for. We run the forward pass of a small GPT on
our own engine and look at what stands when it is done: exactly what the graph keeps. (Our attention keeps its weights,
as chapter 06 needed them; fused attention, chapter 16, does not, so the library lists them apart.)
"""

# %%
small = GPTConfig(vocab_size=512, context=128, n_layers=4, n_heads=4, d_model=96)
model = GPT(small, np.random.default_rng(0))
rng = np.random.default_rng(1)
print("rows x tokens   counted   measured")
for B, T in ((1, 128), (4, 128), (8, 128), (16, 64), (32, 32)):
    batch = (rng.integers(0, 512, (B, T)), rng.integers(0, 512, (B, T)))
    need = training_memory(small, B, T)
    counted = need.activations + need.attention_weights
    measured = at_size.kept_bytes(model, batch)
    print(f"{B:4d} x {T:3d} {counted / 1e6:12.1f} MB {measured / 1e6:7.1f} MB: {measured / counted:.2f}")
    assert 0.9 < measured / counted < 1.1

# %% [markdown]
r"""
The count is right within a few percent. The last three rows have the same number of tokens, and less memory the shorter
the texts are: that part is the attention weights, $4 B T^2$ bytes for each head of each layer.

## Two ways to keep less

**Compute again.** Keep only the input of each layer, and when the backward pass arrives there, run the layer's forward
once more (Chen et al. 2016, arXiv 1604.06174, section 4). Of the step's three parts, forward and twice as much
backward, the forward is done twice: four thirds of the operations. "selective" keeps the results of the products and
computes again what is cheap (Korthikanti et al. 2022, arXiv 2205.05198, section 5).

**Accumulate.** Cut the batch into micro-batches, add up their gradients, then step once. Chapter 08 showed how to weigh
them; here is what it buys. Accumulation does nothing for the four numbers, and the operations are the same.

Both claim to change nothing in the result. We test it: the gradient with each, against the plain one.
"""

# %%
DEPTHS = {"smoke": (1, 4), "cpu": (1, 2, 4, 8), "gpu": (1, 2, 4, 8)}[SCALE]
ways = ("none", "selective", "layers")
T = {"smoke": 32, "cpu": 64, "gpu": 128}[SCALE]  # tokens of a text
batch = (rng.integers(0, 512, (16, T)), rng.integers(0, 512, (16, T)))
kept = {how: [] for how in ways}
for depth in DEPTHS:
    deep = GPT(replace(small, n_layers=depth), np.random.default_rng(0))
    for how in ways:
        kept[how].append(at_size.kept_bytes(deep, tuple(part[:4] for part in batch), how) / 1e6)


def gradient(engine, micro_batches):
    engine.forward_backward(micro_batches)
    return at_size.flat({name: p.grad for name, p in engine.model.named_parameters()})


plain = gradient(NumpyEngine(model, TrainConfig()), [batch])
for how in ways[1:]:
    again = gradient(NumpyEngine(model, TrainConfig(), recompute=how), [batch])
    print(f"recompute = {how}: the gradient is equal to the last bit: {np.array_equal(again, plain)}")
    assert np.array_equal(again, plain)
most = {}
for parts in (1, 2, 4, 8):
    micro = [tuple(part[i::parts] for part in batch) for i in range(parts)]
    engine = NumpyEngine(model, TrainConfig())
    most[parts] = at_size.most_bytes(engine, micro) / 1e6
    gap = at_size.off(gradient(engine, micro), plain)
    print(f"{parts} micro-batches: at most {most[parts]:5.1f} MB in a step, gradient off by {gap:.0e}")
    assert gap < 1e-5
assert most[8] < most[4] < most[2] < most[1] and kept["layers"][-1] < kept["none"][-1] / 3
pictures.two_ways_out(kept, DEPTHS, most)

# %% [markdown]
r"""
Computed again, the gradient is the same to the last bit: the same operations on the same numbers. Accumulated, it is
the same up to the rounding of a sum taken in another order. On the left each way is a line through nearly the same
point (embedding and logits, which no layer owns), and recomputing makes it flat. On the right there is a floor under
the bars, the gradients themselves: halving the micro-batch does not halve the memory for ever.

## How fast? MFU

**Model FLOPs utilisation** (Chowdhery et al. 2022, PaLM, arXiv 2204.02311, appendix B) is the share of the hardware's
peak that goes into the operations that the *model* needs. With $F$ operations for a token of training (chapter 07,
about $6N$), measured tokens per second and $P$ cards:

$$\text{MFU} = \frac{F \cdot \text{tokens per second}}{P \cdot \text{peak}}.$$

What is computed *again* is not counted: it is no progress. Counting it as well gives **HFU**, hardware FLOPs
utilisation, which is good for engineers and bad for comparing. The peak here is what a large matrix product reaches on
this machine's processor, on one thread; times are the processor's own, so that what runs beside it does not count. (Our
engine recomputes a little less than the whole forward pass: the last product of a layer is spared, since nothing in the
backward pass needs its result.)

**Guess**: what becomes of MFU when the rows of a micro-batch go from 1 to 16? When layers are computed again?
"""

# %%
ROWS = {"smoke": (1, 4), "cpu": (1, 2, 4, 8, 16), "gpu": (1, 2, 4, 8, 16)}[SCALE]
TIMES = {"smoke": 1, "cpu": 5, "gpu": 9}[SCALE]
forward, needed = forward_flops(small, T), training_flops(small, T)
# of each layer all is done again but its last product, half of the feed-forward network, whose result nobody needs
again = forward["attention"] + forward["attention scores"] + forward["feed-forward"] / 2
engines = {
    "keep everything": NumpyEngine(model, TrainConfig()),
    "recompute layers": NumpyEngine(model, TrainConfig(), recompute="layers"),
}
found = {name: ([], []) for name in engines}
with limit_blas_threads(1):
    peak = at_size.product_speed()
    for B in progress(ROWS, "rows"):
        micro = [tuple(part[:B] for part in batch)]
        steps = [partial(engine.forward_backward, micro) for engine in engines.values()]
        for (mfu, hfu), seconds in zip(found.values(), at_size.seconds_for(steps, TIMES)):
            extra = again if mfu is found["recompute layers"][0] else 0
            mfu.append(100 * needed * B * T / seconds / peak)
            hfu.append(100 * (needed + extra) * B * T / seconds / peak)
for name, (mfu, hfu) in found.items():
    print(f"{name}: MFU", ", ".join(f"{x:.0f}%" for x in mfu), "HFU", ", ".join(f"{x:.0f}%" for x in hfu))
pictures.utilisation(ROWS, found)

# %% [markdown]
r"""
Small micro-batches leave more of the machine idle (every operation has a cost that does not depend on its size), so the
remedy of the last section has a price after all: accumulate over as few micro-batches as memory allows. Recomputing
costs a fifth to a third of MFU here. By its operations it should be a quarter at most (a forward pass once more, beside
one forward and a backward of twice as many); but norms and softmax are done again as well, and nobody counts operations
for them. HFU hides much of the loss. (The library's own measurement of the price, on four larger models, is in
`tests/bench/RESULTS.md`: a fifth to a good quarter.)

**MFU from a bill.** You need no log for it: parameters, tokens, card-hours. Some published ones:
"""

# %%
BILLS = {  # parameters, tokens, card-hours, card
    "LLaMA 65B": (65.2e9, 1.4e12, 1_022_362, "A100"),  # arXiv 2302.13971, tables 2 and 15
    "Llama 2 7B": (6.74e9, 2.0e12, 184_320, "A100"),  # arXiv 2307.09288, tables 1 and 2
    "Llama 2 70B": (69e9, 2.0e12, 1_720_320, "A100"),
    "Llama 3.1 405B": (405e9, 15.6e12, 30_840_000, "H100"),  # arXiv 2407.21783; hours: model card
}
billed = {}
for name, (n, d, hours, card) in BILLS.items():
    billed[name] = 6 * n * d / (hours * 3600 * CARDS[card].flops)
    years = hours / 24 / 365.25
    print(f"{name:14s} 6ND = {6 * n * d:.1e} in {years:6.0f} {card}-years: {100 * billed[name]:.0f}% of the peak")
assert min(billed.values()) > 0.25 and max(billed.values()) < 0.55
here = 6 * 6.74e9 * 2e12 / peak / 3600
print(f"Llama 2 7B on one core of this machine, at its best: {duration(here)}")

# %% [markdown]
r"""
A third to a half of the peak, by people who do little else. That is the number to plan with: about 0.4, and less over
many machines. (The report on Llama 3 gives 38 to 43% for its steps, table 4. The bill comes out lower: hours are billed
for interruptions and evaluations, too.) And the last line is why this course's models are small.

## Many processes, one step

Take $P$ processes, "ranks", each with $1/P$ of the batch. With **data parallelism** (DDP) each holds the whole model,
computes the gradient of its own rows, and then all gradients are averaged; every rank then makes the same AdamW step.
With **fully sharded** data parallelism (FSDP; ZeRO stage 3, Rajbhandari et al. 2020, arXiv 1910.02054, section 5) each
holds $1/P$ of every weight, gradient and moment. A layer's weights are gathered when it is its turn, and let go again.
"""

# %%
pictures.draw_ranks()

# %% [markdown]
r"""
What travels in the exchange? Three **collectives**, for an array of $n$ numbers:

- **reduce-scatter**: every rank has $n$ numbers; afterwards each has $n/P$ of their *sum*.
- **all-gather**: every rank has $n/P$; afterwards each has all $n$.
- **all-reduce**: every rank has $n$; afterwards each has all of the sum. It is the two above, one after the other.

In a **ring** each rank talks to its neighbour only: $P - 1$ rounds, in each of which it passes on one piece of $n/P$
numbers. So reduce-scatter and all-gather send $\frac{P-1}{P} n$ numbers from each rank, and all-reduce twice that,
however many ranks there are. By hand, with the numbers counted:
"""


# %%
def ring_all_reduce(arrays):
    """The sum of one array from each rank, on each rank, and how many numbers a rank has sent."""
    P = len(arrays)
    pieces = [np.array_split(array.copy(), P) for array in arrays]  # pieces[rank][j], about (n / P)
    sent = np.zeros(P, dtype=int)
    for phase in ("reduce-scatter", "all-gather"):
        for step in range(P - 1):
            # All ranks send at once: what they send is set before anything arrives.
            shift = 0 if phase == "reduce-scatter" else 1
            moving = [(r, (r + shift - step) % P) for r in range(P)]
            messages = [pieces[r][j].copy() for r, j in moving]
            for (r, j), message in zip(moving, messages):
                to = (r + 1) % P
                if phase == "reduce-scatter":
                    pieces[to][j] += message  # the piece grows on its way round
                else:
                    pieces[to][j] = message  # the finished piece is passed on
                sent[r] += len(message)
    return [np.concatenate(mine) for mine in pieces], sent


n = 1200
for P in (2, 3, 4, 8):
    arrays = [rng.standard_normal(n) for _ in range(P)]
    sums, sent = ring_all_reduce(arrays)
    print(f"{P} ranks: each has sent {sent[0]} numbers; 2 (P − 1)/P · n = {2 * (P - 1) * n // P}")
    assert all(np.allclose(total, np.sum(arrays, axis=0), atol=1e-12) for total in sums)
    assert (sent == 2 * (P - 1) * n // P).all()

# %% [markdown]
r"""
DDP needs one all-reduce of the gradients: $2\frac{P-1}{P}N$ numbers. FSDP needs the weights gathered for the forward
pass, again for the backward pass, and the gradients reduce-scattered: $3\frac{P-1}{P}N$. **Half as much again to send,
for $1/P$ of the memory.**

## Two real processes

Now the library's engine, in two processes that this notebook starts. What `torchrun` does for that on one machine is
little: it sets `RANK` and `WORLD_SIZE`, tells the processes where to meet, and ends all when one has died. Here
`minillm.workshop.at_size.run_ranks` does it, with a time limit. Each rank runs
`minillm.engines.torch_engine.TorchEngine` on its half of the same batch (in float64, so that a difference means a
mistake), first as DDP, then as FSDP. Then they begin a real run together, and in its seventh step **rank 1 is killed**,
as a machine may be that catches fire. More on that below.

The batch is nasty: the second half of the rows are short texts, mostly padding. Two controls that must *fail*: each
rank's own gradient, not averaged; and the mean of the two ranks' *mean* gradients, which is what one gets if each
divides by its own count of targets.
"""

# %%
ranks = work / "ranks"
ranks.mkdir()
text = jobs.text_in(ranks)
codes = at_size.run_ranks(ranks)
print(f"the processes ended with the codes {codes}")
notes = {kind: at_size.notes(ranks, kind) for kind in ("ddp", "fsdp")}
assert codes[1] != 0 and len({note["process"] for note in notes["ddp"]}) == 2

ids, targets = jobs.uneven_batch()
one = NumpyEngine(jobs.new_model(), jobs.settings())
whole_batch = gradient(one, [(ids, targets)])  # one process, NumPy, all rows
half = jobs.ROWS // 2
own = [
    gradient(NumpyEngine(jobs.new_model(), jobs.settings()), [(ids[rows], targets[rows])])
    for rows in (slice(None, half), slice(half, None))
]
gaps = {f"{kind}, gradient": at_size.off(at_size.arrays(ranks, f"{kind}-gradients"), whole_batch) for kind in notes}
one.clip_gradients(0.0)
one.step(1e-3)
stepped = at_size.flat(one.model.state_dict())
for kind in notes:
    gaps[f"{kind}, weights after the step"] = at_size.off(at_size.arrays(ranks, f"{kind}-weights"), stepped)
controls = {
    "control: rank 0's own gradient": at_size.off(own[0], whole_batch),
    "control: rank 1's own gradient": at_size.off(own[1], whole_batch),
    "control: mean of the two means": at_size.off((own[0] + own[1]) / 2, whole_batch),
}
for name, gap in {**gaps, **controls}.items():
    print(f"{name:32s} off by {gap:.0e}")
assert max(gaps.values()) < 1e-10 and min(controls.values()) > 0.02

# %% [markdown]
r"""
Two processes on PyTorch compute what one does on NumPy, to the rounding of float64. The wrong ways are off by half the
length of the gradient and more, and none of them would have raised an error.
`minillm.engines.torch_engine.TorchEngine.accumulate` does as chapter 08 did with micro-batches: it adds up the targets
of *all* ranks first, and everybody divides by that.

And the memory? Each rank has counted the numbers that it holds, and what its collectives were about.
"""

# %%
N = n_parameters(jobs.SHAPE)
print(f"N = {N:,} weights")
sent = {}
for kind, pair in notes.items():
    for note in pair:
        each = ", ".join(f"{part} {size / N:.2f} N" for part, size in note["held"].items())
        print(f"{kind} rank {note['rank']} holds {sum(note['held'].values()) / N:.2f} N: {each}")
    calls = {call: size / N for call, size in pair[0]["sent"].items() if size}
    print("    its collectives are about", ", ".join(f"{call} {size:.2f} N" for call, size in calls.items()), end="; ")
    sent[kind] = {call: size * (2 if call == "all-reduce" else 1) / 2 for call, size in calls.items()}  # P = 2
    print(f"by the ring, each rank sends {sum(sent[kind].values()):.2f} N")
held = {kind: [sum(note["held"].values()) / N for note in pair] for kind, pair in notes.items()}
assert held["ddp"] == [4.0, 4.0] and np.isclose(sum(held["fsdp"]), 4.0, atol=0.01)
assert max(held["fsdp"]) < 2.02

print("The four numbers divided, and one text of 1024 tokens, layers recomputed, in 80 GB:")
llama_70b = LlamaConfig(n_layers=80, n_heads=64, n_kv_heads=8, d_model=8192, d_ff=28672)
for name, config in {**models, "Llama 2, 69 billion": llama_70b}.items():
    need = training_memory(config, 1, 1024, 2, "layers")
    standing = need.weights + need.gradients + need.optimizer
    cards = int(np.ceil(standing / (CARDS["H100"].memory_gb * 1e9 - need.activations)))
    print(f"    {name}: 16 N = {standing / 1e9:,.1f} GB: {cards} H100 at least")
pictures.rank_bars(notes, sent, N)

# %% [markdown]
r"""
DDP: all four numbers on each rank, so that two cards hold no larger model than one. FSDP: half each, and with $P$ cards
$16N/P$ bytes. What travels is as derived, with one difference: the gathers come to less than $2N$. The embedding and
the last norm belong to no layer; they are gathered once and kept until the backward pass needs them again, which in a
model as small as ours is a large part. Activations are not divided: each rank has those of its own rows.

## One of them dies

With thousands of cards, one dies every few hours: in 54 days on 16,384 cards Llama 3 was interrupted 419 times
unexpectedly (arXiv 2407.21783, section 3.3.4). All ranks wait for each other at the next collective, so one dead rank
stops them all. Ours died in the seventh step. What did the survivor say, and what is left?
"""

# %%
said = at_size.said_of_the_loss(ranks)
print(said.partition("(")[0] + "... " + said.rpartition("). ")[2])
print("exit codes:", codes)
left = run_in(ranks / "run")
print("in the checkpoint:", *sorted(path.name for path in left.glob("*.safetensors")), sep="\n    ")
saved = read_checkpoint(left)
print(f"saved after step {saved.state['run']['step']}")
assert "another process of this job has died" in said and saved.state["run"]["step"] == jobs.SAVE_EVERY

# %% [markdown]
r"""
The survivor did not hang and did not guess: it named what had happened. The last checkpoint is from step 4, in
**shards**: each rank wrote its own part of every array (`engine.checkpoint = "sharded"`), at the same time, so that no
rank ever had to hold the whole model. A shard says of which rows it is a part, so that *another number* of processes
can take it up. We do the most extreme: **one** process, on **NumPy**. The control is the same run, never interrupted,
in one process.
"""


# %%
def run(text, folder, **options):
    with limit_blas_threads(1):  # as the other processes: more threads add up in another order
        return train(jobs.new_model(), text, jobs.settings(), folder, progress=False, **options)


control = run(text, work / "control")
resumed = run(text, ranks / "run", resume=True)
right, found = (read_checkpoint(folder / "last") for folder in (work / "control", ranks / "run"))
print(f"resumed at step {saved.state['run']['step']}, ended at {resumed.state.step},", end=" ")
print(f"as the control: {control.state.step}")
for name, a, b in (("weights", found.model, right.model), ("moments", found.optimizer, right.optimizer)):
    gap = at_size.off(at_size.flat(a), at_size.flat(b))
    print(f"{name} off by {gap:.0e} from a run that nobody interrupted")
    assert gap < 1e-10

# %% [markdown]
r"""
## Killed in the midst of a save

A checkpoint is only worth something if it is there **whole**. The dangerous moment is the save itself. What happens if
the process is killed right then? We find out with real kills (SIGKILL, which no program can catch), each of a process
of its own that has stopped at a chosen place of its second save and waits for it. Then we go on from what is left, and
compare *every bit* of weights and moments with the control. One more process does what many scripts do: it writes over
the old file.

`minillm.training.checkpoint.save_checkpoint` writes everything beside its place, flushes it to the disk, and renames:

    last/  (step 4)      →  .last.1f09.minillm-old     1. the old one gives up its name
    .last.…tmp/last      →  last/  (step 8)            2. the new one takes it

Between 1 and 2 there is no `last`. A reader then takes the old one by its mark.
"""

# %%
INSTANTS = list(jobs.INSTANTS)[{"smoke": 2, "cpu": 0, "gpu": 0}[SCALE] :]
for i, where in enumerate(progress(INSTANTS, "kills")):
    folder = work / f"killed-{i}"
    folder.mkdir()
    code = at_size.kill_in_save(folder, where)
    there = sorted(path.name.split(".")[-1] for path in (folder / "run").iterdir() if path.is_dir())
    step = read_checkpoint(run_in(folder / "run")).state["run"]["step"]
    run(jobs.text_in(folder), folder / "run", resume=True)
    end = read_checkpoint(folder / "run" / "last")
    same = all(
        np.array_equal(a[name], b[name])
        for a, b in ((end.model, right.model), (end.optimizer, right.optimizer))
        for name in b
    )
    print(f"killed where {where} (code {code}):")
    print(f"    folders: {', '.join(there)}; a whole checkpoint of step {step}; in the end equal to the bit: {same}")
    assert same and step == jobs.SAVE_EVERY and code != 0
    assert not [path for path in (folder / "run").iterdir() if "minillm-" in path.name]

folder = work / "in-place"
folder.mkdir()
at_size.kill_in_save(folder, "in place")
try:
    np.load(io.BytesIO((folder / "weights.npz").read_bytes()))
    broken = ""
except Exception as error:
    broken = f"{type(error).__name__}: {error}"
print(f"control, written over the old file: {broken or 'loads'}")
assert broken

# %% [markdown]
r"""
At each of the three moments a whole checkpoint is there, the run ends with the same bits as if nothing had happened,
and the next save clears away what the dead process left. Equal *to the bit* needs more than the weights: the moments,
the step (for the schedule and AdamW's corrections), the position in the data and the random generators are all in the
folder. And the sums must be taken in the same order: on the same machine, with as many threads. (Hence one thread here.
With another number the last digits differ, which is harmless, but no proof.) The control has neither the old weights
nor the new ones.

## How often should one save?

Saving takes time; not saving loses work. Let a save take $\delta$, and let failures come on average every $M$, at any
moment alike. With $\tau$ of training between two saves, the time lost is, for each hour of work, about

$$\frac{\delta}{\tau} + \frac{\tau}{2M}, \qquad\text{least at}\qquad \tau = \sqrt{2\,\delta M}$$

(Young 1974, *A first order approximation to the optimum checkpoint interval*; a failure costs half an interval on
average). Without the approximation: a stretch of $\tau + \delta$ has to be gone through without a failure, from its
beginning each time, which takes $M(e^{(\tau+\delta)/M} - 1)$ on average (Daly 2006). For $M$ we take Llama 3's 54 days
divided by 419, three hours, and simulate: draw failures, do the work, count the hours.
"""


# %%
def hours_needed(tau, delta, M, work_hours, rng):
    """How long so many hours of work take, with failures drawn."""
    clock, until_failure = 0.0, rng.exponential(M)
    for _ in range(round(work_hours / tau)):
        while until_failure < tau + delta:  # a failure in this stretch: from its beginning again
            clock += until_failure
            until_failure = rng.exponential(M)
        until_failure -= tau + delta
        clock += tau + delta
    return clock


M = 54 * 24 / 419  # hours
minutes, fine = np.geomspace(4, 120, {"smoke": 4, "cpu": 10, "gpu": 10}[SCALE]), np.geomspace(3.5, 130, 200)
taus = minutes / 60
work_hours = {"smoke": 100, "cpu": 1000, "gpu": 5000}[SCALE]
expected, simulated, young = {}, {}, {}
for name, delta in {"5 minutes": 5 / 60, "20 seconds": 20 / 3600}.items():
    expected[name] = M * np.expm1((fine / 60 + delta) / M) / (fine / 60) - 1
    simulated[name] = np.array([
        [hours_needed(tau, delta, M, work_hours, np.random.default_rng(seed)) for seed in range(5)]
        / (tau * round(work_hours / tau)) - 1
        for tau in taus
    ])  # (intervals, 5 seeds)
    best = np.sqrt(2 * delta * M)
    young[name] = 60 * best
    lost = M * np.expm1((best + delta) / M) / best - 1
    least = expected[name].min()
    print(f"a save takes {name}: save every {young[name]:.0f} minutes, {100 * lost:.1f}% on top of the work;", end=" ")
    print(f"at the best interval {100 * least:.1f}%")
    assert lost < 1.1 * least
    if SCALE != "smoke":
        there = M * np.expm1((taus + delta) / M) / taus - 1
        assert np.all(np.abs(simulated[name].mean(axis=1) - there) < 0.2 * there + 0.02)
pictures.saving_curve(fine, expected, minutes, simulated, young)

# %% [markdown]
r"""
The points (five seeds each) lie on the curve, and Young's rule of thumb finds its flat bottom. What helps most is a
faster save: in shards, all ranks at once, and from a copy while the training goes on (`engine.checkpoint = "async"`),
so that $\delta$ is only the time that the copy takes.

## What to buy: a scaling law

Chapter 08 fitted $L(N)$ for a fixed number of tokens. With a budget the question is another: for $C = 6ND$ operations,
should the model be larger, or see more tokens? Hoffmann et al. 2022 ("Chinchilla", arXiv 2203.15556) answered it in
three ways; we do two of them at our size, with `minillm.costs.scaling`.

**IsoFLOP** (section 3.2): for each of several computes, train models of several sizes, each for the tokens that the
compute leaves it. The losses lie on a valley; a parabola in $\ln N$ finds its lowest point. Two details matter, and
both are done here: each run's learning rate ends its cosine with the run, and its peak falls with the width.

Ours are GPTs of one layer that read characters of chapter 04's prose, each character hardly more than once, from
several seeds. **Guess**: how many characters per parameter is best?
"""

# %%
runs = runs_of_many_sizes(SCALE)
compute, n, d, loss, seed = at_size.columns(runs, "compute", "n", "tokens", "loss", "seed")
if SCALE == "smoke":  # runs of a second say nothing: the losses of a known law stand in for theirs
    loss = at_size.PLANTED.loss(n, d) * np.exp(0.003 * np.random.default_rng(0).standard_normal(len(n)))
groups = {}
for C in np.unique(compute):
    sizes = np.unique(n[compute == C])
    groups[C] = (sizes, np.array([loss[(compute == C) & (n == size)] for size in sizes]))  # (sizes, seeds)


def lowest(sizes, losses):
    """The lowest point of a parabola in ln N, kept within the sizes that were tried, and the parabola itself."""
    middle = np.log(sizes).mean()
    square, slope, base = np.polyfit(np.log(sizes) - middle, losses, 2)
    best = middle - slope / (2 * square) if square > 0 else np.log(sizes[np.argmin(losses)])
    best = np.clip(best, np.log(sizes[0]), np.log(sizes[-1]))
    return np.exp(best), lambda x: np.polyval([square, slope, base], np.log(x) - middle)


optima = {C: lowest(sizes, losses.mean(axis=1))[0] for C, (sizes, losses) in groups.items()}
for C, (sizes, losses) in groups.items():
    best = optima[C]
    print(f"C = {C:.1e}: {len(sizes)} sizes, sd of seeds {losses.std(axis=1, ddof=1).mean():.3f};", end=" ")
    print(f"lowest at N = {best:,.0f}, {C / 6 / best / best:.0f} characters per parameter")
if SCALE != "smoke":
    library = fit_isoflop(compute, n, loss)
    assert np.allclose(list(library.optima.values()), list(optima.values()), rtol=0.02)
pictures.isoflop_curves(groups, optima, lambda C, x: lowest(groups[C][0], groups[C][1].mean(axis=1))[1](x))

# %% [markdown]
r"""
Each valley has a floor: too small a model cannot hold what it has seen, too large a one has seen too little. The floor
moves to the right as the compute grows. The best ratio is about fifty to seventy characters for each parameter, not the
"20" that is quoted for tokens of large models: it depends on what is read and by what. And the floor is flat. Sizes a
factor of two apart come out within the scatter of the seeds, which is largest where a run has few steps: one seed for
each size would have put some of these stars elsewhere. (A parabola is a device, too: at the smallest compute the second
size lies well below it.)

**The parametric form** (section 3.3) takes all runs together:

$$L(N, D) = E + \frac{A}{N^\alpha} + \frac{B}{D^\beta},$$

with $E$ what nobody can predict, $A/N^\alpha$ what a model of $N$ parameters cannot hold, and $B/D^\beta$ what $D$
tokens do not tell. Put $D = C/6N$ and set the derivative to zero: $\alpha A/N^\alpha = \beta B/D^\beta$, so

$$N_{opt} = G\,\Big(\frac C6\Big)^{a}, \qquad D_{opt} = \frac1G\Big(\frac C6\Big)^{b}, \qquad
G = \Big(\frac{\alpha A}{\beta B}\Big)^{\frac{1}{\alpha+\beta}},\quad a = \frac{\beta}{\alpha+\beta},\quad
b = \frac{\alpha}{\alpha+\beta}.$$

With both fits we now say what to do with a compute that **no fit has seen**, three times the largest one, and then do
it. For the scatter, runs are drawn again with replacement and all is fitted anew (the bootstrap); in brackets stands
where the middle nine tenths of these draws lie.
"""

# %%
beyond = at_size.BEYOND[SCALE]
law = fit_scaling_law(n, d, loss)
laws = bootstrap_fits(fit_scaling_law, n, d, loss, times={"smoke": 5, "cpu": 40, "gpu": 100}[SCALE])
draws = np.random.default_rng(0)
drawn = []
for _ in range(200):  # the same for the valleys, seeds drawn within each size
    again = {
        C: lowest(sizes, np.mean([draws.choice(row, len(row)) for row in losses], axis=1))[0]
        for C, (sizes, losses) in groups.items()
    }
    drawn.append(list(again.values()))
drawn = np.array(drawn)  # (200, computes)
known = np.array(list(optima))
slopes = np.array([np.polyfit(np.log(known), np.log(row), 1) for row in drawn])  # (200, 2): exponent, intercept
exponent, intercept = np.polyfit(np.log(known), np.log(list(optima.values())), 1)


def band(values, form):
    low, high = np.percentile(values, (5, 95))
    return f"{low:{form}} to {high:{form}}"


by_valleys = np.exp(intercept + exponent * np.log(beyond))
by_law = law.optimum(beyond)[0]
print(f"valleys: N_opt ~ C^{exponent:.2f} ({band(slopes[:, 0], '.2f')}); at {beyond:.2e}:", end=" ")
print(f"N = {by_valleys:,.0f} ({band(np.exp(slopes @ [np.log(beyond), 1]), ',.0f')})")
a = law.beta / (law.alpha + law.beta)
print(f"form: E = {law.E:.2f} ({band([one.E for one in laws], '.2f')}), α = {law.alpha:.2f}", end=" ")
print(f"({band([one.alpha for one in laws], '.2f')}), β = {law.beta:.2f} ({band([one.beta for one in laws], '.2f')});")
print(f"    N_opt ~ C^{a:.2f} ({band([one.beta / (one.alpha + one.beta) for one in laws], '.2f')});", end=" ")
print(f"at {beyond:.2e}: N = {by_law:,.0f} ({band([one.optimum(beyond)[0] for one in laws], ',.0f')})")
x = np.geomspace(known.min() / 1.5, beyond * 1.5, 50)
lines = {"valleys": np.exp(intercept + exponent * np.log(x)), "form": np.array([law.optimum(c)[0] for c in x])}
pictures.optimum_by_compute(known, np.array(list(optima.values())), drawn, lines, x, beyond)

# %% [markdown]
r"""
Now the test. At the compute held back: the width whose size is nearest to what the valleys say, and as controls one of
about a third and one of about three times the parameters, with the same seeds. And to see what the models have learned:
the same models judged with one character in view instead of all, beside a table of pairs (chapter 01's bigrams); and
next to the chosen one its control, of the same size, that had a third of the text.
"""

# %%
chosen = at_size.nearest_width(by_valleys)
others = [at_size.nearest_width(by_valleys * factor) for factor in (1 / 3, 3)]
tried = sorted({chosen, *others})
tests = runs_of_sweep(SCALE, {beyond: tuple(tried)})
measured = {}
for width in tried:
    rows = [run for run in tests if run["width"] == width]
    size, tokens = rows[0]["n"], rows[0]["tokens"]
    measured[width] = np.array([run["loss"] for run in rows])
    predicted = law.loss(size, tokens)
    spread = band([one.loss(size, tokens) for one in laws], ".3f")
    mean, sd = measured[width].mean(), measured[width].std(ddof=1)
    print(f"N = {size:6,d}, D = {tokens:7,d}: measured {mean:.3f} ± {sd:.3f};", end=" ")
    print(f"the form says {predicted:.3f} ({spread})")
ids = at_size.characters(corpus(SCALE))
pairs = at_size.pairs_loss(ids, at_size.EVALUATED[SCALE])
print(f"a table of pairs, counted: {pairs:.3f}. The models, with one character in view and with all:")
largest = known.max()  # of the computes fitted
control = min((run["width"] for run in runs if run["compute"] == largest), key=lambda width: abs(width - chosen))
gains = {}
for name, table, width in (("largest compute fitted", runs, control), ("held back", tests, chosen)):
    rows = [run for run in table if run["width"] == width and run["compute"] in (largest, beyond)]
    one, all_ = (np.array([run[key] for run in rows]) for key in ("last_only", "loss"))
    gains[name] = one - all_
    print(f"    {name}, N = {rows[0]['n']:,}, D = {rows[0]['tokens']:,}:", end=" ")
    print(f"{one.mean():.3f} and {all_.mean():.3f}, a gain of {gains[name].mean():.3f} ± {gains[name].std(ddof=1):.3f}")
if SCALE == "cpu":
    for width in set(tried) - {chosen}:
        assert measured[chosen].max() < measured[width].min()
    assert measured[chosen].max() < np.percentile([one.loss(n_parameters(at_size.shape(chosen)), rows[0]["tokens"])
                                                   for one in laws], 5)  # fmt: skip
    assert gains["held back"].min() > 1.3 * gains["largest compute fitted"].max()

# %% [markdown]
r"""
Two questions, two answers.

**What to train** held up, beyond the fits: the size that the valleys chose beats both others at every seed. (That is as
much as three sizes can tell: it is right within a factor of about three.) The exponent's interval is wide all the same.
Hoffmann et al. found about 0.5, "size and tokens in equal steps", and ours includes that; three computes within a
factor of nine cannot tell it from a third.

**How good it would be** did not hold up where it matters. The two other sizes came out within the intervals of the
form's draws; the chosen one far *below* what the form had said, and far outside its interval. Why? The last lines give
a hint. On a third of the text, within the fit, the same model is just about as good as a table that counts pairs of
characters. The longer run gains more than twice as much from all that stands further back: it has begun to learn
something that the short runs had hardly touched. To the form, the approach to the level of pairs looked like the
approach to $E$, "what nobody can predict", and no draw of *these* runs could show otherwise. That is the difference
between an interval and a test. What is new at another scale is not in the fit; so one predicts the next factor of
three, tests, and fits again.

## The published law, and its correction

Chinchilla's own fit is on models up to 16 billion parameters. As printed: $E = 1.69$, $A = 406.4$, $B = 410.7$,
$\alpha = 0.34$, $\beta = 0.28$. Besiroglu et al. 2024 (arXiv 2404.10102) read the runs off the paper's figure, fitted
them again, and got other numbers; the library has theirs as `CHINCHILLA`. Both are constants, so that anybody can see
what they say. What would each do with the compute of Chinchilla itself, 70 billion parameters on 1.4 trillion tokens?
"""

# %%
PRINTED = ScalingLaw(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
print("operations   as printed: N, D, tokens per parameter   corrected")
ratios = {}
for C in (1e21, 6 * 70e9 * 1.4e12, 1e25):
    cells = []
    for name, published in (("printed", PRINTED), ("corrected", CHINCHILLA)):
        size, tokens = published.optimum(C)
        ratios[name, C] = tokens / size
        cells.append(f"{size / 1e9:6.1f} billion, {tokens / 1e12:6.2f} trillion, {tokens / size:4.0f}")
    print(f"{C:9.1e}   {cells[0]}    {cells[1]}")
    assert np.isclose(6 * size * tokens, C)
chinchilla = 6 * 70e9 * 1.4e12
assert ratios["printed", chinchilla] > 60 and 15 < ratios["corrected", chinchilla] < 25

# %% [markdown]
r"""
The fit as printed would have had Chinchilla be *half* as large, with four to five times as many tokens for each
parameter as the authors chose by their other two ways. The correction removes the contradiction, and gives the "20
tokens per parameter" that everybody quotes, at *that* size: by the law's own exponents the ratio changes slowly with
the budget. It is also a law of one data set, one tokenizer and one architecture. Ours, above, came to another ratio.

## Spending a budget

Now it is arithmetic. Dollars buy card-hours; hours times peak times MFU are operations; the law says what to train. The
price is yours to fill in: they change by the month. (`minillm inspect MODEL --card H100 --price 2` does it for a
model.)
"""

# %%
PRICE, MFU, CARD = 2.0, 0.4, "H100"  # dollars per card-hour: an assumption, put in what you pay
for dollars in (100, 10_000, 1_000_000):
    hours = dollars / PRICE
    C = hours * 3600 * CARDS[CARD].flops * MFU
    size, tokens = CHINCHILLA.optimum(C)
    alone = f"{duration(hours)} on one {CARD}"
    print(f"${dollars:9,}: {C:.1e} operations ({alone}): {size / 1e9:5.2f} billion parameters,", end=" ")
    print(f"{tokens / 1e9:6.0f} billion tokens, loss {CHINCHILLA.loss(size, tokens):.2f}")

# %% [markdown]
r"""
And if the model is to be **used**? Each token that it writes or reads then costs about $2N$ operations, for ever. What
is cheapest to train is not cheapest to own. For a given loss, take every $N$, find the $D$ that reaches it, and add up
$6ND + 2N D_{served}$ (Sardana et al. 2023, arXiv 2401.00448). The loss here is that of a 13-billion model trained as
the law likes it.
"""

# %%
goal_n = 13e9
goal_d = np.interp(goal_n, *np.array([CHINCHILLA.optimum(c) for c in np.geomspace(1e21, 1e24, 400)]).T)
goal = float(CHINCHILLA.loss(goal_n, goal_d))


def tokens_for(law, loss, sizes):
    """The tokens with which a model of that size comes to that loss."""
    return (law.B / (loss - law.E - law.A / sizes**law.alpha)) ** (1 / law.beta)


smallest = (CHINCHILLA.A / (goal - CHINCHILLA.E)) ** (1 / CHINCHILLA.alpha)  # reaches it after endless tokens
sizes = np.geomspace(1.2 * smallest, 60e9, 600)
print(f"below {smallest / 1e9:.1f} billion parameters no number of tokens is enough")
served = {"nothing": 0.0, "2 trillion tokens": 2e12, "20 trillion tokens": 20e12}
cheapest = {}
for name, number in served.items():
    needed = tokens_for(CHINCHILLA, goal, sizes)
    cost = 6 * sizes * needed + 2 * sizes * number
    i = int(np.argmin(cost))
    cheapest[name] = sizes[i]
    saved = 1 - cost[i] / np.interp(goal_n, sizes, cost)
    print(f"{name:18s} served: {sizes[i] / 1e9:4.1f} billion parameters,", end=" ")
    print(f"{needed[i] / sizes[i]:4.0f} tokens each; {100 * saved:3.0f}% cheaper than 13 billion")
assert cheapest["20 trillion tokens"] < cheapest["2 trillion tokens"] < cheapest["nothing"]
assert np.isclose(cheapest["nothing"], goal_n, rtol=0.03)
pictures.whole_cost(CHINCHILLA, goal, served, sizes, cheapest)

# %% [markdown]
r"""
The more it is used, the smaller and longer trained it should be. That is why models that you can download have seen far
more than 20 tokens per parameter. (On the far left the curves rise without end: a model that is too small never reaches
that loss. And the law has been fitted to few runs with so many tokens for a parameter: there it is extrapolated.)

## Choosing a pretrained model

Mostly somebody has paid already. Then the questions are the same, from the other side, and a `config.json` answers most
of them before anything is downloaded: does it fit, running or fine-tuned; how much does each text of context cost; how
fast can it write? When one text is written, every token needs all weights carried once from the card's memory, and that
takes longer than the computing (chapter 16's bandwidth against peak), so that bandwidth divided by the weights' bytes
is the most tokens per second.
"""

# %%
CANDIDATES = {  # shapes from the models' config.json
    "GPT-2": GPTConfig(),
    "SmolLM2-135M": LlamaConfig(49152, 8192, 30, 9, 3, 576, d_ff=1536, tie_embeddings=True),
    "Qwen3-0.6B": LlamaConfig(151936, 40960, 28, 16, 8, 1024, 128, 3072, qk_norm=True, tie_embeddings=True),
    "Llama-3.2-1B": LlamaConfig(128256, 131072, 16, 32, 8, 2048, d_ff=8192, tie_embeddings=True),
    "Llama-2-7B": LlamaConfig(),
}
card = CARDS["RTX 4090"]
RANK = 16  # of LoRA's matrices, on everything in the layers (chapter 11)


def lora_weights(config, rank):
    """Each matrix (out, in) gets rank · (in + out) weights."""
    D, q = config.d_model, config.n_heads * config.head_dim
    if isinstance(config, GPTConfig):
        pairs = [(D, 3 * D), (D, D), (D, 4 * D), (4 * D, D)]
    else:
        kv = config.n_kv_heads * config.head_dim
        pairs = [(D, q), (D, kv), (D, kv), (q, D), (D, config.d_ff), (D, config.d_ff), (config.d_ff, D)]
    return config.n_layers * rank * sum(a + b for a, b in pairs)


print("GB:           parameters  weights  cache of 8 texts   full training   LoRA   at most tokens/s")
for name, config in CANDIDATES.items():
    size = n_parameters(config)
    weights, cache = 2 * size / 1e9, cache_bytes(config, 8, 1024, 2) / 1e9
    active = training_memory(config, 1, 1024, 2, "layers").activations / 1e9
    full, lora = 16 * size / 1e9 + active, weights + 16 * lora_weights(config, RANK) / 1e9 + active
    fits = ["fits" if gb < card.memory_gb else "too large" for gb in (full, lora)]
    print(f"{name:13s} {size / 1e9:9.3f} b {weights:7.2f} {cache:10.2f}", end="")
    print(f"{full:12.1f} {fits[0]:9s} {lora:6.1f} {fits[1]:9s} {card.bandwidth_gb / weights:7.0f}")
assert n_parameters(CANDIDATES["Llama-2-7B"]) == 6_738_415_616

# %% [markdown]
r"""
(8 texts of 1024 tokens, 16-bit numbers, a card of 24 GB; training one text at a time, layers recomputed.) Note the
cache: Qwen3's 0.6 billion need more of it than Llama-3.2's 1.2 billion, because their heads are twice as wide, in
nearly twice as many layers. And a 7-billion model can be *adapted* on a card on which it could never be trained.

What no config tells, in the order in which it usually decides: the licence; the languages and the kind of text it has
read; whether it follows instructions (chapter 13's topic) or only continues; its losses on *your* text. Compare those
in **bits per byte**, chapter 01's measure, never per token: tokenizers differ. And compare with a baseline. If two
models are near each other, take the smaller one: everything above is proportional to $N$.

> **Step into it.** Put a breakpoint on the line of the next cell that calls `save_checkpoint`, and follow a save:
> `minillm.training.checkpoint.save_checkpoint`, then `minillm.disk.whole_folder`, which gives the folder beside, and
> `minillm.disk.whole.take_place`, the two renames. For the gradients of several ranks read
> `minillm.engines.torch_engine.TorchEngine.accumulate`, for what is sent `minillm.engines.torch_blocks.shard`, for the
> fit `minillm.costs.scaling.descend`.
"""

# %%
from minillm.training.checkpoint import save_checkpoint

place = work / "stepped" / "last"
parts = {"config": {}, "model": {"w": np.ones(3)}, "optimizer": {}, "state": {}}
save_checkpoint(place, **parts)  # a first one, which the second will replace
commands = ["tbreak take_place", "continue", "print(new.name, '->', path.name)", "next", "next"]
commands += ["print(sorted(file.name for file in new.iterdir()))"]
namespace = {"save_checkpoint": save_checkpoint, "place": place, "parts": parts, "take_place": whole.take_place}
shown = type_into_debugger("save_checkpoint(place, **parts)", commands, namespace)
print(shown)
assert "last -> last" in shown and "state.json" in shown
scratch.cleanup()  # nothing of this notebook's processes is left

# %% [markdown]
r"""
The new folder is complete, and has the name of the old one already: only its place is another.

## Summary

- Four numbers for each weight (16 bytes in 32 bits), and activations for each token. Recomputing and accumulating cut
  the second, and leave the gradient as it is; the first is cut by dividing among ranks, or by training fewer weights
  (LoRA).
- MFU is the model's operations over the peak. Recomputed work is not in it. A third to a half is what good runs reach.
- DDP averages gradients: $2\frac{P-1}{P}N$ numbers to send, everything held everywhere. FSDP holds $1/P$ of everything
  for half as much again. Both gave one process's gradient to the rounding; forgetting to average, or averaging means,
  gave another one without an error.
- Save beside the place, flush, rename: then no kill costs more than time. How often: $\sqrt{2\delta M}$.
- A scaling law is measured on small runs, tested on a larger one, and believed as far as it was tested. Ours chose the
  right size and predicted the wrong loss.
- What is cheapest to train is not cheapest to own.

## Exercises

Write your answer in place of `None` and run the cell; the check says what is still wrong. Solutions are folded below.
"""

# %% [markdown]
r"""
### Exercise 1: three stages (easy, core, 10 minutes)

ZeRO divides what the ranks hold in stages: 0 nothing (DDP); 1 the moments; 2 the gradients as well; 3 the weights as
well (FSDP). Return the bytes that each of `ranks` holds for `n` weights in 32 bits, activations left out.
"""


# %% tags=["exercise"]
def bytes_per_rank(n, ranks, stage):
    return None


with check():
    answer = [bytes_per_rank(1200, 4, stage) for stage in range(4)]
    assert answer[0] is not None, "bytes_per_rank returns nothing yet: return a number of bytes."
    answer = [float(as_plain(value)) for value in answer]
    assert answer[0] != 12 * 1200, "AdamW keeps two moments for each weight, not one."
    assert answer[0] == 16 * 1200, f"Stage 0: four numbers of 4 bytes for each weight, all held; not {answer[0]:,.0f}."
    assert answer[1] != 4800 * 3 + 4800 / 4, "Stage 1 divides both moments, 8 bytes of the 16."
    assert answer[3] == 16 * 1200 / 4, "Stage 3: everything is divided."
    assert answer[1] == 4800 * 2 + 4800 * 2 / 4, "Stage 1: weights and gradients whole, two moments divided."
    assert answer[2] == 4800 + 4800 * 3 / 4, "Stage 2: weights whole, gradients and two moments divided."
    assert all(bytes_per_rank(7, 1, stage) == 7 * 16 for stage in range(4)), "One rank alone holds all, at any stage."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def bytes_per_rank(n, ranks, stage):
    whole_numbers = {0: 4, 1: 2, 2: 1, 3: 0}[stage]
    return 4 * n * (whole_numbers + (4 - whole_numbers) / ranks)
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: ranks with different shares (medium, core, 15 minutes)

Each rank has computed the gradient of the **mean** loss over its own targets: `means` is a list of arrays of one shape,
`counts` how many targets each rank had. Return the gradient of the mean loss over *all* targets. A rank whose rows were
all padding has count 0, and its "mean" is nan.
"""


# %% tags=["exercise"]
def gradient_of_all(means, counts):
    return None


with check():
    case = ([np.array([[1.0, 2.0]]), np.array([[4.0, -2.0]])], [30, 10])
    answer = gradient_of_all([mean.copy() for mean in case[0]], list(case[1]))
    assert answer is not None, "gradient_of_all returns nothing yet: return an array."
    answer = np.asarray(as_plain(answer), dtype=float)
    assert answer.shape == (1, 2), f"Return an array of the shape of one gradient, (1, 2), not {answer.shape}."
    assert not np.allclose(answer, [[2.5, 0.0]]), "The mean of the means: ranks with few targets count too much."
    assert not np.allclose(answer, [[5.0, 0.0]]), "A sum of means is no mean: divide by the targets of all ranks."
    assert not np.allclose(answer, [[70.0, 40.0]]), "The gradient of the summed loss: divide by the count of all."
    assert np.allclose(answer, [[1.75, 1.0]]), f"Not the gradient of the mean over all 40 targets: {answer}."
    answer = np.asarray(as_plain(gradient_of_all([np.full(3, np.nan), np.ones(3)], [0, 5])), dtype=float)
    assert not np.isnan(answer).any(), "0 times nan is nan: leave out a rank that has no targets."
    assert np.allclose(answer, 1), "A rank without targets must not change the mean of the others."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def gradient_of_all(means, counts):
    total = sum(mean * count for mean, count in zip(means, counts) if count)
    return total / sum(counts)
```

The library never computes the means: it gives each rank the count of all, to divide its *sum* by.

</details>
"""

# %% [markdown]
r"""
### Exercise 3: a save that survives (medium, core, 15 minutes)

Here is a small disk: `disk.files` is a dict from names to what is in them; `disk.write(name, data)` writes, and a kill
leaves *half* of the data there; `disk.rename(old, new)` happens or does not, and replaces `new`; `disk.remove(name)`
removes. Write `save(disk, name, data)` such that whenever the process is killed, `disk.files[name]` is the old content
or the new one, whole. A half-written file that an earlier kill has left must not be in the way.
"""


# %% tags=["exercise"]
def save(disk, name, data):
    return None


with check():
    disk = at_size.Disk({"last": "old" * 4})
    save(disk, "last", "new" * 4)
    assert disk.files["last"] != "old" * 4, "save writes nothing yet: afterwards the name must hold the new data."
    assert disk.files["last"] == "new" * 4, f"After a save the name must hold the data, not {disk.files['last']!r}."
    left = sorted(set(disk.files) - {"last"})
    assert not left, f"After a whole save nothing else should be left on the disk; yours leaves {left}."
    for kill in range(1, 20):
        disk = at_size.Disk({"last": "old" * 4}, kill_at=kill)
        at = f"Killed at its operation {kill}, it leaves"
        try:
            save(disk, "last", "new" * 4)
        except at_size.Killed:
            there = disk.files.get("last")
            assert there is not None, f"{at} nothing called last: never rename or remove the old one first."
            good = there in ("old" * 4, "new" * 4)
            assert good, f"{at} {there!r}: half a file. Write beside, then rename."
        disk.kill_at = None
        left = dict(disk.files)
        save(disk, "last", "third")
        there = disk.files["last"]
        assert there == "third", f"{at} {left}, and the next save must work all the same; it gave {there!r}."
    new = at_size.Disk({})
    save(new, "first", "data")
    assert new.files == {"first": "data"}, "It must work for a name that is not there yet, too."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def save(disk, name, data):
    disk.write(name + ".tmp", data)
    disk.rename(name + ".tmp", name)
```

For one file that is all. (On a real disk the file has to be flushed before the rename, or a power cut may keep the
rename and lose the data.) A *folder* cannot replace another in one rename, hence the two in `take_place`.

</details>
"""

# %% [markdown]
r"""
### Exercise 4: cheapest to own (medium, useful, 20 minutes)

`law` is a `ScalingLaw`. Of the `sizes` (an array of parameters), find the one for which training to the given `loss`
and serving `served` tokens takes the fewest operations; return (size, tokens to train on). A size that cannot reach the
loss with any number of tokens does not count.
"""


# %% tags=["exercise"]
def cheapest_to_own(law, loss, served, sizes):
    return None


with check():
    test_law, some = ScalingLaw(E=1.5, A=400.0, B=900.0, alpha=0.35, beta=0.35), np.geomspace(1e7, 1e11, 81)
    answers = {number: cheapest_to_own(test_law, 2.2, number, some.copy()) for number in (0.0, 1e12, 1e14)}
    assert answers[0.0] is not None, "cheapest_to_own returns nothing yet: return a size and a number of tokens."
    answers = {number: tuple(map(float, as_plain(list(pair)))) for number, pair in answers.items()}
    assert not any(np.isnan(value) for pair in answers.values() for value in pair), (
        "nan: for a size that cannot reach the loss, loss − E − A/N^α is negative, and has no real power."
    )
    reach = test_law.E + test_law.A / some**test_law.alpha < 2.2
    assert all(size >= some[reach][0] * 0.999 for size, _ in answers.values()), (
        "The size found can never reach the loss: its E + A/N^α is above it already."
    )
    for size, tokens in answers.values():
        there = np.isclose(test_law.loss(size, tokens), 2.2)
        assert there, f"A model of {size:.2e} parameters on {tokens:.2e} tokens has another loss."
    different = len({size for size, _ in answers.values()}) == 3
    assert different, "The size must depend on how much is served: add 2 N · served."
    needed = (900.0 / (2.2 - 1.5 - 400.0 / some[reach] ** 0.35)) ** (1 / 0.35)
    for number, (size, _) in answers.items():
        forward, step = (
            some[reach][np.argmin(6 * some[reach] * needed + factor * some[reach] * number)]
            for factor in (2, 6)
        )
        too_dear = np.isclose(size, step) and not np.isclose(step, forward)
        assert not too_dear, "A served token costs a forward pass, 2 N, not a training step's 6 N."
        assert np.isclose(size, forward), f"Not the cheapest size for {number:.0e} tokens served."

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def cheapest_to_own(law, loss, served, sizes):
    sizes = sizes[law.E + law.A / sizes**law.alpha < loss]
    tokens = (law.B / (loss - law.E - law.A / sizes**law.alpha)) ** (1 / law.beta)
    best = np.argmin(6 * sizes * tokens + 2 * sizes * served)
    return sizes[best], tokens[best]
```

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** A model does not fit on your card with a batch of one text, all layers recomputed. Does accumulation help?

<details><summary>Answer</summary>

No. Accumulation and recomputation save activations, and those of one text are nearly gone. What stands are the four
numbers for each weight: divide them among cards (FSDP), or train fewer of them (LoRA).

</details>

**2.** With recomputation a run goes from 45% to 34% MFU, and HFU stays 45%. Is the machine working less?

<details><summary>Answer</summary>

It works as much as before, but a part of it for the second time. MFU counts what brings the run forward.

</details>

**3.** Two ranks, DDP, and somebody forgot the averaging. What does the log show?

<details><summary>Answer</summary>

Nothing, at first: each rank trains on its own rows, and its loss falls. The copies drift apart; what is saved is rank
0's, which has seen half of the data.

</details>

**4.** Your checkpoints are saved every hour, a save takes a minute, and the machine fails once a month. Too often, or
too rarely?

<details><summary>Answer</summary>

Young: $\sqrt{2 \cdot 1 \cdot 43200} \approx 294$ minutes, about five hours. Every hour costs a sixtieth of the
time, more than need be; it is still little.

</details>

**5.** A fit on small runs has an interval of ± 1% for a run ten thousand times as large. Do you believe it?

<details><summary>Answer</summary>

The interval shows how these runs scatter. Whether the form holds four orders of magnitude further, whether learning
rates and data stay right there, it does not know. Test it on something a few times larger first.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now say what a training run needs before it begins, in bytes, operations, hours and dollars; divide it among
processes and prove that it is still the same training; lose a machine and not lose a bit; and read a scaling law with
its error bars.

**What you take along**: the table of runs, `minillm.workshop.deliverables.runs_of_many_sizes(SCALE)`, for fits of your
own; and `minillm inspect`, which counts all this for any checkpoint. The next chapter,
[18 · Looking inside](18_looking_inside.ipynb), opens a model that is trained.
"""
