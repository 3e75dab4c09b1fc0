#!/usr/bin/env bash
# Runs one spec file for ./dev test: run_spec.bash FOLDER SECONDS SPEC. In FOLDER it leaves
# what busted_progress.lua leaves there, <name>.log and <name>.status; what it has to say it says at the
# end, in one piece, because others run beside it.
set -u

folder=$1 seconds=$2 spec=$3
name=${spec//\//_}

timeout --kill-after=10 "$seconds" lua5.4 /usr/bin/busted --ignore-lua \
    --output=tools/busted_progress.lua -Xoutput "$folder/$name" "$spec" \
    >"$folder/$name.log" 2>&1 </dev/null
echo $? >"$folder/$name.status"

exec 9>"$folder/output.lock"
flock 9
cat "$folder/$name.log"
