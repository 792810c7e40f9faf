# Runs a job inside of its container, as the child of docker-init, which is told to pass signals on to
# the whole process group: the job gets them itself, also behind `bash -c`. Started as root, it lets the
# job run as whom it should, and hands what the job wrote to mapped folders over to the caller.
#
# usage: sh -c SCRIPT skelebot USER OWNER LIMIT WORDS FOLDERS PROGRAM [WORD ...]
#   USER     whom the job runs as: a name or UID, with or without :GROUP; empty for root
#   OWNER    UID:GID of the caller, to whom new files are handed over; empty when there is no need
#   LIMIT    seconds the job may take, 0 for any number
#   WORDS    a file with the program and its words, one to a line with \\ and \n escaped; empty for none
#   FOLDERS  the mapped folders, one to a line
user=$1 owner=$2 limit=$3 words=$4 folders=$5
shift 5
unset TINI_KILL_PROCESS_GROUP

fail() {
    echo "ERROR | $1" >&2
    exit 1
}

if [ -n "$words" ]; then
    set --
    while IFS= read -r line; do
        word=$(printf '%b.' "$line") # the dot keeps line ends at the end of the word
        set -- "$@" "${word%.}"
    done <"$words"
    rm -f "$words"
fi

# --- whom the job runs as ---

# look_up FILE NAME: the line of passwd or group with that name or number, in $id, $group and $home
look_up() {
    id='' group='' home=''
    while IFS=: read -r f1 _ f3 f4 _ f6 _; do
        if [ "$f1" = "$2" ] || [ "$f3" = "$2" ]; then
            id=$f3 group=$f4 home=$f6
            return 0
        fi
    done <"$1" 2>/dev/null
    case $2 in *[!0-9]* | '') return 1 ;; esac
    id=$2 group=0 home=/
    return 1
}

uid=0
case $user in '' | 0 | root | 0:* | root:*) ;; *)
    groups=--init-groups
    look_up /etc/passwd "${user%%:*}" || groups=--clear-groups
    [ -n "$id" ] || fail "the image has no user ${user%%:*}; name one that it has, or a number, with \`user\`"
    uid=$id gid=$group
    [ "$HOME" != /root ] || export HOME="${home:-/}"
    case $user in *:*)
        look_up /etc/group "${user#*:}"
        gid=$id groups=--clear-groups
        ;;
    esac
    command -v setpriv >/dev/null ||
        fail "the image has no setpriv to run as ${user%%:*}; add util-linux to build.packages, or set user: root"
    # The project's files belong to root and the mapped ones to the caller; the job may write to both.
    set -- setpriv --reuid "$uid" --regid "${gid:-0}" $groups \
        --inh-caps=+dac_override --ambient-caps=+dac_override -- "$@"
    ;;
esac

# --- how long ---

# rest [KILL]: sets $left when the job has processes left, and ends them on KILL
rest() {
    left='' nap=''
    [ -z "$watchdog" ] || read -r nap <"/proc/$watchdog/task/$watchdog/children"
    for process in /proc/[0-9]*; do
        process=${process#/proc/}
        case " 1 $$ $watchdog $nap " in *" $process "*) continue ;; esac
        left=1
        [ -z "$1" ] || kill -KILL "$process"
    done
} 2>/dev/null

asked='' late='' watchdog=''
trap 'asked=1' INT TERM HUP QUIT
trap 'late=1' USR1

if [ "$limit" != 0 ]; then
    (
        trap '' INT TERM HUP QUIT
        read -r watchdog _ </proc/self/stat
        sleep "$limit"
        kill -USR1 $$
        kill -TERM 0
        sleep 10
        rest KILL
    ) >/dev/null 2>&1 &
    watchdog=$!
fi

# --- the job ---

begun=$(date +%s)
"$@"
code=$?

if [ -n "$asked$late" ]; then
    # A shell ends at once on a signal; what it has started may still be cleaning up.
    tries=100
    while rest && [ -n "$left" ] && [ "$tries" -gt 0 ]; do
        sleep 0.1
        tries=$((tries - 1))
    done
    rest KILL
fi

# --- whose files ---

# Where the engine maps user ids, as a rootless one does, the files are the caller's already.
read -r inside outside _ </proc/self/uid_map
if [ -n "$owner" ] && [ -n "$folders" ] && [ "$uid" != "${owner%%:*}" ] && [ "$inside$outside" = 00 ]; then
    IFS='
'
    set -f
    # Only what has changed since the job began: other files of that user are not the caller's.
    find $folders -xdev -uid "$uid" -newerct "@$begun" -exec chown -h "$owner" {} + ||
        echo "WARN  | some files could not be handed over to the caller" >&2
fi

[ -z "$late" ] || code=124
exit "$code"
