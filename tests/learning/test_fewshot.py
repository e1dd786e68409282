"""Few-shot fitting: which faces to annotate, and a detector from a handful of them, of any scheme."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml


datasets = pytest.importorskip("datasets")
pytest.importorskip("kmedoids")

from fabrec_hf import (  # noqa: E402
    FabRecAutoencoder,
    FabRecAutoencoderConfig,
    FabRecImageProcessor,
)
from fabrec_hf.data import load_faces  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from fabrec_hf.learning import landmark_training  # noqa: E402
from fabrec_hf.learning.anchors import load_start  # noqa: E402
from fabrec_hf.learning.fewshot import (  # noqa: E402
    FitOptions,
    FitProgress,
    assign_faces,
    choose_faces,
    fit_landmarks,
    fit_recipe,
)
from fabrec_hf.learning.labeled_faces import LabeledFaces  # noqa: E402
from fabrec_hf.learning.landmark_training import (  # noqa: E402
    LandmarkRecipe,
    build_model,
    landmark_errors,
    predict_faces,
    training_loss,
)
from fabrec_hf.model.known_schemes import LandmarkScheme, get_scheme  # noqa: E402
from fabrec_hf.model.shape_prior import ShapePrior  # noqa: E402


SCHEME = get_scheme("mtfl")
RECIPE = LandmarkRecipe(
    head_steps=2,
    finetune_steps=4,
    batch_size=4,
    heatmap_size=16,
    heatmap_sigma=2.0,
    finetune_head_learning_rate=3e-3,
    encoder_learning_rate=1e-3,
    decoding="subpixel",
    shape_prior=True,  # each detector must know the shapes that it learns from, and no others
)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("autoencoder")
    FabRecAutoencoder(FabRecAutoencoderConfig(image_size=32, latent_size=8, widths=[8, 8, 16, 16])).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize(
    ("name", "config"),
    [("3fabrec-autoencoder", "landmarks-fewshot.yaml"), ("3fabrec-mesh", "landmarks-fewshot-mesh.yaml")],
)
def test_the_sweep_measures_what_fit_does(name, config):
    path, start = Path(__file__).parents[2] / "training" / "configs" / config, load_start(name)
    recipe = fit_recipe(start, faces=10)
    assert replace(recipe, flip_average=True) == LandmarkRecipe(**yaml.safe_load(path.read_text()))
    assert replace(fit_recipe(start, faces=50), transfer_initialization="identity") == recipe


def labeled(drawn_faces, count=5):
    dataset = load_faces(drawn_faces).select(range(count))
    return LabeledFaces(dataset, FabRecImageProcessor(size={"height": 32, "width": 32}), progress=False)


def test_the_chosen_faces_are_the_best_medoids_there_are():
    """Against all pairs of fifteen faces, and against the three blobs that a person sees."""
    latents = torch.randn(15, 4, generator=torch.Generator().manual_seed(3))
    vectors = latents.numpy()
    lengths = np.linalg.norm(vectors - np.sort(vectors, axis=0)[7], axis=1)
    rows = np.flatnonzero(abs(lengths / np.sort(lengths)[7] - 1.05) <= 0.2)
    distances = np.linalg.norm(vectors[:, None] - vectors[rows], axis=2)
    costs = {pair: distances[list(pair)].min(axis=0).sum() for pair in itertools.combinations(rows, 2)}
    assert 5 <= len(rows) < 15 and tuple(sorted(choose_faces(latents, 2))) == min(costs, key=costs.get)
    blobs = 10 * torch.eye(3).repeat_interleave(torch.tensor([5, 15, 12]), dim=0)
    blobs += 0.3 * torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    large, middle, small = choose_faces(blobs, 3)
    assert 5 <= large < 20 <= middle < 32 and 0 <= small < 5
    assert np.bincount(assign_faces(blobs, [large, middle, small])).tolist() == [15, 12, 5]
    assert sorted(choose_faces(latents, 15)) == list(range(15)) and len(choose_faces(latents, 1)) == 1
    with pytest.raises(DataError, match="16 faces were asked for, but there are 15"):
        choose_faces(latents, 16)


def test_a_face_unlike_all_others_is_chosen_only_if_others_do_not_suffice():
    latents = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    latents /= latents.norm(dim=1, keepdim=True)
    latents[7], latents[3] = 9 * latents[7], 0.1 * latents[3]
    assert all(not {3, 7} & set(choose_faces(latents, count)) for count in (1, 3, 5))
    assert {3, 7} <= set(choose_faces(latents, 20))


def test_a_fit_learns_and_keeps_the_generator(drawn_faces, autoencoder):
    faces = labeled(drawn_faces)
    recipe = LandmarkRecipe(**{**vars(RECIPE), "finetune_steps": 60, "flip": 0.0, "rotation": 0.0, "occlusion": 0.0})
    model = build_model(str(autoencoder), SCHEME, recipe)
    generator = {name: value.clone() for name, value in model.autoencoder.decoder.state_dict().items()}
    encoder = model.autoencoder.encoder.conv1.weight.clone()
    before = landmark_errors(predict_faces(model, faces, model.device)[0], faces, SCHEME).mean()
    result = fit_landmarks(model, faces, SCHEME, recipe, FitOptions(folds=0))
    assert len(result.losses) == 62 and not result.stopped and result.seconds > 0
    assert np.mean(result.losses[-5:]) < 0.6 * np.mean(result.losses[:5])
    assert result.training_errors.mean() < 0.7 * before
    assert np.isnan(result.held_out_errors).all()
    assert all(torch.equal(value, generator[name]) for name, value in model.autoencoder.decoder.state_dict().items())
    assert not torch.equal(model.autoencoder.encoder.conv1.weight, encoder)


def moved_by_one_step(drawn_faces, autoencoder, max_grad_norm):
    """How all weights move when descent goes down a gradient at a rate of one: (P,)."""
    recipe = replace(RECIPE, head_steps=0, finetune_steps=1, max_grad_norm=max_grad_norm, shape_prior=False)
    recipe = replace(recipe, finetune_head_learning_rate=1.0, encoder_learning_rate=1.0)
    model = build_model(str(autoencoder), SCHEME, recipe)
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    fit_landmarks(model, labeled(drawn_faces), SCHEME, recipe, FitOptions(folds=0))
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]) - before


def test_a_gradient_that_is_too_long_is_shortened_and_no_other(drawn_faces, autoencoder, monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    whole = moved_by_one_step(drawn_faces, autoencoder, 0.0)
    length = float(whole.norm())
    assert length > 0
    halved = moved_by_one_step(drawn_faces, autoencoder, length / 2)
    assert torch.allclose(halved, whole / 2, rtol=1e-3, atol=1e-5 * length)
    unlimited = moved_by_one_step(drawn_faces, autoencoder, 2 * length)
    assert torch.allclose(unlimited, whole, rtol=1e-3, atol=1e-5 * length)
    with pytest.raises(ValueError, match="--max_grad_norm must not be negative"):
        replace(RECIPE, max_grad_norm=-1.0)


def test_sixteen_bits_round_the_loss_and_no_geometry(drawn_faces, autoencoder, monkeypatch):
    faces, device = labeled(drawn_faces), torch.device("cpu")
    recipes = {bits: replace(RECIPE, bfloat16=bits == 16) for bits in (16, 32)}
    model = build_model(str(autoencoder), SCHEME, RECIPE)
    seen = []
    model.register_forward_pre_hook(
        lambda _, images, options: seen.append((*images, options["labels"])), with_kwargs=True
    )

    def losses(capable):
        monkeypatch.setattr(landmark_training, "has_bfloat16", lambda _: capable)
        return {bits: training_loss(model, faces, recipes[bits], SCHEME, 0, device).item() for bits in recipes}

    rounded = losses(capable=True)
    assert rounded[16] != rounded[32] and rounded[16] == pytest.approx(rounded[32], rel=0.03)
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))
    exact = losses(capable=False)
    assert exact[16] == exact[32] == rounded[32]


def test_sixteen_bits_are_for_devices_with_instructions_for_them(monkeypatch):
    cpu = torch.device("cpu")
    for capabilities, expected in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=capabilities: known, raising=False)
        assert landmark_training.has_bfloat16(cpu) is expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not landmark_training.has_bfloat16(cpu)
    assert not landmark_training.has_bfloat16(torch.device("meta"))


def test_cross_validation_predicts_every_face_once_and_changes_nothing(drawn_faces, autoencoder):
    faces, seen = labeled(drawn_faces), []
    models = [build_model(str(autoencoder), SCHEME, RECIPE) for _ in range(2)]
    plain = fit_landmarks(models[0], faces, SCHEME, RECIPE, FitOptions(folds=0))
    result = fit_landmarks(models[1], faces, SCHEME, RECIPE, FitOptions(folds=9, on_step=seen.append))
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name
    prior = ShapePrior(5)
    prior.fit(faces.landmarks, SCHEME.flip_index)
    assert torch.equal(models[1].shape_prior.gain, prior.gain) and not torch.equal(prior.gain, torch.eye(10))
    assert np.array_equal(plain.training_errors, result.training_errors)
    assert np.isfinite(result.held_out_errors).all() and np.isfinite(result.held_out.landmarks).all()
    # Five faces, so five folds of three quarters of the steps: two with the head alone and three with the encoder.
    assert [step.phase for step in seen] == ["learning"] * 6 + ["estimating"] * 25
    assert seen[-1] == FitProgress("estimating", 25, 25, seen[-1].loss, seen[-1].error)
    # Between folds, the error of the faces that were predicted so far; before the first, none.
    assert [step.error for step in seen[6:11]] == [None] * 5
    places = np.random.default_rng(0).permutation(5)
    assert seen[16].error == pytest.approx(result.held_out_errors[places < 2].mean(), abs=1e-3)
    # What was predicted for a face is what a detector predicts that learned from the others alone.
    left_out = int(np.flatnonzero(np.random.default_rng(0).permutation(5) == 2)[0])
    shorter = replace(RECIPE, head_steps=2, finetune_steps=3)
    model = build_model(str(autoencoder), SCHEME, shorter)
    fit_landmarks(model, faces.subset(np.delete(np.arange(5), left_out)), SCHEME, shorter, FitOptions(folds=0))
    expected = predict_faces(model, faces.subset(np.array([left_out])), model.device).landmarks
    torch.testing.assert_close(torch.as_tensor(result.held_out.landmarks[left_out]).float(), expected[0])


def test_a_hold_out_predicts_a_third_of_the_faces(drawn_faces, autoencoder):
    faces, seen = labeled(drawn_faces), []
    result = fit_landmarks(
        build_model(str(autoencoder), SCHEME, RECIPE), faces, SCHEME, RECIPE, FitOptions(on_step=seen.append)
    )
    assert [step.phase for step in seen] == ["learning"] * 6 + ["estimating"] * 5
    left_out = np.random.default_rng(0).permutation(5) % 3 == 0
    assert left_out.sum() == 2 and np.array_equal(np.isfinite(result.held_out_errors), left_out)
    shorter = replace(RECIPE, head_steps=2, finetune_steps=3)
    model = build_model(str(autoencoder), SCHEME, shorter)
    fit_landmarks(model, faces.subset(np.flatnonzero(~left_out)), SCHEME, shorter, FitOptions(folds=0))
    expected = predict_faces(model, faces.subset(np.flatnonzero(left_out)), model.device).landmarks
    torch.testing.assert_close(torch.as_tensor(result.held_out.landmarks[left_out]).float(), expected)


def stopped_after(count, steps, folds=0):
    """Options that collect a fit's steps and stop it after so many."""
    return FitOptions(folds=folds, on_step=steps.append, should_stop=lambda: len(steps) == count)


