#!/usr/bin/env bash
# Installs moto for the tests, unless it is there: a second S3 server, by pip, in an environment of its own.
cd "$(dirname "$0")"
# shellcheck source=tests/servers/lib/install.sh
. lib/install.sh

version=5.2.5
place=$servers/moto
if [ "$(cat "$place/version" 2>/dev/null)" = "$version" ]; then
  is_there moto
fi
python3 -c 'import ensurepip' 2>/dev/null || needs moto ensurepip=python3-venv
echo "moto: fetching the Python package moto by pip" >&2
# An environment of Python's does not bear being moved.
rm -rf "$place"
python3 -m venv "$place"
"$place/bin/pip" install -q "moto[server]==$version"
echo "$version" >"$place/version"
