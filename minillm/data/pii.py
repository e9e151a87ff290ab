"""Personal information in a text: finding it by its form, checking what can be checked, and putting its kind in its
place.

    pattern (what it looks like) → check (what makes it real: a checksum, a date, an address that leads somewhere)

Where there is a checksum, nine of ten random numbers fail it. Luhn's (ISO/IEC 7812-1) doubles every second digit from
the right, adds up the digits of what results, and wants a multiple of 10. The Chinese resident number's (GB 11643-1999,
ISO 7064 MOD 11-2) weighs the first 17 digits with 2¹⁷⁻ⁱ mod 11, and its last character makes the sum 1 mod 11.

What it can't do: a name is found only behind a title, "my name is" or 姓名, since nothing in its form makes a word a
name; most names are missed. Street addresses, nicknames and what identifies somebody by being told together are not
looked for. A phone number has no checksum, nor has an IPv4 address: any number of their form counts, also the number of
a section or a version in four parts. A text without findings is not anonymous (what scrubbing
brings is measured in chapters/19_privacy_bias_misuse.ipynb).
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Span:
    """text[start:end] is of this kind."""

    start: int
    end: int
    kind: str


def is_email(text: str) -> bool:
    local, _, domain = text.partition("@")
    is_file = domain.rpartition(".")[2].lower() in ("png", "jpg", "jpeg", "gif", "svg", "webp", "pdf", "py", "js")
    return not is_file and ".." not in text and local[0] != "." and local[-1] != "."  # icon@2x.png is a picture


def is_phone(text: str) -> bool:
    """E.164 has at most 15 digits; fewer than 8 with the country's are no number that can be called from abroad."""
    return 8 <= sum(map(str.isdigit, text)) <= 15


def is_public(text: str) -> bool:
    """An address that leads to somebody's connection: not one of a local network, of examples, or of this machine."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.version == 6:  # all that are given out begin with binary 001; a::b is a name in C++
        return address.is_global and int(address) >> 125 == 1 and sum(map(bool, text.split(":"))) >= 3
    return address.is_global and not address.is_multicast


ISSUERS = re.compile(  # how many digits the cards have that begin so
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|35[2-8]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}"
)


def is_card(text: str) -> bool:
    digits = re.sub("[ -]", "", text)
    return ISSUERS.fullmatch(digits) is not None and luhn(digits)


def luhn(digits: str) -> bool:
    """
    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0


def is_resident_id(text: str) -> bool:
    """
    >>> is_resident_id("11010519491231002X"), is_resident_id("110105194912310021")
    (True, False)
    """
    try:
        born = datetime.date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(text[:17]))
    last = 10 if text[17] in "Xx" else int(text[17])
    return (total + last) % 11 == 1 and born.year >= 1850


def anything(text: str) -> bool:
    return True


NOT_BEFORE, NOT_AFTER = r"(?<![A-Za-z0-9_.])", r"(?![A-Za-z0-9_]|\.\d)"
OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
PROPER = r"(?:[A-Z]['’])?[A-Z][a-z]+(?:-?[A-Z][a-z]+)?"  # O'Neil, McKay, Smith-Jones
CAPITALIZED = rf"{PROPER}(?: {PROPER}){{0,2}}"

