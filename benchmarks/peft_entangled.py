"""Whether "size 0 = off" entangles the choice of modules with that of their sizes.

    python benchmarks/peft_entangled.py runs/peft/rte --seeds 10

One space in four spellings: sizes that have 0 among them, as names (one feature each) or as places
on a ladder; a bit for each module and sizes without 0, which mean something where the bit is set;
and structure first, sizes next. Of each: how often a draw leaves modules out, what a step changes,
how well models predict held-out evaluations, and hypervolume at equal budget, replayed
(`peft_replay`). Writes ``results/peft-entangled.md``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from host import heading
from peft_replay import AT, Recorded, Replay, held_out, volumes
from scipy.stats import spearmanr
from search_problems import Case
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import generator
from petra.core.trial import Proposal, Trial
from petra.search.structure import is_size
from petra.space.domains import BOOLEAN, Choice
from petra.space.encoding import Encoding
from petra.space.ladder import Ladder
from petra.space.moves import perturb
from petra.space.parameters import Parameter
from petra.space.space import Space, StageCard

RESULTS = Path(__file__).parent / "results"
DRAWS = 4000
ON = "_on"
SEARCHERS: Mapping[str, Mapping[str, object]] = {
    "bayes": {"initial": 50},
    "evolution": {},
    "surrogate": {},
}


@dataclass(frozen=True)
class Spelling:
    """A space, and how its pipelines are written in the study's own and back."""

    name: str
    space: Space
    to_study: Callable[[Pipeline], Pipeline]
    of_study: Callable[[Pipeline], Pipeline]


def as_names(space: Space) -> Space:
    """Sizes as unordered names, 0 one of them."""

    def spelt(p: Parameter) -> Parameter:
        return replace(p, domain=Choice(p.domain.values)) if isinstance(p.domain, Ladder) else p

    return _changed(space, lambda card: tuple(map(spelt, card.parameters)))


def _changed(space: Space, of: Callable[[StageCard], tuple[Parameter, ...]]) -> Space:
    return replace(space, cards={n: replace(c, parameters=of(c)) for n, c in space.cards.items()})


def with_bits(space: Space) -> Space:
    """A bit for each size, and sizes without 0 that mean something where it is set."""

    def parameters(card: StageCard) -> tuple[Parameter, ...]:
        found: list[Parameter] = []
        for p in card.parameters:
            if not is_size(p):
                found.append(p)
                continue
            assert isinstance(p.domain, Ladder)
            sizes = Ladder(p.domain.values[1:])
            default = p.default if sizes.contains(p.default) else sizes.values[0]
            bit = Parameter(p.name + ON, bool(p.default), BOOLEAN, BOOLEAN, "whether it is there")
            when = {**p.when, bit.name: (True,)}
            found += [bit, replace(p, default=default, domain=sizes, when=when)]
        return tuple(found)

    return _changed(space, parameters)


def bits_of(space: Space, pipeline: Pipeline) -> Pipeline:
    """A pipeline of the study's space as one of `with_bits`."""
    stages = []
    for stage in pipeline:
        sized = [p.name for p in space.cards[stage.kind].parameters if is_size(p)]
        params = dict(stage.params)
        for name in sized:
            size = params.pop(name, 0)
            params[name + ON] = bool(size)
            params |= {name: size} if size else {}
        stages.append(StageSpec(stage.kind, params))
    return with_bits(space).normalize(Pipeline(tuple(stages)))


def sizes_of(space: Space, pipeline: Pipeline) -> Pipeline:
    """The other way round."""
    stages = []
    for stage in pipeline:
        params = dict(stage.params)
        for p in filter(is_size, space.cards[stage.kind].parameters):
            if not params.pop(p.name + ON, False):
                params[p.name] = 0
        stages.append(StageSpec(stage.kind, params))
    return space.normalize(Pipeline(tuple(stages)))


def spellings(space: Space) -> tuple[Spelling, ...]:
    def same(p: Pipeline) -> Pipeline:
        return p

    return (
        Spelling("sizes with 0, as names", as_names(space), same, same),
        Spelling("sizes with 0, as a ladder", space, same, same),
        Spelling(
            "bits, and sizes without 0",
            with_bits(space),
            lambda p: sizes_of(space, p),
            lambda p: bits_of(space, p),
        ),
    )


def modules_on(space: Space, pipeline: Pipeline) -> int:
    """How many kinds of modules are there."""
    return sum(
        bool(stage.params.get(p.name))
        for stage in pipeline
        for p in space.cards[stage.kind].parameters
        if is_size(p)
    )


