"""A fine-tuning run: examples, a model to begin with and a method become a folder with a model for the task.

    splits = read_splits(TaskConfig("classify", data="reviews.csv"))
    start = Start(model, tokenizer)            # any model of ours on NumPy, from hub.load_model_and_tokenizer
    finetune(config, splits, start, "runs/reviews")

The folder is a run's as pretraining leaves it (best/, last/, metrics.jsonl), with finetune.toml and report.json.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..costs.sizes import n_parameters
from ..data.augment import Augmentation
from ..data.synonyms import our_synonyms, read_synonyms
from ..engines.choose import engine_class, process_rank
from ..engines.protocol import Loss
from ..models import model_from_config
from ..optim import param_groups
from ..settings import EngineConfig, TrainConfig
from ..tokenizers import BPETokenizer, CharTokenizer, Tokenizer, WordPieceTokenizer
from ..tokenizers.extend import with_special_tokens
from ..training.checkpoint import read_checkpoint
from ..training.config_file import ConfigError, build
from ..training.pretrain import model_config_class
from ..training.protocol import TrainResult
from ..training.train import train
from .config import CONFIG_FILE, FinetuneConfig, MethodConfig
from .data import TaskData
from .freeze import GradualUnfreezing, count_line, freeze, layer_wise_groups, trainable_parameters, unfreeze
from .heads import with_classifier, with_dropout, with_layers
from .lora import HEADS, LoraConfig, add_lora
from .objectives import Classify, Continue, Misfit, TaskObjective, Write, about, tokens
from .scores import check_metric, score_for
from .splits import Splits, kind_of

CONTEXT = 128  # tokens, of a new model whose [model] does not say
PAD = "<pad>"
# Each Chinese character is learned for itself: a token that joined two would hide what they have in common with others.
PIECES = re.compile("[\u3400-\u9fff]|[^\u3400-\u9fff]+")


@dataclass
class Start:
    """A NumPy model and its tokenizer, as the task finds them. `name`: where they came from; `center` and `scale` of
    the numbers that a head for regression, if it has one, gives."""

    model: Any
    tokenizer: Tokenizer
    name: str = ""
    center: float = 0.0
    scale: float = 1.0
    merged: bool = False  # from adapters, so that no file has these weights
    weights: str = ""  # their fingerprint


def with_weights(config: Any, start: Any, run: str | Path) -> Any:
    """The configuration of a run, of a task or an assistant, with the fingerprint of the weights that its adapters are
    trained beside. Raises ConfigError where it has another: adapters on other weights would answer, and wrongly."""
    noted = config.start.weights
    if config.method.name not in ("lora", "qlora") or not start.weights or noted == start.weights:
        return config
    if noted:
        raise ConfigError(
            f"{run}: its adapters were trained beside other weights than {config.start.model} has now (fingerprint "
            f"{noted}, now {start.weights}): put those back, or give their place as model in [start] of the run's "
            ".toml file. Take the line with weights out there to use these all the same."
        )
    return replace(config, start=replace(config.start, weights=start.weights))


def fresh(config: FinetuneConfig, splits: Splits) -> Start:
    """A new model of the shape in [model] with a tokenizer made from the training examples. Raises ConfigError."""
    texts = [text for e in splits.examples["train"] for text in texts_of(e)]
    made: Tokenizer
    if config.start.tokenizer == "char":
        made = CharTokenizer.train(texts, unk_token="<unk>")
    elif config.start.tokenizer == "bpe":
        made = BPETokenizer.train((piece for text in texts for piece in PIECES.findall(text)), config.start.vocab_size)
    else:
        made = WordPieceTokenizer.train(texts, config.start.vocab_size)
    classes = config.task.kind in ("classify", "regress")
    section = {"context": CONTEXT, **config.model}
    kind = section.pop("model_type", "bert" if classes else "encoder-decoder")
    cls = model_config_class(kind)
    if cls.task == "seq2seq":
        made = Write.prepared(made)
        section.setdefault("pad_id", made.special_tokens[PAD])
    elif made.special_tokens.get("[PAD]") is None:
        made = with_special_tokens(made, [PAD])
    if cls.__name__ == "BertConfig":
        section = {"head": "none", **section}
    shape = build(cls, {"vocab_size": made.vocab_size, **section}, "[model]")
    return Start(model_from_config(shape, np.random.default_rng(config.train.seed)), made)


def texts_of(example: Any) -> tuple[str, ...]:
    return (example.text,) if hasattr(example, "text") else (example.source, example.target)


def prepare(config: FinetuneConfig, labels: tuple[str, ...], start: Start) -> tuple[Any, TaskObjective]:
    """The model with the head that the task needs, and the objective. Raises ValueError if they don't go together."""
    tokenizer, task = start.tokenizer, config.task
    model = reshaped(start.model, config.method, config.train.seed)
    rng = np.random.default_rng([config.train.seed, 1])  # of new heads and adapters
    if task.kind in ("classify", "regress"):
        pad_id = padding(model, tokenizer)
        kind = kind_of(task)
        model = with_classifier(model, kind, labels, pad_id, rng)
        own = (task.center, task.scale or 1.0)
        return model, Classify(tokenizer, kind, labels, pad_id, model.config.context, task.cut, *own)
    if model.config.task == "seq2seq":
        return model, Write.for_model(tokenizer, model.config)
    if model.config.task != "causal":
        raise ValueError(
            f"{task.kind} needs a model that writes, and {start.name or 'this one'} is a {model.config.model_type} for "
            f"{model.config.task!r}: take an encoder-decoder, or a gpt, llama or lstm."
        )
    if tokenizer.eos_id is None:
        raise ValueError(f"{tokenizer!r} has no end-of-text token, by which an answer ends: take another model.")
    return model, Continue(tokenizer, tokenizer.eos_id, model.config.context, task.prompt)


