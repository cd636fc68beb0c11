"""Files that grow, are compressed, cut short, replaced or rotated give every complete frame once."""

from __future__ import annotations

import gzip
import zlib
from contextlib import ExitStack, closing

import pytest
from monitor_helpers import dump_text, walk

from aldriver.core.errors import InputError
from aldriver.monitor.sources import open_source


def steps(source) -> list[int]:
    """What a source finds until it finds nothing."""
    out = []
    while batch := source.poll():
        out += [found.step if found.atoms is not None else found.note for found in batch]
    return out


@pytest.fixture
def opened():
    """`open_source`, of which nothing stays open."""
    with ExitStack() as stack:
        yield lambda *args: stack.enter_context(closing(open_source(*args)))


@pytest.fixture(scope="module")
def frames():
    return walk(6)


def test_a_dump_growing_byte_by_byte(tmp_path, opened, frames):
    """Each frame comes with its last byte, never before, never twice."""
    data, path, seen = dump_text(frames), tmp_path / "dump", []
    source = opened(str(path), ["Fe"])
    assert steps(source) == []
    with path.open("wb") as file:
        for start in range(0, len(data), 97):
            file.write(data[start : start + 97])
            file.flush()
            seen += steps(source)
            complete = data[: start + 97].count(b"ITEM: TIMESTEP")
            assert complete - 1 <= len(seen) <= complete
    assert seen == [0, 10, 20, 30, 40, 50] and source.rest() == ""


@pytest.mark.parametrize("kept", range(1, 7))
def test_any_position_goes_on_where_it_was(tmp_path, opened, frames, kept):
    path = tmp_path / "dump"
    path.write_bytes(dump_text(frames))
    first = opened(str(path), ["Fe"])
    position = first.poll()[kept - 1].position
    assert steps(opened(str(path), ["Fe"], position)) == [10 * k for k in range(kept, 6)]


def test_compressed_dumps_grow_too(tmp_path, opened, frames):
    """A gzip stream that its writer only flushes, then a second member by a restarted writer."""
    path, data = tmp_path / "dump.gz", dump_text(frames)
    half = len(dump_text(frames[:3])) + 100
    packer = zlib.compressobj(wbits=31)
    path.write_bytes(packer.compress(data[:half]) + packer.flush(zlib.Z_SYNC_FLUSH))
    source = opened(str(path), ["Fe"])
    found = source.poll()
    assert [f.step for f in found] == [0, 10, 20] and steps(source) == []
    with path.open("ab") as file:
        file.write(packer.compress(data[half:]) + packer.flush())
        file.write(gzip.compress(dump_text(frames[:1], first=60)))
    assert steps(source) == [30, 40, 50, 60]
    assert steps(opened(str(path), ["Fe"], found[1].position)) == [20, 30, 40, 50, 60]
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + b"\xff" * 40 + whole[240:])
    broken = opened(str(path), ["Fe"])
    with pytest.raises(InputError, match="cannot be decompressed"):
        steps(broken)


def test_zstd(tmp_path, opened, frames):
    path = tmp_path / "dump.zst"
    path.write_bytes(b"(\xb5/\xfd")
    try:
        import zstandard
    except ImportError:
        with pytest.raises(InputError, match="pip install zstandard"):
            steps(opened(str(path), ["Fe"]))
        return
    packer = zstandard.ZstdCompressor()
    path.write_bytes(packer.compress(dump_text(frames[:2])) + packer.compress(dump_text(frames[2:4], first=20)))
    assert steps(opened(str(path), ["Fe"])) == [0, 10, 20, 30]


def test_cut_short_and_written_anew(tmp_path, opened, frames):
    path = tmp_path / "dump"
    path.write_bytes(dump_text(frames))
    source = opened(str(path), ["Fe"])
    position = source.poll()[-1].position
    path.write_bytes(dump_text(frames[3:5], first=100))
    for again in (source, opened(str(path), ["Fe"], position)):
        note, *rest = steps(again)
        assert "cut short or replaced" in note and rest == [100, 110]


def test_rotated_by_renaming_the_rest_of_the_old_one_is_read_first(tmp_path, opened, frames):
    path, data = tmp_path / "dump", dump_text(frames[:3])
    path.write_bytes(data[:-50])
    source = opened(str(path), ["Fe"])
    assert steps(source) == [0, 10]
    with path.open("ab") as file:
        file.write(data[-50:])
    path.rename(tmp_path / "dump.1")
    path.write_bytes(dump_text(frames[3:], first=30))
    seen = steps(source)
    assert [s for s in seen if isinstance(s, int)] == [20, 30, 40, 50] and len(seen) == 5


def test_replaced_by_a_longer_copy_of_itself_goes_on(tmp_path, opened, frames):
    """As rsync does."""
    path = tmp_path / "dump"
    path.write_bytes(dump_text(frames[:4]))
    source = opened(str(path), ["Fe"])
    assert steps(source) == [0, 10, 20, 30]
    (tmp_path / "new").write_bytes(dump_text(frames))
    (tmp_path / "new").replace(path)
    assert steps(source) == [40, 50]


def test_one_file_per_frame_in_the_order_of_their_numbers(tmp_path, opened, frames):
    for k in (8, 9, 10):
        (tmp_path / f"dump.{k}.txt").write_bytes(dump_text(frames[:1], first=k))
    source = opened(str(tmp_path / "dump.*.txt"), ["Fe"])
    found = source.poll()
    assert [f.step for f in found] == [8, 9, 10]
    (tmp_path / "dump.11.txt").write_bytes(dump_text(frames[:1], first=11)[:-30])
    (tmp_path / "dump.100.txt").write_bytes(dump_text(frames[:1], first=100))
    note, last = steps(source)
    assert "dump.11.txt ends in mid-frame" in note and last == 100
    assert steps(opened(str(tmp_path / "dump.*.txt"), ["Fe"], found[1].position))[0] == 10


def test_extended_xyz_and_trajectories(tmp_path, opened, frames):
    from ase.io import Trajectory, write

    path, traj = tmp_path / "run.extxyz", tmp_path / "run.traj"
    write(path, frames[:2])
    half = path.read_text()
    write(path, frames[:3])
    whole = path.read_text()
    path.write_text(half + whole[len(half) : len(half) + 200])
    source = opened(str(path))
    assert steps(source) == [0, 1] and "mid-frame" in source.rest()
    path.write_text(whole)
    assert steps(source) == [2]
    with Trajectory(str(traj), "w") as file:
        source = opened(str(traj))
        for k, atoms in enumerate(frames):
            file.write(atoms)
            assert steps(source) == [k]
    traj.write_bytes(b"not a trajectory at all")
    with pytest.raises(InputError, match="ASE trajectory"):
        steps(opened(str(traj)))


def test_frames_before_one_that_is_refused_are_not_lost(tmp_path, opened, frames):
    path = tmp_path / "dump"
    path.write_bytes(dump_text(frames[:2]) + dump_text(frames[2:3], first=20).replace(b"\n1 1 ", b"\n1 2 "))
    source = opened(str(path), ["Fe"])
    assert [f.step for f in source.poll()] == [0, 10]
    with pytest.raises(InputError, match="atom type 2 has no element"):
        source.poll()


@pytest.mark.parametrize(("elements", "message"), [(["Fe", "Qq"], "Qq is no chemical symbol"), ([], "nothing is")])
def test_wrong_elements(elements, message, tmp_path, opened):
    with pytest.raises(InputError, match=message):
        opened(str(tmp_path / "dump"), elements)
    with pytest.raises(InputError, match="there is no folder"):
        opened(str(tmp_path / "none" / "dump"))
