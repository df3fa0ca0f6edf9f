"""VIPMT, Figure 2 from left to right: encode, activate, iterate, segment; and the IoU of what came out."""
from dataclasses import dataclass

import torch
from torch import nn

from models.backbone import Features
from models.vipmt.initialisation import initialise
from models.vipmt.iou_net import promised_iou, structural_similarity_maps
from models.vipmt.layer import MaskGeneration, VIPMTLayer, positions
from models.vipmt.layers import LearnedUpsample, ResidualConvs, mask_classifier
from models.vipmt.prototype_activation import Activation, PrototypeActivation
from models.vipmt.reference_frames import at_feature_size
from models.vipmt.similarity import max_similarity


@dataclass
class ClipFeatures:
    """A query clip as far as no support matters: computed once, whatever it is compared with.

    levels: Features; reduced (B, T, C, h, w): X_2 and X_3 reduced, CCDS reads them too; pooled (B, T, P, h, w): the
    high level with pooled channels, for the prior; iou_features (B T, dim, h, w): IoUNet's of the levels, or None
    """
    levels: Features
    reduced: torch.Tensor
    pooled: torch.Tensor
    iou_features: torch.Tensor | None


@dataclass
class Segmentation:
    """What the network says about a clip, the same in training and test.

    logits (B, T, 2, H, W): background, object; low_logits (B, T, 2, h, w), before upsampling;
    initial_logits (B, T, 2, H, W) in training, None in eval mode; layers: one LayerOutput per iteration;
    activation: what PA made of the clip.
    """
    logits: torch.Tensor
    low_logits: torch.Tensor
    initial_logits: torch.Tensor | None
    layers: list
    activation: Activation

    @property
    def margins(self):
        """Object minus background logit (B, T, H, W); a tie is background."""
        return self.logits[:, :, 1] - self.logits[:, :, 0]

    @property
    def masks(self):
        """(B, T, H, W) bool"""
        return self.logits[:, :, 1] > self.logits[:, :, 0]


class MaskHeads(nn.Module):
    """The two MG heads, shared by all iterations."""

    def __init__(self, dim, dropout, frame_prototype):
        super().__init__()
        self.clip = MaskGeneration(dim, dropout)
        if frame_prototype:
            self.frame = MaskGeneration(dim, dropout)


