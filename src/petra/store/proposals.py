"""Proposals to rows and back, exactly."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from petra.core.errors import PetraError, StoreError
from petra.core.pipeline import Pipeline
from petra.core.text import printable
from petra.core.trial import Fidelity, Origin, Proposal
from petra.store import checked
from petra.store.checked import to_json
from petra.store.records import DEFECTS, OTHER, Row, damaged, kept_text
from petra.store.schema import CHECKSUM
from petra.store.seal import proposal_checksum


def proposal_row(proposal: Proposal) -> dict[str, Any]:
    """The row of `proposals`. Raises StoreError when `read_proposal` would not take it back."""
    where = f"proposal {proposal.number}"
    moves = [kept_text(move) for move in proposal.origin.moves]
    row: dict[str, Any] = {
        "number": proposal.number,
        "key": proposal.pipeline.key,
        "pipeline": to_json(proposal.pipeline.as_list(), where=f"{where}: pipeline"),
        "fidelity": to_json(asdict(proposal.fidelity), where=f"{where}: fidelity"),
        "moves": to_json(moves, where=f"{where}: moves"),
        "parent": proposal.origin.parent,
        "told": to_json(list(proposal.told), where=f"{where}: told"),
    }
    row[CHECKSUM] = proposal_checksum(row)
    try:
        read_proposal(row)
    except PetraError as error:
        raise StoreError(f"{where} cannot be stored: {error.message}", hint=error.hint) from error
    return row


def read_proposal(row: Row) -> Proposal:
    """The proposal that `proposal_row` wrote; raises StoreError as `read_trial` does."""
    try:
        if row[CHECKSUM] != proposal_checksum(row):
            raise ValueError(OTHER)
        return _proposal(row)
    except DEFECTS as error:
        raise damaged("proposal", row, error) from error


def _proposal(row: Row) -> Proposal:
    moves = checked.sequence(checked.from_json(row["moves"], "moves"), "moves")
    told = checked.sequence(checked.from_json(row["told"], "told"), "told")
    fidelity = checked.mapping(checked.from_json(row["fidelity"], "fidelity"), "fidelity")
    if not isinstance(fidelity["zero_shot"], bool):
        raise ValueError("zero_shot is neither true nor false")
    shares = {name: checked.number(fidelity[name], name) for name in ("epochs", "data")}
    parent = row["parent"]
    return Proposal(
        number=checked.whole(row["number"], "number"),
        pipeline=_pipeline(row),
        origin=Origin(
            tuple(checked.text(move, "move") for move in moves),
            None if parent is None else checked.whole(parent, "parent"),
        ),
        fidelity=Fidelity(**{**fidelity, **shares}),
        told=tuple(checked.whole(number, "told") for number in told),
    )


def _pipeline(row: Row) -> Pipeline:
    pipeline = Pipeline.from_list(checked.from_json(row["pipeline"], "pipeline"))
    for stage in pipeline:
        checked.bounded(dict(stage.params), f"{printable(stage.kind)}: parameters")
    if pipeline.key != row["key"]:
        raise ValueError("the pipeline is not the one its key was made from")
    return pipeline


def earlier_proposal(row: Row) -> Proposal:
    """The proposal in a row of `trials` as they were up to version 2 of the schema."""
    parent = row["parent"]
    return Proposal(
        checked.whole(row["number"], "number"),
        _pipeline(row),
        Origin(
            tuple(checked.text(row["move"], "move").split("+")),
            None if parent is None else checked.whole(parent, "parent"),
        ),
    )
