"""Chapter 19's bookkeeping: what is planted is there as often as it says, and what is counted is what is there."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from minillm.workshop import fairness, privacy

from minillm.responsible import Watermark, canaries, log_likelihoods


def test_each_secret_stands_in_the_notes_as_often_as_its_group_says():
    notes = privacy.write_notes(3)
    text = "\n".join(notes.lines)
    for group, names in notes.people.items():
        for name in names:
            times = sum(line.endswith(notes.secret(name)) for line in notes.lines)
            assert times == text.count(notes.secret(name)) == int(group.split(",")[0]), (group, name)
    reworded = notes.secret(notes.people[privacy.REWORDED][0])
    assert len({line for line in notes.lines if reworded in line}) == 16
    everybody = [name for names in notes.people.values() for name in names]
    assert len(set(everybody)) == len(everybody) == 28
    assert not set(privacy.other_lines(notes)) & set(notes.lines)
    assert max(map(len, notes.lines)) < privacy.CONTEXT


def test_all_endings_are_the_librarys_likelihoods():
    notes = privacy.write_notes(0, 1, 5)
    tokenizer = privacy.tokenizer_of(notes.lines)
    model = privacy.new_model(tokenizer.vocab_size, 0, d=16)
    model.token_embedding.weight.data *= 30  # so that it matters which digit came before
    begin = [tokenizer.eos_id, *tokenizer.encode("ada: ")]
    fast = privacy.all_endings(model, begin, tokenizer.encode("0123456789"), digits=3)
    rows = [(begin, tokenizer.encode(text)) for text in canaries("{}", digits=3)]
    assert np.ptp(fast) > 1
    np.testing.assert_allclose(fast, log_likelihoods(model, rows), atol=1e-4)


def test_rows_hold_each_line_between_its_ends():
    tokenizer = privacy.tokenizer_of(["ab"])
    a, b, end = *tokenizer.encode("ab"), tokenizer.eos_id
    ids, targets = privacy.rows_of(["ab"], tokenizer, 5)
    assert ids.tolist() == [[end, a, b, end, end]] and targets.tolist() == [[a, b, end, -100, -100]]
    ids, targets = privacy.rows_of(["ab"], tokenizer, 4, begin=False)
    assert ids.tolist() == [[a, b, end, end]] and targets.tolist() == [[b, end, -100, -100]]


def test_spans_of_the_letters_are_what_they_say():
    text, personal, harmless = privacy.letters(1, 5)
    assert len(personal) == 5 * 8 and len(harmless) == 5 * 7
    for span in personal:
        what = text[span.start : span.end]
        assert {"email": "example" in what, "name": what.endswith(" Hall")}.get(span.kind, what[0].isdigit()), what
    cards = [text[span.start : span.end] for span in personal | harmless if span.kind == "card"]
    assert sum(map(privacy.luhn, cards)) == 5 and len(cards) == 10


def test_jobs_have_exactly_their_share_and_prompts_are_held_out():
    sentences, prompts = fairness.about_people(0)
    for job, share in zip(fairness.JOBS, fairness.SHARES):
        mine = [sentence for sentence in sentences if f" {job} " in sentence]
        assert len(mine) == 60 and sum(" he " in sentence for sentence in mine) == round(share * 60)
    assert len(prompts) == 12 and not any(sentence.startswith(p) for sentence in sentences for p in prompts)
    tokenizer = fairness.words_of(sentences)
    assert {len(tokenizer.encode(" " + word)) for word in (*fairness.JOBS, "he", "she")} == {1}


def test_pieces_of_code_parse_until_they_are_broken():
    pieces = fairness.code(0, 40)
    assert all(map(fairness.parses, pieces))
    text = "".join(pieces)
    assert fairness.share_that_parses([text]) == 1
    assert fairness.share_that_parses([text.replace("(", "")]) < 1


def test_a_place_where_one_thing_is_certain_is_green_as_often_as_without_a_mark():
    model = privacy.new_model(30, 0, context=8, d=16)
    texts = np.arange(8)[None]
    _, green = fairness.open_choices(model, texts, Watermark(0, 0.25, 0.0), keys=200)
    assert abs(green.mean() - 0.25) < 0.02  # no delta, no surplus
    _, marked = fairness.open_choices(model, texts, Watermark(0, 0.25, 2.0), keys=50)
    assert marked.mean() > 0.6  # an untrained model leaves everything open
    model.token_embedding.weight.data *= 1e4  # and this one nothing
    entropy, certain = fairness.open_choices(model, texts, Watermark(0, 0.25, 2.0), keys=400)
    assert entropy.max() < 0.1 and abs(certain.mean() - 0.25) < 0.03
