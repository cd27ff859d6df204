#!/usr/bin/env bash
# Installs Vite and playwright-core, and copies the page beside them.
set -euo pipefail
source "$(dirname "$0")/../../installed.sh"
needs_node
begin_install package-lock.json vite.config.js index.html src/main.js src/login.js src/socket.js drive.mjs
install_node
(cd "$here" && cp -r vite.config.js index.html src drive.mjs "$cache")
end_install