def test_a_fit_that_is_stopped_keeps_what_it_has(drawn_faces, autoencoder):
    faces, steps = labeled(drawn_faces), []
    model = build_model(str(autoencoder), SCHEME, RECIPE)
    head = model.heatmap_head.weight.detach().clone()
    result = fit_landmarks(model, faces, SCHEME, RECIPE, stopped_after(3, steps, folds=3))
    assert result.stopped and len(result.losses) == 3 and np.isnan(result.held_out_errors).all()
    assert not torch.equal(model.heatmap_head.weight, head) and np.isfinite(result.training_errors).all()


def test_the_error_goes_down_as_it_is_shown_and_changes_nothing(drawn_faces, autoencoder):
    faces, seen = labeled(drawn_faces), []
    # Without a prior, which brings a model that knows nothing yet nearer, too.
    recipe = replace(RECIPE, finetune_steps=60, shape_prior=False)
    model = build_model(str(autoencoder), SCHEME, recipe)
    fit_landmarks(model, faces, SCHEME, recipe, FitOptions(folds=0, on_step=seen.append))
    errors = [step.error for step in seen]
    assert errors[0] is None and len(set(errors[1:26])) == len(set(errors[26:51])) == 1
    assert errors[-1] < 0.7 * errors[1]
    # What is shown from step 27 on is the error of the model that has learned for 26.
    half = build_model(str(autoencoder), SCHEME, recipe)
    taken = []
    fit_landmarks(half, faces, SCHEME, recipe, stopped_after(26, taken))
    found = landmark_errors(predict_faces(half, faces, half.device)[0], faces, SCHEME).mean()
    assert errors[26] == pytest.approx(found, abs=1e-3)


