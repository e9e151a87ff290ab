"""Files made to do harm: sizes that nothing could hold, weights that hide bytes, templates that never end, tokens."""

import http.server
import json
import math
import random
import struct
import threading
import time
import traceback

import numpy as np
import pytest
from fuzz import VALUES
from safetensors import SafetensorError, safe_open

from minillm.assistant.template import render_chat
from minillm.hub import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    NotFound,
    PretrainedModel,
    WeightsError,
)
from minillm.hub.architecture import ConfigurationError
from minillm.hub.checkpoint import open_checkpoint
from minillm.hub.configs import ARCHITECTURES, from_hf, setting_names
from minillm.hub.places import find_folder
from minillm.hub.weights import read_header
from minillm.models import (
    GPTConfig,
    LlamaConfig,
    LSTMConfig,
    config_to_dict,
    model_from_config,
)  # fmt: skip
from minillm.models.bert import BertConfig
from minillm.models.classifier import ClassifierConfig
from minillm.models.encoder_decoder import EncoderDecoderConfig
from minillm.models.llama import Llama, table_length
from minillm.models.rope import rope_tables
from minillm.training.checkpoint import save_checkpoint

GPT2 = GPTConfig(vocab_size=31, context=8, n_layers=2, n_heads=2, d_model=8)
LLAMA = LlamaConfig(31, 16, 2, 2, 1, 8, d_ff=12, qkv_bias=True)
CONFIGS = {
    "gpt": GPT2,
    "llama": LLAMA,
    "bert": BertConfig(31, 8, 2, 2, 8, 12, head="classification", n_labels=3),
    "encoder-decoder": EncoderDecoderConfig(31, None, 8, 2, 2, 8, 12),
    "lstm": LSTMConfig(31, 8, 2, 8),
    "classifier": ClassifierConfig(LlamaConfig(31, 16, 1, 2, 1, 8, d_ff=12, tie_embeddings=True), 3),
}
YARN, ORIGINAL = {"rope_type": "yarn"}, "original_max_position_embeddings"  # the factor is to follow from the lengths
HUGE = (10**6, 10**9, 10**12, 2**62, 10**30, 10**60)
# Nothing is made of them, or (an encoder-decoder of 10⁶ positions) no more than memory can hold.
UNBOUNDED = {
    ("llama", "context"), ("lstm", "context"), ("classifier", "decoder.context"), ("encoder-decoder", "context"),
}  # fmt: skip


def numbers_in(values, before=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from numbers_in(value, f"{before}{key}.")
        elif type(value) is int:
            yield before + key


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("format", ["transformers", "native"])
def test_a_size_that_the_weights_do_not_have_is_refused_at_once(kind, format, tmp_path):
    model = model_from_config(CONFIGS[kind], np.random.default_rng(0))
    if format == "transformers":
        PretrainedModel(model, CONFIGS[kind].task).save_pretrained(tmp_path)
    else:
        state = {"config": config_to_dict(CONFIGS[kind]), "model": model.state_dict()}
        save_checkpoint(tmp_path, **state, optimizer={}, state={})
    text = (tmp_path / "config.json").read_text()
    began = time.monotonic()
    taken = set()
    for path in [path for path in numbers_in(json.loads(text)) if not path.startswith("label2id")]:
        for size in HUGE:
            values = json.loads(text)
            *outer, key = path.split(".")
            within = values[outer[0]] if outer else values
            within[key] = size
            (tmp_path / "config.json").write_text(json.dumps(values))
            try:
                open_checkpoint(tmp_path).model()
                taken.add(path)
            except ValueError as error:
                assert "config.json" in str(error), error
    assert time.monotonic() - began < 60
    sizes = {path for path in taken if not path.endswith(("_id", "dropout", "_theta", "norm_eps", "pdrop", "epsilon"))}
    if format == "native" or kind in ("encoder-decoder", "lstm"):  # which transformers has not
        assert sizes <= {path for name, path in UNBOUNDED if name == kind}
    else:
        assert sizes <= {"max_position_embeddings", "initializer_range"}


def test_the_layers_that_the_weights_hold_are_named(tmp_path):
    PretrainedModel(model_from_config(GPT2)).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "n_layer": 10**9}))
    with pytest.raises(WeightsError, match="1,000,000,000 layers, the weights hold 2"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("where", ["config.json", "argument"])
def test_a_head_with_a_billion_labels(where, tmp_path):
    PretrainedModel(model_from_config(GPT2)).save_pretrained(tmp_path)
    settings = {"num_labels": 10**9}
    if where == "config.json":
        values = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**values, **settings}))
        settings = {}
    with pytest.raises(ValueError, match="num_labels = 1000000000 a whole number up to"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, **settings)


