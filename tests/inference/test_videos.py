"""`fabrec detect` on videos: files of all sorts, real and odd, through the command line and the functions below it."""

import csv
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fabrec_hf import get_scheme
from fabrec_hf.cli import main
from fabrec_hf.errors import FabRecError, ImageError
from fabrec_hf.inference.landmark_finder import LandmarkFinder
from fabrec_hf.inference.video_files import VideoReader, VideoWriter
from fabrec_hf.inference.videos import VideoSettings, landmark_video
from fabrec_hf.metrics import RunningAcceleration, mean_acceleration
from fabrec_hf.model.lone_threads import computing_threads
from support.commands import fails_with
from support.landmark_checkpoints import save_landmark_model


av = pytest.importorskip("av")

ASTRONAUT = Path(__file__).parents[2] / "examples" / "astronaut.jpg"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_landmark_model(tmp_path_factory.mktemp("tiny"))


def write_video(path: Path, frames, rate: float = 25.0) -> Path:
    writer = VideoWriter(path, rate)
    for index, frame in enumerate(frames):
        writer.write(frame, index / rate)
    writer.close()
    return path


def noise(count: int, width: int = 96, height: int = 64):
    random = np.random.default_rng(0)
    return (random.integers(0, 255, (height, width, 3), np.uint8) for _ in range(count))


def faces_in_motion(count: int, shift: float):
    """The astronaut's face, moved to the right by `shift` pixels a frame."""
    face = Image.open(ASTRONAUT).convert("RGB").crop((120, 30, 320, 230)).resize((120, 120))
    for index in range(count):
        frame = Image.new("RGB", (240, 160), (90, 90, 90))
        frame.paste(face, (10 + round(shift * index), 20))
        yield np.asarray(frame)


def read(path: Path) -> list:
    reader = VideoReader(path)
    try:
        return list(reader)
    finally:
        reader.close()


def test_what_is_written_is_read(tmp_path):
    gray = [np.full((50, 40, 3), level, np.uint8) for level in range(20, 220, 10)]
    frames = read(write_video(tmp_path / "gray.mp4", gray, rate=30000 / 1001))
    assert [frame.index for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(20) * 1001 / 30000, atol=1e-4)
    for frame, expected in zip(frames, gray, strict=True):
        assert frame.pixels.shape == (50, 40, 3) and frame.pixels.dtype == np.uint8
        assert abs(frame.pixels.astype(int) - expected).max() <= 6


@pytest.mark.parametrize(
    ("size", "expected"), [((33, 17), (32, 16)), ((2, 2), (2, 2)), ((1, 1), (2, 2)), ((1, 9), (2, 8))]
)
def test_odd_sizes_can_be_written(tmp_path, size, expected):
    frames = read(write_video(tmp_path / "odd.mp4", noise(3, *size)))
    assert [frame.pixels.shape for frame in frames] == [(expected[1], expected[0], 3)] * 3


def test_frames_of_other_sizes_are_fitted_into_the_written_video(tmp_path):
    frames = [np.full((40, 60, 3), 200, np.uint8), np.full((90, 20, 3), 50, np.uint8)]
    found = read(write_video(tmp_path / "mixed.mp4", frames))
    assert [frame.pixels.shape for frame in found] == [(40, 60, 3)] * 2
    assert abs(int(found[1].pixels.mean()) - 50) < 6


def test_times_of_a_variable_rate_are_kept(tmp_path):
    times = [0.0, 0.04, 0.5, 0.51, 2.0]
    writer = VideoWriter(tmp_path / "uneven.mp4", 25.0)
    for time, frame in zip(times, noise(5), strict=True):
        writer.write(frame, time)
    writer.close()
    np.testing.assert_allclose([frame.time for frame in read(tmp_path / "uneven.mp4")], times, atol=1e-3)


