"""Names and functions of the package as a reader meets them: one name for one thing, and functions that fit a screen."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import rayscribe

PACKAGE = Path(rayscribe.__file__).parent
MOST_LINES, MOST_PARAMETERS = 60, 7

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def defined(module: ast.Module) -> set[str]:
    """The public names that a module defines, also under `if` and `try`; what it imports is defined elsewhere."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(module.body)
    while waiting:
        match waiting.pop():
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {
                    one.id
                    for target in targets
                    for one in ast.walk(target)
                    if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
                }
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case ast.If(body=body, orelse=other):
                waiting += body + other
            case ast.Try(body=body, orelse=other, handlers=handlers):
                waiting += body + other + [one for handler in handlers for one in handler.body]
    return {name for name in found if not name.startswith("_")}


def functions() -> Iterator[tuple[str, Function]]:
    for path, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}: {node.name}", node


def parameters(function: Function) -> list[str]:
    given = function.args
    found = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return [one.arg for one in found if one.arg not in ("self", "cls")]


def test_no_public_name_is_defined_in_two_modules() -> None:
    places = defaultdict(list)
    for path, module in modules():
        for name in defined(module):
            places[name].append(path)
    shared = {"main", "METHOD"}  # the entry of a program; the record that every method's file ends with
    twins = {name: paths for name, paths in places.items() if len(paths) > 1 and name not in shared}
    assert not twins


def test_every_function_fits_a_screen() -> None:
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions()}
    assert not {name: length for name, length in lengths.items() if length > MOST_LINES}


def test_no_function_has_more_parameters_than_a_reader_remembers() -> None:
    counts = {name: len(parameters(node)) for name, node in functions()}
    assert not {name: count for name, count in counts.items() if count > MOST_PARAMETERS}
