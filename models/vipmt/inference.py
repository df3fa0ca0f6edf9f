"""Inference (Section 4.3): a video clip by clip; segment, judge, remember, go on."""
from dataclasses import dataclass

import torch

from models.vipmt.memory import MemoryBank, reliable_frames


@dataclass
class VideoSegmentation:
    """margins (T, H, W): object minus background logit; ious (T,): predicted, None without IoUNet;
    remembered (T,) bool: frames that entered memory."""
    margins: torch.Tensor
    ious: torch.Tensor | None
    remembered: torch.Tensor

    @property
    def masks(self):
        """(T, H, W) bool; a tie is background"""
        return self.margins > 0


@torch.no_grad()
def segment_video(model, episode, *, memory, clip_length, rng, memory_masks=None):
    """Every frame of the episode's query video; the episode's query masks are never looked at.

    memory: the config's section (length, min_iou); rng: numpy Generator of the memory draws;
    memory_masks (T, H, W) bool: memory keeps every frame with these masks instead of the predicted ones (the
    release's validation, and an upper bound)  ->  VideoSegmentation
    """
    device = model.prototype.device
    support = model.guide(model.encode(episode.support_images[None].to(device)), episode.support_masks[None].to(device))
    bank, parts, start = MemoryBank(memory.length), [], 0
    for images in episode.query_images.split(clip_length):
        clip = model.encode(images[None].to(device))
        drawn = bank.draw(rng)
        history = model.guide_memory(*drawn) if drawn else None
        out = model(clip, support, history, size=images.shape[-2:])
        iou, reliable, masks = None, torch.zeros(len(images), dtype=torch.bool), out.masks
        if model.iou_net is not None:
            iou = model.predict_iou(out, clip, support, history)[0].float().cpu()
            reliable = reliable_frames(iou, memory.min_iou)
            if memory_masks is not None:
                masks, reliable = memory_masks[None, start:start + len(images)].to(device), torch.ones_like(reliable)
            bank.remember(model.memory_features(clip), masks, reliable)
        parts.append((out.margins[0].float().cpu(), iou, reliable))
        start += len(images)
    margins, ious, remembered = zip(*parts, strict=True)
    return VideoSegmentation(torch.cat(margins), None if ious[0] is None else torch.cat(ious), torch.cat(remembered))
