"""Synonyms: sets of words that may stand for each other, a small one of our own and those of a user's file."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..disk.names import AnyPath
from .opening import DAMAGED, File, open_text, why_unreadable
from .rows import tsv_rows

# Chosen by hand for this project: a line is a set. Words that only sometimes mean the same are left out.
_ENGLISH = """
big large
small little tiny
fast quick rapid
slow sluggish
begin start
buy purchase
help assist
happy glad
sad unhappy
angry furious
smart clever
brave bold
quiet silent
difficult hard
easy simple
odd strange
rich wealthy
ill sick
wonderful marvellous superb
terrible awful dreadful
excellent outstanding
boring dull tedious
funny amusing
delicious tasty
dirty filthy
beautiful lovely
movie film
shop store
road street
car automobile
doctor physician
child kid
answer reply
choose select
show display
fix repair
almost nearly
maybe perhaps
often frequently
quickly rapidly
really truly
also too
"""
_CHINESE = """
高兴 开心 快乐
难过 伤心
漂亮 美丽 好看
聪明 机灵
迅速 飞快
困难 艰难
简单 容易
奇怪 古怪
糟糕 差劲
优秀 出色
无聊 乏味
好吃 可口 美味
安静 宁静
电影 影片
商店 店铺
医生 大夫
孩子 小孩
帮助 帮忙
开始 着手
购买 选购
喜欢 喜爱
讨厌 厌恶
经常 时常 常常
也许 或许
几乎 差不多
非常 十分 特别
"""

Synonyms = dict[str, tuple[str, ...]]  # a word, small -> the others of its sets


def table_of(sets: Iterable[Iterable[str]]) -> Synonyms:
    """{word: the others}. A word may be in several sets."""
    table: dict[str, dict[str, None]] = {}
    for words in sets:
        words = [word for word in words if word]
        for word in words:
            others = table.setdefault(word.casefold(), {})
            others.update(dict.fromkeys(other for other in words if other.casefold() != word.casefold()))
    return {word: tuple(others) for word, others in table.items() if others}


def our_synonyms() -> Synonyms:
    """English and Chinese, some 70 sets."""
    return table_of(line.split() for line in (_ENGLISH + _CHINESE).strip().splitlines())


def read_synonyms(path: AnyPath, encoding: str = "utf-8") -> Synonyms:
    """The sets of a .tsv: on each line words, cut at tabs, of which each may stand for each other one.

    Raises FileNotFoundError, or ValueError with file, line and remedy.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r} with synonyms.")
    try:
        with open_text(File.of(path), encoding) as stream:
            rows = [(line, [cell.strip() for cell in cells]) for line, cells in tsv_rows(stream)]
    except (ValueError, OSError, *DAMAGED) as error:
        raise ValueError(f"cannot read {os.fspath(path)!r}: {why_unreadable(File.of(path), error)}.") from error
    for line, cells in rows:
        if len({cell.casefold() for cell in cells if cell}) < 2:
            raise ValueError(f"{path}, line {line}: a set of synonyms is two words or more, cut at tabs, not {cells}.")
    if not rows:
        raise ValueError(f"{path} holds no synonyms: write words that mean the same on a line, cut at tabs.")
    return table_of(cells for _, cells in rows)
