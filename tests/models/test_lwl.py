"""LWL against autograd, slow loops and hand-computed cases; its tracker on a small network that nobody has trained."""
from types import SimpleNamespace

import pytest
import torch
from easydict import EasyDict
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dataloaders.episode import Clip
from models.backbone import Pyramid
from models.lwl import inference
from models.lwl.build import freeze, load_start, parameter_groups
from models.lwl.config import Config
from models.lwl.crops import Window, crop_image, crop_mask, paste, search_window
from models.lwl.decoder import enlarge, initialise_he
from models.lwl.learner import learn, learner_loss
from models.lwl.losses import lovasz_loss
from models.lwl.memory import Memory
from models.lwl.model import LWL
from models.lwl.train_step import TrainStep, filled_boxes
from tools.workshop.benchmarking.lwl import steps_of_a_frame
from tools.workshop.parity.lwl import settings
from utils.config import load_config
from utils.training.state import TrainingState

SIZE = (64, 96)


def small_model(**changes):
    torch.manual_seed(0)
    return LWL(Pyramid(name="resnet18"), **({"feature_dim": 8, "filters": 4, "widths": (8, 8, 8, 8)} | changes))


def problem(frames=3, objects=2, channels=5, filters=3, size=(6, 7)):
    """x, label, weight, reg, tau in double precision, all to be differentiated"""
    torch.manual_seed(1)
    x = 0.2 * torch.randn(frames, objects, channels, *size)
    label, weight = torch.rand(2, frames, objects, filters, *size)
    values = [x, label, weight + 0.5, torch.tensor([0.1]), 0.1 * torch.randn(objects, filters, channels, 3, 3)]
    return [one.requires_grad_(True) for one in values]


def naive_learn(x, label, weight, reg, tau, steps):
    """Eq. 3 by autograd, object by object; the curvature along g by a second derivative"""
    for _ in range(steps):
        new = []
        for b in range(x.shape[1]):
            def loss(filters, b=b):
                return learner_loss(x[:, b:b + 1], label[:, b:b + 1], weight[:, b:b + 1], reg, filters[None])
            g, = torch.autograd.grad(loss(tau[b]), tau, create_graph=True)
            g = g[b]
            along = torch.zeros((), requires_grad=True)
            slope, = torch.autograd.grad(loss(tau[b] - along * g), along, create_graph=True)
            curvature, = torch.autograd.grad(slope, along, create_graph=True)
            new.append(tau[b] + slope / curvature * g)           # slope is -|g|^2
        tau = torch.stack(new)
    return tau


def test_closed_form_equals_double_autograd_with_all_gradients(double):
    inputs = problem()
    ours, naive = learn(*inputs, 3)[0], naive_learn(*inputs, 3)
    torch.testing.assert_close(ours, naive, rtol=1e-10, atol=1e-12)
    coefficient = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad((one * coefficient).sum(), inputs) for one in (ours, naive)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_learner_passes_gradcheck(double):
    inputs = problem(frames=2, objects=1, channels=2, filters=2, size=(3, 4))
    assert torch.autograd.gradcheck(lambda *args: learn(*args, 2)[0], inputs)


def test_each_step_lowers_the_loss_and_scores_stay_those_of_the_filter(exact):
    *inputs, tau = (one.detach() for one in problem())
    before = learner_loss(*inputs, tau)
    scores = None
    for _ in range(8):
        tau, scores = learn(*inputs, tau, 1, scores)
        after = learner_loss(*inputs, tau)
        assert after < before
        before = after
    torch.testing.assert_close(scores, inference.apply_target_model(inputs[0], tau))


def test_learner_leaves_mixed_precision(double):
    x, label, weight, reg, tau = (one.detach().float() for one in problem())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = learn(x, label, weight, reg, tau, 2)
    torch.testing.assert_close(mixed, learn(x, label, weight, reg, tau, 2)[0], rtol=0, atol=0)


def test_lovasz_of_hard_predictions_is_one_minus_iou(exact):
    truth = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0]).bool()
    found = torch.tensor([1, 1, 0, 1, 0, 0, 0, 0]).bool()
    loss = lovasz_loss((found.double() - 0.5) * 1000, truth)
    assert loss.item() == pytest.approx(1 - 2 / 4)
    logits = torch.tensor([-1.0, 2.0, 0.5])
    assert lovasz_loss(logits, torch.zeros(3)).item() == pytest.approx(logits.sigmoid().max().item())


def test_window_is_moved_inside_and_centred_where_it_cannot_be(exact):
    window = search_window((5.0, 50.0), (40.0, 60.0), (40, 60), (100, 120))
    assert window.pixels() == (0, 21, 40, 81)
    high = search_window((5.0, 50.0), (100.0, 30.0), (40, 60), (50, 120))     # twice as high as the image
    assert high.pixels()[0] + high.pixels()[2] == 50 and high.size == (100, 30)


