"""Examples to batches and answers: what counts in the loss, what doesn't fit, the same answers alone and in a batch."""

import numpy as np
import pytest

from minillm.data import Labelled, Pair
from minillm.engines.numpy_engine import NumpyEngine
from minillm.finetune.data import TaskData, mean_loss
from minillm.finetune.heads import with_classifier, with_dropout, with_layers
from minillm.finetune.objectives import Classify, Continue, Misfit, Write
from minillm.finetune.predict import predict
from minillm.models import (
    GPT,
    LSTM,
    Bert,
    BertConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    GPTConfig,
    Llama,
    LlamaConfig,
    LSTMConfig,
)
from minillm.settings import IGNORE, TrainConfig
from minillm.tokenizers import CharTokenizer

TOKENIZER = Write.prepared(CharTokenizer.train(["abcdefghij klm\n?!"]))
V = TOKENIZER.vocab_size
PAD = TOKENIZER.special_tokens["<pad>"]
TEXTS = [Labelled("a cab", "x", "f.csv, line 2"), Labelled("bad", "y"), Labelled("a deaf hen.".replace("n.", "i"), "x")]
PAIRS = [Pair("abc", "cba"), Pair("feed", "def"), Pair("a b", "bb aa"), Pair("gh", "g"), Pair("jam milk", "m")]
SIZES = {"vocab_size": V, "context": 24, "n_layers": 2, "d_model": 16, "dropout": 0.0}
BODIES = {
    "gpt": GPT(GPTConfig(**SIZES, n_heads=2), np.random.default_rng(1)),
    "llama": Llama(LlamaConfig(**SIZES, n_heads=2, n_kv_heads=1, d_ff=24), np.random.default_rng(1)),
    "bert": Bert(BertConfig(**SIZES, n_heads=2, d_ff=24, pad_id=PAD), np.random.default_rng(1)),
}
SEQ2SEQ = EncoderDecoder(EncoderDecoderConfig(**SIZES, n_heads=2, d_ff=24, norm="pre", pad_id=PAD))
WRITERS = {
    "gpt": (BODIES["gpt"], Continue(TOKENIZER, TOKENIZER.eos_id, 24)),
    "lstm": (LSTM(LSTMConfig(**SIZES, d_hidden=20)), Continue(TOKENIZER, TOKENIZER.eos_id, 24)),
    "encoder-decoder": (SEQ2SEQ, Write.for_tokenizer(TOKENIZER, 24)),
}
KINDS = {
    "single_label_classification": (("x", "y"), TEXTS),
    "multi_label_classification": (("x", "y", "z"), [Labelled(t.text, (t.label, "z")) for t in TEXTS]),
    "regression": ((), [Labelled(t.text, float(i)) for i, t in enumerate(TEXTS)]),
}


def classifier(body, kind="single_label_classification"):
    labels, examples = KINDS[kind]
    model = with_classifier(BODIES[body], kind, labels, PAD, np.random.default_rng(2))
    return model, Classify(TOKENIZER, kind, labels, PAD, 24), examples


def test_a_prompt_is_masked_and_the_answer_is_asked_for_with_its_end():
    objective = WRITERS["gpt"][1]
    ids, targets = objective.encode(Pair("ab", "cd"))
    prompt, answer = TOKENIZER.encode("ab\n"), [*TOKENIZER.encode("cd"), TOKENIZER.eos_id]
    assert ids.tolist() == [*prompt, *answer[:-1]]
    assert targets.tolist() == [*[IGNORE] * (len(prompt) - 1), *answer]
    ids, targets = objective.collate([objective.encode(Pair("ab", "cd")), objective.encode(Pair("a", "b"))])
    assert targets[1].tolist()[-2:] == [IGNORE] * 2 and ids.shape == targets.shape


def test_sources_targets_and_starts_of_an_encoder_decoder():
    objective = WRITERS["encoder-decoder"][1]
    source, ids, targets = objective.collate([objective.encode(Pair("ab", "cde")), objective.encode(Pair("a", "b"))])
    assert source.tolist() == [TOKENIZER.encode("ab"), [*TOKENIZER.encode("a"), PAD]]
    assert ids[0].tolist() == [objective.start_id, *TOKENIZER.encode("cde")]
    assert targets.tolist() == [
        [*TOKENIZER.encode("cde"), objective.end_id],
        [*TOKENIZER.encode("b"), objective.end_id, IGNORE, IGNORE],
    ]


def test_what_special_tokens_are_called_is_ordinary_text_in_an_example():
    from minillm.tokenizers import BPETokenizer

    tokenizer = BPETokenizer.train(["some text"], 300)
    ids = Continue(tokenizer, tokenizer.eos_id, 99).inputs(Pair("<|endoftext|>", "a"))[0]
    assert tokenizer.eos_id not in ids and tokenizer.decode(ids) == "<|endoftext|>\n"


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_each_text_of_a_padded_batch_gets_the_answer_that_it_gets_alone(body, kind, engine):
    model, objective, examples = classifier(body, kind)
    if engine == "torch":
        pytest.importorskip("torch")
        from minillm.port import to_torch

        model = to_torch(model)
    together = predict(model, objective, examples)
    alone = [predict(model, objective, [example])[0] for example in examples]
    for a, b in zip(together, alone):
        if kind == "regression":
            assert a.value == pytest.approx(b.value, rel=1e-5, abs=1e-7)
        else:
            assert a.value == b.value
            np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=1e-5)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("beams", [1, 2])
