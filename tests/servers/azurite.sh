#!/usr/bin/env bash
# Installs Azurite for the tests, unless it is there: Azure's own server for tests of blob storage. Node and npm come from
# Debian's packages (as root), the server from npm.
cd "$(dirname "$0")"
# shellcheck source=tests/servers/lib/install.sh
. lib/install.sh

version=3.35.0
place=$servers/azurite
if [ "$(cat "$place/version" 2>/dev/null)" = "$version" ] && command -v node >/dev/null; then
  is_there azurite
fi
needs azurite node=nodejs npm=npm
fresh=$place.fresh-$$
trap 'rm -rf "$fresh"' EXIT
mkdir -p "$fresh"
echo "azurite: fetching azurite by npm" >&2
npm install --prefix "$fresh" --no-audit --no-fund --loglevel error "azurite@$version" >/dev/null
echo "$version" >"$fresh/version"
rm -rf "$place"
mv "$fresh" "$place"
