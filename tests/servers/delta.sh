#!/usr/bin/env bash
# Installs two readers of Delta tables for the tests, unless they are there: Delta Kernel for Java, whose jars Maven
# fetches, and the Python package deltalake, in an environment of its own.
cd "$(dirname "$0")"
# shellcheck source=tests/servers/lib/install.sh
. lib/install.sh

place=$servers/delta
# What was fetched is for these files; for others it is fetched anew.
is_same() {
  for file in pom.xml Rows.java requirements.txt; do
    cmp -s "delta/$file" "$place/$file" || return 1
  done
}
if is_same && command -v java >/dev/null; then
  is_there delta
fi
needs delta javac=default-jdk-headless mvn=maven
python3 -c 'import ensurepip' 2>/dev/null || needs delta ensurepip=python3-venv
fresh=$place.fresh-$$
trap 'rm -rf "$fresh"' EXIT
mkdir -p "$fresh"
maven delta io.delta:delta-kernel-defaults -f delta/pom.xml dependency:copy-dependencies -DoutputDirectory="$fresh/libs"
javac -d "$fresh/classes" -cp "$fresh/libs/*" delta/Rows.java
echo "delta: fetching the Python package deltalake by pip" >&2
# An environment of Python's does not bear being moved.
rm -rf "$place"
mv "$fresh" "$place"
python3 -m venv "$place/python"
"$place/python/bin/pip" install -q -r delta/requirements.txt
# What is not whole lacks these, and is fetched anew.
for file in pom.xml Rows.java requirements.txt; do
  cp "delta/$file" "$place"
done
