"""Chapter 06's task, training and pictures: a small program to be followed, which needs a look back.

A sequence assigns digits to variables ("b=3"), then asks for some of them ("b?"). A variable may be assigned again: the
latest value counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from minillm import ops, plot
from minillm.optim import AdamW
from minillm.tensor import Tensor, no_grad
from minillm.training.baselines import NGramModel

VARIABLES, DIGITS = "abcdefgh", "0123456789"
VOCABULARY = [v + "=" + d for v in VARIABLES for d in DIGITS]  # id 10 · variable + digit
VOCABULARY += [v + "?" for v in VARIABLES] + list(DIGITS)
QUESTION = VOCABULARY.index("a?")  # the first id of the questions
ANSWER = VOCABULARY.index("0")  # the first id of the answers
ASSIGNMENTS, QUESTIONS = 8, 4
T = ASSIGNMENTS + 2 * QUESTIONS - 1  # tokens that a model reads: all but the last answer
GUESS = float(np.log(len(DIGITS)))  # the loss of a model that gives each digit the same probability


def make_batch(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """ids (size, T) and targets (size, T): the answer after each question, −100 elsewhere."""
    row = np.arange(size)  # (size,)
    variable = rng.integers(0, len(VARIABLES), (size, ASSIGNMENTS))  # (size, 8)
    digit = rng.integers(0, len(DIGITS), (size, ASSIGNMENTS))  # (size, 8)
    chosen = rng.integers(0, ASSIGNMENTS, (size, QUESTIONS))  # (size, 4): which assignments to ask for
    asked = variable[row[:, None], chosen]  # (size, 4): in each row, the columns in `chosen`

    memory = np.zeros((size, len(VARIABLES)), dtype=int)  # (size, 8): run the program
    for s in range(ASSIGNMENTS):  # later overwrites earlier, one entry in each row
        memory[row, variable[:, s]] = digit[:, s]
    answer = memory[row[:, None], asked]  # (size, 4)

    sequence = np.empty((size, T + 1), dtype=int)
    sequence[:, :ASSIGNMENTS] = len(DIGITS) * variable + digit
    sequence[:, ASSIGNMENTS::2] = QUESTION + asked
    sequence[:, ASSIGNMENTS + 1 :: 2] = ANSWER + answer
    targets = np.full((size, T), -100)
    targets[:, ASSIGNMENTS::2] = ANSWER + answer  # at each question, what comes next
    return sequence[:, :-1], targets


@dataclass(frozen=True)
class HeldOut:
    """Sequences that no model trains on, and what there is to know about each of their N questions."""

    ids: np.ndarray  # (sequences, T)
    targets: np.ndarray  # (sequences, T)
    row: np.ndarray  # (N,): the sequence of each question
    position: np.ndarray  # (N,): and its position there
    correct: np.ndarray  # (N,): the id of the right answer
    in_sight: np.ndarray  # (N,): does the answer stand within the three tokens before the question?
    latest: np.ndarray  # (N,): where the variable was assigned for the last time
    is_latest: np.ndarray  # (N, 8): is that assignment the latest one of the variable?
    is_outdated: np.ndarray  # (N, 8): is it an earlier one of the variable?
    groups: dict[str, np.ndarray]  # "all", and of the questions not asked before in the sequence "once" and "again"


def hold_out(seed: int, size: int) -> HeldOut:
    """`size` sequences with four questions each."""
    ids, targets = make_batch(np.random.default_rng(seed), size)
    row, position = np.argwhere(targets != -100).T
    asked = ids[row, position] - QUESTION  # (N,): the variable of each question
    assigned = ids[:, :ASSIGNMENTS] // len(DIGITS)  # (sequences, 8): the variable of each assignment
    sets_it = assigned[row] == asked[:, None]  # (N, 8)
    latest = ASSIGNMENTS - 1 - sets_it[:, ::-1].argmax(axis=1)  # argmax finds the first
    is_latest = np.arange(ASSIGNMENTS) == latest[:, None]
    is_new = np.array([ids[r, i] not in ids[r, :i] for r, i in zip(row, position)])

    in_sight = []
    for r, i in zip(row, position):
        here = (ids[r, i - 3 : i + 1] // len(DIGITS) == asked[len(in_sight)]).any()
        asked_before = ids[r, i] in ids[r, i - 4 : i]  # then its answer stands here, too
        in_sight.append(bool(here or asked_before))
    groups = {
        "all": np.full(len(row), True),
        "once": is_new & (sets_it.sum(axis=1) == 1),
        "again": is_new & (sets_it.sum(axis=1) > 1),
    }
    correct = targets[row, position]
    outdated = sets_it & ~is_latest
    return HeldOut(ids, targets, row, position, correct, np.array(in_sight), latest, is_latest, outdated, groups)


def one_at_random(held_out: HeldOut) -> np.ndarray:
    """For each question the chance of being right with one of the variable's assignments, each equally likely: (N,)."""
    sets_it = held_out.is_latest | held_out.is_outdated  # (N, 8)
    digit = held_out.ids[held_out.row, :ASSIGNMENTS] % len(DIGITS)  # (N, 8)
    same = digit == (held_out.correct - ANSWER)[:, None]
    return (sets_it & same).sum(axis=1) / sets_it.sum(axis=1)


