"""Recognizes formats by a file's first bytes, whatever its name."""

# A zero follows the start of a TIFF, which ends GDAL's search for texts such as <VRTDataset.
_DRIVERS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
SIGNATURE_BYTES = max(map(len, _DRIVERS))


def raster_driver(start: bytes) -> str | None:
    """The GDAL driver for a file, by its first `SIGNATURE_BYTES` or more.

    "GTiff", "PNG" or "JPEG", to be opened by that driver only; None for all other formats, which could refer to other
    files.
    """
    return next(
        (driver for signature, driver in _DRIVERS.items() if start.startswith(signature)), None
    )
