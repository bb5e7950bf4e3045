"""What a study knows before its first trial: what petra ships with (`shipped.json`, learnt from the
recorded benchmark), and what past studies of the user's have shown.
"""

from petra.prior.knowledge import Knowledge as Knowledge
from petra.prior.setting import Setting as Setting
