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
from minillm.finetune.heads import with_classifier
from minillm.finetune.lora import LoraConfig, add_lora
from minillm.finetune.objectives import Classify
from minillm.hub.checkpoint import open_checkpoint
from minillm.models.gpt import GPT, GPTConfig
from minillm.nn import Linear, evaluating
from minillm.optim import AdamW, clip_grad_norm_, param_groups
from minillm.tensor import Tensor, no_grad
from minillm.tokenizers import BPETokenizer

from .bert import Encoder, fixed_signs, save
from .scale import progress

Array = np.ndarray
READING_STEPS = {"smoke": 20, "cpu": 400, "gpu": 3000}  # of pretraining the GPT on reviews
REVIEWS = {"smoke": 600, "cpu": 6000, "gpu": 12_000}
SHAPE: dict[str, Any] = {"n_layers": 2, "n_heads": 4, "d_model": 64, "dropout": 0.2}
WORDS = 1500  # tokens at most: every word of the reviews is one
BATCH = 32

# --- a GPT that has read reviews


def read_reviews(folder: Path, scale: str, seed: int) -> None:
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
    model = new_reader(tokenizer.vocab_size, longest, seed)
    model.token_embedding.weight.data[:] = counted_vectors(rows, tokenizer.vocab_size)
    rng, steps, lr = np.random.default_rng(seed), READING_STEPS[scale], 4e-3
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
    model = GPT(GPTConfig(vocab_size, context, **SHAPE), np.random.default_rng(seed))
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
    vectors = fixed_signs(left[:, :d]) * np.sqrt(sizes[:d])
    vectors -= vectors.mean(axis=0)
    return 0.1 * vectors / vectors.std()


# --- fine-tuning


@dataclass(frozen=True)
class Point:
    """What was measured at one moment of a run: mean losses in nats, and the share of validation texts answered
    right."""

    step: float
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
    keep: str = "",
    title: str = "",
) -> list[Point]:
    """Chapter 08's loop on labelled texts: AdamW on what is not frozen, 20 steps of warmup, then down to 0 (`constant`:
    it stays). With `every`, both losses (training: of the
    first 128 texts) are measured at step 0, every so many steps, and at the end; `keep` leaves
    the model with the weights of the best validation "loss" or "accuracy"."""
    rng = np.random.default_rng([seed, 7])
    rows = [objective.encode(example) for example in examples]
    optimizer = AdamW(param_groups(model, weight_decay), lr=lr, betas=(0.9, 0.999))
    points: list[Point] = []
    best: tuple[float, dict[str, Array]] = (np.inf, {})
    waiting: list[int] = []
    model.train()
    for step in progress(range(steps + 1), title) if title else range(steps + 1):
        if every and (step % every == 0 or step == steps):
            (train, _), (held_out, right) = (measure(model, objective, part) for part in (examples[:128], val))
            points.append(Point(step, train, held_out, right))
            score = -right if keep == "accuracy" else held_out
            if keep and score < best[0]:
                best = score, {name: p.data.copy() for name, p in model.named_parameters()}
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


