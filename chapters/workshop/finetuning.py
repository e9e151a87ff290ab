"""Chapter 11's bookkeeping: the GPT that has read reviews, a loop that fine-tunes and notes its curves, sentence
vectors. Its pictures are in finetuning_pictures.py."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from minillm import ops
from minillm.data import Labelled
from minillm.data.augment import Augmentation
from minillm.data.tasks import transfer
from minillm.finetune.objectives import Classify
from minillm.models.gpt import GPT, GPTConfig
from minillm.nn import Linear, evaluating
from minillm.optim import AdamW, clip_grad_norm_, param_groups
from minillm.tensor import Tensor, no_grad
from minillm.tokenizers import BPETokenizer

from .bert import Encoder, save
from .scale import progress

Array = np.ndarray
READING_STEPS = {"smoke": 20, "cpu": 400, "gpu": 3000}  # of pretraining the GPT on reviews
REVIEWS = {"smoke": 600, "cpu": 6000, "gpu": 12_000}
SHAPE = {"n_layers": 2, "n_heads": 4, "d_model": 64}
WORDS = 1500  # tokens at most: every word of the reviews is one
BATCH = 32

# --- a GPT that has read reviews


def read_reviews(folder: Path, scale: str) -> None:
    """Pretrain the GPT on unlabelled reviews, to guess the next token, and write it to `folder`."""
    texts = transfer.reviews(count=REVIEWS[scale])
    tokenizer = BPETokenizer.train(texts, WORDS)
    assert tokenizer.eos_id is not None
    rows = [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), tokenizer.eos_id)  # begins with the end of the text before
    targets = np.full((len(rows), longest), -100)
    for i, row in enumerate(rows):
        ids[i, 1 : len(row)] = row[:-1]
        targets[i, : len(row)] = row
    model = new_reader(tokenizer.vocab_size, longest, seed=0)
    model.token_embedding.weight.data[:] = counted_vectors(rows, tokenizer.vocab_size)
    rng, steps, lr = np.random.default_rng(0), READING_STEPS[scale], 4e-3
    optimizer = AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    for step in progress(range(steps), "reading reviews"):
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 50, 0.05 + 3 * (1 - step / steps))
        some = rng.integers(0, len(rows), BATCH)
        loss = model(ids[some], targets[some])
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    save(model.eval(), tokenizer, folder, steps=steps, loss=loss.item())


def new_reader(vocab_size: int, context: int, seed: int) -> GPT:
    """A GPT of the reader's shape with weights drawn anew, matrices as large as in chapters 06 and 10."""
    model = GPT(GPTConfig(vocab_size, context, dropout=0.0, **SHAPE), np.random.default_rng(seed))
    for _, module in model.named_modules():
        if isinstance(module, Linear):
            module.weight.data *= 64**-0.5 / 0.02
    return model


def counted_vectors(rows: Sequence[Sequence[int]], v: int, d: int = 64) -> Array:
    """A vector (d,) for each of v tokens, so that tokens with like company have like vectors: chapter 10's matrix of ln
    ratios, of how often two tokens stand in one text over how often by chance, compressed to its d largest singular
    vectors."""
    seen = np.zeros((len(rows), v), dtype=np.float32)
    for i, row in enumerate(rows):
        seen[i, row] = 1
    together = seen.T @ seen
    np.fill_diagonal(together, 0)
    together += 0.1
    share = together.sum(axis=1) / together.sum()
    left, sizes, _ = np.linalg.svd(np.maximum(np.log(together / together.sum() / np.outer(share, share)), 0))
    vectors = left[:, :d] * np.sqrt(sizes[:d])
    vectors -= vectors.mean(axis=0)
    return 0.1 * vectors / vectors.std()


# --- fine-tuning


@dataclass(frozen=True)
class Point:
    """What was measured at one moment of a run: mean losses in nats, and the share of validation texts answered
    right."""

    step: int
    train: float
    val: float
    accuracy: float


