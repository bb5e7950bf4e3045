"""Ahead-of-time compilation (AOTInductor): a package of native code for machines like this one,
without a compiler.

A package holds a shared library. That is code, so no runtime here opens one: what petra measures
and ships is the program it is made from. It is compared with that program once, by the process that
has just compiled it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from petra.core.errors import ArtifactError, ExportError, ParityError
from petra.runtimes.base import Arrays, error_line
from petra.runtimes.torch_compile import TorchCompile
from petra.runtimes.torch_program import SUFFIX, LoadedProgram, load_program

TOLERANCE = 1e-3  # root mean square difference over the spread of the program's outputs


def compile_ahead(program_file: Path, package: Path, items: Arrays, *, threads: int = 1) -> float:
    """Compile a ``.pt2`` program that petra exported into `package`, for this machine's CPU and
    number of threads.

    items: inputs by name, at least two items, to compile with and to compare on, one alone and all
    together. Returns the largest difference from the program, as a root mean square over the spread
    of its outputs. The package is loaded with ``torch._inductor.aoti_load_package`` and called as
    the model is.

    Raises ArtifactError for a bad program, ExportError when it cannot be compiled, ParityError when
    what was compiled computes something else; no package is left then. Cost: half a minute or more
    of a C++ compiler.
    """
    import torch

    TorchCompile().require()
    if package.suffix != SUFFIX:
        raise ArtifactError(
            f"{package}: a package is a {SUFFIX} file", hint=f"for example model.aot{SUFFIX}"
        )
    reference = LoadedProgram(program_file, threads=threads)
    program = load_program(program_file)
    tensors = {name: torch.from_numpy(items[name]) for name in reference.input_names}
    program.example_inputs = ((), tensors) if reference.keyed else (tuple(tensors.values()), {})
    package.parent.mkdir(parents=True, exist_ok=True)
    try:
        with torch.no_grad():
            torch._inductor.aoti_compile_and_package(program, package_path=str(package))
        compiled = torch._inductor.aoti_load_package(str(package))
        session = LoadedProgram(program_file, threads=threads, prepare=lambda _: compiled)
        return max(
            _difference(session, reference, items, n) for n in (1, len(next(iter(items.values()))))
        )
    except (ArtifactError, ParityError):
        package.unlink(missing_ok=True)
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        package.unlink(missing_ok=True)
        raise ExportError(
            f"{program_file}: cannot be compiled ahead of time: {error_line(error)}"
        ) from error


def _difference(
    compiled: LoadedProgram, reference: LoadedProgram, items: Arrays, batch: int
) -> float:
    inputs = {name: array[:batch] for name, array in items.items()}
    found, wanted = compiled.run(inputs), reference.run(inputs)
    worst = 0.0
    for name, array in wanted.items():
        spread = float(np.std(array)) or 1.0
        error = float(np.sqrt(np.mean((found[name].astype(np.float64) - array) ** 2))) / spread
        if not error <= TOLERANCE:
            raise ParityError(
                f"compiled ahead of time, {name} differs by {error:.2%} of its spread at a batch of"
                f" {batch}",
                hint="ship the program itself, for the runtime torch.compile",
            )
        worst = max(worst, error)
    return worst
