# shellcheck shell=bash
# The builds: release in build/, for the tests in build-test/, with sanitizers in build-asan/.

# build_in FOLDER MESON_OPTION...
build_in() {
    say "Building $1/"
    setup_in "$@" && run_child ninja -C "$1"
}

# setup_in FOLDER MESON_OPTION...: what is not named has its default.
setup_in() {
    local folder=$1 record=$1/set-up-by-dev
    shift
    if [[ -e $folder/build.ninja && $(cat "$record" 2>/dev/null) == "$root $*" ]]; then
        return
    fi
    # It was set up with other options, or moved with its checkout and knows the old place only.
    forget_setup "$folder"
    run_child meson setup "$folder" "$@" && echo "$root $*" > "$record"
}

# forget_setup FOLDER: takes away what Meson and Ninja know of it, so that all is built anew. The rest
# stays: build-fuzz/ has a corpus. (meson setup --wipe would take the corpus, and keep the options.)
forget_setup() {
    rm -rf "$1"/{meson-private,meson-info,build.ninja,.ninja_log,.ninja_deps,set-up-by-dev}
}

build_server() {
    build_in build --buildtype=release -Db_lto=true
}

build_release() {
    build_server || die "the build failed; see above"
}

build_test() {
    build_in build-test --buildtype=debugoptimized
}

# What is tested: modules by programs that are built quickly, the server as it is released.
build_plain() {
    build_test && build_server
}

build_sanitized() {
    build_in build-asan --buildtype=debugoptimized -Db_sanitize=address,undefined \
        -Db_lundef=false -Dc_args=-fno-sanitize-recover=undefined
}

command_build() {
    ensure_packages build
    build_release
    say "build/moonpool is ready"
}
