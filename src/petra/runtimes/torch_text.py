"""What texts of a ``.pt2`` program may say: names, operators, trees of inputs and outputs.

PyTorch turns a program into Python source with the names of the file pasted in, looks its operators
up by dotted name and imports what its trees mention. Each function here takes one such text and
returns it, or what it means written anew, and raises ValueError for all that petra's own files do
not contain.
"""

from __future__ import annotations

import functools
import json
import keyword
import re
import unicodedata
from collections.abc import Callable
from typing import Any

# -- names -----------------------------------------------------------------------------------------

# A value of one of these names would hide what the generated source calls.
_TAKEN = frozenset({"self", "torch", "pytree", "fx_pytree"})
_PATH = re.compile(r"(?!(.*\.)?__)[\w@ +-]+(\.[\w@ +-]+)*")
_KEY = re.compile(r"[\w .+-]{0,200}")
_WORDS = re.compile(r"[\w .,:>+-]{0,1000}")
_SYMBOL = re.compile(r"(s|zf)\d{1,6}|(u|zuf)\d{1,4}")
MAX_NAME = 1000


def shown(text: object) -> str:
    """A text of the file as a message may quote it: short, with nothing a terminal would obey."""
    quoted = ascii(text)
    return quoted if len(quoted) <= 80 else f"{quoted[:76]}..."


def identifier(text: str) -> str:
    """A name that becomes a variable or an argument of generated source."""
    meant = unicodedata.normalize("NFKC", text[:MAX_NAME])  # as Python's parser reads it
    if (
        not meant.isidentifier()
        or keyword.iskeyword(meant)
        or meant in _TAKEN
        or len(text) > MAX_NAME
    ):
        raise ValueError(f"suspicious name {shown(text)}")
    return text


def argument_name(text: str) -> str:
    """A name of an operator's argument, ``self`` and Python's keywords too; '' for none."""
    if text and (len(text) > MAX_NAME or not text.isidentifier()):
        raise ValueError(f"suspicious name {shown(text)}")
    return text


def weight_path(text: str) -> str:
    """The dotted path of a weight, which becomes attributes of modules."""
    if len(text) > MAX_NAME or not _PATH.fullmatch(text):
        raise ValueError(f"suspicious name {shown(text)}")
    return text


def module_path(text: str) -> str:
    """The dotted path of a module, '' for the whole model."""
    return text and weight_path(text)


def words(text: str) -> str:
    """A string argument of an operator, such as an einsum's equation."""
    if not _WORDS.fullmatch(text):
        raise ValueError(f"suspicious text {shown(text)}")
    return text


def symbol(text: str) -> str:
    """The name of a size that is free.

    Their numbers are small: PyTorch counts up to those of some kinds.
    """
    if not _SYMBOL.fullmatch(text):
        raise ValueError(f"suspicious name {shown(text)}")
    return text


# -- operators -------------------------------------------------------------------------------------

_ON_SIZES = frozenset(
    {f"_operator.{name}" for name in ("add", "sub", "mul", "floordiv", "truediv", "mod")}
    | {f"_operator.{name}" for name in ("pow", "neg", "pos")}
    | {f"_operator.{name}" for name in ["eq", "ne", "lt", "le", "gt", "ge", "and_", "or_"]}
    | {f"torch.sym_{name}" for name in ["float", "int", "ite", "max", "min", "not", "sqrt"]}
    | {"math.trunc"}
)
_OF_GRAPHS = frozenset(
    f"torch.ops.higher_order.{name}"
    for name in (
        "cond",
        "scan",
        "map_impl",
        "associative_scan",
        "wrap_with_set_grad_enabled",
        "wrap_with_autocast",
    )
)
_DISPATCHED = re.compile(r"torch\.ops\.(aten|quantized_decomposed|torchao|petra)\.(\w+)\.(\w+)")
# Of aten's many operators with an underscore in front, those that a traced model is made of.
_PRIVATE = re.compile(
    r"__(and|or|xor|lshift|rshift|iand|ior|ixor)__"
    r"|_(adaptive_avg_pool[23]d|assert_(async|scalar|tensor_metadata)|cdist_forward|convolution"
    r"|embedding_bag|euclidean_dist|fft_\w+|fused_rms_norm|linalg_(det|eigh|slogdet|solve_ex|svd)"
    r"|local_scalar_dense|log_softmax|native_batch_norm_legit\w*|native_multi_head_attention"
    r"|pack_padded_sequence|pad_packed_sequence|prelu_kernel|reshape_alias"
    r"|scaled_dot_product_\w+|shape_as_tensor|softmax|to_copy|transformer_encoder_layer_fwd"
    r"|trilinear|unsafe_view|upsample_\w+|weight_norm\w*)"
)
_FORBIDDEN = frozenset({"from_file", "data", "set_data", "set_", "record_stream"})
_NUMBERS = frozenset({"int", "float", "bool", "number", "complex"})
_PLAIN_TYPES = _NUMBERS | {"Tensor", "str", "Device", "Generator"}


