#!/usr/bin/env bash
# Gives the integration tests a real Docker engine and the images they start from.
#
#   eval "$(tests/provision.sh)"     start or find the engine, make or load the images, export where they are
#   tests/provision.sh --stop        stop the engine that this script started
#
# Root on Debian or Ubuntu. Only `export` lines go to stdout; progress goes to stderr.
# No image registry is asked: the base image is made of Debian packages, once, and kept in the cache.
set -euo pipefail
umask 022                        # tests also run as an ordinary user, who must reach the socket and read the cache
exec 3>&1 1>&2                   # whatever a tool prints must not be eval'd by the caller

ENGINE=${SKELEBOT_TEST_ENGINE:-/var/lib/skelebot-tests/engine}
CACHE=${SKELEBOT_TEST_CACHE:-/var/cache/skelebot-tests}
SOCKET=$ENGINE/docker.sock
SUITE=bookworm
DEBIAN=skelebot-test/debian:$SUITE
BASE=skelebot-test/python:$SUITE
SCIENCE=skelebot-test/science:$SUITE
R=skelebot-test/r:$SUITE
CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
READY_SECONDS=60
STOP_SECONDS=40

say() { printf 'provision: %s\n' "$*"; }
die() { printf 'ERROR | provision: %s\n' "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- packages -------------------------------------------------------------------------------------------------

missing_packages() {
    local name
    have zstd || echo zstd
    have debootstrap || echo debootstrap
    have krb5kdc || echo krb5-kdc krb5-admin-server krb5-user
    have gss-server || echo krb5-gss-samples
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring    # Ubuntu has none
    [ -s "$CA_BUNDLE" ] || echo ca-certificates
    for name in zsh fish unzip; do have "$name" || echo "$name"; done    # completion and packages are tested with them
    have docker-registry || echo docker-registry
    have htpasswd || echo apache2-utils
    engine_at_hand && return
    have dockerd || echo docker.io
    have iptables || echo iptables
}

install_packages() {
    local packages
    mapfile -t packages < <(missing_packages | tr ' ' '\n')
    [ "${#packages[@]}" -gt 0 ] || return 0
    say "installing ${packages[*]}"
    # A foreign apt source that is down must not matter: whether the packages can be had is for install to say.
    refresh_package_lists
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
        "${packages[@]}" </dev/null >/dev/null || die "apt-get could not install ${packages[*]}"
    hash -r
}

refresh_package_lists() {
    apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null || say "apt-get update had errors; going on"
}

# --- engine ---------------------------------------------------------------------------------------------------

ours_answers() { have docker && DOCKER_HOST=unix://$SOCKET timeout 20 docker version >/dev/null 2>&1; }
callers_answers() { have docker && timeout 20 docker version >/dev/null 2>&1; }
engine_at_hand() { callers_answers || ours_answers; }

callers_host() {
    if [ -n "${DOCKER_HOST:-}" ]; then echo "$DOCKER_HOST"
    else docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || echo unix:///var/run/docker.sock
    fi
}

find_or_start_engine() {
    local host=unix://$SOCKET
    if callers_answers; then
        host=$(callers_host)
    elif ! ours_answers; then
        start_engine
    fi
    unset DOCKER_CONTEXT             # it would win over the address we hand out
    export DOCKER_HOST=$host
    say "engine $(docker version --format '{{.Server.Version}}') at $DOCKER_HOST"
    if [ "$DOCKER_HOST" = "unix://$SOCKET" ]; then drop_old_images; fi
}

# What earlier runs have left: with 1,700 images an engine needs three times the CPU for each build.
drop_old_images() {
    docker image prune --all --force --filter label=skelebot.project --filter until=2h | tail -n 1
}

start_engine() {
    local pid
    mkdir -p "$ENGINE"
    chmod 755 "$(dirname "$ENGINE")" "$ENGINE"
    [ -n "$(engine_pid)" ] || clear_away
    # Settings of its own, as the machine's may name other hosts or folders.
    echo '{"builder": {"gc": {"enabled": true, "defaultKeepStorage": "5GB"}}}' >"$ENGINE/daemon.json"
    say "starting dockerd in $ENGINE"
    # A subshell, as the daemon must hold nothing of ours open: neither the caller's $(...) nor the lock.
    (
        close_inherited_files
        cd /
        # Each container starts dockerd twice more, which collects garbage half of its time without this.
        export GOGC=400
        exec setsid dockerd --config-file "$ENGINE/daemon.json" --data-root "$ENGINE/data" \
            --exec-root "$ENGINE/exec" -p "$ENGINE/pid" -H "unix://$SOCKET" </dev/null >"$ENGINE/log" 2>&1
    ) &
    pid=$!
    wait_for_engine "$pid"
    # Any local user may use it, which makes each of them root: this is for test machines only.
    chmod 666 "$SOCKET"
}

close_inherited_files() {
    local fd
    for fd in /proc/"$BASHPID"/fd/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || exec {fd}>&-
    done
}

wait_for_engine() {
    local pid=$1 until=$((SECONDS + READY_SECONDS))
    until ours_answers; do
        if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -ge "$until" ]; then
            tail -n 30 "$ENGINE/log"
            kill "$pid" 2>/dev/null || true
            die "dockerd did not get ready; its log is $ENGINE/log"
        fi
        sleep 0.2
    done
}

# The running engine's pid, or nothing; the command line tells it from a stranger that got the number later.
engine_pid() {
    local pid
    pid=$(cat "$ENGINE/pid" 2>/dev/null) || return 0
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "--data-root $ENGINE/data "; then echo "$pid"; fi
}

stop_engine() {
    local pid until=$((SECONDS + STOP_SECONDS))
    pid=$(engine_pid)
    if [ -n "$pid" ]; then
        say "stopping dockerd ($pid)"
        kill "$pid"
        while kill -0 "$pid" 2>/dev/null; do
            [ "$SECONDS" -lt "$until" ] || die "dockerd ($pid) did not stop in $STOP_SECONDS s; see $ENGINE/log"
            sleep 0.2
        done
    fi
    clear_away
    say "no engine of ours is running"
}

# What an engine that was killed leaves: its children, mounts and pid files, on any of which the next would fail.
clear_away() {
    local mounts mount pid
    while IFS=/ read -r _ _ pid _; do
        case $(cat "/proc/$pid/comm" 2>/dev/null) in containerd*) kill -9 "$pid" ;; esac
    done < <(grep -alF -- "$ENGINE/exec/" /proc/[0-9]*/cmdline 2>/dev/null)
    mapfile -t mounts < <(awk -v root="$ENGINE/" 'index($2, root) == 1 { print $2 }' /proc/mounts | sort -r)
    for mount in "${mounts[@]}"; do umount "$mount" || umount --lazy "$mount"; done
    rm -rf "$ENGINE/exec" "$ENGINE/pid" "$SOCKET"
}

