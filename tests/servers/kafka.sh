#!/usr/bin/env bash
# Installs Apache Kafka for the tests of streams, unless it is there: a Java runtime and Maven from Debian's packages
# (as root), and Kafka's jars, which Maven fetches, into the cache. Where Maven cannot, pip fetches another broker, which
# is enough for some of the tests.
cd "$(dirname "$0")"
# shellcheck source=tests/servers/lib/install.sh
. lib/install.sh

place=$servers/kafka
# What was fetched is for one pom.xml; another one is fetched beside it and then takes its place.
if cmp -s kafka/pom.xml "$place/pom.xml" && command -v java >/dev/null; then
  is_there kafka
fi
needs kafka java=default-jre-headless mvn=maven
# What takes its place.
without() {
  local standin=$servers/noida
  if [ -x "$standin/broker" ] && cmp -s kafka/noida.txt "$standin/noida.txt"; then
    return
  fi
  echo "kafka: fetching noida-db by pip instead" >&2
  python3 -c 'import ensurepip' 2>/dev/null || needs kafka ensurepip=python3-venv
  rm -rf "$standin"
  python3 -m venv "$standin"
  "$standin/bin/pip" install -q -r kafka/noida.txt
  # Its command is a script that would outlive the tests' signals; this is the broker itself.
  ln -s "$standin"/lib/python3*/site-packages/noida_db/noida-db "$standin/broker"
  [ -x "$standin/broker" ]
  cp kafka/noida.txt "$standin"
}
fresh=$place.fresh-$$
trap 'rm -rf "$fresh"' EXIT
mkdir -p "$fresh"
maven kafka org.apache.kafka:kafka_2.13 -f kafka/pom.xml dependency:copy-dependencies -DoutputDirectory="$fresh/libs"
cp kafka/pom.xml "$fresh/pom.xml"
rm -rf "$place"
mv "$fresh" "$place"
