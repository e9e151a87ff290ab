"""A corpus that every machine already has: the source of Python's own standard library, and of the environment.

About 11 MB of code written by hand, with its comments and docstrings, and half a million characters of English about
Python (`pydoc_data/topics.py`). Files are read as text; nothing is imported. What the library holds varies with the
version of Python: print `documents_fingerprint`, and compare orderings between versions, never digits.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from .documents import Document, Dropped
from .reading import read_documents

KINDS = ("source", "topics", "docstrings")
_TEST_FOLDERS = frozenset({"test", "tests", "idle_test", "testing"})
_PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})
_NOT_SOURCE = _PACKAGE_FOLDERS | {"__pycache__", "lib-dynload", "_bundled"}
_TOPICS = "pydoc_data/topics.py"  # served as text by kind="topics"; as code it is one string of half a megabyte


def stdlib_documents(
    kind: str = "source",
    *,
    include_tests: bool = False,
    max_bytes: int | None = None,
    root: str | os.PathLike[str] | None = None,
    skipped: list[Dropped] | None = None,
) -> Iterator[Document]:
    """Yield documents made from the standard library, in the order of their names.

    kind="source": one document a module, its code (about 11 MB; 31 MB with `include_tests`).
    kind="docstrings": one document a module, its docstrings, each under the name of what it describes (1.6 MB).
    kind="topics": one document a help topic, English text about the language (0.45 MB). Their paragraphs repeat each
    other: deduplicate paragraphs before you split them.

    `max_bytes` keeps a sample of about that many bytes, taken by the hash of each name, so that the sample spreads over
    the whole library and a smaller one is part of a larger one. `root` reads another folder of sources. Files
    that are not valid text or Python are appended to `skipped`.
    Raises FileNotFoundError where Python was installed without its sources (embedded or frozen builds).
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}.")
    folder = Path(root) if root is not None else Path(sysconfig.get_paths()["stdlib"])
    if kind == "topics":
        if max_bytes is None:
            yield from topic_documents(folder)
        else:
            yield from sample_of(sorted(topic_documents(folder), key=source_hash), max_bytes)
        return
    files = python_files(folder, include_tests)
    if len(files) < (1 if root is not None else 50):
        raise FileNotFoundError(
            f"found {len(files)} Python source files under {str(folder)!r}: this Python was installed without the "
            "sources of its standard library. Use another Python (python.org, conda, uv, or your system's full "
            "package), or give text of your own: read_documents('folder')."
        )
    if kind == "source":
        for name in choose_sample({name: os.path.getsize(file) for name, file in files.items()}, max_bytes):
            yield from module_documents(files[name], f"stdlib/{name}", skipped)
    elif max_bytes is None:
        yield from docstring_documents(files, skipped)
    else:  # parsed in the order in which a sample takes them, so that no more are parsed than it needs
        in_turn = {name: files[name] for name in sorted(files, key=docstrings_hash)}
        yield from sample_of(docstring_documents(in_turn, skipped), max_bytes)


def environment_documents(
    *, include_tests: bool = False, max_bytes: int | None = None, skipped: list[Dropped] | None = None
) -> Iterator[Document]:
    """Yield all Python source of the current environment: the standard library, then every installed package.

    Hundreds of megabytes where large packages such as torch are installed, and so the largest corpus that a machine
    without a network has. Licences are those of the packages: fit for training at home, not for redistribution.
    `max_bytes` and `skipped` are as in `stdlib_documents`.
    """
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    files = {f"stdlib/{name}": file for name, file in python_files(stdlib, include_tests).items()}
    for path in sys.path:  # where a name stands in two folders, the first is the one that would be imported
        if Path(path).name in _PACKAGE_FOLDERS and Path(path).is_dir():
            packages = python_files(Path(path), include_tests)
            files = {f"site-packages/{name}": file for name, file in packages.items()} | files
    if not files:
        raise FileNotFoundError(
            f"no Python source found in {str(stdlib)!r} nor among the installed packages: give text of your own: "
            "read_documents('folder')."
        )
    for name in choose_sample({name: os.path.getsize(file) for name, file in files.items()}, max_bytes):
        yield from module_documents(files[name], name, skipped)


