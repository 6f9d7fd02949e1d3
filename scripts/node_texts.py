"""What the interface shows of the nodes: writes locales/en/nodeDefs.json and tests/schemas.json from the schemas.

`$PYTHON scripts/node_texts.py`, with what `set_up_tests` in scripts/environment.sh gives. A change to either file is a
change that users see; to tests/schemas.json also one that saved workflows meet.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from comfy_server import PACK, serve

ENGLISH = PACK / "locales" / "en" / "nodeDefs.json"
CHINESE = PACK / "locales" / "zh" / "nodeDefs.json"
SCHEMAS = PACK / "tests" / "schemas.json"
PREFIX = "Disca"


def inputs_of(info: dict) -> Iterator[tuple[str, list]]:
    """Each input's id and specification, those of a dynamic combo's options among them as `combo.input`."""
    for kind in ("required", "optional"):
        for name, spec in info["input"].get(kind, {}).items():
            yield name, spec
            if spec[0] == "COMFY_DYNAMICCOMBO_V3":
                for option in spec[1]["options"]:
                    yield from ((f"{name}.{nested}", spec) for nested, spec in inputs_of({"input": option["inputs"]}))


def texts_of(info: dict) -> dict:
    """The node's entry in a nodeDefs.json, in English; the interface looks `combo.input` up as `combo_input`."""
    names = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": _input_texts(info),
        "outputs": {str(number): _text(name, tooltip) for number, (name, tooltip) in enumerate(names)},
    }


def _input_texts(info: dict) -> dict[str, dict]:
    """By key; where a key has other tooltips in other options, the interface shows the schema's and these have none."""
    tooltips: dict[str, list[str | None]] = {}
    for key, spec in inputs_of(info):
        tooltips.setdefault(key, []).append(spec[1].get("tooltip"))
    return {
        key.replace(".", "_"): _text(key.rpartition(".")[2], found[0] if len({*found}) == 1 else None)
        for key, found in tooltips.items()
    }


def schema_of(info: dict) -> dict:
    """What saved workflows rely on: inputs in their order, with types, limits and defaults, and outputs."""
    return {key: _without_texts(info[key]) for key in ("input", "output", "output_name")}


def _without_texts(value):
    if isinstance(value, list | tuple):
        return [_without_texts(item) for item in value]
    if isinstance(value, dict):
        return {
            key: ["COMBO", "files"] if key.endswith("_name") else _without_texts(item)
            for key, item in value.items()
            if key != "tooltip"
        }
    return value


def _text(name: str, tooltip: str | None) -> dict:
    return {"name": name, "tooltip": tooltip} if tooltip else {"name": name}


def main() -> None:
    """Writes both files."""
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as server:
        infos = {key: info for key, info in server.get("/object_info").items() if key.startswith(PREFIX)}
    for path, read in ((ENGLISH, texts_of), (SCHEMAS, schema_of)):
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {key: read(info) for key, info in infos.items()}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
