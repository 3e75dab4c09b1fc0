# shellcheck shell=bash
# Private PostgreSQL clusters: the one that belongs to this checkout, kept, and the throw-away one of
# the tests. Neither is known to Debian's own tools, and Debian's clusters are never touched.
#
# A cluster is a folder, its home: data/, password (of all its roles), port, log. It listens on
# 127.0.0.1 only, on a port of its own, and wants the password. PostgreSQL refuses to run as root, so
# that as root it runs as the user postgres, who owns the home then.
#
# Two locks keep several ./dev on one cluster apart. users.lock (fd 9) is shared by those that use it:
# who can take it alone at the end is the last and stops PostgreSQL. start.lock (fd 8) is held by the
# one that creates or starts it.

readonly PG_BIN=/usr/lib/postgresql/15/bin
readonly DATABASE=moonpool # name of the private database and of the role that owns it

# Where this checkout's cluster lives. The user postgres may be unable to reach a checkout of root's.
private_home() {
    local sum _
    if ((EUID == 0)); then
        read -r sum _ < <(printf '%s' "$root" | cksum)
        printf '/var/lib/moonpool/%s-%s\n' "$(basename "$root" | tr -c 'A-Za-z0-9\n' _)" "$sum"
    else
        printf '%s/.moonpool/postgres\n' "$root"
    fi
}

# Runs a command as the user that owns the clusters, without our locks.
as_owner() {
    if ((EUID == 0)); then
        (cd / && runuser -u postgres -- env LC_ALL=C.UTF-8 "$@") 8>&- 9>&-
    else
        LC_ALL=C.UTF-8 "$@" 8>&- 9>&-
    fi
}

# cluster_make_home HOME: a folder that nobody else can look into.
cluster_make_home() {
    mkdir -p "$1"
    chmod 700 "$1"
    if ((EUID == 0)); then
        chown postgres: "$1"
    fi
}