def reshaped(model: Any, method: MethodConfig, seed: int) -> Any:
    """A model like `model` with the layers and the dropout that the method asks for; itself, if for none."""
    if method.new_layers or method.renew_layers:
        rng = np.random.default_rng([seed, 3])
        model = with_layers(model, method.new_layers, method.renew_layers, rng)
    return model if method.model_dropout < 0 else with_dropout(model, method.model_dropout)


def scaled(config: FinetuneConfig, splits: Splits, start: Start) -> FinetuneConfig:
    """With the center and scale of the numbers to learn: those of a head that stays, or of the training examples."""
    if splits.kind != "regression" or config.task.scale:
        return config
    numbers = np.array([example.label for example in splits.examples["train"]])
    center, scale = float(numbers.mean()), float(numbers.std()) or 1.0
    if getattr(start.model.config, "problem_type", "") == "regression" and start.model.config.n_labels == 1:
        center, scale = start.center, start.scale
    return replace(config, task=replace(config.task, center=center, scale=scale))


def padding(model: Any, tokenizer: Tokenizer) -> int:
    """The id that stands behind shorter texts: the model's own, the tokenizer's, or its end of text."""
    own = getattr(model.config, "pad_id", None)
    named = [tokenizer.special_tokens[name] for name in ("[PAD]", PAD) if name in tokenizer.special_tokens]
    found = next((i for i in (own, *named, tokenizer.eos_id) if i is not None), None)
    if found is None:
        raise ValueError(f"{tokenizer!r} has no token to fill up shorter texts with, neither [PAD] nor an end of text.")
    return found


def apply_method(model: Any, method: MethodConfig, seed: int, also: tuple[str, ...] = ()) -> None:
    """Freeze what the method freezes, and add what it adds, in place. Modules of the names `also` learn whole in any
    case."""
    if method.name == "head":
        freeze(model)
        names = [name for name, _ in model.named_modules() if name in (*HEADS, "pooler")]
        unfreeze(model, *names)
    elif method.name in ("lora", "qlora"):
        targets = tuple(name.strip() for name in method.targets.split(",") if name.strip())
        own = (*HEADS, "pooler", *also)  # a pooler may be new, too
        new = tuple(name for name, _ in model.named_modules() if name in own)
        lora = LoraConfig(method.rank, method.alpha, method.dropout, targets, method.rslora, new)
        add_lora(model, lora, np.random.default_rng([seed, 2]))


def engine_for(
    method: MethodConfig, engine: EngineConfig, loss: Loss | None = None
) -> Callable[[Any, TrainConfig], Any]:
    """What makes the engine: with learning rates by layer, and for qlora with the frozen weights in few bits. `loss`:
    where it is not the model's own."""
    groups = param_groups if method.layer_decay == 1 else partial(layer_wise_groups, factor=method.layer_decay)
    make = partial(engine_class(engine), groups=groups, loss=loss)
    if method.name != "qlora":
        return make
    from ..port import to_torch
    from .quantize import quantize_base

    def quantized(model: Any, train_config: TrainConfig) -> Any:
        ported = to_torch(model, seed=train_config.seed)
        quantize_base(ported, method.quantize)
        return make(ported, train_config)

    return quantized


