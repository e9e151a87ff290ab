"""Chapter 11's bookkeeping: wrong labels, the weights that are kept, the table it quotes."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from minillm.workshop import finetuning

from minillm.data.tasks import transfer
from minillm.finetune.heads import with_classifier
from minillm.finetune.objectives import Classify
from minillm.models.gpt import GPT, GPTConfig
from minillm.tokenizers import CharTokenizer

KIND = "single_label_classification"


def test_wrong_labels_are_turned_and_the_texts_stay():
    examples = transfer.make(0, 256)["train"]
    wrong = finetuning.with_wrong_labels(examples, 0.2, seed=3)
    assert [e.text for e in wrong] == [e.text for e in examples]
    turned = [a.label != b.label for a, b in zip(wrong, examples)]
    assert 0.1 < np.mean(turned) < 0.3 and {e.label for e in wrong} == set(transfer.LABELS)
    assert (
        wrong == finetuning.with_wrong_labels(examples, 0.2, seed=3) != finetuning.with_wrong_labels(examples, 0.2, 4)
    )
    assert finetuning.with_wrong_labels(examples, 0.0, seed=3) == examples


@pytest.mark.parametrize("keep", ["loss", "accuracy"])
def test_the_best_weights_are_kept(keep):
    task = transfer.make(1, 64)
    train, val = finetuning.with_wrong_labels(task["train"], 0.3, 0), task["val"][:40]
    tokenizer = CharTokenizer.train([e.text for part in (train, val) for e in part])
    pad = tokenizer.vocab_size
    gpt = GPT(GPTConfig(pad + 1, 80, 1, 2, 16, dropout=0.0), np.random.default_rng(0))
    model = with_classifier(gpt, KIND, transfer.LABELS, pad, np.random.default_rng(1))
    objective = Classify(tokenizer, KIND, transfer.LABELS, pad, 80)
    options = {"steps": 30, "lr": 2e-2, "seed": 0, "constant": True, "val": val, "every": 5}
    points = finetuning.learn(model, objective, train, keep=keep, **options)
    loss, accuracy = finetuning.measure(model, objective, val)
    assert [p.step for p in points] == [0, 5, 10, 15, 20, 25, 30]
    best = min(points, key=lambda p: p.val) if keep == "loss" else max(points, key=lambda p: p.accuracy)
    assert (loss, accuracy) == pytest.approx((best.val, best.accuracy)) and best is not points[-1]


def test_the_table_that_is_quoted_is_there(tmp_path):
    lines, rows = finetuning.full_table(Path(__file__).parents[1] / "bench" / "RESULTS.md")
    assert lines.startswith("| | 16 labels | 64 labels | 256 labels |")
    assert {"bag of words", "from scratch", "pretrained here, LoRA", "MiniLM, full"} <= set(rows)
    assert all(len(means) == 3 and 0 <= min(means) <= max(means) <= 1 for means in rows.values())
    assert finetuning.full_table(tmp_path / "RESULTS.md") == ("", {})


def test_tokens_of_like_company_get_like_vectors():
    rows = [[1, 2, 5], [1, 3, 5], [2, 3, 5], [6, 7, 5], [6, 8, 5], [7, 8, 5]] * 5
    vectors = finetuning.counted_vectors(rows, 10, d=4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert vectors.shape == (10, 4) and unit[1] @ unit[2] > unit[1] @ unit[7] + 0.5


def test_vectors_do_not_depend_on_the_signs_that_a_processor_chooses(monkeypatch):
    rows = [[1, 2, 5], [1, 3, 5], [2, 3, 5], [6, 7, 5], [6, 8, 5], [7, 8, 5], [1, 6, 5]] * 5
    expected, svd = finetuning.counted_vectors(rows, 10, d=4), np.linalg.svd

    def otherwise(*args, **kwargs):
        left, sizes, right = svd(*args, **kwargs)
        return -left, sizes, -right

    monkeypatch.setattr(np.linalg, "svd", otherwise)
    np.testing.assert_array_equal(finetuning.counted_vectors(rows, 10, d=4), expected)
