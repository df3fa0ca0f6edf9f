"""TrainStep: mini-sequences of Q frames -> the filter of the first, updated on the way -> Lovasz losses (Eq. 5)."""
import torch
import torch.nn.functional as F
from torch import nn

from models.lwl.losses import lovasz_loss


class TrainStep(nn.Module):
    """One backward pass per batch; inside, the test frames follow each other as in a test."""
    one_graph = False

    def __init__(self, model, cfg):
        super().__init__()
        self.model, self.cfg = model, cfg
        self.update_steps = cfg.learner.train_update_steps if cfg.learner.train_update == "paper" else 0

    @property
    def about(self):
        """In words, for the log."""
        if self.cfg.train.part == "box":
            return "box encoder alone"
        words = "updated after each frame" if self.update_steps else "of the first frame"
        return f"{self.parts_in_words}, filter {words}"

    @property
    def parts_in_words(self):
        return "backbone from layer2 on" if self.cfg.backbone.trained else "backbone frozen"

    def units(self, batch):
        return [(batch.images, batch.masks)]

    def forward(self, images, masks):
        """images (B, 1+T, 3, H, W) in [0, 1], masks (B, 1+T, H, W)  ->  {name: loss}, {"iou": of masks}"""
        if self.cfg.train.part == "box":
            truth = masks[:, 0]
            logits = self.model.segment_box(filled_boxes(truth), images[:, 0])
        else:
            truth = masks[:, 1:].transpose(0, 1)
            logits = self.segment(images.transpose(0, 1), masks[:, 0])
        return self.mask_losses(logits, truth), {"iou": mean_iou(logits, truth)}

    def mask_losses(self, logits, truth):
        """Logits and masks of the same shape  ->  {"lovasz": loss}, with loss.bce also {"bce": loss}

        Of a decoder that tells nothing apart yet Lovasz has an edge at p = 1/2: steps to either side cost more, which
        keeps it there for hundreds of steps. Cross-entropy is smooth.
        """
        losses = {"lovasz": self.cfg.loss.weight * lovasz_loss(logits, truth)}
        if self.cfg.loss.bce:
            losses["bce"] = self.cfg.loss.bce * F.binary_cross_entropy_with_logits(logits, truth.to(logits))
        return losses

    def segment(self, images, first_mask):
        """images (1+T, B, 3, H, W), mask of the first frame (B, H, W)  ->  logits (T, B, H, W)"""
        model, (frames, batch) = self.model, images.shape[:2]
        levels, x = model.encode(images.flatten(0, 1))
        x, levels = x.unflatten(0, (frames, batch)), [one.unflatten(0, (frames, batch)) for one in levels]
        label, weight = model.label_encoder(first_mask[None].to(x))
        tau, steps = model.zero_filters(x, batch), self.cfg.learner.train_steps
        logits = []
        for t in range(1, frames):
            if t == 1 or self.update_steps:
                with torch.set_grad_enabled(self.cfg.learner.end_to_end and torch.is_grad_enabled()):
                    tau, _ = model.learn(x[:t], label, weight, tau, steps)
            logits.append(model.segment(tau, x[t], [one[t] for one in levels], images.shape[-2:]))
            if self.update_steps and t + 1 < frames:
                more = model.label_encoder(logits[-1].detach().sigmoid()[None].to(x))
                label, weight = (torch.cat(pair) for pair in zip((label, weight), more, strict=True))
                steps = self.update_steps
        return torch.stack(logits)


def filled_boxes(masks):
    """The smallest box around each mask (N, H, W)  ->  filled, of the same shape; empty where the mask is"""
    rows, columns = masks.any(2), masks.any(1)
    rows, columns = (one.cummax(1).values & one.flip(1).cummax(1).values.flip(1) for one in (rows, columns))
    return rows[:, :, None] & columns[:, None, :]


def mean_iou(logits, masks):
    """IoU of logits > 0 with the masks, both (..., H, W), mean over masks that are not empty; no gradient"""
    found, masks = logits.detach() > 0, masks > 0
    union, seen = (found | masks).sum((-2, -1)), masks.any(-1).any(-1)
    return (((found & masks).sum((-2, -1)) / union.clamp(min=1)) * seen).sum() / seen.sum().clamp(min=1)
