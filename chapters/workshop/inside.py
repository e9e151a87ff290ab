"""Chapter 18's tasks, models and pictures: recall of pairs, copying of what repeats, and views of a model's inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from minillm import nn, plot
from minillm.interpret import repeated_rows, run
from minillm.models.llama import Llama, LlamaConfig
from minillm.optim import AdamW
from minillm.plot import Html

from .boxes import PALE_BLUE, PALE_GREEN, PALE_ORANGE, Box, draw_boxes
from .scale import progress

STEPS = {"smoke": 12, "cpu": 500, "gpu": 1500}  # of each training
SEEDS = {"smoke": 1, "cpu": 3, "gpu": 5}
BATCH, RATE = 32, 3e-3

# Recall: six pairs of a key and a value, then ten questions, each a key, with its value behind it.
KEYS, VALUES = "abcdefghijklmnop", [str(n) for n in range(10, 26)]
VOCABULARY = [*KEYS, *VALUES]
PAIRS, QUESTIONS = 6, 10
ASKED = 2 * PAIRS  # the position of the first question
RECALL = ASKED + 2 * QUESTIONS - 1  # tokens that a model reads

# Copying: ids that repeat a beginning of their own length.
COPY, IDS, PERIOD = 23, 16, 8  # tokens that a model reads, the vocabulary, the one period of "always 8"

Batch = tuple[np.ndarray, np.ndarray]


def shuffled(rng: np.random.Generator, rows: int, n: int) -> np.ndarray:
    return rng.permuted(np.tile(np.arange(n), (rows, 1)), axis=1)  # (rows, n)


def recall_rows(rng: np.random.Generator, rows: int) -> Batch:
    """ids (rows, RECALL) and targets: the value after each question, −100 elsewhere. The first six questions are all
    different."""
    keys = shuffled(rng, rows, len(KEYS))[:, :PAIRS]
    values = len(KEYS) + shuffled(rng, rows, len(VALUES))[:, :PAIRS]
    asked = np.concatenate([shuffled(rng, rows, PAIRS) for _ in range(2)], axis=1)[:, :QUESTIONS]
    ids = np.empty((rows, RECALL + 1), dtype=int)
    ids[:, 0:ASKED:2], ids[:, 1:ASKED:2] = keys, values
    ids[:, ASKED::2] = np.take_along_axis(keys, asked, axis=1)
    ids[:, ASKED + 1 :: 2] = np.take_along_axis(values, asked, axis=1)
    targets = np.full((rows, RECALL), -100)
    targets[:, ASKED::2] = ids[:, ASKED + 1 :: 2]
    return ids[:, :-1], targets


def copy_rows(rng: np.random.Generator, rows: int, period: int | None = None) -> Batch:
    """ids (rows, COPY) and targets: what follows where it can be known, −100 elsewhere. Periods are drawn by the
    library, from 3 to 12, or all are `period`."""
    if period is None:
        ids, periods = repeated_rows(rng, rows, COPY + 1, IDS)
    else:
        ids = np.array([np.resize(row[:period], COPY + 1) for row in shuffled(rng, rows, IDS)])
        periods = np.full(rows, period)
    known = np.arange(1, COPY + 1) > periods[:, None]  # the id before it has been met
    return ids[:, :-1], np.where(known, ids[:, 1:], -100)


def new_model(vocab_size: int, context: int, layers: int, seed: int, d_ff: int = 32) -> Llama:
    """A Llama of 32 features and two heads a layer. Its matrices are drawn so that sums keep their size (chapter 06),
    its token vectors with standard deviation 0.5."""
    config = LlamaConfig(vocab_size, context, layers, n_heads=2, d_model=32, d_ff=d_ff, rope_theta=1000.0)
    model = Llama(config, rng=np.random.default_rng(seed))
    for _, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.weight.data *= 32**-0.5 / 0.02  # the library drew them with 0.02
        if isinstance(module, nn.Embedding):
            module.weight.data *= 0.5 / 0.02
    return model


def train(model: Any, draw: Callable[[np.random.Generator, int], Batch], steps: int, seed: int) -> list[float]:
    """The loss of each of `steps` steps of AdamW, on fresh rows. The rate rises over 20 steps and falls."""
    rng = np.random.default_rng(1000 + seed)
    optimizer = AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 20) * (1 - 0.95 * step / steps)
        loss = model(*draw(rng, BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# Each kind of model: its vocabulary, context, layers, features of the feed-forward network, and the rows it learns
# from. With 108 features there, one layer has as many weights as two with 32.
KINDS: dict[str, tuple[int, int, int, int, Callable[..., Batch]]] = {
    "recall": (len(VOCABULARY), RECALL, 2, 32, recall_rows),
    "two layers": (IDS, COPY, 2, 32, copy_rows),
    "one layer": (IDS, COPY, 1, 108, copy_rows),
    "one layer, always 8": (IDS, COPY, 1, 108, partial(copy_rows, period=PERIOD)),
}


def fill_models(folder: Path, scale: str) -> None:
    """Train every kind from every start, and write each into a folder such as recall-0."""
    from minillm.hub import PretrainedModel

    jobs = [(kind, seed) for kind in KINDS for seed in range(SEEDS[scale])]
    for kind, seed in progress(jobs, "training small models"):
        vocab_size, context, layers, d_ff, draw = KINDS[kind]
        model = new_model(vocab_size, context, layers, seed, d_ff)
        train(model, draw, STEPS[scale], seed)
        PretrainedModel(model).save_pretrained(folder / f"{kind}-{seed}")


def load_models(folder: Path, scale: str, kind: str) -> list[Any]:
    """The models of one kind, one for each start."""
    from minillm.hub.checkpoint import open_checkpoint

    return [open_checkpoint(folder / f"{kind}-{seed}").model() for seed in range(SEEDS[scale])]


# --- measuring -----------------------------------------------------------------------------------


def mean_sd(values: Sequence[float] | np.ndarray, digits: int = 2) -> str:
    """ "mean ± standard deviation" of a few starts; of one, the number."""
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"


def questions(seed: int, rows: int, place: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Held-out rows up to the first question (rows, 13), the answers (rows,), and where the key that is asked for stood
    (rows,): 0, 2, ... 10, or `place` in all rows."""
    ids, targets = recall_rows(np.random.default_rng(seed), rows * (1 if place is None else 12))
    ids, answers = ids[:, : ASKED + 1], targets[:, ASKED]
    key = (ids[:, :ASKED] == ids[:, [ASKED]]).argmax(axis=1)
    chosen = np.flatnonzero(key == place)[:rows] if place is not None else np.arange(rows)
    return ids[chosen], answers[chosen], key[chosen]