@pytest.mark.parametrize("scaling", [None, {"rope_type": "linear", "factor": 3.0}])
def test_positions_beyond_the_table_have_the_same_angles(scaling, monkeypatch):
    config = LlamaConfig(31, 50, 1, 2, 1, 8, d_ff=12, rope_scaling=scaling)
    ids = np.arange(40)[None] % 31
    expected = Llama(config, np.random.default_rng(0))(ids).data
    monkeypatch.setattr("minillm.models.rope.MAX_POSITIONS", 4)
    model = Llama(config, np.random.default_rng(0))
    assert table_length(config) == len(model.cos) == 4
    np.testing.assert_array_equal(model(ids).data, expected)
    whole = rope_tables(9000, 8, 1e4, scaling)
    part = rope_tables(9000, 8, 1e4, scaling, first=4097)
    np.testing.assert_array_equal(part, [table[4097:] for table in whole])


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("generation_config.json", {"eos_token_id": "2"}, r"generation_config\.json: eos_token_id is '2'"),
        ("generation_config.json", {"top_k": 2.5}, r"generation_config\.json: top_k is '2\.5'"),
        ("generation_config.json", {"num_beams": "4"}, r"generation_config\.json: num_beams is '4'"),
        ("generation_config.json", {"early_stopping": "now"}, r"generation_config\.json: early_stopping is 'now'"),
        ("generation_config.json", {"temperature": math.nan}, r"generation_config\.json is not JSON.*NaN is no number"),
        ("generation_config.json", {"temperature": 1e999}, r"generation_config\.json is not JSON.*Infinity"),
        ("generation_config.json", {"max_length": 10**99}, r"generation_config\.json is not JSON.*100 digits"),
        ("generation_config.json", [1], r"generation_config\.json must hold an object, not a list"),
        ("config.json", {"model_type": ["gpt2"]}, r"config\.json: model_type must be a text, not \['gpt2'\]"),
        ("config.json", {"model_type": "gpt2", "n_embd": "8"}, r"n_embd of a gpt2 must be of type int, not str"),
        ("config.json", {"model_type": "gpt2", "n_head": True}, r"n_head of a gpt2 must be of type int, not bool"),
        ("config.json", {"model_type": "llama", "layer_types": 5}, r"config\.json: layer_types = 5 must be a list"),
        ("config.json", {"model_type": "qwen3", "layer_types": ["sliding_attention"]}, r"must be a list of 32 of"),
        ("config.json", {"model_type": "llama", "rope_parameters": {**YARN, ORIGINAL: {}}}, rf"{ORIGINAL} = {{}}, not"),
        ("config.json", {"model_type": "llama", "rope_scaling": {**YARN, ORIGINAL: 0}}, rf"{ORIGINAL} = 0, not a numb"),
        ("config.json", {"model_type": "qwen2", "rope_scaling": YARN, ORIGINAL: "8"}, rf"{ORIGINAL} = '8', not a numb"),
        ("config.json", {"model_type": "llama", "rope_scaling": YARN, "max_position_embeddings": 0}, "0, not a number"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(name, values, message, tmp_path):
    PretrainedModel(model_from_config(GPT2)).save_pretrained(tmp_path)
    (tmp_path / name).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_setting_with_every_value_is_read_or_refused(kind):
    """Also those that a config.json written here, which test_fuzz.py changes, does not have."""
    base: dict = {"model_type": kind}
    names = {*setting_names(base), ORIGINAL}
    for more in ({}, {"rope_scaling": YARN}):
        for name in names - {"model_type"}:
            for value in [*VALUES, ["full_attention"], {"0": "a"}]:
                for head in ARCHITECTURES[kind].heads.values():
                    try:
                        from_hf({**base, **more, name: value}, head)
                    except ConfigurationError as error:
                        assert "config.json" in str(error)


# --- safetensors ------------------------------------------------------------------------------------------------------


def a_file(path, header, size):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))


