"""Where a model lies: a folder on this machine, or a name on the Hugging Face hub, fetched once and cached."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from ..training.checkpoint import checkpoint_in, find_checkpoint
from .weights import INDEX, SINGLE, shards

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CONFIG = ["config.json", "generation_config.json", ADAPTER_CONFIG]  # what says which model it is
TEXT = ["*.json", "*.jinja", "*.model", "*.spm", "merges.txt", "vocab.txt"]  # what a tokenizer consists of, and CONFIG
WEIGHTS = [SINGLE, INDEX, ADAPTER_WEIGHTS]  # and the files that INDEX lists
NETWORK = ("httpx", "httpcore", "requests", "urllib")  # packages, whose names may end in a number
TOKEN_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # of environment variables
NEEDED = "config.json, model.safetensors (or its shards with model.safetensors.index.json), and the tokenizer's files"
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only")  # huggingface_hub's, for a name on the hub


class NotFound(OSError):
    """A model that is neither here nor reachable: the message says what to download, and where to put it."""


def find_folder(name_or_folder: str | os.PathLike[str], *, only: Sequence[str] = (), **hub: Any) -> Path:
    """The folder with a model's files; of a model on the hub, which are fetched first, `only` those of these patterns
    (CONFIG, TEXT), () for all that is needed.

    A folder is taken as it is (of a run folder of `minillm pretrain`, the best checkpoint). Anything else is a name
    such as "openai-community/gpt2": the package huggingface_hub downloads it, resumes and checks, and keeps it in its
    cache; its environment variables (HF_HOME, HF_ENDPOINT for a mirror, HF_HUB_OFFLINE, HF_TOKEN) apply. `hub`: some of
    HUB_OPTIONS, of which `revision` is a branch, tag or commit there. Raises NotFound, TypeError for another option.
    """
    if unknown := [option for option in hub if option not in HUB_OPTIONS]:
        raise TypeError(f"{unknown[0]!r} is no option of the hub: they are {', '.join(HUB_OPTIONS)}.")
    if os.fspath(name_or_folder) == "":
        raise NotFound(f"an empty name is no model: give a folder with {NEEDED}, or a name on the hub: 'owner/model'.")
    path = Path(name_or_folder)
    if find_checkpoint(path) is not None:
        return checkpoint_in(path)
    name = os.fspath(name_or_folder)
    if path.is_file() and path.suffix == ".gguf":
        raise NotFound(
            f"{name} is llama.cpp's: make a folder of it (minillm convert {quote(name)} FOLDER --to hf), and give that."
        )
    if path.is_file():
        raise NotFound(f"{name} is a file. Give the folder that it lies in: a model needs {NEEDED}.")
    parts = name.split("/")
    if path.is_absolute() or name.startswith(("./", "../", "~", ".\\")) or not 1 <= len(parts) <= 2 or "" in parts:
        raise NotFound(f"there is no folder {name}. Give one with {NEEDED}, or a name on the hub: 'owner/model'.")
    if only:
        return download(name, list(only), hub)
    folder = download(name, [*TEXT, *WEIGHTS], hub)
    if (folder / SINGLE).exists() or not (folder / INDEX).exists():
        return folder
    return download(name, shards(folder), hub)


def download(name: str, patterns: list[str], options: dict[str, Any]) -> Path:
    """Files of a hub model by their names, from the cache or the network."""

    def fetch(hub: Any) -> Any:
        return hub.snapshot_download(name, allow_patterns=patterns, **options)

    return Path(ask_hub(name, f"{name!r} is no folder here and", fetch, by_hand, options.get("token")))


def ask_hub(
    name: str,
    what: str,
    ask: Callable[[Any], Any],
    by_hand: Callable[[str, str], str],
    token: str | bool | None = None,
) -> Any:
    """What `ask` gets from the package huggingface_hub. Raises NotFound, without an access token in it: `what` says
    what is not there, and `by_hand`, of the name and the hub's address, what to do without a network."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise NotFound(
            f"{what} can't be downloaded without the package huggingface_hub: install minillm-from-scratch[hub]. "
            f"{by_hand(name, 'https://huggingface.co')}"
        ) from None
    try:
        return ask(huggingface_hub)
    except HFValidationError as error:
        raise NotFound(f"{name!r} is neither a folder here nor a name on the hub: {error}") from None
    except Exception as error:
        expected = isinstance(error, (HfHubHTTPError, OSError, ValueError))
        # httpx or requests, whichever huggingface_hub is built on: no network, a broken one
        network = type(error).__module__.partition(".")[0].rstrip("0123456789") in NETWORK
        if not expected and not network and without_token(str(error), token) == str(error):
            raise
        endpoint = huggingface_hub.constants.ENDPOINT
        reason = (without_token(str(error), token).strip() or type(error).__name__).splitlines()[0]
        hint = by_hand(name, endpoint)
        raise NotFound(f"{what} could not be downloaded from {endpoint}: {reason}\n{hint}") from None


def without_token(text: str, token: str | bool | None) -> str:
    """An error's text without the access token, given or kept by huggingface_hub: "Illegal header value b'Bearer ...'"
    would show it to whoever reads the log."""
    import huggingface_hub

    given = [token, huggingface_hub.get_token(), *(os.environ.get(name) for name in TOKEN_NAMES)]
    for secret in [secret for secret in given if isinstance(secret, str)]:
        for part in (secret, repr(secret)[1:-1], *secret.split()):
            text = text.replace(part, "<token>") if len(part) > 3 else text
    return text


def by_hand(name: str, endpoint: str) -> str:
    """What to do without a network."""
    return (
        f"Without it: on a machine with a network, download from {endpoint}/{name}/tree/main the files {NEEDED}, put "
        "them into one folder here, and give that folder in place of the name."
    )
