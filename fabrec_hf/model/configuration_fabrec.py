"""Configurations of the 3FabRec autoencoder and of the landmark detector built on its generator."""

import dataclasses
import math

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .embedded_fabrec import embedded_or_given


# Beyond these, a configuration is a mistake or an attack: merely listing its layers would take all time or memory.
MAX_IMAGE_SIZE = 4096
MAX_ENCODER_DEPTH = 64

BASE_WIDTHS = (64, 128, 256, 512)
SMALL_WIDTHS = (32, 64, 128, 256)

FACE_MESH = "face_mesh"
"""The backbone that is not timm's."""


@strict
class FabRecAutoencoderConfig(PreTrainedConfig):
    r"""Architecture of the adversarial autoencoder (paper section 4.2.1).

    The defaults are the paper's network at 256 px: 11,379,491 parameters in the encoder, 10,868,096 in the decoder.

    Args:
        image_size (`int`, defaults to 256):
            Side of the square input and of the reconstruction in pixels: a power of two, 32 to 4096. Every doubling
            beyond 128 adds one encoder stage in front and one decoder stage at the end.
        latent_size (`int`, defaults to 99):
            Length of the latent vector z.
        widths (`list[int]`, defaults to `[64, 128, 256, 512]`):
            Channels of the encoder's four stages. The decoder has them in the opposite order.
        encoder_depth (`int`, defaults to 2):
            Residual blocks in each encoder stage (ResNet-18 has two). The decoder always has one per stage.
        encoder_pooling (`str`, defaults to `"average"`):
            How the encoder's last map becomes the input of its linear layer: `"average"` is the paper's mean over all
            positions, `"flatten"` keeps them apart.
        backbone (`str`, *optional*):
            What the encoder looks with, in the place of the paper's ResNet: `"face_mesh"` is the trunk of MediaPipe's
            face mesh network, anything else a feature extractor of timm's by name. `:STRIDE` behind the name takes an
            earlier map than the last one, as in `"tf_efficientnet_lite0:16"`. `widths` then are the decoder's alone.

    Example:
        >>> config = FabRecAutoencoderConfig.small()
        >>> config.image_size, config.latent_size, list(config.widths)
        (128, 99, [32, 64, 128, 256])
    """

    model_type = "fabrec_autoencoder"

    image_size: int = 256
    latent_size: int = 99
    widths: list[int] | tuple[int, ...] = BASE_WIDTHS
    encoder_depth: int = 2
    encoder_pooling: str = "average"
    backbone: str | None = None

    def validate_architecture(self):
        """Refuse architectures that cannot be built, naming the field at fault."""
        super().validate_architecture()
        if not 32 <= self.image_size <= MAX_IMAGE_SIZE or not math.log2(self.image_size).is_integer():
            raise ValueError(f"image_size must be a power of two from 32 to {MAX_IMAGE_SIZE}, got {self.image_size}.")
        if len(self.widths) != 4 or min(self.widths) < 1:
            raise ValueError(f"widths must be four positive channel counts, got {list(self.widths)}.")
        if self.latent_size < 1 or self.encoder_depth < 1:
            raise ValueError("latent_size and encoder_depth must be at least 1.")
        if self.encoder_depth > MAX_ENCODER_DEPTH:
            raise ValueError(f"encoder_depth must be at most {MAX_ENCODER_DEPTH}, got {self.encoder_depth}.")
        _require_choice("encoder_pooling", self.encoder_pooling, ("average", "flatten"))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, cache_dir=None, **kwargs):
        """Load from a folder, by the name of an embedded checkpoint or of a repository (see `PreTrainedConfig`)."""
        source = embedded_or_given(pretrained_model_name_or_path, cache_dir=cache_dir, **kwargs)
        return super().from_pretrained(source, cache_dir=cache_dir, **kwargs)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Read the dictionary of a checkpoint (see `PreTrainedConfig`); a detector has one of its autoencoder, too."""
        values, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if cls is FabRecAutoencoderConfig and values.get("model_type") == FabRecConfig.model_type:
            values = values | {"model_type": cls.model_type}
        return values, kwargs

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Build the configuration from a dictionary; keyword arguments replace its fields (see `PreTrainedConfig`)."""
        # transformers checks the dictionary before it applies the arguments. Fields that only fit together with them,
        # such as the heatmap size for an autoencoder of 64 px, would be refused.
        names = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in kwargs.items() if name in names}
        return super().from_dict({**config_dict, **given}, **kwargs)

    @property
    def decoder_widths(self) -> list[int]:
        """Output channels of each decoder stage; stage k (from 1) produces maps of side 4 * 2**k."""
        num_stages = int(math.log2(self.image_size)) - 3
        descending = list(self.widths[-2::-1])
        return (descending + [self.widths[0]] * num_stages)[:num_stages]

    @classmethod
    def small(cls, **kwargs):
        """Build the `small` preset: half the paper's width at 128 px; any field can be overridden."""
        return cls(**{"image_size": 128, "widths": list(SMALL_WIDTHS)} | kwargs)


