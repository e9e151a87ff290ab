"""Translation from English to Chinese: number words, measure words, times and places, in Chinese order.

    Anna bought two thousand five books at the market on the third of May.
    安娜五月三日在市场买了两千零五本书。

What has to be learned: English counts by thousands and Chinese by ten thousands (万), with 零 over a gap and 两 for
some twos; a noun decides its measure word (本 for books); time and place stand before the verb. Each of these is a
table or a function below. There are three kinds of atoms: measure words, times and magnitudes (how many digits a
number has). Some pairs of atoms are kept out of training, though each atom is there:

    train, val, test   sentences without such a pair, no sentence twice
    compositional      at least one such pair
    longer             numbers of 6 or 7 words; in all other splits they have at most 5
"""

from __future__ import annotations

from functools import partial
from itertools import combinations

from ..examples import Pair
from .baselines import Nearest, test_splits
from .draw import Draw, fill

ONES_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS_WORDS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety"
ORDINALS_WORDS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third twenty-fourth "
    "twenty-fifth twenty-sixth twenty-seventh twenty-eighth"
)
MONTHS_WORDS = "January February March April May June July August September October November December"
ONES, TENS, ORDINALS, MONTHS = (words.split() for words in (ONES_WORDS, TENS_WORDS, ORDINALS_WORDS, MONTHS_WORDS))
DIGITS = "零一二三四五六七八九"

PEOPLE = {
    "Anna": "安娜", "Omar": "奥马尔", "Mei": "小梅", "Kofi": "科菲", "Priya": "普里娅", "Diego": "迭戈", "Yuki": "由纪",
    "Leila": "莱拉", "Ivan": "伊万", "Amara": "阿玛拉", "the teacher": "老师", "the doctor": "医生",
    "my friend": "我朋友", "our neighbour": "我们的邻居", "she": "她", "he": "他", "we": "我们", "they": "他们",
}  # fmt: skip
NOUNS = {  # measure word: (one, several, Chinese)
    "个": [("apple", "apples", "苹果"), ("watermelon", "watermelons", "西瓜"), ("egg", "eggs", "鸡蛋")],
    "只": [("cat", "cats", "猫"), ("bird", "birds", "鸟"), ("rabbit", "rabbits", "兔子")],
    "本": [("book", "books", "书"), ("dictionary", "dictionaries", "词典"), ("magazine", "magazines", "杂志")],
    "辆": [("car", "cars", "汽车"), ("bicycle", "bicycles", "自行车"), ("truck", "trucks", "卡车")],
    "张": [("table", "tables", "桌子"), ("map", "maps", "地图"), ("photo", "photos", "照片")],
    "条": [("fish", "fish", "鱼"), ("scarf", "scarves", "围巾"), ("skirt", "skirts", "裙子")],
    "件": [("shirt", "shirts", "衬衫"), ("coat", "coats", "大衣"), ("gift", "gifts", "礼物")],
    "把": [("chair", "chairs", "椅子"), ("knife", "knives", "刀"), ("umbrella", "umbrellas", "雨伞")],
    "支": [("pen", "pens", "钢笔"), ("pencil", "pencils", "铅笔"), ("brush", "brushes", "毛笔")],
    "杯": [("cup of tea", "cups of tea", "茶"), ("cup of coffee", "cups of coffee", "咖啡")],
    "瓶": [("bottle of milk", "bottles of milk", "牛奶"), ("bottle of juice", "bottles of juice", "果汁")],
    "双": [("pair of shoes", "pairs of shoes", "鞋"), ("pair of socks", "pairs of socks", "袜子")],
}
VERBS = [("buy", "bought", "买"), ("sell", "sold", "卖"), ("see", "saw", "看到"), ("draw", "drew", "画"),
         ("count", "counted", "数"), ("find", "found", "找到")]  # fmt: skip
