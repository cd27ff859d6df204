#!/usr/bin/env bash
# Builds a release: an archive for this machine's target, the recorded load that it is optimised for, its SBOM (CycloneDX)
# and SHA256SUMS, in target/release-files. Two runs on one commit with one toolchain and one record make the same bytes,
# wherever the clone is.
#
#   bash packaging/release.sh                        records the load first (packaging/record.sh); needs cargo-cyclonedx
#                                                    (cargo install cargo-cyclonedx), llvm-tools and, for the layout, BOLT
#   bash packaging/release.sh --record FILE          with a record that is there already, as that of a release: its bytes again
#   bash packaging/release.sh --static               a static program (musl), without a record; needs zig, too
#   bash packaging/release.sh --verify [FILE]        builds twice, the second time elsewhere, and compares the archives
#   bash packaging/release.sh --archive PROGRAM DIR  packs a program that is built already, without an SBOM
#
# zig (pip install ziglang) compiles the C of a static program: it has musl, and the headers of Linux that aws-lc asks for and
# musl-gcc lacks (aws-lc-rs #894). Rust links, with the musl that `rustup target add` brings.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
target=$(rustc -vV | sed -n 's/^host: //p')
# Times in the archive are that of the commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
# As packaging/build.sh has it: the copy that --verify builds has no history.
ROTOGATE_REVISION=${ROTOGATE_REVISION:-$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)}
export ROTOGATE_REVISION

# A compiler for the C of $target, in this folder.
with_zig() {
    local folder=$1 name=${target//-/_} zig
    if command -v zig >/dev/null; then
        zig=zig
    elif python3 -c 'import ziglang' 2>/dev/null; then
        zig="python3 -m ziglang"
    else
        echo "packaging/release.sh: zig is missing: pip install ziglang, or https://ziglang.org/download" >&2
        exit 1
    fi
    mkdir -p "$folder"
    # cc-rs adds Rust's name of the target, which zig does not know.
    cat >"$folder/cc" <<EOF
#!/usr/bin/env bash
for word; do
    shift
    [[ \$word == --target=* ]] || set -- "\$@" "\$word"
done
exec $zig cc -target ${target%%-*}-linux-musl -fno-sanitize=all "\$@"
EOF
    printf '#!/bin/sh\nexec %s ar "$@"\n' "$zig" >"$folder/ar"
    chmod +x "$folder/cc" "$folder/ar"
    export "CC_$name=$folder/cc" "AR_$name=$folder/ar" "CARGO_TARGET_${name^^}_LINKER=rust-lld"
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
        here=$root/target/release-verify elsewhere=$(mktemp -d) record=${2:+$(realpath "$2")}
        trap 'rm -rf "$elsewhere"' EXIT
        program=$(bash packaging/build.sh "$here/build" "$target" "$record")
        archive "$program" "$here" >/dev/null
        git archive HEAD | tar -x -C "$elsewhere"
        (cd "$elsewhere" && program=$(bash packaging/build.sh "$elsewhere/build" "$target" "$record") && archive "$program" "$elsewhere/out") >/dev/null
        if cmp "$here/rotogate-$version-$target.tar.gz" "$elsewhere/out/rotogate-$version-$target.tar.gz"; then
            echo "met: two builds in two places made the same archive: $(cut -c1-64 "$here/SHA256SUMS")"
        else
            echo "not met: the archives differ" >&2
            exit 1
        fi
        ;;
    "" | --record | --static)
        build=${CARGO_TARGET_DIR:-$root/target}
        if [ "${1-}" = --static ]; then
            target=${target%%-*}-unknown-linux-musl
            with_zig "$(realpath -m "$build")/zig"
        fi
        command -v cargo-cyclonedx >/dev/null || {
            echo "packaging/release.sh: cargo-cyclonedx is missing: cargo install cargo-cyclonedx" >&2
            exit 1
        }
        out=$root/target/release-files
        mkdir -p "$out"
        # Other targets of this version stay.
        find "$out" -name 'rotogate-*' ! -name "rotogate-$version*" -delete
        record=
        if [ "${1-}" != --static ]; then
            record=$out/rotogate-$version-$target.record.tar.xz
            if [ "${1-}" != --record ]; then
                bash packaging/record.sh "$build" "$record"
            elif ! [ "${2:?a record}" -ef "$record" ]; then
                cp "$2" "$record"
            fi
        fi
        program=$(bash packaging/build.sh "$build" "$target" "$record")
        # It writes beside the manifest.
        sbom=rotogate-$version-$target.cdx
        cargo cyclonedx --manifest-path crates/server/Cargo.toml --features full --target "$target" --format json \
            --override-filename "$sbom" >/dev/null
        mv "crates/server/$sbom.json" "$out/$sbom.json"
        # One for each other package of the workspace, which are not what is released.
        rm -f "$sbom.json" crates/*/"$sbom.json" examples/*/"$sbom.json"
        archive "$program" "$out"
        ;;
    *)
        sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
