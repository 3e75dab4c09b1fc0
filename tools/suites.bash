# shellcheck shell=bash
# ./dev test: runs the suites, counts what each of them checked, and sums up. A suite that could not
# run, or checked nothing, counts as one failure.

readonly SUITE_TIMEOUT=6m # several times what a suite takes
readonly SPEC_TIMEOUT=300 # seconds; several times what a spec file takes with sanitizers

scratch=     # a temporary folder for cluster, counts and sanitizer reports
total_passed=0
total_failed=0
total_skipped=0
summary=()

# record SUITE PASSED FAILED SKIPPED
record() {
    local failed=$3
    if (($2 + $3 == 0)); then
        failed=1
    fi
    total_passed=$((total_passed + $2))
    total_failed=$((total_failed + failed))
    total_skipped=$((total_skipped + $4))
    summary+=("$(printf '    %-28s %s' "$1" "$(totals "$2" "$failed" "$4")")")
}

totals() {
    printf '%d passed, %d failed' "$1" "$2"
    if (($3 > 0)); then
        printf ', %d skipped' "$3"
    fi
}

make_scratch() {
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/moonpool-test.XXXXXX")
    at_end remove_scratch
}

remove_scratch() {
    rm -rf "$scratch"
}

# suite_c SUITE BUILD_FOLDER: meson runs the C tests; its JUnit report counts their TAP lines.
suite_c() {
    local suite=$1 folder=$2 status=0 passed=0 failed=0 skipped=0
    local report=$folder/meson-logs/testlog.junit.xml
    say "$suite"
    rm -f "$report"
    run_child meson test -C "$folder" --no-rebuild --print-errorlogs || status=$?
    read -r passed failed skipped < <(junit_totals "$report") || true
    if ((status != 0 && failed == 0)); then
        failed=1
    fi
    record "$suite" "$passed" "$failed" "$skipped"
}

# Sums the <testsuite> elements of a JUnit report: passed, failed, skipped.
junit_totals() {
    awk '
        function value(name) {
            if (!match($0, " " name "=\"[0-9]+\"")) {
                return 0
            }
            return substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 4)
        }
        /<testsuite / {
            bad = value("failures") + value("errors")
            failed += bad
            skipped += value("skipped")
            passed += value("tests") - bad - value("skipped")
        }
        END { print passed + 0, failed + 0, skipped + 0 }
    ' <(sed 's/<testsuite /\n&/g' "$1" 2>/dev/null)
}

# suite_specs SUITE SERVER SPEC...: each file in a process of its own, one for two processors at a time,
# since each has a server and a database that work too. A file that does not come to its end is one
# failure more.
suite_specs() {
    local suite=$1 spec
    local -a specs=()
    export MOONPOOL_BIN=$root/$2
    shift 2
    say "$suite"
    spec_folder=$(mktemp -d "$scratch/specs.XXXXXX")
    mapfile -t specs < <(find "$@" -name '*_spec.lua' | sort)
    spec_passed=0 spec_failed=0 spec_skipped=0
    if ((${#specs[@]})); then
        run_child xargs -a <(printf '%s\n' "${specs[@]}") -P "$((($(nproc) + 1) / 2))" -n 1 \
            tools/run_spec.bash "$spec_folder" "$SPEC_TIMEOUT" || true
    fi
    for spec in "${specs[@]}"; do
        count_spec "$spec"
    done
    record "$suite" "$spec_passed" "$spec_failed" "$spec_skipped"
}

# Adds the counts of one file to spec_passed, spec_failed and spec_skipped.
count_spec() {
    local name=${1//\//_} passed=0 failed=0 skipped=0 status=1 running=
    read -r status <"$spec_folder/$name.status" || true
    if [[ -e $spec_folder/$name.counts ]]; then
        { read -r passed failed skipped && read -r running; } <"$spec_folder/$name.counts" || true
    fi
    if [[ -n $running ]]; then
        printf '\n  %s ended, or took more than %s s, in: %s\n' "$1" "$SPEC_TIMEOUT" "$running"
        failed=$((failed + 1))
    elif ((passed + failed + skipped == 0)); then
        printf '\n  %s checked nothing\n' "$1"
        failed=1
    elif ((status != 0 && failed == 0)); then
        printf '\n  %s ended with status %s\n' "$1" "$status"
        failed=1
    fi
    spec_passed=$((spec_passed + passed))
    spec_failed=$((spec_failed + failed))
    spec_skipped=$((spec_skipped + skipped))
}

# Lets everything that is built with sanitizers end at the first finding and leave a report of it,
# which counts even if the process was replaced and its client never noticed.
sanitizer_environment() {
    mkdir -p "$scratch/sanitizer"
    export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1"
    ASAN_OPTIONS+=":log_path='$scratch/sanitizer/report'"
    export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:log_path='$scratch/sanitizer/report'"
}

suite_sanitizer_reports() {
    local suite="sanitizer reports" report count=0
    say "$suite"
    for report in "$scratch"/sanitizer/*; do
        if [[ -e $report ]]; then
            count=$((count + 1))
            printf '%s\n' "--- report $count"
            head -n 60 "$report"
        fi
    done
    if ((count == 0)); then
        record "$suite" 1 0 0
    else
        record "$suite" 0 "$count" 0
    fi
}

# suite_chaos SUITE SERVER: a short run with a seed that is always the same; ./dev chaos has longer ones.
suite_chaos() {
    say "$1"
    if run_child timeout --kill-after=10 "$SUITE_TIMEOUT" python3 tools/chaos/run.py --seed 1 \
        --minutes 0.15 --moonpool "$2"; then
        record "$1" 1 0 0
    else
        record "$1" 0 1 0
    fi
}

# A pass over C tests and specs with one build. suites_of LABEL BUILD_FUNCTION BUILD_FOLDER
suites_of() {
    if "$2"; then
        suite_c "C tests$1" "$3"
        suite_specs "specs$1" "$3/moonpool" spec
        suite_chaos "chaos$1" "$3/moonpool"
    else
        record "build$1" 0 1 0
    fi
}

# Only the given spec files or folders.
test_some() {
    if build_test; then
        suite_specs specs build-test/moonpool "$@"
    else
        record build 0 1 0
    fi
}

test_all() {
    suites_of "" build_test build-test
    if [[ $1 == full ]]; then
        sanitizer_environment
        suites_of ", ASan+UBSan" build_sanitized build-asan
        suite_sanitizer_reports
    fi
    suite_checks
}

command_test() {
    local mode=full argument
    local -a specs=()
    for argument in "$@"; do
        case $argument in
        --quick) mode=quick ;;
        -*) fail_usage "unknown option '$argument'; see ./dev help" ;;
        *) specs+=("$argument") ;;
        esac
    done
    ensure_packages build client database check test
    make_scratch
    scratch_cluster
    if ((${#specs[@]})); then
        test_some "${specs[@]}"
    else
        test_all "$mode"
    fi
    finish
}

# Prints the summary, whose last line is for machines too, and gives the verdict.
finish() {
    printf '\nSummary\n'
    printf '%s\n' "${summary[@]}"
    printf '\n%s\n' "$(totals "$total_passed" "$total_failed" "$total_skipped")"
    ((total_failed == 0 && total_passed > 0))
}
