"""The shape expressions of a ``.pt2`` program, which SymPy evaluates as Python: a grammar for them.

Only what `sympy.srepr` writes of sizes is read, and only what was read is handed on.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence

from petra.runtimes.torch_text import shown, symbol

_SUMS, _PRODUCTS = frozenset({"Add"}), frozenset({"Mul"})
_POWERS = frozenset({"Pow", "PowByNatural"})
_FUNCTIONS = frozenset(
    {
        "Max",
        "Min",
        "Mod",
        "PythonMod",
        "FloorDiv",
        "CeilDiv",
        "CleanDiv",
        "ModularIndexing",
        "Identity",
        "Where",
    }
    | {
        "IntTrueDiv",
        "FloatTrueDiv",
        "ToFloat",
        "TruncToInt",
        "TruncToFloat",
        "FloorToInt",
        "CeilToInt",
        "RoundToInt",
    }
    | {"And", "Or", "Not", "Eq", "Ne", "Le", "Lt", "Ge", "Gt", "Equality", "Unequality"}
    | {"LessThan", "GreaterThan", "StrictLessThan", "StrictGreaterThan"}
)
_ASSUMPTIONS = frozenset({"positive", "nonnegative", "integer", "real", "finite"})
_CONSTANTS = frozenset({"true", "false", "int_oo"})
_FLOAT = re.compile(r"-?\d{1,40}(\.\d{1,40})?(e[+-]?\d{1,3})?")
MAX_EXPRESSION = 4000
MAX_BITS = 4096
MAX_TERMS = 256
MAX_DEPTH = 40
MAX_POWER = 16

Weight = tuple[int, int]  # bits that a value may have, and its terms when it is multiplied out


@functools.lru_cache(4096)
def expression(text: str) -> str:
    """A size as `sympy.srepr` writes it, written anew from what was read.

    For example ``Mul(Integer(49), Symbol('s0', integer=True))``. Bounded, since SymPy works out
    what it is given: values of 4,096 bits, 256 terms when multiplied out.
    """
    if len(text) > MAX_EXPRESSION:
        raise ValueError(f"a shape expression of {len(text)} characters, above {MAX_EXPRESSION}")
    try:
        body = ast.parse(text, mode="eval").body
        _weigh(body, MAX_DEPTH)
        return ast.unparse(body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = f" ({error})" if type(error) is ValueError else ""
        raise ValueError(f"suspicious shape expression {shown(text)}{why}") from None


def _weigh(node: ast.expr, depth: int) -> Weight:
    """Raises ValueError for what is no size, or could be too large a one."""
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return 1, 1
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not depth:
        raise ValueError("not a size")
    name, args = node.func.id, node.args
    if name == "Symbol":
        return _weigh_symbol(node)
    if name == "Float":
        return _weigh_float(node)
    if node.keywords:
        raise ValueError("named arguments")
    if name in ("Integer", "Rational"):
        return max(abs(number).bit_length() for number in map(_integer, args)), 1
    if name in _POWERS:
        bits, terms = _power(args, depth)
    else:
        bits, terms = _combined(name, [_weigh(arg, depth - 1) for arg in args])
    if bits > MAX_BITS or terms > MAX_TERMS:
        raise ValueError("too large")
    return bits, terms


def _combined(name: str, weights: Sequence[Weight]) -> Weight:
    if not 1 <= len(weights) <= MAX_TERMS:
        raise ValueError("too many arguments, or none")
    bits = [bits for bits, _ in weights]
    if name in _SUMS:
        return max(bits) + len(bits), sum(terms for _, terms in weights)
    if name in _PRODUCTS:
        product = 1
        for _, terms in weights:
            product = min(product * terms, MAX_TERMS + 1)
        return sum(bits), product
    if name in _FUNCTIONS:
        return sum(bits), 1
    raise ValueError(f"no function {shown(name)}")


def _power(args: Sequence[ast.expr], depth: int) -> Weight:
    match args:
        case [
            base,
            ast.Call(func=ast.Name(id="Integer" | "Rational"), args=[_, *_] as power, keywords=[]),
        ]:
            numbers = [abs(_integer(number)) for number in power]
            bits, terms = _weigh(base, depth - 1)
            if max(numbers) <= MAX_POWER:
                return bits * numbers[0], min(terms ** numbers[0], MAX_TERMS + 1)
    raise ValueError(f"a power that is no number up to {MAX_POWER}")


def _weigh_symbol(node: ast.Call) -> Weight:
    match node.args:
        case [ast.Constant(value=str(name))]:
            symbol(name)
        case _:
            raise ValueError("a symbol without a name")
    for assumption in node.keywords:
        match assumption:
            case ast.keyword(arg=str(name), value=ast.Constant(value=bool())) if (
                name in _ASSUMPTIONS
            ):
                pass
            case _:
                raise ValueError("an assumption that sizes do not have")
    return 64, 1


def _weigh_float(node: ast.Call) -> Weight:
    match node:
        case ast.Call(
            args=[ast.Constant(value=str(text))],
            keywords=[ast.keyword(arg="precision" | "dps", value=ast.Constant(value=int(digits)))],
        ) if _FLOAT.fullmatch(text) and 1 <= digits <= 64:
            return 1024, 1
    raise ValueError("not a number")


def _integer(node: ast.expr) -> int:
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1, node.operand
    value = node.value if isinstance(node, ast.Constant) else None
    if type(value) is not int or value.bit_length() > 64:
        raise ValueError("not an integer of 64 bits")
    return sign * value
