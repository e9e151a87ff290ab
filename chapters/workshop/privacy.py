"""Chapter 19's bookkeeping: the notes that hold secrets and the models that read them, in public and in private."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from minillm.data.pii import Span, is_resident_id, luhn
from minillm.disk import read_json, write_text
from minillm.models.gpt import GPT, GPTConfig
from minillm.nn import evaluating
from minillm.optim import AdamW
from minillm.responsible import PrivateOptimizer, exposure, poisson_lots
from minillm.tensor import no_grad
from minillm.tokenizers import CharTokenizer, Tokenizer

from .deliverables import made

Array = np.ndarray
TIMES = (0, 1, 2, 4, 8, 16)  # how often a secret stands in the notes
REWORDED = "16, reworded"  # so often, but no two lines alike
OPENINGS = [
    "ok, ", "hi, ", "so, ", "yes, ", "no, ", "and ", "but ", "pls ", "hey, ", "hm, ", "well, ", "ah, ", "oh, ",
    "now ", "fyi ", "ps ",
]  # fmt: skip
AREA = ": 415-555-"  # what stands between a name and the four digits that nobody can guess
CONTEXT = 36
NAMES = [
    "ada", "alan", "amir", "anna", "axel", "bao", "ben", "bora", "carl", "chen", "cleo", "dan", "dina", "ed",
    "ella", "eva", "finn", "fay", "gus", "hana", "hugo", "ida", "ivan", "jan", "jin", "joy", "kai", "kim", "lea",
    "leo", "lin", "lou", "max", "mei", "mia", "nia", "noa", "nils", "ola", "otto", "pia", "quin", "ray", "rosa",
]  # fmt: skip
EVERYDAY = [
    ("the train", "the mail", "the key", "the room", "my bike", "our lunch", "her talk", "the tea"),
    ("is late", "is here", "is gone", "is ready", "comes soon", "was good"),
    ("", " today", " again", ", ok", " at last"),
]


# --- notes with secrets in them


@dataclass(frozen=True)
class Notes:
    """Lines of text, and the secrets among them: for each of TIMES, people whose number stands there so often."""

    lines: list[str]
    people: dict[str, list[str]]  # how often -> names
    digits: dict[str, int]  # name -> the last four digits, as a number

    def secret(self, name: str) -> str:
        return f"{name}{AREA}{self.digits[name]:04d}"


def write_notes(seed: int, each: int = 4, everyday: int = 300) -> Notes:
    """`each` people for every count of TIMES, `each` more with 16 different lines, the others' numbers once, and
    everyday lines: all shuffled."""
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(NAMES)]
    digits = {name: int(rng.integers(10_000)) for name in names}
    groups = [*map(str, TIMES), REWORDED]
    people = {group: names[i * each : (i + 1) * each] for i, group in enumerate(groups)}
    lines: list[str] = []
    notes = Notes(lines, people, digits)
    for group, chosen in people.items():
        if group == REWORDED:
            lines += [opening + notes.secret(name) for name in chosen for opening in OPENINGS]
        else:
            lines += [notes.secret(name) for name in chosen for _ in range(int(group))]
    lines += [notes.secret(name) for name in names[len(groups) * each :]]
    plain = ["".join((f"{name}: {a} {b}", c)) for name, a, b, c in product(NAMES, *EVERYDAY)]
    lines += [plain[i] for i in rng.choice(len(plain), everyday, replace=False)]
    rng.shuffle(lines)
    return notes


def other_lines(notes: Notes, n: int = 200) -> list[str]:
    """Everyday lines that do not stand in these notes."""
    lines = set(notes.lines)
    plain = [line for line in write_notes(999, 1, 2 * n).lines if AREA not in line]
    return [line for line in plain if line not in lines][:n]


# --- a small model of lines


def tokenizer_of(lines: Iterable[str]) -> CharTokenizer:
    return CharTokenizer.train([*lines, "0123456789[PHONE]"])


def rows_of(
    lines: Sequence[str], tokenizer: Tokenizer, context: int, begin: bool = True
) -> tuple[Array, Array]:
    """ids and targets (lines, context): each line before an end of text, and behind one if `begin`; then −100."""
    end = tokenizer.eos_id
    ids, targets = np.full((len(lines), context), end), np.full((len(lines), context), -100)
    for row, line in enumerate(lines):
        text = [*[end] * begin, *tokenizer.encode(line), end][: context + 1]
        ids[row, : len(text) - 1], targets[row, : len(text) - 1] = text[:-1], text[1:]
    return ids, targets


def new_model(vocab_size: int, seed: int, *, context: int = CONTEXT, d: int = 48, layers: int = 1) -> GPT:
    """A small GPT with 4 heads, from a start of its own."""
    config = GPTConfig(vocab_size, context=context, n_layers=layers, n_heads=4, d_model=d)
    return GPT(config, np.random.default_rng(seed))


def train(
    model: GPT,
    rows: tuple[Array, Array],
    steps: int,
    seed: int,
    *,
    batch: int = 32,
    lr: float = 3e-3,
    look: Callable[[int], None] | None = None,
) -> list[float]:
    """Chapter 08's loop without its extras: the loss of every step. `look(steps made)` is called after each."""
    rng = np.random.default_rng(seed)
    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    ids, targets = rows
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 20, 0.05 + 2 * (1 - step / steps))
        chosen = rng.integers(0, len(ids), batch)
        loss = model(ids[chosen], targets[chosen])
        model.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if look is not None:
            look(step + 1)
    return losses


