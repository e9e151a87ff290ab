"""Writing on PyTorch with a cache of fixed shapes, as it is and compiled: the numbers and ids of the NumPy engine."""

import gc
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from minillm.engines.speculative import speculate  # noqa: E402
from minillm.finetune.lora import LoraConfig, add_lora  # noqa: E402
from minillm.generate import Sampling, decode_steps, generate, stream  # noqa: E402
from minillm.models import (  # noqa: E402
    GPT,
    LSTM,
    EncoderDecoder,
    EncoderDecoderConfig,
    Gemma,
    GemmaConfig,
    GPTConfig,
    Llama,
    LlamaConfig,
    LSTMConfig,
    Moe,
    MoeConfig,
)
from minillm.models.decoding import plan_for  # noqa: E402
from minillm.models.decoding_torch import CompiledDecoder, TorchPlan, power_of_two, twin  # noqa: E402
from minillm.models.int8 import quantize_int8  # noqa: E402
from minillm.port import to_torch  # noqa: E402
from minillm.tensor import no_grad  # noqa: E402

GREEDY = Sampling(temperature=0)
CONTEXT, IDS = 24, 31
SHAPE = {"vocab_size": IDS, "context": CONTEXT, "n_layers": 2, "n_heads": 2, "d_model": 16}
GROUPED = {**SHAPE, "n_heads": 4, "n_kv_heads": 2, "d_ff": 20}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 8}
CONFIGS = {
    "gpt": (GPT, GPTConfig(**SHAPE)),
    "llama": (Llama, LlamaConfig(**GROUPED, qkv_bias=True, qk_norm=True, rope_scaling=LLAMA3)),
    "llama, window": (Llama, LlamaConfig(**GROUPED, window=5, full_layers=(1,))),
    "llama, sinks": (Llama, LlamaConfig(**GROUPED, window=7, full_layers=(0,), attention_sinks=True)),
    "gemma": (Gemma, GemmaConfig(IDS, CONTEXT, 2, 4, 2, 16, 6, 20, window=6, full_layers=(1,))),
    "moe": (Moe, MoeConfig(**SHAPE, d_ff=12, n_experts=3, top_k=2)),
}
each_config = pytest.mark.parametrize("name", CONFIGS)
PROMPTS = [[1, 2, 3], [4], [5] * 30, [9, 8, 7, 6], [1, 2, 3]]


def drawn(model_class, config, dtype=np.float64):
    """A model with large weights, and norms and biases that do something."""
    rng = np.random.default_rng(3)
    model = model_class(config, rng).to(dtype)
    if hasattr(model, "make_rope"):
        model.make_rope(dtype)
    for parameter in model.parameters():
        parameter.data *= 4 if parameter.ndim == 2 else 1
        parameter.data += rng.normal(0, 0.2, parameter.shape).astype(dtype)
    return model.eval()


def make(name):
    return drawn(*CONFIGS[name])


def own(model, ids):
    """Logits (T, V) by the model's own forward on NumPy."""
    with no_grad():
        return model(np.array([ids])).data[0]


@pytest.fixture
def not_compiled(monkeypatch):
    """What a CompiledDecoder does around its steps, which run as they are written."""
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)


