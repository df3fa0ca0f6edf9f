"""The released manner of running the network, with our weights: what benchmark.py measures the fast path against.

In: a VIPMT of ours. Out: the same numbers, the slow way. Every clip encodes its supports, its memory frames (kept as
images) and its own frames again; frozen normalisation is a map of its own after each convolution; similarities are
full products in loops over pairs of frames; every attention forms its keys and values; every concatenation is built.
The code follows the description of the release, top to bottom as in Figure 2, and obeys the model's own switches. It
stands on its own: nothing of the fast path but its weights is called, so that the two can be tested on each other.
"""
import copy
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from models.backbone import DilatedResNet
from models.method import Prediction
from models.vipmt import losses
from models.vipmt.layers import sine_position
from models.vipmt.train_step import TrainStep

STRIDE, EPS, MASKED = 8, 1e-7, -10000.0
GRID = (8, 14)             # of IoUNet's first linear layer


@dataclass
class Output:
    """What the network says about a clip; the names are those that TrainStep.losses reads.

    logits, initial_logits (B, T, 2, H, W), the latter in training only; low_logits (B, T, 2, h, w);
    layers: one namespace per iteration with clip_inter (B, C), clip_logits and frame_logits (B, T, h, w),
    support_logits (B, K + M, h, w); reduced (B, T, C, h, w): backbone features of CCDS.
    """
    logits: torch.Tensor
    low_logits: torch.Tensor
    initial_logits: torch.Tensor | None
    layers: list
    reduced: torch.Tensor

    @property
    def masks(self):
        """(B, T, H, W) bool; a tie is background"""
        return self.logits.argmax(2) > 0


# -- building blocks --------------------------------------------------------------------------------------------------

