"""Chapter 13's bookkeeping: what is asked and held out, what people prefer, the best of n, what is measured."""

from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from minillm.workshop import conversing as talk

from minillm.assistant.conversations import ChatTemplate
from minillm.assistant.vocabulary import with_chat_tokens
from minillm.finetune.heads import with_classifier
from minillm.tensor import Parameter


@pytest.fixture(scope="module")
def small():
    """(base, its tokenizer, a model with chat tokens, its template)."""
    base, tokenizer, losses = talk.pretrain(3, count=300)
    assert len(losses) == 3
    model, extended = with_chat_tokens(base, tokenizer)
    return base, tokenizer, model, ChatTemplate.chatml(extended)


def words(question):
    return tuple(message["content"] for message in question.messages)


def test_no_question_is_in_both_parts_and_no_document_answers_one_that_is_held_out():
    train, test = talk.questions(600, seed=1), talk.questions(200, seed=1, test=True)
    assert not {words(q) for q in train} & {words(q) for q in test}
    assert [q.kind for q in test[:6]] == [*talk.KINDS, *talk.KINDS]
    rng = np.random.default_rng(0)
    read = " ".join(talk.document(rng) for _ in range(3000))
    found = {kind: [talk.statement(q) in read for q in test if q.kind == kind] for kind in talk.KINDS}
    assert not any(found["sum"]) and not any(found["recall"])
    assert np.mean([talk.statement(q) in read for q in train if q.kind == "recall"]) > 0.9


def test_the_words_that_are_right_are_right():
    for question in talk.questions(60, seed=2):
        said = words(question)[-1].rstrip(".?").split()
        if question.kind == "sort":
            assert question.right == f"It is {' '.join(sorted(said[1:], key=int))}."
        elif question.kind == "sum":
            assert question.right == f"It is {int(said[3]) + int(said[5])}."
        else:
            assert question.right == f"You live in {words(question)[0].rstrip('.').split()[-1]}."


def test_a_sheet_has_questions_and_no_answers():
    rng = np.random.default_rng(3)
    texts = [talk.document(rng) for _ in range(200)]
    sheets = [text for text in texts if "Sort" in text or "How much" in text]
    assert 25 < len(sheets) < 80 and not any(" is " in text.replace("How much is", "") for text in sheets)


@pytest.mark.parametrize(
    ("text", "liked", "style"),
    [
        ("It is 13.", 2, "plain"),
        ("Gladly! It is 13.", 3, "warm"),
        ("Well, well. It is 13.", 1, "wordy"),
        ("Gladly! It is 12.", 1, "warm"),
        ("It is 13. It is 13.", 0, "plain"),
        ("", 0, "plain"),
    ],
)
def test_what_people_like(text, liked, style):
    question = talk.Question("sum", (talk.turn("user", "How much is 6 plus 7?"),), "It is 13.")
    assert talk.liking(text, question) == liked and talk.style_of(text) == style
    assert talk.is_right(text, question) == ("13" in text and text.count("is") == 1)


def test_people_choose_as_bradley_and_terry_say():
    question = talk.Question("sum", (talk.turn("user", "How much is 6 plus 7?"),), "It is 13.")
    rng = np.random.default_rng(4)
    pairs = [talk.compare(question, "It is 13.", "Gladly! It is 13.", rng) for _ in range(3000)]
    share = np.mean([pair.chosen.startswith("Gladly") for pair in pairs])
    assert abs(share - 1 / (1 + np.exp(-1))) < 0.03
    assert talk.compare(question, "It is 13.", "It is 13.", rng) is None
    assert talk.compare(question, "It is 13.", " ", rng) is None


def test_shown_answers_are_right_in_three_manners():
    rng = np.random.default_rng(5)
    chats = [(q, talk.shown(q, rng)[-1]["content"]) for q in talk.questions(300, seed=5)]
    assert all(talk.is_right(text, q) for q, text in chats)
    found = [talk.style_of(text) for _, text in chats]
    assert {name: found.count(name) > 60 for name in talk.STYLES} == dict.fromkeys(talk.STYLES, True)


