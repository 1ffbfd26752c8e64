"""The job behind `crossearth report`: report folders in, one folder with page, tables and figures out."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import InputError
from ..files.outputs import check_place, check_replaced, staged
from ..progress import progress_bar
from .comparison import Comparison, compare

try:
    from matplotlib.figure import Figure

    from .feature_map import feature_figure
    from .figures import FEWEST_AXES, class_figure, reliability_figure, score_figure
    from .page import Picture, TargetSection, render_html, render_markdown, target_section
    from .panels import panel_figure
    from .style import paper_style, save
except ModuleNotFoundError as error:
    raise InputError(
        f"a report needs the package '{error.name}': pip install 'crossearth-hf[benchmark]'"
    ) from error

PAGE, TABLES, FIGURES = "report.html", "report.md", "figures"
"""Names of files and folders in the report."""


def write_report(
    reports: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Compares report folders: a self-contained page, the same as Markdown, figures as PNG and PDF.

    Args:
        reports: Folders that `crossearth evaluate` wrote.
        out: Folder to write.
        groups: Folders of the seeds of each model, by its name; shown as mean and standard deviation.
        overwrite: Whether a folder that an earlier call wrote may be replaced.
        progress: Whether to show a progress bar.

    Returns:
        Written files.

    Raises:
        InputError: Reports are missing, damaged or not comparable (`comparison.compare`), or the output folder exists,
            is another kind of folder, overlaps a report or cannot be written.
    """
    comparison = compare(reports, groups)
    target = _check_target(out, comparison, overwrite)
    with staged([target]) as (stage,):
        stage.mkdir()
        stage.joinpath(FIGURES).mkdir()
        with paper_style():
            overall, targets = _draw(comparison, stage / FIGURES, progress)
        stage.joinpath(PAGE).write_text(render_html(comparison, overall, targets), encoding="utf-8")
        stage.joinpath(TABLES).write_text(
            render_markdown(comparison, overall, targets, stage), encoding="utf-8"
        )
        pictures = [
            path
            for picture in [*overall, *(p for t in targets for p in t.pictures)]
            for path in picture.paths
        ]
        check_replaced(target, stage)
        written = [
            target / path.relative_to(stage) for path in (stage / PAGE, stage / TABLES, *pictures)
        ]
    return written


def _check_target(out: str | os.PathLike[str], comparison: Comparison, overwrite: bool) -> Path:
    target = check_place(out, overwrite=overwrite, parents=True)
    if target.exists() and not (
        target.is_dir() and (target / PAGE).is_file() and (target / FIGURES).is_dir()
    ):
        raise InputError(
            f"{out} exists and was not written by `crossearth report`; choose another name"
        )
    for report in (report for model in comparison.models for report in model.reports):
        folder = report.place.resolve()
        if target == folder or target in folder.parents or folder in target.parents:
            raise InputError(
                f"{out} and the report {report.place} overlap; write to another folder"
            )
    return target


def _draw(
    comparison: Comparison, folder: Path, progress: bool
) -> tuple[list[Picture], list[TargetSection]]:
    """All pictures: those over all targets, and the targets' sections with theirs."""
    overall = [
        *_saved(
            score_figure(comparison),
            folder / "scores",
            _score_caption(comparison),
            _score_alt(comparison),
        ),
        *_saved(
            reliability_figure(comparison),
            folder / "reliability",
            _RELIABILITY_CAPTION,
            _RELIABILITY_ALT,
        ),
    ]
    targets = []
    for number, name in enumerate(
        progress_bar(comparison.names, desc="drawing", unit="target", shown=progress), start=1
    ):
        place = f"{number:02d}-{comparison.entry(name).slug}"
        pictures: list[Picture] = []
        for kind, (draw, caption, alt) in _TARGET_FIGURES.items():
            figure = draw(comparison, name)
            path = folder / f"{kind}-{place}"
            pictures += _saved(
                figure, path, caption, alt.format(name=name), photograph=kind == "examples"
            )
        targets.append(target_section(comparison, name, pictures))
    return overall, targets


def _saved(
    figure: Figure | None, path: Path, caption: str, alt: str, *, photograph: bool = False
) -> list[Picture]:
    if figure is None:
        return []
    return [Picture(tuple(save(figure, path)), caption, alt, photograph)]


def _score_caption(comparison: Comparison) -> str:
    if len(comparison.shared) >= FEWEST_AXES:
        kind = "Radar"
    else:
        kind = "Bars"
    return (
        f"{kind} of the mean IoU in percent on the {len(comparison.shared)} unseen targets that all models were scored "
        "on, all on one scale from 0; numbers at names are those of the notes."
    )


def _score_alt(comparison: Comparison) -> str:
    means = "; ".join(f"{model.name} {comparison.mean(model)}" for model in comparison.models)
    return f"Mean IoU per unseen target and model; on average, in percent: {means}. The table above has all values."


_RELIABILITY_CAPTION = (
    "How often a prediction of a given confidence is right (accuracy over confidence, both in percent): on the dashed "
    "line, confidence equals accuracy; below it, the model is overconfident. Larger discs represent more pixels."
)
_RELIABILITY_ALT = (
    "Reliability diagrams, one per target; the tables of the targets have the calibration errors."
)

_TARGET_FIGURES: dict[str, tuple[Callable[[Comparison, str], Figure | None], str, str]] = {
    "classes": (
        class_figure,
        "IoU in percent over all classes and per class. Error bars: the confidence interval over images, or one "
        "standard deviation over seeds to each side; a dash where a class is neither labeled nor predicted.",
        "Bars of the IoU per class and model on {name}; the table above has all values.",
    ),
    "examples": (
        panel_figure,
        "Examples spread evenly over the data set, independent of scores; the share of correct pixels is that "
        "of the picture shown.",
        "Images of {name} with truth, prediction and error of each model.",
    ),
    "features": (
        feature_figure,
        "Features of class regions of source (hollow) and target (filled): by PCA, a projection onto two directions of "
        "many, and by t-SNE, where only neighborhoods are meaningful. The percentage is measured on the features "
        "themselves, over all their directions, and averaged over classes.",
        "Maps of source and target features per class on {name}, by PCA and t-SNE.",
    ),
}
