#!/usr/bin/env bash
# Runs everything that must pass: lint, format, types, unit tests, integration tests.
set -uo pipefail
umask 022                        # tests also run what is installed here as an ordinary user
export LC_ALL=C.UTF-8

usage() {
    cat <<'X'
usage: tests/run.sh [--provision] [--unit] [--all] [-- PYTEST-ARGS…]

  --provision   start a Docker engine where none answers, an S3 and an MLflow server and a Kubernetes cluster, and
                install a browser (root, Debian or Ubuntu; implied by CI=true)
  --unit        no integration tests, hence no engine
  --all         all tests of the cluster, and all cases of slow tests, for twelve minutes more; otherwise one of each
                kind; implied by PYTEST-ARGS
  --            the rest goes to pytest: `-- -k chain`, or `-- tests/unit/test_plan.py::test_words`, which runs that alone

Makes its own environment, in /var/cache/skelebot-tests (root) or ~/.cache/skelebot-tests, from $SKELEBOT_PYTHON or
the Python it finds. Types and unit tests are also checked with the oldest and the newest Python on PATH, or with
those in SKELEBOT_OTHER_PYTHONS (paths or names; empty for none).

Without an engine, or an image to build from (SKELEBOT_TEST_BASE, python:3.11-slim), the tests that need one are
skipped; with CI=true that is a failure. So are those that need Chromium with its driver, and those that need the
cluster, whose programs are built once, in 4 to 30 minutes. Without the S3 server, moto's takes its place.
X
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PROVISION=false UNIT_ONLY=false
PYTEST_ARGS=()
RESULTS=() FAILED=()
STARTED=$EPOCHREALTIME
PULL_SECONDS=120
CLUSTER_BEFORE=2400              # seconds of a run after which its tests are left out; warm, they take 300
OLDEST=3.10                      # that the package supports
PYTHONS=(python3.10 python3.11 python3.12 python3.13 python3.14 python3.15)

say() { printf '\n== %s\n' "$*"; }
die() { printf 'ERROR | %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

parse_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --provision) PROVISION=true ;;
            --unit) UNIT_ONLY=true ;;
            --all) export SKELEBOT_TEST_ALL=true ;;
            -h | --help) usage; exit 0 ;;
            --) shift; PYTEST_ARGS=("$@"); export SKELEBOT_TEST_ALL=true; return ;;
            *) usage >&2; printf "ERROR | unknown argument '%s'; those of pytest go after --\n" "$1" >&2; exit 2 ;;
        esac
        shift
    done
}

may_install() { is_root && have apt-get && { [ "${CI:-}" = true ] || "$PROVISION"; }; }

apt_install() {
    apt-get -qq -o DPkg::Lock::Timeout=300 update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
} </dev/null >&2

# --- the environment ------------------------------------------------------------------------------------------

