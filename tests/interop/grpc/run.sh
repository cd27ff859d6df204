#!/usr/bin/env bash
# Drives a gate with a real gRPC client: run.sh python|node, or run.sh python SCRIPT. `run.sh install` installs both. The client is installed, as it is pinned here, into
# target/interop-cache the first time. tests/interop/grpc.rs passes the gate's address and the user in the environment.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
cache=${CARGO_TARGET_DIR:-$root/target}/interop-cache
mkdir -p "$cache"

missing() {
    echo "tests/interop/grpc/run.sh: $1 is missing: $2" >&2
    exit 1
}

# Calls $3 to fill the folder $1, whose contents depend on the file $2 only. Concurrent runs fill it once.
install() {
    local sum
    sum=$(sha256sum "$2" | cut -c1-16)
    folder=$cache/$1-$sum
    (
        flock 9
        if [ ! -e "$folder/.complete" ]; then
            rm -rf "$folder"
            mkdir -p "$folder"
            "$3" >&2
            touch "$folder/.complete"
        fi
    ) 9>"$cache/$1.lock"
}

install_python() {
    python3 -m venv "$folder" || missing "python3 -m venv" "apt install python3-venv"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        -r "$here/requirements.txt"
}

install_node() {
    cp "$here/package.json" "$here/package-lock.json" "$folder/"
    (cd "$folder" && npm ci --silent --no-audit --no-fund --ignore-scripts)
}

for_python() {
    command -v python3 >/dev/null || missing python3 "apt install python3 python3-venv"
    install grpc-python "$here/requirements.txt" install_python
}

for_node() {
    command -v node >/dev/null || missing node "https://nodejs.org, version 20 or later"
    command -v npm >/dev/null || missing npm "it comes with node"
    install grpc-node "$here/package-lock.json" install_node
}

case ${1:-} in
    install)
        for_python
        for_node
        ;;
    python)
        for_python
        exec "$folder/bin/python" "${2:-$here/client.py}"
        ;;
    node)
        for_node
        NODE_PATH=$folder/node_modules exec node "$here/client.js" "$root/proto"
        ;;
    *)
        echo "usage: run.sh python [SCRIPT] | run.sh node | run.sh install" >&2
        exit 2
        ;;
esac