def test_crops_equal_a_loop_over_pixels(exact):
    image, mask, window = torch.rand(3, 9, 11), torch.rand(9, 11), Window(-2, 3, (6, 6), 2, (1, 0))
    crop, small = crop_image(image, window, (6, 6)), crop_mask(mask, window, (6, 6))
    for i in range(6):
        for j in range(6):
            row, column = 1 + 2 * (i - 2), 2 * (j + 3)
            inside = 0 <= row < 9 and 0 <= column < 11
            nearest = min(max(row, 1), 7), min(max(column, 0), 10)         # samples of every second row and column
            assert torch.equal(crop[:, i, j], image[:, nearest[0], nearest[1]])
            assert small[i, j] == (mask[row, column] if inside else 0)


@pytest.mark.parametrize("manner, left", [("one_factor", 1), ("per_axis", 2)])
def test_paste_back_is_the_inverse_of_a_crop_but_for_the_released_pixel(manner, left, exact):
    """The release truncates the corner: a window that begins inside the image comes back one pixel before it."""
    tracking, logits = settings(tracking={"paste": manner}).tracking, torch.randn(4, 6)
    full, block = paste(logits, Window(-1, 2, (4, 6)), (8, 9), tracking)
    assert block == (-1, left, 4, 6)
    assert torch.equal(full[:3, left:left + 6], logits[1:]) and (full == -100).sum() == 8 * 9 - 18


@pytest.mark.parametrize("weighting", ["released", "paper"])
def test_memory_is_bounded_and_keeps_the_first_frame(weighting, exact):
    memory = Memory(size=4, weighting=weighting, first_share=0.9)
    for i in range(10):
        slot = memory.insert(*torch.full((4, 1, 1, 1, 1), float(i)))
        assert slot != 0 or i == 0
    x, _, weight, _ = memory.samples()
    assert len(x) == 4 and sorted(x.flatten().tolist()) == [0, 7, 8, 9] and memory.weights[0] > 0
    if weighting == "paper":
        assert sum(memory.weights) == pytest.approx(1)
        assert weight.flatten().square().div(x.flatten().square()).nan_to_num().sum() == pytest.approx(
            1 - memory.weights[0])                         # they multiply the loss, not the residual
    else:
        assert memory.weights[0] == 0.9


def test_probabilities_sum_to_one_and_one_margin_is_positive_at_most(exact):
    logits = 6 * torch.randn(3, 10, 12)
    logits[:, 0, 0], logits[:, 0, 1] = 100.0, -100.0
    scores = inference.aggregate(logits)
    torch.testing.assert_close(scores.softmax(0).sum(0), torch.ones(10, 12))
    margins = inference.margins_of(scores)
    assert ((margins > 0).sum(0) <= 1).all()
    assert torch.equal(torch.cat([torch.zeros_like(margins[:1]), margins]).argmax(0), scores.argmax(0))
    assert margins[0, 0, 0] > 0 and not (margins[:, 0, 1] > 0).any()         # a tie goes to the first object


# -- training ---------------------------------------------------------------------------------------------------------

def batch(frames=3, videos=2):
    torch.manual_seed(3)
    masks = torch.zeros(videos, frames, *SIZE, dtype=torch.bool)
    masks[:, :, 16:48, 24:64] = True
    images = torch.rand(videos, frames, 3, *SIZE)
    return SimpleNamespace(images=images + 0.3 * masks[:, :, None], masks=masks)


def loss_of(model, batch, **learner):
    cfg = settings(learner=learner)
    freeze(model, cfg)
    step = TrainStep(model, cfg)
    (unit,) = step.units(batch)
    losses, statistics = step(*unit)
    assert 0 <= statistics["iou"] <= 1
    return losses["lovasz"]


@pytest.mark.parametrize("size", [(14, 78), (3, 2), (13, 30), (400, 6)])
def test_matrices_enlarge_as_interpolation_does(size, double):
    x = torch.rand(2, 3, (size[0] + 1) // 2, size[1] // 2)
    exact = torch.nn.functional.interpolate(x, size, mode="bicubic", align_corners=False)
    torch.testing.assert_close(enlarge(x, size), exact, rtol=0, atol=1e-14)


def test_updated_filter_changes_training_and_the_released_switch_ignores_it(double):
    model, data = small_model(), batch()
    paper = loss_of(model, data).item()
    assert paper != loss_of(model, data, train_update="none").item()
    assert paper != loss_of(model, data, train_update_steps=1).item()
    alone = loss_of(model, SimpleNamespace(images=data.images[:, :2], masks=data.masks[:, :2])).item()
    assert alone == loss_of(model, SimpleNamespace(images=data.images[:, :2], masks=data.masks[:, :2]),
                            train_update="none").item()


def test_gradients_reach_what_the_stage_trains():
    model, data = small_model(), batch()
    loss_of(model, data).backward()
    with_gradient = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"reg", "features", "label_encoder", "decoder"}
    model = small_model()
    loss_of(model, data, end_to_end=False).backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"decoder"}


