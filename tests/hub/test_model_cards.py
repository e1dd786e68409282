"""Model cards say what the results say, are up to date, and are accepted by the Hub."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

import fabrec_hf
from fabrec_hf.checkpoints.names import embedded_names
from fabrec_hf.checkpoints.results import read_results
from fabrec_hf.cli import main
from fabrec_hf.errors import CheckpointError, DataError
from fabrec_hf.hub.card_picture import shows_reconstruction
from fabrec_hf.hub.model_card import CardContext, make_card, make_terms
from fabrec_hf.model.delta_fabrec import delta_base
from support.hub_card_rules import check_card
from support.tiny_checkpoints import evaluation, save_autoencoder, save_landmarks, write_results


ROOT = Path(__file__).parents[2]
CARDS = ROOT / "model_cards"
SECTIONS = ["Use", "Limits", "What it must not be used for", "Training data", "Training", "Citation"]

in_a_checkout = pytest.mark.skipif(not CARDS.is_dir(), reason="only in a checkout")


@in_a_checkout
def test_there_is_one_card_a_checkpoint():
    assert sorted(path.stem for path in CARDS.iterdir()) == embedded_names()


@in_a_checkout
@pytest.mark.parametrize("name", embedded_names())
def test_cards_are_up_to_date(name, tmp_path):
    """If this fails, run `make cards`."""
    picture = f"../fabrec_hf/weights/{name}/example.png"
    context = CardContext(name, f'fabrec_hf.weights_path("{name}")', picture=picture)
    card = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    assert card == make_card(fabrec_hf.weights_path(name), context)
    assert (CARDS / picture).is_file()


@in_a_checkout
@pytest.mark.parametrize("name", embedded_names())
def test_pictures_are_those_that_the_weights_give(name):
    from transformers import AutoModel

    from fabrec_hf.hub.card_picture import draw_card_picture

    folder = fabrec_hf.weights_path(name)
    model = AutoModel.from_pretrained(folder).eval()
    photos = sorted((ROOT / "examples").glob("*.jpg"))
    drawn = draw_card_picture(model, fabrec_hf.FabRecImageProcessor.from_pretrained(folder), photos)
    found, kept = (np.asarray(Image.open(file), float) for file in (io.BytesIO(drawn), folder / "example.png"))
    # Other processors round otherwise, which may move a smoothed edge; another model would change whole tiles.
    assert np.abs(found - kept).mean() < 0.5


@in_a_checkout
@pytest.mark.parametrize("name", embedded_names())
def test_cards_have_what_a_reader_needs(name):
    text = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    assert check_card(text, "model") == ([], [])
    body = text.split("---\n", 2)[2]
    first_screen = body.partition("## Limits")[0]
    assert len(first_screen) < 1900 and first_screen.index("example.png") < first_screen.index(
        "pipeline" if "pipeline" in first_screen else "AutoModel"
    )
    assert "|" not in first_screen  # no table before the limits
    terms = "Under CC BY 4.0" if name.endswith("-fairface") else "research only"
    assert terms in first_screen and "FairFace (CC BY 4.0)" in first_screen
    headings = [line.removeprefix("## ") for line in body.splitlines() if line.startswith("## ")]
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS
    # What the mesh-taught encoder says is meant for points, not for pictures.
    mesh_taught = (
        json.loads((Path(fabrec_hf.weights_path(name)) / "config.json").read_text()).get("backbone") == "face_mesh"
    )
    assert ("Reconstruction by group" in headings) != mesh_taught
    pictures = name.startswith("3fabrec-autoencoder")
    for word in ("profiles", "glasses") if pictures else ("profile", "occlusion", "closed eyes"):
        assert word in body


@in_a_checkout
def test_the_landmark_card_has_the_measured_row_beside_the_papers():
    card = ModelCard.load(CARDS / "3fabrec-300w.md")
    results = json.loads((fabrec_hf.weights_path("3fabrec-300w") / "results.json").read_text())
    nme = results["evaluations"][0]["nme"]
    assert card.data.pipeline_tag == "keypoint-detection"
    assert card.data.eval_results[0].metric_value == round(nme, 4)
    assert f"| **3fabrec-300w (ours)** | **{nme:.2f}** |" in card.text and "| 3FabRec | 3.36 |" in card.text


@pytest.fixture
def checkpoint(tmp_path):
    return save_landmarks(tmp_path / "tiny")


def card_of(folder, **changes):
    return make_card(folder, CardContext("tiny", '"faces/tiny"', **changes))


def test_a_checkpoint_without_results_has_a_card_that_says_so(checkpoint):
    card = card_of(checkpoint)
    assert check_card(card, "model") == ([], [])
    assert "**License not stated.**" in card and "5 points of the scheme `mtfl`" in card
    assert "## Measured" not in card and ModelCard(card).data.license is None


def test_a_training_run_without_results_shows_what_it_left(checkpoint):
    left = {"steps": 1200, "faces": 10, "validation_faces": 40, "validation_nme": 5.125}
    (checkpoint / "training_results.json").write_text(json.dumps(left))
    card = card_of(checkpoint)
    assert "| landmarks | 10 annotated faces |" in card and "| steps | 1,200 |" in card
    assert "| validation | NME 5.12 % on 40 other faces |" in card


def test_the_license_the_data_and_the_start_are_in_the_metadata(checkpoint):
    data = [
        {"name": "FairFace", "use": "all", "terms": "CC BY 4.0"},
        {"name": "ours", "use": "points", "terms": "research"},
    ]
    terms = {"id": "other", "name": "research-only", "terms": "For research only."}
    write_results(checkpoint, license=terms, training_data=data, training={"start": "as `steps`, `3fabrec-mesh`"})
    card = card_of(checkpoint)
    known = ModelCard(card).data
    assert (known.license, known.license_name, known.license_link) == ("other", "research-only", "LICENSE.md")
    assert known.datasets == ["HuggingFaceM4/FairFace"] and known.base_model == "3fabrec-mesh"
    assert "**License:** For research only. Trained on FairFace (CC BY 4.0), ours (research)." in card
    written = make_terms(read_results(checkpoint))
    assert written.startswith("# research-only\n\nFor research only.") and "| ours | points | research |" in written
    write_results(checkpoint, license={"id": "mit"}, training_data=[data[1]])
    known = ModelCard(card_of(checkpoint)).data
    assert (known.license, known.get("license_link"), known.get("datasets")) == ("mit", None, None)
    assert known.get("base_model") is None and make_terms(read_results(checkpoint)) is None


def test_a_delta_knows_its_start():
    assert delta_base(fabrec_hf.weights_path("3fabrec-300w-10shot")) == "3fabrec-mesh"
    assert delta_base(fabrec_hf.weights_path("3fabrec-300w")) is None


def test_long_tables_are_folded_and_limits_stand_before_them(checkpoint):
    write_results(checkpoint, training={"steps": "12"}, limits=["Only ten."], evaluations=[evaluation(4.0)])
    card = card_of(checkpoint)
    assert "<summary>How it was trained</summary>\n\n| " in card
    assert card.count("<details>") == card.count("</details>") >= 1
    assert card.index("- Only ten.") < card.index("## Measured") < card.index("| steps | 12 |")


def test_subsets_are_rows_and_results(checkpoint):
    part = {"nme": 2.5, "failure_rate": 0.0, "auc": None, "count": 10, "parts": {"eyes": 1.0}}
    write_results(checkpoint, evaluations=[evaluation(4.0, subsets={"large_pose": part})])
    card = card_of(checkpoint)
    assert "| sub-pixel | all | 40 | 4.00 | 1.50 | 0.500 | 2.00 |" in card
    assert "| sub-pixel | large pose | 10 | 2.50 | 0.00 | - | 1.00 |" in card
    found = {(entry.dataset_name, entry.metric_type) for entry in ModelCard(card).data.eval_results}
    assert found == {
        ("MTFL", "nme"),
        ("MTFL", "failure_rate"),
        ("MTFL", "auc"),
        ("MTFL (large pose)", "nme"),
        ("MTFL (large pose)", "failure_rate"),
    }


def test_what_the_scores_are_worth_is_a_line_a_measurement(checkpoint):
    confidence = {
        "points": 200,
        "left_out": 3,
        "rank_correlation": 0.456,
        "area_under_risk_coverage": 3.5,
        "perfect_order": 2.0,
        "mean_error": 4.0,
        "kept": {"share": 0.805, "score": 0.625, "error": 3.25},
        "calibration": {"tolerance": 5.0, "score": 0.71, "found": 0.7, "error": 0.0213},
    }
    older = {"points": 200, "rank_correlation": 0.4, "area_under_risk_coverage": 3.5, "mean_error": 4.0}
    write_results(
        checkpoint,
        evaluations=[
            evaluation(4.0, confidence=confidence),
            evaluation(4.1, decoding="argmax", confidence=older),
            evaluation(3.9, flip_average=True, shape_prior=True, confidence=confidence | {"rank_correlation": None}),
            evaluation(4.2, normalizer={"kind": "box"}),
        ],
    )
    card = card_of(checkpoint)
    lines = [line for line in card.splitlines() if "Confidence" in line]
    assert lines[0] == (
        "- sub-pixel. Confidence: rank correlation of scores with errors 0.46; area under the risk-coverage curve "
        "3.50 % (a perfect order 2.00, no order 4.00); the 80 % of the points that score highest have a mean error of "
        "3.25 % (fabrec detect --min-score 0.625); the mean score is 0.71, and 70 % of the points lie within 5 % "
        "(calibration error 0.021); 3 points without a finite score and error are left out."
    )
    assert len(lines) == 2 and lines[1].startswith(
        "- sub-pixel, averaged with the mirrored crop, shape prior. Confidence"
    )
    assert "undefined" in lines[1] and card.index("## Limits") < card.index("## Measured") < card.index(
        lines[0]
    ) < card.index("## Citation")
    assert check_card(card, "model") == ([], [])
    write_results(checkpoint, evaluations=[evaluation(4.0)])
    assert "Confidence" not in card_of(checkpoint)


def test_a_card_says_whether_scores_are_calibrated(checkpoint):
    assert "not calibrated" in card_of(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    curve = {"heights": [0.1, 0.2], "scores": [0.5, 0.9], "tolerance": 5.0, "count": 6732}
    errors = {"weights": [0.0] * 4, "offsets": [1.0] * 5, "spread": 0.5, "tolerance": 4.0, "count": 50}
    for field, values, words in (("score_calibration", curve, "5 %"), ("error_model", errors, "4 %")):
        (checkpoint / "config.json").write_text(json.dumps(config | {field: values}))
        card = card_of(checkpoint)
        assert "not calibrated" not in card and f"within {words} of the normalizing length" in card
        assert f"{values['count']:,} points" in card


def test_a_folder_that_is_called_as_an_embedded_checkpoint_is_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["card", "3fabrec-300w"]) == 0
    assert 'model=fabrec_hf.weights_path("3fabrec-300w")' in capsys.readouterr().out
    save_landmarks(tmp_path / "3fabrec-300w")
    assert main(["card", "3fabrec-300w"]) == 0
    assert 'model="3fabrec-300w")' in capsys.readouterr().out


@in_a_checkout
def test_the_picture_shows_heatmaps_and_what_a_detector_reconstructs(checkpoint, tmp_path, capsys):
    """Four tiles a photograph; of a mesh-taught detector three, since its reconstructions show no face."""
    photos = sorted((ROOT / "examples").glob("*.jpg"))[:1]
    words = ["card", str(checkpoint), "--output", str(tmp_path / "card.md"), "--photo", *map(str, photos)]
    assert main(words) == 0
    assert Image.open(checkpoint / "example.png").size == (4 * 176, 176)
    assert "and reconstruction.](tiny/example.png)" in (tmp_path / "card.md").read_text()
    assert not shows_reconstruction("face_mesh")
    assert main([*words, "--device", "abacus"]) == 2
    error = capsys.readouterr().err
    assert "--device abacus" in error and len(error.splitlines()) == 1


def test_cell_dividers_in_facts_do_not_break_the_tables(checkpoint):
    write_results(checkpoint, training={"loss": "|x - y|"})
    assert "| loss | \\|x - y\\| |" in card_of(checkpoint)


def test_measurements_are_taken_over_and_replace_their_earlier_ones(checkpoint, tmp_path, capsys):
    first, again, flip = (
        write_results(save_autoencoder(tmp_path / name), **evaluation(nme, flip_average=flip)) / "results.json"
        for name, nme, flip in (("a", 5.0, False), ("b", 4.0, False), ("c", 3.0, True))
    )
    write_results(checkpoint, summary="Tiny.")
    assert main(["card", str(checkpoint), "--add", str(first), str(flip), "--output", str(tmp_path / "card.md")]) == 0
    assert main(["card", str(checkpoint), "--add", str(again)]) == 0
    kept = json.loads((checkpoint / "results.json").read_text())
    assert kept["summary"] == "Tiny." and [entry["nme"] for entry in kept["evaluations"]] == [4.0, 3.0]
    assert "| sub-pixel | all | 40 | 4.00 |" in capsys.readouterr().out
    assert "5.00" in (tmp_path / "card.md").read_text()


def test_damaged_and_foreign_results_are_one_line(checkpoint, tmp_path, capsys):
    (checkpoint / "results.json").write_text("{")
    with pytest.raises(CheckpointError, match="is no JSON file"):
        card_of(checkpoint)
    write_results(checkpoint, evaluations={"nme": 1})
    with pytest.raises(CheckpointError, match="malformed field 'evaluations'"):
        card_of(checkpoint)
    for fields, message in [
        ({"training_data": [{"name": "faces", "use": "all"}]}, "an entry of 'training_data' has no 'terms'"),
        ({"training_data": ["faces"]}, "an entry of 'training_data' has no 'name'"),
        ({"evaluations": [{"nme": 4.0}]}, "an entry of 'evaluations' has no 'failure_rate'"),
        ({"reconstruction": {"groups": []}}, "an entry of 'reconstruction' has no 'autoencoder'"),
        ({"license": {"id": 4}}, "'id' in 'license' must be one of id, name, terms, and a text"),
        ({"limits": [{}]}, "'limits' must be a list of sentences"),
    ]:
        write_results(checkpoint, **fields)
        with pytest.raises(CheckpointError, match=message) as caught:
            card_of(checkpoint)
        assert "\n" not in str(caught.value)
    (checkpoint / "results.json").unlink()
    other = write_results(tmp_path, nme=1.0) / "results.json"
    assert main(["card", str(checkpoint), "--add", str(other)]) == 2
    assert "holds neither an evaluation" in capsys.readouterr().err
    assert not (checkpoint / "results.json").exists()
    with pytest.raises(DataError, match="cannot be read"):
        from fabrec_hf.checkpoints.results import add_measurements

        add_measurements(checkpoint, [tmp_path / "missing.json"])


def test_the_rules_of_the_hub_find_mistakes():
    def errors(header: str, kind: str = "model") -> list[str]:
        return check_card(f"---\n{header}\n---\n\n# Title\n", kind)[0]

    assert errors("license: mit") == []
    assert errors("license: mine") and errors("license: other") and errors("pipeline_tag: faces")
    assert errors("model-index:\n- name: x\n  results:\n  - task: {type: a}\n    dataset: {name: b}\n    metrics: []")
    assert errors("sdk: static\ntitle: x\ncolorFrom: blue\ncolorTo: mauve", "space")
    assert errors("tags: [1]") and errors("- a list")