def test_the_best_of_n_is_the_mean_over_all_choices():
    rng = np.random.default_rng(6)
    said, worth = rng.normal(size=(3, 7)), rng.normal(size=(3, 7))
    for n in (1, 3, 7):
        expected = [
            np.mean([w[max(chosen, key=lambda i: s[i])] for chosen in combinations(range(7), n)])
            for s, w in zip(said, worth)
        ]
        assert np.allclose(talk.best_of(said, worth, n), expected)


def test_running_means():
    rows = np.array([[0.0, 3, 6, 9, 12]])
    assert talk.smoothed({"a": rows}, width=3)["a"].tolist() == [[1.5, 3, 6, 9, 10.5]]


def test_descending_takes_every_example_and_tells_of_every_step():
    class Point:
        def __init__(self):
            self.x = Parameter(np.array([5.0]))

        def parameters(self):
            return [self.x]

        def train(self):
            return self

        def eval(self):
            return self

    point, seen, told = Point(), [], []

    def loss(model, part):
        seen.extend(part)
        return (model.x * model.x).sum()

    assert talk.descend(point, loss, range(8), steps=4, lr=0.5, batch=4, watch=told.append) is point
    assert told == [0, 1, 2, 3, 4] and sorted(seen) == sorted([*range(8)] * 2) and abs(point.x.data[0]) < 5


def test_a_twin_learns_alone(small):
    _, _, model, template = small
    other = talk.twin(model)
    row = talk.plain_rows(template.tokenizer, 4)
    before = model.token_embedding.weight.data.copy()
    pad = template.stop_ids[0]
    talk.descend(other, lambda m, part: m(*talk.collate(part, pad)), row, steps=2, lr=1e-2, batch=2)
    assert np.array_equal(model.token_embedding.weight.data, before)
    assert not np.array_equal(other.token_embedding.weight.data, before)


def test_what_is_measured(small):
    _, tokenizer, model, template = small
    asked = talk.questions(6, seed=7, test=True)
    found = talk.measure(model, template, asked, model, talk.plain_rows(tokenizer, 5))
    more = ("warm", "wordy", "tokens", "ended", "kl", "varied", "text")
    assert set(found) == {"right", *talk.KINDS, "sort drawn", "liked", *more}
    assert abs(found["kl"]) < 1e-4 and 1 <= found["tokens"] <= talk.LONGEST and 1 <= found["varied"] <= 4
    other = talk.twin(model)
    other.token_embedding.weight.data *= 3
    assert talk.measure(other, template, asked, model)["kl"] > 0.1


def test_answers_follow_their_seeds(small):
    _, _, model, template = small
    asked = talk.questions(3, seed=8)
    drawn = talk.answers(model, template, asked, n=2, seed=1)
    assert np.shape(drawn) == (3, 2) and drawn == talk.answers(model, template, asked, n=2, seed=1)
    assert drawn != talk.answers(model, template, asked, n=2, seed=2)


def test_a_judge_says_the_same_of_the_same_words(small):
    _, _, model, template = small
    (question,) = talk.questions(1, seed=9)
    judge = with_classifier(model, "regression", (), template.stop_ids[0], np.random.default_rng(0))
    (row,) = talk.answers(model, template, [question], n=3)
    said = talk.judged(judge, template, question, [*row, row[0]])
    assert said.shape == (4,) and said[0] == said[3] and np.ptp(said) > 0


def test_a_base_model_comes_back_from_its_folder(small, tmp_path):
    base, tokenizer, _, _ = small
    talk.save(base, tokenizer, tmp_path, losses=[1.0])
    model, again, losses = talk.open_base(tmp_path)
    assert again.encode("7 plus 6 is 13.") == tokenizer.encode("7 plus 6 is 13.") and losses == [1.0]
    assert np.array_equal(model.token_embedding.weight.data, base.token_embedding.weight.data)


def test_the_table(capsys):
    talk.print_table({"a": [{"x": 1.0}, {"x": 2.0}], "b": [{"x": 0.5, "y": 1.0}]}, ("x", "y"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "1.50", "±", "0.71", "–"] and lines[2].split() == ["b", "0.50", "1.00"]
