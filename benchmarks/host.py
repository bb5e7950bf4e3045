"""What every hand-made table of results begins with."""

from __future__ import annotations

import datetime

from petra.measure.host import describe_host


def heading(title: str, command: str) -> list[str]:
    """Title, date, command and host, as lines of Markdown; more facts may follow in the same
    list.
    """
    host = describe_host()
    has = dict(host["instruction_sets"])  # type: ignore[call-overload]
    sets = ", ".join(name for name in has if has[name])
    return [
        f"# {title}",
        "",
        f"- date: {datetime.date.today().isoformat()}; command: `{command}`",
        f"- host: {host['cpu']}, {host['cores']} cores, {sets}",
    ]
