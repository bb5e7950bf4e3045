"""Known ways to have a ``.pt2`` archive run code or read files: one function each."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from archive_parts import (
    CONSTANTS,
    PROGRAM,
    SAMPLES,
    WEIGHTS,
    Archive,
    Attack,
    Canary,
    first_size,
    kept_in,
    nodes,
    pickled_samples,
    renamed_text,
    signature,
)

CODE: dict[str, Attack] = {}
"""By what is done, all to the archive "float"."""
known = kept_in(CODE)


# -- pickles ---------------------------------------------------------------------------------------


CODE["pickled sample inputs"] = pickled_samples


@known
def pickled_samples_in_other_case(archive: Archive, canary: Canary) -> Archive:
    """PyTorch's reader looks names up without regard to case."""
    return archive.with_member("data/sample_inputs/MODEL.pt", canary.torch_pickle, first=True)


@known
def pickled_samples_twice(archive: Archive, canary: Canary) -> Archive:
    """PyTorch takes the first of two members with one name, Python's `zipfile` the last."""
    return archive.with_member(SAMPLES, canary.torch_pickle, first=True)


def _pickled(table: str, folder: str, prefix: str) -> Attack:
    def attack(archive: Archive, canary: Canary) -> Archive:
        def edit(config: Any) -> None:
            entry = next(iter(config["config"].values()))
            entry |= {"path_name": f"{prefix}0", "use_pickle": True}

        name = f"{folder}{prefix}0"
        payload = canary.pickle if prefix == "opaque_obj_" else canary.torch_pickle
        without = replace(archive, members=tuple((n, c) for n, c in archive.members if n != name))
        return without.edited(table, edit).with_member(name, payload)

    return attack


CODE["pickled weight"] = _pickled(WEIGHTS, "data/weights/", "weight_")
CODE["pickled constant"] = _pickled(CONSTANTS, "data/constants/", "tensor_")
CODE["opaque constant"] = _pickled(CONSTANTS, "data/constants/", "opaque_obj_")
CODE["custom constant"] = _pickled(CONSTANTS, "data/constants/", "custom_obj_")


@known
def old_weights(archive: Archive, canary: Canary) -> Archive:
    return archive.with_member("data/weights/model.pt", canary.torch_pickle)


@known
def old_constants(archive: Archive, canary: Canary) -> Archive:
    return archive.with_member("data/constants/model.pt", canary.torch_pickle)


@known
def second_model_without_a_dot(archive: Archive, canary: Canary) -> Archive:
    """Of `models/modelxjson` PyTorch makes the model `model` as well."""
    evil = archive.program(lambda program: first_size(program).update(expr_str=canary.code))
    return archive.with_member("models/modelxjson", evil.get(PROGRAM))


@known
def layout_before_2_8(archive: Archive, canary: Canary) -> Archive:
    parts = {
        "version": b"8.20",
        "serialized_exported_program.json": archive.get(PROGRAM),
        "serialized_state_dict.pt": canary.torch_pickle,
        "serialized_constants.pt": b"",
        "serialized_example_inputs.pt": b"",
    }
    return Archive(tuple(parts.items()), root="")


@known
def both_layouts(archive: Archive, canary: Canary) -> Archive:
    """Where the newer layout does not load, PyTorch falls back to the older one of the same
    file.
    """
    old = layout_before_2_8(archive, canary)
    broken = archive.renamed(lambda name: f"model/{name}").changed(
        "model/models/model.json", lambda _: b"{"
    )
    return Archive(broken.members + old.members, root="")


@known
def extra_files(archive: Archive, canary: Canary) -> Archive:
    return archive.with_member("extra/run.py", canary.code.encode())


@known
def compiled_library(archive: Archive, canary: Canary) -> Archive:
    return archive.with_member("data/aotinductor/model/model.so", b"\x7fELF" + canary.pickle)


@known
def executorch_program(archive: Archive, canary: Canary) -> Archive:
    return archive.with_member("data/executorch/model.pte", canary.pickle)


# -- text that becomes Python ----------------------------------------------------------------------


@known
def code_as_a_size(archive: Archive, canary: Canary) -> Archive:
    return archive.program(lambda program: first_size(program).update(expr_str=canary.code))


