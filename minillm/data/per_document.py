"""What is done to each document by itself when a corpus is built, by all cores: cleaning it, finding out what its
copies are told by, and looking for its runs of words in the held-out text.

What depends on other documents is decided about these results in one process, in the documents' order (build.py), so
that a corpus is the same for any number of processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from ..disk.processes import ProcessKilled, in_order
from .clean import Places, RepeatedLines, clean_text, line_places
from .corpus import CorpusConfig
from .dedup import Identity, MinHash, identify
from .documents import Document, Dropped, as_document, as_line
from .encoding import ALONE, batched
from .pii import scrub
from .split import Contamination
from .split import Places as RunPlaces
from .stopwords import remove_stop_words

OVERHEAD = 500  # characters of text that take as much memory as the results for a document, however short it is

Shared = TypeVar("Shared")
Item = TypeVar("Item", Document, bytes)
Result = TypeVar("Result")


@contextmanager
def each(
    work: Callable[[Shared, Document], Result], shared: Shared, items: Iterable[Item], processes: int | None
) -> Iterator[Iterator[tuple[Item, Result]]]:
    """Documents, or lines of a JSONL file, each with work(shared, document), in order. They come in batches, by which
    `processes` work (`in_order`); at the end of the block none of these is left.

    Raises ValueError with the document's name where `work` raises anything, and ProcessKilled.
    """
    with closing(in_order(on_batch, (work, shared), batched(items, size), alone=ALONE, processes=processes)) as batches:
        try:
            yield ((item, result) for batch, results in batches for item, result in zip(batch, results))
        except ProcessKilled as error:
            raise ProcessKilled(f"{error} Use processes='1', which needs the least of it.") from error


def size(item: Document | bytes) -> int:
    return OVERHEAD + len(item.text if isinstance(item, Document) else item)


def on_batch(shared: tuple[Callable[[Shared, Document], Result], Shared], batch: list[Item]) -> list[Result]:
    work, with_what = shared
    results = []
    for document in map(as_document, batch):
        try:
            results.append(work(with_what, document))
        except Exception as error:  # whatever it is: which of a million documents it was is what helps
            what = f"{type(error).__name__}: {error}".rstrip(":. ")
            raise ValueError(f"the document {document.source!r} can't be worked on ({what}): leave it out.") from error
    return results


def lines_of(path: Path, what: str, progress: bool) -> Iterator[bytes]:
    """The lines of a JSONL file, behind a progress bar in bytes."""
    total = path.stat().st_size
    bar = tqdm(desc=what, total=total, unit="B", unit_scale=True, disable=not progress)
    with bar, open(path, "rb") as stream:
        for line in stream:
            bar.update(len(line))
            yield line


class Cleaned(NamedTuple):
    n_bytes: int  # of the text as it came, in UTF-8
    rules: Counter[str]  # how often each applied
    scrubbed: Counter[str]  # personal information, by kind
    headers: list[str]  # of licences, that were removed
    dropped: Dropped | None
    line: bytes  # for the JSONL file of cleaned documents; empty where it is dropped, and so are:
    places: Places  # of lines that many documents may share


def cleaned(config: CorpusConfig, document: Document) -> Cleaned:
    """Clean one document."""
    rules, scrubbed, headers = Counter[str](), Counter[str](), list[str]()
    n_bytes = len(document.text.encode("utf-8", "surrogatepass"))
    text = clean_text(
        document.text, normalization=config.normalization, licences=config.licences, counts=rules, headers=headers
    )
    if config.scrub:
        text = scrub(text, config.scrub, scrubbed)
    if config.stop_words:
        text, n = remove_stop_words(text, config.stop_words)
        rules["stop_words"] += n
    n_chars = len(text.strip())
    dropped, line, places = None, b"", line_places("")
    if n_chars < config.min_chars:
        reason = f"{n_chars} characters after cleaning, fewer than {config.min_chars}"
        dropped = Dropped(document.source, "clean", reason)
    else:
        line = as_line(Document(text, document.source))
        places = line_places(text if config.repeated_lines else "")
    return Cleaned(n_bytes, rules, scrubbed, headers, dropped, line, places)


class Identified(NamedTuple):
    source: str
    taken: list[str]  # lines that many documents share
    line: bytes | None  # of the JSONL file, where it has changed by that
    identity: Identity | None  # None where nothing is left


def identified(how: tuple[RepeatedLines | None, MinHash | None, bool], document: Document) -> Identified:
    """Remove from a document the lines that many share, and find out what copies of the rest are told by. `how`: the
    lines that were counted, what near copies are found by, whether paragraphs are to be looked at."""
    lines, minhash, paragraphs = how
    text, taken = (document.text, []) if lines is None else lines.without(document.text)
    if not text.strip():
        return Identified(document.source, taken, None, None)
    document = Document(text, document.source)
    line = as_line(document) if taken else None
    return Identified(document.source, taken, line, identify(document, minhash, paragraphs))


def overlap(check: Contamination, document: Document) -> tuple[float, RunPlaces]:
    """What a training document shares with the held-out text (`Contamination.find`)."""
    return check.find(document.text)
