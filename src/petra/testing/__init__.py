"""For tests: `assert_artifact`, of a model that ships, which needs no more than petra; and the
suites that every plugin must pass, which need the packages of the ``dev`` extra.
"""

from petra.testing.artifacts import assert_artifact as assert_artifact

__all__ = ["assert_artifact"]
