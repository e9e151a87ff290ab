"""`minillm evaluate`: measure a model on text, its run's corpus or any other; a fine-tuned one on its task."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Dropped, kinds_skipped, pack, read_documents
from ..data.example_batches import fingerprint
from ..data.example_split import find_leaks
from ..disk import read_json
from ..engines.choose import batch_loss_of
from ..finetune.predict import predict
from ..finetune.report import MODEL, make_report
from ..finetune.run import drop_misfits
from ..finetune.splits import Splits, read_examples, read_splits
from ..generate import Sampling
from ..hub.assistants import refuse_assistant
from ..hub.checkpoint import load_model_and_tokenizer
from ..hub.finetuned import is_finetuned, open_finetuned
from ..metrics import pass_at_k
from ..settings import EngineConfig
from ..training.checkpoint import STATE_FILE, checkpoint_in
from ..training.config_file import ConfigError, build
from ..training.evaluate import evaluate
from ..training.objectives import loss_for
from ..training.pretrain import CONFIG_FILE, DataConfig, model_objective, packed, resumed_sections
from .options import add_option, choices, keywords, whole

HOW = ("apart", "together")  # documents, in the rows that they are measured in
TEMPERATURE = 0.8  # of answers that are drawn for pass@k
GIVEN = argparse.SUPPRESS  # an option that is not given leaves no trace: which of them fit depends on the run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="checkpoint or run folder, of either format, or a hub name")
    text = "text files or folders; default: the corpus of the run"
    parser.add_argument("--data", nargs="+", default=[], metavar="FILE", help=text)
    key = "column of its rows that holds the text (default: guessed, and said)"
    encoding = "of it, such as cp1252 (default: utf-8)"
    add_option(parser, read_documents, "text_key", key, default=GIVEN)
    add_option(parser, read_documents, "encoding", encoding, default=GIVEN)
    parser.add_argument("--split", default=GIVEN, help="split of the run's corpus (default: val)")
    parser.add_argument("--json", metavar="FILE", help="write the scores of a fine-tuned run there, too")
    parser.add_argument(
        "--samples", type=whole(0), default=0, help="of a fine-tuned code model: draw so many, for pass@k"
    )
    add_option(parser, evaluate, "batch_size", "sequences at a time", default=16, type=whole(1))
    context, end = "tokens per sequence (default: the model's context)", "stop after this many (default: all)"
    add_option(parser, evaluate, "context", context, default=GIVEN, type=whole(0))
    add_option(parser, evaluate, "max_tokens", end, default=GIVEN, type=whole(0))
    parser.add_argument(
        "--documents", choices=HOW, default=GIVEN,
        help="whether a token sees those of earlier documents in its row (together; default: as the run was trained)",
    )  # fmt: skip
    add_option(parser, load_model_and_tokenizer, "engine", "what computes", choices=choices(EngineConfig, "name"))
    add_option(parser, load_model_and_tokenizer, "device", "PyTorch's: cpu, cuda, mps")
    add_option(parser, load_model_and_tokenizer, "verify", "compare a run's weights with their checksum")


def run(arguments: argparse.Namespace) -> int:
    if is_finetuned(arguments.model):
        check_text_options(arguments)
        return evaluate_task(arguments)
    if not arguments.data:
        refuse_assistant(arguments.model, "was measured when it was trained; of a text (--data FILE) it gives the loss")
    check_task_options(arguments)
    opening = keywords(load_model_and_tokenizer, arguments)
    if arguments.engine == "torch":
        opening["dtype"] = "float32"  # what is measured on NumPy, too, whatever the files hold
    model, tokenizer = load_model_and_tokenizer(arguments.model, **opening)
    arguments.context = vars(arguments).get("context") or model.config.context
    split = vars(arguments).get("split", "val")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data:
            skipped: list[Dropped] = []
            documents = read_documents(arguments.data, skipped=skipped, **keywords(read_documents, arguments))
            data = pack(documents, tokenizer, Path(folder) / "tokens.bin")
            for kind in kinds_skipped((one.source, one.reason) for one in skipped):
                print(kind, file=sys.stderr)
        else:
            data = packed(data_of(arguments.model), split, tokenizer)
        objective = model_objective(model.config, tokenizer, are_apart(arguments))
        measure = batch_loss_of(model, loss_for(objective))
        result = evaluate(measure, data, objective=objective, **keywords(evaluate, arguments))
        print(f"{checkpoint_in(arguments.model)} on {' '.join(arguments.data) or split}: {result}")
        del data  # unmap the file before its folder goes (Windows)
    return 0


def check_text_options(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for options that have no meaning for a fine-tuned run, which is measured on examples."""
    for name in ("split", "context", "max_tokens", "text_key", "encoding", "documents"):
        if name in arguments:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{option} is for models of text; {arguments.model} is a fine-tuned run, which is measured on whole "
                f"examples, those of its task or of --data: leave {option} out."
            )


