"""Files and folders that are there whole or not at all, and JSON in and out: the only place that knows how.

Whoever writes a file in place can be killed halfway, or fill the disk, and then neither the old file nor the new one is
there. So everything is written beside its place first, in a folder named `.NAME.1f09ab3c.minillm-tmp`, flushed to the
disk, and moved into place by one rename, which happens or doesn't. An error removes that folder and leaves what was
there untouched. A killed process can't remove its folder: the next one that writes the same name does. It knows it by
the mark in its name, and that nobody writes there by a lock, which dies with its process (Windows and some network
disks have no such lock: there the folder stays).

    write_json(path, content), write_text(path, text), write_bytes(path, data)     a small file at once

    with whole_file(path) as temporary:             a file of any size; written to `temporary`, which has its name
        save_file(arrays, temporary)

    with ExitStack() as stack:                      several files: none takes its name before all are written
        temporary = [stack.enter_context(whole_file(path)) for path in paths]

    with whole_folder(path, kind="corpus", replace=True) as temporary:
        ...                                         any files, written without ado: all are flushed at the end
    find_whole_folder(path)                         for its readers

    claim(folder, "run", names)                     before files are written into a folder that grows
    remove_folder(folder, "run")                    with all that is in it

    with holding(path, "training"):                 one writer at a time; others are told who it is, or wait

A folder can't replace another in one step. So the old one is renamed to `.NAME.1f09ab3c.minillm-old`, the new one takes
its place, and the old one is removed. A kill at the one instant when neither has the name leaves the old one, complete:
`find_whole_folder` finds it, and the next `whole_folder` puts it back first. Names without these marks are the user's.

So is every folder without a marker. Those that minillm made hold a file `.minillm.json`, which says of what kind they
are and which files in them are ours. Only a folder of the same kind that holds nothing else is ever replaced or
removed; a file that isn't listed (the user's thesis.tex) is named, and all stays as it is.

Read in this order: names.py (what is ours), records.py (JSON, and what is checked in it), markers.py (whose folder it
is), locks.py (one writer at a time), whole.py (files and folders that are there whole or not at all). Beside them
stands processes.py: one function over many items by all cores.
"""

from .locks import holding
from .markers import foreign_files, read_marker
from .names import MARKER
from .records import about, check_fields, check_values, checksum, read_json
from .whole import (
    check_free,
    claim,
    find_whole_folder,
    flush_to_disk,
    remove_folder,
    whole_file,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
)

__all__ = [
    "MARKER",
    "about",
    "check_fields",
    "check_free",
    "check_values",
    "checksum",
    "claim",
    "find_whole_folder",
    "flush_to_disk",
    "foreign_files",
    "holding",
    "read_json",
    "read_marker",
    "remove_folder",
    "whole_file",
    "whole_folder",
    "write_bytes",
    "write_json",
    "write_text",
]
