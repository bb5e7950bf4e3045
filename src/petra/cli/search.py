"""petra demo, run, resume: search, watch, and say what to do next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petra.cli.asked import asked_for
from petra.cli.budget import extended, is_finished
from petra.cli.completion import WorkloadOption
from petra.cli.conduct import conduct
from petra.cli.output import JsonFlag, note, say, say_json, width

if TYPE_CHECKING:
    from petra.report.record import StudyRecord
    from petra.study import Study

DEMO_TIME = "150 s"
DEMO_CONSTRAINT = "quality >= baseline - 0.03"
# An epoch of a thousand digits is a fraction of a second and a dozen steps: the usual few repair
# nothing.
DEMO_TRAINING: dict[str, Any] = {
    "epochs": [5, 20],
    "batch_size": 64,
    "penalty": "none",
    "mixup": 0.0,
}
# What a small convolutional network has use for.
DEMO_STAGES: dict[str, dict[str, Any]] = {
    "tune": DEMO_TRAINING,
    "distill": DEMO_TRAINING,
    "prune.structured": {
        "importance": ["magnitude", "taylor", "fpgm", "lamp"],
        "schedule": "one_shot",
    },
    "prune.depth": {},
    "lowrank.svd": {"epochs": 0},
    "repair.reconstruct": {},
    "quantize.static": {"equalize": "none", "embeddings": "float"},
}
Trust = Annotated[
    bool, typer.Option("--trust", help="Call what a study names, whoever started it.")
]
Confirm = Annotated[
    int | None,
    typer.Option(min=0, help="Build every member of the final front again with so many seeds."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


def demo(
    workdir: Annotated[Path, typer.Option(help="Where the study goes.")] = Path("petra-demo"),
    time: Annotated[
        str, typer.Option(help="Time to search, such as '90 s' or '5 min'.")
    ] = DEMO_TIME,
    quiet: Quiet = False,
    as_json: JsonFlag = False,
) -> None:
    """Compress a small digits classifier, in about three minutes: search, front, report, model
    files.

    Run it again to continue an interrupted demo.

    For example:

    - `petra demo`
    - `petra demo --workdir /tmp/try --time "5 min"`
    """
    from petra.config import parse_config
    from petra.store.store import Store

    data = {
        "workload": "digits",
        "constraints": (DEMO_CONSTRAINT,),
        "budget": {"time": time},
        "space": {"stages": DEMO_STAGES},
        "workdir": str(workdir),
    }
    config = parse_config(data, where="demo")
    record = _record(workdir) if Store.exists(workdir) else None
    same = record is not None and all(
        getattr(record.config, k) == getattr(config, k) for k in ("workload", "constraints")
    )
    allowed = (record.config.budget.time if record else None) or 0.0
    if same and record and is_finished(record) and allowed >= (config.budget.time or 0.0):
        note(
            f"{workdir}: the demo has finished already; it searches on with: petra resume {workdir}"
            " --time '+2 min'"
        )
    else:
        from petra.api import create_or_continue
        from petra.listener import Phase
        from petra.sources import resolve_source
        from petra.store.layout import check_writable

        check_writable(workdir)

        def make(say: Callable[[str], None]) -> Study:
            say(Phase("training the digits classifier"))
            return create_or_continue(config, *resolve_source(config), note=say)

        conduct(make, quiet=quiet)
    _conclude(workdir, as_json=as_json, exports=("knee", "smallest"))


def run(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.yaml]", help="The study file.")
    ] = None,
    workload: WorkloadOption = None,
    workload_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An argument of the workload, as in a study file."),
    ] = None,
    workdir: Annotated[
        Path | None,
        typer.Option(
            help="Where the study goes, instead of the file's workdir; of a workload, runs/NAME."
        ),
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Time to search, such as '30 min', instead of the file's.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Number of trials, instead of the file's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, instead of the file's.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates built side by side, instead of what trains most."),
    ] = None,
    recipes: Annotated[
        bool | None,
        typer.Option(
            "--recipes/--no-recipes",
            help="Whether petra's own pipelines are tried first, instead of what the file says.",
        ),
    ] = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help="A past study, or a folder of some, to learn from, instead of the file's.",
        ),
    ] = None,
    prior: Annotated[
        bool | None,
        typer.Option(
            "--prior/--no-prior",
            help="Whether the search begins with what petra has learnt elsewhere.",
        ),
    ] = None,
    confirm: Confirm = None,
    quiet: Quiet = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a study from a YAML file, or continue it where it stopped.

    Functions named as `package.module:callable` are looked for beside the file, in the current
    directory and in the environment.

    For example:

    - `petra run study.yaml`
    - `petra run study.yaml --time "2 h" --workers 4 --workdir runs/first`
    - `petra run --workload ucr/GunPoint --time 20m`
    - `petra run --workload ucr --workload-arg name=Wafer --workload-arg network=lstm_fcn`
    - `petra run study.yaml --warm-start runs --workdir runs/second`
    """
    changes: dict[str, Any] = {
        "workdir": None if workdir is None else str(workdir),
        "seed": seed,
        "budget": _given(time=time, trials=trials, confirm=confirm),
        "limits": _given(workers=workers),
        "space": _given(recipes=recipes),
        "prior": _given(shipped=prior, studies=warm_start or None),
    }
    config = asked_for(study, workload, workload_arg, _given(**changes))  # before torch is loaded

    from petra.api import study_from_config

    ready = conduct(lambda say: study_from_config(config, study, note=say), quiet=quiet)
    _conclude(ready.directory, as_json=as_json)


