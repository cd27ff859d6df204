#!/usr/bin/env bash
# The workspace `adapters`: the gate in servers that are no tower services. A job of its own: their packages are not compiled
# by tests/all.sh. Takes five minutes on two cores from nothing. Needs cmake, which pingora's zlib is built with.
set -euo pipefail
cd "$(dirname "$0")/../adapters"
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0
command -v cmake >/dev/null || {
    echo "tests/adapters.sh: cmake is missing: apt-get install cmake" >&2
    exit 1
}
cargo fmt --all --check
cargo clippy --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
cargo test
# A service depends on a clone by its path, and on an adapter: cargo finds the workspace of each.
both=$(mktemp -d)
trap 'rm -rf "$both"' EXIT
mkdir "$both/src"
touch "$both/src/lib.rs"
cp Cargo.lock "$both"
cat >"$both/Cargo.toml" <<END
[package]
name = "both"
version = "0.0.0"
edition = "2024"
[dependencies]
rotogate = { path = "$PWD/..", default-features = false }
rotogate-actix = { path = "$PWD/actix" }
rotogate-pingora = { path = "$PWD/pingora" }
END
cargo metadata --format-version 1 --manifest-path "$both/Cargo.toml" >/dev/null
