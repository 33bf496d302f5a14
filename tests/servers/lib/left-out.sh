#!/usr/bin/env bash
# Prints the arguments with which tests are left out that cannot run here, for want of what Maven could not fetch, and
# says on standard error which they are.
cd "$(dirname "$0")"
# shellcheck source=tests/servers/lib/install.sh
. install.sh

[ -z "${CI:-}" ] || exit 0
for list in left-out/*; do
  name=$(basename "$list")
  [ -e "$servers/without-${name%%-*}" ] || continue
  # A broker of the user's is enough for these.
  [ "$name" != kafka-better ] || [ -z "${KAFKA_BOOTSTRAP:-}" ] || continue
  while read -r tests; do
    echo "not run here, without ${name%%-*}: $tests" >&2
    echo "--skip $tests"
  done <"$list"
done
