"""Files of modules from anywhere: refused with a message that names the file, before anything in
them is used, or more of them read than the model has room for.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import adapted, problem
from safetensors.torch import load_file, save
from torch import Tensor

import petra
from petra.core.errors import ArtifactError, ConfigError
from petra.model.description.state_hash import state_hash

Record = dict[str, Any]
Tensors = dict[str, Tensor]
RECORD, TENSORS = "modules.json", "modules.safetensors"
UP = "bert.encoder.layer.0.output.dense/serial/up.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Tensors]:
    """The record and the tensors of a file that is as it should be."""
    model, _ = adapted("bert", serial=2, parallel=1, lora=1)
    place = petra.save_modules(model, tmp_path_factory.mktemp("sound") / "modules")
    return (place / RECORD).read_text(), load_file(place / TENSORS)


def forge(place: Path, record: Record, content: bytes) -> Path:
    """Files that say of themselves that they are whole."""
    place.mkdir()
    record["tensors"]["sha256"] = hashlib.sha256(content).hexdigest()
    (place / RECORD).write_text(json.dumps(record))
    (place / TENSORS).write_bytes(content)
    return place


def refused(place: Path, said: str) -> None:
    base, _ = problem("bert")
    before = state_hash(base)
    with pytest.raises(ArtifactError) as error:
        petra.load_modules(base, place)
    assert said in error.value.message, error.value.message
    assert str(place) in error.value.message
    assert error.value.hint
    assert error.value.message.isprintable()
    assert state_hash(base) == before


def module(record: Record, kind: str) -> Record:
    found: Record = next(m for m in record["modules"] if m["kind"] == kind)
    return found


def setting(kind: str, name: str, value: object) -> Callable[[Record], None]:
    return lambda record: module(record, kind)["settings"].update({name: value})


def at_path(path: str) -> Callable[[Record], None]:
    return lambda record: module(record, "lora").update(path=path)


RECORDS: dict[str, tuple[Callable[[Record], object], str]] = {
    "unknown kind": (lambda r: module(r, "lora").update(kind="os.system"), "unknown kind"),
    "a class as kind": (
        lambda r: module(r, "lora").update(kind="torch.nn.modules:Linear"), "unknown kind",
    ),
    "lacking setting": (lambda r: module(r, "lora")["settings"].pop("rank"), "'rank'"),
    "extra setting": (setting("lora", "forward", "x"), "'forward'"),
    "rank of nothing": (setting("lora", "rank", 0), "rank is 0"),
    "rank below nothing": (setting("lora", "rank", -4), "rank is -4"),
    "rank that is no number": (setting("lora", "rank", "8"), "rank is '8'"),
    "rank that is true": (setting("lora", "rank", True), "rank is True"),
    "rank of a real": (setting("lora", "rank", 1.0), "rank is 1.0"),
    "rank beyond all": (setting("lora", "rank", 1 << 60), "rank is"),
    "rank of gigabytes": (setting("lora", "rank", 1 << 23), "far more than their model"),
    "scale beyond all": (setting("lora", "scale", 1e300), "scale is"),
    "activation of one's own": (setting("serial", "activation", "exec"), "activation is 'exec'"),
    "other width": (setting("serial", "width", 31), "is 32 wide"),
    "setting that is a list": (setting("lora", "scale", [1.0]), "settings.scale"),
    "path out of the model": (at_path("../../etc/passwd"), "no layer '../../etc/passwd'"),
    "path of a method": (at_path("bert.forward.__globals__"), "no layer"),
    "path beyond the blocks": (at_path("bert.encoder.layer.9.output"), "no layer"),
    "path that ends nowhere": (at_path("bert.encoder.layer.0."), "no layer"),
    "path that is a terminal's": (at_path("\x1b[2J"), r"\x1b[2J"),
    "low rank around a norm": (
        at_path("bert.encoder.layer.0.output.LayerNorm"), "is no linear layer",
    ),
    "a prefix around a linear layer": (
        lambda r: module(r, "lora").update(
            kind="prefix", settings={"length": 1, "heads": 1, "size": 1}
        ),
        "no attention",
    ),
    "low rank around the model": (at_path(""), "is no linear layer"),
    "a module twice": (lambda r: r["modules"].append(r["modules"][0]), "given twice"),
    "a tap without its adapter": (setting("tap", "line", 7), "do not match"),
    "a weight that there is not": (lambda r: r["trained"].append("bert.w"), "no weight 'bert.w'"),
    "a weight twice": (lambda r: r["trained"].append(r["trained"][0]), "given twice"),
    "an adapter without its tap": (
        lambda r: r["modules"].remove(module(r, "tap")), "do not match",
    ),
    "a module fewer": (lambda r: r["modules"].remove(module(r, "lora")), "belong to no module"),
    "other counts": (lambda r: r["parameters"].update(modules=1), "it says 1 of modules"),
    "negative counts": (lambda r: r["parameters"].update(head=-1), "negative"),
    "other structure": (lambda r: r["base"].update(structure="0" * 64), "another structure"),
    "structure that is none": (lambda r: r["base"].update(structure="x"), "not a digest"),
    "other weights": (lambda r: r["base"].update(weights="0" * 64), "other weights"),
    "tensors elsewhere": (lambda r: r["tensors"].update(file="../../other"), "tensors.file"),
    "tensors from the root": (lambda r: r["tensors"].update(file="/etc/passwd"), "tensors.file"),
    "other format": (lambda r: r.update(format="pickle"), "no record of modules"),
    "later version": (lambda r: r.update(version=2), "version is 2"),
    "more than is known": (lambda r: r.update(code="import os"), "'code'"),
    "less than is needed": (lambda r: r.pop("trained"), "'trained'"),
    "modules that are none": (lambda r: r.update(modules={}), "not a list"),
}  # fmt: skip


@pytest.mark.parametrize("attack", RECORDS)
def test_records_are_held_to_the_model(
    tmp_path: Path, sound: tuple[str, Tensors], attack: str
) -> None:
    change, said = RECORDS[attack]
    record = json.loads(sound[0])
    change(record)
    refused(forge(tmp_path / "modules", record, save(sound[1])), said)


def poisoned(value: float) -> Callable[[Tensors], None]:
    def act(tensors: Tensors) -> None:
        tensors[UP] = tensors[UP].clone()
        tensors[UP][0, 0] = value

    return act


TENSOR: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "missing": (lambda t: t.pop(UP), "1 tensors are missing"),
    "extra": (lambda t: t.update({"more": torch.ones(1)}), "1 tensors belong to no module"),
    "other shape": (lambda t: t.update({UP: torch.ones(2, 32)}), "where real (32, 2) is expected"),
    "other rank": (lambda t: t.update({UP: torch.ones(32, 2, 1)}), "where real (32, 2)"),
    "empty": (lambda t: t.update({UP: torch.ones(0)}), "where real (32, 2) is expected"),
    "integers": (lambda t: t.update({UP: torch.ones(32, 2, dtype=torch.int32)}), "int32 (32, 2)"),
    "head of another type": (
        lambda t: t.update({"/classifier.bias": torch.ones(4, dtype=torch.float64)}),
        "where float32 (4,) is expected",
    ),
    "not a number": (poisoned(float("nan")), "holds NaN or infinities"),
    "infinite": (poisoned(float("-inf")), "holds NaN or infinities"),
}


@pytest.mark.parametrize("attack", TENSOR)
def test_tensors_are_those_that_the_modules_have(
    tmp_path: Path, sound: tuple[str, Tensors], attack: str
) -> None:
    change, said = TENSOR[attack]
    tensors = dict(sound[1])
    change(tensors)
    refused(forge(tmp_path / "modules", json.loads(sound[0]), save(tensors)), said)


def header(content: bytes, change: Callable[[Record], object]) -> bytes:
    """The file with another header."""
    size = int.from_bytes(content[:8], "little")
    data = json.loads(content[8 : 8 + size])
    change(data)
    text = json.dumps(data).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def longer(content: bytes) -> bytes:
    return struct.pack("<Q", 2**62) + content[8:]


FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda c: b"", "its header"),
    "a pickle": (lambda c: pickle.dumps({"a": 1}), "not a file of tensors"),
    "a header beyond the file": (longer, "its header is said to have 4611686018427387904 bytes"),
    "a header that is no JSON": (lambda c: c[:8] + b"x" + c[9:], "not a file of tensors"),
    "cut off": (lambda c: c[:-1], "bytes of tensors"),
    "more behind": (lambda c: c + b"\0", "bytes of tensors"),
    "overlapping tensors": (
        lambda c: header(c, lambda h: h[UP].update(data_offsets=[0, 256])), "tensors overlap",
    ),
    "offsets that run backwards": (
        lambda c: header(c, lambda h: h[UP].update(data_offsets=[256, 0])), "in -256 bytes",
    ),
    "offsets below nothing": (
        lambda c: header(c, lambda h: h[UP].update(data_offsets=[-256, 0])), "negative",
    ),
    "an enormous shape": (
        lambda c: header(c, lambda h: h[UP].update(shape=[2**40, 2**40])), "in 256 bytes",
    ),
    "a type that is none": (
        lambda c: header(c, lambda h: h[UP].update(dtype="OBJECT")), "has the type 'OBJECT'",
    ),
    "more about a tensor": (
        lambda c: header(c, lambda h: h[UP].update(code="import os")), "has the fields",
    ),
    "nested without end": (
        lambda c: struct.pack("<Q", 4000) + b"[" * 4000 + c[8:], "not a file of tensors",
    ),
    "one name twice": (
        lambda c: struct.pack("<Q", 27) + b'{"a":{"b":1},"a":{"b":1}}  ' + c[8:], "given twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", FILES)
def test_the_file_of_tensors_is_read_for_what_it_is(
    tmp_path: Path, sound: tuple[str, Tensors], attack: str
) -> None:
    change, said = FILES[attack]
    content = change(save(sound[1]))
    refused(forge(tmp_path / "modules", json.loads(sound[0]), content), said)


def test_a_file_that_was_exchanged_is_noticed(tmp_path: Path, sound: tuple[str, Tensors]) -> None:
    place = forge(tmp_path / "modules", json.loads(sound[0]), save(sound[1]))
    tensors = {**sound[1], UP: sound[1][UP] + 1}
    (place / TENSORS).write_bytes(save(tensors))
    refused(place, "records another SHA-256")


NO_RECORDS = (b"", b"[]", b"null", b"{", b'{"format": NaN}', b"[" * 9000, b"\xff\xfe")


@pytest.mark.parametrize("content", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_what_is_no_record_is_refused(
    tmp_path: Path, sound: tuple[str, Tensors], content: bytes
) -> None:
    place = forge(tmp_path / "modules", json.loads(sound[0]), save(sound[1]))
    (place / RECORD).write_bytes(content)
    refused(place, RECORD)


@pytest.mark.parametrize("name", [RECORD, TENSORS])
def test_links_pipes_and_directories_are_not_opened(
    tmp_path: Path, sound: tuple[str, Tensors], name: str
) -> None:
    place = forge(tmp_path / "modules", json.loads(sound[0]), save(sound[1]))
    (place / name).rename(tmp_path / "elsewhere")
    (place / name).symlink_to(tmp_path / "elsewhere")
    refused(place, name)
    (place / name).unlink()
    os.mkfifo(place / name)
    refused(place, name)
    (place / name).unlink()
    (place / name).mkdir()
    refused(place, name)
    (place / name).rmdir()
    refused(place, name)


@pytest.mark.parametrize("name", [RECORD, TENSORS])
def test_a_file_without_end_is_not_read(
    tmp_path: Path, sound: tuple[str, Tensors], name: str
) -> None:
    place = forge(tmp_path / "modules", json.loads(sound[0]), save(sound[1]))
    with (place / name).open("r+b") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    refused(place, "1099511627776 bytes, and at most")


def test_a_directory_that_is_not_there_is_a_message(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "cannot be read")


def test_the_sound_file_is_read(tmp_path: Path, sound: tuple[str, Tensors]) -> None:
    """What the attacks begin with would pass, or they would show nothing."""
    place = forge(tmp_path / "modules", json.loads(sound[0]), save(sound[1]))
    petra.load_modules(problem("bert")[0], place)
    with pytest.raises(ConfigError):
        petra.load_modules(adapted("bert", lora=1)[0], place)
