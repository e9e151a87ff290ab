"""The plan that generation runs a GPT or Llama by: the numbers of the model's own forward, whatever is read when."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillm.finetune.lora import LoraConfig, add_lora
from minillm.generate import Sampling, generate, stream
from minillm.models import GPT, Gemma, GemmaConfig, GPTConfig, Llama, LlamaConfig, Moe, MoeConfig, decoding
from minillm.models.decoding import Cache, Plan, plan_for
from minillm.tensor import no_grad

LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8}  # fmt: skip
GROUPED = {"n_heads": 4, "n_kv_heads": 2, "d_ff": 40}
SHAPE = {"vocab_size": 61, "context": 24, "n_layers": 2, "n_heads": 2, "d_model": 32}
CONFIGS = {
    "gpt": GPTConfig(**SHAPE),
    "gpt, narrow": GPTConfig(**SHAPE, d_ff=20, norm_eps=1e-3),
    "llama": LlamaConfig(**{**SHAPE, "d_ff": 40}),
    "llama, groups": LlamaConfig(**{**SHAPE, **GROUPED}, head_dim=6, tie_embeddings=True),
    "llama, biases, head norms": LlamaConfig(
        **{**SHAPE, **GROUPED}, qkv_bias=True, out_bias=True, mlp_bias=True, qk_norm=True
    ),
    "llama, window": LlamaConfig(**{**SHAPE, **GROUPED}, window=5, full_layers=(1,)),
    "llama, linear": LlamaConfig(**{**SHAPE, **GROUPED}, rope_scaling={"rope_type": "linear", "factor": 2.0}),
    "llama, llama3": LlamaConfig(**{**SHAPE, **GROUPED}, rope_scaling=LLAMA3),
    "llama, dynamic": LlamaConfig(
        **{**SHAPE, **GROUPED},
        rope_scaling={"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 24},
    ),
}
each_config = pytest.mark.parametrize("name", CONFIGS)


def make(name, dtype=np.float64):
    """A model with large weights and norms and biases that do something."""
    config, rng = CONFIGS[name], np.random.default_rng(3)
    model = (GPT if isinstance(config, GPTConfig) else Llama)(config, rng).to(dtype)
    for parameter in model.parameters():
        parameter.data *= 4 if parameter.ndim == 2 else 1
        parameter.data += rng.normal(0, 0.2, parameter.shape).astype(dtype)
    return model.eval()


def own(model, ids):
    """Logits (T, V) by the model's own forward."""
    with no_grad():
        return model(np.array([ids])).data[0]


@pytest.mark.parametrize("cores", [1, 2, 3])
@each_config
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_read_when_the_logits_are_those_of_the_models_own_forward(name, cores, monkeypatch, data):
    """Also where cores share what is read, which only long prompts are worth."""
    monkeypatch.setattr(decoding, "MANY", 1)
    monkeypatch.setattr(decoding, "blas_threads", lambda: cores)
    model = make(name)
    rows = data.draw(st.integers(1, 4))
    plan, rng = plan_for(model), np.random.default_rng(data.draw(st.integers(0, 99)))
    cache = Cache(plan.layers, rows, 24, np.float64)
    texts = [[] for _ in range(rows)]
    for _ in range(data.draw(st.integers(1, 4))):
        most = 24 - max(map(len, texts))
        if not most:
            break
        counts = data.draw(st.just([1] * rows) | st.lists(st.integers(1, most), min_size=rows, max_size=rows))
        pieces = [rng.integers(61, size=n).tolist() for n in counts]
        texts = [text + piece for text, piece in zip(texts, pieces)]
        every = data.draw(st.booleans())
        found = plan.logits(cache, pieces, every)
        expected = [own(model, text)[-n if every else -1 :] for text, n in zip(texts, counts)]
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1e-10)
        if data.draw(st.booleans()):
            taken = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=4))
            cache.take(taken)
            texts = [texts[row] for row in taken]
            rows = len(texts)


PROMPTS = [[1, 2, 3], [4], [5] * 30, [9, 8, 7, 6], [1, 2, 3]]


@each_config
@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(0.8, 0.9, 20)], ids=["greedy", "drawn"])
def test_generation_is_that_of_the_plain_way_beyond_the_context(name, sampling):
    """Rows of different lengths, one of them longer than the context, and two alike; the windows move at different
    times."""
    model, options = make(name), {"max_new_tokens": 40, "sampling": sampling, "seed": 5}
    found = generate(model, PROMPTS, **options)
    assert found == generate(model, PROMPTS, **options, use_cache=False)
    assert found[0] == list(stream(model, PROMPTS[0], **{**options, "seed": [np.random.SeedSequence(5).spawn(1)[0]]}))


def test_float32_stays_float32_and_is_near():
    for name in ("gpt", "llama, groups"):
        model, ids = make(name, np.float32), list(range(20))
        plan = plan_for(model)
        cache = Cache(plan.layers, 1, 24, np.float32)
        found = np.concatenate([plan.logits(cache, [ids[:5]], True), *(plan.logits(cache, [[i]]) for i in ids[5:])])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, own(model, ids), rtol=0, atol=2e-4)


def test_a_prompt_that_several_rows_have_is_read_once_and_a_row_that_has_stopped_no_more(monkeypatch):
    read, logits = [], Plan.logits
    monkeypatch.setattr(Plan, "logits", lambda *a: read.append([len(piece) for piece in a[2]]) or logits(*a))
    model = make("gpt")
    options = {"max_new_tokens": 6, "seed": 1}
    free = generate(model, [[1, 2, 3]] * 3 + [[4]], **options)
    assert read == [[3, 1], *[[1] * 4] * 5]
    read.clear()
    stopped = generate(model, [[1, 2, 3]] * 3 + [[4]], **options, stop_ids=[free[0][2]])
    ends = [row.index(free[0][2]) if free[0][2] in row else 6 for row in free]
    assert stopped == [row[:end] for row, end in zip(free, ends)]
    assert [len(step) for step in read[1:]] == [sum(end > n for end in ends) for n in range(min(max(ends), 5))]


def test_what_a_plan_does_not_know_has_none():
    assert plan_for(Gemma(GemmaConfig(61, 16, 2, d_model=32, head_dim=8, d_ff=16, full_layers=(1,)))) is None
    adapted = make("llama")
    add_lora(adapted, LoraConfig(), np.random.default_rng(0))
    assert plan_for(adapted) is None
    assert plan_for(GPT(GPTConfig(**SHAPE, attention="triton"))) is None
    sinks = LlamaConfig(**SHAPE, d_ff=16, attention_sinks=True)
    assert plan_for(Llama(sinks)) is None
    assert plan_for(Moe(MoeConfig(**SHAPE, d_ff=16, n_experts=2, top_k=1))) is None
    assert plan_for(make("gpt")) is not None


def test_a_model_without_a_plan_also_reads_a_shared_prompt_and_goes_on():
    model = Gemma(GemmaConfig(61, 16, 2, d_model=32, head_dim=8, d_ff=16, full_layers=(1,))).to(np.float64)
    options = {"max_new_tokens": 20, "seed": 1}
    assert generate(model, PROMPTS, **options) == generate(model, PROMPTS, **options, use_cache=False)
