# shellcheck shell=bash
# ./dev bench: installs what the benchmark and its peers need, and runs bench/run.py.

readonly SERVICE_POLICY=/usr/sbin/policy-rc.d # asked by Debian's packages before they start a service

command_bench() {
    if [[ " $* " == *" --help "* ]]; then
        ensure_packages bench
        python3 bench/run.py --help
        return
    fi
    ensure_packages build database client bench
    bench_peers
    build_release
    run_child python3 bench/run.py "$@"
}

# A peer that cannot be installed is reported as not run.
bench_peers() {
    bench_peer bench-go
    command -v npm >/dev/null || bench_peer bench-node
    package_installed libnginx-mod-http-lua || bench_nginx
}

bench_peer() {
    (ensure_packages "$1") || say "$1: not installed; its rows will be missing"
}

# nginx would be started on port 80 as soon as it is installed.
bench_nginx() {
    if [[ -e $SERVICE_POLICY ]]; then
        bench_peer bench-nginx
    else
        at_end bench_allow_services
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$SERVICE_POLICY" >/dev/null
        as_root chmod +x "$SERVICE_POLICY"
        bench_peer bench-nginx
        bench_allow_services
    fi
}

bench_allow_services() {
    as_root rm -f "$SERVICE_POLICY"
}