def other_token(ids: np.ndarray, t: int | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows with another token of its kind, one that the row has not, in the place t (one for all, or one each)."""
    changed, places = ids.copy(), np.broadcast_to(t, len(ids))
    for row, place in zip(changed, places):
        kind = range(len(KEYS)) if row[place] < len(KEYS) else range(len(KEYS), len(VOCABULARY))
        row[place] = rng.choice([i for i in kind if i not in row])
    return changed


def loss_by_round(model: Any, ids: np.ndarray, targets: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """The mean loss of the second and third time round, (2,), where the id before has been met: ids and what follows
    them, (B, T) each, and the period of each row."""
    logits = run(model, ids).astype(float)  # (B, T, V)
    logits = logits - logits.max(axis=-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    loss = -np.take_along_axis(log_p, targets[:, :, None], axis=-1)[:, :, 0]  # (B, T)
    place = np.arange(1, ids.shape[1] + 1)[None]  # of what is predicted
    time_round = place // periods[:, None]  # (B, T)
    time_round[place == periods[:, None]] = 0  # the first to come again: nobody can know
    return np.array([loss[time_round == n].mean() for n in (1, 2)])


def ranks(x: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(x, axis=-1), axis=-1)


def rank_agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row of a and b, (N, T) each: (N,), 1 for the same order, 0 for none."""
    x, y = (ranks(z) - (z.shape[-1] - 1) / 2 for z in (a, b))
    return (x * y).sum(axis=-1) / np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))


