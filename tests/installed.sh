# What the scripts share that install the programs of tests, in the versions that stand beside each script, into the folder
# given: `source` it first. Nothing is done when they are there, and tests that begin at the same time wait for each other.
here=$(cd "$(dirname "$0")" && pwd)
cache=$1
shared=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/installed.sh

missing() {
    echo "$here/$(basename "$0"): $1 is missing: $2" >&2
    exit 1
}

needs_node() {
    command -v node >/dev/null && command -v npm >/dev/null || missing "node or npm" "install Node.js 20 or newer"
}

needs_python() {
    command -v python3 >/dev/null || missing python3 "install Python 3.9 or newer"
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing "venv for python3" "apt install python3-venv"
}

# Ends the script if these files, and the scripts, are those that it installed last. Empties the folder otherwise.
begin_install() {
    mkdir -p "$cache"
    exec 9>"$cache.lock"
    flock 9
    wanted=$(cd "$here" && cat "$@" install.sh "$shared" | cksum)
    [ "$(cat "$cache/installed" 2>/dev/null)" != "$wanted" ] || exit 0
    rm -rf "$cache"
    mkdir -p "$cache"
}

# The arguments are further ones of npm.
install_node() {
    cp "$here/package.json" "$here/package-lock.json" "$cache"
    (cd "$cache" && npm ci --silent --no-audit --no-fund "$@" >&2)
}

# Into a virtual environment in this folder. The second argument is another file of requirements.
install_python() {
    python3 -m venv "$1" >&2
    "$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/${2:-requirements.txt}" >&2
}

end_install() {
    echo "$wanted" >"$cache/installed"
}
