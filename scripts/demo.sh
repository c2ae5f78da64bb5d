#!/bin/bash
# SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later
# Shows real packets being watched, dropped, changed and passed on.
#
#   scripts/demo.sh [BUILDDIR]
#
# Two machines are played by two network namespaces: this one, where OpenDivert
# works and curl runs, and a far one with a web server.  Each step says what it
# expects and what it saw; the status is 1 where they differ, and 77 where the
# demo cannot run at all.  Namespaces and processes are gone when it ends,
# however it ends.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd -P)
build=$(realpath -m -- "${1:-$root/build}")

# ---- outside: become root, make the namespaces -------------------------------

outside()
{
    local child

    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
            echo "demo: packet filters need root: sudo"
            exec sudo -- "$0" "$build"
        fi
        echo "demo: needs root (it makes its own network namespaces and changes nothing outside them)"
        exit 77
    fi
    scratch=$(mktemp -d) || exit 1
    trap 'rm -rf -- "$scratch"' EXIT
    # unshare waits through other signals; with it go all processes of the namespaces.
    trap 'kill -KILL "$child" 2>/dev/null' INT TERM HUP
    DEMO_OUTER_NET=$(readlink /proc/self/ns/net) DEMO_SCRATCH=$scratch \
        unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$build" &
    child=$!
    wait "$child" 2>/dev/null
    status=$?
    # A signal ends the first wait early.
    kill -0 "$child" 2>/dev/null && wait "$child" 2>/dev/null
    exit $status
}

[ -n "${DEMO_OUTER_NET-}" ] || outside

# ---- inside ------------------------------------------------------------------

# A namespace just made has no address; and in one of processes this is the first.
net=$(readlink /proc/self/ns/net)
if [ -z "$net" ] || [ "$net" = "$DEMO_OUTER_NET" ] || [ $$ -ne 1 ] || [ -n "$(ip -o addr)" ]; then
    echo "demo: not in network and process namespaces of its own; refused" >&2
    exit 1
fi
cd "$DEMO_SCRATCH" || exit 1
trap 'exit 130' INT TERM HUP # this is process 1 of its namespace: all others end with it
samples=$build/samples
url=http://10.57.0.2:8080
different=0

die()
{
    echo "demo: $*" >&2
    exit 1
}

# wait_for SECONDS COMMAND...: until COMMAND succeeds
wait_for()
{
    local tries=$(($1 * 20))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ $((tries--)) -gt 0 ] || return 1
        sleep 0.05
    done
}

title()
{
    printf '\n%s\n' "$1"
}

indent()
{
    sed 's/^/    /'
}

# check EXPECTED SEEN
check()
{
    local verdict=ok

    if [ "$1" != "$2" ]; then
        verdict=DIFFERENT
        different=1
    fi
    printf '    expect: %s\n    saw:    %-52s %s\n' "$1" "$2" "$verdict"
}

# start NAME PROGRAM ARGS...: in the background, until it says that it is ready
start()
{
    local name=$1
    shift
    printf '    $ %s "%s"%s\n' "${1##*/}" "$2" "${3+ ${*:3}}"
    "$@" >"$name.out" 2>"$name.err" &
    pid=$!
    wait_for 5 grep -q ready "$name.err" || {
        indent <"$name.err" >&2
        die "$name did not start"
    }
}

stop()
{
    kill -TERM "$pid"
    wait "$pid"
}

get()
{
    curl --silent --show-error --noproxy '*' --max-time 2 "$url/$1" 2>&1
}

lines()
{
    wc -l <"$1"
}

# shellcheck disable=SC2317
at_least()
{
    [ "$(lines "$1")" -ge "$2" ]
}

# shellcheck disable=SC2317 # this and at_least are called by wait_for
server_answers()
{
    [ "$(get hello)" = "Hello, world" ]
}