def test_box_stage_trains_the_box_encoder_alone():
    model, cfg = small_model(box_encoder=True), settings(train={"part": "box"})
    freeze(model, cfg)
    (unit,) = TrainStep(model, cfg).units(batch(frames=1))
    TrainStep(model, cfg)(*unit)[0]["lovasz"].backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"box_encoder"}
    assert [len(group["params"]) for group in parameter_groups(model, cfg)] == [10]


def test_boxes_are_filled_around_masks():
    masks = torch.zeros(2, 5, 6, dtype=torch.bool)
    masks[0, 1, 2] = masks[0, 3, 4] = True
    boxes = filled_boxes(masks)
    assert boxes[0, 1:4, 2:5].all() and boxes.sum() == 9


def test_rates_are_shares_and_fall_after_the_given_epochs(tmp_path):
    cfg = load_config(overrides=["train.lr=1.0e-4", "train.lr_drops=[2, 4]"])
    model, own = small_model(), settings()
    freeze(model, own)
    state = TrainingState(model, parameter_groups(model, own), cfg, None, tmp_path, torch.device("cpu"))
    for epoch, factor in ((0, 1), (1, 1), (2, 0.2), (4, 0.04), (0, 1)):         # in any order, as after a resume
        state.progress.epoch = epoch
        state.set_rates()
        assert [group["lr"] for group in state.optimizer.param_groups] == pytest.approx(
            [1e-4 * factor * share for share in (1, 0.2, 1, 2)])               # r, features, decoder, E and W


def test_next_stage_starts_from_the_one_before(tmp_path):
    before, after = small_model(), small_model(box_encoder=True)
    with torch.no_grad():
        before.reg.fill_(0.5)
    torch.save({"model": before.state_dict()}, tmp_path / "last.pth")
    load_start(after, tmp_path / "last.pth")
    assert after.reg.item() == 0.5
    with pytest.raises(ValueError, match="these weights do not fit the model"):
        load_start(small_model(filters=2), tmp_path / "last.pth")


@pytest.mark.parametrize("changes, message", [
    ({"model": {"label": "mask"}}, "model.filters=1"), ({"train": {"part": "box"}}, "box_encoder: true"),
    ({"backbone": {"weights": "maskrcnn", "bn_eps": 1e-5}}, "bn_eps: 0.0"), ({"data": {"size": [100, 160]}}, "of 16")])
def test_settings_that_do_not_go_together_are_refused(changes, message):
    good = {"data": {"size": [96, 160]}, "backbone": {"weights": "none"}}
    Config.check(settings(**good))
    with pytest.raises(ValueError, match=message):
        Config.check(settings(**(good | changes)))


