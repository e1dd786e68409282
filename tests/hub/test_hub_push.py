"""Publishing checkpoints: what is sent, when, and what is said when it cannot be."""

import json
import subprocess
import sys
import time

import pytest
from huggingface_hub import HfApi, ModelCard
from PIL import Image

from fabrec_hf.cli import main
from fabrec_hf.errors import CheckpointError, HubError, SchemeError
from fabrec_hf.hub.contents import gather
from fabrec_hf.hub.few_shot_curve import few_shot_errors
from fabrec_hf.hub.publishing import open_repository, push
from support.hub_client import HubServer
from support.tiny_checkpoints import evaluation, save_autoencoder, save_landmarks, write_results
from support.warm_processes import run_code


COMMAND = "import sys; from fabrec_hf.cli import main; sys.exit(main())"
LICENSE = {"id": "other", "name": "research-only", "terms": "For research only."}


@pytest.fixture
def run_folder(tmp_path):
    """A finished training run with everything that may lie in one."""
    folder = save_landmarks(tmp_path / "run")
    write_results(folder, license=LICENSE, evaluations=[evaluation(4.25)])
    for name in ("checkpoint-10/optimizer.bin", "discriminators/model.safetensors", "logs/events", "face.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"private")
    return folder


def commits(hub: HubServer, name: str, revision: str = "main") -> list[str]:
    return [entry.commit_id for entry in hub.api().list_repo_commits(name, revision=revision)]


def test_a_push_sends_the_checkpoint_and_nothing_else(hub, run_folder):
    (published,) = push(run_folder, "faces/whole", api=hub.api())
    files = set(hub.api().list_repo_files("faces/whole"))
    source = {name for name in files if name.endswith(".py")}
    assert files - source == {
        ".gitattributes",
        "LICENSE.md",
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "results.json",
    }
    assert {"modeling_fabrec.py", "pipeline_fabrec.py", "image_processing_fabrec.py"} <= source
    assert published.changed and published.files == len(files) - 1
    config = json.loads(_read(hub, "faces/whole", "config.json"))
    assert config["landmark_scheme"]["name"] == "mtfl"
    link = ModelCard(_read(hub, "faces/whole", "README.md")).data.license_link
    assert _read(hub, "faces/whole", link).startswith("# research-only")
    assert config["custom_pipelines"]["keypoint-detection"]["impl"] == "pipeline_fabrec.FaceLandmarkPipeline"
    weights = hub.api().hf_hub_download("faces/whole", "model.safetensors", cache_dir=run_folder / "cache")
    assert open(weights, "rb").read() == (run_folder / "model.safetensors").read_bytes()


def _read(hub: HubServer, repository: str, name: str, revision: str = "main", kind: str = "model") -> str:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = hub.api().hf_hub_download(repository, name, revision=revision, repo_type=kind, local_dir=folder)
        return open(path, encoding="utf-8").read()


def test_the_metrics_arrive_as_evaluation_results(hub, run_folder):
    push(run_folder, "faces/metrics", api=hub.api())
    card = ModelCard(_read(hub, "faces/metrics", "README.md"))
    assert card.data.pipeline_tag == "keypoint-detection" and card.data.license_name == "research-only"
    assert {(entry.metric_type, entry.metric_value) for entry in card.data.eval_results} == {
        ("nme", 4.25),
        ("failure_rate", 1.5),
        ("auc", 0.5),
    }
    assert {entry.task_type for entry in card.data.eval_results} == {"keypoint-detection"}
    assert 'pipeline("face-landmark-detection", model="faces/metrics")' in card.text


def test_the_same_content_makes_no_new_commit_and_other_content_makes_one(hub, run_folder):
    push(run_folder, "faces/again", api=hub.api())
    before = commits(hub, "faces/again")
    assert len(before) == 2  # the Hub's own and ours
    (again,) = push(run_folder, "faces/again", api=hub.api())
    assert not again.changed and commits(hub, "faces/again") == before
    write_results(run_folder, license=LICENSE, evaluations=[evaluation(4.0)])
    (other,) = push(run_folder, "faces/again", api=hub.api())
    assert other.changed and commits(hub, "faces/again") == [other.commit, *before]


def test_files_of_an_earlier_push_that_are_no_longer_part_of_it_go(hub, run_folder):
    push(run_folder, "faces/less", api=hub.api())
    (run_folder / "results.json").unlink()
    push(run_folder, "faces/less", api=hub.api())
    files = hub.api().list_repo_files("faces/less")
    assert "results.json" not in files and ".gitattributes" in files


def test_few_shot_checkpoints_become_revisions_with_a_table_in_the_main_card(hub, run_folder, tmp_path):
    for shots in (1, 10, 50):
        folder = save_landmarks(tmp_path / "few" / f"shots-{shots}", seed=shots)
        write_results(folder, evaluations=[evaluation(20 / shots, shots=shots)])
    (tmp_path / "few" / "notes").mkdir()
    published = push(run_folder, "faces/few", few_shot=tmp_path / "few", api=hub.api())
    assert [entry.revision for entry in published] == ["shots-1", "shots-10", "shots-50", "main"]
    card = _read(hub, "faces/few", "README.md")
    rows = [line for line in card.splitlines() if line.startswith("| `shots-")]
    assert rows == [
        "| `shots-1` | 1 | all 20.00 |",
        "| `shots-10` | 10 | all 2.00 |",
        "| `shots-50` | 50 | all 0.40 |",
    ]
    assert "![Error by the number of annotated faces](few-shot.png)\n\n| revision" in card
    assert few_shot_errors({str(n): tmp_path / "few" / f"shots-{n}" for n in (50, 1, 10)}) == [
        (1, 20.0),
        (10, 2.0),
        (50, 0.4),
    ]
    curve = Image.open(hub.api().hf_hub_download("faces/few", "few-shot.png", cache_dir=tmp_path / "cache"))
    assert curve.size == (800, 400) and len(curve.convert("RGB").getcolors(100_000)) > 20
    theirs = _read(hub, "faces/few", "README.md", revision="shots-10")
    assert 'revision="shots-10"' in theirs and "`shots-1`" not in theirs
    infos = {
        name: hub.api().get_paths_info("faces/few", "model.safetensors", revision=name)[0].lfs.sha256
        for name in ("main", "shots-1", "shots-10", "shots-50")
    }
    assert len(set(infos.values())) == 4
    again = push(run_folder, "faces/few", few_shot=tmp_path / "few", api=hub.api())
    assert not any(entry.changed for entry in again)


def test_few_shot_checkpoints_of_another_scheme_are_refused(run_folder, tmp_path):
    save_landmarks(tmp_path / "few" / "shots-1", scheme="aflw")
    with pytest.raises(SchemeError, match="other points"), gather(run_folder, "faces/x", few_shot=tmp_path / "few"):
        pass


def test_an_autoencoder_is_pushed_without_pipeline_and_discriminators(hub, tmp_path):
    folder = save_autoencoder(tmp_path / "autoencoder")
    (folder / "discriminators").mkdir()
    (folder / "discriminators" / "model.safetensors").write_bytes(b"")
    push(folder, "faces/autoencoder", api=hub.api())
    files = set(hub.api().list_repo_files("faces/autoencoder"))
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "modeling_fabrec.py"} <= files
    assert "pipeline_fabrec.py" not in files and not any("discriminators/" in name for name in files)
    assert ModelCard(_read(hub, "faces/autoencoder", "README.md")).data.pipeline_tag == "image-feature-extraction"


