"""Formats known by a file's first bytes, whatever its name."""

# After a TIFF's start follows a zero, at which GDAL's search for texts such as <VRTDataset ends.
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

    "GTiff", "PNG" or "JPEG", each to be opened by that driver alone; None for the formats that could refer to other
    files, and for all others.
    """
    return next((driver for signature, driver in _DRIVERS.items() if start.startswith(signature)), None)
