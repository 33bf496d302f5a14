#!/usr/bin/env bash
# Installs what building thema needs and this machine lacks: a C compiler (the TLS, zstd and Kafka crates compile C),
# OpenSSL and zlib to compile them against, make, pip (it fetches the default encoder) and Rust. With --lint also what
# `make lint` needs.
#
#   scripts/setup.sh [--lint]
#
# Made for a fresh Debian or one of its relatives, where it installs packages with apt-get; elsewhere it names what
# is missing and stops. A machine that has everything is left untouched, and nothing on it is ever replaced.
set -euo pipefail
cd "$(dirname "$0")/.."

lint=false
case "${1-}" in
  "") ;;
  --lint) lint=true ;;
  *) echo "setup: unknown argument \"$1\", expected --lint or nothing" >&2; exit 2 ;;
esac
rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

fail() { printf 'setup: %s\n' "$@" >&2; exit 2; }
has() { command -v "$1" >/dev/null 2>&1; }
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; } # at_least WANTED ACTUAL

compiles_c() { has cc && echo '#include <stdlib.h>' | cc -fsyntax-only -x c - 2>/dev/null; }
# The tests run the GPU's kernels on this processor, compiled by g++.
compiles_cxx() { has g++ && echo '#include <vector>' | g++ -fsyntax-only -x c++ - 2>/dev/null; }
# The client of Kafka is compiled against both.
has_header() { echo "#include <$1>" | cc -fsyntax-only -x c - 2>/dev/null; }
has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }
has_pip() { has python3 && python3 -m pip --version >/dev/null 2>&1; }
has_rust() { has cargo && has rustc && at_least "$rust_needed" "$(rustc --version | cut -d ' ' -f 2)"; }
has_rust_lints() { cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Stops, naming all that is missing, where packages cannot be installed; otherwise refreshes apt's lists, once a run
# and only now that something is missing: they may be absent (in images) or old.
refreshed=false
prepare() {
  has apt-get || fail "no apt-get here; install by whatever this system has: $*"
  [ "$(id -u)" = 0 ] || has sudo || fail "not root, and there is no sudo; install as root: $*"
  $refreshed || as_root apt-get update -qq || fail "apt-get update failed"
  refreshed=true
}

# Quiet unless it fails; --no-remove, so that no package of the user's gives way to ours.
install() {
  local log; log=$(mktemp)
  echo "setup: installing $*" >&2
  if ! as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-remove --no-install-recommends "$@" >"$log" 2>&1; then
    cat "$log" >&2; rm -f "$log"
    fail "could not install: $*"
  fi
  rm -f "$log"
}

# The upstream version of the package that apt would install, e.g. 1.96.0; empty if there is none.
candidate() { apt-cache policy "$1" | sed -n 's/^  Candidate: \([0-9.]*\).*/\1/p'; }

install_rust() {
  local found="none"
  if has rustc; then found=$(rustc --version); fi
  if has rustup; then
    fail "Rust $rust_needed or newer is needed, found: $found" "rustup is here: run \`rustup update stable\`, then this again"
  fi
  prepare "Rust $rust_needed or newer (found: $found)"
  # Debian keeps a recent Rust beside its frozen one, for building browsers: rustc-web.
  if at_least "$rust_needed" "$(candidate rustc-web)"; then
    install rustc-web cargo-web rust-web-clippy rustfmt-web; return
  elif at_least "$rust_needed" "$(candidate rustc)"; then
    install rustc cargo rust-clippy rustfmt; return
  elif [ -n "$(candidate rustup)" ]; then
    install rustup
    rustup default "$rust_needed" || fail "rustup could not fetch Rust $rust_needed"
    return
  fi
  fail "Rust $rust_needed or newer is needed, found: $found, and apt offers none" \
    "on Debian 12 it is the package rustc-web of the suite bookworm-updates: is that suite in the sources of apt?" \
    "otherwise install it with rustup, as the Rust project's install page says; then run this again"
}

missing=()
compiles_c || missing+=(gcc libc6-dev)
compiles_cxx || missing+=(g++)
has make || missing+=(make)
has pkg-config || missing+=(pkg-config)
has_header openssl/ssl.h || missing+=(libssl-dev)
has_header zlib.h || missing+=(zlib1g-dev)
has_pip || missing+=(python3 python3-pip)
# The roots by which cargo and pip know whom they talk to; minimal images come without.
[ ! -d /etc/apt ] || [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
if $lint; then
  has shellcheck || missing+=(shellcheck)
  has_venv || missing+=(python3-venv)
fi

if [ ${#missing[@]} -gt 0 ]; then
  prepare "${missing[*]}"
  install "${missing[@]}"
fi
if ! has_rust; then
  install_rust
  has_rust || fail "Rust was installed, but $(command -v rustc || echo 'no rustc') comes first in PATH and is older than $rust_needed"
fi
if $lint && ! has_rust_lints; then
  fail "cargo clippy or cargo fmt is missing: run \`rustup component add clippy rustfmt\`" \
    "or install the packages of your Rust (rust-web-clippy and rustfmt-web, or rust-clippy and rustfmt)"
fi
