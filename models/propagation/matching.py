"""Our own propagator: labels follow matches between the encoder's features.

The usual test of space-time correspondence (Jabri et al. 2020, Caron et al. 2021): every position of a frame looks for
the positions of earlier frames that resemble it most and takes over the mean of their labels. The first frame, whose
mask is the model's, stays in context and may be matched anywhere; the last n frames only near the same place. Nothing
is trained, and labels stay soft from frame to frame.
"""
from collections import deque

import torch
import torch.nn.functional as F

from models.propagation.config import Matching
from models.vipmt.reference_frames import STRIDE

SCORES = 2 ** 24      # at most this many cosines at a time, 64 MB of float32


class FeatureMatching:
    """level: of models.backbone.Features; frames: n; the rest as in follow. One object per video."""

    def __init__(self, *, level, frames, top_k, temperature, radius):
        self.level = level
        self.rule = {"top_k": top_k, "temperature": temperature, "radius": radius}
        self.recent = deque(maxlen=frames)            # pairs as self.first, the oldest leaves
        self.first = self.size = None                 # (features (C, h, w), labels (h, w)), (H, W)

    @classmethod
    def of_config(cls, cfg, model, device):
        """The factory of `propagation.plug: matching`"""
        return cls(**{key: cfg.propagation[key] for key in Matching.__struct_fields__})

    def encode(self, images, features):
        """->  unit vectors (T, C, h, w), float32 or wider"""
        maps = getattr(features(), self.level)[0]
        maps = maps if maps.dtype == torch.float64 else maps.float()
        return F.normalize(maps, dim=1)

    def begin(self, frame, mask):
        """frame (C, h, w), unit vectors; mask (H, W) bool"""
        self.size = mask.shape
        self.first = (frame, to_labels(mask.to(frame.dtype)))
        self.recent.clear()

    def propagate(self, frames):
        """frames (T, C, h, w)  ->  margins (T, H, W) in [-1, 1]: a label of one half is the border"""
        return 2 * to_pixels(torch.stack([self.step(frame) for frame in frames]), self.size) - 1

    def step(self, frame):
        """The next frame (C, h, w)  ->  its labels (h, w)"""
        features, labels = (torch.stack(column) for column in zip(self.first, *self.recent, strict=True))
        found = follow(frame, features, labels, **self.rule)
        self.recent.append((frame, found))
        return found


def to_labels(mask):
    """The share of object around the centre of each position: mask (H, W)  ->  (h, w)

    The encoder's position (i, j) sees the image around the pixel (8 i, 8 j), a corner of the block of pixels that it
    covers. Labels of whole blocks, averaged over similar positions, would move by half a block to the lower right.
    """
    return F.avg_pool2d(mask[None], STRIDE + 1, STRIDE, padding=STRIDE // 2, count_include_pad=False)[0]


def to_pixels(labels, size):
    """Bilinear between the centres (8 i, 8 j), constant beyond the last ones: (T, h, w)  ->  (T, H, W)"""
    reach = [STRIDE * (n - 1) + 1 for n in labels.shape[1:]]
    pixels = F.interpolate(labels[:, None], size=reach, mode="bilinear", align_corners=True)
    return F.pad(pixels, (0, size[1] - reach[1], 0, size[0] - reach[0]), mode="replicate")[:, 0]


def follow(frame, context, labels, *, top_k, temperature, radius):
    """Labels of a frame from its best matches in the context.

    frame (C, h, w), context (M, C, h, w), unit vectors; labels (M, h, w)  ->  (h, w)

    top_k: how many matches are averaged, weighted by the softmax of cosine / temperature; radius: how many rows and
    columns a match in context[1:] may be away; context[0] is matched anywhere.
    """
    h, w = frame.shape[1:]
    keys, labels = context.flatten(2).transpose(0, 1).flatten(1), labels.flatten()             # (C, M h w), (M h w)
    rows, columns = (x.flatten() for x in torch.meshgrid(*(torch.arange(n, device=frame.device) for n in (h, w)),
                                                         indexing="ij"))
    found = []
    for part in torch.arange(h * w, device=frame.device).split(max(1, SCORES // keys.shape[1])):
        cosines = (frame.flatten(1)[:, part].t() @ keys).unflatten(1, (-1, h * w))             # (n, M, h w)
        away = torch.maximum((rows[part, None] - rows).abs(), (columns[part, None] - columns).abs())
        cosines[:, 1:].masked_fill_((away > radius)[:, None], -torch.inf)
        best, index = cosines.flatten(1).topk(min(top_k, h * w), dim=1)
        found.append(((best / temperature).softmax(dim=1) * labels[index]).sum(dim=1))
    return torch.cat(found).view(h, w)
