"""The command itself: how it is called, and what it says of mistakes in calling it."""

import json
import subprocess
import sys

import pytest

from fabrec_hf.cli import main
from fabrec_hf.inference.score_words import UNCALIBRATED
from support.commands import fails_with
from support.warm_processes import run_code


def test_usage_errors_take_one_line(capsys):
    for words, fragment in [(["detect"], "IMAGE|VIDEO|FOLDER"), (["dance"], "dance"), ([], "VERB")]:
        with pytest.raises(SystemExit) as exit_info:
            main(words)
        assert exit_info.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and fragment in error and "--help" in error


@pytest.mark.parametrize("verb", ["detect", "evaluate", "convert-original"])
def test_help_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main([verb, "--help"])
    assert exit_info.value.code == 0
    assert f"example: fabrec {verb} " in capsys.readouterr().out


def test_convert_original_refuses_other_files(tmp_path, capsys):
    fails_with(capsys, ["convert-original", tmp_path / "saae.mdl", tmp_path / "out"], "no such file")
    (tmp_path / "saae.mdl").write_bytes(b"something else")
    fails_with(capsys, ["convert-original", tmp_path / "saae.mdl", tmp_path / "out"], "not a published 3FabRec")
    assert not (tmp_path / "out").exists()


def test_evaluate_scores_a_checkpoint(checkpoint, drawn_faces, capsys):
    data = str(drawn_faces / "train.parquet")
    assert main(["evaluate", "--model", str(checkpoint), "--data", data, "--split", "train", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["count"] == 24 and result["nme"] > 0


def test_the_command_runs_as_a_process(checkpoint, photo):
    """Of the module, and as the script that pip installs calls it."""
    words = ["detect", str(photo), "--model", str(checkpoint), "--boxes", "20,10,30,24"]
    module = subprocess.run([sys.executable, "-m", "fabrec_hf", *words], capture_output=True, text=True, timeout=300)
    script = run_code("import sys; from fabrec_hf.cli import main; sys.exit(main())", *words)
    for done in (module, script):
        assert (done.returncode, done.stderr) == (0, f"fabrec detect: {UNCALIBRATED}\n")
        assert done.stdout.startswith(f"{photo}: 1 face")


def test_the_module_runs_too():
    done = subprocess.run([sys.executable, "-m", "fabrec_hf.cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("fabrec ")
