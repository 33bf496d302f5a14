#!/usr/bin/env bash
# Checks and measures all of thema that runs on an NVIDIA GPU, on the machine that has one.
#
#   benchmarks/gpu-check.sh PACK [--budget SECONDS] [--small] [--steps STEP,...] [--only STAGE,...]
#
# PACK is the folder that benchmarks/gpu-pack.sh made; nothing is built here. The machine needs its driver, Python with
# torch, sentence-transformers and numpy, and compute-sanitizer of the CUDA toolkit. Steps, in this order: device, parity,
# sanitizer, bench. One that fails does not end the others; the last lines say which did, and the exit status is then 1.
# --only names stages of the benchmark (roofline, kernels, encoder, search, kmeans, fit). --small runs everything in tiny
# sizes on the emulator, with the peers on the processor: it tests these scripts, and its numbers mean nothing.
#
# Rows go to results/gpu-DEVICE-DATE.jsonl beside this file, and to $OUT if that is set. All programs' words are in WORK
# (default: PACK-work), a log for each; $OUT gets them too.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -ge 1 && -d $1 ]] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
pack=$(cd "$1" && pwd)
shift
budget=570 small="" steps=device,parity,sanitizer,bench only=""
while [[ $# -gt 0 ]]; do
  case $1 in
    --budget) budget=$2; shift ;;
    --steps) steps=$2; shift ;;
    --only) only=$2; shift ;;
    --small) small=1 ;;
    *) echo "gpu-check: unknown \"$1\", expected --budget, --steps, --only or --small" >&2; exit 2 ;;
  esac
  shift
done
work=${WORK:-$pack-work}
python=${PYTHON:-python3}
# A cache of its own, so that nothing is written to the pack; encoders are looked up in it.
mkdir -p "$work/cache"
ln -sfn "$pack/encoders" "$work/cache/encoders"
failed=()
export THEMA_CACHE=$work/cache RUST_BACKTRACE=0 TOKENIZERS_PARALLELISM=true HF_HUB_OFFLINE=1
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
if [[ -n $small ]]; then
  export THEMA_TEST_GPU=emulated THEMA_BENCH_GPU=emulated THEMA_TEST_SCHEDULES=1
else
  export THEMA_TEST_GPU=real
  unset THEMA_BENCH_GPU
fi

say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }

# step NAME LIMIT COMMAND...: runs it with its words in a log, whose end is shown if it fails.
step() {
  local name=$1 limit=$2 log="$work/$1.log" status=0
  say "$name ..."
  timeout --kill-after 5 "$limit" "${@:3}" >"$log" 2>&1 || status=$?
  if [[ $status == 0 ]]; then
    say "$name: passed"
    return 0
  fi
  [[ $status == 124 || $status == 137 ]] && say "$name: stopped after $limit s"
  say "$name: FAILED, status $status; the last lines of $log:"
  { grep -h -A 1 'panicked at' "$log" | cut -c1-300 | head -n 30; tail -n 12 "$log"; } | sed 's/^/        | /'
  failed+=("$name")
  return 1
}

