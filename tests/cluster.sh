#!/usr/bin/env bash
# Gives the integration tests a real Kubernetes cluster on loopback, and a registry with a login that its node pulls from.
#
#   eval "$(tests/cluster.sh)"               start or find it, export where it is
#   eval "$(tests/cluster.sh --api)"         the same without scheduler, node and registry
#   tests/cluster.sh --load FILE             give the node an image that `docker save` has written
#   tests/cluster.sh --restart-api [SECONDS] end the API server as an administrator does, start it again after a while
#   tests/cluster.sh --kill-api [SECONDS]    the same with SIGKILL
#   tests/cluster.sh --restart-kubelet       end the node's agent and start it again; what runs there goes on
#   tests/cluster.sh --build                 only make the programs
#   tests/cluster.sh --stop                  stop what this script started; what it held is gone
#
# Root on Debian or Ubuntu. Only `export` lines go to stdout; progress goes to stderr.
# Kubernetes is built from Debian's source package, once, and kept in the cache with the other programs.
set -euo pipefail
umask 022
exec 3>&1 1>&2                   # whatever a tool prints must not be eval'd by the caller

CLUSTER=${SKELEBOT_TEST_CLUSTER:-/var/lib/skelebot-tests/cluster}
CACHE=${SKELEBOT_TEST_CACHE:-/var/cache/skelebot-tests}
VERSION=1.20.2                   # the newest server that a Debian has the source of
SUITE=bookworm GO_SUITE=bullseye GO=1.15    # Kubernetes of that age is built with a Go of its age
ARCH=$(dpkg --print-architecture 2>/dev/null || uname -m)
KEPT=$CACHE/cluster-$VERSION-$SUITE-$ARCH.tar.zst
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
PROGRAMS=$CLUSTER/programs BIN=$CLUSTER/programs/bin RUN=$CLUSTER/run
BRIDGE=skelebot-t3
SUBNET=172.31.247                # beside those of the engines
# All below the range from which a machine takes ports for outgoing connections.
API=26443 ETCD=26379 NODE=26250 CONTROLLERS=26257 SCHEDULER=26259 REGISTRY=26500
LOGIN=tester:s3cret-of-the-cluster
READY_SECONDS=120
MADE=(/var/lib/kubelet /var/lib/cni /run/containerd /run/netns)    # that the programs insist on; mounted over
export PATH=$BIN:$PATH

