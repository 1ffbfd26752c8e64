"""The domains of the CrossEarth paper's benchmark as literals: images and labels that a scenario trains on or scores.

Facts as listed by the authors (Gong et al., IEEE TPAMI 2026, arXiv 2410.22629, figures and repository).
"""

from dataclasses import dataclass, field

from ..labels import LabelSet, get_label_set


@dataclass(frozen=True)
class Domain:
    """Images of one kind with labels of one kind: what a scenario trains on or is scored on.

    Attributes:
        name: Key in `DOMAINS`, and name of its data set's configuration.
        dataset: Key in `DATASETS`.
        bands: Meaning of the three channels.
        label_set: Key in `labels.LABEL_SETS`.
        tile: Side of the tiles in pixels; None if images are not cut.
        counts: Tiles per split according to the benchmark; None if it does not state them. Other splits are those of
            the data set's authors, or ours if `note` says so.
        ground_sampling_distance: Meters per pixel; None if it varies or is not stated.
        fit: Pixels of the longer side to which images are resized for scoring; labels keep their size.
        window: Side of the window for scoring, if it is not the recipe's.
        archive_counts: Tiles in the published archives, if they differ from `counts`; these are accepted too.
        note: Remarks for users.
    """

    name: str
    dataset: str
    bands: str
    label_set: str
    tile: int | None
    counts: dict[str, int | None]
    ground_sampling_distance: float | None = None
    fit: int | None = None
    window: int | None = None
    archive_counts: dict[str, int] = field(default_factory=dict)
    note: str = ""

    @property
    def labels(self) -> LabelSet:
        """Classes, colors and ids."""
        return get_label_set(self.label_set)


DOMAINS = {
    domain.name: domain
    for domain in (
        Domain(
            "potsdam_rgb",
            "potsdam",
            "R,G,B of 3_Ortho_RGB",
            "isprs",
            512,
            {"train": 3456, "test": 2016},
            ground_sampling_distance=0.05,
        ),
        Domain(
            "potsdam_irrg",
            "potsdam",
            "IR,R,G of 3_Ortho_IRRG",
            "isprs",
            512,
            {"train": 3456, "test": 2016},
            ground_sampling_distance=0.05,
        ),
        Domain(
            "vaihingen",
            "vaihingen",
            "IR,R,G",
            "isprs",
            512,
            {"train": 344, "test": 398},
            ground_sampling_distance=0.09,
        ),
        Domain(
            "loveda_urban",
            "loveda",
            "R,G,B",
            "loveda",
            1024,
            {"train": 1156, "test": 677},
            ground_sampling_distance=0.3,
            note="the paper prints 667; the published validation set has 677",
        ),
        Domain(
            "loveda_rural",
            "loveda",
            "R,G,B",
            "loveda",
            1024,
            {"train": 1366, "test": 992},
            ground_sampling_distance=0.3,
        ),
        Domain(
            "deepglobe_road",
            "deepglobe-roads",
            "R,G,B",
            "road",
            1024,
            {"train": 6226, "test": 1246},
            ground_sampling_distance=0.5,
            note="only the training images have public masks: the test split, ours, is every fifth of them in the "
            "order of their ids; models that have seen DeepGlobe must not be scored on it",
        ),
        Domain(
            "massachusetts_road",
            "massachusetts-roads",
            "R,G,B",
            "road",
            1500,
            {"train": 1108, "validation": 14, "test": 49},
            ground_sampling_distance=1.0,
            window=1504,
            note="tested whole at 1500, the window being the next multiple of 16; training images keep their white "
            "areas without data",
        ),
        Domain(
            "rescuenet",
            "rescuenet",
            "R,G,B",
            "rescue",
            None,
            {"train": 3595, "validation": 449, "test": 449},
            fit=512,
            archive_counts={"test": 450},
            note="scored after resizing to fit 512, ratio kept; the 11 classes are mapped to these 5 by our choice, "
            "for the authors' mapping is not published; the paper counts 449 test images, the data set's authors 450",
        ),
        Domain(
            "potsdam_rgb_res",
            "potsdam",
            "R,G,B of 3_Ortho_RGB",
            "rescue",
            512,
            {"train": 3456, "test": 2016},
            ground_sampling_distance=0.05,
            note="the images of potsdam_rgb; low vegetation and tree are one class",
        ),
        Domain(
            "potsdam_irrg_res",
            "potsdam",
            "IR,R,G of 3_Ortho_IRRG",
            "rescue",
            512,
            {"train": 3456, "test": 2016},
            ground_sampling_distance=0.05,
            note="the images of potsdam_irrg; low vegetation and tree are one class",
        ),
        Domain(
            "whu_aerial",
            "whu-building",
            "R,G,B",
            "building",
            512,
            {"train": 4736, "test": 1036},
            ground_sampling_distance=0.3,
            note="by their number, the benchmark's 1036 test tiles are the archive's folder 'val'; its folder 'test' "
            "(2416) is not used",
        ),
        Domain(
            "whu_satellite",
            "whu-building",
            "R,G,B",
            "building",
            512,
            {"train": 13662, "test": 3726},
            ground_sampling_distance=0.45,
            note="with the tiles that hold few or no buildings: the archive's folders train and train_no "
            "(3135 + 10527), test and test_no (903 + 2823)",
        ),
        Domain(
            "casid_sub",
            "casid",
            "R,G,B",
            "casid",
            1024,
            {"train": 4900, "test": 2200},
            note="climate: subtropical monsoon",
        ),
        Domain(
            "casid_tem",
            "casid",
            "R,G,B",
            "casid",
            1024,
            {"train": 5025, "test": 2075},
            note="climate: temperate monsoon",
        ),
        Domain(
            "casid_tms",
            "casid",
            "R,G,B",
            "casid",
            1024,
            {"train": 3400, "test": 1650},
            note="climate: tropical monsoon",
        ),
        Domain(
            "casid_trf",
            "casid",
            "R,G,B",
            "casid",
            1024,
            {"train": 3700, "test": 1550},
            note="climate: tropical rainforest",
        ),
        Domain(
            "spacenet_road",
            "spacenet-roads",
            "R,G,B, 16 bits",
            "road",
            None,
            {"test": None},
            ground_sampling_distance=0.3,
            note="ours: all labeled chips of SpaceNet 3, the training archives of its four cities; center lines are "
            "drawn 4 m wide (2 m to either side)",
        ),
        Domain(
            "spacenet_building",
            "spacenet-buildings",
            "R,G,B, 16 bits",
            "building",
            None,
            {"test": 10593},
            ground_sampling_distance=0.3,
            note="ours: all labeled chips of SpaceNet 2, the training archives of its four cities",
        ),
    )
}


def domains_of(dataset: str) -> tuple[Domain, ...]:
    """The domains that are cut from a data set."""
    return tuple(domain for domain in DOMAINS.values() if domain.dataset == dataset)
