"""Inference: LWL's, with a second branch; every few frames one enters the memory of both."""
from functools import partial

import torch

from models.llb.memory import Memory
from models.lwl.crops import crop_mask
from models.lwl.inference import Segmenter as LWLSegmenter


class Segmenter(LWLSegmenter):
    """Follows the objects of one video. A mask that is given again starts its object anew.

    model: LLB; reference: FirstMasks; cfg: learner, memory and tracking are read, data.size is the window's
    """

    def new_memory(self):
        return super().new_memory(partial(Memory, self.model.matching))

    def look(self, crops):
        """Crops (N, 3, H, W)  ->  backbone levels; target features, features to match, queries, the crops"""
        levels, x = self.model.encode(crops)
        matching, z = self.model.matching, self.model.matching.conv(levels[2])
        return levels, (x, z, matching.key(matching.encode(z[None])), crops)           # each frame by itself

    def segment(self, targets, seen, levels):
        """B targets, what is seen of each one's window and its levels  ->  logits (B, h, w)"""
        x, _, query, _ = seen
        found = torch.cat([self.model.matching.read(one[None], target.memory.key, target.memory.value)
                           for one, target in zip(query, targets, strict=True)])
        return self.model.segment(torch.cat([one.tau for one in targets]), x, levels, self.out, found)

    def update(self, target):
        """From the third frame on, in every interval-th: the last one enters the memory, and the filter learns."""
        target.frame += 1
        if target.frame >= 3 and target.frame % self.cfg.memory.interval == 0:
            self.remember(target, target.seen, crop_mask(target.prob, target.window, self.out))
            self.learn(target, self.cfg.learner.update_steps)

    def encode_mask(self, seen, mask):
        """The mask (h, w) of what was seen  ->  E2, W, E1 (1, D, h, w), features to match (1, C, h, w)"""
        _, z, _, crop = seen
        return [*(one[0] for one in self.model.label_encoder(crop[None], mask[None, None])), z]