def convolve(conv, x, bias=None):
    """conv without its own bias: x (N, C, h, w)"""
    return F.conv2d(x, conv.weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def frozen_norm(norm, x):
    """The affine map of fixed statistics, a pass over the whole map: x (N, C, h, w)"""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


def bottleneck(block, x):
    """x (N, C, h, w)"""
    y = frozen_norm(block.bn1, convolve(block.conv1, x)).relu()
    y = frozen_norm(block.bn2, convolve(block.conv2, y)).relu()
    y = frozen_norm(block.bn3, convolve(block.conv3, y))
    if block.downsample is not None:
        x = frozen_norm(block.downsample[1], convolve(block.downsample[0], x))
    return (y + x).relu()


def stage_maps(body, x):
    """frames (N, 3, H, W)  ->  list of the stages' maps; the small encoder of ours has nothing to unfold"""
    resnet = isinstance(body, DilatedResNet)
    x, levels = resnet_stem(body, x) if resnet else body.stem(x), []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        stage = getattr(body, name, None)               # none where the backbone ends at c4
        if stage is not None:
            for block in stage if resnet else [stage]:
                x = bottleneck(block, x) if resnet else block(x)
            levels.append(x)
    return levels


def resnet_stem(body, x):
    convolutions = [(body.conv1, body.bn1)]
    if body.deep:
        convolutions += [(body.conv2, body.bn2), (body.conv3, body.bn3)]
    for conv, norm in convolutions:
        x = frozen_norm(norm, convolve(conv, x)).relu()
    return F.max_pool2d(x, 3, stride=2, padding=1)


def feed_forward(ffn, x):
    hidden = ffn.dropout(F.linear(x, ffn.expand.weight).relu())
    return x + ffn.dropout(F.linear(hidden, ffn.contract.weight))


def refine(module, message, prototype):
    """norm(message + prototype), FFN, norm: (..., C)"""
    return module.norm_out(feed_forward(module.ffn, module.norm_in(message + prototype)))


def residual_convs(module, x):
    """x (N, C, h, w)"""
    first, second = module.convs[0], module.convs[2]
    return x + convolve(second, convolve(first, x).relu()).relu()


def classify(module, x):
    """x (N, C, h, w)  ->  (N, 2, h, w)"""
    first, dropout, last = module[0], module[2], module[3]
    return convolve(last, dropout(convolve(first, x).relu())) + last.bias[:, None, None]


def fuse(module, features, vector, maps=None):
    """relu of a 1x1 convolution over the concatenation: features (N, C, h, w), vector (N, V), maps (N, E, h, w)"""
    parts = [features, vector[:, :, None, None].expand(-1, -1, *features.shape[-2:])]
    return convolve(module.conv, torch.cat(parts if maps is None else [*parts, maps], dim=1)).relu()


def upsample(module, logits, size):
    """Nearest x 8, then the learned 9x9 filter of each channel: (B, T, 2, h, w)  ->  (B, T, 2, H, W)"""
    x = F.interpolate(logits.flatten(0, 1), scale_factor=STRIDE, mode="nearest")
    x = F.conv2d(x, module.weight, padding=module.weight.shape[-1] // 2, groups=len(module.weight))
    return x[..., :size[0], :size[1]].unflatten(0, logits.shape[:2])


def to_tokens(x):
    """(B, T, C, h, w)  ->  (B, T, h w, C)"""
    return x.flatten(3).transpose(2, 3).contiguous()


def pool_channels(x, channels):
    """(B, C, h, w)  ->  (B, channels, h w), averaged along the channels"""
    return F.adaptive_avg_pool1d(x.flatten(2).transpose(1, 2), channels).transpose(1, 2)


def best_similarity(query, keys, cosine):
    """query (B, P, N), keys (B, P, N')  ->  (B, N): the largest similarity to any key, to [0, 1] over the frame"""
    similarity = keys.transpose(1, 2) @ query                                         # (B, N', N)
    if cosine:
        similarity = similarity / (keys.norm(dim=1)[:, :, None] * query.norm(dim=1)[:, None] + EPS)
    best = similarity.max(dim=1).values
    low, high = best.min(dim=1, keepdim=True).values, best.max(dim=1, keepdim=True).values
    return (best - low) / (high - low + EPS)


def patched(masks):
    """An empty mask gets its centre 2 x 2, a full one loses its corners; frame by frame: (B, S, h, w) bool"""
    masks, (h, w) = masks.clone(), masks.shape[-2:]
    for mask in masks.view(-1, h, w):
        if not mask.any():
            mask[h // 2 - 1:h // 2 + 1, w // 2 - 1:w // 2 + 1] = True
        elif mask.all():
            mask[[0, 0, -1, -1], [0, -1, 0, -1]] = False
    return masks


# -- attention --------------------------------------------------------------------------------------------------------

def attention_logits(module, prototype, tokens, mask):
    """prototype (B, C), tokens (B, N, C), mask (B, N) bool  ->  logits (B, 1, N), values (B, N, C)"""
    query, key = F.linear(prototype, module.to_q.weight)[:, None], F.linear(tokens, module.to_k.weight)
    logits = query @ key.transpose(1, 2) * prototype.shape[-1] ** -0.5
    return logits + (~mask).to(logits.dtype)[:, None] * MASKED, F.linear(tokens, module.to_v.weight)


def prototype_attention(module, prototype, sources, joint=True):
    """sources: list of (tokens (B, N, C), mask (B, N)), under one softmax if `joint`  ->  one message (B, C) of each"""
    logits, values = zip(*(attention_logits(module, prototype, *source) for source in sources), strict=True)
    if joint:
        weights = torch.cat(logits, dim=-1).softmax(-1).split([x.shape[-1] for x in logits], dim=-1)
    else:
        weights = [x.softmax(-1) for x in logits]
    reads = [module.dropout(w) @ v for w, v in zip(weights, values, strict=True)]
    return [module.dropout(F.linear(read, module.proj.weight))[:, 0] for read in reads]


def self_attention(module, x, training):
    """Eight heads, keys from the 4 x 4 reduced map: x (N, h, w, C)  ->  the same"""
    reduced = module.reduce(x.permute(0, 3, 1, 2).contiguous()).flatten(2).transpose(1, 2)
    key, value = module.kv(module.norm(reduced)).chunk(2, dim=-1)
    query, key, value = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2)
                         for t in (module.q(x.flatten(1, 2)), key, value))
    weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
    read = F.dropout(weights, module.dropout, training) @ value
    read = module.proj(read.transpose(1, 2).flatten(2))
    return F.dropout(read, module.dropout, training).view_as(x)


def update_query(module, query, prototypes, position, training):
    """QA, Eqs. 7 and 12: query (B, T, N, C), prototypes (B, T, C), position (h, w, C)  ->  (B, T, N, C)"""
    size = position.shape[:2]
    x = query.flatten(0, 1).transpose(1, 2).unflatten(2, size).contiguous()
    x = residual_convs(module.convs, fuse(module.fuse, x, prototypes.flatten(0, 1)))
    x = x.permute(0, 2, 3, 1).contiguous()                                            # (B T, h, w, C)
    x = module.norm_attention(x + module.dropout(self_attention(module.attention, x + position, training)))
    return module.norm_out(feed_forward(module.ffn, x)).view_as(query)


# -- the network ------------------------------------------------------------------------------------------------------

class ReferenceNetwork:
    """A copy of the model's weights and the released way through them; `model` is that copy."""

    def __init__(self, model):
        if model.activation.self_support or model.activation.prior_skip or model.confidence:
            raise ValueError("model.prior_channels=self_support, prior_skip and iou_net.confidence are ours: no "
                             "released way to compare with.\n  Set model.prior_channels=pooled model.prior_skip=0 "
                             "iou_net.confidence=false")
        self.model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)

    def encode(self, images):
        """images (B, T, 3, H, W)  ->  list of the backbone's levels, (B, T, C, h, w) each"""
        backbone = self.model.backbone
        frames = ((images.flatten(0, 1) - backbone.mean) / backbone.std).contiguous()
        with torch.set_grad_enabled(backbone.trained and torch.is_grad_enabled()):
            levels = stage_maps(backbone.body, frames)
            if backbone.standard:
                levels = [norm(x) for norm, x in zip(backbone.standard, levels, strict=True)]
        return [level.unflatten(0, images.shape[:2]) for level in levels]

    def __call__(self, clip, frames, masks, shots, size):
        """clip: levels of T frames; frames: those of K = `shots` supports, then M memory frames; masks (B, K + M, H, W)

        size: (H, W) of the input  ->  Output
        """
        model, masks = self.model, masks[..., ::STRIDE, ::STRIDE] > 0
        sources = masks.shape[1] if model.memory_in_prior else shots
        guide, prototypes = self.guidance(frames, masks)
        reduced = self.reduce(model.activation.reduce_query, clip)
        prior = self.prior(clip[-1], frames[-1][:, :sources], masks[:, :sources])
        prototype, maps = prototypes[:, :sources].mean(1), [model.activation.prior_scale * prior]
        if model.activation.match:
            maps.append(F.cosine_similarity(reduced, prototype[:, None, :, None, None], dim=2))
        merged = fuse(model.activation.merge_query, reduced.flatten(0, 1),
                      prototype.repeat_interleave(reduced.shape[1], dim=0), torch.stack(maps, dim=2).flatten(0, 1))
        initial = classify(model.activation.initial_classifier,
                           residual_convs(model.activation.initial_refine, merged)).unflatten(0, prior.shape[:2])
        query, layers = self.iterate(merged.view_as(reduced), initial, guide, masks, shots)
        x = convolve(model.final_reduce, query.flatten(0, 1)).relu()
        low = classify(model.final_classifier, residual_convs(model.final_refine, x)).unflatten(0, prior.shape[:2])
        return Output(logits=upsample(model.upsample_final, low, size), low_logits=low,
                      initial_logits=upsample(model.upsample_initial, initial, size) if model.training else None,
                      layers=layers, reduced=reduced)

    def reduce(self, conv, levels):
        """levels  ->  (B, T, C, h, w)"""
        x = torch.cat([levels[1], levels[2]], dim=2)
        return self.model.activation.feature_dropout(convolve(conv, x.flatten(0, 1)).relu()).unflatten(0, x.shape[:2])

    def guidance(self, levels, masks):
        """Support and memory frames, masks (B, S, h, w)  ->  tokens (B, S, N, C), prototypes (B, S, C)"""
        reduced = self.reduce(self.model.activation.reduce_support, levels)
        weight = masks[:, :, None].to(reduced.dtype)
        prototypes = (reduced * weight).sum((-2, -1)) / (weight.sum((-2, -1)) + 0.0005)
        merged = fuse(self.model.activation.merge_support, reduced.flatten(0, 1), prototypes.flatten(0, 1))
        return to_tokens(merged.view_as(reduced)), prototypes

    @torch.no_grad()
    def prior(self, high, support, masks):
        """high (B, T, P, h, w), support (B, S, P, h, w), masks (B, S, h, w)  ->  (B, T, h, w)"""
        channels, frames, priors = self.model.activation.prior_channels, [], []
        keys = [pool_channels(support[:, s] * masks[:, s, None], channels) for s in range(support.shape[1])]
        for t in range(high.shape[1]):
            query = pool_channels(high[:, t], channels)
            if not self.model.activation.cumulative_prior:
                frames = []            # the release never empties this list: frame t averages frames 0..t
            frames += [best_similarity(query, key, cosine=True) for key in keys]
            priors.append(torch.stack(frames).mean(0))
        return torch.stack(priors, dim=1).unflatten(-1, high.shape[-2:])

    def iterate(self, query, initial, guide, masks, shots):
        """All iterations of Figure 2: query (B, T, C, h, w)  ->  the last one's, a list of what each computed"""
        model, (c, h, w) = self.model, query.shape[-3:]
        position = sine_position(h, w, c, model.level_embed) + model.level_embed
        masks = patched(masks) if model.activation.patch_masks else masks
        parts = [slice(shots)] if guide.shape[1] == shots else [slice(shots), slice(shots, None)]
        sources = [(guide[:, part].flatten(1, 2), masks[:, part].flatten(1)) for part in parts]
        prototype, tokens = model.prototype.expand(len(query), -1), to_tokens(query)
        mask, outputs = (initial.argmax(2) > 0).flatten(2), []
        for layer in model.layers:
            out = self.layer(layer, prototype, tokens, mask, sources)
            support_logits = torch.einsum("bc,bsnc->bsn", out.clip_inter, guide).unflatten(-1, (h, w))
            tokens = update_query(layer.query_activation, tokens, out.prototypes, position, model.training)
            outputs.append(SimpleNamespace(
                clip_inter=out.clip_inter, clip_logits=out.clip_logits.unflatten(-1, (h, w)),
                frame_logits=None if out.frame_logits is None else out.frame_logits.unflatten(-1, (h, w)),
                support_logits=support_logits))
            prototype, mask = out.prototype, out.mask
        return tokens.transpose(2, 3).unflatten(-1, (h, w)).contiguous(), outputs

    def layer(self, layer, prototype, tokens, mask, sources):
        """One iteration up to the frame prototypes: prototype (B, C), tokens (B, T, N, C), mask (B, T, N) bool"""
        heads = self.model.mask_heads
        messages = prototype_attention(layer.support_attention, prototype, sources, layer.joint)
        guides = [refine(layer.support_refine, message, prototype) for message in messages]
        message, = prototype_attention(layer.clip_attention, prototype, [(tokens.flatten(1, 2), mask.flatten(1))])
        inter = refine(layer.clip_refine, message, prototype) + guides[0] + prototype + sum(guides[1:])
        inter = feed_forward(heads.clip.embed, heads.clip.norm(inter))
        clip_logits = torch.einsum("bc,btnc->btn", inter, tokens)
        mask, frame_logits = clip_logits.detach() >= 0, None
        prototypes = inter[:, None].expand(-1, tokens.shape[1], -1)
        if layer.frame_prototype:
            start = prototypes.flatten(0, 1)
            read, = prototype_attention(layer.frame_attention, start, [(tokens.flatten(0, 1), mask.flatten(0, 1))])
            frames = refine(layer.frame_refine, read, start) + start
            prototypes = feed_forward(heads.frame.embed, heads.frame.norm(frames)).view_as(prototypes)
            frame_logits = torch.einsum("btc,btnc->btn", prototypes, tokens)
            mask = frame_logits.detach() >= 0
        return SimpleNamespace(prototype=inter if layer.one_way else prototypes.mean(1), prototypes=prototypes,
                               mask=mask, clip_inter=inter, clip_logits=clip_logits, frame_logits=frame_logits)

    # -- IoU ----------------------------------------------------------------------------------------------------------

    def iou_logits(self, out, clip, frames, masks, shots):
        """Arguments of __call__ and what it returned  ->  (B, T), before the sigmoid"""
        masks = masks[..., ::STRIDE, ::STRIDE] > 0
        sources = masks.shape[1] if self.model.memory_in_prior else shots
        mask = out.low_logits.argmax(2) > 0
        if self.model.use_maps:
            maps = self.similarity_maps(clip[-1], mask, frames[-1][:, :sources], masks[:, :sources])
        else:
            maps = mask[:, :, None].to(out.low_logits.dtype)
        levels = [level.detach().flatten(0, 1) for level in clip]
        return self.score(levels, maps.flatten(0, 1)).view(mask.shape[:2])

    @torch.no_grad()
    def similarity_maps(self, high, mask, support, masks):
        """Eqs. 15-16: high (B, T, P, h, w), mask (B, T, h, w), support (B, S, P, h, w)  ->  (B, T, 5, h, w)"""
        cosine, channels = self.model.cosine_maps, self.model.activation.prior_channels

        def features(x):
            return pool_channels(x, channels) if cosine else x.flatten(2)

        keys = torch.cat([features(support[:, s] * masks[:, s, None]) for s in range(support.shape[1])], dim=2)
        maps = []
        for t in range(high.shape[1]):
            inside, outside = (features(high[:, t] * part[:, None]) for part in (mask[:, t], ~mask[:, t]))
            pairs = ((outside, keys), (inside, keys), (inside, outside), (outside, inside))
            scores = [best_similarity(query, key, cosine) for query, key in pairs]
            maps.append(torch.stack([mask[:, t].flatten(1).to(high.dtype), *scores], dim=1))
        return torch.stack(maps, dim=1).unflatten(-1, high.shape[-2:])

    def score(self, levels, maps):
        """IoUNet: levels (N, C, h, w), maps (N, 5, h, w)  ->  logits (N, 1)"""
        net = self.model.iou_net
        c2 = convolve(net.downsample, levels[0], net.downsample.bias).relu()
        x = convolve(net.fuse1, torch.cat([c2, *levels[1:]], dim=1), net.fuse1.bias).relu()
        x = torch.cat([convolve(net.fuse2, x, net.fuse2.bias).relu(), maps], dim=1)
        for conv in (net.conv1, net.conv2, net.conv3, net.conv4):
            x = convolve(conv, x, conv.bias).relu()
        return net.fc2(net.fc1(F.adaptive_avg_pool2d(x, GRID).flatten(1)).relu())


