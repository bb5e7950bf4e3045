"""A study as one of Optuna's, for its dashboard and whatever else reads Optuna's storage."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from petra.core.errors import ArtifactError, ConfigError
from petra.core.pipeline import Value
from petra.core.trial import Proposal, Trial
from petra.report.pipeline_text import pipeline_in_words
from petra.report.record import StudyRecord
from petra.search.choices import written
from petra.search.optuna_search import direction, library, quietly
from petra.store.layout import own_file
from petra.store.schema import petra_version
from petra.store.store import Store

DATABASES, JOURNALS = (".db", ".sqlite", ".sqlite3"), (".journal", ".log", ".jsonl")


def export_optuna(
    directory: Path, out: Path, *, name: str | None = None, artifacts: Path | None = None
) -> int:
    """Write the study in `directory` to `out`, an SQLite database or, by its ending, a journal file
    of Optuna's, under `name` (default: the directory's); how many trials it has.

    Numbers are petra's; trial 0 is the untouched model. Every trial has its choices as parameters
    (`petra.search.choices`), within the range of what the study tried; the objectives as values;
    relative violations as constraints, above 0 where violated; all else that is known of it as user
    attributes. What failed is FAIL, what was left before it was measured in full PRUNED, what was
    proposed and has not finished WAITING. Times are those of the study's first session, with later
    sessions following at once. With `artifacts`, the model files are copied there as Optuna's
    artifacts: give the dashboard the same directory as ``--artifact-dir``.

    Raises ConfigError for a file that exists or has another ending, MissingExtra without the extra
    ``optuna``, StoreError as `StudyRecord.load`.
    """
    optuna = library()
    if out.suffix not in DATABASES + JOURNALS:
        allowed = ", ".join((*DATABASES, *JOURNALS))
        raise ConfigError(f"{out}: is neither database nor journal", hint=f"end it in {allowed}")
    if out.exists():
        raise ConfigError(f"{out}: exists already", hint="give another name, or remove it")
    record = StudyRecord.load(directory)
    with Store.open(directory, write=False) as store:
        began, proposals = store.created, store.proposals()
    trials = {trial.number: trial for trial in record.trials}
    ranges = _ranges(optuna, proposals)
    files = None if artifacts is None else _Artifacts(optuna, directory, artifacts)
    with quietly(optuna), _storage(optuna, out) as storage:
        study = optuna.create_study(
            storage=storage,
            study_name=name or directory.resolve().name,
            directions=[direction(optuna, o) for o in record.objectives],
        )
        study.set_metric_names([o.metric for o in record.objectives])
        for key, fact in _facts(record).items():
            study.set_user_attr(key, fact)
        for proposal in proposals:
            trial = trials.get(proposal.number)
            study.add_trial(_frozen(optuna, record, proposal, trial, ranges, began, files))
    return len(proposals)


def _ranges(optuna: Any, proposals: Sequence[Proposal]) -> dict[str, Any]:
    """For every choice the distribution that spans what was tried."""
    tried: dict[str, set[Value]] = {}
    for proposal in proposals:
        for name, value in written(proposal.pipeline).items():
            tried.setdefault(name, set()).add(value)
    return {name: _range(optuna, values) for name, values in tried.items()}


def _range(optuna: Any, values: set[Value]) -> Any:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        return optuna.distributions.CategoricalDistribution(sorted(values, key=repr))
    if any(isinstance(v, float) for v in numbers):
        return optuna.distributions.FloatDistribution(float(min(numbers)), float(max(numbers)))
    return optuna.distributions.IntDistribution(min(numbers), max(numbers))


def _facts(record: StudyRecord) -> dict[str, Any]:
    return {
        "written by": f"petra {petra_version()}",
        "directory": str(record.directory),
        "target": record.config.target.name,
        "quality": record.metric,
        "constraints": [str(c) for c in record.constraints],
        "seed": record.config.seed,
        "seconds": record.elapsed_s,
        "stopped": record.stop_reason,
        "host": dict(record.host),
    }


def _frozen(
    optuna: Any,
    record: StudyRecord,
    proposal: Proposal,
    trial: Trial | None,
    ranges: Mapping[str, Any],
    began: datetime,
    files: _Artifacts | None,
) -> Any:
    params = written(proposal.pipeline)
    states, system = optuna.trial.TrialState, {}
    state, values = states.WAITING, None
    if trial is not None:
        left = trial.measured or (trial.failure is not None and trial.failure.stage == "screen")
        state = states.COMPLETE if trial.comparable else states.PRUNED if left else states.FAIL
        if trial.comparable:
            base = record.trials[0].metrics
            values = [trial.metrics[o.metric].mean for o in record.objectives]
            # A list is what Optuna and its dashboard both read.
            system["constraints"] = [c.violation(trial.metrics, base) for c in record.constraints]
        system |= files.of(trial) if files else {}
    frozen = optuna.trial.create_trial(
        state=state,
        values=values,
        params=params,
        distributions={name: ranges[name] for name in params},
        user_attrs=_attributes(record, proposal, trial),
        system_attrs=system,
    )
    if trial is not None:
        ended = began.astimezone().replace(tzinfo=None) + timedelta(seconds=trial.finished_at)
        frozen.datetime_complete = ended
        frozen.datetime_start = ended - timedelta(seconds=trial.seconds)
    return frozen


def _attributes(record: StudyRecord, proposal: Proposal, trial: Trial | None) -> dict[str, Any]:
    """What Optuna has no place for."""
    found: dict[str, Any] = {
        "pipeline": pipeline_in_words(proposal.pipeline),
        "origin": proposal.origin.name,
    }
    if proposal.origin.parent is not None:
        found["parent"] = proposal.origin.parent
    if not proposal.fidelity.full:
        found["fidelity"] = str(proposal.fidelity)
    if trial is None:
        return found
    found |= {"status": trial.status.value, "artifact": trial.artifact}
    for split, metrics in (("", trial.metrics), ("test ", trial.test)):
        for name, measurement in metrics.items():
            found[f"{split}{name}"] = measurement.mean
            if measurement.stderr:
                found[f"{split}{name} stderr"] = measurement.stderr
    found |= {f"parity {name}": error for name, error in trial.parity.items()}
    if trial.failure is not None:
        failure = trial.failure
        found["failure"] = f"{failure.stage}: {failure.kind}: {failure.message}"
    if trial.number in record.unconfirmed:
        found["not confirmed"] = record.unconfirmed[trial.number]
    return found


class _Artifacts:
    """Copies model files to a directory as Optuna's artifacts."""

    def __init__(self, optuna: Any, study: Path, place: Path) -> None:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{place}: cannot be made: {error.strerror}", hint="give another directory"
            ) from error
        self._upload = optuna.artifacts.upload_artifact
        self._store = optuna.artifacts.FileSystemArtifactStore(str(place))
        with quietly(optuna):
            self._scratch = optuna.create_study()
        self._study = study

    def of(self, trial: Trial) -> dict[str, Any]:
        """What Optuna notes with a trial about its files; nothing where they are gone."""
        if not trial.artifact:
            return {}
        try:
            main = own_file(self._study, trial.artifact)
        except ArtifactError:
            return {}
        notes = self._scratch.ask()
        for file in sorted(main.parent.glob(f"{main.stem}.*")):
            inside = own_file(self._study, str(file.relative_to(self._study)))
            self._upload(artifact_store=self._store, file_path=str(inside), study_or_trial=notes)
        return dict(self._scratch.get_trials()[notes.number].system_attrs)


@contextmanager
def _storage(optuna: Any, out: Path) -> Iterator[Any]:
    """A storage that becomes the file `out` when all has gone well."""
    try:
        room = tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".petra-")
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be written: {error.strerror}", hint="give another place"
        ) from error
    with room as directory:
        file = Path(directory) / out.name
        if out.suffix in JOURNALS:
            backend = optuna.storages.journal.JournalFileBackend(str(file))
            yield optuna.storages.JournalStorage(backend)
        else:
            storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
            yield storage
            storage.remove_session()
            storage.engine.dispose()
        file.replace(out)
