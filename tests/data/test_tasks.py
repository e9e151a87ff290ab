"""The tasks that are made here: the same everywhere, right by an independent reading, and split as they promise.

Each grammar is checked by a reader of its own that knows none of the generator's functions: Chinese numerals are parsed
back to numbers, sentiment is derived from the text, requests for code are answered by plain Python, talks are followed.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from functools import cache, partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies

from minillm.data.examples import Chat, Labelled, Pair, Prompt, read_chats, read_labelled, read_pairs, read_prompts
from minillm.data.tasks import TASKS, code, dialogue, sentiment, summarization, transfer, translation, verifiable
from minillm.data.tasks.baselines import NaiveBayes, Nearest, most_frequent
from minillm.data.tasks.draw import Draw, fill, near_copy_key
from minillm.data.tasks.execution import passes
from minillm.data.tasks.samples import sample_files, write_samples
from minillm.data.tasks.stories import stories

ROOT = Path(__file__).parents[2]
MAKERS = {name: task.make for name, task in TASKS.items()} | {"sentiment zh": partial(sentiment.make, language="zh")}
MODULES = {**TASKS, "sentiment zh": sentiment}


@cache
def made(name, seed=0):
    return MAKERS[name](seed)


def text_of(example):
    if isinstance(example, Chat | Prompt):
        return "\n".join(message["content"] for message in example.messages)
    return example.text if isinstance(example, Labelled) else example.source


# --- the same everywhere ----------------------------------------------------------------------------------------------

# crc32 of each split, in order. A change of these is a change of the data: results measured before are of other data.
CHECKSUMS = {
    ("sentiment", 0): "7244ab25 81127e44 307256c3 a31f9a06 d3d07a60",
    ("sentiment", 1): "f5aac62a 8ebb4e8e b2e0755f 30759b43 6573b530",
    ("transfer", 0): "8cf94162 cffad7e6 2e14105b 6e97cfff",
    ("transfer", 1): "05d909a9 f90e22da 7bd17df4 e1935192",
    ("translation", 0): "fb42af6f 40168600 72e404e8 ee339e67 115ec632",
    ("translation", 1): "3407cee1 d6143b65 0f2b3b25 159b69da 659f2525",
    ("code", 0): "b28aa760 bdddfa92 86559930 77d7e17d 19e5a46f",
    ("code", 1): "b56336b9 2de3a4db 18e6f8e6 6dbf86ab 37ee2f7b",
    ("summarization", 0): "f39b9702 7762d21a 65ae1b3e 4da62a8f",
    ("summarization", 1): "9f34e9d7 13f2211d d821d6c1 5e938e58",
    ("dialogue", 0): "4a134969 d720460a 46be89cd c9570483 5bb07d00",
    ("dialogue", 1): "ca2141b3 9adbb650 71428848 5d474b22 e3bc1aad",
    ("verifiable", 0): "2efa51cb 0c6a3327 176219e2 bccdd47c",
    ("verifiable", 1): "003f073d b756e2c6 ea05d5fb 17d2ef4a",
    ("sentiment zh", 0): "74992774 e8a09002 3d837534 82295878 6bc5c6cd",
    ("sentiment zh", 1): "59b3edaf 21ee5790 26efe500 e1c197a1 e4b6e567",
}  # fmt: skip


@pytest.mark.parametrize(("name", "seed"), CHECKSUMS)
def test_a_seed_gives_the_same_data_everywhere(name, seed):
    sums = [f"{zlib.crc32(chr(10).join(map(repr, part)).encode()):08x}" for part in made(name, seed).values()]
    assert " ".join(sums) == CHECKSUMS[name, seed]


@pytest.mark.parametrize(("texts", "checksum"), [(stories, 0x699CDE4D), (transfer.reviews, 0xA3D7DA31)])
def test_texts_without_labels_are_the_same_everywhere(texts, checksum):
    told = texts()  # with seed 0
    assert len(told) == 12_000 and zlib.crc32("\n".join(told).encode()) == checksum
    assert texts(seed=1, count=9) != told[:9] == texts(count=9)


def test_draws_come_from_the_raw_stream():
    draw = Draw(3, "test")
    assert [draw.below(100) for _ in range(5)] == [65, 36, 78, 5, 18]
    raw = np.random.PCG64([3, zlib.crc32(b"test")]).random_raw(5)
    assert [int(n) % 100 for n in raw] == [65, 36, 78, 5, 18]
    assert sorted(draw.shuffled(range(50))) == list(range(50)) != draw.shuffled(range(50))
    assert len(set(draw.some(range(9), 9))) == 9
    assert {draw.between(2, 4) for _ in range(99)} == {2, 3, 4}
    assert not any(draw.chance(0) for _ in range(99)) and all(draw.chance(100) for _ in range(99))
    assert len(draw.held_out(25, "abcd", "ef")) == 2


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(ValueError, match="seed must be a whole number from 0 on, not -1"):
        sentiment.make(-1)
    with pytest.raises(ValueError, match="language must be one of en, zh, not 'fr'"):
        sentiment.make(language="fr")
    with pytest.raises(RuntimeError, match="gives 1 texts of this kind, fewer than the 2 asked for"):
        fill(2, lambda: ("one", "one"), set())


@pytest.mark.parametrize("name", MAKERS)
def test_no_text_of_a_held_out_split_nor_a_near_copy_is_in_another(name):
    where = {}
    for split, examples in made(name).items():
        for text in map(text_of, examples):
            plain = text.lower() if name in ("dialogue", "verifiable") else re.sub(r"\d", "", text.lower())
            key = re.sub(r"[^\w]", "", plain)
            assert where.setdefault(key, split) == split, f"{text!r} of {split} is in {where[key]}, too"
        assert len({text_of(example) for example in examples}) == len(examples)


# --- translation ------------------------------------------------------------------------------------------------------


def number_of(numeral):
    """Chinese numeral -> int, read from the left with a running total."""
    total = section = digit = 0
    for sign in numeral:
        if sign in "零一二三四五六七八九两":
            digit = {"两": 2}.get(sign, "零一二三四五六七八九".find(sign))
        elif sign == "万":
            total, section, digit = (total + section + digit) * 10_000, 0, 0
        else:
            section += (digit or 1) * {"十": 10, "百": 100, "千": 1000}[sign]
            digit = 0
    return total + section + digit


def number_in(words):
    """English number words -> int."""
    below_ten = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    units = {word: n for n, word in enumerate(below_ten)} | {"ten": 10, "eleven": 11, "twelve": 12}
    for word, stem in zip(below_ten[2:], ("", "thir", "four", "fif", "six", "seven", "eigh", "nine")):
        units[f"{stem}teen"] = 10 + units[word]
    for word, stem in zip(below_ten[2:], ("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine")):
        units[f"{stem}ty"] = 10 * units[word]
    total = part = 0
    for word in words.replace("-", " ").split():
        if word == "thousand":
            total, part = part * 1000, 0
        elif word == "hundred":
            part *= 100
        else:
            part += units[word]
    return total + part


@given(strategies.integers(1, 99_999_999))
def test_numerals_can_be_read_back(n):
    assert number_of(translation.chinese(n)) == n
    assert "零零" not in translation.chinese(n) and not translation.chinese(n).endswith("零")
    if n < 1_000_000:
        assert number_in(translation.english(n)) == n


@pytest.mark.parametrize(
    ("n", "numeral"),
    [(2, "二"), (10, "十"), (12, "十二"), (20, "二十"), (22, "二十二"), (102, "一百零二"), (110, "一百一十"),
     (202, "二百零二"), (1010, "一千零一十"), (2000, "两千"), (2222, "两千二百二十二"), (10_000, "一万"),
     (10_500, "一万零五百"), (20_010, "两万零一十"), (22_000, "两万二千"), (100_001, "十万零一"),
     (120_000, "十二万"), (200_300, "二十万零三百"), (1_010_010, "一百零一万零一十")],
)  # fmt: skip
def test_numerals_that_are_often_got_wrong(n, numeral):
    assert translation.chinese(n) == numeral


NUMBER = "(?:(?:" + "|".join([*translation.ONES, *translation.TENS[2:], "hundred", "thousand"]) + r")\b[ -]?)+"


def test_both_sides_of_a_translation_say_the_same_number_of_the_same_things():
    nouns = [noun for same in translation.NOUNS.values() for noun in same]
    forms = "|".join(form for one, several, _ in nouns for form in (several, one))
    for pair in [pair for part in made("translation").values() for pair in part]:
        match = re.search(rf"\b({NUMBER})({forms}|yuan)\b", pair.source)
        assert match, pair
        n = number_in(match[1])
        measure, zh = next(((m, noun) for m, nouns in translation.NOUNS.items() for one, several, noun in nouns
                            if match[2] == (one if n == 1 else several)), ("元", ""))  # fmt: skip
        numeral = re.search(rf"([零一二三四五六七八九十百千万两]+){measure}{zh}", pair.target)
        assert numeral and number_of(numeral[1]) == n, pair
        assert numeral[1] != ("二" if zh else "两"), pair


def test_times_and_places_stand_before_the_verb():
    for pair in made("translation")["test"]:
        zh = pair.target
        for english, (place, _) in translation.PLACES.items():
            if english in pair.source and "here w" not in pair.source:
                verb = next(v for *forms, v in translation.VERBS if any(f" {f} " in pair.source for f in forms))
                assert zh.index(place) < zh.index(verb + ("" if " will " in pair.source else "了")), pair
        for day, name in translation.WEEKDAYS.items():
            if day in pair.source:
                assert f"星期{name}" in zh[: max(zh.find("在"), 8)], pair


MEASURES = {measure + noun: measure for measure, nouns in translation.NOUNS.items() for *_, noun in nouns}
AMOUNT = re.compile(rf"\b({NUMBER})")
WHEN = re.compile(rf"\b(?:at|past) {NUMBER}|\bon the \S+ of \w+")
ATOMS = (re.compile("|".join(MEASURES)), re.compile("|".join([*translation.PAST, *translation.FUTURE])),
         re.compile("|".join([*translation.WEEKDAYS, *translation.MONTHS])),
         re.compile(rf"\b(?:at|past) ({'|'.join(translation.ONES)})\b"))  # fmt: skip


def amount_in(pair):
    """The number words of what is counted, times aside."""
    return AMOUNT.search(WHEN.sub(" ", pair.source.lower()))[1]


def atoms(pair):
    """The measure word, the time and the magnitude, read from both sides."""
    thing, day, calendar, clock = ATOMS
    times = day.findall(pair.source.lower()) + calendar.findall(pair.source)
    times += [f"{hour} o'clock" for hour in clock.findall(pair.source.lower())]
    digits = len(str(number_in(amount_in(pair))))
    return [MEASURES[thing.search(pair.target)[0]], *times, f"{digits} digit{'s' if digits > 1 else ''}"]


def test_compositional_pairs_never_stood_together_but_each_atom_did():
    splits = made("translation")
    together = Counter(pair for example in splits["train"] for pair in combinations(atoms(example), 2))
    single = Counter(atom for example in splits["train"] for atom in atoms(example))
    for name in ("train", "val", "test", "compositional"):
        for example in splits[name]:
            found = atoms(example)
            assert ", ".join(found) == example.where, example
            new = [pair for pair in combinations(found, 2) if pair not in together]
            assert bool(new) == (name == "compositional"), (example, new)
            assert all(single[atom] > 100 for atom in found), example


def test_longer_numbers_are_longer():
    splits = made("translation")
    words = {name: [len(amount_in(pair).split()) for pair in part] for name, part in splits.items()}
    assert max(words["train"]) == max(words["test"]) == max(words["compositional"]) == 5
    assert min(words["longer"]) == 6 and max(words["longer"]) == 7
    seen = {word for pair in splits["train"] for word in re.findall(r"\w+", pair.source)}
    for name in ("test", "compositional", "longer"):
        assert {word for pair in splits[name] for word in re.findall(r"\w+", pair.source)} <= seen


# --- code -------------------------------------------------------------------------------------------------------------

DO = {  # what each part means, in plain Python
    "all": lambda x, k: True, "even": lambda x, k: not x & 1, "odd": lambda x, k: x & 1 == 1,
    "positive": lambda x, k: x >= 1, "negative": lambda x, k: x <= -1, "above": lambda x, k: x - int(k) > 0,
    "below": lambda x, k: int(k) - x > 0, "multiples": lambda x, k: abs(x) % int(k) == 0,
    "other": lambda x, k: x - int(k) != 0, "starting": lambda x, k: x[:1] == k, "ending": lambda x, k: x[-1:] == k,
    "containing": lambda x, k: x.count(k) > 0, "longer": lambda x, k: len(x[int(k):]) > 0,
    "shorter": lambda x, k: x[int(k) - 1:] == "",
    "same": lambda x: x, "squares": lambda x: x**2, "cubes": lambda x: x * x * x, "doubles": lambda x: x + x,
    "absolute": lambda x: max(x, -x), "opposites": lambda x: 0 - x, "halves": lambda x: 0.5 * x,
    "last digits": lambda x: int(str(x)[-1]), "lengths": len, "first letters": lambda x: x[:1],
    "last letters": lambda x: x[-1:], "capitals": str.upper, "reversals": lambda x: "".join(reversed(x)),
    "sum": lambda xs: sum(xs, 0), "largest": lambda xs: sorted(xs)[-1], "smallest": lambda xs: sorted(xs)[0],
    "list": list, "sorted": sorted, "different": lambda xs: len(Counter(xs)), "first": lambda xs: sorted(xs)[0],
    "last": lambda xs: sorted(xs)[-1],
}  # fmt: skip


def parts_of(pair):
    return tuple(pair.where.partition(": ")[2].split(", "))


def test_references_do_what_the_request_says():
    for pair in [pair for name in ("test", "compositional", "pairs") for pair in made("code")[name][::4]]:
        kept, mapped, reduced = parts_of(pair)
        (name,) = set(re.findall(r"\bin (xs|ys|ages|scores|words|names|tags|cities)\b", pair.source))
        constant = (re.findall(r"\d|\b[a-z]\b(?! list)", pair.source.replace("a list", "")) or [""])[-1]
        tests = code.tests_of(pair)
        assert len(tests) == 5
        for variables, expected in tests:
            values = [DO[mapped](x) for x in variables[name] if DO[kept](x, constant)]
            assert DO[reduced](values) == expected, (pair, variables[name], values)


def test_the_tests_of_a_request_tell_other_answers_apart():
    pair = Pair("the sum of the squares of the even numbers in xs", "sum(x * x for x in xs if x % 2 == 0)")
    tests = code.tests_of(pair)
    assert tests == code.tests_of(pair) and len({expected for _, expected in tests}) > 1
    assert all(len({tuple(v) for v in variables.values()}) == 8 for variables, _ in tests)  # no two lists alike
    right = [pair.target, "sum([y ** 2 for y in xs if not y % 2])", "-sum(-x * x for x in xs if x % 2 != 1)"]
    wrong = ["sum(x * x for x in ys if x % 2 == 0)", "sum(x for x in xs if x % 2 == 0)", "len(xs)", "xs", "sum("]
    assert [passes(answer, tests) for answer in right + wrong] == [True] * len(right) + [False] * len(wrong)
    with pytest.raises(ValueError, match="has no value for any of 1,000 drawings"):
        code.tests_of(Pair("x", "nothing"))


def test_compositions_never_stood_together_but_their_parts_did():
    splits = made("code")
    seen = {(pair.where.partition(":")[0], *parts_of(pair)) for pair in splits["train"]}
    two = {(kind, kept, mapped) for kind, kept, mapped, _ in seen}
    single = {(kind, part) for kind, *parts in seen for part in parts}
    for name in ("val", "test", "compositional", "pairs"):
        for pair in splits[name]:
            kind, parts = pair.where.partition(":")[0], parts_of(pair)
            assert ((kind, *parts) in seen) == (name in ("val", "test")), pair
            assert ((kind, *parts[:2]) in two) == (name != "pairs"), pair
            assert all((kind, part) in single for part in parts), pair


# --- sentiment --------------------------------------------------------------------------------------------------------

NEGATIONS = {"en": r"\bnot\b|\bnever\b|\bnobody\b|\banything but\b", "zh": "不令人|不|没有"}


def polarity(clause, language):
    """The adjective's polarity, turned round once for each negation."""
    words = sentiment.LANGUAGES[language]
    plain = clause.lower().replace("不错", "")
    found = [a for a in (*words.positive, *words.negative) if re.search(rf"\b{a}\b" if language == "en" else a, plain)]
    adjective = max(found, key=len)
    negations = len(re.findall(NEGATIONS[language], plain))
    return (adjective in words.positive) == (negations % 2 == 0)


