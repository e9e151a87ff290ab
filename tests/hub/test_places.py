"""Names: downloaded through huggingface_hub from a server on this machine, from its cache, or not at all."""

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
from typing import ClassVar

import numpy as np
import pytest

from minillm.hub import AutoModelForCausalLM, NotFound, PretrainedModel
from minillm.hub.places import find_folder
from minillm.models import GPT, GPTConfig
from minillm.tokenizers import CharTokenizer

CONFIG = GPTConfig(vocab_size=31, context=8, n_layers=1, n_heads=2, d_model=8)
COMMIT = "c" * 40
IDS = np.array([[1, 2, 3]])
TOKENIZER = """
import sys
from minillm import AutoConfig, AutoTokenizer
print(AutoConfig.from_pretrained(sys.argv[1]).vocab_size)
print(len(AutoTokenizer.from_pretrained(sys.argv[1])("ab")["input_ids"]))
"""
LOAD = """
import sys, numpy
from minillm import AutoModelForCausalLM
print(AutoModelForCausalLM.from_pretrained(sys.argv[1])(numpy.array([[1, 2, 3]])).logits.sum())
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as snapshot_download asks for: a repository's list of files, and the files."""

    folder = None
    requests: ClassVar[list[str]] = []

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = urllib.parse.urlparse(self.path).path
        self.requests.append(f"{self.command} {path}")
        headers = {"X-Repo-Commit": COMMIT}
        files = sorted(p.name for p in self.folder.iterdir())
        if path.startswith("/api/models/tiny/gpt/tree/"):
            data = json.dumps([self.entry(name) for name in files]).encode()
        elif path.startswith("/api/models/tiny/gpt"):
            siblings = [{"rfilename": name} for name in files]
            data = json.dumps({"id": "tiny/gpt", "sha": COMMIT, "siblings": siblings}).encode()
        elif path.startswith("/tiny/gpt/resolve/") and path.rpartition("/")[2] in files:
            data = (self.folder / path.rpartition("/")[2]).read_bytes()
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        else:
            headers["X-Error-Code"] = "RepoNotFound"
            self.send_error_with(404, headers)
            return
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def entry(self, name):
        data = (self.folder / name).read_bytes()
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def send_error_with(self, status, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(tmp_path):
    """The address of a hub with one model, "tiny/gpt", and a file that nobody needs."""
    pytest.importorskip("huggingface_hub")
    Hub.folder = tmp_path / "repository"
    Hub.requests = []
    PretrainedModel(GPT(CONFIG)).save_pretrained(Hub.folder, max_shard_size="2KB")
    (Hub.folder / "pytorch_model.bin").write_bytes(b"a pickle")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def load(name, endpoint, cache, program=LOAD, **environment):
    """What a fresh process prints that loads `name`: huggingface_hub reads its settings once, when imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_"))}
    environment.update(settings, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1", HF_HUB_DISABLE_XET="1")
    return subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True, env=environment)


def test_a_model_by_name_is_downloaded_once_and_kept(hub, tmp_path):
    first = load("tiny/gpt", hub, tmp_path / "cache")
    assert first.returncode == 0, first.stderr
    assert float(first.stdout) == pytest.approx(AutoModelForCausalLM.from_pretrained(Hub.folder)(IDS).logits.sum())
    fetched = [line for line in Hub.requests if "/resolve/" in line and line.startswith("GET")]
    assert any("config.json" in line for line in fetched) and sum("safetensors" in line for line in fetched) > 2
    assert not any("pytorch_model.bin" in line for line in Hub.requests)

    Hub.requests.clear()
    again = load("tiny/gpt", hub, tmp_path / "cache")
    assert again.stdout == first.stdout and not any(line.startswith("GET /tiny") for line in Hub.requests)
    offline = load("tiny/gpt", "http://127.0.0.1:9", tmp_path / "cache", HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout, offline.stderr


def fetched():
    """The files that were asked for, by name, and no more than asked for."""
    return sorted({line.rpartition("/")[2] for line in Hub.requests if line.startswith("GET") and "/resolve/" in line})


def test_a_config_and_a_tokenizer_come_without_weights(hub, tmp_path):
    CharTokenizer.train(["abc"]).save(Hub.folder)
    run = load("tiny/gpt", hub, tmp_path / "cache", TOKENIZER)
    assert run.stdout.split() == ["31", "2"], run.stderr
    assert "config.json" in fetched() and "tokenizer.json" in fetched()
    assert not any(name.endswith((".safetensors", ".bin")) for name in fetched())


def test_of_the_weights_those_that_the_index_lists(hub, tmp_path):
    shutil.copyfile(next(Hub.folder.glob("model-*.safetensors")), Hub.folder / "consolidated.safetensors")
    run = load("tiny/gpt", hub, tmp_path / "cache")
    assert run.returncode == 0, run.stderr
    shards = sorted(path.name for path in Hub.folder.glob("model-*.safetensors"))
    assert [name for name in fetched() if name.endswith(".safetensors")] == shards and len(shards) > 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, "'t5' is not an architecture that minillm has"),
        ({"scale_attn_weights": False}, "a gpt2 with scale_attn_weights = False"),
        ({"n_head": 3}, "does not describe a gpt2 that can be built"),
    ],
)
def test_what_is_refused_is_refused_before_weights_are_fetched(changes, message, hub, tmp_path):
    path = Hub.folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    run = load("tiny/gpt", hub, tmp_path / "cache")
    assert message in run.stderr
    assert fetched() == ["config.json"]


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_without_a_network_the_error_says_what_to_download(hub, tmp_path, environment):
    run = load("tiny/gpt", "http://127.0.0.1:9", tmp_path / "cache", **environment)
    assert run.returncode != 0
    message = run.stderr[run.stderr.rindex("NotFound") :]
    for part in (
        "'tiny/gpt'",
        "http://127.0.0.1:9/tiny/gpt/tree/main",
        "config.json",
        "model.safetensors",
        "one folder",
    ):
        assert part in message, message


def test_a_name_that_the_hub_does_not_have(hub, tmp_path):
    run = load("tiny/other", hub, tmp_path / "cache")
    assert "NotFound: 'tiny/other' is no folder here and could not be downloaded" in run.stderr


def test_without_huggingface_hub_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(NotFound, match=r"minillm-from-scratch\[hub\].*huggingface\.co/gpt2/tree/main.*one folder"):
        find_folder("gpt2")


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "/nowhere/at/all", "a/b/c", "~/model", "a//b", "nowhere/"])
def test_a_path_that_is_not_there_is_no_name(name):
    with pytest.raises(NotFound, match="there is no folder"):
        find_folder(name)


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(NotFound, match=r"is a file\. Give the folder"):
        find_folder(tmp_path / "model.safetensors")


def test_a_name_that_cannot_be_one():
    pytest.importorskip("huggingface_hub")
    with pytest.raises(NotFound, match="neither a folder here nor a name"):
        find_folder("so many words?")


def test_a_run_folder_stands_for_its_best_checkpoint(tmp_path):
    for name in ("best", "last"):
        PretrainedModel(GPT(CONFIG)).save_pretrained(tmp_path / name)
    assert find_folder(tmp_path) == tmp_path / "best"
    old = tmp_path / ".best.0a1b2c3d.minillm-old"
    (tmp_path / "best").rename(old)  # killed between two renames: still the best
    assert find_folder(tmp_path) == old
