"""TrainStep: mini-sequences as LWL's; both branches see the frames before, with the masks that were predicted there."""
import torch

from models.llb.losses import cosine_loss
from models.lwl.train_step import TrainStep as LWLTrainStep
from models.lwl.train_step import mean_iou


class TrainStep(LWLTrainStep):
    """One backward pass per batch."""

    @property
    def about(self):
        """In words, for the log."""
        return f"{self.parts_in_words}, memory of {'all frames before' if self.update_steps else 'the first frame'}"

    def forward(self, images, masks):
        """images (B, 1+T, 3, H, W) in [0, 1], masks (B, 1+T, H, W)  ->  {name: loss}, {"iou": of masks}"""
        truth = masks[:, 1:].transpose(0, 1)
        logits, induction, transduction = self.segment(images.transpose(0, 1), masks[:, 0])
        cosine = self.cfg.loss.cosine * cosine_loss(induction, transduction)
        return self.mask_losses(logits, truth) | {"cosine": cosine}, {"iou": mean_iou(logits, truth)}

    def segment(self, images, first_mask):
        """images (1+T, B, 3, H, W), mask of the first frame (B, H, W)  ->  logits (T, B, H, W); E2 and E1 of all frames

        Predicted masks are encoded without their gradient; their encodings and features keep it.
        """
        model, (frames, batch) = self.model, images.shape[:2]
        levels, x = model.encode(images.flatten(0, 1))
        z = model.matching.conv(levels[2])
        query = model.matching.key(model.matching.encode(z[None]))             # every frame by itself
        x, z, query, *levels = (one.unflatten(0, (frames, batch)) for one in (x, z, query, *levels))
        encoded, logits = [model.label_encoder(images[:1], first_mask[None].to(x))], []
        tau, steps, known = model.zero_filters(x, batch), self.cfg.learner.train_steps, 1
        for t in range(1, frames):
            label, weight, value = (torch.cat(some) for some in zip(*encoded[:known], strict=True))
            if t == 1 or self.update_steps:
                tau, _ = model.learn(x[:known], label, weight, tau, steps)
                key = model.matching.key(model.matching.encode(z[:known]))
            transduced = model.matching.read(query[t], key, value)
            logits.append(model.segment(tau, x[t], [one[t] for one in levels], images.shape[-2:], transduced))
            encoded.append(model.label_encoder(images[t:t + 1], logits[-1].detach().sigmoid()[None]))
            if self.update_steps:
                steps, known = self.update_steps, t + 1
        induction, _, transduction = (torch.cat(some) for some in zip(*encoded, strict=True))
        return torch.stack(logits), induction, transduction
