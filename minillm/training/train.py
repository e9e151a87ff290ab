"""Training: one loop for every model and every engine. What it asks of an engine is listed in engines/protocol.py,
and of data in protocol.py; what it keeps on the disk is written in run_folder.py."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.numpy_engine import NumpyEngine
from ..engines.protocol import Engine, Model
from ..settings import TrainConfig
from ..tokenizers import Tokenizer
from .diagnose import diverged
from .evaluate import Measured
from .interrupt import StopRequest
from .protocol import TrainingData, TrainResult
from .run_folder import RunState, check_step_size, new_run_folder, only_writer, restore
from .run_log import RunLog
from .saving import Saver
from .schedules import lr_factor

FAILED = 2  # that a save went wrong, as ranks tell each other, who also ask whether to stop: 1


def train(
    model: Model,
    data: TrainingData,
    config: TrainConfig,
    out_dir: str | Path,
    *,
    engine: Callable[[Model, TrainConfig], Engine] = NumpyEngine,
    tokenizer: Tokenizer | None = None,
    resume: bool = False,
    verify: bool = True,
    before_first_step: Callable[[], None] | None = None,
    before_step: Callable[[int, Model], Any] | None = None,
    on_best: Callable[[Engine], None] | None = None,
    only: Collection[str] | None = None,
    log_to: Collection[str] = (),
    progress: bool = True,
) -> TrainResult:
    """Train `model` in place; leave `last/`, `best/` and `metrics.jsonl` in the folder `out_dir`.

    `data` is what there is to learn: `TextData(train_data, val_data)` for a language model. What has nothing to be
    measured on is not evaluated, and leaves no `best/`. `engine` makes the engine,
    from the model and the config. `tokenizer` is saved with every checkpoint, and checked against the data and the
    model. With `resume` the run in `out_dir` goes on from `last/`: its losses are those of a run that was never
    interrupted, to the last bit (on the same machine; not under a time budget, where the learning rate follows the
    clock); `verify` compares its files with their checksums first. `before_first_step` is called by the first process
    when all has been checked, `on_best` when it has written `best/`; `before_step` by all, with the step's number and
    the model, before each. `only`: the names of the weights to save, where the others never change; `log_to`: what
    shows the log besides (log_sinks.py). Ctrl-C or SIGTERM finishes the step, saves `last/` and returns.

    Raises TrainingDiverged for a loss or a weight that is not finite, with `last/` as it was at the last save,
    CheckpointError for a run that cannot be resumed, with nothing written, and FileExistsError for a folder in which
    there is a run already, or a file of somebody else's that would have to give way, when `resume` is False.
    """
    out_dir = Path(out_dir)
    with only_writer(out_dir):
        # A new folder comes before the engine, where several processes wait for each other.
        new = None if resume else new_run_folder(out_dir)
        run = engine(model, config)
        context = model.config.context
        batches = data.batches(run, config, context)
        data.check(model.config, tokenizer)
        batcher = run.batches(batches)
        n_rows = run.world_size * config.grad_accumulation * config.batch_size  # in a step
        n_tokens = round(n_rows * batches.row_tokens)
        state = new or restore(out_dir, run, batcher, config, tokenizer, verify)
        if run.rank == 0:
            check_step_size(state, n_tokens)
            if before_first_step is not None:
                before_first_step()
        evaluation = None
        reason = "finished"
        began = time.perf_counter() - state.seconds
        total_steps = expected_steps(config, state)

        active = run.rank == 0
        log = RunLog(out_dir / "metrics.jsonl", state.step, active=active, progress=progress, log_to=log_to)
        # What is not finite ends the run with a sentence of its own, below: NumPy's warnings would only come before it.
        saver = Saver(run, batcher, config, tokenizer, only)
        with StopRequest() as stop, log, saver, np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            while state.step < total_steps:
                step_began = time.perf_counter()
                lr = config.lr * schedule_factor(config, state.step, total_steps)
                if before_step is not None:
                    before_step(state.step, run.model)
                micro_batches = [batcher.next() for _ in range(config.grad_accumulation)]

                loss = run.forward_backward(micro_batches)
                grad_norm = run.clip_gradients(config.grad_clip)
                run.step(lr)
                loss, grad_norm = run.read(loss, grad_norm)
                if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                    raise diverged(run, micro_batches, state, loss, grad_norm, lr, out_dir)

                now = time.perf_counter()
                state.step += 1
                state.tokens += n_tokens
                state.step_tokens = n_tokens
                state.seconds = run.agree(now - began)
                total_steps = expected_steps(config, state)
                row = {"step": state.step, "loss": loss, "lr": lr, "grad_norm": grad_norm, "tokens": state.tokens}
                speed = n_tokens / (now - step_began)
                row |= {"tokens_per_second": speed, "seconds": state.seconds, **run.gauges(speed), **data.gauges()}
                log.step(row, total_steps)

                is_due = state.step % config.eval_every == 0 or state.step >= total_steps
                if is_due and (evaluation := data.evaluate(run, config, context)) is not None:
                    is_best = note_evaluation(state, evaluation)
                    log.evaluation(state, evaluation, is_best)
                    if is_best:
                        saver.save(out_dir / "best", state)
                        if on_best is not None and run.rank == 0:
                            on_best(run)
                    if 0 < config.patience <= state.evals_since_best:
                        reason, total_steps = "early stopping", state.step

                asked = run.agree(FAILED if saver.failed() else stop.requested)
                if asked == FAILED:
                    saver.wait()  # raises
                if asked:
                    reason, total_steps = "interrupted", state.step
                if state.step % config.save_every == 0 or state.step >= total_steps:
                    saver.save(out_dir / "last", state)

    return TrainResult(reason, state, run, evaluation, stop.signal)


def expected_steps(config: TrainConfig, state: RunState) -> float:
    """The number of steps the run will have: max_steps, or what the time budget allows at the pace so far."""
    total = float(config.max_steps) if config.max_steps else math.inf
    if config.max_seconds and state.step:
        total = min(total, state.step * config.max_seconds / state.seconds)
    return total


def schedule_factor(config: TrainConfig, step: int, total_steps: float) -> float:
    """The schedule's factor for one step; under a time budget the warmup shrinks with the run."""
    warmup = config.warmup_steps
    if config.max_seconds and total_steps < 10 * warmup:
        warmup = int(total_steps / 10)
    return lr_factor(config.schedule, step, total_steps, warmup, config.final_lr)


def note_evaluation(state: RunState, evaluation: Measured) -> bool:
    """Count the evaluation; True if it is the best so far."""
    if evaluation.score < (math.inf if state.best_score is None else state.best_score):  # which nan never is
        state.best_score, state.best_step, state.evals_since_best = evaluation.score, state.step, 0
        return True
    state.evals_since_best += 1
    return False
