"""The public data sets of the benchmark, with their addresses, licenses and citations.

What could not be confirmed is called "not stated" or "assumed". `source` fields say where a fact was read; citations
are those that the authors ask for.
"""

from dataclasses import dataclass

from ..errors import InputError

NOT_STATED = "not stated"
PROCESSED_HOMEPAGE = "https://huggingface.co/datasets/Cusyoung/CrossEarth-Benchmark"
"""Repository of the data sets that CrossEarth's authors have cut and relabeled."""


@dataclass(frozen=True)
class SourceDataset:
    """A public data set that domains are cut from.

    Attributes:
        name: Key in `DATASETS` and name for `crossearth build-dataset`.
        title: As its authors call it.
        homepage: Where the archives can be downloaded.
        license: The authors' statement in words, or "not stated".
        license_source: Where the license was read.
        citation: BibTeX.
        archives: Names of the files to download, or of the folders in them, as published.
        may_be_shared: Whether the license allows republishing the images; None if it does not say.
        layout: "confirmed" by the authors' documentation or by public code that reads the archives, else "assumed".
        layout_source: Where the layout was read.
        processed: Name of the archive at `PROCESSED_HOMEPAGE`, where there is one.
    """

    name: str
    title: str
    homepage: str
    license: str
    license_source: str
    citation: str
    archives: tuple[str, ...]
    may_be_shared: bool | None
    layout: str
    layout_source: str
    processed: str | None = None


_ISPRS_CITATION = """@article{rottensteiner2012isprs,
  title   = {The {ISPRS} benchmark on urban object classification and {3D} building reconstruction},
  author  = {Rottensteiner, F. and Sohn, G. and Jung, J. and Gerke, M. and Baillard, C. and Benitez, S. and
             Breitkopf, U.},
  journal = {ISPRS Annals of the Photogrammetry, Remote Sensing and Spatial Information Sciences},
  volume  = {I-3},
  pages   = {293--298},
  year    = {2012},
  doi     = {10.5194/isprsannals-I-3-293-2012}
}"""

_DGPF_CITATION = """@article{cramer2010dgpf,
  title   = {The {DGPF}-Test on Digital Airborne Camera Evaluation -- Overview and Test Design},
  author  = {Cramer, Michael},
  journal = {Photogrammetrie -- Fernerkundung -- Geoinformation},
  number  = {2},
  pages   = {73--82},
  year    = {2010}
}"""

_LOVEDA_CITATION = """@inproceedings{wang2021loveda,
  title     = {Love{DA}: A Remote Sensing Land-Cover Dataset for Domain Adaptive Semantic Segmentation},
  author    = {Wang, Junjue and Zheng, Zhuo and Ma, Ailong and Lu, Xiaoyan and Zhong, Yanfei},
  booktitle = {Proceedings of the Neural Information Processing Systems Track on Datasets and Benchmarks},
  volume    = {1},
  year      = {2021}
}"""

_DEEPGLOBE_CITATION = """@inproceedings{demir2018deepglobe,
  title     = {{DeepGlobe} 2018: A Challenge to Parse the Earth through Satellite Images},
  author    = {Demir, Ilke and Koperski, Krzysztof and Lindenbaum, David and Pang, Guan and Huang, Jing and
               Basu, Saikat and Hughes, Forest and Tuia, Devis and Raskar, Ramesh},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR) Workshops},
  year      = {2018},
  note      = {arXiv:1805.06561}
}"""

_MASSACHUSETTS_CITATION = """@phdthesis{mnih2013machine,
  title  = {Machine Learning for Aerial Image Labeling},
  author = {Mnih, Volodymyr},
  school = {University of Toronto},
  year   = {2013}
}"""

_RESCUENET_CITATION = """@article{rahnemoonfar2023rescuenet,
  title   = {{RescueNet}: A High Resolution {UAV} Semantic Segmentation Dataset for Natural Disaster Damage
             Assessment},
  author  = {Rahnemoonfar, Maryam and Chowdhury, Tashnim and Murphy, Robin},
  journal = {Scientific Data},
  volume  = {10},
  pages   = {913},
  year    = {2023},
  doi     = {10.1038/s41597-023-02799-4}
}"""