def test_each_answer_of_a_batch_is_the_one_given_alone(writer, beams):
    model, objective = WRITERS[writer]
    options = {"max_new_tokens": 6, "n_beams": beams}
    together = predict(model, objective, PAIRS, **options)
    assert together == [predict(model, objective, [pair], **options)[0] for pair in PAIRS]


@pytest.mark.parametrize("what", [*BODIES, *WRITERS])
def test_padding_and_the_way_a_batch_is_cut_change_no_gradient(what):
    """A big batch, and the same rows one at a time: unequal lengths, one gradient (to 1e-12 in float64)."""
    model, objective, examples = (*WRITERS[what], PAIRS) if what in WRITERS else classifier(what)
    rows = [objective.encode(example) for example in examples]
    whole = [objective.collate(rows)]
    cut = [objective.collate([row]) for row in rows]
    found = []
    for batches in (whole, cut):
        copied = with_dropout(model, 0.0).to(np.float64)
        engine = NumpyEngine(copied, TrainConfig())
        loss = engine.forward_backward(batches)
        found.append((loss, {name: p.grad for name, p in copied.named_parameters() if p.grad is not None}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], gradient, rtol=0, atol=1e-12, err_msg=name)


def test_the_mean_loss_does_not_depend_on_the_batches():
    model, objective = WRITERS["gpt"]
    rows = [objective.encode(pair) for pair in PAIRS]
    run = NumpyEngine(with_dropout(model, 0.0).to(np.float64), TrainConfig())
    losses = [mean_loss(run.batch_loss, objective, rows, size) for size in (1, 2, 5)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-12)


def test_a_loss_of_numbers_counts_every_number_and_minus_a_hundred_is_one_of_them():
    model, objective, _ = classifier("gpt", "regression")
    rows = [objective.encode(Labelled("ab", -100.0)), objective.encode(Labelled("b", 3.0))]
    run = NumpyEngine(model, TrainConfig())
    guesses = [answer.value for answer in predict(model, objective, [Labelled("ab", 0.0), Labelled("b", 0.0)])]
    expected = ((guesses[0] + 100) ** 2 + (guesses[1] - 3) ** 2) / 2
    assert mean_loss(run.batch_loss, objective, rows, 2) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_an_evaluation_uses_no_dropout_and_leaves_the_mode_as_it_was(mode):
    model, objective, examples = classifier("gpt")
    model = with_dropout(model, 0.5)
    data = TaskData(objective, examples, examples, score=lambda e, a: {"x": 1.0}, metric="x")
    run = NumpyEngine(model, TrainConfig())
    model.train(mode)
    first, second = (data.evaluate(run, TrainConfig(), 24).loss for _ in range(2))
    assert first == second and all(module.training == mode for _, module in model.named_modules())


@pytest.mark.parametrize("kind", KINDS)
def test_classes_and_numbers_as_targets(kind):
    _, objective, examples = classifier("gpt", kind)
    _, targets = objective.collate([objective.encode(example) for example in examples])
    wanted = {
        "single_label_classification": [0, 1, 0],
        "multi_label_classification": [[1, 0, 1], [0, 1, 1], [1, 0, 1]],
        "regression": [[0], [1], [2]],
    }
    assert targets.tolist() == wanted[kind]
    assert targets.dtype == (np.int64 if kind.startswith("single") else np.float32)


