#!/usr/bin/env bash
# Records the load that packages are optimised for, and writes it into FILE (.tar.xz) for packaging/build.sh. Builds the
# program with counters in FOLDER and drives it: `counts`, how often each piece of code runs. Then builds the program with
# these counts and drives it again: `layout`, which code belongs together. Without BOLT it says so and leaves the layout out.
# About three quarters of an hour on two processors with nothing else to do; both builds take most of it.
#
#   bash packaging/record.sh FOLDER FILE
#   bash packaging/record.sh --bolt        prints the path of BOLT, or nothing
#
# The load: the rows of benches/peers with rotogate in them (cached, new and forged tokens, refreshes, bodies, TLS, HTTP/2,
# gRPC, WebSockets, verdicts, logs). A function that they do not reach is left out of the counts and compiled as without
# them, because it need not be rare elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
sets=contenders,neighbours,tls,tls-http2,handshakes,grpc,websockets,bodies,logs,algorithms,revocations,rotations,forged,refresh

# LLVM of another major version may place code otherwise, or read no layout of this one.
find_bolt() {
    local bolt
    bolt=$(command -v llvm-bolt-22 || command -v llvm-bolt || true)
    if "${bolt:-false}" --version 2>/dev/null | grep 'LLVM version 22\.' >/dev/null; then
        echo "$bolt"
    else
        echo "packaging/record.sh: llvm-bolt of LLVM 22 is missing (apt install bolt-22; Debian 12 has it in its security archive): the program is built without a layout" >&2
    fi
}
if [ "${1-}" = --bolt ]; then
    find_bolt
    exit
fi

folder=$(realpath -m "${1:?the folder to build in}")/recording file=$(realpath -m "${2:?the archive to write}")
RUSTUP_TOOLCHAIN=$(cat packaging/toolchain.txt)
export RUSTUP_TOOLCHAIN CARGO_INCREMENTAL=0
target=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
# Counts are read by the LLVM of the same major version alone.
profdata=$(rustc --print sysroot)/lib/rustlib/$target/bin/llvm-profdata
[ -x "$profdata" ] || profdata=$(command -v "llvm-profdata-$llvm") || {
    echo "packaging/record.sh: llvm-profdata of LLVM $llvm is missing: rustup component add llvm-tools --toolchain $RUSTUP_TOOLCHAIN, or apt install llvm-$llvm" >&2
    exit 1
}
rm -rf "$folder/raw" "$folder/record"
mkdir -p "$folder/raw" "$folder/record" "$(dirname "$file")"

drive() {
    # The program reads ROTOGATE_* as its configuration.
    env -u ROTOGATE_REVISION benches/peers/run --gate "$1" --own --quick --only "$sets" >&2
}
# Paths and times of the machine are not in it.
pack() {
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$folder/record" -cJf "$file" .
}

RUSTFLAGS="-Cprofile-generate=$folder/raw" CARGO_TARGET_DIR="$folder" \
    cargo build --profile dist --locked --target "$target" --package rotogate-server --features full >&2
# Each process writes when it ends.
LLVM_PROFILE_FILE=$folder/raw/%p.profraw drive "$folder/$target/dist/rotogate"
"$profdata" merge --sparse --output "$folder/record/counts" "$folder"/raw/*.profraw
pack

bolt=$(find_bolt)
if [ -n "$bolt" ]; then
    # Empty: build.sh leaves the program as BOLT needs it.
    touch "$folder/record/layout"
    pack
    program=$(bash packaging/build.sh "$1" "$target" "$file")
    rm -f "$folder"/laid.*
    "$bolt" "$program" -instrument -o "$folder/laid" --instrumentation-file="$folder/laid" --instrumentation-file-append-pid >"$folder/bolt.log"
    drive "$folder/laid"
    "$(dirname "$bolt")/$(basename "$bolt" | sed 's/llvm-bolt/merge-fdata/')" "$folder"/laid.* >"$folder/merged" 2>>"$folder/bolt.log"
    # In this form, each function has a hash of its code.
    "$bolt" "$program" -o /dev/null --data "$folder/merged" --skip-funcs='aws_lc_.*' -w "$folder/record/layout" >>"$folder/bolt.log" 2>&1
    pack
fi
du -b "$file" >&2
