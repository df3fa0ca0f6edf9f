"""TrainStep of IoUNet on synthesised masks: noise on the true masks instead of a model's predictions (Section 4.3)."""
import numpy as np
import torch

from models.iou_training.mask_noise import noisy_masks
from models.vipmt import losses
from models.vipmt import train_step as vipmt
from models.vipmt.model import Segmentation
from models.vipmt.prototype_activation import Activation
from models.vipmt.reference_frames import at_feature_size


class TrainStep(vipmt.TrainStep):
    """The module that is trained: a batch is encoded once, which also draws its noise, and each clip is one unit.

    The noise of a batch follows from one number of torch's global CPU generator, whose state checkpoints keep: a
    resumed training draws the same.
    """

    @property
    def about(self):
        """In words, for the log."""
        start = self.cfg.iou_net.weights
        return "IoUNet trained on synthesised masks" + ("" if start == "none" else f", starting from {start}")

    def train(self, mode=True):
        """Dropout has no place in parts that nothing trains."""
        super().train(mode)
        self.model.activation.eval()
        return self

    def memory_index(self, batch):
        """Nothing reads a memory here."""
        return []

    def initial_memory_masks(self, masks):
        """What stands for the predictions: (B, T, H, W) bool  ->  noisy masks of the same shape, for all clips

        Where the noise needs another object, it is that of the next episode of the batch, which shows another class.
        """
        rng = np.random.default_rng(int(torch.randint(2 ** 63 - 1, ())))
        truths = masks.cpu()
        others = truths.roll(-1, dims=0).flatten(0, 1).numpy() if len(truths) > 1 else None
        noisy = noisy_masks(truths.flatten(0, 1).numpy(), rng, others)
        return torch.from_numpy(noisy).view(masks.shape).to(masks.device)

    def forward(self, encoded, number):
        """Clip `number` of every episode  ->  ({"iou_net": weighted loss}, {name: statistic, a scalar})"""
        logits, true_iou = self.predict(encoded, number)
        error = (logits.detach().sigmoid() - true_iou).abs().mean()
        loss = self.cfg.loss.iou_weight * self.iou_loss(logits, true_iou)
        return {"iou_net": loss}, {"iou": true_iou.mean(), "iou_error": error}

    def predict(self, encoded, number):
        """IoUNet on the noisy masks of a clip  ->  logits, true IoUs, both (B, T)"""
        span = self.span(encoded, number)
        truth, masks = encoded.query_masks[:, span], encoded.memory_masks[:, span]
        support = self.model.encode_reference(encoded.support, encoded.support_masks, encoded.keys)
        clip = self.model.prepare(encoded.query.frames(span))
        prediction = self.as_segmentation(masks, clip, support)
        return self.model.iou_logits(prediction, clip, support), losses.mask_iou(masks, truth)

    def as_segmentation(self, masks, clip, support):
        """Given masks (B, T, H, W) as if the network had said so: what similarity_maps reads of a Segmentation."""
        low = at_feature_size(masks)
        low_logits = torch.stack([~low, low], dim=2).to(clip.reduced.dtype)
        similarity = self.model.activation.prior(clip.pooled, [support])[1] if self.model.cosine_maps else None
        activation = Activation(query=None, prior=None, initial_logits=None, similarity=similarity)
        return Segmentation(logits=None, low_logits=low_logits, initial_logits=None, layers=[], activation=activation)
