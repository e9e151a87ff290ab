"""Checkpoint files: number formats, reading and writing safetensors, and folders that are damaged or malicious."""

import json
import pickle
import struct
import subprocess
import sys

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from minillm.hub import AutoModel, AutoModelForCausalLM, PretrainedModel, WeightsError, dtypes, weights
from minillm.hub.weights import Source
from minillm.models import GPT, GPTConfig, Llama, LlamaConfig

CONFIG = GPTConfig(vocab_size=31, context=8, n_layers=2, n_heads=2, d_model=8)
FLOATS = arrays.arrays(np.float32, st.integers(0, 30), elements=st.floats(width=32))


# --- number formats ---------------------------------------------------------------------------------------------------


@given(FLOATS)
def test_bfloat16_rounds_as_torch_does(array):
    torch = pytest.importorskip("torch")
    expected = torch.from_numpy(array).to(torch.bfloat16)
    stored = dtypes.encode(array, "BF16")
    nan = np.isnan(array)
    assert np.array_equal(stored[~nan], expected.view(torch.int16).numpy().view(np.uint16)[~nan])
    assert np.isnan(dtypes.decode(stored, "BF16")[nan]).all()
    assert np.array_equal(dtypes.decode(stored, "BF16")[~nan], expected.float().numpy()[~nan])


@pytest.mark.parametrize(
    ("bits", "expected"),
    [(0x3F808000, 0x3F80), (0x3F818000, 0x3F82), (0x3F808001, 0x3F81), (0xBF818000, 0xBF82), (0x7F7FFFFF, 0x7F80)],
)
def test_bfloat16_in_the_middle_goes_to_the_even_one(bits, expected):
    assert dtypes.encode(np.array([bits], np.uint32).view(np.float32), "BF16").tolist() == [expected]


def test_no_nan_becomes_infinity_in_bfloat16():
    nan = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(dtypes.decode(dtypes.encode(nan, "BF16"), "BF16")).all()


def test_every_bfloat16_survives():
    stored = np.arange(1 << 16, dtype=np.uint16)
    again = dtypes.encode(dtypes.decode(stored, "BF16"), "BF16")
    values = dtypes.decode(stored, "BF16")
    assert np.array_equal(again[~np.isnan(values)], stored[~np.isnan(values)])
    assert np.isnan(dtypes.decode(again, "BF16")[np.isnan(values)]).all()


def test_float16_that_would_overflow_is_refused():
    assert dtypes.encode(np.float32([65504, np.inf]), "F16").tolist() == [65504, np.inf]
    with pytest.raises(ValueError, match=r"float16 cannot hold 70000.*bfloat16"):
        dtypes.encode(np.float32([1, -70000]), "F16")


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32"), np.dtype("<f4")])
def test_dtypes_by_any_name(dtype):
    assert dtypes.dtype_name(dtype) == "float32"


@pytest.mark.parametrize("dtype", ["int8", np.int64, "f32", 3])
def test_what_is_no_dtype(dtype):
    with pytest.raises(ValueError, match="choose one of float64, float32, float16, bfloat16"):
        dtypes.dtype_name(dtype)


# --- files ------------------------------------------------------------------------------------------------------------


def sources(tensors):
    return {name: Source(a.shape, a.copy) for name, a in tensors.items()}


@pytest.mark.parametrize("shard_bytes", [10**9, 300, 1])
@pytest.mark.parametrize("block", [1, 7, 1 << 22])
def test_what_is_written_is_read_by_us_and_by_safetensors(tmp_path, monkeypatch, shard_bytes, block):
    monkeypatch.setattr(weights, "BLOCK", block)
    draw = np.random.default_rng(0)
    shapes = {"a": (3, 5), "b": (), "c": (0, 4), "d": (11,), "e": (2, 3, 4), "f": (40, 2)}
    tensors = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    files = weights.write_folder(tmp_path, sources(tensors), "float32", shard_bytes)
    assert len(files) == (1 if shard_bytes == 10**9 else 2 if shard_bytes == 300 else 6)
    theirs = {name: array for file in files for name, array in load_file(file).items()}
    stored = weights.read_folder(tmp_path)
    assert set(stored) == set(theirs) == set(tensors)
    for name, array in tensors.items():
        assert np.array_equal(theirs[name], array) and np.array_equal(stored[name].read(), array)
        pieces = [piece for _, piece in stored[name].blocks()]
        assert np.array_equal(np.concatenate(pieces or [array]).reshape(array.shape), array)
    with safe_open(files[0], "np") as file:
        assert file.metadata() == {"format": "pt"}
    weights.write_folder(tmp_path, sources(tensors), "float32", 10**9)  # no shard stays beside the single file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]
    weights.write_folder(tmp_path, sources(tensors), "float32", 300)
    assert not (tmp_path / "model.safetensors").exists()
    assert all(np.array_equal(weights.read_folder(tmp_path)[name].read(), a) for name, a in tensors.items())