say() { printf 'cluster: %s\n' "$*"; }
die() { printf 'ERROR | cluster: %s\n' "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- programs -------------------------------------------------------------------------------------------------

missing_packages() {
    have kubectl || echo kubernetes-client
    have zstd || echo zstd
    have openssl || echo openssl
    have htpasswd || echo apache2-utils
    have ip || echo iproute2
}

missing_to_build() {
    [ -e "$KEYRING" ] || echo debian-archive-keyring
    have make || echo make
    have rsync || echo rsync
    have dpkg-source || echo dpkg-dev
}

# install_missing COMMAND…: the packages that it lists
install_missing() {
    local packages
    mapfile -t packages < <("$@")
    [ "${#packages[@]}" -gt 0 ] || return 0
    say "installing ${packages[*]}"
    apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null || say "apt-get update had errors; going on"
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
        "${packages[@]}" </dev/null >/dev/null || die "apt-get could not install ${packages[*]}"
    hash -r
}

provide_programs() {
    [ ! -e "$PROGRAMS/$VERSION" ] || return 0
    [ -s "$KEPT" ] || build_programs
    say "unpacking $KEPT"
    rm -rf "$PROGRAMS"
    mkdir -p "$PROGRAMS"
    tar -C "$PROGRAMS" -xf "$KEPT"
    touch "$PROGRAMS/$VERSION"
}

build_programs() {
    local work=$CACHE/cluster-build made=$CACHE/cluster-build/made
    install_missing missing_to_build
    mkdir -p "$made/bin" "$CACHE"
    (
        cd "$work"
        fetch_debian
        fetch_sources
        build_kubernetes "$made/bin"
    )
    say "saving the programs in $KEPT"
    tar -C "$made" -c . | zstd -q -9 -T0 -o "$KEPT.part" -f
    mv "$KEPT.part" "$KEPT"
    rm -rf "$work"
}

# What Debian has ready: unpacked, not installed, so that it neither starts anything nor depends on this machine's suite.
fetch_debian() {
    local package
    [ ! -e made/plugins/loopback ] || return 0
    apt_of "$SUITE" "deb [signed-by=$KEYRING] $(debian_mirror) $SUITE main"
    rm -rf debs && mkdir debs
    (cd debs && APT_CONFIG=../apt-$SUITE/apt.conf apt-get -qq download \
        etcd-server containerd runc containernetworking-plugins docker-registry) || die "apt-get could not download the packages"
    for package in debs/*.deb; do dpkg-deb -x "$package" debs/all; done
    cp debs/all/usr/bin/{etcd,containerd,containerd-shim-runc-v2,ctr,docker-registry} debs/all/usr/sbin/runc made/bin/
    mkdir -p made/plugins
    cp debs/all/usr/lib/cni/{bridge,host-local,loopback} made/plugins/
}

fetch_sources() {
    local package
    [ ! -e sources-are-there ] || return 0
    say "fetching the sources of Kubernetes $VERSION and Go $GO"
    apt_of source "deb-src [signed-by=$KEYRING] $(debian_mirror) $SUITE main"
    apt_of "$GO_SUITE" "deb [signed-by=$KEYRING] $(debian_mirror) $GO_SUITE main"
    rm -rf src go
    APT_CONFIG=$PWD/apt-source/apt.conf apt-get -qq source --download-only "kubernetes" || die "apt-get could not download the source"
    dpkg-source --no-check -x kubernetes_*"$VERSION"-*.dsc src >/dev/null
    APT_CONFIG=$PWD/apt-$GO_SUITE/apt.conf apt-get -qq download "golang-$GO-go" "golang-$GO-src" || die "apt-get could not download Go"
    for package in golang-*.deb; do dpkg-deb -x "$package" go; done
    touch sources-are-there
}

# apt_of NAME LINE: an apt with these sources and folders of its own, which leaves the machine's alone
apt_of() {
    local root=$PWD/apt-$1
    mkdir -p "$root"/etc/apt/{sources.list.d,preferences.d,apt.conf.d} "$root"/var/{lib/apt/lists,cache/apt/archives}/partial
    : >"$root/status"
    echo "$2" >"$root/etc/apt/sources.list"
    cat >"$root/apt.conf" <<X
Dir "$root";
Dir::State "$root/var/lib/apt";
Dir::State::status "$root/status";
Dir::Cache "$root/var/cache/apt";
Dir::Etc "$root/etc/apt";
APT::Sandbox::User "root";
Acquire::Languages "none";
X
    APT_CONFIG=$root/apt.conf apt-get -qq update || die "apt-get could not read the package lists of $2"
}

# As in provision.sh: the mirror of this machine's own sources, else the public one.
debian_mirror() {
    local mirror
    # shellcheck disable=SC2016  # $(…) is apt's own notation
    mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
        awk -F'|' '$1 == "Debian" && $2 == "Debian" && $3 ~ /^https?:/ && !seen { print $3; seen = 1 }')
    echo "${mirror:-http://deb.debian.org/debian}"
}

# The build has neither cgo nor the network; at the lowest priority, as it takes minutes of all cores.
build_kubernetes() {
    local bin=$1 name
    local names=(kube-apiserver kube-controller-manager kube-scheduler kubelet)
    say "building Kubernetes; this takes 4 to 30 minutes, once"
    mkdir -p src/.go/src/k8s.io
    ln -sfn ../../.. src/.go/src/k8s.io/kubernetes
    export GOROOT=$PWD/go/usr/lib/go-$GO GOPATH=$PWD/src/.go GOCACHE=$PWD/gocache GO111MODULE=off CGO_ENABLED=0 GOFLAGS= GOPROXY=off
    export KUBE_GIT_VERSION=v$VERSION KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20 KUBE_GIT_COMMIT=debian KUBE_GIT_TREE_STATE=clean
    export PATH=$GOROOT/bin:$PATH
    (cd src/.go/src/k8s.io/kubernetes && nice -n 19 make WHAT="${names[*]/#/cmd/}") >build.log 2>&1 ||
        { tail -n 30 build.log; die "could not build Kubernetes; see $PWD/build.log"; }
    for name in "${names[@]}"; do cp "src/_output/local/bin/linux/$ARCH/$name" "$bin/"; done
    pause_program >pause.go
    go build -ldflags '-s -w' -o "$bin/pause" pause.go
}

# What holds the namespaces of a pod.
pause_program() {
    cat <<'X'
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM)
	<-asked
}
X
}

# --- processes ------------------------------------------------------------------------------------------------

# All run in a process and a mount namespace of their own, that of `$RUN/init`: once that is killed, each process, each
# container and each mount is gone, and what the node mounts and writes below /var/log and /run never shows outside.

# pids_of WORD…: of the processes of this cluster whose command line begins with these words
pids_of() {
    local file words
    while IFS= read -r file; do
        { words=$(tr '\0' ' ' <"$file"); } 2>/dev/null || continue
        [[ $words != "$* "* ]] || { file=${file#/proc/}; echo "${file%%/*}"; }
    done < <(grep -lF -- "$CLUSTER/" /proc/[0-9]*/cmdline 2>/dev/null)
}