def resume(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The study's directory.")],
    time: Annotated[
        str | None, typer.Option(help="New total time, such as '1 h'; '+10 min' adds to it.")
    ] = None,
    trials: Annotated[
        str | None, typer.Option(help="New total number of trials; '+20' adds to it.")
    ] = None,
    confirm: Confirm = None,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: JsonFlag = False,
) -> None:
    """Continue a study exactly where it stopped, with more budget if you give it.

    A limit that is spent and not raised here is lifted when you raise another one. Going on calls
    the functions that the study names: for one that was not started by you on this machine, petra
    says which, and wants --trust.

    For example:

    - `petra resume petra-demo --time "+10 min"`
    - `petra resume runs/first --trials 200`
    - `petra resume runs/first --confirm 4`
    """
    record = _record(directory)
    budget = extended(record, time, trials, confirm)
    if budget is None and is_finished(record):
        note(f"{directory}: finished: {record.stop_reason}")
        note(f"search on with: petra resume {directory} --time '+10 min'")
        _conclude(directory, as_json=as_json)
        return

    from petra.api import resume_study

    conduct(lambda say: resume_study(directory, budget=budget, trust=trust, note=say), quiet=quiet)
    _conclude(directory, as_json=as_json)


# ---- steps ---------------------------------------------------------------------------------------


def _given(**options: Any) -> dict[str, Any] | None:
    """The options that a person gave; None when there are none."""
    return {name: value for name, value in options.items() if value is not None} or None


def _conclude(directory: Path, *, as_json: bool, exports: tuple[str, ...] = ()) -> None:
    """The front, the report, exported bundles, and what to do next."""
    from petra.progress.ending import verdict
    from petra.report.bundle import default_place
    from petra.report.html import write_report
    from petra.report.plain import front_data
    from petra.report.study_front import StudyFront
    from petra.report.tables import front_view

    record = _record(directory)
    front = StudyFront.of_record(record)
    report = write_report(directory)
    chosen = exports if front.members else ()
    bundles = {pick: front.pick(pick).export(default_place(directory, pick)) for pick in chosen}
    if as_json:
        paths = {pick: str(path) for pick, path in bundles.items()}
        more = {"stop_reason": record.stop_reason, "report": str(report), "exported": paths}
        say_json(front_data(front) | more)
        return
    say(front_view(front, width=width()))
    say("")
    if said := verdict(front):
        say(said)
    say(f"stopped:   {record.stop_reason}")
    say(f"report:    {report}")
    for pick, path in bundles.items():
        say(f"{pick + ':':10s} {path}")
    say("Next:")
    if bundles:
        path = next(iter(bundles.values()))
        say(f"  petra verify {path}")
        say(f"  petra bench {path} --against {directory / 'artifacts' / '00000' / path.name}")
    elif front.members:
        say(
            f"  petra export {directory} --pick knee --to"
            f" model{Path(front.members[0].artifact).suffix}"
        )
    say(f"  petra resume {directory} --time '+10 min'")


def _record(directory: Path) -> StudyRecord:
    from petra.report.record import StudyRecord

    return StudyRecord.load(directory)
