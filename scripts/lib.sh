# shellcheck shell=bash
# Shared by the scripts of this folder; sourced, never run.

# The root of the repository.
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT

# Progress, on standard error so that output stays output.
say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    say "error: $*"
    exit 1
}

need_root() {
    [[ $EUID -eq 0 ]] || die "must run as root, for network namespaces; try: sudo $0 $*"
}

# Where cargo puts what it builds.
target_dir() {
    local dir=${CARGO_TARGET_DIR:-target}
    if [[ $dir = /* ]]; then
        printf '%s\n' "$dir"
    else
        printf '%s\n' "$ROOT/$dir"
    fi
}

# step NAME PROGRAM...: runs the program and tells how long it took, also when it fails.
# For programs only: within a function so called, errexit would not hold.
step() {
    local name=$1 status=0 begun=$EPOCHREALTIME
    shift
    printf '=== %s\n' "$name" >&2
    "$@" || status=$?
    local took
    took=$(awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    if [[ $status -ne 0 ]]; then
        printf '=== %s: FAILED with status %d after %s s\n' "$name" "$status" "$took" >&2
        return "$status"
    fi
    printf '=== %s: done in %s s\n' "$name" "$took" >&2
}

# Where scripts/setup puts programs when it may not write to /usr/local/bin.
tools_dir() {
    printf '%s/tools/bin\n' "$ROOT/target"
}

# Programs of root's paths and of scripts/setup are found, whoever calls.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:$ROOT/target/tools/bin"