init_pid() { pids_of bash "$RUN/init"; }

start_init() {
    cat >"$RUN/init" <<X
mount --bind "$RUN/logs" /var/log && mount --bind "$RUN/kubelet" "${MADE[0]}" || exit
for folder in ${MADE[*]:1}; do mount -t tmpfs none "\$folder" || exit; done
touch "$RUN/ready"
sleep infinity & while :; do wait; done
X
    mkdir -p "$RUN"/{logs/pods,logs/containers,kubelet,log} "${MADE[@]}"
    daemon init unshare --mount --propagation private --pid --fork --kill-child --mount-proc bash "$RUN/init"
    wait_until test -e "$RUN/ready" || fail "the namespaces could not be made" init
}

# Holds nothing of ours open: neither the caller's $(...) nor the lock.
daemon() {
    local log=$RUN/log/$1 fd
    shift
    (
        for fd in /proc/"$BASHPID"/fd/*; do
            fd=${fd##*/}
            [ "$fd" -le 2 ] || exec {fd}>&-
        done
        cd "$RUN"
        exec setsid "$@" </dev/null >>"$log" 2>&1
    ) &
}

# provide NAME CHECK WORD…: a program in the namespaces, until the check holds
provide() {
    local name=$1 check=$2
    shift 2
    if [ -z "$(pids_of "$1")" ]; then
        daemon "$name" nsenter --mount --pid --target "$(init_pid)" "$@"
    fi
    wait_until "$check" || fail "$name did not get ready" "$name"
}

# end SIGNAL PROGRAM: SIGKILL after 5 seconds, as a graceful end of the API server may take a minute
end() {
    local pid until=$((SECONDS + 5))
    for pid in $(pids_of "$2"); do
        kill "-$1" "$pid" || continue
        while kill -0 "$pid" 2>/dev/null; do
            [ "$SECONDS" -lt "$until" ] || kill -KILL "$pid" 2>/dev/null || true
            sleep 0.05
        done
    done
}

wait_until() {
    local until=$((SECONDS + READY_SECONDS))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.1
    done
}

fail() { tail -n 30 "$RUN/log/$2"; die "$1; its log is $RUN/log/$2"; }

# --- the cluster ----------------------------------------------------------------------------------------------

ask() { timeout 10 kubectl --kubeconfig "$RUN/kubeconfig" "$@" 2>/dev/null; }
etcd_answers() { (exec 4<>"/dev/tcp/127.0.0.1/$ETCD") 2>/dev/null; }
api_answers() { ask get --raw /readyz; }
controllers_work() { ask get serviceaccount default; }
scheduler_works() { [ -n "$(pids_of "$BIN/kube-scheduler")" ]; }
containerd_answers() { containers version; }
registry_answers() { (exec 4<>"/dev/tcp/127.0.0.1/$REGISTRY") 2>/dev/null; }
# The node's own word: what the API knows may be of before a restart.
node_is_ready() { (exec 4<>"/dev/tcp/127.0.0.1/$NODE") 2>/dev/null && ask get node localhost | grep -qw Ready; }
containers() { ctr -a "$RUN/containerd.sock" -n k8s.io "$@"; }

