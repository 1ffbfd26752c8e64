"""Folders and zips are read in place, and only if they are what they say."""

import zipfile

import pytest

from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.build import archives
from crossearth_hf.scenarios.build.archives import RawFolder

FILES = {"images/a2.png": b"two", "images/a10.png": b"ten", "masks/a2.png": b"mask"}


def write_zip(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def write_folder(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


@pytest.mark.parametrize(
    "write", [lambda root: write_zip(root / "Train.zip", FILES), lambda r: write_folder(r, FILES)]
)
def test_zips_and_folders_read_alike(tmp_path, write):
    write(tmp_path)
    raw = RawFolder.open(tmp_path)
    found = raw.files("images/*.png")
    assert [file.name for file in found] == ["a2.png", "a10.png"]  # natural order
    assert [file.read_bytes() for file in found] == [b"two", b"ten"]
    assert [(file.stem, file.suffix, file.size) for file in found] == [
        ("a2", ".png", 3),
        ("a10", ".png", 3),
    ]
    assert raw.files("*/a2.png") == raw.files("images/a2.png") + raw.files("masks/a2.png")
    assert raw.files("images/*.tif") == []


def test_a_zip_counts_as_a_folder_of_its_name(tmp_path):
    write_zip(tmp_path / "Train.zip", {"Urban/1.png": b"x"})
    assert len(RawFolder.open(tmp_path).files("Train/Urban/*.png")) == 1
    assert len(RawFolder.open(tmp_path / "Train.zip").files("Urban/*.png")) == 1


def test_an_archive_beside_its_unpacked_folder_counts_once(tmp_path):
    write_zip(tmp_path / "Train.zip", FILES)
    write_folder(tmp_path / "Train", FILES)
    found = RawFolder.open(tmp_path).files("images/*.png")
    assert [file.member for file in found] == [None, None]
    (tmp_path / "Train/images/a2.png").write_bytes(b"another")
    with pytest.raises(InputError, match="differ in size"):
        RawFolder.open(tmp_path).files("images/*.png")


def test_clutter_is_left_out(tmp_path):
    clutter = {"__MACOSX/images/._a2.png": b"", "images/.DS_Store": b"", "images/a2.png": b"two"}
    write_zip(tmp_path / "a.zip", clutter)
    write_folder(tmp_path, {".cache/images/b.png": b""})
    assert [file.relative for file in RawFolder.open(tmp_path).entries] == ["a/images/a2.png"]


def test_archives_that_are_not_read_are_named(tmp_path):
    write_folder(tmp_path, {"SN3.tar.gz": b"x", "notes.txt": b"x"})
    write_zip(tmp_path / "Potsdam.zip", {"2_Ortho_RGB.zip": b"x"})
    assert RawFolder.open(tmp_path).other_archives() == ["SN3.tar.gz", "Potsdam/2_Ortho_RGB.zip"]


@pytest.mark.parametrize(
    "name", ["../evil.png", "images/../../evil.png", "/etc/evil.png", "C:/evil.png", "..\\evil.png"]
)
def test_paths_that_leave_the_archive_are_refused(tmp_path, name):
    write_zip(tmp_path / "a.zip", {name: b"x"})
    with pytest.raises(InputError, match="leaves the archive"):
        RawFolder.open(tmp_path)


def test_bombs_are_refused(tmp_path, monkeypatch):
    write_zip(tmp_path / "deflate.zip", {"black.tif": bytes(10**7)})  # an empty label map: no bomb
    assert len(RawFolder.open(tmp_path).entries) == 1
    write_zip(tmp_path / "squeezed.zip", {"a.bin": bytes(10**7)}, zipfile.ZIP_BZIP2)
    with pytest.raises(
        InputError, match=r"squeezed.zip holds 'a.bin' of 10000000 bytes in \d+, beyond the limits"
    ):
        RawFolder.open(tmp_path)
    (tmp_path / "squeezed.zip").unlink()
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 10**6)
    with pytest.raises(InputError, match="beyond the limits"):
        RawFolder.open(tmp_path)


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    write_zip(tmp_path / "a.zip", FILES)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    with pytest.raises(InputError, match="holds 3 files, more than 2"):
        RawFolder.open(tmp_path)


def test_overlapping_members_are_refused(tmp_path):
    """Entries of the directory that share the same bytes, as in the zip bombs of Fifield (2019)."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("f0", bytes(10**6))
        first = archive.filelist[0]
        for index in range(1, 400):
            info = zipfile.ZipInfo(f"f{index}")
            for field in ("compress_size", "file_size", "CRC", "header_offset", "compress_type"):
                setattr(info, field, getattr(first, field))
            archive.filelist.append(info)
    with pytest.raises(InputError, match="would unpack to 400000000 bytes"):
        RawFolder.open(tmp_path)


def test_a_name_that_comes_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", b"2")
    with pytest.raises(InputError, match="two files of one name"):
        RawFolder.open(tmp_path)


def test_encrypted_zips_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    write_zip(path, {"a.png": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    path.write_bytes(content)
    with pytest.raises(InputError, match="encrypted; unpack it"):
        RawFolder.open(tmp_path)


def test_damage_is_found(tmp_path):
    write_zip(tmp_path / "a.zip", {"a.bin": bytes(range(256)) * 40}, zipfile.ZIP_STORED)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[2000] ^= 1
    (tmp_path / "bad.zip").write_bytes(content)
    (tmp_path / "a.zip").unlink()
    [file] = RawFolder.open(tmp_path).entries
    with pytest.raises(InputError, match=r"bad.zip:a.bin cannot be read \(Bad CRC-32"):
        file.read_bytes()
    (tmp_path / "bad.zip").write_bytes(content[:3000])
    with pytest.raises(InputError, match="is cut off or not a zip"):
        RawFolder.open(tmp_path)


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        RawFolder.open(tmp_path / "none")
