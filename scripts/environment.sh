# Sourced by the other scripts. Gives a ComfyUI tree and a Python that runs it:
#   COMFYUI_PATH    the tree: yours if set, else the pinned one in the cache
#   PYTHON          COMFYUI_PYTHON if set, else the tree's own .venv or venv, else one made in the cache
#   TOOLS           folder with the programs comfy, ruff and uv
# The cache is DISCA_CACHE, by default ~/.cache/comfyui-disca. What is there is reused; what is missing is built.

DISCA_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
DISCA_CACHE="${DISCA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/comfyui-disca}"
source "$DISCA_ROOT/scripts/pins.sh"

export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}" # certificates of a proxy stand in the system's store

say() { printf '[disca] %s\n' "$*" >&2; }
hash_of() { printf '%s\n' "$@" | cksum | cut -d' ' -f1; }

# build FOLDER COMMAND...: runs the command once; the mark says that it came to its end.
build() {
    local folder="$1" started=$SECONDS
    shift
    [ -e "$folder/.complete" ] && return
    say "building $(basename "$folder")"
    rm -rf "$folder"
    mkdir -p "$folder"
    "$@" "$folder" >"$folder.log" 2>&1 || { tail -n 20 "$folder.log" >&2; say "building failed; the log is $folder.log"; exit 1; }
    touch "$folder/.complete"
    say "built in $((SECONDS - started)) s"
}

build_tools() {
    python3 -m venv "$1" || { echo "Python's venv module is needed (on Debian: apt-get install python3-venv)."; return 1; }
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${TOOL_PINS[@]}"
}

build_tree() {
    local download
    download="$(mktemp -d)" &&
        "$TOOLS/python" -m pip download --quiet --no-deps --no-binary :all: --ignore-requires-python \
            --disable-pip-version-check --dest "$download" "$COMFYUI_SDIST" &&
        tar -xzf "$download"/*.tar.gz -C "$download" &&
        cp -R "$download"/*/vendor/ComfyUI/. "$1/" &&
        rm -rf "$download"
}

build_python() {
    "$TOOLS/uv" venv --quiet --allow-existing --python "$(command -v python3)" "$1" &&
        "$TOOLS/uv" pip install --python "$1/bin/python" "${TORCH_PINS[@]}" -r "$COMFYUI_PATH/requirements.txt"
}

build_test_packages() {
    "$TOOLS/uv" pip install --python "$PYTHON" --target "$1" "${TEST_PINS[@]}" &&
        "$TOOLS/uv" pip install --python "$PYTHON" --target "$1" --no-deps "${LOOSE_PINS[@]}"
}

runs_comfyui() { [ -x "$1" ] && "$1" -c 'import torch, torchvision, aiohttp, safetensors, comfy_aimdo' 2>/dev/null; }

find_python() {
    local candidate
    if [ -n "${COMFYUI_PYTHON:-}" ]; then
        PYTHON="$COMFYUI_PYTHON"
        return
    fi
    for candidate in "$COMFYUI_PATH/.venv/bin/python" "$COMFYUI_PATH/venv/bin/python"; do
        if runs_comfyui "$candidate"; then
            PYTHON="$candidate"
            return
        fi
    done
    local folder
    folder="$DISCA_CACHE/python-$(hash_of "${TORCH_PINS[@]}" "$(python3 -V)" "$(cat "$COMFYUI_PATH/requirements.txt")")"
    build "$folder" build_python
    PYTHON="$folder/bin/python"
}

set_up() {
    TOOLS="$DISCA_CACHE/tools-$(hash_of "${TOOL_PINS[@]}" "$(python3 -V)")"
    build "$TOOLS" build_tools
    TOOLS="$TOOLS/bin"
    if [ -z "${COMFYUI_PATH:-}" ]; then
        COMFYUI_PATH="$DISCA_CACHE/comfyui-$(hash_of "$COMFYUI_SDIST")"
        build "$COMFYUI_PATH" build_tree
    elif [ ! -f "$COMFYUI_PATH/main.py" ]; then
        say "COMFYUI_PATH is $COMFYUI_PATH, but there is no main.py in it. Point it at a ComfyUI folder, or unset it."
        exit 1
    fi
    find_python
    export COMFYUI_PATH PYTHON TOOLS DISCA_CACHE
}

set_up_tests() {
    set_up
    local folder
    folder="$DISCA_CACHE/tests-$(hash_of "${TEST_PINS[@]}" "${LOOSE_PINS[@]}" "$("$PYTHON" -V)")"
    build "$folder" build_test_packages
    export PYTHONPATH="$folder${PYTHONPATH:+:$PYTHONPATH}"
    find_chromium
}

# The browser tests want the system's Chromium. Installed where the system lets us, else those tests say that they were skipped.
find_chromium() {
    if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        say "installing Chromium for the browser tests"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } \
            >"$DISCA_CACHE/chromium.log" 2>&1 || say "no Chromium: browser tests are skipped ($DISCA_CACHE/chromium.log)"
    fi
    CHROMIUM="$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)"
    export CHROMIUM
}
