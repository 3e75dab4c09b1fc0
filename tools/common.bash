# shellcheck shell=bash
# Words for people, child processes that end when ./dev ends, and what to undo at the end.

readonly HTTP_TIMEOUT=2 # seconds to wait for a line of an HTTP answer

# Progress goes to standard error: what a command gives may be read by another program.
say() {
    printf '==> %s\n' "$*" >&2
}

die() {
    printf 'dev: %s\n' "$*" >&2
    exit 1
}

fail_usage() {
    printf 'dev: %s\n' "$*" >&2
    exit 2
}

# The child that runs now, leader of its own process group; empty when there is none.
child=

# Commands to run at the end, the last one first.
cleanups=()

at_end() {
    cleanups=("$1" "${cleanups[@]}")
}

run_cleanups() {
    local cleanup
    trap '' INT TERM HUP
    end_child
    for cleanup in "${cleanups[@]}"; do
        "$cleanup" || true
    done
}

trap run_cleanups EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Starts a command in a process group of its own, so that a Ctrl-C reaches ./dev alone, which then
# decides what happens to it. It has no standard input, and none of the locks.
start_child() {
    set -m
    "$@" </dev/null 8>&- 9>&- &
    child=$!
    set +m
}

# Waits for the child, through signals that the shell has a trap for, and gives its exit status.
wait_child() {
    local status=0
    while kill -0 "$child" 2>/dev/null; do
        wait "$child" || true
    done
    wait "$child" || status=$?
    child=
    return "$status"
}

end_child() {
    if [[ -n $child ]]; then
        kill -TERM -- "-$child" 2>/dev/null || true
        wait_child 2>/dev/null || true
    fi
}

run_child() {
    start_child "$@"
    wait_child
}

# An address as the server takes it ("host:port", ":port", "[::1]:port") as the host and the port
# to reach it by, in two lines.
reachable_address() {
    local host=${1%:*} port=${1##*:}
    host=${host#[}
    host=${host%]}
    case $host in
    '' | '*' | 0.0.0.0) host=127.0.0.1 ;;
    ::) host=::1 ;;
    esac
    printf '%s\n%s\n' "$host" "$port"
}

# Does anyone listen on this host and port?
port_in_use() {
    (exec 7<>"/dev/tcp/$1/$2") 2>/dev/null
}

# Is the answer to GET host port path a 200? Needs no curl.
http_ok() {
    local line
    line=$(
        exec 2>/dev/null 7<>"/dev/tcp/$1/$2" || exit 1
        printf 'GET %s HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n\r\n' "$3" "$1" "$2" >&7
        IFS= read -r -t "$HTTP_TIMEOUT" line <&7 && printf '%s' "$line"
    ) && [[ $line == 'HTTP/1.1 200 '* ]]
}

# A port on loopback that nobody listens on, below the range the kernel hands out by itself.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 12000))
        if ! port_in_use 127.0.0.1 "$port"; then
            printf '%s\n' "$port"
            return
        fi
    done
    die "no free port found between 20000 and 32000"
}
