"""The one room where model, task and data are examined before anything is spent: `examine`."""

from petra.intake.device import check_device
from petra.intake.examine import Examined, examine
from petra.intake.kinds import as_model, as_task
from petra.intake.mark import fingerprint
from petra.intake.meaning import meaning_of
from petra.intake.onnx_input import received

__all__ = [
    "Examined",
    "as_model",
    "as_task",
    "check_device",
    "examine",
    "fingerprint",
    "meaning_of",
    "received",
]
