"""What teaching landmarks consists of, for the training script and for `fabrec fit` (paper sections 3.3 and 4.2.2)."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from ..data.face_set import FaceSet
from ..data.scheme_files import BUILT_IN, infer_scheme, load_scheme
from ..errors import DataError, SchemeError
from ..metrics import normalized_mean_error, point_errors
from ..model.configuration_fabrec import FabRecConfig
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.known_schemes import LandmarkScheme, get_scheme
from ..model.landmark_decoding import Decoded
from ..model.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection
from .anchors import anchors_of, load_start, take_over
from .augmentation import AugmentationConfig, augment, check_scale
from .labeled_faces import LabeledFaces, image_mean
from .schedules import batch_indices, seed_step
from .score_calibration import fit_error_model


__all__ = [
    "LandmarkRecipe",
    "build_model",
    "build_processor",
    "calibrate",
    "find_scheme",
    "fit_shape_prior",
    "landmark_errors",
    "no_predictions",
    "parameter_groups",
    "predict_faces",
    "training_loss",
]


@dataclass(kw_only=True)
class LandmarkRecipe:
    """How transfer layers and encoder learn: every choice that is not about files. The defaults are the paper's."""

    head_steps: int = field(default=1000, metadata={"help": "Steps of transfer layers and head alone."})
    finetune_steps: int = field(default=0, metadata={"help": "Steps with the encoder, after those."})
    batch_size: int = field(default=40, metadata={"help": "Faces a step, over all processes."})
    head_learning_rate: float = field(default=1e-3, metadata={"help": "Adam's rate of the head before fine-tuning."})
    finetune_head_learning_rate: float = field(default=1e-4, metadata={"help": "The same during fine-tuning."})
    encoder_learning_rate: float = field(default=2e-5, metadata={"help": "Adam's rate of the encoder."})
    warmup_steps: int = field(default=0, metadata={"help": "Steps of linear warm-up, a quarter of a stage at most."})
    cosine_schedule: bool = field(default=False, metadata={"help": "Let the rates fall along a cosine in each stage."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "Longest gradient of a step; 0 sets no limit."})
    heatmap_size: int = field(default=128, metadata={"help": "Side of the heatmaps."})
    heatmap_sigma: float = field(default=7.0, metadata={"help": "Standard deviation of the targets, heatmap pixels."})
    foreground_weight: float = field(default=0.0, metadata={"help": "Extra weight of errors near a landmark."})
    transfer_initialization: str = field(default="random", metadata={"help": "Start of the ITLs: random, identity."})
    transfer_layers: list[int] | None = field(default=None, metadata={"help": "Which ITLs exist; all by default."})
    decoding: str = field(default="argmax", metadata={"help": "argmax (the paper's) or subpixel."})
    flip_average: bool = field(default=False, metadata={"help": "Average with the mirrored crop when predicting."})
    shape_prior: bool = field(default=False, metadata={"help": "Correct landmarks by the shapes learned from."})
    anchors: bool = field(default=False, metadata={"help": "Tell points from those that the start knows, if any."})
    point_readout: bool = field(default=False, metadata={"help": "Read points off the encoder's features, too."})
    drawn_faces: int | None = field(default=None, metadata={"help": "Faces of a step with heatmaps; all by default."})
    local_refinement: bool = field(default=False, metadata={"help": "Look closer at every point in the end."})
    flip: float = field(default=0.5, metadata={"help": "Probability of mirroring."})
    rotation: float = field(default=30.0, metadata={"help": "Largest random rotation in degrees."})
    translation: float = field(default=0.04, metadata={"help": "Largest random shift, fraction of the crop."})
    scale: list[float] = field(default_factory=lambda: [0.95, 1.05], metadata={"help": "Range of random sizes."})
    elastic: float = field(default=0.0, metadata={"help": "Largest smooth deformation, fraction of the crop."})
    occlusion: float = field(default=0.5, metadata={"help": "Probability of a covered rectangle."})
    color: float = field(default=0.0, metadata={"help": "Largest random change of brightness, contrast, saturation."})
    grayscale: float = field(default=0.0, metadata={"help": "Probability of removing the colors."})
    blur: float = field(default=0.0, metadata={"help": "Probability of a blur."})
    bfloat16: bool = field(default=False, metadata={"help": "Compute in bfloat16 where the device is made for it."})
    seed: int = field(default=0, metadata={"help": "Seed of the head, the order, the augmentation and the shots."})

    def __post_init__(self):
        """Refuse values that would fail later, in words."""
        if self.head_steps + self.finetune_steps < 1:
            raise ValueError("--head_steps and --finetune_steps must not both be 0.")
        check_scale(self.scale)
        if self.max_grad_norm < 0:
            raise ValueError(f"--max_grad_norm must not be negative, got {self.max_grad_norm}.")
        if self.drawn_faces is not None and not (self.point_readout and self.drawn_faces >= 1):
            raise ValueError("--drawn_faces must be at least 1, and needs --point_readout for the other faces.")
        _ = self.augmentation  # refuses in words what cannot be drawn

    @property
    def augmentation(self) -> AugmentationConfig:
        """The random changes of the training crops."""
        names = ("flip", "rotation", "translation", "elastic", "occlusion", "color", "grayscale", "blur")
        return AugmentationConfig(
            scale=(self.scale[0], self.scale[1]), **{name: getattr(self, name) for name in names}
        )