def deciding(text, language):
    """The clause that decides."""
    plain = text.rstrip(".。").lower()
    if language == "zh":
        if plain.startswith("虽然"):
            return plain.partition("，但")[2]
        first, concession, _ = plain.partition("，虽然")
        return first if concession else re.split("，但是|，不过", plain)[-1]
    if plain.startswith("although"):
        return plain.partition(", ")[2]
    first, concession, _ = plain.partition(", although")
    return first if concession else re.split(r", but|, yet", plain)[-1]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_labels_follow_from_the_text(language):
    splits = made("sentiment" if language == "en" else "sentiment zh")
    for name, part in splits.items():
        assert Counter(e.label for e in part) == {"negative": len(part) // 2, "positive": len(part) // 2}
        for example in part:
            says = polarity(deciding(example.text, language), language)
            assert example.label == sentiment.LABELS[says], (name, example)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_pairs_negations_and_contrasts_are_held_out(language):
    splits = made("sentiment" if language == "en" else "sentiment zh")

    def clauses(example):
        return [c.split("/") for c in example.where.replace("contrast; ", "").split("; ")]

    trained = [clause for example in splits["train"] for clause in clauses(example)]
    pairs, negated = {(n, a) for n, a, _ in trained}, {a for _, a, times in trained if times != "0"}
    nouns, adjectives = {n for n, _, _ in trained}, {a for _, a, _ in trained}
    assert len(adjectives - negated) == 6
    for name, part in splits.items():
        for example in part:
            said = clauses(example)
            assert all(n.lower() in example.text.lower() and a in example.text for n, a, _ in said)
            assert all(n in nouns and a in adjectives for n, a, _ in said)
            assert all(((n, a) not in pairs) == (name == "test") for n, a, _ in said), (name, example)
            assert all((t != "0" and a not in negated) == (name == "negation") for _, a, t in said), (name, example)
            both = len(said) == 2 and all(t != "0" for _, _, t in said)
            assert both == (name == "contrast"), (name, example)


def test_the_lexicon_takes_as_many_of_each_for_praise():
    texts = ["The soup was good, but the film was bad.", "The soup was bad.", "汤很好。", "I had soup."]
    assert list(map(sentiment.by_lexicon, texts)) == ["positive", "negative", "positive", "positive"]


def test_transfer_asks_in_other_words():
    splits = made("transfer")
    words = {name: {w for e in part for w in re.findall(r"\w+", e.text.lower())} for name, part in splits.items()}
    both = words["test"] & words["train"]
    plain = "a an and ask friends honestly if me my our say that the this with you at"
    assert both <= set(re.findall(r"\w+", plain)), both
    assert words["seen"] <= words["train"]
    for size in (16, 64, 256):
        assert sum(e.label == "positive" for e in splits["train"][:size]) == size / 2
    assert Counter(e.where for e in splits["test"]).keys() == set(transfer.TOPICS)


# --- summarization ----------------------------------------------------------------------------------------------------


def test_every_fact_is_told_and_never_all_in_one_sentence():
    splits = made("summarization")
    for pair in [pair for part in splits.values() for pair in part[:1000]]:
        facts = summarization.facts(pair)
        sentences = re.split(r"(?<=\.) ", pair.source)
        assert len(facts) == 4 and 4 <= len(sentences) <= 7, pair
        assert all(re.search(rf"\b{fact}\b", pair.source) for fact in facts), pair
        assert max(summarization.fact_accuracy(sentence, pair) for sentence in sentences) <= 0.5, pair
        assert summarization.fact_accuracy(pair.target, pair) == 1 and summarization.fact_accuracy("", pair) == 0
    four = Pair("", "Mei Ko saved 4 people from the flood in Ro on Monday.")
    assert summarization.fact_accuracy("Mei saved 41 people on Monday", four) == 0.25
    with pytest.raises(ValueError, match="is no summary of an event"):
        summarization.facts(Pair("a", "b"))


def test_names_of_the_test_are_never_in_training():
    splits = made("summarization")
    known = {word for pair in splits["train"] for word in re.findall(r"\w+", pair.source)}
    for pair in splits["test"]:
        who, where, _, _ = summarization.facts(pair)
        assert not {*who.split(), where} & known, pair
    told = [summarization.facts(pair) for pair in splits["seen"]]
    assert sum({*who.split(), where} <= known for who, where, _, _ in told) > 0.8 * len(told)
    known = {word for chat in made("dialogue")["train"] for word in re.findall(r"\w+", text_of(chat))}
    for chat in made("dialogue")["names"]:
        assert not {word for value in dialogue.slots(chat).values() for word in value.split()} & known, chat


def test_docstrings_are_split_by_package(tmp_path):
    body = "The number {} of things that this module does is large, and so its body is long enough."
    for i in range(40):
        package = tmp_path / f"package{i}"
        package.mkdir()
        for module in ("a", "b"):
            first = f"Do the thing called {chr(97 + i % 26)}{chr(97 + i // 26)} {module}."
            doc = f'"""{first}\n\n{body.format(first)}\n"""\n'
            (package / f"{module}.py").write_text(doc)
    (tmp_path / "copy.py").write_text(doc)  # the same again is left out
    (tmp_path / "short.py").write_text('"""Do it."""\n')
    splits = summarization.docstrings(root=tmp_path)
    assert sum(map(len, splits.values())) == 80 and min(map(len, splits.values())) > 0
    packages = [{pair.where.split(".")[0] for pair in part} for part in splits.values()]
    assert not any(a & b for a, b in combinations(packages, 2))
    assert all(p.source.startswith("The number Do the") and p.target.startswith("Do the") for p in splits["train"])
    predicted = summarization.baselines(splits)
    assert {name: len(answers["test"]) for name, answers in predicted.items()} == dict.fromkeys(
        ["lead sentence", "oracle sentence"], len(splits["test"])
    )


def test_docstrings_are_neither_too_short_nor_too_long(tmp_path):
    """A first line of 20 to 100 characters and a body of 60 or more are kept, one less or more is not."""
    kept = {(20, 60), (100, 61)}
    for number, (first, body) in enumerate([*kept, (19, 60), (101, 60), (20, 59)]):
        line, rest = (chr(97 + number) * (size - 1) + "." for size in (first, body))
        (tmp_path / f"module{number}.py").write_text(f'"""{line}\n\n{rest}\n"""\n')
    splits = summarization.docstrings(root=tmp_path)
    assert {(len(pair.target), len(pair.source)) for part in splits.values() for pair in part} == kept


def test_the_oracle_measures_by_the_f1_of_words():
    assert summarization.overlap("a b", "a c d e") == pytest.approx(2 * (1 / 2) * (1 / 4) / (1 / 2 + 1 / 4))
    assert summarization.overlap("", "") == 0


# --- dialogue ---------------------------------------------------------------------------------------------------------


def followed(chat):
    """What the last reply must say, from the user's words alone."""
    said = [message["content"] for message in chat.messages if message["role"] == "user"]
    if chat.where == "arithmetic":
        a, sign, b = re.search(r"(\d+) (plus|minus) (\d+)", said[0]).groups()
        value = int(a) + int(b) * (1 if sign == "plus" else -1)
        return {"result": str(value + sum(int(n) for text in said[1:] for n in re.findall(r"\d+", text)))}
    if chat.where == "recall":
        town = re.search(r"(?:from|live in) (\w+)", said[0])[1]
        name = re.search(r"(?:I am|name is|This is|call me) ([A-Z]\w+ [A-Z]\w+)", said[0])[1]
        return {"name": name} if "name" in said[-1] or "Who" in said[-1] else {"town": town}
    found = {"thing": re.search(r"\ba (\w+)", said[0])[1]}
    for slot, pool in (("people", dialogue.PEOPLE), ("day", dialogue.DAYS), ("hour", dialogue.HOURS)):
        found[slot] = [w for text in said for w in re.findall(r"\w+", text) if w in (*pool, *map(str.title, pool))][-1]
    return found


def test_last_replies_follow_from_what_the_user_said():
    for chat in [chat for part in made("dialogue").values() for chat in part]:
        roles = [message["role"] for message in chat.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        reply = chat.messages[-1]["content"]
        wanted = {slot: value.lower() for slot, value in dialogue.slots(chat).items()}
        assert wanted == {slot: value.lower() for slot, value in followed(chat).items()}, chat
        assert dialogue.success(reply, chat) and not dialogue.success("", chat)


def test_the_rejected_of_two_replies_fills_one_slot_wrongly():
    chats = made("dialogue")
    known = {word for chat in chats["names"] for value in dialogue.slots(chat).values() for word in value.split()}
    for split, pairs in dialogue.preferences(chats).items():
        for chat, pair in zip(chats[split], pairs, strict=True):
            assert (pair.prompt, pair.chosen) == (chat.messages[:-1], chat.messages[-1]["content"])
            wanted, wrong = dialogue.slots(chat), replaced(chat, pair.rejected)
            assert sum(wanted[slot] != wrong[slot] for slot in wanted) == 1
            assert not dialogue.success(pair.rejected, chat)
            if split == "train":
                assert not known & set(re.findall(r"\w+", pair.rejected)), "a name that is held out"
    assert dialogue.preferences(chats) == dialogue.preferences(chats)


def replaced(chat, reply):
    """The slots of a chat that ends with this reply."""
    return dialogue.slots(Chat((*chat.messages[:-1], {"role": "assistant", "content": reply}), chat.where))


def test_stories_name_their_people_and_towns_again_and_again():
    told = stories(seed=0, count=300)
    assert told == stories(seed=0, count=300) != stories(seed=1, count=300)
    names = [Counter(re.findall(r"\b[A-Z][a-z]+(?:ville|ton|burg|mar|port|dale|stad|wick)\b", text)) for text in told]
    assert sum(max(found.values(), default=0) > 1 for found in names) > 0.9 * len(told)
    held_out = {word for chat in made("dialogue")["names"] for v in dialogue.slots(chat).values() for word in v.split()}
    assert not held_out & {word for text in told for word in re.findall(r"\w+", text)}


def test_replies_are_judged_by_their_slots():
    booked = Chat(({"role": "assistant", "content": "Booked: a boat for two on Friday at ten."},), "booking")
    assert dialogue.slot_accuracy("At ten on Friday, a boat for three.", booked) == 0.75
    assert dialogue.success("A boat on Friday at ten, for two people", booked)
    summed = Chat(({"role": "assistant", "content": "8 plus 4 is 12."},), "arithmetic")
    assert dialogue.success("12", summed) and not dialogue.success("12 or 13", summed)
    with pytest.raises(ValueError, match="is no last reply of this task"):
        dialogue.slots(Chat(({"role": "assistant", "content": "Hm."},), "booking"))


def test_combinations_of_talks_never_stood_together():
    splits = made("dialogue")

    def sums(chat):
        return {tuple(found) for found in re.findall(r"(\d+) (plus|minus) (\d+) is", text_of(chat))}

    def bookings(chat):
        return set(re.findall(r"Booked: a (\w+) for \w+ on (\w+)", text_of(chat)))

    seen = {found for chat in splits["train"] for found in sums(chat) | bookings(chat)}
    single = {part for found in seen for part in found}
    for name, part in splits.items():
        for chat in part:
            found = sums(chat) | bookings(chat)
            assert {part for pair in found for part in pair} <= single
            assert name != "combinations" or found - seen, chat


# --- verifiable -------------------------------------------------------------------------------------------------------


def answer_by_reading(prompt):
    """The right answer, from the words of the prompt; None for code, whose requests are read above."""
    text = prompt.record["prompt"]
    if prompt.where == "arithmetic":
        a, sign, b = re.search(r"(\d+) (plus|minus) (\d+)", text).groups()
        return str(int(a) + int(b) if sign == "plus" else int(a) - int(b))
    if prompt.where == "sorting":
        return " ".join(sorted(re.findall(r"\d", text)))
    if prompt.where == "slots":
        words = re.findall(r"\w+", text)
        slots = [dialogue.THINGS, dialogue.PEOPLE, verifiable.DAYS, dialogue.HOURS]
        words = [word if word in verifiable.DAYS else word.lower() for word in words]
        words = [word for word in words if word not in ("thing", "people", "day", "hour")]
        return ", ".join(next(word for word in words if word in slot) for slot in slots)
    return None


def test_answers_follow_from_the_prompt_and_are_short():
    for prompt in [p for part in made("verifiable").values() for p in part[:400]]:
        right = prompt.record["answer"]
        assert answer_by_reading(prompt) in (right, None), prompt
        assert verifiable.reward(f" {right}\n", prompt.record) == 1
        assert len(right) <= 40 and prompt.record["kind"] == prompt.where
        assert prompt.messages == ({"role": "user", "content": prompt.record["prompt"]},)


def test_kinds_come_in_turn():
    splits = made("verifiable")
    assert [len(part) for part in splits.values()] == [4000, 200, 400, 400]
    for part in splits.values():
        assert [p.where for p in part[:5]] == ["arithmetic", "sorting", "slots", "code", "arithmetic"]
        assert set(Counter(p.where for p in part).values()) == {len(part) // 4}
    only = verifiable.make(train=50, kinds=["sorting"])
    assert {p.where for part in only.values() for p in part} == {"sorting"} and len(only["train"]) == 50
    for kinds in ([], ["poems"]):
        with pytest.raises(ValueError, match="kinds must be some of arithmetic, sorting, slots, code, not"):
            verifiable.make(kinds=kinds)
    assert verifiable.make(train=40)["train"] == splits["train"][:40]


def test_code_alone_has_enough_short_answers():
    for seed in (0, 1):
        parts = verifiable.make(seed, train=50, kinds=["code"])
        assert {split: len(part) for split, part in parts.items()} == {
            "train": 50, "val": 200, "test": 400, "combinations": 400,
        }  # fmt: skip
        requests = {pair.source: name for name, pairs in code.make(seed, train=0).items() for pair in pairs}
        found = {requests.get(p.record["prompt"]) for p in parts["combinations"]}
        assert found == ({"compositional"} if seed == 0 else {"compositional", "pairs"})


def test_combinations_of_prompts_never_stood_together():
    def parts(prompt):
        text, answer = prompt.record["prompt"], prompt.record["answer"]
        if prompt.where == "arithmetic":
            return {re.search(r"(\d+) (plus|minus) (\d+)", text).groups()}
        if prompt.where == "sorting":
            return set(combinations(sorted(set(answer.split())), 2))
        thing, _, day, _ = answer.split(", ")
        return {(thing, day)}

    splits = made("verifiable")
    for kind in ("arithmetic", "sorting", "slots"):
        every = {name: [parts(p) for p in part if p.where == kind] for name, part in splits.items()}
        together = set().union(*every["train"])
        single = {atom for pair in together for atom in pair}
        assert all(found - together for found in every["combinations"])
        assert {atom for found in every["combinations"] for pair in found for atom in pair} <= single
        if kind != "arithmetic":  # of whose sums most stand together nowhere
            assert not any(found - together for name in ("val", "test") for found in every[name])
    requests = {pair.source: name for name, pairs in code.make(train=4000).items() for pair in pairs}
    for name, part in splits.items():
        split = "compositional" if name == "combinations" else name
        assert {requests[p.record["prompt"]] for p in part if p.where == "code"} == {split}


@pytest.mark.parametrize(
    ("kind", "right", "answer", "expected"),
    [
        ("arithmetic", "45", "45", 1), ("arithmetic", "45", "045", 0), ("arithmetic", "45", "It is 45", 0),
        ("arithmetic", "45", "", 0), ("sorting", "1 2 5 9", "1 2 5 9", 1), ("sorting", "1 2 5 9", "1 2 9 5", 0.5),
        ("sorting", "1 2 5 9", "1 2", 0.5), ("sorting", "1 2 5 9", "1 2 5 9 9 9 9 9", 0.5),
        ("sorting", "1 2 5 9", "1259", 0), ("sorting", "1 2 5 9", "", 0),
        ("slots", "taxi, two, Monday, noon", "taxi, two, Monday, noon", 1),
        ("slots", "taxi, two, Monday, noon", "taxi,two,Tuesday, ten", 0.5),
        ("slots", "taxi, two, Monday, noon", "two, taxi, Monday, noon", 0.5),
        ("slots", "taxi, two, Monday, noon", "taxi", 0.25),
    ],
)  # fmt: skip
def test_what_an_answer_is_worth(kind, right, answer, expected):
    assert verifiable.reward(answer, {"kind": kind, "prompt": "?", "answer": right}) == expected


def test_code_is_worth_what_it_computes():
    record = {"kind": "code", "prompt": "the sum of the squares of xs", "answer": "sum(x * x for x in xs)"}
    for answer, expected in {
        "sum([x ** 2 for x in xs])": 1, "sum(xs)": 0, "sum(x * x for x in ys)": 0, "sum(x * x for x in": 0, "": 0,
        "__import__('os')": 0, "10 ** 10 ** 10": 0,
    }.items():  # fmt: skip
        assert verifiable.reward(answer, record) == expected, answer
    half = {**record, "prompt": "the largest of xs", "answer": "max(xs)"}
    assert 0 < verifiable.reward("max(xs[4:])", half) < 1


def test_right_answers_can_be_shown():
    prompts = made("verifiable")["val"][:3]
    for chat, prompt in zip(verifiable.chats(prompts), prompts):
        assert chat.messages == (*prompt.messages, {"role": "assistant", "content": prompt.record["answer"]})


# --- baselines --------------------------------------------------------------------------------------------------------


def right(name, prediction, example):
    if name == "verifiable":
        return verifiable.reward(prediction, example.record)
    if name == "code":
        return passes(prediction, code.tests_of(example))
    if name == "summarization":
        return summarization.fact_accuracy(prediction, example)
    if name == "dialogue":
        return dialogue.success(prediction, example)
    return prediction == (example.label if isinstance(example, Labelled) else example.target)


BANDS = {  # baseline: split: from, to
    "sentiment": {
        "majority": {"test": (0.5, 0.5), "negation": (0.5, 0.5), "contrast": (0.5, 0.5)},
        "bag of words": {"test": (0.6, 0.75), "negation": (0.25, 0.45), "contrast": (0.2, 0.4)},
        "lexicon": {"test": (0.6, 0.75), "negation": (0.25, 0.45), "contrast": (0.2, 0.4)},
    },
    "transfer": {
        "majority": {"test": (0.5, 0.5), "seen": (0.5, 0.5)},
        "bag of words": {"test": (0.45, 0.6), "seen": (0.85, 1)},
    },
    "translation": {
        "word by word": {"test": (0, 0.05), "compositional": (0, 0.05), "longer": (0, 0.01)},
        "nearest neighbour": {"test": (0, 0.02), "compositional": (0, 0.02), "longer": (0, 0)},
    },
    "code": {
        "most frequent": {"test": (0, 0.02), "compositional": (0, 0.02), "pairs": (0, 0.02)},
        "retrieval": {"test": (0.1, 0.3), "compositional": (0.03, 0.2), "pairs": (0.05, 0.25)},
    },
    "summarization": {
        "lead sentence": {"test": (0.1, 0.25), "seen": (0.1, 0.25)},
        "oracle sentence": {"test": (0.3, 0.45), "seen": (0.3, 0.45)},
    },
    "dialogue": {
        "most frequent": {"test": (0, 0.02), "names": (0, 0), "combinations": (0, 0.03)},
        "retrieval": {"test": (0.1, 0.35), "names": (0, 0), "combinations": (0, 0.1)},
    },
}
BANDS["verifiable"] = {
    "most frequent": {"test": (0.03, 0.12), "combinations": (0.02, 0.1)},
    "retrieval": {"test": (0.3, 0.45), "combinations": (0.15, 0.3)},
}
BANDS["sentiment zh"] = BANDS["sentiment"]


@pytest.mark.parametrize("name", BANDS)
def test_baselines_score_as_expected(name):
    splits = made(name)
    predicted = MODULES[name].baselines(splits)
    assert predicted.keys() == BANDS[name].keys()
    for baseline, bands in BANDS[name].items():
        assert predicted[baseline].keys() == bands.keys() == splits.keys() - {"train", "val"}
        for split, (low, high) in bands.items():
            assert len(predicted[baseline][split]) == len(splits[split])
            pairs = list(zip(predicted[baseline][split], splits[split]))[: 200 if name == "code" else None]
            score = sum(right(name, *pair) for pair in pairs) / len(pairs)
            assert low <= score <= high, (baseline, split, score)
    if name == "dialogue":
        replies = {chat.messages[-1]["content"] for chat in splits["train"]}
        assert all(replies.issuperset(said) for by_split in predicted.values() for said in by_split.values())


def test_naive_bayes_by_hand():
    bayes = NaiveBayes(["good good film", "bad film"], ["+", "-"])
    # V = 3; P(good|+) = 3/6, P(bad|+) = 1/6, P(film|+) = 2/6; P(good|-) = 1/5, P(bad|-) = P(film|-) = 2/5
    assert bayes.classes == ["+", "-"] and np.allclose(np.exp(bayes.log_class), 0.5)
    assert np.allclose(np.exp(bayes.log_word[:, bayes.place["good"]]), [3 / 6, 1 / 5])
    assert np.allclose(np.exp(bayes.log_word[:, bayes.place["film"]]), [2 / 6, 2 / 5])
    assert bayes.predict(["Good!", "bad, bad", "film", "unheard-of"]) == ["+", "-", "-", "+"]


def test_the_nearest_text_is_found():
    nearest = Nearest(["the cat sat", "a dog ran", "the end"])
    assert nearest.find(["the cat sat", "dogs run", "the END", "the cats sit"]) == [0, 1, 2, 0]
    assert most_frequent(["b", "a", "b", "a", "c"]) == "a"
    assert near_copy_key("Call 12,\n me!") == near_copy_key("call me") != near_copy_key("call you")
    assert Nearest(["what all texts share weighs nothing"]).find(["another"]) == [0]


# --- sample files -----------------------------------------------------------------------------------------------------


def test_sample_files_are_what_the_generators_give(tmp_path):
    files = sample_files()
    lying = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "data/tasks").iterdir()}
    assert lying == files, "run: python -m minillm.data.tasks.samples data/tasks"
    assert {path.name: path.read_bytes().decode() for path in write_samples(tmp_path)} == files


def test_sample_files_are_read_as_the_examples_that_they_are():
    folder = ROOT / "data/tasks"
    for name, file in (("sentiment", "sentiment"), ("sentiment zh", "sentiment.zh"), ("transfer", "transfer")):
        read = [(e.text, e.label) for e in read_labelled(folder / f"{file}.sample.csv")]
        assert read == [(e.text, e.label) for e in made(name)["train"][:100]]
    for name, ending in (("translation", "tsv"), ("code", "jsonl"), ("summarization", "jsonl")):
        read = [(e.source, e.target) for e in read_pairs(folder / f"{name}.sample.{ending}")]
        assert read == [(e.source, e.target) for e in made(name)["train"][:100]]
    for read, drawn in zip(read_prompts(folder / "verifiable.sample.jsonl"), made("verifiable")["train"]):
        assert (read.messages, read.record) == (drawn.messages, {**drawn.record, "messages": list(drawn.messages)})
    read = [e.messages for e in read_chats(folder / "dialogue.sample.jsonl")]
    assert read == [e.messages for e in made("dialogue")["train"][:100]]
