#!/usr/bin/env bash
# What the scripts that install servers share; to be sourced.
set -euo pipefail

# Where servers are kept.
# shellcheck disable=SC2034 # for those that source this
servers=${THEMA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/thema}/servers

# Ends the script: what it installs is there.
is_there() { # is_there NAME
  rm -f "$servers/without-$1"
  exit 0
}

# Installs the packages of Debian that are missing, as root: `needs NAME COMMAND=PACKAGE...`.
needs() {
  local name=$1 missing=() pair
  shift
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    echo "$name: installing ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
}

# Lets Maven fetch `WHAT` by the rest of the arguments, quietly unless it fails: `maven NAME WHAT ARGUMENT...`. Where it
# cannot reach its repository, the tests that need it are left out, and `lib/left-out.sh` says which; never in CI.
maven() {
  local name=$1 what=$2 log
  shift 2
  echo "$name: fetching $what by Maven" >&2
  log=$(mktemp)
  if ! mvn -q -B "$@" >"$log"; then
    cat "$log" >&2
    grep -qE 'Could not transfer|No plugin found for prefix|could not be resolved' "$log" || exit 1
    rm "$log"
    echo "$name: Maven could not fetch $what; is its central repository reachable?" >&2
    [ -z "${CI:-}" ] || exit 1
    if declare -F without >/dev/null; then without; fi
    mkdir -p "$servers"
    touch "$servers/without-$name"
    exit 0
  fi
  rm -f "$log" "$servers/without-$name"
}
