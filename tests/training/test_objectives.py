"""Masking and span corruption: nothing lost, the right shares, the same choices for the same row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.models import Bert, BertConfig, EncoderDecoder, EncoderDecoderConfig
from minillm.settings import IGNORE
from minillm.training.objectives import (
    Copy,
    MaskedLM,
    ObjectiveBatcher,
    SpanCorruption,
    lengths,
    prepare,
)

MASK = MaskedLM(mask_id=50, pad_id=51, vocab_size=52, random_below=50, never_hidden=(0, 1), seed=3)
SPANS = SpanCorruption.for_tokenizer(50, {}, context=64)


def batch(rows, length, seed=0, padding=0):
    """Ids 2 to 49 and next-token targets; the last row ends in `padding` padded positions."""
    tokens = np.random.default_rng(seed).integers(2, 50, (rows, length + 1))
    ids, targets = tokens[:, :-1].copy(), tokens[:, 1:].copy()
    if padding:
        ids[-1, -padding:], targets[-1, -padding:] = 0, IGNORE
    return ids, targets


# --- masked language model -----------------------------------------------------------------------------------------


def test_shares_of_masked_random_and_kept():
    ids, targets = batch(500, 100)
    inputs, wanted = MASK(ids, targets, 0)
    hidden = wanted != IGNORE
    assert (hidden.sum(axis=1) == 15).all()
    assert np.array_equal(wanted[hidden], ids[hidden])
    assert np.array_equal(inputs[~hidden], ids[~hidden])
    masked = inputs == 50
    assert not masked[~hidden].any()
    assert masked.sum() == 500 * 12
    assert (inputs[hidden] == ids[hidden]).mean() == pytest.approx(0.1, abs=0.1)
    changed = hidden & ~masked & (inputs != ids)
    # 1.5 tokens of 15 in the mean; one random token in 50 is the old one
    assert changed.sum() == pytest.approx(500 * 1.5 * 49 / 50, rel=0.1)
    assert (np.bincount(inputs[changed], minlength=50) > 0).all()
    assert hidden.mean(axis=0) == pytest.approx(0.15, abs=0.06)  # everywhere in the row alike


@pytest.mark.parametrize("masked, replaced", [(0.8, 0.1), (1.0, 0.0), (0.8, 0.0), (0.8, 0.2), (0.0, 1.0)])
def test_the_shares_hold_in_short_rows_too(masked, replaced):
    """Rows of 14 have two hidden tokens each: with rounding in each row, none was ever random or kept."""
    ids, targets = batch(4000, 14)
    objective = MaskedLM(50, 52, 50, rate=0.15, masked=masked, replaced=replaced)
    inputs, wanted = objective(ids, targets, 0)
    hidden = wanted != IGNORE
    assert (hidden.sum(axis=1) == 2).all()
    assert (inputs[hidden] == 50).mean() == pytest.approx(masked, abs=0.02)
    kept = 1 - masked - replaced + replaced / 50  # a random token is the old one by chance
    assert (inputs[hidden] == ids[hidden]).mean() == pytest.approx(kept, abs=0.02)


@pytest.mark.parametrize("masked, replaced", [(-0.1, 0.1), (0.8, -0.1), (0.8, 0.3)])
def test_shares_that_are_none_are_refused(masked, replaced):
    with pytest.raises(ValueError, match="together at most 1"):
        MaskedLM(50, 52, 50, masked=masked, replaced=replaced)


def test_special_tokens_and_padding_are_never_hidden():
    ids, targets = batch(40, 30, padding=7)
    ids[:, 0], ids[:, 10] = 0, 1
    inputs, wanted = MASK(ids, targets, 0)
    assert (wanted[:, [0, 10]] == IGNORE).all() and np.array_equal(inputs[:, [0, 10]], ids[:, [0, 10]])
    assert (wanted[-1, -7:] == IGNORE).all()
    assert (inputs[-1, -7:] == 51).all()
    assert (wanted != IGNORE).any(axis=1).all()


def test_a_row_of_padding_asks_for_nothing():
    ids, targets = batch(2, 6, padding=6)
    _, wanted = MASK(ids, targets, 0)
    assert (wanted[1] == IGNORE).all()


def test_rows_do_not_depend_on_their_batch():
    """What is hidden follows from the row's number: batch size and number of processes change nothing."""
    ids, targets = batch(12, 40)
    for objective in (MASK, SPANS):
        whole = objective(ids, targets, 100)
        for first in (0, 5, 9):
            part = objective(ids[first : first + 3], targets[first : first + 3], 100 + first)
            for a, b in zip(whole, part):
                assert np.array_equal(a[first : first + 3], b)
        assert not np.array_equal(whole[0], objective(ids, targets, 101)[0])


