"""A bundle read back without its study: is it whole, does it still give what it gave, and what has
changed around it since.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from petra.core.errors import ArtifactError, ConfigError
from petra.core.measurement import Measurement
from petra.core.target import Target
from petra.core.text import printable
from petra.measure.client import TIME_LIMIT_S, alone
from petra.measure.evidence import Replay, replay
from petra.report.evidence import NOT_STATED
from petra.report.recorded import (
    EVIDENCE_FILE,
    METRICS_FILE,
    MOST_EVIDENCE,
    SAMPLE_INPUTS,
    SAMPLE_OUTPUTS,
    SUMS_FILE,
    check_recorded,
    check_sums,
    companion,
    read_record,
)
from petra.runtimes.table import RUNTIMES, runtime_for, runtimes_by_suffix
from petra.runtimes.verify import INT8_TOLERANCE
from petra.store.checked import mapping, number, text, whole

_HINT = "export the model again"
_SIZES = (("threads", 1, 1024), ("batch", 1, 65536), ("throughput_batch", 64, 65536))


@dataclass(frozen=True)
class Bundle:
    """A model's `file` with what lies beside it, all of it as it was exported.

    `metrics` and `evidence` are what these files say, {} where there are none: a file may come
    alone. `prefix` begins the names of what lies beside it. `checked` is the number of files that
    were held against a digest; `about` says in a few words what was.
    """

    file: Path
    metrics: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    checked: int = 0
    about: str = "no bundle beside it to compare with"

    @property
    def preprocessing(self) -> str:
        """What raw data goes through; '' where no bundle could say."""
        said = self.evidence.get("preprocessing", NOT_STATED if self.metrics else "")
        return printable(said)[:2000]

    @property
    def host(self) -> Mapping[str, Any]:
        """Where it was measured, as `petra.measure.host.describe_host` has it."""
        host = self.metrics.get("host")
        return host if isinstance(host, Mapping) else {}

    def figures(self, which: str, *, baseline: bool = False) -> dict[str, Measurement]:
        """Recorded measurements on a split, "validation" or "test", of this file or of the
        untouched model. Raises ArtifactError for what petra does not write.
        """
        try:
            place = (
                mapping(self.metrics.get("baseline", {}), "baseline") if baseline else self.metrics
            )
            found = mapping(place.get(which, {}), which)
            return {name: _measurement(mapping(m, name), name) for name, m in found.items()}
        except (KeyError, ValueError) as error:
            raise ArtifactError(
                f"{self.file}: its figures cannot be read: {error}", hint=_HINT
            ) from None

    def target(self) -> Target:
        """How it was run when it was measured, by what this machine has of that: else as its
        suffix says, on as many threads.
        """
        plain = self.evidence.get("run_as") or self.metrics.get("target") or {}
        by_suffix = Target(runtimes_by_suffix().get(self.file.suffix, ""))
        try:
            fields = mapping(plain, "target")
            threads, batch, many = (
                min(max(whole(fields.get(name, usual), name), 1), most)
                for name, usual, most in _SIZES
            )
            by_suffix = replace(by_suffix, threads=threads, batch=batch, throughput_batch=many)
            found = replace(
                by_suffix,
                runtime=text(fields.get("runtime", by_suffix.runtime), "runtime"),
                device=text(fields.get("device", "cpu"), "device"),
                options=mapping(fields.get("options", {}), "options"),
            )
            if found.runtime in RUNTIMES and not runtime_for(found).lacks():
                return found
        except (ValueError, ConfigError) as error:
            raise ArtifactError(
                f"{self.file}: how it was run cannot be read: {error}", hint=_HINT
            ) from None
        return by_suffix

    def sample(self) -> tuple[Path, Path] | None:
        """The two files of its sample, None where none shipped."""
        if not self.evidence.get("sample"):
            return None
        here = self.file.parent
        return here / f"{self.prefix}{SAMPLE_INPUTS}", here / f"{self.prefix}{SAMPLE_OUTPUTS}"


@dataclass(frozen=True)
class Replayed:
    """What a file gives for its sample now, over what is allowed: `relative_error` and
    `max_abs_error` of the output that is furthest off, of `items` items; `other_choice` of them
    have another largest score.
    """

    items: int
    relative_error: float
    max_abs_error: float
    other_choice: int
    tolerance: float
    runtime: str

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def __str__(self) -> str:
        same = (
            "exactly what was recorded"
            if not self.max_abs_error
            else f"what was recorded to {self.relative_error:.2g} of its spread"
            f" (allowed {self.tolerance:g})"
        )
        other = f", another class for {self.other_choice}" if self.other_choice else ""
        return f"its {self.items} sample items give {same}{other}"


def model_in(path: Path) -> Path:
    """The model file that is meant: `path`, or, of a bundle's directory, the one its record names
    first.

    Raises ArtifactError for a directory that is no bundle.
    """
    if not path.is_dir():
        return path
    metrics = path / METRICS_FILE
    if not metrics.exists():
        raise ArtifactError(
            f"{path}: this directory is no bundle: it has no {METRICS_FILE}",
            hint="give the model file, or a directory that `petra export` wrote",
        )
    return path / next(iter(check_recorded(metrics)))


def open_bundle(path: Path) -> Bundle:
    """A model file, or the directory of a bundle, with all that is recorded of it checked.

    Raises ArtifactError when a file is missing or not the one that was exported.
    """
    file = model_in(path)
    beside = companion(file, METRICS_FILE)
    if beside is None:
        return Bundle(file)
    recorded = check_recorded(beside)
    if file.name not in recorded:
        about = f"{beside.name} is about {', '.join(recorded)}, not about this file"
        return Bundle(file, about=about)
    metrics, about = read_record(beside), f"the file that {beside.name} describes"
    prefix = beside.name.removesuffix(METRICS_FILE)
    sums = beside.with_name(f"{prefix}{SUMS_FILE}")
    if not os.path.lexists(sums):
        if not metrics.get("sums"):  # as an older petra exported it
            return Bundle(file, metrics, prefix=prefix, checked=len(recorded), about=about)
        raise ArtifactError(f"{sums}: the bundle's file is missing", hint="copy the whole bundle")
    names = check_sums(sums)
    stated = beside.with_name(f"{prefix}{EVIDENCE_FILE}")
    if lacking := {file.name, beside.name, stated.name} - set(names):
        raise ArtifactError(f"{sums}: is not about {min(lacking)}", hint=_HINT)
    evidence = read_record(stated, most_bytes=MOST_EVIDENCE)
    return Bundle(file, metrics, evidence, prefix, len(names), about)


def replay_sample(
    bundle: Bundle, target: Target | None = None, *, time_limit_s: float = TIME_LIMIT_S
) -> Replayed | None:
    """Run the file on its sample in a fresh process; None where it has none.

    Raises ArtifactError when it declares other inputs than were recorded, or returns something else
    than what is allowed.
    """
    files = bundle.sample()
    if files is None:
        return None
    target = target or bundle.target()
    try:
        said = mapping(bundle.evidence["sample"], "sample")
        tolerance = min(number(said.get("tolerance"), "tolerance"), INT8_TOLERANCE)
        deviations = {
            name: number(value, name)
            for name, value in mapping(said.get("deviations"), "deviations").items()
        }
    except ValueError as error:
        raise ArtifactError(
            f"{bundle.file}: its sample cannot be read: {error}", hint=_HINT
        ) from None
    request = Replay(target, str(bundle.file), str(files[0]), str(files[1]), deviations)
    try:
        found, _ = alone(
            replay,
            request,
            artifact=str(bundle.file),
            runtimes=(target.runtime,),
            threads=target.threads,
            time_limit_s=time_limit_s,
        )
    except ConfigError as error:  # of inputs that a person gives
        raise ArtifactError(error.message, hint=_HINT) from None
    recorded = bundle.metrics.get("inputs")
    if target == bundle.target() and recorded != found["inputs"]:
        raise ArtifactError(
            f"{bundle.file}: declares the inputs {found['inputs']}, recorded are {recorded}",
            hint="this runtime reads the file otherwise than the one that it was measured with",
        )
    worst = max(found["outputs"].values(), key=lambda output: float(output["relative_error"]))
    result = Replayed(
        int(worst["items"]),
        float(worst["relative_error"]),
        float(worst["max_abs_error"]),
        max(int(output["other_choice"]) for output in found["outputs"].values()),
        tolerance,
        target.name,
    )
    if result.relative_error > tolerance:
        raise ArtifactError(
            f"{bundle.file}: {result}: more than is allowed",
            hint="this runtime, or this machine, computes something else than was measured",
        )
    return result


def moved(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What differs between two hosts as `describe_host` has them: name -> (then, now), each ''
    where it is not known. Libraries by their names.
    """
    before, after = (_facts(host) for host in (then, now))
    return {
        name: (before.get(name, ""), after.get(name, ""))
        for name in dict.fromkeys([*before, *after])
        if before and before.get(name, "") != after.get(name, "")
    }


def _facts(host: Mapping[str, Any]) -> dict[str, str]:
    facts = {name: host.get(name, "") for name in ("cpu", "cores", "os", "python")}
    versions = host.get("versions")
    facts |= dict(versions) if isinstance(versions, Mapping) else {}
    return {str(k): printable(v)[:200] for k, v in facts.items() if v} if host else {}


def _measurement(plain: Mapping[str, Any], name: str) -> Measurement:
    return Measurement(
        number(plain["mean"], name),
        number(plain["stderr"], name, negative=False),
        whole(plain["n"], name),
        text(plain["unit"], name),
        text(plain["host"], name),
    )