A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        ({"a": A, "b": {**B, "data_offsets": [4, 12]}}, 12, "'b' begins at byte 4 and overlaps the one before"),
        ({"a": A, "b": {**B, "data_offsets": [12, 20]}}, 20, "'b' begins at byte 12 and leaves a hole of 4 bytes"),
        ({"a": A, "b": B}, 19, "3 bytes at its end belong to no tensor"),
        ({"a": A, "b": B}, 15, "cut off: it lacks 1 bytes of 16"),
        (b'{"a": %b, "a": %b}' % (json.dumps(A).encode(), json.dumps(B).encode()), 16, "'a' stands twice"),
        (b'{"a": {"dtype": "F32", "dtype": "I32", "shape": [2], "data_offsets": [0, 8]}}', 8, "'dtype' stands twice"),
        ({"a": {**A, "dtype": "F31"}}, 8, "'a' has the dtype 'F31', which safetensors does not know"),
        ({"a": {**A, "shape": [2**60, 2**60, 0], "data_offsets": [0, 0]}}, 0, "header says"),
        ({"a": {**A, "shape": {}, "data_offsets": [0, 4]}}, 4, "header says"),
        ({"a": {**A, "shape": [True, 2]}}, 8, "header says"),
        ({"a": A, "__metadata__": {"x": 1}}, 8, "__metadata__ must be an object of texts"),
        (b' {"a": %b}' % json.dumps(A).encode(), 8, "its header is a dict"),
        (b'{"\\ud800": %b}' % json.dumps(A).encode(), 8, "not JSON"),
    ],
)
def test_a_safetensors_file_that_the_reference_refuses(tmp_path, header, size, message):
    path = tmp_path / "model.safetensors"
    a_file(path, header, size)
    with pytest.raises(WeightsError, match=message) as error:
        read_header(path)
    assert "model.safetensors" in str(error.value)


def test_a_tensor_with_no_numbers_is_no_work(tmp_path):
    path = tmp_path / "model.safetensors"
    a_file(path, {"a": {**A, "shape": [2**60, 0], "data_offsets": [0, 0]}}, 0)
    assert list(read_header(path)["a"].blocks()) == []


def verdicts(path):
    """(the reference takes it, we take it)."""
    taken = []
    for read in (lambda: safe_open(path, "numpy").keys(), lambda: read_header(path)):
        try:
            read()
            taken.append(True)
        except (SafetensorError, ValueError):
            taken.append(False)
    return taken


def compare_with_the_reference(path, cases, first=0):
    """What comes of mutated headers and files: how often both take them, and how often only one does."""
    from fuzz import mutated_bytes, mutated_json

    codes = ["F32", "BF16", "I64", "BOOL", "F8_E4M3", "F64", "U16", "C64", "F4", "F8_E8M0", "F31"]
    both, ours_only = 0, []
    for number in range(first, first + cases):
        rng = random.Random(number)
        header, place = {"__metadata__": {"format": "pt"}}, 0
        for name in "abcd"[: rng.randrange(1, 5)]:
            shape = [rng.choice((0, 1, 2, 3)) for _ in range(rng.randrange(3))]
            code = rng.choice(codes)
            bits = 4 if code == "F4" else int({"BOOL": "8", "BF16": "16"}.get(code) or code[1:].split("_")[0])
            end = place + math.prod(shape) * bits // 8
            header[name] = {"dtype": code, "shape": shape, "data_offsets": [place, end]}
            if rng.random() < 0.1:
                header[name]["data_offsets"] = [place + rng.randrange(-2, 3), end + rng.randrange(-2, 3)]
            place = end + (rng.random() < 0.05)
        text = json.dumps(header).encode()
        for _ in range(rng.choice((0, 1, 1, 2))):
            text = (mutated_json(text, rng) if rng.random() < 0.7 else None) or mutated_bytes(text, rng)
        length = len(text) + (rng.choice((-1, 1, 10**6, 2**62)) if rng.random() < 0.05 else 0)
        tail = bytes(max(0, place + (rng.randrange(-2, 3) if rng.random() < 0.1 else 0)))
        path.write_bytes(struct.pack("<Q", length) + text + tail)
        theirs, ours = verdicts(path)
        both += theirs and ours
        if ours and not theirs:
            ours_only.append(number)
    assert not ours_only, f"we take {len(ours_only)} files that safetensors refuses: {ours_only[:10]}"
    return both


def test_we_refuse_what_the_reference_refuses(tmp_path):
    assert compare_with_the_reference(tmp_path / "model.safetensors", 3000) > 300


@pytest.mark.long
def test_we_refuse_what_the_reference_refuses_campaign(tmp_path):
    both = compare_with_the_reference(tmp_path / "model.safetensors", 100_000, first=10**6)
    print(f"\nthe verdict of safetensors: 100,000 files, of which both took {both:,}")


# --- chat templates ---------------------------------------------------------------------------------------------------

