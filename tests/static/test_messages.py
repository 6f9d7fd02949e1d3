"""Text from outside (widgets, file names, keys, captions) stands in messages only as `quoted` or `cause` give it.

A message is an f-string with a space in it, or what is raised or logged. What stands in it must be a number (it has a
format that only numbers take), quoted, or a text of ours: made of constants and of such parts. Where a text of ours is
handed through functions, calls and returns are followed by name. A log cannot encode every text, and ComfyUI's prompt
thread ends on one that it cannot.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
QUOTING = {"quoted", "cause", "listing"}
NUMBERS = {"len", "sum", "count", "total"}  # functions that give whole numbers
SAME = {"zip", "enumerate", "sorted", "reversed", "max", "min", "list", "tuple"}  # give what they are given
LOGGING = {"debug", "info", "warning", "error", "exception", "critical"}
OURS = {  # what is ours by other ways: kept in an object that only our constants go into, or printed by a command line
    ("disca/report.py", "reason"),
    ("disca/report.py", "kind"),
    ("disca/report.py", "warning"),
    ("disca/report.py", "self.word"),
    ("disca/host/running/observation/finite.py", "spoiled.place"),
    ("disca/host/running/observation/finite.py", "where"),
    ("disca/host/running/outer.py", "warning"),
    ("disca/training/data/account.py", "start"),
    ("disca/training/build.py", "line"),
    ("disca/training/build.py", "account.faults()"),
    ("disca/training/data/folder.py", "account.faults()"),
    ("disca/training/data/account.py", "detail"),
    ("disca/training/data/account.py", "kind"),
    ("disca/training/data/account.py", "name"),
    ("disca/training/data/account.py", "text"),
    ("disca/host/running/outer.py", "alarm"),
    ("disca/host/running/outer.py", "report.lines"),
    ("disca/training/records/lock.py", "self._doing"),
    ("disca/training/records/lock.py", "self._subject"),
    ("disca/training/records/lock.py", "since"),
    ("disca/training/records/curves.py", "key"),
    ("disca/training/records/curves.py", "name"),
    ("disca/training/records/tensorboard.py", "name"),
    ("disca/training/budget/memory.py", "name"),
    ("disca/training/budget/plan.py", "name"),
    ("disca/training/budget/plan.py", "parts"),
    ("disca/training/budget/plan.py", "savings"),
    ("disca/training/budget/plan.py", "settings.algorithm"),
    ("disca/evaluation/videos/ffmpeg.py", "name"),
    ("disca/evaluation/videos/metrics.py", "self.name"),
    ("disca/evaluation/videos/metrics.py", "self.reason"),
    ("disca/evaluation/videos/tiles.py", "word"),  # drawn
    ("disca/evaluation/side_by_side/chart.py", "name[:LETTERS - 4]"),  # drawn
    ("disca/evaluation/side_by_side/compare.py", "caption(row)"),  # an Entry's text is fit for messages
    ("disca/evaluation/side_by_side/compare.py", "lines[-1]"),
    ("disca/evaluation/side_by_side/rows.py", "reason"),
    ("disca/evaluation/side_by_side/table.py", "' | '.join(cells)"),
    ("disca/evaluation/side_by_side/table.py", "error_of(row)"),
    ("disca/evaluation/side_by_side/table.py", "name"),
    ("disca/evaluation/side_by_side/table.py", "note"),
    ("disca/evaluation/side_by_side/table.py", "row.problem"),
    ("disca/evaluation/side_by_side/table.py", "row.text"),
    ("disca/evaluation/costs/cost_table.py", "name"),
    ("disca/evaluation/costs/cost_table.py", "row.name"),
    ("disca/evaluation/costs/cost_table.py", "said"),
    ("disca/evaluation/costs/cost_table.py", "title"),
    ("disca/evaluation/__main__.py", "error"),
    ("disca/evaluation/study/page.py", "_data('image/png', out.getvalue())"),  # a page: escaped for it
    ("disca/evaluation/study/page.py", "case.prompt"),
    ("disca/evaluation/study/page.py", "record.row.problem"),
    ("disca/evaluation/study/page.py", "note"),
    ("disca/evaluation/study/page.py", "escape(shown[0].case.prompt)"),
    ("disca/evaluation/study/page.py", "escape(caption(record.row))"),
    ("disca/evaluation/study/page.py", "source"),
    ("disca/evaluation/study/page.py", "model"),
    ("disca/training/__main__.py", "error"),
    ("disca/calibrate/__main__.py", "error"),
    ("disca/calibrate/__main__.py", "line"),
    ("disca/training/build.py", "error"),
    ("disca/training/engine/feed.py", "named(index)"),
    ("disca/training/engine/reporter.py", "name"),
    ("disca/training/engine/reporter.py", "listed"),
}

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Code:
    """The shipped modules, and which expressions in them are texts of ours."""

    def __init__(self, sources: dict[str, str]):
        self.where, self.parent, self.functions, self.calls = {}, {}, defaultdict(list), defaultdict(list)
        self.trees = {name: ast.parse(source) for name, source in sources.items()}
        self._asked = set()
        for name, tree in self.trees.items():
            for node in ast.walk(tree):
                self.where[node] = name
                self.parent.update(dict.fromkeys(ast.iter_child_nodes(node), node))
                if isinstance(node, ast.FunctionDef):
                    self.functions[node.name].append(node)
                if isinstance(node, ast.Call):
                    self.calls[_name(node.func)].append(node)

    def faults(self) -> list[str]:
        """Where a message holds a text from outside as it came."""
        told = []
        for name, tree in self.trees.items():
            for node in ast.walk(tree):
                if wrong := [part for part in _parts(node) if not self.ours(part)]:
                    told += [f"{name}:{part.lineno}: {ast.unparse(part)}" for part in wrong]
        return sorted(set(told))

    def ours(self, node: ast.expr) -> bool:
        """Whether it is a number, a quoted text, or a text of ours."""
        if (self.where[node], ast.unparse(node)) in OURS or node in self._asked:
            return True  # asked again on the way round a loop: the other ways in decide
        self._asked.add(node)
        try:
            judge = getattr(self, "_" + type(node).__name__.lower(), None)
            return judge is not None and judge(node)
        finally:
            self._asked.discard(node)

    def _constant(self, node: ast.Constant) -> bool:
        return True

    def _joinedstr(self, node: ast.JoinedStr) -> bool:
        return all(_is_number(part) or self.ours(part.value) for part in _placeholders(node))

    def _ifexp(self, node: ast.IfExp) -> bool:
        return self.ours(node.body) and self.ours(node.orelse)

    def _boolop(self, node: ast.BoolOp) -> bool:
        return all(map(self.ours, node.values))

    def _binop(self, node: ast.BinOp) -> bool:
        if isinstance(node.op, ast.Sub | ast.FloorDiv | ast.Pow):
            return True  # no text has those
        return not isinstance(node.op, ast.Div) and self.ours(node.left) and self.ours(node.right)

    def _unaryop(self, node: ast.UnaryOp) -> bool:
        return True

    def _list(self, node: ast.List) -> bool:
        return all(map(self.ours, node.elts))

    _tuple = _list

    def _dict(self, node: ast.Dict) -> bool:
        return all(map(self.ours, [*filter(None, node.keys), *node.values]))

    def _starred(self, node: ast.Starred) -> bool:
        return self.ours(node.value)

    def _listcomp(self, node: ast.ListComp) -> bool:
        return self.ours(node.elt)

    _generatorexp = _listcomp

    def _attribute(self, node: ast.Attribute) -> bool:
        if properties := [one for one in self.functions[node.attr] if _is_property(one)]:
            return self._returned(properties)
        return node.attr.isupper() or node.attr == "__name__" or getattr(node.value, "id", "").isupper()

    def _subscript(self, node: ast.Subscript) -> bool:
        return self.ours(node.value)

    def _name(self, node: ast.Name) -> bool:
        if node.id.isupper() or node.id in ("__version__", "__name__"):
            return True
        scope = self._scope(node)
        bound = list(_bindings(scope, node.id))
        if any(value is None for value in bound):
            return False
        if isinstance(scope, Function) and node.id in _parameters(scope):
            return self._handed(scope, node.id) and all(map(self.ours, bound))
        return bool(bound) and all(map(self.ours, bound))

    def _call(self, node: ast.Call) -> bool:
        name = _name(node.func)
        if name in QUOTING or name in NUMBERS:
            return True
        if name in SAME:
            return all(map(self.ours, node.args))
        if made := [one for one in self.functions[name] if not _is_property(one)]:
            return self._returned(made)
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        taken = node.args[1:] if name == "get" else node.args  # of a table of ours: anything but what is given instead
        plain = receiver is not None and self.ours(receiver) and all(map(self.ours, taken))
        exception = isinstance(node.func, ast.Name) and name.endswith("Error")
        return plain or (exception and all(map(self.ours, node.args)))

    def _returned(self, functions: list[ast.FunctionDef]) -> bool:
        """Whether all that the functions return is ours."""
        values = [node.value for one in functions for node in ast.walk(one) if isinstance(node, ast.Return)]
        return bool(values) and all(value is not None and self.ours(value) for value in values)

    def _scope(self, node: ast.AST) -> ast.AST:
        while not isinstance(node, Function | ast.Module):
            node = self.parent[node]
        return node

    def _handed(self, function: Function, parameter: str) -> bool:
        """Whether every call of the function hands it a text of ours for this parameter."""
        names = [name for name in _parameters(function) if name not in ("self", "cls")]
        calls = self.calls[getattr(function, "name", "")]
        given = [
            argument
            for call in calls
            for place, argument in [*zip(names, call.args, strict=False), *((k.arg, k.value) for k in call.keywords)]
            if place == parameter
        ]
        return bool(given) and all(map(self.ours, given))


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _is_property(function: ast.FunctionDef) -> bool:
    return "property" in map(_name, function.decorator_list)


def _placeholders(node: ast.JoinedStr) -> list[ast.FormattedValue]:
    return [part for part in node.values if isinstance(part, ast.FormattedValue)]


def _is_number(part: ast.FormattedValue) -> bool:
    """Whether it has a format that raises for a text."""
    spec = ast.unparse(part.format_spec)[2:-1] if part.format_spec else ""
    return spec[-1:] in tuple("dgfe%,")


def _parts(node: ast.AST) -> list[ast.expr]:
    """What must be ours in a message; nothing for what is none."""
    if isinstance(node, ast.JoinedStr):
        return [part.value for part in _placeholders(node) if not _is_number(part)] if _is_sentence(node) else []
    said = []
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        made = _name(node.exc.func)
        said = node.exc.args if made[:1].isupper() else [node.exc]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOGGING:
        said = node.args if _name(node.func.value) in ("logger", "log", "logging") else []
    return [part for part in said if not (isinstance(part, ast.JoinedStr) and _is_sentence(part))]


def _is_sentence(node: ast.JoinedStr) -> bool:
    return any(" " in part.value for part in node.values if isinstance(part, ast.Constant))


def _parameters(function: Function) -> list[str]:
    arguments = function.args
    return [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def _bindings(scope: ast.AST, name: str):
    """What the name is bound to in the scope; None where that cannot be said."""
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
            for target in getattr(node, "targets", None) or [node.target]:
                yield from _bound(target, node.value, name)
        elif isinstance(node, ast.For | ast.comprehension):
            yield from _bound(node.target, node.iter, name)
        elif isinstance(node, ast.ExceptHandler) and node.name == name:
            yield None


def _bound(target: ast.expr, value: ast.expr | None, name: str):
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif isinstance(target, ast.Tuple):
        rows = value.elts if isinstance(value, ast.Tuple) else []
        if len(rows) == len(target.elts) and not all(isinstance(row, ast.Tuple) for row in rows):
            rows = [value]  # a, b = c, d; else a loop over pairs
        split = rows and all(isinstance(row, ast.Tuple) and len(row.elts) == len(target.elts) for row in rows)
        for place, one in enumerate(target.elts):
            for part in [row.elts[place] for row in rows] if split else [value]:
                yield from _bound(one, part, name)


def shipped() -> dict[str, str]:
    paths = [PACK / "__init__.py", *(PACK / "nodes").rglob("*.py"), *(PACK / "disca").rglob("*.py")]
    return {path.relative_to(PACK).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_no_message_holds_a_text_from_outside_as_it_came():
    faults = Code(shipped()).faults()
    assert not faults, "quote these with disca.messages, or give numbers a format:\n" + "\n".join(faults)


@pytest.mark.parametrize(
    "line",
    [
        "raise ValueError(f'there is no {name}')",
        "raise ValueError(name)",
        "raise ValueError('there is no ' + name)",
        "raise ValueError(f'{name!s:>8} is missing')",
        "raise ValueError(str(error))",
        "logger.warning('no %s', name)",
        "logger.warning(f'{name}')",
        "return f'there is no {path.name}'",
        "return f'it is in {path / \"export\"}'",
        "told = f'no {name}' if name else ''",
        "told = name\n    raise ValueError(f'no {told}')",
        "raise ValueError(f'no {other(name)}')",
        "raise ValueError(f'no {[name]}')",
        "for key in name:\n        raise ValueError(f'no {key}')",
    ],
)
def test_a_text_from_outside_in_a_message_is_found(line):
    code = f"def other(text):\n    return text\ndef function(name, path, error):\n    {line}\nfunction(read(), p, e)\n"
    assert Code({"module.py": code}).faults()


@pytest.mark.parametrize(
    "line",
    [
        "raise ValueError(f'there is no {quoted(name)} in {len(name)}')",
        "raise ValueError(f'{number:d} of {number:,} or {number:.3g}')",
        "told = 'one' if name else f'{number:d} more'\n    raise ValueError(f'there is {told}')",
        "raise ValueError(f'no {WORD}, {WORDS[name]}')",
        "logger.info('DisCa: %s', quoted(name))",
        "return f'{name}.weight'",
        "raise ValueError(f'this is no {mine}')",
    ],
)
def test_a_quoted_text_a_number_and_a_text_of_ours_are_let_through(line):
    code = f"def function(name, number, mine):\n    {line}\nfunction(read(), 1, 'word')\n"
    assert Code({"module.py": code}).faults() == []
