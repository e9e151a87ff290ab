"""disk/: whatever goes wrong at whatever moment, the old or the new is there, whole, and nothing else of ours."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from minillm.disk import (
    checksum,
    claim,
    find_whole_folder,
    holding,
    locks,
    read_json,
    remove_folder,
    whole_file,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
)
from minillm.disk.names import OLD

posix = pytest.mark.skipif(os.name != "posix", reason="signals, modes and locks of POSIX")


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def put(folder: Path, content: str, *, replace: bool = True) -> None:
    with whole_folder(folder, kind="test", replace=replace) as temporary:
        (temporary / "inside").mkdir()
        (temporary / "a").write_text(content)
        (temporary / "inside" / "b").write_text(content)


def content_of(folder: Path) -> str:
    """What `put` wrote; fails if the two files are not of one writing."""
    found = find_whole_folder(folder)
    assert found is not None
    a, b = (found / "a").read_text(), (found / "inside" / "b").read_text()
    assert a == b
    return a


# ---- JSON, text, bytes


def test_json_text_and_bytes_come_back_as_they_were_written(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"中": [1, None, "é"]})
    assert (tmp_path / "new" / "a.json").read_bytes() == '{\n  "中": [\n    1,\n    null,\n    "é"\n  ]\n}\n'.encode()
    assert read_json(tmp_path / "new" / "a.json") == {"中": [1, None, "é"]}
    write_text(str(tmp_path / "t"), "one\r\ntwo\n")
    assert (tmp_path / "t").read_bytes() == b"one\r\ntwo\n"
    write_bytes(tmp_path / "t", b"\0\xff")
    assert (tmp_path / "t").read_bytes() == b"\0\xff"
    assert names(tmp_path) == ["new", "t"] and names(tmp_path / "new") == ["a.json"]


def test_read_json_says_what_is_wrong(tmp_path):
    (tmp_path / "cut.json").write_text('{"a": ')
    (tmp_path / "latin.json").write_bytes(b'"\xe9"')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(FileNotFoundError, match=r"its folder holds cut.json, deep.json, latin.json\.$"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"nor its folder\.$"):
        read_json(tmp_path / "no" / "a.json")
    for name, message in [("cut", r"cut off \(6 bytes\)"), ("latin", "not JSON"), ("deep", "nested too deeply")]:
        with pytest.raises(ValueError, match=message):
            read_json(tmp_path / f"{name}.json")


def test_what_is_not_json_leaves_the_file_as_it_was(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.json", "\ud800")
    assert read_json(tmp_path / "a.json") == 1 and names(tmp_path) == ["a.json"]


# ---- failures midway


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_an_error_inside_leaves_the_old_and_removes_the_temporary(tmp_path, error):
    write_text(tmp_path / "file", "old")
    put(tmp_path / "folder", "old")
    with pytest.raises(type(error)), whole_file(tmp_path / "file") as temporary:
        temporary.write_text("ne")
        raise error
    with pytest.raises(type(error)), whole_folder(tmp_path / "folder", kind="test", replace=True) as temporary:
        (temporary / "a").write_text("ne")
        raise error
    with pytest.raises(type(error)), whole_folder(tmp_path / "other") as temporary:
        raise error
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old" and content_of(tmp_path / "folder") == "old"


def test_a_disk_that_fills_up_while_flushing_leaves_the_old(tmp_path, monkeypatch):
    write_text(tmp_path / "file", "old")
    put(tmp_path / "folder", "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            write_text(tmp_path / "file", "new")
        with pytest.raises(OSError, match="No space"):
            put(tmp_path / "folder", "new")
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old" and content_of(tmp_path / "folder") == "old"


@pytest.mark.parametrize("failing", range(4))
def test_a_rename_that_fails_leaves_a_whole_folder(tmp_path, monkeypatch, failing):
    put(tmp_path / "folder", "old")
    calls = []

    def rename(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        calls.append(source)
        if len(calls) == failing + 1:
            raise PermissionError(errno.EACCES, "not today")
        os.replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        if failing < 2:
            with pytest.raises(PermissionError):
                put(tmp_path / "folder", "new")
        else:  # the new one is in place; what is left is tidying
            put(tmp_path / "folder", "new")
    assert content_of(tmp_path / "folder") == ("old" if failing < 2 else "new")
    put(tmp_path / "folder", "newest")
    assert content_of(tmp_path / "folder") == "newest" and names(tmp_path) == ["folder"]


def test_several_files_take_their_names_only_when_all_are_written(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        write_text(path, "old")
    with pytest.raises(OSError, match="No space"), ExitStack() as stack:
        for path in paths:
            stack.enter_context(whole_file(path)).write_text("new")
        full_disk()
    assert [path.read_text() for path in paths] == ["old"] * 3
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(whole_file(path)).write_text("new")
        assert [path.read_text() for path in paths] == ["old"] * 3
    assert [path.read_text() for path in paths] == ["new"] * 3 and names(tmp_path) == ["a", "b", "c"]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


# ---- what may be replaced


def test_a_folder_in_use_is_replaced_only_where_that_is_asked_for(tmp_path):
    put(tmp_path / "folder", "old", replace=False)
    with pytest.raises(FileExistsError, match="not empty"):
        put(tmp_path / "folder", "new", replace=False)
    assert content_of(tmp_path / "folder") == "old"
    (tmp_path / "empty").mkdir()
    put(tmp_path / "empty", "new", replace=False)
    assert content_of(tmp_path / "empty") == "new"
    with pytest.raises(FileExistsError, match="not empty"), whole_folder(tmp_path / "late") as temporary:
        (temporary / "a").write_text("ours")
        write_text(tmp_path / "late" / "a", "somebody else's, in the meantime")
    assert (tmp_path / "late" / "a").read_text() == "somebody else's, in the meantime"


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path):
    put(tmp_path / "folder", "old")
    write_text(tmp_path / "file", "old")
    with pytest.raises(IsADirectoryError, match=r"give the name of the file to write\.$"):
        write_text(tmp_path / "folder", "new")
    with pytest.raises(FileExistsError, match=r"is a file: give another name"):
        put(tmp_path / "file", "new")
    assert find_whole_folder(tmp_path / "file") is None


def test_names_without_our_mark_are_the_users(tmp_path):
    mine = ["x.old", "x.new", "x.partial", "x.tmp", ".x.tmp", ".x.12345678.minillm-tmp2", ".x.y.12345678.minillm-tmp"]
    for name in mine:
        write_text(tmp_path / name / "a", "the user's")
    for _ in range(2):
        put(tmp_path / "x", "new")
    shutil.rmtree(tmp_path / "x")
    assert find_whole_folder(tmp_path / "x") is None
    write_text(tmp_path / "x", "new")
    assert names(tmp_path) == sorted([*mine, "x"])
    assert all((tmp_path / name / "a").read_text() == "the user's" for name in mine)


def test_every_temporary_is_marked_and_its_name_is_safe_everywhere(tmp_path):
    with whole_file(tmp_path / "tokens.bin") as file, whole_folder(tmp_path / "last") as folder:
        assert file.name == "tokens.bin" and folder.name == "last"  # so that what depends on the suffix works
        found = names(tmp_path)
        file.write_text("")
    assert len(found) == 2 and all(name.endswith(".minillm-tmp") and name[0] == "." for name in found)
    assert not set("".join(found)) & set('<>:"/\\|?* ')


@posix
def test_links(tmp_path):
    """A link to a file is replaced (a hub's cache links to its blobs), one to a folder followed (a larger disk)."""
    write_text(tmp_path / "blob", "the cache's")
    (tmp_path / "file").symlink_to(tmp_path / "blob")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "blob").read_text() == "the cache's" and (tmp_path / "file").read_text() == "new"
    put(tmp_path / "large" / "disk", "old")
    (tmp_path / "folder").symlink_to(tmp_path / "large" / "disk")
    put(tmp_path / "folder", "new")
    assert (tmp_path / "folder").is_symlink() and content_of(tmp_path / "large" / "disk") == "new"
    assert names(tmp_path / "large") == ["disk"]


