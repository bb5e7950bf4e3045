"""Random legal pipelines of 2 to 5 stages on ten architectures: ``python benchmarks/chains.py``.

Writes ``results/chains.md`` and ``.json``. Every chain ends as a file that agrees with its PyTorch
model, or is refused with a reason; a stage that leaves the model unchanged counts as refused, and
is listed as such. Stages that refuse an architecture on their own, by ``results/coverage.json``,
are not drawn for it: run ``coverage.py`` first.
"""

from __future__ import annotations

import json
from collections import Counter

from cells import RESULTS, header, options, reasons, run, write

from petra.testing.coverage import FAILS, OUTCOMES, REFUSES, Cell, draw_chains

ARCHITECTURES = (
    *("cifar-resnet", "se-resnet", "separable", "densenet", "unet"),
    *("inception-time", "conv-gru", "mlp", "fused-qkv", "bert"),
)


def main() -> None:
    parser = options(__doc__ or "", "chains.jsonl")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    alone = map(Cell.from_dict, json.loads((RESULTS / "coverage.json").read_text()))
    refused = {(c.architecture, c.pipeline.stages[-1].kind) for c in alone if c.outcome == REFUSES}
    cells = run(
        list(draw_chains(ARCHITECTURES, given.count, seed=given.seed, without=refused)), given
    )
    outcomes = Counter(cell.outcome for cell in cells)
    unchanged = [cell for cell in cells if "left the model unchanged" in cell.reason]
    kinds = Counter(spec.kind for cell in cells for spec in cell.pipeline)
    lines = [
        f"{len(cells)} pipelines drawn with seed {given.seed}: "
        + ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in OUTCOMES if outcomes[outcome])
        + f"; {len(unchanged)} of the refusals are for a stage that changed nothing.",
        "",
        "| architecture | " + " | ".join(OUTCOMES) + " |",
        "|---" * (len(OUTCOMES) + 1) + "|",
    ]
    for name in ARCHITECTURES:
        mine = Counter(cell.outcome for cell in cells if cell.architecture == name)
        lines.append(f"| {name} | " + " | ".join(str(mine[outcome]) for outcome in OUTCOMES) + " |")
    lines += [
        "",
        "Stages drawn: " + ", ".join(f"{kind} {n}" for kind, n in kinds.most_common()) + ".",
        "",
        *(
            "## Failures",
            "",
            *(
                f"- {c.architecture}: `{c.pipeline}`: {c.reason}"
                for c in cells
                if c.outcome == FAILS
            ),
        ),
        "",
        *(
            "## Refusals",
            "",
            *reasons((c for c in cells if c.outcome != FAILS), lambda cell: cell.architecture),
        ),
    ]
    write("chains", [*header("Random chains of stages", cells), *lines], cells)
    print("\n".join(lines[:16]))


if __name__ == "__main__":
    main()
