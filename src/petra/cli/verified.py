"""What `petra verify` says of a bundle: whole, and giving today what it gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petra.core.target import Target


def verified(
    path: Path,
    threads: int | None,
    target_of: Callable[[Path, int], Target | None],
    *,
    time_limit_s: float,
) -> tuple[dict[str, Any], list[str]]:
    """What is found of the bundle that a model file, or a directory, is; as data and in lines.
    `target_of` says how a file is to be run on so many threads, None for as it was measured.

    Raises ArtifactError when anything is not as it was exported.
    """
    from petra.core.digest import sha256
    from petra.measure.host import describe_host
    from petra.report.bundle_check import moved, open_bundle, replay_sample

    bundle = open_bundle(path)
    usual = bundle.target() if bundle.metrics else None
    count = threads or (usual.threads if usual else 1)
    checked: dict[str, Any] = {
        "file": str(bundle.file),
        "bundle": bundle.about,
        "files": bundle.checked,
        "threads": count,
    }
    if not bundle.metrics:
        if bundle.file.is_file():
            checked["sha256"] = sha256(bundle.file)
        return checked, []
    sample = replay_sample(bundle, target_of(bundle.file, count), time_limit_s=time_limit_s)
    changed = moved(bundle.host, describe_host())
    checked |= {
        "sha256": sha256(bundle.file),
        "preprocessing": bundle.preprocessing,
        "sample": sample.as_dict() if sample else None,
        "changed": {name: list(pair) for name, pair in changed.items()},
    }
    lines = [f"bundle: {bundle.checked} files are as exported"]
    lines.append(f"preprocessing: {bundle.preprocessing}")
    lines.append(f"sample: {sample}" if sample else "note: no sample is in the bundle")
    lines += [
        f"since it was measured: {name} {then or 'none'} -> {now or 'none'}"
        for name, (then, now) in changed.items()
    ]
    return checked, lines