def draws(space: Space, spelling: Spelling) -> str:
    """Shares of draws by the number of kinds of modules that are there."""
    drawn = [
        spelling.to_study(spelling.space.sample(generator(i, "entangled"))) for i in range(DRAWS)
    ]
    counts = np.bincount([modules_on(space, p) for p in drawn], minlength=4) / DRAWS
    return ", ".join(f"{n}: {100 * share:.1f}%" for n, share in enumerate(counts))


def steps(space: Space, spelling: Spelling) -> str:
    """Of steps from draws, how many switch a kind of module on or off."""
    switched, made = 0, 0
    for i in range(DRAWS):
        rng = generator(i, "entangled steps")
        parent = spelling.space.sample(rng)
        child = perturb(parent, spelling.space, rng)
        if child is None:
            continue
        one, other = spelling.to_study(parent), spelling.to_study(child)
        kinds = [[bool(s.params.get(p.name)) for s in q for p in space.cards[s.kind].parameters
                  if is_size(p)] for q in (one, other)]  # fmt: skip
        switched, made = switched + (kinds[0] != kinds[1]), made + 1
    return f"{100 * switched / made:.1f}%"


def predicted(known: Recorded, spelling: Spelling) -> str:
    """Rank correlation of held-out qualities with those that a Gaussian process predicts."""
    encoding = Encoding(spelling.space)
    x = np.array([encoding.encode(spelling.of_study(t.pipeline)) for t in known.trials])
    y = np.array([t.metrics["quality"].mean for t in known.trials])
    x = x[:, x.std(axis=0) > 0]
    kernel = ConstantKernel() * Matern(np.ones(x.shape[1]), (0.1, 100.0), nu=2.5) + WhiteKernel()
    rhos = []
    for repeat in range(3):
        said = np.zeros(len(y))
        for train, rest in KFold(5, shuffle=True, random_state=repeat).split(x):
            model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=repeat)
            said[rest] = model.fit(x[train], y[train]).predict(x[rest])
        rhos.append(float(spearmanr(said, y).statistic))
    return f"{statistics.fmean(rhos):.2f}"


def respelt(case: Case, spelling: Spelling) -> Case:
    """The case in another spelling: what is evaluated is the study's pipeline."""

    def evaluate(proposal: Proposal) -> Trial:
        own = replace(proposal, pipeline=spelling.to_study(proposal.pipeline))
        return replace(case.evaluate(own), pipeline=proposal.pipeline)

    return replace(case, problem=replace(case.problem, space=spelling.space), evaluate=evaluate)


def compared(case: Case, seeds: int, budget: int) -> Iterator[str]:
    """Lines of hypervolume at equal budget."""
    at = [n for n in AT if n <= budget]
    yield "| search | spelling | " + " | ".join(f"after {n}" for n in at) + " |"
    yield "|---|---|" + "---|" * len(at)
    own = spellings(case.problem.space)
    plans = [(k, dict(o), s.name, respelt(case, s)) for k, o in SEARCHERS.items() for s in own]
    plans += [
        ("structure_first", {"bits": 60, "proposals": name}, f"structure first, {name}", case)
        for name in SEARCHERS
    ]
    for kind, options, name, each in plans:
        curves = [volumes(each, kind, options, seed, budget) for seed in range(seeds)]
        cells = []
        for n in at:
            values = [float(c[n - 1]) for c in curves]
            error = statistics.stdev(values) / seeds**0.5 if seeds > 1 else 0.0
            cells.append(f"{statistics.fmean(values):.4f} ± {error:.4f}")
        line = f"| {kind} | {name} | " + " | ".join(cells) + " |"
        print(line, flush=True)
        yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="a study of the preset autopeft")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=AT[-1])
    given = parser.parse_args()
    known = Recorded.of(given.study)
    space = known.problem.space
    command = f"python benchmarks/peft_entangled.py {given.study}"
    lines = heading('Does "size 0 = off" entangle modules with their sizes?', command)
    lines += [f"- {held_out(known)}", "", "| | kinds of modules in draws | steps that switch one |"
              " quality predicted |", "|---|---|---|---|"]  # fmt: skip
    for s in spellings(space):
        cells = (s.name, draws(space, s), steps(space, s), predicted(known, s))
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    lines += ["", "Hypervolume, replayed:", ""]
    lines += compared(Replay(known).case(), given.seeds, given.budget)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peft-entangled.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
