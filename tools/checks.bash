# shellcheck shell=bash
# ./dev check: what can be said about the source without running it. Each file is one check of each
# tool that looks at it.

check_passed=0
check_failed=0

# check_each LABEL TOOL... -- FILE...: quiet about what is in order.
check_each() {
    local label=$1 file output bad=0
    local -a tool=()
    shift
    while [[ $1 != -- ]]; do
        tool+=("$1")
        shift
    done
    shift
    for file in "$@"; do
        if ! output=$("${tool[@]}" "$file" 2>&1); then
            printf '%s: %s\n' "$label" "$file"
            head -n 12 <<<"$output"
            note_failure "checks: $label: $file" <<<"$output"
            bad=$((bad + 1))
        fi
    done
    printf '    %-28s %s\n' "$label" "$(totals $(($# - bad)) "$bad" 0)"
    check_passed=$((check_passed + $# - bad))
    check_failed=$((check_failed + bad))
}

run_checks() {
    local -a c_files lua_files
    mapfile -t c_files < <(find core fuzz -name '*.[ch]' | sort)
    mapfile -t lua_files < <(find core/lua scripts spec tools -name '*.lua' | sort)
    check_each "clang-format" clang-format --dry-run -Werror -- "${c_files[@]}"
    check_each "include order" lua5.4 tools/include_order.lua -- "${c_files[@]}"
    check_each "luacheck" luacheck --quiet --no-color -- "${lua_files[@]}"
    # Our libraries are understood only in the script that puts them together.
    check_each "shellcheck" shellcheck --external-sources --check-sourced -- dev .ci/run
}

suite_checks() {
    say "checks"
    run_checks
    record checks "$check_passed" "$check_failed" 0
}

command_check() {
    ensure_packages check
    make_scratch
    suite_checks
    finish
}

command_fmt() {
    ensure_packages check
    find core fuzz -name '*.[ch]' -exec clang-format -i {} +
    say "formatted core/ and fuzz/"
}
