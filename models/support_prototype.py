"""The training-free reference: cosine to the masked average of the support's backbone features.

No part of VIPMT but the encoder takes part; what one threshold over these maps reaches is what the backbone
already knows.
"""
import torch
import torch.nn.functional as F

from models.vipmt.prototype_activation import at_feature_size, masked_average


@torch.no_grad()
def prototype_scores(model, episode, frames_at_once=5):
    """Cosine of every query pixel with the support prototype, c3 and c4 side by side.

    model: anything with encode(images); episode: Episode  ->  (T, H, W) float32 in [-1, 1], on the CPU
    """
    device = next(model.parameters()).device

    def features(images):
        levels = model.encode(images[None].to(device))
        return torch.cat([F.normalize(levels.c3, dim=2), F.normalize(levels.c4, dim=2)], dim=2)

    masks = at_feature_size(episode.support_masks[None].to(device))
    averages = masked_average(features(episode.support_images), masks)
    prototype = F.normalize(averages.sum(dim=1), dim=-1)                              # empty masks add nothing
    scores = []
    for images in episode.query_images.split(frames_at_once):
        cosine = torch.einsum("bc,btchw->bthw", prototype, F.normalize(features(images), dim=2))
        scores.append(F.interpolate(cosine, images.shape[-2:], mode="bilinear", align_corners=False)[0].float().cpu())
    return torch.cat(scores)
