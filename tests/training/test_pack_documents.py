"""Documents that share a row and do not see each other (data.pack_documents): as if each had a row for itself."""

from __future__ import annotations

import os
import sys
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from command_line import TINY, minillm
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"  # our kernels on the CPU; read when triton is first imported

from minillm.costs.sizes import training_flops  # noqa: E402
from minillm.data import Batcher, Document, pack  # noqa: E402
from minillm.engines.numpy_engine import NumpyEngine  # noqa: E402
from minillm.engines.protocol import PackedLoss  # noqa: E402
from minillm.engines.threads import ThreadedNumpyEngine  # noqa: E402
from minillm.engines.torch_engine import TorchEngine  # noqa: E402
from minillm.models import GPTConfig, LlamaConfig, model_from_config  # noqa: E402
from minillm.models.segments import text_offsets  # noqa: E402
from minillm.port import to_torch  # noqa: E402
from minillm.settings import EngineConfig, TrainConfig  # noqa: E402
from minillm.tokenizers import CharTokenizer  # noqa: E402
from minillm.training.activations import quiet_units  # noqa: E402
from minillm.training.checkpoint import CheckpointError, read_checkpoint  # noqa: E402
from minillm.training.config_file import read_toml  # noqa: E402
from minillm.training.evaluate import evaluate  # noqa: E402
from minillm.training.objectives import PackedNextToken, loss_for  # noqa: E402
from minillm.training.pretrain import SECTIONS  # noqa: E402
from minillm.training.run_log import read_metrics  # noqa: E402
from minillm.training.text import TextData  # noqa: E402
from minillm.training.train import train  # noqa: E402

END = 12  # ends a document


