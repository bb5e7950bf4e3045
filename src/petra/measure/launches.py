"""What one launch of a process cannot know of itself, and what several launches say together.

Rounds within one process repeat themselves: one int8 file of 60 kB, measured in three processes on
a quiet machine, was 0.675, 0.601 and 0.658 times as slow as the float model, each to within 0.005.
Where memory lands, and which core, is drawn once a launch. So every timed figure has a part of its
error that only other launches show, a share `sd` of the figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from petra.core.measurement import Measurement
from petra.core.metric import describe

LAUNCHES = 3
"""Fresh processes in which a model is timed where one is not enough."""


@dataclass(frozen=True)
class Spread:
    """Relative standard deviation of a timed figure between launches, and the degrees of freedom
    `dof` of that estimate: how many launches it is worth.
    """

    sd: float
    dof: float

    @property
    def student(self) -> float:
        """How much longer a 95% interval is than 1.96 standard errors, because `sd` is estimated:
        the quantile of Student's t over the normal's, by Cornish and Fisher's expansion
        (Abramowitz and Stegun, 26.7.5), within 1% from 3 degrees of freedom on.
        """
        z, n = 1.96, self.dof
        first = (z**3 + z) / 4
        second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
        third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return (z + first / n + second / n**2 + third / n**3) / z


PRIOR = Spread(0.03, 3.0)
"""Before a study has measured any: between the 0.4 to 1% of small models on a quiet machine and
the 6% above.
"""


LEAST = PRIOR.sd * math.sqrt(PRIOR.dof / (PRIOR.dof + LAUNCHES))
"""What is left of it after `LAUNCHES` that did not differ at all."""


def of_equals(ratios: Sequence[Measurement], prior: Spread = PRIOR) -> Spread:
    """The spread seen in a model paired with itself, whose ratio is 1, one launch each.

    The posterior of a scaled inverse chi-squared prior (Gelman et al., Bayesian Data Analysis,
    2.6): the mean of squares, in which the prior counts as `prior.dof` launches.
    """
    seen = sum(max(0.0, (r.mean - 1) ** 2 - r.stderr**2) for r in ratios)
    dof = prior.dof + len(ratios)
    return Spread(math.sqrt((prior.dof * prior.sd**2 + seen) / dof), dof)


def random_effects(launches: Sequence[Measurement], spread: Spread) -> Measurement:
    """The mean of one figure over launches, with an error that covers what varies between them.

    Launch i says y_i with the error s_i of its own. With t^2 the variance between launches, the
    weights are w_i = 1 / (s_i^2 + t^2), the mean sum(w_i y_i) / sum(w_i) and its standard error
    sum(w_i)^-1/2 (DerSimonian and Laird 1986). t^2 is the launches' own, their variance less the
    mean of s_i^2 (Hedges and Olkin 1985), pooled with `spread`, which alone speaks of one launch.
    The error is lengthened by `Spread.student`, so that 1.96 of it are a 95% interval (Follmann and
    Proschan 1999).
    """
    values = [m.mean for m in launches]
    own = [m.stderr**2 for m in launches]
    plain = Measurement.of(values)
    between = max(0.0, plain.stderr**2 * plain.n - math.fsum(own) / plain.n)
    free = plain.n - 1
    pooled = Spread(0.0, spread.dof + free)
    variance = (spread.dof * (spread.sd * plain.mean) ** 2 + free * between) / pooled.dof
    weights = [1 / max(s + variance, 1e-300) for s in own]
    mean = math.fsum(w * y for w, y in zip(weights, values, strict=True)) / math.fsum(weights)
    error = pooled.student / math.sqrt(math.fsum(weights))
    return replace(launches[0], mean=mean, stderr=error, n=sum(m.n for m in launches))


def together(
    launches: Sequence[Mapping[str, Measurement]], spread: Spread
) -> dict[str, Measurement]:
    """All figures of one model, those that are timed over its launches; what is not timed is the
    first launch's.

    Figures that state no error (memory, a percentile) have that of their mean over the launches.
    """
    found = {}
    for name, first in launches[0].items():
        several = [launch[name] for launch in launches if name in launch]
        if not describe(name).timed:
            found[name] = first
        elif first.stderr:
            found[name] = random_effects(several, spread)
        else:
            mean = Measurement.of([m.mean for m in several])
            found[name] = replace(first, mean=mean.mean, stderr=mean.stderr)
    return found


def of_itself(launches: Sequence[Mapping[str, Measurement]]) -> dict[str, Measurement]:
    """All figures of the untouched model, which was paired with itself. Its latency ratio is 1 by
    definition; the error of it says how far one launch of another model may be off.
    """
    ratios = [launch["latency_ratio"] for launch in launches]
    spread = of_equals(ratios)
    mean, rounds = Measurement.of([r.mean for r in ratios]).mean, sum(r.n for r in ratios)
    ratio = replace(ratios[0], mean=mean, stderr=spread.sd, n=rounds)
    return {**together(launches[:1], spread), "latency_ratio": ratio}


def spread_by(ratio: Measurement) -> Spread:
    """What launches differ by, as the untouched model's latency ratio of `of_itself` says; at least
    `LEAST`, also where it was measured in a single launch.
    """
    return Spread(max(ratio.stderr / ratio.mean, LEAST), PRIOR.dof + LAUNCHES)
