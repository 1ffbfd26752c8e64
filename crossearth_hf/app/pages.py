"""HTML of the page: the viewer, what stands beside it, the versions of a scene. Text from outside is escaped."""

import json
import secrets
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..labels import LabelSet
from ..prediction import MapReport
from ..raster.grid import Grid
from ..raster.polygons import Footprint
from .looks import Look
from .pictures import Layers
from .shift import Version

WELCOME = """
<div class="ce-welcome">
<p><b>Drop in a satellite or aerial picture and get a map of what is on the ground.</b></p>
<ol>
<li>Drop a GeoTIFF, JPEG or PNG into the box, or choose an example.</li>
<li>Press <i>Make the map</i>; a small scene takes seconds.</li>
<li>Compare, then download the map: the GeoTIFF opens in QGIS at the right place.</li>
</ol>
</div>"""

SHIFT_WELCOME = """
<div class="ce-welcome">
<h2>What if another sensor had taken it?</h2>
<p>The ground stays the same, but another sensor, season or region would give the picture other colors. Would the map
stay the same, too?</p>
<p>Choose a scene, then press <i>Show me</i>: the middle of the scene is drawn in other colors and mapped again.</p>
</div>"""

CANCELLED = """<p class="ce-help" role="status">Cancelled. The job was stopped and its files were deleted.</p>"""

_LONGEST_CRS_NAME = 40

_VIEWER = """
<ce-viewer data-view="{view}" data-layer="labels">
<div class="ce-frame">
<div class="ce-canvas" tabindex="0" role="application"
 aria-label="{summary} Arrow keys move the picture, plus and minus zoom."></div>
{divider}</div>
<p class="ce-readout">Point at the picture to read its values.</p>
{controls}
</ce-viewer>"""

_DIVIDER = """<div class="ce-divider" role="slider" tabindex="0"
 aria-valuemin="0" aria-valuemax="100" aria-valuenow="50"
 aria-label="Divider: the scene left of it, the map right of it"></div>
"""

_CONTROLS = """<div class="ce-controls">
<fieldset><legend>Show</legend>
<label><input type="radio" name="{group}" class="ce-pick" value="labels" checked> map</label>
<label><input type="radio" name="{group}" class="ce-pick" value="confidence"> confidence</label></fieldset>
<label>Opacity <input class="ce-opacity" type="range" min="0" max="100" value="100"></label>
</div>
<p class="ce-help ce-confidence-key"><span class="ce-swatch" style="background:#e69f00"></span><b>Orange: uncertain,
{uncertain} of the scene.</b> There the best class has less than half of the model's scores. Elsewhere, lighter means
more certain.</p>"""


def file_url(path: Path) -> str:
    """Address of a file in the work folder, relative to the page."""
    return f"gradio_api/file={quote(str(path))}"


def example_card(title: str, thumbnail: Path) -> str:
    """Picture and name of an example."""
    return (
        f"<span class='ce-example'><img src='{file_url(thumbnail)}' alt=''>{escape(title)}</span>"
    )


def progress(share: float, text: str, labels: str | None = None) -> str:
    """A bar and a sentence; the address of a gray picture of the map so far goes to the viewer."""
    growth = ""
    if labels is not None:
        growth = f"<ce-growth data-labels='{labels}'></ce-growth>"
    return (
        f"<div class='ce-progress'><progress max='1' value='{share:.3f}' aria-label='Progress'></progress>"
        f"<span>{escape(text)}</span></div>{growth}"
    )


def error(sentence: str) -> str:
    """What went wrong, and what to do."""
    return f"<p class='ce-error' role='alert'><b>This did not work.</b> {escape(sentence)}</p>"


def look(found: Look, name: str, label_set: LabelSet) -> str:
    """A scene before it is mapped: its picture, and how it will be read."""
    grid = found.grid
    view = _view(grid, found.picture, label_set)
    facts = [
        ("Size", f"{grid.width:,} x {grid.height:,} pixels"),
        ("Pixel size", _pixel_size(grid)),
    ]
    facts += [("Place", _where(found.place, grid)), ("Read as", found.reading)]
    rows = "".join(f"<dt>{term}</dt><dd>{escape(text)}</dd>" for term, text in facts)
    notices = [*([found.advice] if found.advice else []), *found.notices]
    beside = f"<h2>{escape(name)}</h2><dl class='ce-facts'>{rows}</dl>{notes(notices)}"
    return _side_by_side(_viewer_html(view, "The scene as it was given."), beside)


