"""Invented people, towns and days: what must be copied, never remembered.

Given names come from many parts of the world, no one of them oftener than another; nothing that is told of a person
depends on the name. Surnames and towns are put together from syllables, so that there are thousands of them and a
model cannot know those of the test splits: it has to copy them.
"""

from __future__ import annotations

from .draw import Draw

GIVEN_NAMES = """
Aisha Amara Anna Ayo Bruno Carmen Chidi Chloe Dalia Daniel Diego Elif Emil Esra Farid Fatima Felix Freya Gita Hana Hugo
Ines Ivan Jamal Jin Jonas Kaito Kofi Lars Leila Lena Liang Lucia Malik Marta Mei Mina Nadia Naomi Nikhil Noor Olga Omar
Oscar Pedro Priya Quinn Rafael Rania Rosa Ravi Samir Sara Sofia Tariq Tomas Uma Viktor Wanjiru Wei Yara Yuki Zainab Zoe
"""
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeo"]
SURNAME_ENDS = ("n", "r", "l", "ni", "ri", "li", "s", "vi", "ku", "din")
TOWN_ENDS = ("ville", "ton", "burg", "mar", "port", "dale", "stad", "wick")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def draw_surname(draw: Draw) -> str:
    """ "Tarokeni", "Masodin": 2 or 3 syllables and an end."""
    middle = "".join(draw.choice(SYLLABLES) for _ in range(draw.between(1, 2)))
    return (draw.choice(SYLLABLES) + middle + draw.choice(SURNAME_ENDS)).capitalize()


def draw_town(draw: Draw) -> str:
    """ "Kolemar", "Bazoport": 2 syllables and an end."""
    return (draw.choice(SYLLABLES) + draw.choice(SYLLABLES) + draw.choice(TOWN_ENDS)).capitalize()


def blend(draw: Draw, names: list[str]) -> str:
    """ "Aiyo", "Zaibek": the beginning of one of the names and the end of another, which no list has."""
    first, second = draw.choice(names), draw.choice(names)
    return first[: draw.between(1, 3)] + second[draw.between(1, 2) :].lower()


def name_pools(draw: Draw) -> dict[str, tuple[list[str], list[str], list[str]]]:
    """{"seen", "unseen"}: given names, surnames and towns for training, and others that training never has."""
    given = draw.shuffled(GIVEN_NAMES.split())
    surnames = list(dict.fromkeys(draw_surname(draw) for _ in range(3000)))
    towns = list(dict.fromkeys(draw_town(draw) for _ in range(2500)))
    return {
        "seen": (given[:-12], surnames[300:], towns[300:]),
        "unseen": (given[-12:], surnames[:300], towns[:300]),
    }
