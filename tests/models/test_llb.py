"""LLB against slow loops and hand-computed cases; its tracker on a small network that nobody has trained."""
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from easydict import EasyDict
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dataloaders.episode import Clip
from models.backbone import Pyramid
from models.llb.build import build, load_vitae, parameter_groups
from models.llb.config import Config
from models.llb.fusion import Gate
from models.llb.inference import Segmenter
from models.llb.label_encoder import LabelEncoder
from models.llb.losses import cosine_loss
from models.llb.matching import Matching, instance_norm
from models.llb.memory import Memory
from models.llb.model import LLB
from models.llb.train_step import TrainStep
from models.llb.vitae import Performer, ViTAE
from models.lwl.learner import apply_target_model
from tools.workshop.parity.llb import settings
from utils.config import load_config

SIZE = (64, 96)


def small_model(**changes):
    torch.manual_seed(0)
    return LLB(Pyramid(name="resnet18"), **({"feature_dim": 8, "key_dim": 6, "filters": 4, "widths": (8, 8, 8, 8),
                                             "label_encoder": "cnn"} | changes))


# -- parts ------------------------------------------------------------------------------------------------------------

def test_matching_equals_a_loop_over_places(exact):
    matching, (t, b, c, h, w) = Matching(3, dim=5, key_dim=4), (3, 2, 5, 2, 3)
    z, value, query = torch.randn(t, b, c, h, w), torch.rand(t, b, 2, h, w), torch.randn(1, b, c, h, w)
    encoded = matching.encode(z)
    found = matching.read(matching.key(matching.encode(query)), matching.key(encoded), value)
    for o in range(b):
        places = [z[f, o, :, i, j] for f in range(t) for i in range(h) for j in range(w)]
        keys = [F.normalize(matching.self_key(one), dim=0) for one in places]
        added = torch.stack([one + sum(s * v for s, v in zip(torch.stack([30 * key @ k for k in keys]).softmax(0),
                                                             places, strict=True))
                             for one, key in zip(places, keys, strict=True)])
        for f in range(t):
            frame = added[f * h * w:(f + 1) * h * w]
            normal = (frame - frame.mean(0)) / (frame.var(0, correction=0) + 1e-5).sqrt()
            torch.testing.assert_close(encoded[f, o].flatten(1).T, normal)
        keys = torch.stack([F.normalize(matching.cross_key(encoded[f, o, :, i, j]), dim=0)
                            for f in range(t) for i in range(h) for j in range(w)])
        own = F.normalize(matching.cross_key(matching.encode(query)[0, o, :, 1, 2]), dim=0)
        values = value[:, o].movedim(1, -1).reshape(-1, 2)
        torch.testing.assert_close(found[o, :, 1, 2], (30 * keys @ own).softmax(0) @ values)


def test_gradient_of_the_norm_is_right_where_memory_is_not_contiguous(double):
    """PyTorch's own instance norm fails this on the CPU with more than one sequence."""
    x = torch.randn(2, 3, 4, 2, 5, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: instance_norm(x).permute(1, 0, 3, 4, 2).flatten(1, 3), x)
    matching = Matching(3, dim=4, key_dim=3)
    assert torch.autograd.gradcheck(lambda z: matching.key(matching.encode(z)),
                                    torch.randn(2, 2, 4, 2, 2, requires_grad=True))


def inserted(memory, z, i):
    part = torch.zeros(1, 2, *z.shape[-2:], dtype=z.dtype)
    return memory.insert(z[None], part, part, part, part + i, z[None])


