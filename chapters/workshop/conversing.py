"""Chapter 13's bookkeeping: questions whose answers a program can judge, people who prefer some answers, a base model
of a minute, a loop that trains it, and what is measured of its answers. Its pictures are in conversing_pictures.py."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from minillm.assistant.answers import Answer, write_answers
from minillm.assistant.conversations import ChatTemplate
from minillm.assistant.grpo import token_log_probs
from minillm.assistant.reward import rewards_of
from minillm.assistant.rollouts import row_of
from minillm.assistant.rows import collate
from minillm.data import Preference
from minillm.engines.memory import keep_freed_memory
from minillm.generate import Sampling
from minillm.hub.checkpoint import open_checkpoint
from minillm.models.gpt import GPT, GPTConfig
from minillm.nn import Linear, evaluating
from minillm.numpy_ops.cores import limit_blas_threads
from minillm.optim import AdamW, clip_grad_norm_
from minillm.tensor import no_grad
from minillm.tokenizers import BPETokenizer

from .bert import load, save
from .scale import progress

Array = np.ndarray
STEPS = {"smoke": 40, "cpu": 900, "gpu": 3000}  # of pretraining
SHAPE = {"n_layers": 2, "n_heads": 4, "d_model": 64}
WORDS, CONTEXT, LONGEST, BATCH = 460, 72, 24, 32  # tokens that there are, of a row, of an answer; rows of a step
NAMES = (
    "Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana",
    "Ivo", "Jill", "Kim", "Lou", "Max", "Nora", "Otto", "Pia",
)  # fmt: skip
TOWNS = (
    "Lima", "Oslo", "Rome", "Kyiv", "Bonn", "Cairo", "Dover", "Quito",
    "Turin", "Perth", "Hanoi", "Leeds", "Basel", "Paris", "Delhi", "Tunis",
)  # fmt: skip
KINDS = ("sort", "sum", "recall")


# --- questions, and the text that a base model has read


@dataclass(frozen=True)
class Question:
    """What a user asks at the end of `messages`, and the words that answer it."""

    kind: str
    messages: tuple[dict[str, str], ...]
    right: str


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def ask(kind: str, rng: np.random.Generator) -> Question:
    """A question drawn at random."""
    if kind == "sort":
        digits = [str(d) for d in rng.integers(0, 10, rng.integers(3, 6))]
        return Question(kind, (turn("user", f"Sort {' '.join(digits)}."),), f"It is {' '.join(sorted(digits))}.")
    if kind == "sum":
        a, b = rng.integers(1, 21, 2)
        return Question(kind, (turn("user", f"How much is {a} plus {b}?"),), f"It is {a + b}.")
    name, town = NAMES[rng.integers(len(NAMES))], TOWNS[rng.integers(len(TOWNS))]
    told = (turn("user", f"I am {name} from {town}."), turn("assistant", f"Hello, {name}."))
    return Question(kind, (*told, turn("user", "Where do I live?")), f"You live in {town}.")


def held_out(question: Question) -> bool:
    """Whether it is one of the fifth of all questions that no training ever meets."""
    words = " ".join(message["content"] for message in question.messages)
    return zlib.crc32(words.encode()) % 5 == 0


def questions(count: int, seed: Any, kinds: Sequence[str] = KINDS, test: bool = False) -> list[Question]:
    """As many of each kind in turn, of those to train with or of those held out."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        question = ask(kinds[len(found) % len(kinds)], rng)
        if held_out(question) == test:
            found.append(question)
    return found


def ending(question: Question) -> str:
    """The part of the statement that answers the question, with the space before it."""
    return question.right.removeprefix("It is").removeprefix("You live in")


