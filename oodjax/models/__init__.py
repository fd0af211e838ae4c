"""Networks and their checkpoints."""

from oodjax.models.resnet import ModelOutput, ResNet, ResNetConfig, fold_batch_norm, initialize

__all__ = ["ModelOutput", "ResNet", "ResNetConfig", "fold_batch_norm", "initialize"]
