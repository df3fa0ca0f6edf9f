"""TrainStep: a batch of episodes -> its clips, mostly one -> named, weighted losses."""
import torch
from torch import nn

from models.dan import losses


class TrainStep(nn.Module):
    """The module that is trained: of the network everything but the encoder."""
    one_graph = False

    def __init__(self, model, cfg):
        super().__init__()
        self.model, self.weight = model, cfg.loss
        self.about = "encoder frozen" + (", its normalisation running" if cfg.backbone.released_bn else "")

    def units(self, batch):
        """Batch  ->  [(Batch, first frame of a clip)]: the release has one clip"""
        return [(batch, first) for first in range(0, batch.query_masks.shape[1], batch.clip_length)]

    def forward(self, batch, first):
        """->  ({name: weighted loss}, {name: statistic}); supports and query are one batch of the encoder"""
        clip = slice(first, first + batch.clip_length)
        query, truth = batch.query_images[:, clip], batch.query_masks[:, clip]
        features = self.model.encode(torch.cat([query, batch.support_images], dim=1))
        query, support = features.frames(slice(0, query.shape[1])), features.frames(slice(query.shape[1], None))
        logits = self.model(query, self.model.read_supports(support, batch.support_masks), truth.shape[-2:])
        prob = logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()
        named = {"cross_entropy": self.weight.cross_entropy * losses.cross_entropy(prob, truth),
                 "soft_iou": self.weight.iou * losses.iou_loss(prob, truth)}
        return named, {"iou": losses.mean_j(logits > 0, truth)}
