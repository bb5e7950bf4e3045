"""What a study file says, as a record that holds only what is valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from petra.config.sections import (
    BudgetConfig,
    CallbackConfig,
    CallConfig,
    LimitsConfig,
    Place,
    PriorConfig,
    Record,
    SavingsConfig,
    SpaceConfig,
    Whole,
    WorkloadConfig,
    call_of,
    constraint,
)
from petra.core.errors import ConfigError
from petra.core.metric import resolve_metric
from petra.core.objective import Constraint, check_attainable
from petra.core.target import Target
from petra.core.text import shown

SHORT: Mapping[str, str] = {
    "workload": "name",
    "model": "call",
    "task": "call",
    "target": "runtime",
    "budget": "time",
    "search": "name",
}
"""Sections of which one key says enough: ``budget: 1 min`` is ``budget: {time: 1 min}``."""


def in_full(section: str, value: object) -> object:
    """What a study file says of a section, with the key that a value alone stands for."""
    if section in ("model", "task"):
        return call_of(value)
    alone = isinstance(value, str) or (section == "budget" and _is_number(value))
    return {SHORT[section]: value} if alone and section in SHORT else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class StudyConfig(Record):
    """Everything that defines a study. Either `workload`, or `model` and `task`; none of them when
    a study was started from live Python objects. `virtual_workers` are those of
    `petra.search.schedule.VirtualSchedule`: from how old results proposals are made.
    """

    workload: WorkloadConfig | None = None
    model: CallConfig | None = None
    task: CallConfig | None = None
    target: Target = Target()
    objectives: tuple[str, ...] = ("quality", "latency", "size")
    constraints: tuple[str, ...] = ()
    budget: BudgetConfig = BudgetConfig(time=600.0)
    search: Mapping[str, Any] = Field(default_factory=lambda: {"name": "surrogate"})
    space: SpaceConfig = SpaceConfig()
    limits: LimitsConfig = LimitsConfig()
    virtual_workers: Annotated[Whole, Field(ge=1, le=10_000)] = 4
    savings: SavingsConfig = SavingsConfig()
    prior: PriorConfig = PriorConfig()
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0
    device: str = "cpu"
    executor: Annotated[str, Field(max_length=200)] = "local"
    callbacks: Annotated[tuple[CallbackConfig, ...], Field(max_length=100)] = ()
    workdir: Place = "petra-study"

    @field_validator(*SHORT, mode="before")
    @classmethod
    def _in_short(cls, value: object, info: ValidationInfo) -> object:
        return in_full(str(info.field_name), value)

    @field_validator("target", mode="before")
    @classmethod
    def _no_truth_in_target(cls, value: object) -> object:
        for key, size in value.items() if isinstance(value, Mapping) else ():
            if isinstance(size, bool):
                raise ValueError(f"{key}: got {str(size).lower()}, a name or a number is wanted")
        return value

    @field_validator("callbacks", mode="before")
    @classmethod
    def _callbacks_by_name(cls, value: object) -> object:
        listed = [value] if isinstance(value, str | Mapping) else value
        if not isinstance(listed, list | tuple):
            raise ValueError(f"got {shown(value)}, a list of callbacks is wanted: [csv, mlflow]")
        return [{"name": one} if isinstance(one, str) else one for one in listed]

    @field_validator("objectives")
    @classmethod
    def _known_metrics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("give at least one objective")
        resolved = []
        for name in value:
            try:
                resolved.append(resolve_metric(name, where="objectives", own=None))
            except ConfigError as error:
                raise ValueError(f"{error.message.partition(': ')[2]}; {error.hint}") from None
        if len(set(resolved)) != len(resolved):
            raise ValueError("an objective is named twice")
        return tuple(resolved)

    @field_validator("constraints")
    @classmethod
    def _readable_constraints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parsed = [constraint(text, where=f"[{i}]") for i, text in enumerate(value)]
        try:
            check_attainable(parsed, where="")
        except ConfigError as error:
            raise ValueError(f"{error.message.removeprefix(': ')}; {error.hint}") from None
        return value

    @model_validator(mode="before")
    @classmethod
    def _stagnation_of_evolution(cls, data: object) -> object:
        """Study files once gave it to that search, in generations. Values are checked later."""
        search = data.get("search") if isinstance(data, Mapping) else None
        if not isinstance(data, Mapping) or not isinstance(search, Mapping):
            return data
        if search.get("name", "evolution") != "evolution":
            return data
        rest = {k: v for k, v in search.items() if k not in ("stagnation", "epsilon")}
        moved: dict[str, Any] = {}
        offspring = search.get("offspring", 8)
        if "stagnation" in search:
            given = search["stagnation"]
            whole = type(given) is int and type(offspring) is int
            moved["stagnation"] = given * offspring if whole else given
        if "epsilon" in search:
            moved["progress"] = search["epsilon"]
        budget = in_full("budget", data.get("budget", {"time": 600.0}))
        if not moved or not isinstance(budget, Mapping):
            return data
        return {**data, "search": rest, "budget": {**moved, **budget}}

    @model_validator(mode="after")
    def _one_source(self) -> StudyConfig:
        if self.workload is not None and (self.model is not None or self.task is not None):
            raise ValueError("give either workload, or model and task, not both")
        if (self.model is None) != (self.task is None):
            raise ValueError("model and task go together; one of them is missing")
        return self

    @field_validator("device")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > 40:
            raise ValueError(f"no such device: {shown(value)}")
        return value

    @field_validator("search")
    @classmethod
    def _searcher(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(value.get("name", ""), str):
            raise ValueError(f"name: got {shown(value['name'])}, the name of a searcher is wanted")
        return value

    @property
    def has_source(self) -> bool:
        """Whether the study can be run from this file alone."""
        return self.workload is not None or self.model is not None

    def parsed_constraints(self) -> tuple[Constraint, ...]:
        return tuple(Constraint.parse(text, own=None) for text in self.constraints)

    def parsed_goal(self) -> tuple[Constraint, ...]:
        return tuple(Constraint.parse(text, own=None) for text in self.budget.goal)

    def metrics_named(self) -> dict[str, str]:
        """Metrics that objectives, constraints and goal are about, each with the key that names it.

        Names that petra does not know are the task's, or wrong: which, only the task can tell.
        """
        wanted = dict.fromkeys(self.objectives, "objectives")
        wanted |= {c.metric: "constraints" for c in self.parsed_constraints()}
        return wanted | {c.metric: "budget.goal" for c in self.parsed_goal()}
