"""A graph with fake quantizers, as a module that trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.node import map_aggregate
from torchao.quantization.pt2e.fake_quantize import FakeQuantize


class SimulatedQuantization(nn.Module):
    """A graph with fake quantizers, with the training mode that exported graphs lack.

    While training, ranges of activations follow the data; in evaluation they stand still. Always in
    float32, because rounding to bf16 first would be another rounding than the deployed one.
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.graph = graph
        for value in graph.parameters():
            value.requires_grad_(value.is_floating_point())

    def forward(self, *args: Tensor, **kwargs: Tensor) -> object:
        device = next(iter((*args, *kwargs.values()))).device.type
        with torch.autocast(device, enabled=False):
            return self.graph(*args, **kwargs)

    def train(self, mode: bool = True) -> SimulatedQuantization:
        self.training = mode
        for quantizer in self.quantizers():
            # Weight ranges are those of the weights.
            quantizer.enable_observer(mode or quantizer.is_per_channel)
        return self

    def quantizers(self) -> list[FakeQuantize]:
        return [module for module in self.graph.modules() if isinstance(module, FakeQuantize)]

    def round(self, on: bool) -> None:
        """Whether values are rounded; ranges are followed either way."""
        for quantizer in self.quantizers():
            quantizer.enable_fake_quant(on)

    def move(self, device: str) -> SimulatedQuantization:
        """To another device, with the tensors the graph itself makes or moves."""
        new = torch.device(device)
        for graph in (module for module in self.graph.modules() if isinstance(module, GraphModule)):
            for node in graph.graph.nodes:
                node.args, node.kwargs = map_aggregate(
                    (node.args, node.kwargs),
                    lambda value: new if isinstance(value, torch.device) else value,
                )
            graph.recompile()
        return self.to(device)
