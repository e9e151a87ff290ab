"""Keras folders: TensorFlow computes what we compute, what comes back is what went out, strangers' files run nothing.

With KERAS_BACKEND=torch in the environment, all of it runs on PyTorch."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from minillm.commands.cli import main
from minillm.hub import AutoTokenizer, ConfigurationError, PretrainedModel, WeightsError, hdf5, keras_folder
from minillm.hub.checkpoint import open_checkpoint
from minillm.hub.convert import convert
from minillm.hub.keras_folder import (
    find_parameters,
    from_keras,
    keras_model,
    keras_names,
    read_variables,
    to_keras,
    unpack_keras,
)
from minillm.hub.weights import Source, Stored
from minillm.models import BertConfig, ClassifierConfig, GPTConfig, LlamaConfig, config_to_dict, model_from_config
from minillm.settings import IGNORE
from minillm.tokenizers import BPETokenizer, WordPieceTokenizer
from minillm.training.checkpoint import save_checkpoint

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
needs_keras = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("keras", "h5py", BACKEND)),
    reason=f"Keras models need the packages keras and {BACKEND}: pip install -e '.[keras]'",
)
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # TensorFlow's own
    pytest.mark.filterwarnings("ignore:(?s).*softmax over axis 3 of a tensor:UserWarning"),  # of a text of one token
]

SHAPE = {"vocab_size": 31, "context": 12, "n_layers": 2, "n_heads": 2, "d_model": 8}
ROBERTA = {"family": "roberta", "pad_id": 3, "token_types": 1}
KINDS = {
    "gpt": GPTConfig(**SHAPE, d_ff=20),
    "hidden tokens": BertConfig(**SHAPE, d_ff=12),
    "next sentence": BertConfig(**SHAPE, d_ff=12, next_sentence=True),
    "classes": BertConfig(**SHAPE, d_ff=12, head="classification", n_labels=3),
    "features": BertConfig(**SHAPE, d_ff=12, head="none", pooler=True),
    "roberta": BertConfig(**SHAPE, d_ff=12, **ROBERTA),
    "classes, roberta": BertConfig(**SHAPE, d_ff=12, **ROBERTA, head="classification"),
    "classes, distilbert": BertConfig(**SHAPE, d_ff=12, family="distilbert", head="classification"),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def make(config, seed=0):
    """A model whose biases and norms are random, too."""
    model, rng = model_from_config(config, np.random.default_rng(seed)).eval(), np.random.default_rng(seed + 1)
    for _, parameter in model.named_parameters():
        parameter.data += rng.normal(0, 0.2, parameter.data.shape).astype(parameter.data.dtype)
    return model


def saved(model, folder, tokenizer=None):
    """A checkpoint as `minillm pretrain` writes it."""
    arrays = {"model": model.state_dict(), "optimizer": {}}
    save_checkpoint(folder, config=config_to_dict(model.config), **arrays, state={}, tokenizer=tokenizer)
    return folder


def inputs_for(config, seed=0):
    """Three rows of ids, some of them padded, as our model takes them and as Keras does."""
    rng = np.random.default_rng(seed)
    T = int(rng.integers(1, config.context + 1))
    ids, mask = rng.integers(4, config.vocab_size, (3, T)), np.ones((3, T), dtype=int)
    if isinstance(config, GPTConfig):
        return (ids,), {}, ids
    for row, n in enumerate(rng.integers(1, T + 1, 3)):
        mask[row, n:], ids[row, n:] = 0, 3
    ours, theirs = {"mask": mask}, {"input_ids": ids, "attention_mask": mask}
    if config.token_types:
        ours["token_types"] = theirs["token_type_ids"] = rng.integers(0, config.token_types, (3, T))
    return (ids,), ours, theirs


def answers(model, keras_model, seed=0):
    """What both give for the same inputs, by name."""
    import keras

    args, ours, theirs = inputs_for(model.config, seed)
    found = keras_model(theirs)
    found = found if isinstance(found, dict) else {"": found}
    expected = {"": model(*args, **ours).data}
    if len(found) > 1:
        h = model.encode(*args, **ours)
        second = {"next_sentence": lambda: model.next_sentence_logits(h), "pooled": lambda: model.pool(h)}
        first, other = found
        expected = {first: expected[""], other: second[other]().data}
    return expected, {name: keras.ops.convert_to_numpy(value) for name, value in found.items()}


def gap(model, keras_model, seed=0):
    """The largest difference, relative to the largest number where that is above 1."""
    expected, found = answers(model, keras_model, seed)
    assert list(expected) == list(found) and all(found[name].shape == expected[name].shape for name in found)
    return max(np.abs(found[name] - a).max() / max(1.0, np.abs(a).max()) for name, a in expected.items())


def open_in_keras(folder):
    import keras

    return keras.saving.load_model(folder / "model.keras")  # in its safe mode, which is the default


def sources(model):
    return {name: Source(array.shape, array.view) for name, array in model.state_dict().items()}


# --- names and shapes, without Keras ----------------------------------------------------------------------------------


@each_kind
def test_every_parameter_has_its_places_and_comes_back_from_them(kind):
    config = KINDS[kind]
    seen = set()
    for name, parameter in make(config).named_parameters():
        names = keras_names(name)
        parts = [to_keras(part, place, 2) for place, part in zip(names, np.split(parameter.data, len(names)))]
        assert all(part.ndim == 3 for part in parts if "attn" in name and name.endswith(".weight"))
        back = np.concatenate([from_keras(part, place) for part, place in zip(parts, names)])
        assert np.array_equal(back, parameter.data)
        assert seen.isdisjoint(names)
        seen.update(names)


def test_other_architectures_are_refused_by_name_before_weights_are_read(tmp_path, monkeypatch):
    configs = {
        "'llama' model for 'causal'": LlamaConfig(**SHAPE, d_ff=12),
        "'classifier' model for 'classification'": ClassifierConfig(GPTConfig(**SHAPE)),
    }
    for number, config in enumerate(configs.values()):
        saved(make(config), tmp_path / str(number))
    PretrainedModel(make(GPTConfig(**SHAPE)), "base").save_pretrained(tmp_path / "2")
    monkeypatch.setattr(Stored, "read", lambda self: pytest.fail("weights were read"))
    for number, words in enumerate([*configs, "'gpt' model for 'base'"]):
        with pytest.raises(ValueError, match=f"a {words} has no twin in Keras here: take a GPT-2"):
            convert(tmp_path / str(number), tmp_path / "out", to="keras")
    saved(make(KINDS["gpt"]), tmp_path / "gpt")
    with pytest.raises(ValueError, match="dtype = bfloat16: a Keras model is written in float32"):
        convert(tmp_path / "gpt", tmp_path / "out", to="keras", dtype="bfloat16")
    assert not (tmp_path / "out").exists()


def test_without_keras_the_error_names_the_extra(tmp_path, monkeypatch, capsys):
    saved(make(KINDS["gpt"]), tmp_path / "gpt")
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "config.json").write_text(json.dumps(config_to_dict(KINDS["gpt"])))
    with zipfile.ZipFile(tmp_path / "keras" / "model.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"")
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setitem(sys.modules, "h5py", None)
    for command in (["gpt", "out", "--to", "keras"], ["keras", "out", "--to", "minillm"]):
        name, out, *how = command
        assert main(["convert", str(tmp_path / name), str(tmp_path / out), *how]) != 0
        assert "the extra [keras]" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_keras_folder_that_is_opened_as_it_is_says_how_to_convert_it(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(config_to_dict(KINDS["gpt"])))
    (tmp_path / "model.keras").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"minillm convert \S+ FOLDER \(--to hf or --to minillm\)"):
        open_checkpoint(tmp_path)


# --- the numbers ------------------------------------------------------------------------------------------------------


@st.composite
def configs(draw):
    n_heads, share = draw(st.integers(1, 3)), st.sampled_from([0.0, 0.1])
    shape = {
        "vocab_size": draw(st.integers(5, 40)), "context": draw(st.integers(1, 12)),
        "n_layers": draw(st.integers(1, 2)), "n_heads": n_heads, "d_model": n_heads * draw(st.integers(8, 10)),
        "dropout": draw(share), "attention_dropout": draw(st.none() | share), "d_ff": draw(st.integers(1, 20)),
        "norm_eps": draw(st.sampled_from([1e-12, 1e-5, 1e-3])),
    }  # fmt: skip
    family = draw(st.sampled_from(["gpt", "bert", "roberta", "distilbert"]))
    if family == "gpt":
        return GPTConfig(**shape, embedding_dropout=draw(st.none() | share))
    head = draw(st.sampled_from(["none", "mlm", "classification"]))
    return BertConfig(
        **shape, family=family, head=head, pooler=draw(st.booleans()), token_types=draw(st.integers(1, 3)),
        next_sentence=family == "bert" and head == "mlm" and draw(st.booleans()), n_labels=draw(st.integers(1, 3)),
        pad_id=3 if family == "roberta" else None, classifier_dropout=draw(st.none() | share),
    )  # fmt: skip


@needs_keras
@given(configs(), st.integers(0, 99))
@settings(max_examples=6, phases=(Phase.explicit, Phase.generate))  # to shrink a failure would take minutes
def test_random_models_give_our_numbers_and_come_back_bit_for_bit(tmp_path_factory, config, seed):
    model, folder = make(config, seed), tmp_path_factory.mktemp("keras")
    convert(saved(model, folder / "run"), folder / "keras", to="keras")
    assert gap(model, open_in_keras(folder / "keras"), seed) < 1e-5
    (folder / "back").mkdir()
    unpack_keras(folder / "keras", folder / "back")
    assert json.loads((folder / "back" / "config.json").read_text()) == config_to_dict(config)
    weights, expected = load_file(folder / "back" / "model.safetensors"), model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(np.array_equal(weights[name], array) for name, array in expected.items())
    shutil.rmtree(folder)


@needs_keras
@each_kind
@pytest.mark.skipif(BACKEND != "tensorflow", reason=f"on {BACKEND}, Keras goes through float32 all the same")
def test_in_float64_the_gap_shrinks(kind):
    """To the rounding of the constants in TensorFlow's GELU, which are float32 whatever is given to it."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        model = make(KINDS[kind]).to("float64")
        assert gap(model, keras_model(model.config, sources(model))) < 1e-7
    finally:
        keras.config.set_dtype_policy(before)


