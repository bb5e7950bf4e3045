"""Every stage of ours against the suite that any stage must pass."""

from __future__ import annotations

from petra.core.pipeline import StageSpec
from petra.methods.distill.distill import Distill
from petra.methods.lowrank.svd import SVDDecompose
from petra.methods.prune.depth import DepthPrune
from petra.methods.prune.structured import StructuredPrune
from petra.methods.quantize.static import StaticQuantize
from petra.methods.repair.reconstruct import Reconstruct
from petra.methods.table import STAGES
from petra.methods.tune.tune import Tune
from petra.testing.stage_suite import StageSuite


class TestTune(StageSuite):
    stage = Tune
    fast = {"epochs": 1}


class TestDistill(StageSuite):
    stage = Distill
    fast = {"epochs": 1}


class TestStructuredPrune(StageSuite):
    stage = StructuredPrune
    fast = {"ratio": 0.4}


class TestDepthPrune(StageSuite):
    stage = DepthPrune


class TestSVDDecompose(StageSuite):
    stage = SVDDecompose
    fast = {"rule": "ratio", "ratio": 0.2}


class TestReconstruct(StageSuite):
    stage = Reconstruct
    fast = {"samples": 64}
    before = (StageSpec("prune.structured", {"ratio": 0.4}),)


class TestStaticQuantize(StageSuite):
    stage = StaticQuantize
    fast = {"samples": 64, "observer": "minmax"}


def test_no_stage_is_left_out() -> None:
    assert {suite.stage.name for suite in StageSuite.__subclasses__()} == set(STAGES.names())
