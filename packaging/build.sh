#!/usr/bin/env bash
# Builds the program as packages have it, into FOLDER/TARGET/dist/rotogate, with the exact compiler of
# packaging/toolchain.txt, and prints that path.
#
#   bash packaging/build.sh FOLDER            for this machine
#   bash packaging/build.sh FOLDER TARGET     for another target, whose linker and C compiler are in the environment
#
# If packaging/profile has a profile of this target, the compiler optimises for the load that it was recorded under. A
# profile that no longer fits is an error: bash packaging/profile/record.sh makes a new one. ROTOGATE_PROFILE=none builds
# without, and `--version` names what was used. If it has a layout, too, BOLT of LLVM 22 puts the code that runs often close
# together. ROTOGATE_PROFILE=counts leaves the code where the compiler put it.
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
commit=$(sed -n 's/^commit-hash: //p' <<<"$compiler")
refuse() {
    echo "packaging/build.sh: packaging/profile/$target: $1: bash packaging/profile/record.sh${2:+ --layout} makes a new one, ROTOGATE_PROFILE=${2:-none} builds without" >&2
    exit 1
}

profile=() ROTOGATE_PROFILED=none record=packaging/profile/$target
if [ "${ROTOGATE_PROFILE-}" != none ] && [ -f "$record.txt" ]; then
    # The names of functions have the version in them.
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    value() { sed -n "s/^$1: //p" "$record.txt"; }
    [ "$(value compiler)" = "$commit" ] || refuse "it is of another compiler, $(value compiler)"
    [ "$(value version)" = "$version" ] || refuse "it is of rotogate $(value version)"
    [ "$(value lock)" = "$(sha256sum Cargo.lock | cut -c1-64)" ] ||
        echo "packaging/build.sh: Cargo.lock has changed since the profile: crates that are new are built without it" >&2
    mkdir -p "$folder"
    xz --decompress --stdout "$record.profdata.xz" >"$folder/rotogate.profdata"
    # The name of the file is not in the program.
    profile=("-Cprofile-use=$folder/rotogate.profdata")
    ROTOGATE_PROFILED=$target
fi
layout=()
# record: packaging/profile/record.sh asks for the program that a layout is made of.
if [ "$ROTOGATE_PROFILED" != none ] && [ "${ROTOGATE_PROFILE-}" != counts ] && [ -f "$record.layout.xz" -o "${ROTOGATE_PROFILE-}" = record ]; then
    bolt=$(command -v llvm-bolt-22 || command -v llvm-bolt || true)
    "${bolt:-false}" --version 2>/dev/null | grep -q 'LLVM version 22\.' || {
        echo "packaging/build.sh: llvm-bolt of LLVM 22 is missing: apt install bolt-22, ROTOGATE_PROFILE=counts builds without" >&2
        exit 1
    }
    ROTOGATE_PROFILED+=", layout"
    # BOLT needs the names of functions, and each place that refers to another.
    layout=(-Clink-arg=-Wl,--emit-relocs)
    export CARGO_PROFILE_DIST_STRIP=none
fi
export ROTOGATE_PROFILED

# Panics name source files: without this, by the path of the clone and of the builder's home.
maps="--remap-path-prefix=$PWD=/rotogate --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$folder=/target"
said=$(mktemp)
trap 'rm -f "$said"' EXIT
# With a target, build scripts and macros have no part in the profile.
CFLAGS="-ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo -ffile-prefix-map=$folder=/target ${CFLAGS-}" \
    RUSTFLAGS="$maps ${profile[*]} ${layout[*]}" CARGO_TARGET_DIR="$folder" \
    cargo build --profile dist --locked --target "$target" --package rotogate-server --features full 2>&1 | tee "$said" >&2

if [ ${#profile[@]} -gt 0 ]; then
    trained=$(value functions)
    # The compiler names each function whose profile is of other code.
    changed=$(grep -c 'hash mismatch.*rotogate' "$said" || true)
    [ $((changed * 20)) -le "$trained" ] || refuse "it is too old: $changed of $trained functions have changed"
    echo "packaging/build.sh: $changed of $trained functions of the profile have changed" >&2
fi

program=$folder/$target/dist/rotogate
if [ ${#layout[@]} -gt 0 ] && [ "${ROTOGATE_PROFILE-}" != record ]; then
    xz --decompress --stdout "$record.layout.xz" >"$folder/rotogate.layout"
    # Cryptography stays as it was written: parts of it are assembly by hand.
    "$bolt" "$program" -o "$program.laid" --data "$folder/rotogate.layout" --reorder-blocks=ext-tsp --reorder-functions=cdsort \
        --split-functions --split-all-cold --split-eh --icf=1 --skip-funcs='aws_lc_.*' >"$said" 2>&1 || {
        cat "$said" >&2
        exit 1
    }
    placed=$(value layout)
    fits=$(sed -n 's/^BOLT-INFO: \([0-9]*\) out of .* non-empty execution profile$/\1/p' "$said")
    stale=$(sed -n 's/^BOLT-WARNING: \([0-9]*\) .* functions\{0,1\} have invalid (possibly stale) profile.*$/\1/p' "$said")
    : "${stale:=0}"
    [ $(((fits - stale) * 5)) -ge $((placed * 4)) ] || refuse "its layout is too old: it fits $((fits - stale)) functions, not $placed" counts
    echo "packaging/build.sh: the layout fits $((fits - stale)) of $placed functions" >&2
    # The command of BOLT names the folder.
    "$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-objcopy" --strip-all --remove-section=.note.bolt_info "$program.laid"
    mv "$program.laid" "$program"
fi
echo "$program"
