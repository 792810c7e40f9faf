# Gets a Kerberos ticket from the mounted keytab, keeps it fresh, and becomes the job.
#
# usage: sh -c SCRIPT kerberos KEYTAB PRINCIPAL PROGRAM [WORD ...]
# Variables begin with _sk_: any other name may be one of the job's environment.
_sk_keytab=$1 _sk_principal=$2
shift 2

fail() {
    echo "ERROR | kerberos: $1" >&2
    exit 1
}

command -v kinit >/dev/null || fail 'the image has no kinit; add krb5-user to it'
[ -e "$_sk_keytab" ] || fail "the keytab is missing; mount it: docker run -v KEYTAB:$_sk_keytab:ro ..."
[ -r "$_sk_keytab" ] || fail "$_sk_keytab cannot be read by $(id -un 2>/dev/null || id -u); let its user read the keytab"

# A file, as the keyring that some settings name is not one of a container's.
export KRB5CCNAME="FILE:/tmp/krb5cc_$(id -u)"

get_ticket() {
    _sk_said=$(timeout 60 kinit -k -t "$_sk_keytab" "$_sk_principal" 2>&1) && return
    [ $? != 124 ] || _sk_said='no KDC has answered in 60 seconds'
    _sk_said=$(echo "$_sk_said" | tail -n 1)
    return 1
}

# Half of the time that the ticket is good for, in seconds.
half_its_life() {
    _sk_end=$(LC_ALL=C klist 2>/dev/null | while read -r _ _ _sk_day _sk_time _sk_service; do
        case $_sk_service in krbtgt/*) date -d "$_sk_day $_sk_time" +%s && break ;; esac
    done)
    _sk_half=$(((${_sk_end:-0} - $(date +%s)) / 2))
    if [ "$_sk_half" -lt 1 ]; then _sk_half=60; fi
}

get_ticket || fail "no ticket for $_sk_principal: ${_sk_said#kinit: }; the job was not started"
# What keeps it fresh is a grandchild: a job that waits for all of its children does not wait for it.
( (
    # tail ends with the job, whose process this shell becomes; timeout ends it when the time has come.
    while half_its_life && ! timeout "$_sk_half" tail --pid=$$ -f /dev/null; do
        get_ticket || echo "WARN  | kerberos: the ticket was not renewed: ${_sk_said#kinit: }" >&2
    done
) </dev/null >/dev/null & )
exec "$@"
