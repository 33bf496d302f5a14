#!/usr/bin/env bash
# Prints the arguments with which tests are left out that cannot run here, for want of what Maven could not fetch, and
# says on standard error which they are.
cd "$(dirname "$0")"
# shellcheck source=tests/servers/lib/install.sh
. install.sh

for list in left-out/*; do
  name=$(basename "$list")
  [ -e "$servers/without-$name" ] || continue
  while read -r tests; do
    echo "not run here, without $name: $tests" >&2
    echo "--skip $tests"
  done <"$list"
done
