"""Memory of one object (Section 3.5): at most K_max frames with their features, labels and weights.

Masks are encoded once, when they enter. How much a frame counts follows from when it entered.
"""
import torch


class Memory:
    """size: K_max; rate: 1 - eta; first_share: least weight of the first frame, 0 lets it be replaced like any other

    weights: temporal weights of all slots, 0 where there is no frame yet
    """

    def __init__(self, *, size=32, rate=0.1, first_share=0.25, first_update="decayed", weighting="released"):
        self.rate, self.first_share, self.half = rate, first_share, first_update == "half"
        self.paper = weighting == "paper"
        self.weights, self.entered, self.newest, self.stored = [0.0] * size, [0] * size, None, 0
        self.parts = None

    def insert(self, x, label, weight, scores, *more):
        """A frame enters: x (1, C, h, w), its mask's label and weight, its x * tau, (1, D, h, w) each  ->  its slot

        more: (1, ...) each, what else a method keeps of a frame
        """
        slot, entering = self.free_slot(), (x, label, weight, scores, *more)
        if self.parts is None:
            self.parts = [one.new_empty(len(self.weights), *one.shape) for one in entering]
        for part, one in zip(self.parts, entering, strict=True):
            part[slot] = one
        return slot

    def free_slot(self):
        """The slot of the next frame, whose temporal weight is set with it."""
        if self.stored < len(self.weights):
            slot = self.stored
        else:
            order = self.entered if self.paper else self.weights
            kept = 1 if self.first_share > 0 and len(self.weights) > 1 else 0
            slot = min(range(kept, len(order)), key=order.__getitem__)
        if self.paper:
            self.decay(slot)
        else:
            self.reweight(slot)
        self.newest, self.stored = slot, min(self.stored + 1, len(self.weights))
        return slot

    def decay(self, slot):
        """The paper's: eta to the power of a frame's age, with the sum 1, as a factor of the loss."""
        self.entered[slot] = max(self.entered) + 1
        latest = max(self.entered)
        weights = [(1 - self.rate) ** (latest - one) if one else 0.0 for one in self.entered]
        self.weights = [one / sum(weights) for one in weights]

    def reweight(self, slot):
        """The released: the sum is 1 until the first frame is lifted to first_share; a factor of the residual."""
        weights = list(self.weights)
        if self.stored == 0:
            weights[slot] = 1.0
        elif self.stored == 1 and self.newest == 0 and slot == 1:
            if self.half:
                weights[slot] = 1.0
            else:
                weights[0], weights[slot] = weights[0] / (1 - self.rate), self.rate
        else:
            weights[slot] = weights[self.newest] / (1 - self.rate)
        total = sum(weights)
        weights = [one / total for one in weights]
        if self.stored and weights[0] < self.first_share:
            share = self.first_share + sum(weights[1:])
            weights = [self.first_share, *(one / share for one in weights[1:])]
        self.weights = weights

    def samples(self):
        """->  x (T, 1, C, h, w), labels, weights and scores (T, 1, D, h, w), as learn takes them"""
        x, label, weight, scores = (part[:self.stored] for part in self.parts[:4])
        temporal = torch.tensor(self.weights[:self.stored], dtype=torch.float64)
        factor = (temporal.sqrt() if self.paper else temporal).to(weight)
        return x, label, weight * factor.view(-1, 1, 1, 1, 1), scores

    def learned(self, scores):
        """The scores of all frames after the filter has changed: they stay x * tau without being computed again."""
        self.parts[3][:self.stored] = scores
