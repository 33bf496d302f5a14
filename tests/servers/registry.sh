#!/usr/bin/env bash
# Installs Apicurio Registry for the tests of Avro, unless it is there: a Java runtime and Maven from Debian's packages
# (as root), and the server, which Maven fetches, into the cache.
set -euo pipefail

version=2.6.13.Final
place=${THEMA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/thema}/servers/registry-$version
if [ -d "$place" ] && command -v java >/dev/null; then
  exit 0
fi
missing=()
command -v java >/dev/null || missing+=(default-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
if [ ${#missing[@]} -gt 0 ]; then
  echo "registry: installing ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
fresh=$place.fresh-$$
trap 'rm -rf "$fresh" "$fresh.log"' EXIT
mkdir -p "$fresh"
echo "registry: fetching Apicurio Registry by Maven" >&2
if ! mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack \
  -Dartifact="io.apicurio:apicurio-registry-app:$version:tar.gz:all" -DoutputDirectory="$fresh" >"$fresh.log"; then
  cat "$fresh.log" >&2
  echo "registry: Maven could not fetch io.apicurio:apicurio-registry-app; is its central repository reachable?" >&2
  exit 1
fi
rm -rf "$place"
mv "$fresh" "$place"
