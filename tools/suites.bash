# shellcheck shell=bash
# ./dev test: runs the suites, counts what each of them checked, and sums up. A suite that could not
# run, or checked nothing, counts as one failure.

readonly SUITE_TIMEOUT=6m # several times what a suite takes
readonly SPEC_TIMEOUT=600 # seconds; several times what a spec file takes with sanitizers

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
    local report=$folder/meson-logs/testlog.junit.xml log=$folder/meson-logs/testlog.txt
    say "$suite"
    rm -f "$report" "$log"
    run_child meson test -C "$folder" --no-rebuild --print-errorlogs || status=$?
    read -r passed failed skipped < <(junit_totals "$report") || true
    if ((status != 0 && failed == 0)); then
        failed=1
    fi
    if ((failed)); then
        note_failed_programs "$suite" "$log"
    fi
    record "$suite" "$passed" "$failed" "$skipped"
}

# note_failed_programs SUITE LOG: of each C test that did not end well, how it ended, the TAP lines that
# say why, and what it wrote to standard error.
note_failed_programs() {
    local program
    while read -r program; do
        note_failure "$1: $program" < <(awk -v program="$program" '
            /^=+ [0-9]+\/[0-9]+ =+$/ { wanted = stream = 0 }
            /^test: / { sub(/^test: +/, ""); wanted = $0 == program }
            /^-+ std(out|err) -+$/ { stream = $2; next }
            wanted && (/^(result:|not ok|# )/ || stream == "stderr")
        ' "$2")
    done < <(awk '
        /^test: / { sub(/^test: +/, ""); program = $0 }
        /^result: / && !/exit status 0$/ { print program }
    ' "$2")
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
        count_spec "$suite" "$spec"
    done
    record "$suite" "$spec_passed" "$spec_failed" "$spec_skipped"
}

# count_spec SUITE SPEC: adds the counts of one file to spec_passed, spec_failed and spec_skipped, and
# notes its failures.
count_spec() {
    local base=$spec_folder/${2//\//_} passed=0 failed=0 skipped=0 status=1 running= fault
    read -r status <"$base.status" || true
    if [[ -e $base.counts ]]; then
        { read -r passed failed skipped && read -r running; } <"$base.counts" || true
    fi
    for fault in "$base".fault.*.message; do
        if [[ -e $fault ]]; then
            note_failure "$1: $2" "${fault%.message}.logs" <"$fault"
        fi
    done
    if [[ -n $running ]]; then
        note_failure "$1: $2 ended, or took more than $SPEC_TIMEOUT s" "$base.log" <<<"in: $running"
        failed=$((failed + 1))
    elif ((passed + failed + skipped == 0)); then
        note_failure "$1: $2 checked nothing" "$base.log" </dev/null
        failed=1
    elif ((status != 0 && failed == 0)); then
        note_failure "$1: $2 ended with status $status" "$base.log" </dev/null
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
            note_failure "$suite: report $count" <"$report"
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
    local output=$scratch/chaos status=0
    say "$1"
    run_child timeout --kill-after=10 "$SUITE_TIMEOUT" python3 tools/chaos/run.py --seed 1 \
        --minutes 0.15 --moonpool "$2" >"$output" 2>&1 || status=$?
    cat "$output"
    if ((status == 0)); then
        record "$1" 1 0 0
    else
        note_failure "$1: ended with status $status" "$output" < <(grep -E 'FINDING|^seed' "$output")
        record "$1" 0 1 0
    fi
}

# A pass over C tests and specs. suites_of LABEL BUILD_FUNCTION BUILD_FOLDER FOLDER_OF_SERVER
suites_of() {
    if "$2"; then
        suite_c "C tests$1" "$3"
        suite_specs "specs$1" "$4/moonpool" spec
        suite_chaos "chaos$1" "$4/moonpool"
    else
        note_failed_build "build$1" "$3" "$4"
    fi
}

# note_failed_build SUITE BUILD_FOLDER...: what is left to build fails again, and says why.
note_failed_build() {
    local suite=$1 folder
    shift
    note_failure "$suite" < <(for folder in "$@"; do
        ninja -C "$folder" 2>&1 || break
    done | tail -n 15)
    record "$suite" 0 1 0
}

# Only the given spec files or folders.
test_some() {
    if build_server; then
        suite_specs specs build/moonpool "$@"
    else
        note_failed_build build build
    fi
}

test_all() {
    suites_of "" build_plain build-test build
    if [[ $1 == full ]]; then
        sanitizer_environment
        suites_of ", ASan+UBSan" build_sanitized build-asan build-asan
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

# Prints the summary and what failed; the last line is for machines too. Gives the verdict.
finish() {
    printf '\nSummary\n'
    printf '%s\n' "${summary[@]}"
    show_failures
    printf '\n%s\n' "$(totals "$total_passed" "$total_failed" "$total_skipped")"
    ((total_failed == 0 && total_passed > 0))
}
