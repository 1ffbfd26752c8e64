"""The scores of `evaluation.metrics` as a metric of Hugging Face's `evaluate`, loaded from this folder's path.

`evaluate.load(str(Path(crossearth_hf.__file__).parent / "evaluation" / "segmentation_scores"))` needs no network.
Pixels travel through Arrow here, which is slow: code of its own adds images to a `ConfusionMatrix` instead.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from crossearth_hf.evaluation.metrics import (
    ConfusionMatrix,
    accuracy,
    f1,
    iou,
    mean_of_present,
    recall,
)
from crossearth_hf.labels import IGNORE_INDEX

_DESCRIPTION = """\
IoU, F1 and accuracy of label maps, from one confusion matrix over all images, with the definitions of `mean_iou`: a
class that is neither labeled nor predicted anywhere is NaN and left out of means, and so is, for class accuracy, one
that is never labeled. Ignored pixels never count.
"""

_INPUTS = """
Args:
    predictions: Label maps (H, W), one per image, of any sizes.
    references: Label maps of the same sizes.
    num_labels: Number of classes; ids are 0 to num_labels - 1.
    ignore_index: Id of pixels without label.

Returns:
    mean_iou, mean_accuracy, mean_f1, overall_accuracy: Numbers in 0..1.
    per_category_iou, per_category_accuracy, per_category_f1: Arrays with a number per class.
"""


class SegmentationScores(evaluate.Metric):
    """See the description above."""

    def _info(self) -> evaluate.MetricInfo:
        label_map = datasets.Sequence(datasets.Sequence(datasets.Value("uint16")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": label_map, "references": label_map}),
        )

    def _compute(
        self, predictions: Any, references: Any, num_labels: int, ignore_index: int = IGNORE_INDEX
    ) -> dict[str, Any]:
        confusion = ConfusionMatrix(num_labels)
        for prediction, reference in zip(predictions, references, strict=True):
            labels = np.asarray(reference, dtype=np.int64)
            confusion.add(
                np.asarray(prediction), np.where(labels == ignore_index, IGNORE_INDEX, labels)
            )
        per_class = {
            "iou": iou(confusion.counts),
            "accuracy": recall(confusion.counts),
            "f1": f1(confusion.counts),
        }
        return (
            {f"mean_{name}": mean_of_present(scores) for name, scores in per_class.items()}
            | {"overall_accuracy": accuracy(confusion.counts)}
            | {f"per_category_{name}": scores for name, scores in per_class.items()}
        )
