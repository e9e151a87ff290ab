"""Texts that are hard on tokenizers, for hypothesis: every script, marks that join, white space, controls, emoji."""

from hypothesis import strategies as st
from tokenizer_samples import SAMPLES, few_characters, white_space

# What is new in Unicode since 2017 is not known to the library's tables: scripts from before, and all kinds of them.
script = st.characters(max_codepoint=0x7F0, exclude_categories=("Cs", "Cn"))
further = st.characters(min_codepoint=0x900, max_codepoint=0x9D0, exclude_categories=("Cn",))
asian = st.sampled_from("中文語言한국어각힣ᄒ\u1161\u11a8かがガｶﾞ｡、。「」ไทยภาษาที่नमस्तेकि")
tricky = st.sampled_from(
    "aBs'lLrevé中ſ12٣ \n\r\t\x00\x01\x0b\x1c\x7f\x85\xa0\u2003\u3000\u200b\u200d\u2028\ufeff\ufffd!.<|>😀👨👍🏽🇨🇳ﬁ①é"
    "Å\u0301\u0327\u0323\u0308ΣςİÅ½Ⅻ▁_~$,ßẞǅ"
)
marks = ["<s>", "</s>", "zap", " zap", "bar", " bar", "<mask>", "<|endoftext|>", "<unk>", "<0x41>", "</w>"]
parts = st.one_of(
    st.text(alphabet=st.one_of(tricky, script, further, asian), max_size=20),
    st.text(alphabet=tricky, max_size=30),
    few_characters,
    white_space,
    st.sampled_from([*marks, *(text[:60] for text in SAMPLES)]),
)
drawn = st.lists(parts, max_size=3).map("".join)
