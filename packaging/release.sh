#!/usr/bin/env bash
# Builds a release: an archive for this machine's target, its SBOM (CycloneDX) and SHA256SUMS, in target/release-files.
# Two runs on one commit with one toolchain make the same bytes, wherever the clone is.
#
#   bash packaging/release.sh                        needs cargo-cyclonedx (cargo install cargo-cyclonedx)
#   bash packaging/release.sh --verify               builds twice, the second time elsewhere, and compares the archives
#   bash packaging/release.sh --archive PROGRAM DIR  packs a program that is built already, without an SBOM
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
target=$(rustc -vV | sed -n 's/^host: //p')
# Times in the archive are that of the commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
# What --version shows.
ROTOGATE_REVISION=${ROTOGATE_REVISION:-$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)}
export ROTOGATE_REVISION

build() {
    local folder=$1
    # Panics name source files: without this, by the path of the clone and of the builder's home.
    local maps="--remap-path-prefix=$PWD=/rotogate --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    CFLAGS="-ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo -ffile-prefix-map=$folder=/target" \
        RUSTFLAGS="$maps --remap-path-prefix=$folder=/target" CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="$folder" \
        cargo build --profile dist --locked --package rotogate-server --features full
}

archive() {
    local program=$1 out=$2 name="rotogate-$version-$target" tree
    tree=$(mktemp -d)
    mkdir -p "$out" "$tree/$name/packaging"
    install -m 0755 "$program" "$tree/$name/rotogate"
    cp README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT "$tree/$name/"
    cp -r packaging/gateway.toml packaging/rotogate.service packaging/rotogate.socket packaging/rotogate.sysusers \
        packaging/logrotate packaging/prometheus packaging/schema packaging/grafana "$tree/$name/packaging/"
    "$program" man --dir "$tree/$name/man" >/dev/null
    mkdir "$tree/$name/completions"
    local shell
    for shell in bash zsh fish powershell elvish; do
        "$program" completions "$shell" >"$tree/$name/completions/rotogate.$shell"
    done
    chmod -R u=rwX,go=rX "$tree"
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
        -C "$tree" -cf - "$name" | gzip --no-name >"$out/$name.tar.gz"
    rm -rf "$tree"
    (cd "$out" && find . -maxdepth 1 -name "rotogate-*" -printf '%P\0' | sort -z | xargs -0 sha256sum >SHA256SUMS)
    echo "$out/$name.tar.gz"
}

case ${1-} in
    --archive)
        archive "$(realpath "$2")" "$3"
        ;;
    --verify)
        here=$root/target/release-verify elsewhere=$(mktemp -d)
        trap 'rm -rf "$elsewhere"' EXIT
        build "$here/build"
        archive "$here/build/dist/rotogate" "$here" >/dev/null
        git archive HEAD | tar -x -C "$elsewhere"
        (cd "$elsewhere" && build "$elsewhere/build" && archive "$elsewhere/build/dist/rotogate" "$elsewhere/out") >/dev/null
        if cmp "$here/rotogate-$version-$target.tar.gz" "$elsewhere/out/rotogate-$version-$target.tar.gz"; then
            echo "met: two builds in two places made the same archive: $(cut -c1-64 "$here/SHA256SUMS")"
        else
            echo "not met: the archives differ" >&2
            exit 1
        fi
        ;;
    "")
        command -v cargo-cyclonedx >/dev/null || {
            echo "packaging/release.sh: cargo-cyclonedx is missing: cargo install cargo-cyclonedx" >&2
            exit 1
        }
        out=$root/target/release-files
        rm -rf "$out" && mkdir -p "$out"
        build "${CARGO_TARGET_DIR:-$root/target}"
        # It writes beside the manifest.
        cargo cyclonedx --manifest-path crates/server/Cargo.toml --format json --override-filename "rotogate-$version" >/dev/null
        mv "crates/server/rotogate-$version.json" "$out/rotogate-$version.cdx.json"
        # One for each other package of the workspace, which are not what is released.
        rm -f "rotogate-$version.json" crates/*/"rotogate-$version.json" examples/*/"rotogate-$version.json"
        archive "${CARGO_TARGET_DIR:-$root/target}/dist/rotogate" "$out"
        ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
