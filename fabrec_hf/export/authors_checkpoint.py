"""The authors' published checkpoints (`saae.mdl`) become ordinary ones: safetensors, a config, an image processor.

The published file is a torch pickle of `{"arch", "z_dim", "input_size", "state_dict"}` whose tensors are named by
network: `Q.` encoder, `P.` decoder, `D_z.` and `D.` the discriminators of latents and images, `LMH.` transfer layers
and heatmap head. Everything that the architecture needs is read off the shapes of these tensors.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..common.drafts import unfinished_folder
from ..common.output_folder import check_new_folder, make_readable, take_place
from ..errors import CheckpointError
from ..learning.discriminators import FabRecDiscriminators
from ..model.configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig
from ..model.geometry import EXTEND_BOTTOM, EXTEND_TOP
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.known_schemes import get_scheme
from ..model.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection


StateDict = dict[str, torch.Tensor]

# The authors published one landmark model a data set, each with the margins of that data set's reader.
SCHEMES = {68: "300w", 98: "wflw", 19: "aflw"}
MARGINS = {"300w": (EXTEND_TOP, EXTEND_BOTTOM), "wflw": (0.0, 0.10), "aflw": (0.0, 0.0)}

# Published name -> ours. A named group `stage` counts from the group's first stage; see `_rename`.
AUTOENCODER_NAMES = (
    (r"Q\.layer(?P<stage>\d)\.(?P<rest>.+)", "encoder.stages.{stage}.{rest}"),
    (r"Q\.(?P<rest>.+)", "encoder.{rest}"),
    (r"P\.layer(?P<stage>\d)\.0\.(?P<rest>.+)", "decoder.stages.{stage}.{rest}"),
    (r"P\.lin\.(?P<rest>.+)", "decoder.to_rgb.{rest}"),
    (r"P\.(?P<rest>.+)", "decoder.{rest}"),
)
HEAD_NAMES = (
    (r"LMH\.t(?P<stage>\d)\.(?P<rest>.+)", "transfer_layers.{stage}.{rest}"),
    (r"LMH\.lin\.(?P<rest>.+)", "heatmap_head.{rest}"),
)
DISCRIMINATOR_NAMES = (
    (r"D_z\.lin1\.(?P<rest>.+)", "latent.layers.0.{rest}"),
    (r"D_z\.lin2\.(?P<rest>.+)", "latent.layers.3.{rest}"),
    (r"D_z\.lin3\.(?P<rest>.+)", "latent.layers.6.{rest}"),
    (r"D\.main\.(?P<rest>.+)", "image.layers.{rest}"),
)


def convert(mdl_path: str | Path, output: str | Path) -> Path:
    """Convert a published checkpoint file to a folder that `from_pretrained` loads.

    The folder holds the landmark model, or the autoencoder if the file has no heatmap head, with its image processor;
    the discriminators lie in its sub-folder `discriminators` if the file has them. It appears complete or not at all.

    Args:
        mdl_path: The published `saae.mdl`.
        output: Folder to write: new, or empty.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is no published 3FabRec checkpoint, or the output folder is in use.
    """
    output = Path(output)
    check_new_folder(output, CheckpointError)
    config, landmark_state, discriminator_state = convert_state_dict(load_published(mdl_path))
    with unfinished_folder(output.parent) as workplace:
        folder = workplace / "checkpoint"
        _save(config, landmark_state, discriminator_state, folder)
        make_readable(folder)
        take_place(folder, output)
    return output


def load_published(mdl_path: str | Path) -> StateDict:
    """Read the tensors of a published checkpoint; nothing but tensors and plain values is ever unpickled.

    Args:
        mdl_path: The published `saae.mdl`.

    Returns:
        Published names and tensors.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is no published checkpoint.
    """
    path = Path(mdl_path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file.")
    what = f"{path} is not a published 3FabRec checkpoint"
    if path.is_dir():
        raise CheckpointError(f"{what} but a folder: name the saae.mdl inside it.")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except (
        Exception
    ) as error:  # zipfile, pickle and torch each raise their own kinds for a file that is none of theirs
        raise CheckpointError(f"{what}: it does not load as a file of tensors and plain values alone.") from error
    state_dict = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state_dict, dict) or not state_dict:
        raise CheckpointError(f'{what}: it has no "state_dict".')
    if not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state_dict.items()):
        raise CheckpointError(f'{what}: its "state_dict" holds something else than named tensors.')
    return dict(state_dict)


def convert_state_dict(
    published: Mapping[str, torch.Tensor],
) -> tuple[FabRecConfig | FabRecAutoencoderConfig, StateDict, StateDict | None]:
    """Rename the tensors of a published checkpoint and infer its configuration from their shapes.

    Args:
        published: The published names and tensors.

    Returns:
        The configuration (a `FabRecConfig` if there is a heatmap head, a `FabRecAutoencoderConfig` otherwise), the
        state dict of that model, and the one of `FabRecDiscriminators` or None.

    Raises:
        CheckpointError: A tensor is missing, has another shape than its neighbors ask for, or is of no use.
    """
    config = _infer_config(published)
    has_head = isinstance(config, FabRecConfig)
    model_class = FabRecForLandmarkDetection if has_head else FabRecAutoencoder
    model_state: StateDict = {}
    discriminator_state: StateDict = {}
    useless = []
    for key, tensor in published.items():
        if name := _rename(key, AUTOENCODER_NAMES, first=int("Q.layer0.0.conv1.weight" not in published)):
            model_state["autoencoder." + name if has_head else name] = tensor
        elif has_head and (name := _rename(key, HEAD_NAMES)):
            model_state[name] = tensor
        elif name := _rename(key, DISCRIMINATOR_NAMES):
            discriminator_state[name] = tensor
        else:
            useless.append(key)
    if useless:
        raise CheckpointError(f"The published checkpoint has tensors of no use here: {_shorten(useless)}.")
    _check_complete(model_state, model_class, config)
    if discriminator_state:
        _check_complete(discriminator_state, FabRecDiscriminators, config)
    return config, model_state, discriminator_state or None


def _infer_config(published: Mapping[str, torch.Tensor]) -> FabRecConfig | FabRecAutoencoderConfig:
    try:
        fields: dict[str, Any] = {
            # The authors put a stage in front for 256 px and nothing else tells the two sizes apart.
            "image_size": 256 if "Q.layer0.0.conv1.weight" in published else 128,
            "latent_size": published["Q.fc.weight"].shape[0],
            "widths": [published[f"Q.layer{stage}.0.conv1.weight"].shape[0] for stage in (1, 2, 3, 4)],
        }
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"This is no published 3FabRec checkpoint: it has no encoder tensor {error}.") from error
    blocks = {key.split(".")[2] for key in published if key.startswith("Q.layer1.")}
    fields["encoder_depth"] = len(blocks)
    head = published.get("LMH.lin.weight")
    if head is None:
        return FabRecAutoencoderConfig(**fields)
    if head.ndim != 4:
        raise CheckpointError(f"LMH.lin.weight has the shape {tuple(head.shape)}, not that of a heatmap head.")
    num_landmarks = head.shape[1]
    scheme = get_scheme(SCHEMES[num_landmarks]).to_dict() if num_landmarks in SCHEMES else None
    return FabRecConfig(
        **fields,
        num_landmarks=num_landmarks,
        landmark_scheme=scheme,
        heatmap_size=128,
        heatmap_sigma=7.0,
        decoding="argmax",
        heatmap_alignment="indices",
    )


def _rename(key: str, names: tuple[tuple[str, str], ...], first: int = 1) -> str | None:
    """Return our name of a published tensor, or None; the encoder's stages count from `first`."""
    for pattern, name in names:
        if match := re.fullmatch(pattern, key):
            parts = match.groupdict()
            if "stage" in parts:
                parts["stage"] = str(int(parts["stage"]) - (first if key.startswith("Q.") else 1))
            return name.format(**parts)
    return None


