"""PA, left of Figure 2: backbone maps become F^s, F^c_0 and the first mask (Section 3.2; structure as released).

Also the similarity search that the prior and the structural similarity maps share.
"""
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import nn

from models.vipmt.layers import Fuse, ResidualConvs, convolve_together, mask_classifier

STRIDE = 8                 # of c3, c4 and c5
EPS = 1e-7                 # of every similarity, as released
CHUNK = {"cpu": 2 ** 20, "cuda": 2 ** 26}      # similarities held at a time; few enough for a CPU's cache


@dataclass
class Guidance:
    """Support or memory frames after PA: what the iterations read.

    features F^s or F^m (B, S, C, h, w); masks (B, S, h, w) bool; attention_masks: the same but for
    `degenerate_masks: patch`; prototypes (B, S, C), one per frame; foreground (B, S, F, P): high-level
    features of the masked positions, pooled for the prior; high_foreground: the same with all channels.
    The last two are None where nothing reads them.
    """
    features: torch.Tensor
    masks: torch.Tensor
    attention_masks: torch.Tensor
    prototypes: torch.Tensor
    foreground: torch.Tensor | None
    high_foreground: torch.Tensor | None

    def split(self):
        """One Guidance per frame, with memory of its own."""
        return [Guidance(*(None if x is None else x[:, s:s + 1].clone() for x in vars(self).values()))
                for s in range(self.masks.shape[1])]


@dataclass
class Activation:
    """query F^c_0 (B, T, C, h, w); prior (B, T, h, w);
    initial_logits (B, T, 2, h, w); similarity (B, T, S, h w): what the prior was made of."""
    query: torch.Tensor
    prior: torch.Tensor
    initial_logits: torch.Tensor
    similarity: torch.Tensor


def join(guides, dim):
    """Several Guidances as one, along dim 0 (episodes) or 1 (frames)."""
    def parts(name):
        found = [getattr(g, name) for g in guides]
        if found[0] is None or not name.endswith("foreground"):
            return found
        longest = max(x.shape[2] for x in found)               # zero vectors fill up: their similarity is 0
        return [F.pad(x, (0, 0, 0, longest - x.shape[2])) for x in found]
    columns = {f.name: parts(f.name) for f in fields(Guidance)}
    return Guidance(**{name: None if x[0] is None else torch.cat(x, dim) for name, x in columns.items()})


def at_feature_size(masks):
    """Nearest with a factor of exactly 8, the pixel (8i, 8j): (..., H, W)  ->  (..., h, w) bool"""
    return masks[..., ::STRIDE, ::STRIDE] > 0