def test_a_write_that_fails_leaves_the_folder_as_it_was(tmp_path):
    weights.write_folder(tmp_path, sources({"a": np.ones(3, np.float32)}), "float32", 100)

    def fail():
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        weights.write_folder(tmp_path, {"a": Source((3,), fail)}, "float32", 100)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert weights.read_folder(tmp_path)["a"].read().tolist() == [1, 1, 1]


# --- bad folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    PretrainedModel(GPT(CONFIG)).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def sharded(tmp_path):
    PretrainedModel(GPT(CONFIG)).save_pretrained(tmp_path, max_shard_size="2KB")
    return tmp_path


def refuse(folder, message, error=WeightsError):
    with pytest.raises(error, match=message):
        AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1, -1000])
def test_a_truncated_file(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refuse(folder, r"model\.safetensors is cut off")


def change_header(path, change):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}, "has 8 bytes"),
        ({"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}, "header says"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}, "header says"),
        ({"dtype": "F32", "shape": [2]}, "header says"),
        ([], "header says"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, "x"]}, "header says"),
        ({"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}, "cut off"),
    ],
)
def test_a_header_that_lies(folder, entry, message):
    change_header(folder / "model.safetensors", {}.update)
    change_header(folder / "model.safetensors", lambda header: header.update({"transformer.wte.weight": entry}))
    refuse(folder, message)


def test_a_pointer_in_place_of_a_file(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (folder / "model.safetensors").write_text(pointer)
    refuse(folder, "pointer of git-lfs.*git lfs pull")


def test_a_header_that_is_no_json(folder):
    nested = b"[" * 200_000
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(nested)) + nested)
    refuse(folder, "not JSON")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"{no}" + bytes(100))
    refuse(folder, "not JSON")


def test_tensors_that_are_missing_unexpected_or_misshapen_are_all_listed(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["transformer.h.1.ln_1.bias"], tensors["transformer.ln_f.weight"]
    tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"][:5]
    tensors["transformer.h.2.norm_1.bias"] = np.zeros(8, np.float32)
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=r"nothing was loaded.*4 differences") as error:
        AutoModelForCausalLM.from_pretrained(folder)
    for line in (
        "missing: transformer.h.1.ln_1.bias (8,)",
        "missing: transformer.ln_f.weight (8,)",
        "wrong shape: transformer.wpe.weight is (5, 8), not (8, 8)",
        "unexpected: transformer.h.2.norm_1.bias (8,)",
    ):
        assert line in str(error.value)


@pytest.mark.parametrize("changes", [{"n_layer": 1}, {"n_layer": 3}, {"vocab_size": 30}, {"n_positions": 9}])
def test_a_config_of_another_model(folder, changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))
    refuse(folder, "the weights do not fit config.json")


def test_a_config_that_is_cut_off_or_absent(folder):
    path = folder / "config.json"
    path.write_text(path.read_text()[:50])
    refuse(folder, "config.json is not JSON, or was cut off", ValueError)
    path.unlink()
    refuse(folder, r"no checkpoint in .*it has no config\.json", FileNotFoundError)


def test_a_missing_shard(sharded):
    gone = sorted(sharded.glob("model-*.safetensors"))[1]
    gone.unlink()
    refuse(sharded, f"lacks 1 of .* shards: {gone.name}")


@pytest.mark.parametrize(
    "path", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors", "..", "", "x.bin"]
)
def test_an_index_that_climbs_out_of_the_folder(sharded, path):
    index = sharded / weights.INDEX
    content = json.loads(index.read_text())
    content["weight_map"]["transformer.wte.weight"] = path
    index.write_text(json.dumps(content))
    refuse(sharded, "A shard must be a .safetensors file beside the index, no path")


