#!/usr/bin/env bash
# Installs skelebot from this checkout, for this user alone; no root, and nothing of the system's Python is touched.
set -euo pipefail
umask 022

usage() {
    cat <<'X'
usage: ./install.sh [--example] [--uninstall] [--help]

Puts skelebot into an environment of its own and links it into your PATH: with uv or pipx where present, otherwise
into ~/.local/share/skelebot/venv and ~/.local/bin. Run it again to bring the installation up to date.

  --example     then run the project in examples/iris: in Docker where an engine and the base image can be had,
                otherwise natively (SKELEBOT_BASE_IMAGE names another base image)
  --uninstall   undo what an earlier ./install.sh did

SKELEBOT_PYTHON names the Python to use (3.10 or later); without it, the one on PATH.
X
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
EXAMPLE=false UNINSTALL=false
PULL_SECONDS=20
MINIMUM="Python 3.10 or later"

say() { printf '%s\n' "$*"; }
die() { printf 'ERROR | %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
# macOS has no timeout; there the wait is as long as the program's own.
within() { if have timeout; then timeout "$@"; else shift; "$@"; fi; }

parse_words() {
    local word
    for word; do
        case $word in
            --example) EXAMPLE=true ;;
            --uninstall) UNINSTALL=true ;;
            -h | --help) usage; exit 0 ;;
            *) printf "ERROR | unknown word '%s'; see ./install.sh --help\n" "$word" >&2; exit 2 ;;
        esac
    done
    if "$EXAMPLE" && "$UNINSTALL"; then
        printf 'ERROR | --example and --uninstall exclude each other\n' >&2
        exit 2
    fi
}

prepare() {
    [ -n "${HOME:-}" ] || die "HOME is not set; it says where to install to"
    DATA=${XDG_DATA_HOME:-$HOME/.local/share}/skelebot
    VENV=$DATA/venv
    RECORD=$DATA/installed-with          # which way was used, so that --uninstall undoes that one and no other
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    # Settings of the caller's that would lead pip out of the environment it is told to fill.
    unset PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV PYTHONPATH PYTHONHOME
    export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1
}

# --- the ways to install --------------------------------------------------------------------------------------
# Each way WAY has: WAY_there, WAY_bin (the folder of the link), WAY_home (what the link points into),
# WAY_install COPY and WAY_uninstall.

uv_there() { have uv; }
uv_bin() { uv tool dir --bin; }
uv_home() { printf '%s/skelebot\n' "$(uv tool dir)"; }
uv_uninstall() { quietly uv tool uninstall skelebot; }
uv_install() {
    # uv brings certificates of its own; behind a proxy that signs with another CA, only the system's will do.
    quietly uv_tool_install "$1" || UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 quietly uv_tool_install "$1"
}
uv_tool_install() { uv tool install --force --reinstall ${PYTHON:+--python "$PYTHON"} "$1"; }

pipx_there() { have pipx && [ -n "$PYTHON" ] && pipx environment --value PIPX_LOCAL_VENVS >/dev/null 2>&1; }
pipx_bin() { pipx environment --value PIPX_BIN_DIR; }
pipx_home() { printf '%s/skelebot\n' "$(pipx environment --value PIPX_LOCAL_VENVS)"; }
pipx_install() { quietly pipx install --force --python "$PYTHON" "$1"; }
pipx_uninstall() { quietly pipx uninstall skelebot; }

venv_there() { [ -n "$PYTHON" ]; }
venv_bin() { printf '%s\n' "$HOME/.local/bin"; }
venv_home() { printf '%s\n' "$VENV"; }
venv_install() {
    venv_is_sound || make_venv || return 1
    quietly "$VENV/bin/python" -m pip install --upgrade "$1" || return 1
    mkdir -p "$(venv_bin)"
    ln -sfn "$VENV/bin/skelebot" "$(venv_bin)/skelebot"
}
venv_uninstall() {
    if is_ours venv; then rm -f "$(venv_bin)/skelebot"; fi
    rm -rf "$VENV"
}

