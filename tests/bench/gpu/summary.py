"""The tables that a call prints and writes, from the rows that there are so far. Needs only Python."""

from __future__ import annotations

import statistics
from typing import Any

import attention_table

Row = dict[str, Any]


def summarize(rows: list[Row]) -> str:
    """How each stage ended, and what it found."""
    ended = {row["stage"]: row for row in rows if "ended" in row}
    names = list(dict.fromkeys(map(stage_of, rows)))
    lines = []
    for name in names:
        found = [row for row in rows if stage_of(row) == name and "ended" not in row]
        end = ended.get(name)
        how = f"{end['ended']}, {end['seconds']:.0f} s" if end else "not ended"
        lines += ["", f"## {name}: {how}", ""]
        table = next((table for kind, table in TABLES.items() if name.startswith(kind)), None)
        try:
            lines += table(found) if table and found else []
        except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:  # a table must not end a call
            lines.append(f"these rows could not be put into a table ({type(error).__name__}: {error}): see rows.jsonl")
        if end and end.get("note") and (table is None or end["ended"] != "done"):
            lines += ["", "```", end["note"], "```"]
    return "\n".join(lines).strip() + "\n"


def stage_of(row: Row) -> str:
    """The stage that a row is of; the tuner's do not say."""
    return row.get("stage", "tune")


def machine(rows: list[Row]) -> list[str]:
    return [", ".join(f"{name} {value}" for row in rows for name, value in row.items() if name != "stage")]


def checks(rows: list[Row]) -> list[str]:
    """How many passed, how near the nearest came to the limit, and each that failed."""
    good = [row for row in rows if row["ok"]]
    lines = [f"{len(good)} of {len(rows)} as exact as they must be"]
    if good:
        near = max(good, key=lambda row: row["of the error allowed"])
        share = f"{near['of the error allowed']:.0%} of it ({near['worst']})"
        lines[0] += f"; nearest to the limit: {near['check']}, {share}"
    return lines + [f"- FAILED {row['check']}: {row.get('error') or row}" for row in rows if not row["ok"]]


def repeats(rows: list[Row]) -> list[str]:
    last = {row["shape"]: row for row in rows}
    return [
        f"- {name}: {row['repeats']} times, differing {row['differing']}, error of the first "
        f"{row['error of the first']:.1e}{'' if row['ok'] else ': NOT THE SAME, OR WRONG'}"
        for name, row in last.items()
    ]


def attention(rows: list[Row]) -> list[str]:
    return [attention_table.HEAD, *map(attention_table.line, rows), "", *attention_table.goals(rows).splitlines()]


def head_sizes(rows: list[Row]) -> list[str]:
    return [attention_table.HEAD, *map(attention_table.line, rows)]


def tune(rows: list[Row]) -> list[str]:
    """The winners; of kernels that were not finished, how many were timed."""
    winners = {row["tuned"]: row for row in rows if "winner" in row}
    timed = {key: {tuple(r["config"]) for r in rows if r["tuned"] == key and "config" in r} for key in keys(rows)}
    lines = ["| kernel | winner | ms | ms before | tried |", "|---|---|---|---|---|"]
    for key, configs in timed.items():
        won = winners.get(key)
        figures = f"{won['winner']} | {won['ms']:.3f} | {won['ms before']:.3f}" if won else "not finished | - | -"
        lines.append(f"| {key} | {figures} | {len(configs)} |")
        lines += [f"| | passed over: {why} | | | |" for why in won["passed over"]] if won else []
    how = "OUT/tuned/ holds the file. To ship it: cp OUT/tuned/NAME.json kernels/tuned/"
    return [*lines, "", how] if winners else lines


def keys(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["tuned"] for row in rows if "tuned" in row))


def step(rows: list[Row]) -> list[str]:
    """Medians over the rounds so far, and their quotients with the first row."""
    lines = ["| row | tokens/s | against the first | peak memory, GB | rounds |", "|---|---|---|---|---|"]
    first = None
    for name in dict.fromkeys(row["name"] for row in rows if "name" in row):
        own = [row for row in rows if row.get("name") == name]
        refused = next((row["refused"] for row in own if "refused" in row), None)
        if refused:
            lines.append(f"| {name} | did not run: {refused} | | | |")
            continue
        speeds = [row["tokens_per_second"] for row in own if "tokens_per_second" in row]
        speed = statistics.median(speeds) if speeds else 0.0
        first = speed if first is None else first
        against = f"{speed / first:.3f}" if first else "-"
        lines.append(f"| {name} | {speed:,.0f} | {against} | {own[0]['peak_memory_gb']:.2f} | {len(speeds)} |")
    return lines + [f"\noverlay: {row['overlay']}" for row in rows if "overlay" in row]


def profile(rows: list[Row]) -> list[str]:
    """The times and, where ncu ran, its counters."""
    lines = []
    for row in rows:
        if "ms" in row:
            lines.append(f"- {row['kernel']} D{row['head_size']}: {row['ms']:.3f} ms, {row['tflops']:.0f} TFLOP/s")
        elif "counters" in row:
            found = ", ".join(f"{name} {value}" for name, value in row["counters"].items() if isinstance(value, str))
            stalls = row["counters"].get("stall", {})
            worst = "; ".join(f"{name} {value}" for name, value in sorted(stalls.items(), key=magnitude)[:4])
            tensor = "; ".join(f"{name} {value}" for name, value in [*row["counters"].get("tensor", {}).items()][:4])
            lines.append(f"- {row['kernel']} D{row['head_size']}: {found}")
            lines += [f"    - tensor: {tensor}", f"    - stalls: {worst}"]
        else:
            lines.append(f"- no counters: {row['without_counters']}")
    return lines


def magnitude(item: tuple[str, str]) -> float:
    """For sorting by the number that a value begins with, the largest first."""
    try:
        return -float(item[1].split()[0].replace(",", ""))
    except (ValueError, IndexError):
        return 0.0


def run(rows: list[Row]) -> list[str]:
    """A training run: its speed over the later half, its evaluations, what it wrote."""
    steps, evaluations = [r for r in rows if "loss" in r], [r for r in rows if "val_loss" in r]
    lines = []
    if steps:
        late = steps[len(steps) // 2 :]
        last, speed = steps[-1], statistics.median(r["tokens_per_second"] for r in late)
        mfu = [r["mfu"] for r in late if r.get("mfu")]
        lines.append(
            f"{last['step']:,} steps, {last['tokens']:,} tokens in {last['seconds']:,.0f} s, the first step "
            f"{steps[0]['seconds']:,.0f} s; {speed:,.0f} tokens/s"
            + (f", MFU {statistics.median(mfu):.1%}" if mfu else "")
            + f", {last['memory_gb']:.1f} GB at most; loss {steps[0]['loss']:.3f} -> {last['loss']:.3f}"
        )
    for r in evaluations[:: max(1, len(evaluations) // 6)]:
        bits = f", {r['val_bits_per_byte']:.4f} bits per byte" if "val_bits_per_byte" in r else ""
        lines.append(f"- step {r['step']:,}, {r['seconds']:.0f} s: val loss {r['val_loss']:.4f}{bits}")
    for row in rows:
        if "sample" in row:
            lines += ["", "```", *row["sample"].splitlines()[:12], "```"]
    return lines


TABLES = {
    "machine": machine, "checks": checks, "repeats": repeats, "attention": attention, "tune": tune, "step": step,
    "profile": profile, "head sizes": head_sizes, "run": run,
}  # fmt: skip
