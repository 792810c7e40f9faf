# Runs in each container of a pod; what the run keeps is in $_sk_run, which all of them share.
#
# usage: sh -c SCRIPT skelebot gate PATIENCE FOLDERS   waits until the client opens it for this pod
#        sh -c SCRIPT skelebot job LIMIT STDIN WORDS PROGRAM [WORD ...]
#        sh -c SCRIPT skelebot keeper KEEP             holds results until the client has them
#   PATIENCE  seconds after which the gate ends, when nothing comes from the client any more; 0 leaves it open
#   FOLDERS   how many mapped folders there are
#   LIMIT     seconds the job may take, 0 for any number
#   STDIN     whether the client sends the job's input
#   WORDS     a file with the program and its words, one to a line with \\ and \n escaped; empty for none
#   KEEP      seconds that results wait; 0 where nobody comes for them
# Variables begin with _sk_: any other name may be one of the job's environment.
_sk_run=/skelebot-run
_sk_role=$1
shift

# is_silent SECONDS: whether nobody has given a sign of life for so long
is_silent() {
    [ $(($(date +%s) - $(stat -c %Y $_sk_run/alive))) -gt "$1" ]
}

# ask_proxy METHOD PATH PORT: whether Envoy, which a service mesh puts beside the job, says yes; without bash, of
# which this takes nothing but that it can connect, it is taken to
ask_proxy() {
    command -v bash >/dev/null || return 0
    # shellcheck disable=SC2016 - the other shell's
    timeout 5 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$3" || exit
        printf "%s %s HTTP/1.0\r\nContent-Length: 0\r\n\r\n" "$1" "$2" >&3
        read -r _ code _ <&3 && [ "$code" = 200 ]' bash "$@"
} 2>/dev/null

case $_sk_role in
gate)
    trap 'exit 143' TERM INT
    umask 0
    _sk_number=0
    while [ "$_sk_number" -lt "$2" ]; do
        mkdir -p "/skelebot/$_sk_number"
        _sk_number=$((_sk_number + 1))
    done
    : >>$_sk_run/out
    : >>$_sk_run/err
    echo >$_sk_run/alive
    _sk_tries=0
    [ "$1" != 0 ] || exit 0
    until [ -e $_sk_run/open ] && [ "$(cat $_sk_run/open)" = "$_SK_POD" ]; do
        sleep 0.05 &
        wait $!
        _sk_tries=$((_sk_tries + 1))
        if [ $((_sk_tries % 100)) = 0 ] && is_silent "$1"; then
            echo 'ERROR | the job was not started: its client has gone' >&2
            exit 1
        fi
    done
    exit 0
    ;;
keeper)
    trap 'exit 0' TERM INT
    _sk_tries=0
    until [ -e $_sk_run/done ]; do
        sleep 0.2 &
        wait $!
        _sk_tries=$((_sk_tries + 1))
        if [ "$1" = 0 ] && [ -e $_sk_run/code ]; then
            sleep 5 & # for whoever follows the job
            wait $!
            break
        fi
        [ $((_sk_tries % 25)) != 0 ] || ! is_silent $(($1 + 60)) || break
    done
    ask_proxy POST /quitquitquit 15020 # or the pod would never end
    exit 0
    ;;
esac

_sk_limit=$1 _sk_stdin=$2 _sk_words=$3
shift 3
# The job's PATH is the job's; this script needs one on which the system's programs are.
_sk_path=$PATH
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# A job never begins twice, whatever restarts its container.
mkdir $_sk_run/began || exit 1

if [ -n "$_sk_words" ]; then
    set --
    while IFS= read -r _sk_line; do
        _sk_word=$(printf '%b.' "$_sk_line") # the dot keeps line ends at the end of the word
        set -- "$@" "${_sk_word%.}"
    done <"$_sk_words"
fi

# --- signals, which come from the client or, when the pod is to go, from the cluster ---

_sk_asked='' _sk_late='' _sk_job='' _sk_signals=0
pass() {
    _sk_signals=$((_sk_signals + 1))
    case $1 in INT | TERM | HUP | QUIT) _sk_asked=$1 ;; esac
    [ -z "$_sk_job" ] || kill -s "$1" -- "-$_sk_job"
} 2>/dev/null
for _sk_signal in INT TERM HUP QUIT USR1 USR2 ALRM VTALRM PROF XCPU; do
    # shellcheck disable=SC2064 - the name of now
    trap "pass $_sk_signal" "$_sk_signal"
done
trap '_sk_late=1; pass TERM' URG # which nobody sends to a job

# --- the streams: to files that the client follows, and to the container's own ---

