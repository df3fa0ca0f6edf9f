"""TrainStep: a batch of episodes -> clip after clip -> named, weighted losses (Sections 4.4 and 5.1)."""
from dataclasses import dataclass

import torch
from torch import nn

from models.backbone import Features
from models.vipmt import losses
from models.vipmt.memory import draw_memory, noisy_masks
from models.vipmt.reference_frames import at_feature_size
from utils.distributed import gather_with_gradient, mean_over_ranks, rank
from utils.seeds import rng_for


@dataclass
class EncodedBatch:
    """A batch after the backbone: support and query Features, (B, K, ...) and (B, clips * T, ...).

    keys: what the clips are compared with, of the supports; memory_masks: what the memory believes the query masks
    to be (train.memory_masks), as query_masks.
    """
    support: Features
    query: Features
    keys: tuple
    support_masks: torch.Tensor
    query_masks: torch.Tensor
    memory_masks: torch.Tensor
    memory_index: list
    clip_length: int

    @property
    def num_clips(self):
        return self.query_masks.shape[1] // self.clip_length


class TrainStep(nn.Module):
    """The module that is trained: a batch is encoded once, and each of its clips is one unit."""

    def __init__(self, model, cfg):
        super().__init__()
        self.model, self.cfg = model, cfg
        without_weights = cfg.iou_net.weights == "none"
        self.joint_iou = model.iou_net is not None and (without_weights or cfg.iou_net.training == "joint")
        self.one_graph = cfg.train.backward == "once"
        if model.backbone.trained and not self.one_graph:
            raise ValueError("train.backward: per_clip needs a frozen backbone, since the clips share its output.\n"
                             "  Set train.backward=once or backbone.trained=false.")

    @property
    def about(self):
        """In words, for the log; without weights `iou_net.training: separate` falls back to joint training."""
        if self.model.iou_net is None:
            return "IoUNet not used (model.memory_prototype is false)"
        return "IoUNet " + ("trained jointly" if self.joint_iou else f"from {self.cfg.iou_net.weights}")

    def units(self, batch):
        """Batch  ->  [(EncodedBatch, number of a clip)], one backward pass each"""
        encoded = self.encode(batch)
        return [(encoded, number) for number in range(encoded.num_clips)]

    def encode(self, batch):
        """Batch  ->  EncodedBatch; one call of the backbone for all frames."""
        index = self.memory_index(batch)         # first: its copy to a GPU would wait for the backbone
        shots = batch.support_images.shape[1]
        features = self.model.encode(torch.cat([batch.support_images, batch.query_images], dim=1))
        support, query = features.frames(slice(0, shots)), features.frames(slice(shots, None))
        return EncodedBatch(
            support, query, self.model.search_keys(support, batch.support_masks), batch.support_masks,
            batch.query_masks, self.initial_memory_masks(batch.query_masks), index, batch.clip_length)

    def memory_index(self, batch):
        """What each clip after the first remembers  ->  one (B, M) long tensor per such clip, [] without memory

        Every draw follows from the episode's key, so that no other random stream touches it.
        """
        length = self.cfg.memory.length if self.cfg.model.memory_prototype else 0
        drawn = []
        for key, shown in zip(batch.keys, batch.query_frames, strict=True):
            windows = [shown[i:i + batch.clip_length] for i in range(0, len(shown), batch.clip_length)]
            rng = rng_for(self.cfg.seed, *key, "memory")
            drawn.append(draw_memory(windows, length, self.cfg.data.short_video, rng))
        return [torch.tensor(clip).to(batch.query_masks.device, non_blocking=True) for clip in zip(*drawn, strict=True)]

    def initial_memory_masks(self, masks):
        """The masks that memory starts with; `predicted` overwrites them clip by clip."""
        return noisy_masks(masks) if self.cfg.train.memory_masks == "noisy" else masks.clone()

    def forward(self, encoded, number):
        """Clip `number` of every episode  ->  ({name: weighted loss, a scalar}, {name: statistic, a scalar})"""
        clip, truth, support, memory, reference_truth = self.parts(encoded, number)
        out = self.model(clip, support, memory, size=truth.shape[-2:])
        if self.cfg.train.memory_masks == "predicted":
            encoded.memory_masks[:, self.span(encoded, number)] = out.masks
        named = self.losses(out, clip, truth, reference_truth)
        true_iou = losses.mask_iou(out.masks, truth)
        statistics = {"iou": true_iou.mean()}
        if self.joint_iou:
            logits = self.model.iou_logits(out, clip, support, memory)
            named["iou_net"] = self.cfg.loss.iou_weight * self.iou_loss(logits, true_iou)
            statistics["iou_error"] = (logits.detach().sigmoid() - true_iou).abs().mean()
        return named, statistics

    def iou_loss(self, logits, true_iou):
        kind = self.cfg.iou_net.loss
        if kind == "bce":
            return losses.iou_cross_entropy(logits, true_iou)
        return losses.iou_regression_loss(logits.sigmoid(), true_iou, per_batch=kind == "sum_per_batch")

    def parts(self, encoded, number):
        """Its ClipFeatures, truth (B, T, H, W), support and memory ReferenceFrames, true masks of both (B, S, h, w)"""
        span = self.span(encoded, number)
        support = self.model.encode_reference(encoded.support, encoded.support_masks, encoded.keys)
        memory, truth = self.remember(encoded, number)
        truths = [support.masks] if memory is None else [support.masks, truth]
        clip = self.model.prepare(encoded.query.frames(span), with_iou=self.joint_iou)
        return clip, encoded.query_masks[:, span], support, memory, torch.cat(truths, dim=1)

    @staticmethod
    def span(encoded, number):
        return slice(number * encoded.clip_length, (number + 1) * encoded.clip_length)

    def remember(self, encoded, number):
        """The frames that were drawn for clip `number`  ->  ReferenceFrames, their true masks; None for the first"""
        if number == 0 or not encoded.memory_index:
            return None, None
        index = encoded.memory_index[number - 1]                                      # (B, M)
        episode = torch.arange(len(index), device=index.device)[:, None]
        features = self.model.memory_features(encoded.query).map(lambda x: x[episode, index].detach())
        memory = self.model.encode_memory(features, encoded.memory_masks[episode, index])
        return memory, at_feature_size(encoded.query_masks[episode, index])

    def losses(self, out, clip, truth, reference_truth):
        """Segmentation, ClipFeatures, truth (B, T, H, W), that of support and memory (B, S, h, w)  ->  {name: loss}"""
        weight, masks = self.cfg.loss, at_feature_size(truth)
        query_logits = [x for layer in out.layers for x in (layer.clip_logits, layer.frame_logits) if x is not None]
        reference_logits = [layer.support_logits for layer in out.layers]
        named = {
            "final": weight.final * losses.segmentation_loss(out.logits, truth),
            "initial": weight.initial * losses.segmentation_loss(out.initial_logits, truth),
            "aux_query": weight.aux_query * losses.auxiliary_loss(query_logits, masks),
            "aux_support": weight.aux_support * losses.auxiliary_loss(reference_logits, reference_truth),
        }
        if weight.cross_entropy:
            outputs = (out.logits, out.initial_logits)
            named["cross_entropy"] = weight.cross_entropy * sum(losses.cross_entropy(x, truth) for x in outputs)
        if weight.ccds != "none":
            named["ccds"] = weight.ccds_weight * self.ccds(out, clip, masks)
        return named

    def ccds(self, out, clip, masks):
        """CCDS over the distinct categories of the whole batch, also where several processes share it."""
        filters = gather_with_gradient(torch.stack([layer.clip_inter for layer in out.layers]), dim=1)
        first = rank() * len(masks)
        if self.cfg.loss.ccds == "paper":
            return losses.ccds_loss(filters, clip.reduced, masks, first)
        area = mean_over_ranks(masks.sum())
        return losses.ccds_loss_released(filters, clip.reduced, masks, first, area)
