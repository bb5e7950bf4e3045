"""The `petra` command as it is installed, and a directory with hostile modules to run it in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import petra
from petra.testing.studies import write_onnx

SOURCE = str(Path(petra.__file__).parents[1])
CLI = "from petra.cli.main import main; main()"  # what the installed script holds


def console(place: Path, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """The `petra` command as it is installed: a script in a directory of its own, run from
    `place`.
    """
    script = place.parent / "bin" / "petra"
    script.parent.mkdir(exist_ok=True)
    script.write_text(CLI)
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
        env=os.environ | {"PYTHONPATH": SOURCE} | environment,
    )


HOSTILE = (
    *(
        "numpy",
        "json",
        "onnxruntime",
        "onnx",
        "torch",
        "openvino",
        "psutil",
        "cloudpickle",
        "typer",
        "yaml",
        "pandas",
    ),
    *(
        "sitecustomize",
        "usercustomize",
        "site",
        "ml_dtypes",
        "logging",
        "multiprocessing",
        "ctypes",
        "petra",
        "runpy",
    ),
    *(
        "pydantic",
        "sqlalchemy",
        "rich",
        "zipfile",
        "selectors",
        "encodings",
        "plotly",
        "safetensors",
        "sklearn",
    ),
)


def bundle(place: Path) -> Path:
    """A directory with a model and modules of well-known names, each of which leaves its name
    behind when it runs.
    """
    canary = place / "canary"
    place.mkdir()
    for name in HOSTILE:
        code = (
            f"open({str(canary)!r}, 'a').write(__name__ + chr(10))\nraise SystemExit('ran ' +"
            " __name__)\n"
        )
        (place / f"{name}.py").write_text(code)
        (place / name).mkdir()
        (place / name / "__init__.py").write_text(code)
    (place / "x.pth").write_text(f"import os; os.system('touch {canary}')\n")
    write_onnx(place / "model.onnx", hidden=4)
    return canary