@pytest.fixture
def traced(monkeypatch):
    """Steps are traced, whole, and run as they were traced; a function counts how often. Inductor would make C++ of
    them for a minute: that is a long test."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    return lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"]


# --- numbers ----------------------------------------------------------------------------------------------------------


@st.composite
def shapes(draw):
    """A decoder of any family, of odd sizes."""
    kv, group, d = draw(st.integers(1, 3)), draw(st.integers(1, 3)), 2 * draw(st.integers(1, 4))
    layers = draw(st.integers(1, 3))
    window = draw(st.sampled_from([0, 1, 4, 30]))
    full = tuple(sorted(draw(st.sets(st.integers(0, layers - 1))))) if window else ()
    sizes = {"vocab_size": IDS, "context": CONTEXT, "n_layers": layers, "n_heads": kv * group}
    family = draw(st.sampled_from(["gpt", "llama", "gemma", "moe"]))
    if family == "gpt":
        return GPT, GPTConfig(**sizes, d_model=kv * group * d)
    sizes |= {"n_kv_heads": kv, "head_dim": d, "d_model": 10, "d_ff": 12}
    if family == "gemma":
        return Gemma, GemmaConfig(**sizes, window=window or 3, full_layers=full)
    how = {
        "qk_norm": draw(st.booleans()),
        "attention_sinks": draw(st.booleans()),
        "window": window,
        "full_layers": full,
    }
    if family == "moe":
        return Moe, MoeConfig(**sizes, **how, n_experts=3, top_k=draw(st.integers(1, 3)))
    return Llama, LlamaConfig(**sizes, **how, tie_embeddings=draw(st.booleans()), qkv_bias=draw(st.booleans()))


@settings(max_examples=15)
@given(data=st.data(), shape=shapes())
@pytest.mark.parametrize("fixed", [False, True])
def test_whatever_is_read_when_the_logits_are_those_of_the_numpy_engine(fixed, shape, data):
    model = drawn(*shape)
    ported = to_torch(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda step, **_: step)
        plan = CompiledDecoder(ported, shortest=1).decoding_plan if fixed else TorchPlan(ported)
        rows, rng = data.draw(st.integers(1, 4)), np.random.default_rng(data.draw(st.integers(0, 99)))
        cache = plan.new_cache(rows, CONTEXT, 4)
        texts = [[] for _ in range(rows)]
        for _ in range(data.draw(st.integers(1, 5))):
            most = CONTEXT - max(map(len, texts))
            if not most:
                break
            counts = data.draw(st.just([1] * rows) | st.lists(st.integers(1, most), min_size=rows, max_size=rows))
            pieces = [rng.integers(IDS, size=n).tolist() for n in counts]
            texts = [text + piece for text, piece in zip(texts, pieces)]
            every = data.draw(st.booleans())
            found = plan.logits(cache, pieces, every)
            expected = [own(model, text)[-n if every else -1 :] for text, n in zip(texts, counts)]
            np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1e-10)
            taken = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=4))
            cache.take(taken)
            texts, rows = [texts[row] for row in taken], len(taken)


@each_config
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.8, 0.9, 20)], ids=["greedy", "drawn"])
def test_ids_are_those_of_the_numpy_engine_beyond_the_context(name, sampling, not_compiled):
    """Rows of different lengths, one of them longer than the context, and two alike; the windows move at different
    times, and one row stops."""
    model = make(name)
    ported, options = to_torch(model), {"max_new_tokens": 40, "sampling": sampling, "seed": 5}
    options["stop_ids"] = [generate(model, PROMPTS[2:3], **options)[0][-20]]
    expected = generate(model, PROMPTS, **options)
    assert len({len(row) for row in expected}) > 1
    for writer in (ported, CompiledDecoder(ported)):
        assert generate(writer, PROMPTS, **options) == expected
        alone = {**options, "seed": [np.random.SeedSequence(5).spawn(1)[0]]}
        assert list(stream(writer, PROMPTS[0], **alone)) == expected[0]
        assert generate(writer, PROMPTS[:2], **{**options, "max_new_tokens": 5}, plain=True) == [
            row[:5] for row in expected[:2]
        ]


# --- compiled ---------------------------------------------------------------------------------------------------------


def test_steps_are_compiled_once_for_all_texts_that_round_up_to_one_shape(traced):
    """Not again for other prompts, other lengths, and up to 8 rows; once more for guesses."""
    model, shown = drawn(Llama, LlamaConfig(**{**GROUPED, "n_layers": 1}, window=5)), []

    @contextmanager
    def watch(what):
        shown.append(what)
        yield

    compiled = CompiledDecoder(to_torch(model), watch)
    for prompts, n in ((PROMPTS, 30), ([[3] * k for k in (2, 9, 1, 1, 5, 6)], 12), ([[8, 9]] * 8, 3)):
        options = {"max_new_tokens": n, "sampling": GREEDY}
        assert generate(compiled, prompts, **options) == generate(model, prompts, **options)
    assert traced() == 1 and shown == ["a step of 8 x 1 tokens, cache 24"]
    compiled.prepare(1, 99, ahead=4)
    assert traced() == 3 and shown[1:] == ["a step of 1 x 1 tokens, cache 24", "a step of 1 x 8 tokens, cache 24"]
    for ahead in (1, 7):
        options = {"max_new_tokens": 40, "sampling": GREEDY}
        assert list(speculate(compiled, [1, 2], ahead=ahead, **options)) == generate(model, [[1, 2]], **options)[0]
    assert traced() == 3 and not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("name", ["gpt", *(pytest.param(name, marks=pytest.mark.long) for name in CONFIGS)])
def test_steps_without_side_effects_write_what_the_numpy_engine_writes(name, monkeypatch):
    """As Inductor gets them: what was written in place is a result of its own, that is copied."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model, options = make(name), {"max_new_tokens": 8, "sampling": Sampling(0.9), "seed": 2}
    assert generate(CompiledDecoder(to_torch(model)), PROMPTS[:2], **options) == generate(model, PROMPTS[:2], **options)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@each_config
