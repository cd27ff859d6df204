#!/usr/bin/env bash
# Installs what the collector of the tests needs.
set -euo pipefail
source "$(dirname "$0")/../installed.sh"
needs_python
begin_install requirements.txt
install_python "$cache"
end_install