def test_memory_kept_up_frame_by_frame_equals_one_encoded_whole(exact):
    matching, z = Matching(3, dim=6, key_dim=4), torch.randn(9, 6, 3, 4)
    memory, slots = Memory(matching, size=4), {}
    for i, one in enumerate(z):
        slots[inserted(memory, one, i)] = i
        stored = z[[slots[s] for s in sorted(slots)]][:, None]
        torch.testing.assert_close(memory.encoded((3, 4)), matching.encode(stored), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(memory.key, matching.key(matching.encode(stored)))
    assert memory.value.shape == (4, 1, 2, 3, 4) and set(slots) == {0, 1, 2, 3} and slots[0] == 0


def test_rounding_does_not_pile_up_over_a_long_video():
    torch.manual_seed(0)
    with torch.no_grad():
        matching, z = Matching(3, dim=6, key_dim=4), torch.randn(300, 6, 4, 5)
        memory, slots = Memory(matching, size=5), {}
        for i, one in enumerate(z):
            slots[inserted(memory, one, i)] = i
        whole = matching.encode(z[[slots[s] for s in range(5)]][:, None])
        assert (memory.encoded((4, 5)) - whole).abs().max() < 1e-4


def test_cosine_loss_is_the_mean_over_frames_and_objects(exact):
    a, b = torch.rand(2, 3, 4, 2, 2), torch.rand(2, 3, 4, 2, 2)
    each = [a[t, o].flatten() @ b[t, o].flatten() / a[t, o].norm() / b[t, o].norm() for t in range(2) for o in range(3)]
    torch.testing.assert_close(cosine_loss(a, b), torch.stack(each).mean())
    apart = (torch.arange(4) % 2).view(1, 1, 4, 1, 1)
    assert cosine_loss(a * apart, b * (1 - apart)) == 0 and cosine_loss(0 * a, b) == 0


def test_a_gate_weighs_each_channel_of_a_place_by_that_place_alone(exact):
    gate, e = Gate(3), torch.randn(2, 3, 4, 5)
    place = e[1, :, 2, 3]
    expected = place * (gate.out.weight @ (gate.hidden.weight @ place).clamp(min=0)).sigmoid()
    torch.testing.assert_close(gate(e)[1, :, 2, 3], expected)


def test_performer_normalises_its_random_features_over_all_tokens(exact):
    attention, x = Performer(5, dim=4, features=3), torch.randn(1, 7, 5)
    k, q, v = attention.kqv(attention.norm1(x))[0].split(4, dim=1)
    weights = torch.stack([(attention.phi(k) * attention.phi(one)).sum(1) for one in q])
    y = v + attention.proj(weights / (weights.sum(1, keepdim=True) + 1e-8) @ v)
    torch.testing.assert_close(attention(x, 0)[0], y + attention.mlp(attention.norm2(y)))
    torch.testing.assert_close(attention.w @ attention.w.T, 3 * torch.eye(3))


def test_the_background_of_a_bff_is_the_mean_colour(exact):
    """So that what is beside the object does not matter; a mask alone does not see the object's colours either."""
    masks = torch.zeros(1, 1, *SIZE)
    masks[..., 16:48, 24:64] = 1
    images, other = torch.rand(2, 1, 1, 3, *SIZE)
    outside = torch.where(masks[:, :, None] > 0, images, other)
    for source, flavour, colours in (("bff", "imagenet", True), ("bff", "caffe2", True), ("mask", "imagenet", False)):
        encoder = LabelEncoder(trunk="cnn", source=source, flavour=flavour, filters=4)
        label, weight, value = encoder(images, masks)
        assert label.shape == weight.shape == value.shape == (1, 1, 4, 4, 6)
        assert (label >= 0).all() and (value >= 0).all() and (weight == 1).all()
        assert torch.equal(label, encoder(outside, masks)[0])
        assert torch.equal(label, encoder(other, masks)[0]) != colours


# -- trunks of the label encoder --------------------------------------------------------------------------------------

class Levels(nn.Module):
    """As timm.create_model(features_only=True) gives them: strides 4, 16 and 32"""

    def __init__(self, out_indices=(0, 1, 2)):
        super().__init__()
        self.convs, self.out_indices = nn.ModuleList(nn.Conv2d(3, n, s, s) for n, s in ((2, 4), (5, 16))), out_indices
        self.feature_info = SimpleNamespace(reduction=lambda: [4, 16, 32], channels=lambda: [2, 5, 7])

    def forward(self, x):
        return [self.convs[i](x) for i in self.out_indices]


def test_a_network_of_timm_is_cut_at_stride_sixteen(monkeypatch):
    asked = []

    def create_model(name, features_only, out_indices=(0, 1, 2), pretrained=False):
        asked.append((name, out_indices, pretrained))
        if name == "nothing":
            raise RuntimeError("Unknown model (nothing)")
        return Levels(out_indices)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    encoder = LabelEncoder(trunk="resnet18", filters=4, pretrained=True)
    label, _, _ = encoder(torch.rand(1, 2, 3, *SIZE), torch.rand(1, 2, *SIZE))
    assert label.shape == (1, 2, 4, 4, 6) and asked == [("resnet18", (0, 1, 2), False), ("resnet18", (1,), True)]
    with pytest.raises(ValueError, match=r"no map of nothing at stride 16: Unknown model"):
        LabelEncoder(trunk="nothing")


def test_a_missing_timm_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="fastvit_t12 is a network of timm, which is not installed: pip install timm"):
        LabelEncoder(trunk="fastvit_t12")


