"""Texts in a stranger's .pt2 file: sizes, names, paths and trees, petra's own and refused ones."""

from __future__ import annotations

import json

import pytest

from petra.runtimes.torch_expressions import expression
from petra.runtimes.torch_text import identifier, input_tree, output_tree, weight_path

S0 = "Symbol('s0', positive=True, integer=True)"
HONEST_SIZES = f"""
{S0}
Integer(5)
Mul(Integer(49), {S0})
Add({S0}, Integer(-3))
FloorDiv({S0}, Integer(2))
Mod(Add({S0}, Integer(1)), {S0})
Max(Integer(0), Min({S0}, Symbol('u3', integer=True)))
Mul(Rational(1, 2), {S0})
Pow({S0}, Integer(2))
StrictLessThan({S0}, Integer(9))
Float('0.5', precision=53)
int_oo
"""
OTHER_SIZES = f"""
__import__('os')
2**9
s0
Symbol('s0')()
Symbol('s0').free_symbols
Symbol('x')
Symbol('s0', real=1)
Symbol('s0', 's1')
Symbol()
Symbol(*['s0'])
Symbol('s0'
Symbol('s99999999999')
Symbol('u99999')
Integer('9')
Integer({2**65})
Integer(True)
Integer()
Integer(1), Integer(2)
Integer(1) if true else Integer(2)
Add()
Add(1, 2)
Add(Integer(1), evaluate=False)
Lambda(Integer(1))
Float('1e99999', precision=53)
Float('0.5', precision=10**9)
Pow(Integer(2), Integer(17))
Pow(Integer(2), {S0})
Pow(Integer(2))
[Integer(1) for x in y]
lambda: Integer(1)
(x := Integer(1))
f'{{Integer(1)}}'
"""
LARGE_SIZES = [
    "Pow(" * 8 + "Integer(3)" + ", Integer(16))" * 8,
    "Mul(" * 50 + S0 + ")" * 50,
    "-" * 3000 + "1",
    "(" * 3999,
]


@pytest.mark.parametrize("text", HONEST_SIZES.strip().splitlines())
def test_sizes_that_programs_have(text: str) -> None:
    assert expression(text) == text


@pytest.mark.parametrize("text", [*OTHER_SIZES.strip().splitlines(), *LARGE_SIZES, "", "\x00"])
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expression"):
        expression(text)


@pytest.mark.parametrize("name", ["x", "p_linear_weight", "gr\u00f6\u00dfe", "input", "x" * 1000])
def test_names_of_values(name: str) -> None:
    assert identifier(name) == name


WIDE_TORCH = "\N{FULLWIDTH LATIN SMALL LETTER T}orch"  # which Python reads as `torch`
OTHER_NAMES = ["", "1x", "a.b", "a b", "a=1", "a:b", "a#", "a\n", "a\x00", "a\u2028b", "a\u202e"]


@pytest.mark.parametrize("name", [*OTHER_NAMES, "lambda", "self", "torch", WIDE_TORCH, "x" * 1001])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="suspicious name"):
        identifier(name)


@pytest.mark.parametrize("path", ["linear.weight", "0.conv-1.original0", "my layer.w@1", "a__b"])
def test_paths_of_weights(path: str) -> None:
    assert weight_path(path) == path


@pytest.mark.parametrize(
    "path", ["", ".", "a.", "a..b", "__class__.x", "a.__dict__", 'a"', "a'", "a\\", "a\n", "a/b"]
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="suspicious name"):
        weight_path(path)


def test_comments_and_odd_spelling_do_not_reach_torch() -> None:
    assert expression("Integer(  1_0  ) # x") == "Integer(10)"
    assert expression("Symbol('s' '0')") == "Symbol('s0')"


LEAF = {"type": None, "context": None, "children_spec": []}


def tree(kind: str, context: object, *children: object) -> dict[str, object]:
    return {"type": kind, "context": json.dumps(context), "children_spec": list(children)}


def test_trees_of_inputs_and_outputs() -> None:
    args = tree(
        "builtins.tuple",
        None,
        tree("builtins.tuple", None, LEAF),
        tree("builtins.dict", ["x"], LEAF),
    )
    assert json.loads(input_tree(json.dumps([1, args]))) == [1, args]
    found = tree("builtins.dict", ["a.b", 3], LEAF, tree("builtins.list", None, LEAF, LEAF))
    assert json.loads(output_tree(json.dumps([1, found]))) == [1, found]


OTHER_TREES = [
    None,
    1,
    [],
    [2, LEAF],
    [1, LEAF, LEAF],
    [1, {}],
    [1, {"type": None}],
    [1, LEAF | {"more": 1}],
    [1, [LEAF]],
    [1, tree("collections.namedtuple", "x", LEAF)],
    [1, tree("torch.Size", None)],
    [1, tree("builtins.tuple", ["x"])],
    [1, tree("builtins.dict", ["a", "b"], LEAF)],
    [1, tree("builtins.dict", [None], LEAF)],
    [1, tree("builtins.dict", ["../x"], LEAF)],
    [1, tree("builtins.dict", [{"__enum__": True}], LEAF)],
]


@pytest.mark.parametrize("value", OTHER_TREES)
def test_other_trees_are_refused(value: object) -> None:
    for check in (input_tree, output_tree):
        with pytest.raises(ValueError, match=r"tree|name|inputs or outputs"):
            check(json.dumps(value))


def test_deep_trees_are_refused() -> None:
    deep = json.dumps(LEAF)
    for _ in range(2000):
        deep = '{"type": "builtins.list", "context": "null", "children_spec": [' + deep + "]}"
    with pytest.raises(ValueError, match=r"tree|deep"):
        output_tree(f"[1, {deep}]")