# cluster_create HOME: what is half done when it fails is done anew the next time.
cluster_create() {
    local home=$1
    say "Creating a PostgreSQL cluster in $home"
    rm -rf "$home/data.new"
    (umask 077 && head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$home/password")
    if ((EUID == 0)); then
        chown postgres: "$home/password"
    fi
    as_owner "$PG_BIN/initdb" --pgdata="$home/data.new" --username=postgres \
        --pwfile="$home/password" --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 \
        --no-instructions >"$home/initdb.log" 2>&1 ||
        { cat "$home/initdb.log" >&2 && die "initdb failed; see above"; }
    mv "$home/data.new" "$home/data"
}

# cluster_running HOME: is the process in postmaster.pid really this cluster's? After a crash the
# number may have gone to another process.
cluster_running() {
    local pid
    read -r pid 2>/dev/null <"$1/data/postmaster.pid" &&
        kill -0 "$pid" 2>/dev/null && [[ /proc/$pid/cwd -ef $1/data ]]
}

# cluster_port HOME: the port it had the last time, or another one if somebody has taken that.
cluster_port() {
    local port
    if ! read -r port 2>/dev/null <"$1/port" || port_in_use 127.0.0.1 "$port"; then
        port=$(free_port)
        printf '%s\n' "$port" >"$1/port"
    fi
    printf '%s\n' "$port"
}

# cluster_start HOME [SERVER_OPTIONS]: tries again when the port is snatched away, or when children of
# a killed postmaster have not gone yet.
cluster_start() {
    local home=$1 options=${2:-} port
    for _ in 1 2 3; do
        if cluster_running "$home"; then
            return
        fi
        rm -f "$home/data/postmaster.pid"
        port=$(cluster_port "$home")
        if as_owner "$PG_BIN/pg_ctl" --pgdata="$home/data" --log="$home/log" --silent --wait \
            --timeout=60 --options="-p $port -h 127.0.0.1 -k '' $options" start 2>/dev/null; then
            return
        fi
        sleep 1
    done
    tail -n 20 "$home/log" >&2 || true
    die "PostgreSQL does not start; its log is $home/log"
}

# cluster_stop HOME
cluster_stop() {
    if cluster_running "$1"; then
        as_owner "$PG_BIN/pg_ctl" --pgdata="$1/data" --mode=fast --silent --wait --timeout=60 stop
    fi
}

# cluster_url HOME ROLE DATABASE
cluster_url() {
    printf 'postgresql://%s:%s@127.0.0.1:%s/%s\n' "$2" "$(<"$1/password")" "$(<"$1/port")" "$3"
}

# cluster_query HOME SQL: as the superuser; prints what it gives.
cluster_query() {
    psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --command="$2" \
        "$(cluster_url "$1" postgres postgres)"
}

# Makes sure the private PostgreSQL runs, with its database, until private_release().
private_acquire() {
    local home
    home=$(private_home)
    cluster_make_home "$home"
    exec 9>>"$home/users.lock" 8>>"$home/start.lock"
    flock --shared 9
    at_end private_release
    flock 8
    [[ -d $home/data ]] || cluster_create "$home"
    if ! cluster_running "$home"; then
        say "Starting the private PostgreSQL ($home)"
        cluster_start "$home"
    fi
    private_prepare "$home"
    exec 8>&-
}

# Creates role and database where they are missing.
private_prepare() {
    local home=$1 role="select from pg_roles where rolname = '$DATABASE'"
    cluster_query "$home" "do \$\$ begin
        if not exists ($role) then create role $DATABASE login password '$(<"$home/password")'; end if;
        end \$\$" || die "cannot prepare the private database; see above"
    if [[ -z $(cluster_query "$home" "select 1 from pg_database where datname = '$DATABASE'") ]]; then
        cluster_query "$home" "create database $DATABASE owner $DATABASE"
    fi
}

# Gives it up; the last one to do so stops it.
private_release() {
    local home
    home=$(private_home)
    if flock --exclusive --nonblock 9; then
        say "Stopping the private PostgreSQL"
        cluster_stop "$home"
    fi
    exec 9>&-
}

private_url() {
    cluster_url "$(private_home)" "$DATABASE" "$DATABASE"
}

# The throw-away cluster of the tests: exports what the specs need to find it.
scratch_cluster() {
    local home=$scratch/postgres
    if ((EUID == 0)); then
        chmod 711 "$scratch"
    fi
    cluster_make_home "$home"
    cluster_create "$home"
    at_end scratch_cluster_stop
    cluster_start "$home" "-c fsync=off -c max_connections=200"
    MOONPOOL_TEST_DATABASE=$(cluster_url "$home" postgres postgres)
    export MOONPOOL_TEST_DATABASE MOONPOOL_PG_BIN=$PG_BIN
}

scratch_cluster_stop() {
    cluster_stop "$scratch/postgres"
}

command_psql() {
    ensure_packages client
    if [[ -z ${DATABASE_URL:-} ]]; then
        ensure_packages database
        private_acquire
        DATABASE_URL=$(private_url)
    fi
    trap : INT # Ctrl-C is psql's own
    psql "$DATABASE_URL" "$@" 9>&-
}

readonly ADMIN_PORT=54321

command_admin() {
    if port_in_use 127.0.0.1 "$ADMIN_PORT"; then
        die "port $ADMIN_PORT is in use: does another ./dev admin run?"
    fi
    ensure_packages database client admin
    private_acquire
    start_child php -S "127.0.0.1:$ADMIN_PORT" /usr/share/adminer/adminer.php
    until port_in_use 127.0.0.1 "$ADMIN_PORT"; do
        kill -0 "$child" 2>/dev/null || die "PHP does not start; see above"
        sleep 0.1
    done
    admin_login "$(private_home)"
    wait_child
}

admin_login() {
    cat <<EOF

    Adminer    http://localhost:$ADMIN_PORT/?pgsql=127.0.0.1:$(<"$1/port")&username=$DATABASE&db=$DATABASE
    System     PostgreSQL
    Server     127.0.0.1:$(<"$1/port")
    Username   $DATABASE
    Password   $(<"$1/password")
    Database   $DATABASE

    Ctrl-C stops it.

EOF
}