def test_the_published_vitae_file_is_read_by_its_names(tmp_path):
    state = {f"module.{name}": value for name, value in ViTAE(cells=1).state_dict().items()}
    file = tmp_path / "ViTAE.pth.tar"
    torch.save({"state_dict_ema": state | {"module.head.weight": torch.ones(1)}, "state_dict": {}}, file)
    ours = ViTAE(cells=1)
    load_vitae(ours, file)
    assert all(torch.equal(value, state[f"module.{name}"]) for name, value in ours.state_dict().items())
    with pytest.raises(ValueError, match="do not fit the model"):
        load_vitae(ViTAE(cells=2), file)
    with pytest.raises(FileNotFoundError, match="github.com/ViTAE-Transformer"):
        load_vitae(ours, tmp_path / "nothing")


# -- training ---------------------------------------------------------------------------------------------------------

def losses_of(model, **learner):
    torch.manual_seed(3)
    masks = torch.zeros(2, 4, *SIZE, dtype=torch.bool)
    masks[:, :, 16:48, 24:64] = True
    images = torch.rand(2, 4, 3, *SIZE) + 0.3 * masks[:, :, None]
    losses, statistics = TrainStep(model, settings(learner=learner))(images, masks)
    assert 0 <= statistics["iou"] <= 1
    return losses


def test_later_frames_see_the_masks_predicted_before_them(double):
    model = small_model()
    paper, first_alone = losses_of(model), losses_of(model, train_update="none")
    assert paper["lovasz"] != first_alone["lovasz"]
    assert paper["lovasz"] != losses_of(model, train_update_steps=1)["lovasz"]
    assert torch.equal(first_alone["lovasz"], losses_of(model, train_update_steps=0)["lovasz"])


@pytest.mark.parametrize("changes", [{}, {"label_input": "mask", "fusion": "sum"}])
def test_every_trained_tensor_has_a_gradient_and_a_rate(changes):
    model = small_model(**changes)
    sum(losses_of(model).values()).backward()
    with_gradient = {p for p in model.parameters() if p.grad is not None}
    groups = parameter_groups(model, settings())
    assert {p for group in groups for p in group["params"]} == with_gradient
    assert with_gradient == {p for name, p in model.named_parameters() if not name.startswith("backbone.")}
    assert [group["share"] for group in groups] == [1.0, 0.2, 1.0, 1.0, 0.2, 1.0][:len(groups)]


def test_a_few_steps_lower_the_loss():
    model = small_model()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    totals = []
    for _ in range(6):
        optimizer.zero_grad()
        totals.append(sum(losses_of(model).values()))
        totals[-1].backward()
        optimizer.step()
    assert totals[-1] < totals[0] - 1


