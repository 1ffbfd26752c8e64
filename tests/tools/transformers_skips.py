"""Every common test of transformers that is not run on CrossEarth, with the reason."""

import unittest
from collections.abc import Callable, Mapping, Sequence

MODEL = {
    "test_num_layers_is_small": "the pyramid needs four blocks",
    "test_model_get_set_embeddings": "the input embedding is a patch kernel; there are no words",
    "test_eager_matches_sdpa_inference_24_fp32_pad_left_output_attentions": (
        "fused attention has no weights: asked for them it raises a sentence, where transformers gives None"
    ),
}
STEM = MODEL | {"test_model_is_small": "EfficientNet-Lite0 has one size, 3 million parameters"}
MULTITASK = MODEL | {
    "test_model_outputs_equivalence": "it subtracts outputs from one another, and `visible` is boolean",
    "test_retain_grad_hidden_states_attentions": (
        "without labels the loss is that of the reconstruction; the hidden states are those of the segmentation"
    ),
}
PROCESSOR = {
    "test_convert_to_rgb_mixed_input_batch_2": (
        "the fourth channel of an array may be a band: it is refused where it is no mask, and not dropped"
    ),
    "test_new_models_require_torchvision_backend": "Pillow resizes, on every machine alike; torchvision is not needed",
}

FOR_EVERY_FAMILY = (
    "test_all_tensors_are_parameter_or_buffer",
    "test_attention_outputs",
    "test_batching_equivalence",
    "test_can_be_initialized_on_meta",
    "test_config",
    "test_correct_missing_keys",
    "test_determinism",
    "test_eager_matches_sdpa_inference_08_fp32_pad_left_sdpa_kernels",
    "test_hidden_states_output",
    "test_init_weights_can_init_buffers",
    "test_model_is_small",
    "test_model_outputs_equivalence",
    "test_retain_grad_hidden_states_attentions",
    "test_save_load",
    "test_training",
    "test_training_gradient_checkpointing_use_reentrant_false",
    "test_training_gradient_checkpointing_use_reentrant_true",
)
"""What depends on the network's parts. The others are about classes and files, which the families share."""


def skipping(reasons: Mapping[str, str], only: Sequence[str] = ()) -> Callable[[type], type]:
    """A decorator of test classes: skips the named tests; a name that no test has is a mistake.

    With `only` all others are left out: they run for DINOv2.
    """

    def decorate(cls: type) -> type:
        if only:
            assert all(hasattr(cls, name) for name in only)
            for name in dir(cls):
                if name.startswith("test_") and callable(getattr(cls, name)) and name not in only:
                    setattr(cls, name, None)
        for name, reason in reasons.items():
            if getattr(cls, name) is not None:
                setattr(cls, name, unittest.skip(reason)(getattr(cls, name)))
        return cls

    return decorate