venv_is_sound() {
    [ -x "$VENV/bin/skelebot" ] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1
}

make_venv() {
    mkdir -p "$DATA"
    rm -rf "$VENV"
    quietly "$PYTHON" -m venv "$VENV" && return
    # Debian's and Ubuntu's Python has no ensurepip until the package python3-venv is there.
    rm -rf "$VENV"
    if quietly "$PYTHON" -m venv --without-pip "$VENV" && bootstrap_pip; then return; fi
    rm -rf "$VENV"
    rmdir "$DATA" 2>/dev/null || true
    tail -n 3 "$WORK/log" >&2
    die "$PYTHON cannot make an environment with pip; install it first (Debian, Ubuntu: apt install python3-venv)"
}

bootstrap_pip() {
    quietly "$PYTHON" -m pip --python "$VENV/bin/python" install pip && return
    local wheel
    # A wheel is also a program: pip can be run from its own, to install itself.
    wheel=$(cd "$WORK" && "$PYTHON" - 2>>"$WORK/log" <<'X'
import hashlib, json, urllib.parse, urllib.request

INDEX = "https://pypi.org/pypi/pip/json"

def fetch(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()

files = json.loads(fetch(INDEX))["urls"]
wheel = next(f for f in files if f["packagetype"] == "bdist_wheel")
content = fetch(urllib.parse.urljoin(INDEX, wheel["url"]))  # a mirror may give relative ones
assert hashlib.sha256(content).hexdigest() == wheel["digests"]["sha256"], "pip's wheel arrived damaged"
with open(wheel["filename"], "wb") as file:
    file.write(content)
print(wheel["filename"])
X
    ) || return 1
    quietly "$VENV/bin/python" "$WORK/$wheel/pip" install pip
}

# What a tool says is of interest only when nothing worked.
quietly() { "$@" </dev/null >>"$WORK/log" 2>&1; }

# --- installing -----------------------------------------------------------------------------------------------

find_python() {
    local candidate candidates
    candidates="python3 python3.14 python3.13 python3.12 python3.11 python3.10 python"
    if [ -n "${SKELEBOT_PYTHON:-}" ]; then
        resolve_python "$SKELEBOT_PYTHON" || die "SKELEBOT_PYTHON=$SKELEBOT_PYTHON is no $MINIMUM"
        return
    fi
    for candidate in $candidates; do
        resolve_python "$candidate" && return
    done
    return 1
}

# The program itself: `python3` may be a shim, or an active virtual environment's, which may be gone tomorrow.
resolve_python() {
    "$1" -c 'import sys; sys.version_info >= (3, 10) or sys.exit(1); print(getattr(sys, "_base_executable", sys.executable))' 2>/dev/null
}

recorded_way() { if [ -e "$RECORD" ]; then cat "$RECORD"; fi; }

# The way of the last time, so that no second installation comes beside it; else the first that can be had.
ways() {
    local way recorded
    recorded=$(recorded_way)
    if [ -n "$recorded" ] && "${recorded}_there"; then echo "$recorded"; return; fi
    for way in uv pipx venv; do
        if "${way}_there"; then echo "$way"; fi
    done
}

install() {
    local way copy=$WORK/source
    PYTHON=$(find_python) || PYTHON=
    [ -z "${SKELEBOT_PYTHON:-}" ] || [ -n "$PYTHON" ] || exit 1
    [ -n "$(ways)" ] || die "no $MINIMUM found; install one, or name it with SKELEBOT_PYTHON"
    copy_source "$copy"
    for way in $(ways); do
        refuse_foreign_file "$way"
        say "installing skelebot with $way"
        if "${way}_install" "$copy"; then
            finish "$way"
            return
        fi
        say "$way could not install it"
    done
    tail -n 20 "$WORK/log" >&2
    die "skelebot could not be installed; what the tools said stands above"
}

# Building leaves files beside setup.py, so it happens in a copy.
copy_source() {
    mkdir "$1"
    (cd "$ROOT" && tar -c --exclude=__pycache__ -f - setup.py pyproject.toml README.md LICENSE skelebot) |
        tar -x -C "$1" -f - || die "the checkout in $ROOT is not whole"
}

is_ours() {
    local link home real
    link=$("${1}_bin")/skelebot
    home=$("${1}_home")
    # As it is written, for a link that leads nowhere now; and as it resolves, for a home spelt in another way.
    if [[ $(readlink "$link") == "$home"/* ]]; then return; fi
    real=$(readlink -f "$home") && [[ $(readlink -f "$link") == "$real"/* ]]
}

refuse_foreign_file() {
    local file
    file=$("${1}_bin")/skelebot
    if [ -e "$file" ] || [ -L "$file" ]; then
        is_ours "$1" || die "$file is there already and is not this installation's; move it away and try again"
    fi
}

finish() {
    local way=$1 version
    BIN=$("${way}_bin")
    version=$("$BIN/skelebot" --version) || die "$BIN/skelebot was installed but does not run"
    mkdir -p "$DATA"
    printf '%s\n' "$way" >"$RECORD"
    say "installed $BIN/skelebot ($version)"
    tell_about_path
}

tell_about_path() {
    local found profile=.profile
    case ${SHELL:-} in */zsh) profile=.zshrc ;; */bash) profile=.bashrc ;; esac
    case :$PATH: in
        *:"$BIN":*)
            found=$(command -v skelebot || true)
            [ "$found" = "$BIN/skelebot" ] || say "NOTE: $found comes before it on your PATH"
            ;;
        *)
            say "NOTE: $BIN is not on your PATH; add this line to ~/$profile and open a new terminal:"
            say "    export PATH=\"$BIN:\$PATH\""
            ;;
    esac
}

