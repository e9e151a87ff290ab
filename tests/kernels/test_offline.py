"""Every shipped configuration compiles for its GPU, fits its shared memory and keeps to known limits on spills.

Compiled in a fresh Python, since this one may have chosen the interpreter.
"""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")
triton = pytest.importorskip("triton")

# Limits are what this version was seen to need; others, such as the one on a machine with a card, must come near.
OTHER_VERSION = 0 if triton.__version__.startswith("3.9.") else 512

# Bytes of stack (spilled registers) a thread on sm_90 in 16 bits, where not 0, the largest over head sizes. A call has
# the limit of the worst of its features. "any": whatever they are. "ragged": a length that is no multiple of the
# block, so that the loop over blocks stands there twice or three times. "grouped": query heads share keys, which makes
# dK/dV a loop over heads around all that.
KNOWN_SPILLS = {  # head sizes up to 128
    "forward": {"window": 48, "padding": 144, "dropout": 200, "packed": 64, "ragged": 72},
    "dq": {"padding": 96, "dropout": 160, "ragged": 32},
    "dkdv": {"window": 40, "padding": 40, "dropout": 216, "packed": 24, "capped": 32, "ragged": 32},
    "dkdv, grouped": {"window": 312, "padding": 328, "dropout": 632, "packed": 304, "capped": 32, "ragged": 272},
    "decode": {},
}
OF_LARGE_HEADS = {  # head size 256
    "forward": {"window": 64, "dropout": 56, "packed": 56},
    "dq": {"window": 32, "padding": 96, "dropout": 104, "packed": 24, "capped": 16, "ragged": 8},
    "dkdv": {"any": 144, "window": 192, "padding": 248, "dropout": 424, "packed": 216, "ragged": 216},
    "dkdv, grouped": {"any": 256, "window": 344, "padding": 456, "dropout": 824, "packed": 416, "ragged": 424},
    "decode": {},
}
FLOAT32 = {("dkdv", 256): 320}
BETWEEN_TILES = {  # head sizes that are padded to 64 or 128, in place of the limits above
    ("forward", 40): {"paged": 112},
    ("dkdv", 40): {"capped": 56},
    ("dkdv", 72): {"window": 152, "packed": 88, "ragged": 144},
    ("dq", 72): {"padding": 152, "dropout": 208, "packed": 64, "ragged": 96},
}

SCRIPT = """
import json, sys, warnings
import torch
from minillm.kernels import configs, offline
from minillm.kernels.call import Call
warnings.simplefilter("error")
for arch, kernel, bits, size, features in json.loads(sys.argv[1]):
    meta = lambda shape, dtype: torch.empty(shape, dtype=dtype, device="meta")
    tokens, kv_heads = 4095 if "ragged" in features else 4096, 2 if "grouped" in features else 8
    options = {}
    if "full" not in features:
        options |= dict(right=0)
    if "window" in features:
        options |= dict(left=127)
    if "dropout" in features:
        options |= dict(dropout_p=0.1, seed=meta((1,), torch.int64))
    if "padding" in features:
        options |= dict(mask=meta((2, 1, 1, tokens), torch.bool).expand(2, 8, tokens, tokens))
    if "packed" in features:
        options |= dict(cu_q=meta((3,), torch.int32), cu_k=meta((3,), torch.int32), max_q=tokens, max_k=tokens)
    if "capped" in features:
        options |= dict(softcap=50.0)
    if "sinks" in features and kernel != "decode":
        options |= dict(sinks=meta((8,), torch.float32))
    if "paged" in features:
        options |= dict(key_lengths=meta((2,), torch.int32), block_table=meta((2, 1), torch.int32))
    dtype = torch.float32 if bits == 32 else torch.bfloat16
    config = configs.shipped(arch, kernel, bits // 8, 1 << (size - 1).bit_length())
    call = Call(scale=0.125, **options)
    more = dict(tokens=tokens, kv_heads=kv_heads, decoded=16 if "guessed" in features else 1)
    got = offline.compile_config(arch, kernel, dtype, size, config, call, **more)
    print(json.dumps(dict(registers=got.registers, stack=got.stack, shared=got.shared, wgmma=got.wgmma, mma=got.mma)))
"""