# --- images ---------------------------------------------------------------------------------------------------

# The builds of the tests fetch the lists often, and lookups of names fail at times.
APT_SETTINGS="echo 'Acquire::Languages \"none\"; Acquire::Retries \"8\";' >/etc/apt/apt.conf.d/90tests"

base_dockerfile() {
    # The host's CA bundle: behind a proxy that signs with its own CA, pip and uv in a container fail without it.
    # It also stands beside the system's own, which the next apt-get install of ca-certificates would rewrite.
    cat <<X
FROM $DEBIAN
RUN $APT_SETTINGS && apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-pip python3-venv tzdata \\
 && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED \\
 && ln -s python3 /usr/bin/python
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
COPY ca.crt /usr/local/share/skelebot-test/ca.crt
ENV PIP_CERT=/usr/local/share/skelebot-test/ca.crt SSL_CERT_FILE=/usr/local/share/skelebot-test/ca.crt \\
    REQUESTS_CA_BUNDLE=/usr/local/share/skelebot-test/ca.crt
CMD ["python3"]
X
}

science_dockerfile() {
    cat <<X
FROM $BASE
RUN pip install --no-cache-dir dash numpy pandas pytest scikit-learn
X
}

# R without Python; and the source of a package that the tests' own mirror serves, from a later Debian that has it.
r_dockerfile() {
    cat <<X
FROM $DEBIAN
RUN $APT_SETTINGS && cd /etc/apt && sed -n 's/^deb \([^ ]*\) $SUITE .*/deb-src \1 trixie main/p' sources.list >sources.list.d/later.list \\
 && apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \\
        -o DPkg::Options::=--path-exclude=/usr/share/doc/* -o DPkg::Options::=--path-exclude=/usr/share/locale/* \\
        r-base-core git \\
 && mkdir /usr/local/share/skelebot-test && cd /usr/local/share/skelebot-test \\
 && { apt-get source --tar-only r-cran-renv; apt-get clean; rm -rf /var/lib/apt/lists/* /etc/apt/sources.list.d/later*; }
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
COPY ca.crt /usr/local/share/skelebot-test/ca.crt
ENV PIP_CERT=/usr/local/share/skelebot-test/ca.crt SSL_CERT_FILE=/usr/local/share/skelebot-test/ca.crt
CMD ["R"]
X
}

# What a set of images is made of: images and cache files made by another recipe, or with another CA, are not taken.
key_of() {
    local image
    { uname -m; for image; do "${image}_dockerfile"; done; cat "$CA_BUNDLE"; } | sha256sum | cut -c1-16
}

provide_images() {
    provide python "$(key_of base science)" "$BASE" "$SCIENCE"
    provide r "$(key_of r)" "$R"
}

# provide SET KEY IMAGE…: the images of a set, as they are in the engine or in the cache, or made anew
provide() {
    local saved=$CACHE/images-$1-$2.tar.zst
    images_are_there "${@:2}" && return
    load_images "$saved" && images_are_there "${@:2}" && return
    "make_$1_images" "$2"
    save_images "$1" "$saved" "${@:3}"
}

# images_are_there KEY IMAGE…
images_are_there() {
    local image
    for image in "${@:2}"; do
        [ "$(docker image inspect --format '{{index .Config.Labels "skelebot-test.key"}}' "$image" 2>/dev/null)" \
            = "$1" ] || return 1
    done
    docker image inspect "$DEBIAN" >/dev/null 2>&1
}

load_images() {
    [ -s "$1" ] || return 1
    say "loading the images from $1"
    zstd -dc "$1" | docker load
}

make_python_images() {
    import_debian
    build_image "$BASE" "$1" < <(base_dockerfile)
    build_image "$SCIENCE" "$1" < <(science_dockerfile)
}

make_r_images() {
    build_image "$R" "$1" < <(r_dockerfile)
}

# save_images SET FILE IMAGE…
save_images() {
    say "saving the images in $2"
    rm -f "$CACHE/images-$1"-*.tar.zst
    docker save "$DEBIAN" "${@:3}" | zstd -q -3 >"$2.part"
    mv "$2.part" "$2"
}

build_image() {
    local image=$1 key=$2 context=$WORK/context
    say "building $image"
    mkdir -p "$context"
    cp "$CA_BUNDLE" "$context/ca.crt"
    cat >"$context/Dockerfile"
    # The classic builder: it is in every engine, and a client without buildx can ask for no other.
    DOCKER_BUILDKIT=0 docker build --quiet --network "${SKELEBOT_TEST_BUILD_NETWORK:-default}" \
        --label "skelebot-test.key=$key" --tag "$image" "$context" >"$WORK/build.log" 2>&1 ||
        { tail -n 30 "$WORK/build.log"; die "could not build $image"; }
}

import_debian() {
    local rootfs
    rootfs=$CACHE/$SUITE-$(uname -m).tar.zst
    [ -s "$rootfs" ] || bootstrap_debian "$rootfs"
    zstd -dc "$rootfs" | docker import -c 'CMD ["bash"]' - "$DEBIAN"
}

bootstrap_debian() {
    local mirror
    mirror=$(debian_mirror)
    say "debootstrap $SUITE from $mirror"
    debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$WORK/rootfs" "$mirror" >"$WORK/debootstrap.log" ||
        { tail -n 20 "$WORK/debootstrap.log"; die "debootstrap failed"; }
    tar -C "$WORK/rootfs" --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' -c . |
        zstd -q -3 >"$1.part"
    mv "$1.part" "$1"
}

# The mirror of this machine's own apt sources; on Ubuntu, or without any list of Debian's, the public one.
debian_mirror() {
    local mirror
    mirror=$(debian_sources)
    if [ -z "$mirror" ]; then
        refresh_package_lists
        mirror=$(debian_sources)
    fi
    echo "${mirror:-http://deb.debian.org/debian}"
}

# By origin and label, as other vendors' sources and Debian's security archive stand among them.
debian_sources() {
    # shellcheck disable=SC2016  # $(…) is apt's own notation
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
        awk -F'|' '$1 == "Debian" && $2 == "Debian" && $3 ~ /^https?:/ && !seen { print $3; seen = 1 }'
}

# --- what the caller gets -------------------------------------------------------------------------------------

# Each docker client on PATH that talks to the engine, once (/bin is often a link to /usr/bin).
working_clients() {
    local folder client real seen=' ' folders
    IFS=: read -ra folders <<<"$PATH"
    for folder in "${folders[@]}"; do         # not `type -aP`, which leaves some out once one of them has run
        client=$folder/docker
        [ -x "$client" ] || continue
        real=$(readlink -f "$client")
        [[ $seen != *" $real "* ]] || continue
        seen+="$real "
        if "$client" version </dev/null >/dev/null; then printf '%s ' "$client"; fi
    done
}

print_exports() {
    local clients
    clients=$(working_clients)
    printf 'export %s=%q\n' DOCKER_HOST "$DOCKER_HOST" SKELEBOT_TEST_BASE "$BASE" SKELEBOT_TEST_SCIENCE "$SCIENCE" \
        SKELEBOT_TEST_DEBIAN "$DEBIAN" SKELEBOT_TEST_R_BASE "$R" SKELEBOT_TEST_CLIENTS "${clients% }" >&3
}

check_machine() {
    [ "$(id -u)" = 0 ] || die "needs root"
    have apt-get || die "needs Debian or Ubuntu (apt-get); elsewhere start an engine and set SKELEBOT_TEST_BASE"
}

# One at a time: two callers must neither start two engines nor write one cache file.
lock() {
    mkdir -p "$CACHE" "$(dirname "$ENGINE")"
    exec 9>"$(dirname "$ENGINE")/lock"
    flock -w 900 9 || die "another provision.sh holds $(dirname "$ENGINE")/lock"
}

main() {
    check_machine
    lock
    case ${1:-} in
        '') ;;
        --stop) stop_engine; return ;;
        *) die "unknown word '$1'; usage: provision.sh [--stop]" ;;
    esac
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    install_packages
    find_or_start_engine
    provide_images
    print_exports
}

main "$@"