uninstall() {
    local way
    way=$(recorded_way)
    if [ -z "$way" ]; then
        say "there is nothing to undo: this script has not installed skelebot for $HOME"
        return
    fi
    PYTHON=$(find_python) || PYTHON=
    [ "$way" = venv ] || "${way}_there" || die "skelebot was installed with $way, which is gone; it has to be there again first"
    if ! "${way}_uninstall" && is_ours "$way"; then
        tail -n 20 "$WORK/log" >&2
        die "$way could not uninstall it"
    fi
    rm -f "$RECORD"
    rmdir "$DATA" 2>/dev/null || true        # kept where something else is in it
    say "uninstalled skelebot ($way)"
}

# --- the example ----------------------------------------------------------------------------------------------

run_example() {
    local reason
    cd "$ROOT/examples/iris"
    say
    if reason=$(why_not_docker); then
        say "the example runs natively (skelebot -n), as $reason"
        run_jobs -n
    else
        say "the example runs in Docker, from the base image $reason"
        run_jobs
    fi
    say "the example has run; what it wrote is in $PWD"
}

run_jobs() {
    "$BIN/skelebot" "$@" load + train forest + score || die "the example failed (exit code $?); see above"
}

# Says why not, and is true; or is false, and says which base image.
why_not_docker() {
    local client=${SKELEBOT_DOCKER:-docker} image
    if ! have "$client"; then echo "there is no docker program"; return; fi
    if ! within 20 "$client" version >/dev/null 2>&1; then echo "no Docker engine answers"; return; fi
    image=$(base_image)
    if ! image_at_hand "$client" "$image"; then echo "the base image $image cannot be had"; return; fi
    echo "$image"
    return 1
}

# As skelebot itself would choose it, SKELEBOT_BASE_IMAGE included.
base_image() { "$BIN/skelebot" --dry-run load | sed -n 's/^[ |]*FROM *//p' | head -n 1; }

image_at_hand() {
    "$1" image inspect "$2" >/dev/null 2>&1 || within "$PULL_SECONDS" "$1" pull "$2" >/dev/null 2>&1
}

main() {
    parse_words "$@"
    prepare
    if "$UNINSTALL"; then uninstall; return; fi
    install
    if "$EXAMPLE"; then run_example; fi
}

main "$@"
