"""What every hand-made table of results begins with."""

from __future__ import annotations

import datetime

from petra.measure.host import describe_host


def heading(title: str, command: str) -> list[str]:
    """Title, date, command and host, as lines of Markdown; more facts may follow in the same
    list.
    """
    host = describe_host()
    sets = ", ".join(k for k, has in dict(host["instruction_sets"]).items() if has)  # type: ignore[call-overload]
    return [
        f"# {title}",
        "",
        f"- date: {datetime.date.today().isoformat()}; command: `{command}`",
        f"- host: {host['cpu']}, {host['cores']} cores, {sets}",
    ]