@needs_keras
def test_nobody_looks_at_padding_or_ahead():
    import keras

    def answer(model, inputs):
        return keras.ops.convert_to_numpy(keras_model(model.config, sources(model))(inputs))

    bert, gpt = make(KINDS["classes"]), make(KINDS["gpt"])
    ids, mask = np.array([[5, 6, 7, 8]]), np.array([[1, 1, 0, 0]])
    padded = {"input_ids": ids, "attention_mask": mask, "token_type_ids": 0 * ids}
    alone = answer(bert, {name: array[:, :2] for name, array in padded.items()})
    assert np.allclose(answer(bert, padded), alone, atol=1e-6)
    assert not np.allclose(answer(bert, {**padded, "attention_mask": 0 * mask + 1}), alone, atol=1e-3)
    first, whole = answer(gpt, ids[:, :2]), answer(gpt, ids)
    assert np.allclose(first, whole[:, :2], atol=1e-6) and not np.allclose(first[:, 1], whole[:, 3], atol=1e-3)


@needs_keras
@pytest.mark.parametrize("kind", ["gpt", "classes", "roberta", "a context of one"])
def test_a_text_longer_than_the_context_is_an_error_that_says_so(kind):
    """Where a shape is known, and in a graph that was compiled for any length; also where reading beyond the end of a
    table of positions gives numbers, as it does on a GPU and, on any processor, under XLA."""
    config = KINDS.get(kind, GPTConfig(**{**SHAPE, "context": 1}, d_ff=20))
    model = keras_model(config, sources(make(config)))

    def inputs(T):
        ids = np.full((1, T), 5)
        named = {"input_ids": ids, "attention_mask": 0 * ids + 1, "token_type_ids": 0 * ids}
        return ids if isinstance(config, GPTConfig) else {name: named[name] for name in model.input}

    C = config.context
    for how in (model, model.predict_on_batch):
        for extra in (1, 2):
            with pytest.raises(ValueError, match=f"of layer .a_text_has_at_most_{C}_tokens. is incompatible"):
                how(inputs(C + extra))
        how(inputs(C))
    for jit in (False, True) if BACKEND == "tensorflow" else (False,):
        model.compile(jit_compile=jit)
        for T in {1, max(1, C - 1), C}:  # after these the graph is one for any length
            assert np.isfinite(keras_values(model.predict_on_batch(inputs(T)))).all()
        with pytest.raises(Exception, match=f"at_most_{C}_tokens") as raised:
            model.predict_on_batch(inputs(C + 1))
        assert "Gather" not in str(raised.value)


