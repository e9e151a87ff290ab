"""A server on this machine that answers as the hub does for one data set, and `minillm corpus` that asks it."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from contextlib import contextmanager
from typing import ClassVar

COMMIT, CONVERTED = "c" * 40, "d" * 40
CORPUS = "import sys; from minillm.commands.cli import main; sys.exit(main(sys.argv[1:]))"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as is asked for a data set: what it consists of, on two branches, and its files."""

    branches: ClassVar[dict[str, dict[str, bytes]]] = {}  # commit -> name -> content
    card: ClassVar[dict[str, object]] = {}
    requests: ClassVar[list[str]] = []

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        self.requests.append(f"{self.command} {path}")
        headers, status, data = {}, 200, b""
        branch = {"refs/convert/parquet": CONVERTED}
        if path.startswith("/api/datasets/sea/boats"):
            revision = path.partition("/revision/")[2]
            commit = branch.get(revision, COMMIT)
            siblings = [{"rfilename": name} for name in self.branches.get(commit, {})]
            answer = {"id": "sea/boats", "sha": commit, "siblings": siblings, "cardData": self.card}
            data = json.dumps(answer).encode()
            if commit not in self.branches:
                status, headers["X-Error-Code"] = 404, "RevisionNotFound"
        elif path.startswith("/datasets/sea/boats/resolve/"):
            commit, _, name = path.removeprefix("/datasets/sea/boats/resolve/").partition("/")
            data = self.branches[commit][name]
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit}
        else:
            status, headers["X-Error-Code"] = 404, "RepoNotFound"
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@contextmanager
def serving():
    """The address of a hub whose data set has nothing but a card."""
    Hub.branches, Hub.card, Hub.requests = {COMMIT: {"README.md": b"# Boats"}}, {}, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def corpus(endpoint, folder, *words, **environment):
    """`minillm corpus` in a fresh process: huggingface_hub reads its settings once, when imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_"))}
    kept |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
    kept |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    options = ["--overwrite", "--near-threshold", "0", *words]
    command = [sys.executable, "-c", CORPUS, "corpus", str(folder / "c"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=kept)