build_network()
{
    ip link set lo up
    unshare --net sleep infinity &
    far=$!
    wait_for 5 eval "[ \"\$(readlink /proc/$far/ns/net)\" != '$net' ]" || die "no second namespace"
    ip link add near type veth peer name far netns "$far" || die "no veth pair"
    ip addr add 10.57.0.1/24 dev near
    ip link set near up
    nsenter -t "$far" -n sh -c 'ip link set lo up && ip addr add 10.57.0.2/24 dev far && ip link set far up'
    nsenter -t "$far" -n python3 "$root/tests/demo/server.py" 10.57.0.2 8080 &
    wait_for 10 server_answers || die "the web server does not answer"
}

step_plain()
{
    title "1. A web server on another machine, without OpenDivert"
    echo "    \$ curl $url/hello"
    check "Hello, world" "$(get hello)"
}

seen_in_dump()
{
    local words=()

    awk '/^#.*outbound/ {out=1} /^#.*inbound/ {out=0} out && /Flags=SYN/ {found=1} END {exit !found}' netdump.out &&
        words+=("outbound SYN")
    grep -q 'GET /hello' netdump.out && words+=("request")
    grep -q 'Hello, world' netdump.out && words+=("answer")
    (IFS=,; echo "${words[*]}")
}

step_netdump()
{
    title "2. netdump prints what passes and touches nothing"
    start netdump "$samples/netdump" "tcp.SrcPort == 8080 or tcp.DstPort == 8080"
    check "Hello, world" "$(get hello)"
    wait_for 3 grep -q 'Hello, world' netdump.out
    stop
    echo "    the first packet, the one with the request, and the totals:"
    awk -v RS= 'NR == 1 || /GET \/hello/' netdump.out | indent
    tail -n 2 netdump.out | indent
    check "outbound SYN,request,answer" "$(seen_in_dump)"
}

step_drop()
{
    local before after

    title "3. A DROP filter takes a connection away, and closing it gives it back"
    echo "    \$ curl $url/count        (40 numbers, ten a second, in one connection)"
    curl --silent --no-buffer --noproxy '*' --max-time 30 "$url/count" >count.out &
    local client=$!
    wait_for 5 at_least count.out 5 || echo "    nothing came"
    start drop "$samples/drop" "inbound and tcp.SrcPort == 8080"
    sleep 0.2
    before=$(lines count.out)
    check "no answer" "$(get hello | grep -q Hello && echo answer || echo "no answer")"
    after=$(lines count.out)
    check "still $before numbers" "still $after numbers"
    stop
    echo "    closed"
    wait "$client"
    status=$?
    check "all 40 numbers, curl's status 0" "all $(lines count.out) numbers, curl's status $status"
    check "Hello, world" "$(get hello)"
}

step_modify()
{
    title "4. The content of packets is changed on the way"
    start modify "$samples/modify" "inbound and tcp.SrcPort == 8080 and tcp.PayloadLength > 0" world Linux
    check "Hello, Linux" "$(get hello)"
    stop
    indent <modify.out
    check "Hello, world" "$(get hello)"
}

queues()
{
    if grep -q . /proc/net/netfilter/nfnetlink_queue 2>/dev/null; then
        echo "packet queues"
    else
        echo "no packet queue"
    fi
}

sum_of_big()
{
    curl --silent --noproxy '*' --max-time 20 "$url/big" | sha256sum | cut -c1-32
}

step_passthru()
{
    local direct

    title "5. 4 MB through passthru, every packet received and sent on by the program"
    direct=$(sum_of_big)
    start passthru "$samples/passthru" "tcp.SrcPort == 8080 or tcp.DstPort == 8080" 64 2
    check "packet queues" "$(queues)"
    check "SHA-256 $direct" "SHA-256 $(sum_of_big)"
    stop
    indent <passthru.out
    check "packets went through it" "$(grep -q '^[1-9][0-9]* packets received' passthru.out &&
        echo "packets went through it" || echo "no packet went through it")"
}

step_after()
{
    title "6. Nothing is left in the kernel"
    check "no packet queue" "$(queues)"
    check "Hello, world" "$(get hello)"
}

build_network
step_plain
step_netdump
step_drop
step_modify
step_passthru
step_after
title "$([ $different -eq 0 ] && echo "All as expected." || echo "Not as expected: see DIFFERENT above.")"
exit $different
