"""Dialogue: short talks in which the last answer depends on what was said before, and can be checked by a program.

    booking       the assistant asks for what is missing of people, day and hour, and confirms all of it
    recall        a name and a town are told, then something else is talked of, then one of the two is asked for
    arithmetic    a sum, and then "and plus 4?", which goes on from its answer

Held out of training:

    test            new talks with names that are trained on
    names           names and towns that never are: they have to be copied (for which training has thousands of them,
                    given names too: a model would learn a short list of them by heart)
    combinations    bookings of a thing on a day, and sums of two numbers, that never stood together in training
"""

from __future__ import annotations

import re
from functools import partial

from ..examples import Chat, Preference
from .baselines import Nearest, most_frequent, test_splits
from .draw import Draw, fill, same_words_key
from .names import DAYS, blend, name_pools

THINGS = ("table", "room", "taxi", "boat", "court", "tour")
PEOPLE = ("two", "three", "four", "five", "six")
HOURS = ("seven", "eight", "nine", "ten", "eleven", "noon")  # none of PEOPLE: "make it six" is clear
NUMBERS = [str(n) for n in range(1, 21)]
ASKING = {"people": "For how many people?", "day": "On which day?", "hour": "At what time?"}
GREETINGS = ("", "", "Hello. ", "Good morning. ", "Hi! ")
WISHES = ("I would like to book a {thing}{rest}.", "Please book a {thing}{rest}.", "Can I have a {thing}{rest}?",
          "I need a {thing}{rest}.")  # fmt: skip
GIVEN = {"people": (" for {people}",), "day": (" on {day}",), "hour": (" at {hour}",)}
ANSWERS = {
    "people": ("For {people}.", "We are {people}.", "{people}, please."),
    "day": ("On {day}.", "{day}, please.", "It should be {day}."),
    "hour": ("At {hour}.", "{hour}, please.", "We come at {hour}."),
}
CHANGES = ("No, make it {new}.", "Sorry, {new} instead.", "Wait, I meant {new}.")
TELLING = ("I am {name} from {town}.", "My name is {name} and I live in {town}.", "This is {name}. I come from {town}.")
TOWNS_FIRST = ("I live in {town}. My name is {name}.", "I come from {town}, and people call me {name}.")
BETWEEN = {  # small talk: the user's words, the assistant's
    "It is cold today.": "Then a cup of tea will do you good.",
    "I like music.": "So do many people.",
    "I am a bit tired.": "A short walk may help.",
    "What can you do?": "I can book, remember and add.",
    "Thank you.": "You are welcome.",
}
RECALLS = {
    "name": ("What is my name?", "Do you remember my name?", "Who am I?"),
    "town": ("Where do I live?", "Which town do I come from?", "Do you remember my town?"),
}
REMEMBERED = {"name": "Your name is {name}.", "town": "You live in {town}."}
SUMS = ("What is {a} {sign} {b}?", "How much is {a} {sign} {b}?", "{a} {sign} {b}?")
SIGNS = ("plus", "minus")


def booking(draw: Draw, names: tuple[list[str], list[str], list[str]]) -> tuple[list[str], set[tuple[str, ...]]]:
    """What the two say in turn, the user first; and the combinations that stand in it."""
    thing = draw.choice(THINGS)
    slots = {"people": draw.choice(PEOPLE), "day": draw.choice(DAYS), "hour": draw.choice(HOURS)}
    given = [slot for slot in slots if draw.chance(40)]
    rest = "".join(draw.choice(GIVEN[slot]) for slot in draw.shuffled(given)).format(**slots)
    talk = [draw.choice(GREETINGS) + draw.choice(WISHES).format(thing=thing, rest=rest)]
    for slot in slots:
        if slot not in given:
            answer = draw.choice(ANSWERS[slot]).format(**slots)
            talk += [ASKING[slot], answer[0].upper() + answer[1:]]
    talk.append(confirmation(thing, slots))
    together = {(thing, slots["day"])}
    if draw.chance(25):
        slot, pool = draw.choice((("people", PEOPLE), ("day", DAYS), ("hour", HOURS)))
        slots[slot] = draw.choice([other for other in pool if other != slots[slot]])
        talk += [draw.choice(CHANGES).format(new=slots[slot]), confirmation(thing, slots)]
    return talk, together | {(thing, slots["day"])}


def confirmation(thing: str, slots: dict[str, str]) -> str:
    return "Booked: a {thing} for {people} on {day} at {hour}.".format(thing=thing, **slots)


def recall(draw: Draw, names: tuple[list[str], list[str], list[str]]) -> tuple[list[str], set[tuple[str, ...]]]:
    told = {"name": f"{draw.choice(names[0])} {draw.choice(names[1])}", "town": draw.choice(names[2])}
    talk = [draw.choice(GREETINGS) + draw.choice(TELLING + TOWNS_FIRST).format(**told), "Nice to meet you."]
    for said in draw.some(list(BETWEEN), draw.between(1, 2)):
        talk += [said, BETWEEN[said]]
    asked = draw.choice(list(RECALLS))
    return [*talk, draw.choice(RECALLS[asked]), REMEMBERED[asked].format(**told)], set()


def arithmetic(draw: Draw, names: tuple[list[str], list[str], list[str]]) -> tuple[list[str], set[tuple[str, ...]]]:
    a, b, sign = int(draw.choice(NUMBERS)), int(draw.choice(NUMBERS)), draw.choice(SIGNS)
    a, b = (max(a, b), min(a, b)) if sign == "minus" else (a, b)
    value = a + b if sign == "plus" else a - b
    talk = [draw.choice(GREETINGS) + draw.choice(SUMS).format(a=a, b=b, sign=sign), f"{a} {sign} {b} is {value}."]
    together: set[tuple[str, ...]] = {(str(a), sign, str(b))}
    if value in range(1, 21) and draw.chance(50):
        c = draw.between(1, 9)
        talk += [draw.choice(("And plus {c}?", "Now add {c}.", "Plus {c} more?")).format(c=c)]
        talk += [f"{value} plus {c} is {value + c}."]
        together.add((str(value), "plus", str(c)))
    return talk, together


