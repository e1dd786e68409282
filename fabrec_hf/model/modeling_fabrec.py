"""3FabRec: an autoencoder of faces, and a landmark detector that retasks its frozen generator (CVPR 2020)."""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .backbones_fabrec import FabRecBackboneEncoder
from .configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig
from .delta_fabrec import whole_weights
from .embedded_fabrec import embedded_or_given
from .fusion_fabrec import FusedHeatmapNetwork
from .heatmap_loss import heatmap_loss
from .heatmaps import alignment_shift, calibrate_scores, decode_heatmaps, encode_heatmaps
from .known_schemes import LandmarkScheme
from .layers_fabrec import FabRecDecoder, FabRecEncoder
from .point_regression import PointRegression
from .shape_prior import ShapePrior


@dataclass
class FabRecAutoencoderOutput(ModelOutput):
    """Output of `FabRecAutoencoder`.

    Args:
        reconstruction: (N, 3, S, S) in the input's pixel space, RGB in [0, 1] minus the processor's mean.
        latent: (N, latent_size).
    """

    reconstruction: torch.Tensor | None = None
    latent: torch.Tensor | None = None


@dataclass
class FabRecLandmarkOutput(ModelOutput):
    """Output of `FabRecForLandmarkDetection`.

    Args:
        loss: Scalar heatmap loss, when labels are given.
        heatmaps: (N, L, H, W), about 1 at a landmark and 0 elsewhere, unbounded.
        landmarks: (N, L, 2) x and y as fractions of the crop, 0 and 1 being its edges.
        scores: (N, L) in [0, 1], the height of the smoothed heatmap at the landmark. Of a calibrated checkpoint, the
            share of such landmarks that lie within the calibration's tolerance of the truth.
        latent: (N, latent_size).
        reconstruction: (N, 3, S, S), when asked for.
    """

    loss: torch.Tensor | None = None
    heatmaps: torch.Tensor | None = None
    landmarks: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    latent: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None


