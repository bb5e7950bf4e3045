"""Where `petra.networks.resnet` used to be. Kept models, and study files with ``model:``, name its
classes by this path.
"""

from petra.networks.resnet import BasicBlock as BasicBlock
from petra.networks.resnet import CifarResNet as CifarResNet
from petra.networks.resnet import TinyResNet8 as TinyResNet8