def test_what_inductor_compiles_writes_what_the_numpy_engine_writes(name):
    try:
        torch._inductor.cpp_builder.get_cpp_compiler()
    except Exception as error:
        pytest.skip(f"Inductor finds no C++ compiler: {error}")
    model, options = make(name), {"max_new_tokens": 40, "sampling": GREEDY}
    assert generate(CompiledDecoder(to_torch(model)), PROMPTS, **options) == generate(model, PROMPTS, **options)


@pytest.mark.gpu
@each_config
def test_on_a_gpu_a_step_is_one_graph_and_writes_what_the_numpy_engine_writes(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch._dynamo.utils.counters.clear()
    model, options = make(name), {"max_new_tokens": 40, "sampling": GREEDY}
    compiled = CompiledDecoder(to_torch(model, device="cuda"))
    for prompts in (PROMPTS, PROMPTS[::-1]):
        assert generate(compiled, prompts, **options) == generate(model, prompts, **options)
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0


def test_torch_gives_up_no_function_that_is_compiled_for_one_shape_only(traced):
    def total(x):
        return x.sum()

    for n in range(1, 11):
        assert torch.compile(twin(total), fullgraph=True, dynamic=False)(torch.ones(n)) == n
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):  # which it does after eight
        for n in range(1, 11):
            torch.compile(total, fullgraph=True, dynamic=False)(torch.ones(n))


def test_weights_of_8_bits_and_adapters_are_compiled_too(traced):
    small = quantize_int8(drawn(GPT, GPTConfig(IDS, CONTEXT, 1, 2, 32), np.float32))
    adapted = drawn(Llama, LlamaConfig(IDS, CONTEXT, 1, 2, 2, 16, d_ff=20))
    add_lora(adapted, LoraConfig(), np.random.default_rng(0))
    for parameter in adapted.parameters():
        parameter.data += 0.1
    options = {"max_new_tokens": 10, "sampling": GREEDY}
    for model in (small, adapted.eval()):
        ported = to_torch(model)
        written = generate(CompiledDecoder(ported), PROMPTS[:2], **options)
        assert written == generate(ported, PROMPTS[:2], **options, plain=True)
    assert written == generate(adapted, PROMPTS[:2], **options)


def test_guesses_of_a_draft_are_read_by_compiled_steps(not_compiled):
    model, draft = make("llama"), drawn(GPT, GPTConfig(IDS, 9, 1, 2, 8))
    writer, helper = CompiledDecoder(to_torch(model)), CompiledDecoder(to_torch(draft))
    options = {"max_new_tokens": 40, "sampling": GREEDY}
    alone = generate(model, [[1, 2, 3]], **options)[0]
    for guesser in (helper, writer, draft, None):  # itself, too, with a cache of its own
        for ahead in (4, 20):
            assert list(speculate(writer, [1, 2, 3], guesser, ahead=ahead, **options)) == alone


# --- memory -----------------------------------------------------------------------------------------------------------


def tensor_bytes():
    tensors = [found for found in gc.get_objects() if type(found) in (torch.Tensor, torch.nn.Parameter)]
    tensors = [found for found in tensors if not torch._is_functional_tensor(found)]  # left over by a compiler
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("fixed", [False, True])
def test_a_batch_has_the_keys_and_values_of_its_own_length_and_nothing_beside(fixed, not_compiled):
    """A context of 4,096 is not laid out for texts of 40 ids, and a batch leaves nothing behind, or one set of buffers
    that the next one takes."""
    model = to_torch(drawn(Llama, LlamaConfig(**{**GROUPED, "context": 4096}), np.float32))
    writer, before, seen = CompiledDecoder(model) if fixed else model, tensor_bytes(), []
    capacity = 64 if fixed else 40
    buffers = 2 * 2 * 4 * 2 * capacity * 4 * 4  # keys and values, layers, rows, heads, positions, features, bytes
    for shape in ((4, 10), (4, 12), (1, 8), (4, 10)):
        rows, n = shape
        prompts = [[1 + row] * n for row in range(rows)]
        with closing(decode_steps(writer, prompts, 30 if n == 10 else 20, GREEDY)) as steps:
            list(islice(steps, 10))
            seen.append(tensor_bytes() - before)
        del steps
        assert tensor_bytes() - before <= (buffers if fixed else 0)
    assert 0.9 * buffers < max(seen) < 1.3 * buffers  # with the logits of a step


