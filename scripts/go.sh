# shellcheck shell=bash
# Running Go, which builds test tools and nothing else. Sourced, never run.

# with_go TOOLCHAIN PROGRAM...: runs a program with a Go in its path that is not older than the toolchain's.
# Any Go since 1.21 fetches the newer one by itself. Go hands out its toolchains as modules, with checksums
# like any other; a Go before 1.21 can download one but does not know that the programs inside must be
# executable, so that is done here, for this run only.
with_go() {
    local toolchain=$1 version scratch status=0
    shift
    version=$(go env GOVERSION)
    if [[ $(printf 'go1.21\n%s\n' "$version" | sort -V | head -n 1) = go1.21 ]]; then
        "$@"
        return
    fi
    say "$version is too old; taking a newer Go for this build only"
    scratch=$(mktemp -d)
    # Run apart: within a condition, errexit would not hold.
    GOPATH=$scratch GOCACHE=$scratch/cache GOFLAGS=-modcacherw GOTOOLCHAIN=local \
        bash -euo pipefail -c '
            arch=$(go env GOARCH)
            root=$(go mod download -json "golang.org/toolchain@$1.linux-$arch" | jq -r .Dir)
            chmod -R u+x "$root/bin" "$root/pkg/tool"
            shift
            GOROOT=$root PATH=$root/bin:$PATH "$@"
        ' with_go "$toolchain" "$@" || status=$?
    rm -rf "$scratch"
    return "$status"
}
