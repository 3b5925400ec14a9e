#!/usr/bin/env bash
# Installs what the tests drive: Chromium with its WebDriver, and a Python environment (.venv) with the OpenAI client.
# What can not be installed is named, with the command to do it by hand; the tests that need it then say they skip.
set -uo pipefail
cd "$(dirname "$0")/.."

missing=0
say() { printf 'prepare: %s\n' "$*" >&2; }
lacks() { missing=1; say "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif sudo -n true 2>/dev/null; then sudo -n "$@"; else return 1; fi
}

# Installs Debian packages; the lists are refreshed once.
updated=0
apt_install() {
    command -v apt-get >/dev/null || return 1
    if [ "$updated" = 0 ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq || return 1
        updated=1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

has_browser() { command -v chromedriver >/dev/null && { command -v chromium || command -v google-chrome; } >/dev/null; }

if ! has_browser; then
    say "installing chromium and chromium-driver for the browser tests"
    apt_install chromium chromium-driver || true
    has_browser || lacks "no Chromium with chromedriver; install both (Debian: apt-get install chromium chromium-driver)"
fi

has_clients() { [ -x .venv/bin/python ] && .venv/bin/python -c 'import openai, yaml, jsonschema' 2>/dev/null; }

# Three ways, because distributions ship Python in parts: with everything, without ensurepip (Debian without
# python3-venv), and with a pip too old to install into another environment.
make_venv() {
    rm -rf .venv
    if python3 -m venv .venv >/dev/null 2>&1; then
        .venv/bin/python -m pip install --quiet --requirement tests/requirements.txt
        return
    fi
    rm -rf .venv
    python3 -m venv --without-pip .venv || return 1
    local site
    site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || return 1
    python3 -m pip install --quiet --target "$site" --requirement tests/requirements.txt
}

if ! has_clients; then
    say "making .venv with the Python clients"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        apt_install python3 python3-pip || true
    fi
    make_venv || true
    has_clients || lacks "no .venv with the packages of tests/requirements.txt; with python3 and pip: python3 -m venv .venv && .venv/bin/pip install -r tests/requirements.txt"
fi

[ "$missing" = 0 ] || say "going on without: the tests that need it say that they skip"
exit 0
