#!/usr/bin/env bash
# Builds the emulated driver, a libcuda.so that runs thema's kernels on this processor, and prints its folder.
#
# Tests call it; what it builds lies in the cache, by a hash of all that goes into it, so that it is built once.
# Usage: build.sh [FOLDER_OF_KERNELS]; the mutation check builds from a changed copy.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kernels=$(cd "${1:-$here/..}" && pwd)
flags=(-std=c++17 -O2 -g1 -march=x86-64-v3 -ffp-contract=off -fPIC -pthread -DEMULATOR -Wall -Wextra -Werror
       -Wno-unknown-pragmas -Wno-unused-function -Wno-unused-parameter)
sources=("$kernels"/cuda/*.cu "$kernels"/emulator/driver.cpp)
hash=$(cat "$kernels"/cuda/*.{h,cu} "$kernels"/emulator/*.{h,cpp,sh} | sha256sum | cut -c1-16)
out=${THEMA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/thema}/emulator/$hash
mkdir -p "$out"
exec 9>"$out/lock"
flock 9
if [[ ! -e $out/libcuda.so ]]; then
    printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -I{} bash -c \
        'g++ "${@:3}" -x c++ -c "$1" -o "$2/$(basename "$1").o"' _ {} "$out" "${flags[@]}" >&2
    g++ -shared -pthread -Wl,-soname,libcuda.so -o "$out/libcuda.so.new" "$out"/*.o >&2
    mv "$out/libcuda.so.new" "$out/libcuda.so"
    rm "$out"/*.o
fi
echo "$out"
