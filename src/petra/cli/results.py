"""petra show, report, export, export-optuna: look at a study and take models out of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from petra.cli.completion import pick_names
from petra.cli.output import JsonFlag, note, say, say_json, width
from petra.cli.watch import follow, seconds_between
from petra.core.errors import ConfigError

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The study's directory.")]


def show(
    directory: Directory,
    everything: Annotated[
        bool, typer.Option("--all", help="All trials and failures, not only the front.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep it up while the study runs, until Ctrl-C.")
    ] = False,
    every: Annotated[str, typer.Option(help="How often --watch looks.")] = "5 s",
    as_json: JsonFlag = False,
) -> None:
    """Show the front of a study, which may still be running.

    For example:

    - `petra show petra-demo`
    - `petra show petra-demo --all`
    - `petra show petra-demo --watch --every 10s`
    - `petra show petra-demo --json | jq '.front[].words'`
    """
    if watch:
        if as_json or everything:
            raise ConfigError("--watch shows the front alone", hint="leave out --all and --json")
        follow(directory, seconds_between(every))
        return

    from petra.report.outcomes import failures_view
    from petra.report.plain import front_data, trial_data
    from petra.report.study_front import StudyFront
    from petra.report.tables import front_view, trials_view

    front = StudyFront.load(directory)
    if as_json:
        data = front_data(front)
        say_json(data | {"all": [trial_data(t) for t in front.trials]} if everything else data)
        return
    if not everything:
        say(front_view(front, width=width()))
        return
    say(trials_view(front, width=width()))
    if any(t.failed for t in front.trials):
        say("\nFailures")
        say(failures_view(front))


def report(
    directory: Directory,
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; by default report.html in the study.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the report of a study: one HTML file that needs no network.

    A directory that is missing for it is made, and said to be.

    For example:

    - `petra report petra-demo`
    - `petra report petra-demo --out digits.html`
    """
    from petra.report.html import write_report

    missing = [] if out is None else [place for place in out.parents if not place.exists()]
    path = write_report(directory, out)
    if missing:
        note(f"made the directory {missing[0]}")
    if as_json:
        say_json({"report": str(path)})
    else:
        say(str(path))


def export(
    directory: Directory,
    pick: Annotated[
        str,
        typer.Option(
            help="smallest, fastest, best, knee, or the number of a trial on the front.",
            autocompletion=pick_names,
        ),
    ] = "knee",
    to: Annotated[
        Path | None,
        typer.Option(help="A model file, or a directory for a bundle. Default: DIR/export/PICK"),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="As the study measured it, such as onnx: any other is refused."),
    ] = None,
    modules: Annotated[
        bool,
        typer.Option(
            "--modules",
            help="Also the modules that were trained beside its layers, in a directory modules.",
        ),
    ] = False,
    preprocessing: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="What raw data goes through before the file, for its users."
        ),
    ] = "",
    sample: Annotated[
        int,
        typer.Option(
            min=0, max=1000, help="Validation items that go with the file; 0 where none may leave."
        ),
    ] = 16,
    as_json: JsonFlag = False,
) -> None:
    """Copy a measured model out, with its pipeline, figures, parity result, a sample with what it
    returns, and model card.

    For example:

    - `petra export petra-demo --pick knee`
    - `petra export petra-demo --pick smallest --to model.onnx`
    - `petra export petra-demo --pick 17 --to models/seventeen/`
    - `petra export my-study --pick best --modules`
    - `petra export my-study --preprocessing "pixels / 255"`
    """
    from petra.report.bundle import default_place
    from petra.report.study_front import StudyFront

    member = StudyFront.load(directory).pick(pick)
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        path = member.export(
            to or default_place(directory, pick),
            format,
            modules=modules,
            preprocessing=preprocessing,
            sample=sample,
        )
    said = [str(remark.message).removeprefix(f"{path}: ") for remark in remarks]
    if as_json:
        say_json({"trial": member.number, "file": str(path), "picked": pick, "notes": said})
        return
    for remark in said:
        note(f"note: {remark}")
    say(f"{path}: {member}")
    if not member.trial.pipeline.stages:
        say("This is the untouched model: nothing that was tried beats it here.")


def export_optuna(
    directory: Directory,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="A file that is not there: OUT.db is SQLite, OUT.log a journal."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The study's name there; by default the directory's.")
    ] = None,
    artifacts: Annotated[
        Path | None, typer.Option(help="Copy the model files here, as Optuna's artifacts.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a study into a storage of Optuna's, for its dashboard. Needs the extra optuna.

    For example:

    - `petra export-optuna petra-demo demo.db`
    - `petra export-optuna petra-demo demo.db --artifacts demo-files`
    - `optuna-dashboard sqlite:///demo.db --artifact-dir demo-files`
    """
    from petra.report.optuna_export import export_optuna as write

    trials = write(directory, out, name=name, artifacts=artifacts)
    if as_json:
        say_json({"file": str(out), "trials": trials})
    else:
        say(f"{out}: {trials} trials")
