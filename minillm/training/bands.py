"""What healthy runs of the presets had: reference bands of loss, gradient norm and size of updates, by step.

The bands (presets/bands.json) were measured by tests/bench/bands.py: runs of each preset that a CPU can train, of
several seeds, texts and vocabularies. A loss is compared as a share of ln V, the loss of a model that knows nothing
about V tokens: texts and vocabularies differ less in that than in nats. A band goes from the lowest of the runs to the
highest, and on both sides further by `MARGIN` standard deviations of the seeds about the mean of their text, and by
one of these means: other texts differ, too.

A band belongs to a size: another model, step or vocabulary has other losses, and for these there is none. How a run
was trained (learning rate, warmup, optimizer) is what a band judges: where that differs from the preset, the finding
says in what.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..disk import read_json
from ..models import config_to_dict
from ..settings import TrainConfig
from .pretrain import PRESETS, model_config_class, preset_names, read_config

BANDS = PRESETS / "bands.json"
MARGIN = 3.0
SCRATCH = 0.8  # of ln V, which new weights begin with
POINT = 20  # steps up to a point, over which loss (mean) and gradient norm (median) are taken
NOT_SIZE = ("vocab_size", "attention", "format", "version")  # keys of a model's config
NOT_RECIPE = ("seed", "max_steps", "max_seconds", "batch_size", "grad_accumulation", "eval_every", "eval_tokens",
              "patience", "save_every")  # fmt: skip
WORDS = {
    "loss": "the loss at step {step:,} is ",
    "grad_norm": "the norm of the gradients at step {step:,} is ",
    "update": "the share of a weight that an update changes at step {step:,}, at the schedule's peak, is ",
}
TEXTS = "Python source and its English docstrings"

Row = dict[str, Any]


def measures_at(step: int, rows: Sequence[Row], vocab_size: int) -> dict[str, float]:
    """The loss, as a share of ln V, and the gradient norm of the `POINT` steps up to `step`; {} where some are not
    there."""
    near = [row for row in rows if step - POINT < row["step"] <= step and "grad_norm" in row]
    if len(near) < POINT or not all(isinstance(row.get(name), float) for row in near for name in ("loss", "grad_norm")):
        return {}
    loss = statistics.mean(row["loss"] for row in near) / math.log(vocab_size)
    return {"loss": loss, "grad_norm": statistics.median(row["grad_norm"] for row in near)}


def update_at_peak(ratios: Sequence[float], rows: Sequence[Row], peak: float) -> dict[str, float]:
    """The median layer's last update over its weights, as it would be at the schedule's peak: where the schedule stood
    at that step is no matter of health. {} where it is not known."""
    lr = next((row["lr"] for row in reversed(rows) if isinstance(row.get("lr"), float)), 0.0)
    return {"update": statistics.median(ratios) * peak / lr} if ratios and lr > 0 else {}


def band(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """(lowest, highest) that a healthy run has, from runs in groups that differ in the seed only; with the margin."""
    means = [statistics.mean(group) for group in groups]
    values = [value for group in groups for value in group]
    errors = [value - mean for group, mean in zip(groups, means) for value in group]
    seeds = sum(e * e for e in errors) / max(1, len(values) - len(groups))  # the variance within groups
    margin = MARGIN * math.sqrt(seeds) + (statistics.stdev(means) if len(means) > 1 else 0.0)
    return max(0.0, min(values) - margin), max(values) + margin


def compare_with_bands(
    size: dict[str, Any], settings: dict[str, Any], rows: Sequence[Row], step: int, ratios: Sequence[float]
) -> tuple[str, list[str]]:
    """A sentence on what the run was compared with, and the findings: what is outside of its preset's band.

    `size`: the model's config and "step_tokens"; `settings`: those of [train]; `step`: that of the checkpoint, whose
    layers' update-to-weight `ratios` these are.
    """
    bands = read_json(BANDS)
    differing = {name: differences(size, size_of(name)) for name in preset_names()}
    same = [name for name, others in differing.items() if not others]
    alike = [name for name in differing if size_of(name)["model_type"] == size["model_type"]]
    if not alike:
        return f"none: there is no preset of a {size['model_type']!r} model", []
    if not same:
        nearest = min(alike, key=lambda name: len(differing[name]))
        return f"none of this size: nearest is preset {nearest}, with {', '.join(differing[nearest][:4])}", []
    preset = min(same, key=lambda name: len(changed(settings, name, ())))
    if preset not in bands:
        return f"none: preset {preset} takes a GPU, and no healthy runs of it have been measured", []
    low, high = bands[preset]["vocab_size"]
    if not low <= size["vocab_size"] <= high:
        return f"none: preset {preset} was measured with vocabularies of {low:,} to {high:,}", []
    first = next((row["loss"] for row in rows if isinstance(row.get("loss"), float)), math.inf)
    if first < SCRATCH * math.log(size["vocab_size"]):
        return f"none: with a first loss of {first:.2f} it began from trained weights, and bands are of new ones", []
    points = [int(point) for point in bands[preset]["at"] if int(point) <= step]
    if not points:
        return (
            f"none before step {min(map(int, bands[preset]['at'])):,}, from where on preset {preset} was measured",
            [],
        )
    found = outside(bands[preset]["at"][str(points[-1])], points[-1], size["vocab_size"], settings, rows, step, ratios)
    recipe = changed(settings, preset, NOT_RECIPE)
    hint = f"Other than there: {', '.join(recipe)}." if recipe else f"They were trained on {TEXTS}."
    runs = f"{bands[preset]['runs']} healthy runs of preset {preset}"
    findings = [f"{value}; {runs} had {usual}. {hint}" for value, usual in found]
    return f"{'outside' if findings else 'within'} that of {runs} at step {points[-1]:,}, on {TEXTS}", findings


def outside(
    bands: dict[str, Any], point: int, vocab_size: int, settings: dict[str, Any], rows: Sequence[Row], step: int,
    ratios: Sequence[float],
) -> list[tuple[str, str]]:  # fmt: skip
    """What is outside of the bands at a point, and what is usual there, each in words."""
    measured = measures_at(point, rows, vocab_size)
    if step <= 1.1 * point:  # the layers are those of the checkpoint
        measured |= update_at_peak(ratios, rows, settings["lr"])
    found = []
    for name, value in measured.items():
        low, high = bands[name]
        if value > high or (value < low and name != "loss"):  # a low loss is no sickness: the text is easy
            words, form, scale = WORDS[name], *((".2f", math.log(vocab_size)) if name == "loss" else (".2g", 1.0))
            shown = [format(number * scale, form) for number in (value, low, high)]
            found.append((words.format(step=point) + shown[0], f"{shown[1]} to {shown[2]}"))
    return found


def size_of(preset: str) -> dict[str, Any]:
    """What of a preset decides which numbers are usual: the model's settings, and the tokens in a step."""
    sections = read_config(preset)
    model = dict(sections["model"])
    config = model_config_class(model.pop("model_type", "gpt"))(**model)
    train = TrainConfig(**sections["train"])
    return {**config_to_dict(config), "step_tokens": train.batch_size * train.grad_accumulation * config.context}


def differences(size: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Where two sizes differ, with the other's values: ["n_layers = 4 (here 6)"]."""
    names = [name for name in {**other, **size} if name not in NOT_SIZE]
    names = [name for name in names if size.get(name) != other.get(name)]
    return [f"{name} = {other.get(name)!r} (here {size.get(name)!r})" for name in names]


def changed(settings: dict[str, Any], preset: str, passing: Sequence[str]) -> list[str]:
    """What in [train] is not as the preset has it, but for the names to pass over: ["lr 0.09 (there 0.003)"]."""
    there = asdict(TrainConfig(**read_config(preset)["train"]))
    names = [name for name, value in there.items() if name not in passing and settings[name] != value]
    return [f"{name} {settings[name]!r} (there {there[name]!r})" for name in names]
