"""Give an autoencoder another encoder, which begins near the latent vectors of the old one.

    python training/change_encoder.py --autoencoder 3fabrec-autoencoder --data FACES --output_dir runs/start \
        --backbone face_mesh --weights face_landmark.tflite

The generator stays. The new backbone takes published weights; its linear layer is solved for by ridge regression, so
that it says of `--faces` pictures what the old encoder says, as far as a linear layer can. `face_landmark.tflite`
comes with the PyPI wheels of MediaPipe below 0.10.30 (Apache-2.0); `pip install tflite` reads it. For a backbone of
timm's, --weights is a file of its state dict, or `timm` for the weights that timm would download.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from tqdm.auto import tqdm
from training_utils import parse_arguments, run_main

from fabrec_hf.checkpoints.loading import load_autoencoder
from fabrec_hf.common.output_folder import check_new_folder
from fabrec_hf.data import load_faces
from fabrec_hf.data.canvases import Canvases
from fabrec_hf.data.decoding import decode_pictures
from fabrec_hf.errors import CheckpointError
from fabrec_hf.learning.augmentation import AugmentationConfig, augment
from fabrec_hf.learning.labeled_faces import image_mean
from fabrec_hf.learning.linear_start import solve_linear
from fabrec_hf.model.backbones_fabrec import FabRecBackboneEncoder
from fabrec_hf.model.configuration_fabrec import FACE_MESH, FabRecAutoencoderConfig
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor
from fabrec_hf.model.modeling_fabrec import FabRecAutoencoder


logger = logging.getLogger(__name__)

# Vectors this many times as long as the median are of pictures that the old encoder does not know.
LONGEST = 2.0
# The new encoder is asked about the crops that it will learn from, changed a little.
CHANGES = AugmentationConfig(flip=0.5, rotation=15, translation=0.03, scale=(0.95, 1.05))


@dataclass
class ChangeArguments:
    """Which autoencoder gets which encoder."""

    data: list[str] = field(metadata={"help": "Parquet files or folders with face crops."})
    output_dir: str = field(metadata={"help": "New folder for the autoencoder."})
    backbone: str = field(metadata={"help": "face_mesh, or a model of timm's."})
    weights: str | None = field(default=None, metadata={"help": "File of the backbone's weights, or timm."})
    encoder_pooling: str = field(default="flatten", metadata={"help": "average or flatten."})
    autoencoder: str = field(default="3fabrec-autoencoder", metadata={"help": "Autoencoder that gives the generator."})
    faces: int = field(default=6000, metadata={"help": "Faces to solve the linear layer on."})
    seed: int = field(default=0, metadata={"help": "Seed of the faces and their changes."})


def read_face_mesh(path: Path, backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Read the trunk of MediaPipe's face mesh network from its published file, by the names of `FaceMeshBackbone`.

    Args:
        path: `face_landmark.tflite`.
        backbone: Says the names and shapes; the file has the same layers in the same order, and more behind them.

    Raises:
        CheckpointError: The file is of another network, or what reads it is not installed.
    """
    try:
        import tflite
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{path} is read by the package tflite: pip install tflite.") from error

    model = tflite.Model.GetRootAsModel(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    codes = [model.OperatorCodes(operator.OpcodeIndex()) for operator in operators]
    kinds = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    stored = {
        operator.Outputs(0): operator.Inputs(0)
        for operator, kind in zip(operators, kinds, strict=True)
        if kind == tflite.BuiltinOperator.DEQUANTIZE
    }

    def constant(index: int) -> torch.Tensor:
        tensor = graph.Tensors(stored.get(index, index))
        kind = {tflite.TensorType.FLOAT32: torch.float32, tflite.TensorType.FLOAT16: torch.float16}[tensor.Type()]
        values = torch.frombuffer(bytearray(model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()), dtype=kind)
        return values.float().view(tuple(int(size) for size in tensor.ShapeAsNumpy()))

    # Back from the vertices: a second branch of the network, which says whether there is a face, is left out.
    vertices = [index for index in graph.OutputsAsNumpy() if graph.Tensors(index).ShapeAsNumpy()[-1] == 3 * 468]
    needed, values = set(vertices), []
    for operator, kind in zip(reversed(operators), reversed(kinds), strict=True):
        if kind == tflite.BuiltinOperator.DEQUANTIZE or operator.Outputs(0) not in needed:
            continue
        needed.update(operator.InputsAsNumpy())
        if kind == tflite.BuiltinOperator.CONV_2D:  # (C_out, height, width, C_in)
            values += [constant(operator.Inputs(2)), constant(operator.Inputs(1)).permute(0, 3, 1, 2)]
        elif kind == tflite.BuiltinOperator.DEPTHWISE_CONV_2D:  # (1, height, width, C)
            values += [constant(operator.Inputs(2)), constant(operator.Inputs(1)).permute(3, 0, 1, 2)]
        elif kind == tflite.BuiltinOperator.PRELU:
            values.append(constant(operator.Inputs(1)).flatten())
    values.reverse()
    expected = backbone.state_dict()
    if len(values) < len(expected) or any(
        value.shape != new.shape for value, new in zip(expected.values(), values, strict=False)
    ):
        raise CheckpointError(f"{path} is not MediaPipe's face_landmark.tflite: its layers have other shapes.")
    return dict(zip(expected, values, strict=False))


def load_backbone(encoder: FabRecBackboneEncoder, backbone: str, weights: str | None) -> None:
    """Load the weights of an encoder's backbone from a file, or from timm.

    Raises:
        CheckpointError: They are of another network, or there is no such file.
    """
    network: Any = encoder.backbone
    if weights is None:
        return
    if backbone != FACE_MESH:
        network = network.network
        if weights == "timm":
            import timm

            name, _, _ = backbone.partition(":")
            network.load_state_dict(timm.create_model(name, pretrained=True, features_only=True).state_dict(), False)
            return
    path = Path(weights)
    if not path.is_file():
        raise CheckpointError(f"--weights {path}: no such file.")
    if path.suffix == ".tflite":
        state = read_face_mesh(path, network)
    elif path.suffix == ".safetensors":
        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    missing = network.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise CheckpointError(f"{path} lacks {len(missing)} weights of {backbone}, such as {missing[0]}.")


@torch.no_grad()
def solve_last_layer(encoder: FabRecBackboneEncoder, old: nn.Module, canvases: torch.Tensor, seed: int = 0) -> float:
    """Set an encoder's linear layer so that it says what another encoder says of the same faces.

    Args:
        encoder: The new one; its backbone stays as it is.
        old: The encoder to come near to.
        canvases: (N, 3, S, S) uint8 face crops.
        seed: Of their random changes.

    Returns:
        The share of the latent vectors' variance that it explains, at most 1.
    """
    mean, features, latents = image_mean(torch.device("cpu")), [], []
    for index, batch in enumerate(tqdm(canvases.split(64), desc="encoding", unit="batch")):
        torch.manual_seed(seed + index)
        crops, _ = augment(Canvases(batch), batch.shape[-1], CHANGES)
        features.append(encoder.features(crops - mean).double())
        latents.append(old(crops - mean).double())
    inputs, targets = torch.cat(features), torch.cat(latents)
    lengths = (targets - targets.median(dim=0).values).norm(dim=1)
    known = lengths < LONGEST * lengths.median()
    inputs, targets = inputs[known], targets[known]
    return solve_linear(encoder.fc, inputs, targets)


def main(arguments: ChangeArguments) -> None:
    """Build the new encoder, solve its last layer, and save it with the old generator."""
    output_dir = Path(arguments.output_dir)
    check_new_folder(output_dir)
    old = load_autoencoder(arguments.autoencoder)
    values = old.config.to_dict() | {"backbone": arguments.backbone, "encoder_pooling": arguments.encoder_pooling}
    model = FabRecAutoencoder(FabRecAutoencoderConfig.from_dict(values)).eval()
    model.decoder.load_state_dict(old.decoder.state_dict())
    assert isinstance(model.encoder, FabRecBackboneEncoder)
    load_backbone(model.encoder, arguments.backbone, arguments.weights)
    dataset = load_faces(arguments.data, "train", columns=("image",)).shuffle(seed=arguments.seed)
    canvases = decode_pictures(dataset.select(range(min(arguments.faces, len(dataset)))), old.config.image_size)
    explained = solve_last_layer(model.encoder, old.encoder, canvases, arguments.seed)
    model.save_pretrained(output_dir)
    FabRecImageProcessor(size={"height": old.config.image_size, "width": old.config.image_size}).save_pretrained(
        output_dir
    )
    logger.info("The new encoder explains %.0f %% of the old one's latent vectors.", 100 * explained)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    run_main(main, parse_arguments(ChangeArguments, __doc__ or ""))
