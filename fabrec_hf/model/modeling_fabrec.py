"""3FabRec: an autoencoder of faces, and a landmark detector that retasks its frozen generator (CVPR 2020)."""

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import can_return_tuple

from .backbones_fabrec import FabRecBackboneEncoder
from .configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig
from .delta_fabrec import whole_weights
from .embedded_fabrec import embedded_or_given
from .fused_modeling_fabrec import FabRecFusedForLandmarkDetection
from .heatmap_loss import heatmap_loss, readout_loss
from .heatmaps import alignment_shift, encode_heatmaps
from .landmark_decoding import Decoded, Drawing, decode_anchors, decode_drawing, decoding_steps, flip_permutation
from .layers_fabrec import FabRecDecoder, FabRecEncoder
from .local_refinement import LocalRefinement, is_local, local_maps
from .model_inputs import check_inputs
from .outputs_fabrec import FabRecAutoencoderOutput, FabRecLandmarkOutput
from .point_regression import PointRegression
from .shape_prior import ShapePrior


class FabRecPreTrainedModel(PreTrainedModel):
    """Weight initialization and names shared by the models."""

    config_class = FabRecAutoencoderConfig
    base_model_prefix = "autoencoder"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # The auto classes that give this model where its code comes with the checkpoint.
    auto_classes: tuple[str, ...] = ("AutoModel",)
    # `forward` takes further arguments and ignores them. The Trainer would take that for a loss that is divided by the
    # number of accumulated batches already.
    accepts_loss_kwargs = False

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
    _keys_to_ignore_on_load_unexpected = [
        r"^(transfer_layers|heatmap_head|shape_prior|point_regression|point_readout|local_refinement)\."
    ]

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
            channels[-1], config.num_heatmaps, kernel_size=4, stride=2, padding=1, bias=False
        )
        # Anchors of a detector that has them, its own points of another: never both.
        self.point_readout = None
        if config.point_readout:
            points = config.num_anchors or config.num_landmarks
            self.point_readout = nn.Linear(self.autoencoder.encoder.fc.in_features, 2 * points)
        self.point_regression = None
        if config.anchors is not None:
            self.point_regression = PointRegression(config.num_landmarks, config.num_anchors)
        self.shape_prior = ShapePrior(config.num_landmarks) if config.shape_prior else None
        self.local_refinement = None
        if config.local_refinement:
            sizes = self.autoencoder.encoder.map_sizes
            channels = [channels for channels, side in sizes if is_local(side)]
            self.local_refinement = LocalRefinement(config.num_landmarks, channels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if any(module is layer for layer in self.transfer_layers):
            if isinstance(module, nn.Conv2d) and self.config.transfer_initialization == "identity":
                init.dirac_(module.weight)
            elif isinstance(module, nn.Conv2d):  # the authors leave their heads at PyTorch's default
                init.kaiming_uniform_(module.weight, a=5**0.5)
        elif module is self.point_readout:  # every point in the middle of the crop
            init.zeros_(module.weight)
            init.constant_(module.bias, 0.5)
        elif isinstance(module, ShapePrior):
            init.constant_(module.mean, 0.5)
            init.eye_(module.gain)
        elif isinstance(module, PointRegression):
            for value in (module.nearest, module.offsets, module.center, module.gain, module.share):
                init.zeros_(value)
        elif isinstance(module, LocalRefinement):
            init.zeros_(module.gain)
            init.zeros_(module.bias)
            init.copy_(module.flip_index, torch.arange(len(module.flip_index)))
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
        """Draw heatmaps (N, L or L + A, S, S), anchors' last, from the generator's first stage (N, C, 8, 8)."""
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
        drawn_faces: int | None = None,
        **kwargs,
    ) -> FabRecLandmarkOutput:
        """Detect landmarks in face crops.

        Args:
            pixel_values: (N, 3, S, S), RGB in [0, 1] minus the processor's mean.
            labels: (N, L, 2) as fractions of the crop, NaN for a point that is not annotated; or (N, L + A, 2), those
                of the anchors last.
            output_reconstruction: Also run the color half of the decoder, which changes no landmark.
            output_landmarks: False leaves landmarks and scores out, which a step of training does not need.
            drawn_faces: Draw the first so many crops alone, in a step of training that reads points out of them all.
            **kwargs: `return_dict=False` returns a tuple.

        Raises:
            ValueError: The images or labels do not fit the configuration.
        """
        check_inputs(self.config, pixel_values, labels)
        drawing, latent, first = self.draw(pixel_values, drawn_faces)
        loss = None if labels is None else self.landmark_loss(drawing, labels)
        flip_index = None if self.training else flip_permutation(self.config)
        if flip_index is not None:
            places = torch.tensor(flip_index, device=pixel_values.device)
            drawing = drawing.average(self.draw(pixel_values.flip(-1))[0], places)
        return FabRecLandmarkOutput(
            loss=loss,
            heatmaps=drawing.heatmaps[:, : self.config.num_landmarks],
            latent=latent,
            reconstruction=self.autoencoder.decoder(latent, first) if output_reconstruction else None,
            **(self.decode(drawing)._asdict() if output_landmarks else {}),
        )

    def draw(
        self, pixel_values: torch.Tensor, drawn_faces: int | None = None
    ) -> tuple[Drawing, torch.Tensor, torch.Tensor]:
        """Return the drawing of crops (N, 3, S, S), not averaged with the mirrored ones'.

        Args:
            pixel_values: The crops.
            drawn_faces: M, how many of them get heatmaps, the first ones; all N by default.

        Returns:
            The drawing, latents (N, latent_size), and the generator's first stage (M, C, 8, 8).
        """
        encoder = self.autoencoder.encoder
        maps = encoder.maps(pixel_values)
        features = encoder.pool_map(maps[-1])
        latent = encoder.fc(features)
        first = self.autoencoder.decoder.first_stage(latent[:drawn_faces])
        local = () if self.local_refinement is None else local_maps(maps)
        return Drawing(self.predict_heatmaps(first), self._read_out(features), local), latent, first

    def local_maps(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the encoder's maps (N, C, S, S) that a closer look at points sees, of crops (N, 3, S, S)."""
        return local_maps(self.autoencoder.encoder.maps(pixel_values))

    def _read_out(self, features: torch.Tensor) -> torch.Tensor | None:
        if self.point_readout is None:
            return None
        # Eight bits of precision are too few for coordinates.
        with torch.autocast(features.device.type, enabled=False):
            points = self.point_readout(features.to(self.point_readout.weight.dtype))
        return points.unflatten(1, (-1, 2))

    def landmark_loss(self, drawing: Drawing, labels: torch.Tensor) -> torch.Tensor:
        """Compare a drawing with labels (N, L or L + A, 2): heatmaps (paper equation 5) plus readout; scalar.

        Of the first faces alone, if no others were drawn.
        """
        config = self.config
        # There may be labels of anchors that are not drawn, and drawn anchors without labels.
        heatmaps = drawing.heatmaps[:, : labels.shape[1]]
        shift = alignment_shift(config.heatmap_alignment, config.heatmap_size, config.image_size)
        layout = torch.contiguous_format if heatmaps.is_contiguous() else torch.channels_last
        drawn = labels[: len(heatmaps), : heatmaps.shape[1]]
        targets = encode_heatmaps(drawn.float(), config.heatmap_size, config.heatmap_sigma, shift, layout)
        loss = heatmap_loss(heatmaps, targets, drawn.isfinite().all(dim=-1), config.foreground_weight)
        if drawing.readout is None:
            return loss
        # Labels without anchors say nothing of a readout of anchors.
        if labels.shape[1] == config.num_landmarks + config.num_anchors:
            loss = loss + readout_loss(drawing.readout, labels[:, -drawing.readout.shape[1] :], config.heatmap_size)
        # What the regression tells from it teaches the encoder, too, which the heatmaps alone do less well.
        if self.point_regression is not None:
            told = self.point_regression(drawing.readout)
            loss = loss + 0.5 * readout_loss(told, labels[:, : config.num_landmarks], config.heatmap_size)
        return loss

    def decode(self, drawing: Drawing) -> Decoded:
        """Read landmarks off a drawing."""
        return decode_drawing(self.config, decoding_steps(self), drawing)

    def decode_anchors(self, drawing: Drawing) -> torch.Tensor:
        """Read anchors (N, A, 2), fractions of the crop, off a drawing."""
        return decode_anchors(self.config, drawing)

    def fuse(self) -> FabRecFusedForLandmarkDetection:
        """Return a twin for inference that finds the same landmarks sooner, see `fusion_fabrec`.

        Its landmarks are the model's up to rounding, in any dtype and on any device that the twin is moved to. It
        neither trains nor saves nor reconstructs. Later changes of the model do not reach it.

        Example:
            >>> model = FabRecForLandmarkDetection(FabRecConfig.small(num_landmarks=5)).fuse()
            >>> model(torch.zeros(1, 3, 128, 128)).landmarks.shape
            torch.Size([1, 5, 2])
        """
        return FabRecFusedForLandmarkDetection(self)


# Those that say how the autoencoder of a delta may be fetched, too.
_HUB_ARGUMENTS = ("token", "cache_dir", "local_files_only", "force_download")


def _autoencoder_weights(name: str, **where) -> dict[str, torch.Tensor]:
    return FabRecAutoencoder.from_pretrained(name, dtype=torch.float32, **where).state_dict()


__all__ = ["FabRecAutoencoder", "FabRecForLandmarkDetection", "FabRecPreTrainedModel"]
