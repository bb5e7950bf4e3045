"""What every campaign of attacks yields: one record an attack.

A campaign is a module beside this one with a function ``campaign(scratch: Path, *, seed: int,
seconds: float) -> Iterator[Attack]``. It draws attacks from the seed, makes them against petra as a
user would meet them, and stops when the seconds are over or it has nothing left to try. Tests run
campaigns for seconds; ``make faults`` runs them in full and writes the table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    """One attempt: a row of the table counts attacks by `kind` and `outcome`, both a few plain
    words.

    `fault` says which promise broke, with what is needed to repeat it; '' when petra held.
    """

    kind: str
    outcome: str
    fault: str = ""
