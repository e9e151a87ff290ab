"""`minillm check`: is a run healthy, and if not, why? Ends with 1 where something is to be looked at."""

from __future__ import annotations

import argparse

from ..training.health import examine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder")


def run(arguments: argparse.Namespace) -> int:
    health = examine(arguments.run)
    print(health)
    return 1 if health.findings else 0