def test_a_cache_is_used_again_where_a_graph_knows_it(not_compiled):
    """By its address; two texts at once have each their own."""
    writer = CompiledDecoder(to_torch(make("gpt")))
    plan = writer.decoding_plan
    first, second = plan.new_cache(1, 20), plan.new_cache(1, 20)
    first.keys[0].fill_(float("nan"))
    places = {first.keys[0].data_ptr(), second.keys[0].data_ptr()}
    assert len(places) == 2
    del first, second
    again = plan.new_cache(1, 20)
    assert again.keys[0].data_ptr() in places and not any(buffer.any() for buffer in again.keys)
    options = {"max_new_tokens": 20, "sampling": GREEDY}
    both = zip(stream(writer, [1, 2], **options), stream(writer, [3], **options))
    assert list(zip(*both)) == [tuple(row) for row in generate(make("gpt"), [[1, 2], [3]], **options)]


# --- what is not supported --------------------------------------------------------------------------------------------


def test_what_has_no_plan_goes_the_plain_way_and_is_not_compiled():
    sizes = {"n_layers": 1, "n_heads": 2, "d_model": 16, "d_ff": 16}
    translator = to_torch(EncoderDecoder(EncoderDecoderConfig(IDS, context=16, **sizes)))
    for model, reason in (
        (to_torch(LSTM(LSTMConfig(IDS, 16, 1, 8))), "what a LSTM remembers is no cache of keys"),
        (translator.given(torch.tensor([[1, 2]])), "what a Decoder remembers is no cache of keys"),
        (to_torch(GPT(GPTConfig(**SHAPE, attention="triton"))), "attention 'triton' is not made for it"),
        (to_torch(Llama(LlamaConfig(**GROUPED, rope_scaling=DYNAMIC))), "a 'dynamic' rope_scaling, angles depend on"),
    ):
        assert plan_for(model) is None
        with pytest.raises(ValueError, match=reason):
            CompiledDecoder(model)
    assert isinstance(plan_for(to_torch(make("gpt"))), TorchPlan)


def test_ids_beyond_the_vocabulary_are_named_as_on_numpy(not_compiled):
    """On a GPU PyTorch's own error ends the process, without saying which id it was."""
    model = to_torch(make("gpt"))
    for writer in (make("gpt"), model, CompiledDecoder(model)):
        for bad in (IDS, -1):
            for plain in (False, True):
                with pytest.raises(IndexError, match=f"id {bad} is outside the table of {IDS} rows"):
                    generate(writer, [[1], [2, bad]], max_new_tokens=3, plain=plain)


def test_a_context_of_one_token_has_no_steps_to_prepare(not_compiled):
    model = drawn(GPT, GPTConfig(IDS, 1, 1, 2, 8))
    writer = CompiledDecoder(to_torch(model))
    writer.prepare(1, 9)
    writer.prepare(2, 9, ahead=4)
    options = {"max_new_tokens": 5, "sampling": GREEDY}
    assert generate(writer, [[1, 2], [3]], **options) == generate(model, [[1, 2], [3]], **options)
    with pytest.raises(ValueError, match=r"rows = 0 must be at least 1\."):
        writer.prepare(0, 9)


def test_what_cannot_be_compiled_is_said(monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler")

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    with pytest.raises(ValueError, match=r"could not compile a step \(.*no compiler.*Write without compiling\."):
        generate(CompiledDecoder(to_torch(make("gpt"))), [[1]], max_new_tokens=3)


def test_sizes_are_rounded_up():
    assert [power_of_two(n) for n in (1, 2, 3, 4, 5, 9, 64)] == [1, 2, 4, 4, 8, 16, 64]
