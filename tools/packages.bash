# shellcheck shell=bash
# The Debian packages Moonpool needs, what for, and their installation.

# "group package reason"
readonly PACKAGES=(
    "build gcc compiles the core"
    "build libc6-dev the C library's headers"
    "build meson describes the build"
    "build ninja-build runs the build"
    "build pkg-config finds the libraries"
    "build liblua5.4-dev runs the scripts"
    "build libmicrohttpd-dev speaks HTTP"
    "build libpq-dev speaks to PostgreSQL"
    "build lua-cjson-dev lets scripts require \"cjson\""
    "serve curl sends the first request"
    "database postgresql-15 is the private database"
    "client postgresql-client-15 is psql"
    "check clang-format checks the format of C"
    "check lua-check checks Lua"
    "check lua5.4 runs the specs and our tools"
    "check shellcheck checks shell scripts"
    "test lua-busted runs the specs"
    "test lua-socket lets the specs speak HTTP"
    "fuzz clang compiles the fuzz targets"
    "fuzz libclang-rt-14-dev has libFuzzer and the sanitizers"
    "test python3 runs the proxy that breaks connections, and the chaos run"
    "chaos python3 plays load and faults"
    "admin adminer shows the database in the browser"
    "admin php-cgi satisfies adminer without a web server"
    "admin php-cli serves adminer"
    "admin php-pgsql lets adminer reach PostgreSQL"
    "bench python3 runs the benchmark"
    "bench wrk makes load"
    "bench-go golang-go builds the peer in Go"
    "bench-go golang-github-jackc-pgx-v4-dev is its PostgreSQL driver"
    "bench-go golang-github-labstack-echo-dev is its HTTP framework"
    "bench-nginx nginx is a peer"
    "bench-nginx libnginx-mod-http-lua lets nginx run Lua"
    "bench-nginx lua-cjson writes its JSON"
    "bench-node nodejs runs the peer in Node"
    "bench-node npm installs its modules"
)

# Keeps Debian's package from creating and starting a cluster that nobody asked for.
readonly NO_MAIN_CLUSTER=/etc/postgresql-common/createcluster.d/moonpool.conf

# ensure_packages GROUP...: installs what is missing of these groups.
ensure_packages() {
    local row group package reason
    local -a missing=()
    for row in "${PACKAGES[@]}"; do
        read -r group package reason <<<"$row"
        if [[ " $* " == *" $group "* ]] && ! package_installed "$package"; then
            ((${#missing[@]})) || say "Debian packages that are missing:"
            printf '    %-22s %s\n' "$package" "$reason"
            missing+=("$package")
        fi
    done
    if ((${#missing[@]})); then
        install_packages "${missing[@]}"
    fi
}

package_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

install_packages() {
    local install="apt-get install --no-install-recommends $*"
    command -v apt-get >/dev/null ||
        die "this is no Debian: please install the equivalents of: $*"
    if ((EUID != 0)) && ! command -v sudo >/dev/null; then
        die "neither root nor sudo; as root, please run: $install"
    fi
    say "Installing (as root): $install"
    if [[ " $* " == *" postgresql-15 "* ]]; then
        forbid_main_cluster
    fi
    know_packages "$@" || update_packages
    apt_install "$@" || { update_packages && apt_install "$@"; } ||
        die "could not install the packages; see above"
    allow_main_cluster
}

# Has apt a list, at least, in which these packages stand?
know_packages() {
    apt-get install --simulate --no-install-recommends "$@" >/dev/null 2>&1
}

update_packages() {
    as_root apt-get update -q || die "apt-get update failed; see above"
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

forbid_main_cluster() {
    at_end allow_main_cluster
    as_root mkdir -p "${NO_MAIN_CLUSTER%/*}"
    printf 'create_main_cluster = false\n' | as_root tee "$NO_MAIN_CLUSTER" >/dev/null
}

allow_main_cluster() {
    if [[ -e $NO_MAIN_CLUSTER ]]; then
        as_root rm -f "$NO_MAIN_CLUSTER"
    fi
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        sudo "$@"
    fi
}
