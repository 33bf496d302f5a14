#!/bin/sh
# Installs headless Chromium for the browser test, unless it is there. Debian, as root.
set -eu
if command -v chromium >/dev/null; then
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium
