"""The segmentation loss of Eq. 5: Lovasz-softmax [2] of the one class that is object."""
import torch


def lovasz_loss(logits, masks):
    """Lovasz extension of the Jaccard loss over all pixels of all masks together, logits and masks of any same shape

    ->  scalar; without any object it is the largest probability. In float32 under mixed precision.
    """
    logits = logits.float() if logits.dtype in (torch.half, torch.bfloat16) else logits
    probs, truth = logits.flatten().sigmoid(), masks.flatten().to(logits.dtype)
    errors, order = (truth - probs).abs().sort(descending=True)
    truth = truth[order]
    total = truth.sum()
    jaccard = 1 - (total - truth.cumsum(0)) / (total + (1 - truth).cumsum(0))
    return errors @ torch.diff(jaccard, prepend=jaccard.new_zeros(1))
