"""Data sets of the hub by their names: which files are asked for, and the texts in them, file by file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from tqdm import tqdm

from ..data.documents import Document, Dropped, Reading, on_standard_error
from ..data.folders import ROW_EXTENSIONS, extension_of
from ..data.opening import File
from ..data.parquet import need_pyarrow
from ..data.reading import read_file
from .places import NotFound, ask_hub

FORM = "owner/name, owner/name/configuration, either with :split behind"
CONVERTED = "refs/convert/parquet"  # the branch on which the hub keeps most data sets as Parquet
LOOSE = (ROW_EXTENSIONS | {".txt"}) - {".parquet"}  # data in a repository without Parquet
SPLITS = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation", "testing": "test"}
KNOWN = {"train", "validation", "test"}
SHARD = re.compile(r"([A-Za-z][\w.]*)-\d{5}-of-\d{5}\b")

Splits = dict[str, list[str]]  # split -> files


@dataclass(frozen=True)
class Asked:
    """A data set by its name on the hub, with a configuration ("20231101.en") and a split ("train") where given."""

    repository: str
    config: str = ""
    split: str = ""

    @classmethod
    def parse(cls, text: str) -> Asked:
        """
        >>> Asked.parse("wikimedia/wikipedia/20231101.en:train")
        Asked(repository='wikimedia/wikipedia', config='20231101.en', split='train')
        """
        name, _, split = text.partition(":")
        parts = name.split("/")
        if "" in parts or len(parts) > 3 or (":" in text and not split):
            raise ValueError(f"{text!r} is no name of a data set: hf: is followed by {FORM}.")
        return cls("/".join(parts[:2]), "".join(parts[2:]), split)


def hub_documents(
    name: str,
    *,
    text_key: str | None = None,
    encoding: str = "utf-8",
    skipped: list[Dropped] | None = None,
    tell: Callable[[str], None] = on_standard_error,
    progress: bool = False,
) -> Iterator[Document]:
    """Yield the texts of a data set on the hub, "owner/name" or "owner/name/configuration:split": of its Parquet files,
    of those into which the hub has converted it, or else of its JSONL, CSV and text files.

    One file is fetched at a time, to be read in bounded memory; what is fetched stays in huggingface_hub's cache, so
    that a stopped run goes on from there, and its environment variables apply (HF_HOME, HF_ENDPOINT, HF_TOKEN). All
    files are of one commit, which is told. Rows without text go to `skipped`. Raises NotFound, ValueError for a split
    or a configuration that there is not, or a file that can't be read.
    """
    asked = Asked.parse(name)
    files, commit = chosen_files(asked)
    if any(extension_of(file) == ".parquet" for file in files):
        need_pyarrow()  # before gigabytes are fetched
    told = f"{files[0]}{f' ... {files[-1]}' if len(files) > 1 else ''}"
    tell(f"note: hf:{name}: {len(files):,} file{'s' * (len(files) > 1)} of commit {commit[:12]}: {told}")
    if any("/partial-" in file for file in files):
        tell(f"note: hf:{name}: the hub has converted its beginning alone to Parquet, the first gigabytes")
    reading = Reading(encoding, text_key, tell=tell, skipped=skipped if skipped is not None else [], strict_rows=False)
    for file in tqdm(files, desc=f"hf:{name}", unit="file", disable=not progress):
        path = ask(asked, partial(fetch, asked.repository, file, commit))
        yield from read_file(File.of(path, f"hf:{asked.repository}/{file}"), reading)


def fetch(repository: str, file: str, commit: str, hub: Any) -> Any:
    return hub.hf_hub_download(repository, file, repo_type="dataset", revision=commit)


def ask(asked: Asked, question: Callable[[Any], Any]) -> Any:
    return ask_hub(asked.repository, f"the data set {asked.repository!r}", question, by_hand)


def by_hand(repository: str, endpoint: str) -> str:
    """What to do without a network."""
    return (
        f"Without it: on a machine with a network, download the files from {endpoint}/datasets/{repository}/tree/main "
        "into a folder, and give that folder in place of the name."
    )


def chosen_files(asked: Asked) -> tuple[list[str], str]:
    """(the files that were asked for, in order, the commit that they are of)"""
    info = ask(asked, lambda hub: hub.HfApi().dataset_info(asked.repository))
    files = sorted(sibling.rfilename for sibling in info.siblings or ())
    parquet = [file for file in files if extension_of(file) == ".parquet"]
    if not parquet and (converted := ask(asked, partial(converted_info, asked.repository))) is not None:
        files = sorted(sibling.rfilename for sibling in converted.siblings or ())
        configs = by_folders([file for file in files if extension_of(file) == ".parquet"])
        if configs:
            return choose(configs, asked, ""), converted.sha
    loose = [
        file for file in files if extension_of(file) in LOOSE and not file.rpartition("/")[2].startswith("dataset_")
    ]
    data = parquet or loose
    if not data:
        raise NotFound(
            f"the data set {asked.repository!r} has no files that can be read (Parquet, JSONL, CSV, text), but "
            f"{', '.join(files[:10]) or 'none'}."
        )
    card = getattr(info.card_data, "configs", None)
    configs = by_card(card, data) or by_name(data, asked.config)
    usual = next((c.get("config_name", "default") for c in described(card) if c.get("default") is True), "")
    return choose(configs, asked, usual), info.sha


def converted_info(repository: str, hub: Any) -> Any:
    """What the hub says of the branch with Parquet; None where there is none."""
    try:
        return hub.HfApi().dataset_info(repository, revision=CONVERTED)
    except hub.errors.RevisionNotFoundError:
        return None


def described(card: Any) -> list[dict[str, Any]]:
    """The configurations that a data set's card describes."""
    return [config for config in card if isinstance(config, dict)] if isinstance(card, list) else []