@needs_keras
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["hidden tokens", "features", "classes, roberta", "classes, distilbert"])
def test_a_row_of_padding_alone_is_what_it_is_here(kind, dropout):
    """Who may look at nobody takes nothing from anybody; Keras's fused attention would look at all that is hidden."""
    model = make(BertConfig(**{**vars(KINDS[kind]), "dropout": dropout}))
    theirs, pad = keras_model(model.config, sources(model)), model.config.pad_id or 0
    ids, mask = np.array([[5, 6, 7], [pad] * 3, [8, 9, pad]]), np.array([[1, 1, 1], [0, 0, 0], [1, 1, 0]])
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": 0 * ids}
    found = theirs({name: given[name] for name in theirs.input})
    expected = model(ids, mask=mask).data
    first = next(iter(found.values())) if isinstance(found, dict) else found
    assert np.abs(keras_values(first) - expected.ravel()).max() < 1e-5 * max(1, np.abs(expected).max())


def keras_values(found):
    """All numbers of what a Keras model has given, one thing or several by name."""
    import keras

    parts = found.values() if isinstance(found, dict) else [found]
    return np.concatenate([np.ravel(keras.ops.convert_to_numpy(part)) for part in parts])


# --- in Keras's hands -------------------------------------------------------------------------------------------------


