#!/usr/bin/env bash
# Builds the emulated driver, a libcuda.so that runs thema's kernels on this processor, and prints its folder.
#
# Tests call it. What it builds lies in the cache, by hashes of all that goes into it: each source is compiled once.
# Usage: build.sh [FOLDER_OF_KERNELS]; the check for planted bugs builds from a changed copy.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kernels=$(cd "${1:-$here/..}" && pwd)
cache=${THEMA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/thema}/emulator
flags=(-std=c++17 -O2 -g1 -march=x86-64-v3 -ffp-contract=off -fPIC -pthread -DEMULATOR -Wall -Wextra -Werror
       -Wno-unknown-pragmas -Wno-psabi -Wno-unused-function -Wno-unused-parameter)

hash_of() { cat "$@" | sha256sum | cut -c1-16; }
common=$(hash_of "$kernels"/cuda/*.h "$kernels"/emulator/*.h "$here/build.sh")
mkdir -p "$cache/objects"
objects=() missing=()
for source in "$kernels"/cuda/*.cu "$kernels"/emulator/driver.cpp; do
  object=$cache/objects/$(basename "$source").$common.$(hash_of "$source").o
  objects+=("$object")
  [[ -e $object ]] || missing+=("$source" "$object")
done
out=$cache/$(printf '%s\n' "${objects[@]##*/}" | hash_of)
mkdir -p "$out"
exec 9>"$out/lock"
flock 9
if [[ ! -e $out/libcuda.so ]]; then
  if ((${#missing[@]})); then
    # shellcheck disable=SC2016 # the inner shell expands them
    printf '%s\n' "${missing[@]}" | FLAGS="${flags[*]}" xargs -P "$(nproc)" -n 2 bash -c \
      'g++ $FLAGS -x c++ -c "$0" -o "$1.$$" && mv "$1.$$" "$1"' >&2
  fi
  g++ -shared -pthread -Wl,-soname,libcuda.so -o "$out/libcuda.so.new" "${objects[@]}" >&2
  mv "$out/libcuda.so.new" "$out/libcuda.so"
fi
echo "$out"