def patch_degenerate(masks):
    """Released, `model.degenerate_masks: patch`: an empty mask gets its centre, a full one loses its corners.

    masks (..., h, w) bool  ->  the same shape
    """
    h, w = masks.shape[-2:]
    centre, corners = torch.zeros_like(masks), torch.ones_like(masks)
    centre[..., h // 2 - 1:h // 2 + 1, w // 2 - 1:w // 2 + 1] = True
    corners[..., ::h - 1, ::w - 1] = False
    empty = ~masks.flatten(-2).any(-1)[..., None, None]
    full = masks.flatten(-2).all(-1)[..., None, None]
    return torch.where(empty, centre, torch.where(full, corners, masks))


def masked_average(features, masks):
    """Mean of the features under the mask: (B, S, C, h, w), (B, S, h, w)  ->  (B, S, C); zero for an empty mask"""
    weight = masks.to(features.dtype)
    return torch.einsum("bschw,bshw->bsc", features, weight) / (weight.sum((-2, -1)) + 0.0005)[..., None]


def pool_channels(x, channels):
    """Average pooling along the channels: (B, T, C, h, w)  ->  (B, T, channels, h, w); the same where C is that"""
    b, t, c, h, w = x.shape
    return F.adaptive_avg_pool2d(x.reshape(b * t, 1, c, h * w), (channels, h * w)).view(b, t, channels, h, w)


@torch.no_grad()
def foreground_index(masks):
    """The masked positions of every frame, padded to the fullest frame.

    masks (..., h, w) bool  ->  index (..., F) into h w, valid (..., F) bool; F is at least 1
    """
    flat = masks.flatten(-2)
    # While a GPU trains, asking for the count would make the host wait: all positions then, in their new order.
    waiting_costs = flat.is_cuda and not torch.is_inference_mode_enabled()
    count = flat.shape[-1] if waiting_costs else max(1, int(flat.sum(-1).max()))
    valid, index = flat.to(torch.uint8).sort(dim=-1, descending=True, stable=True)
    return index[..., :count], valid[..., :count] > 0


@torch.no_grad()
def gather_foreground(features, masks):
    """Features of the masked positions only; padding is zero vectors, whose similarity to anything is 0.

    features (B, S, C, h, w), masks (B, S, h, w)  ->  (B, S, F, C)
    """
    index, valid = foreground_index(masks)
    rows = features.flatten(3).transpose(2, 3)                                        # (B, S, h w, C)
    return rows.gather(2, index[..., None].expand(-1, -1, -1, rows.shape[3])) * valid[..., None]


@torch.no_grad()
def max_similarity(query, keys, cosine):
    """For every query position the largest similarity to a frame's foreground.

    query (B, T, C, h, w), keys (B, S, F, C)  ->  (B, T, S, h w), float32 or wider; dot products or cosines
    """
    with torch.autocast(query.device.type, enabled=False):
        rows = query.flatten(3).transpose(2, 3).flatten(1, 2)                         # (B, T h w, C)
        rows, flat = as_full_precision(rows), as_full_precision(keys.flatten(1, 2))
        step = rows_at_a_time(flat)
        parts = []
        for part in rows.split(step, dim=1):
            similarity = part @ flat.transpose(1, 2)
            if cosine:
                similarity /= part.norm(dim=-1)[:, :, None] * flat.norm(dim=-1)[:, None] + EPS
            parts.append(similarity.unflatten(2, keys.shape[1:3]).amax(-1))           # (B, rows, S)
    return torch.cat(parts, dim=1).unflatten(1, (query.shape[1], -1)).transpose(2, 3)


def rows_at_a_time(keys):
    """How many query positions may be compared with all keys (B, N, C) at once."""
    return max(1, CHUNK.get(keys.device.type, 2 ** 24) // (keys.shape[0] * keys.shape[1]))


def as_full_precision(x):
    """Half precision becomes float32: products of norms overflow there."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def min_max(x):
    """Norm of Eqs. 15-16: to [0, 1] along the last dimension"""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low + EPS)


class PrototypeActivation(nn.Module):
    """PA of IPMT, as released: reduction, masked average pooling, prior, merging, initial mask."""

    def __init__(self, *, inputs, dim, dropout, feature_dropout, cumulative_prior=False, patch_masks=False,
                 keep_high=True):
        super().__init__()
        self.dim, self.cumulative_prior = dim, cumulative_prior
        self.patch_masks, self.keep_high = patch_masks, keep_high
        self.reduce_query = nn.Conv2d(inputs, dim, 1, bias=False)
        self.reduce_support = nn.Conv2d(inputs, dim, 1, bias=False)
        self.feature_dropout = nn.Dropout2d(feature_dropout)
        self.merge_query = Fuse(dim, dim, maps=1)
        self.merge_support = Fuse(dim, dim)
        self.initial_refine = ResidualConvs(dim)
        self.initial_classifier = mask_classifier(dim, dropout)

    def prepare(self, features, high):
        """What PA does with a query clip before it meets a support  ->  reduced, pooled"""
        return self.reduce(self.reduce_query, features), pool_channels(high.detach(), self.dim)

    def reduce(self, conv, features):
        """X_2 and X_3 to C channels: Features  ->  (B, T, C, h, w)"""
        x = convolve_together(conv, [features.c3.flatten(0, 1), features.c4.flatten(0, 1)])
        return self.feature_dropout(x.relu()).unflatten(0, features.c3.shape[:2])

    def guide(self, features, keys, masks):
        """Support or memory frames: Features, keys as from search_keys, masks (B, S, H, W)  ->  Guidance

        keys (None, None): frames that take no part in prior and similarity maps
        """
        masks = at_feature_size(masks)
        reduced = self.reduce(self.reduce_support, features)
        prototypes = masked_average(reduced, masks)
        merged = self.merge_support(reduced.flatten(0, 1), prototypes.flatten(0, 1)).unflatten(0, masks.shape[:2])
        return Guidance(
            features=merged, masks=masks, attention_masks=patch_degenerate(masks) if self.patch_masks else masks,
            prototypes=prototypes, foreground=keys[0], high_foreground=keys[1])

    def search_keys(self, high, masks):
        """high (B, S, P, h, w), masks (B, S, h, w) bool  ->  foreground, high_foreground of Guidance"""
        return (gather_foreground(pool_channels(high, self.dim), masks),
                gather_foreground(high, masks) if self.keep_high else None)

    def forward(self, reduced, pooled, guides):
        """The query clip: reduced (B, T, C, h, w), pooled (B, T, P, h, w), guides: list of Guidance  ->  Activation"""
        prototype = torch.cat([g.prototypes for g in guides], dim=1).mean(dim=1)      # over all frames
        prior, similarity = self.prior(pooled, guides)
        b, t = reduced.shape[:2]
        query = self.merge_query(reduced.flatten(0, 1), prototype.repeat_interleave(t, dim=0),
                                 prior.flatten(0, 1)[:, None].to(reduced.dtype))
        initial_logits = self.initial_classifier(self.initial_refine(query))
        return Activation(query=query.unflatten(0, (b, t)), prior=prior,
                          initial_logits=initial_logits.unflatten(0, (b, t)), similarity=similarity)

    def prior(self, pooled, guides):
        """How much each position looks like the support: (B, T, P, h, w)  ->  prior (B, T, h, w), similarity"""
        similarity = torch.cat([max_similarity(pooled, g.foreground, cosine=True) for g in guides], dim=2)
        prior = min_max(similarity).mean(dim=2)
        if self.cumulative_prior:      # Official code averages frames 0..t here; see model.prior.
            count = torch.arange(1, prior.shape[1] + 1, device=prior.device, dtype=prior.dtype)
            prior = prior.cumsum(dim=1) / count[:, None]
        return prior.unflatten(-1, pooled.shape[-2:]), similarity