def result(
    layers: Layers, report: MapReport, notices: Sequence[str], files: Sequence[Path], where: str
) -> str:
    """A finished map: the viewer; beside it the classes, what to know about them, the files and the place.

    Args:
        layers: Pictures of the viewer.
        report: The map.
        notices: Sentences about the scene.
        files: What can be downloaded; the archive of all comes first.
        where: HTML of `place`.
    """
    beside = legend(report, notices) + downloads(files) + where
    return _side_by_side(viewer(layers, report), beside)


def viewer(layers: Layers, report: MapReport) -> str:
    """Scene and map on top of each other, with a divider, opacity and a choice of map or confidence."""
    shares = ", ".join(
        f"{name.replace('_', ' ')} {_percent(share)}"
        for name, share in zip(report.label_set.classes, report.shares, strict=True)
    )
    if report.scene is None:
        grid = None
    else:
        grid = report.scene.native_grid
    view = _view(grid, layers.scene, report.label_set, layers)
    controls = _CONTROLS.format(
        group=f"layer-{secrets.token_hex(4)}", uncertain=escape(_percent(layers.uncertain))
    )
    return _viewer_html(view, f"The scene and its map: {shares}.", _DIVIDER, controls)


def _viewer_html(view: dict[str, Any], summary: str, divider: str = "", controls: str = "") -> str:
    return _VIEWER.format(
        view=escape(json.dumps(view)), summary=escape(summary), divider=divider, controls=controls
    )


def _side_by_side(picture: str, beside: str) -> str:
    return f"<div class='ce-result'>{picture}<div class='ce-beside'>{beside}</div></div>"


def _view(
    grid: Grid | None, scene: Path, label_set: LabelSet, layers: Layers | None = None
) -> dict[str, Any]:
    """What static/viewer.js needs."""
    found: dict[str, Any] = {
        "scene": file_url(scene),
        "classes": [name.replace("_", " ") for name in label_set.classes],
        "colors": label_set.colors,
    }
    if layers is not None:
        found |= {"labels": file_url(layers.labels), "confidence": file_url(layers.confidence)}
        found |= {"width": layers.size[0], "height": layers.size[1]}
    if grid is not None:
        size = grid.pixel_size()
        found |= {"width": grid.width, "height": grid.height, "meters": size and size[0]}
        if grid.crs is not None and not grid.gcps and not grid.transform.is_identity:
            found |= {"transform": list(grid.transform[:6]), "crs": _crs_name(grid)}
    return found


def legend(report: MapReport, notices: Sequence[str] = ()) -> str:
    """Table of classes with color, share and hectares, and notes about the scene."""
    if report.hectares is None:
        areas = [None] * len(report.pixels)
    else:
        areas = list(report.hectares)
    largest = max(report.shares)
    columns = zip(
        report.label_set.classes, report.label_set.colors, report.shares, areas, strict=True
    )
    rows = [
        f"<tr><th scope='row'><label><input type='checkbox' class='ce-class' value='{number}' checked>"
        f"{_swatch(color)}{_name(name)}</label></th>"
        f"<td><span class='ce-bar' style='--share:{share / largest:.4f};background:{_hex(color)}'></span></td>"
        f"<td>{escape(_percent(share))}</td><td>{'-' if area is None else f'{area:,.2f}'}</td></tr>"
        for number, (name, color, share, area) in enumerate(columns)
    ]
    if report.hectares is not None:
        remarks = []
    else:
        remarks = ["Hectares need a georeferenced scene."]
    if report.without_data:
        remarks.append(f"{report.without_data:,} pixels hold no data and are left out.")
    if report.label_set.name == "land-cover":
        remarks.append("Colors that color-blind people can tell apart, by Okabe and Ito (2008).")
    head = "<tr><th scope='col'>Class</th><td></td><th scope='col'>Share</th><th scope='col'>Hectares</th></tr>"
    if remarks:
        help_text = f"<p class='ce-help'>{' '.join(remarks)}</p>"
    else:
        help_text = ""
    table = f"<table class='ce-legend'><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<h2>Classes</h2>{notes(notices)}{table}{help_text}"


def downloads(files: Sequence[Path]) -> str:
    """Links to files, the first of which holds all others."""
    archive, *others = files
    items = "".join(f"<li>{_link(path)}</li>" for path in others)
    return f"<h2>Download</h2><p>{_link(archive, 'All files', 'ce-all')}</p><ul class='ce-files'>{items}</ul>"


def _link(path: Path, text: str | None = None, kind: str = "") -> str:
    size = path.stat().st_size
    if size < 100_000:
        said = f"{size / 1e3:.1f} kB"
    else:
        said = f"{size / 1e6:,.1f} MB"
    name = escape(text or path.name)
    return f"<a class='{kind}' href='{file_url(path)}' download>{name} <small>{path.suffix[1:]}, {said}</small></a>"


