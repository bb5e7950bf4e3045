"""What libraries say about themselves, which concerns nobody who uses petra: kept from the terminal
record by record, and nothing else with it.

Everything is named here by its logger, or its category, and by how it begins: other records of the
same logger, and all warnings of the user's code, pass.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping

LOGGED: Mapping[str, str] = {
    # Kernels of torchao's for other hardware and other versions of torch. It does without them.
    "torchao": r"Failed to load .*_C\w*\.",
    # torchao registers its enumerations in a way that torch no longer wants.
    "torch.utils._pytree": r".*is an Enum subclass and is now natively supported",
}
"""Logger -> how the text of the records begins that it keeps to itself."""

WARNED: tuple[tuple[str, type[Warning]], ...] = (
    # torch's own copies of torch's own graphs.
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
)
"""How warnings begin that are not shown, and their categories."""


class _Unsaid(logging.Filter):
    """Lets every record pass but those that begin in one way."""

    def __init__(self, beginning: str) -> None:
        super().__init__()
        self.beginning = re.compile(beginning)

    def filter(self, record: logging.LogRecord) -> bool:
        return not self.beginning.match(record.getMessage())


def hush() -> None:
    """Keep back what this module names, in this process and from now on. Calling it again changes
    nothing. Loads no library: it is to be called before they are.
    """
    for name, beginning in LOGGED.items():
        logger = logging.getLogger(name)
        if not any(isinstance(one, _Unsaid) for one in logger.filters):
            logger.addFilter(_Unsaid(beginning))
    for beginning, category in WARNED:
        warnings.filterwarnings("ignore", message=beginning, category=category)
