# shellcheck shell=bash
# ./dev chaos and ./dev soak: load, with and without faults, and books that are checked.

# The build that the options ask for: the release, with --sanitize the one with sanitizers.
command_chaos() {
    local build=build_server folder=build argument
    local -a options=()
    for argument in "$@"; do
        case $argument in
        --sanitize)
            build=build_sanitized
            folder="build-asan"
            ;;
        *) options+=("$argument") ;;
        esac
    done
    ensure_packages build database client chaos
    if [[ " $* " != *" --help "* ]]; then
        "$build" || die "the build failed; see above"
    fi
    run_child python3 tools/chaos/run.py --moonpool "$folder/moonpool" "${options[@]}"
}

command_soak() {
    ensure_packages build database client chaos
    build_release
    run_child python3 tools/chaos/run.py --moonpool build/moonpool --soak "$@"
}
