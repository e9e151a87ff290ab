"""Chapter 12's data, models and measurements: a translator and a summarizer, each small enough for a laptop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from minillm.beam import beam_search
from minillm.data import Pair
from minillm.data.tasks import summarization, translation
from minillm.data.tasks.draw import Draw, fill
from minillm.data.tasks.names import name_pools
from minillm.finetune.objectives import Write
from minillm.finetune.predict import predict
from minillm.finetune.run import PIECES
from minillm.interpret import look_inside
from minillm.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from minillm.nn import evaluating
from minillm.optim import AdamW, clip_grad_norm_
from minillm.tensor import no_grad
from minillm.tokenizers import BPETokenizer, Tokenizer

from .bert import load, save, side_by_side
from .scale import progress

Array = np.ndarray
Splits = dict[str, list[Pair]]
SEEDS = {"smoke": 1, "cpu": 3, "gpu": 5}
STEPS = {"smoke": 8, "cpu": 700, "gpu": 4000}  # of the translator
REPORT_STEPS = {"smoke": 8, "cpu": 1200, "gpu": 4000}  # of the summarizer
MEASURED = 100  # sentences of each split that the curves are made of
SHAPE = {"n_layers": 1, "n_heads": 4, "d_model": 64, "d_ff": 256, "norm": "pre", "dropout": 0.0}
RATE = 4e-3
BATCH = 16

# --- data


def sentences(scale: str) -> Splits:
    """Of the library's translation task the sentences that begin with "There", a seventh of all: place, time, number
    and noun, no people and no verbs. The splits are the library's own."""
    made = translation.make(train=3_000 if scale == "smoke" else 28_000)
    return {name: [p for p in pairs if p.source.startswith("There")] for name, pairs in made.items()}


def reports(scale: str) -> Splits:
    """The library's reports of events, about few people and towns: "seen" has new reports of those in "train", "test"
    reports of others, whose names training never held."""
    draw, taken = Draw(0, "summarization"), set[str]()
    pools = name_pools(draw)
    few = tuple(names[:n] for names, n in zip(pools["seen"], (16, 24, 24)))
    n = 200 if scale == "smoke" else 4000
    known = partial(summarization.draw_report, draw, few)
    unknown = partial(summarization.draw_report, draw, pools["unseen"])
    return {"train": fill(n, known, taken), "seen": fill(200, known, taken), "test": fill(200, unknown, taken)}


def new_tokenizer(pairs: Sequence[Pair], size: int) -> Tokenizer:
    """Byte-level BPE of both sides, each Chinese character a piece of its own, with <pad>, <s> and </s>."""
    texts = (text for pair in pairs for text in (pair.source, pair.target))
    return Write.prepared(BPETokenizer.train((piece for text in texts for piece in PIECES.findall(text)), size))


# --- models and training


def new_model(tokenizer: Tokenizer, context: int, seed: int) -> tuple[EncoderDecoder, Write]:
    """An encoder–decoder of one block each, and what makes pairs its batches."""
    pad_id = tokenizer.special_tokens["<pad>"]
    config = EncoderDecoderConfig(tokenizer.vocab_size, context=context, pad_id=pad_id, **SHAPE)
    return EncoderDecoder(config, np.random.default_rng(seed)), Write.for_tokenizer(tokenizer, context)


