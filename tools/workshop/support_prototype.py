"""The training-free reference: cosine to the masked average of the support's backbone features.

No part of VIPMT but the encoder takes part; what one threshold over these maps reaches is what the backbone
already knows.
"""
import torch
import torch.nn.functional as F

from models.vipmt.guidance import at_feature_size
from models.vipmt.prototype_activation import masked_average


class PrototypeScorer:
    """Cosine of every query pixel with the support prototype, c3 and c4 side by side; the next clip with each call.

    model: anything with encode(images); support_images (K, 3, H, W), support_masks (K, H, W) bool
    """

    def __init__(self, model, support_images, support_masks):
        self.model, self.device = model, next(model.parameters()).device
        masks = at_feature_size(support_masks[None].to(self.device))
        with torch.inference_mode():
            averages = masked_average(self.features(support_images), masks)
            self.prototype = F.normalize(averages.sum(dim=1), dim=-1)                 # empty masks add nothing

    def features(self, images):
        levels = self.model.encode(images[None].to(self.device))
        return torch.cat([F.normalize(levels.c3, dim=2), F.normalize(levels.c4, dim=2)], dim=2)

    @torch.inference_mode()
    def __call__(self, images):
        """images (T, 3, H, W)  ->  (T, H, W) float32 in [-1, 1], on the CPU"""
        query = F.normalize(self.features(images), dim=2)
        cosine = torch.einsum("bc,btchw->bthw", self.prototype, query)
        return F.interpolate(cosine, images.shape[-2:], mode="bilinear", align_corners=False)[0].float().cpu()
