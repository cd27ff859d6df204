#!/usr/bin/env bash
# Records the load that packages are optimised for: builds the program with counters, drives it, and writes
# packaging/profile/TARGET.profdata.xz with TARGET.txt. About half an hour on two processors with nothing else to do. Then
# builds the program with that profile, drives it again, and writes TARGET.layout.xz: which code belongs together (BOLT).
#
#   bash packaging/profile/record.sh            both
#   bash packaging/profile/record.sh --layout   the layout alone, for a profile that still fits: 20 minutes
#
# The load: the rows of benches/peers with rotogate in them (cached, new and forged tokens, refreshes, bodies, TLS, HTTP/2,
# gRPC, WebSockets, verdicts, logs), and the tests of the program, which use each dialect, store and directory. A function
# that neither reaches is left out of the profile and compiled as without one, so it is not taken for one that is rare.
# Needs what tests/setup.sh and benches/peers/run install.
set -euo pipefail
cd "$(dirname "$0")/../.."
RUSTUP_TOOLCHAIN=$(cat packaging/toolchain.txt)
export RUSTUP_TOOLCHAIN CARGO_INCREMENTAL=0
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/profile
target=$(rustc -vV | sed -n 's/^host: //p')
sets=contenders,neighbours,tls,tls-http2,handshakes,grpc,websockets,bodies,logs,algorithms,revocations,rotations,forged,refresh
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

record=packaging/profile/$target

envoy=$folder/../interop-cache/neighbours
bash tests/neighbours/install.sh "$envoy"
cargo build --release --manifest-path benches/peers/Cargo.toml --target-dir "$folder/../peers"
# A variable of a release's build is not for the program, which reads ROTOGATE_* as its configuration.
drive() {
    env -u ROTOGATE_REVISION -u ROTOGATE_PROFILE "$folder/../peers/release/rotogate-peers" compare --rotogate "$1" --envoy "$envoy/bin/envoy-itself" \
        --scratch "$folder/../peers" --own --quick --only "$2"
}

record_counts() {
    # A profile is read by the LLVM of the same major version alone.
    profdata=$(rustc --print sysroot)/lib/rustlib/$target/bin/llvm-profdata
    [ -x "$profdata" ] || profdata=$(command -v "llvm-profdata-$llvm") || {
        echo "packaging/profile/record.sh: llvm-profdata of LLVM $llvm is missing: rustup component add llvm-tools, or apt install llvm-$llvm" >&2
        exit 1
    }

    raw=$folder/raw merged=$folder/rotogate.profdata
    rm -rf "$raw" "$merged"
    mkdir -p "$raw"
    # Programs of the tests run as another user.
    chmod 1777 "$raw"
    RUSTFLAGS="-Cprofile-generate=$raw" CARGO_TARGET_DIR="$folder/counting" \
        cargo build --profile dist --locked --target "$target" --package rotogate-server --features full
    program=$folder/counting/$target/dist/rotogate
    # Each process writes when it ends. A test that kills one leaves part of a file, which is left out.
    export LLVM_PROFILE_FILE=$raw/rotogate-%p.profraw
    add_counts() {
        local files=("$raw"/*.profraw)
        [ -e "${files[0]}" ] || return 0
        [ ! -e "$merged" ] || files+=("$merged")
        "$profdata" merge --sparse --failure-mode=all --output "$merged.new" "${files[@]}" 2>>"$folder/merge.log"
        mv "$merged.new" "$merged"
        rm -f "$raw"/*.profraw
    }

    drive "$program" "$sets"
    add_counts

    # The tests take the program that lies above their folder. Any compiler will do for the tests.
    tests=$(CARGO_PROFILE_DEV_DEBUG=0 env -u RUSTUP_TOOLCHAIN cargo test --package rotogate-server --all-features --test gate --no-run 2>&1 | sed -n 's/.*(\(.*\))$/\1/p' | tail -n 1)
    mkdir -p "$folder/tests/deps"
    cp "$tests" "$folder/tests/deps/gate"
    cp "$program" "$folder/tests/rotogate"
    # Module by module, since each process writes 14 MB. Tests that ask for a build with failpoints fail here.
    for module in $("$folder/tests/deps/gate" --list 2>/dev/null | sed -n 's/^\([a-z_0-9]*\)::.*: test$/\1/p' | sort -u); do
        (cd crates/server && CARGO_MANIFEST_DIR=$PWD "$folder/tests/deps/gate" "$module::") >>"$folder/tests.log" 2>&1 || true
        add_counts
    done

    xz -9 --extreme --keep --stdout "$merged" >"$record.profdata.xz"
    # Ours, without the file that a local name begins with.
    functions=$("$profdata" show --all-functions "$merged" | sed -n 's/^  \(.*;\)\{0,1\}\(.*\):$/\2/p' | grep -c rotogate)
    cat >"$record.txt" <<EOF
compiler: $(rustc -vV | sed -n 's/^commit-hash: //p')
version: $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
lock: $(sha256sum Cargo.lock | cut -c1-64)
functions: $functions
commit: $(git rev-parse HEAD)
EOF
}

# What stood in the record of the counts stays.
record_layout() {
    local laid=$folder/laid program bolt placed
    program=$(ROTOGATE_PROFILE=record bash packaging/build.sh "$laid")
    bolt=$(command -v llvm-bolt-22 || command -v llvm-bolt)
    rm -f "$laid"/counts.*
    "$bolt" "$program" -instrument -o "$laid/rotogate" --instrumentation-file="$laid/counts" --instrumentation-file-append-pid >"$laid/bolt.log"
    drive "$laid/rotogate" "$sets"
    "${bolt%/*}/$(basename "$bolt" | sed 's/llvm-bolt/merge-fdata/')" "$laid"/counts.* >"$laid/merged" 2>>"$laid/bolt.log"
    # In this form, each function has a hash of its code: what has changed is left as it is.
    "$bolt" "$program" -o /dev/null --data "$laid/merged" --skip-funcs='aws_lc_.*' -w "$laid/layout" >"$laid/bolt.log" 2>&1
    xz -9 --extreme --keep --stdout "$laid/layout" >"$record.layout.xz"
    placed=$(sed -n 's/^BOLT-INFO: \([0-9]*\) out of .* non-empty execution profile$/\1/p' "$laid/bolt.log")
    sed -i '/^layout/d' "$record.txt"
    printf 'layout: %s\nlayout commit: %s\n' "$placed" "$(git rev-parse HEAD)" >>"$record.txt"
}

case ${1-} in
    --layout) ;;
    "") record_counts ;;
    *)
        sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
record_layout
du -b "$record.profdata.xz" "$record.layout.xz"