@functools.lru_cache(4096)
def operator(text: str) -> str:
    """A function of tensors or of sizes, and nothing that PyTorch would find under another name.

    Of PyTorch's own operators these are the ones that its dispatcher knows, which leaves out
    TorchScript's (some write files), and that take and return nothing but tensors, numbers and
    words.
    """
    if text in _ON_SIZES or text in _OF_GRAPHS:
        return text
    found = _DISPATCHED.fullmatch(text)
    if not found or not _is_on_tensors(*found.groups()):
        raise ValueError(f"calls {shown(text)}, and only tensor operators are allowed")
    return text


def _is_on_tensors(space: str, name: str, overload: str) -> bool:
    import torch

    if name in _FORBIDDEN or (name.startswith("_") and not _PRIVATE.fullmatch(name)):
        return False
    try:
        schema = torch._C._get_schema(f"{space}::{name}", "" if overload == "default" else overload)
    except RuntimeError:
        return False
    kernel = f"{space}::{name}" + (f".{schema.overload_name}" if schema.overload_name else "")
    types = [str(value.type) for value in (*schema.arguments, *schema.returns)]
    return bool(torch._C._dispatch_has_kernel(kernel)) and all(map(_is_plain, types))


def _is_plain(type_: str) -> bool:
    return re.sub(r"Optional\[|List\[|\]", "", type_) in _PLAIN_TYPES


# -- trees -----------------------------------------------------------------------------------------

_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
_SEQUENCES, _DICTS = (
    ("builtins.tuple", "builtins.list"),
    ("builtins.dict", "collections.OrderedDict"),
)
MAX_TREE_DEPTH = 20


def input_tree(text: str) -> str:
    """How the program is called: tensors by place and tensors by name, written anew."""
    tree = _tree(text, _input_key)
    match tree["children_spec"]:
        case [{"type": "builtins.tuple"} as args, {"type": "builtins.dict"} as kwargs]:
            inputs = [*args["children_spec"], *kwargs["children_spec"]]
            if tree["type"] == "builtins.tuple" and all(child == _LEAF for child in inputs):
                return json.dumps([1, tree])
    raise ValueError("inputs that are not tensors by place or by name")


def output_tree(text: str) -> str:
    """What the program returns: tensors in tuples, lists and dicts, written anew."""
    return json.dumps([1, _tree(text, _output_key)])


def leaves(text: str) -> int:
    """How many values a checked tree holds."""

    def count(tree: Any) -> int:
        return 1 if tree == _LEAF else sum(count(child) for child in tree["children_spec"])

    return count(json.loads(text)[1])


def _tree(text: str, key: Callable[[object], str | int]) -> dict[str, Any]:
    match parse_json(text):
        case [1, root]:
            return _branch(root, key, MAX_TREE_DEPTH)
    raise ValueError("suspicious tree of inputs or outputs")


def _branch(branch: Any, key: Callable[[object], str | int], depth: int) -> dict[str, Any]:
    """A node of a tree: tuples, lists and dicts with plain keys, nothing that would be imported."""
    if not isinstance(branch, dict) or set(branch) != set(_LEAF) or not depth:
        raise ValueError("suspicious tree of inputs or outputs")
    kind, children = branch["type"], branch["children_spec"]
    if branch == _LEAF:
        return dict(_LEAF)
    if kind not in (*_SEQUENCES, *_DICTS) or not isinstance(children, list):
        raise ValueError(f"inputs or outputs are a {shown(kind)}")
    context = branch["context"]
    names = parse_json(context) if isinstance(context, str) else context
    if kind in _DICTS:
        if not isinstance(names, list) or len(names) != len(children):
            raise ValueError("suspicious input or output names")
        names = [key(name) for name in names]
    elif names is not None:
        raise ValueError(f"suspicious input or output names {shown(names)}")
    below = [_branch(child, key, depth - 1) for child in children]
    return {"type": kind, "context": json.dumps(names), "children_spec": below}


def _input_key(name: object) -> str:
    if not isinstance(name, str):
        raise ValueError(f"suspicious input names {shown(name)}")
    return identifier(name)


def _output_key(name: object) -> str | int:
    if type(name) is int and abs(name) < 2**31:
        return name
    if not isinstance(name, str) or not _KEY.fullmatch(name):
        raise ValueError(f"suspicious input or output names {shown(name)}")
    return name


def parse_json(text: str | bytes) -> Any:
    """JSON with every key once. Raises ValueError, for what is nested too deeply as well."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("JSON with a key twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
