#!/usr/bin/env bash
# What the tests of pages need: Node.js (there already), Playwright's driver and axe beside this script, and
# Chromium, which is installed where this is Debian or Ubuntu and we may.
set -euo pipefail
cd "$(dirname "$0")"

command -v node >/dev/null || { echo "no Node.js: the tests of pages need version 20 or newer" >&2; exit 1; }
npm ci --silent --no-audit --no-fund

if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null && [ -z "${CHROMIUM:-}" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
    else
        echo "no Chromium: install it, or name it with CHROMIUM=PATH" >&2
        exit 1
    fi
fi
