# Runs a job inside its container, as the child of docker-init, which is set to pass signals on to
# the whole process group: the job gets them itself, also behind `bash -c`. Started as root, it lets the
# job run as whom it should, and hands what the job wrote to mapped folders over to the caller.
#
# usage: sh -c SCRIPT skelebot USER OWNER LIMIT MEMORY WORDS FOLDERS PROGRAM [WORD ...]
#   USER     whom the job runs as: a name or UID, with or without :GROUP; empty for root
#   OWNER    UID:GID of the caller, to whom new files are handed over; empty when there is no need
#   LIMIT    seconds the job may take, 0 for any number
#   MEMORY   what to say about a job that was killed for its memory; empty where that has no limit
#   WORDS    a file with the program and its words, one to a line with \\ and \n escaped; empty for none
#   FOLDERS  the mapped folders, one to a line
# Variables begin with _sk_: any other name may be one of the job's environment.
_sk_user=$1 _sk_owner=$2 _sk_limit=$3 _sk_memory=$4 _sk_words=$5 _sk_folders=$6
shift 6
unset TINI_KILL_PROCESS_GROUP
# The job's PATH is the job's; this script needs one on which the system's programs are.
_sk_path=$PATH
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

fail() {
    echo "ERROR | $1" >&2
    exit 1
}

if [ -n "$_sk_words" ]; then
    set --
    while IFS= read -r _sk_line; do
        _sk_word=$(printf '%b.' "$_sk_line") # the dot keeps line ends at the end of the word
        set -- "$@" "${_sk_word%.}"
    done <"$_sk_words"
    rm -f "$_sk_words"
fi

# Where no file of the caller's is mounted to take what the job measures, it stays in the container.
if [ -n "$SKELEBOT_METRICS" ] && [ ! -e "$SKELEBOT_METRICS" ]; then
    mkdir -p "${SKELEBOT_METRICS%/*}" && : >"$SKELEBOT_METRICS" && chmod 666 "$SKELEBOT_METRICS"
fi

# --- whom the job runs as ---

# look_up FILE NAME: the line of passwd or group with that name or number, in $_sk_id, $_sk_group and $_sk_home
look_up() {
    _sk_id='' _sk_group='' _sk_home=''
    while IFS=: read -r _sk_f1 _ _sk_f3 _sk_f4 _ _sk_f6 _; do
        if [ "$_sk_f1" = "$2" ] || [ "$_sk_f3" = "$2" ]; then
            _sk_id=$_sk_f3 _sk_group=$_sk_f4 _sk_home=$_sk_f6
            return 0
        fi
    done <"$1" 2>/dev/null
    case $2 in *[!0-9]* | '') return 1 ;; esac
    _sk_id=$2 _sk_group=0 _sk_home=/
    return 1
}

_sk_uid=0
case $_sk_user in '' | 0 | root | 0:0 | root:root) ;; *)
    _sk_groups=--init-groups
    look_up /etc/passwd "${_sk_user%%:*}" || _sk_groups=--clear-groups
    [ -n "$_sk_id" ] || fail "the image has no user ${_sk_user%%:*}; name one that it has, or a number, with \`user\`"
    _sk_uid=$_sk_id _sk_gid=$_sk_group
    [ "$HOME" != /root ] || export HOME="${_sk_home:-/}"
    case $_sk_user in *:*)
        look_up /etc/group "${_sk_user#*:}"
        _sk_gid=$_sk_id _sk_groups=--clear-groups
        ;;
    esac
    _sk_setpriv=$(command -v setpriv) ||
        fail "the image has no setpriv to run as ${_sk_user%%:*}; add util-linux to build.packages, or set user: root"
    # The project's files belong to root and the mapped ones to the caller; the job may write to both, and
    # set their times and modes.
    set -- "$_sk_setpriv" --reuid "$_sk_uid" --regid "${_sk_gid:-0}" $_sk_groups \
        --inh-caps=+dac_override,+fowner --ambient-caps=+dac_override,+fowner -- "$@"
    ;;
esac

# --- how long ---