def test_a_few_steps_from_he_weights_lower_the_loss():
    model, data, cfg = small_model(), batch(), settings()
    freeze(model, cfg)
    initialise_he(model.decoder)
    optimizer = torch.optim.Adam(parameter_groups(model, cfg)[2]["params"], lr=3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        losses.append(loss_of(model, data))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 1


def test_normalisation_keeps_its_statistics_in_training():
    model = small_model().train()
    assert not any(module.training for module in model.modules())


# -- tracking ---------------------------------------------------------------------------------------------------------

def tracked(given, memory=4, from_boxes=False, model=None, amp=None, **tracking):
    """given (O, T, H, W)  ->  Segmenter, Prediction, on noise"""
    torch.manual_seed(5)
    model = model or small_model(box_encoder=from_boxes)
    cfg = settings(memory={"size": memory}, data={"size": list(SIZE)}, tracking=tracking)
    segmenter = inference.Segmenter(model, EasyDict(from_boxes=from_boxes), cfg, amp=amp)
    clip = Clip(torch.rand(given.shape[1], 3, *given.shape[2:]), given=given)
    return segmenter, segmenter(segmenter.prepare(clip), clip)


def given_masks(objects=2, frames=5, size=(50, 70)):
    given = torch.zeros(objects, frames, *size, dtype=torch.bool)
    given[0, 0, 5:20, 5:30] = True
    return given


def test_late_and_empty_objects_start_when_their_mask_is_given():
    given = given_masks(objects=3)
    given[1, 2, 30:45, 40:60] = True
    segmenter, prediction = tracked(given)
    masks = prediction.masks
    assert prediction.margins.shape == (3, 5, 50, 70) and prediction.margins.isfinite().all()
    assert torch.equal(masks[0, 0], given[0, 0]) and torch.equal(masks[1, 2], given[1, 2])
    assert not masks[1, :2].any() and not masks[2].any() and list(segmenter.targets) == [0, 1]
    assert (masks.sum(0) <= 1).all()
    assert prediction.per_frame["scale"].shape == (3, 5) and not prediction.per_frame["scale"][2].any()


def test_a_clip_in_parts_says_what_it_says_whole():
    given = given_masks()
    segmenter, whole = tracked(given, model=small_model())
    again = inference.Segmenter(segmenter.model, EasyDict(from_boxes=False), segmenter.cfg)
    torch.manual_seed(5)
    images = torch.rand(5, 3, 50, 70)
    parts = [again(again.prepare(clip), clip).margins
             for clip in (Clip(images[:2], given=given[:, :2]), Clip(images[2:], given=given[:, 2:]))]
    torch.testing.assert_close(torch.cat(parts, 1), whole.margins)


def test_an_object_that_leaves_keeps_its_window_and_memory_stays_bounded():
    model = small_model()
    with torch.no_grad():
        model.decoder.head2.bias.fill_(-50.0)              # the decoder sees nothing, ever
    segmenter, prediction = tracked(given_masks(objects=1, frames=9), model=model)
    target, mask = segmenter.targets[0], given_masks(1)[0, 0].nonzero().double().mean(0)
    assert not prediction.masks[0, 1:].any() and prediction.margins.isfinite().all()
    assert target.mass < 100 and target.centre == pytest.approx(tuple(mask.tolist()), abs=1e-4)
    assert target.memory.stored == 4 and len(target.memory.parts[0]) == 4


def test_a_mask_that_is_given_again_starts_its_object_anew():
    given = given_masks(objects=1)
    given[0, 3, 30:45, 40:60] = True
    segmenter, prediction = tracked(given)
    assert torch.equal(prediction.masks[0, 3], given[0, 3])
    assert segmenter.targets[0].frame == 2 and segmenter.targets[0].memory.stored == 1


def test_boxes_start_objects_and_need_a_box_encoder():
    _, prediction = tracked(given_masks(), from_boxes=True)
    assert prediction.margins.isfinite().all()
    with pytest.raises(ValueError, match="starts from masks alone"):
        tracked(given_masks(), from_boxes=True, model=small_model())


def test_mixed_precision_tracks_nearly_the_same():
    """Filters and scores stay in float32, features are stored in half."""
    given = given_masks(objects=1)
    _, single = tracked(given, min_mass=1e9)                   # the window stays, so that masks can be compared
    segmenter, mixed = tracked(given, min_mass=1e9, amp=torch.bfloat16)
    kinds = [part.dtype for part in segmenter.targets[0].memory.parts]
    assert kinds[0] == torch.bfloat16 and kinds[3] == segmenter.targets[0].tau.dtype == torch.float32
    assert (mixed.margins - single.margins)[:, 1:].abs().mean() < 0.1 * single.margins[:, 1:].abs().mean()


@pytest.mark.parametrize("line", [(7, slice(10, 40)), (slice(5, 6), slice(9, 10))])
def test_masks_of_one_line_or_pixel_are_no_special_case(line):
    given = torch.zeros(1, 3, 50, 70, dtype=torch.bool)
    given[0, 0][line] = True
    assert tracked(given)[1].margins.isfinite().all()


def test_objects_in_the_same_window_share_one_pass():
    given = given_masks()
    given[1, 0] = given[0, 0]
    model, seen = small_model(), []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    tracked(given[:, :2], model=model)
    assert seen == [1, 1, 1]                               # two starts, then one window for both


# -- cost -------------------------------------------------------------------------------------------------------------

def gflop(function, *args):
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        result = function(*args)
    return counter.get_total_flops() / 1e9, result


def cost_of_a_frame(model, size, samples):
    """GFLOP of all modules for one more frame of one object with a full memory"""
    with torch.inference_mode():
        return sum(gflop(run)[0] for _, run in steps_of_a_frame(model, size, samples))


def test_a_frame_of_full_size_costs_175_gflop_at_most():
    with FakeTensorMode():
        assert cost_of_a_frame(LWL(Pyramid()), (480, 832), 32) <= 175


def test_the_tracker_pays_for_each_part_once():
    model = small_model()
    segmenter, _ = tracked(given_masks(objects=1, frames=6), model=model)          # its memory of four is full
    measured, _ = gflop(segmenter.follow, torch.rand(3, 50, 70), torch.zeros(1, 50, 70, dtype=torch.bool))
    assert measured == pytest.approx(cost_of_a_frame(model, SIZE, 4))