def _check_complete(state: StateDict, model_class: type, config: FabRecAutoencoderConfig) -> None:
    """Refuse a state dict that does not fill the model, or does not fit into it, naming the first tensors at fault."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in model_class(config).state_dict().items()}
    lacking = [name for name in expected if name not in state]
    if lacking:
        raise CheckpointError(f"The published checkpoint lacks what becomes {_shorten(lacking)}.")
    useless = [name for name in state if name not in expected]
    if useless:
        raise CheckpointError(
            f"The published checkpoint has tensors of no use here: what becomes {_shorten(useless)}."
        )
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if state[name].shape != shape
    ]
    if misshapen:
        raise CheckpointError(f"Tensors of the published checkpoint do not fit: {_shorten(misshapen)}.")


def _shorten(names: list[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _save(
    config: FabRecConfig | FabRecAutoencoderConfig,
    state: StateDict,
    discriminator_state: StateDict | None,
    folder: Path,
) -> None:
    has_head = isinstance(config, FabRecConfig)
    model = FabRecForLandmarkDetection(config) if has_head else FabRecAutoencoder(config)
    model.load_state_dict(state)
    model.save_pretrained(folder)
    scheme = config.landmark_scheme["name"] if has_head and config.landmark_scheme else "300w"
    extend_top, extend_bottom = MARGINS[scheme]
    FabRecImageProcessor(
        size={"height": config.image_size, "width": config.image_size},
        resample=Image.Resampling.BICUBIC,  # as in the authors' readers
        extend_top=extend_top,
        extend_bottom=extend_bottom,
    ).save_pretrained(folder)
    if discriminator_state:
        discriminators = FabRecDiscriminators(config)
        discriminators.load_state_dict(discriminator_state)
        discriminators.save_pretrained(folder / "discriminators")


__all__ = ["convert", "convert_state_dict", "load_published"]
