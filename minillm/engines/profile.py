"""Where the time of a training step goes, function by function: a few steps of a run, watched."""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path
from typing import Any

from ..disk import claim, whole_file
from ..settings import EngineConfig

FIRST, STEPS = 2, 3  # steps let pass, which compile and allocate; steps watched
FILES = {"torch": "trace.json", "numpy": "profile.pstats"}


class Profile:
    """Watches the third to fifth step that this process makes, and writes what it saw into the run folder: on PyTorch a
    trace.json, which ui.perfetto.dev and chrome://tracing show as a timeline, on NumPy what `python -m pstats` reads.

    `before_step` is to be called before each step, `close` after the last.
    """

    def __init__(self, folder: Path, engine: EngineConfig) -> None:
        self.path = folder / FILES[engine.name]
        self.on_torch = engine.name == "torch"
        self.steps = 0
        self.running: Any = None
        claim(folder, "run", [self.path.name])

    def before_step(self, step: int, model: Any) -> None:
        if self.steps == FIRST:
            self.running = torch_profiler() if self.on_torch else cProfile.Profile()
            self.running.start() if self.on_torch else self.running.enable()
        elif self.steps == FIRST + STEPS:
            self.close()
        self.steps += 1

    def close(self) -> None:
        if self.running is None:
            return
        self.running.stop() if self.on_torch else self.running.disable()
        with whole_file(self.path) as temporary:
            if self.on_torch:
                self.running.export_chrome_trace(str(temporary))
            else:
                pstats.Stats(self.running).dump_stats(temporary)
        self.running = None


def check_profile(engine: EngineConfig) -> None:
    """Raise ValueError for several threads of the NumPy engine, of which Python's profiler would see one."""
    if engine.name == "numpy" and engine.threads != 1:
        raise ValueError(
            f"--profile sees one thread, and the NumPy engine has several (engine.threads = {engine.threads}; 0: one "
            "for each core). Add --set engine.threads=1."
        )


def torch_profiler() -> Any:
    """torch.profiler's, of the processor and, where there is one, the GPU."""
    from torch.profiler import ProfilerActivity, profile, supported_activities

    return profile(activities=supported_activities() & {ProfilerActivity.CPU, ProfilerActivity.CUDA})
