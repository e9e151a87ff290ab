"""Words by script: the same cut wherever a stretch of text stands, in NumPy as by the pattern."""

import hypothesis.strategies as st
import numpy as np
import pytest
import regex
from hypothesis import given

from minillm.data.dedup import MinHash, deduplicate
from minillm.data.documents import Document
from minillm.data.scripts import OWN, OWN_RANGES, OWN_WORD, char_kinds, count_words, word_starts
from minillm.data.shingles import word_hashes

# A paragraph in each language, and what makes another one of it.
PARAGRAPHS = {
    "Chinese": ("港口的灯塔每天晚上六点亮起来，给远处的船指路。", "六", "七"),
    "Japanese": ("港の灯台は毎晩六時に明かりをつけて、船を導きます。", "六", "七"),
    "Thai": ("ประภาคารที่ท่าเรือเปิดไฟทุกคืนเพื่อบอกทางให้เรือ", "เปิด", "ปิด"),
    "Hindi": ("बंदरगाह की बत्ती हर रात जहाज़ों को रास्ता दिखाती है।", "की", "कि"),
    "Arabic": ("تضيء منارة الميناء كل ليلة لترشد السفن إلى الطريق.", "ليلة", "نهار"),
    "Korean": ("항구의 등대는 매일 밤 불을 켜서 배에 길을 알려 준다.", "켜서", "꺼서"),
}


def words_of(text: str) -> list[str]:
    starts, inside = word_starts(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32))
    words: list[str] = []
    for character, begins, belongs in zip(text, starts, inside):
        assert belongs or not begins
        if begins:
            words.append(character)
        elif belongs:
            words[-1] += character
    return words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("कि की हिन्दी में।", "कि की हिन्दी में"),
        ("\U00020000字", "\U00020000 字"),
        ("กินข้าวที่นี่ ประเทศไทย", "กิน ข้าว ที่ นี่ ป ระ เทศ ไทย"),
        ("ພາສາລາວ", "ພາ ສາ ລາວ"),
        ("人々がＡＢ・ｶﾅ", "人 々 が ＡＢ ｶ ﾅ"),
        ("ភាសា မြန်မာ", "ភា សា မြ န်မာ".replace("န်မာ", "န် မာ")),
        ("كَتَبَ في", "كَتَبَ في"),
        ("가각 나", "가각 나"),
        ("cafe\u0301 ❤\ufe0f 1\ufe0f\u20e3 👩\u200d👧", "cafe\u0301 1\ufe0f\u20e3"),
        ("\u0301a abกินab", "a ab กิน ab"),
        ("葛\U000e0100飾 \U00020000\U00020001", "葛\U000e0100 飾 \U00020000 \U00020001"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("", ""),
        (" .,!", ""),
    ],
)
def test_words_of_each_script(text: str, words: str) -> None:
    assert words_of(text) == words.split()
    assert len(word_hashes(text)) == len(words.split())


def test_signs_make_another_word() -> None:
    assert word_hashes("कि").tolist() != word_hashes("की").tolist() != word_hashes("क").tolist()
    assert word_hashes("ที่").tolist() != word_hashes("ที").tolist()
    assert len(set(word_hashes("가 나 가").tolist())) == 2


def test_which_characters_are_words_of_their_own() -> None:
    own = {i for first, last in OWN_RANGES for i in range(first, last + 1) if chr(i).isalnum()}
    assert set(np.flatnonzero(char_kinds() == OWN).tolist()) == own
    assert {ord(c) for c in "々〇あアｱ中豈ကក"} <= own and not {ord(c) for c in "가ก・।"} & own


@given(st.text(alphabet="กรนเไาะิ่็ກເາ中あкa1 ฿。🙂がé", max_size=30))
def test_the_pattern_finds_the_same_words(text: str) -> None:
    spaced = regex.sub(f"(?={OWN_WORD})", "|", text).count("|")
    starts, _inside = word_starts(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32))
    kinds = char_kinds()
    own = sum(bool(begins) and kinds[ord(c)] >= OWN for c, begins in zip(text, starts))
    assert spaced == own == len(regex.findall(OWN_WORD, text))


@given(st.text(alphabet="กรนเไาะิ่中か a", max_size=12), st.text(alphabet="กรนเไาะิ่中か a", max_size=12))
def test_equal_stretches_are_cut_alike(before: str, after: str) -> None:
    """But for the words at its ends."""
    stretch = words_of("ประภาคารที่ท่าเรือเปิดไฟ中文かな")
    around = words_of(before + "ประภาคารที่ท่าเรือเปิดไฟ中文かな" + after)
    inner = stretch[2:-1]
    assert any(around[i : i + len(inner)] == inner for i in range(len(around)))


@pytest.mark.parametrize("language", PARAGRAPHS)
def test_planted_paragraphs_and_near_misses(language: str) -> None:
    paragraph, word, another = PARAGRAPHS[language]
    other = paragraph.replace(word, another)
    assert count_words(paragraph) >= 8 and count_words(other) >= 8
    first = Document(f"A.\n\n{paragraph}\n\nB.\n", "first")
    second = Document(f"C.\n\n{other}\n\n{paragraph}\n\nD.\n", "second")
    kept = list(deduplicate([first, second], near_threshold=None, paragraphs=True))
    assert [document.text for document in kept] == [first.text, f"C.\n\n{other}\n\nD.\n"]


@pytest.mark.parametrize("language", PARAGRAPHS)
def test_near_copies_and_others(language: str) -> None:
    """One word changed in a long text leaves a near copy; every sentence changed leaves none."""
    paragraph, word, another = PARAGRAPHS[language]
    other = paragraph.replace(word, another)
    minhash = MinHash(512)
    words = words_of(paragraph)
    rng = np.random.default_rng(0)
    joint = " " if len(words) < 20 else ""
    long = [joint.join(rng.permutation(words).tolist()) for _ in range(20)]
    near = "。 ".join([*long[:10], other, *long[11:]])
    shuffled = "。 ".join(joint.join(rng.permutation(words).tolist()) for _ in range(20))
    signatures = [minhash.signature(text) for text in ("。 ".join(long), near, shuffled)]
    assert all(signature is not None for signature in signatures)
    original, changed, unlike = signatures
    assert minhash.similarity(original, changed) > 0.8  # type: ignore[arg-type]
    assert minhash.similarity(original, unlike) < 0.3  # type: ignore[arg-type]


def test_paragraphs_of_books_that_indent_by_a_wide_space() -> None:
    paragraph, word, another = PARAGRAPHS["Chinese"]
    other = paragraph.replace(word, another)
    text = f"\u3000\u3000{paragraph}\n\u3000\u3000{other}\n\u3000\u3000{paragraph}\n"
    (kept,) = deduplicate([Document(text, "book")], paragraphs=True)
    assert kept.text == f"\u3000\u3000{paragraph}\n\u3000\u3000{other}\n"
