"""Random changes to archives, made where they hurt: names of members, places in the JSON, payloads,
the container."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from dataclasses import replace

from archive_json import graph_changed, json_changed
from archive_parts import SAMPLES, Archive, Canary, central_names

Mutation = Callable[[Archive, Canary, random.Random], Archive]

NAMES = (
    "data/sample_inputs/model.pt", "data/sample_inputs/MODEL.PT", "data/weights/model.pt",
    "data/constants/model.pt", "data/constants/opaque_obj_0", "data/constants/custom_obj_0",
    "data/constants/tensor_0", "data/weights/weight_0", "models/model.json", "models/modelxjson",
    "MODELS/model.json", "models/evil.json", "models/", "models/..json",
    "data/aotinductor/model/model.so", "data/aotinductor/model/weights_config.json", "extra/x",
    "data/executorch/x.pte", "version", "byteorder", ".data/version", "archive_format",
    "archive_version", "code/x.py", "data.pkl", "serialized_exported_program.json",
    "serialized_state_dict.pt", "../x", "/etc/x", "a\x00b", "x" * 500, "model\u0455/model.json",
    "\u202egnp.exe", "\x1b[2Jx",
)  # fmt: skip


def mutated(archive: Archive, canary: Canary, random: random.Random) -> tuple[str, Archive]:
    """One to three changes; the kind of the first."""
    kinds = random.choices(list(MUTATIONS), weights=(2, 4, 4, 2, 2), k=random.randint(1, 3))
    for kind in kinds:
        archive = MUTATIONS[kind](archive, canary, random)
    return kinds[0], archive


# -- members ---------------------------------------------------------------------------------------


def _members(archive: Archive, canary: Canary, random: random.Random) -> Archive:
    names = [name for name, _ in archive.members]
    victim = random.choice(names)
    evil = _payload(canary, random)
    match random.randrange(7):
        case 0:
            return archive.with_member(
                random.choice((*NAMES, *names)), evil, first=random.random() < 0.5
            )
        case 1:
            new = random.choice(
                (victim.upper(), victim.title(), victim.swapcase(), f"./{victim}", f"{victim}/")
            )
            return archive.with_member(new, evil, first=random.random() < 0.5)
        case 2:
            new = random.choice(
                (*NAMES, victim.upper(), victim.replace("/", "\\"), victim.replace(".", "x"))
            )
            return archive.renamed(lambda name: new if name == victim else name)
        case 3:
            return replace(archive, members=tuple(m for m in archive.members if m[0] != victim))
        case 4:
            return replace(
                archive,
                root=random.choice(("", "/", "../", "a/b/", "\u00e9/", "MODEL/", "x" * 300 + "/")),
            )
        case 5:
            return replace(
                archive, members=tuple(random.sample(archive.members, len(archive.members)))
            )
        case _:
            other = archive.changed(victim, lambda _: evil)
            return replace(
                archive,
                members=random.choice((other.members + archive.members, archive.members * 2)),
            )


def _payload(canary: Canary, random: random.Random) -> bytes:
    return random.choice(
        (canary.pickle, canary.torch_pickle, canary.code.encode(), b"", b"\x7fELF", b"{}")
    )


def _payloads(archive: Archive, canary: Canary, random: random.Random) -> Archive:
    data = [
        name
        for name, _ in archive.members
        if name.startswith("data/") and not name.endswith(".json")
    ]
    name = random.choice([*data, SAMPLES])

    def change(content: bytes) -> bytes:
        return random.choice(
            (_payload(canary, random), content[:-1], content * 2, content[::-1], b"")
        )

    return archive.changed(name, change)


# -- the container ---------------------------------------------------------------------------------


def _container(archive: Archive, canary: Canary, random: random.Random) -> Archive:
    seed = random.random()
    if random.random() < 0.1:
        return replace(
            archive,
            method=random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
        )
    before = archive.edit

    def edit(content: bytes) -> bytes:
        return _damage(before(content), canary, type(random)(seed))

    return replace(archive, edit=edit)


def _damage(content: bytes, canary: Canary, random: random.Random) -> bytes:
    data = bytearray(content)
    match random.randrange(7):
        case 0:
            return content[: random.randrange(len(content))]
        case 1:
            return random.choice(
                (canary.torch_pickle + content, content + canary.torch_pickle, content * 2)
            )
        case 2:  # a field of some header
            marks = [
                i
                for i in range(len(data) - 60)
                if data[i : i + 4] in (b"PK\x01\x02", b"PK\x03\x04")
            ]
            at = random.choice(marks or [0]) + random.randrange(4, 46)
            data[at] = random.randrange(256)
        case 3:  # the end of the directory
            at = len(data) - random.randrange(1, 22)
            data[at] = random.randrange(256)
        case 4:
            for _ in range(random.randint(1, 20)):
                data[random.randrange(len(data))] = random.randrange(256)
        case 5:
            return central_names(
                content, lambda name: name.swapcase() if random.random() < 0.3 else name
            )
        case _:
            at = random.randrange(len(data))
            del data[at : at + random.randint(1, 50)]
    return bytes(data)


MUTATIONS: dict[str, Mutation] = {
    "members changed": _members,
    "JSON changed": json_changed,
    "graph changed": graph_changed,
    "payloads changed": _payloads,
    "container damaged": _container,
}
