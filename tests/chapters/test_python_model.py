"""Chapter 08's deliverable: trained once, kept, and readable by what later chapters load it with."""

import numpy as np
from minillm.workshop.deliverables import python_model

from minillm.hub import AutoModelForCausalLM, AutoTokenizer
from minillm.hub.checkpoint import load_model_and_tokenizer
from minillm.training.pretrain import resumed_sections


def test_python_model_is_made_once_and_loads(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILLM_MADE", str(tmp_path))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    folder = python_model("smoke")
    written = (folder / "best" / "model.safetensors").stat().st_mtime_ns
    assert python_model("smoke") == folder
    assert (folder / "best" / "model.safetensors").stat().st_mtime_ns == written

    model, tokenizer = load_model_and_tokenizer(folder)
    assert model.config.context == 128 and model.config.vocab_size == tokenizer.vocab_size
    assert np.isfinite(model(np.array([tokenizer.encode("def f(x):")])).data).all()
    text = "def f(x):\n    return x\n"
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == tokenizer.encode(text)
    assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == tokenizer.vocab_size
    data = resumed_sections(folder)["data"]  # what it was trained on is still where the run says
    assert all((tmp_path / data[name]).exists() for name in ("corpus", "tokenizer"))