def test_a_stopped_fit_keeps_the_best_and_not_the_last(drawn_faces, autoencoder):
    """After step 26, where the error is measured, the head is spoiled as a bad step would do it."""
    faces, steps = labeled(drawn_faces), []
    recipe = LandmarkRecipe(**{**vars(RECIPE), "finetune_steps": 60})
    models = [build_model(str(autoencoder), SCHEME, recipe) for _ in range(2)]
    fit_landmarks(models[0], faces, SCHEME, recipe, stopped_after(26, steps))
    steps.clear()

    def spoil(progress):
        steps.append(progress)
        if len(steps) == 28:
            models[1].heatmap_head.weight.data.mul_(-1)

    result = fit_landmarks(
        models[1], faces, SCHEME, recipe, FitOptions(folds=0, on_step=spoil, should_stop=lambda: len(steps) == 28)
    )
    assert result.stopped and len(result.losses) == 28
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name


def test_a_point_that_is_nowhere_annotated_is_not_learned(drawn_faces, autoencoder):
    faces = labeled(drawn_faces, count=1)
    faces.landmarks[:, 4] = torch.nan
    scheme = LandmarkScheme("five", 5)
    model = build_model(str(autoencoder), scheme, RECIPE)
    head = model.heatmap_head.weight.detach().clone()
    fit_landmarks(model, faces, scheme, RECIPE)
    moved = (model.heatmap_head.weight.detach() - head).abs().amax(dim=(0, 2, 3))
    assert moved[4] == 0 and (moved[:4] > 0).all()
    faces.landmarks[:] = torch.nan
    with pytest.raises(DataError, match="None of the faces"):
        fit_landmarks(model, faces, scheme, RECIPE)
