#!/usr/bin/env bash
# Installs mdBook: its program as PyPI has it, because cargo would build it for minutes.
set -euo pipefail
source "$(dirname "$0")/../installed.sh"
needs_python
begin_install requirements.txt
install_python "$cache"
end_install