KINDS = {"booking": booking, "recall": recall, "arithmetic": arithmetic}


def make(seed: int = 0, train: int = 6000) -> dict[str, list[Chat]]:
    """{"train", "val", "test", "names", "combinations"}: chats that end with the assistant; `where` is the kind."""
    draw, taken = Draw(seed, "dialogue"), set[str]()
    pools = name_pools(draw)
    given, surnames, towns = pools["seen"]
    blends = {blend(draw, given) for _ in range(2000)}.difference(*pools["unseen"])
    pools["seen"] = ([*given, *sorted(blends)], surnames, towns)
    apart = draw.held_out(15, THINGS, DAYS) | draw.held_out(15, NUMBERS, SIGNS, NUMBERS)

    def chat(kinds: tuple[str, ...], names: str = "seen", held_out: bool = False) -> tuple[str, Chat] | None:
        kind = draw.choice(kinds)
        talk, together = KINDS[kind](draw, pools[names])
        if bool(together & apart) != held_out:
            return None
        roles = ("user", "assistant")
        messages = tuple({"role": roles[i % 2], "content": said} for i, said in enumerate(talk))
        return "\n".join(talk), Chat(messages, kind)

    every, free = tuple(KINDS), ("booking", "arithmetic")
    held_out = {
        "val": fill(300, partial(chat, every), taken, same_words_key),
        "test": fill(500, partial(chat, every), taken, same_words_key),
        "names": fill(300, partial(chat, ("recall",), "unseen"), taken, same_words_key),
        "combinations": fill(300, partial(chat, free, held_out=True), taken, same_words_key),
    }
    return {"train": fill(train, partial(chat, every), taken, same_words_key)} | held_out


REPLIES = {
    "booking": re.compile(r"Booked: a (?P<thing>\w+) for (?P<people>\w+) on (?P<day>\w+) at (?P<hour>\w+)\."),
    "recall": re.compile(r"Your name is (?P<name>.+)\.|You live in (?P<town>.+)\."),
    "arithmetic": re.compile(r".* is (?P<result>\d+)\."),
}


def slots(chat: Chat) -> dict[str, str]:
    """What the last reply must say: {"thing", "people", "day", "hour"}, {"name"}, {"town"} or {"result"}.

    Raises ValueError for a chat that is not of this task.
    """
    match = REPLIES[chat.where].fullmatch(chat.messages[-1]["content"]) if chat.where in REPLIES else None
    if match is None:
        raise ValueError(
            f"{chat.messages[-1]['content']!r} is no last reply of this task: slots are known of make() only."
        )
    return {slot: value for slot, value in match.groupdict().items() if value is not None}


def slot_accuracy(reply: str, chat: Chat) -> float:
    """The share of the slots that a reply to all but the last message fills rightly; other wording is free.

    A value must stand as a word of its own; the result of a sum must be the last number of the reply.
    """
    wanted = slots(chat)
    if "result" in wanted:
        return float(re.findall(r"\d+", reply)[-1:] == [wanted["result"]])
    return sum(re.search(rf"\b{re.escape(value)}\b", reply) is not None for value in wanted.values()) / len(wanted)


def success(reply: str, chat: Chat) -> bool:
    """Whether the reply fills every slot rightly."""
    return slot_accuracy(reply, chat) == 1


def preferences(chats: dict[str, list[Chat]], seed: int = 0) -> dict[str, list[Preference]]:
    """The chats of each split with two last replies: the right one, and one in which a slot is filled wrongly, drawn by
    the seed."""
    draw = Draw(seed, "dialogue preferences")
    names = name_pools(Draw(seed, "dialogue"))["seen"]  # those of `make`
    others = {
        "thing": THINGS, "people": PEOPLE, "day": DAYS, "hour": HOURS, "town": names[2],
        "name": [f"{given} {surname}" for given, surname in zip(*names[:2])], "result": [str(n) for n in range(41)],
    }  # fmt: skip

    def preference(chat: Chat) -> Preference:
        reply, wanted = chat.messages[-1]["content"], slots(chat)
        slot = draw.choice(list(wanted))
        wrong = draw.choice([value for value in others[slot] if value != wanted[slot]])
        before, _, behind = reply.rpartition(wanted[slot])  # the last place: "3 plus 3 is 6."
        return Preference(chat.messages[:-1], reply, before + wrong + behind, chat.where)

    return {split: [preference(chat) for chat in rows] for split, rows in chats.items()}


def before_reply(chat: Chat) -> str:
    """All that is said before the last reply, in one text."""
    return "\n".join(message["content"] for message in chat.messages[:-1])


def baselines(splits: dict[str, list[Chat]]) -> dict[str, dict[str, list[str]]]:
    """Last replies for each test split: the commonest one, and that of the training chat with the nearest beginning."""
    tests, train = test_splits(splits), splits["train"]
    nearest = Nearest([before_reply(chat) for chat in train])
    common = most_frequent(chat.messages[-1]["content"] for chat in train)
    return {
        "most frequent": {name: [common] * len(chats) for name, chats in tests.items()},
        "retrieval": {
            name: [train[i].messages[-1]["content"] for i in nearest.find([before_reply(chat) for chat in chats])]
            for name, chats in tests.items()
        },
    }
