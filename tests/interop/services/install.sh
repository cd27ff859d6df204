#!/usr/bin/env bash
# Installs what examples/upstreams need, as their files pin it.
set -euo pipefail
source "$(dirname "$0")/../../installed.sh"
needs_node
needs_python
upstreams=$here/../../../examples/upstreams
begin_install "$upstreams/express/package-lock.json" "$upstreams/fastapi/requirements.txt"
here=$upstreams/express install_node
here=$upstreams/fastapi install_python "$cache/python"
end_install