@needs_keras
@pytest.mark.parametrize("kind", ["gpt", "classes"])
def test_a_step_of_fit_lowers_our_loss_and_comes_home(kind, tmp_path):
    """Dropout is drawn in it, and the optimizer's state is saved along."""
    import keras

    config = KINDS[kind]
    config = type(config)(**{**vars(config), "dropout": 0.1})
    model = make(config)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 31, (4, 12))
    targets = rng.integers(0, 3, 4) if kind == "classes" else np.where(rng.random((4, 12)) < 0.4, ids, IGNORE)
    inputs = ids if kind == "gpt" else {"input_ids": ids, "attention_mask": 0 * ids + 1, "token_type_ids": 0 * ids}
    convert(saved(model, tmp_path / "run"), tmp_path / "keras", to="keras")
    theirs = open_in_keras(tmp_path / "keras")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORE)
    theirs.compile(keras.optimizers.AdamW(1e-2), loss, run_eagerly=True)  # to compile this takes longer than to run it
    before = model(ids, targets).item()
    assert theirs.evaluate(inputs, targets, batch_size=4, verbose=0) == pytest.approx(before, rel=1e-5)
    theirs.fit(inputs, targets, batch_size=4, epochs=1, verbose=0)
    after = theirs.evaluate(inputs, targets, batch_size=4, verbose=0)
    theirs.save(tmp_path / "keras" / "model.keras")
    convert(tmp_path / "keras", tmp_path / "back", to="minillm")
    trained = open_checkpoint(tmp_path / "back").model()
    assert after < before and trained(ids, targets).item() == pytest.approx(after, rel=1e-5)


@needs_keras
@pytest.mark.parametrize("kind", ["gpt", "next sentence", "classes, roberta"])
def test_every_layer_is_keras_own(kind):
    """So a saved model opens without minillm, and without code to trust."""
    model = make(KINDS[kind])
    graph = json.loads(keras_model(model.config, sources(model)).to_json())

    def modules(part):
        if isinstance(part, dict):
            yield from (part["module"],) if "module" in part else ()
            part = list(part.values())
        if isinstance(part, list):
            for inner in part:
                yield from modules(inner)

    found = set(modules(graph))
    assert {name.split(".")[0] for name in found if name} == {"keras"} and "keras.layers" in found