def compile_all(cases):
    """[(arch, kernel, bits, head size, features)] -> what the compiler made of each."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(cases)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in result.stdout.splitlines()]


def allowed_stack(arch, kernel, bits, size, features):
    if arch != 90:  # no card of that kind was ever tuned for: they must only come near
        return 512
    if bits == 32:
        return OTHER_VERSION + FLOAT32.get((kernel, size), 0)
    row = f"{kernel}, grouped" if kernel == "dkdv" and "grouped" in features else kernel
    known = OF_LARGE_HEADS[row] if size > 128 else KNOWN_SPILLS[row] | BETWEEN_TILES.get((row, size), {})
    return OTHER_VERSION + max(known.get(feature, 0) for feature in ["any", *features])


def check(cases):
    wrong = []
    for case, got in zip(cases, compile_all(cases), strict=True):
        arch, kernel, bits, _, _ = case
        allowed = allowed_stack(*case)
        if got["stack"] > allowed:
            wrong.append(f"{case} spills {got['stack']} bytes, allowed {allowed}")
        if bits == 16 and arch != 100:  # whose matrix instructions have another name
            used = got["wgmma"]  # Hopper's own, for tiles of 64 rows
            if arch != 90 or kernel == "decode":
                used += got["mma"]
            if used == 0:
                wrong.append(f"{case} does not use the matrix units: {got}")
    assert not wrong, "\n".join(wrong)


def test_the_configurations_that_training_uses_on_hopper():
    check([(90, kernel, 16, size, []) for size in (64, 128) for kernel in ("forward", "dkdv", "dq")])
    check([(90, "decode", 16, 128, [])])


def test_features_compile():
    windows, padded = ["window", "packed"], ["padding", "dropout"]
    check([(90, "forward", 16, 64, windows), (90, "dkdv", 16, 64, padded), (90, "dkdv", 16, 64, ["grouped"])])


DESCRIBED = """
import math, sys, torch
from minillm.kernels.call import Call
from minillm.kernels.configs import Config
from minillm.kernels.offline import compile_config
for arch in map(int, sys.argv[1:]):
    for size in (64, 128):
        got = []
        for descriptors in (1, 0):
            config, call = Config(64, 64, 4, 2, descriptors), Call(scale=1 / math.sqrt(size), right=0)
            try:
                got.append(compile_config(arch, "forward", torch.bfloat16, size, config, call))
            except IndexError:  # nothing new was compiled: without descriptors it is the same kernel
                assert arch == 80 and not descriptors
                continue
            assert ("UTMALDG" in got[-1].code) == (descriptors == 1 and arch >= 90), (arch, size)
        print(arch, size, *(c.registers for c in got), *(c.stack for c in got))
        assert arch == 80 or (got[0].registers < got[1].registers and not got[0].stack), got
"""


@pytest.mark.parametrize("archs", [(90, 80), pytest.param((100, 120), marks=pytest.mark.long)])
def test_tensor_descriptors_take_fewer_registers(archs):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", DESCRIBED, *map(str, archs)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(result.stdout.splitlines()) == 2 * len(archs), result.stdout


def test_what_models_ask_for_compiles():
    check([(90, "forward", 16, 128, ["sinks", "paged"]), (90, "forward", 16, 64, ["capped"])])
    check([(90, kernel, 16, 64, ["capped"]) for kernel in ("dkdv", "dq")])
    check([(90, "decode", 16, 128, ["paged", "guessed", "grouped"])])


def test_head_sizes_between_the_tiles_load_16_bytes_at_a_time():
    """Element by element, the addresses alone spill hundreds of bytes."""
    check([(90, "forward", 16, 40, []), (90, "dkdv", 16, 72, []), (90, "decode", 16, 40, [])])


@pytest.mark.long
@pytest.mark.parametrize("size", [40, 64, 72, 128, 256])
@pytest.mark.parametrize("kernel", ["forward", "dkdv", "dq"])
def test_every_feature_compiles(kernel, size):
    alone = [["full"], [], ["window"], ["padding"], ["dropout"], ["packed"], ["capped"]]
    alone += [["sinks"], ["paged"]] if kernel == "forward" else []
    ragged = [[*features, "ragged"] for features in alone]
    grouped = [[*features, "grouped"] for features in alone + ragged] if kernel == "dkdv" else []
    check([(90, kernel, 16, size, features) for features in alone + ragged + grouped])


@pytest.mark.long
@pytest.mark.parametrize("arch", [80, 86, 89, 90, 100, 120])
@pytest.mark.parametrize("bits", [16, 32])
def test_every_shipped_configuration(arch, bits):
    from minillm.kernels.configs import HEAD_SIZES, KERNELS

    check([(arch, kernel, bits, size, []) for kernel in KERNELS for size in HEAD_SIZES])


def test_the_fused_kernels_compile():
    script = """
import torch, warnings
from minillm.kernels import cross_entropy_rows, norms, offline
warnings.simplefilter("error")
torch.set_default_device("meta")
x, logits = (torch.empty(64, size, dtype=torch.bfloat16) for size in (768, 50304))
w, r, targets = torch.empty(768), torch.empty(64), torch.empty(64, dtype=torch.int64)
with offline.compiling_for(90) as compiled:
    cross_entropy_rows.rows_triton(logits, targets, -100, 0.1, True)
    norms.norm_forward_kernel[64,](x, w, w, x, r, r, 768, 768, EPS=1e-5, **norms.launch_options(768, True, x))
    norms.norm_backward_kernel[8,](x, x, w, r, r, x, w, w, 768, 768, 64, **norms.launch_options(768, True, x))
print(*[(c.name, c.stack) for c in compiled])
assert len(compiled) == 3 and all(c.stack == 0 for c in compiled), compiled
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]