def test_embedded_checkpoints_can_be_pushed_by_their_names():
    with gather("3fabrec-300w", "faces/3fabrec-300w") as contents:
        files = contents.revisions["main"]
        assert "auto_map" in json.loads(files["config.json"].read_text())
        assert "example.png" in files and "For non-commercial research only" in files["README.md"].read_text()


def test_a_killed_push_leaves_the_old_revision_and_the_next_one_finishes(hub, run_folder, tmp_path):
    push(run_folder, "faces/killed", api=hub.api())
    before = commits(hub, "faces/killed")
    save_landmarks(run_folder, seed=9)
    seen = len(hub.log())
    hub.hold_uploads(True)
    command = [sys.executable, "-c", COMMAND, "push", str(run_folder), "faces/killed"]
    process = subprocess.Popen(command, env=hub.environment(tmp_path), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 900  # a machine may be busy
        while not any(line.startswith("PUT /lfs/") for line in hub.log()[seen:]):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
        hub.hold_uploads(False)
    assert commits(hub, "faces/killed") == before
    (finished,) = push(run_folder, "faces/killed", api=hub.api())
    assert finished.changed and commits(hub, "faces/killed") == [finished.commit, *before]


def test_a_branch_whose_push_was_cut_short_does_not_show_the_main_model(hub, run_folder, monkeypatch):
    push(run_folder, "faces/cut", api=hub.api())
    api = hub.api()
    monkeypatch.setattr(api, "create_commit", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        push(run_folder, "faces/cut", revision="shots-10", api=api)
    assert hub.api().list_repo_files("faces/cut", revision="shots-10") == [".gitattributes"]


def test_a_dry_run_lists_what_would_be_sent_and_sends_nothing(run_folder, capsys, monkeypatch):
    monkeypatch.setattr(HfApi, "whoami", None)
    assert main(["push", str(run_folder), "faces/dry", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "model faces/dry@main: " in printed and printed.endswith("Nothing was sent.\n")
    assert "model.safetensors" in printed and "optimizer" not in printed and "face.jpg" not in printed
    assert main(["push", str(run_folder), "faces/dry", "--dry-run", "--json"]) == 0
    sizes = json.loads(capsys.readouterr().out)["revisions"]["main"]
    assert sizes["model.safetensors"] == (run_folder / "model.safetensors").stat().st_size
    assert main(["push", str(run_folder), "faces/dry/run", "--dry-run"]) == 2
    assert "'faces/dry/run' cannot be the name of a repository" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("token", "repository", "message"),
    [
        ("forged", "faces/forged", "The token is not valid"),
        ("reader", "faces/reader", "The token may not write to faces/reader"),
        ("stranger", "faces/stranger", "The token may not write to faces/stranger"),
        ("writer", "faces/a b", "cannot be the name of a repository"),
        ("writer", "faces/a/b", "cannot be the name of a repository"),
        ("writer", "", "cannot be the name of a repository"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, run_folder, token, repository, message):
    with pytest.raises(HubError, match=message) as caught:
        push(run_folder, repository, api=hub.api(token))
    assert "\n" not in str(caught.value)


def test_a_repository_of_somebody_else_is_refused_before_a_long_training(hub, run_folder):
    push(run_folder, "faces/theirs", api=hub.api())
    for token in ("stranger", "reader"):
        with pytest.raises(HubError, match="may not write to faces/theirs"):
            open_repository("faces/theirs", api=hub.api(token))


def test_a_repository_may_be_private_and_is_then_hidden(hub, run_folder):
    push(run_folder, "hidden", private=True, api=hub.api())
    assert hub.api().repo_info("alice/hidden").private
    with pytest.raises(HubError, match="may not"):
        push(run_folder, "alice/hidden", api=hub.api("stranger"))


def test_what_shall_be_private_does_not_go_where_all_can_see_it(hub, run_folder):
    push(run_folder, "faces/shown", api=hub.api())
    before = commits(hub, "faces/shown")
    write_results(run_folder, summary="Not for everyone.")
    for attempt in (push, lambda folder, name, **options: open_repository(name, **options)):
        with pytest.raises(HubError, match="faces/shown is there already and public"):
            attempt(run_folder, "faces/shown", private=True, api=hub.api())
    assert commits(hub, "faces/shown") == before


def test_paths_of_this_machine_are_not_published(hub, run_folder):
    """Neither those that were scored, in `results.json` and the card, nor those that a model was loaded from."""
    places = {"model": str(run_folder), "data": [str(run_folder / "theirs"), "300w"], "name": "tiny"}
    reconstruction = {"autoencoder": "~/runs/best", "faces": ["../faces.parquet"], "groups": [], "unlabelled": []}
    reconstruction |= {"held_out_only": True, "count": 30, "image_size": 32, "minimum": 20, "resamples": 100}
    write_results(run_folder, evaluations=[evaluation(4.25, **places)], reconstruction=reconstruction)
    with gather(run_folder, "faces/places") as contents:
        files = contents.revisions["main"]
        text = "".join(files[name].read_text() for name in ("README.md", "results.json", "config.json"))
        kept = json.loads(files["results.json"].read_text())
    assert str(run_folder.parent) not in text and "~/runs" not in text and "../faces" not in text
    assert kept["evaluations"][0]["data"] == ["theirs", "300w"] and kept["evaluations"][0]["nme"] == 4.25
    assert kept["reconstruction"]["faces"] == ["faces.parquet"]


def test_a_hub_that_cannot_be_reached_is_one_line(run_folder):
    with pytest.raises(HubError, match=r"The Hub at http://127.0.0.1:9 cannot be reached") as caught:
        push(run_folder, "faces/away", api=HfApi(endpoint="http://127.0.0.1:9", token="writer"))
    assert "\n" not in str(caught.value)


def test_invalid_metadata_is_refused_before_anything_is_sent(hub, run_folder):
    write_results(run_folder, license={"id": "my-own", "terms": "Mine."})
    with pytest.raises(HubError, match=r"license.*my-own"):
        push(run_folder, "faces/invalid", api=hub.api())
    assert hub.api().list_repo_files("faces/invalid") == [".gitattributes"]


def test_a_push_without_an_owner_goes_to_ones_own(hub, run_folder, capsys, monkeypatch):
    monkeypatch.setattr("fabrec_hf.hub.publishing.HfApi", hub.api)
    assert main(["push", str(run_folder), "ownerless"]) == 0
    assert capsys.readouterr().out.startswith("alice/ownerless@main: published, ")
    assert "model.safetensors" in hub.api().list_repo_files("alice/ownerless")


def test_what_is_not_fit_to_be_published_is_refused(run_folder, tmp_path):
    (run_folder / "model.safetensors").unlink()
    for source, error, message in [
        (run_folder, CheckpointError, "has no model.safetensors"),
        (tmp_path, CheckpointError, "has no config.json"),
        ("owner/name", CheckpointError, "is no folder"),
    ]:
        with pytest.raises(error, match=message), gather(source, "faces/x"):
            pass
    for revision in ("", "a b", "../main", "a//b", "-f", "main."):
        with pytest.raises(HubError, match="cannot be the name of a revision"), gather("nme", "a/nme", revision):
            pass
    for revision in ("shots-10", "v0.1.0", "10-paper-0-300+600", "refs/pr/1", "x"):
        with gather("nme", "a/nme", revision) as contents:
            assert list(contents.revisions) == [revision]
    with (
        pytest.raises(HubError, match="--few-shot does not apply to a metric"),
        gather("nme", "a/nme", "main", tmp_path),
    ):
        pass


def test_the_command_says_what_it_did(hub, run_folder, tmp_path):
    command = [COMMAND, "push", run_folder, "faces/command"]
    for state in ("published", "unchanged"):
        done = run_code(*command, environment=hub.environment(tmp_path))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"faces/command@main: {state}, ")
    done = run_code(*command, environment=hub.environment(tmp_path, token=None))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fabrec push: error: No token") and done.stderr.count("\n") == 1