def check_task_options(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for options that only a fine-tuned run has a use for, and for a split beside a text."""
    for option, value in (("--json", arguments.json), ("--samples", arguments.samples)):
        if value:
            raise ConfigError(f"{option} is for runs of minillm finetune, and {arguments.model} is none: leave it out.")
    if "split" in arguments and arguments.data:
        raise ConfigError("--split is of the run's own corpus, and --data is another text: leave one of them out.")


def evaluate_task(arguments: argparse.Namespace) -> int:
    """Measure a fine-tuned run on its test examples, or on those of a file, with the baselines beside it."""
    opening = keywords(load_model_and_tokenizer, arguments)
    model, objective, config = open_finetuned(arguments.model, **{k: v for k, v in opening.items() if k != "dtype"})
    splits = read_splits(config.task, config.train.seed)
    if config.task.skip_bad:
        splits.notes += drop_misfits(splits.examples, objective.encode)
    check_unchanged(Path(arguments.model) / config.task.keep, splits)
    if len(arguments.data) > 1:
        raise ConfigError(f"a fine-tuned run is measured on one file of examples, not on {len(arguments.data)}.")
    if arguments.data:
        examples = read_examples(config.task, arguments.data[0])
        print(examples)
        leaks = find_leaks({"train": splits.examples["train"], "it": examples})
        if leaks:
            print(f"note: {len(leaks):,} of them stand in the run's training examples, too, as: {leaks[0]}.")
        splits = splits.measured_on({Path(arguments.data[0]).name: list(examples)})
        if config.task.skip_bad:
            splits.notes += drop_misfits(splits.examples, objective.encode)
    options: dict[str, Any] = {"batch_size": arguments.batch_size, "progress": True}
    answers = {
        name: predict(model, objective, examples, n_beams=config.task.beams, **options)
        for name, examples in splits.tests.items()
    }
    report = make_report(splits, answers)
    print(report)
    if arguments.samples:
        for name, examples in splits.tests.items():
            for k, share in pass_at(model, objective, splits, examples, arguments.samples, **options).items():
                print(f"{name}: pass@{k} {share:.3f} of {arguments.samples} samples at temperature {TEMPERATURE}")
                report.scores[name][MODEL][f"pass@{k}_sampled"] = share
    if arguments.json:
        report.save(arguments.json)
        print(f"wrote {arguments.json}")
    return 0


def check_unchanged(checkpoint: Path, splits: Splits) -> None:
    """Raise ConfigError if the files no longer give the examples that the run was trained on: another split might test
    it on those."""
    state = read_json(checkpoint / STATE_FILE).get("data", {})
    if state.get("data") != fingerprint(splits.examples["train"]):
        raise ConfigError(
            f"{checkpoint.parent} was trained on other examples than its files now give, so that tests might be among "
            "them. Put the files back as they were, or train anew."
        )


def pass_at(
    model: Any, objective: Any, splits: Splits, examples: list[Any], samples: int, **options: Any
) -> dict[int, float]:
    """k -> pass@k over the examples, from answers drawn `samples` times, for k = 1, 10, 100 and `samples`."""
    passes = splits.measures.get("pass@1")
    if passes is None:
        raise ConfigError("--samples measures pass@k, for which the built-in code task has tests to execute.")
    passed = np.zeros(len(examples), dtype=int)
    for seed in range(samples):
        drawn = predict(model, objective, examples, sampling=Sampling(temperature=TEMPERATURE), seed=seed, **options)
        passed += [bool(passes(example, found.value)) for example, found in zip(examples, drawn)]
    ks = sorted({k for k in (1, 10, 100, samples) if k <= samples})
    return {k: float(np.mean(pass_at_k(samples, passed, k))) for k in ks}


def are_apart(arguments: argparse.Namespace) -> bool:
    """Whether each document is to be measured by itself: as asked for, or as the run was trained."""
    if "documents" in arguments:
        return bool(arguments.documents == "apart")
    return run_of(arguments.model) is not None and data_of(arguments.model).pack_documents


def data_of(run: str) -> DataConfig:
    """What the run of a run folder or checkpoint was trained on, from its config.toml."""
    folder = run_of(run)
    if folder is None:
        raise ConfigError(f"{run} does not say what it was trained on (no {CONFIG_FILE}): give --data FILE.")
    return build(DataConfig, resumed_sections(folder).get("data", {}), "[data]")


def run_of(run: str) -> Path | None:
    """The run folder that `run` is, or is a checkpoint of; None where it is neither."""
    return next((folder for folder in (Path(run), Path(run).parent) if (folder / CONFIG_FILE).exists()), None)