# --- what it gives away


def all_endings(model: GPT, before: Sequence[int], digit_ids: Sequence[int], digits: int = 4) -> Array:
    """ln P(d₁ d₂ … | before) of all 10^digits numbers, in order: (10^digits,).

    Numbers share their beginnings, so that 1 + 10 + 100 + 1000 rows serve for 10,000 numbers.
    """
    total = np.zeros(1)  # (beginnings,)
    rows = np.array([before])  # (beginnings, T)
    choices = np.array(digit_ids)
    with evaluating(model), no_grad():
        for _ in range(digits):
            logits = model(rows).data[:, -1].astype(np.float64)  # (beginnings, V)
            logits -= logits.max(axis=1, keepdims=True)
            log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            total = (total[:, None] + log_p[:, choices]).ravel()  # (10 · beginnings,)
            rows = np.concatenate(
                [np.repeat(rows, 10, axis=0), np.tile(choices, len(rows))[:, None]], axis=1
            )
    return total


def exposures(
    model: GPT, tokenizer: CharTokenizer, notes: Notes, groups: Iterable[str] | None = None
) -> dict[str, Array]:
    """How often -> the exposure in bits of each of those people's numbers; of some `groups` only, or of all."""
    digit_ids = tokenizer.encode("0123456789")
    found = {}
    for group in notes.people if groups is None else groups:
        bits = []
        for name in notes.people[group]:
            before = [tokenizer.eos_id, *tokenizer.encode(name + AREA)]
            bits.append(exposure(all_endings(model, before, digit_ids), notes.digits[name]))
        found[group] = np.array(bits)
    return found


def train_private(
    model: GPT,
    rows: tuple[Array, Array],
    noise: float,
    *,
    rate: float,
    steps: int,
    max_norm: float,
    lr: float,
    seed: int,
) -> list[float]:
    """DP-SGD with AdamW inside: the norm of every example's gradient, before clipping."""
    rng = np.random.default_rng(seed)
    ids, targets = rows
    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    private = PrivateOptimizer(
        optimizer, max_norm=max_norm, noise_multiplier=noise, lot_size=rate * len(ids), rng=rng
    )
    norms = []
    for lot in poisson_lots(len(ids), rate, steps, rng):
        for i in lot:
            length = int((targets[i] != -100).sum())
            model(ids[i : i + 1, :length], targets[i : i + 1, :length]).backward()
            norms.append(private.add())
        private.step()
    return norms


def loss_of(model: GPT, rows: tuple[Array, Array]) -> float:
    with evaluating(model), no_grad():
        return model(*rows).item()


