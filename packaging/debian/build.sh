#!/usr/bin/env bash
# Builds the Debian package: the program, then its man pages and completions, which it writes itself, then the package.
#
#   bash packaging/debian/build.sh                   needs cargo-deb (cargo install cargo-deb)
#   bash packaging/debian/build.sh RECORD            with a record of packaging/record.sh, as a release has it
#   bash packaging/debian/build.sh --pages PROGRAM   writes man pages and completions of a program alone
set -euo pipefail
cd "$(dirname "$0")/../.."

pages() {
    local out=target/deb
    rm -rf "$out"
    mkdir -p "$out/completions"
    "$1" completions bash >"$out/completions/rotogate.bash"
    "$1" completions zsh >"$out/completions/_rotogate"
    "$1" completions fish >"$out/completions/rotogate.fish"
    "$1" man --dir "$out/man" >/dev/null
    gzip --best --no-name "$out"/man/man?/*
}

if [ "${1-}" = --pages ]; then
    pages "$2"
    exit
fi
command -v cargo-deb >/dev/null || {
    echo "packaging/debian/build.sh: cargo-deb is missing: cargo install cargo-deb" >&2
    exit 1
}
record=
case ${1-} in
    *.tar.xz)
        record=$(realpath "$1")
        shift
        ;;
esac
program=${CARGO_TARGET_DIR:-target}/dist/rotogate
install -D "$(bash packaging/build.sh "${CARGO_TARGET_DIR:-target}" "$(rustc -vV | sed -n 's/^host: //p')" "$record")" "$program"
pages "$program"
# Without the profile, cargo-deb takes target/dist for a folder of the sources.
cargo deb --package rotogate-server --profile dist --no-build "$@"
