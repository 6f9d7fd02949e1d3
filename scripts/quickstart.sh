#!/usr/bin/env bash
# Sets up ComfyUI if need be, runs a DisCa workflow on it and says where the result lies.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
set_up
exec "$PYTHON" "$DISCA_ROOT/scripts/quickstart.py" "$DISCA_CACHE/quickstart"
