#!/usr/bin/env bash
# Searches what the tests printed for secrets (requirement A6): whatever has the form of a token or a private key, and
# every password, admin token, client secret and key that the tests met.
#
#   bash tests/secrets.sh OUTPUT KNOWN     folders: what was printed; files with a known secret on each line
#   bash tests/secrets.sh --self-test      plants one of each kind and wants it found
set -euo pipefail
export LC_ALL=C
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Prints the file and the line of each hit, never what is there.
search() {
    local kind=$1 folder=$2 status
    shift 2
    set +e
    grep -rna "$@" -- "$folder" | cut -d: -f1,2 | sed "s/\$/: $kind/"
    status=${PIPESTATUS[0]}
    set -e
    case $status in
        0) found=1 ;;
        1) ;;
        *)
            echo "the output cannot be searched for: $kind" >&2
            exit 2
            ;;
    esac
}

check() {
    local output=$1 known=$2
    found=0
    # To search nothing proves nothing.
    [ -n "$(find "$output" -type f -size +0 2>/dev/null)" ] || { echo "nothing was printed to $output" >&2; exit 2; }
    [ -n "$(find "$known" -type f -size +0 2>/dev/null)" ] || { echo "no secret is known in $known" >&2; exit 2; }
    find "$known" -type f -exec cat {} + | grep -E '^.{8,}' | sort -u >"$scratch/known"

    search "a refresh token" "$output" -E 'rg1_[A-Za-z0-9_-]{40,}'
    search "a JWT" "$output" -E 'eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}'
    search "a private key" "$output" -E -e '-----BEGIN [A-Z ]*PRIVATE KEY-----'
    # As a Debug of bytes: rg1_, eyJ.
    search "a token, as bytes" "$output" -E '\[114, 103, 49, 95,|\[101, 121, 74,'
    search "a secret of the tests" "$output" -F -f "$scratch/known"
    if [ "$found" -ne 0 ]; then
        echo "secrets were printed: see the lines above" >&2
        exit 1
    fi
    echo "$(find "$output" -type f | wc -l) files, $(wc -l <"$scratch/known") known secrets: nothing printed"
}

self_test() {
    local filler=AbCdEfGhIjKlMnOpQrStUvWxYz0123456789_-AbCdEfGhIjKlMnOpQrStUvWxYz kind secret said status
    local place=$scratch/place
    mkdir -p "$place/output" "$place/known"
    echo "correct horse battery staple" >"$place/known/one"
    expect() {
        status=0
        said=$(bash "$0" "$place/output" "$place/known" 2>&1) || status=$?
        if [ "$status" -ne "$1" ]; then
            echo "the search is broken: $2: exit code $status, not $1" >&2
            exit 1
        fi
    }
    expect 2 "no output"
    printf 'rg1_short eyJ.eyJ.x\nBEGIN PUBLIC KEY\ncorrect horse\n' >"$place/output/harmless.log"
    expect 0 "harmless output"
    while IFS='|' read -r kind secret; do
        printf 'first\n\0second "%s" more\n' "$secret" >"$place/output/leak.log"
        expect 1 "$kind"
        case $said in
            *"$secret"*) echo "the search is broken: it prints what it found: $kind" >&2; exit 1 ;;
            *"output/leak.log:2: $kind"*) ;;
            *) echo "the search is broken: it does not say where: $kind" >&2; exit 1 ;;
        esac
    done <<PLANTED
a refresh token|rg1_$filler
a JWT|eyJ$filler.eyJ$filler.$filler
a private key|-----BEGIN PRIVATE KEY-----
a private key|-----BEGIN EC PRIVATE KEY-----
a token, as bytes|[101, 121, 74, 1]
a secret of the tests|correct horse battery staple
PLANTED
    rm "$place/output/leak.log" "$place/known/one"
    expect 2 "no known secret"
    echo "each kind of secret is found where it is planted"
}

case ${1:-} in
    --self-test) self_test ;;
    *) check "${1:?the folder of what was printed}" "${2:?the folder of known secrets}" ;;
esac