def mean_and_sd(values: Sequence[float]) -> str:
    """ "3.1 ± 0.4", the standard deviation of the sample; without it where there is one value."""
    sd = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{sd}"


def risks(scale: str) -> dict[str, float]:
    """How often a secret stood in the notes -> its mean exposure in bits, of one model: for a later model card."""
    steps, each = {"smoke": (20, 1), "cpu": (250, 4), "gpu": (250, 4)}[scale]
    recipe = {"steps": steps, "each": each, "d": 48, "seed": 0}

    def make(folder: Path) -> None:
        notes = write_notes(0, each)
        tokenizer = tokenizer_of(notes.lines)
        model = new_model(tokenizer.vocab_size, 0)
        train(model, rows_of(notes.lines, tokenizer, CONTEXT), steps, 0)
        found = {group: float(bits.mean()) for group, bits in exposures(model, tokenizer, notes).items()}
        write_text(folder / "risks.json", json.dumps(found, indent=1) + "\n")

    return read_json(made("risks", recipe, make) / "risks.json")


# --- letters with personal information, and with what only looks like it

LOOKALIKES = {
    "card": "a card number with a wrong check digit",
    "resident_id": "a resident number with a wrong check digit",
    "ipv4": "an address of a local network",
    "email": "the name of a picture",
    "phone": "a date and an order number",
    "section": "the number of a section",
    "part": "the number of a spare part",
}


def with_check_digit(digits: str) -> str:
    return next(digits + str(d) for d in range(10) if luhn(digits + str(d)))


def letters(seed: int, n: int = 40) -> tuple[str, set[Span], set[Span]]:
    """A text, what is personal in it, and what only looks like it: `n` sentences of each kind, shuffled."""
    rng = np.random.default_rng(seed)

    def number(k: int) -> str:
        return "".join(map(str, rng.integers(0, 10, k)))

    def one_up(text: str) -> str:
        return text[:-1] + str((int(text[-1]) + 1) % 10)

    def resident() -> str:
        front = f"110105{rng.integers(1950, 2005)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}{number(3)}"
        return next((front + str(d) for d in range(10) if is_resident_id(front + str(d))), "") or resident()

    sentences: list[tuple[str, str, str, bool]] = []  # (before, what counts, its kind, is it personal?)
    for _ in range(n):
        name = str(rng.choice(NAMES)).capitalize()
        card, person = with_check_digit("4" + number(14)), resident()
        tail = f"{rng.integers(2, 10)}{number(2)}-{number(4)}"
        sentences += [
            ("My card is ", card, "card", True),
            ("The box says ", one_up(card), "card", False),
            ("My number is ", person, "resident_id", True),
            ("The file says ", one_up(person), "resident_id", False),
            ("I write from ", f"8.{rng.integers(1, 9)}.{rng.integers(256)}.{rng.integers(256)}", "ipv4", True),
            ("The printer is ", f"192.168.{rng.integers(256)}.{rng.integers(256)}", "ipv4", False),
            ("See section ", f"8.{rng.integers(1, 9)}.{rng.integers(20)}.{rng.integers(20)}", "section", False),
            ("Write to ", f"{name.lower()}.{number(2)}@example.org", "email", True),
            ("Write to ", f"{name.lower()} at example dot org", "email", True),
            ("Look at ", f"{name.lower()}@2x.png", "email", False),
            ("Call ", f"415-{tail}", "phone", True),
            ("Order ", f"2024-01-{rng.integers(10, 29)}-{number(4)}", "phone", False),
            ("Spare part ", f"415-{tail}", "part", False),
            ("I spoke with Mr. ", f"{name} Hall", "name", True),
            ("I spoke with ", f"{name} Hall", "name", True),
        ]
    text, personal, harmless = "", set(), set()
    for i in rng.permutation(len(sentences)):
        before, what, kind, is_personal = sentences[i]
        start = len(text) + len(before)
        text += f"{before}{what}. "
        (personal if is_personal else harmless).add(Span(start, start + len(what), kind))
    return text, personal, harmless
