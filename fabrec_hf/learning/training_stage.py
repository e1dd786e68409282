"""One stage of teaching landmarks, for `fabrec fit` and for the training script: what learns, and how fast."""

from typing import TYPE_CHECKING, Any

import torch

from ..model.known_schemes import LandmarkScheme
from ..model.modeling_fabrec import FabRecForLandmarkDetection
from .labeled_faces import LabeledFaces
from .landmark_training import LandmarkRecipe, parameter_groups, training_loss
from .schedules import cosine_factor


if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["TrainingStage", "rate_factor"]


def rate_factor(recipe: LandmarkRecipe, step: int, steps: int) -> float:
    """Return the learning rate of a step over its peak.

    Args:
        recipe: Its warm-up takes a quarter of the stage at most; behind it the rate stays, or falls along a cosine.
        step: Number within the stage, from 0.
        steps: Steps of the stage.
    """
    warmup = min(recipe.warmup_steps, steps // 4)
    if recipe.cosine_schedule:
        return cosine_factor(step, steps, warmup)
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


class TrainingStage:
    """Transfer layers and head alone, or with the encoder; each stage has its own optimizer, as in the paper.

    Args:
        model: From `build_model`; changed in place. Fine-tuning unfreezes its encoder.
        faces: What to learn from.
        scheme: What the points are.
        recipe: Rates, batch size and augmentation.
        finetune: Whether the encoder learns, too.
        steps: Steps of the stage.
        accelerator: Wraps model and optimizer, for several processes or devices.

    Attributes:
        model: The model, wrapped if there is an accelerator.
    """

    def __init__(
        self,
        model: FabRecForLandmarkDetection,
        faces: LabeledFaces,
        scheme: LandmarkScheme,
        recipe: LandmarkRecipe,
        finetune: bool,
        steps: int,
        accelerator: "Accelerator | None" = None,
    ):
        self.faces, self.scheme, self.recipe, self.steps = faces, scheme, recipe, steps
        self.accelerator = accelerator
        self.device = accelerator.device if accelerator else model.device
        groups = parameter_groups(model, recipe, finetune)
        self._peaks = [group["lr"] for group in groups]
        self._learned = [parameter for group in groups for parameter in group["params"]]
        self.model: Any = model
        self.optimizer: Any = torch.optim.Adam(groups, fused=True)
        if accelerator:
            # Frozen first, wrapped second: a wrapper that saw other parameters would leave gradients unsynchronized.
            self.model, self.optimizer = accelerator.prepare(self.model, self.optimizer)

    def step(self, place: int, number: int) -> float:
        """Take a step and return its loss.

        Args:
            place: Number of the step within the stage, from 0: it sets the rates.
            number: Its number over all stages: with the recipe's seed it decides every draw.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        factor = rate_factor(self.recipe, place, self.steps)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        accelerator = self.accelerator
        share = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
        loss = training_loss(self.model, self.faces, self.recipe, self.scheme, number, self.device, share)
        self.optimizer.zero_grad()
        if accelerator:
            accelerator.backward(loss)
        else:
            loss.backward()
        if self.recipe.max_grad_norm:
            clip = accelerator.clip_grad_norm_ if accelerator else torch.nn.utils.clip_grad_norm_
            clip(self._learned, self.recipe.max_grad_norm)
        self.optimizer.step()
        return float(loss.detach())
