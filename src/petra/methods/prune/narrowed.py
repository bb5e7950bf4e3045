"""What cutting channels has done to a model: what went, and whether it still runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.effect import LEAST
from petra.model.channels.breakage import BREAKAGE
from petra.model.channels.groups import ChannelGroup
from petra.model.flops import macs_by_module
from petra.model.kinds import width_of
from petra.model.surgery import count_parameters, evaluating
from petra.tasks.inputs import Inputs, call, map_inputs, named_outputs


def removed_share(before: nn.Module, after: nn.Module, example: Inputs) -> float:
    """Share of the parameters that went, or of the multiply-accumulates where that is more: early
    convolutions have few of the former."""
    parameters = 1 - count_parameters(after) / count_parameters(before)
    if parameters >= LEAST:
        return parameters
    old, new = (macs_by_module(m, lambda m: call(m, example))[""] for m in (before, after))
    return max(parameters, 1 - new / old if old else 0.0)


def _shapes(module: nn.Module) -> list[torch.Size]:
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return [t.shape for t in own]


def _width(model: nn.Module, path: str) -> int:
    return width_of(model.get_submodule(path))


def cut_trace(
    name: str,
    before: nn.Module,
    after: nn.Module,
    groups: Sequence[ChannelGroup],
    kept: Mapping[str, str],
    failed: Mapping[str, str],
    history: Sequence[Mapping[str, object]],
) -> StageTrace:
    """What differs between the two models, read off the models themselves."""
    old = {path: _shapes(m) for path, m in before.named_modules()}
    touched = tuple(path for path, m in after.named_modules() if _shapes(m) != old[path])
    widths = {
        path: (_width(before, path), _width(after, path)) for g in groups for path in g.layers
    }
    reasons = dict(kept)
    for group in groups:
        reason = failed.get(group.root, "none of its channels was chosen")
        reasons.update(
            {path: reason for path in group.layers if widths[path][0] == widths[path][1]}
        )
    total = sum(_width(before, g.root) for g in groups)
    removed = total - sum(_width(after, g.root) for g in groups)
    details: dict[str, object] = {
        "channels": {path: [a, b] for path, (a, b) in widths.items() if a != b},
        "prunable_channels": total,
        "removed_channels": removed,
        "achieved_ratio": round(removed / total, 4),
        "outputs_kept": {path: why for path, why in reasons.items() if path in touched},
        "cuts": list(history),
    }
    skipped = {path: why for path, why in reasons.items() if path not in touched}
    return StageTrace(name, touched=touched, skipped=skipped, details=details)


def check_outputs(
    before: nn.Module, after: nn.Module, example: Inputs, groups: Sequence[ChannelGroup]
) -> None:
    """Refuse a pruned model whose outputs have another shape than before, at two batch sizes."""
    wider = map_inputs(example, lambda t: torch.cat([t, t[:1]]))
    layers = ", ".join(g.root for g in groups)
    for inputs in (example, wider):
        with evaluating(before), evaluating(after), torch.no_grad():
            expected = {k: t.shape for k, t in named_outputs(call(before, inputs)).items()}
            try:
                got = {k: t.shape for k, t in named_outputs(call(after, inputs)).items()}
            except BREAKAGE as error:
                raise StageRefused(
                    f"the model no longer runs after cutting {layers}: {error}"
                ) from error
        if got != expected:
            raise StageRefused(f"the output is {got} instead of {expected} after cutting {layers}")


def in_words(reasons: Mapping[str, str]) -> str:
    """The first five layers and their reasons, and how many more there are."""
    shown = [f"{path}: {why}" for path, why in list(reasons.items())[:5]]
    return "; ".join(shown) + (f"; and {len(reasons) - 5} more" if len(reasons) > 5 else "")
