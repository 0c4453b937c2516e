# shellcheck shell=bash
# Static programs: small, quick to start, and the same on every distribution. Sourced, never run.

# build_plugins PACKAGE...: builds programs that are started for every pod, in the profile "plugin".
build_plugins() {
    local flags
    # A panic aborts, so nothing reads tables for unwinding; relocations of a position-independent
    # program take a bit each instead of 24 bytes; what several functions have in common is kept once.
    flags='-C force-unwind-tables=no -C link-arg=-Wl,-z,pack-relative-relocs'
    flags+=" -C link-arg=-Wl,-T,$ROOT/scripts/static.ld -C llvm-args=-enable-machine-outliner=always"
    build_static plugin "$flags" -fno-asynchronous-unwind-tables "$@"
}

# build_small PACKAGE...: builds programs that mostly wait, or are started by people, in the profile "small".
build_small() {
    build_static small '-C link-arg=-Wl,-z,pack-relative-relocs' '' "$@"
}

# build_static PROFILE RUSTFLAGS CFLAGS PACKAGE...
build_static() {
    local profile=$1 flags=$2 cflags=$3 triple package packages=() underscored
    shift 3
    triple=$(musl_triple)
    for package in "$@"; do
        packages+=(--package "$package")
    done
    command -v musl-gcc >/dev/null || die "musl-gcc is missing; run scripts/setup"
    add_target "$triple"
    underscored=${triple//-/_}
    # SQLite and the cryptography of TLS are C, and need musl's headers.
    (
        cd -- "$ROOT"
        env "CARGO_TARGET_${underscored^^}_RUSTFLAGS=$flags" \
            "CC_$underscored=musl-gcc" "CFLAGS_$underscored=$cflags" \
            cargo build --locked --profile "$profile" --target "$triple" "${packages[@]}"
    )
}

# install_static FOLDER PROFILE PROGRAM...: puts programs that were built into a folder, and tells their sizes.
install_static() {
    local folder=$1 profile=$2 program built
    shift 2
    mkdir -p -- "$folder"
    for program in "$@"; do
        built=$(target_dir)/$(musl_triple)/$profile/$program
        need_static "$built"
        # Also over a program that runs: the new file takes the name, the old one lives on.
        install -m 755 -- "$built" "$folder/.$program.new"
        mv -f -- "$folder/.$program.new" "$folder/$program"
        printf '%9d bytes  %s\n' "$(stat -c %s -- "$folder/$program")" "$folder/$program"
    done
}

musl_triple() {
    local machine
    machine=$(uname -m)
    case $machine in
        x86_64 | aarch64) printf '%s-unknown-linux-musl\n' "$machine" ;;
        *) die "static builds are made for x86_64 and aarch64, not $machine" ;;
    esac
}

add_target() {
    local libraries
    libraries=$(cd -- "$ROOT" && rustc --print target-libdir --target "$1")
    [[ ! -d $libraries ]] || return 0
    command -v rustup >/dev/null ||
        die "Rust has no target $1, and there is no rustup to add it; install the target"
    say "adding Rust's target $1"
    (cd -- "$ROOT" && rustup target add "$1")
}

# Neither an interpreter nor a library is asked for.
need_static() {
    local headers
    headers=$(LC_ALL=C readelf --program-headers --dynamic -- "$1")
    [[ $headers != *INTERP* && $headers != *'(NEEDED)'* ]] || die "$1 is not static"
}
