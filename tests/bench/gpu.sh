#!/usr/bin/env bash
# Everything that needs a GPU, in one command: the tests of the kernels (compiled here, elsewhere in the interpreter) and
# all others that are marked `gpu`, the attention benchmark, the training benchmark, and a ten-minute training run of
# GPT-2 124M on the Python source of this environment. Short tables come last.
#
#     tests/bench/gpu.sh OUT                      # all four stages
#     tests/bench/gpu.sh OUT attention training   # some stages: tests, attention, training, run
#     tests/bench/gpu.sh OUT --smoke              # the same commands at toy sizes on any machine; times mean nothing
#
# Settings, by environment variable: PYTHON (python3), RUN_SECONDS (600) and CORPUS_MB (150) of the training run,
# OVERLAY (2000) steps of the loss overlay, 0 for none.
#
# OUT gets at most 8 files: log.txt, summary.txt, attention.json, attention.md, train.json, train.md, run_metrics.jsonl,
# run_sample.txt. Nothing is installed and nothing is written to the repository. Python must have torch, triton, numpy,
# regex, safetensors and tqdm (for the tests pytest and hypothesis, and pytest-xdist if there is one); what a machine
# lacks can travel as wheels: unpack them into a folder and put that folder on PYTHONPATH. Where a command may run for a
# limited time only, give each stage a command of its own: `run` takes RUN_SECONDS and some minutes for corpus,
# tokenizer and compilation.

set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,19p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }
repo=$(cd "$(dirname "$0")/../.." && pwd)
out=$1; shift
mkdir -p "$out"; out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
case $python in */*) python=$(absolute "$python") ;; esac
smoke=""; stages=""
for word in "$@"; do
    case $word in
        --smoke) smoke=--smoke ;;
        tests | attention | training | run) stages="$stages $word" ;;
        *) echo "gpu.sh: unknown stage '$word': tests, attention, training, run"; exit 2 ;;
    esac
done
stages=${stages:-tests attention training run}

# minillm.kernels lies in kernels/: a folder of links makes both importable without an installation. Python puts the
# folder that it is started in before PYTHONPATH, so all is started there and not in the repository.
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir "$work/minillm"; ln -s "$repo"/minillm/* "$work/minillm/"; ln -sfn "$repo/kernels" "$work/minillm/kernels"
path=$work; IFS=:; set -f
for folder in ${PYTHONPATH:-}; do path=$path:$(absolute "$folder"); done
unset IFS; set +f; cd "$work" || exit 1
export PYTHONPATH="$path" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
log=$out/log.txt; : >"$log"

"$python" - >"$work/machine.txt" 2>&1 <<'PY'
import importlib.util, os, platform, sys
missing = [n for n in ("torch", "triton", "numpy", "regex", "safetensors", "tqdm", "pytest", "hypothesis") if not importlib.util.find_spec(n)]
if missing:
    sys.exit(f"gpu.sh: {sys.executable} has no {', '.join(missing)}: put wheels of them, unpacked, on PYTHONPATH")
import numpy, torch, triton
card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
memory = f", {torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB" if torch.cuda.is_available() else ""
print(f"{card}{memory}; torch {torch.__version__}, triton {triton.__version__}, cudnn {torch.backends.cudnn.version()}, "
      f"numpy {numpy.__version__}, python {platform.python_version()}, {os.cpu_count()} cores")
PY
machine_ok=$?
tee -a "$log" <"$work/machine.txt"
[ $machine_ok -eq 0 ] || exit 1
if grep -q "^no GPU" "$work/machine.txt" && [ -z "$smoke" ]; then
    echo "gpu.sh: there is no CUDA device here. --smoke tries the commands out without one." | tee -a "$log"; exit 1
fi

failed=""
stage() { # stage NAME COMMAND...: run it into the log; go on if it fails
    local name=$1 began=$SECONDS; shift
    echo "=== $name: $*" | tee -a "$log"
    if "$@" >>"$log" 2>&1; then echo "    done in $((SECONDS - began)) s" | tee -a "$log"
    else failed="$failed $name"; echo "    FAILED after $((SECONDS - began)) s; the end of its output:"; tail -n 15 "$log"; fi
}

gpu_tests() { # warnings are no errors here: another torch version warns of other things
    local which="not long" workers=0
    "$python" -c "import xdist" 2>/dev/null && workers=8 # most of the time goes into compiling, on the CPU
    [ -n "$smoke" ] && { which=gpu; workers=0; }
    "$python" -m pytest -c "$repo/pyproject.toml" --rootdir "$repo" "$repo/tests/kernels" "$repo/tests/bench/test_train_gpu.py" \
        -m "$which" -q -W default -p no:cacheprovider $([ $workers -gt 0 ] && echo "-n $workers") | tee "$work/tests.txt"
    return "${PIPESTATUS[0]}"
}

pretrain_until_it_fits() { # with half the batch, and twice the accumulation, as long as the card's memory is too small
    while true; do
        rm -rf "$work/run"
        "$python" -m minillm pretrain --out "$work/run" --engine torch "$@" --set "train.batch_size=$batch" \
            --set "train.grad_accumulation=$((batch < 128 ? 128 / batch : 1))" 2>&1 | tee "$work/pretrain.txt"
        [ "${PIPESTATUS[0]}" -eq 0 ] && return 0
        grep -q "out of memory" "$work/pretrain.txt" && [ "$batch" -gt 1 ] || return 1
        batch=$((batch / 2))
    done
}

training_run() {
    local corpus=$work/corpus tokenizer=$work/tokenizer.json batch=16 gb size
    gb=$(sed -n 's/.*, \([0-9]*\) GB;.*/\1/p' "$work/machine.txt"); gb=${gb:-0}
    [ "$gb" -ge 23 ] && batch=32; [ "$gb" -ge 75 ] && batch=128; [ "$gb" -ge 130 ] && batch=256
    size=(--config gpt2-124m --attention triton --set model.vocab_size=50304 --set train.max_steps=0
        --set "train.max_seconds=${RUN_SECONDS:-600}" --set train.eval_tokens=500_000 --set train.save_every=100_000)
    local mb=${CORPUS_MB:-150} ids=16384
    if [ -n "$smoke" ]; then
        size=(--config debug --set train.max_steps=6 --set train.eval_every=3); mb=0.3; ids=300; batch=4
    fi
    "$python" -m minillm corpus "$corpus" --from environment --max-mb "$mb" &&
        "$python" -m minillm tokenizer train "$corpus" --vocab-size "$ids" --out "$tokenizer" &&
        pretrain_until_it_fits --corpus "$corpus" --tokenizer "$tokenizer" "${size[@]}" &&
        cp "$work/run/metrics.jsonl" "$out/run_metrics.jsonl" &&
        "$python" -m minillm generate "$work/run" --prompt "def " --max-new-tokens 60 --seed 1 | tee "$out/run_sample.txt"
}

