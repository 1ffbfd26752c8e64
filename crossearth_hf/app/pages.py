"""HTML of the page: the viewer, the legend, the place, the versions of a scene. Text from outside is escaped."""

import secrets
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from ..labels import LabelSet
from ..prediction import MapReport
from ..raster.polygons import Footprint
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
<p><b>Would the map be the same had another sensor, season or region given the scene its colors?</b></p>
<p>Earth-Style Injection re-renders blocks of the scene in the look of other places; the ground stays as it is. A model
that generalizes keeps its map. Choose a scene on the left, then press <i>Compare versions</i>.</p>
</div>"""

CANCELLED = """<p class="ce-help" role="status">Cancelled: nothing is running any more; what was is not kept.</p>"""

_VIEWER = """
<div class="ce-view" style="--cut:50%;--opacity:1">
<div class="ce-stack" style="aspect-ratio:{width}/{height};max-width:min(100%,calc(70vh*{width}/{height}))">
<img src="{scene}" alt="The scene as it was given">
<img class="ce-layer ce-map" src="{map}" alt="Map of the scene: {summary}">
<img class="ce-layer ce-confidence" src="{confidence}" alt="Confidence: {uncertain} of the scene is uncertain">
<span class="ce-tag ce-left" aria-hidden="true">scene</span>
<span class="ce-tag ce-right ce-map" aria-hidden="true">map</span>
<span class="ce-tag ce-right ce-confidence" aria-hidden="true">confidence</span>
<span class="ce-divider" aria-hidden="true"></span>
<input class="ce-cut" type="range" min="0" max="100" value="50" aria-label="Divider: scene left of it, map right of it"
 oninput="this.closest('.ce-view').style.setProperty('--cut', this.value + '%')">
</div>
<div class="ce-controls">
<fieldset><legend>Show</legend>
<label><input type="radio" name="{group}" class="ce-pick-map" checked> map</label>
<label><input type="radio" name="{group}" class="ce-pick-confidence"> confidence</label></fieldset>
<label>Opacity <input class="ce-opacity" type="range" min="0" max="100" value="100"
 oninput="this.closest('.ce-view').style.setProperty('--opacity', this.value / 100)"></label>
