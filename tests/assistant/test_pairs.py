"""Pairs of answers: rows that learn the answers only, a reference that is computed once, and whole training runs."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from minillm.assistant.conversations import ChatTemplate
from minillm.assistant.pairs import Pairs, PreferenceData, moved
from minillm.assistant.preferences import PreferenceConfig, PreferenceLoss, answer_log_probs
from minillm.assistant.reference import log_probs_of, reference_log_probs
from minillm.data import Preference
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.finetune.lora import LoraConfig, adapters, add_lora
from minillm.finetune.objectives import Misfit
from minillm.models import GPT, GPTConfig
from minillm.settings import IGNORE, TrainConfig
from minillm.tokenizers import CharTokenizer
from minillm.tokenizers.extend import with_special_tokens
from minillm.training.run_log import read_metrics
from minillm.training.train import train

pytest.importorskip("jinja2", reason="chat templates need jinja2")

CHAR = with_special_tokens(CharTokenizer.train(["abcdefghijklmnopqrstuvwxyz \n"]), ["<|im_start|>", "<|im_end|>"])
TEMPLATE = ChatTemplate.chatml(CHAR)
PAIRS = [
    Preference(f"say {word}", word, word[::-1] + " no", f"pairs.jsonl, line {i}")
    for i, word in enumerate(["abc", "defg", "hi there", "jkl", "mn", "opq rst", "uvw"], 1)
]
CONTEXT = 64


def make_model(dtype=np.float64, seed=0, dropout=0.0):
    config = GPTConfig(CHAR.vocab_size, CONTEXT, n_layers=2, n_heads=2, d_model=16, dropout=dropout)
    return GPT(config, np.random.default_rng(seed)).to(dtype)


def make_data(config, folder, train=PAIRS, val=PAIRS[:3], **options):
    file = folder / "reference.safetensors"
    return PreferenceData(config, TEMPLATE, train, val, CONTEXT, file, progress=False, **options)


ENGINES = {
    "numpy": NumpyEngine,
    "threads": partial(ThreadedNumpyEngine, threads=3),
}
every_engine = pytest.mark.parametrize("engine", [*ENGINES, "torch"])


def engine_named(name):
    if name != "torch":
        return ENGINES[name]
    pytest.importorskip("torch")
    from minillm.engines.torch_engine import TorchEngine

    return TorchEngine


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_learns_the_answer_and_its_end_alone():
    row = Pairs(TEMPLATE, CONTEXT).encode(PAIRS[0])
    end = CHAR.special_tokens["<|im_end|>"]
    for ids, targets, answer in ((row[0], row[1], "abc"), (row[2], row[3], "cba no")):
        assert len(targets) == len(ids) - 1 and ids[-1] == end  # nothing of what stands behind the end
        kept = targets != IGNORE
        assert targets[kept].tolist() == [*CHAR.encode(answer), end]
        np.testing.assert_array_equal(targets[kept], ids[1:][kept])
        prompt = TEMPLATE.prompt([{"role": "user", "content": "say abc"}])
        assert ids[: len(prompt)].tolist() == prompt and not kept[: len(prompt) - 1].any()


def test_a_prompt_may_be_messages_and_have_a_system_message():
    turns = (("user", "a"), ("assistant", "b"), ("user", "c"))
    messages = tuple({"role": role, "content": text} for role, text in turns)
    ids = Pairs(TEMPLATE, CONTEXT, system="be nice").encode(Preference(messages, "x", "y"))[0]
    before = TEMPLATE.prompt([{"role": "system", "content": "be nice"}, *messages])
    assert ids[: len(before)].tolist() == before
    assert CHAR.decode(ids[len(before) : -1].tolist()) == "x"


def test_batches_hold_both_answers_of_each_pair():
    objective = Pairs(TEMPLATE, CONTEXT)
    rows = [objective.encode(pair) for pair in PAIRS]
    ids, targets = objective.collate(rows)
    assert ids.shape == targets.shape == (len(PAIRS), 2, max(objective.size(row) for row in rows) // 2)
    for got_ids, got_targets, row in zip(ids, targets, rows):
        for j in (0, 1):
            n = len(row[2 * j + 1])
            np.testing.assert_array_equal(got_ids[j, :n], row[2 * j][:-1])
            np.testing.assert_array_equal(got_targets[j, :n], row[2 * j + 1])
            assert (got_targets[j, n:] == IGNORE).all()


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (Preference("a", "b", " ", "f.jsonl, line 3"), "f.jsonl, line 3: the rejected answer is empty: write a text"),
        (Preference("a", "", "b", "f.jsonl, line 3"), "line 3: the chosen answer is empty"),
        (Preference("a", "b", "b", "f.jsonl, line 4"), "line 4: chosen and rejected are the same, as the chat"),
        (Preference("a", "b" * 80, "b", "f.jsonl, line 5"), "line 5: the chosen answer with its prompt .* takes 64"),
        (Preference("a", "b", "b<|im_end|>", "f.jsonl, line 6"), "line 6: message 2 holds '<|im_end|>'"),
    ],
)
def test_what_the_model_cannot_be_given_says_where_it_stands(pair, words, tmp_path):
    with pytest.raises(Misfit, match=words):
        make_data(PreferenceConfig("orpo"), tmp_path, [*PAIRS, pair])


def test_answers_that_a_template_makes_alike_are_refused():
    trimming = ChatTemplate(TEMPLATE.source.replace("message.content", "message.content | trim"), CHAR, {})
    if trimming.source == TEMPLATE.source:
        trimming = ChatTemplate(TEMPLATE.source.replace("['content']", "['content'] | trim"), CHAR, {})
    assert trimming.source != TEMPLATE.source
    pair = Preference("a", "b", "b ", "f.jsonl, line 9")
    Pairs(TEMPLATE, CONTEXT).encode(pair)
    with pytest.raises(Misfit, match="line 9: chosen and rejected are the same"):
        Pairs(trimming, CONTEXT).encode(pair)


def test_what_does_not_go_together_is_refused(tmp_path):
    with pytest.raises(ValueError, match="metric = 'bleu' is none that pairs of answers have: they are loss, accuracy"):
        make_data(PreferenceConfig(), tmp_path, metric="bleu")
    with pytest.raises(ValueError, match="at least two pairs"):
        make_data(PreferenceConfig("kto"), tmp_path, val=PAIRS[:1])
    with pytest.raises(ValueError, match="they do not belong together"):
        make_data(PreferenceConfig("orpo"), tmp_path).check(GPTConfig(3, CONTEXT, n_heads=2, d_model=16), None)


# --- the reference ----------------------------------------------------------------------------------------------------


@every_engine
def test_reference_is_what_the_model_gives_row_by_row(engine, tmp_path):
    run = engine_named(engine)(make_model(dropout=0.5), TrainConfig(batch_size=3))
    data = make_data(PreferenceConfig("dpo"), tmp_path)
    data.batches(run, TrainConfig(batch_size=3), CONTEXT)
    plain = make_model()
    for rows in (data.rows, data.val_rows):
        for row in rows:
            for j in (0, 1):
                alone = answer_log_probs(plain, row[2 * j][None, :-1], row[2 * j + 1][None]).data
                assert row[-1][j] == pytest.approx(alone[0], rel=1e-12)
            assert row[-1].dtype == np.float64


def asked(run, monkeypatch):
    """How many rows the reference is asked for, a list that grows."""
    from minillm.assistant import reference

    seen = []

    def counting(run, rows, batch_size, **options):
        seen.append(len(rows))
        return log_probs_of(run, rows, batch_size, **options)

    monkeypatch.setattr(reference, "log_probs_of", counting)
    return seen


def test_the_reference_is_computed_once(tmp_path, monkeypatch, capsys):
    path, objective = tmp_path / "reference.safetensors", Pairs(TEMPLATE, CONTEXT)
    rows = {"train": [objective.encode(pair) for pair in PAIRS], "val": [objective.encode(PAIRS[0])]}
    run = NumpyEngine(make_model(), TrainConfig())
    seen = asked(run, monkeypatch)
    first = reference_log_probs(run, rows, path, 4)
    assert first["train"].shape == (7, 2) and first["val"].shape == (1, 2) and seen == [7, 1]
    again = reference_log_probs(run, rows, path, 2)
    assert seen == [7, 1] and all((again[name] == first[name]).all() for name in first)
    assert capsys.readouterr().out == ""

    other = NumpyEngine(make_model(seed=1), TrainConfig())  # other weights
    changed = reference_log_probs(other, rows, path, 4)
    assert seen == [7, 1, 7, 1] and not (changed["train"] == first["train"]).any()
    assert "reference.safetensors is of other weights: the reference is computed anew" in capsys.readouterr().out

    fewer = {**rows, "train": rows["train"][:-1]}  # other pairs
    reference_log_probs(other, fewer, path, 4)
    assert len(seen) == 6 and "is of other pairs, or another template or tokenizer" in capsys.readouterr().out

    data = bytearray(path.read_bytes())
    data[-5] ^= 1  # a damaged one
    path.write_bytes(data)
    back = reference_log_probs(other, fewer, path, 4)
    assert len(seen) == 8 and "is damaged (its checksum" in capsys.readouterr().out
    np.testing.assert_allclose(back["train"], changed["train"][:-1], rtol=1e-12)
    path.write_bytes(data[:50])
    reference_log_probs(other, fewer, path, 4, progress=False)
    assert len(seen) == 10 and capsys.readouterr().out == ""
    assert (reference_log_probs(other, fewer, path, 4)["val"] == back["val"]).all() and len(seen) == 10


@every_engine
def test_the_reference_is_the_model_without_adapters(engine, tmp_path):
    model = make_model()
    expected = make_data(PreferenceConfig("dpo"), tmp_path / "plain")
    expected.batches(NumpyEngine(model, TrainConfig()), TrainConfig(), CONTEXT)
    add_lora(model, LoraConfig(rank=2), np.random.default_rng(0))
    for layer in adapters(model).values():
        layer.lora_B.data += 0.5  # as if it had learned
    run = engine_named(engine)(model, TrainConfig(batch_size=4))
    data = make_data(PreferenceConfig("dpo"), tmp_path / "lora")
    data.batches(run, TrainConfig(batch_size=4), CONTEXT)
    np.testing.assert_allclose([row[-1] for row in data.rows], [row[-1] for row in expected.rows], rtol=1e-12)
    assert not np.allclose(log_probs_of(run, data.bare["train"], 4), [row[-1] for row in data.rows])  # back again
    # The base is what the file is of: adapters that have learned don't make it stale.
    kept = (tmp_path / "lora" / "reference.safetensors").stat().st_mtime_ns
    for layer in adapters(run.model).values():
        layer.lora_B.data += 0.5
    make_data(PreferenceConfig("dpo"), tmp_path / "lora").batches(run, TrainConfig(batch_size=4), CONTEXT)
    assert (tmp_path / "lora" / "reference.safetensors").stat().st_mtime_ns == kept


# --- training ---------------------------------------------------------------------------------------------------------


@every_engine
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dpo_begins_without_margin_at_ln_2(engine, lora, dtype, tmp_path):
    model = make_model(dtype)
    if lora:
        add_lora(model, LoraConfig(rank=2), np.random.default_rng(0))
    config = PreferenceConfig("dpo")
    run = engine_named(engine)(model, TrainConfig(batch_size=4), loss=PreferenceLoss(config))
    batch = make_data(config, tmp_path).batches(run, TrainConfig(batch_size=4), CONTEXT).next()
    assert [array.shape[0] for array in batch] == [4, 4, 4]
    loss = float(run.forward_backward([batch]))
    precision = 1e-6 if dtype == np.float32 else 1e-14
    assert loss == pytest.approx(math.log(2), abs=precision)
    assert abs(run.gauges(1.0)["margin"]) < 10 * precision
    assert float(run.clip_gradients(0.0)) > 1e-3
    learns = {name for name, p in run.model.named_parameters() if p.grad is not None and float(abs(p.grad).max()) > 0}
    assert all("lora_B" in name for name in learns) if lora else len(learns) > 10  # A learns once B is not 0


def test_kto_measures_how_far_the_model_has_moved(tmp_path):
    config, settings = PreferenceConfig("kto"), TrainConfig(batch_size=4)
    data = make_data(config, tmp_path)
    for i, row in enumerate(data.bare["train"]):  # behind each prompt stands the next pair's answer
        other = PAIRS[(i + 1) % len(PAIRS)]
        prompt = TEMPLATE.prompt([{"role": "user", "content": PAIRS[i].prompt}])
        assert row[4][: len(prompt)].tolist() == prompt
        answer = other.rejected if i % 2 else other.chosen
        assert CHAR.decode(row[4][len(prompt) : -1].tolist()) == answer
    batches = []
    for name in ("numpy", "threads"):
        run = engine_named(name)(make_model(), settings, loss=PreferenceLoss(config))
        batcher = data.batches(run, settings, CONTEXT)
        assert batcher.ahead is False
        assert batcher.next()[3].tolist() == pytest.approx([0.0] * 4, abs=1e-12)  # it has not moved yet
        model = run.model
        rng = np.random.default_rng(5)
        for p in model.parameters():
            p.data += rng.normal(0, 0.05, p.shape)
        places, _ = batcher.rows_at(batcher.first_row + np.arange(4))
        rows = [data.rows[i] for i in places]
        now = [answer_log_probs(model, row[4][None, :-1], row[5][None]).data[0] for row in rows]
        z = max(0.0, float(np.mean([after - row[-1][2] for after, row in zip(now, rows)])))
        batch = batcher.next()
        assert batch[3].tolist() == pytest.approx([z] * 4, rel=1e-10) and [len(a) for a in batch] == [4] * 4
        batches.append(batch)
        assert data.evaluate(run, settings, CONTEXT).loss == pytest.approx(by_pairs(config, data, model), rel=1e-10)
    for a, b in zip(*batches):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    run.outputs = lambda function: lambda ids, targets: np.full(len(ids), 100.0)  # however likely they are now
    assert moved(run, rows, 4) == pytest.approx(100 - np.mean([row[-1][2] for row in rows]))
    run.outputs = lambda function: lambda ids, targets: np.full(len(ids), -1e4)
    assert moved(run, rows, 4) == 0.0


def by_pairs(config, data, model):
    """The validation loss, pair by pair."""
    z = [answer_log_probs(model, row[4][None, :-1], row[5][None]).data[0] - row[-1][2] for row in data.val_rows]
    loss, total = PreferenceLoss(config), 0.0
    for row in data.val_rows:
        objective = Pairs(TEMPLATE, CONTEXT, kl=max(0.0, float(np.mean(z))))
        total += loss(model, *objective.collate([row]))[0].item()
    return total / len(data.val_rows)


@pytest.mark.parametrize("name", ["dpo", "ipo", "kto", "orpo", "simpo"])
def test_a_run_learns_its_pairs_and_resumes(name, tmp_path):
    config = PreferenceConfig(name)
    settings = TrainConfig(
        batch_size=4, eval_every=6, save_every=6, lr=5e-3, warmup_steps=0, weight_decay=0.0, schedule="constant"
    )

    def run(steps, folder, **options):
        data = make_data(config, tmp_path / folder, metric="margin")
        engine = partial(NumpyEngine, loss=PreferenceLoss(config))
        return train(
            make_model(np.float32), data, replace(settings, max_steps=steps), tmp_path / folder, engine=engine,
            progress=False, **options,
        )  # fmt: skip

    result = run(12, "whole")
    evaluation = result.evaluation
    assert evaluation.metrics["accuracy"] == 1 and evaluation.score == -evaluation.metrics["margin"] < 0
    rows = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert {"margin", "accuracy", "chosen_reward", "rejected_reward", "chosen_log_prob"} <= rows[0].keys()
    if config.has_reference:
        assert abs(rows[0]["margin"]) < 1e-5
    assert (tmp_path / "whole" / "reference.safetensors").exists() == config.has_reference
    run(6, "parts")
    resumed = run(12, "parts", resume=True)
    assert resumed.evaluation == evaluation  # to the last bit


class OtherProcess(NumpyEngine):
    """The second of two processes, which has not all of the weights; `verdict`: what the first one found."""

    rank, world_size, verdict = 1, 2, 0.0

    def model_arrays(self):
        return {}

    def agree(self, value):
        assert value == 0  # it has no say
        return self.verdict


def test_other_processes_follow_the_first(tmp_path, monkeypatch, capsys):
    path, rows = tmp_path / "reference.safetensors", {"train": [Pairs(TEMPLATE, CONTEXT).encode(p) for p in PAIRS]}
    other = OtherProcess(make_model(), TrainConfig())
    seen = asked(other, monkeypatch)
    other.verdict = 1.0  # there is no file yet: all compute, the first one writes
    computed = reference_log_probs(other, rows, path, 4)["train"]
    assert seen == [7] and not path.exists()
    first = reference_log_probs(NumpyEngine(make_model(), TrainConfig()), rows, path, 4)["train"]
    np.testing.assert_array_equal(computed, first)
    other.verdict = 0.0  # the first one has read it
    np.testing.assert_array_equal(reference_log_probs(other, rows, path, 4)["train"], first)
    assert seen == [7, 7]
    path.unlink()
    with pytest.raises(OSError, match="cannot be read by process 1: all must see the folder of the run"):
        reference_log_probs(other, rows, path, 4)
    assert capsys.readouterr().out == ""


def test_a_file_of_the_users_is_not_overwritten(tmp_path):
    (tmp_path / "reference.safetensors").write_text("my own notes")
    data = make_data(PreferenceConfig("dpo"), tmp_path)
    with pytest.raises(FileExistsError, match=r"reference.safetensors was not made by minillm, and is not overwritten"):
        data.batches(NumpyEngine(make_model(), TrainConfig()), TrainConfig(batch_size=4), CONTEXT)
    assert (tmp_path / "reference.safetensors").read_text() == "my own notes"


def test_an_answer_may_fill_the_context():
    """Its last token is a target only, so that one more than the context fits."""
    length = len(Pairs(TEMPLATE, CONTEXT).encode(Preference("a", "b", "c"))[0]) - 1
    exact = CONTEXT + 1 - length
    row = Pairs(TEMPLATE, CONTEXT).encode(Preference("a", "b" * exact, "c"))
    assert len(row[1]) == CONTEXT and make_model().hidden(row[0][None, :-1]).shape[1] == CONTEXT
    with pytest.raises(Misfit, match=f"has {CONTEXT + 1} tokens"):
        Pairs(TEMPLATE, CONTEXT).encode(Preference("a", "b" * (exact + 1), "c"))
