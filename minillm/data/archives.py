"""Archives: the members of a .zip file, each a file of its own: "notes.zip!/a.txt"."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from typing import IO, Any, cast

from .folders import ARCHIVES, extension_of, why_not_text
from .opening import File, Unreadable

# A .zip may hold this many times its own size of text, or this many bytes, whichever is more; else it is a bomb.
MOST_TIMES, ALWAYS = 200, 50_000_000
WRONG = (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, zlib.error, EOFError, IndexError, ValueError, OSError)


def members_of(file: File) -> Iterator[tuple[File, str | None]]:
    """Yield (member, reason to skip it or None) for every file in an archive, sorted by name, to be read before the
    next. Raises Unreadable for an archive that is damaged; what is wrong with a member is met when it is read, and so
    is that there is too much of it."""
    with file.raw() as raw:
        try:
            archive = zipfile.ZipFile(raw)
            members = sorted((info for info in archive.infolist() if not info.is_dir()), key=name_of)
            left = [max(ALWAYS, MOST_TIMES * raw.seek(0, io.SEEK_END))]
        except WRONG as error:
            raise Unreadable(f"no archive, or a damaged one ({error})") from error
        for info in members:
            member = cast(Any, partial(Member, archive, info, left))
            yield File(f"{file.name}!/{info.filename}", member), why_not(info.filename)


def name_of(info: zipfile.ZipInfo) -> str:
    return info.filename


def why_not(name: str) -> str | None:
    """The reason to skip a member: as in a folder, and there is one archive only."""
    *folders, last = name.split("/")
    if any(folder.startswith(".") or folder in ("__MACOSX", "__pycache__") for folder in folders):
        return "hidden file"
    return "an archive inside an archive" if extension_of(last) in ARCHIVES else why_not_text(last)


class Member(io.RawIOBase):
    """The bytes of a member, taken off what is `left` to the whole archive. Raises Unreadable."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, left: list[int]) -> None:
        self.left, self.stream = left, cast(IO[bytes], io.BytesIO())
        try:
            self.stream = archive.open(info)
        except WRONG as error:
            raise Unreadable(f"it can't be read in its archive ({error})") from error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.stream.read(len(buffer))
        except WRONG as error:
            raise Unreadable(f"it can't be read in its archive ({error})") from error
        self.left[0] -= len(data)
        if self.left[0] < 0:
            raise Unreadable(f"its archive inflates to over {MOST_TIMES} times its size: unpack it, if that is meant")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()
