"""PretrainedModel.generate: transformers' settings, from a call, a file or config.json, are followed or refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.generate import generate
from minillm.hub.configs import GenerationSettings
from minillm.hub.generation import DRAWING, FOLLOWED, IDLE, REFUSED, in_one_block, settings_of
from minillm.hub.pretrained import PretrainedModel
from minillm.hub.rules import Rules
from minillm.models import LSTM, EncoderDecoder, EncoderDecoderConfig, LSTMConfig
from minillm.tokenizers import BPETokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hf_models import build  # noqa: E402

from minillm import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

PROMPTS = [[3, 4, 5, 3, 4], [9, 8, 17, 9, 8]]
WORDS = [[4, 5], [17], [9, 8, 9], [2, 2, 2]]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request, tmp_path_factory):
    """transformers' model and ours of the same float64 weights."""
    folder = tmp_path_factory.mktemp(request.param)
    theirs = build(request.param, seed=1).double()
    theirs.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    return theirs, AutoModelForCausalLM.from_pretrained(folder, dtype="float64")


def trimmed(rows, n_prompt, stops, pad):
    """Each row up to its end, padding left out."""
    kept = []
    for row in np.asarray(rows).tolist():
        new = row[n_prompt:]
        end = next((i + 1 for i, token in enumerate(new) if token in stops), len(new))
        assert set(new[end:]) <= {pad}
        kept.append(row[: n_prompt + end])
    return kept


def check_equal(pair, prompts=PROMPTS, **how):
    """`how` on both; transformers pads beams with the end of text where the padding's id is 0, so it is 60 here."""
    theirs, ours = pair
    how = {"pad_token_id": 60, "max_new_tokens": 9, **how}
    with torch.no_grad():
        expected = theirs.generate(torch.tensor(prompts), **how)
    stops = [*np.ravel(how.get("eos_token_id", []))]
    found = ours.generate(prompts, **how)
    assert isinstance(found, np.ndarray) and found.dtype == np.int64
    n = len(prompts[0])
    assert trimmed(found, n, stops, 60) == trimmed(expected, n, stops, 60)
    assert found.shape == expected.shape


RULES = [
    {"no_repeat_ngram_size": 2},
    {"bad_words_ids": WORDS, "repetition_penalty": 1.3},
    {"suppress_tokens": [1, 7, 20, 33], "begin_suppress_tokens": [5, 9, 40, 41, 42]},
    {"min_new_tokens": 5, "eos_token_id": list(range(20, 60))},
    {"min_length": 8, "max_length": 12, "max_new_tokens": None, "eos_token_id": list(range(20, 60))},
    {"forced_eos_token_id": 11, "eos_token_id": 11},
    {"forced_eos_token_id": [30, 12], "eos_token_id": [30, 12]},
    {"repetition_penalty": 1.8, "no_repeat_ngram_size": 3, "min_new_tokens": 2, "eos_token_id": [6, 7, 8, 9, 10]},
]