# --- span corruption -----------------------------------------------------------------------------------------------


def restore(source, targets, objective):
    """The text again: every sentinel in the source replaced by what follows it in the target."""
    spans, current = {}, None
    answer = [t for t in targets.tolist() if t != IGNORE]
    assert answer[-1] == objective.end_id
    for token in answer[:-1]:
        if token in objective.sentinel_ids:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    text = []
    for token in source.tolist():
        if token != objective.pad_id:
            text += spans.pop(token) if token in objective.sentinel_ids else [token]
    assert not spans
    return text


@given(st.integers(2, 64), st.integers(0, 1000), st.integers(0, 62))
def test_spans_can_be_put_back(length, first, padding):
    padding = min(padding, length - 2)
    ids, targets = batch(3, length, seed=first, padding=padding)
    source, decoder_ids, wanted = SPANS(ids, targets, first)
    assert source.dtype == decoder_ids.dtype == wanted.dtype == np.int64
    for row, n in enumerate((length, length, length - padding)):
        assert restore(source[row], wanted[row], SPANS) == ids[row, :n].tolist()
        answer = wanted[row][wanted[row] != IGNORE]
        assert decoder_ids[row, : len(answer)].tolist() == [SPANS.start_id, *answer[:-1].tolist()]
        hidden = n - np.isin(source[row], np.arange(2, 50)).sum()
        assert hidden == min(max(round(0.15 * n), 1), n - 1)


def test_sentinels_come_in_order_and_lengths_are_fixed():
    ids, targets = batch(200, 64)
    source, decoder_ids, wanted = SPANS(ids, targets, 0)
    assert source.shape == (200, 64 - 10 + 3)
    assert decoder_ids.shape == wanted.shape == (200, 10 + 3 + 1)
    for row in source:
        assert row[np.isin(row, SPANS.sentinel_ids)].tolist() == list(SPANS.sentinel_ids)
    spans = np.diff(np.flatnonzero(wanted[0] >= 50))[:-1] - 1
    assert spans.min() >= 1


def test_lengths_are_uniform():
    """All C(4, 2) = 6 ways of cutting 5 into 3 parts are equally likely."""
    rng = np.random.default_rng(0)
    counts = {}
    for _ in range(3000):
        cut = tuple(lengths(5, 3, rng))
        assert sum(cut) == 5 and min(cut) >= 1
        counts[cut] = counts.get(cut, 0) + 1
    assert len(counts) == 6
    assert min(counts.values()) > 400


def test_texts_too_short_to_hide_anything():
    ids, targets = batch(2, 4, padding=4)
    source, decoder_ids, wanted = SPANS(ids, targets, 0)
    assert (source[1] == SPANS.pad_id).all() and (wanted[1] == IGNORE).all()
    assert decoder_ids.shape == wanted.shape


def test_copy():
    objective = Copy(start_id=50, end_id=51, pad_id=52, vocab_size=53)
    ids, targets = batch(2, 5, padding=2)
    source, decoder_ids, wanted = objective(ids, targets, 0)
    assert source.tolist() == [ids[0].tolist(), [*ids[1, :3], 52, 52]]
    assert decoder_ids.tolist() == [[50, *ids[0]], [50, *ids[1, :3], 52, 52]]
    assert wanted.tolist() == [[*ids[0], 51], [*ids[1, :3], 51, IGNORE, IGNORE]]


# --- with a tokenizer and a batcher --------------------------------------------------------------------------------


def test_the_tokenizer_own_special_tokens_are_used():
    objective = MaskedLM.for_tokenizer(30, {"[PAD]": 0, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}, context=64)
    assert (objective.mask_id, objective.pad_id, objective.vocab_size) == (4, 0, 30)
    assert objective.never_hidden == (0, 2, 3, 4)
    added = MaskedLM.for_tokenizer(30, {"<|endoftext|>": 29}, context=64)
    assert (added.mask_id, added.pad_id, added.vocab_size, added.random_below) == (30, 31, 32, 29)
    spans = SpanCorruption.for_tokenizer(30, {"</s>": 7}, context=40)
    assert spans.end_id == 7
    assert (spans.pad_id, spans.start_id, spans.sentinel_ids, spans.vocab_size) == (30, 31, (32, 33), 34)