class VIPMT(nn.Module):
    """backbone, iou_net: modules, the latter None where no memory is used; the rest are the config's values."""

    def __init__(self, backbone, iou_net=None, *, dim=384, num_layers=5, heads=8, ffn_dim=1152, dropout=0.1,
                 feature_dropout=0.5, frame_prototype=True, communication="bidirectional",
                 memory_attention="separate", cumulative_prior=False, memory_in_prior=False, patch_masks=False,
                 cosine_maps=False, use_maps=True, init="released", prior_channels="pooled",
                 match=False, prior_scale=1.0, prior_skip=0.0, calibration=(1.0, 0.0), confidence=False):
        super().__init__()
        self.backbone, self.iou_net = backbone, iou_net
        self.calibration, self.confidence = tuple(calibration), confidence
        self.memory_in_prior, self.cosine_maps, self.use_maps = memory_in_prior, cosine_maps, use_maps
        self.activation = PrototypeActivation(
            inputs=sum(backbone.channels[1:3]), dim=dim, dropout=dropout, feature_dropout=feature_dropout,
            cumulative_prior=cumulative_prior, patch_masks=patch_masks,
            keep_high=iou_net is not None and use_maps and not cosine_maps,
            prior_channels=backbone.channels[-1] if prior_channels == "all" else dim,
            self_support=prior_channels == "self_support", match=match,
            prior_scale=prior_scale, prior_skip=prior_skip)
        self.prototype = nn.Parameter(torch.randn(1, dim))                            # G_0
        self.level_embed = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, dim)))
        self.mask_heads = MaskHeads(dim, dropout, frame_prototype)
        self.layers = nn.ModuleList(
            VIPMTLayer(dim=dim, heads=heads, ffn_dim=ffn_dim, dropout=dropout, frame_prototype=frame_prototype,
                       communication=communication, memory_attention=memory_attention) for _ in range(num_layers))
        self.final_reduce = nn.Conv2d(dim, dim, 1, bias=False)
        self.final_refine = ResidualConvs(dim)
        self.final_classifier = mask_classifier(dim, dropout)
        self.upsample_final, self.upsample_initial = LearnedUpsample(), LearnedUpsample()
        initialise(self, init)

    @property
    def device(self):
        return self.prototype.device

    def encode(self, images):
        """images (B, T, 3, H, W)  ->  Features. Once per frame."""
        return self.backbone(images)

    def encode_reference(self, features, masks, keys=None):
        """Support frames: Features, masks (B, K, H, W)  ->  ReferenceFrames. Once per episode.

        keys: what search_keys returned for them; training computes them once for all clips of a sample
        """
        return self.activation.encode_reference(features, keys or self.search_keys(features, masks), masks)

    def search_keys(self, features, masks, pooled=None):
        """What the prior and the similarity maps compare with, as it is in ReferenceFrames; no gradient passes here.

        pooled: as in ClipFeatures, where it is known
        """
        high = high_level(features)
        pooled = self.activation.pool(features, high) if pooled is None else pooled
        return self.activation.search_keys(high, at_feature_size(masks), pooled)

    def encode_memory(self, features, masks, pooled=None):
        """Memory frames: what memory_features kept of them, masks (B, M, H, W)  ->  ReferenceFrames"""
        keys = self.search_keys(features, masks, pooled) if self.memory_in_prior else (None, None)
        return self.activation.encode_reference(features, keys, masks)

    def memory_features(self, features):
        """The levels that a remembered frame is read from again; the others are None."""
        return Features(None, features.c3, features.c4, features.c5 if self.memory_in_prior else None)

    def prepare(self, features, with_iou=True):
        """A query clip: Features  ->  ClipFeatures. Once per clip; with_iou: its IoU will be asked for."""
        reduced, pooled = self.activation.prepare(features, high_level(features))
        levels = [level.detach() for level in features.levels() if level is not None]
        iou_features = self.iou_net.fuse(levels) if with_iou and self.iou_net is not None else None
        return ClipFeatures(features, reduced, pooled, iou_features)

    def forward(self, clip, support, memory=None, size=None):
        """clip: ClipFeatures; support, memory: ReferenceFrames; size: (H, W) of the input, else 8 h x 8 w

        ->  Segmentation
        """
        activation = self.activation(clip.reduced, clip.pooled, self.sources(support, memory))
        query, prototype = activation.query, self.prototype.expand(len(activation.query), -1)
        mask = (activation.initial_logits[:, :, 1] > activation.initial_logits[:, :, 0]).detach()
        position, outputs = positions(query, self.level_embed), []
        for layer in self.layers:
            out = layer(prototype, query, mask, support, memory, self.mask_heads, position)
            prototype, query, mask = out.prototype, out.query, out.mask
            outputs.append(out)
        x = self.final_refine(self.final_reduce(query.flatten(0, 1)).relu())
        low_logits = self.activation.add_prior(self.final_classifier(x), activation.prior).unflatten(0, query.shape[:2])
        size = size or [8 * n for n in query.shape[-2:]]
        initial = self.upsample_initial(activation.initial_logits, size) if self.training else None
        return Segmentation(logits=self.upsample_final(low_logits, size), low_logits=low_logits,
                            initial_logits=initial, layers=outputs, activation=activation)

    def sources(self, support, memory):
        """What prototype, prior and similarity maps are made of: the support; as released the memory too."""
        # Official code treats memory frames as extra supports here; see model.memory_in_prior.
        return [support, memory] if self.memory_in_prior and memory is not None else [support]

    def similarity_maps(self, out, clip, support, memory=None):
        """Eqs. 15-16 for a Segmentation of `clip`  ->  (B, T, 5, h, w); the mask alone, (B, T, 1, h, w), without SSM"""
        mask = (out.low_logits[:, :, 1] > out.low_logits[:, :, 0]).detach()
        if not self.use_maps:
            return mask[:, :, None].to(out.low_logits.dtype)
        if self.cosine_maps:               # the prior's own cosines, on pooled channels
            return structural_similarity_maps(clip.pooled, mask, out.activation.similarity.amax(2), cosine=True)
        high = high_level(clip.levels).detach()
        sources = self.sources(support, memory)
        to_support = torch.cat([max_similarity(high, s.ssm_keys, cosine=False) for s in sources], dim=2).amax(2)
        return structural_similarity_maps(high, mask, to_support, cosine=False)

    def predict_iou(self, out, clip, support, memory=None):
        """IoUNet on what `forward` returned for the same arguments, calibrated  ->  (B, T) in (0, 1)"""
        scale, shift = self.calibration
        return (scale * self.iou_logits(out, clip, support, memory) + shift).sigmoid()

    def iou_logits(self, out, clip, support, memory=None):
        """The same before the sigmoid; gradients reach IoUNet alone."""
        logits = self.iou_net(clip.iou_features, self.similarity_maps(out, clip, support, memory))
        return logits + promised_iou(out.low_logits.detach()).logit(eps=0.02) if self.confidence else logits


def high_level(features):
    """The level of prior and similarity maps: c5, or c4 where the backbone ends there."""
    return features.c4 if features.c5 is None else features.c5
