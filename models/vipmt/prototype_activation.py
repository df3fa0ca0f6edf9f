"""PA, left of Figure 2: backbone maps become F^s, F^c_0 and the first mask (Section 3.2; structure as released).
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from models.vipmt.layers import Fuse, ResidualConvs, convolve_together, mask_classifier
from models.vipmt.reference_frames import ReferenceFrames, at_feature_size, patch_degenerate
from models.vipmt.self_support import self_support_prior
from models.vipmt.similarity import gather_foreground, max_similarity, min_max


@dataclass
class Activation:
    """query F^c_0 (B, T, C, h, w); prior (B, T, h, w);
    initial_logits (B, T, 2, h, w); similarity (B, T, S, h w): what the prior was made of."""
    query: torch.Tensor
    prior: torch.Tensor
    initial_logits: torch.Tensor
    similarity: torch.Tensor


def masked_average(features, masks):
    """Mean of the features under the mask: (B, S, C, h, w), (B, S, h, w)  ->  (B, S, C); zero for an empty mask"""
    weight = masks.to(features.dtype)
    return torch.einsum("bschw,bshw->bsc", features, weight) / (weight.sum((-2, -1)) + 0.0005)[..., None]


def pool_channels(x, channels):
    """Average pooling along the channels: (B, T, C, h, w)  ->  (B, T, channels, h, w); the same where C is that"""
    b, t, c, h, w = x.shape
    rows = x.permute(0, 1, 3, 4, 2).reshape(1, -1, c)             # as a frozen ResNet's maps lie in memory: no copy
    return F.adaptive_avg_pool1d(rows, channels).view(b, t, h, w, channels).permute(0, 1, 4, 2, 3)


class PrototypeActivation(nn.Module):
    """PA of IPMT, as released: reduction, masked average pooling, prior, merging, initial mask."""

    def __init__(self, *, inputs, dim, dropout, feature_dropout, cumulative_prior=False, patch_masks=False,
                 keep_high=True, prior_channels=None, self_support=False, match=False, prior_scale=1.0,
                 prior_skip=0.0):
        super().__init__()
        self.prior_channels, self.cumulative_prior = prior_channels or dim, cumulative_prior
        self.self_support, self.prior_skip = self_support, prior_skip
        self.patch_masks, self.keep_high = patch_masks, keep_high
        self.reduce_query = nn.Conv2d(inputs, dim, 1, bias=False)
        self.reduce_support = nn.Conv2d(inputs, dim, 1, bias=False)
        self.feature_dropout = nn.Dropout2d(feature_dropout)
        self.match, self.prior_scale = match, prior_scale
        self.merge_query = Fuse(dim, dim, maps=1 + match)
        self.merge_support = Fuse(dim, dim)
        self.initial_refine = ResidualConvs(dim)
        self.initial_classifier = mask_classifier(dim, dropout)

    def prepare(self, features, high):
        """What PA does with a query clip before it meets a support  ->  reduced, pooled"""
        return self.reduce(self.reduce_query, features), self.pool(features, high)

    def pool(self, features, high):
        """What the prior compares: Features, high (B, T, C, h, w), the level it is of  ->  (B, T, P, h, w)

        self_support, ours: X_2 and X_3 beside each other, of length 1 at every position
        """
        if self.self_support:
            return F.normalize(torch.cat([features.c3, features.c4], dim=2).detach(), dim=2)
        return pool_channels(high.detach(), self.prior_channels)

    def reduce(self, conv, features):
        """X_2 and X_3 to C channels: Features  ->  (B, T, C, h, w)"""
        x = convolve_together(conv, [features.c3.flatten(0, 1), features.c4.flatten(0, 1)])
        return self.feature_dropout(x.relu()).unflatten(0, features.c3.shape[:2])

    def encode_reference(self, features, keys, masks):
        """Support or memory frames: Features, keys as from search_keys, masks (B, S, H, W)  ->  ReferenceFrames

        keys (None, None): frames that take no part in prior and similarity maps
        """
        masks = at_feature_size(masks)
        reduced = self.reduce(self.reduce_support, features)
        prototypes = masked_average(reduced, masks)
        merged = self.merge_support(reduced.flatten(0, 1), prototypes.flatten(0, 1)).unflatten(0, masks.shape[:2])
        return ReferenceFrames(
            features=merged, masks=masks, attention_masks=patch_degenerate(masks) if self.patch_masks else masks,
            prototypes=prototypes, prior_keys=keys[0], ssm_keys=keys[1])

    def search_keys(self, high, masks, pooled):
        """high (B, S, C, h, w), masks (B, S, h, w) bool, pooled: what `pool` gave for them  ->  prior_keys, ssm_keys"""
        # A classifier needs the background, too.
        keys = pooled.flatten(3).transpose(2, 3) if self.self_support else gather_foreground(pooled, masks)
        return keys, gather_foreground(high, masks) if self.keep_high else None

    def forward(self, reduced, pooled, references):
        """The query clip: reduced (B, T, C, h, w), pooled (B, T, P, h, w), list of ReferenceFrames  ->  Activation"""
        prototype = torch.cat([g.prototypes for g in references], dim=1).mean(dim=1)      # over all frames
        prior, similarity = self.prior(pooled, references)
        b, t = reduced.shape[:2]
        maps = [self.prior_scale * prior.to(reduced.dtype)]
        if self.match:         # Otherwise no product of query and support is learned before the iterations.
            maps.append(F.cosine_similarity(reduced, prototype[:, None, :, None, None], dim=2))
        query = self.merge_query(reduced.flatten(0, 1), prototype.repeat_interleave(t, dim=0),
                                 torch.stack(maps, dim=2).flatten(0, 1))
        initial_logits = self.add_prior(self.initial_classifier(self.initial_refine(query)), prior)
        return Activation(query=query.unflatten(0, (b, t)), prior=prior,
                          initial_logits=initial_logits.unflatten(0, (b, t)), similarity=similarity)

    def add_prior(self, logits, prior):
        """What the network says and what the prior does: logits (B T, 2, h, w), prior (B, T, h, w)  ->  logits"""
        if not self.prior_skip:
            return logits
        margin = self.prior_skip * prior.flatten(0, 1).to(logits.dtype)
        return logits + torch.stack([-margin / 2, margin / 2], dim=1)

    def prior(self, pooled, references):
        """How much each position looks like the support: (B, T, P, h, w)  ->  prior (B, T, h, w), similarity

        In 0..1; with self_support about -3 to 3, above 0 object.
        """
        if self.self_support:
            similarity = torch.stack([self_support_prior(pooled, g.prior_keys, g.masks) for g in references], dim=2)
            prior = similarity.mean(dim=2)
        else:
            similarity = torch.cat([max_similarity(pooled, g.prior_keys, cosine=True) for g in references], dim=2)
            prior = min_max(similarity).mean(dim=2)
        if self.cumulative_prior:      # Official code averages frames 0..t here; see model.prior.
            count = torch.arange(1, prior.shape[1] + 1, device=prior.device, dtype=prior.dtype)
            prior = prior.cumsum(dim=1) / count[:, None]
        return prior.unflatten(-1, pooled.shape[-2:]), similarity
