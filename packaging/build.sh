#!/usr/bin/env bash
# Builds the program with all features in FOLDER, with the exact compiler of packaging/toolchain.txt, and prints its path:
# FOLDER/TARGET/dist/rotogate, unless it has a layout.
#
#   bash packaging/build.sh FOLDER                    for this machine
#   bash packaging/build.sh FOLDER TARGET             for another target, whose linker and C compiler are in the environment
#   bash packaging/build.sh FOLDER TARGET RECORD      optimised for a recorded load, as packages are
#
# RECORD is an archive of packaging/record.sh. The compiler optimises for the counts in it. If it has a layout, too, BOLT of
# LLVM 22 puts the code that runs often close together; without BOLT, the program is built with the counts alone.
# `rotogate --version` names what was used.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:?the folder to build in}")
# What --version shows.
ROTOGATE_REVISION=${ROTOGATE_REVISION:-$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)}
export ROTOGATE_REVISION
RUSTUP_TOOLCHAIN=$(cat packaging/toolchain.txt)
export RUSTUP_TOOLCHAIN CARGO_INCREMENTAL=0
compiler=$(rustc -vV) || {
    echo "packaging/build.sh: the compiler is missing: rustup toolchain install $RUSTUP_TOOLCHAIN --profile minimal" >&2
    exit 1
}
host=$(sed -n 's/^host: //p' <<<"$compiler")
target=${2:-$host}

flags=() bolt='' ROTOGATE_PROFILED=none
if [ -n "${3-}" ]; then
    mkdir -p "$folder"
    unpacked=$(mktemp -d "$folder/record.XXXXXX")
    tar -xJf "$3" -C "$unpacked"
    # Cargo builds anew for other flags, and looks at no file that they name. The name of the file is not in the program.
    record=$folder/record-$(sha256sum "$unpacked/counts" | cut -c1-12)
    rm -rf "$record"
    mv "$unpacked" "$record"
    flags=("-Cprofile-use=$record/counts")
    ROTOGATE_PROFILED=$target
    if [ -f "$record/layout" ]; then
        bolt=$(bash packaging/record.sh --bolt)
    fi
    if [ -n "$bolt" ]; then
        ROTOGATE_PROFILED+=", layout"
        # BOLT needs the names of functions, and each place that refers to another.
        flags+=(-Clink-arg=-Wl,--emit-relocs)
        export CARGO_PROFILE_DIST_STRIP=none
    fi
fi
export ROTOGATE_PROFILED

# Panics name source files: without this, by the path of the clone and of the builder's home.
maps="--remap-path-prefix=$PWD=/rotogate --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$folder=/target"
# With a target, build scripts and macros have no part in the profile.
CFLAGS="-ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo -ffile-prefix-map=$folder=/target ${CFLAGS-}" \
    RUSTFLAGS="$maps ${flags[*]}" CARGO_TARGET_DIR="$folder" \
    cargo build --profile dist --locked --target "$target" --package rotogate-server --features full >&2
program=$folder/$target/dist/rotogate

# An empty layout: packaging/record.sh asks for the program that BOLT records the layout of.
if [ -n "$bolt" ] && [ -s "$record/layout" ]; then
    # Cryptography stays as it was written: parts of it are assembly by hand.
    "$bolt" "$program" -o "$record/rotogate" --data "$record/layout" --reorder-blocks=ext-tsp --reorder-functions=cdsort \
        --split-functions --split-all-cold --split-eh --icf=1 --skip-funcs='aws_lc_.*' >"$record/bolt.log" 2>&1 || {
        cat "$record/bolt.log" >&2
        exit 1
    }
    # The command of BOLT names the folder.
    "$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-objcopy" --strip-all --remove-section=.note.bolt_info "$record/rotogate"
    program=$record/rotogate
fi
echo "$program"