def task_data(config: FinetuneConfig, splits: Splits, objective: TaskObjective) -> TaskData:
    task = config.task
    if task.skip_bad:
        splits.notes += drop_misfits(splits.examples, objective.encode)
    changes = task.drop_words or task.swap_words or task.synonyms
    table = {} if not task.synonyms else our_synonyms() if task.synonyms == "ours" else read_synonyms(task.synonyms)
    rate = SYNONYM_RATE if table else 0.0
    augment = Augmentation(task.drop_words, task.swap_words, rate, table, seed=config.train.seed)
    check_metric(task.metric, splits.kind, splits.measures)
    score = score_for(splits.kind, splits.labels, splits.measures)
    answering = {} if isinstance(objective, Classify) else {"max_new_tokens": longest(objective, splits)}
    return TaskData(
        objective,
        splits.examples["train"],
        splits.examples["val"],
        score=score,
        metric=task.metric,
        augment=augment if changes else None,
        answering=answering,
    )


def drop_misfits(splits: dict[str, list[Any]], encode: Callable[[Any], Any]) -> list[str]:
    """Leave out, in place, the examples that do not fit into the model; a note for each split of how many, and the
    first of them."""
    notes = []
    for name, examples in splits.items():
        kept, first, n = [], "", 0
        for example in examples:
            try:
                encode(example)
                kept.append(example)
            except Misfit as error:
                first, n = first or str(error), n + 1
        if n:
            notes.append(f"{n:,} of {len(examples):,} examples in {name} are left out, the first: {first}")
        splits[name] = kept
    return notes


SYNONYM_RATE = 0.1  # of the words that the table has, replaced in each epoch


def longest(objective: Any, splits: Splits) -> int:
    """How long an answer may become: a half more than the longest to learn from, in tokens."""
    lengths = []
    for example in splits.examples["train"]:
        with about(example):
            lengths.append(len(tokens(objective.tokenizer.target_side, example.target)))
    return max(lengths) * 3 // 2 + 1


def finetune(
    config: FinetuneConfig,
    splits: Splits,
    start: Start,
    out_dir: str | Path,
    *,
    resume: bool = False,
    on_best: Callable[[Any], None] | None = None,
    progress: bool = True,
) -> tuple[TrainResult, TaskObjective]:
    """Train the model that `start` holds on `splits`, in the run folder `out_dir`; afterwards `result.engine.model` has
    the weights of the best evaluation, not those of the last step. Raises as `train` does, and ValueError for what
    does not go together.
    """
    out_dir, progress = Path(out_dir), progress and process_rank() == 0
    config = with_weights(scaled(config, splits, start), start, out_dir)
    model, objective = prepare(config, splits.labels, start)
    shape = start.model.config if not config.start.model else None
    apply_method(model, config.method, config.train.seed)
    n_notes = len(splits.notes)
    data = task_data(config, splits, objective)
    settings = steps_for(config.train, config.task.epochs, len(data.train))
    if progress:
        for note in splits.notes[n_notes:]:
            print(f"note       {note}")
        print(f"model      {describe(model, start.name)}; {count_line(model)}")
    thaw = GradualUnfreezing(model, config.method.unfreeze_every) if config.method.unfreeze_every else None
    only = set(trainable_parameters(model)) if config.method.name in ("lora", "qlora") else None
    result = train(
        model,
        data,
        settings,
        out_dir,
        engine=engine_for(config.method, config.engine),
        tokenizer=objective.tokenizer,
        resume=resume,
        before_first_step=partial(config.save, out_dir / CONFIG_FILE, shape),
        before_step=None if thaw is None else thaw.at_step,
        on_best=on_best,
        only=only,
        progress=progress,
    )
    if config.task.keep == "best":
        take_best(result, out_dir)
    return result, objective


def take_best(result: TrainResult, out_dir: Path) -> None:
    """Give the model of a run that was not interrupted the weights of its best evaluation."""
    if result.reason != "interrupted" and (out_dir / "best").exists():
        best = read_checkpoint(out_dir / "best")
        result.engine.load(best.model, best.optimizer, None)


def steps_for(t: TrainConfig, epochs: float, n_examples: int) -> TrainConfig:
    """[train] with the steps that so many epochs come to, if that is not 0."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if not epochs:
        return t
    each = n_examples / (t.batch_size * t.grad_accumulation * world)
    steps = max(1, math.ceil(epochs * each))
    every = max(1, min(math.ceil(each), steps, t.eval_every))
    return replace(
        t, max_steps=steps, eval_every=every, save_every=every, warmup_steps=min(t.warmup_steps, steps // 10)
    )


def load_weights(model: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Put a checkpoint's weights into a NumPy model; those that are frozen may be missing, and stay as they are."""
    frozen = {name: p.data for name, p in model.named_parameters() if not p.requires_grad}
    model.load_state_dict({**frozen, **arrays})


def describe(model: Any, name: str) -> str:
    config = model.config
    kind = f"{config.model_type} of {config.n_layers} layers, {n_parameters(config):,} parameters"
    return f"{name} ({kind})" if name else f"a new {kind}"