@pytest.mark.parametrize("changes, message", [
    ({"label_encoder": "cnn", "label_weights": "some.pth"}, "there are none for model.label_encoder: cnn"),
    ({"label_weights": "timm"}, "timm for its networks"),
    ({"label_encoder": "resnet18", "label_weights": "some.pth"}, "a file is for vitae")])
def test_label_weights_belong_to_their_encoder(changes, message):
    good = settings(data={"size": [96, 160]}, backbone={"weights": "none"})
    Config.check(good)
    with pytest.raises(ValueError, match=message):
        Config.check(EasyDict(good | {"model": EasyDict(good.model | changes)}))


def test_the_rows_of_the_tables_are_models_of_their_own():
    """Which label encoder, what it sees, how branches are joined, D."""
    kinds = {}
    for name in ("joint", "dlgm", "afm", "bff_cnn", "mask_vitae"):
        with torch.device("meta"):
            model = build(load_config([f"config/llb/ablation/{name}.yaml"]))
        encoder = model.label_encoder
        kinds[name] = (type(encoder.trunk).__name__, encoder.source, type(model.fusion).__name__, model.filters)
    assert kinds == {"joint": ("Sequential", "mask", "Sum", 16), "dlgm": ("ViTAE", "bff", "Sum", 32),
                     "afm": ("Sequential", "mask", "Fusion", 16), "bff_cnn": ("Sequential", "bff", "Fusion", 32),
                     "mask_vitae": ("ViTAE", "mask", "Fusion", 32)}


# -- tracking ---------------------------------------------------------------------------------------------------------

class Recomputing(Segmenter):
    """Encodes its memory, and the labels in it, anew in every frame"""

    def remember(self, target, seen, mask):
        slot = super().remember(target, seen, mask)
        target.masks = getattr(target, "masks", {}) | {slot: (seen, mask)}
        return slot

    def segment(self, targets, seen, levels):
        for target in targets:
            memory = target.memory
            memory.key = memory.matching.key(memory.encoded(seen[0].shape[-2:]))
            for slot, one in target.masks.items():
                label, weight, value, _ = self.encode_mask(*one)
                for part, new in zip((1, 2, 4), (label, weight, value), strict=True):
                    memory.parts[part][slot] = new
        return super().segment(targets, seen, levels)


def tracked(given, kind=Segmenter, model=None, amp=None, size=4, interval=3):
    """given (O, T, H, W)  ->  Segmenter, Prediction, on noise"""
    cfg = settings(memory={"size": size, "interval": interval}, data={"size": list(SIZE)})
    segmenter = kind(model or small_model(), EasyDict(from_boxes=False), cfg, amp=amp)
    torch.manual_seed(5)
    clip = Clip(torch.rand(given.shape[1], 3, *given.shape[2:]), given=given)
    return segmenter, segmenter(segmenter.prepare(clip), clip)


def given_masks(objects=2, frames=11):
    given = torch.zeros(objects, frames, 50, 70, dtype=torch.bool)
    given[0, 0, 5:20, 5:30] = True
    if objects > 1:
        given[1, 2, 30:45, 40:60] = True
    return given


def test_what_is_kept_between_insertions_is_what_would_be_computed_again():
    """Bit for bit: encoded memory, labels, weights and values."""
    given = given_masks()
    assert torch.equal(tracked(given)[1].margins, tracked(given, Recomputing)[1].margins)


@pytest.mark.parametrize("interval, stored", [(3, [1, 4, 7, 10]), (5, [3, 8]), (1, [*range(1, 11)])])
def test_frames_enter_the_memory_at_the_interval(interval, stored, monkeypatch):
    entered = []

    class Noting(Segmenter):
        def remember(self, target, seen, mask):
            entered.append(target.frame - 2)               # the frame before, counted from the object's first
            return super().remember(target, seen, mask)
    segmenter, prediction = tracked(given_masks(objects=1, frames=12), Noting, interval=interval)
    assert entered == [-1, *stored] and prediction.margins.isfinite().all()
    assert segmenter.targets[0].memory.stored == min(4, 1 + len(stored))