_WHU_CITATION = """@article{ji2019fully,
  title   = {Fully Convolutional Networks for Multisource Building Extraction From an Open Aerial and Satellite
             Imagery Data Set},
  author  = {Ji, Shunping and Wei, Shiqing and Lu, Meng},
  journal = {IEEE Transactions on Geoscience and Remote Sensing},
  volume  = {57},
  number  = {1},
  pages   = {574--586},
  year    = {2019},
  doi     = {10.1109/TGRS.2018.2858817}
}"""

_CASID_CITATION = """@article{liu2023casid,
  title   = {A large-scale climate-aware satellite image dataset for domain adaptive land-cover semantic
             segmentation},
  author  = {Liu, Songlin and Chen, Linwei and Zhang, Li and Hu, Jun and Fu, Ying},
  journal = {ISPRS Journal of Photogrammetry and Remote Sensing},
  pages   = {98--114},
  year    = {2023},
  doi     = {10.1016/j.isprsjprs.2023.09.007}
}"""

_SPACENET_CITATION = """@article{vanetten2018spacenet,
  title   = {{SpaceNet}: A Remote Sensing Dataset and Challenge Series},
  author  = {Van Etten, Adam and Lindenbaum, Dave and Bacastow, Todd M.},
  journal = {arXiv preprint arXiv:1807.01232},
  year    = {2018}
}"""

_CITIES = ("AOI_2_Vegas", "AOI_3_Paris", "AOI_4_Shanghai", "AOI_5_Khartoum")