def in_groups(right: Sequence[np.ndarray], held_out: HeldOut) -> np.ndarray:
    """Of each start's verdicts (N,) the percentage in the groups all, once and again: (starts, 3)."""
    return 100 * np.array([[r[chosen].mean() for chosen in held_out.groups.values()] for r in right])


def print_scores(score: dict[str, np.ndarray]) -> None:
    """A row for each kind: right answers in each group, from the lowest start to the highest."""
    print(f"{'% of answers right, lowest – highest start':44s} {'all':12s} {'once':12s} again")
    for kind, starts in score.items():
        cells = [f"{low:.0f} – {high:.0f}" for low, high in zip(starts.min(axis=0), starts.max(axis=0))]
        print(f"{kind + f' ({len(starts)})':44s}", *(f"{cell:12s}" for cell in cells))


def as_text(ids: np.ndarray) -> str:
    """A sequence for a model of text: each token one character (any 98 would do; these are Chinese)."""
    return "".join(chr(0x4E00 + i) for i in ids)


def ngrams_right(held_out: HeldOut, sequences: int, orders: Sequence[int]) -> dict[int, np.ndarray]:
    """For each n, whether the n-gram model is right on each question, (N,), after counting that many sequences."""
    ids, targets = make_batch(np.random.default_rng(10), sequences)
    complete = np.column_stack([ids, targets[:, -1]])  # (sequences, T + 1), last answers too
    text = "\n".join(as_text(sequence) for sequence in complete)
    counted = NGramModel.fit(text, order=max(orders), unit="char")
    right = {}
    for n in orders:
        said = []
        for r, i in zip(held_out.row, held_out.position):
            window = held_out.ids[r, i - (n - 2) : i + 1]  # (n − 1,) ids; the last is the question
            likely = counted.distribution(as_text(window), order=n).argmax()
            said.append(counted.alphabet[likely] - 0x4E00)
        right[n] = np.array(said) == held_out.correct
    return right


# --- training ----------------------------------------------------------------------------------------------------


def loss_on(model: Any, held_out: HeldOut) -> float:
    with no_grad():
        return model(held_out.ids, held_out.targets).item()


def answers_right(model: Any, held_out: HeldOut) -> np.ndarray:
    """For each question, whether the model's likeliest token is the answer: (N,)."""
    with no_grad():
        likeliest = model(held_out.ids).data.argmax(axis=-1)  # (sequences, T, V) -> (sequences, T)
    return likeliest[held_out.row, held_out.position] == held_out.correct


