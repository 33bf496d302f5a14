#!/usr/bin/env bash
# Installs libfaketime, unless it is there: Debian, as root. Streams are shown clocks that jump.
cd "$(dirname "$0")"
# shellcheck source=tests/servers/lib/install.sh
. lib/install.sh

needs faketime faketime=faketime