def find_scheme(name: str | None, face_set: FaceSet | None, num_landmarks: int) -> LandmarkScheme:
    """Return the named scheme, or that of the data, or the built-in one with that many points, or a bare one.

    Raises:
        SchemeError: The scheme has another number of points than the data.
    """
    scheme = load_scheme(name) or (face_set.scheme if face_set else None)
    if scheme is None:
        built_in = map(get_scheme, BUILT_IN)
        matching = [scheme for scheme in built_in if scheme.num_landmarks == num_landmarks]
        return matching[0] if matching else infer_scheme("custom", num_landmarks=num_landmarks)
    if scheme.num_landmarks != num_landmarks:
        raise SchemeError(f"--scheme {scheme.name} has {scheme.num_landmarks} points but the data {num_landmarks}.")
    return scheme


def build_processor(face_set: FaceSet | None, size: int) -> FabRecImageProcessor:
    """Crop as the paper does for this kind of data, or as for 300-W where the data does not say what it is."""
    margins = {"extend_top": face_set.extend_top, "extend_bottom": face_set.extend_bottom} if face_set else {}
    return FabRecImageProcessor(size={"height": size, "width": size}, **margins)


def build_model(
    autoencoder: str | FabRecAutoencoder | FabRecForLandmarkDetection, scheme: LandmarkScheme, recipe: LandmarkRecipe
) -> FabRecForLandmarkDetection:
    """Put fresh transfer layers and a head on an autoencoder, or on that within a landmark model.

    Args:
        autoencoder: Folder, name of a checkpoint that comes with the package, or repository `owner/name`; or what
            `load_start` made of it. With `anchors` in the recipe, the points of a landmark model become the anchors of
            the new ones.
        scheme: What the points are.
        recipe: Size and kind of the heatmaps, and the seed of the new layers.

    Raises:
        CheckpointError: There is no whole autoencoder of that name.
        DataError: The heatmaps would be larger than the autoencoder's pictures.
    """
    start = load_start(autoencoder) if isinstance(autoencoder, str) else autoencoder
    if recipe.heatmap_size > start.config.image_size:
        raise DataError(f"--heatmap_size {recipe.heatmap_size} exceeds the autoencoder's {start.config.image_size}.")
    names = ("heatmap_size", "heatmap_sigma", "foreground_weight", "transfer_initialization", "transfer_layers")
    names += ("decoding", "flip_average", "shape_prior", "local_refinement")
    settings = {name: getattr(recipe, name) for name in names}
    architecture = ("image_size", "widths", "latent_size", "encoder_depth", "encoder_pooling", "backbone")
    settings |= {name: getattr(start.config, name) for name in architecture}
    config = FabRecConfig(num_landmarks=scheme.num_landmarks, landmark_scheme=scheme.to_dict(), **settings)
    if recipe.anchors:
        config.anchors = anchors_of(start, recipe.heatmap_size, recipe.heatmap_sigma, recipe.transfer_layers)
    # What reads out anchors is the start's; without anchors the new points are read out, if the recipe says so.
    config.point_readout = start.config.point_readout if config.anchors else recipe.point_readout
    # Their heatmaps say nothing more, and take longer than all others.
    config.draws_anchors = not (config.anchors and config.point_readout)
    torch.manual_seed(recipe.seed)
    model = FabRecForLandmarkDetection(config)
    if isinstance(start, FabRecForLandmarkDetection):
        model.autoencoder.load_state_dict(start.autoencoder.state_dict())
        if config.anchors is not None:
            take_over(model, start)
    else:
        model.autoencoder.load_state_dict(start.state_dict())
    return model.to(memory_format=torch.channels_last)


def fit_shape_prior(model: FabRecForLandmarkDetection, faces: LabeledFaces, scheme: LandmarkScheme) -> None:
    """Let a model that has a shape prior know the faces that it learns from; another is left as it is."""
    if model.shape_prior is not None:
        model.shape_prior.fit(faces.landmarks, scheme.flip_index if scheme.flip_pairs else None)