def test_the_order_of_objects_does_not_matter():
    given, model = given_masks(), small_model()
    there, back = (tracked(one, model=model)[1].margins for one in (given, given.flip(0)))
    torch.testing.assert_close(there, back.flip(0), rtol=1e-4, atol=1e-4)


def test_late_objects_start_when_their_mask_is_given_and_a_lost_one_keeps_its_window():
    model, given = small_model(), given_masks()
    with torch.no_grad():
        model.decoder.head2.bias.fill_(-50.0)              # the decoder sees nothing, ever
    segmenter, prediction = tracked(given, model=model)
    masks = prediction.masks
    assert torch.equal(masks[0, 0], given[0, 0]) and torch.equal(masks[1, 2], given[1, 2]) and masks[:, 3:].sum() == 0
    assert not masks[1, :2].any() and prediction.margins.isfinite().all() and (masks.sum(0) <= 1).all()
    assert all(target.mass < 100 for target in segmenter.targets.values())


def test_mixed_precision_tracks_nearly_the_same():
    """What is compared stays in float32."""
    given = given_masks(objects=1, frames=4)
    _, single = tracked(given)
    segmenter, mixed = tracked(given, amp=torch.bfloat16)
    memory = segmenter.targets[0].memory
    assert memory.sums.dtype == memory.key.dtype == torch.float32 and memory.parts[0].dtype == torch.bfloat16
    assert (mixed.margins - single.margins)[:, 1:].abs().mean() < 0.1 * single.margins[:, 1:].abs().mean()


# -- cost -------------------------------------------------------------------------------------------------------------

def gflop(function, *args):
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        result = function(*args)
    return counter.get_total_flops() / 1e9, result


def parts_of_a_frame(model, size, samples):
    """GFLOP for one object with a full memory  ->  {module: of every frame}, {module: of one that enters the memory}"""
    every, entering, matching = {}, {}, model.matching
    every["backbone"], levels = gflop(model.backbone, torch.zeros(1, 3, *size))
    every["features"], x = gflop(model.features, levels[2])
    every["features to match"], z = gflop(matching.conv, levels[2])
    every["query"], query = gflop(lambda: matching.key(matching.encode(z[None])))
    entering["label encoder"], (label, weight, value) = gflop(model.label_encoder, torch.zeros(1, 1, 3, *size),
                                                              torch.zeros(1, 1, *size))
    tau, memory = model.zero_filters(x, 1), Memory(matching, size=samples)
    entering["new scores"], scores = gflop(apply_target_model, x[None], tau)
    frame = (x, *(one[0] for one in (label, weight, scores, value)), z)
    with torch.inference_mode():
        memory.insert(*frame)
    memory.stored = samples                                # only sizes matter
    entering["memory"], _ = gflop(memory.insert, *frame)
    entering["learner"], _ = gflop(lambda: model.learn(*memory.samples()[:3], tau, 3, scores.expand(
        samples, *scores.shape[1:])))
    every["read"], found = gflop(matching.read, query, memory.key, memory.value)
    every["decoder"], _ = gflop(model.segment, tau, x, levels, size, found)
    return every, entering


def test_no_frame_of_full_size_costs_more_than_550_gflop():
    with FakeTensorMode():
        every, entering = parts_of_a_frame(LLB(Pyramid()), (480, 832), 20)
    assert sum(every.values()) + sum(entering.values()) <= 550, (every, entering)
    assert sum(every.values()) + sum(entering.values()) / 3 <= 300


def test_the_tracker_pays_for_each_part_once():
    model = small_model()
    segmenter, _ = tracked(given_masks(objects=1), model=model)          # its memory of four is full
    every, entering = (sum(one.values()) for one in parts_of_a_frame(model, SIZE, 4))
    for expected in (every + entering, every, every):
        measured, _ = gflop(segmenter.follow, torch.rand(3, 50, 70), torch.zeros(1, 50, 70, dtype=torch.bool))
        assert measured == pytest.approx(expected)
