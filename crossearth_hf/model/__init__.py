"""The network, its losses and its image processor: what every saved folder carries, flat, by the loader's rules.

Importing it registers the model with transformers' Auto classes.
"""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from .configuration_crossearth import CrossEarthConfig
from .image_processing_crossearth import CrossEarthImageProcessor
from .modeling_crossearth import CrossEarthForSemanticSegmentation, CrossEarthModel

AutoConfig.register("crossearth", CrossEarthConfig)
AutoModel.register(CrossEarthConfig, CrossEarthModel)
AutoModelForSemanticSegmentation.register(CrossEarthConfig, CrossEarthForSemanticSegmentation)
AutoModelForUniversalSegmentation.register(CrossEarthConfig, CrossEarthForSemanticSegmentation)
# Ours needs no torchvision, whichever backend transformers would choose.
AutoImageProcessor.register(
    CrossEarthConfig,
    image_processor_classes={
        "pil": CrossEarthImageProcessor,
        "torchvision": CrossEarthImageProcessor,
    },
)

# What a pipeline looks up: the names that it calls supported, and a video processor. Unless it is known that there is
# none, the pipeline asks on the console whether code of the folder may run in search of one.
MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES["crossearth"] = (
    CrossEarthForSemanticSegmentation.__name__
)
VIDEO_PROCESSOR_MAPPING.register(CrossEarthConfig, {}, exist_ok=True)

# Saved folders carry the code, so that they load where this package is not installed (trust_remote_code=True).
CrossEarthConfig.register_for_auto_class()
CrossEarthModel.register_for_auto_class("AutoModel")
CrossEarthForSemanticSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")
CrossEarthImageProcessor.register_for_auto_class("AutoImageProcessor")

__all__ = [
    "CrossEarthConfig",
    "CrossEarthForSemanticSegmentation",
    "CrossEarthImageProcessor",
    "CrossEarthModel",
]