choose_python() {
    local candidate candidates=(python3 "${PYTHONS[@]}")
    # Root's first Python may be one under /root, which tests that run as an ordinary user cannot execute.
    if is_root; then candidates=(/usr/bin/python3 "${candidates[@]}"); fi
    if [ -n "${SKELEBOT_PYTHON:-}" ]; then candidates=("$SKELEBOT_PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        real_python "$candidate" && return
    done
    return 1
}

# The path itself, as `python3` may be a shim that costs its start-up time at each call.
real_python() {
    "$1" -c 'import sys; sys.version_info >= (3, 10) or sys.exit(1); print(sys.executable)' 2>/dev/null
}

minor_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# The oldest and the newest Python on PATH, without the main one; or those that are named.
other_pythons() {
    local candidate main found
    if [ -n "${SKELEBOT_OTHER_PYTHONS+set}" ]; then
        for candidate in $SKELEBOT_OTHER_PYTHONS; do
            real_python "$candidate" || die "$candidate in SKELEBOT_OTHER_PYTHONS is not a Python 3.10 or later"
        done
        return
    fi
    main=$(minor_version "$PYTHON")
    found=$(for candidate in "${PYTHONS[@]}"; do
        if [ "$candidate" = "python$main" ]; then echo main; else real_python "$candidate"; fi
    done)
    printf '%s\n' "${found%%$'\n'*}" "${found##*$'\n'}" | uniq | grep -vxE 'main|' || true
}

provide_python() {
    PYTHON=$(choose_python) && return
    may_install && apt_install python3 python3-venv && PYTHON=$(choose_python) && return
    die "no Python 3.10 or later found (${SKELEBOT_PYTHON:-python3}); install one, or name it with SKELEBOT_PYTHON"
}

cache_folder() {
    if [ -n "${SKELEBOT_TEST_CACHE:-}" ]; then echo "$SKELEBOT_TEST_CACHE"
    elif is_root; then echo /var/cache/skelebot-tests
    else echo "${XDG_CACHE_HOME:-$HOME/.cache}/skelebot-tests"
    fi
}

# Each checkout has its own, as the package is installed into it; uv makes a further one cost a second or two.
environment_name() {
    local version key
    version=$("$PYTHON" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
    key=$({ echo "$ROOT" "$PYTHON"; cat "$ROOT/setup.py" "$ROOT/pyproject.toml"; } | sha256sum | cut -c1-12)
    echo "venv-$version-$key"
}

make_environment() {
    CACHE=$(cache_folder)
    VENV=$CACHE/$(environment_name)
    mkdir -p "$CACHE"
    export UV_CACHE_DIR=$CACHE/uv UV_SYSTEM_CERTS=1      # the system's CA, as pip on Debian has it
    lock_environment
    drop_old_environments
    if [ ! -e "$VENV/ready" ]; then
        say "making $VENV"
        make_venv
        install_package "[test]" --upgrade && touch "$VENV/ready"
    else
        install_package "" --no-deps --reinstall-package skelebot
    fi || die "could not install the package and the test tools into $VENV"
    touch "$VENV"
}

# Held to the end: a second run in this checkout would replace the package of the first.
lock_environment() {
    exec 9>"$VENV.lock"
    flock -n 9 && return
    say "waiting for another tests/run.sh in this checkout"
    flock -w 3600 9 || die "another tests/run.sh still holds $VENV.lock"
}

drop_old_environments() {
    local old
    for old in "$CACHE"/venv-*.*-*/; do
        old=${old%/}
        if [ ! -d "$old" ] || [ "$old" = "$VENV" ]; then continue; fi
        if [ ! -e "$(cat "$old/checkout" 2>/dev/null)" ] || [ -n "$(find "$old" -maxdepth 0 -mtime +14)" ]; then
            (flock -n 8 && rm -rf "$old") 8>"$old.lock"
        fi
    done
}

make_venv() {
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV" >/dev/null || venv_otherwise || die "$PYTHON -m venv failed; install python3-venv"
    echo "$ROOT" >"$VENV/checkout"
    "$VENV/bin/python" -m pip install -q uv || say "uv is not available; going on with pip"
}

# Debian's Python has no ensurepip until the package python3-venv is there.
venv_otherwise() {
    may_install && apt_install python3-venv && rm -rf "$VENV" && "$PYTHON" -m venv "$VENV"
}

# Not editable, as an ordinary user must be able to import it wherever the checkout is; from a copy, as building
# leaves files beside setup.py.
install_package() {
    local extras=$1 copy=$VENV/source
    shift
    rm -rf "$copy" && mkdir "$copy" &&
        tar -C "$ROOT" --exclude=__pycache__ -c setup.py pyproject.toml README.md LICENSE skelebot | tar -C "$copy" -x --no-same-owner ||
        return 1
    if [ -x "$VENV/bin/uv" ]; then
        "$VENV/bin/uv" pip install -q --compile-bytecode --python "$VENV/bin/python" "$@" "$copy$extras" && return
        say "uv could not install it; trying pip"
    fi
    "$VENV/bin/python" -m pip install -q "${@/#--reinstall-package/--force-reinstall}" "$copy$extras"
}

use_environment() {
    unset VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV PYTHONPATH PYTHONHOME    # native runs look at the first three
    unset PYTHONDONTWRITEBYTECODE         # thousands of programs would compile what they import, each anew
    export PATH=$VENV/bin:$PATH
    export MYPY_CACHE_DIR=$VENV/mypy      # outlives a checkout that is made anew
}

# --- what the tests need ----------------------------------------------------------------------------------------

# exports_of SCRIPT: take what it exports; a second try, as the network may be away for a moment.
exports_of() {
    local exports
    exports=$("$ROOT/tests/$1") || { say "trying tests/$1 once more"; exports=$("$ROOT/tests/$1"); } || return
    eval "$exports"
}

# --- the engine -----------------------------------------------------------------------------------------------

provide_engine() {
    if may_install; then
        exports_of provision.sh && exports_of remote_engine.sh
        return
    fi
    ! "$PROVISION" || die "--provision needs root on Debian or Ubuntu; elsewhere start an engine and leave it out"
    find_engine
}

find_engine() {
    local base=${SKELEBOT_TEST_BASE:-python:3.11-slim}
    local r_base=${SKELEBOT_TEST_R_BASE:-rocker/r-ver:4.5}
    unset SKELEBOT_TEST_BASE SKELEBOT_TEST_R_BASE
    if ! have docker || ! timeout 20 docker version >/dev/null 2>&1; then
        echo "no Docker engine answers: the tests that need one are skipped (as root, --provision starts one)"
    elif ! has_base "$base"; then
        echo "the image $base is not available: the tests that need an engine are skipped (name one with SKELEBOT_TEST_BASE)"
    else
        export SKELEBOT_TEST_BASE=$base SKELEBOT_TEST_CLIENTS=${SKELEBOT_TEST_CLIENTS:-$(command -v docker)}
        echo "engine tests build from $base"
        if docker image inspect "$r_base" >/dev/null 2>&1; then export SKELEBOT_TEST_R_BASE=$r_base
        else echo "the image $r_base is not here: the tests of R are skipped (name one with SKELEBOT_TEST_R_BASE)"
        fi
    fi
}

has_base() {
    docker image inspect "$1" >/dev/null 2>&1 || timeout "$PULL_SECONDS" docker pull -q "$1" >/dev/null 2>&1
}

# --- the S3 server --------------------------------------------------------------------------------------------

provide_s3() {
    if may_install; then
        exports_of s3_server.sh
    else
        echo "the tests use ${SKELEBOT_TEST_S3:-a server of moto}"
    fi
}

# --- the MLflow server ----------------------------------------------------------------------------------------

provide_mlflow() {
    if may_install; then
        exports_of mlflow_server.sh
    elif [ -z "${SKELEBOT_TEST_MLFLOW:-}" ]; then
        echo "no MLflow server: the tests that need one are skipped (tests/mlflow_server.sh starts one)"
    fi
}

# --- the browser ----------------------------------------------------------------------------------------------

provide_browser() {
    if may_install || { have chromedriver && { have chromium || have google-chrome; }; }; then
        exports_of browser.sh
    else
        echo "there is no Chromium with its driver: the tests that need a browser are skipped"
    fi
}

# --- the cluster ----------------------------------------------------------------------------------------------

provide_cluster() {
    if may_install; then
        exports_of cluster.sh
    elif [ -n "${SKELEBOT_TEST_KUBECONFIG:-}" ]; then
        echo "the tests use the cluster of $SKELEBOT_TEST_KUBECONFIG"
    else
        echo "there is no Kubernetes cluster: the tests that need one are skipped (as root, --provision starts one)"
    fi
}

# --- the parts ------------------------------------------------------------------------------------------------

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

# part NAME COMMAND…: a failing part does not keep the next from running.
part() {
    local name=$1 begin=$EPOCHREALTIME status=ok
    shift
    say "$name"
    "$@" 9>&- || { status=FAILED; FAILED+=("$name"); }
    RESULTS+=("$(printf '%-7s %-12s %7s s' "$status" "$name" "$(seconds_since "$begin")")")
}

has_failed() { [[ " ${FAILED[*]-} " == *" $1 "* ]]; }

# What pip, uv, apt and git say when the network is away for a moment, for which a test gets a second try.
NO_NETWORK='error sending request for url|operation timed out|Temporary failure re|Could not connect to|Connection timed out'

run_pytest() {
    pytest "$@" ${PYTEST_ARGS[@]+"${PYTEST_ARGS[@]}"} </dev/null
    local code=$?
    # With a choice of tests (-k, -m), a part in which none was chosen has not failed.
    if [ "$code" = 5 ] && [ "${#PYTEST_ARGS[@]}" -gt 0 ]; then return 0; fi
    return "$code"
}

# Unit tests use no network; with --reruns, each would ask the main process first, which answers after 40 ms.
run_unit() { run_pytest tests/unit -n 4; }

run_others() { run_pytest --reruns 1 --only-rerun "$NO_NETWORK" -rs --no-fold-skipped "$@"; }

# Also for the oldest Python, which need not be here.
check_types() {
    mypy --python-version "$OLDEST" &
    local oldest=$! code=0
    mypy || code=$?
    wait "$oldest" || code=$?
    return "$code"
}

names_tests() {
    local word
    for word in ${PYTEST_ARGS[@]+"${PYTEST_ARGS[@]}"}; do
        if [[ $word != -* && -e ${word%%::*} ]]; then return 0; fi
    done
    return 1
}

run_parts() {
    part engine unless_unit provide_engine
    part s3 unless_unit provide_s3
    part mlflow unless_unit provide_mlflow
    part browser unless_unit provide_browser
    if runs_all; then part cluster unless_unit provide_cluster; fi
    if names_tests; then
        part tests run_others -n 4
        return
    fi
    part lint ruff check
    part format ruff format --check
    part types check_types
    part unit run_unit
    other_parts
    if "$UNIT_ONLY"; then return; fi
    if has_failed engine; then
        say "no integration tests, as the engine that they need could not be had"
        return
    fi
    # Not beside the others: Chromium gives up a page (ERR_NETWORK_CHANGED) whenever a container comes or goes.
    part notebook run_others tests/integration -m browser
    if runs_all; then
        part integration run_others tests/integration -m "not browser" -n 6 --durations=15
    else
        part integration run_others tests/integration -m "not browser and not kubernetes" -n 6 --durations=15
        cluster_parts
    fi
}

runs_all() { [ "${SKELEBOT_TEST_ALL:-}" = true ]; }

# After the others, as the cluster's own programs take CPUs; and only where an hour is enough to build it, too.
cluster_parts() {
    if [ "$SECONDS" -gt "$CLUSTER_BEFORE" ]; then
        say "the tests of the cluster are left out after $SECONDS s: tests/run.sh --all, or -- -m kubernetes, has them"
        return
    fi
    part cluster provide_cluster
    part "on cluster" run_others tests/integration -m kubernetes -n 6
}

other_parts() {
    local python version pythons
    pythons=$(other_pythons) || exit 1
    for python in $pythons; do
        version=$(minor_version "$python")
        part "types $version" with_python "$python" mypy
        part "unit $version" with_python "$python" run_unit
    done
}

# with_python PYTHON COMMAND…: in an environment made of that Python.
with_python() (
    PYTHON=$1
    shift
    make_environment
    use_environment
    "$@" 9>&-
)

unless_unit() {
    if "$UNIT_ONLY"; then echo "not needed"; else "$@"; fi
}

report() {
    say "results ($(seconds_since "$STARTED") s in all)"
    printf '%s\n' "${RESULTS[@]}"
    if [ "${#FAILED[@]}" -gt 0 ]; then
        echo "FAILED: ${FAILED[*]}"
        return 1
    fi
    echo "all parts passed"
}

main() {
    parse_arguments "$@"
    cd "$ROOT" || exit 1
    provide_python
    part_environment
    use_environment
    run_parts
    report
}

part_environment() {
    local begin=$EPOCHREALTIME
    make_environment
    RESULTS+=("$(printf '%-7s %-12s %7s s' ok environment "$(seconds_since "$begin")")")
}

main "$@"
