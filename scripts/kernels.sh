#!/usr/bin/env bash
# What the CUDA kernels need beside cargo, with tools of pinned versions in a virtual environment in the cache.
#
#   scripts/kernels.sh build     compiles them into kernels/cuda/built, which the program embeds (see build.py there)
#   scripts/kernels.sh check     compiles them too, and fails where built/ differs by a byte, or registers are spilled
#   scripts/kernels.sh format    formats them and the emulator; `format --check` fails where that would change anything
#   scripts/kernels.sh planted   plants bugs in them, one after another, and fails where no test sees one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

requirements=kernels/cuda/requirements.txt
cache=${THEMA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/thema}
tools=$cache/kernel-tools-$(sha256sum "$requirements" | cut -c1-8)
if [[ ! -e $tools/ready ]]; then
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
  touch "$tools/ready"
fi

case ${1:-} in
  build) "$tools/bin/python" kernels/cuda/build.py ;;
  check) "$tools/bin/python" kernels/cuda/build.py --check ;;
  format)
    how=(-i)
    if [[ ${2:-} == --check ]]; then how=(--dry-run --Werror); fi
    "$tools/bin/clang-format" "${how[@]}" kernels/cuda/*.{h,cu} kernels/emulator/*.{h,cpp}
    ;;
  planted) "$tools/bin/python" kernels/tests/planted_bugs.py "${@:2}" ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" && exit 2 ;;
esac
