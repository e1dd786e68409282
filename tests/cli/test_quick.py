"""A help text, a mistake and a completion come at once; the Auto classes know the models all the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fabrec_hf
import fabrec_hf.data
from fabrec_hf.cli import VERBS
from support.tiny_checkpoints import save_landmarks


SOURCE = str(Path(fabrec_hf.__file__).parents[1])
ENVIRONMENT = os.environ | {"PYTHONPATH": SOURCE}
# Runs the command in a process of its own and adds what it took: seconds of CPU, memory in MB, large libraries loaded.
MEASURED = r"""
import re, resource, sys
from fabrec_hf.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
used = resource.getrusage(resource.RUSAGE_SELF)
# The peak that getrusage knows begins with that of the parent process; the kernel's own is of this program alone.
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024
known = ("numpy", "PIL", "torch", "transformers", "datasets", "huggingface_hub")
large = [name for name in known if name in sys.modules]
print(code, used.ru_utime + used.ru_stime, peak, *large, file=sys.stderr)
"""


def run_python(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT | environment, check=False)


def measure(*words: str) -> tuple[str, list[str]]:
    """Return the output of `fabrec` and [exit code, seconds, MB, large libraries...] of the quickest of five runs."""
    best: list[str] = []
    for _ in range(5):
        done = run_python(MEASURED, *words)
        figures = done.stderr.splitlines()[-1].split()
        best = min(best or figures, figures, key=lambda values: float(values[1]))
        if float(best[1]) <= 0.3:
            break
    return done.stdout + done.stderr, best


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_comes_at_once(words):
    text, (code, seconds, megabytes, *libraries) = measure(*words)
    assert text.startswith("usage: fabrec") and code == "0"
    assert libraries == []
    assert float(seconds) <= 0.3 and float(megabytes) <= 60


@pytest.mark.parametrize(
    "words",
    [
        ["detekt"],
        ["detect"],
        ["evaluate", "--data", "faces", "--protocol", "papers"],
        ["fit", "faces", "--output", "detector", "--folds", "-1"],
        ["push", "runs/300w"],
    ],
)
def test_a_mistake_is_answered_at_once(words):
    text, (code, seconds, megabytes, *libraries) = measure(*words)
    assert "error: " in text.splitlines()[0] and code == "2"
    assert libraries == []
    assert float(seconds) <= 0.3 and float(megabytes) <= 60


@pytest.mark.parametrize("words", [["nothere.jpg"], ["pyproject.toml", "--min-score", "3"]])
def test_what_detect_cannot_begin_with_is_said_before_pytorch_is_loaded(words):
    text, (code, seconds, megabytes, *libraries) = measure("detect", *words)
    assert "error: " in text.splitlines()[0] and code == "2"
    assert libraries == ["PIL"]  # which knows what is a picture
    assert float(seconds) <= 0.3 and float(megabytes) <= 60


def test_the_package_itself_loads_nothing_large():
    done = run_python("import fabrec_hf, sys; print({'numpy', 'torch', 'transformers'} & set(sys.modules))")
    assert done.stdout == "set()\n"


def test_public_names_are_there_without_being_loaded():
    assert set(fabrec_hf.__all__) <= set(dir(fabrec_hf))
    for name in fabrec_hf.__all__:
        assert getattr(fabrec_hf, name) is not None
    with pytest.raises(AttributeError, match="module 'fabrec_hf' has no attribute 'FabRec'"):
        fabrec_hf.FabRec  # noqa: B018
    with pytest.raises(AttributeError, match="module 'fabrec_hf.data' has no attribute 'load'"):
        fabrec_hf.data.load  # noqa: B018


@pytest.mark.parametrize(
    "imports",
    [
        "import fabrec_hf\nfrom transformers import AutoModel, AutoImageProcessor",
        "from transformers import AutoModel, AutoImageProcessor\nimport fabrec_hf",
        "import fabrec_hf.model.modeling_fabrec\nfrom transformers import AutoModel, AutoImageProcessor",
        "import transformers\nimport fabrec_hf.model.pipeline_fabrec\n"
        "from transformers import AutoModel, AutoImageProcessor",
    ],
    ids=["ours first", "transformers first", "a model file first", "the pipeline first"],
)
def test_auto_classes_know_the_models_in_any_order_of_imports(tmp_path, imports):
    folder = save_landmarks(tmp_path)
    # Nothing but the configuration and the weights may tell what it is.
    for file in folder.glob("*.py"):
        file.unlink()
    done = run_python(
        f"{imports}\n"
        "import sys\n"
        "model = AutoModel.from_pretrained(sys.argv[1])\n"
        "processor = AutoImageProcessor.from_pretrained(sys.argv[1])\n"
        "model.save_pretrained(sys.argv[2])\n"
        "print(type(model).__module__, type(model).__name__, type(processor).__name__)\n",
        str(folder),
        str(tmp_path / "again"),
    )
    expected = "fabrec_hf.model.modeling_fabrec FabRecForLandmarkDetection FabRecImageProcessor\n"
    assert done.stdout == expected, done.stderr
    # The sources go beside the weights whatever was imported first.
    assert {"modeling_fabrec.py", "configuration_fabrec.py"} <= {file.name for file in (tmp_path / "again").iterdir()}


def test_the_pipeline_is_a_task_of_transformers():
    done = run_python(
        "import fabrec_hf\n"
        "from transformers import pipeline\n"
        "print(type(pipeline('face-landmark-detection')).__name__)\n"
        "print(*fabrec_hf.FaceLandmarkPipeline._registered_impl)\n",
        HF_HUB_OFFLINE="1",
    )
    assert done.stdout == "FaceLandmarkPipeline\nkeypoint-detection\n", done.stderr


def completions(line: str, folder: Path) -> list[str]:
    """What a shell is offered for a line, by the protocol of argcomplete."""
    answer = folder / "answer"
    done = run_python(
        "import sys; from fabrec_hf.cli import main; sys.argv = ['fabrec']; main()",
        _ARGCOMPLETE="1",
        COMP_LINE=line,
        COMP_POINT=str(len(line)),
        _ARGCOMPLETE_IFS="\n",
        _ARGCOMPLETE_STDOUT_FILENAME=str(answer),
    )
    assert done.returncode == 0, done.stderr
    return sorted(word.strip() for word in answer.read_text().split("\n"))


def test_the_shell_is_offered_verbs_options_choices_and_names(tmp_path):
    assert completions("fabrec e", tmp_path) == ["evaluate", "export"]
    assert completions("fabrec evaluate --pro", tmp_path) == ["--protocol"]
    assert completions("fabrec evaluate --protocol ", tmp_path) == ["default", "paper"]
    names = {"3fabrec-300w", "3fabrec-autoencoder"}
    assert names <= set(completions("fabrec detect --model 3fabrec-", tmp_path))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_code_for_each_shell(shell):
    text, (code, seconds, _, *libraries) = measure("completion", shell)
    assert code == "0" and "_ARGCOMPLETE" in text and "fabrec" in text
    assert libraries == [] and float(seconds) <= 0.3


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_with_it(tmp_path):
    command = tmp_path / "fabrec"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fabrec_hf "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(fabrec completion bash)"\n'
        "COMP_LINE='fabrec robustness --all' COMP_POINT=23 COMP_TYPE=9\n"
        "COMP_WORDS=(fabrec robustness --all) COMP_CWORD=2\n"
        "_python_argcomplete fabrec --all robustness\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environment = ENVIRONMENT | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["--all-faces"], done.stderr
