"""petra bench FILE...: model files measured as they are, whoever made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petra.cli.artifact import (
    VERIFY_LIMIT_S,
    in_time,
    inspect_file,
    interface_in,
    shape_text,
    target_of,
)
from petra.cli.bench_tables import cells, conditions, table_of
from petra.cli.output import say, say_json
from petra.core.errors import ConfigError
from petra.core.target import Target

if TYPE_CHECKING:
    from petra.core.interface import Interface
    from petra.core.measurement import Measurement
    from petra.measure.bench_main import Request

BENCH_LIMIT_S = 600.0
"""Time for all measurements of a file.

Of a model that takes seconds a call, there are hundreds of calls.
"""


@dataclass(frozen=True)
class How:
    """What files are measured with: what the command line says.

    `names`: runtimes, () for the file's own.
    """

    against: Path | None
    names: Sequence[str]
    given: Mapping[str, Any]
    inputs: Path | None
    time_limit_s: float


@dataclass(frozen=True)
class _Row:
    file: Path
    request: Request
    interface: Interface
    metrics: Mapping[str, Measurement] = field(default_factory=dict)

    @property
    def fixed(self) -> bool:
        """Whether the file takes one batch only."""
        return not self.interface.free_batch


def bench_files(files: Sequence[Path], how: How, *, as_json: bool) -> None:
    from petra.measure.launches import LAUNCHES

    files = list(dict.fromkeys(([how.against] if how.against else []) + list(files)))
    rows = [_row(file, name, how) for file in files for name in how.names or (None,)]
    # File by file and then all again, so that the launches of one are apart in time.
    launches = [[_launch(row, how) for row in rows] for _ in range(LAUNCHES)]
    rows = [_measured(row, found, how) for row, *found in zip(rows, *launches, strict=True)]
    several = len(how.names) > 1
    if as_json:
        say_json(_as_plain(rows, how, several=several))
        return
    table = table_of(
        ["file", "runtime"] if several else ["file"], ratio=several or how.against is not None
    )
    for row in rows:
        table.add_row(
            str(row.file), *([row.request.target.name] if several else []), *cells(row.metrics)
        )
    say(table)
    usual = next((row.request for row in rows if not row.fixed), rows[0].request).target
    inputs = "random inputs" if how.inputs is None else f"inputs from {how.inputs}"
    say(f"{conditions(usual.threads, usual.batch, usual.throughput_batch)}; {inputs}")
    if how.against is not None:
        say(
            f"{how.against} is the reference: what its own ratio is off 1 by is what two runs of"
            " one file differ by"
        )
    for file, batch in {row.file: row.request.target.batch for row in rows if row.fixed}.items():
        say(f"note: {file} was measured at batch {batch}: its sizes leave no other")


def _as_plain(rows: Sequence[_Row], how: How, *, several: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows:
        metrics = {name: m.as_dict() for name, m in row.metrics.items()}
        if several:
            found.setdefault(str(row.file), {})[row.request.target.name] = metrics
        else:
            found[str(row.file)] = metrics
    usual = Target(**how.given)
    return {
        "against": str(how.against) if how.against else None,
        "threads": usual.threads,
        "batch": usual.batch,
        "fixed_batch": {str(row.file): row.request.target.batch for row in rows if row.fixed},
        "files": found,
    }


def _row(file: Path, name: str | None, how: How) -> _Row:
    """What is to be measured of one file on one runtime."""
    from petra.measure.bench_main import Request
    from petra.measure.host import describe_host
    from petra.measure.launches import PRIOR
    from petra.measure.protocol import Race

    interface = _interface_of(file, name, how)
    other = how.against or file
    if how.against is not None and not _same(
        interface, wanted := _interface_of(how.against, name, how)
    ):
        raise ConfigError(
            f"{file} and {how.against} take different inputs: {_shown(interface)} and"
            f" {_shown(wanted)}",
            hint="only models of one interface can be compared",
        )
    first = target_of(other, how.names[0] if how.names else None, how.given)
    request = Request(
        _at_its_batch(target_of(file, name, how.given), file, interface, how),
        str(file),
        baseline=str(other),
        baseline_target=_at_its_batch(first, file, interface, how),
        confirm=True,
        race=Race(spread=PRIOR.sd),
        host=str(describe_host()["id"]),
    )
    return _Row(file, request, interface)


def _launch(row: _Row, how: How) -> dict[str, Measurement]:
    """What one fresh process finds."""
    from petra.core.measurement import Measurement
    from petra.measure.bench_main import measure_file
    from petra.measure.client import alone

    with in_time():
        plain, _ = alone(
            measure_file,
            row.request,
            row.interface,
            str(how.inputs or ""),
            artifact=row.request.artifact,
            runtimes=row.request.runtimes,
            threads=row.request.target.threads,
            time_limit_s=how.time_limit_s,
        )
    return {key: Measurement(**m) for key, m in plain.items()}


def _measured(row: _Row, launches: Sequence[Mapping[str, Measurement]], how: How) -> _Row:
    """All measurements; the ratios mean something only when there is something else."""
    from petra.core.measurement import Measurement
    from petra.measure.launches import PRIOR, together
    from petra.runtimes.table import files_of

    found = together(launches, PRIOR)
    if how.against is None and len(how.names) < 2:
        found = {key: m for key, m in found.items() if not key.endswith("_ratio")}
    size = sum(f.stat().st_size for f in files_of(row.file))
    return replace(row, metrics=found | {"size_bytes": Measurement(float(size), unit="B")})


def _at_its_batch(target: Target, file: Path, interface: Interface, how: How) -> Target:
    """The target with the batch that a file fixes, in every call."""
    if interface.free_batch:
        return target
    only = interface.fixed_batch or 1
    for option, size in how.given.items():
        if option.endswith("batch") and size != only:
            raise ConfigError(
                f"{file}: takes batches of {only} and no others, not {size}",
                hint=f"leave --{option.replace('_', '-')} out",
            )
    return replace(target, batch=only, throughput_batch=only)


def _interface_of(file: Path, name: str | None, how: How) -> Interface:
    """What a file declares, asked of the runtime its suffix stands for: some others take a minute
    to say.
    """
    from petra.runtimes.table import runtimes_by_suffix

    runtime = runtimes_by_suffix().get(file.suffix, name)
    limit = min(how.time_limit_s, VERIFY_LIMIT_S)
    return interface_in(inspect_file(file, runtime, inputs=how.inputs, time_limit_s=limit))


def _same(one: Interface, other: Interface) -> bool:
    """Whether two files can be fed alike, whatever they call their sizes."""
    return [(s.name, s.dtype, s.shape) for s in one.inputs] == [
        (s.name, s.dtype, s.shape) for s in other.inputs
    ]


def _shown(interface: Interface) -> str:
    return ", ".join(f"{s.name} {s.dtype} {shape_text(s.shape, s.names)}" for s in interface.inputs)