# rest [KILL]: sets $_sk_left when the job has processes left, and ends them on KILL
rest() {
    _sk_left='' _sk_nap=''
    [ -z "$_sk_watchdog" ] || read -r _sk_nap <"/proc/$_sk_watchdog/task/$_sk_watchdog/children"
    for _sk_process in /proc/[0-9]*; do
        _sk_process=${_sk_process#/proc/}
        case " 1 $$ $_sk_watchdog $_sk_nap " in *" $_sk_process "*) continue ;; esac
        _sk_left=1
        [ -z "$1" ] || kill -KILL "$_sk_process"
    done
} 2>/dev/null

_sk_asked='' _sk_late='' _sk_watchdog=''
trap '_sk_asked=1' INT TERM HUP QUIT
trap '_sk_late=1' URG # which nobody sends to a job
trap : USR1 USR2 ALRM VTALRM PROF XCPU # the job's, to whom they are passed on

if [ "$_sk_limit" != 0 ]; then
    (
        trap '' INT TERM HUP QUIT USR1 USR2 ALRM VTALRM PROF XCPU
        read -r _sk_watchdog _ </proc/self/stat
        sleep "$_sk_limit" || exit
        kill -URG $$
        kill -TERM 0
        sleep 10
        rest KILL
    ) >/dev/null 2>&1 &
    _sk_watchdog=$!
fi

# --- the job ---

_sk_begun=$(date +%s)
_sk_own=$PATH
_sk_code=143
if [ -z "$_sk_asked$_sk_late" ]; then
    PATH=$_sk_path
    "$@"
    _sk_code=$?
    PATH=$_sk_own
fi

if [ -n "$_sk_asked$_sk_late" ]; then
    # A shell ends at once on a signal; what it has started may still be cleaning up.
    _sk_tries=100
    while rest && [ -n "$_sk_left" ] && [ "$_sk_tries" -gt 0 ]; do
        sleep 0.1
        _sk_tries=$((_sk_tries - 1))
    done
    rest KILL
fi

# was_killed: whether the kernel has killed a process of this container for its memory
was_killed() {
    while read -r _sk_name _sk_count; do
        [ "$_sk_name" != oom_kill ] || [ "$_sk_count" = 0 ] || return 0
    done <"$1"
    return 1
} 2>/dev/null

_sk_cgroup=/sys/fs/cgroup
if [ -n "$_sk_memory" ] && [ "$_sk_code" != 0 ] && [ -z "$_sk_asked$_sk_late" ]; then
    # The second is that of control groups version 1.
    if was_killed $_sk_cgroup/memory.events || was_killed $_sk_cgroup/memory/memory.oom_control; then
        printf 'ERROR | %s\n' "$_sk_memory" >&2
    fi
fi

# --- whose files ---

trap '' INT TERM HUP QUIT USR1 USR2 ALRM VTALRM PROF XCPU # a second request finds the job at its end
# Where the engine maps user ids, as a rootless one does, the files are the caller's already.
read -r _sk_inside _sk_outside _ </proc/self/uid_map
if [ -n "$_sk_owner" ] && [ -n "$_sk_folders" ] && [ "$_sk_uid" != "${_sk_owner%%:*}" ] && [ "$_sk_inside$_sk_outside" = 00 ]; then
    IFS='
'
    set -f
    # shellcheck disable=SC2086 - one folder to a line
    # Only what has changed since the job began: other files of that user are not the caller's.
    # A mapped folder may be a link, which Docker follows in the container too.
    find -H $_sk_folders -xdev -uid "$_sk_uid" -newerct "@$_sk_begun" -exec chown -h "$_sk_owner" {} + ||
        echo "WARN  | some files could not be handed over to the caller" >&2
fi

if [ -n "$_sk_late" ]; then
    case $_sk_limit in 1) _sk_unit=second ;; *) _sk_unit=seconds ;; esac
    echo "ERROR | the job was ended: it took longer than its timeout of $_sk_limit $_sk_unit" >&2
    _sk_code=124
fi
exit "$_sk_code"
