#!/usr/bin/env bash
# Gives the integration tests a real browser: Chromium or Chrome, and the driver through which they steer it.
#
#   eval "$(tests/browser.sh)"     find both, or install them, and export where the browser is
#
# Installing takes root on Debian. Only an `export` line goes to stdout; progress goes to stderr.
set -euo pipefail
exec 3>&1 1>&2                   # whatever a tool prints must not be eval'd by the caller

say() { printf 'browser: %s\n' "$*"; }
die() { printf 'ERROR | browser: %s\n' "$*"; exit 1; }

find_browser() {
    command -v chromedriver >/dev/null && { command -v chromium || command -v google-chrome; }
}

install_browser() {
    say "installing chromium"
    apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null || say "apt-get update had errors; going on"
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
        chromium chromium-driver fonts-dejavu-core </dev/null >/dev/null || die "apt-get could not install chromium"
    hash -r
}

main() {
    find_browser >/dev/null || install_browser
    printf 'export SKELEBOT_TEST_BROWSER=%q\n' "$(find_browser)" >&3
}

main