def train(
    model: Any, seed: int, steps: int, held_out: HeldOut | None = None, curve: Any = None
) -> tuple[Any, list[float]]:
    """The model after `steps` steps of AdamW on 64 fresh sequences each, and the loss of every step.

    The learning rate rises over 20 steps to 0.003 and falls. With a curve, the loss on `held_out` is drawn, too.
    """
    r = np.random.default_rng(seed)
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20) * (1 - 0.95 * step / steps)
        loss = model(*make_batch(r, 64))  # ids and targets in, mean cross-entropy out
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if curve is not None:
            due = step % (steps // 10) == 0 or step == steps - 1
            curve.update(step, train=losses[-1], val=loss_on(model, held_out) if due else None)
    return model, losses


def smooth(losses: Sequence[float], window: int = 10) -> np.ndarray:
    """The mean of each `window` losses in a row: (steps − window + 1,)."""
    return np.convolve(losses, np.ones(window) / window, "valid")


def left_at(losses: Sequence[float], share: float = 0.75) -> float:
    """The step at which the smoothed loss first falls below `share` of a guess's; infinite if it never does."""
    below = np.flatnonzero(smooth(losses) < share * GUESS)
    return float(below[0]) if len(below) else float("inf")


def weight_on(model: Any, held_out: HeldOut, places: np.ndarray) -> np.ndarray:
    """The share of each question's weight that each head puts on the assignments marked in `places` (N, 8): (N, H)."""
    weights = plot.look_inside(model, held_out.ids).attention[0]  # (sequences, H, T, T)
    weights = weights[held_out.row, :, held_out.position, :ASSIGNMENTS]  # (N, H, 8): indexed axes come first
    return (weights * places[:, None, :]).sum(axis=-1)


def right_alone(model: Any, head: int, held_out: HeldOut) -> float:
    """The percentage of right answers when the other of two heads is taken away: the columns of W_O that read its
    output are set to zero (and put back afterwards)."""
    weight = model.blocks[0].attn.proj.weight  # (D, D): columns 0 … d−1 read head 0, the others head 1
    d = weight.shape[1] // 2
    kept = weight.data.copy()
    other = 1 - head
    weight.data[:, d * other : d * (other + 1)] = 0
    share = 100 * answers_right(model, held_out).mean()
    weight.data[:] = kept
    return float(share)


# --- what it costs -----------------------------------------------------------------------------------------------


def time_both(lengths: Sequence[int], rng: np.random.Generator) -> dict[str, list[float]]:
    """Seconds for one forward of attention (one head of 64 features) and of a linear layer (64 to 256 features)."""
    seconds: dict[str, list[float]] = {"attention": [], "linear layer": []}
    weight = Tensor(rng.standard_normal((256, 64)).astype(np.float32))
    for n in lengths:
        q, k, v = (Tensor(rng.standard_normal((1, 1, n, 64)).astype(np.float32)) for _ in range(3))
        for name in seconds:
            times = []
            for _ in range(7):
                start = time.perf_counter()
                with no_grad():
                    ops.attention(q, k, v) if name == "attention" else ops.linear(q, weight)
                times.append(time.perf_counter() - start)
            seconds[name].append(min(times))  # the least disturbed by what else the machine does
    return seconds


# --- pictures ----------------------------------------------------------------------------------------------------

def spread_curves(dimensions: Sequence[int], measured: dict[str, list[tuple[float, float, float]]]) -> Any:
    """Three panels: what scores of dimension d look like, with the division by √d and without."""
    titles = ("spread of the scores", "largest weight of a row", "rows that hardly move (%)")
    figure, axes = plot.subplots(1, 3, height=2.8)
    for (name, values), marker in zip(measured.items(), "os"):
        for ax, column in zip(axes, np.array(values).T):
            ax.plot(dimensions, column, marker=marker, label=name)
    for ax, title in zip(axes, titles):
        ax.set_xscale("log")
        ax.set_xticks(dimensions, dimensions, rotation=90)
        ax.minorticks_off()
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("d")
    axes[0].set_yscale("log")
    axes[1].set_ylim(0, 1)
    axes[2].set_ylim(-4, 100)
    axes[0].legend(fontsize=8)
    return figure


def cost_curves(lengths: Sequence[int], seconds: dict[str, list[float]], slopes: dict[str, float]) -> Any:
    """Milliseconds against the length, on logarithmic axes, each line with its slope."""
    figure, ax = plot.subplots(height=3.2)
    for (name, values), marker in zip(seconds.items(), "os"):
        ax.loglog(lengths, 1e3 * np.array(values), marker=marker, label=f"{name}: time ~ T^{slopes[name]:.1f}")
    ax.set_xticks(lengths, lengths)
    ax.minorticks_off()
    ax.set_xlabel("T, positions")
    ax.set_ylabel("milliseconds")
    ax.legend()
    return figure


def right_dots(score: dict[str, np.ndarray]) -> Any:
    """Right answers in the groups "once" and "again": a dot for each start, a line from the lowest to the highest.

    score: kind -> (starts, 3), in percent; the columns are the groups all, once, again.
    """
    figure, ax = plot.subplots(height=3.2)
    for i, (name, color, marker) in enumerate((("once", plot.BLUE, "o"), ("again", plot.VERMILION, "s")), start=1):
        for k, starts in enumerate(score.values()):
            place = k + 0.3 * (i - 1.5)
            label = f"variable assigned {name}" if k == 0 else None
            ax.plot([starts[:, i].min(), starts[:, i].max()], [place, place], color=color, linewidth=1, alpha=0.6)
            style = {"color": color, "mfc": "none", "markersize": 7, "markeredgewidth": 1.5}
            ax.plot(starts[:, i], [place] * len(starts), marker, label=label, **style)
    ax.axvline(100 / len(DIGITS), color=plot.BLACK, linestyle=":", label="guessing")
    ax.set_yticks(range(len(score)), list(score))
    ax.set_xlim(0, 105)
    ax.invert_yaxis()
    ax.set_xlabel("answers right (%); a mark is one start")
    ax.legend(fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    return figure


def plateau_curves(losses: dict[str, list[list[float]]]) -> Any:
    """The smoothed loss of every start of each kind, and the loss of a guess."""
    figure, ax = plot.subplots(height=3.2)
    for (kind, starts), color, style in zip(losses.items(), (plot.BLUE, plot.VERMILION), ("-", "--")):
        for i, values in enumerate(starts):
            label = f"{kind}, {len(starts)} starts" if i == 0 else None
            ax.plot(smooth(values), color=color, linestyle=style, linewidth=1.2, label=label)
    ax.axhline(GUESS, color=plot.BLACK, linestyle=":", label="guessing a digit")
    ax.set_ylim(0, 1.3 * GUESS)
    ax.set_xlabel("step")
    ax.set_ylabel("loss (mean of 10 steps)")
    ax.legend(fontsize=9, loc="lower left")
    return figure


def heads_alone(looked: np.ndarray, alone: np.ndarray) -> Any:
    """How much a head looks at the answer against how much it can answer alone: both (starts, 2 heads), in percent."""
    figure, ax = plot.subplots(height=3.2)
    for i, (x, y) in enumerate(zip(looked, alone)):
        style = {"linestyle": "", "markersize": 8, "markerfacecolor": "none", "markeredgewidth": 2}
        ax.plot(x, y, marker="osD^vP"[i % 6], color=plot.CYCLE[i % len(plot.CYCLE)], label=f"start {i}", **style)
    ax.set_xlabel("weight on the assignment with the answer (%)")
    ax.set_ylabel("answers right,\nthis head alone (%)")
    ax.set_xlim(0, 105)
    ax.set_ylim(0, 105)
    ax.legend(title="the two heads of", fontsize=8)
    return figure
