#!/usr/bin/env bash
# Installs Apache Kafka for the tests of streams, unless it is there: a Java runtime and Maven from Debian's packages
# (as root), and Kafka's jars, which Maven fetches, into the cache.
set -euo pipefail
cd "$(dirname "$0")"

jars=${THEMA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/thema}/servers/kafka
# What was fetched is for one pom.xml; another one is fetched beside it and then takes its place.
if cmp -s kafka/pom.xml "$jars/pom.xml" && command -v java >/dev/null; then
  exit 0
fi
missing=()
command -v java >/dev/null || missing+=(default-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
if [ ${#missing[@]} -gt 0 ]; then
  echo "kafka: installing ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
fresh=$jars.fresh-$$
trap 'rm -rf "$fresh"' EXIT
mkdir -p "$fresh"
echo "kafka: fetching the broker's jars by Maven" >&2
if ! mvn -q -B -f kafka/pom.xml dependency:copy-dependencies -DoutputDirectory="$fresh/libs" >"$fresh/log"; then
  cat "$fresh/log" >&2
  echo "kafka: Maven could not fetch org.apache.kafka:kafka_2.13; is its central repository reachable?" >&2
  exit 1
fi
cp kafka/pom.xml "$fresh/pom.xml"
rm -rf "$jars"
mv "$fresh" "$jars"
