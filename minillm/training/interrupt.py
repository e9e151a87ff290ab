"""Stopping on request: Ctrl-C (SIGINT) and SIGTERM become a flag that the training loop reads between two steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """`with StopRequest() as stop:` and then look at `stop.requested`, 0.0 or 1.0, between two steps.

    The first signal asks for a stop, so that the step is finished and a checkpoint written; a second one raises
    KeyboardInterrupt at once. Outside the main thread, where Python allows no signal handlers, nothing is installed.
    """

    def __init__(self) -> None:
        self.signal: int | None = None  # the number of the signal that came
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> float:
        return float(self.signal is not None)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup: whoever started us wants it so
                    self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        # not print: the signal may have come in the middle of one
        os.write(2, b"\nstopping: finishing this step and saving (once more to stop at once)\n")