def mean_points(runs: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean of several runs, measured at the same steps."""
    return [Point(*np.mean([dataclasses.astuple(point) for point in points], axis=0)) for points in zip(*runs)]


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


# --- MiniLM, all of it

MINILM_STEPS = {"smoke": 1, "cpu": 40, "gpu": 200}
MINILM_RATES = {"LoRA": 2e-3, "full": 2e-4}


def open_body(folder: Path) -> tuple[Any, Any]:
    """(model on NumPy, tokenizer) of a folder in the format of Hugging Face."""
    found = open_checkpoint(folder)
    return found.model(), found.tokenizer()


def tune_minilm(
    body: Any, tokenizer: Any, method: str, seed: int, task: dict[str, list[Labelled]], scale: str, tested: int
) -> float:
    """The accuracy on new words of MiniLM with a head on BERT's pooler, trained on 64 labels, eight texts a step."""
    pad, kind = tokenizer.special_tokens["[PAD]"], "single_label_classification"
    model = with_classifier(body, kind, transfer.LABELS, pad, np.random.default_rng([seed, 1]))
    if method == "LoRA":
        config = LoraConfig(rank=8, alpha=16, train_also=("classifier", "pooler"))
        add_lora(model, config, np.random.default_rng([seed, 2]))
    objective = Classify(tokenizer, kind, transfer.LABELS, pad, 64)
    examples, options = task["train"][:64], {"lr": MINILM_RATES[method], "seed": seed, "title": f"MiniLM, {method}"}
    learn(model, objective, examples, steps=MINILM_STEPS[scale], batch=8, **options)
    return measure(model, objective, task["test"][:tested])[1]


# --- tables, and what the text says about them


def mean_sd(values: Sequence[float] | Array, digits: int = 2) -> str:
    """ "0.85 ± 0.04", of one value without a spread."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def print_table(title: str, rows: dict[str, dict[int, Any]]) -> None:
    """Mean and standard deviation of accuracies, a row for each method, a column for each number of labels."""
    sizes = sorted({n for cells in rows.values() for n in cells})
    print(f"{title:28s}" + "".join(f"{n} labels".rjust(15) for n in sizes))
    for name, cells in rows.items():
        print(f"  {name:26s}" + "".join((mean_sd(cells[n]) if n in cells else "").rjust(15) for n in sizes))


def assert_table(ours: Any, ours_seen: Any, theirs: Any, pooled: Any) -> None:
    """Each ordering that the text states, of means over starts, with room for other seeds."""
    mean = {method: {n: np.mean(v) for n, v in cells.items()} for method, cells in ours.items()}
    assert max(mean["scratch"].values()) < 0.62 and np.mean(ours_seen["scratch"][256]) > 0.9
    for method in ("LoRA", "full"):
        assert all(mean[method][n] > mean["vectors only"][n] + 0.02 for n in (64, 256))
        assert all(mean[method][n] > mean["frozen"][n] + 0.1 for n in (64, 256))
    assert mean["vectors only"][256] > mean["scratch"][256] + 0.1
    if theirs is not None:
        assert np.mean(theirs["frozen"][16]) > max(cells[16] for cells in mean.values())
        assert all(np.mean(pooled["mean of all"][n]) > np.mean(pooled["first token"][n]) + 0.03 for n in (16, 64, 256))
        assert min(np.mean(theirs[method][64]) for method in ("LoRA", "full")) > 0.8


def print_cures(results: dict[str, Array]) -> None:
    """(training loss, test loss, test accuracy) of each cure, and its accuracy against none, seed by seed."""
    none = next(iter(results.values()))
    print(f"{'':20s}{'training loss':>15s}{'test loss':>15s}{'test accuracy':>15s}   against none, seed by seed")
    for name, values in results.items():
        more = values[:, 2] - none[:, 2]
        better = f"{mean_sd(more)}, better in {(more > 0).sum()} of {len(more)}" if values is not none else ""
        print(f"{name:20s}" + "".join(mean_sd(v).rjust(15) for v in values.T) + f"   {better}")


def assert_cures(results: dict[str, Array], floor: float) -> None:
    """Each ordering that the text states, of means over seeds."""
    mean = {name: values.mean(axis=0) for name, values in results.items()}
    none = mean.pop("none")
    for column, best in ((1, min), (2, max)):
        assert best(mean, key=lambda name: mean[name][column]) == "4 × the data"
    assert none[0] < floor - 0.15
    for name in ("augmentation", "four of them", "dropout 0.4"):
        assert mean[name][2] > none[2] and (mean[name][1] < none[1] or name == "dropout 0.4"), name
    early, by_accuracy = mean["early stopping"], mean["the same, by accuracy"]
    assert early[1] < none[1] and early[2] < none[2] + 0.02 and early[2] < by_accuracy[2]
    for name in ("weight decay 1", "label smoothing 0.1", "smaller model"):
        assert mean[name][1] < none[1] + 0.05 and abs(mean[name][2] - none[2]) < 0.08, name


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