run_table() { # the run's evaluations and its speed, from its metrics
    [ -f "$out/run_metrics.jsonl" ] && "$python" - "$out/run_metrics.jsonl" <<'PY'
import statistics, sys
from minillm.runlog import read_metrics
rows = read_metrics(sys.argv[1])
steps, evals = [r for r in rows if "loss" in r], [r for r in rows if "val_loss" in r]
late = steps[len(steps) // 2 :]
mfu = [r["mfu"] for r in late if "mfu" in r]
print(f"training run: {steps[-1]['step']:,} steps, {steps[-1]['tokens']:,} tokens in {steps[-1]['seconds']:,.0f} s; "
      f"{statistics.median(r['tokens_per_second'] for r in late):,.0f} tokens/s"
      + (f", MFU {statistics.median(mfu):.1%}" if mfu else "") + f", {steps[-1]['memory_gb']:.1f} GB at most")
for r in evals[:: max(1, len(evals) // 6)] + evals[-1:]:
    print(f"  step {r['step']:>6,}  {r['seconds']:>5.0f} s  val loss {r['val_loss']:.4f}  {r['val_bits_per_byte']:.4f} bits per byte")
PY
}

for name in $stages; do
    case $name in
        tests) stage tests gpu_tests ;;
        attention) stage attention "$python" "$repo/tests/bench/attention.py" --out "$out" $smoke ;;
        training)
            overlay=${OVERLAY:-2000}; [ -n "$smoke" ] && overlay=3
            stage training "$python" "$repo/tests/bench/train_gpu.py" --out "$out" --overlay "$overlay" $smoke ;;
        run) stage run training_run ;;
    esac
done

{
    echo; echo "======== summary"; cat "$work/machine.txt"
    [ -f "$work/tests.txt" ] && { echo; echo "gpu tests: $(tail -n 1 "$work/tests.txt")"; }
    [ -f "$out/attention.md" ] && { echo; cat "$out/attention.md"; }
    [ -f "$out/train.md" ] && { echo; cat "$out/train.md"; }
    echo; run_table
    [ -n "$failed" ] && echo "FAILED:$failed (see log.txt)"
    [ -n "$smoke" ] && echo "smoke run: these times mean nothing"
} | tee "$out/summary.txt"
[ -z "$failed" ]