def change_of_answer(model: Any, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row of ids (N, T) and place t: how much the last position's distribution changes when the token at t is
    another, drawn from the rows: the KL divergence (N, T)."""
    before = last_log_p(model, ids)  # (N, V)
    found = np.empty(ids.shape)
    for t in range(ids.shape[1]):
        changed = ids.copy()
        changed[:, t] = rng.choice(ids.reshape(-1), len(ids))
        after = last_log_p(model, changed)
        found[:, t] = (np.exp(before) * (before - after)).sum(axis=-1)
    return found


def last_log_p(model: Any, ids: np.ndarray) -> np.ndarray:
    z = run(model, ids)[:, -1].astype(float)  # (N, V)
    z -= z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def within_brackets(pieces: Sequence[bytes]) -> np.ndarray:
    """For each token of a stretch of code: is a bracket open after it that was opened in the stretch? (T,) 0 or 1."""
    depth, found = 0, []
    for piece in pieces:
        for byte in piece:
            depth = depth + 1 if byte in b"([{" else max(0, depth - 1) if byte in b")]}" else depth
        found.append(int(depth > 0))
    return np.array(found)


def with_silent_heads(model: Llama) -> Llama:
    """A model that computes the same, with two more heads in each layer: each looks hardest where one of the model's
    own looks least, and what it finds is multiplied by 0."""
    config = replace(model.config, n_heads=4, n_kv_heads=4, head_dim=model.config.head_dim)
    other = Llama(config, rng=np.random.default_rng(0))
    given = dict(model.named_parameters())
    for name, parameter in other.named_parameters():
        old = given[name].data
        if name.endswith("q_proj.weight"):
            parameter.data[...] = np.concatenate([old, -3 * old])  # (64, 32): the opposite question, louder
        elif name.endswith(("k_proj.weight", "v_proj.weight")):
            parameter.data[...] = np.concatenate([old, old])
        elif name.endswith("o_proj.weight"):
            parameter.data[...] = np.concatenate([old, 0 * old], axis=1)  # (32, 64)
        else:
            parameter.data[...] = old
    return other


# --- pictures ------------------------------------------------------------------------------------


def draw_stream() -> Any:
    """The stream through a model of two blocks, and the three things that this chapter does with it."""
    boxes = {
        "ids": Box(0.0, 1.0, 0.55, "ids\n$(T)$"),
        "x0": Box(1.75, 1.0, 0.75, "stream $x_0$\ntoken vectors\n$(T, D)$", PALE_BLUE),
        "b0": Box(3.5, 1.0, 0.6, "+ block 0"),
        "x1": Box(5.05, 1.0, 0.6, "$x_1$\n$(T, D)$", PALE_BLUE),
        "b1": Box(6.6, 1.0, 0.6, "+ block 1"),
        "x2": Box(8.15, 1.0, 0.6, "$x_2$\n$(T, D)$", PALE_BLUE),
        "head": Box(9.85, 1.0, 0.75, "norm, head\nlogits $(T, V)$"),
        "lens": Box(5.05, 2.15, 1.0, "record, and read\nwith the head: lens", PALE_GREEN),
        "probe": Box(1.75, 2.15, 1.0, "record, and read\nwith a probe", PALE_GREEN),
        "patch": Box(5.05, -0.15, 1.6, "replace: put in another vector;\nwhat changes?", PALE_ORANGE),
    }
    arrows = [("ids", "x0"), ("x0", "b0"), ("b0", "x1"), ("x1", "b1"), ("b1", "x2"), ("x2", "head")]
    arrows += [("x1", "lens"), ("x0", "probe"), ("patch", "x1")]
    return draw_boxes(boxes, arrows, height=3.0, tall=0.8)


def lens_table(pieces: Sequence[bytes], guesses: np.ndarray, p: np.ndarray, piece_of: Callable[[int], bytes]) -> Html:
    """A row for each layer, the last at the top; a column for each position: the likeliest next token there, the darker
    the likelier, in a frame where it is what really comes next. `guesses`, `p` (layers + 1, T); `pieces` T + 1."""
    names = ["no block", *(f"block {i}" for i in range(len(guesses) - 1))]
    cell = "padding:2px 5px;text-align:center;font:12px monospace;border:2px solid"
    shown = [plot.readable(piece, longest=9) for piece in pieces]
    rows, plain = [], []
    for layer in reversed(range(len(guesses))):
        cells = []
        for t, (i, share) in enumerate(zip(guesses[layer], p[layer])):
            right = piece_of(int(i)) == pieces[t + 1]
            red, green, blue = (round(255 - (255 - full) * 0.6 * share) for full in (0, 114, 178))
            style = f"{cell} {'#D55E00' if right else '#FFFFFF'};color:#000;background:rgb({red},{green},{blue})"
            cells.append(f'<td style="{style}">{escape(plot.readable(piece_of(int(i)), longest=9))}</td>')
        rows.append(f'<tr><th style="text-align:right;white-space:nowrap">{names[layer]}</th>{"".join(cells)}</tr>')
        plain.append(f"{names[layer]}: " + " ".join(plot.readable(piece_of(int(i)), longest=9) for i in guesses[layer]))
    for name, line in (("reads", shown[:-1]), ("comes next", shown[1:])):
        cells = [f'<td style="{cell} transparent">{escape(piece)}</td>' for piece in line]
        rows.append(f'<tr><th style="text-align:right;white-space:nowrap">{name}</th>{"".join(cells)}</tr>')
    return Html(f'<div style="overflow-x:auto"><table>{"".join(rows)}</table></div>', "\n".join(plain))


def layer_names(n: int) -> list[str]:
    return ["no block", *(f"block {i}" for i in range(n - 1))]


def lens_figure(kl: np.ndarray, same: np.ndarray) -> Any:
    """KL to the output (layers + 1, N positions), and the share of positions whose first guess is the last one's."""
    figure, (left, right) = plot.subplots(1, 2, height=2.8)
    x = np.arange(len(kl))
    left.plot(x, kl.mean(axis=1), "o-", color=plot.BLUE, label="mean")
    left.fill_between(x, *np.percentile(kl, (10, 90), axis=1), color=plot.BLUE, alpha=0.2, label="8 of 10 positions")
    left.set_ylabel("KL(output ‖ layer), nats")
    left.legend(fontsize=8)
    right.plot(x, 100 * same, "s-", color=plot.VERMILION)
    right.set_ylabel("first guess is the output’s (%)")
    right.set_ylim(0, 105)
    for ax in (left, right):
        ax.set_xticks(x, layer_names(len(x)), fontsize=8)
        ax.set_xlabel("read after")
    return figure


def patch_map(found: np.ndarray, names: Sequence[str], tokens: Sequence[str], title: str = "") -> Any:
    """What is won back (names, T) by module and position, as numbers on a map."""
    figure, ax = plot.subplots(height=0.42 * len(names) + 1.1, title=title)
    image = ax.imshow(found, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for i, row in enumerate(found):
        for t, value in enumerate(row):
            if abs(value) >= 0.05:
                color = "black" if value > 0.6 else "white"
                ax.text(t, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    ax.grid(visible=False)
    ax.set_xticks(range(len(tokens)), tokens)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("position that is patched, by its token in the clean row")
    figure.colorbar(image, ax=ax, label="won back")
    return figure


def bars_by_position(shares: dict[str, np.ndarray], tokens: Sequence[str]) -> Any:
    """A panel of bars for each measure, a bar for each position."""
    figure, axes = plot.subplots(len(shares), 1, height=1.4 * len(shares) + 0.5, sharex=True)
    for ax, (name, values), color in zip(axes, shares.items(), (plot.BLUE, plot.ORANGE, plot.VERMILION)):
        ax.bar(range(len(tokens)), values, color=color)
        ax.set_ylabel(name, fontsize=8)
    axes[-1].set_xticks(range(len(tokens)), tokens)
    axes[-1].set_xlabel("position, by its token")
    return figure


def heads_figure(looked: np.ndarray, lost: np.ndarray) -> Any:
    """A mark for each head (starts, layers, heads): how much the question looks at the answer, what its loss costs."""
    figure, ax = plot.subplots(height=3.2)
    for layer, (color, marker) in enumerate(((plot.VERMILION, "s"), (plot.BLUE, "o"))):
        x, y = looked[:, layer].ravel(), lost[:, layer].ravel()
        style = {"linestyle": "", "markersize": 8, "markerfacecolor": "none", "markeredgewidth": 2}
        ax.plot(x, y, marker=marker, color=color, label=f"heads of block {layer}", **style)
    ax.set_xlabel("of its attention at the question, on the answer (%)")
    ax.set_ylabel("answers lost without it\n(percentage points)")
    ax.set_xlim(-3, 103)
    ax.set_ylim(-5, 105)
    ax.legend(fontsize=9)
    return figure


def copying_figure(losses: dict[str, np.ndarray], scores: dict[str, np.ndarray], even: float) -> Any:
    """A row for each kind, a mark for each start: the loss the second time round, and the best head's induction score;
    kind -> (2, starts) each, first on periods that vary, then on rows that always repeat after 8."""
    figure, axes = plot.subplots(1, 2, height=3.0, sharey=True)
    labels = ("loss, second time round (nats)", "best head’s induction score")
    for ax, values, label in zip(axes, (losses, scores), labels):
        for row, tests in enumerate(values.values()):
            for k, (color, marker, test) in enumerate(
                ((plot.BLUE, "o", "periods vary"), (plot.VERMILION, "s", "always 8"))
            ):
                place = [row + 0.3 * (k - 0.5)] * len(tests[k])
                name = f"tested where {test}" if row == 0 else None
                ax.plot(tests[k], place, marker, color=color, mfc="none", markersize=8, markeredgewidth=1.6, label=name)
        ax.set_xlabel(label)
    axes[0].axvline(np.log(IDS), color=plot.BLACK, linestyle=":", label="all ids equally likely")
    axes[1].axvline(even, color=plot.BLACK, linestyle="--", label="looks everywhere alike")
    axes[0].set_yticks(range(len(losses)), [f"learned:\n{kind}".replace(", ", ",\n") for kind in losses], fontsize=9)
    axes[0].set_ylim(len(losses) - 0.5, -0.5)
    axes[0].set_xlim(left=-0.2)
    axes[1].set_xlim(0, 1)
    for ax in axes:
        ax.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


def probe_figure(accuracy: np.ndarray, control: np.ndarray, majority: float) -> Any:
    """Accuracy of probes on the task and on the control task, by layer: (seeds, layers + 1) each."""
    figure, ax = plot.subplots(height=3.0)
    x = np.arange(accuracy.shape[1])
    for values, color, marker, name in (
        (accuracy, plot.BLUE, "o", "inside a bracket?"),
        (control, plot.VERMILION, "s", "control: a label drawn for each token"),
    ):
        ax.plot(x, 100 * values.mean(axis=0), marker=marker, color=color, label=name)
        for one in values:
            ax.plot(x, 100 * one, marker, color=color, mfc="none", markersize=5)
    ax.axhline(100 * majority, color=plot.BLACK, linestyle=":", label="the more frequent answer, always")
    ax.set_xticks(x, layer_names(len(x)))
    ax.set_xlabel("read after")
    ax.set_ylabel("right on held-out tokens (%)")
    ax.legend(fontsize=8)
    return figure
