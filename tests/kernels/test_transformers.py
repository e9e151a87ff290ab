"""Our attention inside transformers' models: the same logits, gradients and generated tokens as their own attention."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
transformers = pytest.importorskip("transformers")

from minillm.kernels import register_with_transformers  # noqa: E402

SMALL = dict(vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
GPT2 = dict(vocab_size=60, n_embd=32, n_layer=1, n_head=2, n_positions=64, attn_pdrop=0.0, embd_pdrop=0.0)
BERT = dict(attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
TOKENS = 14


def llama():
    config = transformers.LlamaConfig(**SMALL, num_key_value_heads=2, pad_token_id=0, eos_token_id=None)
    return transformers.LlamaForCausalLM(config)


def mistral():
    config = transformers.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=5, pad_token_id=0)
    return transformers.MistralForCausalLM(config)


def gpt2():
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2, resid_pdrop=0.0, pad_token_id=0))


def bert():
    return transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, **BERT))


def gemma2():
    config = transformers.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=5, pad_token_id=0,
                                       query_pre_attn_scalar=8, attn_logit_softcapping=0.5)  # fmt: skip
    return transformers.Gemma2ForCausalLM(config)


def gpt_oss():
    sizes = SMALL | dict(num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1)
    config = transformers.GptOssConfig(**sizes, sliding_window=5, layer_types=["sliding_attention"], pad_token_id=0)
    model = transformers.GptOssForCausalLM(config)
    torch.nn.init.normal_(model.model.layers[0].self_attn.sinks)
    return model


MODELS = {"gemma2": gemma2, "gpt_oss": gpt_oss, "llama": llama, "mistral": mistral, "gpt2": gpt2, "bert": bert}


@pytest.fixture(autouse=True)
def registered(device):
    register_with_transformers()


def batch(device, padding):
    ids = torch.randint(1, 60, (2, TOKENS), generator=torch.Generator().manual_seed(1)).to(device)
    keep = torch.ones(2, TOKENS, dtype=torch.int64, device=device)
    if padding == "right":
        keep[0, 9:], keep[1, 4:] = 0, 0
    if padding == "left":
        keep[0, :6], keep[1, :11] = 0, 0
    return dict(input_ids=ids * keep, attention_mask=keep)


def logits_and_gradients(model, implementation, inputs):
    model.set_attn_implementation(implementation)
    model.zero_grad()
    logits = model(**inputs).logits[inputs["attention_mask"].bool()]  # what stands at real tokens
    logits.log_softmax(-1)[:, 7].sum().backward()
    return logits.detach(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    "name, padding",
    [
        ("llama", "none"),
        ("llama", "right"),
        ("llama", "left"),
        ("mistral", "left"),
        ("gpt2", "right"),
        ("bert", "right"),
        ("gemma2", "left"),
        ("gpt_oss", "right"),
    ],
)
def test_same_logits_and_gradients(device, name, padding):
    torch.manual_seed(0)
    model = MODELS[name]().to(device).train()
    inputs = batch(device, padding)
    logits, gradients = logits_and_gradients(model, "minillm", inputs)
    theirs = "sdpa" if model._supports_sdpa else "eager"
    expected, expected_gradients = logits_and_gradients(model, theirs, inputs)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert len(gradients) == len(expected_gradients) > 5
    for a, b in zip(gradients, expected_gradients):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


def test_padding_does_not_change_a_sequence(device):
    torch.manual_seed(0)
    model = llama().to(device).eval()
    model.set_attn_implementation("minillm")
    padded = batch(device, "right")
    alone = dict(input_ids=padded["input_ids"][1:2, :4])
    with torch.no_grad():
        torch.testing.assert_close(model(**padded).logits[1, :4], model(**alone).logits[0])


@pytest.mark.parametrize(
    "name, cache, padding",
    [
        ("llama", None, "left"),
        ("llama", "static", "left"),
        ("llama", "static", "none"),  # the prompt meets a cache with empty slots, and no mask to say so
        ("mistral", "static", "left"),
        ("gpt2", None, "left"),
    ],
)
def test_generates_the_same_tokens(device, name, cache, padding):
    torch.manual_seed(0)
    model = MODELS[name]().to(device).eval()
    made = []
    for implementation in ("minillm", "sdpa"):
        model.set_attn_implementation(implementation)
        options = dict(max_new_tokens=3, do_sample=False, pad_token_id=0, disable_compile=True)
        options |= dict(cache_implementation=cache, return_dict_in_generate=True, output_logits=True)
        made.append(model.generate(**batch(device, padding), **options))
    ours, theirs = made
    assert torch.equal(ours.sequences, theirs.sequences)
    torch.testing.assert_close(torch.stack(ours.logits), torch.stack(theirs.logits), rtol=1e-4, atol=1e-5)


def test_a_prompt_in_two_pieces(device):
    """The second piece's queries stand at the end of the cache: causality is aligned at the bottom right."""
    from hf_models import call_with_cache, transformers

    torch.manual_seed(0)
    model = llama().to(device).eval()
    model.set_attn_implementation("minillm")
    ids = batch(device, "none")["input_ids"]
    cache = transformers.DynamicCache(config=model.config)
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        call_with_cache(model, ids[:, :8], cache)
        second = call_with_cache(model, ids[:, 8:], cache)
    torch.testing.assert_close(second.logits, whole[:, 8:], rtol=1e-4, atol=1e-5)


def test_a_dense_mask_has_the_last_word(device):
    """A mask of every pair, such as a prefix that sees itself both ways, is not cut by causality again."""
    from attention_reference import reference_attention
    from minillm.kernels.transformers_attention import attention_forward

    q, k, v = (torch.randn(1, 2, 6, 16, device=device) for _ in range(3))
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool, device=device).tril()
    mask[..., :3, :3] = True
    out, _ = attention_forward(torch.nn.Module(), q, k, v, mask)  # a module without is_causal counts as causal
    torch.testing.assert_close(out.transpose(1, 2), reference_attention(q, k, v, mask=mask))


def test_what_is_not_supported_raises(device):
    from minillm.kernels.transformers_attention import attention_forward

    q = torch.zeros(1, 2, 4, 16, device=device)
    with pytest.raises(ValueError, match="does not support position_bias"):
        attention_forward(torch.nn.Module(), q, q, q, None, position_bias=q)
    with pytest.raises(ValueError, match="boolean masks"):
        attention_forward(torch.nn.Module(), q, q, q, torch.zeros(1, 1, 4, 4, device=device))