@needs_keras
@pytest.mark.long
def test_it_opens_on_pytorch_where_minillm_is_not_installed(tmp_path):
    pytest.importorskip("torch")
    model = make(KINDS["gpt"])
    convert(saved(model, tmp_path / "run"), tmp_path / "keras", to="keras")
    program = (
        "import sys; sys.modules['minillm'] = None\nimport keras, numpy as np\n"
        f"model = keras.saving.load_model({str(tmp_path / 'keras' / 'model.keras')!r})\n"
        f"logits = keras.ops.convert_to_numpy(model(np.arange(12)[None]))\nnp.save({str(tmp_path / 'y.npy')!r}, logits)"
    )
    other = "tensorflow" if BACKEND == "torch" else "torch"
    environment = {**os.environ, "KERAS_BACKEND": other, "TF_CPP_MIN_LOG_LEVEL": "2"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=300)
    assert np.abs(np.load(tmp_path / "y.npy") - model(np.arange(12)[None]).data).max() < 1e-5


@needs_keras
def test_from_transformers_to_keras_and_back_nothing_is_lost(tmp_path, capsys):
    """By the command line; tokenizer, token ids and labels come along."""
    tokenizer = WordPieceTokenizer.train(["a boat left at dawn, and came back at noon"], 60)
    config = BertConfig(tokenizer.vocab_size, 16, 1, 2, 8, 12, head="classification", labels=("no", "yes"))
    PretrainedModel(make(config), "classification").save_pretrained(tmp_path / "hf")
    values = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**values, "bos_token_id": 7, "note": "mine"}))
    tokenizer.save(tmp_path / "hf")
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "keras"), "--to", "keras"]) == 0
    assert "model.keras, config.json, hf_config.json, tokenizer.json" in capsys.readouterr().out
    for source, out in ((tmp_path / "keras", "back"), (tmp_path / "keras" / "model.keras", "again")):
        assert main(["convert", str(source), str(tmp_path / out), "--to", "hf"]) == 0
        weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("hf", out)]
        assert weights[0] == weights[1]
        found = json.loads((tmp_path / out / "config.json").read_text())
        assert {**values, "bos_token_id": 7, "note": "mine"}.items() <= found.items()
        ids = AutoTokenizer.from_pretrained(tmp_path / out).encode("a boat")
        assert ids == AutoTokenizer.from_pretrained(tmp_path / "hf").encode("a boat")
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "keras"), "--to", "keras"]) == 2  # it is not empty


# --- damaged files, and strangers' ------------------------------------------------------------------------------------


@pytest.fixture
def in_process(monkeypatch):
    """HDF5 is read here, and not by a process of its own, which takes longer to begin than to read."""

    def arrays_in(path):
        found = hdf5.look(str(path))
        if "error" in found:
            raise ValueError(found["error"])
        return {name: (dtype, tuple(shape), offset) for name, dtype, shape, offset in found["arrays"]}

    monkeypatch.setattr(keras_folder, "arrays_in", arrays_in)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small GPT as Keras saves it, with the bytes of its HDF5 file."""
    folder = tmp_path_factory.mktemp("folder")
    tokenizer = BPETokenizer.train(["a boat left at dawn " * 9], 265)
    model = make(GPTConfig(tokenizer.vocab_size, 12, 1, 2, 8))
    convert(saved(model, folder / "run", tokenizer), folder / "keras", to="keras")
    return folder / "keras"


def weights_in(folder):
    with zipfile.ZipFile(folder / "model.keras") as archive:
        return archive.read("model.weights.h5")


def with_weights(folder, content, out, **how):
    """A copy of the folder with another HDF5 file in its model.keras."""
    shutil.copytree(folder, out)
    with zipfile.ZipFile(folder / "model.keras") as archive:
        others = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(out / "model.keras", "w") as archive:
        for name, data in {**others, "model.weights.h5": content}.items():
            archive.writestr(name, data, **how)
    return out


def refused(folder, words, error=WeightsError):
    """The folder is refused with these words and the file's name, and nothing is written."""
    with pytest.raises(error, match=words) as raised:
        convert(folder, folder.parent / "new", to="minillm")
    assert str(folder) in str(raised.value) and not (folder.parent / "new").exists()


