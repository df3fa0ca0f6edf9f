"""Similarity search: every position's best match among masked positions. The prior and Eqs. 15-16 share it.

In: feature maps and masks. Out: largest similarities. The products are formed a few rows at a time, so that memory does
not depend on the number of masked positions.
"""
import torch

EPS = 1e-7                 # of every similarity, as released
CHUNK = {"cpu": 2 ** 20, "cuda": 2 ** 26}      # similarities held at a time; few enough for a CPU's cache


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

    query (B, T, C, h, w), keys (B, S, F, C)  ->  (B, T, S, h w), float32 or wider; dot products or cosines, at least 0,
    the similarity of a position outside the mask, which Eqs. 15-16 make a zero vector
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
            parts.append(similarity.unflatten(2, keys.shape[1:3]).amax(-1).clamp_(min=0))    # (B, rows, S)
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
