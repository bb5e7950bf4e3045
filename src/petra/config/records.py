"""What a study file says, as records that hold only what is valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from petra.core.errors import ConfigError
from petra.core.metric import resolve_metric
from petra.core.objective import Constraint, check_attainable
from petra.core.quantities import parse_bytes, parse_duration
from petra.core.target import Target
from petra.core.text import printable, shown


def _no_truth(value: object) -> object:
    """YAML reads yes and on as true, which Python takes for 1."""
    if isinstance(value, bool):
        raise ValueError(f"got {str(value).lower()}, a number is wanted")
    return value


Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Whole = Annotated[int, BeforeValidator(_no_truth)]
_NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class CallConfig(_Record):
    """A function to call: ``package.module:callable`` and its keyword arguments."""

    call: Annotated[str, Field(pattern=f"^{_NAME}:{_NAME}$", max_length=500)]
    args: Mapping[str, Any] = Field(default_factory=dict)


class WorkloadConfig(_Record):
    """A built-in workload by name, with its arguments."""

    name: str
    args: Mapping[str, Any] = Field(default_factory=dict)


class BudgetConfig(_Record):
    """When to stop, whichever comes first. `generations`: so many times the trials that the
    searcher calls one (evolution: `offspring`). `goal`: begin nothing more as soon as one trial
    satisfies all of these constraints. `stagnation`: after so many trials in which neither
    the hypervolume grew by the share `progress` nor, with nothing feasible yet, the least violation
    shrank by it; 0: never. `confirm`: with how many other seeds every member of the final front is
    built again, to see what it owes to luck.
    """

    time: Seconds | None = None
    trials: Annotated[Whole, Field(ge=1, le=10**9)] | None = None
    generations: Annotated[Whole, Field(ge=1, le=10**9)] | None = None
    goal: tuple[str, ...] = ()
    stagnation: Annotated[Whole, Field(ge=0, le=10**9)] | None = 80
    progress: Annotated[float, BeforeValidator(_no_truth), Field(ge=0, le=1)] = 1e-3
    confirm: Annotated[Whole, Field(ge=0, le=100)] = 0

    @field_validator("goal", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("goal")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for i, text in enumerate(value):
            _parsed(text, where=f"goal[{i}]")
        return value

    @model_validator(mode="after")
    def _bounded(self) -> BudgetConfig:
        if self.time is None and self.trials is None and self.generations is None:
            raise ValueError(
                "give at least one of time, trials, generations, or the search would never end"
            )
        return self


class SpaceConfig(_Record):
    """The pipelines searched: which stages (default: all), ranges narrowed, greatest length.

    `stages` maps a stage to narrowed domains: ``{prune.structured: {ratio: [0.1, 0.5], importance:
    [magnitude]}}``; two numbers are an interval, a list is a set of choices, a single value fixes
    the parameter. `initial` are pipelines to try first, each a list of stages: ``[[{stage:
    prune.structured, params: {ratio: 0.3}}, distill]]``. `recipes`: whether petra's own come after
    them.
    """

    stages: Mapping[str, Mapping[str, Any]] | None = None
    max_length: Annotated[Whole, Field(ge=1, le=20)] = 4
    initial: tuple[tuple[Any, ...], ...] = ()
    recipes: bool = True

    @field_validator("stages", mode="before")
    @classmethod
    def _names_only(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            odd = [name for name in value if not isinstance(name, str)]
            if odd:
                raise ValueError(f"got {shown(odd[0])}, the name of a stage is wanted")
            return {name: {} for name in value}
        if isinstance(value, Mapping):
            return {name: {} if ranges is None else ranges for name, ranges in value.items()}
        return value


class LimitsConfig(_Record):
    """What one trial may use, how many are built at a time, and the cache's size."""

    trial_time: Seconds = 1800.0
    trial_memory: Bytes = 8 * 2**30
    workers: Annotated[Whole, Field(ge=1, le=256)] = 1
    build_threads: Annotated[Whole, Field(ge=1, le=1024)] | None = None
    cache: Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)] = 2 * 2**30


class SavingsConfig(_Record):
    """What a study does without to be faster, each saving by its own switch.

    `screen`: a candidate that trains is first built without training, and trained only if its costs
    are within the constraints and could extend the front. `quality_gate`: its quality in PyTorch
    decides before export whether it is hopeless. `learning_curves`: while it trains, so does the
    best quality that it could still reach. `timing`: its latency is timed until it is decided what
    it is worth, and throughput only where something is about it. None changes what a model is
    confirmed to be. One in ten of those that any of the first three would leave is evaluated in
    full all the same, to say how often they are wrong.
    """

    screen: bool = True
    quality_gate: bool = True
    learning_curves: bool = True
    timing: bool = True


class StudyConfig(_Record):
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
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0
    device: str = "cpu"
    executor: Annotated[str, Field(max_length=200)] = "local"
    workdir: str = "petra-study"

    @field_validator("workload", mode="before")
    @classmethod
    def _workload_by_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("target", mode="before")
    @classmethod
    def _target_by_name(cls, value: object) -> object:
        for key, size in value.items() if isinstance(value, Mapping) else ():
            if isinstance(size, bool):
                raise ValueError(f"{key}: got {str(size).lower()}, a name or a number is wanted")
        return {"runtime": value} if isinstance(value, str) else value

    @field_validator("model", "task", mode="before")
    @classmethod
    def _call_by_name(cls, value: object) -> object:
        return {"call": value} if isinstance(value, str) else value

    @field_validator("search", mode="before")
    @classmethod
    def _search_by_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

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
        parsed = [_parsed(text, where=f"[{i}]") for i, text in enumerate(value)]
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
        budget = data.get("budget", {"time": 600.0})
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

    @field_validator("workdir")
    @classmethod
    def _place(cls, value: str) -> str:
        if not value.strip() or value != printable(value) or len(value) > 4096:
            raise ValueError(f"got {shown(value)}, the path of a directory is wanted")
        if value.startswith("~"):
            raise ValueError("~ stands for nothing here; write the path in full")
        return value

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


def _parsed(text: str, *, where: str) -> Constraint:
    try:
        return Constraint.parse(text, where=where, own=None)
    except ConfigError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None
