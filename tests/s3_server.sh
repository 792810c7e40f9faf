#!/usr/bin/env bash
# Gives the integration tests a real S3 server: Ceph's object gateway on loopback, on a store in memory.
#
#   eval "$(tests/s3_server.sh)"     start or find the server, export where it is and the keys of two users
#   tests/s3_server.sh --stop        stop the server that this script started; what it held is gone
#
# Root on Debian or Ubuntu. Only `export` lines go to stdout; progress goes to stderr.
set -euo pipefail
umask 022
exec 3>&1 1>&2                   # whatever a tool prints must not be eval'd by the caller

CEPH=${SKELEBOT_TEST_CEPH:-/var/lib/skelebot-tests/ceph}
CONF=$CEPH/ceph.conf
KEYRING=$CEPH/keyring
ADDRESS=127.0.0.1:5558
MONITOR='[v2:127.0.0.1:40300,v1:127.0.0.1:40301]'
KEY=AKTEST SECRET=SKTEST
OTHER_KEY=AKOTHER OTHER_SECRET=SKOTHER    # a user who may not enter the first one's buckets
READY_SECONDS=90
STOP_SECONDS=20

say() { printf 's3_server: %s\n' "$*"; }
die() { printf 'ERROR | s3_server: %s\n' "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- packages -------------------------------------------------------------------------------------------------

missing_packages() {
    have radosgw || echo radosgw
    have ceph-mon || echo ceph-mon
    have ceph-osd || echo ceph-osd
    have curl || echo curl
}

install_packages() {
    local packages
    mapfile -t packages < <(missing_packages)
    [ "${#packages[@]}" -gt 0 ] || return 0
    say "installing ${packages[*]}"
    apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null || say "apt-get update had errors; going on"
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
        "${packages[@]}" </dev/null >/dev/null || die "apt-get could not install ${packages[*]}"
    hash -r
}

# --- the server -----------------------------------------------------------------------------------------------

answers() { curl -sf -m 5 -o /dev/null "http://$ADDRESS/"; }

# The pid of a daemon of ours, or nothing; the command line tells it from a stranger that got the number later.
pid_of() {
    local pid
    pid=$(cat "$CEPH/run/$1.pid" 2>/dev/null) || return 0
    if { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "-c $CONF "; then echo "$pid"; fi
}

find_or_start_server() {
    if [ -n "$(pid_of client.rgw)" ] && answers; then
        say "the S3 server at $ADDRESS is running"
        return
    fi
    stop_server
    ! answers || die "something else answers at $ADDRESS; stop it"
    say "starting Ceph in $CEPH"
    make_cluster
    start_cluster
    make_users
    say "the S3 server at $ADDRESS is ready"
}

make_cluster() {
    local id
    id=$(cat /proc/sys/kernel/random/uuid)
    mkdir -p "$CEPH"/{mon,osd,rgw,run,log}
    configuration "$id" >"$CONF"
    monmaptool --create --fsid "$id" --addv a "$MONITOR" "$CEPH/monmap"
    ceph-authtool --create-keyring "$KEYRING" --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool "$KEYRING" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    ceph-authtool "$KEYRING" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
    ceph-authtool "$KEYRING" --gen-key -n client.rgw --cap mon 'allow rw' --cap osd 'allow rwx'
} >/dev/null

# One monitor, one store in memory, one gateway; what was removed is given back within seconds.
configuration() {
    cat <<X
[global]
fsid = $1
mon host = $MONITOR
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth allow insecure global id reclaim = false
keyring = $KEYRING
mon data avail warn = 1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
run dir = $CEPH/run
admin socket = $CEPH/run/\$name.asok
log file = $CEPH/log/\$name.log
pid file = $CEPH/run/\$name.pid
[mon.a]
mon data = $CEPH/mon
[osd]
osd data = $CEPH/osd
osd objectstore = memstore
memstore device bytes = 8G
[client.rgw]
rgw data = $CEPH/rgw
rgw frontends = beast endpoint=$ADDRESS
rgw gc obj min wait = 2
rgw gc processor period = 2
rgw gc processor max time = 2
X
}

start_cluster() {
    local osd
    osd=$(cat /proc/sys/kernel/random/uuid)
    daemon ceph-mon -c "$CONF" -i a --mkfs --monmap "$CEPH/monmap" --keyring "$KEYRING"
    daemon ceph-mon -c "$CONF" -i a
    timeout 60 ceph -c "$CONF" osd new "$osd" >/dev/null || fail "the monitor does not answer" mon.a
    timeout 60 ceph -c "$CONF" auth import -i "$KEYRING" >/dev/null || fail "the monitor does not answer" mon.a
    daemon ceph-osd -c "$CONF" -i 0 --mkfs --osd-uuid "$osd"
    daemon ceph-osd -c "$CONF" -i 0
    wait_until storage_is_up || fail "the storage daemon did not get ready" osd.0
    daemon radosgw -c "$CONF" -n client.rgw
    wait_until answers || fail "the gateway did not get ready" client.rgw
}

# Holds nothing of ours open: neither the caller's $(...) nor the lock.
daemon() {
    (
        close_inherited_files
        cd /
        exec setsid "$@" </dev/null >>"$CEPH/log/out" 2>&1
    ) || fail "$1 did not start" out
}

close_inherited_files() {
    local fd
    for fd in /proc/"$BASHPID"/fd/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || exec {fd}>&-
    done
}

storage_is_up() { timeout 20 ceph -c "$CONF" osd stat 2>/dev/null | grep -q '1 up'; }

wait_until() {
    local until=$((SECONDS + READY_SECONDS))
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.1
    done
}

fail() {
    tail -n 20 "$CEPH/log/$2.log" "$CEPH/log/$2" 2>/dev/null || true
    stop_server
    die "$1"
}

make_users() {
    make_user tester "$KEY" "$SECRET"
    make_user other "$OTHER_KEY" "$OTHER_SECRET"
}

make_user() {
    radosgw-admin -c "$CONF" -n client.admin user create --uid="$1" --display-name="$1" --access-key="$2" \
        --secret-key="$3" >/dev/null || fail "the user $1 could not be made" client.rgw
}

stop_server() {
    local name pid until=$((SECONDS + STOP_SECONDS))
    for name in client.rgw osd.0 mon.a; do
        pid=$(pid_of "$name")
        [ -n "$pid" ] || continue
        kill "$pid" || continue
        while kill -0 "$pid" 2>/dev/null; do
            [ "$SECONDS" -lt "$until" ] || kill -9 "$pid" || true
            sleep 0.1
        done
    done
    rm -rf "${CEPH:?}"/{mon,osd,rgw,run,keyring,monmap}
}

# --- what the caller gets -------------------------------------------------------------------------------------

print_exports() {
    printf 'export %s=%q\n' SKELEBOT_TEST_S3 "http://$ADDRESS" SKELEBOT_TEST_S3_KEYS "$KEY:$SECRET" \
        SKELEBOT_TEST_S3_OTHER_KEYS "$OTHER_KEY:$OTHER_SECRET" >&3
}

check_machine() {
    [ "$(id -u)" = 0 ] || die "needs root"
    have apt-get || die "needs Debian or Ubuntu (apt-get); elsewhere the tests use moto's server"
}

# One at a time: two callers must not start two servers.
lock() {
    mkdir -p "$CEPH"
    chmod 755 "$(dirname "$CEPH")" "$CEPH"
    exec 9>"$CEPH/lock"
    flock -w 900 9 || die "another s3_server.sh holds $CEPH/lock"
}

main() {
    check_machine
    lock
    case ${1:-} in
        '') ;;
        --stop) stop_server; say "no S3 server of ours is running"; return ;;
        *) die "unknown word '$1'; usage: s3_server.sh [--stop]" ;;
    esac
    install_packages
    find_or_start_server
    print_exports
}

main "$@"
