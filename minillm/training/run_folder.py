"""The run folder: what a run keeps on the disk, how it is begun, saved and taken up again, and what is checked then."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..disk import check_fields, check_free, claim, holding, read_marker
from ..engines.choose import process_rank
from ..engines.protocol import Batches, Engine
from ..models import config_to_dict
from ..models.checks import DROPOUTS
from ..settings import TrainConfig
from ..tokenizers import Tokenizer
from .checkpoint import (
    CONFIG_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    CheckpointError,
    check_tokenizer,
    find_checkpoint,
    read_checkpoint,
)

CHECKPOINTS = ("best", "last")
RUN_FILES = (*CHECKPOINTS, "metrics.jsonl", "config.toml", "finetune.toml", "report.json", "adapter")
MAY_CHANGE = (*DROPOUTS, "attention")  # settings of a model that a resumed run may have otherwise than before


@dataclass
class RunState:
    """How far a run is: what state.json keeps of the loop itself."""

    step: int = 0  # updates made
    tokens: int = 0  # tokens trained on, by all processes
    step_tokens: int = 0  # of them in the last step
    seconds: float = 0.0  # spent in the loop, interruptions not counted
    best_score: float | None = None  # lowest `Evaluation.score`: for a language model, the loss in nats per token
    best_step: int = 0
    evals_since_best: int = 0


def new_run_folder(out_dir: Path) -> RunState:
    """The state of a new run. Raises FileExistsError where a run has been before, rather than overwrite it."""
    check_no_run(out_dir)
    if process_rank() == 0:
        claim(out_dir, "run", RUN_FILES)  # raises if one of them is there and somebody else's
        (out_dir / "metrics.jsonl").unlink(missing_ok=True)  # of a run that never came to a checkpoint
    return RunState()


def only_writer(out_dir: Path) -> AbstractContextManager[None]:
    """Inside, no other process trains in the same folder: it is told who does."""
    return holding(out_dir, "training") if process_rank() == 0 else nullcontext()


def check_no_run(out_dir: Path, or_else: str = "") -> None:
    """Raise FileExistsError where a run has been before, or the user has a folder of a name that a run needs.
    `or_else`: what else than going on with it the error should propose."""
    found = run_in(out_dir)
    if found is not None and read_marker(found) is None:
        raise FileExistsError(
            f"{found} was not made by minillm, and is not overwritten: move it elsewhere, or choose another folder."
        )
    if found is not None:
        raise FileExistsError(
            f"{out_dir} already holds a run: go on with it (--resume --out {out_dir}),{or_else} or choose another "
            "folder."
        )


def check_saves(out_dir: Path) -> None:
    """Raise FileExistsError where a save of the run would be refused, hours later: for a file of the user's in it."""
    for name in CHECKPOINTS:
        check_free(find_checkpoint(out_dir / name) or out_dir / name, "checkpoint")


def run_in(out_dir: Path) -> Path | None:
    """The checkpoint to go on from: `last`, or `best` where a run was killed between its first best and its first
    last; None where there is no run."""
    return find_checkpoint(out_dir / "last") or find_checkpoint(out_dir / "best")


class TrainingDiverged(ArithmeticError):
    """The loss, the gradient or a weight became nan or infinite. The message says at which step, and where first."""


def restore(
    out_dir: Path,
    run: Engine,
    batcher: Batches,
    config: TrainConfig,
    tokenizer: Tokenizer | None,
    verify: bool = True,
) -> RunState:
    """Give the engine and the batcher the state in `out_dir/last`. Raises CheckpointError, or as `check_saves`
    does, before changing anything.

    What else differs from the settings that the checkpoint was made with is named in a warning: it may be wanted.
    """
    check_saves(out_dir)
    several = run.world_size > 1  # of which those that hold a part of the model get it from the first
    checkpoint = read_checkpoint(run_in(out_dir) or out_dir / "last", verify=verify, lazily=several)
    model_config = config_to_dict(run.model.config)
    if tokenizer is not None:
        check_tokenizer(
            tokenizer, run.model.config.vocab_size, checkpoint.state.get("tokenizer"), str(checkpoint.folder)
        )
    for key, value in model_config.items():
        if key not in MAY_CHANGE and lasting(checkpoint.config.get(key)) != lasting(value):
            raise CheckpointError(
                f"{checkpoint.folder / CONFIG_FILE}: the run holds a model with {key} = "
                f"{checkpoint.config.get(key)!r:.100}, not {value!r}: "
                "resume with the model that the run began with, or start a new run in another folder."
            )
    try:
        state = RunState(**checkpoint.state["run"])
        check_fields(state)
        batcher.load_state_dict(checkpoint.state["data"])
        # Another engine has other generators: it starts its own afresh, and the runs part at the next dropout.
        random = checkpoint.state["random"] if checkpoint.state["engine"] == run.name else None
        run.load(checkpoint.model, checkpoint.optimizer, random)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(
            f"{checkpoint.folder} cannot be resumed with these settings, by its {STATE_FILE}, {MODEL_FILE} and "
            f"{OPTIMIZER_FILE}: {error}"
        ) from error
    if run.rank == 0 and (changes := changed_settings(checkpoint.state.get("train_config"), config)):
        warnings.warn(f"the run goes on with other settings than it had: {'; '.join(changes)}.", stacklevel=3)
    return state


def lasting(value: Any) -> Any:
    """A setting without what may change in it: a classifier's decoder is a config of its own."""
    return {k: v for k, v in value.items() if k not in MAY_CHANGE} if isinstance(value, dict) else value


def changed_settings(saved: Any, config: TrainConfig) -> list[str]:
    """What state.json says of the settings, where that is not what the run is to go on with: "lr was 0.001, is 0.1"."""
    if not isinstance(saved, dict):
        return []
    now = asdict(config)
    # Going on for longer is what a run is resumed for; what a step holds is compared in `check_step_size`.
    free = ("max_steps", "max_seconds", "batch_size", "grad_accumulation")
    names = [name for name in now if name not in free and name in saved and saved[name] != now[name]]
    return [f"{name} was {saved[name]!r}, is {now[name]!r}" for name in names]


def check_step_size(state: RunState, n_tokens: int) -> None:
    """Warn where a resumed run will take steps of another number of tokens: it is then not the same training."""
    if state.step_tokens not in (0, n_tokens):
        warnings.warn(
            f"the run that goes on here took {state.step_tokens:,} tokens in a step, with these settings and processes "
            f"it takes {n_tokens:,}. To keep it, change train.batch_size or train.grad_accumulation.",
            stacklevel=3,
        )
