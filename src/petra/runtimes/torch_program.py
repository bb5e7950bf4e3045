"""What the PyTorch runtimes share: a ``torch.export`` program in a ``.pt2`` file, and a session
that runs it.

The file is reloaded without the model's Python class, from an archive that petra has written anew
(`petra.runtimes.torch_archive`).
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from petra.core.errors import ArtifactError, PetraError
from petra.runtimes.base import Arrays, InputSpec, LoadedModel, does_not_run, error_line, must_exist
from petra.runtimes.torch_archive import rebuilt

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from petra.core.interface import Interface
    from petra.tasks.inputs import Inputs

SUFFIX = ".pt2"

OPERATORS = (
    "torchao.quantization.pt2e",
    "petra.model.layers.quantized",
    "petra.model.layers.padded",
    "petra.model.layers.dynamic_lstm",
    "petra.model.layers.row_scaled",
)
"""Modules without which torch does not know the operators of petra's programs."""

# Where a graph's nodes came from: source paths and lines, which nobody who runs the file needs.
_ORIGINS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom", "from_node")


def export_program(
    model: nn.Module, example: Inputs, path: Path, interface: Interface | None = None
) -> Path:
    """Write `model` to `path`, to be called as the model is: ``model(x)``, ``model(**inputs)``. The
    axes that `interface` leaves free are free in the file; without one, the batch.

    Outputs other than tensors, tuples, lists and dicts (Hugging Face's, say) become dicts. The file
    holds operators and weights, no sample data and no source locations. Raises ExportError when the
    model cannot be captured.
    """
    import torch

    from petra.runtimes.free_sizes import free_axes, traced_example
    from petra.runtimes.tracing import capture
    from petra.tasks.inputs import named

    example = traced_example(example)
    tensors = named(example)
    args, kwargs = ((), tensors) if isinstance(example, dict) else (tuple(tensors.values()), {})
    with torch.no_grad():
        free = free_axes(example, interface)
        program = capture(_plain(model, example), args, kwargs, free=free, inside=model)
    _strip(program)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, str(path))
    return path


def _plain(model: nn.Module, example: Inputs) -> nn.Module:
    """The model itself where its outputs are built-in containers, else a module of the same
    signature whose are.

    A traced graph comes back without the weights that it no longer reads, such as those a quantizer
    replaced by codes.
    """
    import torch

    from petra.runtimes.tracing import itself_fails
    from petra.tasks.inputs import call, named_outputs

    if isinstance(model, torch.fx.GraphModule):
        traced = torch.fx.GraphModule(model, copy.deepcopy(model.graph))
        traced.graph.eliminate_dead_code()
        model = torch.fx.GraphModule(traced, traced.graph)
    try:
        with torch.no_grad():
            kind = type(call(model, example))
    except Exception as error:
        raise itself_fails(error, model) from error
    if kind in (tuple, list, dict) or issubclass(kind, torch.Tensor):
        return model

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.training = False
            self.model = model

        def forward(self, *args: Tensor, **kwargs: Tensor) -> dict[str, Tensor]:
            return named_outputs(self.model(*args, **kwargs))

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    signature = inspect.Signature([own, *parameters])
    Plain.forward.__signature__ = signature  # type: ignore[attr-defined]
    return Plain()


def _strip(program: torch.export.ExportedProgram) -> None:
    """Take out sample inputs, guards and source locations."""
    import torch

    program.example_inputs = None
    program._guards_code = []
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in _ORIGINS:
                    node.meta.pop(key, None)


def load_program(path: Path) -> torch.export.ExportedProgram:
    """Open an archive that petra exported.

    Raises ArtifactError when it is missing, corrupt or could run code.
    """
    import torch

    must_exist(path, SUFFIX)
    for module in OPERATORS:
        importlib.import_module(module)
    with rebuilt(path) as clean, _understood(path):
        return torch.export.load(clean)


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Whatever PyTorch raises on a program that it cannot make sense of is an ArtifactError of
    `path`.
    """
    try:
        yield
    except PetraError:
        raise
    except Exception as error:  # what it trips over: a name, a type, a syntax
        raise ArtifactError(
            f"{path}: torch cannot load this program: {error_line(error)}",
            hint="export the model again",
        ) from error


class LoadedProgram(LoadedModel):
    """A program run by PyTorch on `device`, as it is or as what `prepare` makes of its module."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        device: str = "cpu",
        prepare: Callable[[nn.Module], Callable[..., object]] | None = None,
    ) -> None:
        import torch
        from torch.export.passes import move_to_device_pass

        from petra.runtimes.torch_kernels import use_kernels

        torch.set_num_threads(threads)
        program = load_program(path)
        if device != "cpu":
            # With its number: exported assertions compare it with that of tensors, to the letter.
            device = str(torch.empty(0, device=device).device)
            program = move_to_device_pass(program, device)
            # float32 means float32: cuDNN would round the inputs of convolutions to TF32, 10 bits.
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        with _understood(path):
            module = program.module(check_guards=False)
            self.keyed = bool(program.call_spec.in_spec.child(1).num_children)
            super().__init__(_argument_specs(program, _argument_names(program)))
        self.graph = module
        self.kernels = use_kernels(module, device)
        self._call: Callable[..., object] = prepare(module) if prepare else module
        self._device = device

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        import torch

        from petra.tasks.inputs import named_outputs

        arrays = self.in_order(inputs)
        try:
            tensors = [torch.from_numpy(array).to(self._device) for array in arrays]
            # Views of weights that are tensor subclasses fail in inference mode (pytorch issue
            # 170419).
            with torch.no_grad() if self.kernels else torch.inference_mode():
                if self.keyed:
                    value = self._call(**dict(zip(self.input_names, tensors, strict=True)))
                else:
                    value = self._call(*tensors)
            return {name: _array(tensor) for name, tensor in named_outputs(value).items()}
        except PetraError:
            raise
        except Exception as error:  # whatever its operators raise
            raise does_not_run("PyTorch", self.input_names, arrays, error) from error


def _array(tensor: Tensor) -> np.ndarray:
    """On the host, which waits for the device; what NumPy has no type for becomes float32."""
    import torch

    array: np.ndarray = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).cpu().numpy()
    return array


def _argument_names(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Input names as `petra.tasks.inputs.named` gives them, from the program's calling
    convention.
    """
    spec = program.call_spec.in_spec
    args, kwargs = spec.child(0), spec.child(1)
    if kwargs.num_children:
        return tuple(kwargs.context)
    n = args.num_children
    return ("input",) if n == 1 else tuple(f"input_{i}" for i in range(n))


def _argument_specs(
    program: torch.export.ExportedProgram, names: tuple[str, ...]
) -> tuple[InputSpec, ...]:
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    specs = []
    for name, wanted in zip(names, program.graph_signature.user_inputs, strict=True):
        value = nodes[str(wanted)].meta["val"]
        shape = tuple(size if isinstance(size, int) else None for size in value.shape)
        specs.append(InputSpec(name, str(value.dtype).removeprefix("torch."), shape))
    return tuple(specs)
