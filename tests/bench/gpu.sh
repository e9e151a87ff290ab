#!/usr/bin/env bash
# Everything that needs a GPU. For a card that is lent for a quarter of an hour it is two calls, rehearsed and prepared
# beforehand on a machine without one:
#
#     tests/bench/gpu.sh rehearse OUT       # all stages of both calls at toy sizes on a CPU; times mean nothing
#     tests/bench/gpu.sh prepare            # tokens for the second call, in made/gpu/tokens, which git ignores
#     tests/bench/gpu.sh first OUT          # at most 560 s: checks, attention, tuning, a training step, a profile
#     tests/bench/gpu.sh second OUT         # at most 180 s: 90 s of training GPT-2 124M
#
# With a card of one's own:
#
#     tests/bench/gpu.sh whole OUT          # the kernels' tests, whole benchmarks, a ten-minute run; an hour or so
#
# STAGEs after OUT are run alone: `tests/bench/gpu.sh first OUT step profile`. OUT gets log.txt, rows.jsonl (all
# results, each as soon as it is there), summary.md (tables of them, always whole), and tuned/ with the configurations
# that won, as a file for kernels/tuned/. What other stages left there stays. A stage that hangs is ended at its limit,
# and the others go on. tests/README.md has the stages and their limits.
#
# Python (PYTHON, python3 if unset) must have torch, triton, numpy, regex, safetensors and tqdm, for `whole` also pytest
# and hypothesis. The last three can come along for a Python that lacks them: `tests/bench/gpu.sh wheels 3.12` puts them
# into made/gpu/site. Nothing else is installed. Settings of `whole`, by environment variable: RUN_SECONDS (600) and
# CORPUS_MB (150) of the training run, OVERLAY (2000) steps of the loss overlay.

set -uo pipefail
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }
repo=$(cd "$(dirname "$0")/../.." && pwd)
call=${1:-}
case $call in
    prepare) ;;
    wheels | rehearse | first | second | whole) [ $# -ge 2 ] || usage ;;
    *) usage ;;
esac
python=${PYTHON:-python3}
case $python in */*) python=$(absolute "$python") ;; esac
[ "$call" = wheels ] && exec "$python" "$repo/tests/bench/gpu/prepare.py" --out "$repo/made/gpu/site" --wheels "$2"

# minillm.kernels lies in kernels/: a folder of links makes both importable without an installation. Python puts the
# folder that it is started in before PYTHONPATH, so all is started there and not in the repository.
work=$(mktemp -d) || exit 1
mkdir "$work/minillm"; ln -s "$repo"/minillm/* "$work/minillm/"; ln -sfn "$repo/kernels" "$work/minillm/kernels"
path=$work:$repo/tests/bench:$repo/tests/shared
IFS=:; set -f
for folder in ${PYTHONPATH:-}; do path=$path:$(absolute "$folder"); done
unset IFS; set +f
export PYTHONPATH="$path" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
out=; [ $# -ge 2 ] && out=$(absolute "$2")
cd "$work" || exit 1

look() { "$python" - "$call" <<'PY'
import importlib.util, sys
needed = ["torch", "triton", "numpy", "regex", "safetensors", "tqdm"] + ["pytest", "hypothesis"] * (sys.argv[1] == "whole")
if sys.argv[1] == "prepare":
    needed = needed[2:]
missing = [name for name in needed if not importlib.util.find_spec(name)]
if missing:
    version = ".".join(map(str, sys.version_info[:2]))
    print(f"gpu.sh: {sys.executable} has no {', '.join(missing)}.", file=sys.stderr)
    sys.exit(f"gpu.sh: `tests/bench/gpu.sh wheels {version}`, where packages can be fetched, brings regex, safetensors and "
             "tqdm in made/gpu/site; others can lie, unpacked, in a folder on PYTHONPATH.")
if sys.argv[1] in ("first", "second", "whole"):
    import torch
    if not torch.cuda.is_available():
        sys.exit("gpu.sh: there is no CUDA device here. `tests/bench/gpu.sh rehearse OUT` tries everything without one.")
PY
}
if ! said=$(look 2>&1); then
    PYTHONPATH=$PYTHONPATH:$repo/made/gpu/site # after all others, and only where something is missing
    said=$(look 2>&1) || { echo "$said" >&2; rm -r "$work"; exit 1; }
fi

if [ "$call" = prepare ]; then
    "$python" "$repo/tests/bench/gpu/prepare.py" --out "$repo/made/gpu/tokens"
    code=$?; rm -r "$work"; exit $code
fi
shift 2
exec "$python" "$repo/tests/bench/gpu/calls.py" "$call" "$out" "$@" --work "$work"
