"""Small faults in a module, made in its syntax tree, one at a time."""

import ast
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitAnd,
}
ANNOTATIONS = ("annotation", "returns", "decorator_list", "type_params", "bases")


Path = tuple[tuple[str, int | None], ...]  # fields, and places in those that are lists


@dataclass(frozen=True)
class Mutant:
    """A fault of a module.

    Attributes:
        line: where, counted from 1.
        keyword: `name=` where the code is the value of an argument, else empty.
        was: the code that is replaced, as `ast.unparse` writes it.
        now: what stands there instead.
        path: the way to it in the syntax tree.
        replacement: what is to be there.
    """

    line: int
    keyword: str
    was: str
    now: str
    path: Path
    replacement: ast.AST

    def applied(self, source: str) -> str:
        """Return the module, whose source is given, with this fault."""
        tree = ast.parse(source)
        put(tree, self.path, self.replacement)
        return ast.unparse(ast.fix_missing_locations(tree)) + "\n"

    def __str__(self) -> str:
        """Return what was changed where, in a line."""
        was, now = (" ".join(text.split()) for text in (self.was, self.now))
        return f"{self.line}: {self.keyword}{was} -> {now}"


def mutants_of(source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of its lines.

    What is never run as such has none: annotations, docstrings, decorators, texts of errors.
    """
    mutants = [
        Mutant(
            getattr(node, "lineno", 0), keyword, ast.unparse(node), ast.unparse(fault), path, fault
        )
        for path, node, keyword in reachable(ast.parse(source), ())
        for fault in faults(node)
    ]
    return sorted(mutants, key=lambda mutant: mutant.line)


def reachable(node: ast.AST, path: Path) -> Iterator[tuple[Path, ast.AST, str]]:
    """Yield the nodes below one that can be mutated, the ways to them, and arguments' names."""
    keyword = f"{node.arg}=" if isinstance(node, ast.keyword) and node.arg else ""
    for field, value in ast.iter_fields(node):
        if field in ANNOTATIONS:
            continue
        for place, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            way = (*path, (field, place))
            if not isinstance(child, ast.AST) or is_for_readers(child):
                continue
            yield way, child, keyword
            if not isinstance(child, ast.Raise | ast.JoinedStr | ast.ImportFrom | ast.Import):
                yield from reachable(child, way)


def is_for_readers(node: ast.AST) -> bool:
    """Tell whether a statement is a docstring, or for who checks types."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
            return True
    return False


def put(tree: ast.AST, path: Path, replacement: ast.AST) -> None:
    """Replace the node at the end of the way."""
    node = tree
    for field, place in path[:-1]:
        value = getattr(node, field)
        node = value if place is None else value[place]
    field, place = path[-1]
    if place is None:
        setattr(node, field, replacement)
    else:
        getattr(node, field)[place] = replacement


def faults(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what could stand in the place of a node by mistake."""
    if isinstance(node, ast.expr):
        yield from faults_of_expression(node)
    elif isinstance(node, ast.Raise | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.If | ast.While):
        yield changed(node, test=negated(node.test))
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.comprehension):
        yield from (changed(node, ifs=without(node.ifs, place)) for place in range(len(node.ifs)))


def faults_of_expression(node: ast.expr) -> Iterator[ast.AST]:
    """Yield what could stand in the place of an expression."""
    match node:
        case ast.Compare(ops=[operator]):
            yield from (changed(node, ops=[other()]) for other in COMPARISONS[type(operator)])
        case ast.BoolOp(op=operator):
            yield changed(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.BinOp(op=operator) if type(operator) in OPERATORS:
            yield changed(node, op=OPERATORS[type(operator)]())
        case ast.IfExp():
            yield changed(node, test=negated(node.test))
        case ast.Constant() | ast.JoinedStr():
            yield from faults_of_constant(node)
        case ast.Slice():
            yield from (changed(node, lower=None) for _ in [node.lower] if node.lower)
            yield from (changed(node, upper=None) for _ in [node.upper] if node.upper)
        case ast.Call(keywords=keywords):
            named = [place for place, keyword in enumerate(keywords) if keyword.arg]
            yield from (changed(node, keywords=without(keywords, place)) for place in named)


def faults_of_constant(node: ast.Constant | ast.JoinedStr) -> Iterator[ast.AST]:
    """Yield another value: true for false, the next number, no text."""
    value = node.value if isinstance(node, ast.Constant) else "text"
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
    elif isinstance(value, str) and value:
        yield ast.Constant("")


def negated(test: ast.expr) -> ast.expr:
    """Return a condition that holds when another does not."""
    return ast.UnaryOp(ast.Not(), test)


def without(values: Sequence[ast.AST], place: int) -> list[ast.AST]:
    """Return a list without one of its values."""
    return [*values[:place], *values[place + 1 :]]


def changed(node: ast.AST, **fields: object) -> ast.AST:
    """Return a copy of a node with other values in some fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new
