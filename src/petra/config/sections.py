"""The sections of a study file, as records that hold only what is valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from petra.core.errors import ConfigError
from petra.core.objective import Constraint
from petra.core.quantities import parse_bytes, parse_duration
from petra.core.text import printable, shown


def no_truth(value: object) -> object:
    """YAML reads yes and on as true, which Python takes for 1."""
    if isinstance(value, bool):
        raise ValueError(f"got {str(value).lower()}, a number is wanted")
    return value


def place(value: str) -> str:
    """The path of a directory, as a person gave it. Raises ValueError for what is none."""
    if not value.strip() or value != printable(value) or len(value) > 4096:
        raise ValueError(f"got {shown(value)}, the path of a directory is wanted")
    if value.startswith("~"):
        raise ValueError("~ stands for nothing here; write the path in full")
    return value


Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Whole = Annotated[int, BeforeValidator(no_truth)]
Place = Annotated[str, AfterValidator(place)]
_NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class CallConfig(Record):
    """A function to call: ``package.module:callable`` and its keyword arguments."""

    call: Annotated[str, Field(pattern=f"^{_NAME}:{_NAME}$", max_length=500)]
    args: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def file(self) -> str:
        """The ONNX file that it reads, '' where it is another function."""
        return str(self.args.get("path", "")) if self.call == READ_ONNX else ""


READ_ONNX = "petra.model.imported.build:read_model"


def call_of(value: object) -> object:
    """What a name alone stands for: a function, or as a model the ONNX file that it is."""
    if not isinstance(value, str):
        return value
    if value.lower().endswith(".onnx"):
        return {"call": READ_ONNX, "args": {"path": value}}
    return {"call": value}


class WorkloadConfig(Record):
    """A built-in workload by name, with its arguments."""

    name: str
    args: Mapping[str, Any] = Field(default_factory=dict)


class CallbackConfig(Record):
    """A callback by name, with the arguments that it is made with."""

    name: Annotated[str, Field(max_length=200)]
    args: Mapping[str, Any] = Field(default_factory=dict)


class BudgetConfig(Record):
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
    progress: Annotated[float, BeforeValidator(no_truth), Field(ge=0, le=1)] = 1e-3
    confirm: Annotated[Whole, Field(ge=0, le=100)] = 0

    @field_validator("goal", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("goal")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for i, text in enumerate(value):
            constraint(text, where=f"goal[{i}]")
        return value

    @model_validator(mode="after")
    def _bounded(self) -> BudgetConfig:
        if self.time is None and self.trials is None and self.generations is None:
            raise ValueError(
                "give at least one of time, trials, generations, or the search would never end"
            )
        return self


class SpaceConfig(Record):
    """The pipelines searched: which stages (default: all), ranges narrowed, greatest length.

    `stages` maps a stage to narrowed domains: ``{prune.structured: {ratio: [0.1, 0.5], importance:
    [magnitude]}}``; two numbers are an interval, a list is a set of choices, a single value fixes
    the parameter. `initial` are pipelines to try first, each a list of stages: ``[[{stage:
    prune.structured, params: {ratio: 0.3}}, distill]]``. `recipes`: whether petra's own come after
    them. `preset`: the name of ranges, and of stages left out, that hold where `stages` says
    nothing (`petra.methods.presets`).
    """

    stages: Mapping[str, Mapping[str, Any]] | None = None
    max_length: Annotated[Whole, Field(ge=1, le=20)] = 6
    initial: tuple[tuple[Any, ...], ...] = ()
    recipes: bool = True
    preset: Annotated[str, Field(max_length=200)] = ""

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


class LimitsConfig(Record):
    """What one trial may use, how many are built at a time, and the cache's size. `workers` and
    `build_threads` are chosen when a study begins where they are not given (`petra.execute.crew`).
    """

    trial_time: Seconds = 1800.0
    trial_memory: Bytes = 8 * 2**30
    workers: Annotated[Whole, Field(ge=1, le=256)] | None = None
    build_threads: Annotated[Whole, Field(ge=1, le=1024)] | None = None
    cache: Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)] = 2 * 2**30


class SavingsConfig(Record):
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


class PriorConfig(Record):
    """What is believed before the first trial. `shipped`: what petra brings. `studies`: directories
    of past studies, or of folders that hold some; of those with a model, task and target like this
    one's the search learns from the trials, and tries the best pipelines again.
    """

    shipped: bool = True
    studies: Annotated[tuple[Place, ...], Field(max_length=100)] = ()

    @field_validator("studies", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


def constraint(text: str, *, where: str) -> Constraint:
    """A constraint, its metric perhaps one of the task's own. Raises ValueError for anything
    else.
    """
    try:
        return Constraint.parse(text, where=where, own=None)
    except ConfigError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None