PLACES = {  # English: (where something is done, where something is)
    "at the market": ("在市场", "市场里"), "in the park": ("在公园", "公园里"), "at the station": ("在车站", "车站里"),
    "in the library": ("在图书馆", "图书馆里"), "at school": ("在学校", "学校里"), "in Beijing": ("在北京", "北京"),
    "in Lagos": ("在拉各斯", "拉各斯"), "in Lima": ("在利马", "利马"), "in Delhi": ("在德里", "德里"),
}  # fmt: skip
PAST = {"yesterday": "昨天", "last night": "昨晚", "last week": "上周", "last month": "上个月", "last year": "去年"}
FUTURE = {"tomorrow": "明天", "tonight": "今晚", "next week": "下周", "next month": "下个月", "next year": "明年"}
WEEKDAYS = {
    "Monday": "一", "Tuesday": "二", "Wednesday": "三", "Thursday": "四", "Friday": "五",
    "Saturday": "六", "Sunday": "日",
}  # fmt: skip
DAYTIMES = {" in the morning": "早上", " in the afternoon": "下午", " in the evening": "晚上", "": ""}
CLOCKS = {"at": "", "at half past": "半", "at a quarter past": "一刻"}  # what follows 点
TIMES = [*PAST, *FUTURE, *WEEKDAYS, *MONTHS, *(f"{ONES[h]} o'clock" for h in range(1, 13))]
MAGNITUDES = ["1 digit", "2 digits", "3 digits", "4 digits", "5 digits", "6 digits"]
LONGEST_TRAINED = 5  # words of a number