def notes(sentences: Sequence[str]) -> str:
    """What a visitor should know about a scene, as highlighted paragraphs."""
    return "".join(
        f"<p class='ce-note'>{escape(text[0].upper() + text[1:])}.</p>" for text in sentences
    )


def place(found: Footprint | None, summary: str, advice: str | None, seconds: float) -> str:
    """Where the scene lies, what would give a better map, what was read, how long it took."""
    if found is None:
        where = "<p>The scene has no known location on Earth, so its map has none either.</p>"
    else:
        where = (
            f"<dl class='ce-facts'><dt>Center</dt><dd>{_point(found.longitude, found.latitude)}</dd>"
            f"<dt>South-west corner</dt><dd>{_point(found.west, found.south)}</dd>"
            f"<dt>North-east corner</dt><dd>{_point(found.east, found.north)}</dd></dl>"
            "<p class='ce-help'>Longitude and latitude in degrees (WGS84); the corners of the bounding box.</p>"
        )
    hint = notes([advice] if advice else [])
    return f"<h2>Place</h2>{hint}{where}<p class='ce-help'>{escape(summary)}. Mapped in {seconds:.1f} s.</p>"


def version_cards(
    versions: Sequence[Version],
    files: Sequence[Sequence[Path]],
    label_set: LabelSet,
    notices: Sequence[str] = (),
) -> str:
    """The maps of a scene in other colors beside its own map.

    Args:
        versions: The scene as it is, then in other colors.
        files: Files that `save_version` drew of each.
        label_set: The classes.
        notices: Sentences about the scene.
    """
    key = "".join(
        f"<li>{_swatch(color)}{_name(name)}</li>"
        for name, color in zip(label_set.classes, label_set.colors, strict=True)
    )
    original, *others = zip(versions, files, strict=True)
    rows = "".join(_row(original[1], version, paths) for version, paths in others)
    heading = "<h2>What if another sensor had taken it?</h2>"
    again = "<p class='ce-help'>Press again for other colors.</p>"
    return f"{heading}{notes(notices)}{rows}{again}<ul class='ce-key'>{key}</ul>"


def _row(original: Sequence[Path], version: Version, paths: Sequence[Path]) -> str:
    """Three pictures with headings, and a sentence."""
    name = escape(version.title)
    kept = escape(_percent(version.agreement or 0.0))
    figures = [
        _figure("As it was taken", original[:2], ["the middle of the scene", "its map"]),
        _figure(name, paths[:2], [f"the scene: {name}", "its map"]),
        _figure(
            "What changes in the map",
            paths[2:],
            ["pixels that change their class in full color, others pale"],
        ),
    ]
    sentence = (
        f"<p class='ce-verdict'><b>{kept} of the pixels keep their class</b>, so this model's map would "
        f"{_verdict(version.agreement or 0.0)}.</p>"
    )
    return f"<div class='ce-versions'>{''.join(figures)}</div>{sentence}"


def _verdict(agreement: float) -> str:
    if agreement >= 0.95:
        return "hardly change"
    if agreement >= 0.8:
        return "change in part"
    return "be very different"


def _figure(heading: str, paths: Sequence[Path], alts: Sequence[str]) -> str:
    images = "".join(
        f"<img src='{file_url(path)}' alt='{alt}'>" for path, alt in zip(paths, alts, strict=True)
    )
    return f"<figure><figcaption><h3>{heading}</h3></figcaption>{images}</figure>"


def _pixel_size(grid: Grid) -> str:
    size = grid.pixel_size()
    if size is None:
        return "unknown"
    if max(size) < 1.01 * min(size):
        return f"{size[0]:.3g} m"
    return f"{size[0]:.3g} x {size[1]:.3g} m"


def _where(found: Footprint | None, grid: Grid) -> str:
    if found is None:
        return "unknown: no usable georeference"
    point = f"longitude {found.longitude:.4f}, latitude {found.latitude:.4f}"
    if grid.crs is None:
        return point
    return f"{point} ({_crs_name(grid)})"


def _crs_name(grid: Grid) -> str:
    name = grid.crs.to_string() if grid.crs is not None else ""
    if len(name) > _LONGEST_CRS_NAME:
        return "custom CRS"
    return name


def _point(longitude: float, latitude: float) -> str:
    return f"{longitude:.5f}, {latitude:.5f}"


def _name(name: str) -> str:
    return escape(name.replace("_", " "))


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _swatch(color: tuple[int, int, int]) -> str:
    return f"<span class='ce-swatch' style='background:{_hex(color)}'></span>"


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"
