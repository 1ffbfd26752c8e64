"""A picture of QGIS's window with a map, its polygons and its confidence as they open, without a click.

    python scripts/picture_of_qgis.py map.tif map.gpkg sure.tif --out docs/qgis.png

Files are layers from top to bottom; only the first is drawn. Nothing but opening them happens. Needs Debian's packages
`qgis`, `xvfb` and `xauth`.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

_COMMANDS = """
from qgis.core import QgsProject, QgsRasterLayer, QgsVectorLayer
from qgis.PyQt.QtCore import QTimer
from qgis.PyQt.QtWidgets import QDockWidget
from qgis.utils import iface

files, out, size = {files!r}, {out!r}, {size!r}
window = iface.mainWindow()
window.resize(*size)
layers = []
for path in reversed(files):
    name = path.rsplit("/", 1)[-1]
    if path.endswith(".tif"):
        layers.append(iface.addRasterLayer(path, name))
    else:
        layers.append(iface.addVectorLayer(path + "|layername=map", name, "ogr"))
tree = QgsProject.instance().layerTreeRoot()
for layer in layers[:-1]:
    tree.findLayer(layer).setItemVisibilityChecked(False)
for dock in window.findChildren(QDockWidget):
    dock.setVisible(dock.objectName() == "Layers")
window.resizeDocks([d for d in window.findChildren(QDockWidget) if d.isVisible()], [260], 1)
iface.setActiveLayer(layers[-1])
iface.zoomToActiveLayer()


def save():
    window.grab().save(out)
    import os

    os._exit(0)


def save_when_drawn():
    iface.mapCanvas().waitWhileRendering()
    iface.layerTreeView().expandAll()
    QTimer.singleShot(3000, save)


QTimer.singleShot(5000, save_when_drawn)
"""


def main() -> None:
    """Opens QGIS off screen and saves its window."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", help="maps (.tif) and polygons (.gpkg)")
    parser.add_argument("--out", required=True, help="PNG to write")
    parser.add_argument(
        "--size", nargs=2, type=int, default=(1200, 720), metavar=("WIDTH", "HEIGHT")
    )
    arguments = parser.parse_args()
    files = [os.path.abspath(path) for path in arguments.files]
    with tempfile.TemporaryDirectory() as folder:
        commands = Path(folder) / "commands.py"
        settings = {
            "files": files,
            "out": os.path.abspath(arguments.out),
            "size": tuple(arguments.size),
        }
        commands.write_text(_COMMANDS.format(**settings), encoding="utf-8")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "GDAL", "PROJ"))
        }
        screen = ["xvfb-run", "-a", "-s", "-screen 0 1600x1200x24"]
        qgis = [
            "qgis",
            "--nologo",
            "--noversioncheck",
            "--profiles-path",
            folder,
            "--code",
            str(commands),
        ]
        subprocess.run([*screen, *qgis], env=kept, check=True, capture_output=True)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
