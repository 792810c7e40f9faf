#!/usr/bin/env bash
# Gives the integration tests an engine of another machine: a second Docker engine behind an sshd on loopback.
#
#   eval "$(tests/remote_engine.sh)"   start or find both, export where they are (after tests/provision.sh)
#   tests/remote_engine.sh --stop      stop what this script started
#
# Root on Debian or Ubuntu. Only `export` lines go to stdout; progress goes to stderr.
# The second engine has a bridge of its own, and its containers see no other network.
set -euo pipefail
umask 022
exec 3>&1 1>&2                   # whatever a tool prints must not be eval'd by the caller

HOME_OF_IT=${SKELEBOT_TEST_REMOTE_ENGINE:-/var/lib/skelebot-tests/remote}
SOCKET=$HOME_OF_IT/docker.sock
BRIDGE=skelebot-t2
SUBNET=172.31.250.1/24
PORT=2223
READY_SECONDS=60
STOP_SECONDS=40

say() { printf 'remote_engine: %s\n' "$*"; }
die() { printf 'ERROR | remote_engine: %s\n' "$*"; exit 1; }

install_packages() {
    [ ! -x /usr/sbin/sshd ] || return 0
    say "installing openssh-server"
    apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null || say "apt-get update had errors; going on"
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
        openssh-server </dev/null >/dev/null || die "apt-get could not install openssh-server"
}

# A pid of ours, or nothing; the command line tells it from a stranger that got the number later.
pid_in() {
    local pid
    pid=$(cat "$HOME_OF_IT/$1" 2>/dev/null) || return 0
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$HOME_OF_IT/"; then echo "$pid"; fi
}

# Holds nothing of ours open: neither the caller's $(...) nor the lock.
daemon() {
    local log=$1 fd
    shift
    (
        for fd in /proc/"$BASHPID"/fd/*; do
            fd=${fd##*/}
            [ "$fd" -le 2 ] || exec {fd}>&-
        done
        cd /
        exec setsid "$@" </dev/null >"$HOME_OF_IT/$log" 2>&1
    ) &
}

wait_until() {
    local until=$((SECONDS + READY_SECONDS))
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.1
    done
}

answers() { timeout 20 docker --host "unix://$SOCKET" version >/dev/null 2>&1; }
sshd_answers() { (exec 4<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; }

provide_engine() {
    start_engine
    # What earlier runs have left makes each build slower.
    docker --host "unix://$SOCKET" image prune --all --force --filter label=skelebot.project --filter until=2h | tail -n 1
}

start_engine() {
    ! answers || return 0
    stop_all
    say "starting a second dockerd in $HOME_OF_IT"
    ip link add name "$BRIDGE" type bridge 2>/dev/null || true
    ip addr replace "$SUBNET" dev "$BRIDGE"
    ip link set "$BRIDGE" up
    echo '{"builder": {"gc": {"enabled": true, "defaultKeepStorage": "5GB"}}}' >"$HOME_OF_IT/daemon.json"
    daemon engine.log dockerd --config-file "$HOME_OF_IT/daemon.json" --data-root "$HOME_OF_IT/data" \
        --exec-root "$HOME_OF_IT/exec" -p "$HOME_OF_IT/engine.pid" -H "unix://$SOCKET" \
        --bridge="$BRIDGE" --iptables=false --ip-masq=false
    wait_until answers || { tail -n 20 "$HOME_OF_IT/engine.log"; die "the second dockerd did not get ready"; }
    chmod 666 "$SOCKET"
}

provide_image() {
    local id
    id=$(docker image inspect --format '{{.Id}}' "$SKELEBOT_TEST_BASE")
    [ "$(docker --host "unix://$SOCKET" image inspect --format '{{.Id}}' "$SKELEBOT_TEST_BASE" 2>/dev/null)" = "$id" ] ||
        docker save "$SKELEBOT_TEST_BASE" | docker --host "unix://$SOCKET" load
}

provide_sshd() {
    [ -z "$(pid_in sshd.pid)" ] || return 0
    ! sshd_answers || die "something else listens on port $PORT; stop it"
    [ -e "$HOME_OF_IT/host_key" ] || ssh-keygen -q -t ed25519 -N '' -f "$HOME_OF_IT/host_key"
    [ -e "$HOME_OF_IT/id" ] || ssh-keygen -q -t ed25519 -N '' -f "$HOME_OF_IT/id"
    cp "$HOME_OF_IT/id.pub" "$HOME_OF_IT/authorized_keys"
    mkdir -p /run/sshd
    cat >"$HOME_OF_IT/sshd_config" <<X
Port $PORT
ListenAddress 127.0.0.1
HostKey $HOME_OF_IT/host_key
PidFile $HOME_OF_IT/sshd.pid
AuthorizedKeysFile $HOME_OF_IT/authorized_keys
StrictModes no
PasswordAuthentication no
UsePAM no
MaxStartups 100
SetEnv DOCKER_HOST=unix://$SOCKET
X
    daemon sshd.log /usr/sbin/sshd -D -e -f "$HOME_OF_IT/sshd_config"
    wait_until sshd_answers || { tail -n 20 "$HOME_OF_IT/sshd.log"; die "sshd did not get ready"; }
}

stop_all() {
    local name pid until=$((SECONDS + STOP_SECONDS))
    for name in sshd.pid engine.pid; do
        pid=$(pid_in "$name")
        [ -n "$pid" ] || continue
        kill "$pid" || continue
        while kill -0 "$pid" 2>/dev/null; do
            [ "$SECONDS" -lt "$until" ] || die "$name ($pid) did not stop in $STOP_SECONDS s"
            sleep 0.1
        done
    done
    rm -rf "${HOME_OF_IT:?}"/{exec,engine.pid,sshd.pid,docker.sock}
    ip link del "$BRIDGE" 2>/dev/null || true
}

main() {
    [ "$(id -u)" = 0 ] || die "needs root"
    mkdir -p "$HOME_OF_IT"
    chmod 755 "$(dirname "$HOME_OF_IT")" "$HOME_OF_IT"
    exec 9>"$HOME_OF_IT/lock"
    flock -w 300 9 || die "another remote_engine.sh holds $HOME_OF_IT/lock"
    case ${1:-} in
        '') ;;
        --stop) stop_all; return ;;
        *) die "unknown word '$1'; usage: remote_engine.sh [--stop]" ;;
    esac
    [ -n "${SKELEBOT_TEST_BASE:-}" ] || die "SKELEBOT_TEST_BASE is not set; run tests/provision.sh first"
    install_packages
    provide_engine
    provide_image
    provide_sshd
    printf 'export %s=%q\n' SKELEBOT_TEST_REMOTE "ssh://root@127.0.0.1:$PORT" \
        SKELEBOT_TEST_REMOTE_KEY "$HOME_OF_IT/id" SKELEBOT_TEST_REMOTE_SOCKET "unix://$SOCKET" >&3
}

main "$@"
