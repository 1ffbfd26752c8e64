"""Outputs of the models."""

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import ModelOutput


@dataclass
class CrossEarthModelOutput(ModelOutput):
    """Output of [`CrossEarthModel`].

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_tokens, hidden_size)`):
            Class, register and patch tokens after the last block and its adapter; no final norm.
        feature_maps (`tuple` of four `torch.FloatTensor` of shape `(batch_size, hidden_size, height, width)`):
            Pyramid at strides 4, 8, 16 and 32.
        query_position_embeddings (`torch.FloatTensor` of shape `(num_queries, hidden_dim)`, *optional*):
            Queries computed from the Rein tokens, the same for every image; `None` without `link_queries`.
        hidden_states (`tuple` of `torch.FloatTensor`, *optional*, returned with `output_hidden_states=True`):
            Embeddings, then the tokens after each block and its adapter.
        attentions (`tuple` of `torch.FloatTensor`, *optional*, returned with `output_attentions=True`):
            Weights (B, heads, N, N) of each block, of `attn_implementation="eager"` alone.
    """

    last_hidden_state: Tensor | None = None
    feature_maps: tuple[Tensor, ...] | None = None
    query_position_embeddings: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class CrossEarthSegmentationOutput(ModelOutput):
    """Output of [`CrossEarthForSemanticSegmentation`].

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
            Sum of `loss_dict`.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels, height / 4, width / 4)`):
            A preview for tools that expect it: scores in [0, num_queries] at mask resolution, NOT log-odds (no
            softmax belongs on top). Label maps come from the processor's `post_process_semantic_segmentation`, which
            resizes masks before the sigmoid.
        class_queries_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, num_labels + 1)`):
            Class logits of every query; the last class is "no object". Without `labels` they heed
            `config.class_factors`.
        masks_queries_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, height / 4, width / 4)`):
            Mask logits of every query.
        loss_dict (`dict`, *optional*, returned with `labels`):
            Weighted class, mask and dice loss of every decoder output, see [`CrossEarthLoss`].
        hidden_states (`tuple` of `torch.FloatTensor`, *optional*, returned with `output_hidden_states=True`):
            Those of [`CrossEarthModel`].
        attentions (`tuple` of `torch.FloatTensor`, *optional*, returned with `output_attentions=True`):
            Those of [`CrossEarthModel`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    class_queries_logits: Tensor | None = None
    masks_queries_logits: Tensor | None = None
    loss_dict: dict[str, Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


__all__ = ["CrossEarthModelOutput", "CrossEarthSegmentationOutput"]
