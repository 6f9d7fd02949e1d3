"""Imports go downward only, in no circle, and ComfyUI is known to few rooms."""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
FLOORS = (  # a file imports from its own room and from lower floors
    ("nodes",),
    ("disca.server", "disca.calibrate"),
    ("disca.evaluation",),
    ("disca.host",),
    ("disca.training",),
    ("disca.toy",),
    ("disca.models",),
    ("disca.methods", "disca.weights"),
    ("disca.settings",),
    ("disca",),
)
KNOW_COMFYUI = ("nodes", "disca.host", "disca.server", "disca.models", "disca.training.network")
COMFYUI = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "latent_preview", "server")
MOST_FILES, MOST_LINES, LONGEST_FUNCTION = 16, 250, 40
FILES = [*(PACK / "disca").rglob("*.py"), *(PACK / "nodes").rglob("*.py")]


def name_of(file: Path) -> str:
    """Its module."""
    return ".".join(file.relative_to(PACK).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file): file for file in FILES}


def imports(name: str) -> Iterator[str]:
    """All that a module imports, wherever in its code."""
    file = MODULES[name]
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node in _executed(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                longer = f"{module}.{alias.name}"
                yield longer if longer in MODULES else module


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _executed(node)


GRAPH = {name: {found for found in imports(name) if found in MODULES and found != name} for name in MODULES}


def room_of(name: str) -> str:
    """The room with a floor that it lies in."""
    rooms = [room for room in chain(*FLOORS) if name == room or name.startswith(f"{room}.")]
    return max(rooms, key=len)


def floor_of(name: str) -> int:
    """0 is the top."""
    return next(i for i, rooms in enumerate(FLOORS) if room_of(name) in rooms)


def package_of(name: str) -> str:
    """The folder that a module lies in."""
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


def circles(graph: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


@pytest.mark.parametrize("name", MODULES)
def test_a_file_imports_from_its_room_and_from_below(name):
    wrong = [found for found in GRAPH[name] if room_of(found) != room_of(name) and floor_of(found) <= floor_of(name)]
    assert wrong == []


def test_files_import_in_no_circle():
    assert circles(GRAPH) is None


def test_packages_import_in_no_circle():
    packages = {}
    for name, found in GRAPH.items():
        others = {package_of(other) for other in found}
        packages.setdefault(package_of(name), set()).update(others - {package_of(name)})
    assert circles(packages) is None


@pytest.mark.parametrize("name", MODULES)
def test_few_rooms_know_comfyui(name):
    known = any(name == room or name.startswith(f"{room}.") for room in KNOW_COMFYUI)
    assert known or not [found for found in imports(name) if found.split(".")[0] in COMFYUI]


def test_no_folder_is_crowded():
    counts = Counter(file.parent for file in FILES if file.name != "__init__.py")
    assert [folder for folder, count in counts.items() if count > MOST_FILES] == []


def test_files_and_functions_are_short():
    texts = {file: file.read_text(encoding="utf-8") for file in FILES}
    assert [file for file, text in texts.items() if len(text.splitlines()) > MOST_LINES] == []
    functions = [
        (name_of(file), node.name)
        for file, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]
    assert functions == []


def names_of(name: str) -> set[str]:
    """What a module defines or imports at its top, and its package's modules."""
    found = {module.removeprefix(f"{name}.") for module in MODULES if module.startswith(f"{name}.")}
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


@pytest.mark.parametrize(
    "path", [*PACK.glob("benchmarks/*.py"), *PACK.glob("scripts/*.py")], ids=lambda path: path.name
)
def test_what_a_program_imports_of_the_pack_is_there(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "disca":
            assert node.module in MODULES, node.module
            assert {alias.name for alias in node.names} <= names_of(node.module)
