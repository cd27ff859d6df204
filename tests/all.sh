#!/usr/bin/env bash
# Everything that must pass before a change goes in: formatting, lints, documentation, tests, and a search for secrets in all that
# the tests printed. Needs a Rust toolchain with clippy and rustfmt. tests/setup.sh, which runs first, installs or names the
# other programs. tests/fast.sh is the part that needs Rust alone.
#
# The run ends within an hour, whatever hangs: each step has a limit, and so has each test (.config/nextest.toml). The last
# lines are a table of the steps and, if the run failed, the names of the step and of the tests that failed.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never
# The builds are used once, so incremental data would only cost time.
export CARGO_INCREMENTAL=0
# A panic names its line without debug information, which takes a tenth of the compile time.
export CARGO_PROFILE_DEV_DEBUG=0
# One build compiles and lints: clippy is the compiler with further lints. A warning is an error.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver RUSTFLAGS="-D warnings"
# Most tests wait: for a process, a timeout, a failover. With one test for each core, the cores are idle for half of the time.
export NEXTEST_TEST_THREADS=${NEXTEST_TEST_THREADS:-$((3 * $(nproc)))}
target=${CARGO_TARGET_DIR:-target}
logs=$target/steps
printed=$target/test-output
table=$logs/table
# Seconds from the beginning. No step goes on after it.
deadline=$((58 * 60 + 30))

missing() {
    echo "tests/all.sh: $1 is missing: $2" >&2
    exit 1
}
command -v cargo >/dev/null || missing cargo "install Rust, https://rustup.rs"
cargo fmt --version >/dev/null 2>&1 || missing rustfmt "rustup component add rustfmt"
cargo clippy --version >/dev/null 2>&1 || missing clippy "rustup component add clippy"
command -v python3 >/dev/null || timeout --kill-after=15 600 bash tests/setup.sh

# Lines of nextest and of libtest that name a test which failed, each once.
failed_tests() {
    local status='FAIL|TIMEOUT|ABORT|LEAK-FAIL|EXECFAIL|SIG[A-Z0-9]+'
    {
        sed -nE "s/^ +(($status) .*\])( \([^)]*\))?  *([^ ]+ +[^ ]+)\$/\1 \4/p" "$@"
        sed -nE 's/^test (.*) \.\.\. FAILED$/FAIL \1/p' "$@"
    } | sort -u | head -12
}

