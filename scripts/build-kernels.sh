#!/usr/bin/env bash
# Compiles the CUDA kernels with the one pinned compiler; see kernels/cuda/build.py. Arguments go there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# 12.8: its cubins load with every driver of CUDA 12 and later, its PTX with those that know Blackwell.
version=12.8.93
venv=${THEMA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/thema}/nvrtc-$version
if [[ ! -e $venv/ready ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "nvidia-cuda-nvrtc-cu12==$version"
    touch "$venv/ready"
fi
exec "$venv/bin/python" "$here/../kernels/cuda/build.py" "$@"
