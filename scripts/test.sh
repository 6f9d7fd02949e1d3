#!/usr/bin/env bash
# Sets up ComfyUI and the test tools if need be, and runs every test, two files at a time, in the order of
# tests/conftest.py. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
set_up_tests
cd "$DISCA_ROOT"
together=()
[ $# != 0 ] || together=(-n 2 --dist loadfile --no-loadscope-reorder)
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # the networks are small: more threads wait for each other
exec "$PYTHON" -m pytest -p no:cacheprovider --durations=10 "${together[@]}" "$@"
