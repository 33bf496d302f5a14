#!/usr/bin/env bash
# Installs two readers of Delta tables for the tests, unless they are there: Delta Kernel for Java, whose jars Maven
# fetches, and the Python package deltalake, in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/delta"

place=${THEMA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/thema}/servers/delta
# What was fetched is for these files; others are fetched beside it and then take its place.
is_same() {
  for file in pom.xml Rows.java requirements.txt; do
    cmp -s "$file" "$place/$file" || return 1
  done
}
if is_same && command -v java >/dev/null; then
  exit 0
fi
missing=()
command -v javac >/dev/null || missing+=(default-jdk-headless)
command -v mvn >/dev/null || missing+=(maven)
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  echo "delta: installing ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
rm -rf "$place"
mkdir -p "$place"
echo "delta: fetching Delta Kernel for Java by Maven" >&2
if ! mvn -q -B -f pom.xml dependency:copy-dependencies -DoutputDirectory="$place/libs" >"$place/log"; then
  cat "$place/log" >&2
  echo "delta: Maven could not fetch io.delta:delta-kernel-defaults; is its central repository reachable?" >&2
  exit 1
fi
javac -d "$place/classes" -cp "$place/libs/*" Rows.java
echo "delta: fetching the Python package deltalake by pip" >&2
python3 -m venv "$place/python"
"$place/python/bin/pip" install -q -r requirements.txt
cp pom.xml Rows.java requirements.txt "$place"