@pytest.mark.parametrize(
    ("objective", "example", "says"),
    [
        (Classify(TOKENIZER, "single_label_classification", ("x",), PAD, 4), Labelled("abcde", "x", "f.csv, line 7"),
         r"f.csv, line 7: 5 tokens do not fit into the model's 4. .*--cut"),
        (Classify(TOKENIZER, "single_label_classification", ("x",), PAD, 4), Labelled("ab", "q", "f.csv, line 8"),
         "f.csv, line 8: the label 'q' is none of those that the model knows: 'x'"),
        (Classify(TOKENIZER, "single_label_classification", ("x",), PAD, 4), Labelled("aZ", "x", "f.csv, line 9"),
         "f.csv, line 9: .*'Z'"),
        (Write.for_tokenizer(TOKENIZER, 4), Pair("abcde", "a", "p.tsv, line 3"), "p.tsv, line 3: the source has 5 tok"),
        (Write.for_tokenizer(TOKENIZER, 4), Pair("ab", "abcd", "p.tsv, line 4"), "p.tsv, line 4: the target has 5 tok"),
        (Continue(TOKENIZER, 0, 4), Pair("ab", "abcd", "p.tsv, line 5"), "p.tsv, line 5: prompt and answer have 7 tok"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_with_its_place_and_what_to_do(objective, example, says):
    with pytest.raises(Misfit, match=says):
        objective.encode(example)


def test_a_text_that_is_too_long_is_cut_where_that_is_asked_for():
    objective = Classify(TOKENIZER, "single_label_classification", ("x",), PAD, 4, cut=True)
    assert TOKENIZER.decode(objective.encode(Labelled("abcdefg", "x"))[0]) == "abcd"


@pytest.mark.parametrize("body", BODIES)
def test_a_new_head_keeps_the_body_and_leaves_the_model_alone(body):
    before = {name: p.data.copy() for name, p in BODIES[body].named_parameters()}
    model, _, _ = classifier(body)
    inside = "" if body == "bert" else "decoder."
    kept = {name: p.data for name, p in model.named_parameters()}
    shared = [name for name in before if inside + name in kept]
    assert len(shared) >= 10 and model.config.labels == ("x", "y")
    for name in shared:
        np.testing.assert_array_equal(kept[inside + name], before[name], err_msg=name)
    assert with_classifier(model, "single_label_classification", ("x", "y"), PAD, np.random.default_rng(3)) is model
    third = with_classifier(model, "single_label_classification", ("x", "y", "z"), PAD, np.random.default_rng(3))
    assert third.config.n_labels == 3
    np.testing.assert_array_equal(third.state_dict()[inside + shared[0]], before[shared[0]])
    for name, p in BODIES[body].named_parameters():
        np.testing.assert_array_equal(p.data, before[name])


@pytest.mark.parametrize("body", ["gpt", "llama"])
def test_added_layers_change_nothing_at_first_and_learn(body):
    model = BODIES[body]
    deeper = with_layers(model, 2, 0, np.random.default_rng(3))
    ids = np.arange(6)[None]
    np.testing.assert_allclose(deeper(ids).data, model(ids).data, rtol=1e-6, atol=1e-7)
    assert deeper.config.n_layers == 4 and len(deeper.blocks) == 4
    deeper(ids, targets=ids).backward()
    grown = [name for name, p in deeper.named_parameters() if name.startswith("blocks.3") and np.any(p.grad)]
    assert len(grown) >= 2


@pytest.mark.parametrize("body", BODIES)
def test_top_layers_are_drawn_anew_and_nothing_else(body):
    model = BODIES[body]
    renewed = with_layers(model, 0, 1, np.random.default_rng(3)).state_dict()
    for name, array in model.state_dict().items():
        differs = name.startswith("blocks.1") and array.ndim == 2
        assert np.array_equal(renewed[name], array) != differs, name
    with pytest.raises(ValueError, match="at most 2"):
        with_layers(model, 0, 3, np.random.default_rng(3))


def test_layers_that_cannot_be_added_are_refused():
    with pytest.raises(ValueError, match=r"a bert gets no new layers: gpt, llama, gemma, moe can \(bert"):
        with_layers(BODIES["bert"], 1, 0, np.random.default_rng(3))


def test_a_model_without_features_to_label_is_refused():
    with pytest.raises(ValueError, match="'lstm' has no head for classes: those of gpt, llama, gemma, moe, bert"):
        with_classifier(WRITERS["lstm"][0], "regression", (), PAD, np.random.default_rng(0))


def test_a_model_whose_head_is_for_other_labels_is_named_before_training():
    model, objective, examples = classifier("gpt")
    three = with_classifier(model, "single_label_classification", ("x", "y", "z"), PAD, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"with 2 labels, the model's head is .* with 3"):
        TaskData(objective, examples, examples).check(three.config, TOKENIZER)


@pytest.mark.parametrize("what", ["gpt", "llama", "bert", "writer gpt", "writer lstm", "writer encoder-decoder"])
@pytest.mark.parametrize("kind", KINDS)
def test_numpy_equals_torch_for_every_objective(what, kind):
    """100 AdamW steps in float64: losses and weights within 1e-10."""
    torch = pytest.importorskip("torch")
    from minillm.engines.torch_engine import TorchEngine
    from minillm.port import to_torch
    from minillm.settings import EngineConfig

    if what.startswith("writer"):
        if kind != "regression":
            pytest.skip("writers have one objective, tried once")
        model, objective, examples = *WRITERS[what.split()[1]], PAIRS
    else:
        model, objective, examples = classifier(what, kind)
    config = TrainConfig(lr=3e-3, batch_size=2)
    data = TaskData(objective, examples, examples)
    ours = NumpyEngine(with_dropout(model, 0.0).to(np.float64), config)
    ported = to_torch(with_dropout(model, 0.0).to(np.float64))
    theirs = TorchEngine(ported, config, EngineConfig(name="torch", device="cpu", compile="off"))
    assert next(ported.parameters()).dtype == torch.float64
    batches = [data.batches(ours, config, 24) for _ in range(2)]
    for _ in range(100):
        for run, batcher in zip((ours, theirs), batches):
            run.last = run.read(run.forward_backward([batcher.next()]))[0]
            run.clip_gradients(1.0)
            run.step(3e-3)
        assert ours.last == pytest.approx(theirs.last, rel=1e-10, abs=1e-10)
    for name, p in ours.model.named_parameters():
        np.testing.assert_allclose(theirs.model_arrays()[name], p.data, rtol=0, atol=1e-9, err_msg=name)
