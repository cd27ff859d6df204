#!/usr/bin/env bash
# Installs the OAuth clients. Needs cargo as well.
set -euo pipefail
source "$(dirname "$0")/../../installed.sh"
command -v cargo >/dev/null || missing cargo "install Rust, https://rustup.rs"
needs_node
needs_python
nice cargo build --quiet --locked --manifest-path "$here/rust/Cargo.toml" --target-dir "$cache/../rust" >&2
begin_install package-lock.json requirements.txt
install_node
install_python "$cache/python"
end_install
