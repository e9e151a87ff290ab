"""The F5 entries of .vscode/launch.json: under a real debugger (debugpy, what VS Code runs) they stop at the call to
step into, without one they run through, and the quickstart runs again and again."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / ".vscode/launch.json").read_text(encoding="utf-8")
ENTRIES = {e["name"]: e for e in json.loads(re.sub(r"^\s*//.*$", "", TEXT, flags=re.M))["configurations"]}
STEPS = {e["args"][0]: e for e in ENTRIES.values() if "program" in e}


def command(entry: dict) -> list[str]:
    """What follows `python` on the entry's command line."""
    if "module" in entry:
        return ["-m", entry["module"], *entry["args"]]
    return [entry["program"].replace("${workspaceFolder}", str(ROOT)), *entry["args"]]


class Client:
    """As much of the Debug Adapter Protocol as it takes to see where a program stops."""

    def __init__(self, connection: socket.socket, stream: BinaryIO) -> None:
        self.connection, self.stream, self.sent = connection, stream, 0

    def send(self, request: str, **arguments) -> None:
        self.sent += 1
        message = {"seq": self.sent, "type": "request", "command": request, "arguments": arguments}
        content = json.dumps(message).encode()
        self.connection.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(content), content))

    def wait_for(self, name: str) -> dict:
        """The body of the next event of that name, or of the response to that request."""
        while True:
            header = self.stream.readline()
            assert header, f"the debugger hung up before {name!r}"
            self.stream.readline()
            message = json.loads(self.stream.read(int(header.split(b":")[1])))
            assert message.get("success", True), message
            assert message.get("event") != "terminated", f"the program ended before {name!r}"
            if name in (message.get("event"), message.get("command")):
                return message.get("body", {})

    def stop(self) -> tuple[str, str]:
        """Wait for the next stop: the function's name and the line that runs next."""
        self.send("stackTrace", threadId=self.wait_for("stopped")["threadId"])
        frame = self.wait_for("stackTrace")["stackFrames"][0]
        source = Path(frame["source"]["path"]).read_text(encoding="utf-8")
        return frame["name"], source.splitlines()[frame["line"] - 1].strip()


def connect(port: int, running: subprocess.Popen) -> socket.socket:
    while True:
        assert running.poll() is None, "the program ended before the debugger was there"
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        except ConnectionRefusedError:
            time.sleep(0.05)


@pytest.mark.parametrize(
    "program, call, inside",
    [
        ("training-step", "loss = model(ids", "__call__"),
        ("attention", "out = ops.attention(", "attention"),
        ("kernel", "return flash_attention(", "flash_attention"),
    ],
)
def test_an_entry_stops_at_the_call_to_step_into(program, call, inside):
    pytest.importorskip("debugpy")
    if program == "kernel":
        pytest.importorskip("triton")
    entry = STEPS[program]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]  # a free one
    debugger = ["-Xfrozen_modules=off", "-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--wait-for-client"]
    environment = {**os.environ, **entry.get("env", {})}
    running = subprocess.Popen([sys.executable, *debugger, *command(entry)], cwd=ROOT, env=environment)
    try:
        with connect(port, running) as connection, connection.makefile("rb") as stream:
            client = Client(connection, stream)
            client.send("initialize", adapterID="test", pathFormat="path", linesStartAt1=True, columnsStartAt1=True)
            client.wait_for("initialize")
            client.send("attach", justMyCode=entry["justMyCode"])
            client.wait_for("initialized")
            client.send("configurationDone")
            _, line = client.stop()
            assert line.startswith(call) and "step in here" in line
            client.send("stepIn", threadId=1)
            function, _ = client.stop()
            assert function.split(".")[-1] == inside
    finally:
        running.kill()
        running.wait(10)


@pytest.mark.parametrize("program", ["training-step", "attention"])
def test_without_a_debugger_an_entry_runs_through(program):
    run_it = [sys.executable, *command(STEPS[program])]
    done = subprocess.run(run_it, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Pdb" not in done.stdout and done.stdout.strip()


def test_the_quickstart_entry_runs_again(tmp_path):
    """What it wrote the first time, and only that, is replaced; a run of the command itself is left alone."""
    (entry,) = (e for e in ENTRIES.values() if "quickstart" in e["args"])
    ten_seconds = command(entry)
    assert ten_seconds[ten_seconds.index("--seconds") + 1] == "10"
    half_a_second = ["0.5" if argument == "10" else argument for argument in ten_seconds]
    kept = tmp_path / "runs/quickstart/samples.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("of four minutes")
    for _ in range(2):
        run_it = [sys.executable, *half_a_second]
        done = subprocess.run(run_it, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr
    assert kept.read_text() == "of four minutes"
    assert len(list((tmp_path / "runs").iterdir())) == 2
