"""Stories: unlabelled text to pretrain on, in which invented people and towns are named again and again.

    Masodin was born in Kolemar. Everyone in Kolemar knows Masodin. Yaro Tefikur showed Masodin the lake of Bazoport.

No name can be known beforehand, but most of them stand twice: what a model learns here is to look back and copy. (That
is what induction heads do, Olsson et al. 2022, arXiv 2209.11895.) A dialogue in which somebody asks for his own name
needs just that, and its few thousand examples alone do not teach it: see tests/bench/assistant.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .draw import Draw
from .names import DAYS, blend, draw_surname, draw_town, name_pools

ALONE = (
    "{a} lives in {home}.", "{a} comes from {home}, as all friends of {a} know.", "Everyone in {home} knows {a}.",
    "On {day} {a} walks through {home}.", "{a} was born in {home}.", "Nobody in {home} is as kind as {a}.",
    "The streets of {home} are full when {a} sings.", "{a} has a house in {home}.", "If you are in {home}, visit {a}.",
    "My friend {a} wrote to me from {home}.", "They say that {a} never left {home}.",
)  # fmt: skip
TOGETHER = (
    "{a} and {b} met on {day}.", "{b} is a friend of {a}.", "{a} went from {home} to {away} to see {b}.",
    "{b} told {a} of {away}.", "{a} showed {b} the lake of {home}.", "{b} writes to {a} from {away}.",
)  # fmt: skip
ASKED = (
    "Where does {a} live? In {home}.", "Who lives in {home}? It is {a}.", "Who is a friend of {a}? It is {b}.",
    "Does {a} live in {away}? No, in {home}.",
)  # fmt: skip


def stories(seed: int = 0, count: int = 12_000) -> list[str]:
    """`count` stories of 4 to 8 sentences. No name or town that the dialogues hold out stands in them."""
    draw = Draw(seed, "stories")
    pools = name_pools(Draw(seed, "dialogue"))
    held_out = {word for names in pools["unseen"] for word in names}
    return [story(draw, pools["seen"][0], held_out) for _ in range(count)]


def story(draw: Draw, given: list[str], held_out: set[str]) -> str:
    told = {"a": person(draw, given, held_out), "b": person(draw, given, held_out), "day": draw.choice(DAYS)}
    told |= {"home": apart(draw, held_out, draw_town), "away": apart(draw, held_out, draw_town)}
    turned = {**told, "a": told["b"], "b": told["a"], "home": told["away"], "away": told["home"]}
    kinds = (ALONE, ALONE, TOGETHER, ASKED)
    lines = [draw.choice(draw.choice(kinds)).format(**draw.choice((told, turned))) for _ in range(draw.between(4, 8))]
    return " ".join(lines)


def person(draw: Draw, given: list[str], held_out: set[str]) -> str:
    """ "Yaro Masodin", or "Masodin" alone."""
    surname = apart(draw, held_out, draw_surname)
    if draw.chance(25):
        return surname
    return f"{apart(draw, held_out, partial(blend, names=given))} {surname}"


def apart(draw: Draw, held_out: set[str], draw_one: Callable[[Draw], str]) -> str:
    """A name that is not held out."""
    while True:
        name = draw_one(draw)
        if name not in held_out:
            return name
