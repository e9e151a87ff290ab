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
# Chinese has no spaces, and to tell where a word ends takes a dictionary. These stand alone nearly always:
_CHINESE = """
的 了 吗 呢 啊 呀 很 这 那 也 又 或 且 但 是
我们 你们 他们 她们 它们 这个 那个 这些 那些 这样 那样 什么 因为 所以 但是 而且 如果 虽然 以及 或者 并且 由于 对于 关于
"""
# ... except in these words, which are kept whole ...
_CHINESE_KEPT = """
目的 的确 的士 的话 标的 有的放矢 众矢之的 了解 了不起 了得 了结 了断 了然 了如指掌 不了 为了 除了 罢了 明了 末了 终了
吗啡 呢子 呢喃 毛呢 啊哈 哎呀 呀呀 很多 这里 这儿 这么 这时 这边 这种 那里 那儿 那么 那时 那边 那种 刹那 支那
那不勒斯 巴塞罗那 也许 也门 维也纳 又是 或许 或然 抑或 不但 非但 岂但 但愿 但丁 暂且 姑且 苟且 尚且 况且 且慢
就是 还是 是否 是非 于是 总是 只是 可是 要是 凡是 倒是 若是 正是 都是 老是 便是 算是 像是 国是
实事求是 自以为是 似是而非
场所 厕所 研究所 派出所 事务所 交易所 诊所 会所 住所 所以然 在于 属于 相对于
"""
# ... and these are a part of many more (地铁 过程 和平 现在 都市): removed only where no letter stands beside them, as
# in text that is cut into words already.
_CHINESE_ALONE = """
着 过 地 得 和 与 及 而 在 都 就 还 把 被 让 给 对 从 向 于 以 为 之 其 此 吧 们
"""
ENGLISH = frozenset(_ENGLISH.split())
CHINESE = frozenset(_CHINESE.split())
CHINESE_ALONE = frozenset(_CHINESE_ALONE.split())
_CHINESE_WORDS = frozenset(_CHINESE_KEPT.split())

_SPACES = re.compile("[ \t]*")
LANGUAGES = ("en", "zh")


def remove_stop_words(text: str, languages: Iterable[str] = LANGUAGES) -> tuple[str, int]:
    """(text without the stop words of `languages`, how many were removed). Raises ValueError for other languages.

    English words are matched whole and in any case, never inside identifiers or contractions ("it's", "for_each").

    >>> remove_stop_words("The cat and the hat", ["en"])
    ('cat hat', 3)
    Chinese ones that are a part of other words, too, are removed only where they stand alone:

    >>> remove_stop_words("我们的目的是了解地铁", ["zh"]), remove_stop_words("我 在 地铁 站", ["zh"])
    (('目的了解地铁', 3), ('我 地铁 站', 1))
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
            if match.group() not in _CHINESE_WORDS:
                parts.append(text[end : match.start()])
                end = match.end()
                n += 1
                if match.start() == 0 or text[match.start() - 1].isspace():
                    end = _SPACES.match(text, end).end()  # type: ignore[union-attr]
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
    """Stop words and words to keep, the longest first, so that none is found inside another."""
    words = "|".join(sorted(CHINESE | _CHINESE_WORDS, key=len, reverse=True))
    return re.compile(rf"{words}|(?<!\w)[{''.join(sorted(CHINESE_ALONE))}](?!\w)")
