"""`complete`, which chapter 09 leaves to chapters 13 and 14."""

import numpy as np
from minillm.workshop.generating import SETTINGS, complete, until

from minillm.generate import Sampling, generate
from minillm.models import GPT, GPTConfig
from minillm.tokenizers import BPETokenizer

TOKENIZER = BPETokenizer.train(["a b\n\nab ba\n" * 50], 270)
MODEL = GPT(GPTConfig(TOKENIZER.vocab_size, 32, 1, 2, 8), rng=np.random.default_rng(0))


def test_until_cuts_before_the_earliest():
    assert until("one, two; three", [";", ","]) == "one"
    assert until("one", [";"]) == until("one", []) == "one"


def test_each_text_ends_before_the_first_stop():
    options = {"n": 4, "max_new_tokens": 20, "seed": 3}
    whole = complete(MODEL, TOKENIZER, "ab", **options)
    cut = complete(MODEL, TOKENIZER, "ab", stops=["e", "\n"], **options)
    assert cut == [until(text, ["e", "\n"]) for text in whole] and cut != whole and len(set(whole)) == 4


def test_the_texts_are_those_of_generate_without_the_end_of_text():
    ids = TOKENIZER.encode("ab")
    options = {"max_new_tokens": 20, "seed": 3, "sampling": SETTINGS["several different ones"]}
    new = generate(MODEL, [ids] * 3, stop_ids=[TOKENIZER.eos_id], **options)
    texts = complete(MODEL, TOKENIZER, "ab", n=3, **options)
    assert texts == [TOKENIZER.decode(row) for row in new]


def test_a_text_that_has_ended_says_no_more():
    MODEL.token_embedding.weight.data[TOKENIZER.eos_id] *= 0
    bias = MODEL.norm.bias.data
    try:
        MODEL.token_embedding.weight.data[TOKENIZER.eos_id] += 1  # and now it is the likeliest
        bias += 9
        assert complete(MODEL, TOKENIZER, "ab", n=2, sampling=Sampling(temperature=0)) == ["", ""]
    finally:
        bias -= 9
