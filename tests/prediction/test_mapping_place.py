"""Maps lie where their scene lies, also where GeoTIFF cannot hold its CRS or only RPCs tell."""

import pytest
import rasterio
import rasterio.shutil
from rasterio.rpc import RPC
from rasters import with_legend, write_raster
from small_jobs import PIXELS, content, predict, refused

EXOTIC = {
    "rotated pole": "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +to_meter=0.0174532925199433",
    "tilted perspective": "+proj=tpers +h=5500000 +lat_0=40",
    "peirce": "+proj=peirce_q",
    "s2": "+proj=s2",
    "compound": "EPSG:7415",
    "geographic 3D": "EPSG:4979",
    "bound": "+proj=utm +zone=32 +ellps=bessel +towgs84=598.1,73.7,418.2,0.202,0.045,-2.455,6.7",
    "site": 'ENGCRS["Site",EDATUM["d"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]',
}


@pytest.mark.parametrize("kind", EXOTIC)
def test_the_crs_travels_also_where_geotiff_cannot_hold_it(place, model_folder, capsys, kind):
    with rasterio.open(
        "s.tif", "w", driver="GTiff", width=80, height=64, count=3, dtype="uint8", crs=EXOTIC[kind],
        transform=rasterio.Affine(0.01, 0, 1, 0, -0.01, 2),
    ) as scene:  # fmt: skip
        scene.write(PIXELS)
    (place / "out").mkdir()
    assert predict(model_folder, "s.tif", "out/m.tif", "--confidence", "out/c.tif") == 0
    with (
        rasterio.open("s.tif") as scene,
        rasterio.open("out/m.tif") as map_file,
        rasterio.open("out/c.tif") as other,
    ):
        assert scene.crs is not None
        assert map_file.crs == scene.crs
        assert other.crs == scene.crs
        assert map_file.transform == scene.transform
    has_side_file = (place / "out/c.tif.aux.xml").exists()
    assert ("GeoTIFF cannot hold the CRS" in capsys.readouterr().out) == has_side_file
    assert has_side_file == ("<SRS" in (place / "out/m.tif.aux.xml").read_text())
    # a map that holds its CRS takes its place
    assert predict(model_folder, "in.tif", "out/m.tif", "--overwrite") == 0
    assert "<SRS" not in (place / "out/m.tif.aux.xml").read_text()
    assert sorted(content(place / "out")) == sorted(
        ["c.tif", *["c.tif.aux.xml"] * has_side_file, *with_legend("m.tif")]
    )


LINE, SAMPLE = [0.0, 0, -1, *[0.0] * 17], [0.0, 1, *[0.0] * 18]
ONE = [1.0, *[0.0] * 19]
COEFFICIENTS = RPC(
    height_off=100, height_scale=500, lat_off=45, lat_scale=0.1, long_off=9, long_scale=0.1, line_off=32,
    line_scale=32, samp_off=40, samp_scale=40, line_num_coeff=LINE, line_den_coeff=ONE, samp_num_coeff=SAMPLE,
    samp_den_coeff=ONE, err_bias=1.0, err_rand=0.5,
)  # fmt: skip


@pytest.mark.parametrize("driver", ["GTiff", "VRT"])
def test_rpcs_travel(place, model_folder, capsys, driver):
    write_raster(place / "s.tif", PIXELS, transform=None, rpcs=COEFFICIENTS)
    if driver == "VRT":
        rasterio.shutil.copy("s.tif", "s.vrt", driver="VRT")
    scene = "s.tif" if driver == "GTiff" else "s.vrt"
    assert predict(model_folder, scene, "m.tif", "--confidence", "c.tif") == 0
    for name in ("m.tif", "c.tif"):
        with rasterio.open(name) as result:
            assert result.rpcs == COEFFICIENTS
            assert result.transform.is_identity
    printed = capsys.readouterr()
    assert "georeferenced by RPCs" in printed.err
    assert "RPCs" in printed.out
    refused(capsys, predict(model_folder, scene, "n.tif", "--resolution", "1"), "gdalwarp -rpc")