class FixedBatcher:
    """The part of data.Batcher that objectives rely on: numbered windows, shared between processes."""

    def __init__(self, batch_size, rank=0, world_size=1):
        self.batch_size, self.rank, self.world_size, self.windows_used = batch_size, rank, world_size, 0

    @property
    def first_row(self):
        return self.windows_used + self.rank * self.batch_size

    def next(self):
        first = self.first_row
        self.windows_used += self.world_size * self.batch_size
        ids, targets = batch(64, 20)
        return ids[first : first + self.batch_size], targets[first : first + self.batch_size]

    def state_dict(self):
        return {"windows_used": self.windows_used}

    def load_state_dict(self, state):
        self.windows_used = state["windows_used"]


def test_batches_are_the_same_on_any_number_of_processes_and_after_a_resume():
    alone = ObjectiveBatcher(FixedBatcher(8), MASK)
    first, second = alone.next(), alone.next()
    shares = [ObjectiveBatcher(FixedBatcher(4, rank, 2), MASK) for rank in (0, 1)]
    for expected in (first, second):
        parts = [share.next() for share in shares]
        for i in (0, 1):
            assert np.array_equal(np.concatenate([part[i] for part in parts]), expected[i])
    resumed = ObjectiveBatcher(FixedBatcher(8), MASK)
    resumed.load_state_dict({"windows_used": 8})
    assert np.array_equal(resumed.next()[0], second[0])
    assert resumed.state_dict() == alone.state_dict() == {"windows_used": 16}


def test_batches_of_the_real_batcher(tmp_path):
    from minillm.data import Batcher, Document, pack
    from minillm.tokenizers import CharTokenizer

    text = "the quick brown fox jumps over the lazy dog " * 20
    tokenizer = CharTokenizer.train([text])
    dataset = pack([Document(text, "test")], tokenizer, tmp_path / "tokens.bin")
    objective = MaskedLM.for_tokenizer(tokenizer.vocab_size, tokenizer.special_tokens, context=64)
    plain, hidden = Batcher(dataset, 3, 20, seed=1), ObjectiveBatcher(Batcher(dataset, 3, 20, seed=1), objective)
    for first in (0, 3, 6):
        expected = objective(*plain.next(), first)
        for a, b in zip(hidden.next(), expected):
            assert np.array_equal(a, b)
    assert hidden.state_dict() == plain.state_dict()


def test_evaluation_makes_the_same_choices_each_time():
    batches = [batch(4, 20, seed=s) for s in range(3)]
    once, again = (list(prepare(iter(batches), MASK)) for _ in range(2))
    for a, b in zip(once, again):
        assert np.array_equal(a[0], b[0])
    assert not np.array_equal(once[0][1] != IGNORE, once[1][1] != IGNORE)


def test_models_take_the_batches():
    ids, targets = batch(4, 20, padding=5)
    shape = {"context": 24, "n_layers": 1, "n_heads": 2, "d_model": 8, "d_ff": 12}
    bert = Bert(BertConfig(vocab_size=MASK.vocab_size, pad_id=MASK.pad_id, **shape))
    assert np.isfinite(bert(*MASK(ids, targets, 0), reduction="sum").item())
    seq2seq = EncoderDecoder(EncoderDecoderConfig(vocab_size=SPANS.vocab_size, pad_id=SPANS.pad_id, **shape))
    assert np.isfinite(seq2seq(*SPANS(ids, targets, 0), reduction="sum").item())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskedLM(mask_id=5, vocab_size=5, random_below=5), "mask_id = 5 is outside the vocabulary of 5"),
        (lambda: MaskedLM(mask_id=4, pad_id=4, vocab_size=5, random_below=5), "special ids must differ"),
        (lambda: MaskedLM(mask_id=4, vocab_size=5, random_below=5, rate=1.0), "rate = 1.0 must be above 0"),
        (lambda: MaskedLM(mask_id=4, vocab_size=5, random_below=6), "random_below = 6 must be from 1 to 5"),
        (lambda: SpanCorruption((6,), 1, 2, 3, vocab_size=9, mean_span=0.5), "mean_span = 0.5 must be at least 1"),
        (lambda: SpanCorruption((9,), 1, 2, 3, vocab_size=9), "sentinel 0 = 9 is outside"),
        (lambda: Copy(1, 1, 2, vocab_size=9), "special ids must differ"),
        (lambda: SpanCorruption((6,), 1, 2, 3, vocab_size=9)(*batch(1, 40), 0), "40 tokens need 2 sentinels"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
