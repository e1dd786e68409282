"""The command line as a user meets it."""

from fabrec_hf.cli import main


def fails_with(capsys, words: list, *fragments: str) -> None:
    """Run `fabrec` and require exit code 2, an empty stdout, and one line on stderr with the fragments."""
    assert main([str(word) for word in words]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    lines = [line for line in streams.err.splitlines() if line]
    assert len(lines) == 1, streams.err
    for fragment in fragments:
        assert fragment in lines[0]