mkfifo $_sk_run/o $_sk_run/e
(
    trap '' INT TERM HUP QUIT
    exec tee -a $_sk_run/out <$_sk_run/o
) &
_sk_tees=$!
(
    trap '' INT TERM HUP QUIT
    exec tee -a $_sk_run/err <$_sk_run/e >&2
) &
_sk_tees="$_sk_tees $!"
(
    while echo >$_sk_run/alive; do
        sleep 20
    done
) >/dev/null 2>&1 &
_sk_in=/dev/null
if [ -n "$_sk_stdin" ]; then
    _sk_in=$_sk_run/i
    mkfifo $_sk_in
    : >>$_sk_run/in
    (
        trap '' INT TERM HUP QUIT
        while [ ! -e $_sk_run/in.end ]; do
            sleep 0.1
        done
    ) &
    _sk_end=$! # this shell's own child, as nobody else's would ever be gone
    (
        trap '' INT TERM HUP QUIT
        exec tail -c +1 -s 0.1 -f --pid=$_sk_end $_sk_run/in >$_sk_in
    ) &
fi

# --- the proxy of a service mesh: without it, the job would reach nothing ---

_sk_tries=600
while [ -e $_sk_run/mesh ] && [ -z "$_sk_asked" ] && [ "$_sk_tries" -gt 0 ]; do
    ! ask_proxy GET /healthz/ready 15021 || break
    sleep 0.1
    _sk_tries=$((_sk_tries - 1))
done

# --- the job, in a process group of its own; a shell's background would ignore Ctrl-C ---

if [ "$_sk_limit" != 0 ]; then
    (
        trap '' INT TERM HUP QUIT
        sleep "$_sk_limit" && kill -s URG $$ && sleep 10 && kill -s KILL -- "-$(cat $_sk_run/pid)"
    ) >/dev/null 2>&1 &
fi
_sk_env=$(command -v env) _sk_setsid=$(command -v setsid)
if "$_sk_env" --default-signal=INT,QUIT true 2>/dev/null; then
    set -- "$_sk_env" --default-signal=INT,QUIT "$@"
fi
_sk_code=143
if [ -z "$_sk_asked" ]; then
    PATH=$_sk_path "$_sk_setsid" "$@" <$_sk_in >$_sk_run/o 2>$_sk_run/e &
    _sk_job=$!
    echo $_sk_job >$_sk_run/pid
    [ -z "$_sk_asked" ] || pass "$_sk_asked"
    # A signal ends `wait`, with a code of its own; one that comes at the job's end may hide that one's code,
    # which the next `wait` gives then, or 127 where it was given before.
    _sk_code=''
    while
        _sk_seen=$_sk_signals
        wait $_sk_job
        _sk_status=$?
        [ "$_sk_status" = 127 ] && [ -n "$_sk_code" ] || _sk_code=$_sk_status
        ! kill -0 $_sk_job 2>/dev/null || _sk_code=''
        [ -z "$_sk_code" ] || [ "$_sk_seen" != "$_sk_signals" ]
    do :; done
else
    : >$_sk_run/o
    : >$_sk_run/e
fi

# end_rest: ends what the job has left behind, as the end of its container would
end_rest() {
    for _sk_process in /proc/[0-9]*; do
        _sk_process=${_sk_process#/proc/}
        case " 1 $$ $_sk_tees " in *" $_sk_process "*) continue ;; esac
        kill -s KILL "$_sk_process"
    done
} 2>/dev/null

if [ -n "$_sk_asked" ]; then
    # A shell ends at once on a signal; what it has started may still be cleaning up.
    _sk_tries=100
    while [ -n "$_sk_job" ] && kill -s 0 -- "-$_sk_job" 2>/dev/null && [ "$_sk_tries" -gt 0 ]; do
        sleep 0.1
        _sk_tries=$((_sk_tries - 1))
    done
fi
end_rest
# shellcheck disable=SC2086 - two words
while
    wait $_sk_tees
    kill -0 $_sk_tees 2>/dev/null
do :; done
if [ -n "$_sk_late" ]; then
    case $_sk_limit in 1) _sk_unit=second ;; *) _sk_unit=seconds ;; esac
    echo "ERROR | the job was ended: it took longer than its timeout of $_sk_limit $_sk_unit" |
        tee -a $_sk_run/err >&2
    _sk_code=124
elif [ "$_sk_code$_sk_asked" = 0TERM ]; then
    _sk_code=143 # whoever has ended it, it is not a success
fi
echo "$_sk_code $(wc -c <$_sk_run/out) $(wc -c <$_sk_run/err)" >$_sk_run/code.new
mv $_sk_run/code.new $_sk_run/code
exit "$_sk_code"