def documents_fingerprint(documents: Iterable[Document]) -> str:
    """16 hexadecimal digits that change with any text or with the order of the texts (the start of a sha256)."""
    digest = hashlib.sha256()
    for document in documents:
        data = document.text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def docstrings(code: str, module: str = "") -> Iterator[tuple[str, str]]:
    """Yield (qualified name, docstring) of a module, its classes and functions, in the order of the text.

    Raises SyntaxError where `code` is not valid Python for the running version.

    >>> list(docstrings('def f():\\n    "Do it."', "m"))
    [('m.f', 'Do it.')]
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old sources are not our reader's business
        tree = ast.parse(code)
    todo: list[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]] = [(module, tree)]
    while todo:
        name, node = todo.pop()
        text = ast.get_docstring(node)
        if text:
            yield name, text
        inner = [n for n in node.body if isinstance(n, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
        todo += [(f"{name}.{n.name}" if name else n.name, n) for n in reversed(inner)]


def docstring_documents(files: dict[str, str], skipped: list[Dropped] | None) -> Iterator[Document]:
    for name, file in files.items():
        for document in module_documents(file, f"docstrings/{name}", skipped):
            module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            try:
                parts = [f"{qualified}\n\n{text}\n" for qualified, text in docstrings(document.text, module)]
            except (SyntaxError, ValueError, RecursionError) as error:
                if skipped is not None:
                    skipped.append(Dropped(document.source, "read", f"not valid Python here ({error})"))
                continue
            if parts:
                yield Document("\n\n".join(parts), document.source)


def topic_documents(folder: Path) -> Iterator[Document]:
    file = folder / _TOPICS
    if not file.is_file():
        raise FileNotFoundError(
            f"{str(file)!r} is missing: this Python was installed without its help topics. "
            "Use kind='source' or kind='docstrings', or give text of your own: read_documents('folder')."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:  # the file holds one assignment: topics = {name: text, ...}
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, text in sorted(ast.literal_eval(node.value).items()):
                yield Document(text, f"topics/{name}")


def python_files(folder: Path, include_tests: bool) -> dict[str, str]:
    """{name relative to `folder`: path} of the sources below it, sorted by name."""
    found = {}
    leave = _NOT_SOURCE if include_tests else _NOT_SOURCE | _TEST_FOLDERS
    for where, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f not in leave and not f.startswith((".", "config-"))]
        place = Path(where).relative_to(folder)
        for file in files:
            # Skipped: the build machine's own settings, site hooks, and the topics, which come as text.
            if not file.endswith(".py") or file.startswith(("_sysconfigdata", "sitecustomize", "usercustomize")):
                continue
            path, name = os.path.join(where, file), (place / file).as_posix()
            if name != _TOPICS and os.path.isfile(path) and os.path.getsize(path) > 0:
                found[name] = path
    return dict(sorted(found.items()))


def choose_sample(sizes: dict[str, int], max_bytes: int | None) -> list[str]:
    """Names whose sizes add up to at most `max_bytes` (at least one), taken in the order of their hash; sorted."""
    if max_bytes is None:
        return list(sizes)
    if max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1, or None for everything, not {max_bytes}.")
    chosen: list[str] = []
    total = 0
    for name in sorted(sizes, key=name_hash):
        if chosen and total + sizes[name] > max_bytes:
            break
        chosen.append(name)
        total += sizes[name]
    return sorted(chosen)


def name_hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def docstrings_hash(name: str) -> bytes:
    return name_hash(f"docstrings/{name}")


def source_hash(document: Document) -> bytes:
    return name_hash(document.source)


def sample_of(documents: Iterable[Document], max_bytes: int) -> list[Document]:
    """The sample of `choose_sample` for documents that must be made before their size is known, and that come in the
    order of their hash: none is made beyond the first that no longer fits."""
    if max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1, or None for everything, not {max_bytes}.")
    chosen: list[Document] = []
    total = 0
    for document in documents:
        total += len(document.text.encode())
        if chosen and total > max_bytes:
            break
        chosen.append(document)
    return sorted(chosen, key=source_of)


def source_of(document: Document) -> str:
    return document.source


def module_documents(file: str, source: str, skipped: list[Dropped] | None) -> Iterator[Document]:
    """One source file under a name that is the same on every machine; a file that is not text goes to `skipped`."""
    try:
        for document in read_documents(file):
            yield Document(document.text, source + document.source[len(Path(file).as_posix()) :])
    except ValueError as error:
        if skipped is not None:
            skipped.append(Dropped(source, "read", str(error)))
