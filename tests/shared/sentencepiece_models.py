"""Small SentencePiece models, trained here, one for each of its settings that changes a text's pieces."""

import functools
import io

import numpy as np
from tokenizer_samples import SAMPLES

COMMON = {"vocab_size": 300, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2, "character_coverage": 0.98}
MODELS = {
    "marian": {"model_type": "unigram"},
    "t5": {"model_type": "unigram", "byte_fallback": True, "vocab_size": 600},
    "llama": {
        "model_type": "bpe", "byte_fallback": True, "vocab_size": 600, "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False, "split_digits": True,
    },
    "gemma": {
        "model_type": "bpe", "byte_fallback": True, "vocab_size": 600, "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False, "add_dummy_prefix": False, "allow_whitespace_only_pieces": True,
        "user_defined_symbols": "<mask>,\n,▁▁,▁▁▁,ab,abc",
    },
    "bpe": {"model_type": "bpe", "normalization_rule_name": "nfkc_cf"},
    "defined": {"model_type": "unigram", "user_defined_symbols": "<sep>,é,!!,の", "control_symbols": "<ctl>"},
    "suffix": {"model_type": "unigram", "treat_whitespace_as_suffix": True},
    "open": {"model_type": "unigram", "split_by_whitespace": False, "remove_extra_whitespaces": False},
    "never": {"model_type": "unigram", "add_dummy_prefix": False, "normalization_rule_name": "nmt_nfkc_cf"},
}  # fmt: skip


def words(seed=0):
    """Sentences of made-up words of several scripts, some much more frequent than others."""
    rng = np.random.default_rng(seed)
    letters = ["abcdefghijklmnop", "éàüßøñ", "абвгдеж", "日本語中文字の", "한국어말", "नमस्ते"]
    vocabulary = ["".join(rng.choice(list(rng.choice(letters, p=[.6, .1, .1, .1, .05, .05])), rng.integers(1, 7)))
                  for _ in range(400)]  # fmt: skip
    chance = 1 / np.arange(1, 401)
    return [" ".join(rng.choice(vocabulary, 12, p=chance / chance.sum())) for _ in range(300)]


@functools.cache
def trained(name, **settings):
    """The bytes of a model file, of one of MODELS with these settings besides."""
    import sentencepiece

    out = io.BytesIO()
    sentences = [*words(), *[line for text in SAMPLES for line in text.splitlines() if line.strip()]]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=out, **{**COMMON, **MODELS[name], **settings}
    )
    return out.getvalue()


@functools.cache
def peer(name):
    """The model in SentencePiece itself."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=trained(name))


def marian_folder(folder, seed=0, **settings):
    """A Marian's tokenizer as transformers saves it: two models, a vocabulary of both, two languages."""
    import json

    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    source, target = trained("marian"), trained("defined")
    (folder / "source.spm").write_bytes(source)
    (folder / "target.spm").write_bytes(target)
    import sentencepiece

    pieces = []
    for data in (source, target):
        model = sentencepiece.SentencePieceProcessor(model_proto=data)
        pieces += [model.id_to_piece(i) for i in range(model.get_piece_size())]
    rng = np.random.default_rng(seed)
    own = [piece for piece in dict.fromkeys(pieces) if piece not in ("<s>", "</s>", "<unk>") and rng.random() < 0.9]
    vocab = ["</s>", "<unk>", *own, ">>fra<<", ">>pt_BR<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(vocab)}), encoding="utf-8")
    tokenizer = transformers.MarianTokenizer(
        str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json"),
        source_lang="en", target_lang="de", **settings,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return tokenizer
