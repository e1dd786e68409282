"""Tiny detectors with random weights, and noise for them to look at."""

import torch
from torch import nn

from fabrec_hf import FabRecConfig, FabRecForLandmarkDetection


TINY = {"image_size": 64, "widths": [8, 8, 8, 8], "latent_size": 8}


def tiny_config(**kwargs):
    return FabRecConfig(**(TINY | {"heatmap_size": 32, "heatmap_sigma": 1.75, "num_landmarks": 5} | kwargs))


def tiny_model(**kwargs):
    torch.manual_seed(0)
    return FabRecForLandmarkDetection(tiny_config(**kwargs)).eval()


def random_statistics(model):
    """Give every BatchNorm statistics of its own, as training would: the initial ones hide mistakes."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model


def pictures(count=2, size=64, seed=1):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) - 0.45
