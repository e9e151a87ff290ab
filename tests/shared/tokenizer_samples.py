"""Texts that the tokenizer tests share, and random text that finds trouble sooner than uniform Unicode does."""

from functools import cache

from hypothesis import strategies as st

from minillm.tokenizers import BPETokenizer

ENGLISH = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a "
    "wife. They've said so; WE'LL SEE.  However little known the feelings or views of such a man may be, he's 1,234 "
    "reasons (at least 56789) to worry!\n\nTwo newlines, then a tab:\tand trailing spaces   \n"
)
CHINESE = "语言模型学习如何预测下一个词。我们先收集文本，然后训练分词器！她说：“今天是2024年5月1日。”\n龘龘靐\n"
CODE = 'def f(x: int) -> str:\n    """Doc."""\n    return [i ** 2 for i in range(10_000) if i % 2]\r\n\r\n\t# done\n'
EMOJI = "👍🏽 good 🎉🎉 👨‍👩‍👧‍👦 family 🇨🇳 é́ ñ ſ 'ſ ½ ٣٤ Ω\u2028\u00a0\u3000\x85\x1c\x1f \ufeff"
SAMPLES = [ENGLISH, CHINESE, CODE, EMOJI]

# Short, from few characters: repeats and ties, runs, contractions, every kind of white space, bits of special tokens.
few_characters = st.text(alphabet="ab", max_size=30)
tricky = st.text(alphabet="aBs'lLrevé中ſ12٣ \n\r\t\x0b\x1c\x85\u2003!.<|>😀", max_size=40)
white_space = st.text(alphabet=" \n\ra!", max_size=20)
# Characters without a meaning yet (Cn) are left out: libraries are built with different versions of Unicode.
unicode_text = st.text(alphabet=st.characters(exclude_categories=("Cs", "Cn")), max_size=40)
any_text = st.one_of(few_characters, tricky, white_space, unicode_text, st.sampled_from(SAMPLES))
ascii_text = st.text(alphabet=[chr(code) for code in range(128)], max_size=60)


@cache
def trained(pattern: str) -> BPETokenizer:
    """A tokenizer with merges of every kind, trained on the samples and on runs of one letter."""
    texts = [*SAMPLES * 3, "aaaaaaaaa aaaa aaaaaaa abababab " * 3]
    return BPETokenizer.train(
        texts, 700, pattern=pattern, special_tokens=["<|endoftext|>", "<|end|>", "<|end|><|more|>"]
    )
