"""One self-contained HTML page without network access; Jinja escapes all texts in it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from ..evaluation.report_file import Entry
from .comparison import Comparison
from .tables import (
    Cell,
    Column,
    Table,
    entry_table,
    escape_markdown,
    markdown,
    model_table,
    notes,
    score_table,
)

_WIDEST_PHOTOGRAPH = 1500  # pixels, in the page; the files keep all
_LARGEST_WEBP = 16383  # pixels a side, by the format
_SHOWN_WIDTH = (
    1.34  # CSS pixels of the page per 1/100 inch of a figure: text of 8 points reads as 14 pixels
)


@dataclass(frozen=True)
class Picture:
    """A figure as files.

    Attributes:
        paths: PNG and PDF.
        caption: What it shows and how to read it.
        alt: Alternative text for people who do not see it.
        photograph: Whether the page may store it lossily.
    """

    paths: tuple[Path, ...]
    caption: str
    alt: str
    photograph: bool = False

    @property
    def width(self) -> int:
        """In CSS pixels, from the file's own resolution."""
        with Image.open(self.paths[0]) as image:
            return round(image.width / image.info["dpi"][0] * 100 * _SHOWN_WIDTH)

    @property
    def uri(self) -> str:
        """The picture as a `data:` address, WebP: a fraction of the PNG."""
        buffer = io.BytesIO()
        with Image.open(self.paths[0]) as image:
            picture = image.convert("RGB")
            widest = _LARGEST_WEBP
            if self.photograph:
                widest = _WIDEST_PHOTOGRAPH
            picture.thumbnail((widest, _LARGEST_WEBP))
            picture.save(buffer, "WEBP", lossless=not self.photograph, quality=88, method=2)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True)
class TargetSection:
    """The section of the page on one target: facts, scores, pictures."""

    name: str
    facts: str
    table: Table
    pictures: tuple[Picture, ...]


def target_section(comparison: Comparison, name: str, pictures: Sequence[Picture]) -> TargetSection:
    """The section on the target called `name`."""
    return TargetSection(
        name, _facts(comparison.entry(name)), entry_table(comparison, name), tuple(pictures)
    )


def render_html(
    comparison: Comparison, pictures: Sequence[Picture], targets: Sequence[TargetSection]
) -> str:
    """The page; `pictures` follow the table of scores, and pictures of a target are in its section."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(
        files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    )
    return template.render(
        title="Benchmark report",
        subtitle=_subtitle(comparison),
        models=model_table(comparison),
        scores=score_table(comparison),
        notes=notes(comparison),
        pictures=pictures,
        targets=targets,
        provenance=_provenance(comparison),
    )


def render_markdown(
    comparison: Comparison,
    pictures: Sequence[Picture],
    targets: Sequence[TargetSection],
    root: Path,
) -> str:
    """The same as Markdown, pictures by their paths below `root`."""
    parts = ["# Benchmark report", escape_markdown(_subtitle(comparison))]
    parts += [
        "## Models",
        markdown(model_table(comparison)),
        "## Scores",
        markdown(score_table(comparison)),
    ]
    parts += ["\n".join(f"{number}. {text}" for number, text in notes(comparison))]
    parts += [_markdown_picture(picture, root) for picture in pictures]
    parts.append("## Target by target")
    for target in targets:
        parts += [
            f"### {escape_markdown(target.name)}",
            escape_markdown(target.facts),
            markdown(target.table),
        ]
        parts += [_markdown_picture(picture, root) for picture in target.pictures]
    parts += ["## Where the numbers come from", markdown(_provenance(comparison))]
    return "\n\n".join(parts) + "\n"


def _markdown_picture(picture: Picture, root: Path) -> str:
    path = picture.paths[0].relative_to(root).as_posix()
    return f"![{escape_markdown(picture.alt)}]({path})\n\n{escape_markdown(picture.caption)}"


def _subtitle(comparison: Comparison) -> str:
    models = ", ".join(model.name for model in comparison.models)
    unseen = sum(comparison.is_unseen(name) for name in comparison.names)
    return f"{models} on {unseen} unseen and {len(comparison.names) - unseen} in-domain targets."


def _facts(entry: Entry) -> str:
    if entry.unseen:
        kind = "unseen target"
    else:
        kind = "in-domain"
    if entry.source:
        domains = f"{entry.source} → {entry.target}"
    else:
        domains = entry.target
    window = f"windows of {entry.window} px every {entry.stride} px"
    if entry.scale == 1:
        scale = ""
    else:
        scale = f", enlarged {entry.scale:g} times"
    return (
        f"{domains} ({kind}); {entry.images} images, {entry.pixels} labeled "
        f"pixels; {window}{scale}; data {entry.fingerprint[:12]}."
    )


def _provenance(comparison: Comparison) -> Table:
    titles = ("model", "report folder", "evaluated", "device", "software")
    rows = tuple(
        (
            Cell(model.name),
            Cell(report.place.resolve().name),
            Cell(report.created),
            Cell(report.device),
            Cell(", ".join(f"{name} {version}" for name, version in report.software.items())),
        )
        for model in comparison.models
        for report in model.reports
    )
    return Table(
        "Reports that this page was drawn from.",
        tuple(Column(Cell(t)) for t in titles),
        (("", rows),),
        keys=5,
    )
