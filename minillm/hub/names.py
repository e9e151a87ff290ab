"""What a parameter is called here and in Hugging Face's checkpoints: the tables stand in gpt2.py, llama.py, bert.py."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .architecture import Architecture


def hf_name(name: str, architecture: Architecture) -> str:
    """The Hugging Face name of a parameter of ours.

    >>> from minillm.hub.gpt2 import GPT2
    >>> hf_name("blocks.3.attn.qkv.weight", GPT2)
    'transformer.h.3.attn.c_attn.weight'
    """
    if name in architecture.names:  # a parameter of the model itself, of no layer
        return architecture.names[name]
    path, _, kind = name.rpartition(".")
    numbers = re.findall(r"(?<=\.)\d+(?=\.|$)", path)  # of the layer, and of the expert
    theirs = architecture.names[re.sub(r"(?<=\.)\d+(?=\.|$)", "*", path)]
    for number in numbers:
        theirs = theirs.replace("*", number, 1)
    return f"{theirs}.{kind}"


def in_file(
    name: str, shape: tuple[int, ...], architecture: Architecture | None, head: str
) -> tuple[str, tuple[int, ...], bool]:
    """A parameter's name and shape in a file, and whether it stands on its side there; `architecture` None: in our own
    format. A model without a head is saved without the prefix, as transformers does."""
    if architecture is None:
        return name, shape, False
    theirs = hf_name(name, architecture)
    if head == "base":
        theirs = theirs.removeprefix(architecture.prefix)
    turned = name.endswith(architecture.transposed)
    return theirs, shape[::-1] if turned else shape, turned


def canonical_names(names: Iterable[str], architecture: Architecture) -> dict[str, str]:
    """Names in a file -> the names of the table: the prefix added where a checkpoint was saved without, old names made
    today's. Constants are left out."""
    found = {}
    names = list(names)
    bare = not any(name.startswith(architecture.prefix) for name in names)
    for name in names:
        if any(re.search(pattern, name) for pattern in architecture.constants):
            continue
        today = name
        for old, new in architecture.renamed.items():
            if name.endswith(old):
                today = name.removesuffix(old) + new
        if bare and not today.startswith(architecture.head_names):
            today = architecture.prefix + today
        found[name] = today
    return found
