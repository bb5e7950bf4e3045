"""No file runs code: the campaign against archives for some seconds, and proof that its attacks are
attacks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_mutations import mutated
from archive_parts import Archive, Canary, real_archives
from archives import KNOWN, Opener, campaign

REAL = [
    "pickled sample inputs",
    "pickled samples in other case",
    "pickled samples twice",
    "pickled weight",
    "pickled constant",
    "opaque constant",
    "old weights",
    "old constants",
    "second model without a dot",
    "layout before 2 8",
    "both layouts",
    "code as a size",
    "code behind a size",
    "code as a weight name",
    "other names in the directory",
]
"""Attacks that run their code when PyTorch alone opens the file; the others are refused by it
today, or take long."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return real_archives(tmp_path_factory.mktemp("archives"))["float"]


@pytest.fixture(scope="module")
def plain() -> Iterator[Opener]:
    with Opener("plain") as opener:
        yield opener


@pytest.mark.parametrize("kind", REAL)
def test_the_attack_is_one(kind: str, archive: Archive, plain: Opener, tmp_path: Path) -> None:
    canary, path = Canary(tmp_path / "canary"), tmp_path / "attack.pt2"
    path.write_bytes(KNOWN[kind](archive, canary).to_bytes())
    plain.open(path)
    assert canary.path.exists()


@pytest.mark.slow
def test_no_canary_runs(tmp_path: Path) -> None:
    attacks = list(campaign(tmp_path, seed=20, seconds=6))
    assert [attack for attack in attacks if attack.fault] == []
    assert {attack.kind for attack in attacks if attack.outcome == "refused"} >= set(KNOWN)


def test_random_attacks_can_be_repeated(archive: Archive, tmp_path: Path) -> None:
    canary = Canary(tmp_path / "canary")
    first, second = (
        [mutated(archive, canary, random.Random(f"0/{i}"))[1].to_bytes() for i in range(30)]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) >= 25
