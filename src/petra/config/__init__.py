"""The study's configuration: YAML or Python in, one frozen and validated record out.

Every unknown key and bad value is refused with its path, what is allowed and a did-you-mean.
"""

from petra.config.read import changed_config, load_config, parse_config
from petra.config.records import StudyConfig
from petra.config.sections import CallbackConfig, CallConfig, PriorConfig, SavingsConfig

__all__ = [
    "CallConfig",
    "CallbackConfig",
    "PriorConfig",
    "SavingsConfig",
    "StudyConfig",
    "changed_config",
    "load_config",
    "parse_config",
]
