"""New tokens for a model that was pretrained without: what it knew stays, and they cost next to nothing."""

import numpy as np
import pytest

from minillm.assistant.conversations import CHATML_TOKENS, ChatTemplate
from minillm.assistant.vocabulary import with_chat_tokens
from minillm.models import GPT, LSTM, BertConfig, GPTConfig, Llama, LlamaConfig, LSTMConfig, model_from_config
from minillm.tokenizers import BPETokenizer, CharTokenizer

TOKENIZER = BPETokenizer.train(["hello there, how are you today? " * 9], 280, special_tokens=["<|endoftext|>"])
V = TOKENIZER.vocab_size
MODELS = {
    "gpt": lambda n: GPT(GPTConfig(n, 16, 1, 2, 16)),
    "llama": lambda n: Llama(LlamaConfig(n, 16, 1, 2, 1, 16, d_ff=24)),
    "llama, tied": lambda n: Llama(LlamaConfig(n, 16, 1, 2, 1, 16, d_ff=24, tie_embeddings=True)),
    "lstm": lambda n: LSTM(LSTMConfig(n, 16, 1, 16, 12)),
    "lstm, tied": lambda n: LSTM(LSTMConfig(n, 16, 1, 16, tie_embeddings=True)),
}
IDS = np.array([[3, 90, 41, 7, 200]])


def log_probs(model):
    logits = model(IDS).data.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("spare", [0, 1, 40])
def test_a_model_with_chat_tokens(name, spare):
    model = MODELS[name](V + spare)
    before = {key: value.copy() for key, value in model.state_dict().items()}
    new, tokenizer = with_chat_tokens(model, TOKENIZER)
    ids = [tokenizer.special_tokens[text] for text in CHATML_TOKENS]
    assert ids == [V, V + 1] and new.config.vocab_size == max(V + 2, V + spare)
    for key, value in model.state_dict().items():
        assert np.array_equal(value, before[key]), "the model that was given has changed"
        now = new.state_dict()[key]
        assert now.dtype == value.dtype
        if key not in ("token_embedding.weight", "head.weight"):
            assert np.array_equal(now, value)
            continue
        assert now.shape == (new.config.vocab_size, value.shape[1])
        assert np.array_equal(now[:V], value[:V]) and np.array_equal(now[V + 2 :], value[V + 2 :])
        rows, old = now[ids], value[:V]
        assert np.abs(rows - old.mean(axis=0)).max() < 5 * 1e-5**0.5 * old.std(axis=0).max()
        assert not np.array_equal(rows[0], rows[1])
    old, now = log_probs(model)[..., :V], log_probs(new)
    assert np.exp(now[..., ids]).max() < 1.2 / V
    if not spare:
        assert np.abs(now[..., :V] - old).max() < 3 / V
    ChatTemplate.chatml(tokenizer)
    again, same = with_chat_tokens(new, tokenizer)
    assert again is new and same is tokenizer


def test_the_seed_draws_the_new_rows():
    model = MODELS["gpt"](V)
    rows = [with_chat_tokens(model, TOKENIZER, seed=seed)[0].token_embedding.weight.data[V:] for seed in (0, 0, 1)]
    assert np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[0], rows[2])


def test_models_that_do_not_fit_are_refused():
    bert = model_from_config(BertConfig(V, 16, 1, 2, 16, 24))
    with pytest.raises(ValueError, match="holds no conversation: take a gpt, llama or lstm"):
        with_chat_tokens(bert, TOKENIZER)
    with pytest.raises(ValueError, match=f"has {V} tokens and the model {V - 1}: they don't belong"):
        with_chat_tokens(MODELS["gpt"](V - 1), TOKENIZER)
    char = CharTokenizer.train(["abc"])
    new, tokenizer = with_chat_tokens(MODELS["gpt"](4), char, ["<u>"])
    assert tokenizer.special_tokens == {"<|endoftext|>": 3, "<u>": 4} and new.config.vocab_size == 5