<button type="button" class="ce-whole" onclick="const v=this.closest('.ce-view');v.style.setProperty('--cut','0%');
v.querySelector('.ce-cut').value=0">Over the whole scene</button>
</div>
<p class="ce-help ce-map">Move the divider (drag, or arrow keys) to compare; lower the opacity to see the scene through
the map.</p>
<p class="ce-help ce-confidence"><span class="ce-swatch" style="background:#e69f00"></span><b>Orange: uncertain,
{uncertain} of the scene.</b> There the best class holds less than half of the model's scores. Elsewhere, the lighter
the surer.</p>
</div>"""


def file_url(path: Path) -> str:
    """Address of a file in the work folder, relative to the page."""
    return f"gradio_api/file={quote(str(path))}"


def example_card(title: str, thumbnail: Path) -> str:
    """Picture and name of an example."""
    return f"<span class='ce-example'><img src='{file_url(thumbnail)}' alt=''>{escape(title)}</span>"


def viewer(layers: Layers, report: MapReport) -> str:
    """Scene and map on top of each other, with a divider, opacity and a choice of map or confidence."""
    summary = ", ".join(
        f"{_name(name)} {_percent(share)}" for name, share in zip(report.label_set.classes, report.shares, strict=True)
    )
    return _VIEWER.format(
        width=layers.size[0],
        height=layers.size[1],
        scene=file_url(layers.scene),
        map=file_url(layers.map),
        confidence=file_url(layers.confidence),
        summary=summary,
        uncertain=_percent(layers.uncertain),
        group=f"layer-{secrets.token_hex(4)}",
    )


def legend(report: MapReport, notices: Sequence[str] = ()) -> str:
    """Table of classes: color, share and hectares; below, what is odd about the scene."""
    if report.hectares is None:
        areas = [None] * len(report.pixels)
    else:
        areas = list(report.hectares)
    largest = max(report.shares)
    rows = [
        f"<tr><th scope='row'>{_swatch(color)}{_name(name)}</th>"
        f"<td><span class='ce-bar' style='--share:{share / largest:.4f};background:{_hex(color)}'></span></td>"
        f"<td>{_percent(share)}</td><td>{'-' if area is None else f'{area:,.2f}'}</td></tr>"
        for name, color, share, area in zip(
            report.label_set.classes, report.label_set.colors, report.shares, areas, strict=True
        )
    ]
    if report.hectares is not None:
        remarks = []
    else:
        remarks = ["Hectares need a georeferenced scene."]
    if report.without_data:
        remarks.append(f"{report.without_data:,} pixels hold no data and are left out.")
    if report.label_set.name == "land-cover":
        remarks.append("Colors that color-blind people can tell apart, by Okabe and Ito (2008).")
    head = "<tr><th scope='col'>Class</th><th></th><th scope='col'>Share</th><th scope='col'>Hectares</th></tr>"
    if remarks:
        help_text = f"<p class='ce-help'>{' '.join(remarks)}</p>"
    else:
        help_text = ""
    table = f"<table class='ce-legend'><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<h2>Classes</h2>{notes(notices)}{table}{help_text}"


def notes(sentences: Sequence[str]) -> str:
    """What a visitor should know of a scene, as paragraphs that stand out."""
    return "".join(f"<p class='ce-note'>{escape(text[0].upper() + text[1:])}.</p>" for text in sentences)


def place(found: Footprint | None, summary: str, advice: str | None, seconds: float) -> str:
    """Where the scene lies, what would give a better map, what was read, how long it took."""
    if found is None:
        where = "<p>The scene has no known place on Earth; its map has none either.</p>"
    else:
        where = (
            f"<dl class='ce-place'><dt>Center</dt><dd>{_point(found.longitude, found.latitude)}</dd>"
            f"<dt>South-west corner</dt><dd>{_point(found.west, found.south)}</dd>"
            f"<dt>North-east corner</dt><dd>{_point(found.east, found.north)}</dd></dl>"
            "<p class='ce-help'>Longitude and latitude in degrees (WGS84); the corners of the bounding box.</p>"
        )
    hint = notes([advice] if advice else [])
    return f"<h2>Place</h2>{hint}{where}<p class='ce-help'>{escape(summary)}. Mapped in {seconds:.1f} s.</p>"


def version_cards(
    versions: Sequence[Version], files: Sequence[Sequence[Path]], label_set: LabelSet, notices: Sequence[str] = ()
) -> str:
    """Cards of the versions of a scene with the files that `save_version` drew, a key of the classes, and notices."""
    key = "".join(
        f"<li>{_swatch(color)}{_name(name)}</li>"
        for name, color in zip(label_set.classes, label_set.colors, strict=True)
    )
    cards = "".join(_card(version, paths) for version, paths in zip(versions, files, strict=True))
    return (
        f"{notes(notices)}<div class='ce-versions'>{cards}</div><ul class='ce-key'>{key}</ul>"
        "<p class='ce-help'>Of each: the version, its map, and in full color the pixels whose class is "
        "not that of the original.</p>"
    )


def _card(version: Version, paths: Sequence[Path]) -> str:
    name = escape(version.title)
    if version.agreement is None:
        verdict, meter = "the map to compare with", ""
        alts = [f"{name}: the middle of the scene", f"{name}: map"]
    else:
        verdict = f"{_percent(version.agreement)} of the pixels keep their class"
        meter = f"<meter min='0' max='1' value='{version.agreement:.4f}' aria-label='agreement'></meter>"
        alts = [name, f"{name}: map, {verdict}", f"{name}: pixels that changed class"]
    images = "".join(
        f"<img src='{file_url(path)}' alt='{alt}'>" for path, alt in zip(paths, alts, strict=False)
    )  # the original has no changes
    caption = f"<figcaption><b>{name}</b><br>{verdict}{meter}</figcaption>"
    return f"<figure><div class='ce-strip'>{images}</div>{caption}</figure>"


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
        return "&lt; 0.1 %"
    return f"{100 * share:.1f} %"