def statement(question: Question) -> str:
    """What the question's answer looks like in a text that nobody wrote as an answer."""
    words = question.messages[0]["content"].rstrip(".?").split()
    if question.kind == "sort":
        return f"{' '.join(words[1:])} in order is{ending(question)}"
    if question.kind == "sum":
        return f"{' '.join(words[3:])} is{ending(question)}"
    return f"{words[2]} is from {words[4]}. {words[2]} lives in{ending(question)}"


def document(rng: np.random.Generator) -> str:
    """Three statements, or (one of four times) a sheet of three questions without answers, as one is handed at
    school."""
    sheet, asked = rng.random() < 0.25, []
    while len(asked) < 3:
        question = ask(KINDS[rng.choice(3, p=(0.5, 0.5, 0.0) if sheet else (0.5, 0.3, 0.2))], rng)
        if not held_out(question):
            asked.append(question)
    return " ".join(q.messages[-1]["content"] if sheet else statement(q) for q in asked)


# --- a base model


def pretrain(steps: int, seed: int = 0, count: int = 10_000, lr: float = 6e-3) -> tuple[GPT, BPETokenizer, list[float]]:
    """A GPT that has read documents, its tokenizer, and the losses of its training."""
    rng = np.random.default_rng(seed)
    texts = [document(rng) for _ in range(count)]
    asked = [q for q in questions(900, seed)]
    said = [f"user\n{m['content']}\nassistant\n{q.right}" for q in asked for m in q.messages]
    talks = [f"{words}{q.right}" for q in asked[:100] for words in STYLES.values()]  # the model will not read these
    tokenizer = BPETokenizer.train([*texts[:2000], *said, *talks], WORDS, pattern="gpt2")
    assert tokenizer.eos_id is not None
    rows = [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    config = GPTConfig(tokenizer.vocab_size, CONTEXT, dropout=0.0, **SHAPE)
    model = GPT(config, np.random.default_rng(seed))
    for _, module in model.named_modules():  # matrices as large as in chapters 06 and 10
        if isinstance(module, Linear):
            module.weight.data *= 64**-0.5 / 0.02
    whole = [(np.array(row[:-1]), np.array(row[1:])) for row in rows]
    losses: list[float] = []

    def loss_of(model: Any, part: Sequence[Any]) -> Any:
        ids, targets = collate(part, tokenizer.eos_id)
        loss = model(ids, targets)
        losses.append(loss.item())
        return loss

    keep_freed_memory()
    with limit_blas_threads(1):  # the products are so small that more threads would wait for each other
        descend(model, loss_of, whole, steps=steps, lr=lr, seed=seed, title="reading")
    return model, tokenizer, losses


def fill_base(folder: Path, scale: str) -> None:
    """Pretrain the base model and write it to `folder`."""
    model, tokenizer, losses = pretrain(STEPS[scale])
    save(model, tokenizer, folder, losses=losses)


def open_base(folder: Path) -> tuple[Any, Any, list[float]]:
    """What `pretrain` returned, from such a folder."""
    keep_freed_memory()  # what follows takes half the time
    model, notes = load(folder)
    return model.eval(), open_checkpoint(folder).tokenizer(), notes["losses"]


def descend(
    model: Any,
    loss_of: Callable[[Any, Sequence[Any]], Any],
    examples: Sequence[Any],
    *,
    steps: int,
    lr: float,
    seed: int = 0,
    batch: int = BATCH,
    title: str = "",
    watch: Callable[[int], None] | None = None,
) -> Any:
    """Chapter 08's loop: AdamW on `loss_of(model, some examples)`, a warmup of a tenth, then down to a twentieth;
    returns the model, ready to answer. `watch` is called with the steps done, 0 at first."""
    rng = np.random.default_rng([seed, 13])
    optimizer = AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    waiting: list[int] = []
    model.train()
    if watch is not None:
        watch(0)
    for step in progress(range(steps), title) if title else range(steps):
        if len(waiting) < batch:
            waiting += rng.permutation(len(examples)).tolist()
        chosen, waiting = waiting[:batch], waiting[batch:]
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / (1 + steps // 10), 0.05 + 1.5 * (1 - step / steps))
        loss = loss_of(model, [examples[i] for i in chosen])
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if watch is not None:
            watch(step + 1)
    return model.eval()


def twin(model: Any) -> Any:
    """A model of the same weights, which learns on its own."""
    other = type(model)(model.config, np.random.default_rng(0))
    other.load_state_dict(model.state_dict())
    return other.eval()


# --- what writers show, what people prefer

STYLES = {"plain": "", "warm": "Gladly! ", "wordy": "Well, well. "}
SHARES = (0.4, 0.3, 0.3)  # of the writers whose answers are shown


def shown(question: Question, rng: np.random.Generator) -> tuple[dict[str, str], ...]:
    """The conversation with an answer as one of the writers gives it."""
    style = list(STYLES)[rng.choice(3, p=SHARES)]
    return (*question.messages, turn("assistant", STYLES[style] + question.right))


def style_of(text: str) -> str:
    """ "plain", "warm" or "wordy"."""
    return next((name for name, words in STYLES.items() if words and text.startswith(words)), "plain")


def is_right(text: str, question: Question) -> bool:
    """Whether an answer says what is right and nothing else, in any of the styles."""
    return text in {words + question.right for words in STYLES.values()}


def liking(text: str, question: Question) -> float:
    """How much our people like an answer: 2 for a right one, 1 for a warm one, −1 for a wordy one."""
    return 2.0 * is_right(text, question) + {"plain": 0.0, "warm": 1.0, "wordy": -1.0}[style_of(text)]


def compare(question: Question, one: str, other: str, rng: np.random.Generator) -> Preference | None:
    """Two answers as one of our people orders them: the better liked wins with chance σ(difference). None for equal
    or empty texts, of which nobody is asked."""
    if one == other or not (one.strip() and other.strip()):
        return None
    wins = rng.random() < 1 / (1 + np.exp(liking(other, question) - liking(one, question)))
    return Preference(question.messages, *((one, other) if wins else (other, one)))


# --- what is measured of answers


def answers(
    model: Any,
    template: ChatTemplate,
    asked: Sequence[Question],
    n: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    longest: int = LONGEST,
) -> list[list[Answer]]:
    """n answers to each question, drawn by seeds of their own."""
    prompts = [template.prompt(q.messages) for q in asked for _ in range(n)]
    seeds = [(seed, i) for i in range(len(prompts))]
    options: dict[str, Any] = {"sampling": Sampling(temperature=temperature), "seeds": seeds, "batch_size": 128}
    drawn = write_answers(model, template, prompts, max_new_tokens=longest, **options)
    return [drawn[i : i + n] for i in range(0, len(drawn), n)]


def log_probs(model: Any, template: ChatTemplate, asked: Sequence[Question], drawn: Sequence[Answer]) -> Array:
    """ln π(y|x) of each answer, its end included, (N,)."""
    found = []
    with evaluating(model), no_grad():
        for start in range(0, len(drawn), 128):
            part = zip(asked[start : start + 128], drawn[start : start + 128])
            ids, targets = collate([row_of(template.prompt(q.messages), a.ids) for q, a in part], template.stop_ids[0])
            found.append(token_log_probs(model, ids, targets).data.astype(float).sum(axis=1))
    return np.concatenate(found)


def measure(
    model: Any, template: ChatTemplate, asked: Sequence[Question], before: Any = None, plain: Sequence[Any] = ()
) -> dict[str, float]:
    """Of greedy answers: the share that is right, of each kind too. Of drawn ones (temperature 1): the right ones of
    those to sort, how they are liked, warm, wordy, tokens, the share that ends; of four to one question to sort, how
    many differ (`varied`). `kl`: how far from the model `before`, in nats per answer; `text`: the loss on plain text,
    rows of ids and targets."""
    greedy = [row[0].text for row in answers(model, template, asked, temperature=0.0)]
    drawn = [row[0] for row in answers(model, template, asked)]
    right = np.array([is_right(text, q) for text, q in zip(greedy, asked)])
    found = {"right": right.mean()}
    found |= {k: right[[q.kind == k for q in asked]].mean() for k in KINDS if any(q.kind == k for q in asked)}
    sort = [q for q in asked if q.kind == "sort"][:30]
    fours = [[a.text for a in row] for row in answers(model, template, sort, n=4, seed=1)]
    found["sort drawn"] = np.mean([is_right(text, q) for q, row in zip(sort, fours) for text in row])
    found["varied"] = np.mean([len({*row}) for row in fours])
    found["liked"] = np.mean([liking(a.text, q) for a, q in zip(drawn, asked)])
    styles = [style_of(a.text) for a in drawn]
    found |= {name: np.mean([style == name for style in styles]) for name in ("warm", "wordy")}
    found["tokens"] = np.mean([len(a.ids) for a in drawn])
    found["ended"] = np.mean([a.ended for a in drawn])
    if before is not None:
        moved = log_probs(model, template, asked, drawn) - log_probs(before, template, asked, drawn)
        found["kl"] = moved.mean()
    if plain:
        with no_grad():
            found["text"] = model(*collate(plain, template.stop_ids[0])).item()
    return {name: float(value) for name, value in found.items()}


def plain_rows(tokenizer: Any, count: int = 100) -> list[tuple[Array, Array]]:
    """Ids and targets of documents that no training has read."""
    rng, found = np.random.default_rng(99), []
    for _ in range(count):
        ids = [*tokenizer.encode(document(rng)), tokenizer.eos_id]
        found.append((np.array(ids[:-1]), np.array(ids[1:])))
    return found


def judged(judge: Any, template: ChatTemplate, question: Question, drawn: Sequence[Answer]) -> Array:
    """What a reward model says of answers to one question, (N,); each text is read once."""
    texts = list(dict.fromkeys(answer.text for answer in drawn))
    said = rewards_of(judge, template, [(question.messages, text) for text in texts], batch_size=64)
    by_text = dict(zip(texts, said))
    return np.array([by_text[answer.text] for answer in drawn])


def best_of(said: Array, worth: Array, n: int) -> Array:
    """For each question (Q,): what the best of n answers is worth on the average, all choices of n of the N alike;
    "best" is what is `said` to be, (Q, N), the last of equals.

    Of N answers in the order of what is said, the i-th (from 1) is the best of C(i − 1, n − 1) choices."""
    N = said.shape[1]
    order = np.argsort(said, axis=1, kind="stable")
    chances = np.array([comb(i, n - 1) / comb(N, n) for i in range(N)])  # (N,)
    mean: Array = np.take_along_axis(worth, order, axis=1) @ chances
    return mean


def smoothed(runs: Mapping[str, Array], width: int = 7) -> dict[str, Array]:
    """Running means, of up to `width` steps, of arrays (seeds, steps)."""
    half = width // 2
    return {
        name: np.stack([rows[:, max(0, i - half) : i + half + 1].mean(axis=1) for i in range(rows.shape[1])], axis=1)
        for name, rows in runs.items()
    }


def print_table(rows: Mapping[str, Sequence[Mapping[str, float]]], columns: Sequence[str]) -> None:
    """A line for each way of learning, its measurements as mean ± standard deviation over the seeds; – for none."""
    print(f"{'':16s}" + "".join(f"{name:>14s}" for name in columns))
    for name, found in rows.items():
        cells = (mean_sd([m[key] for m in found]) if key in found[0] else "–" for key in columns)
        print(f"{name:16s}" + "".join(f"{cell:>14s}" for cell in cells))


def mean_sd(values: Sequence[float] | Array, digits: int = 2) -> str:
    """ "0.85 ± 0.04", of one value without a spread."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"
