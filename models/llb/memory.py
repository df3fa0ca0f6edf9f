"""Memory of one object: LWL's, with what the matching compares and carries over."""
import torch
import torch.nn.functional as F

from models.llb.matching import SCALE, instance_norm, tokens
from models.lwl.memory import Memory as LWLMemory


class Memory(LWLMemory):
    """key (1, T h w, K), value (T, 1, D, h, w): what the next frames read, as it is until a frame enters

    For the self-attention of all frames each place keeps its softmax's sum over values, and over ones, the last
    channel: the denominator. A frame that enters is added to the sums and one that leaves taken off, which costs a
    fraction of computing them again. Nothing cancels: a place's weight for itself is 1, and no other is larger.
    """

    def __init__(self, matching, **settings):
        super().__init__(**settings)
        self.matching, self.frames, self.own, self.sums = matching, None, None, None

    def insert(self, x, label, weight, scores, value, z):
        """As LWL's; value (1, D, h, w), z (1, C, h, w): features that are matched"""
        full = self.stored == len(self.weights)
        slot = super().insert(x, label, weight, scores, value)
        with torch.autocast(z.device.type, enabled=False):
            z = z.float() if z.itemsize == 2 else z
            self.exchange(slot, F.pad(tokens(z[None])[0], (0, 1), value=1.0), self.matching.own_key(z[None])[0], full)
            self.key = self.matching.key(self.encoded(z.shape[-2:]))
        return slot

    def exchange(self, slot, frame, own, full):
        """frame (h w, C + 1), own key (h w, K) into a slot, and the sums of all after it"""
        if self.sums is None:
            self.frames, self.sums, self.own = (one.new_empty(len(self.weights), *one.shape)
                                                for one in (frame, frame, own))
        if full:
            self.sums -= self.weights_for(slot) @ self.frames[slot]
        self.frames[slot], self.own[slot] = frame, own
        weights = self.weights_for(slot)                                           # (T, h w, h w)
        self.sums[:self.stored] += weights @ frame
        self.sums[slot] = weights.flatten(0, 1).T @ self.frames[:self.stored].flatten(0, 1)

    def weights_for(self, slot):
        """How all places attend to those of a slot, (T, h w, h w); the same the other way round"""
        return (SCALE * (self.own[:self.stored] @ self.own[slot].T - 1)).exp()

    def encoded(self, size):
        """->  (T, 1, C, h, w), as Matching.encode"""
        x, sums = (one[:self.stored, None, :, :] for one in (self.frames, self.sums))
        return instance_norm((x[..., :-1] + sums[..., :-1] / sums[..., -1:]).transpose(2, 3).unflatten(3, size))

    @property
    def value(self):
        return self.parts[4][:self.stored]
