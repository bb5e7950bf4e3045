"""Networks that are cut."""

from __future__ import annotations

import pytest
from pruned_parts import ZOO

zoo_model = pytest.mark.parametrize("name", list(ZOO))
