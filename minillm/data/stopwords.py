"""Stop words: frequent words that carry grammar rather than topic, in English and Chinese, and their removal.

Search engines and bag-of-words classifiers drop them, since they tell documents apart badly. A language model needs
them: without "the" and "不" it can neither learn nor write grammar. Off by default; what it costs and when it helps is
measured in chapters/04_collecting_and_cleaning_text.ipynb.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

# Chosen by hand for this project: function words only, no word that carries a topic. Negations are left in.
_ENGLISH = """
a about after again all also am an and any are as at be because been before being between both but by can could did do
does doing down during each few for from further had has have having he her here hers herself him himself his how i if
in into is it its itself just me more most my myself of off on once only or other our ours ourselves out over own same
she should so some such than that the their theirs them themselves then there these they this those through to too
under until up very was we were what when where which while who whom why will with would you your yours yourself
yourselves
"""
_CHINESE = """
的 了 着 过 地 得 和 与 及 或 而 且 但 是 在 也 都 就 还 又 很 把 被 让 给 对 从 向 于 以 为 之 其 这 那 此
吗 呢 吧 啊 呀 们
我们 你们 他们 她们 它们 这个 那个 这些 那些 这样 那样 什么 因为 所以 但是 而且 如果 虽然 以及 或者 并且 由于 对于 关于
"""
# Chinese has no spaces, so a one-character stop word also stands inside words. The commonest of those are kept whole.
_CHINESE_KEPT = """
目的 的确 了解 着急 过去 过程 通过 经过 超过 地方 地区 地球 土地 得到 获得 觉得 和平 与其 参与 而是 存在 现在 正在 在于
首都 都市 成就 就是 还是 把握 对象 反对 从来 方向 向来 以前 以后 可以 所以然 认为 成为 行为 作为 为了 之前 之后 其他
其中 极其 从此 给予 供给 对比 也许 又是 很多 等于 属于 位于 于是
"""
ENGLISH = frozenset(_ENGLISH.split())
CHINESE = frozenset(_CHINESE.split())
_CHINESE_WORDS = frozenset(_CHINESE_KEPT.split())

LANGUAGES = ("en", "zh")


def remove_stop_words(text: str, languages: Iterable[str] = LANGUAGES) -> tuple[str, int]:
    """(text without the stop words of `languages`, how many were removed). Raises ValueError for other languages.

    English words are matched whole and in any case, never inside identifiers or contractions ("it's", "for_each").

    >>> remove_stop_words("The cat and the hat", ["en"])
    ('cat hat', 3)
    >>> remove_stop_words("我们的目的是了解", ["zh"])
    ('目的了解', 3)
    """
    chosen = tuple(languages)
    for language in chosen:
        if language not in LANGUAGES:
            raise ValueError(f"the language of stop words must be one of {', '.join(LANGUAGES)}, not {language!r}.")
    total = 0
    if "en" in chosen:
        text, n = english_pattern().subn("", text)
        total += n
    while "zh" in chosen:  # until nothing changes: what is left may form a stop word anew
        n = 0
        parts = []
        end = 0
        for match in chinese_pattern().finditer(text):
            if match.group() in CHINESE:
                parts.append(text[end : match.start()])
                end = match.end()
                n += 1
        if n == 0:
            break
        text = "".join(parts) + text[end:]
        total += n
    return text, total


@functools.cache
def english_pattern() -> re.Pattern[str]:
    words = "|".join(sorted(ENGLISH, key=len, reverse=True))
    return re.compile(rf"(?<![\w'’.\-@/])(?:{words})(?![\w'’\-(\[=@/])(?!\.\w)(?:[ \t]+|(?=\W|\Z))", re.IGNORECASE)


@functools.cache
def chinese_pattern() -> re.Pattern[str]:
    return re.compile("|".join(sorted(CHINESE | _CHINESE_WORDS, key=len, reverse=True)))