def test_an_index_that_does_not_agree_with_its_files(sharded):
    index = sharded / weights.INDEX
    content = json.loads(index.read_text())
    name = next(iter(content["weight_map"]))
    files = sorted(set(content["weight_map"].values()))
    file = content["weight_map"].pop(name)
    index.write_text(json.dumps(content))
    refuse(sharded, "the files do not belong together")
    content["weight_map"][name] = next(other for other in files if other != file)
    index.write_text(json.dumps(content))
    refuse(sharded, "the files do not belong together")
    content["weight_map"].update({name: file, "transformer.extra": file})
    index.write_text(json.dumps(content))
    refuse(sharded, r"names 1 tensors that their files do not hold: transformer\.extra")
    index.write_text("[]")
    refuse(sharded, "no 'weight_map'")


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_pickle_is_refused_and_the_way_to_convert_it_given(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    refuse(folder, rf"(?s){name}, a pickle: .*save_pretrained")
    (folder / name).unlink()
    refuse(folder, r"(?s)has no weights.*\['config\.json'\].*on the hub as a pickle only.*save_pretrained")


def test_integers_are_refused(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["transformer.ln_f.bias"] = np.zeros(8, np.int8)
    save_file(tensors, path)
    refuse(folder, r"norm\.bias' is I8.*Quantized")


# --- memory -----------------------------------------------------------------------------------------------------------

MEASURE = """
import sys
import numpy as np
import minillm.hub as hub

def high_water_mark():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

for folder in sys.argv[1:]:  # a small model first, so that what is imported on the way does not count
    before = high_water_mark()
    model = hub.AutoModelForCausalLM.from_pretrained(folder, engine="{engine}", dtype="{dtype}")
print(high_water_mark() - before)
"""


@pytest.fixture(scope="module")
def large_model():
    config = LlamaConfig(vocab_size=10000, context=64, n_layers=3, n_heads=8, d_model=768, d_ff=2048)
    return PretrainedModel(Llama(config, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("engine", "dtype", "stored"),
    [("numpy", "float32", "float32"), ("numpy", "float32", "bfloat16"), ("torch", "bfloat16", "bfloat16")],
)
def test_loading_takes_little_more_memory_than_the_model(large_model, tmp_path, engine, dtype, stored):
    """The process's own high-water mark, from before loading, against the bytes of the weights in memory."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    if engine == "torch":
        pytest.importorskip("torch")
    large_model.save_pretrained(tmp_path / "large", dtype=stored, max_shard_size="50MB")
    PretrainedModel(GPT(CONFIG)).save_pretrained(tmp_path / "small", dtype=stored)
    n_bytes = large_model.num_parameters() * (2 if dtype == "bfloat16" else 4)
    program = MEASURE.format(engine=engine, dtype=dtype)
    folders = [str(tmp_path / "small"), str(tmp_path / "large")]
    run = subprocess.run([sys.executable, "-c", program, *folders], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 0.9 * n_bytes < int(run.stdout) < 1.3 * n_bytes, (int(run.stdout) / n_bytes, n_bytes)


def test_the_numpy_engine_needs_no_torch(folder):
    program = "import sys; sys.modules['torch'] = None\nfrom minillm import AutoModelForCausalLM as A\nimport numpy\n"
    program += f"print(A.from_pretrained({str(folder)!r})(numpy.array([[1, 2]])).logits.shape)"
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "(1, 2, 31)", run.stderr
    program = "import sys; sys.modules['torch'] = None\nfrom minillm.commands.cli import main\n"
    program += f"sys.exit(main(['generate', {str(folder)!r}, '--engine', 'torch']))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 2 and "engine 'torch' needs PyTorch, which cannot be imported here" in run.stderr
    assert "minillm-from-scratch[torch]" in run.stderr, "what to do"
    with pytest.raises(ValueError, match="engine = 'jax'"):
        AutoModel.from_pretrained(folder, engine="jax")
    with pytest.raises(ValueError, match="runs on the CPU only"):
        AutoModel.from_pretrained(folder, device="cuda")
