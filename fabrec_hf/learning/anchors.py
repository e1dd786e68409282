"""Start from a detector that knows other points: its points become anchors of the new ones."""

from pathlib import Path

import torch

from ..checkpoints.loading import checkpoint_kind, load_autoencoder, load_landmark_model
from ..model.configuration_fabrec import FabRecConfig
from ..model.known_schemes import LandmarkScheme
from ..model.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection
from ..model.point_regression import mirror
from .labeled_faces import LabeledFaces


__all__ = ["REGRESSION_SHARE", "anchors_of", "begin_from_anchors", "load_start", "predict_anchors", "take_over"]

# How much the regression from the anchors has to say in the end: anything from 0.35 to 0.65 is as good, on validation
# faces of 300-W with ten annotated ones.
REGRESSION_SHARE = 0.5


def load_start(name: str | Path) -> FabRecAutoencoder | FabRecForLandmarkDetection:
    """Load what a fit starts from: an autoencoder, or a detector that knows points.

    Args:
        name: Folder, name of a checkpoint that comes with the package, or repository `owner/name`.

    Raises:
        CheckpointError: There is no such checkpoint, or it is not whole.
    """
    if checkpoint_kind(name) == FabRecConfig.model_type:
        return load_landmark_model(name)[0].float()
    return load_autoencoder(name)


def anchors_of(
    start: FabRecAutoencoder | FabRecForLandmarkDetection,
    heatmap_size: int,
    heatmap_sigma: float,
    transfer_layers: list[int] | None = None,
) -> dict | None:
    """Return the scheme of the points that a start knows, if a model with such heatmaps can go on drawing them."""
    if not isinstance(start, FabRecForLandmarkDetection) or start.config.landmark_scheme is None:
        return None
    known = start.config
    same = (known.heatmap_size, known.heatmap_sigma, known.transfer_layers, known.heatmap_alignment)
    if same != (heatmap_size, heatmap_sigma, transfer_layers, "edges"):
        return None
    return dict(known.landmark_scheme)


@torch.no_grad()
def take_over(model: FabRecForLandmarkDetection, start: FabRecForLandmarkDetection) -> None:
    """Give a model with anchors the transfer layers of the detector that knows them, and what it finds them by."""
    model.transfer_layers.load_state_dict(start.transfer_layers.state_dict())
    own, known = model.config.num_landmarks, start.heatmap_head.weight[:, : start.config.num_landmarks]
    if model.config.draws_anchors:
        model.heatmap_head.weight[:, own:] = known
    # What the points' own heatmaps will begin as, see `begin_from_anchors`; nothing that is saved.
    model.register_buffer("known_heads", known.clone(), persistent=False)
    if model.point_readout is not None and start.point_readout is not None:
        model.point_readout.load_state_dict(start.point_readout.state_dict())


@torch.no_grad()
def predict_anchors(
    model: FabRecForLandmarkDetection, faces: LabeledFaces, anchor_flip_index: list[int] | None
) -> torch.Tensor:
    """Find the anchors of plain crops, (N, A, 2) as fractions of the crop; the mean with the mirrored crop's."""
    model.eval()
    found = [torch.empty(0, model.config.num_anchors, 2)]
    for pixels in faces.plain_inputs(model.device):
        anchors = model.decode_anchors(model.draw(pixels)[0])
        if anchor_flip_index is not None:
            mirrored = model.decode_anchors(model.draw(pixels.flip(-1))[0])
            anchors = 0.5 * (anchors + mirror(mirrored, anchor_flip_index))
        found.append(anchors.cpu())
    return torch.cat(found)


def begin_from_anchors(
    model: FabRecForLandmarkDetection, faces: LabeledFaces, scheme: LandmarkScheme, share: float = REGRESSION_SHARE
) -> LabeledFaces:
    """Let a model that knows anchors tell its own points from them, before any step of training.

    The regression is solved for, and every point's heatmap begins as that of the anchor that it goes with. A model
    that has begun already is left as it is, and one without anchors, too.

    Args:
        model: From `build_model`; changed in place.
        faces: What to learn from.
        scheme: What the points are.
        share: How much the regression has to say beside the heatmaps, 0 to 1.

    Returns:
        The faces, with the anchors that the model finds in them beside the annotated points: what it is to remember.
    """
    regression = model.point_regression
    if regression is None:
        return faces
    known = LandmarkScheme.from_dict(model.config.anchors or {})
    flip_index = scheme.flip_index if scheme.flip_pairs else None
    anchor_flip_index = known.flip_index if known.flip_pairs else None
    anchors = predict_anchors(model, faces, anchor_flip_index)
    if not bool(regression.center.any()):
        regression.fit(anchors, faces.landmarks, flip_index, anchor_flip_index)
        regression.share.fill_(share)
        with torch.no_grad():
            own = model.config.num_landmarks
            model.heatmap_head.weight[:, :own] = model.known_heads[:, regression.nearest]
    return faces.with_anchors(anchors, anchor_flip_index)
