"""TrainStep: a sample after the other -> five queries per frame and layer -> the matched one's losses, weighted."""
import torch
import torch.nn.functional as F
from torch import nn

from models.cma import losses


class TrainStep(nn.Module):
    """The module that is trained: everything but backbone and text encoder."""
    one_graph = False

    def __init__(self, model, cfg):
        super().__init__()
        self.model, self.cfg, self.weights = model, cfg.loss, [cfg.loss[name] for name in losses.NAMES]
        self.stretched = cfg.affinity.stretched_masks
        self.about = "backbone and text encoder frozen" + ("" if cfg.affinity.trained else ", affinity not trained")

    def units(self, batch):
        """ReferringBatch  ->  one backward pass per sample; together they have the mean of the samples' losses"""
        return [(sample, len(batch.samples)) for sample in batch.samples]

    def forward(self, sample, count=1):
        """sample, how many there are  ->  ({name: weighted loss / count}, {name: statistic})"""
        output, query = self.run(sample)
        target = losses.target_of(sample.query_boxes.to(output.boxes), sample.query_valid, sample.query_masks,
                                  query.padded)
        parts, _, chosen = self.criterion(output, target)
        scale = [1.0 if layer == len(parts) - 1 else self.cfg.auxiliary for layer in range(len(parts))]
        named = {name: weight * (parts[:, i] * parts.new_tensor(scale)).sum() / count
                 for i, (name, weight) in enumerate(zip(losses.NAMES, self.weights, strict=True))}
        best = chosen[-1:]
        found, truth = output.masks[-1][:, best][:, 0].detach() > 0, target.masks > 0
        iou = (found & truth).sum() / (found | truth).sum().clamp(min=1)
        return named, {"iou": iou.double(), "matched_score": output.logits[-1][:, best].detach().sigmoid().mean()}

    def run(self, sample):
        """->  Output, Frames of the query. Only those support frames are encoded that reach an output."""
        model, used = self.model, self.model.affinity.chosen(len(sample.support_images))
        query = model.encode(sample.query_images, pad=True)
        support, masks = model.encode(sample.support_images[used], pad=True), sample.support_masks[used].float()
        if not self.stretched:
            height, width = masks.shape[-2:]
            masks = F.pad(masks, (0, support.padded[1] - width, 0, support.padded[0] - height))
        levels = model.fuse(support.levels, model.words(sample.support_text), support=True)
        read = model.read_support(levels, masks, [level.shape[-2:] for level in query.levels])
        return model(query, read, model.words(sample.query_text)), query

    def criterion(self, output, target):
        """->  losses (layers, 5), costs (layers, Q, 5) without weights, the matched queries (layers,)"""
        logits, boxes, masks = (x if x.dtype == torch.float64 else x.float()
                                for x in (output.logits, output.boxes, output.masks))
        parts, table, chosen = [], [], []
        for layer in zip(logits, boxes, masks, strict=True):
            table.append(losses.costs(*layer, target, self.cfg.absent_boxes))
            chosen.append((table[-1] @ table[-1].new_tensor(self.weights)).argmin())
            parts.append(losses.layer_losses(*layer, target, chosen[-1], self.cfg.absent_boxes, self.cfg.mask_frames))
        return torch.stack(parts), torch.stack(table), torch.stack(chosen)