def changed(folder, out, change):
    """A copy whose HDF5 file `change` has been given, opened."""
    import h5py

    buffer = io.BytesIO(weights_in(folder))
    with h5py.File(buffer, "r+") as content:
        change(content)
    return with_weights(folder, buffer.getvalue(), out)


NORM = "layers/layer_normalization/vars/0"


def replaced(name=NORM, **how):
    def change(content):
        array = np.asarray(content[name])
        del content[name]
        content.create_dataset(name, **{"data": array, **how})

    return change


def linked(kind, *target):
    def change(content):
        import h5py

        del content[NORM]
        content[NORM] = getattr(h5py, kind)(*target)

    return change


def external(content):
    del content[NORM]
    content.create_dataset(NORM, (8,), "f4", external=[("/etc/hostname", 0, 32)])


def virtual(content):
    import h5py

    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (8,))
    del content[NORM]
    content.create_virtual_dataset(NORM, layout)


def named_twice(content):
    content["layers/layer_normalization_1/vars"].attrs["name"] = "blocks_0_norm_1"


def no_group(content):
    del content["layers/dense"]
    content["layers/dense"] = np.zeros(2)


def one_more(content):
    group = content.create_group("layers/dense_9/vars")
    group.attrs["name"] = "one_more"
    group["0"] = np.zeros(3, "f4")


STRANGERS = {
    "a link out of the file": (linked("ExternalLink", "/etc/hostname", "/x"), "a ExternalLink, leads out of its group"),
    "a link inside": (linked("SoftLink", "/layers/dense/vars/0"), "a SoftLink, leads out of its group"),
    "numbers of another file": (external, "doesn't lie in one piece"),
    "a view of another file": (virtual, "doesn't lie in one piece"),
    "compressed numbers": (replaced(compression="gzip"), "doesn't lie in one piece"),
    "a huge shape": (replaced(shape=(2**40,), dtype="f4", data=None), "doesn't lie in one piece"),
    "another shape": (replaced(data=np.zeros(9, "f4")), r"blocks_0_norm_1/0 .*\(9,\)"),
    "whole numbers": (replaced(data=np.zeros(8, "i4")), "numbers of the type <i4"),
    "text": (replaced(data=b"x"), "numbers of the type"),
    "no name": (lambda content: content["layers/dense/vars"].attrs.pop("name"), "KeyError"),
    "no layers": (lambda content: content.pop("layers"), "KeyError: 'layers'"),
    "a layer that is no group": (no_group, "is damaged"),
    "two of one name": (named_twice, "two layers have the same name: 'blocks_0_norm_1/0'"),
    "one layer more": (one_more, "one_more/0"),
    "one layer less": (lambda content: content.pop("layers/dense"), "blocks_0_mlp_fc/0"),
}


@needs_keras
@pytest.mark.parametrize("what", STRANGERS)
def test_what_keras_does_not_save_is_refused(what, folder, tmp_path, monkeypatch, in_process):
    change, words = STRANGERS[what]
    monkeypatch.setitem(sys.modules, "keras", None)  # reading needs none of its code
    refused(changed(folder, tmp_path / "in", change), words)


@needs_keras
def test_a_compressed_archive_and_a_foreign_config_are_refused(folder, tmp_path, in_process):
    good = weights_in(folder)
    packed = with_weights(folder, good, tmp_path / "packed", compress_type=zipfile.ZIP_DEFLATED)
    refused(packed, "model.weights.h5 is compressed")
    alone = with_weights(folder, good, tmp_path / "alone")
    config = json.loads((alone / "config.json").read_text())
    for values, words, error in (
        ({**config, "n_layers": 10**9}, "1,000,000,000 layers, the weights hold 1", WeightsError),
        ({**config, "vocab_size": 10**12}, "vocab_size = 1,000,000,000,000", WeightsError),
        ({**config, "n_heads": 4}, r"blocks_0_attn/query/0", WeightsError),
        ({**config, "window": 4}, "GPTConfig has no setting 'window'", ConfigurationError),
        ({"model_type": "gpt2", "n_layer": 1}, "describes no model of minillm", ConfigurationError),
        ({**config_to_dict(LlamaConfig(**SHAPE, d_ff=12))}, "'llama' model for 'causal' has no twin", ValueError),
    ):
        (alone / "config.json").write_text(json.dumps(values))
        if error is ValueError:
            with pytest.raises(ValueError, match=words):
                convert(alone, tmp_path / "new")
        else:
            refused(alone, words, error)
    (alone / "config.json").unlink()
    refused(alone, "has no config.json beside it: only a model that minillm convert made")


