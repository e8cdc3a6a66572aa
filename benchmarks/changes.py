"""Small changes of the library: cosmic-ray makes them, a record keeps them, a copy runs them."""

import ast
import importlib.util
import py_compile
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import ndiff
from pathlib import Path

# Operators left out: what they make dies when a tensor meets it, which would flatter the score.
LEFT_OUT = {
    r"ReplaceBinaryOperator_(BitOr|BitAnd)_.*": "the bar of an annotation, and masks",
    r"ReplaceBinaryOperator_.*_(FloorDiv|Mod|Pow|[LR]Shift|Bit\w+)": "no product, sum or quotient",
    r"ReplaceComparisonOperator_(?!Is).*_Is(Not)?": "identity in place of equality",
    r"ReplaceComparisonOperator_Is_(?!Not).*": "equality in place of identity",
    r"ReplaceUnaryOperator_\w+_(Not|Invert)": "not and ~ in place of a minus",
}


@dataclass(frozen=True)
class Mutant:
    """One change: a module of the library, the first line that changes, and its lines."""

    module: str
    line: int
    operator: str
    was: str
    now: str
    text: str  # the whole module, changed


def positions(library: Path) -> list[tuple[str, str, int]]:
    """Module, operator and occurrence of everything that cosmic-ray changes; texts are spared."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast_from_path

    left_out = re.compile("|".join(f"core/({pattern})" for pattern in LEFT_OUT))
    names = [name for name in sorted(plugins.operator_names()) if not left_out.fullmatch(name)]
    operators = {name: plugins.get_operator(name) for name in names}
    found = []
    for path in sorted(library.glob("*.py")):
        nodes = list(ast_nodes(get_ast_from_path(path)))
        for name, operator in operators.items():
            if operator.arguments():
                continue
            owners = [node for node in nodes for _ in operator().mutation_positions(node)]
            found += [(path.stem, name, i) for i, node in enumerate(owners) if not _spared(node)]
    return found


def _spared(node) -> bool:
    """A part of an f-string, nearly always a message, or the star before keyword-only options."""
    if node.parent and node.parent.type == "parameters":
        return True
    while node := node.parent:
        if node.type == "fstring":
            return True
    return False


def mutant(library: Path, module: str, operator: str, occurrence: int) -> Mutant | None:
    """The mutant at a position; None where it is no Python, or the same program."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    source = (library / f"{module}.py").read_text(encoding="utf-8")
    text = mutate_code(source, plugins.get_operator(operator)(), occurrence)
    try:
        if ast.dump(ast.parse(text)) == ast.dump(ast.parse(source)):
            return None
    except SyntaxError:
        return None
    before, after = source.splitlines(), text.splitlines()
    changes = [c for c in ndiff(before, after) if c[2:].strip()]
    was, now = (" ".join(c[2:].strip() for c in changes if c[0] == sign) for sign in "-+")
    line = next(i for i, (a, b) in enumerate(zip(before, after, strict=False), 1) if a != b)
    return Mutant(module, line, operator.removeprefix("core/"), was, now, text)


def again(
    library: Path, module: str, line: int, operator: str, was: str, now: str
) -> Mutant | None:
    """The mutant on record in the library as it is; None unless one line is still the one it was.

    That is the line of the same number, else the only one of its module, else of the library.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(library.glob("*.py"))}
    places = [
        (path, number)
        for path, text in texts.items()
        for number, here in enumerate(text.splitlines(), 1)
        if here.strip() == was
    ]
    own = [(path, number) for path, number in places if path.stem == module]
    same = [(path, number) for path, number in own if number == line]
    found = next((some for some in (same, own, places) if len(some) == 1), None)
    if not found:
        return None
    [(path, number)] = found
    lines = texts[path].splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace(was, now)
    return Mutant(path.stem, number, operator, was, now, "".join(lines))


def copy_of(library: Path, changed: Mutant | None, folder: Path, hidden: bool = False) -> None:
    """A copy of the library with the change; if that is hidden, then in the bytecode alone.

    A page that lists a function shows the line as it was then: what is noticed is what it computes.
    """
    copy = folder / library.name
    shutil.copytree(library, copy)  # with what is compiled of the other modules
    if not changed:
        return
    path = copy / f"{changed.module}.py"
    for compiled in (copy / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()
    if not hidden:
        path.write_text(changed.text, encoding="utf-8")
        return
    draft = folder / "changed.py"
    draft.write_text(changed.text, encoding="utf-8")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH  # is run whatever the source says
    cached = importlib.util.cache_from_source(str(path))
    py_compile.compile(str(draft), cached, str(path), doraise=True, invalidation_mode=unchecked)


def body_around(path: Path, line: int) -> Iterable[int]:
    """The lines of the body of the outermost function around a line; none outside of a body."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= node.end_lineno:
            return range(node.body[0].lineno, node.end_lineno + 1)
    return range(0)


def run_by(path: Path, line: int) -> set[int]:
    """The lines of which one is run where a change matters, whatever an import runs.

    In a function these are the lines of the statement, up to the body that it may have. A
    decorator or a default matters where its function runs; what is outside of functions, where any
    does.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    bodies = [range(node.body[0].lineno, node.end_lineno + 1) for node in functions]
    for node, body in zip(functions, bodies, strict=True):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        if first <= line < body.start:
            return set(body)
        if line in body:
            return set(_statement(node, line))
    return {number for body in bodies for number in body}


def _statement(function: ast.FunctionDef, line: int) -> range:
    """The innermost statement around a line, without the statements in it."""
    inside = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    around = [node for node in inside if node.lineno <= line <= node.end_lineno]
    innermost = max(around, key=lambda node: (node.lineno, -node.end_lineno))
    within = [
        node.lineno
        for node in ast.walk(innermost)
        if isinstance(node, ast.stmt) and node is not innermost and node.lineno > line
    ]
    return range(innermost.lineno, min(within, default=innermost.end_lineno + 1))