def english(n: int) -> str:
    """1,005 -> "one thousand five"; for 0 to 999,999."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f"-{ONES[n % 10]}" if n % 10 else "")
    size, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    rest = f" {english(n % size)}" if n % size else ""
    return f"{english(n // size)} {name}{rest}"


def chinese(n: int) -> str:
    """1,005 -> "一千零五", 200,010 -> "二十万零一十", 22,000 -> "两万二千"; for 0 to 99,999,999."""
    if n == 0:
        return DIGITS[0]
    high, low = divmod(n, 10_000)
    text = (up_to_9999(high) + "万" if high else "") + ("零" if high and 0 < low < 1000 else "") + up_to_9999(low)
    if text.startswith("一十"):
        text = text[1:]  # a number begins with 十, not with 一十
    return "两" + text[1:] if text.startswith(("二千", "二万")) else text


def up_to_9999(n: int) -> str:
    """Digit by digit, each with its unit, one 零 for a gap, none at the end; "" for 0."""
    text = ""
    for size, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = n // size % 10
        if digit:
            text += DIGITS[digit] + unit
        elif text and not text.endswith("零") and n % size:
            text += "零"
    return text


def counted(n: int) -> str:
    """Before a measure word or 点, 2 is 两."""
    return "两" if n == 2 else chinese(n)


def draw_number(draw: Draw, digits: int, longer: bool) -> int:
    """A number of so many digits, half of them 0, with at most 5 words; with at least 6 where it is to be longer."""
    while True:
        n = draw.between(1, 9)
        for _ in range(digits - 1):
            n = 10 * n + (draw.between(1, 9) if draw.chance(80 if longer else 50) else 0)
        if (len(english(n).split()) > LONGEST_TRAINED) == longer:
            return n


def draw_time(draw: Draw, atom: str) -> tuple[str, str]:
    """A time that is made around its atom: "May" -> ("on the third of May", "五月三日")."""
    if atom in PAST or atom in FUTURE:
        return atom, (PAST | FUTURE)[atom]
    if atom in WEEKDAYS:
        return f"on {atom}", f"星期{WEEKDAYS[atom]}"
    if atom in MONTHS:
        day = draw.between(1, 28)
        return f"on the {ORDINALS[day - 1]} of {atom}", f"{chinese(MONTHS.index(atom) + 1)}月{chinese(day)}日"
    hour = TIMES.index(atom) - TIMES.index("one o'clock") + 1
    form = draw.choice(list(CLOCKS))
    daytime = draw.choice(list(DAYTIMES)) if form == "at" else ""
    return f"{form} {ONES[hour]}{daytime}", f"{DAYTIMES[daytime]}{counted(hour)}点{CLOCKS[form]}"


def draw_sentence(draw: Draw, longer: bool = False) -> tuple[Pair, set[tuple[str, ...]]]:
    """A sentence with its translation, and the pairs of atoms that stand together in it."""
    measure, magnitude, time = draw.choice(list(NOUNS)), draw.choice(MAGNITUDES), draw.choice(TIMES)
    if longer:
        magnitude = MAGNITUDES[-1]  # no shorter number has more than 5 words
    number = draw_number(draw, int(magnitude[0]), longer)
    one, several, noun = draw.choice(NOUNS[measure])
    amount, things = f"{english(number)} {one if number == 1 else several}", f"{counted(number)}{measure}{noun}"
    when, zh_when = draw_time(draw, time)
    place = draw.choice(list(PLACES))
    somewhere, zh_somewhere = (f" {place}", PLACES[place][0]) if draw.chance(60) else ("", "")
    kind = draw.choice(["did"] * 5 + ["is", "costs"])
    if kind == "costs":
        which, zh_which = draw.choice([("this", "这"), ("that", "那"), ("each", "每")])
        yuan = "yuan"  # the same for one and for several
        text, zh, time = (
            f"{which} {one} costs {english(number)} {yuan}",
            f"{zh_which}{measure}{noun}要{chinese(number)}元",
            "",
        )
    elif kind == "is":
        be = "will be" if time in FUTURE else "was" if number == 1 else "were"
        will = "会" if time in FUTURE else ""
        text, zh = f"there {be} {amount} {place} {when}", f"{zh_when}{PLACES[place][1]}{will}有{things}"
    else:
        who = draw.choice(list(PEOPLE))
        base, past, verb = draw.choice(VERBS)
        future, front = time in FUTURE, draw.chance(30)
        action = f"{who} {f'will {base}' if future else past} {amount}{somewhere}"
        text = f"{when} {action}" if front else f"{action} {when}"
        begin = zh_when + PEOPLE[who] if front else PEOPLE[who] + zh_when
        will, done = ("要", "") if future else ("", "了")
        zh = f"{begin}{will}{zh_somewhere}{verb}{done}{things}"
    atoms = [atom for atom in (measure, time, magnitude) if atom]
    pair = Pair(text[0].upper() + text[1:] + ".", zh + "。", ", ".join(atoms))
    return pair, set(combinations(atoms, 2))


def make(seed: int = 0, train: int = 16_000) -> dict[str, list[Pair]]:
    """{"train", "val", "test", "compositional", "longer"}: pairs whose `where` names the atoms."""
    draw = Draw(seed, "translation")
    apart = (
        draw.held_out(10, NOUNS, TIMES) | draw.held_out(10, NOUNS, MAGNITUDES) | draw.held_out(10, TIMES, MAGNITUDES)
    )
    taken: set[str] = set()

    def sentence(held_out: bool = False, longer: bool = False) -> tuple[str, Pair] | None:
        pair, together = draw_sentence(draw, longer)
        return (pair.source, pair) if longer or bool(together & apart) == held_out else None

    return {
        "train": fill(train, sentence, taken),
        "val": fill(500, sentence, taken),
        "test": fill(1000, sentence, taken),
        "compositional": fill(1000, partial(sentence, held_out=True), taken),
        "longer": fill(500, partial(sentence, longer=True), taken),
    }


def dictionary() -> dict[str, str]:
    """English word -> Chinese, from the tables above: what a dictionary knows, without order and without rules."""
    words = {
        "hundred": "百", "thousand": "千", "will": "要", "this": "这", "that": "那", "each": "每", "costs": "要",
        "yuan": "元", "half": "半", "quarter": "刻", "were": "有", "was": "有", "morning": "早上", "afternoon": "下午",
        "evening": "晚上",
    }  # fmt: skip
    words |= {word: chinese(n) for n, word in enumerate(ONES)}
    words |= {word: chinese(10 * n) for n, word in enumerate(TENS) if n > 1}
    words |= {ordinal: f"{chinese(day)}日" for day, ordinal in enumerate(ORDINALS, 1)}
    words |= {month: f"{chinese(n)}月" for n, month in enumerate(MONTHS, 1)}
    words |= {day: f"星期{zh}" for day, zh in WEEKDAYS.items()}
    for phrases in (PEOPLE, PAST, FUTURE, {place: zh for place, (zh, _) in PLACES.items()}):
        words |= {phrase.split()[-1]: zh for phrase, zh in phrases.items()}
    for measure, nouns in NOUNS.items():
        for one, several, zh in nouns:
            for form in (one, several):
                words |= {form.split()[-1]: zh} | ({form.split()[0]: measure} if " " in form else {})
    return words | {form: zh for base, past, zh in VERBS for form in (base, past)}


def word_by_word(text: str, words: dict[str, str]) -> str:
    """Each word for itself, where it stands; what the dictionary lacks is left out."""
    tokens = text.rstrip(".").replace("-", " ").split()
    return "".join(words.get(token, words.get(token.lower(), "")) for token in tokens) + "。"


def baselines(splits: dict[str, list[Pair]]) -> dict[str, dict[str, list[str]]]:
    """Predictions for each test split: word by word, and the translation of the nearest training sentence."""
    words = dictionary()
    tests, nearest = test_splits(splits), Nearest([pair.source for pair in splits["train"]])
    return {
        "word by word": {name: [word_by_word(pair.source, words) for pair in pairs] for name, pairs in tests.items()},
        "nearest neighbour": {
            name: [splits["train"][i].target for i in nearest.find([pair.source for pair in pairs])]
            for name, pairs in tests.items()
        },
    }