def test_offsets_of_heads_are_computed_in_64_bits():
    """A head-major tensor, or a mask of every pair, passes 2^31 elements from one head to another."""
    script = """
import re, torch, triton
from minillm.kernels import configs, flash_fast, flash_fast_backward, flash_decode, flash_simple, offline
from minillm.kernels.call import Call
meta = lambda *shape: torch.empty(*shape, dtype=torch.float16, device="meta")
q, lse = meta(1, 8, 4096, 64), torch.empty(1, 8, 4096, device="meta")
call = Call(scale=0.125, mask=torch.empty(1, 8, 4096, 4096, dtype=torch.bool, device="meta"))
with offline.compiling_for(90) as compiled:
    flash_fast.launch_forward(q, q, q, call, configs.shipped(90, "forward", 2, 64))
    flash_fast_backward.launch_delta(q, q, lse, call)
    flash_fast_backward.launch_dkdv(q, q, q, q, lse, lse, call, configs.shipped(90, "dkdv", 2, 64))
    flash_fast_backward.launch_dq(q, q, q, q, lse, lse, call, configs.shipped(90, "dq", 2, 64))
    flash_decode.launch(q[:, :, :1], q, q, Call(scale=0.125), configs.shipped(90, "decode", 2, 64))
    flash_simple.forward(q, q, q, call)
for source in (flash_fast.fast_forward_kernel, flash_fast_backward.delta_kernel, flash_fast_backward.fast_dkdv_kernel,
               flash_fast_backward.fast_dq_kernel, flash_decode.decode_kernel, flash_simple.forward_kernel):
    for by_device in source.device_caches.values():
        for kernel in by_device[0].values():
            ir = kernel.asm["ttir"]
            heads = set(re.findall(r"(%\\w+) = tt.get_program_id y", ir))
            assert len(heads) == 1, (source, heads)
            products = re.findall(r"arith.muli %s[, ].*: i32" % re.escape(heads.pop()), ir)
            assert not products, (source, products)
            print(source.fn.__name__)
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(result.stdout.split()) == 6, result.stdout


def test_the_report_prints_a_table():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [
        sys.executable,
        "-m",
        "minillm.kernels.offline",
        "--kernel",
        "decode",
        "--bits",
        "16",
        "--head-size",
        "16",
    ]
    out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert "decode 16-bit head 16" in out and "registers" in out


SASS = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;  /* 0x00 */
        /*0010*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4] ;  /* 0x00 */
        /*0020*/                   FADD R1, R2, R3 ;  /* 0x00 */
        /*0030*/                   MUFU.EX2 R4, R5 ;  /* 0x00 */
        /*0040*/              @!P0 BRA 0x10 ;  /* 0x00 */
        /*0050*/                   FADD R1, R2, R3 ;  /* 0x00 */
        /*0060*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4] ;  /* 0x00 */
        /*0070*/                   FSEL R1, R2, R3 ;  /* 0x00 */
        /*0080*/                   ISETP R1, R2, R3 ;  /* 0x00 */
        /*0090*/                   MUFU.EX2 R4, R5 ;  /* 0x00 */
        /*00a0*/               @P1 BRA 0x60 ;  /* 0x00 */
        /*00b0*/               @P2 BRA 0x0 ;  /* 0x00 */
        /*00c0*/                   BRA 0xc0 ;  /* 0x00 */
"""


def test_programs_and_cycles_from_what_was_compiled():
    from minillm.kernels import occupancy
    from minillm.kernels.configs import Config
    from minillm.kernels.offline import Compiled

    def programs(registers, num_warps, shared, arch=90):
        got = Compiled("", num_warps, 2, registers, 0, shared, 0, 0, "")
        return occupancy.programs_at_once(occupancy.GPUS[arch], got)

    assert programs(128, 8, 1000) == 2 and programs(129, 8, 1000) == 1  # 16,384 registers hold 4 warps of 128, 3 of 136
    assert programs(128, 8, 120_000) == 1 and programs(32, 4, 110_000) == 2  # two kilobytes of 228 are the system's
    assert programs(16, 1, 0) == 32 and programs(16, 1, 0, arch=86) == 16

    assert len(occupancy.whole_loop(SASS)) == 4  # not the one with a comparison, nor that around both
    assert occupancy.whole_loop("") is None
    got = Compiled("", 4, 2, 100, 0, 0, 1, 0, SASS)
    cycles = occupancy.cycles_of_a_block(occupancy.GPUS[90], got, "forward", Config(16, 8, 4, 2), 64)
    assert cycles == occupancy.Cycles(tensor=8, issue=4, special=8, loads=2 * 8 * 64 * 2 / 40)
    assert cycles.estimate(1) == 51.2 and occupancy.Cycles(5, 4, 3, 1).estimate(2) == 8.5


def test_the_estimates_are_called_so():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "minillm.kernels.occupancy", "--kernel", "dq", "--head-size", "64"]
    out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert "Rates are ESTIMATES" in out and "dq       D64" in out and "TFLOP/s" in out and " 3 programs" in out