@needs_keras
def test_a_damaged_file_is_refused_by_name(folder, tmp_path, in_process):
    """Cut anywhere, or with any byte changed: the weights as they were, or an error that names the file."""
    good, rng = (folder / "model.keras").read_bytes(), np.random.default_rng(0)
    shutil.copytree(folder, tmp_path / "in")
    expected = None
    cut = [good[:n] for n in (0, 3, 30, 500, 5000, len(good) - 5000, len(good) - 10)]
    changed = []
    for at in np.concatenate([rng.integers(0, len(good), 30), len(good) - rng.integers(1, 400, 60)]):
        data = bytearray(good)
        data[at] ^= int(rng.integers(1, 256))
        changed.append(bytes(data))
    refusals = 0
    for data in [good, *cut, *changed]:
        (tmp_path / "in" / "model.keras").write_bytes(data)
        try:
            convert(tmp_path / "in", tmp_path / "out", to="minillm")
        except ValueError as error:
            refusals += 1
            assert "model.keras" in str(error) and not (tmp_path / "out").exists()
            continue
        found = (tmp_path / "out" / "model.safetensors").read_bytes()
        expected = found if data is good else expected
        assert found == expected
        shutil.rmtree(tmp_path / "out")
    assert refusals >= len(cut)


@needs_keras
def test_a_file_that_breaks_hdf5_or_keeps_it_for_ever_ends_its_own_process_only(folder, monkeypatch):
    broken = subprocess.CompletedProcess([], -11, b"", b"")
    with monkeypatch.context() as patch:
        patch.setattr(hdf5.subprocess, "run", lambda *args, **how: broken)
        refused(folder, "HDF5's library ended its process with -11")
    monkeypatch.setattr(hdf5, "SECONDS", 0.001)
    refused(folder, "HDF5's library has not come to an end with it in 0.001 s")


@needs_keras
def test_hdf5_imports_nothing_from_where_it_is_asked(folder, tmp_path, monkeypatch):
    (tmp_path / "h5py.py").write_text("raise SystemExit('a stranger was here')")
    monkeypatch.chdir(tmp_path)
    unpack_keras(folder, tmp_path)
    assert (tmp_path / "model.safetensors").exists()


@needs_keras
@pytest.mark.long
def test_whatever_is_in_the_archive_the_answer_names_it(folder, tmp_path, in_process):
    rng, file = np.random.default_rng(0), (folder / "model.keras").read_bytes()
    shutil.copytree(folder, tmp_path / "in")
    for number in range(3000):
        data = bytearray(file)
        for at in rng.integers(0, 500 if number % 2 else len(data), int(rng.integers(1, 4))):
            data[-1 - at] ^= int(rng.integers(1, 256))
        (tmp_path / "in" / "model.keras").write_bytes(data)
        (tmp_path / "out").mkdir()
        try:
            unpack_keras(tmp_path / "in", tmp_path / "out")
        except ValueError as error:
            assert "model.keras" in str(error)
        shutil.rmtree(tmp_path / "out")


@needs_keras
@pytest.mark.long
def test_whatever_is_in_the_hdf5_file_the_answer_names_it(folder, tmp_path, monkeypatch):
    """Nothing guards its structure: a stranger makes the archive's checksum anew. Some of these never end."""
    monkeypatch.setattr(hdf5, "SECONDS", 10)
    rng, weights, named = np.random.default_rng(0), weights_in(folder), Path("in/model.keras")
    config = GPTConfig(265, 12, 1, 2, 8)
    for number in range(400):
        data = bytearray(weights)
        for at in rng.integers(0, 4000 if number % 3 else len(data), int(rng.integers(1, 4))):
            data[at] ^= int(rng.integers(1, 256))
        (tmp_path / "w.h5").write_bytes(data)
        try:
            find_parameters(config, read_variables(tmp_path / "w.h5", named), named)
        except ValueError as error:
            assert "model.keras" in str(error)