# What stands earlier keeps its text: a resident number is no phone number.
KINDS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (re.compile(
        r"(?<![A-Za-z0-9._%+'-])[A-Za-z0-9._%+'-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"
        r"(?![A-Za-z0-9_@-]|\.[A-Za-z0-9]|:[^\s])"  # git@github.com:owner/name is a repository
    ), is_email),
    "resident_id": (re.compile(NOT_BEFORE + r"[1-9]\d{5}(?:1[89]|20)\d{9}[\dXx]" + NOT_AFTER), is_resident_id),
    "card": (re.compile(NOT_BEFORE + r"(?<![-+])[2-6]\d{3}(?:[ -]?\d){9,15}(?!-\d)" + NOT_AFTER), is_card),
    "ipv6": (re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{0,3}:[0-9A-Fa-f:]{3,34}(?![\w:]|\.\d)"), is_public),
    "ipv4": (re.compile(rf"(?<![\w.-])(?<!ersion )(?:{OCTET}\.){{3}}{OCTET}(?![\w-]|\.\w)"), is_public),
    "phone": (re.compile(
        NOT_BEFORE + r"(?<![-+])(?:"
        r"\+[1-9]\d{0,2}(?:[ .-]?(?:\(\d{1,4}\)|\d{2,4})){2,6}"  # +44 20 7946 0958
        r"|(?:\([2-9]\d\d\) ?|[2-9]\d\d[-.])\d{3}[-.]\d{4}"  # (415) 555-2671
        r"|1[3-9]\d(?:[ -]?\d{4}){2}"  # 138 1234 5678
        r"|0[1-9]\d{1,2}-[2-9]\d{6,7}"  # 010-62345678
        r")(?!-\d)" + NOT_AFTER
    ), is_phone),
    "name": (re.compile(
        rf"(?<=\bMr\. )(?:{CAPITALIZED})|(?<=\bMrs\. )(?:{CAPITALIZED})|(?<=\bMs\. )(?:{CAPITALIZED})"
        rf"|(?<=\bDr\. )(?:{CAPITALIZED})|(?<=\b[Mm]y name is )(?:{CAPITALIZED})"
        r"|(?<=姓名[:：])[\u4e00-\u9fff]{2,4}(?![\u4e00-\u9fff])"
    ), anything),
}  # fmt: skip


def find_pii(text: str, kinds: Collection[str] = tuple(KINDS)) -> list[Span]:
    """What of these kinds stands in a text, in order, no two overlapping. Raises ValueError for an unknown kind.

    >>> text = "Call +44 20 7946 0958 or write to ada@example.org, order 2024-01-15-0042."
    >>> [(text[s.start : s.end], s.kind) for s in find_pii(text)]
    [('+44 20 7946 0958', 'phone'), ('ada@example.org', 'email')]
    """
    check_kinds(kinds)
    found: list[Span] = []
    taken = bytearray(len(text))
    for kind, (pattern, is_real) in KINDS.items():
        if kind in kinds:
            for match in pattern.finditer(text):
                start, end = match.span()
                if not any(taken[start:end]) and is_real(match[0]):
                    taken[start:end] = b"\1" * (end - start)
                    found.append(Span(start, end, kind))
    return sorted(found)


def check_kinds(kinds: Collection[str]) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"scrub must be of {', '.join(KINDS)}, not {kind!r}.")


def scrub(text: str, kinds: Collection[str] = tuple(KINDS), counts: Counter[str] | None = None) -> str:
    """The text with each finding replaced by its kind; adds to `counts[kind]` how many there were. Once more changes
    nothing.

    >>> scrub("Write to ada@example.org.")
    'Write to [EMAIL].'
    """
    spans = find_pii(text, kinds)
    if counts is not None:
        counts.update(span.kind for span in spans)
    if not spans:
        return text
    ends = [0, *(span.end for span in spans)]
    kept = [text[end : span.start] + f"[{span.kind.upper()}]" for end, span in zip(ends, spans)]
    return "".join([*kept, text[ends[-1] :]])


def precision_recall(found: Iterable[Span], true: Iterable[Span]) -> dict[str, tuple[float, float]]:
    """Kind -> (precision, recall): the share of what was found that is true, and of what is true that was found, by
    exact spans. What there is nothing of has 1."""
    found, true = set(found), set(true)
    scores = {}
    for kind in sorted({span.kind for span in found | true}):
        mine, theirs = ({s for s in spans if s.kind == kind} for spans in (found, true))
        right = len(mine & theirs)
        scores[kind] = (right / len(mine) if mine else 1.0, right / len(theirs) if theirs else 1.0)
    return scores
