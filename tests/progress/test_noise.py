"""Libraries keep their noise to themselves, and nothing else is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import petra

CODE = """
import logging, warnings
from petra.core.noise import hush
hush(); hush()
logging.basicConfig(format="%(name)s %(message)s")
ours = logging.getLogger("torchao")
ours.warning("Failed to load /x/torchao/_C_mxfp8.so: Could not load this library")
ours.warning("something else of torchao's")
enum = "%s is an Enum subclass and is now natively supported"
logging.getLogger("torch.utils._pytree").warning(enum, int)
logging.getLogger("mine").warning("Failed to load my own _C.so")
warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, use", FutureWarning)
warnings.warn("mine is deprecated", FutureWarning)
warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, by me", UserWarning)
print(len(ours.filters))
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(petra.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )


def test_only_what_is_named_is_kept_back() -> None:
    done = python(CODE)
    said = [line for line in done.stderr.splitlines() if not line.startswith(" ")]
    assert said[0] == "torchao something else of torchao's"
    assert said[1] == "mine Failed to load my own _C.so"
    assert "FutureWarning: mine is deprecated" in said[2]
    assert "UserWarning: `isinstance(treespec, LeafSpec)` is deprecated, by me" in said[3]
    assert len(said) == 4
    assert done.stdout == "1\n"


def test_all_that_petra_loads_is_silent() -> None:
    code = "import petra; petra.compress; petra.Study; import torchao.quantization.pt2e"
    done = python(
        f"{code}; from petra.methods.table import STAGES; [STAGES.get(n) for n in STAGES.names()]"
    )
    assert done.stderr == ""