# -- a test, clip by clip ---------------------------------------------------------------------------------------------

class ReferenceSegmenter:
    """As models.vipmt.Segmenter: built per video, called with one clip after the other.

    network: a ReferenceNetwork, or a VIPMT, which is then copied into one; the rest as there
    """

    def __init__(self, network, reference, cfg, *, rng, amp=None):
        self.network = network if isinstance(network, ReferenceNetwork) else ReferenceNetwork(network)
        self.device = self.network.model.prototype.device
        self.supports = reference.images.to(self.device), reference.masks.to(self.device)
        self.memory, self.rng, self.amp = cfg.memory, rng, amp
        self.images, self.masks = [], []        # every reliable frame so far: they are never given back

    def prepare(self, clip):
        """Nothing: every clip is computed from its images."""

    @torch.no_grad()
    def __call__(self, prepared, clip):
        """Clip  ->  Prediction"""
        images, truth = clip.images.to(self.device), self.memory.select == "ground_truth"
        with torch.autocast(self.device.type, self.amp) if self.amp else nullcontext():
            query, (frames, masks) = self.network.encode(images[None]), self.drawn()
            levels = self.network.encode(frames[None])
            shots = len(self.supports[0])
            out = self.network(query, levels, masks[None], shots, images.shape[-2:])
            values = {"remembered": torch.zeros(len(images), dtype=torch.bool)}
            if self.network.model.iou_net is not None:
                ious = self.network.iou_logits(out, query, levels, masks[None], shots).sigmoid()[0].float().cpu()
                values = {"pred_iou": ious, "remembered": (ious >= self.memory.min_iou) | truth}
        for t in values["remembered"].nonzero().flatten().tolist():
            self.images.append(images[t])
            self.masks.append((clip.masks.to(self.device) if truth else out.masks)[0, t])
        return Prediction((out.logits[:, :, 1] - out.logits[:, :, 0]).float().cpu(), values)

    def drawn(self):
        """Images and masks of the supports and of up to T_m random memory frames, in their order."""
        count, length = len(self.images), self.memory.length
        chosen = range(count)
        if count > length:
            chosen = sorted(self.rng.choice(count, length, replace=False).tolist()) if length else []
        images, masks = ([kept[i] for i in chosen] for kept in (self.images, self.masks))
        return (torch.cat([self.supports[0], *(x[None] for x in images)]),
                torch.cat([self.supports[1], *(x[None] for x in masks)]))