def learn(
    model: Any,
    objective: Classify,
    examples: Sequence[Labelled],
    *,
    steps: int,
    lr: float,
    seed: int,
    batch: int = 16,
    weight_decay: float = 0.01,
    label_smoothing: float = 0.0,
    augment: Augmentation | None = None,
    constant: bool = False,
    val: Sequence[Labelled] = (),
    every: int = 0,
    keep_best: bool = False,
    title: str = "",
) -> list[Point]:
    """Chapter 08's loop on labelled texts: AdamW on what is not frozen, 20 steps of warmup, then down to 0 (`constant`:
    it stays). With `every`, both losses are measured at step 0, every so many steps, and at the end; `keep_best` leaves
    the model with the weights of the lowest validation loss."""
    rng = np.random.default_rng([seed, 7])
    rows = [objective.encode(example) for example in examples]
    optimizer = AdamW(param_groups(model, weight_decay), lr=lr, betas=(0.9, 0.999))
    points: list[Point] = []
    best: tuple[float, dict[str, Array]] = (np.inf, {})
    waiting: list[int] = []
    model.train()
    for step in progress(range(steps + 1), title) if title else range(steps + 1):
        if every and (step % every == 0 or step == steps):
            (train, _), (held_out, right) = (measure(model, objective, part) for part in (examples, val))
            points.append(Point(step, train, held_out, right))
            if keep_best and held_out < best[0]:
                best = held_out, {name: p.data.copy() for name, p in model.named_parameters()}
        if step == steps:
            break
        if len(waiting) < batch:
            waiting += rng.permutation(len(rows)).tolist()
        chosen, waiting = waiting[:batch], waiting[batch:]
        if augment is None:
            picked = [rows[i] for i in chosen]
        else:
            texts = [augment(examples[i].text, step, i) for i in chosen]
            picked = [objective.encode(dataclasses.replace(examples[i], text=t)) for i, t in zip(chosen, texts)]
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20) * (1 if constant else 1 - step / steps)
        ids, targets = objective.collate(picked)
        loss = model(ids, targets, label_smoothing=label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    if best[1]:
        model.load_state_dict(best[1])
    model.eval()
    return points


def log_probabilities(model: Any, objective: Classify, examples: Sequence[Labelled], chunk: int = 128) -> Array:
    """ln p of each class for each text: (N, C) float64."""
    parts = []
    with evaluating(model), no_grad():
        for start in range(0, len(examples), chunk):
            (ids,) = objective.collate([objective.inputs(e) for e in examples[start : start + chunk]])
            parts.append(model(ids).data.astype(np.float64))
    logits = np.concatenate(parts)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def measure(model: Any, objective: Classify, examples: Sequence[Labelled]) -> tuple[float, float]:
    """Mean −ln p of the right class, and the share of texts of which the likeliest class is the right one."""
    log_p = log_probabilities(model, objective, examples)
    truth = np.array([objective.target(example.label) for example in examples])
    loss = -log_p[np.arange(len(truth)), truth].mean()
    return float(loss), float((log_p.argmax(axis=1) == truth).mean())


def with_wrong_labels(examples: Sequence[Labelled], share: float, seed: int) -> list[Labelled]:
    """The examples with this share of the labels, drawn at random, turned into the other one."""
    turned = np.random.default_rng([seed, 9]).random(len(examples)) < share
    other = dict(zip(transfer.LABELS, reversed(transfer.LABELS)))
    return [dataclasses.replace(e, label=other[e.label]) if t else e for e, t in zip(examples, turned)]


# --- a body that does not learn: its vectors, made once, and a head


def pooled(encoder: Encoder, texts: Sequence[str], chunk: int = 64) -> dict[str, Array]:
    """Vectors (N, D) of texts from an encoder's last block: at its first position, and the mean over all tokens."""
    first, mean = [], []
    for start in range(0, len(texts), chunk):
        h, mask = encoder.features(texts[start : start + chunk])  # (B, T, D), (B, T)
        first.append(h[:, 0])
        mean.append((h * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True))
    return {"first token": np.concatenate(first), "mean of all": np.concatenate(mean)}


def head_on(vectors: Array, truth: Array, n_labels: int, seed: int, steps: int = 100) -> Linear:
    """A head (logistic regression) trained on vectors (N, D) that do not change, with classes (N,)."""
    x = Tensor(vectors.astype(np.float32))
    head = Linear(vectors.shape[1], n_labels, rng=np.random.default_rng(seed))
    optimizer = AdamW(head.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(steps):
        loss = ops.cross_entropy(head(x), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head


# --- the full table


def full_table(path: Path) -> tuple[str, dict[str, list[float]]]:
    """The table of tests/bench/RESULTS.md that tests/bench/transfer.py printed: its lines, and for each row the mean
    accuracies. ("", {}) where the file is not there."""
    if not path.exists():
        return "", {}
    text = path.read_text(encoding="utf-8").split("accuracy on words that no label showed", 1)[1]
    lines = [line for line in text.split("\n\n")[1].splitlines() if line.startswith("|")]
    rows = {}
    for line in lines[2:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[name] = [float(re.match(r"[\d.]+", cell)[0]) for cell in cells]  # type: ignore[index]
    return "\n".join(lines), rows
