#!/usr/bin/env bash
# Installs skelebot from this checkout for the current user, without root and without changing the system's Python.
set -euo pipefail
umask 022

usage() {
    cat <<'X'
usage: ./install.sh [--example] [--uninstall] [--help]

Installs skelebot into a separate environment and links it into a folder on your PATH: with uv or pipx if available,
otherwise in ~/.local/share/skelebot/venv and ~/.local/bin. Run it again to update the installation.

  --example     then run the project in examples/iris: in Docker if an engine and the base image are available,
                otherwise natively (SKELEBOT_BASE_IMAGE sets another base image)
  --uninstall   remove what an earlier ./install.sh installed

SKELEBOT_PYTHON sets the Python to use (3.10 or later); the default is the one on PATH.
X
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
EXAMPLE=false UNINSTALL=false
PULL_SECONDS=60
MINIMUM="Python 3.10 or later"

say() { printf '%s\n' "$*"; }
die() { printf 'ERROR | %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
# macOS has no timeout command, so there the program takes as long as it takes.
within() { if have timeout; then timeout "$@"; else shift; "$@"; fi; }

parse_arguments() {
    local word
    for word; do
        case $word in
            --example) EXAMPLE=true ;;
            --uninstall) UNINSTALL=true ;;
            -h | --help) usage; exit 0 ;;
            *) printf "ERROR | unknown argument '%s'; see ./install.sh --help\n" "$word" >&2; exit 2 ;;
        esac
    done
    if "$EXAMPLE" && "$UNINSTALL"; then
        printf 'ERROR | --example cannot be combined with --uninstall; leave one out\n' >&2
        exit 2
    fi
}

prepare() {
    [ -n "${HOME:-}" ] || die "HOME is not set; set it to the folder to install below"
    DATA=${XDG_DATA_HOME:-$HOME/.local/share}/skelebot
    VENV=$DATA/venv
    RECORD=$DATA/installed-with          # the way that was used, for --uninstall
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    # Settings of the caller that would make pip install outside the environment.
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
    # uv brings its own certificates; behind a proxy that signs with another CA, only the system's work.
    quietly uv_tool_install "$1" || UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 quietly uv_tool_install "$1"
}
uv_tool_install() { uv tool install --force --reinstall --compile-bytecode ${PYTHON:+--python "$PYTHON"} "$1"; }

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
    # Debian's and Ubuntu's Python has no ensurepip without the package python3-venv.
    rm -rf "$VENV"
    if quietly "$PYTHON" -m venv --without-pip "$VENV" && bootstrap_pip; then return; fi
    rm -rf "$VENV"
    rmdir "$DATA" 2>/dev/null || true
    tail -n 3 "$WORK/log" >&2
    die "$PYTHON cannot create an environment with pip; install pip first (Debian, Ubuntu: apt install python3-venv)"
}

bootstrap_pip() {
    quietly "$PYTHON" -m pip --python "$VENV/bin/python" install pip && return
    local wheel
    # pip can run from its own wheel, and so install itself.
    wheel=$(cd "$WORK" && "$PYTHON" - 2>>"$WORK/log" <<'X'
import hashlib, json, urllib.parse, urllib.request

INDEX = "https://pypi.org/pypi/pip/json"

def fetch(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()

files = json.loads(fetch(INDEX))["urls"]
wheel = next(f for f in files if f["packagetype"] == "bdist_wheel")
content = fetch(urllib.parse.urljoin(INDEX, wheel["url"]))  # a mirror may give relative URLs
assert hashlib.sha256(content).hexdigest() == wheel["digests"]["sha256"], "pip's wheel arrived damaged"
with open(wheel["filename"], "wb") as file:
    file.write(content)
print(wheel["filename"])
X
    ) || return 1
    quietly "$VENV/bin/python" "$WORK/$wheel/pip" install pip
}

# The tools' output is only shown if nothing worked.
quietly() { "$@" </dev/null >>"$WORK/log" 2>&1; }

# --- installing -----------------------------------------------------------------------------------------------

find_python() {
    local candidate candidates
    candidates="python3 python3.14 python3.13 python3.12 python3.11 python3.10 python"
    if [ -n "${SKELEBOT_PYTHON:-}" ]; then
        resolve_python "$SKELEBOT_PYTHON" || die "SKELEBOT_PYTHON=$SKELEBOT_PYTHON is not $MINIMUM"
        return
    fi
    for candidate in $candidates; do
        resolve_python "$candidate" && return
    done
    return 1
}

# The real program: `python3` may be a shim, or belong to an active virtual environment that is deleted later.
resolve_python() {
    "$1" -c 'import sys; sys.version_info >= (3, 10) or sys.exit(1); print(getattr(sys, "_base_executable", sys.executable))' 2>/dev/null
}

recorded_way() { if [ -e "$RECORD" ]; then cat "$RECORD"; fi; }

# The previous way, to avoid a second installation, or else all that are available.
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
    [ -n "$(ways)" ] || die "no $MINIMUM found; install one, or set SKELEBOT_PYTHON to it"
    copy_source "$copy"
    for way in $(ways); do
        refuse_foreign_file "$way"
        say "installing skelebot with $way"
        if "${way}_install" "$copy"; then
            finish "$way"
            return
        fi
        say "$way could not install skelebot"
    done
    tail -n 20 "$WORK/log" >&2
    die "skelebot could not be installed; see the messages above"
}