@posix
@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_modes_are_what_the_umask_gives(tmp_path, umask, file_mode, folder_mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file", "")
        put(tmp_path / "folder", "")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == file_mode
    assert (tmp_path / "folder" / "a").stat().st_mode & 0o777 == file_mode
    assert (tmp_path / "folder").stat().st_mode & 0o777 == folder_mode


# ---- whose folder it is


def test_only_a_folder_of_ours_of_the_same_kind_is_replaced_or_removed(tmp_path):
    write_text(tmp_path / "user" / "a", "precious")
    write_text(tmp_path / "forged" / "a", "precious")
    write_text(tmp_path / "forged" / ".minillm.json", '{"made_by": "minillm", "kind": "test", "files": 3}')
    with whole_folder(tmp_path / "other", kind="other") as temporary:
        (temporary / "a").write_text("precious")
    for name, why in [("user", "was not made by minillm"), ("forged", "was not made"), ("other", "is a other")]:
        with pytest.raises(FileExistsError, match=why):
            put(tmp_path / name, "new")
        with pytest.raises(FileExistsError, match=why):
            remove_folder(tmp_path / name, "test")
        assert (tmp_path / name / "a").read_text() == "precious"
    with pytest.raises(ValueError, match="kind of folder"), whole_folder(tmp_path / "user", replace=True):
        pass
    put(tmp_path / "ours", "old")
    remove_folder(tmp_path / "ours", "test")
    assert names(tmp_path) == ["forged", "other", "user"]


@posix
def test_what_the_user_put_into_a_folder_of_ours_is_named_and_kept(tmp_path):
    put(tmp_path / "folder", "old")
    mine = ["inside/notes.txt", "my folder/a", "thesis.tex"]
    for name in mine:
        write_text(tmp_path / "folder" / name, "mine")
    (tmp_path / "folder" / "link").symlink_to(tmp_path)
    for fault in (lambda: put(tmp_path / "folder", "new"), lambda: remove_folder(tmp_path / "folder", "test")):
        with pytest.raises(FileExistsError, match=r"inside/notes\.txt, link, my folder/a, thesis\.tex\), so it is not"):
            fault()
    assert content_of(tmp_path / "folder") == "old" and tmp_path.is_dir()
    for name in mine:
        (tmp_path / "folder" / name).unlink()
    (tmp_path / "folder" / "link").unlink()
    (tmp_path / "folder" / ".DS_Store").write_text("a file manager's")
    put(tmp_path / "folder", "new")
    assert content_of(tmp_path / "folder") == "new"


def test_a_folder_that_grows_lists_what_is_ours(tmp_path):
    claim(tmp_path / "run", "run of quickstart", ["a", "tokens"])
    claim(tmp_path / "run", "run", ["b"])  # a quickstart's run is a run
    write_text(tmp_path / "run" / "a", "")
    write_text(tmp_path / "run" / "b", "")
    claim(tmp_path / "run" / "tokens", "tokens", ["t"])
    write_text(tmp_path / "run" / "tokens" / "t", "")
    claim(tmp_path / "run", "run", ["a", "b"])  # its own files are no obstacle
    with pytest.raises(FileExistsError, match=r"is a run of quickstart .*, not a corpus"):
        claim(tmp_path / "run", "corpus", ["c"])
    with pytest.raises(FileExistsError, match="is a run of quickstart, so no run may replace it"):
        remove_folder(tmp_path / "run", "run")
    put(tmp_path / "run" / "mine", "made with minillm by the user, and no part of this run")
    with pytest.raises(FileExistsError, match="mine/a, mine/inside/b"):
        remove_folder(tmp_path / "run", "run of quickstart")
    shutil.rmtree(tmp_path / "run" / "mine")
    write_text(tmp_path / "run" / "tokens" / "thesis.tex", "")
    with pytest.raises(FileExistsError, match=r"\(tokens/thesis\.tex\)"):
        remove_folder(tmp_path / "run", "run of quickstart")
    (tmp_path / "run" / "tokens" / "thesis.tex").unlink()
    remove_folder(tmp_path / "run", "run of quickstart")
    assert names(tmp_path) == []


def test_a_file_is_no_folder_to_claim(tmp_path):
    (tmp_path / "text").write_text("mine")
    with pytest.raises(FileExistsError, match=r"text is a file: give another name"):
        claim(tmp_path / "text", "run", ["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_file_of_the_users_is_not_claimed(tmp_path):
    write_text(tmp_path / "project" / "config.toml", "mine")
    with pytest.raises(FileExistsError, match=r"config\.toml was not made by minillm, and is not overwritten"):
        claim(tmp_path / "project", "run", ["config.toml", "metrics.jsonl"])
    assert names(tmp_path / "project") == ["config.toml"]
    claim(tmp_path / "project", "run", ["metrics.jsonl"])
    assert (tmp_path / "project" / "config.toml").read_text() == "mine"


@posix
def test_files_have_the_mode_of_the_umask_whatever_wrote_them(tmp_path):
    before = os.umask(0o022)
    try:
        with whole_file(tmp_path / "file") as file, whole_folder(tmp_path / "folder") as folder:
            for path in (file, folder / "a"):
                path.write_text("")
                path.chmod(0o600)  # as safetensors does
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "file", tmp_path / "folder" / "a")] == [0o644] * 2


# ---- faults of the system


@posix
def test_a_full_disk_is_an_error_with_the_files_name(tmp_path):
    """A limit on the size of files is the nearest that a test can come to a full disk: the system's own write fails."""
    write_text(tmp_path / "file", "old")
    put(tmp_path / "folder", "old")
    code = (
        "import resource, signal, sys\nfrom minillm.disk import whole_folder, write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))\n"
        "try:\n    write_bytes(sys.argv[1] + '/file', bytes(10**6))\nexcept OSError as error:\n    print(error)\n"
        "try:\n    with whole_folder(sys.argv[1] + '/folder', kind='test', replace=True) as temporary:\n"
        "        (temporary / 'a').write_bytes(bytes(10**6))\nexcept OSError as error:\n    print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout
    assert [line.rpartition(": ")[2] for line in out.splitlines()] == [f"'{tmp_path}/file'", f"'{tmp_path}/folder'"]
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old" and content_of(tmp_path / "folder") == "old"


def test_a_disk_that_may_not_be_written_is_an_error_with_the_files_name(tmp_path, monkeypatch):
    def read_only(path: Path, *_: object, **__: object) -> None:
        if path != tmp_path:
            raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(OSError, match=r"Read-only file system: '.*[/\\]a'$"):
        write_text(tmp_path / "a", "")


def test_a_folder_in_which_nothing_can_be_made_is_an_error_at_once(tmp_path, monkeypatch):
    asked = []

    def refuse(path, *_):
        asked.append(path)
        assert len(asked) < 20, "asked again and again"
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))  # as in /proc

    with monkeypatch.context() as patch:
        patch.setattr("minillm.disk.locks.os.open", refuse)
        with pytest.raises(FileNotFoundError, match="minillm-lock"), holding(tmp_path / "run", "training"):
            pass
    assert len(asked) == 1