class FabRecPreTrainedModel(PreTrainedModel):
    """Weight initialisation and names shared by the models."""

    config_class = FabRecAutoencoderConfig
    base_model_prefix = "autoencoder"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # The auto classes that give this model where its code comes with the checkpoint.
    auto_classes: tuple[str, ...] = ("AutoModel",)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """Load from a folder, by the name of an embedded checkpoint or of a repository (see `PreTrainedModel`)."""
        source = embedded_or_given(pretrained_model_name_or_path, **kwargs)
        where = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        load = partial(_autoencoder_weights, **where)
        weights = None if "state_dict" in kwargs else whole_weights(source, load, kwargs.get("subfolder"))
        if weights is None:
            return super().from_pretrained(source, *model_args, **kwargs)
        given = {name: kwargs.pop(name) for name in ("config", "dtype") if name in kwargs}
        if not issubclass(cls, FabRecForLandmarkDetection):
            within = f"{cls.base_model_prefix}."
            weights = {name: value for name, value in weights.items() if name.startswith(within)}
        if "config" not in given:
            given["config"], kwargs = cls.config_class.from_pretrained(source, return_unused_kwargs=True, **kwargs)
        loaded = super().from_pretrained(None, *model_args, state_dict=weights, **given, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.name_or_path = model.config.name_or_path = str(source)
        return loaded

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save the model; with its code, if it is registered for an auto class (`PreTrainedModel.save_pretrained`)."""
        if self._auto_class is not None:
            # transformers adds one entry a class to what the config has, and the landmark model needs two; what the
            # config has may also be from the other kind of model.
            reference = f"{type(self).__module__.rpartition('.')[-1]}.{type(self).__name__}"
            self.config.auto_map = dict.fromkeys(self.auto_classes, reference)
        return super().save_pretrained(save_directory, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Convolutions as in the reference: He over the fan-out; everything else keeps PyTorch's own defaults.
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.ConvTranspose2d):
            init.kaiming_uniform_(module.weight, a=5**0.5)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.PReLU):
            init.constant_(module.weight, 0.25)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)


class FabRecAutoencoder(FabRecPreTrainedModel):
    """Adversarial autoencoder of faces with a 99-D latent space (paper section 3.2).

    The discriminators are needed to train it, never to use it: see `discriminators_fabrec`.

    Example:
        >>> model = FabRecAutoencoder(FabRecAutoencoderConfig.small())
        >>> latent = model.encode(torch.zeros(2, 3, 128, 128))
        >>> model.decode(latent).shape
        torch.Size([2, 3, 128, 128])
    """

    # What a detector has beyond its autoencoder is left where it is.
    _keys_to_ignore_on_load_unexpected = [r"^(transfer_layers|heatmap_head|shape_prior|point_regression)\."]

    def __init__(self, config: FabRecAutoencoderConfig):
        super().__init__(config)
        # One of two classes with different parts: who uses the parts knows which.
        self.encoder: Any = FabRecBackboneEncoder(config) if config.backbone else FabRecEncoder(config)
        self.decoder = FabRecDecoder(config)
        self.post_init()

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode images (N, 3, S, S), RGB in [0, 1] minus the processor's mean, to latents (N, latent_size)."""
        return self.encoder(pixel_values)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode latents (N, latent_size) to images (N, 3, S, S), RGB minus the processor's mean."""
        return self.decoder(latent)

    @can_return_tuple
    def forward(self, pixel_values: torch.Tensor, num_stages: int | None = None, **kwargs) -> FabRecAutoencoderOutput:
        """Reconstruct images (N, 3, S, S), smaller when only the first `num_stages` of the decoder are used."""
        latent = self.encode(pixel_values)
        return FabRecAutoencoderOutput(reconstruction=self.decoder(latent, num_stages=num_stages), latent=latent)


class FabRecForLandmarkDetection(FabRecPreTrainedModel):
    """Landmark detector: encoder, frozen generator, interleaved transfer layers, heatmap head (paper section 3.3).

    Built frozen except for the transfer layers and the head, the paper's first supervised stage; `unfreeze_encoder`
    starts its second one. The autoencoder's BatchNorm layers use their running statistics at all times.

    Example:
        >>> model = FabRecForLandmarkDetection(FabRecConfig.small(num_landmarks=5)).eval()
        >>> outputs = model(torch.zeros(1, 3, 128, 128))
        >>> outputs.landmarks.shape, outputs.heatmaps.shape
        (torch.Size([1, 5, 2]), torch.Size([1, 5, 64, 64]))
    """

    config_class = FabRecConfig
    auto_classes = ("AutoModel", "AutoModelForKeypointDetection")

    def __init__(self, config: FabRecConfig):
        super().__init__(config)
        self.autoencoder = FabRecAutoencoder(config)
        self.autoencoder.requires_grad_(False)
        self.autoencoder.eval()
        channels = config.decoder_widths[: config.num_transfer_layers]
        present = config.transfer_layers
        self.transfer_layers = nn.ModuleList(
            nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
            if present is None or place in present
            else nn.Identity()
            for place, width in enumerate(channels, start=1)
        )
        self.heatmap_head = nn.ConvTranspose2d(
            channels[-1], config.num_landmarks + config.num_anchors, kernel_size=4, stride=2, padding=1, bias=False
        )
        self.point_regression = None
        if config.anchors is not None:
            self.point_regression = PointRegression(config.num_landmarks, config.num_anchors)
        self.shape_prior = ShapePrior(config.num_landmarks) if config.shape_prior else None
        self._flip_index = _flip_index(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if any(module is layer for layer in self.transfer_layers):
            if isinstance(module, nn.Conv2d) and self.config.transfer_initialization == "identity":
                init.dirac_(module.weight)
            elif isinstance(module, nn.Conv2d):  # the authors leave their heads at PyTorch's default
                init.kaiming_uniform_(module.weight, a=5**0.5)
        elif isinstance(module, ShapePrior):
            init.constant_(module.mean, 0.5)
            init.eye_(module.gain)
        elif isinstance(module, PointRegression):
            for value in (module.nearest, module.offsets, module.center, module.gain, module.share):
                init.zeros_(value)
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """Load a landmark model, or an autoencoder that gets a new head; frozen as a new model is."""
        loaded = super().from_pretrained(*args, **kwargs)
        # Loading replaces every parameter by a new one, and new ones train.
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.autoencoder.requires_grad_(False)
        return loaded

    def train(self, mode: bool = True):
        """Set the training mode of the transfer layers; the autoencoder, BatchNorm included, stays in eval mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def unfreeze_encoder(self) -> None:
        """Let the encoder train together with the transfer layers (paper section 3.3.2); the decoder stays frozen."""
        self.autoencoder.encoder.requires_grad_(True)

    def predict_heatmaps(self, first: torch.Tensor) -> torch.Tensor:
        """Draw heatmaps (N, L + A, H, W), those of anchors last, from the generator's first stage (N, C, 8, 8)."""
        stages = self.autoencoder.decoder.stages
        hidden_states = self.transfer_layers[0](first)
        for stage, transfer_layer in zip(stages[1:], self.transfer_layers[1:], strict=False):
            hidden_states = transfer_layer(stage(hidden_states))
        return self.heatmap_head(hidden_states)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_reconstruction: bool = False,
        output_landmarks: bool = True,
        **kwargs,
    ) -> FabRecLandmarkOutput:
        """Detect landmarks in face crops.

        Args:
            pixel_values: (N, 3, S, S), RGB in [0, 1] minus the processor's mean.
            labels: (N, L, 2) as fractions of the crop, NaN for a point that is not annotated; or (N, L + A, 2), those
                of the anchors last.
            output_reconstruction: Also run the colour half of the decoder, which changes no landmark.
            output_landmarks: False leaves landmarks and scores out, which a step of training does not need.
            **kwargs: `return_dict=False` returns a tuple.

        Raises:
            ValueError: The images or labels do not fit the configuration.
        """
        _check_inputs(self.config, pixel_values, labels)
        latent = self.autoencoder.encode(pixel_values)
        first = self.autoencoder.decoder.first_stage(latent)
        heatmaps = self.predict_heatmaps(first)
        loss = None if labels is None else self.landmark_loss(heatmaps, labels)
        if self._flip_index is not None and not self.training:
            mirrored = self.autoencoder.decoder.first_stage(self.autoencoder.encode(pixel_values.flip(-1)))
            heatmaps = _average_with_mirrored(heatmaps, self.predict_heatmaps(mirrored), self._flip_index)
        landmarks, scores = self.decode_landmarks(heatmaps) if output_landmarks else (None, None)
        return FabRecLandmarkOutput(
            loss=loss,
            heatmaps=heatmaps[:, : self.config.num_landmarks],
            landmarks=landmarks,
            scores=scores,
            latent=latent,
            reconstruction=self.autoencoder.decoder(latent, first) if output_reconstruction else None,
        )

    def landmark_loss(self, heatmaps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compare heatmaps (N, L + A, H, W) with those of labels (N, L or L + A, 2) (paper equation 5); scalar."""
        config = self.config
        heatmaps = heatmaps[:, : labels.shape[1]]
        shift = alignment_shift(config.heatmap_alignment, config.heatmap_size, config.image_size)
        layout = torch.contiguous_format if heatmaps.is_contiguous() else torch.channels_last
        targets = encode_heatmaps(labels.float(), config.heatmap_size, config.heatmap_sigma, shift, layout)
        return heatmap_loss(heatmaps, targets, labels.isfinite().all(dim=-1), config.foreground_weight)

    def decode_landmarks(self, heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read landmarks (N, L, 2), fractions of the crop, and scores (N, L) off heatmaps (N, L + A, H, W)."""
        return _decode(self.config, self.point_regression, self.shape_prior, heatmaps)

    def decode_anchors(self, heatmaps: torch.Tensor) -> torch.Tensor:
        """Read anchors (N, A, 2), fractions of the crop, off heatmaps (N, L + A, H, W)."""
        return _decode_heatmaps(self.config, heatmaps[:, self.config.num_landmarks :])[0]

    def fuse(self) -> "FabRecFusedForLandmarkDetection":
        """Return a twin for inference that finds the same landmarks sooner, see `fusion_fabrec`.

        Its landmarks are the model's up to rounding, in any dtype and on any device that the twin is moved to. It
        neither trains nor saves nor reconstructs. Later changes of the model do not reach it.

        Example:
            >>> model = FabRecForLandmarkDetection(FabRecConfig.small(num_landmarks=5)).fuse()
            >>> model(torch.zeros(1, 3, 128, 128)).landmarks.shape
            torch.Size([1, 5, 2])
        """
        return FabRecFusedForLandmarkDetection(self)


class FabRecFusedForLandmarkDetection(nn.Module):
    """What `FabRecForLandmarkDetection.fuse` returns: for inference only, channels last, without reconstruction.

    Args:
        model: The model to copy, whatever mode it is in.
    """

    def __init__(self, model: FabRecForLandmarkDetection):
        super().__init__()
        self.config = copy.deepcopy(model.config)
        # Folding asks for eval mode and shares what it does not change: a copy keeps the model as it is.
        self.network = FusedHeatmapNetwork(copy.deepcopy(model).eval())
        self.network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.point_regression = copy.deepcopy(model.point_regression)
        self.shape_prior = copy.deepcopy(model.shape_prior)
        flip_index = _flip_index(model.config)
        # A buffer: a list would be copied to the device, which waits for it, in every call.
        self.register_buffer("flip_index", None if flip_index is None else torch.tensor(flip_index))
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.parameters()).dtype

    def predict_heatmaps(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return heatmaps (N, L + A, H, W), flip-averaged if so configured, and latents (N, latent_size)."""
        heatmaps, latent = self.network(pixel_values)
        if self.flip_index is not None:
            mirrored, _ = self.network(pixel_values.flip(-1))
            heatmaps = _average_with_mirrored(heatmaps, mirrored, self.flip_index)
        return heatmaps, latent

    def decode_landmarks(self, heatmaps: torch.Tensor, blur: str = "products") -> tuple[torch.Tensor, torch.Tensor]:
        """Read landmarks and scores off heatmaps as the model does; `blur` as in `decode_heatmaps`."""
        return _decode(self.config, self.point_regression, self.shape_prior, heatmaps, blur)

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor) -> FabRecLandmarkOutput:
        """Detect landmarks in face crops (N, 3, S, S), see `FabRecForLandmarkDetection.forward`.

        Raises:
            ValueError: The images do not fit the configuration.
        """
        _check_inputs(self.config, pixel_values)
        heatmaps, latent = self.predict_heatmaps(pixel_values.contiguous(memory_format=torch.channels_last))
        landmarks, scores = self.decode_landmarks(heatmaps)
        own = heatmaps[:, : self.config.num_landmarks]
        return FabRecLandmarkOutput(heatmaps=own, landmarks=landmarks, scores=scores, latent=latent)


# Those that say how the autoencoder of a delta may be fetched, too.
_HUB_ARGUMENTS = ("token", "cache_dir", "local_files_only", "force_download")


def _autoencoder_weights(name: str, **where) -> dict[str, torch.Tensor]:
    return FabRecAutoencoder.from_pretrained(name, dtype=torch.float32, **where).state_dict()


def _flip_index(config: FabRecConfig) -> list[int] | None:
    if not config.flip_average or not config.landmark_scheme:
        return None
    flip_index = LandmarkScheme.from_dict(config.landmark_scheme).flip_index
    if config.anchors is None:
        return flip_index
    return flip_index + [config.num_landmarks + place for place in LandmarkScheme.from_dict(config.anchors).flip_index]


def _average_with_mirrored(heatmaps: torch.Tensor, mirrored: torch.Tensor, flip_index) -> torch.Tensor:
    """Average heatmaps (N, L, H, W) with those of the mirrored crops."""
    return 0.5 * (heatmaps + mirrored.flip(-1)[:, flip_index])


def _decode_heatmaps(
    config: FabRecConfig, heatmaps: torch.Tensor, blur: str = "products"
) -> tuple[torch.Tensor, torch.Tensor]:
    shift = alignment_shift(config.heatmap_alignment, config.heatmap_size, config.image_size)
    return decode_heatmaps(heatmaps, config.decoding, config.heatmap_sigma, shift, blur)


def _decode(
    config: FabRecConfig,
    point_regression: PointRegression | None,
    shape_prior: ShapePrior | None,
    heatmaps: torch.Tensor,
    blur: str = "products",
) -> tuple[torch.Tensor, torch.Tensor]:
    landmarks, scores = _decode_heatmaps(config, heatmaps, blur)
    if config.anchors is not None:
        count = config.num_landmarks
        landmarks, anchors, scores = landmarks[:, :count], landmarks[:, count:], scores[:, :count]
        if point_regression is not None:
            landmarks = point_regression.combine(landmarks, anchors)
    if shape_prior is not None:
        landmarks = shape_prior(landmarks)
    if config.score_calibration is not None:
        scores = calibrate_scores(scores, config.score_calibration["heights"], config.score_calibration["scores"])
    return landmarks, scores


def _check_inputs(config: FabRecConfig, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> None:
    size, count = config.image_size, config.num_landmarks
    if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != (3, size, size):
        raise ValueError(
            f"pixel_values must be (N, 3, {size}, {size}), got {tuple(pixel_values.shape)}; "
            "prepare them with the checkpoint's image processor."
        )
    counts = {count, count + config.num_anchors}
    if labels is not None and tuple(labels.shape) not in {(len(pixel_values), points, 2) for points in counts}:
        raise ValueError(f"labels must be ({len(pixel_values)}, {count}, 2), got {tuple(labels.shape)}.")


__all__ = [
    "FabRecAutoencoder",
    "FabRecAutoencoderOutput",
    "FabRecForLandmarkDetection",
    "FabRecFusedForLandmarkDetection",
    "FabRecLandmarkOutput",
    "FabRecPreTrainedModel",
]