def parameter_groups(model: FabRecForLandmarkDetection, recipe: LandmarkRecipe, finetune: bool) -> list[dict]:
    """What an optimizer of a stage learns, and at which peak rate.

    Args:
        model: The model; fine-tuning unfreezes its encoder. The generator stays as it is.
        recipe: The rates.
        finetune: False for transfer layers and head alone, True with the encoder beside them.
    """
    head = [*model.transfer_layers.parameters(), *model.heatmap_head.parameters()]
    readout = [] if model.point_readout is None else list(model.point_readout.parameters())
    if not finetune:
        return [{"params": head + readout, "lr": recipe.head_learning_rate}]
    model.unfreeze_encoder()
    # The readout sees the encoder's features as they change: it learns at their pace.
    return [
        {"params": head, "lr": recipe.finetune_head_learning_rate},
        {"params": [*model.autoencoder.encoder.parameters(), *readout], "lr": recipe.encoder_learning_rate},
    ]


def training_loss(
    model: torch.nn.Module,
    faces: LabeledFaces,
    recipe: LandmarkRecipe,
    scheme: LandmarkScheme,
    step: int,
    device: torch.device,
    share: tuple[int, int] = (0, 1),
) -> torch.Tensor:
    """Draw the batch of a step, augment it and return the heatmap loss (paper equation 5); scalar.

    Args:
        model: The model, perhaps wrapped for several processes.
        faces: What to learn from.
        recipe: Batch size, augmentation and seed.
        scheme: Its flip pairs say how points change places in a mirrored crop; without pairs nothing is mirrored.
        step: Number of the step from 0; with the seed it decides every draw.
        device: Where the model is.
        share: (rank, number of processes) of a batch that several processes share.

    Raises:
        FloatingPointError: The loss is not finite.
    """
    rank, world_size = share
    seed_step(recipe.seed, step, rank)
    rows = batch_indices(len(faces), recipe.batch_size, recipe.seed, step)[rank::world_size]
    canvases, landmarks = faces.canvases.subset(rows).to(device), faces.landmarks[rows].to(device)
    if faces.anchors is not None:
        landmarks = torch.cat([landmarks, faces.anchors[rows].to(device)], dim=1)
    flip_index = faces.flip_index(scheme)
    crops, landmarks = augment(canvases, faces.size, recipe.augmentation, landmarks, flip_index)
    model.train()
    images = (crops - image_mean(device)).contiguous(memory_format=torch.channels_last)
    drawn = None if recipe.drawn_faces is None else math.ceil(recipe.drawn_faces / world_size)
    # Around the network alone: the geometry above needs more than the eight bits of precision.
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16 and has_bfloat16(device)):
        loss = model(images, labels=landmarks, output_landmarks=False, drawn_faces=drawn).loss
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is not finite at step {step}: resume from the last checkpoint.")
    return loss


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; without them it is slower than 32 bits, not faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # an older PyTorch cannot tell
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def no_predictions(faces: int, points: int) -> Decoded:
    """Return predictions of (faces, points) of which none has been made: all NaN."""
    shape = faces, points
    return Decoded(*(torch.full(size, torch.nan) for size in ((*shape, 2), shape, (*shape, 2), (*shape, 2))))


@torch.no_grad()
def predict_faces(model: FabRecForLandmarkDetection, faces: LabeledFaces, device: torch.device) -> Decoded:
    """Predict the landmarks of annotated faces, as fractions of their plain crops; all of it on the CPU."""
    model.eval()
    found = [no_predictions(0, model.config.num_landmarks)]
    for pixels in faces.plain_inputs(device):
        outputs = model(pixels)
        parts = (outputs.landmarks, outputs.scores, outputs.drawn, outputs.moves)
        found.append(Decoded(*(values.cpu() for values in parts)))
    return Decoded(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def landmark_errors(landmarks: torch.Tensor, faces: LabeledFaces, scheme: LandmarkScheme) -> np.ndarray:
    """NME in percent of predicted landmarks (N, L, 2) by the scheme's normalizer, (N,); NaN for a face without."""
    return normalized_mean_error(landmarks.numpy(), faces.landmarks.numpy(), scheme.normalizer, faces.boxes)


def calibrate(model: FabRecForLandmarkDetection, found: Decoded, faces: LabeledFaces, scheme: LandmarkScheme) -> bool:
    """Let a model's scores say how probably its points are found, see `score_calibration`.

    Args:
        model: Not calibrated yet; its configuration is changed.
        found: Its predictions for faces that were not learned from; those that are NaN are left out.
        faces: Those faces.
        scheme: Its normalizer says what an error is divided by.

    Returns:
        Whether there were points enough.
    """
    errors = point_errors(found.landmarks.numpy(), faces.landmarks.numpy(), scheme.normalizer, faces.boxes)
    scores, drawn, landmarks, moves = (
        values.numpy() for values in (found.scores, found.drawn, found.landmarks, found.moves)
    )
    try:
        model.config.error_model = fit_error_model(scores, drawn, landmarks, moves, errors).to_dict()
    except DataError:
        return False
    return True
