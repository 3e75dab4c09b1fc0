# shellcheck shell=bash
# ./dev fuzz: libFuzzer makes up inputs for the targets in fuzz/. What it learns stays in
# build-fuzz/corpus; what is worth keeping is merged into fuzz/corpus, which every test run replays.

readonly FUZZ_MINUTES=10
readonly FUZZ_LONGEST_INPUT=2048

build_fuzz() {
    say "Building build-fuzz/"
    CC=clang setup_in build-fuzz -Dfuzz=true --buildtype=debugoptimized \
        -Db_sanitize=address,undefined -Db_lundef=false \
        -Dc_args=-fno-sanitize-recover=undefined &&
        run_child ninja -C build-fuzz fuzz-targets
}

fuzz_targets() {
    local source
    for source in fuzz/fuzz_*.c; do
        source=${source#fuzz/fuzz_}
        printf '%s\n' "${source%.c}"
    done
}

# fuzz_target TARGET MINUTES: until the time is over or something is found.
fuzz_target() {
    local target=$1 minutes=$2
    say "$target, for $minutes minutes"
    mkdir -p "build-fuzz/corpus/$target"
    run_child nice -n 10 "build-fuzz/fuzz/fuzz_$target" -max_total_time=$((minutes * 60)) \
        -max_len=$FUZZ_LONGEST_INPUT -verbosity=0 -print_final_stats=1 \
        -artifact_prefix="build-fuzz/finding-$target-" \
        "build-fuzz/corpus/$target" "fuzz/corpus/$target" ||
        die "the input is in build-fuzz/finding-$target-*; put it into fuzz/corpus/$target when it is mended"
}

# merge_target TARGET: takes from what was learnt the little that reaches code nothing else reaches.
merge_target() {
    say "$1: merging into fuzz/corpus/$1"
    run_child "build-fuzz/fuzz/fuzz_$1" -set_cover_merge=1 -use_counters=0 -verbosity=0 \
        -max_len=$FUZZ_LONGEST_INPUT "fuzz/corpus/$1" "build-fuzz/corpus/$1" 2>/dev/null
}

command_fuzz() {
    local minutes=$FUZZ_MINUTES merge=no target
    local -a targets=()
    while (($#)); do
        case $1 in
        --minutes)
            minutes=${2:-}
            [[ $minutes =~ ^[1-9][0-9]*$ ]] || fail_usage "--minutes needs a whole number"
            shift
            ;;
        --merge) merge=yes ;;
        -*) fail_usage "unknown option '$1'; see ./dev help" ;;
        *)
            [[ -e fuzz/fuzz_$1.c ]] || fail_usage "no target '$1'; there are: $(fuzz_targets | paste -sd ' ')"
            targets+=("$1")
            ;;
        esac
        shift
    done
    ((${#targets[@]})) || mapfile -t targets < <(fuzz_targets)
    ensure_packages build fuzz
    build_fuzz || die "the build failed; see above"
    for target in "${targets[@]}"; do
        if [[ $merge == yes ]]; then
            merge_target "$target"
        else
            fuzz_target "$target" "$minutes"
        fi
    done
}
