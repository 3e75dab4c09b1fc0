# shellcheck shell=bash
# What failed, told once more at the end of ./dev test: of a long output, continuous integration keeps
# the last lines only.

readonly FAILURES_SHOWN=30
readonly FAILURES_LINES=140      # of them all together
readonly FAILURE_LINES_LEAST=4   # of each, however many there are
readonly FAILURE_MESSAGE_LINES=20 # of each; what else there is room for belongs to its logs
readonly FAILURE_COLUMNS=400

failure_count=0

# note_failure HEADLINE [LOGS]: a failure whose message is on standard input. LOGS is a file that may
# explain it, the newest lines last.
note_failure() {
    local note
    failure_count=$((failure_count + 1))
    note=$scratch/failures/$failure_count
    mkdir -p "$scratch/failures"
    { printf '%s\n' "$1" && cat; } >"$note.message"
    if [[ -s ${2:-} ]]; then
        cp "$2" "$note.logs"
    fi
}

show_failures() {
    local shown=$failure_count lines number
    if ((failure_count == 0)); then
        return
    fi
    if ((shown > FAILURES_SHOWN)); then
        shown=$FAILURES_SHOWN
    fi
    lines=$((FAILURES_LINES / shown))
    printf '\nFailures\n'
    for ((number = 1; number <= shown; number++)); do
        show_failure "$number" $((lines > FAILURE_LINES_LEAST ? lines : FAILURE_LINES_LEAST))
    done
    if ((shown < failure_count)); then
        printf '    and %d more\n' $((failure_count - shown))
    fi
}

# show_failure NUMBER LINES
show_failure() {
    local note=$scratch/failures/$1 rest=$(($2 - FAILURE_MESSAGE_LINES))
    head -n $(($2 < FAILURE_MESSAGE_LINES ? $2 : FAILURE_MESSAGE_LINES)) "$note.message" |
        cut -c "1-$FAILURE_COLUMNS" | sed '1s/^/    /; 2,$s/^/      /'
    if [[ -e $note.logs ]] && ((rest > 0)); then
        tail -n "$rest" "$note.logs" | cut -c "1-$FAILURE_COLUMNS" | sed 's/^/      | /'
    fi
}
