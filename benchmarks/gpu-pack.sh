#!/usr/bin/env bash
# Builds what benchmarks/gpu-check.sh runs on a machine with a GPU, which needs no Rust then, and collects it in a folder.
#
#   benchmarks/gpu-pack.sh FOLDER
#
# The folder is below 60 MB: binaries, compressed; the default encoder in float16; lengths of papers; the scripts.
set -euo pipefail
cd "$(dirname "$0")/.."
pack=$1
if [[ -e $pack && ! -e $pack/about.txt && -n $(ls -A "$pack") ]]; then
  echo "gpu-pack: $pack holds something else" >&2
  exit 2
fi
encoder=$(scripts/fetch-encoder.sh)
rm -rf "$pack"
mkdir -p "$pack/encoders/all-MiniLM-L6-v2" "$pack/benchmarks"
touch "$pack/about.txt"
scratch=$(mktemp -d "$pack/.pack.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# collect NAME TARGET CARGO_ARGUMENTS...: builds one target and strips it.
collect() {
  local executable
  executable=$(cargo "${@:3}" --locked --features cuda --no-run --message-format json | python3 -c '
import json, sys
built = [json.loads(line) for line in sys.stdin if line.startswith("{")]
print(next(b["executable"] for b in built if b.get("target", {}).get("name") == sys.argv[1] and b.get("executable")))
' "$2")
  strip -o "$scratch/$1" "$executable"
}
collect kernels gpu test --release --package thema-kernels --test gpu
collect encoder encoder_gpu test --release --package thema-operators --test encoder_gpu
collect fit fit_gpu test --release --package thema-operators --test fit_gpu
collect bench gpu bench --package thema-operators --bench gpu
tar -C "$scratch" -cf - kernels encoder fit bench | xz -T0 -4 >"$pack/binaries.tar.xz"

"$scratch/bench" lengths "$encoder" tests/data/papers.parquet "$pack/lengths.json"
scripts/half-safetensors.py "$encoder/model.safetensors" "$pack/encoders/all-MiniLM-L6-v2/model.safetensors"
for file in modules.json config.json tokenizer.json sentence_bert_config.json config_sentence_transformers.json 1_Pooling/config.json; do
  install -D --mode 644 "$encoder/$file" "$pack/encoders/all-MiniLM-L6-v2/$file"
done
cp -r benchmarks/gpu-check.sh benchmarks/gpu.py benchmarks/turns.py benchmarks/peers "$pack/benchmarks/"
rm -rf "$pack"/benchmarks/peers/__pycache__
{
  git log -1 --format='commit %H' 2>/dev/null || true
  git diff --quiet HEAD 2>/dev/null || echo 'with changes that are not committed'
  echo "needs glibc $(objdump -T "$scratch"/* | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1 | cut -c7-)"
} >"$pack/about.txt"
cat "$pack/about.txt"
du -sm --exclude='.pack.*' "$pack"
