"""The loss that keeps the two target encodings apart; that of the masks is LWL's."""
import torch.nn.functional as F


def cosine_loss(a, b):
    """Encodings (T, B, D, h, w)  ->  scalar: the cosine over all channels and places, mean over frames and objects

    At least 0 where both come from a ReLU: 0 where no channel of a place is shared. In float32 under mixed precision.
    """
    a, b = (one.float() if one.itemsize == 2 else one for one in (a, b))
    return F.cosine_similarity(a.flatten(2), b.flatten(2), dim=-1, eps=1e-12).mean()
