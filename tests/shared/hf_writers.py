"""Small encoder-decoders of transformers with every number random: BART, Marian, and their folders with a tokenizer."""

import json

import numpy as np
from hf_models import torch, transformers
from sentencepiece_models import marian_folder

CLASSES = {"bart": ("BartConfig", "BartForConditionalGeneration"), "marian": ("MarianConfig", "MarianMTModel")}


def random_model(kind, seed, name=None, **settings):
    """A small model of the kind with every number random, but for Marian's waves; all its shape drawn, too."""
    rng = np.random.default_rng(seed)
    heads, inner = int(rng.integers(1, 4)), int(rng.integers(5, 30))
    shape = {
        "vocab_size": 61, "d_model": 2 * heads * int(rng.integers(1, 4)), "max_position_embeddings": 24,
        "encoder_layers": int(rng.integers(1, 4)), "decoder_layers": int(rng.integers(1, 4)),
        "encoder_attention_heads": heads, "decoder_attention_heads": heads,
        "encoder_ffn_dim": inner, "decoder_ffn_dim": inner, "scale_embedding": bool(rng.integers(2)),
        "activation_function": str(rng.choice(["gelu", "relu", "swish"])),
    }  # fmt: skip
    own = {"pad_token_id": 60, "decoder_start_token_id": 60, "eos_token_id": 0} if kind == "marian" else {}
    config_class, model_class = CLASSES[kind]
    model_class = name or model_class
    config = getattr(transformers, config_class)(**{**shape, **own, "forced_eos_token_id": None, **settings})
    torch.manual_seed(seed)
    model = getattr(transformers, model_class)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if kind == "bart" or "embed_positions" not in name:
                parameter.copy_(0.4 * torch.randn(parameter.shape) + (parameter.ndim == 1))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.copy_(torch.randn(model.final_logits_bias.shape))
    return model


def bart_folder(folder):
    """A small BART with a tokenizer of its own, byte-level, as transformers writes both; the tokenizer."""
    from tokenizers import ByteLevelBPETokenizer

    texts = ["one two three four five six seven eight nine ten", "eins zwei drei vier fünf sechs sieben acht neun zehn"]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts * 3, 330, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    folder.mkdir(parents=True)
    trained.save_model(str(folder))
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text("utf-8").splitlines()[1:]]
    tokenizer = transformers.BartTokenizer(vocab=json.loads((folder / "vocab.json").read_text("utf-8")), merges=merges)
    tokenizer.save_pretrained(folder)
    n = len(tokenizer)
    random_model("bart", 1, vocab_size=n, max_position_embeddings=40).save_pretrained(folder)
    return tokenizer


def writer_folder(kind, folder):
    """A small model of the kind with its tokenizer, which is given back."""
    if kind == "bart":
        return bart_folder(folder)
    tokenizer = marian_folder(folder)
    own = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 40}
    own |= {"decoder_start_token_id": tokenizer.pad_token_id}
    random_model("marian", 1, **own).save_pretrained(folder)
    return tokenizer
