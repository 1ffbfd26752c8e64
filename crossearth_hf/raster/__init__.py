"""Rasters in and out: all that touches GDAL."""