provide_control() {
    if [ -z "$(init_pid)" ]; then
        clear_away
        say "starting Kubernetes $VERSION in $CLUSTER"
        mkdir -p "$RUN"
        start_init
        write_settings
    fi
    provide etcd etcd_answers "$BIN/etcd" --data-dir "$RUN/etcd" --unsafe-no-fsync \
        --listen-client-urls "http://127.0.0.1:$ETCD" --advertise-client-urls "http://127.0.0.1:$ETCD" \
        --listen-peer-urls "http://127.0.0.1:$((ETCD + 1))" --initial-advertise-peer-urls "http://127.0.0.1:$((ETCD + 1))" \
        --initial-cluster "default=http://127.0.0.1:$((ETCD + 1))"
    provide_api
    provide controllers controllers_work "$BIN/kube-controller-manager" --kubeconfig="$RUN/kubeconfig" \
        --service-account-private-key-file="$RUN/key" --root-ca-file="$RUN/certs/apiserver.crt" --bind-address=127.0.0.1 \
        --secure-port="$CONTROLLERS" --port=0 --leader-elect=false --feature-gates=TTLAfterFinished=true
}

provide_api() {
    provide apiserver api_answers "$BIN/kube-apiserver" --etcd-servers="http://127.0.0.1:$ETCD" --bind-address=127.0.0.1 \
        --advertise-address=127.0.0.1 --secure-port="$API" --cert-dir="$RUN/certs" --service-cluster-ip-range=10.97.0.0/24 \
        --service-account-issuer=https://kubernetes.default.svc --service-account-signing-key-file="$RUN/key" \
        --service-account-key-file="$RUN/key.pub" --authorization-mode=RBAC --token-auth-file="$RUN/tokens" \
        --allow-privileged=true --endpoint-reconciler-type=none --feature-gates=TTLAfterFinished=true \
        --kubelet-preferred-address-types=Hostname --storage-media-type=application/json
}

provide_node() {
    provide scheduler scheduler_works "$BIN/kube-scheduler" --kubeconfig="$RUN/kubeconfig" --bind-address=127.0.0.1 \
        --secure-port="$SCHEDULER" --port=0 --leader-elect=false
    provide registry registry_answers "$BIN/docker-registry" serve "$RUN/registry.yml"
    make_bridge
    provide containerd containerd_answers "$BIN/containerd" --config "$RUN/containerd.toml"
    [ -n "$(containers images ls -q name==docker.io/local/pause:1)" ] || pause_image | containers images import -
    provide_kubelet
}

provide_kubelet() {
    provide kubelet node_is_ready "$BIN/kubelet" --config="$RUN/kubelet.yml" --kubeconfig="$RUN/kubeconfig" \
        --container-runtime=remote --container-runtime-endpoint="unix://$RUN/containerd.sock" --root-dir=/var/lib/kubelet \
        --cert-dir="$RUN/certs/kubelet" --hostname-override=localhost --register-node=true --v=1
}

# The bridge of the pods, made here, as the plugin would also switch the machine's forwarding on.
make_bridge() {
    ip link add name "$BRIDGE" type bridge 2>/dev/null || true
    ip addr replace "$SUBNET.1/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
}

write_settings() {
    mkdir -p "$RUN"/{certs,cni}
    sysctl vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys \
        kernel.keys.root_maxbytes | sed 's/ = /=/' >"$RUN/sysctls"    # the kubelet sets them
    openssl genrsa -out "$RUN/key" 2048 2>/dev/null
    openssl rsa -in "$RUN/key" -pubout -out "$RUN/key.pub" 2>/dev/null
    echo 'admin-token,admin,admin,"system:masters"' >"$RUN/tokens"
    htpasswd -Bbn -C 4 "${LOGIN%%:*}" "${LOGIN#*:}" >"$RUN/htpasswd"
    kubeconfig >"$RUN/kubeconfig"
    registry_settings >"$RUN/registry.yml"
    network_settings >"$RUN/cni/10-bridge.conf"
    containerd_settings >"$RUN/containerd.toml"
    kubelet_settings >"$RUN/kubelet.yml"
}

# Tests act as other users by `as:` at a user.
kubeconfig() {
    cat <<X
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$API", certificate-authority: $RUN/certs/apiserver.crt}}]
users: [{name: admin, user: {token: admin-token}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
X
}

registry_settings() {
    cat <<X
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $RUN/registry}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$REGISTRY"}
auth: {htpasswd: {realm: r, path: $RUN/htpasswd}}
X
}

network_settings() {
    cat <<X
{"cniVersion": "0.4.0", "name": "pods", "type": "bridge", "bridge": "$BRIDGE", "isGateway": false, "ipMasq": false,
 "ipam": {"type": "host-local", "dataDir": "$RUN/ipam",
          "ranges": [[{"subnet": "$SUBNET.0/24", "gateway": "$SUBNET.1"}]], "routes": [{"dst": "0.0.0.0/0"}]}}
X
}

# Without the right to negative values of oom_score_adj, as in some virtual machines, no pod would start.
containerd_settings() {
    cat <<X
version = 2
root = "$RUN/containerd/root"
state = "$RUN/containerd/state"
[grpc]
address = "$RUN/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "local/pause:1"
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$PROGRAMS/plugins"
conf_dir = "$RUN/cni"
X
}

# The logs are rotated early, as that is where lines get lost.
kubelet_settings() {
    cat <<X
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
address: 127.0.0.1
port: $NODE
readOnlyPort: 0
healthzPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
oomScoreAdj: 0
failSwapOn: false
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi}
containerLogMaxSize: 1Mi
containerLogMaxFiles: 5
nodeStatusUpdateFrequency: 5s
streamingConnectionIdleTimeout: 4h0m0s
X
}

