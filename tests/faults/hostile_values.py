"""Values and texts put into studies and bundles: none may act on a terminal, a page or a path."""

from __future__ import annotations

import json
from typing import Any

from fuzz_contents import ESCAPE

MARKUP = "[bold red]x[/bold red]</script><script>alert(1)</script>`|[a](javascript:b)"
STRANGE: tuple[Any, ...] = (
    *(
        None,
        -1,
        0,
        1,
        10**18,
        -(10**18),
        0.1,
        -0.5,
        1e308,
        -1e308,
        1e-308,
        float("inf"),
        b"\x00\xff",
        "",
        "x",
        "1",
        "NaN",
    ),
    *(
        "null",
        "[]",
        "{}",
        "[{}]",
        "3",
        "NaN",
        "Infinity",
        "1e999",
        "[" * 5000,
        '{"a":' * 200,
        '{"a": 1, "a": 2}',
        "9" * 5000,
    ),
    *(
        ESCAPE,
        MARKUP,
        "\u202egnp.exe",
        "a\nb\rc",
        "\x9b31m",
        "x" * 100_000,
        "../../secret",
        "/etc/passwd",
        "/proc/kmsg",
    ),
    *(
        "complete",
        "failed",
        "unheard of",
        "artifacts/../../secret",
        json.dumps([{"stage": ESCAPE}]),
        json.dumps({MARKUP: 1}),
    ),
)
SAYINGS = (
    ESCAPE,
    MARKUP,
    "\u202egnp.exe\u2066",
    "\x9b31m",
    "a\n  \n| forged | row |\r\x1b[2J",
    "\x00",
    "[/]",
    "x" * 20_000,
    "\n",
    "",
)
