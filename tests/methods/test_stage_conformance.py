"""Every stage of ours against the suite that any stage must pass."""

from __future__ import annotations

import pytest
from sequences import recurrent_problem, sequence_problem
from torch import nn

from petra.core.pipeline import StageSpec
from petra.methods.adapt.stage import Adapt
from petra.methods.distill.distill import Distill
from petra.methods.lowrank.cur import CURDecompose
from petra.methods.lowrank.svd import SVDDecompose
from petra.methods.lowrank.tucker import TuckerDecompose
from petra.methods.prune.depth import DepthPrune
from petra.methods.prune.heads import HeadPrune
from petra.methods.prune.recurrent import RecurrentPrune
from petra.methods.prune.structured import StructuredPrune
from petra.methods.prune.unstructured import UnstructuredPrune
from petra.methods.quantize.dynamic import DynamicQuantize
from petra.methods.quantize.half import HalfPrecision
from petra.methods.quantize.qat import QuantizationAwareTrain
from petra.methods.quantize.static import StaticQuantize
from petra.methods.quantize.weights import WeightQuantize
from petra.methods.repair.batchnorm import EstimateBatchNorm
from petra.methods.repair.reconstruct import Reconstruct
from petra.methods.table import STAGES
from petra.methods.tune.tune import Tune
from petra.runtimes.torch_eager import TorchEager
from petra.tasks.base import Task
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


class TestRecurrentPrune(StageSuite):
    stage = RecurrentPrune
    fast = {"ratio": 0.3}

    @pytest.fixture
    def problem(self) -> tuple[nn.Module, Task]:
        return recurrent_problem()


class TestUnstructuredPrune(StageSuite):
    stage = UnstructuredPrune


class TestAdapt(StageSuite):
    stage = Adapt
    fast = {"epochs": 1}

    @pytest.fixture
    def problem(self) -> tuple[nn.Module, Task]:
        return sequence_problem()


@pytest.mark.slow
class TestAdaptWithModulesThatStay(TestAdapt):
    fast = {"epochs": 2, "batch_size": 32, "serial": 3, "parallel": 6, "bitfit": True}
    size_within = 0.01  # short vectors that moved by one rate in one direction are stored once


class TestDepthPrune(StageSuite):
    stage = DepthPrune


class TestHeadPrune(StageSuite):
    stage = HeadPrune

    @pytest.fixture
    def problem(self) -> tuple[nn.Module, Task]:
        return sequence_problem()


class TestSVDDecompose(StageSuite):
    stage = SVDDecompose
    fast = {"rule": "ratio", "ratio": 0.2}


class TestCURDecompose(StageSuite):
    stage = CURDecompose
    fast = {"ratio": 0.2, "unfold": "spatial", "layers": 3}


class TestTuckerDecompose(StageSuite):
    stage = TuckerDecompose
    fast = {"rule": "budget", "budget": 0.5, "budget_of": "macs"}


class TestReconstruct(StageSuite):
    stage = Reconstruct
    fast = {"samples": 64}
    before = (StageSpec("prune.structured", {"ratio": 0.4}),)


class TestStaticQuantize(StageSuite):
    stage = StaticQuantize
    fast = {"samples": 64, "observer": "minmax"}


class TestQuantizationAwareTrain(StageSuite):
    stage = QuantizationAwareTrain
    fast = {"epochs": 1}


class TestEstimateBatchNorm(StageSuite):
    stage = EstimateBatchNorm


class TestDynamicQuantize(StageSuite):
    stage = DynamicQuantize


class TestHalfPrecision(StageSuite):
    stage = HalfPrecision
    runtime = TorchEager


class TestWeightQuantize(StageSuite):
    stage = WeightQuantize


def test_no_stage_is_left_out() -> None:
    ours = [suite for suite in StageSuite.__subclasses__() if suite.__module__ == __name__]
    assert {suite.stage.name for suite in ours} == set(STAGES.names()) - set(STAGES.added())
