#!/usr/bin/env bash
# The checks that take too long for every change: run them before a release. benches/RESULTS.md has the last figures.
#
#   bash tests/long.sh [soak] [kills] [fuzz] [simulation] [exploration] [overload] [attacks] [nodes] [figures] [features] [cuts] [repeated] [versions] [peers]
#                                                                             all of them without an argument
#   bash tests/long.sh versions [REVISION]
#
# soak         ten minutes under mixed load end with flat memory           SOAK_SECONDS=600
# kills        a process ends 1 000 times under concurrent chains          CRASH_ROUNDS=334, three ends each
# fuzz         every target for its share of an hour, bytes at random      FUZZ_SECONDS=3600
# simulation   ten million histories of the engine                         SIM_HISTORIES=10000000
# exploration  the proofs of the rotation table, with all generations in the largest worlds
# overload     a minute of four times what the machine carries; memory after a flood; one token alone is never refused
#                                                                          OVERLOAD_SECONDS=60
# attacks      each attack of one address or token beside others' requests    ATTACK_SECONDS=20, each
# nodes        three gates on one store: clients, faults and a checker; a token presented by 200 at once
#                                                  NODES_SECONDS=600, four times; NODES_ROUNDS=1000, three times
# versions     the program of an earlier revision and this one on one store under load, exchanged forwards and back. Without
#              REVISION: the last tag; while there is none, the first revision that has the formats of today
# repeated     all tests five times while other programs keep every core busy: counts how often each test fails   REPEATS=5
# figures      times after a fault of the store, each with its bound, met or not met: on a machine without other work
# features     the unit tests of the library without its features, and the lints of what has fewer features
# cuts         the reply of PostgreSQL is cut after each of its bytes
# peers        the bench of peers compiles without a warning; for its hundreds of packages, not part of every change
#
# CRASH_SEED, SIM_SEED, SOAK_SEED and NODES_SEED repeat the choices of a run; each check prints its seed.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never

run() {
    local name=$1
    shift
    local begin=$SECONDS
    echo "== $name"
    "$@"
    echo "== $name: $((SECONDS - begin)) s"
}

soak() {
    cargo test --all-features --test soak -- --ignored --nocapture
}

kills() {
    CRASH_ROUNDS=${CRASH_ROUNDS:-334} cargo test --all-features --test crash -- --nocapture r2_
}

fuzz() {
    local targets
    targets=$(cargo test --all-features --test fuzz -- --list --format terse 2>/dev/null | grep -c ': test$')
    # One after the other: a target has a core to itself.
    BOLERO_RANDOM_TEST_TIME_MS=$((${FUZZ_SECONDS:-3600} * 1000 / targets)) \
        cargo test --all-features --test fuzz -- --nocapture --test-threads=1
}

simulation() {
    SIM_HISTORIES=${SIM_HISTORIES:-10000000} cargo test --all-features --test simulation -- --nocapture r1_
}

exploration() {
    EXPLORATION=whole cargo test --all-features --test exploration -- --nocapture
}

overload() {
    cargo test --all-features --test overload -- --ignored --nocapture a4_ a15_ a17_
}

# The release binary has its own processor; attackers, upstreams and other clients share the rest.
attacks() {
    local others
    others=1-$(($(nproc) - 1))
    [ "$(nproc)" -gt 1 ] || others=0
    cargo test --release --all-features --test overload --no-run
    ATTACK_GATE_CPU=0 taskset -c "$others" \
        cargo test --release --all-features --test overload -- --ignored --nocapture a16_
}

nodes() {
    NODES_SECONDS=${NODES_SECONDS:-600} NODES_ROUNDS=${NODES_ROUNDS:-1000} \
        cargo test --all-features --test gate -- --nocapture --test-threads=1 nodes::chaos nodes::together
}

figures() {
    local tests=(cargo test --all-features --no-fail-fast)
    {
        "${tests[@]}" -p rotogate-core -p rotogate-store-postgres -p rotogate-store-redis --lib -- --nocapture --test-threads=1 c8_ c11_ c12_ c13_ c14_ c24_
        "${tests[@]}" -p rotogate-server --test gate -- --nocapture --test-threads=1 topology
    } 2>&1 | grep -e '^figure: ' -e '^error' -e 'FAILED$'
}

features() {
    cargo nextest run --package rotogate --package rotogate-core --no-default-features --lib
    local stores=(--package rotogate-store-postgres --package rotogate-store-redb --package rotogate-store-redis)
    cargo clippy "${stores[@]}" -- -D warnings
    cargo clippy --package rotogate --package rotogate-core --no-default-features --lib --profile test -- -D warnings
}

cuts() {
    CUT_EVERY=1 cargo nextest run --package rotogate-store-postgres --all-features c2_a_reply_that_is_cut
}

# A test that fails in some of the runs only has a race. One program for each core computes beside the tests.
repeated() {
    local target=${CARGO_TARGET_DIR:-target} round
    local folder=$target/repeated report=$target/nextest/default/junit.xml
    rm -rf "$folder"
    cargo test --workspace --all-features --no-run
    for round in $(seq "${REPEATS:-5}"); do
        rm -f "$report"
        python3 tests/limited.py --seconds 3600 --name "round $round" --log "$folder/$round.log" -- bash -c '
            for _ in $(seq "$(nproc)"); do
                while :; do :; done &
            done
            NEXTEST_TEST_THREADS=$((3 * $(nproc))) exec cargo nextest run --workspace --all-features' || true
        cp "$report" "$folder/$round.xml"
    done
    python3 tests/printed.py "$folder"/*.xml --failures
}

# What stores hold is compatible from release to release, so the earlier program is that of the last one. Before the first
# release formats may change: from the revision on that changed one of these files last, they are those of today.
versions() {
    local earlier folder=target/versions
    local formats='crates/core/src/store/kit/encoding.rs crates/store-postgres/src/migrations crates/store-redis/src/record.rs crates/store-redis/src/scripts/common.lua'
    earlier=${REVISION:-$(git describe --tags --abbrev=0 2>/dev/null || git rev-list -1 HEAD -- $formats)}
    earlier=$(git rev-parse --verify "$earlier^{commit}")
    echo "compares $(git log -1 --format='%h, %s' "$earlier") with the working tree"
    rm -rf "$folder/source"
    mkdir -p "$folder/source"
    git archive "$earlier" | tar -x -C "$folder/source"
    # The files are as old as their revision: cargo must not take what it built of another one for theirs.
    find "$folder/source" -name '*.rs' -exec touch {} +
    (cd "$folder/source" && CARGO_TARGET_DIR="$OLDPWD/$folder/build" cargo build --package rotogate-server --all-features)
    ROTOGATE_EARLIER="$PWD/$folder/build/debug/rotogate" \
        cargo test --all-features --package rotogate-server --test gate -- --ignored --nocapture --test-threads=1 releases::
}

peers() {
    cargo clippy --manifest-path benches/peers/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/peers" -- -D warnings
}

REVISION=
if [ "${1:-}" = versions ] && [ $# -eq 2 ]; then
    REVISION=$2
    set -- versions
fi
for part in "${@:-soak kills fuzz simulation exploration overload attacks nodes figures features cuts repeated versions peers}"; do
    # Without quotes: without an argument, this is all of them.
    for one in $part; do
        case $one in
            soak | kills | fuzz | simulation | exploration | overload | attacks | nodes | figures | features | cuts | repeated | versions | peers) run "$one" "$one" ;;
            *)
                sed -n '2,27s/^# \{0,1\}//p' "$0" >&2
                exit 2
                ;;
        esac
    done
done