def test_a_checksum_notices_each_flipped_bit(tmp_path):
    data = bytearray(random.Random(0).randbytes(300))
    write_bytes(tmp_path / "a", data)
    right = checksum(tmp_path / "a")
    assert len(right) == 8
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a").write_bytes(data)
        assert checksum(tmp_path / "a") != right
        data[bit // 8] ^= 1 << bit % 8


# ---- one writer at a time

HOLDER = """
import sys, time
from minillm.disk import holding
with holding(sys.argv[1], "packing"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start_holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_a_second_writer_is_told_who_the_first_is(tmp_path):
    with start_holder(tmp_path / "run", 60) as holder:
        who = rf"run is in use by process {holder.pid} on \S+ \(packing since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\)"
        with pytest.raises(BlockingIOError, match=who), holding(tmp_path / "run", "training"):
            pass
        with pytest.raises(TimeoutError, match=who + ": waited 0 s"), holding(tmp_path / "run", "training", wait=0.2):
            pass
        with holding(tmp_path / "other", "training"):
            pass
        holder.kill()
    second = pytest.raises(BlockingIOError, match="training since")
    with holding(tmp_path / "run", "training"), second, holding(tmp_path / "run", "packing"):
        pass  # the system had released it, and it is held again
    assert names(tmp_path) == []


def test_a_writer_that_waits_says_for_whom_and_gets_its_turn(tmp_path, capsys):
    with start_holder(tmp_path / "run", 1.6) as holder, holding(tmp_path / "run", "training", wait=30):
        pass
    said = capsys.readouterr().err
    assert said.startswith(f"waiting for {tmp_path / 'run'}: in use by process {holder.pid} on ")


def test_waiting_goes_on_as_long_as_something_is_written(tmp_path):
    """The limit is for a holder that hangs."""
    stop = threading.Event()

    def write() -> None:
        with holding(tmp_path / "file", "writing"), whole_file(tmp_path / "file") as temporary:
            for n in range(1, 11):
                temporary.write_bytes(bytes(n))
                stop.set()
                time.sleep(0.1)

    writer = threading.Thread(target=write)
    writer.start()
    stop.wait()
    with holding(tmp_path / "file", "writing", wait=0.5):  # half of what the writing takes
        assert (tmp_path / "file").read_bytes() == bytes(10)
    writer.join()


def test_one_holder_at_a_time_among_many(tmp_path):
    inside, most, done = [], [], []

    def work() -> None:
        for _ in range(40):
            with holding(tmp_path / "x", "working", wait=30):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4 and len(most) == 160 and max(most) == 1 and names(tmp_path) == []


@posix
def test_a_disk_without_locks_is_said(tmp_path, monkeypatch):
    def no_locks(_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "lock_descriptor", no_locks)
    warned = pytest.warns(UserWarning, match="has no locks: see to it that no other process writes it")
    with warned, holding(tmp_path / "x", "training"):
        pass


# ---- several at once


def test_threads_that_write_the_same_names_leave_one_whole(tmp_path):
    """And a reader that looks all the while sees whole ones only."""
    write_json(tmp_path / "file", ["old"] * 1000)
    put(tmp_path / "folder", "old")
    failed: list[BaseException] = []

    def write(content: str) -> None:
        try:
            for _ in range(25):
                write_json(tmp_path / "file", [content] * 1000)
                put(tmp_path / "folder", content)
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in "abcd"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        content = read_json(tmp_path / "file")
        assert content == content[:1] * 1000
    assert not failed
    assert content_of(tmp_path / "folder") in set("abcd")
    assert names(tmp_path) == ["file", "folder"]


@posix
def test_what_a_living_process_writes_is_not_taken_for_left_behind(tmp_path):
    with whole_file(tmp_path / "file") as first, whole_folder(tmp_path / "folder") as also_first:
        first.write_text("first")
        (also_first / "a").write_text("first")
        write_text(tmp_path / "file", "second")
        assert first.read_text() == "first" and (also_first / "a").read_text() == "first"
    assert (tmp_path / "file").read_text() == "first"


# ---- kills

WRITER = """
import sys
from pathlib import Path
from minillm.disk import whole_folder, write_json
folder = Path(sys.argv[1])
print("ready", flush=True)
for number in range(1, 1_000_000):
    write_json(folder / "file", [number] * 20_000)
    with whole_folder(folder / "folder", kind="test", replace=True) as temporary:
        for name in "abcde":
            (temporary / name).write_text(str(number) * 1000)
"""


@posix
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    moments = random.Random(0)
    last = 0
    for round_number in range(12):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        time.sleep(0.02 + 0.2 * moments.random())
        deadline = time.monotonic() + 60
        while round_number == 11 and read_json(tmp_path / "file")[0] < 2 and time.monotonic() < deadline:
            time.sleep(0.01)  # however busy the machine is, one writer comes to its second file
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        content = read_json(tmp_path / "file")
        assert content == content[:1] * 20_000
        last = content[0]
        found = find_whole_folder(tmp_path / "folder")
        if found is None:
            assert last == 1  # killed before the first folder was whole
            continue
        texts = {(found / name).read_text() for name in "abcde"}
        assert len(texts) == 1 and len(texts.pop()) % 1000 == 0
    assert last > 1
    write_json(tmp_path / "file", "done")  # the next writer tidies up what the killed ones left
    put(tmp_path / "folder", "done")
    assert names(tmp_path) == ["file", "folder"]


@posix
@pytest.mark.parametrize("then", ["read", "write", "write without leave"])
def test_a_kill_between_the_two_renames_loses_nothing(tmp_path, then):
    put(tmp_path / "folder", "old")
    code = (
        "import os, signal, sys\nfrom minillm import disk\nrename = os.rename\n"
        "def killed(a, b):\n    rename(a, b)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.rename = killed\n"
        "with disk.whole_folder(sys.argv[1], kind='test', replace=True) as temporary:\n"
        "    (temporary / 'a').write_text('new')\n"
    )
    process = subprocess.run([sys.executable, "-c", code, tmp_path / "folder"], check=False)
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "folder").exists()
    assert content_of(tmp_path / "folder") == "old"
    if then == "write":
        put(tmp_path / "folder", "newest")
        assert content_of(tmp_path / "folder") == "newest" and names(tmp_path) == ["folder"]
    elif then == "write without leave":
        with pytest.raises(FileExistsError):
            put(tmp_path / "folder", "newest", replace=False)
        assert content_of(tmp_path / "folder") == "old"


def test_an_old_folder_half_removed_is_never_found(tmp_path, monkeypatch):
    """It is renamed first, so that what is marked as old is whole."""
    put(tmp_path / "folder", "old")
    seen = []
    rmtree = shutil.rmtree

    def look(folder: Path, **options: bool) -> None:
        seen.extend(name for name in names(tmp_path) if name.endswith(OLD))
        rmtree(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", look)
    put(tmp_path / "folder", "new")
    assert seen == [] and json.dumps(names(tmp_path)) == '["folder"]'