# -- training ---------------------------------------------------------------------------------------------------------

class ReferenceTrainStep:
    """One step of training: the three clips one after the other, and the backward pass of the sum of their losses.

    The first clip's forward encodes the supports and its own frames; the later ones encode their frames and take the
    stored levels, all four, of supports and memory frames; what is made of these levels is made again for every clip.
    """

    def __init__(self, model, cfg):
        if cfg.train.memory_masks != "ground_truth":
            raise ValueError(f"train.memory_masks: the reference mode knows ground_truth only, not "
                             f"{cfg.train.memory_masks}.\n  Set train.memory_masks=ground_truth.")
        self.network = ReferenceNetwork(model)
        self.step = TrainStep(self.network.model, cfg)

    def __call__(self, batch):
        """Batch  ->  list of {name: weighted loss}, one per clip; their sum is what the release minimises"""
        return list(self.clips(batch))

    def clips(self, batch):
        """The same, one after the other."""
        length, shots = batch.clip_length, batch.support_images.shape[1]
        supports, stored, index = self.network.encode(batch.support_images), [], self.step.memory_index(batch)
        for number in range(batch.query_masks.shape[1] // length):
            span = slice(number * length, (number + 1) * length)
            clip, truth = self.network.encode(batch.query_images[:, span]), batch.query_masks[:, span]
            frames, masks = supports, batch.support_masks
            if stored and index:
                memory = self.remembered(stored, index[number - 1])
                frames = [torch.cat(pair, dim=1) for pair in zip(supports, memory, strict=True)]
                masks = torch.cat([masks, pick(batch.query_masks, index[number - 1])], dim=1)
            yield self.losses(clip, frames, masks, shots, truth)
            stored.append([level.detach() for level in clip])

    def remembered(self, stored, index):
        """The levels of earlier clips at the positions (B, M) that the sampler drew."""
        return [pick(torch.cat(level, dim=1), index) for level in zip(*stored, strict=True)]

    def losses(self, clip, frames, masks, shots, truth):
        """Arguments of the network, truth (B, T, H, W)  ->  {name: weighted loss}"""
        out = self.network(clip, frames, masks, shots, truth.shape[-2:])
        named = self.step.losses(out, out, truth, masks[..., ::STRIDE, ::STRIDE] > 0)
        if self.step.joint_iou:
            logits = self.network.iou_logits(out, clip, frames, masks, shots)
            true_iou = losses.mask_iou(out.masks, truth)
            named["iou_net"] = self.step.cfg.loss.iou_weight * self.step.iou_loss(logits, true_iou)
        return named

    def backward(self, batch):
        """One step's gradients into the copy's parameters  ->  the total loss

        Clip by clip where the backbone is frozen: the gradients are the same, and one graph of all three clips does
        not fit into 22 GB at full size.
        """
        if self.network.model.backbone.trained:
            totals = [sum(sum(named.values()) for named in self(batch))]
        else:
            totals = (sum(named.values()) for named in self.clips(batch))
        losses = []
        for total in totals:
            total.backward()
            losses.append(total.detach())
            del total
        return sum(losses)


def pick(x, index):
    """x (B, T, ...), index (B, M)  ->  (B, M, ...)"""
    return x[torch.arange(len(index), device=index.device)[:, None], index]