class Letters:
    """The smallest tokenizer: a token is one of twelve letters, and 12 ends a text."""

    vocab_size, eos_id = 13, END

    def encode(self, text, disallowed_special=()):
        return [ord(letter) - ord("a") for letter in text]

    def fingerprint(self):
        return "letters"

    def save(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def tokens(lengths, folder):
    """A token file of documents of these lengths."""
    rng = np.random.default_rng(len(lengths))
    texts = ["".join(rng.choice(list("abcdefghijkl"), n)) for n in lengths]
    return pack([Document(text, str(i)) for i, text in enumerate(texts)], Letters(), folder / "tokens.bin")


def model_of(kind="gpt", **changes):
    """A small model in float64 with larger weights than the initial ones, so that every term counts."""
    shape = {"vocab_size": 13, "context": 12, "n_layers": 2, "d_model": 8, "n_heads": 4, **changes}
    config = GPTConfig(**shape) if kind == "gpt" else LlamaConfig(**shape, n_kv_heads=2, d_ff=12)
    rng = np.random.default_rng(0)
    model = model_from_config(config, rng).to(np.float64)
    for p in model.parameters():
        p.data += 0.2 * rng.standard_normal(p.shape)
    return model


def alone(ids, targets):
    """Each stretch of a batch's rows that begins with END, or where its row does, as a batch of one."""
    found = []
    for row, wanted in zip(ids, targets):
        edges = [0, *(i for i in range(1, len(row)) if row[i] == END), len(row)]
        found += [(row[None, a:b], wanted[None, a:b]) for a, b in pairwise(edges)]
    return found


def step_of(engine, micro_batches):
    """The loss of a step and every gradient."""
    loss = float(engine.forward_backward(micro_batches))
    return loss, {name: np.asarray(p.grad) for name, p in engine.model.named_parameters()}


def check(packed, lengths, folder, kind="gpt", n_rows=3, **changes):
    """A step of `packed`, an engine, on rows of documents, beside one on the documents as separate sequences."""
    dataset = tokens(lengths, folder)
    ids, targets = Batcher(dataset, n_rows, 12, seed=len(lengths)).next()
    batch = PackedNextToken(13, END)(ids, targets, 0)
    loss, gradients = step_of(packed, [batch])
    expected, theirs = step_of(NumpyEngine(model_of(kind, **changes), TrainConfig()), alone(ids, targets))
    assert loss == pytest.approx(expected, rel=1e-12)
    assert list(gradients) == list(theirs)
    for name, grad in gradients.items():
        np.testing.assert_allclose(grad, theirs[name], rtol=1e-12, atol=1e-12, err_msg=name)


def on_torch(impl, kind="gpt", **changes):
    model = to_torch(model_of(kind, attention=impl, **changes))
    return TorchEngine(model, TrainConfig(), EngineConfig(device="cpu"), loss=PackedLoss())


lengths_of_documents = st.lists(st.integers(0, 30), min_size=2, max_size=8).filter(lambda n: sum(n) > 20)


@pytest.mark.parametrize("kind", ["gpt", "llama"])
@settings(max_examples=10)
@given(lengths=lengths_of_documents)
def test_a_packed_step_is_that_of_separate_sequences(kind, lengths, tmp_path_factory):
    """Loss and gradients, on NumPy, one thread and two."""
    folder = tmp_path_factory.mktemp("packed")
    check(NumpyEngine(model_of(kind), TrainConfig(), loss=PackedLoss()), lengths, folder, kind)
    check(ThreadedNumpyEngine(model_of(kind), TrainConfig(), 2, loss=PackedLoss()), lengths, folder, kind)


@pytest.mark.parametrize("kind", ["gpt", "llama"])
@pytest.mark.parametrize("impl", ["reference", "sdpa"])
@settings(max_examples=5)
@given(lengths=lengths_of_documents)
def test_on_torch(kind, impl, lengths, tmp_path_factory):
    check(on_torch(impl, kind), lengths, tmp_path_factory.mktemp("packed"), kind)


def test_in_our_kernels_through_variable_lengths(tmp_path, monkeypatch):
    """Which are told how many documents there are: not one for each token."""
    pytest.importorskip("triton")
    from minillm.kernels import attention
    from minillm.kernels.call import interpreted

    if not interpreted() or torch.cuda.is_available():
        pytest.skip("needs Triton's interpreter; on a GPU tests/kernels compares the kernels")
    asked = []
    flash_attention = attention.flash_attention

    def watched(*args, **options):
        asked.append(options["cu_seqlens"])
        return flash_attention(*args, **options)

    monkeypatch.setattr(attention, "flash_attention", watched)
    check(on_torch("triton", n_layers=1), [3, 9, 2, 5], tmp_path, n_rows=2, n_layers=1)
    (offsets,) = asked
    assert len(offsets) < 2 * 12 and offsets[0] == 0 and offsets[-1] == 24


def test_mfu_counts_each_document_by_itself(tmp_path):
    """What a row of one text would need, were the documents as long, is not work that was done."""
    engine = on_torch("reference")
    ids, targets = Batcher(tokens([1, 3, 5, 2, 9], tmp_path), 3, 12, seed=0).next()
    engine.forward_backward([PackedNextToken(13, END)(ids, targets, 0)] * 2)
    engine.peak_flops = 1e12
    config, lengths = engine.model.config, [row.size for row, _ in alone(ids, targets)]
    each = sum(n * training_flops(config, n) for n in lengths) / sum(lengths)
    assert engine.gauges(1000.0)["mfu"] == pytest.approx(each * 1000 / 1e12, rel=1e-12)
    assert each < training_flops(config, config.context) and sum(lengths) == ids.size


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_starts_that_are_not_those_of_the_segments_are_refused(engine):
    """Our kernels go by them alone: of a text longer than it is said to be they would leave rows of zeros."""
    run = on_torch("sdpa") if engine == "torch" else NumpyEngine(model_of(), TrainConfig(), loss=PackedLoss())
    ids = np.array([[1, 2, END, 3, 4, 5], [1, 2, 3, 4, END, 6]])
    batch = ids, segments, starts, targets = PackedNextToken(13, END)(ids, ids, 0)
    run.forward_backward([batch])
    wider = np.pad(starts, ((0, 0), (0, 2)), constant_values=6)  # as a share of a batch with fuller rows has them
    run.forward_backward([(ids, segments, wider, targets)])
    first = [[1, 6, 6], [0, 2, 5], [0, 3, 6], [0, 6, 6], [2, 0, 6], [0, 2, 7], [-1, 2, 6]]
    for wrong in (*([row, [0, 4, 6]] for row in first), [[0, 2, 6]], [0, 4]):
        with pytest.raises(ValueError, match=r"^starts \(.*\) are not where the texts of segments \(2, 6\) begin"):
            run.forward_backward([(ids, segments, np.array(wrong), targets)])


def test_our_kernels_refuse_offsets_of_texts_that_no_row_can_hold():
    """Outside training, and where nothing is compiled, they look for themselves."""
    pytest.importorskip("triton")
    from minillm.kernels.call import interpreted

    if not interpreted() or torch.cuda.is_available():
        pytest.skip("needs Triton's interpreter; on a GPU an assertion on the device ends the process")
    model = on_torch("triton", n_layers=1).model
    ids, segments = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.zeros(2, 3, dtype=torch.int64)
    model(ids, segments=(segments, torch.tensor([0, 3, 6])))
    with pytest.raises(ValueError, match=r"\[0, 6\] has a longer sequence than max_seqlen = 3"):
        model(ids, segments=(segments, torch.tensor([0, 6])))


# --- batches ----------------------------------------------------------------------------------------------------------


def test_what_a_row_becomes():
    """The example of the class's docstring, and a row in which nothing ends."""
    a, b, c, d, e, f, g = range(7)
    ids = np.array([[a, b, END, c, d, e, END, f], [a, b, c, d, e, f, g, a]])
    targets = np.array([[b, END, c, d, e, END, f, g], [b, c, d, e, f, g, a, b]])
    same, segments, starts, wanted = PackedNextToken(13, END)(ids, targets, 0)
    assert same is ids and wanted is targets  # no target is left out
    assert segments.tolist() == [[0, 0, 1, 1, 1, 1, 2, 2], [0] * 8]
    assert starts.tolist() == [[0, 2, 6, 8, 8], [0, 8, 8, 8, 8]]
    expected = [0, 2, 6, 8, 8, 8, 16, 16, 16, 16]
    assert text_offsets(starts, 8).tolist() == text_offsets(torch.tensor(starts), 8).tolist() == expected
    with pytest.raises(ValueError, match="PackedNextToken: eos_id = 13 is outside the vocabulary of 13"):
        PackedNextToken(13, 13)


def test_another_document_changes_nothing_after_its_end():
    """To the bit: not the loss of any token of a later document in its row."""
    ids = np.array([[1, 2, 3, 4, END, 5, 6, 7, END, 8]])
    other = np.where(np.arange(10) < 4, 9, ids)
    for model, convert in ((model_of(), np.asarray), (to_torch(model_of()), torch.tensor)):
        found = []
        for row in (ids, other):
            _, segments, _, _ = PackedNextToken(13, END)(row, row, 0)
            losses = model(convert(row), convert(row), segments=convert(segments), reduction="none")
            found.append(np.asarray(losses.data if convert is np.asarray else losses.detach())[0])
        assert (found[0][4:] == found[1][4:]).all() and (found[0][:4] != found[1][:4]).any()


def test_compiles_as_one_graph_with_any_number_of_documents():
    engine = on_torch("sdpa", n_layers=1)
    model = torch.compile(engine.model, fullgraph=True, backend="eager")
    for lengths in ([12], [3, 4, 3, 1, 1]):
        row = np.concatenate([[END, *range(n - 1)] for n in lengths])[None]
        batch = [torch.tensor(array) for array in PackedNextToken(13, END)(row, row, 0)]
        assert PackedLoss()(model, *batch)[0].item() == PackedLoss()(engine.model, *batch)[0].item()


# --- runs -------------------------------------------------------------------------------------------------------------

SHORT = {"max_steps": 8, "batch_size": 2, "warmup_steps": 2, "eval_every": 4, "save_every": 4, "eval_tokens": 60}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return TextData(*[tokens([7, 20, 3, 40, 11, 2], tmp_path_factory.mktemp("text"))] * 2, PackedNextToken(13, END))


def run(text, folder, engine, **options):
    made = engine if text.objective is None else partial(engine, loss=loss_for(text.asked))
    model, config = model_of(dropout=0.1), TrainConfig(**SHORT)
    return train(model, text, config, folder, engine=made, tokenizer=Letters(), progress=False, **options)


class Stopped(Exception):
    pass


def stop_in_the_sixth(step, model):
    if step == 5:
        raise Stopped


@pytest.mark.parametrize("engine", [NumpyEngine, partial(TorchEngine, settings=EngineConfig(device="cpu"))])
def test_a_resumed_run_is_bit_for_bit_the_whole_run(text, engine, tmp_path):
    run(text, tmp_path / "whole", engine)
    with pytest.raises(Stopped):
        run(text, tmp_path / "parts", engine, before_step=stop_in_the_sixth)
    run(text, tmp_path / "parts", engine, resume=True)
    whole, parts = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts"))
    kept = ("step", "loss", "grad_norm", "tokens", "val_loss", "val_bits_per_byte", "val_documents_apart")
    assert [[row.get(key) for key in kept] for row in parts] == [[row.get(key) for key in kept] for row in whole]
    assert [row["val_documents_apart"] for row in whole if "val_loss" in row] == [True, True]
    a, b = (read_checkpoint(tmp_path / name / "last") for name in ("whole", "parts"))
    assert a.state["data"] == b.state["data"] and a.state["data"]["pack_documents"] is True
    for mine, other in ((a.model, b.model), (a.optimizer, b.optimizer)):
        assert all((mine[name] == other[name]).all() for name in mine)


def test_a_changed_setting_is_refused_by_name(text, tmp_path):
    plain = TextData(text.train, text.val)
    for first, then, was, now in ((text, plain, "true", "false"), (plain, text, "false", "true")):
        folder = tmp_path / was
        run(first, folder, NumpyEngine)
        before = (folder / "last" / "state.json").read_bytes()
        with pytest.raises(CheckpointError, match=f"pack_documents was {was} and is {now} now"):
            run(then, folder, NumpyEngine, resume=True)
        assert (folder / "last" / "state.json").read_bytes() == before


def test_data_and_loss_must_belong_together(text, tmp_path):
    with pytest.raises(ValueError, match="kept apart by PackedLoss, not by ModelLoss"):
        train(model_of(), text, TrainConfig(**SHORT), tmp_path / "loss", progress=False)
    other = TextData(text.train, text.val, PackedNextToken(13, 0))
    with pytest.raises(ValueError, match="packed with 12 between its documents, and PackedNextToken looks for 0"):
        run(other, tmp_path / "eos", NumpyEngine)


def test_evaluation_measures_each_document_by_itself_and_says_so(text):
    """With a context as long as the text, the loss is the mean over all documents alone."""
    model = model_of(context=128)
    objective = PackedNextToken(13, END)
    measured = partial(NumpyEngine(model, TrainConfig(batch_size=1), loss=PackedLoss()).batch_loss)
    result = evaluate(measured, text.val, batch_size=1, context=128, objective=objective)
    row = text.val.tokens.astype(np.int64)[None]
    losses = [model(ids, targets, reduction="sum").item() for ids, targets in alone(row[:, :-1], row[:, 1:])]
    assert result.loss == pytest.approx(sum(losses) / (row.size - 1), rel=1e-12) and result.n_tokens == row.size - 1
    assert str(result).endswith(f"({row.size - 1} tokens, each document by itself)")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus and its tokenizer; a run that keeps its documents apart."""
    folder = tmp_path_factory.mktemp("made")
    words = np.random.default_rng(0).choice(["the cat", "sees", "a dog", "and", "hears", "it"], (60, 40))
    (folder / "notes").mkdir()
    for i, row in enumerate(words):
        (folder / "notes" / f"{i}.txt").write_text(" ".join(row[: 10 + i % 30]) + f" {i}.", encoding="utf-8")
    minillm("corpus", folder / "corpus", "--from", folder / "notes", "--val-fraction", "0.2", "--near-threshold", "0")
    minillm("tokenizer", "train", folder / "corpus", "--vocab-size", "280", "--out", folder / "tokenizer.json")
    data = ["--corpus", folder / "corpus", "--tokenizer", folder / "tokenizer.json"]
    minillm("pretrain", *data, *TINY, "--set", "data.pack_documents=true", "--out", folder / "run")
    return folder


def test_the_command_and_what_evaluate_says_of_its_run(made, tmp_path, capsys):
    assert read_toml(made / "run" / "config.toml", SECTIONS)["data"]["pack_documents"] is True
    rows = [row for row in read_metrics(made / "run" / "metrics.jsonl") if "val_loss" in row]
    out = minillm("evaluate", made / "run" / "last", capsys=capsys)
    assert f"loss {rows[-1]['val_loss']:.3f}"[:-1] in out and "each document by itself" in out
    together = minillm("evaluate", made / "run" / "last", "--documents", "together", capsys=capsys)
    assert "documents one after another" in together and together.split()[4] != out.split()[4]
    error = minillm(
        "pretrain", "--resume", "--out", made / "run", "--set", "data.pack_documents=false", status=2, capsys=capsys
    )
    assert "pack_documents was true and is false now" in error
    last = read_checkpoint(made / "run" / "last")
    n_tokens, units = quiet_units(made / "run", last.folder, last.model, last.config)  # what `check` looks at, too
    assert n_tokens == 480 and units


def test_what_cannot_be_kept_apart_is_refused(made, tmp_path, capsys):
    base = ["pretrain", "--corpus", made / "corpus", *TINY, "--out", tmp_path / "run"]
    asked = ["--tokenizer", made / "tokenizer.json", "--set", "data.pack_documents=true"]
    for kind, why in (("lstm", "hands its state from one document"), ("bert", "reads its text as one")):
        error = minillm(*base, *asked, "--set", f"model.model_type={kind}", status=2, capsys=capsys)
        assert f"a model of model_type = '{kind}' {why}" in error and "leave pack_documents out" in error
    CharTokenizer.train(["the cat sees a dog and hears it 0123456789."], unk_token="<unk>", special_tokens=()).save(
        tmp_path
    )
    asked = ["--tokenizer", tmp_path / "tokenizer.json", "--set", "data.pack_documents=true"]
    error = minillm(*base, *asked, status=2, capsys=capsys)
    assert "this tokenizer has no <|endoftext|> to end one with" in error and not (tmp_path / "run").exists()