# The image of the program that holds the namespaces of a pod, as `docker save` would write it.
pause_image() {
    local work
    work=$(mktemp -d)
    tar -C "$BIN" -cf "$work/layer.tar" pause
    printf '{"architecture": "%s", "os": "linux", "config": {"Entrypoint": ["/pause"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' \
        "$ARCH" "$(sha256sum "$work/layer.tar" | cut -d' ' -f1)" >"$work/config.json"
    echo '[{"Config": "config.json", "RepoTags": ["docker.io/local/pause:1"], "Layers": ["layer.tar"]}]' >"$work/manifest.json"
    tar -C "$work" -c manifest.json config.json layer.tar
    rm -rf "$work"
}

# Also what a cluster that was killed leaves.
clear_away() {
    local pid name
    for pid in $(init_pid); do
        kill -KILL "$pid"
        while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done    # it ends when all within it have ended
    done
    [ ! -s "$RUN/sysctls" ] || sysctl -q -p "$RUN/sysctls" || true
    if ip link show "$BRIDGE" >/dev/null 2>&1; then
        for name in $(ip -o link show master "$BRIDGE" | sed 's/^[0-9]*: \([^@:]*\).*/\1/'); do ip link del "$name" || true; done
        ip link del "$BRIDGE"
    fi
    find /sys/fs/cgroup -depth -type d -path '*/k8s.io*' -exec rmdir {} + 2>/dev/null || true
    rm -rf "$RUN"
    rmdir "${MADE[@]}" 2>/dev/null || true    # where nobody else has anything in them
}

# --- what the caller gets -------------------------------------------------------------------------------------

start_all() {
    install_missing missing_packages
    provide_programs
    provide_control
    if [ "$1" = node ]; then provide_node; fi
    say "Kubernetes $VERSION is ready: $RUN/kubeconfig"
    printf 'export %s=%q\n' SKELEBOT_TEST_KUBECONFIG "$RUN/kubeconfig" >&3
    [ "$1" != node ] || printf 'export %s=%q\n' SKELEBOT_TEST_CLUSTER_REGISTRY "$LOGIN@127.0.0.1:$REGISTRY" >&3
}

# restart_api SIGNAL SECONDS
restart_api() {
    end "$1" "$BIN/kube-apiserver"
    sleep "$2"
    provide_api
}

restart_kubelet() {
    end TERM "$BIN/kubelet"
    provide_kubelet
}

check_machine() {
    [ "$(id -u)" = 0 ] || die "needs root"
    have apt-get || die "needs Debian or Ubuntu (apt-get)"
}

# One at a time: two callers must neither start two clusters nor write one cache file.
lock() {
    mkdir -p "$CLUSTER"
    chmod 755 "$(dirname "$CLUSTER")" "$CLUSTER"
    exec 9>"$CLUSTER/lock"
    flock -w 3600 9 || die "another cluster.sh holds $CLUSTER/lock"
}

must_run() { [ -n "$(init_pid)" ] || die "no cluster is running; start one with tests/cluster.sh"; }

main() {
    check_machine
    lock
    case ${1:-} in
        '') start_all node ;;
        --api) start_all api ;;
        --build) provide_programs ;;
        --stop) clear_away; say "no cluster of ours is running" ;;
        --load) must_run; containers images import "$2" ;;
        --restart-api) must_run; restart_api TERM "${2:-0}" ;;
        --kill-api) must_run; restart_api KILL "${2:-0}" ;;
        --restart-kubelet) must_run; restart_kubelet ;;
        *) die "unknown word '$1'; the head of this script says which there are" ;;
    esac
}

main "$@"