def by_card(card: Any, files: list[str]) -> dict[str, Splits]:
    """Configuration -> split -> files, as the card says: `data_files` are patterns, of all or of each split, or else
    all that is in a folder `data_dir`."""
    found: dict[str, Splits] = {}
    for config in described(card):
        patterns, folder = config.get("data_files"), str(config.get("data_dir") or "")
        folder = f"{folder.strip('./')}/" if folder.strip("./") else ""
        splits: Splits = {}
        for one in patterns if isinstance(patterns, list) else [patterns or "*"]:
            split, path = (one.get("split"), one.get("path")) if isinstance(one, dict) else (None, one)
            for pattern in path if isinstance(path, list) else [path]:
                for file in files:
                    if fnmatchcase(file, folder + str(pattern).removeprefix("./")):
                        splits.setdefault(str(split) if split else split_of(file), []).append(file)
        if splits:
            found[str(config.get("config_name", "default"))] = splits
    return found


def by_folders(files: list[str]) -> dict[str, Splits]:
    """The same for the branch with Parquet: configuration/split/0000.parquet."""
    found: dict[str, Splits] = {}
    for file in files:
        *_, config, split = ["default", "train", *file.split("/")[:-1]]
        found.setdefault(config, {}).setdefault(split.removeprefix("partial-"), []).append(file)
    return found


def by_name(files: list[str], config: str) -> dict[str, Splits]:
    """The same for a repository that says nothing: a configuration is a folder, or how the names of files begin."""
    splits: Splits = {}
    for file in files:
        if not config or config in file.split("/")[:-1] or re.match(rf"{re.escape(config)}\b", file.rpartition("/")[2]):
            splits.setdefault(split_of(file), []).append(file)
    return {config or "default": splits} if splits else {}


def split_of(file: str) -> str:
    """The split that a file's name tells, or else a folder's above it; "train" where none does."""
    if (shard := SHARD.search(file)) is not None:
        return SPLITS.get(shard[1].lower(), shard[1])
    for part in reversed(file.split("/")):
        for word in re.split(r"[^a-z]+", part.lower()):
            if SPLITS.get(word, word) in KNOWN:
                return SPLITS.get(word, word)
    return "train"


def choose(configs: dict[str, Splits], asked: Asked, usual: str) -> list[str]:
    """The files of the configuration and the split that were asked for, or of the only or usual ones. Raises ValueError
    that lists what there is."""
    config = pick(configs, asked.config, (usual, "default"), "configuration", f"hf:{asked.repository}/")
    splits = configs[config]
    wanted = SPLITS.get(asked.split, asked.split) if asked.split not in splits else asked.split
    before = f"hf:{asked.repository}{f'/{asked.config}' if asked.config else ''}:"
    return sorted(set(splits[pick(splits, wanted, ("train",), "split", before)]))


def pick(there: Iterable[str], wanted: str, usual: tuple[str, ...], what: str, before: str) -> str:
    """The name that is wanted, or, if none is, a usual one or the only one."""
    names = list(there)
    found = next(
        (name for name in ([wanted] if wanted else [*usual, *names[: len(names) == 1]]) if name in names), None
    )
    if found is not None:
        return found
    some = ", ".join(names[:20]) + (f", ... ({len(names):,} in all)" if len(names) > 20 else "")
    if not names:
        raise ValueError(f"{before}{wanted}: there is no {what} {wanted!r} in the names of its files.")
    why = f"there is no {what} {wanted!r}." if wanted else f"which {what}?"
    raise ValueError(f"{before}{wanted}: {why} It has {some}: --from {before}{names[0]}, for example.")
