#!/usr/bin/env bash
# Runs the comparisons of speed, and writes their rows to benchmarks/results/speed-CPU.jsonl.
#
#   benchmarks/run.sh [ROUNDS]
#
# The peers are installed into a virtual environment in the cache ($THEMA_CACHE, by default ~/.cache/thema). Each engine
# runs in a warm process of its own, all take turns, and medians are kept. Leave the machine alone meanwhile.
#
# UMAP and HDBSCAN start from the column `embedding` of $THEMA_BENCH_EMBEDDINGS, a Parquet file of 100,000 rows or more; by
# default from those of the papers in tests/data and others near them.
#
# What needs torch and sentence-transformers (3 GB) is not run here but by hand: labelling beside text-clustering
# (benchmarks/labelling.py says how) and a whole fit beside BERTopic (benchmarks/peers/bertopic_fit.py).
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-5}
cache="${THEMA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/thema}"
venv=$cache/peers
work=$cache/bench
encoder=$(scripts/fetch-encoder.sh)
mkdir -p "$work"

if ! [ -x "$venv/bin/python" ]; then
  python3 -m venv "$venv" || { echo 'run.sh: on Debian, install python3-venv' >&2; exit 2; }
fi
"$venv/bin/python" -m pip install --quiet --requirement benchmarks/peers/requirements.txt

cargo bench --locked --package thema-operators --bench stages --no-run --message-format json |
  "$venv/bin/python" -c '
import json, sys
built = [json.loads(line) for line in sys.stdin if line.startswith("{")]
print(next(b["executable"] for b in built if b.get("target", {}).get("name") == "stages" and b.get("executable")))
' >"$work/stages.path"
stages=$(cat "$work/stages.path")
thema=${CARGO_TARGET_DIR:-target}/release/thema
[ -f "$work/vectors.parquet" ] || "$thema" embed --input tests/data/papers.parquet --text '{title}: {abstract}' \
  --encoder "$encoder" --out "$work/vectors.parquet"

name=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1 | tr -cs '[:alnum:]\n' '-')
name=${name,,}
grep -q amx_int8 /proc/cpuinfo && name=${name%-}-amx
results=benchmarks/results/speed-${name%-}.jsonl
: >"$results.new"
for threads in 1 "$(nproc)"; do
  "$venv/bin/python" benchmarks/embedding.py "$stages" "$encoder" tests/data/papers.parquet "$work" "$threads" "$rounds"
  "$venv/bin/python" benchmarks/search.py "$stages" "$work/vectors.parquet" "$work" "$threads" "$rounds"
  "$venv/bin/python" benchmarks/streams.py "$stages" "$encoder" tests/data/papers.parquet "$work/vectors.parquet" \
    "$work" "$threads" "$rounds"
done | tee -a "$results.new"
"$venv/bin/python" benchmarks/clustering.py "$stages" "${THEMA_BENCH_EMBEDDINGS:-$work/vectors.parquet}" "$work" "$(nproc)" 3 |
  tee -a "$results.new"
mv "$results.new" "$results"
