"""Raw pixels arrive to the bit, from files and from zips, and damage is found."""

import io

import numpy as np
import pytest
import rasterio
from miniature_archives import encoded, picture, tiff, write_archive
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.build.archives import RawFolder
from crossearth_hf.scenarios.build.rasters import Header, encode_image, open_raster, read_header


def raw(tmp_path, content, name, zipped):
    write_archive(tmp_path / "archive.zip", {name: content}, zipped=zipped)
    return RawFolder.open(tmp_path).files(name)[0]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("bands", "dtype"), [(1, "uint8"), (3, "uint8"), (4, "uint8"), (4, "uint16"), (8, "uint16")]
)
def test_windows_are_read_to_the_bit(tmp_path, zipped, bands, dtype):
    pixels = picture(0, 70, 50, bands, dtype)
    file = raw(tmp_path, tiff(pixels), "a.tif", zipped)
    assert read_header(file) == Header((70, 50), bands, np.dtype(dtype))
    with open_raster(file) as raster:
        assert (raster.size, raster.bands, raster.dtype) == ((70, 50), bands, np.dtype(dtype))
        assert (raster.read(0, 0, 70, 50) == pixels).all()
        assert (raster.read(13, 9, 30, 20) == pixels[13:43, 9:29]).all()
        if bands == 4:
            assert (raster.read(13, 9, 30, 20, (3, 1)) == pixels[13:43, 9:29, [2, 0]]).all()
            with pytest.raises(InputError, match="has 4 bands, no band 5"):
                raster.read(0, 0, 1, 1, (5, 1))


@pytest.mark.parametrize("bands", [1, 3])
def test_eight_bits_are_encoded_as_png(bands):
    pixels = picture(0, 40, 60, bands)
    content, suffix = encode_image(pixels)
    decoded = np.array(Image.open(io.BytesIO(content)))
    assert suffix == ".png"
    assert (decoded.reshape(pixels.shape) == pixels).all()


@pytest.mark.parametrize(
    ("bands", "dtype"), [(4, "uint8"), (3, "uint16"), (4, "uint16"), (8, "uint16")]
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_other_rasters_are_encoded_as_tiff_without_alpha(bands, dtype):
    pixels = picture(0, 40, 60, bands, dtype)
    content, suffix = encode_image(pixels)
    with MemoryFile(content) as memory, memory.open() as source:
        assert suffix == ".tif"
        assert (source.read().transpose(1, 2, 0) == pixels).all()
        assert rasterio.enums.ColorInterp.alpha not in source.colorinterp


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("kind", "damage"),  # a flipped bit of a JPEG is another picture: it has no checksums
    [
        *(
            (kind, damage)
            for kind in ("a.png", "a.jpg", "a.tif")
            for damage in ("cut", "empty", "text")
        ),
        ("a.png", "flipped"),
        ("a.tif", "flipped"),
    ],
)
def test_damage_is_found(tmp_path, kind, zipped, damage):
    pixels = picture(0, 200, 300)
    content = bytearray(
        tiff(pixels, compress="deflate")
        if kind == "a.tif"
        else encoded(pixels, {"a.png": "PNG", "a.jpg": "JPEG"}[kind])
    )
    if damage == "flipped":
        content[len(content) // 2] ^= 0x10
    content = {"cut": content[: len(content) // 2], "empty": b"", "text": b"not found"}.get(
        damage, content
    )
    file = raw(tmp_path, bytes(content), kind, zipped)

    def read():
        with open_raster(file) as raster:
            return raster.read(0, 0, *raster.size)

    with pytest.raises(InputError, match=r"cannot be read as an image|is damaged or cut off"):
        read()


def test_other_formats_are_not_opened(tmp_path):
    """A VRT called .tif could point at any file of the machine."""
    (tmp_path / "secret.tif").write_bytes(tiff(picture(0, 8, 8)))
    vrt = f"""<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
    <SourceFilename>{tmp_path}/secret.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""
    file = raw(tmp_path, vrt.encode(), "a.tif", zipped=False)
    with pytest.raises(InputError, match="cannot be read as an image"), open_raster(file):
        pass


def test_sizes_come_from_headers(tmp_path):
    """A 6000 x 6000 file without a single pixel in it."""
    with pytest.warns(NotGeoreferencedWarning):
        rasterio.open(
            tmp_path / "a.tif",
            "w",
            driver="GTiff",
            width=6000,
            height=5000,
            count=3,
            dtype="uint8",
            SPARSE_OK=True,
        ).close()
    assert (tmp_path / "a.tif").stat().st_size < 400_000
    assert read_header(RawFolder.open(tmp_path).files("a.tif")[0]).size == (5000, 6000)