# What there is so far goes to $OUT, however this ends.
keep() {
  [[ -n ${OUT:-} ]] || return 0
  mkdir -p "$OUT/logs"
  [[ -z ${results:-} || ! -f $results ]] || cp "$results" "$OUT/"
  cp "$work"/*.log "$work"/*.err "$work"/*.txt "$work"/*.csv "$OUT/logs/" 2>/dev/null || true
}
trap keep EXIT

wants() { [[ ,$steps, == *,$1,* ]]; }

python3 -m tarfile -e "$pack/binaries.tar.xz" "$work"
[[ -f $pack/about.txt ]] && sed 's/^/        /' "$pack/about.txt"

device=emulated
if [[ -z $small ]]; then
  if ! device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1); then
    echo 'gpu-check: no NVIDIA GPU here; --small runs everything on the emulator' >&2
    exit 1
  fi
fi
if wants device && [[ -z $small ]]; then
  nvidia-smi --format=csv --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.limit,mig.mode.current |
    tee "$work/device.csv" || true
  nvidia-smi >"$work/device.log" 2>&1 || true
fi

encoders=""
if wants bench; then
  # Made while the tests run.
  "$python" "$here/gpu.py" encoders "$work" ${small:+--small} >"$work/encoders.log" 2>&1 &
  encoders=$!
fi

if wants parity; then
  if ! step parity-kernels 90 "$work/kernels" && [[ -z $small ]]; then
    # A fault of one kernel takes all tests of its process along: which fail alone?
    alone() {
      if timeout 30 "$1" --exact "$2" >"$3/alone-${2//::/-}.log" 2>&1; then echo "passed  $2"; else echo "FAILED  $2"; fi
    }
    export -f alone
    "$work/kernels" --list 2>/dev/null | sed -n 's/: test$//p' |
      xargs -P 4 -I{} bash -c 'alone "$@"' _ "$work/kernels" {} "$work" | sort | sed 's/^/        alone: /' || true
  fi
  if [[ -d $pack/encoders ]]; then
    if ! step parity-encoder 120 "$work/encoder" --nocapture && [[ -z $small ]]; then
      # What is loaded at its first use may not be loadable while work is recorded.
      CUDA_MODULE_LOADING=EAGER step parity-encoder-eager 60 "$work/encoder" --nocapture || true
    fi
    grep -h 'least cosine' "$work/parity-encoder.log" | sed 's/^/        /' || true
  else
    say 'parity-encoder: skipped, the pack has no encoder'
  fi
  step parity-fit 60 "$work/fit" || true
fi

if wants sanitizer; then
  sanitizer=$(command -v compute-sanitizer || true)
  [[ -n $sanitizer || ! -x /usr/local/cuda/bin/compute-sanitizer ]] || sanitizer=/usr/local/cuda/bin/compute-sanitizer
  if [[ -n $sanitizer ]]; then
    for tool in memcheck racecheck synccheck; do
      options=(--tool "$tool" --error-exitcode 9 --print-limit 20)
      [[ $tool != memcheck ]] || options+=(--leak-check no)
      # What is measured later must still find time.
      limit=$(((budget - SECONDS) / 4))
      THEMA_TEST_SCHEDULES=1 step "$tool" $((limit < 60 ? limit : 60)) "$sanitizer" "${options[@]}" \
        "$work/kernels" --skip refused --skip pass_through || true
      grep -h -A 1 'ERROR SUMMARY\|RACECHECK SUMMARY' "$work/$tool.log" | sed 's/^/        /' || true
    done
  elif [[ -n $small ]]; then
    say 'sanitizer: skipped, it is not here'
    THEMA_TEST_SCHEDULES=1 step sanitizer-filter 60 "$work/kernels" --list --skip refused --skip pass_through || true
  else
    say 'sanitizer: FAILED, compute-sanitizer is not here'
    failed+=(sanitizer)
  fi
fi

if wants bench; then
  wait "$encoders" || { say 'encoders: FAILED'; tail -n 5 "$work/encoders.log"; failed+=(encoders); }
  name=$(tr -cs '[:alnum:]\n' '-' <<<"$device")
  name=${name,,}
  results=$here/results/gpu-${name%-}-$(date +%F).jsonl
  [[ -z $small ]] || results=$work/gpu-small.jsonl
  mkdir -p "$(dirname "$results")"
  left=$((budget - SECONDS))
  status=0
  timeout --kill-after 5 $((left + 15)) "$python" "$here/gpu.py" bench "$pack" "$work" "$results" --budget "$left" \
    ${small:+--small} ${only:+--only "$only"} || status=$?
  [[ $status == 0 ]] || { say "bench: FAILED, status $status"; failed+=(bench); }
  "$python" "$here/gpu.py" table "$results" | tee "$work/table.txt" || failed+=(table)
  say "rows: $results"
fi

if [[ ${#failed[@]} -gt 0 ]]; then
  say "failed: ${failed[*]}"
  exit 1
fi
say 'all passed'