@pytest.mark.parametrize("beams", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"])
@pytest.mark.parametrize("how", RULES, ids=lambda how: next(iter(how)))
def test_rules_are_followed_as_by_transformers(pair, how, beams):
    if beams and isinstance(how.get("forced_eos_token_id"), list):
        how = {**how, "forced_eos_token_id": 30}  # several are equally likely: which comes first is not said
    check_equal(pair, **how, **beams)


def test_an_id_forced_after_a_prompt_of_one(pair):
    for beams in ({}, {"num_beams": 3}):
        how = {"forced_bos_token_id": 21, "begin_suppress_tokens": list(range(30)), "max_new_tokens": 6}
        check_equal(pair, [[3], [44]], **how, **beams)


options = st.fixed_dictionaries(
    {},
    optional={
        "num_beams": st.integers(1, 4),
        "length_penalty": st.sampled_from([0.0, 1.0, 2.0, -1.0]),
        "early_stopping": st.sampled_from([True, False, "never"]),
        "repetition_penalty": st.sampled_from([0.8, 1.2, 2.0]),
        "no_repeat_ngram_size": st.integers(0, 3),
        "bad_words_ids": st.lists(st.lists(st.integers(0, 59), min_size=1, max_size=2), min_size=1, max_size=9),
        "suppress_tokens": st.lists(st.integers(0, 59), min_size=1, max_size=9),
        "begin_suppress_tokens": st.lists(st.integers(0, 59), min_size=1, max_size=9),
        "min_new_tokens": st.integers(0, 5),
        "eos_token_id": st.lists(st.integers(0, 59), min_size=1, max_size=9, unique=True),
        "forced_eos_token_id": st.integers(0, 59),
    },
)


@given(options, st.lists(st.lists(st.integers(0, 59), min_size=3, max_size=3), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_drawn_settings_give_the_ids_of_transformers(pair, how, prompts):
    eos = how.get("eos_token_id", [])
    how = {**how, "bad_words_ids": [w for w in how.get("bad_words_ids", []) if len(w) > 1 or w[0] not in eos] or None}
    if how.get("forced_eos_token_id") in how.get("suppress_tokens", []):
        return  # nothing is left at the last place
    check_equal(pair, prompts, **how, max_new_tokens=6)


@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
def test_a_folder_s_settings_are_followed_from_either_file(where, tmp_path):
    """config.json counts where there is no generation_config.json, as for BART's older checkpoints."""
    build("gpt2", seed=3).double().save_pretrained(tmp_path)
    how = {"num_beams": 3, "no_repeat_ngram_size": 2, "length_penalty": 2.0, "min_length": 9, "forced_eos_token_id": 8,
           "max_length": 14, "eos_token_id": [8, 11, 30], "pad_token_id": 60, "early_stopping": True}  # fmt: skip
    if where == "config.json":
        (tmp_path / "generation_config.json").unlink()
        how["eos_token_id"] = 8
        how = {**json.loads((tmp_path / where).read_text()), **how}
    (tmp_path / where).write_text(json.dumps(how))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs.generate(torch.tensor(PROMPTS))
    assert ours.generate(PROMPTS).tolist() == expected.tolist()
    assert theirs.generation_config.no_repeat_ngram_size == 2  # so it was read there, too
    chosen = transformers.GenerationConfig(num_beams=1, no_repeat_ngram_size=0, max_new_tokens=4)
    with torch.no_grad():
        expected = theirs.generate(torch.tensor(PROMPTS), generation_config=chosen)
    assert ours.generate(PROMPTS, generation_config=chosen).tolist() == expected.tolist()


# --- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_new_ids_begin_behind_the_inputs_and_padding_comes_back(engine, tmp_path):
    theirs = build("llama")
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path, engine=engine)
    ids, mask = np.array([[0, 0, 3, 4], [5, 6, 7, 8], [0, 9, 9, 2]]), np.array([[0, 0, 1, 1], [1] * 4, [0, 1, 1, 1]])
    with torch.no_grad():
        expected = theirs.generate(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            max_new_tokens=8,
            pad_token_id=0,
            eos_token_id=[11, 26],
        )
    inputs = {"input_ids": ids, "attention_mask": mask}
    if engine == "torch":
        inputs = {name: torch.tensor(array) for name, array in inputs.items()}
    how = {"max_new_tokens": 8, "eos_token_id": [11, 26], "pad_token_id": 0}
    found = ours.generate(**inputs, **how)
    assert type(found) is (np.ndarray if engine == "numpy" else torch.Tensor)
    assert found.tolist() == expected.tolist()
    lists = [[i for i, m in zip(*row) if m] for row in zip(ids, mask)]
    assert ours.generate(lists, **how).tolist() == expected.tolist()
    sampled = ours.generate(**inputs, **how, do_sample=True, num_return_sequences=3, seed=0)
    assert sampled[:, :4].tolist() == np.repeat(ids, 3, axis=0).tolist()
    assert len({tuple(row) for row in sampled.tolist()}) > 3


def test_padding_is_the_first_end_of_text_where_there_is_no_other_id():
    rows = in_one_block([[1], [2]], [[3, 4], [5]], {"eos_token_id": [5, 6]})
    assert rows.tolist() == [[1, 3, 4], [2, 5, 5]]
    assert in_one_block([[1], [2]], [[3], [4]], {}).tolist() == [[1, 3], [2, 4]]
    for prompts, new in (([[1], [2, 2]], [[3], [4]]), ([[1], [2]], [[3], [4, 4]])):
        with pytest.raises(ValueError, match="rows of different lengths need a pad_token_id"):
            in_one_block(prompts, new, {})


@pytest.mark.parametrize("kind", ["lstm", "seq2seq"])
def test_our_own_models_take_the_same_settings(kind):
    rng = np.random.default_rng(0)
    if kind == "lstm":
        body = LSTM(LSTMConfig(61, context=16, n_layers=1, d_model=8), rng).to(np.float64)
        inputs, prompts, model, start = [[1, 2], [3, 4]], [[1, 2], [3, 4]], body, {}
    else:
        config = EncoderDecoderConfig(61, context=16, n_layers=1, n_heads=2, d_model=8, d_ff=12, dropout=0.0, pad_id=0)
        body = EncoderDecoder(config, rng).to(np.float64)
        inputs, prompts = np.array([[5, 6, 7], [8, 9, 0]]), [[1], [1]]
        model, start = body.given(inputs), {"decoder_start_token_id": 1}
    ours = PretrainedModel(body.eval())
    how = {"no_repeat_ngram_size": 1, "suppress_tokens": [3], **start, "max_new_tokens": 7}
    rules = Rules(no_repeat_ngram_size=1, suppress_tokens=[3])
    seeds = {"do_sample": True, "top_k": 0, "seed": 4}
    expected = generate(model, prompts, max_new_tokens=7, rules=rules, seed=4)
    assert ours.generate(inputs, **how, **seeds).tolist() == [p + new for p, new in zip(prompts, expected)]
    twice = ours.generate(inputs, **how, **seeds, num_return_sequences=2).tolist()
    assert len(twice) == 4 and all(len(set(row)) == len(row) and 3 not in row[2:] for row in twice)
    beams = ours.generate(inputs, **how, num_beams=3, num_return_sequences=3).tolist()
    assert len({tuple(row) for row in beams}) == 6 and all(len(set(row)) == len(row) for row in beams)


# --- texts that end an answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 3])
def test_stop_strings_end_a_row_as_in_transformers(beams, tmp_path):
    core = BPETokenizer.train(["abab cdcd efef ab cd ef gh. "] * 9, 261)
    core.save(tmp_path)
    theirs = build("gpt2", seed=5, vocab_size=261).double()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    fast = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float64")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    quiet = [i for i, token in enumerate(core.tokens) if token is None or not token.isalpha() or len(token) > 1]
    quiet += [i for i, token in enumerate(core.tokens) if i not in quiet and token not in b"abcdefgh"]
    how = {"max_new_tokens": 12, "num_beams": beams, "pad_token_id": 260, "suppress_tokens": quiet}
    how |= {"no_repeat_ngram_size": 2, "length_penalty": 0.0}
    ended = 0
    for stops in ("c", ["ab", "ef", "dd"], ["ga", "ch", "hh", "fa", "b"], ["e", "h"]):
        with torch.no_grad():
            expected = theirs.generate(torch.tensor(PROMPTS), **how, stop_strings=stops, tokenizer=fast)
        found = ours.generate(PROMPTS, **how, stop_strings=stops, tokenizer=tokenizer)
        assert found.tolist() == expected.tolist()
        ended += found.shape[1] < 17 or bool((found == 260).any())
    assert ended >= 2
    with pytest.raises(ValueError, match=r"stop_strings = \['c'\] need the tokenizer"):
        ours.generate(PROMPTS, stop_strings="c")


# --- refused --------------------------------------------------------------------------------------------------------


def test_every_setting_of_transformers_is_followed_refused_or_known_to_do_nothing():
    known = FOLLOWED | DRAWING.keys() | REFUSED.keys() | IDLE
    theirs = set(vars(transformers.GenerationConfig())) - {"_original_object_hash"}
    assert not theirs - known
    assert not (FOLLOWED & REFUSED.keys()) | (FOLLOWED & IDLE) | (REFUSED.keys() & IDLE)
    defaults = transformers.GenerationConfig._get_default_generation_params()
    settings_of({**defaults, "do_sample": True}, {}, {})  # transformers' own defaults ask for nothing
    settings_of(transformers.GenerationConfig(do_sample=True).to_dict(), {}, {})


ASKED = {"penalty_alpha": 0.6, "num_beam_groups": 2, "diversity_penalty": 0.5, "encoder_no_repeat_ngram_size": 3,
         "exponential_decay_length_penalty": [3, 1.2], "sequence_bias": [[[1], 2.0]], "guidance_scale": 1.5,
         "renormalize_logits": True, "forced_decoder_ids": [[1, 7]], "output_scores": True, "max_time": 3.0,
         "dola_layers": "high", "force_words_ids": [[4]], "watermarking_config": {}}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_would_change_the_text_is_refused_by_name(pair, name):
    _, ours = pair
    with pytest.raises(ValueError, match=rf"{name} = .* \(an argument\) is not done here.*leave it out"):
        ours.generate(PROMPTS, **{name: ASKED[name]})
    for file, config in (({name: ASKED[name]}, {}), (None, {name: ASKED[name]})):
        if file is None and name.startswith("output_"):
            continue
        with pytest.raises(ValueError, match=rf"{name} = .* \(an entry of generation_config\.json or config\.json\)"):
            settings_of(file, config, {})
    assert settings_of({}, {name: ASKED[name]}, {}) == {}  # where there is a file, it alone speaks


@pytest.mark.parametrize("name", DRAWING)
def test_other_ways_to_draw_are_refused_where_something_is_drawn(pair, name):
    _, ours = pair
    with pytest.raises(ValueError, match=rf"{name} = 0\.3"):
        ours.generate(PROMPTS, do_sample=True, **{name: 0.3})
    plain = ours.generate(PROMPTS, max_new_tokens=3).tolist()
    assert ours.generate(PROMPTS, max_new_tokens=3, **{name: 0.3}).tolist() == plain


def test_contrastive_search_is_what_penalty_alpha_and_top_k_ask_for_without_drawing():
    for how in ({"do_sample": True}, {"top_k": 1}, {"top_k": 0}):
        settings_of({"penalty_alpha": 0.6, **how}, {}, {})


def test_names_and_values_that_cannot_be_are_refused(pair):
    _, ours = pair
    with pytest.raises(TypeError, match=r"temprature = 0\.7 is no setting of generate, here or in transformers"):
        ours.generate(PROMPTS, temprature=0.7)
    for name, value in {"top_k": 2.5, "suppress_tokens": "all", "bad_words_ids": [1, 2], "do_sample": "yes",
                        "num_beams": True, "stop_strings": 3, "min_p": "0.1"}.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"^{name} is "):
            ours.generate(PROMPTS, **{name: value})
    with pytest.raises(ValueError, match="give it input_ids"):
        ours.generate()
    with pytest.raises(ValueError, match="num_return_sequences = 0 must be at least 1"):
        ours.generate(PROMPTS, num_return_sequences=0)
    numbers = {"max_new_tokens": np.int64(3), "eos_token_id": torch.tensor([5]), "suppress_tokens": range(3)}
    assert ours.generate(torch.tensor(PROMPTS), **numbers, use_cache=False, token_type_ids=None).shape[0] == 2
    assert {"min_p", "no_repeat_ngram_size"} <= set(GenerationSettings.__annotations__)


def test_min_p_is_followed(pair):
    """With min_p = 1 only the likeliest is left to draw."""
    _, ours = pair
    greedy = ours.generate(PROMPTS, max_new_tokens=6).tolist()
    assert ours.generate(PROMPTS, max_new_tokens=6, do_sample=True, min_p=1.0, seed=0).tolist() == greedy
