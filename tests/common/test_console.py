"""What commands say is whole on the screen, whatever is being drawn."""

import io
import sys

from tqdm import tqdm

from fabrec_hf.common.console import say


def test_a_line_said_beside_a_bar_stands_alone():
    stream = io.StringIO()
    with tqdm(total=2, desc="drawing", file=stream) as bar:
        bar.update()
        say("one face", stream)
        bar.update()
    drawn = stream.getvalue().split("\r")
    assert "one face\n" in drawn  # nothing of the bar before it, and the bar goes on in a line of its own
    assert "drawing" in drawn[drawn.index("one face\n") + 1]


def test_an_answer_goes_to_standard_output_and_a_remark_to_standard_error(capsys):
    say("answer")
    say("remark", sys.stderr)
    assert capsys.readouterr() == ("answer\n", "remark\n")


def test_whoever_reads_a_pipe_sees_a_line_at_once(tmp_path):
    path = tmp_path / "pipe"
    with path.open("w", encoding="utf-8") as stream:  # buffered by blocks, as a pipe is
        say("one face", stream)
        assert path.read_text(encoding="utf-8") == "one face\n"
        stream.write("unfinished")
        assert path.read_text(encoding="utf-8") == "one face\n"