@strict
class FabRecConfig(FabRecAutoencoderConfig):
    r"""Landmark detector: the autoencoder, interleaved transfer layers (ITLs) and a heatmap head (paper section 3.3).

    Fields you will actually change are `num_landmarks` with its `landmark_scheme`; the architecture comes from the
    autoencoder's checkpoint.

    Args:
        num_landmarks (`int`, defaults to 68):
            Number of heatmaps L.
        landmark_scheme (`dict`, *optional*):
            `LandmarkScheme.to_dict()`: names, flip pairs, normalizer, parts and edges of the points.
        heatmap_size (`int`, defaults to 128):
            Side of the heatmaps: at least 16, at most `image_size`. One ITL sits after each decoder stage from the
            first (8 px) up to half this size: four for 128, and the decoder stages beyond are not used.
        transfer_layers (`list[int]`, *optional*):
            Which ITLs exist, counted from 1 at the bottom; all of them by default. Where one is left out, the frozen
            decoder's activations pass unchanged (the ablation of Table 7).
        transfer_initialization (`str`, defaults to `"identity"`):
            `"identity"` starts every ITL as a copy of its input, so that training starts from the generator's own
            features; `"random"` is the authors' PyTorch default.
        heatmap_sigma (`float`, defaults to 7.0):
            Standard deviation of the Gaussian targets in heatmap pixels (paper section 4.2.2).
        foreground_weight (`float`, defaults to 0.0):
            Weight of the error near a landmark over the error elsewhere: a pixel of target value t counts
            `1 + foreground_weight * t`. 0 is the paper's plain mean-squared error (equation 5).
        decoding (`str`, defaults to `"subpixel"`):
            `"subpixel"` or `"argmax"` (the paper's: a box blur and the best integer pixel).
        heatmap_alignment (`str`, defaults to `"edges"`):
            How heatmap pixels lie on the crop. `"edges"`: both grids cover the crop edge to edge. `"indices"`: heatmap
            index i stands for crop pixel `i * image_size / heatmap_size`, which the authors' checkpoints learned.
        flip_average (`bool`, defaults to `False`):
            Average the heatmaps with those of the mirrored crop (needs flip pairs in the scheme; twice the work).
        shape_prior (`bool`, defaults to `False`):
            Correct the landmarks by what the annotated faces look like, see `shape_prior`.
        anchors (`dict`, *optional*):
            `LandmarkScheme.to_dict()` of the points that the detector knew before it learned its own:
            `point_regression` tells its points from them.
        draws_anchors (`bool`, defaults to `True`):
            Draw heatmaps of the anchors, too, behind those of the points. A detector that reads its anchors out can do
            without, in half the time.
        point_readout (`bool`, defaults to `False`):
            Read the anchors, or the points of a detector without anchors, off the encoder's last features, too: one
            linear layer, whose points are averaged with those of the heatmaps.
        local_refinement (`bool`, defaults to `False`):
            Look closer at every point in the end, see `local_refinement`.
        error_model (`dict`, *optional*):
            `ErrorModel.to_dict()`: how far off each point probably is, see `error_model`. Scores are then how probable
            it is that a point is found; without it they are the heights of the heatmaps.
        score_calibration (`dict`, *optional*):
            A curve from heights to scores, in checkpoints that were calibrated before there were error models.
    """

    model_type = "fabrec"
    # The Trainer keeps all that a model returns of all faces it evaluates, but for these: a gigabyte a thousand faces.
    keys_to_ignore_at_inference = ["heatmaps", "drawn", "moves", "latent", "reconstruction"]

    num_landmarks: int = 68
    landmark_scheme: dict | None = None
    heatmap_size: int = 128
    transfer_layers: list[int] | None = None
    transfer_initialization: str = "identity"
    heatmap_sigma: float = 7.0
    foreground_weight: float = 0.0
    decoding: str = "subpixel"
    heatmap_alignment: str = "edges"
    flip_average: bool = False
    shape_prior: bool = False
    anchors: dict | None = None
    draws_anchors: bool = True
    point_readout: bool = False
    local_refinement: bool = False
    error_model: dict | None = None
    score_calibration: dict | None = None

    def validate_architecture(self):
        """Refuse heads that cannot be built on this autoencoder, naming the field at fault."""
        super().validate_architecture()
        if self.num_landmarks < 1:
            raise ValueError(f"num_landmarks must be at least 1, got {self.num_landmarks}.")
        if self.landmark_scheme and self.landmark_scheme["num_landmarks"] != self.num_landmarks:
            raise ValueError(
                f"landmark_scheme has {self.landmark_scheme['num_landmarks']} points but num_landmarks is "
                f"{self.num_landmarks}; give a scheme of {self.num_landmarks} points."
            )
        if not 16 <= self.heatmap_size <= self.image_size or not math.log2(self.heatmap_size).is_integer():
            raise ValueError(
                f"heatmap_size must be a power of two from 16 to image_size {self.image_size}, "
                f"got {self.heatmap_size}."
            )
        if not set(self.transfer_layers or []) <= set(range(1, self.num_transfer_layers + 1)):
            raise ValueError(f"transfer_layers must lie in 1..{self.num_transfer_layers}, got {self.transfer_layers}.")
        if self.heatmap_sigma <= 0 or self.foreground_weight < 0:
            raise ValueError("heatmap_sigma must be positive and foreground_weight not negative.")
        _require_choice("transfer_initialization", self.transfer_initialization, ("identity", "random"))
        _require_choice("decoding", self.decoding, ("subpixel", "argmax"))
        _require_choice("heatmap_alignment", self.heatmap_alignment, ("edges", "indices"))
        if self.score_calibration is not None:
            _check_calibration(self.score_calibration)
        if self.error_model is not None:
            _check_error_model(self.error_model, self.num_landmarks)
        if self.anchors is not None and self.num_anchors < 1:
            raise ValueError("anchors must be a landmark scheme with num_landmarks of at least 1.")
        if not self.draws_anchors and not self.point_readout:
            raise ValueError("draws_anchors may be False only with point_readout: else nothing tells the anchors.")
        flip_pairs = (self.landmark_scheme or {}).get("flip_pairs")
        if self.flip_average and self.anchors is not None and not self.anchors.get("flip_pairs"):
            raise ValueError("flip_average needs anchors with flip_pairs.")
        if self.flip_average and (not flip_pairs or self.heatmap_alignment != "edges"):
            raise ValueError('flip_average needs a landmark_scheme with flip_pairs and heatmap_alignment "edges".')

    @property
    def num_anchors(self) -> int:
        """Number A of points that the detector knew before."""
        count = (self.anchors or {}).get("num_landmarks", 0)
        return count if isinstance(count, int) else 0

    @property
    def num_heatmaps(self) -> int:
        """Number H of heatmaps: L of the points, and A behind them of anchors that are drawn."""
        return self.num_landmarks + (self.num_anchors if self.draws_anchors else 0)

    @property
    def calibration(self) -> dict | None:
        """What scores are calibrated by, with its `tolerance`; None where they are heights of heatmaps."""
        return self.error_model or self.score_calibration

    @property
    def num_transfer_layers(self) -> int:
        """Number of places for an ITL: one after each decoder stage that the heatmaps need."""
        return int(math.log2(self.heatmap_size)) - 3

    @classmethod
    def small(cls, **kwargs):
        """Build the `small` preset: half width, 128-px crops, 64-px heatmaps with the paper's relative sigma."""
        return super().small(**{"heatmap_size": 64, "heatmap_sigma": 3.5} | kwargs)


def _check_calibration(values: dict) -> None:
    heights, scores = values.get("heights", []), values.get("scores", [])
    rising = all(low < high for low, high in zip(heights, heights[1:], strict=False))
    falling = any(low > high for low, high in zip(scores, scores[1:], strict=False))
    if not heights or len(heights) != len(scores) or not rising or falling:
        raise ValueError("score_calibration needs rising heights and as many scores, which do not fall.")


def _check_error_model(values: dict, num_landmarks: int) -> None:
    weights, offsets = values.get("weights", []), values.get("offsets", [])
    if len(weights) not in (4, 8) or len(offsets) != num_landmarks:
        raise ValueError(f"error_model needs 4 or 8 weights and {num_landmarks} offsets.")
    if not values.get("spread", 0) > 0 or not values.get("tolerance", 0) > 0:
        raise ValueError("error_model needs a positive spread and tolerance.")


def _require_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{field} must be one of {', '.join(choices)}, got {value!r}.")


__all__ = ["FabRecAutoencoderConfig", "FabRecConfig"]
