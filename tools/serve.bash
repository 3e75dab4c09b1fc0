# shellcheck shell=bash
# ./dev serve: from a fresh checkout to an answer on http://127.0.0.1:8608.

command_serve() {
    local listen admin
    if [[ " $* " == *" --help "* ]]; then
        ensure_packages build
        build_release
        build/moonpool serve --help
        return
    fi
    listen=$(setting listen MOONPOOL_LISTEN 127.0.0.1:8608 "$@")
    admin=$(setting admin-listen MOONPOOL_ADMIN_LISTEN 127.0.0.1:8609 "$@")
    require_free listen "$listen"
    require_free admin-listen "$admin"
    DATABASE_URL=$(setting database DATABASE_URL "" "$@")
    serve_packages
    build_release
    serve_database
    serve_migrate "$@"
    serve_run "$listen" "$admin" "$@"
}

# setting NAME VARIABLE DEFAULT FLAG...: what the server will make of its flags and environment.
setting() {
    local name=$1 value=${!2:-$3}
    shift 3
    while (($#)); do
        case $1 in
        "--$name") value=${2:-} ;;
        "--$name="*) value=${1#*=} ;;
        esac
        shift
    done
    printf '%s\n' "$value"
}

# require_free FLAG ADDRESS: says so at once, rather than after packages and the build.
require_free() {
    local host port
    { read -r host && read -r port; } < <(reachable_address "$2")
    if [[ $port != 0 ]] && port_in_use "$host" "$port"; then
        die "$2 is in use: does another ./dev serve run? Stop it, or choose another port by --$1"
    fi
}

serve_packages() {
    if [[ -n $DATABASE_URL ]]; then
        ensure_packages build serve
    else
        ensure_packages build serve database client
    fi
}

serve_database() {
    if [[ -z $DATABASE_URL ]]; then
        private_acquire
        DATABASE_URL=$(private_url)
    fi
    export DATABASE_URL
}

serve_migrate() {
    local sql
    sql=$(setting sql MOONPOOL_SQL sql "$@")
    say "Applying the migrations in $sql/migrations"
    run_child build/moonpool migrate --sql "$sql" || die "the migrations failed; see above"
}

# Runs the server until it ends or we are told to end. A signal is handed on: the first makes it
# drain, the second makes it end at once. It also ends when we are killed.
serve_run() {
    local listen=$1 admin=$2 status=0
    shift 2
    say "Starting the server"
    trap 'kill -TERM "$child" 2>/dev/null || true' INT TERM HUP
    start_child setpriv --pdeathsig TERM build/moonpool serve "$@"
    serve_wait_ready "$admin" && serve_welcome "$listen" "$@"
    wait_child || status=$?
    return "$status"
}

# serve_wait_ready ADMIN_ADDRESS: false if the server ended, or its port is known to itself only.
serve_wait_ready() {
    local host port
    { read -r host && read -r port; } < <(reachable_address "$1")
    [[ $port != 0 ]] || return
    until http_ok "$host" "$port" /readyz; do
        kill -0 "$child" 2>/dev/null || return
        sleep 0.1
    done
}

# serve_welcome LISTEN_ADDRESS FLAG...
serve_welcome() {
    local host port scripts
    { read -r host && read -r port; } < <(reachable_address "$1")
    shift
    scripts=$(setting scripts MOONPOOL_SCRIPTS scripts "$@")
    [[ $host != *:* ]] || host="[$host]"
    cat <<EOF

    Moonpool serves on http://$host:$port

    Create a user, then list all of them:

curl -i http://$host:$port/users -H 'Content-Type: application/json' \\
  -d '{"username":"johndoe","score":5432,"profile":{"firstname":"John","lastname":"Doe"}}'
curl http://$host:$port/users

    The score formula    $scripts/score.lua: save it, and it takes effect at once
    The database         ./dev psql, or ./dev admin for the browser
    Stop                 Ctrl-C

EOF
}
