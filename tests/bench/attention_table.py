"""How the rows of the attention benchmark are printed. Needs only Python."""

from __future__ import annotations

import statistics

PEERS = ("flash", "cudnn")
# Peer's time / ours that we aim for, at T >= 1024, causal: (direction, head size, peer) -> (least, goal).
GOALS = {
    ("forward", 64, "flash"): (1.10, 1.25),
    ("forward", 64, "cudnn"): (1.00, 1.10),
    ("forward", 128, "flash"): (1.05, 1.20),
    ("forward", 128, "cudnn"): (0.70, 0.90),
    ("backward", 64, "flash"): (0.95, 1.10),
    ("backward", 64, "cudnn"): (0.70, 0.85),
    ("backward", 128, "flash"): (0.85, 1.00),
    ("backward", 128, "cudnn"): (0.60, 0.80),
}
COLUMNS = "|D|causal|T|fast|simple|flash|cudnn|reference|vs flash|vs cudnn|of matmul|error|flash's error"
HEAD = f"| {COLUMNS.replace('|', ' | ')} |\n" + "|---" * (COLUMNS.count("|") + 1) + "|"


def line(row: dict) -> str:
    """A row of the table whose head is HEAD: TFLOP/s, ratios, errors."""

    def cell(values: dict, name: str, form: str) -> str:
        return format(values[name], form) if name in values else "-"

    return (
        f"| {row['direction']} | {row['head_size']} | {'yes' if row['causal'] else 'no'} | {row['length']} "
        + "".join(f"| {cell(row['tflops'], name, '.0f')} " for name in ("fast", "simple", *PEERS, "reference"))
        + "".join(f"| {cell(row['ratio'], name, '.2f')} " for name in PEERS)
        + f"| {row['matmul_share']:.0%} "
        + "".join(f"| {cell(row['error'], name, '.1e')} " for name in ("fast", "flash"))
        + "|"
    )


def goals(rows: list[dict]) -> str:
    """The short table: for each goal, the least and the median ratio at T >= 1024, causal; and what did not run."""
    lines = ["| causal, T >= 1024 | least ratio | median | must | goal |", "|---|---|---|---|---|"]
    for (direction, head_size, peer), (least, goal) in GOALS.items():
        ratios = [
            row["ratio"][peer]
            for row in rows
            if row["causal"] and row["length"] >= 1024 and peer in row["ratio"]
            and (row["direction"], row["head_size"]) == (direction, head_size)
        ]  # fmt: skip
        measured = f"{min(ratios):.2f} | {statistics.median(ratios):.2f}" if ratios else "not measured | -"
        lines.append(f"| {direction} D{head_size} against {peer} | {measured} | {least:.2f} | {goal:.2f} |")
    refused: dict[str, list[str]] = {}
    for row in rows:
        for name, why in row["refused"].items():
            refused.setdefault(name, []).append(f"{row['direction']} D{row['head_size']} T{row['length']}: {why}")
    lines += [f"{name} did not run in {len(found)} rows, first {found[0]}" for name, found in refused.items()]
    return "\n".join(lines)
