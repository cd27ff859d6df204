#!/usr/bin/env bash
# Everything that must hold before a change goes in: format, lints, documentation, tests, and a search of all that the
# tests printed for secrets. Needs a Rust toolchain with clippy and rustfmt; tests/setup.sh, which it calls first, installs
# or names the other programs. tests/fast.sh is the part that needs Rust alone.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never
# Builds to be thrown away, and nothing of an earlier one in the result.
export CARGO_INCREMENTAL=0
# A panic names its line without them, and they are a tenth of the time to compile.
export CARGO_PROFILE_DEV_DEBUG=0
# Most tests wait: for a process, a timeout, a failover. With as many threads as cores the cores are idle for half the time.
export RUST_TEST_THREADS=$((2 * $(nproc)))
target=${CARGO_TARGET_DIR:-target}

missing() {
    echo "tests/all.sh: $1 is missing: $2" >&2
    exit 1
}
command -v cargo >/dev/null || missing cargo "install Rust, https://rustup.rs"
cargo fmt --version >/dev/null 2>&1 || missing rustfmt "rustup component add rustfmt"
cargo clippy --version >/dev/null 2>&1 || missing clippy "rustup component add clippy"
bash tests/setup.sh

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

# The tests that failed in the run, and passed when they were repeated.
raced=()
run_tests() {
    # One run names all that fails.
    cargo test --all-features --no-fail-fast 2>&1 | tee "$target/test-output/run.log" && return
    repeat_what_failed "$target/test-output/run.log"
}

# A test that passes alone has met a race or a slow machine: it is repeated once, and named at the end. More than three
# such tests are no accident, and neither is a program that ended before it had said which test failed.
repeat_what_failed() {
    local log=$1 failed name
    mapfile -t failed < <(sed -n 's/^test \(\S*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
    [ "${#failed[@]}" -ge 1 ] && [ "${#failed[@]}" -le 3 ] || return 1
    [ "$(grep -c '^test result: FAILED' "$log")" -eq "$(grep -c '^    `.*`$' "$log")" ] || return 1
    echo "== again, one at a time: ${failed[*]}"
    cargo test --all-features --tests --no-fail-fast -- --exact "${failed[@]}" --test-threads 1 2>&1 \
        | tee "$target/test-output/run-again.log" || return 1
    for name in "${failed[@]}"; do
        grep -qxF "test $name ... ok" "$target/test-output/run-again.log" || return 1
    done
    raced+=("${failed[@]}")
}

# Steps that mostly wait for programs that they start. The steps of a lane run in order, the lanes beside each other, and
# their output follows when both have ended.
lanes=("" "")
in_lane() {
    local lane=$1 quoted
    printf -v quoted '%q ' "${@:2}"
    lanes[lane - 1]+="step $quoted"$'\n'
}

run_lanes() {
    local pids=() log failed=0 i
    for i in "${!lanes[@]}"; do
        (
            set -e
            trap '[ $? -eq 0 ] || echo "tests/all.sh: failed at: $name" >&2' EXIT
            eval "${lanes[i]}"
        ) >"$target/lane-$i.log" 2>&1 &
        pids+=($!)
    done
    for i in "${!pids[@]}"; do
        wait "${pids[i]}" || failed=1
        cat "$target/lane-$i.log"
    done
    return "$failed"
}

run_small_tests() {
    cargo test --package rotogate --package rotogate-core --no-default-features --lib 2>&1 | tee "$target/test-output/run-small.log"
}

rm -rf "$target/test-output" "$target/test-secrets"
mkdir -p "$target/test-output"
# What needs no build comes first: a file that is not what the sources say is found within seconds.
step "format" cargo fmt --all --check
step "the other scripts can be started" bash -c 'bash -n tests/long.sh && bash -n tests/fast.sh'
# Its hundreds of packages are needed only to measure.
step "the bench of peers is formatted, and can be started" bash -c \
    'cargo fmt --manifest-path benches/peers/Cargo.toml --check && bash -n benches/peers/run && bash -n benches/peers/cores'
step "every requirement has its tests, and every rule a mutation" bash -c \
    'python3 tests/requirements.py && python3 tests/mutations.py --check'
step "the documentation agrees with the sources" python3 tests/docs.py
step "the search for secrets is tested" bash tests/secrets.sh --self-test
# Every further step has the tests' dependencies with their features (that is what --examples is for), so that lints and tests
# share each compiled dependency.
step "documentation, and the public API is the recorded one" python3 tests/api.py
step "lints" cargo clippy --all-targets --all-features -- -D warnings
step "lints without features" cargo clippy --package rotogate --package rotogate-core --all-targets --no-default-features -- -D warnings
step "lints of the stores without features" cargo clippy --package rotogate-store-postgres --package rotogate-store-redb --package rotogate-store-redis -- -D warnings
step "lints of the program without features" cargo clippy --package rotogate-server --no-default-features -- -D warnings
step "tests" run_tests
step "tests without features" run_small_tests
in_lane 1 "the documentation holds" python3 tests/docs.py --gate "$target/debug/rotogate"
in_lane 1 "the book can be searched without a network" python3 tests/book.py
in_lane 1 "a stranger finds the way" python3 tests/stranger.py --gate "$target/debug/rotogate"
in_lane 1 "services behind the gate, by their page" python3 tests/services.py --gate "$target/debug/rotogate"
in_lane 1 "packages" python3 tests/packages.py --gate "$target/debug/rotogate"
in_lane 2 "three gates behind HAProxy, and each part killed" python3 tests/nodes/three-gates/try.py --gate "$target/debug/rotogate"
in_lane 2 "the same on PostgreSQL" python3 tests/nodes/three-gates/try.py --store postgres --gate "$target/debug/rotogate"
step "what runs in two lanes" run_lanes
step "no secret was printed" bash tests/secrets.sh "$target/test-output" "$target/test-secrets"
for name in "${raced[@]}"; do
    echo "== passed only when it was repeated: $name" >&2
done
echo "== all is well, after $SECONDS s"
