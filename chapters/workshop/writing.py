"""Chapter 14's bookkeeping: a small GPT that learns to write expressions, its samples and what they give when they are
run, beginnings of Python functions to complete. Its pictures are in writing_pictures.py."""

from __future__ import annotations

import ast
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from minillm.data import Pair
from minillm.data.tasks import code
from minillm.data.tasks.execution import ExecutionError, evaluate
from minillm.generate import Sampling, generate
from minillm.models.gpt import GPT, GPTConfig
from minillm.nn import Linear
from minillm.optim import AdamW, clip_grad_norm_
from minillm.tokenizers import BPETokenizer
from minillm.training.baselines import NGramModel

from .scale import progress

Array = np.ndarray
SHAPE = {"n_layers": 2, "n_heads": 4, "d_model": 64}
LONGEST = 30  # tokens of an answer
Test = tuple[dict[str, Any], Any]  # variables, what the right program gives


class Writer:
    """A GPT with its tokenizer that continues "request, end of line" by an expression."""

    def __init__(self, train: Sequence[Pair], seed: int) -> None:
        self.tokenizer = BPETokenizer.train([f"{p.source}\n{p.target}" for p in train[:2000]], 420)
        self.rows = [(self.prompt(p), [*self.tokenizer.encode(p.target), self.end]) for p in train]
        longest = max(len(asked) + LONGEST for asked, _ in self.rows) + 8
        config = GPTConfig(self.tokenizer.vocab_size, longest, dropout=0.0, **SHAPE)
        self.model = GPT(config, np.random.default_rng(seed))
        for _, module in self.model.named_modules():  # matrices as large as in chapters 06 and 10
            if isinstance(module, Linear):
                module.weight.data *= 64**-0.5 / 0.02
        self.seed = seed

    @property
    def end(self) -> int:
        assert self.tokenizer.eos_id is not None
        return self.tokenizer.eos_id

    def prompt(self, pair: Pair) -> list[int]:
        return list(self.tokenizer.encode(pair.source + "\n"))

    def learn(self, steps: int, batch: int = 32, lr: float = 4e-3) -> float:
        """Train on the tokens of the answers only; returns the last loss."""
        rng = np.random.default_rng([self.seed, 1])
        optimizer = AdamW(self.model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
        self.model.train()
        for step in progress(range(steps), f"training writer {self.seed}"):
            optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 50, 0.05 + 2 * (1 - step / steps))
            some = [self.rows[i] for i in rng.integers(0, len(self.rows), batch)]
            longest = max(len(asked) + len(answer) for asked, answer in some)
            ids, targets = np.full((batch, longest), self.end), np.full((batch, longest), -100)
            for i, (asked, answer) in enumerate(some):
                n = len(asked) + len(answer)
                ids[i, :n] = asked + answer
                targets[i, len(asked) - 1 : n - 1] = answer
            loss = self.model(ids, targets)
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
        self.model.eval()
        return float(loss.item())

    def write(self, pairs: Sequence[Pair], n: int, temperature: float, seed: int = 0) -> list[list[str]]:
        """n answers to each request: (P, n) texts."""
        prompts = [self.prompt(pair) for pair in pairs for _ in range(n)]
        options: dict[str, Any] = {"sampling": Sampling(temperature=temperature), "stop_ids": [self.end], "seed": seed}
        drawn = [self.tokenizer.decode(ids) for ids in generate(self.model, prompts, max_new_tokens=LONGEST, **options)]
        return [drawn[i : i + n] for i in range(0, len(drawn), n)]


def values_of(text: str, tests: Sequence[Test]) -> tuple[str, ...] | None:
    """What a program gives for each test's variables, written out; None if it gives no value for one of them."""
    try:
        return tuple(written(evaluate(text, variables)) for variables, _ in tests)
    except ExecutionError:
        return None


def written(value: Any) -> str:
    """A value as a text, equal for equal values: 2 and 2.0, True and 1."""
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return repr(float(value)) if isinstance(value, (int, float)) else repr(value)


def right_values(pair: Pair) -> tuple[str, ...]:
    return tuple(written(expected) for _, expected in code.tests_of(pair))


def run_all(pairs: Sequence[Pair], drawn: Sequence[Sequence[str]]) -> list[list[tuple[str, ...] | None]]:
    """The values of each sample on its problem's tests, the same text run once."""
    found = []
    for pair, texts in zip(pairs, drawn):
        tests = code.tests_of(pair)
        known = {text: values_of(text, tests) for text in set(texts)}
        found.append([known[text] for text in texts])
    return found


