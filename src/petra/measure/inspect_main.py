"""Trying a model file: does it load, which inputs does it want, what does it return for them?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from petra.core.errors import ArtifactError
from petra.core.interface import Interface
from petra.core.target import Target
from petra.measure.feed import Feed, make_feed
from petra.measure.interface import interface_of
from petra.measure.outputs import (
    GIVE_INPUTS,
    batch_axes,
    batch_difference,
    infinite,
    refuse_nan,
    remark_on_infinities,
)
from petra.runtimes.base import Arrays, LoadedModel
from petra.runtimes.table import runtime_for


@dataclass(frozen=True)
class InspectRequest:
    """What to try, on random inputs or on those in the .npz file `inputs`.

    A batch that the file leaves free is tried with `batches` items, or one and all that are given.
    """

    target: Target
    artifact: str
    inputs: str = ""
    batches: tuple[int, int] = (1, 5)
    seed: int = 0


def inspect(request: InspectRequest) -> dict[str, object]:
    """Inputs, where the batch is, shapes that were tried, output shapes by batch size, and remarks.

    `batch_difference` is the largest difference between an item's outputs alone and in the largest
    batch, over the outputs' spread. Raises ArtifactError when the file does not load, does not run,
    or returns what is no number, and ConfigError for given inputs that do not fit.
    """
    runtime, artifact = runtime_for(request.target), Path(request.artifact)
    session = runtime.load(artifact)
    interface = interface_of(*runtime.declared(artifact, session))
    few, many = request.batches
    feed = make_feed(
        interface, many if interface.free_batch else 1, given=request.inputs, seed=request.seed
    )
    sizes = (
        sorted({min(few, feed.items), feed.items})
        if interface.free_batch
        else [interface.fixed_batch or 1]
    )
    runs = {size: _run(session, feed, 0, size, request) for size in sizes}
    notes = _on_kinds(session)
    again = None
    if not request.inputs:
        other = make_feed(interface, feed.items, seed=request.seed + 1)
        again = _run(session, other, 0, sizes[-1], request)
    notes += remark_on_infinities(runs[sizes[-1]], again, call=_call(interface, sizes[-1], request))
    difference = 0.0
    if len(sizes) > 1:
        axes = batch_axes(runs[sizes[0]], runs[sizes[1]], (sizes[0], sizes[1]))
        notes += [
            f"output {n!r} has no part for each item of a batch"
            for n, axis in axes.items()
            if axis is None
        ]
        alone = [_run(session, feed, item, 1, request) for item in range(feed.items)]
        difference = batch_difference(runs[sizes[1]], alone, axes)
    return {
        "inputs": [
            {"name": s.name, "dtype": s.dtype, "shape": s.shape, "names": s.names}
            for s in interface.inputs
        ],
        "axes": dict(interface.free_batch),
        "fixed": interface.fixed_batch,
        "interface": interface.as_dict(),
        "tried": _shapes(feed.arrays),
        "runs": [
            {"batch": size, "outputs": _shapes(outputs), "finite": not infinite(outputs)}
            for size, outputs in runs.items()
        ],
        "batch_difference": difference,
        "notes": notes,
    } | ({"operators": asdict(operators)} if (operators := runtime.operators(artifact)) else {})


def _run(
    session: LoadedModel, feed: Feed, start: int, count: int, request: InspectRequest
) -> Arrays:
    try:
        outputs = session.run(feed.take(start, count))
    except ArtifactError as error:
        if not request.inputs:
            error.hint = GIVE_INPUTS
        raise
    if not outputs:
        raise ArtifactError(f"{request.artifact}: returns nothing", hint="a model needs an output")
    refuse_nan(outputs, call=_call(feed.interface, count, request), random=not request.inputs)
    return outputs


def _call(interface: Interface, count: int, request: InspectRequest) -> str:
    kind = "the given inputs" if request.inputs else "random inputs"
    return f"{kind} at batch {count}" if interface.free_batch else kind


def _on_kinds(session: LoadedModel) -> list[str]:
    """Remarks on outputs that are no tensors."""
    odd = [spec for spec in session.outputs if "(" in spec.dtype]
    return [f"output {spec.name!r} is {spec.dtype}: judged by the numbers in it" for spec in odd]


def _shapes(outputs: Arrays) -> dict[str, list[int]]:
    return {name: list(array.shape) for name, array in outputs.items()}
