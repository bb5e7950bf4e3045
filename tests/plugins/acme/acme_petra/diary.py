import json

from petra.plugins import Callback, Clock, Front, StudyRun, Trial


class Diary(Callback):
    """A line of JSON for each trial, and how large the front became, in the study's directory."""

    name = "acme.diary"

    def __init__(self, file: str = "diary.jsonl") -> None:
        self.file = file

    def on_study_start(self, run: StudyRun) -> None:
        self.path = run.directory / self.file
        run.keep({"sessions": (run.kept or {"sessions": 0})["sessions"] + 1})

    def on_trial_end(self, trial: Trial, clock: Clock) -> None:
        self.write(trial=trial.number, ended=trial.status.value)

    def on_front_change(self, front: Front) -> None:
        self.write(members=[member.number for member in front.members])

    def write(self, **line: object) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