finish() {
    local code=$?
    # What still runs beside the steps.
    jobs -p | xargs --no-run-if-empty kill 2>/dev/null || true
    wait
    if [ -s "$table" ]; then
        printf '\n%8s %10s  %s\n' seconds processor step
        awk -F'\t' '{ printf "%8d %10d  %s%s\n", $1, $2, $4, $3 == "ok" ? "" : ": " $3; p += $2 }
            END { printf "%8s %10d  %s\n", '"$SECONDS"', p, "together" }' "$table"
    fi
    # What a test or a script could not check on this machine.
    grep -h 'not run here: ' "$printed"/printed-*.log "$logs"/*.log 2>/dev/null | sort -u || true
    if [ "$code" -ne 0 ]; then
        {
            echo "tests/all.sh: failed after $SECONDS s. What failed:"
            awk -F'\t' '$3 != "ok" { print "    " $4 ": " $3 }' "$table" 2>/dev/null || true
            failed_tests "$printed"/*.log 2>/dev/null | sed 's/^/    /'
        } >&2
    else
        echo "== all is well, after $SECONDS s"
    fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# step LIMIT NAME COMMAND…: the limit is in seconds. What tests print goes to `$printed`, where secrets are searched for.
step() {
    local limit=$1 name=$2 left=$((deadline - SECONDS)) folder=$logs
    shift 2
    case $name in *tests*) folder=$printed ;; esac
    [ "$left" -gt 1 ] || left=1
    [ "$limit" -lt "$left" ] || limit=$left
    echo "== $name"
    python3 tests/limited.py --seconds "$limit" --name "$name" --table "$table" --log "$folder/${name//[^a-z0-9]/-}.log" -- "${spare[@]}" "$@"
}
# How `step` starts a command. Linux gives each session an equal share of the processors, so a session needs its own priority.
spare=()

# What takes the processor time that the tests leave while they wait. It has the target folder to itself: the tests are started
# from the lists of what was built, and not by cargo.
compile_beside() {
    trap - EXIT
    set -e
    spare=(sh -c 'echo 19 2>/dev/null >/proc/self/autogroup; exec chrt --idle 0 "$@"' sh)
    step 1800 "documentation, and the public API is the recorded one" python3 tests/api.py
    step 1800 "lints of the benches" cargo test --workspace --all-features --benches --no-run
    # What has fewer features: the program as `cargo build` makes it, then its parts. tests/long.sh has the library.
    step 1800 "lints of the program" cargo clippy --package rotogate-server
    step 1800 "lints of the program without features" cargo clippy --package rotogate-server --no-default-features
    step 1800 "tests of the configuration without features" cargo test --package rotogate-config --no-default-features --lib
    step 1800 "tests of the documentation" cargo test --workspace --all-features --doc --no-fail-fast
}

# Steps that mostly wait for the programs that they start. The steps of a lane run in order, the lanes run beside each other, and
# their output follows when both have ended.
lanes=("" "")
in_lane() {
    local lane=$1 quoted
    printf -v quoted '%q ' "${@:2}"
    lanes[lane - 1]+="step $quoted"$'\n'
}

run_lanes() {
    local pids=() failed=0 i
    for i in "${!lanes[@]}"; do
        (
            trap - EXIT
            set -e
            eval "${lanes[i]}"
        ) >"$logs/lane-$i.log" 2>&1 &
        pids+=($!)
    done
    for i in "${!pids[@]}"; do
        wait "${pids[i]}" || failed=1
        cat "$logs/lane-$i.log"
    done
    return "$failed"
}

rm -rf "$printed" "$target/test-secrets" "$logs"
mkdir -p "$printed" "$logs"
step 900 "programs that the checks need" bash tests/setup.sh
# What needs no build comes first, so that a wrong file is found within seconds.
step 60 "format" cargo fmt --all --check
step 60 "the other scripts can be started" bash -c 'bash -n tests/long.sh && bash -n tests/fast.sh'
# Its hundreds of packages are needed only to measure.
step 60 "the bench of peers is formatted, and can be started" bash -c \
    'cargo fmt --manifest-path benches/peers/Cargo.toml --check && bash -n benches/peers/run && bash -n benches/peers/cores'
step 120 "the lock files of what is built apart are current" bash -c \
    'for each in benches/peers adapters; do cargo update --quiet --workspace --locked --manifest-path "$each/Cargo.toml" || exit 1; done'
step 120 "every requirement has its tests, and every rule a mutation" bash -c \
    'python3 tests/requirements.py && python3 tests/mutations.py --check'
step 180 "each capability is in no more places than before" bash -c 'python3 tests/house.py --self-test && python3 tests/house.py'
step 300 "the documentation agrees with the sources" python3 tests/docs.py
step 60 "the search for secrets finds what is planted" bash tests/secrets.sh --self-test
# It waits for the network, so it runs while the compiler works. What it compiles has lints of its own.
step 1200 "programs of others that the tests run" env -u RUSTC_WORKSPACE_WRAPPER -u RUSTFLAGS bash tests/install.sh >"$logs/install.log" 2>&1 &
install=$!
step 1800 "build and lints" bash -c "cargo nextest list --workspace --all-features --list-type binaries-only --message-format json >$logs/binaries.json"
cargo metadata --all-features --format-version 1 >"$logs/metadata.json"
wait "$install" || failed=1
cat "$logs/install.log"
[ -z "${failed:-}" ]
compile_beside >"$logs/beside.log" 2>&1 &
beside=$!
step 2100 "tests" cargo nextest run --binaries-metadata "$logs/binaries.json" --cargo-metadata "$logs/metadata.json"
in_lane 1 600 "the documentation holds" python3 tests/docs.py --gate "$target/debug/rotogate"
in_lane 1 300 "the book can be searched without a network" python3 tests/book.py
in_lane 1 600 "a stranger finds the way" python3 tests/stranger.py --gate "$target/debug/rotogate"
in_lane 1 600 "services behind the gate, by their page" python3 tests/services.py --gate "$target/debug/rotogate"
in_lane 1 600 "Grafana behind nginx, by its page" python3 tests/grafana.py --gate "$target/debug/rotogate"
in_lane 1 900 "packages" python3 tests/packages.py --gate "$target/debug/rotogate"
in_lane 2 600 "three gates behind HAProxy, and each part killed" python3 tests/nodes/three-gates/try.py --gate "$target/debug/rotogate"
in_lane 2 600 "the same on PostgreSQL" python3 tests/nodes/three-gates/try.py --store postgres --gate "$target/debug/rotogate"
run_lanes
wait "$beside" || failed=1
cat "$logs/beside.log"
[ -z "${failed:-}" ]
python3 tests/printed.py "$target"/nextest/*/junit.xml --text "$printed"
step 120 "no secret was printed" bash tests/secrets.sh "$printed" "$target/test-secrets"
