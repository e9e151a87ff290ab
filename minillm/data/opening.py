"""Opening: the bytes of a file, compressed or not, as text, and what to say of those that are none."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import tokenize
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from ..disk.names import AnyPath
from .folders import PYTHON_EXTENSIONS, extension_of

MAX_CHARS = 64_000_000  # of a line, a JSON file, a page, an article: what is held in memory at once
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
CUT_OFF = "it ends within a frame"
INSTALL = "install minillm-from-scratch[data]"
ENCODINGS = "encoding='cp1252' is that of Windows in Western Europe, encoding='gb18030' of China"


class Unreadable(ValueError):
    """A file or a line that holds no text for us: its text is the reason, part of a sentence that names the place."""


@dataclass(frozen=True)
class File:
    """Bytes that can be opened, once and again, and what their documents are named after: "notes/a.txt.gz",
    "notes.zip!/a.txt"."""

    name: str
    raw: Callable[[], IO[bytes]]

    @classmethod
    def of(cls, path: AnyPath, name: str = "") -> File:
        """A file on the disk, under its own name or another."""
        return cls(name or Path(path).as_posix(), lambda: open(path, "rb"))

    @property
    def extension(self) -> str:
        return extension_of(self.name)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes, decompressed, of which the next can be looked at (`peek`)."""
        with closing(self.raw()) as raw, closing(decompressed(raw, self.name)) as stream:
            yield stream


def decompressed(raw: IO[bytes], name: str) -> IO[bytes]:
    """What a stream holds, by the ending of its name. Damage is met while reading: one of DAMAGED."""
    opener = OPENERS.get(os.path.splitext(name.lower())[1])
    return cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, opener(raw) if opener else raw), 1 << 16))


class ZstandardFile(io.RawIOBase):
    """Reads the frames of a .zst file one behind the other. (The package's own reader takes a file that is cut off for
    one that has ended.) Raises Unreadable without the package, EOFError for damage."""

    BLOCK = 1024  # bytes at a time, since each may stand for 30,000

    def __init__(self, raw: IO[bytes]) -> None:
        try:
            import zstandard
        except ImportError:
            raise Unreadable(f"to read .zst {INSTALL}") from None
        self.error, self.new_frame = zstandard.ZstdError, zstandard.ZstdDecompressor().decompressobj
        self.raw, self.frame = raw, cast(Any, None)
        self.behind, self.left = b"", b""  # the frame, to be read; what is read and was not asked for

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.left:
            data = self.behind or self.raw.read(self.BLOCK)
            if not data and self.frame is not None:
                raise EOFError(CUT_OFF)
            if not data:
                return 0
            self.left, self.behind = self.decompress(data)
        n = min(len(buffer), len(self.left))
        buffer[:n], self.left = self.left[:n], self.left[n:]
        return n

    def decompress(self, data: bytes) -> tuple[bytes, bytes]:
        """(what the next bytes of the file stand for, what of them belongs to the next frame)"""
        frame = self.frame if self.frame is not None else self.new_frame()
        try:
            text = frame.decompress(data)
        except self.error as error:
            window = "; decompress it by zstd -d --long=31" if "memory" in str(error) else ""
            raise EOFError(f"{error}{window}") from None
        self.frame = None if frame.eof else frame
        return text, frame.unused_data


OPENERS: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": ZstandardFile,
}


@contextmanager
def open_text(file: File, encoding: str) -> Iterator[io.TextIOWrapper]:
    """A file as text with its line endings kept, without a byte order mark, which says UTF-16 or UTF-32; Python as its
    coding line says. Raises Unreadable for binary content, ValueError for an encoding that there is not."""
    with file.open() as stream:
        head = stream.peek(8192)[:8192]  # type: ignore[attr-defined]
        if (marked := marked_encoding(head)) is not None:
            encoding = marked
        elif b"\0" in head:  # git's rule for "binary"
            raise Unreadable(f"it is binary, not text (a zero byte at position {head.index(0)})")
        elif file.extension in PYTHON_EXTENSIONS:
            encoding = coding_line(head)
        if plain_name(encoding) in {"utf-8", "utf8"}:
            encoding = "utf-8-sig"  # drops a byte order mark at the start
        try:
            text = io.TextIOWrapper(cast(Any, stream), encoding=encoding, newline="")
        except LookupError:
            raise ValueError(f"Python knows no text encoding called {encoding!r}") from None
        with text:
            yield text


def plain_name(encoding: str) -> str:
    return encoding.lower().replace("_", "-")


def marked_encoding(head: bytes) -> str | None:
    """What a byte order mark says of UTF-16 and UTF-32."""
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):  # the first two bytes alone would be UTF-16's mark
        return "utf-32"
    return "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else None


def coding_line(head: bytes) -> str:
    """The encoding that a Python file names at its head."""
    try:
        return tokenize.detect_encoding(io.BytesIO(head[: head.rfind(b"\n") + 1]).readline)[0]
    except SyntaxError as error:
        raise Unreadable(f"its Python coding line is wrong ({error})") from error


def lines_of(stream: IO[str]) -> Iterator[str]:
    """The lines of a text, none of them too long for memory."""
    while line := stream.readline(MAX_CHARS):
        if len(line) >= MAX_CHARS:
            raise Unreadable(f"a line is longer than {MAX_CHARS:,} characters")
        yield line


def whole_text(stream: IO[str], most: int = MAX_CHARS, remedy: str = "") -> str:
    """All of a text that must be read at once. Raises Unreadable for one that is too long for that."""
    content = stream.read(most)
    if len(content) == most:
        raise Unreadable(f"it is longer than {most:,} characters{remedy}")
    return content


def why_unreadable(file: File, error: Exception) -> str:
    """What was wrong with a file that gave this error, as part of a sentence, and what to do where that is known."""
    if isinstance(error, UnicodeDecodeError):
        half = b"\xed\xa0" <= error.object[error.start : error.start + 2] <= b"\xed\xbf"
        what = "half of a surrogate pair" if half and error.encoding == "utf-8" else error.reason
        return (
            f"not {error.encoding} text: {line_of_fault(file, error.encoding)}byte "
            f"0x{error.object[error.start]:02x} ({what}); convert the file (iconv -t utf-8), or name its encoding"
        )
    if isinstance(error, DAMAGED):
        return f"damaged or cut-off compressed data ({error})"
    return str(error).rstrip(".")


def line_of_fault(file: File, encoding: str) -> str:
    """ "line 3, " for the first line that is not of this encoding; "" where lines can't be told in its bytes."""
    if plain_name(encoding).startswith(("utf-16", "utf-32")):
        return ""
    decoder, line = codecs.getincrementaldecoder(encoding)(), 1
    with suppress(Unreadable, OSError, *DAMAGED), file.open() as stream:  # again, and further, where more may be wrong
        while True:
            block = stream.read(1 << 16)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                return f"line {line}, "
            if not block:
                return ""
            line += block.count(b"\n")
    return ""
