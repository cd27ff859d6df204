#!/usr/bin/env bash
# Installs the programs that the tests run, besides Rust. tests/all.sh calls it first; tests/fast.sh needs none of them
# but the C compiler.
#
#   bash tests/setup.sh
#
# As root on Debian or Ubuntu it names the packages that are missing or too old in one line, then installs them with apt-get, and
# cargo-nextest with cargo (five minutes on two cores). For any other user and on any other system it changes nothing, names each
# missing program in one line with the version that the tests need, and exits with 1. If nothing is missing it prints nothing.
#
# Node.js is checked and never installed: Debian 12 packages version 18, and the clients of tests/interop need 20.
set -euo pipefail
# Debian installs nginx and HAProxy into /usr/sbin, which only root has in its path.
PATH=$PATH:/usr/sbin

# The version that .config/nextest.toml requires.
nextest=0.9.143
# Device-bound sessions (tests/clients/chromium_devices.rs) need this version.
chromium=156

# program:package
programs=(
    cc:build-essential
    python3:python3-venv
    curl:curl
    jq:jq
    openssl:openssl
    xz:xz-utils
    nginx:nginx-light
    haproxy:haproxy
    go:golang-go
    java:default-jdk-headless
    jackson:libjackson2-databind-java
    ruby:ruby
    ruby-jwt:ruby-jwt
    wrk:wrk
    h2load:nghttp2-client
    nghttp:nghttp2-client
    valgrind:valgrind
    chromium:chromium
    initdb:postgresql
    pgbouncer:pgbouncer
    slapd:slapd
    ldapadd:ldap-utils
    redis-server:redis-server
    redis-cli:redis-tools
    promtool:prometheus
    prometheus:prometheus
    systemd-analyze:systemd
    systemd-socket-activate:systemd
    logrotate:logrotate
    buildah:buildah
    caddy:caddy
)

# Is the version that the program prints at least the second argument?
is_recent() {
    local version
    version=$("$1" "${@:3}" --version 2>/dev/null | grep -oEm1 '[0-9]+(\.[0-9]+)+' | head -1) || return 1
    [ "$(printf '%s\n%s\n' "$2" "$version" | sort -V | head -1)" = "$2" ]
}

is_there() {
    case $1 in
        chromium) is_recent chromium "$chromium" ;;
        cargo-nextest) is_recent cargo-nextest "$nextest" nextest ;;
        cc) command -v "${CC:-cc}" ;;
        python3) python3 -c 'import venv, ensurepip, tomllib' ;;
        node) node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' ;;
        # Java's launcher of source files needs its compiler.
        java) command -v java && command -v javac ;;
        jackson) [ -e /usr/share/java/jackson-databind.jar ] ;;
        ruby-jwt) ruby -e 'require "jwt"' ;;
        # Debian keeps each version's programs in a folder of its own.
        initdb) command -v initdb || ls /usr/lib/postgresql/*/bin/initdb ;;
        *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

install=()
for entry in "${programs[@]}"; do
    program=${entry%%:*} package=${entry#*:}
    is_there "$program" || case " ${install[*]-} " in *" $package "*) ;; *) install+=("$package") ;; esac
done
may_install=
[ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || may_install=yes
if [ ${#install[@]} -gt 0 ] && [ "$may_install" ]; then
    echo "tests/setup.sh: installing with apt-get: ${install[*]}"
    # RUNLEVEL: a service that is installed is not started.
    get=(env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq)
    # What is missing after a failure is reported below, with apt-get's own message above it.
    { "${get[@]}" update && "${get[@]}" install -y --no-install-recommends "${install[@]}"; } >/dev/null || true
    hash -r
fi
if [ "$may_install" ] && command -v cargo >/dev/null && ! is_there cargo-nextest; then
    echo "tests/setup.sh: installing with cargo: cargo-nextest $nextest"
    cargo install --quiet --locked --version "$nextest" cargo-nextest || true
    echo "tests/setup.sh: cargo-nextest took $SECONDS s"
    hash -r
fi

complete=yes
missing() {
    local found=
    ! command -v "$1" >/dev/null || found=" ($(command -v "$1") is too old or incomplete)"
    echo "tests/setup.sh: $2 is missing$found: $3" >&2
    complete=
}
for entry in "${programs[@]}"; do
    program=${entry%%:*} package=${entry#*:}
    case $program in
        cc) what="a C compiler" how="install gcc or clang (apt install $package)" ;;
        python3) what="Python 3.11 or later with venv" how="apt install $package" ;;
        chromium) what="Chromium $chromium or later" how="apt update && apt install $package" ;;
        initdb) what="PostgreSQL (server and psql)" how="apt install $package" ;;
        java) what="Java 17 or later with its compiler" how="apt install $package" ;;
        jackson) what="Jackson (/usr/share/java/jackson-databind.jar)" how="apt install $package" ;;
        *) what=$program how="apt install $package" ;;
    esac
    is_there "$program" || missing "$program" "$what" "$how"
done
is_there node || missing node "Node.js 20 or later" "https://nodejs.org"
is_there cargo-nextest || missing cargo-nextest "cargo-nextest $nextest or later" "cargo install cargo-nextest --locked --version $nextest"
is_there npm || missing npm npm "it comes with Node.js"
[ "$complete" ]
