"""Archives of strangers: only regular files, only inside, only so much."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile

import pytest

from aldriver.label.archives import ArchiveError, is_archive, unpack


def tar(path, members):
    with tarfile.open(path, "w:gz") as packed:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                packed.addfile(info)
            else:
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_files_come_out_as_they_were(tmp_path, ending):
    archive = tmp_path / f"runs{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("a/OUTCAR", b"one")
    else:
        tar(archive, {"a/OUTCAR": b"one"})
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "a" / "OUTCAR").read_bytes() == b"one"
    assert is_archive(archive) and not is_archive(tmp_path / "vasprun.xml.gz")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil"])
def test_names_that_point_outside_are_refused(tmp_path, name):
    with pytest.raises(ArchiveError, match="outside"):
        unpack(tar(tmp_path / "x.tar.gz", {"good": b"1", name: b"2"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr(name, b"2")
    with pytest.raises(ArchiveError, match="outside"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


def test_links_are_left_out(tmp_path):
    unpack(tar(tmp_path / "x.tar.gz", {"link": None, "file": b"1"}), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["file"]


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path):
    with pytest.raises(ArchiveError, match="unpacks to more"):
        unpack(tar(tmp_path / "x.tar.gz", {"zeros": bytes(10**6)}), tmp_path / "out", max_bytes=10**5)


@pytest.mark.parametrize("packer", ["gz", "bz2", "xz"])
def test_an_archive_that_was_damaged_on_its_way_is_an_archive_error(tmp_path, packer):
    path = tmp_path / f"x.tar.{packer}"
    noise = tmp_path / "noise"
    noise.write_bytes(random.Random(1).randbytes(300_000))
    with tarfile.open(path, f"w:{packer}") as packed:
        packed.add(noise, "noise")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="cannot be unpacked"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
def test_a_damaged_archive_is_an_archive_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08 not an archive")
    with pytest.raises(ArchiveError, match="cannot be unpacked"):
        unpack(tmp_path / name, tmp_path / "out")
