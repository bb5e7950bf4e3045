"""The command line, called in this process and as a script."""

from __future__ import annotations

import subprocess

from typer.testing import CliRunner, Result

from petra.cli.main import app


def petra(*arguments: object) -> Result:
    """Run a command in this process. A bug shows as itself."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(result: Result | subprocess.CompletedProcess[str], *said: str) -> None:
    code = result.exit_code if isinstance(result, Result) else result.returncode
    assert code == 2
    assert result.stdout == ""
    said_first, _, _ = result.stderr.partition("error: ")
    assert said_first in ("", "loading model and data\n")
    assert "Traceback" not in result.stderr
    for text in said:
        assert text in result.stderr
