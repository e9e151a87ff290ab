"""Assistants, opened for use and to go on with: a run of `minillm finetune sft` and its relatives, or any chat model.

A run whose method trained all weights holds a whole model. One with adapters holds those alone: they are put on the
model that it began with, which must still lie where it lay.
"""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Any

from ..assistant.config import CONFIG_FILE, SECTIONS, AssistantConfig, build_config
from ..assistant.conversations import CHATML_TOKENS, ChatTemplate
from ..assistant.reward import RewardModel
from ..assistant.rewards import Reward, load_reward
from ..assistant.run import NEW_ROWS, ChatStart, check_speaks, with_reward_head
from ..assistant.vocabulary import with_chat_tokens
from ..finetune.freeze import unfreeze
from ..finetune.lora import adapters, merge, remove_lora
from ..finetune.report import REPORT_FILE
from ..finetune.run import apply_method, load_weights, reshaped, with_weights
from ..training.checkpoint import CheckpointError, existing, read_checkpoint
from ..training.config_file import read_toml
from .checkpoint import check_engine, open_checkpoint
from .finetuned import on_engine
from .places import NotFound
from .tokenizer import TEMPLATE_FILE, AutoTokenizer, PretrainedTokenizer
from .weights import fingerprint, read_folder


def is_assistant(run: str | os.PathLike[str]) -> bool:
    """Whether a folder is a run of `minillm finetune sft`, dpo, reward, grpo or distill."""
    return (Path(run) / CONFIG_FILE).exists()


def refuse_assistant(run: str | os.PathLike[str], does: str) -> None:
    """Raise ValueError, with the command that is meant, for a run of an assistant, of which another command was asked
    what it `does`."""
    if is_assistant(run):
        kind = read_assistant_config(run).chat.kind
        named = quote(str(run))
        use = f"minillm finetune grpo --reward {named}" if kind == "reward" else f"minillm chat {named}"
        raise ValueError(
            f"{run} is a run of minillm finetune {kind}, and {does}. What it came to stands in "
            f"{Path(run) / REPORT_FILE}; to use it: {use}."
        )


def read_assistant_config(run: str | os.PathLike[str]) -> AssistantConfig:
    """The configuration of a run, as its assistant.toml says."""
    return build_config(read_toml(Path(run) / CONFIG_FILE, SECTIONS))


def template_of(tokenizer: PretrainedTokenizer, asked: str = "") -> ChatTemplate:
    """The chat template of a folder's tokenizer, or what was `asked` for in its place: "chatml", or a file. Where the
    folder has none it is ChatML. Raises ValueError for ChatML where the tokenizer lacks its tokens."""
    core, variables = tokenizer.core, dict(tokenizer.tokens)
    if asked == "chatml" or (not asked and tokenizer.chat_template is None):
        return ChatTemplate.chatml(core)
    if not asked:
        return ChatTemplate(str(tokenizer.chat_template), core, variables, tokenizer.template_name)
    try:
        source = Path(asked).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(
            f"[chat]: template = {asked!r} must be 'chatml' or a file in Jinja, which is not there."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"[chat]: template = {asked!r} must be 'chatml' or a file in Jinja: {error}.") from None
    return ChatTemplate(source, core, variables, f"the chat template in {asked}")


def kept_template(asked: str, best: Path) -> str:
    """What a run with adapters was told to write its conversations by: of a file the copy that lies beside its weights,
    for that which was given may be gone, or be another by now."""
    return asked if asked in ("", "chatml") else str(best / TEMPLATE_FILE)


def open_chat_start(name_or_folder: str, asked: str = "", seed: int = 0) -> ChatStart:
    """The model that a run begins with, on NumPy, with its template (see `template_of`). A tokenizer without the tokens
    of ChatML gets them, and the model rows for them. Adapters, of a folder or a run, are merged into it."""
    system = ""
    if is_assistant(name_or_folder):
        model, template, config = open_assistant(name_or_folder)
        system, weights = config.chat.system, fingerprint(read_folder(existing(Path(name_or_folder, "best"))))
        own = PretrainedTokenizer(template.tokenizer, dict(template.variables), chat_template=template.source)
    else:
        checkpoint = open_checkpoint(name_or_folder)
        own = AutoTokenizer.from_pretrained(checkpoint.tokenizer_folder)
        own.core = checkpoint.tokenizer()  # which knows what ends its texts
        model, template, weights = checkpoint.model(), None, checkpoint.fingerprint
        check_speaks(model, name_or_folder)
    merged = bool(adapters(model))
    if merged:
        merge(model)
        remove_lora(model)
        unfreeze(model, "*")
    n_before = own.core.vocab_size
    if asked == "chatml" or (not asked and own.chat_template is None):
        model, own.core = with_chat_tokens(model, own.core, CHATML_TOKENS, seed=seed)
    if template is None or asked:
        template = template_of(own, asked)
    added = own.core.vocab_size > n_before
    return ChatStart(model, template, name_or_folder, merged, added, weights, system)


def open_reward(place: str) -> Reward:
    """What rewards answers: the function that "FILE.py:function" names, or the reward model of a run."""
    if not is_assistant(place):
        return load_reward(place)
    model, template, config = open_assistant(place)
    if config.chat.kind != "reward":
        raise ValueError(f"{place} is a run of {config.chat.kind}, no judge of answers: take a reward run.")
    return RewardModel(model, template, name=Path(place).name)


def open_assistant(
    run: str | os.PathLike[str], *, engine: str = "numpy", device: Any = None, dtype: Any = None, verify: bool = True
) -> tuple[Any, ChatTemplate, AssistantConfig]:
    """(model, template, config) of a run, with the weights of the best evaluation. Raises CheckpointError for a folder
    that is none or has no checkpoint yet, and as `open_checkpoint` does."""
    run = Path(run)
    check_engine(engine, device)
    if not is_assistant(run):
        raise CheckpointError(f"{run} is no run of minillm finetune sft: it has no {CONFIG_FILE}.")
    config, best = read_assistant_config(run), run / "best"
    if not best.exists():
        raise CheckpointError(
            f"{run} has no best checkpoint yet: go on with it (minillm finetune --resume --out {quote(str(run))})."
        )
    tokenizer = AutoTokenizer.from_pretrained(best)
    if config.method.name not in ("lora", "qlora"):
        checkpoint = open_checkpoint(best)
        tokenizer.core = checkpoint.tokenizer()
        model = checkpoint.model(engine=engine, device=device, dtype=dtype or "float32", verify=verify)
        return model, template_of(tokenizer), config
    point = read_checkpoint(best, verify=verify)
    try:
        start = open_chat_start(config.start.model, kept_template(config.chat.template, best), config.train.seed)
    except NotFound as error:
        raise CheckpointError(
            f"{run} holds adapters alone, and the model that they change is not where it was: {error} Its place stands "
            f"in {run / CONFIG_FILE}, [start]."
        ) from error
    with_weights(config, start, run)
    model = reshaped(start.model, config.method, config.train.seed)
    if config.chat.kind == "reward":
        model = with_reward_head(model, start.tokenizer, config.train.seed)
    apply_method(model, config.method, config.train.seed, NEW_ROWS if start.added else ())
    load_weights(model, point.model)
    return on_engine(model, config.method, run, engine, device), start.template, config
