"""What the road from text to a model leaves behind, made once by the commands themselves."""

import numpy as np
import pytest
from command_line import TINY, minillm


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text with spaces")
    rng = np.random.default_rng(0)
    words = ["the", "a", "cat", "dog", "bird", "sees", "hears", "follows", "and", "or", "quickly", "你好", "über"]
    for i in range(60):
        sentences = [" ".join(rng.choice(words, 12)) + "." for _ in range(12)]
        (folder / f"{i}.txt").write_text("\n".join(sentences), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def made(text_folder, tmp_path_factory):
    """A folder in which corpus, tokenizer and a short training run have been made by the command."""
    folder = tmp_path_factory.mktemp("made")
    minillm("corpus", folder / "corpus", "--from", text_folder, "--val-fraction", "0.2", "--near-threshold", "0")
    minillm("tokenizer", "train", folder / "corpus", "--vocab-size", "300", "--out", folder / "tokenizer.json")
    data = ["--corpus", folder / "corpus", "--tokenizer", folder / "tokenizer.json"]
    minillm("pretrain", *data, *TINY, "--out", folder / "run")
    return folder
