#!/usr/bin/env bash
# Installs Apache Kafka for the tests of streams, unless it is there: a Java runtime and Maven from Debian's packages
# (as root), and Kafka's jars, which Maven fetches, into the cache.
cd "$(dirname "$0")"
# shellcheck source=tests/servers/lib/install.sh
. lib/install.sh

place=$servers/kafka
# What was fetched is for one pom.xml; another one is fetched beside it and then takes its place.
if cmp -s kafka/pom.xml "$place/pom.xml" && command -v java >/dev/null; then
  exit 0
fi
needs kafka java=default-jre-headless mvn=maven
fresh=$place.fresh-$$
trap 'rm -rf "$fresh"' EXIT
mkdir -p "$fresh"
maven kafka org.apache.kafka:kafka_2.13 -f kafka/pom.xml dependency:copy-dependencies -DoutputDirectory="$fresh/libs"
cp kafka/pom.xml "$fresh/pom.xml"
rm -rf "$place"
mv "$fresh" "$place"
