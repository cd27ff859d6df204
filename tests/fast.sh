#!/usr/bin/env bash
# The fast level: every check that needs Rust alone. It needs cargo with clippy and rustfmt, a C compiler, and bash and
# util-linux, which every Linux has; no Node.js, Python, Chromium, nginx, Go, wrk or valgrind. CI runs tests/all.sh.
#
#   bash tests/fast.sh [format] [house] [lints] [unit] [docs] [integration]     all of them without an argument
#
# format        the formatting of all Rust code
# house         the numbers of tests/house.py, where Python 3.11 is installed
# lints         clippy for all targets with all features; a warning is an error
# unit          the unit tests of the library and the program, except those of the stores in PostgreSQL and Redis
# docs          the examples in the documentation and in the README
# integration   the integration tests, except those that run an outside program
#
# For one integration test: cargo test --all-features --test gate NAME. tests/README.md lists all of them.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never

# The soak, which only tests/long.sh runs.
outside=" soak "
# Modules and tests that run outside programs.
skipped=(
    --skip clients::
    --skip interop::
    --skip a_cached_token_costs_so_many_instructions                                  # cost: valgrind
    --skip a_proxied_request_with_a_cached_token_costs                                # cost: valgrind
    --skip c34_a_cached_token_costs                                                   # cost: valgrind, Redis
    --skip a4_four_times_too_much                                                     # overload: wrk, h2load
    --skip t12_what_is_public_is_private_in_no_servers_reading                        # readings: nginx, Go, Python
    --skip directories::ldap::i2                                                      # slapd
    --skip postgres::                                                                 # PostgreSQL
    --skip redis::                                                                    # Redis
    --skip nodes::chaos --skip nodes::doubt --skip nodes::stopped --skip nodes::together   # both
    --skip a_gate_that_matches_by_prefix_is_caught_by_every_server_that_resolves_dots # the same
)

command -v cargo >/dev/null || {
    echo "tests/fast.sh: cargo is missing: install Rust, https://rustup.rs" >&2
    exit 1
}

run() {
    local begin=$SECONDS
    echo "== $1"
    "$1"
    echo "== $1: $((SECONDS - begin)) s"
}

format() {
    cargo fmt --all --check
}

house() {
    if python3 -c 'import tomllib' 2>/dev/null; then
        python3 tests/house.py --self-test
        python3 tests/house.py
    else
        echo "not run here: tests/house.py, which needs Python 3.11"
    fi
}

lints() {
    cargo clippy --workspace --all-targets --all-features -- -D warnings
}

unit() {
    cargo test --workspace --exclude rotogate-store-postgres --exclude rotogate-store-redis --all-features --lib --bins
}

docs() {
    cargo test --workspace --all-features --doc
}

integration() {
    local name tests=()
    # The names of all [[test]] targets.
    for name in $(sed -n '/^\[\[test\]\]/{n;s/^name = "\(.*\)"/\1/p}' Cargo.toml crates/server/Cargo.toml crates/store-redb/Cargo.toml); do
        [[ $outside == *" $name "* ]] || tests+=(--test "$name")
    done
    cargo test --all-features "${tests[@]}" -- "${skipped[@]}"
}

parts=("$@")
[ $# -gt 0 ] || parts=(format house lints unit docs integration)
for part in "${parts[@]}"; do
    case $part in
        format | house | lints | unit | docs | integration) ;;
        *)
            sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
            exit 2
            ;;
    esac
done
for part in "${parts[@]}"; do
    run "$part"
done