def train(
    model: EncoderDecoder,
    objective: Write,
    splits: Splits,
    steps: int,
    *,
    seed: int,
    batch: int,
    folder: Path,
    measured: Sequence[str],
) -> None:
    """Chapter 08's loop on pairs, teacher-forced. Saves the model halfway (folder/half-SEED) and at the end (SEED)."""
    rng = np.random.default_rng(seed)
    rows = [objective.encode(pair) for pair in splits["train"]]
    optimizer = AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    curve: list[dict[str, float]] = []
    model.train()
    for step in progress(range(1, steps + 1), f"training, start {seed}"):
        optimizer.param_groups[0]["lr"] = RATE * min(1, step / 50, 0.05 + 2 * (1 - step / steps))
        some = rng.integers(0, len(rows), batch)
        loss = model(*objective.collate([rows[i] for i in some]))  # source (B, S), ids (B, T), targets (B, T)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % max(1, steps // 10) == 0:
            found = {name: exact(model, objective, splits[name][:MEASURED]) for name in measured}
            curve.append({"step": step, **found})
        if step in (steps // 2, steps):
            name = f"{seed}" if step == steps else f"half-{seed}"
            save(model, objective.tokenizer, folder / name, losses=losses, curve=curve)  # type: ignore[arg-type]


def answers(model: Any, objective: Write, pairs: Sequence[Pair], n_beams: int = 1) -> list[str]:
    """What the model writes for each source."""
    longest = max(len(objective.encode(pair)[1]) for pair in pairs) + 5
    return [a.value for a in predict(model, objective, pairs, batch_size=50, max_new_tokens=longest, n_beams=n_beams)]


def exact(model: Any, objective: Write, pairs: Sequence[Pair]) -> float:
    """The share of the answers that equal the reference."""
    with evaluating(model):
        return float(np.mean([a == pair.target for a, pair in zip(answers(model, objective, pairs), pairs)]))


def fill_translators(folder: Path, scale: str) -> None:
    """Train a translator from each seed."""
    splits = sentences(scale)
    tokenizer = new_tokenizer(splits["train"], 1000)
    jobs = []
    for seed in range(SEEDS[scale]):
        model, objective = new_model(tokenizer, 48, seed)
        how = {"seed": seed, "batch": BATCH, "folder": folder, "measured": ("test", "compositional", "longer")}
        jobs.append(partial(train, model, objective, splits, STEPS[scale], **how))
    side_by_side(jobs)


def fill_summarizers(folder: Path, scale: str) -> None:
    """Train a summarizer from each seed."""
    splits = reports(scale)
    tokenizer = new_tokenizer(splits["train"], 1000)
    jobs = []
    for seed in range(SEEDS[scale]):
        model, objective = new_model(tokenizer, 192, seed)
        how = {"seed": seed, "batch": BATCH, "folder": folder, "measured": ("seen", "test")}
        jobs.append(partial(train, model, objective, splits, REPORT_STEPS[scale], **how))
    side_by_side(jobs)


def load_writer(folder: Path) -> tuple[EncoderDecoder, Write, dict[str, Any]]:
    """A model saved by `train`, its objective, and the notes of its training."""
    from minillm.hub.checkpoint import load_model_and_tokenizer

    _, tokenizer = load_model_and_tokenizer(folder)
    model, notes = load(folder)
    return model, Write.for_tokenizer(tokenizer, model.config.context), notes


# --- what a trained model does


def log_chances(model: EncoderDecoder, source: Array, ids: Array, mask: Array | None = None) -> Array:
    """ln p of every token after each beginning: source (B, S), ids (B, T) -> (B, T, V). `mask` (B, S): True = shown."""
    with evaluating(model), no_grad():
        logits = model.logits(model.hidden(source, ids, mask)).data.astype(np.float64)  # (B, T, V)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def of_targets(log_p: Array, targets: Array) -> Array:
    """(B, T, V) and targets (B, T) -> ln p of each target (B, T), 0 where there is none (−100)."""
    found = np.take_along_axis(log_p, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    return np.where(targets >= 0, found, 0.0)


def token_scores(model: EncoderDecoder, objective: Write, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Greedy decoding, fed the truth and fed its own output: "truth" and "own", the shares of tokens that are right at
    their place; "whole truth" and "whole own" (B,), whether all of a sentence's are; "length", tokens in a sentence."""
    source, ids, targets = objective.collate([objective.encode(pair) for pair in pairs])
    there = targets >= 0  # (B, T)
    fed_truth = log_chances(model, source, ids).argmax(axis=-1) == targets
    fed_own = np.zeros_like(there)
    for row, text in enumerate(answers(model, objective, pairs)):
        new = np.array([*objective.ids(text), objective.end_id])[: targets.shape[1]]
        fed_own[row, : len(new)] = new == targets[row, : len(new)]
    found: dict[str, Any] = {"length": there.sum(axis=1).mean()}
    for name, right in (("truth", fed_truth), ("own", fed_own)):
        found |= {name: right[there].mean(), f"whole {name}": (right | ~there).all(axis=1)}
    return found


def search(model: EncoderDecoder, objective: Write, pairs: Sequence[Pair], n_beams: int) -> Array:
    """Of the likeliest translations found, in percent: right ones; wrong ones less likely than the right one, so that
    the search missed it; and wrong ones that are likelier, so that no search would help. (3,)"""
    source, ids, targets = objective.collate([objective.encode(pair) for pair in pairs])
    of_right = of_targets(log_chances(model, source, ids), targets).sum(axis=1)  # (B,) ln p of the right translation
    options = {"stop_ids": (objective.end_id,), "keep_stop_id": True, "allowed": objective.allowed}
    found = beam_search(
        model.given(source), [[objective.start_id]] * len(pairs), n_beams=n_beams, length_penalty=0.0,
        max_new_tokens=targets.shape[1] + 5, **options,
    )  # fmt: skip
    best = [row[0] for row in found]
    right = np.array([b.ids == row[row >= 0].tolist() for b, row in zip(best, targets)])
    missed = ~right & (np.array([b.score for b in best]) < of_right)
    return 100 * np.array([right.mean(), missed.mean(), (~right & ~missed).mean()])


def after_a_mistake(
    model: EncoderDecoder, objective: Write, pairs: Sequence[Pair], reach: int, digits_only: bool
) -> tuple[Array, Array]:
    """The decoder is shown a wrong token at one place of each sentence, drawn, and then the truth again: its loss at
    1 ... `reach` places after it, and the loss there if nothing is wrong, (reach,) each.

    The wrong token is the one that it finds likeliest among the wrong ones; with `digits_only`, of a digit another
    digit. Sentences without a place for it are left out.
    """
    rng = np.random.default_rng(0)
    digits = [objective.tokenizer.encode(digit)[0] for digit in translation.DIGITS[1:]]
    rows, places = [], []
    for pair in pairs:
        labels = token_labels(objective.tokenizer, pair.target, cut_target(pair.target))
        target = objective.encode(pair)[1].tolist()  # with </s>
        fit = list(range(len(target) - reach))
        if digits_only:
            fit = [t for t in fit if labels[t] == "number" and target[t] in digits]
        if fit:
            rows.append(objective.encode(pair))
            places.append(fit[rng.integers(len(fit))])
    source, ids, targets = objective.collate(rows)
    each, at = np.arange(len(rows)), np.array(places)
    true = log_chances(model, source, ids)  # (B, T, V)
    allowed = np.array(digits) if digits_only else np.arange(true.shape[-1])
    chances = true[each, at][:, allowed]  # (B, allowed)
    chances[targets[each, at][:, None] == allowed] = -np.inf
    wrong = ids.copy()
    wrong[each, at + 1] = allowed[chances.argmax(axis=1)]  # what is written at `at` is read one place later
    both = [of_targets(log_p, targets) for log_p in (log_chances(model, source, wrong), true)]
    columns = at[:, None] + np.arange(1, reach + 1)  # (B, reach)
    fooled, fine = (-found[each[:, None], columns].mean(axis=0) for found in both)
    return fooled, fine


# --- where the parts of a sentence stand

PARTS = ("time", "place", "number", "noun")
NUMBER_WORDS = {*translation.ONES, *translation.TENS, "hundred", "thousand"}
NUMERALS = set("零一二三四五六七八九十百千万两")


def cut_source(text: str) -> list[str]:
    """For each character of a "There ..." sentence the part that it belongs to: one of PARTS, or ""."""
    place = next(name for name in translation.PLACES if f" {name} " in text)
    begin = text.index(f" {place} ")
    labels = [""] * len(text)
    labels[begin : begin + len(place) + 1] = ["place"] * (len(place) + 1)
    labels[begin + len(place) + 1 : -1] = ["time"] * (len(text) - begin - len(place) - 2)
    at, kind = text.index(" ", text.index("be" if text.startswith("There will") else "w")), "number"
    for word in text[at:begin].split():
        if not set(word.split("-")) <= NUMBER_WORDS:
            kind = "noun"
        labels[at : at + len(word) + 1] = [kind] * (len(word) + 1)
        at += len(word) + 1
    return labels


def cut_target(text: str) -> list[str]:
    """For each character of the translation: one of PARTS, "measure" or ""."""
    place = next(zh for _, zh in translation.PLACES.values() if zh in text)
    begin = text.index(place)
    labels = ["time"] * begin + ["place"] * len(place) + [""] * (len(text) - begin - len(place))
    at = text.index("有", begin) + 1
    while text[at] in NUMERALS:
        labels[at] = "number"
        at += 1
    labels[at:-1] = ["measure"] + ["noun"] * (len(text) - at - 2)
    return labels


def token_labels(tokenizer: Tokenizer, text: str, labels: Sequence[str]) -> list[str]:
    """The labels of characters as labels of the text's tokens: that of each one's last character."""
    ids = tokenizer.encode(text)
    ends = [len(tokenizer.decode(ids[: i + 1])) for i in range(len(ids))]
    return [labels[end - 1] for end in ends]


def looks_and_needs(models: Sequence[EncoderDecoder], objective: Write, pairs: Sequence[Pair]) -> tuple[Array, Array]:
    """Two tables (5, 4), the parts written against the parts read, means over models and sentences: how much of the
    cross-attention goes there, all heads alike; and how much ln p of the right token falls if that part is hidden."""
    written = (*PARTS, "measure")
    looks, needs = np.zeros((2, len(models), len(written), len(PARTS)))
    for i, model in enumerate(models):
        weights, falls = ([[[] for _ in PARTS] for _ in written] for _ in range(2))
        for pair in pairs:
            source, ids, targets = objective.collate([objective.encode(pair)])
            reads = np.array(token_labels(objective.tokenizer, pair.source, cut_source(pair.source)))  # (S,)
            writes = np.array([*token_labels(objective.tokenizer, pair.target, cut_target(pair.target)), ""])  # (T,)
            cross = look_inside(model, source, ids).cross
            assert cross is not None
            seen = cross[-1, 0].mean(axis=0)  # (T, S)
            true = of_targets(log_chances(model, source, ids), targets)[0]  # (T,)
            for c, part in enumerate(PARTS):
                without = of_targets(log_chances(model, source, ids, (reads != part)[None]), targets)[0]
                for r, kind in enumerate(written):
                    weights[r][c] += seen[writes == kind][:, reads == part].sum(axis=1).tolist()
                    falls[r][c] += (true - without)[writes == kind].tolist()
        looks[i] = [[np.mean(cell) for cell in row] for row in weights]
        needs[i] = [[np.mean(cell) for cell in row] for row in falls]
    return looks.mean(axis=0), needs.mean(axis=0)


def value_of(words: str) -> int:
    """What a number in English words stands for."""
    whole = part = 0
    for word in words.replace("-", " ").split():
        if word == "hundred":
            part *= 100
        elif word == "thousand":
            whole, part = 1000 * part, 0
        else:
            part += translation.ONES.index(word) if word in translation.ONES else 10 * translation.TENS.index(word)
    return whole + part


def changed(pair: Pair) -> dict[str, str]:
    """A right translation changed in one way each; the first two keep what it means."""
    text, labels = pair.target, cut_target(pair.target)
    part = {kind: "".join(c for c, label in zip(text, labels) if label == kind) for kind in (*PARTS, "measure")}
    reads = cut_source(pair.source)
    words = "".join(c for c, label in zip(pair.source, reads) if label == "number")
    number = part["number"]
    digit = next(c for c in number if c in translation.DIGITS[1:] or c in "两十")
    other = "四" if digit == "三" else "三"
    at = labels.index("number")
    return {
        "place before time": part["place"] + part["time"] + text[labels.index("place") + len(part["place"]) :],
        "number in figures": text[:at] + str(value_of(words)) + text[at + len(number) :],
        "another digit": text[:at] + number.replace(digit, other, 1) + text[at + len(number) :],
        "another measure word": text[: at + len(number)] + "头" + text[at + len(number) + 1 :],
        "no place": part["time"] + text[labels.index("place") + len(part["place"]) :],
    }


# --- summaries


def facts_said(summaries: Sequence[str], pairs: Sequence[Pair]) -> Array:
    """The share of summaries that say each fact, as `summarization.fact_accuracy` reads them: who, where, when, n."""
    said = [
        [re.search(rf"(?<!\w){re.escape(fact)}(?!\w)", text) is not None for fact in summarization.facts(pair)]
        for text, pair in zip(summaries, pairs)
    ]
    return np.mean(said, axis=0)


def looks_at_town(model: EncoderDecoder, objective: Write, pairs: Sequence[Pair]) -> list[str]:
    """For each report the word at which the last block's heads together look most, where the town is to be written."""
    tokenizer, found = objective.tokenizer, []
    for pair in pairs:
        town = summarization.facts(pair)[1]
        begin = tokenizer.encode(pair.target[: pair.target.index(f" {town}")])
        source, ids, _ = objective.collate([objective.encode(pair)])
        cross = look_inside(model, source, ids).cross
        assert cross is not None
        at = int(cross[-1, 0, :, len(begin)].mean(axis=0).argmax())  # (H, T, S) -> a place of the source
        end = len(tokenizer.decode(source[0, : at + 1]))  # a character's place in the text
        words = [(match.end(), match[0]) for match in re.finditer(r"\w+|[^\w\s]", pair.source)]
        found.append(next(word for stop, word in words if stop >= end))
    return found


def renamed(pair: Pair, who: str, where: str) -> Pair:
    """The same report about another person and another town."""
    old = summarization.facts(pair)[:2]
    source, target = (text.replace(old[0], who).replace(old[1], where) for text in (pair.source, pair.target))
    return Pair(source, target, pair.where)
