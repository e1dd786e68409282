"""The networks of a pre-training: built anew or loaded to begin with, saved in the end."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from growth import finish, grow
from training_utils import save_weights

from fabrec_hf.checkpoints.names import resolve_checkpoint
from fabrec_hf.errors import CheckpointError
from fabrec_hf.learning.discriminators import FabRecDiscriminators
from fabrec_hf.model.configuration_fabrec import FabRecAutoencoderConfig
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor
from fabrec_hf.model.modeling_fabrec import FabRecAutoencoder


if TYPE_CHECKING:
    from pretrain import PretrainingArguments, Trainer


__all__ = ["build_models", "save_model"]


def build_models(arguments: "PretrainingArguments") -> tuple[FabRecAutoencoder, FabRecDiscriminators]:
    """Build the networks anew, or load those of a finished run: autoencoder and, if they are there, discriminators."""
    if arguments.initial_model is None:
        config = _model_config(arguments)
        return FabRecAutoencoder(config).to(memory_format=torch.channels_last), FabRecDiscriminators(config)
    folder = resolve_checkpoint(arguments.initial_model)
    model = FabRecAutoencoder.from_pretrained(folder, dtype=torch.float32)
    expected = 128 if arguments.fade_steps else arguments.image_size
    if model.config.image_size != expected:
        raise CheckpointError(
            f"{folder} is for {model.config.image_size} px, not {expected}; 128 px grow to 256 with --fade_steps."
        )
    discriminators = Path(folder) / "discriminators"
    if discriminators.is_dir():
        critics = FabRecDiscriminators.from_pretrained(discriminators)
    else:
        critics = FabRecDiscriminators(model.config)
    model = grow(model) if arguments.fade_steps else model
    return model.to(memory_format=torch.channels_last), critics


def _model_config(arguments: "PretrainingArguments") -> FabRecAutoencoderConfig:
    sizes = {"image_size": arguments.image_size} | ({"widths": arguments.widths} if arguments.widths else {})
    if arguments.preset == "small":
        return FabRecAutoencoderConfig.small(**sizes)
    return FabRecAutoencoderConfig(**sizes)


def save_model(trainer: "Trainer", output_dir: Path) -> None:
    """Write the autoencoder and its processor, and the discriminators in a folder of their own."""
    accelerator = trainer.accelerator
    if not accelerator.is_main_process:
        return
    model = finish(trainer.result)
    save_weights(model, output_dir, trainer.arguments.shard_size)
    critics = FabRecDiscriminators(FabRecAutoencoderConfig.from_dict(model.config.to_dict()))
    critics.config.auto_map = {}  # they are no model of an Auto class
    critics.image.load_state_dict(accelerator.unwrap_model(trainer.image_critic).state_dict())
    critics.latent.load_state_dict(accelerator.unwrap_model(trainer.latent_critic).state_dict())
    save_weights(critics, output_dir / "discriminators", trainer.arguments.shard_size)
    size = {"height": model.config.image_size, "width": model.config.image_size}
    FabRecImageProcessor(size=size).save_pretrained(output_dir)
