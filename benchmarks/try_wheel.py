"""What is published, tried as a stranger would: a wheel installed into an empty environment.

    python benchmarks/try_wheel.py dist/petra-0.1.0-py3-none-any.whl

Installs it with the pinned versions and no extra, runs the demo for half a minute outside of the
checkout, and measures the file that it exports again. Fails at the first step that fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
SEARCH = "30 s"
ORIGIN = "import petra, pathlib; assert 'site-packages' in pathlib.Path(petra.__file__).parts"


def run(command: list[str], place: Path) -> str:
    """What a command prints; the whole program ends where it fails."""
    print(" ".join(command[:6]), "...", flush=True)
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=place, env=own, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    (wheel,) = (Path(name).resolve() for name in sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="petra-wheel-") as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        python, petra = (str(place / "venv" / "bin" / name) for name in ("python", "petra"))
        pip = [python, "-m", "pip"]
        install = [*pip, "install", "--quiet", "--constraint", str(CONSTRAINTS)]
        run([*install, "torch"], place)  # first: with the version that has a CPU build
        run([*install, str(wheel)], place)
        run([*pip, "check"], place)
        run([python, "-c", ORIGIN], place)
        demo = json.loads(run([petra, "demo", "--time", SEARCH, "--quiet", "--json"], place))
        run([petra, "verify", demo["exported"]["knee"]], place)
    print(f"{wheel.name}: installed, ran the demo, its file verified")


if __name__ == "__main__":
    main()
