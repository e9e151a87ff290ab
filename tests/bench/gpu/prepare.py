"""What the calls on a machine with a card need, made beforehand on one without: tokens to train on, and packages.

    tests/bench/gpu.sh prepare         # tokens of the Python source of this environment, some minutes of two cores
    tests/bench/gpu.sh wheels 3.12     # packages for a Python 3.12 that lacks them, by pip

Both go to made/gpu/, which git ignores: tokens/ holds train.bin and val.bin with their sidecars and the tokenizer, 40
MB at most, and no text; site/ holds regex, safetensors and tqdm, unpacked, which are used only where they are missing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

NEEDED = ("regex", "safetensors", "tqdm")  # beside numpy, torch and triton
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
SPLITS = {"train": 0.96, "val": 0.04}  # shares of the bytes that all tokens may take
SAMPLE = 1_000_000  # characters by which is reckoned how much text a token is
SIDECARS = 2000  # bytes
TURNS = 4  # in which the text is cut until its tokens fit


def tokens(out: Path, megabytes: float, most: float, ids: int) -> None:
    """A corpus, a tokenizer, and `most` megabytes of tokens at most, in the folder `out`."""
    from minillm.data import corpus_documents, pack
    from minillm.tokenizers import load_tokenizer

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        minillm = [sys.executable, "-m", "minillm"]
        subprocess.run([*minillm, "corpus", corpus, "--from", "environment", "--max-mb", str(megabytes)], check=True)
        learn = ["tokenizer", "train", corpus, "--vocab-size", str(ids), "--out", out / "tokenizer.json"]
        subprocess.run([*minillm, *learn], check=True)
        tokenizer = load_tokenizer(out / "tokenizer.json")
        text = "".join(document.text for document in beginning(corpus_documents(corpus), SAMPLE))
        characters_each = len(text) / len(tokenizer.encode(text))
        room = most * 1e6 - (out / "tokenizer.json").stat().st_size - SIDECARS
        for split, share in SPLITS.items():
            file, characters = out / f"{split}.bin", share * room / 2 * characters_each  # an id takes two bytes
            for _ in range(TURNS):
                dataset = pack(beginning(corpus_documents(corpus, split), characters), tokenizer, file)
                if file.stat().st_size <= share * room:
                    break
                characters *= 0.98 * share * room / file.stat().st_size
            print(f"{split}: {dataset}", flush=True)
    size = sum(file.stat().st_size for file in out.iterdir())
    if size > most * 1e6:
        sys.exit(f"prepare: {out} holds {size / 1e6:.1f} MB, more than {most:g}: allow more by --most.")


def beginning(documents: Iterable[Any], characters: float) -> Iterator[Any]:
    """The first documents, of so many characters together at most, and no less than one."""
    for n, document in enumerate(documents):
        characters -= len(document.text)
        if characters < 0 and n > 0:
            return
        yield document


def wheels(out: Path, version: str) -> None:
    """The packages of NEEDED for Python `version` (such as 3.12) on 64-bit Linux, unpacked into the folder `out`."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version", version]
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        done = subprocess.run([*pip, "--implementation", "cp", *platforms, "-d", folder, *NEEDED])
        if done.returncode:
            sys.exit("prepare: pip could not fetch them; what it said is above.")
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as file:
                file.extractall(out)
    print(f"{out}: {', '.join(NEEDED)} for Python {version}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for tokens, or for packages with --wheels")
    parser.add_argument("--wheels", metavar="VERSION", help="packages for this Python, such as 3.12, and no tokens")
    parser.add_argument("--megabytes", type=float, default=90, help="of text, 0 for all there is")
    parser.add_argument("--most", type=float, default=40, help="megabytes that all files may take")
    parser.add_argument("--ids", type=int, default=16384, help="of the tokenizer, 65,536 at most")
    options = parser.parse_args(arguments)
    if options.wheels:
        wheels(options.out, options.wheels)
    else:
        tokens(options.out, options.megabytes, options.most, options.ids)


if __name__ == "__main__":
    main()