WORDY = "{% for m in messages %}{{ m }}{% endfor %}"
LOOPS = "{% for a in range(99999) %}" * 3 + "{{ body }}" + "{% endfor %}" * 3
BOMBS = {
    "loops": LOOPS.replace("{{ body }}", ""),
    "loops that write": LOOPS,
    "a loop's condition": "{% for a in range(99999) if range(99999)|sum < 0 %}{% endfor %}",
    "filters in filters": "{{ ([range(99999)] * 99999) | map('sum') | sum }}",
    "text times number": "{{ 'a' * 10**10 }}",
    "list times number": "{{ [1] * 10**10 }}",
    "a large power": "{{ 10 ** 999999999 }}",
    "a product that grows": "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "doubling by +": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling by ~": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "many large texts": (
        "{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% set n.x = n.x + [('a' * 9999999)[1:]] %}{% endfor %}"
    ),
    "nested lists": (
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}"
    ),
    "nested lists as JSON": (
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x|tojson }}"
    ),
    "nested lists in a namespace": (
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n }}"
    ),
    "nested lists compared": (
        "{% set n = namespace(x='a', y='a') %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
        "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}"
    ),
    "replace": "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "replace as a filter": "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
    "join": "{{ ('b' * 99999).join(['a'] * 999999) }}",
    "join as a filter": "{{ (['a' * 99999] * 99999) | join }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "center": "{{ 'a' | center(10**10) }}",
    "indent": "{{ ('\n' * 999999) | indent(999999, blank=true) }}",
    "a wide format": "{{ '%9999999999d' % 1 }}",
    "a wide format method": "{{ '{:9999999999}'.format(1) }}",
    "a wide format filter": "{{ '%9999999999d' | format(1) }}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "a recursive loop": "{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "a long sum": "{{ " + "1 + " * 50_000 + "1 }}",
    "captured text": "{% set x %}{% for i in range(99999) %}" + "a" * 99_999 + "{% endfor %}{% endset %}",
    "lipsum": "{{ lipsum(99999) }}",
    "an include": "{% include 'x' %}",
    "marks without end": "{% generation %}a",
    "marks in marks": "{% generation %}" * 5_000 + "{% endgeneration %}" * 5_000,
    "marks in a loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% generation %}{% endgeneration %}"
    "{% endfor %}{% endfor %}",
    "no function": "{{ 1() }}",
    "division": "{{ 1 / 0 }}",
    "no such method": "{{ messages.nothing.more }}",
    "a bad call": "{{ 'a'.encode('no such encoding') }}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_ends_and_every_error_names_it(name, monkeypatch):
    pytest.importorskip("jinja2")
    monkeypatch.setattr("minillm.assistant.sandbox.SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"^x/chat_template\.jinja (goes beyond|calls itself|refused|makes)"):
        render_chat(BOMBS[name], {"messages": []}, "x/chat_template.jinja")
    assert time.monotonic() - began < 8


def test_limits_leave_ordinary_templates_as_they_are():
    jinja2 = pytest.importorskip("jinja2")
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    template = (
        "{%- set n = namespace(x='') %}{% macro say(m, end='\n') %}[{{ m.role ~ ':' + m['content'] | trim }}]{{ end }}"
        "{% endmacro %}{% for m in messages if m.role != 'tool' %}{% set n.x = n.x + m.role[:2] %}{{ say(m) }}"
        "{% if loop.last %}{{ loop.index0 }}{% elif loop.first %}{% continue %}{% endif %}{% else %}none{% endfor %}\n"
        "{{ n.x.upper() }} {{ messages | map(attribute='role') | join(', ') }} {{ messages | tojson }}"
        "{{ '%s-%03d' % ('a', 7) }}{{ '{}'.format(3) }}{{ 2 ** 10 }}{{ [1] * 3 }}{{ missing }}{{ none }}{{ 1 == 1.0 }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ 'a,b'.split(',') }}{{ 1 in [1] }}"
        "{% set x %}captured{% endset %}{{ x | replace('a', 'b') | indent(2) }}{{ messages[::-1][0].role }}"
    )
    variables = {"messages": [{"role": role, "content": " é\n"} for role in ("user", "tool", "assistant")]}
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    plain.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    assert render_chat(template, variables) == plain.from_string(template).render(**variables)


# --- access tokens ----------------------------------------------------------------------------------------------------


class Refusing(http.server.BaseHTTPRequestHandler):
    """Says no, and repeats what it was asked with."""

    status = 401

    def do_GET(self):
        self.send_response(self.status)
        said = self.headers.get("Authorization", "")
        self.send_header("X-Error-Message", f"refused: {said}")
        body = json.dumps({"error": f"Invalid token {said}"}).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize("status", [401, 403, 500])
@pytest.mark.parametrize("token", ["hf_SECRETsecret123", "hf_SECRETsecret123\nmore-of-the-SECRET", "hf_SECRET\u00e9"])
@pytest.mark.parametrize("given", ["argument", "environment"])
def test_a_refused_token_is_never_printed(status, token, given, tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(Refusing, "status", status)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    if given == "environment":
        monkeypatch.setenv("HF_TOKEN", token)
    try:
        with pytest.raises(NotFound) as caught:
            find_folder("tiny/gpt", token=token if given == "argument" else None, cache_dir=tmp_path)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    text = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in text and "tiny/gpt" in text, text
