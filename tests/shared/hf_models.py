"""Small transformers models, one for each architecture that minillm reads, every parameter random."""

import inspect

import numpy as np
import pytest
import safetensors

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

SMALL = {
    "vocab_size": 61,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
}
DECODER = {**SMALL, "num_key_value_heads": 2, "head_dim": 6, "rope_parameters": {"rope_theta": 500.0}}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 300.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
DISTILBERT = {"vocab_size": 61, "max_position_embeddings": 24, "dim": 12, "hidden_dim": 20, "n_layers": 2, "n_heads": 4}
MIXED = {"use_sliding_window": True, "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]}
GEMMA3 = {**DECODER, "sliding_window": 4, "layer_types": MIXED["layer_types"], "rope_parameters": None}
MOE = {**DECODER, "moe_intermediate_size": 12, "num_experts": 4, "num_experts_per_tok": 2, "mlp_only_layers": [0]}
GPT_OSS = {**DECODER, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4}
GPT2 = {"vocab_size": 61, "n_positions": 24, "n_embd": 12, "n_layer": 2, "n_head": 3}
FAMILIES = {
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "llama": ("LlamaConfig", "LlamaForCausalLM", DECODER),
    "llama with biases": ("LlamaConfig", "LlamaForCausalLM", {**DECODER, "attention_bias": True}),
    "llama tied": ("LlamaConfig", "LlamaForCausalLM", {**DECODER, "tie_word_embeddings": True}),
    "llama 3.1": ("LlamaConfig", "LlamaForCausalLM", {**DECODER, "rope_parameters": LLAMA3}),
    "llama, biases in the mlp": ("LlamaConfig", "LlamaForCausalLM", {**DECODER, "mlp_bias": True}),
    "gpt2, its own width": ("GPT2Config", "GPT2LMHeadModel", {**GPT2, "n_inner": 17, "layer_norm_epsilon": 1e-3}),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**DECODER, "sliding_window": 4}),
    "mistral 0.3": ("MistralConfig", "MistralForCausalLM", {**DECODER, "sliding_window": None}),
    "ministral": ("MinistralConfig", "MinistralForCausalLM", {**DECODER, **MIXED}),
    "qwen2 with windows": ("Qwen2Config", "Qwen2ForCausalLM", {**DECODER, **MIXED}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {**DECODER, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", DECODER),
    "qwen3 moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", MOE),
    "gpt-oss": ("GptOssConfig", "GptOssForCausalLM", GPT_OSS),
    "gemma 3": ("Gemma3TextConfig", "Gemma3ForCausalLM", GEMMA3),
    "bert": ("BertConfig", "BertForMaskedLM", SMALL),
    "roberta": ("RobertaConfig", "RobertaForMaskedLM", SMALL),
    "xlm-roberta": ("XLMRobertaConfig", "XLMRobertaForMaskedLM", SMALL),
    "distilbert": ("DistilBertConfig", "DistilBertForMaskedLM", DISTILBERT),
}
IDS = np.random.default_rng(3).integers(1, 61, (2, 11))


def for_tokens(family):
    """Whether it fills in hidden tokens."""
    return FAMILIES[family][1].endswith("MaskedLM")


def build(family, seed=0, cls=None, **settings):
    """A transformers model in which every parameter is random, norms and biases too."""
    config_class, model_class, values = FAMILIES[family]
    config = getattr(transformers, config_class)(**{**values, **settings})
    torch.manual_seed(seed)
    model = getattr(transformers, cls or model_class)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape) + (parameter.ndim == 1))
    return model


def their_logits(model, ids=IDS):
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.double().numpy()


def reload(cls, folder, **options):
    """A model that transformers loads without one complaint."""
    model, info = getattr(transformers, cls).from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info.values()), info
    return model.eval()


def tensor_names(folder):
    with safetensors.safe_open(folder / "model.safetensors", "np") as file:
        return sorted(file.keys())


def call_with_cache(model, ids, cache):
    """What a model says to the tokens (B, T) after those in `cache`, a transformers cache, which grows by them. The
    argument's name is another one from transformers 5.24 on."""
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return model(ids, use_cache=True, **{name: cache})