# A build leaves files next to setup.py, so it runs in a copy.
copy_source() {
    mkdir "$1"
    (cd "$ROOT" && tar -c --exclude=__pycache__ -f - setup.py pyproject.toml README.md LICENSE skelebot) |
        tar -x -C "$1" -f - || die "the checkout in $ROOT is incomplete; make a new one"
}

is_ours() {
    local link home real
    link=$("${1}_bin")/skelebot
    home=$("${1}_home")
    # As written, for a dangling link; and resolved, for a home that is spelt differently.
    if [[ $(readlink "$link") == "$home"/* ]]; then return; fi
    real=$(readlink -f "$home") && [[ $(readlink -f "$link") == "$real"/* ]]
}

refuse_foreign_file() {
    local file
    file=$("${1}_bin")/skelebot
    if [ -e "$file" ] || [ -L "$file" ]; then
        is_ours "$1" || die "$file already exists and belongs to something else; move it away and try again"
    fi
}

finish() {
    local way=$1 version
    BIN=$("${way}_bin")
    version=$("$BIN/skelebot" --version) || die "$BIN/skelebot was installed but does not run"
    mkdir -p "$DATA"
    printf '%s\n' "$way" >"$RECORD"
    say "installed $BIN/skelebot ($version)"
    check_path
}

check_path() {
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
        say "nothing to uninstall: this script has not installed skelebot in $HOME"
        return
    fi
    PYTHON=$(find_python) || PYTHON=
    [ "$way" = venv ] || "${way}_there" || die "skelebot was installed with $way, which is not available; install $way again"
    if ! "${way}_uninstall" && is_ours "$way"; then
        tail -n 20 "$WORK/log" >&2
        die "$way could not uninstall skelebot; see its messages above"
    fi
    rm -f "$RECORD"
    rmdir "$DATA" 2>/dev/null || true        # kept if it is not empty
    say "uninstalled skelebot ($way)"
}

# --- the example ----------------------------------------------------------------------------------------------

run_example() {
    local reason
    cd "$ROOT/examples/iris"
    say
    if reason=$(why_not_docker); then
        say "running the example natively (skelebot -n), because $reason"
        run_jobs -n
    else
        say "running the example in Docker, on the base image $reason"
        run_jobs
    fi
    say "the example's results are in $PWD"
}

run_jobs() {
    "$BIN/skelebot" "$@" score || die "the example failed (exit code $?); see above"
}

# Succeeds and prints the reason, or fails and prints the base image.
why_not_docker() {
    local client=${SKELEBOT_DOCKER:-docker} image
    if ! have "$client"; then echo "there is no docker program"; return; fi
    if ! within 20 "$client" version >/dev/null 2>&1; then echo "no Docker engine answers"; return; fi
    image=$(base_image)
    if ! pull_problem "$client" "$image"; then
        echo "$image"
        return 1
    fi
}

# The one that skelebot would use, including SKELEBOT_BASE_IMAGE.
base_image() { "$BIN/skelebot" --dry-run load | sed -n 's/^[ |]*FROM *//p' | head -n 1; }

# Succeeds and prints why the base image is not there, or fails once it is.
pull_problem() {
    local client=$1 image=$2 code=0
    if "$client" image inspect "$image" >/dev/null 2>&1; then return 1; fi
    printf 'pulling the base image %s, which may take up to %s seconds\n' "$image" "$PULL_SECONDS" >&2
    within "$PULL_SECONDS" "$client" pull "$image" >/dev/null 2>"$WORK/pull" || code=$?
    case $code in
        0) return 1 ;;
        124) echo "the base image $image did not arrive within $PULL_SECONDS seconds (\`docker pull $image\` takes longer)" ;;
        *) echo "the base image $image could not be pulled: $(tail -n 1 "$WORK/pull")" ;;
    esac
}

main() {
    parse_arguments "$@"
    prepare
    if "$UNINSTALL"; then uninstall; return; fi
    install
    if "$EXAMPLE"; then run_example; fi
}

main "$@"
