"""The study's configuration: YAML or Python in, one frozen and validated record out.

Every unknown key and bad value is refused with its path, what is allowed and a did-you-mean.
"""

from petra.config.read import load_config, parse_config
from petra.config.records import CallConfig, SavingsConfig, StudyConfig

__all__ = ["CallConfig", "SavingsConfig", "StudyConfig", "load_config", "parse_config"]
