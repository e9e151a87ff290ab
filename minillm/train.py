"""Training: one loop for every model and every engine. Read `train` first; all it calls is below it or in engine.py."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .checkpoint import CheckpointError, check_tokenizer, find_checkpoint, read_checkpoint, save_checkpoint
from .data import Batcher, TokenDataset
from .diagnose import first_non_finite
from .engine import Batch, Batches, Engine, Model, NumpyEngine
from .evaluate import Evaluation, evaluate
from .interrupt import StopRequest
from .objectives import NextToken, Objective, ObjectiveBatcher
from .runlog import RunLog
from .schedules import lr_factor
from .tokenizers.base import Tokenizer

MAY_CHANGE = ("dropout", "attention")  # settings of a model that a resumed run may have otherwise than before


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Where 0 means "off", the comment says so."""

    seed: int = 1337  # of the initial weights, the order of the data and dropout
    max_steps: int = 1000  # updates of the weights; 0: as many as max_seconds allows
    max_seconds: float = 0.0  # time budget, evaluations included, that the schedule is fitted to; 0: none
    batch_size: int = 16  # sequences per micro-batch and process
    grad_accumulation: int = 1  # micro-batches per step

    optimizer: Literal["adamw", "sgd"] = "adamw"  # or sgd
    lr: float = 1e-3  # at the schedule's peak
    weight_decay: float = 0.1  # of weight matrices only
    beta1: float = 0.9  # adamw
    beta2: float = 0.95  # adamw
    eps: float = 1e-8  # adamw
    momentum: float = 0.9  # sgd
    nesterov: bool = False  # sgd
    grad_clip: float = 1.0  # largest norm of all gradients together; 0: no clipping
    label_smoothing: float = 0.0  # part of each target that is spread over the whole vocabulary

    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"  # or linear, wsd, constant
    warmup_steps: int = 100  # under a time budget, at most a tenth of the steps that fit into it
    final_lr: float = 0.1  # where the schedule ends, as a part of the peak

    eval_every: int = 250  # steps
    eval_tokens: int = 100_000  # of the validation data, each time; 0: all
    patience: int = 0  # stop after this many evaluations in a row without a new best; 0: never
    save_every: int = 250  # steps

    def __post_init__(self) -> None:
        if self.max_steps == 0 and self.max_seconds == 0:
            raise ValueError("training has no end: set max_steps or max_seconds above 0")
        for name in ("batch_size", "grad_accumulation", "eval_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        not_negative = ("seed", "max_steps", "max_seconds", "lr", "weight_decay", "eps", "grad_clip", "warmup_steps")
        for name in (*not_negative, "eval_tokens", "patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("beta1", "beta2", "momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if not 0 <= self.final_lr <= 1:
            raise ValueError(f"final_lr is a part of the peak learning rate, from 0 to 1, got {self.final_lr}")


@dataclass
class RunState:
    """How far a run is: what state.json keeps of the loop itself."""

    step: int = 0  # updates made
    tokens: int = 0  # tokens trained on, by all processes
    step_tokens: int = 0  # of them in the last step
    seconds: float = 0.0  # spent in the loop, interruptions not counted
    best_loss: float | None = None  # lowest validation loss, nats per token
    best_step: int = 0
    evals_since_best: int = 0


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: "finished", "early stopping", or "interrupted" (then `signal` says by which)."""

    reason: str
    state: RunState
    evaluation: Evaluation | None  # the last one; None if the run was interrupted before it came to one
    signal: int | None = None


class TrainingDiverged(ArithmeticError):
    """The loss or the gradient became nan or infinite. The message says at which step and in which layer first."""


def train(
    model: Model,
    train_data: TokenDataset,
    val_data: TokenDataset,
    config: TrainConfig,
    out_dir: str | Path,
    *,
    objective: Objective | None = None,
    engine: Callable[[Model, TrainConfig], Engine] = NumpyEngine,
    tokenizer: Tokenizer | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainResult:
    """Train `model` in place; leave `last/`, `best/` and `metrics.jsonl` in the folder `out_dir`.

    `objective` makes batches into what the model is asked to do (objectives.py): to predict the next token if None.
    `engine` makes the engine, from the model and the config. `tokenizer` is saved with every checkpoint, and checked
    against the data and the model. With `resume` the run in `out_dir` goes on from `last/`: its losses are those of
    a run that was never interrupted, to the last bit (on the same machine; not under a time budget, where the
    learning rate follows the clock). Ctrl-C or SIGTERM finishes the step, saves `last/` and returns.

    Raises TrainingDiverged for a loss that is not finite, with `last/` as it was at the last save, CheckpointError
    for a run that cannot be resumed, and FileExistsError for a run that is there already when `resume` is False.
    """
    out_dir = Path(out_dir)
    new = None if resume else new_run_folder(out_dir)  # before the engine, where several processes wait for each other
    run = engine(model, config)
    context = model.config.context
    windows = Batcher(
        train_data, config.batch_size, context, seed=config.seed, rank=run.rank, world_size=run.world_size
    )
    check_data(train_data, val_data, tokenizer, model.config.vocab_size)
    objective = objective or NextToken(train_data.vocab_size)
    batcher = run.batches(ObjectiveBatcher(windows, objective))
    n_tokens = run.world_size * config.grad_accumulation * config.batch_size * context  # of the text, in a step
    state = new or restore(out_dir, run, batcher, tokenizer)
    if run.rank == 0:
        check_step_size(state, n_tokens)
    evaluation = None
    reason = "finished"
    began = time.perf_counter() - state.seconds
    total_steps = expected_steps(config, state)

    log = RunLog(out_dir / "metrics.jsonl", state.step, active=run.rank == 0, progress=progress)
    with StopRequest() as stop, log:
        while state.step < total_steps:
            step_began = time.perf_counter()
            lr = config.lr * schedule_factor(config, state.step, total_steps)
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
            row |= {"tokens_per_second": speed, "seconds": state.seconds, **run.gauges(speed)}
            log.step(row, total_steps)

            if state.step % config.eval_every == 0 or state.step >= total_steps:
                evaluation = evaluate(
                    run.batch_loss,
                    val_data,
                    batch_size=config.batch_size,
                    context=context,
                    objective=objective,
                    max_tokens=config.eval_tokens,
                )
                is_best = note_evaluation(state, evaluation)
                log.evaluation(evaluation_row(state, evaluation, is_best))
                if is_best:
                    save(out_dir / "best", run, batcher, state, config, tokenizer)
                if 0 < config.patience <= state.evals_since_best:
                    reason, total_steps = "early stopping", state.step

            if run.agree(stop.requested):
                reason, total_steps = "interrupted", state.step
            if state.step % config.save_every == 0 or state.step >= total_steps:
                save(out_dir / "last", run, batcher, state, config, tokenizer)

    return TrainResult(reason, state, evaluation, stop.signal)


def check_step_size(state: RunState, n_tokens: int) -> None:
    """Warn where a resumed run will take steps of another number of tokens: it is then not the same training."""
    if state.step_tokens not in (0, n_tokens):
        warnings.warn(
            f"the run that goes on here took {state.step_tokens:,} tokens in a step, with these settings and processes "
            f"it takes {n_tokens:,}. To keep it, change train.batch_size or train.grad_accumulation.",
            stacklevel=3,
        )


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


def note_evaluation(state: RunState, evaluation: Evaluation) -> bool:
    """Count the evaluation; True if it is the best so far."""
    if evaluation.loss < (math.inf if state.best_loss is None else state.best_loss):  # which nan never is
        state.best_loss, state.best_step, state.evals_since_best = evaluation.loss, state.step, 0
        return True
    state.evals_since_best += 1
    return False


def evaluation_row(state: RunState, evaluation: Evaluation, is_best: bool) -> dict[str, Any]:
    """An evaluation as it stands in metrics.jsonl."""
    return {
        "step": state.step,
        "val_loss": evaluation.loss,
        "val_perplexity": evaluation.perplexity,
        "val_bits_per_byte": evaluation.bits_per_byte,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "best": is_best,
    }


def check_data(train_data: TokenDataset, val_data: TokenDataset, tokenizer: Tokenizer | None, vocab_size: int) -> None:
    """Raise ValueError unless data, tokenizer and model speak of the same token ids."""
    for name, data in (("training", train_data), ("validation", val_data)):
        if data.vocab_size > vocab_size:
            raise ValueError(
                f"the {name} data has token ids up to {data.vocab_size - 1}, the model's vocab_size is {vocab_size}: "
                f"set the model's vocab_size to {data.vocab_size}"
            )
        if tokenizer is not None:
            data.check_tokenizer(tokenizer)
    if train_data.info.tokenizer != val_data.info.tokenizer:
        raise ValueError(
            f"the training data was packed with tokenizer {train_data.info.tokenizer}, the validation data with "
            f"{val_data.info.tokenizer}: pack both with the same one"
        )


def new_run_folder(out_dir: Path) -> RunState:
    """The state of a new run. Raises FileExistsError where a run has been before, rather than overwrite it."""
    for name in ("last", "best"):
        if find_checkpoint(out_dir / name) is not None:
            raise FileExistsError(f"{out_dir} already holds a run: resume it, or choose another folder")
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "metrics.jsonl").unlink(missing_ok=True)  # of a run that never came to a checkpoint
    return RunState()


def save(
    folder: Path, run: Engine, batcher: Batches, state: RunState, config: TrainConfig, tokenizer: Tokenizer | None
) -> None:
    """Write a checkpoint. Every rank takes part, since each may hold a part of the arrays; rank 0 writes."""
    model_arrays, optimizer_arrays = run.model_arrays(), run.optimizer_arrays()
    if run.rank != 0:
        return
    save_checkpoint(
        folder,
        config=asdict(run.model.config),
        model=model_arrays,
        optimizer=optimizer_arrays,
        state={
            "run": asdict(state),
            "data": batcher.state_dict(),
            "engine": run.name,
            "random": run.random_state(),
            "tokenizer": tokenizer.fingerprint() if tokenizer is not None else None,
            "train_config": asdict(config),
        },
        tokenizer=tokenizer,
    )


def restore(out_dir: Path, run: Engine, batcher: Batches, tokenizer: Tokenizer | None) -> RunState:
    """Give the engine and the batcher the state in `out_dir/last`. Raises CheckpointError before changing anything."""
    checkpoint = read_checkpoint(out_dir / "last")
    model_config = asdict(run.model.config)
    if tokenizer is not None:
        check_tokenizer(
            tokenizer, model_config["vocab_size"], checkpoint.state.get("tokenizer"), str(checkpoint.folder)
        )
    for key, value in model_config.items():
        if key not in MAY_CHANGE and checkpoint.config.get(key) != value:
            raise CheckpointError(
                f"{checkpoint.folder} holds a model with {key} = {checkpoint.config.get(key)!r}, not {value!r}: "
                "resume with the model that the run began with, or start a new run in another folder"
            )
    try:
        state = RunState(**checkpoint.state["run"])
        batcher.load_state_dict(checkpoint.state["data"])
        # Another engine has other generators: it starts its own afresh, and the runs part at the next dropout.
        random = checkpoint.state["random"] if checkpoint.state["engine"] == run.name else None
        run.load(checkpoint.model, checkpoint.optimizer, random)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.folder} cannot be resumed with these settings: {error}") from error
    return state


def diverged(
    run: Engine, micro_batches: list[Batch], state: RunState, loss: float, grad_norm: float, lr: float, out_dir: Path
) -> TrainingDiverged:
    """The error for a step whose loss or gradient is not finite, with the layer where it began."""
    where = first_non_finite(run.model, lambda: run.rerun(micro_batches))
    last = find_checkpoint(out_dir / "last")
    kept = f"the last good checkpoint is {last}" if last is not None else "no checkpoint had been saved yet"
    return TrainingDiverged(
        f"step {state.step + 1}: the loss is {loss}, the gradient norm {grad_norm}. First in {where}. "
        f"The step was not taken; {kept}. Try a lower learning rate (it was {lr:.3g}), a longer warmup or grad_clip."
    )
