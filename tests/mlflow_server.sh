#!/usr/bin/env bash
# Gives the integration tests a real MLflow server on loopback, on a database in a file.
#
#   eval "$(tests/mlflow_server.sh)"   install and start the server or find it, export where it is
#   tests/mlflow_server.sh --stop      stop the server that this script started; what it held is gone
#
# Root on Debian or Ubuntu, with Python 3.10 or later and pip. Only `export` lines go to stdout; progress goes to
# stderr. MLflow stays installed in the cache.
set -euo pipefail
umask 022
exec 3>&1 1>&2                   # whatever a tool prints must not be eval'd by the caller

VERSION=3.17.2
VENV=${SKELEBOT_TEST_MLFLOW_VENV:-/var/cache/skelebot-tests/mlflow-$VERSION}
FOLDER=/var/lib/skelebot-tests/mlflow
PORT=5559
READY_SECONDS=120
STOP_SECONDS=20

say() { printf 'mlflow_server: %s\n' "$*"; }
die() { printf 'ERROR | mlflow_server: %s\n' "$*"; exit 1; }

# --- the program ----------------------------------------------------------------------------------------------

install_mlflow() {
    [ ! -e "$VENV/ready" ] || return 0
    say "installing MLflow $VERSION in $VENV"
    rm -rf "${VENV:?}"
    python3 -m venv "$VENV" || die "python3 cannot make a virtual environment; install python3-venv"
    "$VENV/bin/pip" install -q "mlflow==$VERSION" || die "pip could not install MLflow"
    touch "$VENV/ready"
}

# --- the server -----------------------------------------------------------------------------------------------

answers() { "$VENV/bin/python" -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$PORT/health', timeout=5)"; } 2>/dev/null

# The pid of our server, or nothing; the command line tells it from a stranger that got the number later.
pid_of_server() {
    local pid
    pid=$(cat "$FOLDER/pid" 2>/dev/null) || return 0
    if { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "--port $PORT"; then echo "$pid"; fi
}

find_or_start_server() {
    if [ -n "$(pid_of_server)" ] && answers; then
        say "the MLflow server at port $PORT is running"
        return
    fi
    stop_server
    ! answers || die "something else answers at port $PORT; stop it"
    say "starting MLflow in $FOLDER"
    mkdir -p "$FOLDER/artifacts"
    start_server
    wait_until answers || { tail -n 20 "$FOLDER/log"; stop_server; die "the server did not get ready"; }
    say "the MLflow server at port $PORT is ready"
}

# Holds nothing of ours open: neither the caller's $(...) nor the lock.
start_server() {
    (
        close_inherited_files
        cd "$FOLDER"
        export HOME=$FOLDER PATH=$VENV/bin:$PATH MLFLOW_DISABLE_TELEMETRY=true
        setsid "$VENV/bin/mlflow" server --host 127.0.0.1 --port $PORT --workers 1 \
            --backend-store-uri "sqlite:///$FOLDER/runs.db" --default-artifact-root "$FOLDER/artifacts" \
            </dev/null >>"$FOLDER/log" 2>&1 &
        echo $! >"$FOLDER/pid"
    )
}

close_inherited_files() {
    local fd
    for fd in /proc/"$BASHPID"/fd/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || exec {fd}>&-
    done
}

wait_until() {
    local until=$((SECONDS + READY_SECONDS))
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.5
    done
}

stop_server() {
    local pid until=$((SECONDS + STOP_SECONDS))
    pid=$(pid_of_server)
    if [ -n "$pid" ]; then
        kill -- "-$pid" || true # it leads a session of its workers
        while kill -0 -- "-$pid" 2>/dev/null; do
            [ "$SECONDS" -lt "$until" ] || kill -9 -- "-$pid" || true
            sleep 0.1
        done
    fi
    rm -rf "${FOLDER:?}"/{pid,log,runs.db,artifacts}
}

# --- what the caller gets -------------------------------------------------------------------------------------

print_exports() {
    printf 'export %s=%q\n' SKELEBOT_TEST_MLFLOW "http://127.0.0.1:$PORT" \
        SKELEBOT_TEST_MLFLOW_PYTHON "$VENV/bin/python" >&3
}

# One at a time: two callers must not start two servers.
lock() {
    mkdir -p "$FOLDER"
    exec 9>"$FOLDER/lock"
    flock -w 900 9 || die "another mlflow_server.sh holds $FOLDER/lock"
}

main() {
    [ "$(id -u)" = 0 ] || die "needs root"
    lock
    case ${1:-} in
        '') ;;
        --stop) stop_server; say "no MLflow server of ours is running"; return ;;
        *) die "unknown word '$1'; usage: mlflow_server.sh [--stop]" ;;
    esac
    install_mlflow
    find_or_start_server
    print_exports
}

main "$@"
