#!/usr/bin/env bash
# Installs Apicurio Registry for the tests of Avro, unless it is there: a Java runtime and Maven from Debian's packages
# (as root), and the server, which Maven fetches, into the cache.
cd "$(dirname "$0")"
# shellcheck source=tests/servers/lib/install.sh
. lib/install.sh

version=2.6.13.Final
place=$servers/registry
if [ "$(cat "$place/version" 2>/dev/null)" = "$version" ] && command -v java >/dev/null; then
  is_there registry
fi
needs registry java=default-jre-headless mvn=maven
fresh=$place.fresh-$$
packed=$(mktemp -d)
trap 'rm -rf "$fresh" "$packed"' EXIT
maven registry io.apicurio:apicurio-registry-app org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
  -Dartifact="io.apicurio:apicurio-registry-app:$version:tar.gz:all" -DoutputDirectory="$packed"
mkdir -p "$fresh"
tar -xzf "$packed"/*.tar.gz -C "$fresh"
echo "$version" >"$fresh/version"
rm -rf "$place"
mv "$fresh" "$place"
