#!/usr/bin/env bash
# Everything that must hold before a change goes in: format, lints, documentation, tests, and a search of all that the
# tests printed for secrets. Needs a Rust toolchain with clippy and rustfmt, a C compiler, for the real clients of
# tests/interop python3 and node with npm, for the real servers of tests/readings nginx and Go, for the load of
# tests/overload wrk and h2load, for tests/clients curl, nghttp and Chromium, and for tests/cost valgrind; root on Debian
# gets all after npm.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never
# Builds to be thrown away, and nothing of an earlier one in the result.
export CARGO_INCREMENTAL=0
target=${CARGO_TARGET_DIR:-target}

missing() {
    echo "tests/all.sh: $1 is missing: $2" >&2
    exit 1
}
command -v cargo >/dev/null || missing cargo "install Rust, https://rustup.rs"
cargo fmt --version >/dev/null 2>&1 || missing rustfmt "rustup component add rustfmt"
cargo clippy --version >/dev/null 2>&1 || missing clippy "rustup component add clippy"
command -v "${CC:-cc}" >/dev/null || missing "a C compiler" "install gcc or clang (apt install build-essential)"
python3 -c 'import venv, ensurepip, tomllib' 2>/dev/null || missing python3 "install Python 3.11 or later with venv (apt install python3-venv)"
command -v node >/dev/null || missing node "install Node.js 20 or later"
command -v npm >/dev/null || missing npm "it comes with Node.js"

installed() {
    local path=$PATH:/usr/sbin
    if ! PATH=$path command -v "$1" >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # Without starting what was installed.
        local get=(env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq)
        { "${get[@]}" update && "${get[@]}" install -y --no-install-recommends "$2"; } >/dev/null || true
    fi
    PATH=$path command -v "$1" >/dev/null || missing "$1" "apt install $2"
}
installed nginx nginx-light
installed go golang-go
installed wrk wrk
installed h2load nghttp2-client
installed nghttp nghttp2-client
installed curl curl
installed valgrind valgrind
installed chromium chromium

name=
trap '[ $? -eq 0 ] || echo "tests/all.sh: failed at: ${name:-the beginning}" >&2' EXIT
step() {
    name=$1
    shift
    local begin=$SECONDS
    echo "== $name"
    "$@"
    echo "== $name: $((SECONDS - begin)) s"
}

run_tests() {
    cargo test --all-features 2>&1 | tee "$target/test-output/run.log"
}

run_small_tests() {
    cargo test --no-default-features --lib 2>&1 | tee "$target/test-output/run-small.log"
}

rm -rf "$target/test-output" "$target/test-secrets"
mkdir -p "$target/test-output"
# Every step has the tests' dependencies with their features (that is what --examples is for), so that none is compiled
# twice for the lints and twice for the tests.
step "format" cargo fmt --all --check
step "lints" cargo clippy --all-targets --all-features -- -D warnings
step "lints without features" cargo clippy --all-targets --no-default-features -- -D warnings
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features --lib --examples
step "the long runs can be started" bash -n tests/long.sh
# Its hundreds of packages are for those who measure.
step "the bench of peers is formatted, and can be started" bash -c \
    'cargo fmt --manifest-path benches/peers/Cargo.toml --check && bash -n benches/peers/run'
step "tests" run_tests
step "tests without features" run_small_tests
step "every requirement has its tests, and every rule a mutation" bash -c \
    'python3 tests/requirements.py && python3 tests/mutations.py --check'
step "the search for secrets is tested" bash tests/secrets.sh --self-test
step "no secret was printed" bash tests/secrets.sh "$target/test-output" "$target/test-secrets"
echo "== all is well, after $SECONDS s"