@known
def code_behind_a_size(archive: Archive, canary: Canary) -> Archive:
    """As an assumption about a symbol, which a list of words would overlook."""

    def edit(program: Any) -> None:
        first_size(program)["expr_str"] = f"Symbol('s0', integer=[{canary.code}])"

    return archive.program(edit)


@known
def code_as_an_input_name(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        names = signature(program)["forward_arg_names"]
        names[0] = f"{names[0]}={canary.code}"

    return archive.program(edit)


@known
def code_as_a_key_of_inputs(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        version, tree = json.loads(signature(program)["in_spec"])
        children = tree["children_spec"]
        children[1] = {
            "type": "builtins.dict",
            "context": json.dumps([f"x':{canary.code},'y"]),
            "children_spec": [{"type": None, "context": None, "children_spec": []}],
        }
        children[0]["children_spec"] = []
        signature(program)["in_spec"] = json.dumps([version, tree])

    return archive.program(edit)


@known
def code_as_a_weight_name(archive: Archive, canary: Canary) -> Archive:
    change = renamed_text("linear.weight", f'linear"); {canary.code}; ("weight')
    return archive.changed(PROGRAM, change).changed(WEIGHTS, change)


@known
def code_as_a_node_name(archive: Archive, canary: Canary) -> Archive:
    return archive.changed(PROGRAM, renamed_text("relu", f"relu = {canary.code}; relu"))


@known
def code_as_an_argument_name(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        node = nodes(program)[0]
        node["target"] = "torch.ops.higher_order.wrap_with_set_grad_enabled"
        node["inputs"].append({"name": f"x={canary.code}, y", "arg": {"as_int": 1}, "kind": 2})

    return archive.program(edit)


@known
def code_as_guards(archive: Archive, canary: Canary) -> Archive:
    return archive.program(lambda program: program.update(guards_code=[canary.code]))


@known
def code_as_metadata(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        for node in nodes(program):
            node["metadata"] = {
                "stack_trace": f"File x\n{canary.code}",
                "nn_module_stack": f"{canary.code},x,y",
            }

    return archive.program(edit)


# -- functions that are no operators ---------------------------------------------------------------


def _calls(target: str) -> Attack:
    def attack(archive: Archive, canary: Canary) -> Archive:
        def edit(program: Any) -> None:
            node = nodes(program)[0]
            node["target"] = target
            code = f"python3 -c '{canary.code}'" if target.endswith("system") else canary.code
            node["inputs"] = [{"name": "", "arg": {"as_string": code}, "kind": 1}]

        return archive.program(edit)

    return attack


CODE["calls the shell"] = _calls("torch.os.system")
CODE["calls eval"] = _calls("torch.serialization.os.sys.modules.get")
CODE["calls a built-in"] = _calls("torch.builtins.eval")
CODE["calls torch.load"] = _calls("torch.load")
CODE["calls an operator's globals"] = _calls("torch.ops.aten.relu.default.__class__")
CODE["calls methodcaller"] = _calls("_operator.methodcaller")


@known
def writes_a_file(archive: Archive, canary: Canary) -> Archive:
    """TorchScript's own operators are found under the same names as PyTorch's."""

    def edit(program: Any) -> None:
        node = nodes(program)[0]
        node["target"] = "torch.ops.aten.save.default"
        node["inputs"] = [
            {"name": "item", "arg": {"as_int": 1}, "kind": 1},
            {"name": "filename", "arg": {"as_string": str(canary.path)}, "kind": 1},
        ]

    return archive.program(edit)


@known
def reads_a_file(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        node = nodes(program)[0]
        node["target"] = "torch.ops.aten.from_file.default"
        node["inputs"] = [{"name": "filename", "arg": {"as_string": "/etc/passwd"}, "kind": 1}]

    return archive.program(edit)


@known
def operator_as_an_argument(archive: Archive, canary: Canary) -> Archive:
    return archive.program(
        lambda p: nodes(p)[0]["inputs"][0].update(arg={"as_operator": "torch.os.system"})
    )


@known
def imports_a_module(archive: Archive, canary: Canary) -> Archive:
    def edit(program: Any) -> None:
        context = json.dumps([{"__enum__": True, "fqn": "antigravity:X", "name": "x"}])
        leaf = {"type": None, "context": None, "children_spec": []}
        tree = {"type": "builtins.dict", "context": context, "children_spec": [leaf]}
        signature(program)["out_spec"] = json.dumps([1, tree])

    return archive.program(edit)