def passed(pairs: Sequence[Pair], values: Sequence[Sequence[tuple[str, ...] | None]]) -> Array:
    """(P, n) booleans: which samples pass all tests."""
    return np.array([[v == right_values(pair) for v in row] for pair, row in zip(pairs, values)])


# --- choosing one of several samples

Values = tuple[str, ...] | None
EXAMPLES = {"passes one example": 1, "passes two examples": 2}
RULES = ("one sample", "commonest text", "commonest values", *EXAMPLES, "a perfect verifier")


def chosen(rule: str, texts: Sequence[str], values: Sequence[Values], right: tuple[str, ...]) -> int:
    """Which of the samples a rule hands in; of equals the first. `right` is looked at by verifiers only: one that has
    examples sees the answers of the first tests, the perfect one all."""
    if rule == "commonest text":
        return texts.index(Counter(texts).most_common(1)[0][0])
    if rule == "commonest values":
        ran = Counter(v for v in values if v is not None)
        return values.index(ran.most_common(1)[0][0]) if ran else 0
    if rule != "one sample":
        seen = EXAMPLES.get(rule, len(right))
        return next((i for i, v in enumerate(values) if v is not None and v[:seen] == right[:seen]), 0)
    return 0


def curve(
    rule: str, pairs: Sequence[Pair], drawn: Sequence[Sequence[str]], values: Sequence[Sequence[Values]],
    counts: Sequence[int], orders: int = 20,
) -> Array:  # fmt: skip
    """The share of problems for which the sample handed in is right, for each number of samples: the mean over
    `orders` random orders of those that were drawn."""
    rng, hits = np.random.default_rng(0), np.zeros(len(counts))
    for pair, texts, found in zip(pairs, drawn, values):
        right = right_values(pair)
        for _ in range(orders):
            order = rng.permutation(len(texts))
            for j, n in enumerate(counts):
                some = order[:n]
                picked = chosen(rule, [texts[i] for i in some], [found[i] for i in some], right)
                hits[j] += found[some[picked]] == right
    return hits / (len(pairs) * orders)


# --- completing Python


def beginnings(texts: Sequence[str], count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(the first line of a function and what stands in its first two lines, the rest of it), from Python source."""
    found = []
    for text in texts:
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        lines = text.splitlines(keepends=True)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not node.decorator_list and node.end_lineno:
                body = textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno])).splitlines(keepends=True)
                if len(body) >= 8 and parses("".join(body[:3])) and len("".join(body[:3])) < 200:
                    found.append(("".join(body[:3]), "".join(body[3:])))
    chosen = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[i] for i in chosen]


def parses(text: str) -> bool:
    """Whether it is Python; a last line that opens a block gets a body."""
    last = text.rstrip().rsplit("\n", 1)[-1]
    if last.endswith(":"):
        text = text.rstrip() + " pass\n"
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def continue_by_counting(grams: NGramModel, start: str, n: int, temperature: float, rng: np.random.Generator) -> str:
    """n bytes drawn by an n-gram model after a start, its probabilities p changed to p^(1/temperature)."""
    text = start.encode()
    for _ in range(n):
        recent = text[1 - grams.order :].decode("utf-8", "ignore")
        p = grams.distribution(recent) ** (1 / temperature)
        text += bytes([int(rng.choice(grams.alphabet, p=p / p.sum()))])
    return text[len(start.encode()) :].decode("utf-8", "replace")


def whole_lines(text: str, n: int) -> str | None:
    """Its first n lines that are not blank; None if there are fewer, the last one being unfinished."""
    lines = [line for line in text.split("\n")[:-1] if line.strip()]
    return "\n".join(lines[:n]) + "\n" if len(lines) >= n else None


def parsing_shares(starts: Sequence[str], completions: Sequence[str], lines: Sequence[int]) -> Array:
    """For each number of lines: the share of completions whose first lines make the start Python; those that do not
    finish so many have failed."""
    shares = []
    for n in lines:
        cut = [(start, whole_lines(text, n)) for start, text in zip(starts, completions)]
        shares.append(np.mean([text is not None and parses(start + text) for start, text in cut]))
    return np.array(shares)


# --- the full figures


def full_table(path: Path) -> tuple[str, str]:
    """(command, table) of the code task in tests/bench/RESULTS.md; ("", "") where the file is not there."""
    if not path.exists():
        return "", ""
    text = path.read_text(encoding="utf-8")
    match = re.search(r"`(minillm ablate code [^`]*)`.*?```\n(.*?)```", text, re.DOTALL)
    return (match[1], match[2].rstrip()) if match else ("", "")


def mean_sd(values: Sequence[float] | Array, digits: int = 2) -> str:
    """ "0.85 ± 0.04", of one value without a spread."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"