DATASETS = {
    dataset.name: dataset
    for dataset in (
        SourceDataset(
            "potsdam",
            "ISPRS 2D Semantic Labeling Contest, Potsdam",
            homepage="https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-potsdam.aspx",
            license="research use only, no distribution to third parties (ISPRS)",
            license_source="the conditions of ISPRS WG III/4 for its urban benchmarks, as quoted by users of the data",
            citation=_ISPRS_CITATION,
            archives=("3_Ortho_RGB.zip", "3_Ortho_IRRG.zip", "5_Labels_all_noBoundary.zip"),
            may_be_shared=False,
            layout="confirmed",
            layout_source="https://github.com/Cuzyoung/CrossEarth (benchmarks/README.md)",
            processed="Potsdam_Res.zip",
        ),
        SourceDataset(
            "vaihingen",
            "ISPRS 2D Semantic Labeling Contest, Vaihingen",
            homepage="https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-vaihingen.aspx",
            license="research use only, no distribution to third parties (ISPRS, DGPF)",
            license_source="the conditions of the DGPF for the Vaihingen test data, as quoted by users of the data",
            citation=f"{_ISPRS_CITATION}\n\n{_DGPF_CITATION}",
            archives=(
                "ISPRS_semantic_labeling_Vaihingen.zip",
                "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE.zip",
            ),
            may_be_shared=False,
            layout="confirmed",
            layout_source="https://github.com/Cuzyoung/CrossEarth (benchmarks/README.md)",
        ),
        SourceDataset(
            "loveda",
            "LoveDA",
            homepage="https://github.com/Junjue-Wang/LoveDA",
            license="CC BY-NC-SA 4.0",
            license_source="https://github.com/Junjue-Wang/LoveDA (README)",
            citation=_LOVEDA_CITATION,
            archives=("Train.zip", "Val.zip"),
            may_be_shared=True,
            layout="confirmed",
            layout_source="https://github.com/Cuzyoung/CrossEarth (benchmarks/README.md)",
            processed="LoveDA-CrossEarth.zip",
        ),
        SourceDataset(
            "deepglobe-roads",
            "DeepGlobe Road Extraction Challenge 2018",
            homepage="https://competitions.codalab.org/competitions/18467",
            license=NOT_STATED,
            license_source="none found in public; the terms shown at the download on the homepage hold",
            citation=_DEEPGLOBE_CITATION,
            archives=("train/",),
            may_be_shared=None,
            layout="confirmed",
            layout_source="the challenge's paper (arXiv 1805.06561) and https://github.com/Cuzyoung/CrossEarth",
            processed="DeepGlobe.zip",
        ),
        SourceDataset(
            "massachusetts-roads",
            "Massachusetts Roads",
            homepage="https://www.cs.toronto.edu/~vmnih/data/",
            license=NOT_STATED,
            license_source="none found on the homepage or in the thesis",
            citation=_MASSACHUSETTS_CITATION,
            archives=("tiff/",),
            may_be_shared=None,
            layout="confirmed",
            layout_source="https://github.com/Cuzyoung/CrossEarth (benchmarks/README.md); sat and map on the homepage",
            processed="Massachusetts.zip",
        ),
        SourceDataset(
            "rescuenet",
            "RescueNet",
            homepage="https://github.com/BinaLab/RescueNet-A-High-Resolution-Post-Disaster-UAV-Dataset-for-Semantic-Segmentation",
            license="CDLA-Permissive-1.0",
            license_source="the README of the authors' repository (homepage)",
            citation=_RESCUENET_CITATION,
            archives=("train/", "val/", "test/"),
            may_be_shared=True,
            layout="confirmed",
            layout_source="the data loader in the authors' repository (homepage)",
            processed="RescueNet.zip",
        ),
        SourceDataset(
            "whu-building",
            "WHU Building Dataset",
            homepage="https://gpcv.whu.edu.cn/data/building_dataset.html",
            license=NOT_STATED,
            license_source="none found; see the homepage",
            citation=_WHU_CITATION,
            archives=(
                "3. The cropped aerial image tiles and raster labels.zip",
                "Satellite dataset Ⅱ (East Asia).zip",
            ),
            may_be_shared=None,
            layout="assumed",
            layout_source="public code and an inventory of the archives by users, no statement of the authors",
            processed="WHU-Building.zip",
        ),
        SourceDataset(
            "casid",
            "CASID",
            homepage="https://github.com/Linwei-Chen/CASID",
            license="CC BY 4.0",
            license_source="https://huggingface.co/datasets/Linwei-Chen/CASID",
            citation=_CASID_CITATION,
            archives=("all_train/", "all_test/"),
            may_be_shared=True,
            layout="assumed",
            layout_source="the data set classes of CrossEarth's authors; the names of the climates' folders: assumed",
            processed="CASID.zip",
        ),
        SourceDataset(
            "spacenet-roads",
            "SpaceNet 3: Road Network Detection",
            homepage="https://spacenet.ai/spacenet-roads-dataset/",
            license="CC BY-SA 4.0",
            license_source="https://github.com/radiantearth/data-registry (datasets/spacenet_3.yaml)",
            citation=_SPACENET_CITATION,
            archives=tuple(f"SN3_roads_train_{city}.tar.gz" for city in _CITIES),
            may_be_shared=True,
            layout="assumed",
            layout_source="torchgeo's and Raster Vision's readers of the archives",
        ),
        SourceDataset(
            "spacenet-buildings",
            "SpaceNet 2: Building Detection v2",
            homepage="https://spacenet.ai/spacenet-buildings-dataset-v2/",
            license="CC BY-SA 4.0",
            license_source="https://github.com/radiantearth/data-registry (datasets/spacenet_2.yaml)",
            citation=_SPACENET_CITATION,
            archives=tuple(f"SN2_buildings_train_{city}.tar.gz" for city in _CITIES),
            may_be_shared=True,
            layout="assumed",
            layout_source="torchgeo's and Raster Vision's readers of the archives",
        ),
    )
}


def get_dataset(name: str) -> SourceDataset:
    """The data set called `name`; raises `InputError` naming the known ones."""
    if name not in DATASETS:
        raise InputError(f"unknown data set '{name}'; choose one of {', '.join(DATASETS)}")
    return DATASETS[name]
