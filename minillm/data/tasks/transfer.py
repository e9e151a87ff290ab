"""Transfer: sentiment from few labels, where the test speaks in words that the labels never showed.

    train    The soup was delicious, and the bread was fresh.      positive
    test     The stew turned out superb.                           positive

Each topic has two vocabularies that mean much the same. Training draws from the first, "test" from the second: no
word of praise or blame and no thing spoken of is in both. What the test asks must come from pretraining. "seen" has
new sentences in the training's words, as a control: what is lost between the two is what transfer has to bring.

The topic "software" speaks as the standard library's documentation does, so that a model pretrained on that text has
met its words; the others are everyday English, which a model pretrained on much text knows (MiniLM).
"""

from __future__ import annotations

from functools import partial

from ..examples import Labelled
from .baselines import NaiveBayes, most_frequent, test_splits
from .draw import Draw, fill

LABELS = ("negative", "positive")

# topic: for training and for the test, (things, blame, praise). {t} below is a thing, {p} what is said of it.
TOPICS = {
    "food": (
        (
            "soup pizza bread salad rice",
            "was cold|was bad|was awful|made me sick|was too salty|was disappointing",
            "was delicious|was great|was lovely|made us happy|was fresh|was very good",
        ),
        (
            "stew pasta cake curry dessert",
            "seemed burnt and bitter|turned out inedible|smelled rotten|left everyone queasy|tasted stale and greasy",
            "seemed tasty and tender|turned out superb|smelled divine|left everyone delighted|tasted rich and juicy",
        ),
    ),
    "travel": (
        (
            "hotel room trip beach flight",
            "was dirty|was terrible|was too noisy|ruined our holiday|was boring|was unsafe",
            "was clean|was wonderful|was quiet|made our holiday|was beautiful|was safe",
        ),
        (
            "hostel cabin journey island cruise",
            "looked filthy and shabby|proved a nightmare|felt dangerous|turned into a disaster|seemed gloomy and bare",
            "looked spotless and cosy|proved a delight|felt peaceful|turned into a dream|seemed charming and bright",
        ),
    ),
    "film": (
        (
            "film story show music ending",
            "was boring|was stupid|was a waste of time|was bad|made no sense|was too long",
            "was exciting|was clever|was worth every minute|was great|made me smile|was funny",
        ),
        (
            "movie plot novel soundtrack scene",
            "felt dull and tedious|looked ridiculous|seemed pointless|came across as clumsy|left me yawning",
            "felt gripping and vivid|looked stunning|seemed brilliant|came across as witty|left me enchanted",
        ),
    ),
    "home": (
        (
            "phone chair lamp oven vacuum",
            "broke after a week|is useless|was expensive and weak|never works|is ugly|hurts my back",
            "lasted for years|is useful|was cheap and strong|always works|is pretty|helps my back",
        ),
        (
            "laptop sofa heater fridge blender",
            "fell apart at once|feels flimsy|keeps failing|looks hideous|proved worthless|gives me headaches",
            "held up perfectly|feels sturdy|keeps running smoothly|looks elegant|proved invaluable|gives me joy",
        ),
    ),
    "people": (
        (
            "teacher doctor neighbour driver guide",
            "was rude|was angry with us|did not help|was late again|lied to me|was careless",
            "was friendly|was nice to us|helped a lot|was always on time|was honest with me|was careful",
        ),
        (
            "coach nurse landlord colleague clerk",
            "acted hostile and arrogant|insulted everybody|ignored our questions|behaved cruelly|seemed lazy and vain",
            "acted kind and polite|thanked everybody|answered our questions|behaved generously|seemed warm and patient",
        ),
    ),
    "software": (
        (
            "function module program class script",
            "raises an error|is broken|is slow|returns a wrong result|is unsafe|is deprecated",
            "works without an error|is correct|is fast|returns the right result|is safe|is supported",
        ),
        (
            "method package parser library server",
            "fails with an exception|produces invalid output|causes problems|remains insecure|crashes|looks obsolete",
            "succeeds as expected|produces valid output|solves problems|remains secure|runs efficiently|looks reliable",
        ),
    ),
}
FORMS = ("the {t} {p}.", "Our {t} {p}.", "This {t} {p}.", "the {t} {p}, and the {t2} {p2}.", "the {t} {p} and {p2}.",
         "Honestly, the {t} {p}.", "My friends say that the {t} {p}.", "the {t} {p}, if you ask me.")  # fmt: skip


def draw_text(draw: Draw, which: int, label: str) -> tuple[str, Labelled]:
    """A sentence in the vocabulary `which` (0 for training, 1 for the test); `where` is its topic."""
    topic = draw.choice(list(TOPICS))
    things, *said = TOPICS[topic][which]
    t, t2 = draw.some(things.split(), 2)
    p, p2 = draw.some(said[LABELS.index(label)].split("|"), 2)
    text = draw.choice(FORMS).format(t=t, t2=t2, p=p, p2=p2)
    text = text[0].upper() + text[1:]
    return text, Labelled(text, label, topic)


def make(seed: int = 0, labels: int = 256) -> dict[str, list[Labelled]]:
    """{"train", "val", "test", "seen"}: half of each label. The first 16 or 64 of "train" are balanced samples, too."""
    draw, taken = Draw(seed, "transfer"), set[str]()

    def split_of(size: int, which: int) -> list[Labelled]:
        halves = [fill(size // 2, partial(draw_text, draw, which, label), taken) for label in LABELS]
        return [example for both in zip(*halves) for example in both]

    return {"train": split_of(labels, 0), "val": split_of(100, 0), "test": split_of(500, 1), "seen": split_of(300, 0)}


def reviews(seed: int = 0, count: int = 12_000, sentences: int = 3) -> list[str]:
    """Texts without labels to pretrain on: each is a few sentences of one opinion about one topic, and each sentence
    has a clause in either vocabulary, as no sentence of `make` has. Which opinion it is, nothing says: that some words
    keep company with each other and not with others is all that there is to learn."""
    draw, texts = Draw(seed, "transfer reviews"), []
    for number in range(count):
        topic, opinion, said = draw.choice(list(TOPICS)), 1 + number % 2, list[str]()
        for _ in range(sentences):
            first, second = draw.shuffled(TOPICS[topic])
            t, t2 = draw.choice(first[0].split()), draw.choice(second[0].split())
            p, p2 = draw.choice(first[opinion].split("|")), draw.choice(second[opinion].split("|"))
            text = draw.choice(MIXED).format(t=t, t2=t2, p=p, p2=p2)
            said.append(text[0].upper() + text[1:])
        texts.append(" ".join(said))
    return texts


MIXED = ("the {t} {p}, and the {t2} {p2}.", "Our {t} {p} and {p2}.", "This {t} {p}, as the {t2} {p2}.")


def baselines(splits: dict[str, list[Labelled]]) -> dict[str, dict[str, list[str]]]:
    """Predictions for each test split: the commonest label, and a bag of words (naive Bayes)."""
    tests = {name: [example.text for example in part] for name, part in test_splits(splits).items()}
    labels = [str(example.label) for example in splits["train"]]
    bag, common = NaiveBayes([example.text for example in splits["train"]], labels), most_frequent(labels)
    return {
        "majority": {name: [common] * len(texts) for name, texts in tests.items()},
        "bag of words": {name: bag.predict(texts) for name, texts in tests.items()},
    }