def test_a_turned_video_is_read_upright(tmp_path):
    """A telephone held upright stores lying frames, and how to turn them."""
    stored = np.zeros((48, 80, 3), np.uint8)
    stored[:, 40:] = 200  # bright on the right
    with av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write turned videos")
        stream.set_display_rotation(90)
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(stored, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    pixels = read(tmp_path / "turned.mp4")[0].pixels
    assert pixels.shape == (80, 48, 3)
    # Turned by 90 degrees counterclockwise, the right side comes to the top.
    assert pixels[:30].mean() > 180 and pixels[-30:].mean() < 20


def test_truncated_and_damaged_videos_are_read_as_far_as_they_go(tmp_path):
    content = write_video(tmp_path / "whole.mp4", noise(40)).read_bytes()
    reader = VideoReader(tmp_path / "whole.mp4")
    assert len(list(reader)) == reader.expected_frames == 40 and reader.is_whole
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    reader = VideoReader(tmp_path / "cut.mp4")
    assert 10 < len(list(reader)) < 30 and not reader.is_whole
    damaged = bytearray(content)
    middle = len(content) // 2
    damaged[middle : middle + 8000] = np.random.default_rng(1).integers(0, 255, 8000, np.uint8).tobytes()
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    reader = VideoReader(tmp_path / "damaged.mp4")
    frames = list(reader)
    assert len(frames) > 20 and not reader.is_whole
    times = [frame.time for frame in frames]
    assert all(first < second for first, second in zip(times, times[1:], strict=False))


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_files_that_are_no_videos(checkpoint, tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("no video " * 99)
    (tmp_path / "empty.mp4").touch()
    with av.open(str(tmp_path / "no_frames.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    write_sound(tmp_path / "sound.mp4")
    for name, fragment in [
        ("text.mp4", "it cannot be read as a video: Invalid data"),
        ("empty.mp4", "it cannot be read as a video"),
        ("no_frames.mp4", "it holds no video"),
        ("sound.mp4", "it holds no video, only sound"),
        ("missing.mp4", "no such file"),
    ]:
        output = tmp_path / "out"
        fails_with(capsys, ["detect", tmp_path / name, "--model", checkpoint, "--output", output], name, fragment)
        assert not output.exists()


def test_a_video_without_faces_leaves_nothing(checkpoint, tmp_path, capsys):
    path = write_video(tmp_path / "noise.mp4", noise(5))
    words = ["detect", path, "--model", checkpoint, "--output", tmp_path / "out"]
    fails_with(capsys, words, "no face found in 5 frames", "--boxes")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_follows_a_face(tmp_path, capsys):
    # By the embedded detector: where an untrained one sees landmarks, and so follows the face to, is chance.
    path = write_video(tmp_path / "clip.mp4", faces_in_motion(24, 3))
    words = ["detect", path, "--output", tmp_path / "out", "--detect-every", 8]
    assert main([*map(str, words), "--json"]) == 0
    streams = capsys.readouterr()
    (record,) = json.loads(streams.out)
    assert streams.err == ""
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "clip.csv",
        "clip.json",
        "clip.landmarks.mp4",
    ]
    assert json.loads((tmp_path / "out/clip.json").read_text()) == record
    assert (record["width"], record["height"], record["frames_read"], record["is_whole"]) == (240, 160, 24, True)
    assert [frame["frame"] for frame in record["frames"]] == list(range(24))
    assert [track["id"] for track in record["tracks"]] == [1]
    assert record["point_names"] == list(get_scheme("300w").point_names)
    assert record["jitter"]["after"] < record["jitter"]["before"]
    # The true motion is 3 px a frame.
    corners = [frame["faces"][0]["bbox"][0] for frame in record["frames"]]
    assert corners[17] - corners[1] == pytest.approx(48, abs=2)

    with (tmp_path / "out/clip.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["face"] for row in rows] == ["1"] * 24
    face = record["frames"][5]["faces"][0]
    point = get_scheme("300w").point_names.index("chin")
    assert [float(rows[5]["chin_x"]), float(rows[5]["chin_y"])] == face["keypoints"][point]
    assert float(rows[5]["chin_score"]) == face["scores"][point] and float(rows[5]["box_width"]) == face["bbox"][2]

    overlay = read(tmp_path / "out/clip.landmarks.mp4")
    assert len(overlay) == 24
    plain = read(path)
    assert np.abs(overlay[9].pixels.astype(int) - plain[9].pixels).max() > 100  # something bright was drawn


def test_pictures_and_videos_of_a_folder_go_together(checkpoint, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_video(folder / "b.mp4", faces_in_motion(3, 0))
    (folder / "a.jpg").write_bytes(ASTRONAUT.read_bytes())
    (folder / "c.landmarks.mp4").write_bytes(b"an earlier result")
    (folder / "d.mp4").write_text("no video")
    words = ["detect", str(folder), "--model", str(checkpoint), "--no-smoothing", "--min-score", "1"]
    assert main(words) == 2
    streams = capsys.readouterr()
    lines = streams.out.splitlines()
    assert lines[0].startswith(f"{folder / 'a.jpg'}: 1 face, mean score")
    assert lines[1].startswith(f"{folder / 'b.mp4'}: 1 face in 3 frames")
    assert "before smoothing" not in streams.out
    assert "d.mp4: it cannot be read as a video" in streams.err and streams.err.count("\n") == 2
    assert main([*words[:1], str(folder / "b.mp4"), *words[2:], "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["frames"][0]["faces"][0]["keypoints"] == [None] * 5


def test_a_truncated_video_gives_its_part_and_exit_code_2(checkpoint, tmp_path, capsys):
    content = write_video(tmp_path / "whole.mp4", noise(40)).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) // 2])
    words = ["detect", cut, "--model", checkpoint, "--output", tmp_path / "out", "--boxes", "10,10,60,40"]
    assert main([str(word) for word in words]) == 2
    streams = capsys.readouterr()
    assert "cut.mp4: 1 face in" in streams.out and "it is damaged or ends early" in streams.err
    record = json.loads((tmp_path / "out/cut.json").read_text())
    assert record["is_whole"] is False and 5 < record["frames_read"] < 40


def test_given_boxes_of_the_first_frame(checkpoint, tmp_path, capsys):
    path = write_video(tmp_path / "noise.mp4", noise(4))
    words = ["detect", path, "--model", checkpoint, "--output", tmp_path / "out", "--boxes"]
    assert main([*map(str, words), "10,10,40,40"]) == 0
    frames = json.loads((tmp_path / "out/noise.json").read_text())["frames"]
    assert frames[0]["faces"][0]["bbox"] == [10, 10, 40, 40]
    capsys.readouterr()
    fails_with(capsys, [*words, "500,10,40,40"], "noise.mp4", "lies outside")
    fails_with(capsys, ["detect", path, "--detect-every", "0"], "--detect-every is a number of frames")


def test_a_failed_write_leaves_nothing_and_stops_the_threads(checkpoint, tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", noise(40))

    def full_disk(self, pixels, time):
        raise FabRecError("cannot write to out: No space left on device.")

    monkeypatch.setattr(VideoWriter, "write", full_disk)
    finder = LandmarkFinder(str(checkpoint), "cpu")
    with pytest.raises(FabRecError, match="No space left"):
        landmark_video(path, finder, tmp_path / "out", "clip", VideoSettings(boxes=[(10, 10, 40, 40)]))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_core_is_left_to_reading_drawing_and_encoding(checkpoint, tmp_path, monkeypatch):
    finder, find, counts = LandmarkFinder(str(checkpoint), "cpu"), LandmarkFinder.find, []

    def counted(self, *arguments, **options):
        counts.append(torch.get_num_threads())
        return find(self, *arguments, **options)

    monkeypatch.setattr(LandmarkFinder, "find", counted)
    path = write_video(tmp_path / "clip.mp4", noise(3))
    for threads in (3, 1):
        with computing_threads(threads):
            landmark_video(path, finder, tmp_path / "out", "clip", VideoSettings(boxes=[(10, 10, 40, 40)], draw=False))
            assert torch.get_num_threads() == threads
    assert counts == [2] * 3 + [1] * 3


def test_memory_does_not_grow_with_the_video(checkpoint, tmp_path):
    """The peak of 120 frames is that of 40, within some frames."""
    import tracemalloc

    finder = LandmarkFinder(str(checkpoint), "cpu")
    settings = VideoSettings(boxes=[(10, 10, 40, 40)], draw=False)
    peaks = []
    for count in (10, 40, 120):
        path = write_video(tmp_path / f"{count}.mp4", (np.full((64, 96, 3), 100, np.uint8) for _ in range(count)))
        tracemalloc.start()
        summary = landmark_video(path, finder, tmp_path / "out", "clip", settings)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert summary.frames == summary.faces == count
    assert peaks[2] - peaks[1] < 20 * 64 * 96 * 3


def test_running_acceleration_is_that_of_the_whole_sequence():
    random = np.random.default_rng(0)
    points, lengths = random.normal(0, 3, (40, 6, 2)).cumsum(axis=0), random.uniform(40, 60, 40)
    points[random.random((40, 6)) < 0.1] = np.nan
    running, gapped = RunningAcceleration(), RunningAcceleration()
    for frame in range(40):
        running.add(frame, points[frame], lengths[frame])
        if frame != 20:
            gapped.add(frame, points[frame], lengths[frame])
    assert running.mean == pytest.approx(mean_acceleration(points, lengths), rel=1e-12)
    points[20] = np.nan  # a frame that is left out is one without points
    assert gapped.mean == pytest.approx(mean_acceleration(points, lengths), rel=1e-12)
    assert np.isnan(RunningAcceleration().mean)


def test_videos_need_pyav(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'fabrec-hf\[video\]'"):
        VideoReader(tmp_path / "clip.mp4")


def test_reading_does_not_name_the_file_twice(tmp_path):
    (tmp_path / "x.mp4").write_text("x")
    with pytest.raises(ImageError) as caught:
        VideoReader(tmp_path / "x.mp4")
    assert "x.mp4" not in str(caught.value)
