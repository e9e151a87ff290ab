"""Is a run healthy? What its log and its last checkpoint say, beside the reference bands of the presets (bands.py),
and what the units of its feed-forward networks do on a piece of the validation text (activations.py).

AdamW's second moment v is a running mean of the squared gradient, so √v tells how large the gradients of each layer
are, and lr·m̂/(√v̂ + ε) what the last update was: healthy runs change a weight by about a thousandth of its size in a
step (the rule of thumb is Karpathy's, "Neural Networks: Zero to Hero", lecture 4), and layers differ little in that. A
unit whose incoming weights never had a gradient has never been active: it is dead.

Muon keeps a running mean of the gradient instead, and its update is known without it: lr·√max(1, rows/columns)·UVᵀ,
with singular values of about 1, so that the root of the mean of its squares is that factor over √max(rows, columns).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..disk import check_values
from ..engines.muon import step_size
from ..settings import TrainConfig
from .activations import quiet_units
from .bands import compare_with_bands
from .checkpoint import CheckpointError, ResumePoint, read_checkpoint
from .run_folder import CHECKPOINTS, run_in
from .run_log import read_metrics

UPDATE_BAND = (1e-6, 1e-1)  # of update to weight, root mean squares: outside, a layer stands still or is thrown about
GRADIENT_SPREAD = 1e4  # between the layers with the largest and the smallest gradients
SPIKE = 1.25  # times the median of the WINDOW losses before it, and SPREAD times as far away as these lie
SPREAD = 8.0  # medians of distances: about five standard deviations. Small batches differ by nature
WINDOW = 20
LEARNED = 0.01  # of the first losses, below which a run has nothing left to learn; of lr, below which nothing moves
DEAD_SHARE = 0.5  # of a network's units may give nothing: with ReLU and plain text a third does in healthy runs
CLIPPED = 20.0  # times grad_clip, the median norm of the gradients: then grad_clip sets the size of the steps


@dataclass(frozen=True)
class Layer:
    """One weight matrix: root mean squares of its elements, of their gradients, and of the last update over both."""

    name: str
    weight: float
    gradient: float
    update_ratio: float
    dead: int  # rows that never had a gradient: units that never were active, tokens that never came
    rows: int


@dataclass
class Health:
    """`findings`: what is not as it should be, a sentence each with what to do; none: the run is healthy."""

    layers: list[Layer] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        width = max((len(layer.name) for layer in self.layers), default=5)
        lines = [f"{'layer':<{width}}   weight  gradient  update/weight  dead"]
        for a in self.layers:
            dead = f"{a.dead:,} of {a.rows:,}" if a.dead else ""
            lines.append(
                f"{a.name:<{width}}  {a.weight:7.1e}  {a.gradient:8.1e}  {a.update_ratio:13.1e}  {dead}".rstrip()
            )
        lines += [f"{name:<{width}}  {value}" for name, value in self.facts.items()]
        n = len(self.findings)
        verdict = "healthy" if not self.findings else f"{n} thing{'s' if n > 1 else ''} to look at:"
        return "\n".join([*lines, verdict, *(f"  - {finding}" for finding in self.findings)])


def examine(out_dir: str | Path) -> Health:
    """The health of the run in a folder, which may be given as its last or best. Raises CheckpointError where there is
    none, or it is damaged."""
    out_dir = Path(out_dir)
    if out_dir.name in CHECKPOINTS and run_in(out_dir) is None:
        out_dir = out_dir.parent
    folder = run_in(out_dir)
    if folder is None:
        raise CheckpointError(f"there is no run in {out_dir}: it has neither a folder last nor best.")
    checkpoint = read_checkpoint(folder)
    settings = checkpoint.state.get("train_config")
    if not isinstance(settings, dict):
        raise CheckpointError(f"{folder} does not say how it was trained: its state.json has no train_config.")
    log = out_dir / "metrics.jsonl"
    rows = read_metrics(log) if log.exists() else []
    settings = {**asdict(TrainConfig()), **settings}
    try:
        check_values(TrainConfig, settings)
        health = Health(layers_of(checkpoint.model, checkpoint.optimizer, settings, rows))
        step, step_tokens = (int(checkpoint.state["run"][name]) for name in ("step", "step_tokens"))
        size = {**checkpoint.config, "step_tokens": step_tokens}
        ratios = [layer.update_ratio for layer in health.layers if "embedding" not in layer.name]
        health.facts["band"], outside = compare_with_bands(size, settings, rows, step, ratios)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: state.json, config.json or optimizer.safetensors is damaged: {error}."
        ) from error
    look_at_losses(health, rows, settings)
    health.findings += outside
    if reason := at_rest(rows, settings):
        health.facts["layers"] = f"not judged: {reason}"
    elif step >= 2 * WINDOW:
        look_at_layers(health)
        look_at_activations(health, out_dir, checkpoint)
    return health


def layers_of(
    model: Mapping[str, np.ndarray],
    optimizer: Mapping[str, np.ndarray],
    settings: dict[str, Any],
    rows: list[dict[str, Any]],
) -> list[Layer]:
    """The matrices with AdamW's or Muon's state; none of a run with SGD, which keeps no second moment."""
    lr = next((row["lr"] for row in reversed(rows) if isinstance(row.get("lr"), float)), settings["lr"])
    found = []
    for name, weight in model.items():
        if weight.ndim != 2:
            continue
        if settings["optimizer"] == "muon" and (mean := optimizer.get(f"{name}.momentum_buffer")) is not None:
            size = step_size(lr * settings["muon_lr"] / settings["lr"], weight.shape) / max(weight.shape) ** 0.5
            dead = int((np.abs(mean).max(axis=1) == 0).sum())
            found.append(Layer(name, rms(weight), rms(mean), size / rms(weight), dead, len(weight)))
        if f"{name}.exp_avg_sq" not in optimizer:
            continue
        m, v = optimizer[f"{name}.exp_avg"], optimizer[f"{name}.exp_avg_sq"]
        step = max(int(optimizer[f"{name}.step"]), 1)
        m_hat, v_hat = m / (1 - settings["beta1"] ** step), v / (1 - settings["beta2"] ** step)
        update = lr * m_hat / (np.sqrt(v_hat) + settings["eps"])
        dead = int((v.max(axis=1) == 0).sum())
        found.append(
            Layer(name, rms(weight), float(np.sqrt(v_hat.mean())), rms(update) / rms(weight), dead, len(weight))
        )
    return found


def at_rest(rows: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    """Why nothing can be said of how far the layers move: there is nothing left to learn, or the schedule has ended at
    a rate of nearly 0; "" where they should be moving."""
    steps = [row for row in rows if isinstance(row.get("loss"), float)]
    if len(steps) < 2 * WINDOW:
        return ""
    first, last = (statistics.mean(row["loss"] for row in part) for part in (steps[:WINDOW], steps[-WINDOW:]))
    if last < LEARNED * first:
        return f"the training loss is {last:.4f}, there is nothing left to learn."
    lr = steps[-1].get("lr")
    if isinstance(lr, float) and lr < LEARNED * settings["lr"] and steps[-1]["step"] > settings["warmup_steps"]:
        return f"the learning rate ended at {lr:.1e}, nearly 0."
    return ""


def look_at_layers(health: Health) -> None:
    for layer in health.layers:
        table = "embedding" in layer.name  # rows that never had a gradient are tokens that did not occur
        if layer.dead == layer.rows:
            health.findings.append(f"{layer.name} never had a gradient: nothing that the loss depends on uses it.")
        elif layer.dead and not table:
            health.findings.append(
                f"{layer.name}: {layer.dead} of {layer.rows} units never were active. Try a lower learning rate, or a "
                "longer warmup."
            )
        low, high = UPDATE_BAND
        if not table and layer.dead < layer.rows and not low <= layer.update_ratio <= high:
            what = "hardly moves" if layer.update_ratio < low else "is thrown about"
            health.findings.append(
                f"{layer.name} {what}: its last update was {layer.update_ratio:.1e} of its size, {low:g} to {high:g} "
                f"is usual. Try a {'higher' if layer.update_ratio < low else 'lower'} learning rate."
            )
    gradients = {a.name: a.gradient for a in health.layers if a.gradient > 0 and "embedding" not in a.name}
    if gradients and max(gradients.values()) > GRADIENT_SPREAD * min(gradients.values()):
        small, large = min(gradients, key=gradients.__getitem__), max(gradients, key=gradients.__getitem__)
        health.findings.append(
            f"gradients differ {gradients[large] / gradients[small]:,.0f}-fold between {large} and {small}: they "
            "vanish or explode on their way. Look at the initialisation and at the norms."
        )


def look_at_activations(health: Health, out_dir: Path, checkpoint: ResumePoint) -> None:
    try:
        n, units = quiet_units(out_dir, checkpoint.folder, checkpoint.model, checkpoint.config)
    except (OSError, ValueError, TypeError) as error:
        health.facts["active units"] = f"not looked at: {error}"
        return
    if units:
        quiet, total = (sum(numbers) for numbers in zip(*units.values()))
        health.facts["active units"] = f"{total - quiet:,} of {total:,}, on {n:,} tokens of the validation text"
    for name, (quiet, total) in units.items():
        if quiet > DEAD_SHARE * total:
            health.findings.append(
                f"{name}: {quiet} of {total} units gave nothing for any of {n:,} tokens of the validation text. Try a "
                "lower learning rate, or a longer warmup."
            )


def look_at_losses(health: Health, rows: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    steps = [row for row in rows if isinstance(row.get("loss"), float)]
    values = [row for row in rows if isinstance(row.get("val_loss"), float)]
    if not steps:
        health.findings.append("metrics.jsonl has no training steps: nothing can be said of the losses.")
        return
    losses = [row["loss"] for row in steps]
    first, last = statistics.mean(losses[:WINDOW]), statistics.mean(losses[-WINDOW:])
    health.facts["train loss"] = f"{first:.3f} in the first {min(WINDOW, len(losses))} steps, {last:.3f} in the last"
    spikes = [row["step"] for i, row in enumerate(steps) if i >= WINDOW and jumps(losses, i)]
    if spikes:
        health.findings.append(
            f"the loss jumped up {len(spikes)} times, first at step {spikes[0]:,}. Try a lower learning rate, a "
            "smaller beta2 (0.95), or grad_clip 1."
        )
    warmup = settings["warmup_steps"] if not settings.get("max_seconds") else 0
    if steps[-1]["step"] <= warmup:
        health.findings.append(
            f"the run ended at step {steps[-1]['step']:,}, within its warmup of {warmup:,}: the learning rate never "
            "reached its peak. Set warmup_steps to a tenth of the steps."
        )
    after = [row["grad_norm"] for row in steps if row["step"] > warmup and isinstance(row.get("grad_norm"), float)]
    if after and settings["grad_clip"]:
        clipped = sum(norm > settings["grad_clip"] for norm in after) / len(after)
        health.facts["gradients"] = f"norm {statistics.median(after):.2f} (median after warmup), {clipped:.0%} clipped"
        if statistics.median(after) > CLIPPED * settings["grad_clip"] and len(after) >= WINDOW:
            health.findings.append(
                f"the median norm of the gradients is {statistics.median(after):.3g}, and all are clipped to "
                f"{settings['grad_clip']:g}, which then sets the size of the steps: raise grad_clip."
            )
    if last > 0.98 * first and steps[-1]["step"] > max(warmup, WINDOW):
        health.findings.append(
            f"nothing was learned: the loss went from {first:.3f} to {last:.3f}. Is the learning rate far too low or "
            "too high, or the data noise?"
        )
    if values:
        look_at_evaluations(health, values, last)


def look_at_evaluations(health: Health, values: list[dict[str, Any]], train_loss: float) -> None:
    best = min(values, key=lambda row: row["val_loss"])
    end = values[-1]
    health.facts["val loss"] = f"{end['val_loss']:.3f} at the end, best {best['val_loss']:.3f} at step {best['step']:,}"
    if end["val_loss"] > 1.02 * best["val_loss"]:
        health.findings.append(
            f"it overfits: the validation loss was best, {best['val_loss']:.3f}, at step {best['step']:,}, and is "
            f"{end['val_loss']:.3f} now, at a training loss of {train_loss:.3f}. Use best/, more text, or dropout; "
            "patience stops in time."
        )


def jumps(losses: list[float], i: int) -> bool:
    """Is loss i far above those before it? By their median, and by how far they lie from it themselves (small batches
    differ, and one hard text is no sickness), unless those after it stay up, too."""
    before = losses[i - WINDOW : i]
    median = statistics.median(before)
    usual = statistics.median(abs(loss - median) for loss in before)
    stays = statistics.median(losses[i : i + 3]) > SPIKE * median
    return losses[i] > SPIKE * median and (stays or losses[i] > median + SPREAD * usual)


def rms(array: np.ndarray) -> float:
    """Root mean square of an array's elements; at least the smallest positive number, so that it can divide."""
    return max(float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))), 1e-300)
