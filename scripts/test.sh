#!/usr/bin/env bash
# Sets up ComfyUI and the test tools if need be, and runs every test. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
set_up_tests
cd "$DISCA_ROOT"
exec "$PYTHON" -m pytest -p no:cacheprovider --durations=10 "$@"
