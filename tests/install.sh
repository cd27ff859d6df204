#!/usr/bin/env bash
# Installs the programs of others that the tests run, in the versions that the folders of the tests pin, into target/interop-cache.
# tests/all.sh calls it while the compiler works. Without it each test installs what it needs and does not find.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${CARGO_TARGET_DIR:-target}/interop-cache
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
for script in tests/*/install.sh tests/interop/*/install.sh; do
    name=$(basename "$(dirname "$script")")
    [ "$name" != packages ] || name=gateway-api
    begin=$SECONDS
    bash "$script" "$cache/$name"
    echo "$name: $((SECONDS - begin)) s"
done
bash tests/interop/grpc/run.sh install
