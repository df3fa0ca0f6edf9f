"""Table 3's protocol: the first frame by the model, the others by a plug; our own matching against a slow loop."""
import json
import math
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from material import DEMO, MODEL, TINY, command, segmented

import test as test_script
from dataloaders.episode import Clip, FirstMasks, SupportSet
from dataloaders.transforms import undo_letterbox
from models import get_method, propagation, vipmt
from models.propagation import matching
from models.propagation.matching import FeatureMatching, follow, to_labels, to_pixels
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import apply_overrides, load_config, to_dict, user_errors
from utils.seeds import rng_for

IPMT = [DEMO, "config/vipmt/ablation/ipmt_baseline.yaml"]
BOTH = [*IPMT, "config/vipmt/ablation/ipmt_propagation.yaml"]
SIZE = (44, 56)      # rows are no multiple of 8


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def built(*overrides):
    """The model of a config, which it carries along for `segmenter`"""
    cfg = load_config(BOTH, [*MODEL, *overrides])
    model = propagation.build(cfg).eval()
    model.cfg = cfg
    return model


def inputs(frames=7, shots=2):
    supports = torch.randn(shots, 3, *SIZE), torch.rand(shots, *SIZE) > 0.5
    return supports, torch.randn(frames, 3, *SIZE)


def segmenter(model, supports, method=propagation, amp=None):
    return method.Segmenter(model, SupportSet(*supports), model.cfg, rng=rng_for(0), amp=amp)


def segment(model, supports, images, clip_length=3, **options):
    return segmented(segmenter(model, supports, **options), images, clip_length=clip_length).margins


def half_is_object(model, supports, images):
    """Shifts the final classifier, so that an untrained model's first mask is neither empty nor full."""
    with torch.no_grad():
        model.final_classifier[-1].bias[1] -= segment(model, supports, images[:1]).median()


# Matching

def slow_follow(frame, context, labels, top_k, temperature, radius):
    """The definition, position by position: the k best of the cosines that may be seen, their softmax, the mean."""
    _, h, w = frame.shape
    found = torch.zeros(h, w, dtype=frame.dtype)
    for i in range(h):
        for j in range(w):
            seen = []
            for m in range(len(context)):
                for a in range(h):
                    for b in range(w):
                        if m == 0 or max(abs(a - i), abs(b - j)) <= radius:
                            u, v = frame[:, i, j], context[m, :, a, b]
                            seen.append((float(u @ v / (u.norm() * v.norm())), float(labels[m, a, b])))
            best = sorted(seen, reverse=True)[:top_k]
            weights = [math.exp(cosine / temperature) for cosine, _ in best]
            found[i, j] = sum(w * label for w, (_, label) in zip(weights, best, strict=True)) / sum(weights)
    return found


@pytest.mark.parametrize(("contexts", "top_k", "radius"), [(1, 3, 1), (3, 5, 1), (3, 1, 0), (2, 1000, 2), (3, 7, 50)])
@pytest.mark.parametrize("scores", [2 ** 24, 50])
def test_matching_equals_a_loop_over_positions(monkeypatch, contexts, top_k, radius, scores):
    monkeypatch.setattr(matching, "SCORES", scores)       # a few rows of the affinity at a time, or all
    context = torch.randn(contexts, 6, 4, 5, dtype=torch.float64)
    frame, labels = torch.randn(6, 4, 5, dtype=torch.float64), torch.rand(contexts, 4, 5, dtype=torch.float64)
    top_k = min(top_k, 20)         # of the first frame alone there are 20: never more are averaged
    found = follow(*(torch.nn.functional.normalize(x, dim=-3) for x in (frame, context)), labels,
                   top_k=top_k, temperature=0.1, radius=radius)
    torch.testing.assert_close(found, slow_follow(frame, context, labels, top_k, 0.1, radius))


@pytest.mark.parametrize("size", [(24, 40), (17, 30), (8, 5)])
def test_labels_are_the_share_of_object_around_a_position(size):
    mask = torch.rand(*size) > 0.5
    expected = [[mask[max(0, 8 * i - 4):8 * i + 5, max(0, 8 * j - 4):8 * j + 5].double().mean()
                 for j in range(math.ceil(size[1] / 8))] for i in range(math.ceil(size[0] / 8))]
    torch.testing.assert_close(to_labels(mask.double()), torch.tensor(expected))


@pytest.mark.parametrize("size", [(24, 40), (17, 30), (8, 5)])
def test_pixels_are_interpolated_between_the_positions(size):
    labels = torch.rand(2, *(math.ceil(n / 8) for n in size), dtype=torch.float64)
    found = to_pixels(labels, size)
    for y in range(size[0]):
        for x in range(size[1]):
            i, j = (min(v / 8, n - 1) for v, n in zip((y, x), labels.shape[1:], strict=True))
            corners = [(a, b, (1 - abs(a - i)) * (1 - abs(b - j))) for a in {math.floor(i), math.ceil(i)}
                       for b in {math.floor(j), math.ceil(j)}]
            expected = sum(weight * labels[:, a, b] for a, b, weight in corners)
            torch.testing.assert_close(found[:, y, x], expected)


def moving_square(frames, step, size=(96, 160), side=40):
    """A textured square over another texture, `step` columns per frame  ->  images (T, 3, H, W), masks (T, H, W)"""
    def texture(*size):
        coarse = torch.randn(1, 3, *(n // 8 for n in size))
        return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")[0]
    background, square = texture(*size), texture(side, side) + torch.tensor([2.0, 0.0, -2.0])[:, None, None]
    images, masks = background.repeat(frames, 1, 1, 1), torch.zeros(frames, *size, dtype=torch.bool)
    for t in range(frames):
        images[t, :, 30:30 + side, 20 + step * t:20 + step * t + side] = square
        masks[t, 30:30 + side, 20 + step * t:20 + step * t + side] = True
    return images, masks


def colours(images):
    """What a position sees around its pixel (8 i, 8 j), as simple features: four colours, the mean and around it."""
    def around(n):
        return torch.nn.functional.avg_pool2d(images, n, 8, padding=n // 2, count_include_pad=False)
    return SimpleNamespace(c4=torch.cat([around(3), around(9), around(17)], dim=1)[None])


@pytest.mark.parametrize("step", [3, 8])
def test_a_moved_square_is_followed_without_drift(step):
    drifts = []
    for _ in range(4):
        images, masks = moving_square(10, step)
        plug = FeatureMatching(level="c4", frames=3, top_k=5, temperature=0.05, radius=3)
        frames = plug.encode(images, partial(colours, images))
        plug.begin(frames[0], masks[0])
        found, truth, stays = plug.propagate(frames[1:]) > 0, masks[1:], masks[:1].expand(9, -1, -1)
        iou, still = ((x & truth).sum((1, 2)) / (x | truth).sum((1, 2)) for x in (found, stays))
        assert iou.min() > 0.5 and iou[-1] > still[-1] + 0.2
        drifts.append(centres(found) - centres(truth))
    assert torch.cat(drifts).mean(dim=0).abs().max() < 2       # labels of whole blocks would drift by half of one, 4


def centres(masks):
    return torch.stack([mask.nonzero().double().mean(dim=0) for mask in masks])


@pytest.mark.parametrize("value", [False, True])
@torch.no_grad()
def test_empty_and_full_first_masks_stay_as_they_are(value):
    model, plug = built(), FeatureMatching(level="c3", frames=2, top_k=5, temperature=0.1, radius=2)
    images = torch.randn(5, 3, *SIZE)
    frames = plug.encode(images, lambda: model.encode(images[None]))
    plug.begin(frames[0], torch.full(SIZE, value))
    margins = plug.propagate(frames[1:])
    torch.testing.assert_close(margins, torch.full_like(margins, 1.0 if value else -1.0))


@torch.no_grad()
def test_context_is_the_first_frame_and_the_last_n(monkeypatch):
    plug, seen = FeatureMatching(level="c4", frames=2, top_k=2, temperature=0.1, radius=1), []

    def record(frame, context, labels, **rule):
        seen.append([float(x.flatten()[0]) for x in context])
        return follow(frame, context, labels, **rule)
    monkeypatch.setattr(matching, "follow", record)
    frames = torch.arange(6.0)[:, None, None, None].expand(6, 4, 2, 3)
    plug.begin(frames[0], torch.ones(16, 24, dtype=torch.bool))
    plug.propagate(frames[1:])
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]]      # so memory does not grow with the video


# The segmenter

def test_first_frame_is_the_models_and_clips_may_be_cut_anywhere():
    """In double precision: in single, batches of other sizes round otherwise, and the k best may change place."""
    model, ((pictures, masks), images) = built().double(), inputs()
    supports, images = (pictures.double(), masks), images.double()
    half_is_object(model, supports, images)
    whole = segment(model, supports, images, clip_length=7)
    alone = segment(model, supports, images[:1], method=vipmt)
    torch.testing.assert_close(whole[:1], alone)
    assert whole.shape == (7, *SIZE) and whole.dtype == torch.float32 and 0.2 < (whole[0] > 0).float().mean() < 0.8
    for clip_length in (1, 3):
        torch.testing.assert_close(segment(model, supports, images, clip_length), whole)


def test_later_frames_do_not_ask_the_model_again():
    model, (supports, images) = built(), inputs()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    said = segmented(segmenter(model, supports), images, clip_length=2)
    assert len(calls) == 1 and said.ious is None and said.remembered is None


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_runs_that_share_features_give_the_same_masks_and_encode_each_frame_once(amp):
    model, (first, images), (second, _) = built(), inputs(), inputs(shots=3)
    half_is_object(model, first, images)

    alone = [segment(model, supports, images, amp=amp) for supports in (first, second)]
    together, encoded = [segmenter(model, supports, amp=amp) for supports in (first, second)], []
    model.backbone.register_forward_hook(lambda module, inputs, output: encoded.extend(inputs[0].flatten(0, 1)))
    found = [[], []]
    for clip in map(Clip, images.split(3)):
        prepared = together[0].prepare(clip)
        for run, margins in zip(together, found, strict=True):
            margins.append(run(prepared, clip).margins[0])
    assert len(encoded) == 7 and all(torch.equal(a, b) for a, b in zip(encoded, images, strict=True))
    for a, b in zip(found, alone, strict=True):
        assert torch.equal(torch.cat(a), b) and torch.isfinite(b).all()
    assert not torch.equal(*alone)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_cpus_masks():
    (supports, images), found = inputs(), {}
    model = built()
    half_is_object(model, supports, images)
    for device in ("cpu", "cuda"):
        model.to(device)
        found[device] = segment(model, supports, images).cpu()
    assert ((found["cpu"] > 0) == (found["cuda"] > 0)).float().mean() > 0.99      # ties of cosines may fall otherwise


def test_ipmt_checkpoint_fits():
    names = vipmt.build(load_config(IPMT, MODEL)).state_dict().keys()
    assert built().state_dict().keys() == names


def test_training_is_refused_with_the_way_to_go():
    cfg = load_config(BOTH, MODEL)
    for attempt in (lambda: propagation.build(cfg, pretrained=True), lambda: propagation.TrainStep(None, cfg)):
        with pytest.raises(ValueError, match="ipmt_baseline.yaml"):
            attempt()


# Plugs

SHIFT = '''
import torch
made = []

class Plug:
    """The first mask, one column further to the right with every frame."""
    def __init__(self, cfg, model, device):
        made.append(self)
        self.device = device
    def begin(self, image, mask):
        assert image.shape == (3, *mask.shape) and mask.dtype == torch.bool and image.device == self.device
        self.rgb, self.mask = image, mask
    def propagate(self, images):
        found = []
        for image in images:
            self.mask = self.mask.roll(1, dims=1)
            found.append(self.mask.float() - 0.5)
        return torch.stack(found)
'''


@pytest.fixture
def plug(tmp_path, monkeypatch):
    """plug(name, text): a user's module in a folder of theirs"""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
    yield write
    for name in [n for n, m in sys.modules.items() if str(tmp_path) in f"{getattr(m, '__file__', 0)} {m!r}"]:
        del sys.modules[name]


def test_a_users_module_takes_over_after_the_first_frame(plug):
    plug("shift_plug", SHIFT)
    model, (supports, images) = built("propagation.plug=shift_plug:Plug"), inputs()
    half_is_object(model, supports, images)
    sys.modules["shift_plug"].made.clear()
    encoded = []
    model.backbone.register_forward_hook(lambda module, inputs, output: encoded.append(inputs[0].shape[1]))
    masks = segment(model, supports, images) > 0
    assert encoded == [2, 3]           # the supports, the first clip: a plug of images needs no more features
    for t in range(1, 7):
        assert torch.equal(masks[t], masks[0].roll(t, dims=1))
    made, = sys.modules["shift_plug"].made
    assert torch.equal(made.rgb, images[0])


def test_every_run_has_a_propagator_of_its_own(plug):
    plug("shift_plug", SHIFT)
    model, (supports, images) = built("propagation.plug=shift_plug:Plug"), inputs()
    half_is_object(model, supports, images)
    alone = segment(model, supports, images)
    runs = [segmenter(model, supports) for _ in range(2)]
    for clip in map(Clip, images.split(3)):
        found = [run(run.prepare(clip), clip).margins[0] for run in runs]
    assert all(torch.equal(x, alone[-1:]) for x in found)


XMEM = {"inference/inference_core": """
import torch
class InferenceCore:
    'XMem as it is driven from outside: remembers the mask, returns probabilities of background and object.'
    def __init__(self, network, config):
        assert network == "saves/XMem.pth" and config["mem_every"] == 5 and config["key_dim"] == 64
    def set_all_labels(self, labels):
        assert labels == [1]
    def step(self, image, mask=None, valid_labels=None):
        assert (image[0] - (0.25 - 0.485) / 0.229).abs().max() < 1e-5
        assert mask is None or mask.shape == (1, *image.shape[1:]) and valid_labels == [1]
        self.mask = mask if mask is not None else self.mask.roll(1, dims=2)
        return torch.cat([1 - self.mask, self.mask])
""", "model/network": """
class XMem:
    def __init__(self, config, path, map_location): self.path, config["key_dim"] = path, 64
    def to(self, device): return self
    def eval(self): return self.path
"""}
SAM2 = {"transformers": """
import torch
from types import SimpleNamespace
class Sam2VideoProcessor:
    @classmethod
    def from_pretrained(cls, name): return cls()
    def init_video_session(self, inference_device):
        return SimpleNamespace(processed_frames={}, output_dict_per_obj={}, device=inference_device)
    def add_inputs_to_inference_session(self, session, frame_idx, obj_ids, input_masks):
        session.mask = torch.nn.functional.interpolate(input_masks[None, None].float(), size=(256, 256))
        session.output_dict_per_obj[0] = {"cond_frame_outputs": {frame_idx: obj_ids}, "non_cond_frame_outputs": {}}
    def __call__(self, images, device, return_tensors):
        assert images.dtype == torch.uint8 and (images == 64).all()          # 0.25 of white
        return SimpleNamespace(pixel_values=torch.zeros(1, 3, 1024, 1024))
class Sam2VideoModel:
    config = SimpleNamespace(num_maskmem=2, max_object_pointers_in_encoder=3)
    sessions = []
    @classmethod
    def from_pretrained(cls, name, use_safetensors):
        assert name == "a_folder" and use_safetensors
        return cls()
    def to(self, device): return self
    def eval(self): return self
    def __call__(self, inference_session, frame, frame_idx):
        session = inference_session
        session.processed_frames[frame_idx] = frame
        outputs = session.output_dict_per_obj[0]
        outputs["non_cond_frame_outputs" if frame_idx else "cond_frame_outputs"][frame_idx] = 1
        self.sessions.append(session)
        return SimpleNamespace(pred_masks=20 * session.mask - 10)
"""}


SHIFTS = """
import torch

class Shifts:
    own_size, seen = OWN, []
    def __init__(self, *_):
        self.seen.clear()
    def begin(self, image, mask):
        self.mask = mask
        self.seen.append(image)
    def propagate(self, images):
        self.seen.extend(images)
        return torch.stack([torch.where(self.mask, 1.0, -1.0)] * len(images))
"""


@pytest.mark.parametrize("own", [True, False])
def test_a_plug_gets_frames_at_the_videos_own_size_where_it_asks_and_they_are_there(plug, own):
    plug("shifts", SHIFTS.replace("OWN", str(own)))
    model, (supports, images) = built("propagation.plug=shifts:Shifts", "propagation.min_pixels=1"), inputs(3)
    half_is_object(model, supports, images)
    whole = np.random.default_rng(0).integers(0, 256, (3, 2 * SIZE[0], 2 * SIZE[1], 3), np.uint8)
    clip = Clip(images, original_size=whole.shape[1:3], original_images=whole, restore=undo_letterbox)
    one = segmenter(model, supports)
    margins = one(one.prepare(clip), clip).margins[0]
    seen, size = torch.stack(sys.modules["shifts"].Shifts.seen), whole.shape[1:3] if own else SIZE
    assert margins.shape == (3, *size) and 0 < (margins[0] > 0).float().mean() < 1
    torch.testing.assert_close(seen, torch.tensor(whole).permute(0, 3, 1, 2) / 255 if own else images)
    first = segment(model, supports, images[:1])
    torch.testing.assert_close(margins[:1], undo_letterbox(first, size) if own else first)
    assert torch.equal(margins[1] > 0, margins[0] > 0)
    plain = Clip(images)                                                       # as test.py gives them
    one = segmenter(model, supports)
    assert one(one.prepare(plain), plain).margins.shape[-2:] == SIZE


def grey(frames=7):
    """Supports, and a video in which every pixel is 0.25"""
    supports, images = inputs(frames)
    return supports, torch.full_like(images, 0.25)


@pytest.mark.parametrize(("name", "weights", "files", "step"), [
    ("xmem", "saves/XMem.pth", XMEM, 1), ("sam2", "a_folder", SAM2, 0)])
def test_networks_of_others_are_fed_as_they_expect(plug, tmp_path, monkeypatch, name, weights, files, step):
    """Stand-ins of their interfaces, XMem's as its eval.py uses it, SAM 2's as transformers 5.17 documents it"""
    for path, code in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        plug(path, code)
    monkeypatch.delitem(sys.modules, f"models.propagation.{name}", raising=False)
    with pytest.raises(ValueError, match="propagation.weights"):
        built(f"propagation.plug={name}")
    model, (supports, images) = built(f"propagation.plug={name}", f"propagation.weights={weights}"), grey()
    half_is_object(model, supports, images)
    masks = segment(model, supports, images) > 0
    for t in range(7):
        same = (masks[t] == masks[0].roll(step * t, dims=1)).float().mean()
        assert same == 1 if name == "xmem" else same > 0.97          # SAM 2's are enlarged from 256 x 256
    if name == "sam2":
        session = sys.modules["transformers"].Sam2VideoModel.sessions[-1]
        assert session.processed_frames == {}
        assert [*session.output_dict_per_obj[0]["non_cond_frame_outputs"]] == [4, 5, 6]
    monkeypatch.delitem(sys.modules, f"models.propagation.{name}", raising=False)


@pytest.mark.parametrize(("name", "words"), [
    ("sam2", "sam2 needs transformers with Sam2VideoModel: pip install transformers"),
    ("xmem", "xmem needs XMem's own code: put its folder into PYTHONPATH")])
def test_code_of_others_that_is_missing_is_one_sentence(monkeypatch, name, words):
    for module in ("transformers", "inference", "model"):
        monkeypatch.setitem(sys.modules, module, None)               # as if it were not installed
    monkeypatch.delitem(sys.modules, f"models.propagation.{name}", raising=False)
    with pytest.raises(ValueError) as caught:
        built(f"propagation.plug={name}", "propagation.weights=x")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints of a small LWL and a small LLB that nobody has trained"""
    found = {}
    for name, own in (("lwl", ["model.box_encoder=true"]), ("llb", ["model.label_encoder=cnn", "model.key_dim=4"])):
        found[name] = tmp_path_factory.mktemp(name) / f"{name}.pth"
        cfg = load_config((), [f"model.method={name}", "backbone.name=resnet18", "backbone.weights=none",
                               "data.size=[32, 48]", "model.feature_dim=8", "model.filters=4",
                               "model.widths=[8,8,8,8]", "learner.steps=2", *own])
        save_checkpoint(found[name], {"model": get_method(name).build(cfg).state_dict(), "config": to_dict(cfg)})
    return found


@pytest.mark.parametrize(("name", "start"), [("lwl", "mask"), ("lwl", "box"), ("llb", "mask")])
def test_a_method_that_follows_masks_takes_the_models_first_one(files, name, start):
    """Its frames are those of the method by itself, with the same mask given."""
    file = files[name]
    keys = [f"propagation.weights={file}", "propagation.keys=[learner.steps=1]", f"propagation.start={start}"]
    model, (supports, images) = built(f"propagation.plug={name}", *keys), inputs(5)
    half_is_object(model, supports, images)
    found = segment(model, supports, images, clip_length=2)
    method, own = get_method(name), apply_overrides(load_checkpoint(file)["config"], ["learner.steps=1"])
    alone = method.build(own).eval()
    method.load(alone, file, own, None)
    given = torch.zeros(1, 5, *SIZE, dtype=torch.bool)
    rows, columns = (found[0] > 0).nonzero().T
    given[0, 0] = found[0] > 0
    if start == "box":
        given[0, 0, rows.min():rows.max() + 1, columns.min():columns.max() + 1] = True
    follower = method.Segmenter(alone, FirstMasks([1], from_boxes=start == "box"), own, rng=rng_for(0))
    clip = Clip(images, given=given)
    torch.testing.assert_close(found[1:], follower(follower.prepare(clip), clip).margins[0, 1:], rtol=1e-4, atol=1e-4)


def test_a_method_without_training_needs_no_weights():
    model, (supports, images) = built("propagation.plug=first_mask"), inputs(5)
    half_is_object(model, supports, images)
    masks = segment(model, supports, images) > 0
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_weights_of_a_method_that_do_not_fit_are_named_before_any_video(tmp_path):
    other = tmp_path / "ipmt.pth"
    save_checkpoint(other, {"model": {}, "config": to_dict(load_config(IPMT, MODEL))})
    for keys, words in ((["propagation.plug=lwl"], "lwl needs a checkpoint of its own"),
                        (["propagation.plug=lwl", f"propagation.weights={other}"], "of model.method vipmt, not of lwl"),
                        (["propagation.plug=dan"], "follows no masks: its task is fewshot")):
        with pytest.raises(ValueError, match=words):
            built(*keys)


# First masks that are too small

@pytest.mark.parametrize("clip_length", [1, 3, 7])
def test_the_models_own_masks_stand_until_one_is_large_enough(clip_length):
    """Pixels count at the video's size, here twice the input's rows and columns."""
    model, (supports, images) = built("propagation.plug=first_mask"), inputs()
    own = torch.cat([segment(model, supports, image[None], method=vipmt) for image in images])
    with torch.no_grad():
        model.final_classifier[-1].bias[1] -= own.amax(dim=(1, 2)).sort().values[-3] + 1e-3    # so two have an object
    own = torch.cat([segment(model, supports, image[None], method=vipmt) for image in images])
    areas = (own > 0).sum((1, 2)).tolist()
    begun = next(t for t, area in enumerate(areas) if area)
    assert 0 < begun < 6

    def said(at_least, original_size):
        model.cfg.propagation.min_pixels = at_least
        one = segmenter(model, supports)
        found = [one(one.prepare(clip), clip) for clip in (
            Clip(part, original_size=original_size) for part in images.split(clip_length))]
        return (torch.cat([x.margins[0] for x in found]), torch.cat([x.per_frame["waiting"] for x in found]).tolist())
    twice = tuple(2 * n for n in SIZE)
    for size, at_least in ((SIZE, areas[begun]), (twice, 4 * areas[begun]), (None, areas[begun])):
        margins, waiting = said(at_least, size)
        torch.testing.assert_close(margins[:begun + 1], own[:begun + 1], rtol=1e-4, atol=1e-4)
        assert waiting == [t < begun for t in range(7)]
        assert all(torch.equal(x > 0, own[begun] > 0) for x in margins[begun:])
    margins, waiting = said(10 ** 6, SIZE)
    torch.testing.assert_close(margins, own, rtol=1e-4, atol=1e-4)
    assert all(waiting)


@pytest.mark.parametrize(("name", "text", "words"), [
    ("nonsense", "", ["nonsense", "or module:factory"]),
    ("not_there:make", None, ["cannot import not_there", "PYTHONPATH"]),
    ("needs_more:make", "import a_module_nobody_has", ["a_module_nobody_has", "what it imports is not"]),
    ("empty_one:make", "def other(cfg, model, device): pass", ["no function or class 'make'", "other"]),
    ("a_value:make", "make = 3", ["no function or class 'make'"])], ids=lambda x: x if isinstance(x, str) else "")
def test_a_plug_that_cannot_be_had_is_named_before_any_video(plug, name, text, words):
    if text is not None:
        plug(name.partition(":")[0], text)
    with pytest.raises(ValueError) as caught:
        built(f"propagation.plug={name}")
    assert "propagation.plug" in str(caught.value) and all(word in str(caught.value) for word in words)


WRONG = '''
import torch
class Plug:
    def __init__(self, cfg, model, device): pass
    def begin(self, image, mask): self.size = mask.shape
    def propagate(self, images):
        return {}
'''


@pytest.mark.parametrize(("answer", "words"), [
    ("None", ["floating point", "NoneType"]),
    ("torch.ones(len(images), *self.size, dtype=torch.bool)", ["floating point", "torch.bool"]),
    ("torch.zeros(len(images), 2, *self.size)", ["(2, 44, 56), (T, H, W)", "(2, 2, 44, 56)"]),
    ("torch.full((len(images), *self.size), torch.nan)", ["NaN", "4928"])])
def test_a_wrong_answer_names_the_plug_and_what_was_expected(plug, answer, words):
    plug("wrong_plug", WRONG.format(answer))
    model, (supports, images) = built("propagation.plug=wrong_plug:Plug"), inputs(3)
    with pytest.raises(ValueError) as caught:
        segment(model, supports, images)
    assert all(word in str(caught.value) for word in ["wrong_plug:Plug: propagate", *words])


def test_a_factory_that_returns_something_else_is_refused(plug):
    plug("half_plug", "class Plug:\n    def __init__(self, *_): pass\n    def begin(self, image, mask): pass\n")
    model, (supports, _) = built("propagation.plug=half_plug:Plug"), inputs()
    with pytest.raises(ValueError, match="half_plug:Plug: .* without the method 'propagate'"):
        segmenter(model, supports)


def test_an_encoder_of_the_plug_has_one_entry_per_frame(plug):
    plug("few_plug", SHIFT + "    def encode(self, images, features): return images[1:]\n")
    model, (supports, images) = built("propagation.plug=few_plug:Plug"), inputs()
    with pytest.raises(ValueError, match="few_plug:Plug: encode: expected one entry per frame, 3, got 2"):
        segment(model, supports, images)


# From the command line

def run_test(monkeypatch, root, output, *arguments):
    command(monkeypatch, test_script, "--fold", 1, "--device", "cpu", "--output", output, f"data.root={root}", *TINY,
            "data.clip_length=1", *arguments, config=BOTH)


def test_test_py_propagates_from_an_ipmt_checkpoint(monkeypatch, demo_root, tmp_path, plug, no_pages):
    plug("shift_plug", SHIFT)
    file = tmp_path / "last.pth"
    save_checkpoint(file, {"model": vipmt.build(load_config(IPMT, MODEL)).state_dict(), "fold": 1})
    tables = {}
    for name in ("matching", "shift_plug:Plug"):
        output = tmp_path / name.partition(":")[0]
        run_test(monkeypatch, demo_root, output, f"propagation.plug={name}", "--runs", 2, "--checkpoint", file)
        tables[name] = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    lines = tables["matching"]
    assert {line["run"] for line in lines} == {0, 1} and len(lines) == len(tables["shift_plug:Plug"])
    assert not any({"pred_iou", "remembered"} & line.keys() for line in lines)
    for a, b in zip(lines, tables["shift_plug:Plug"], strict=True):
        assert a["j"][0] == b["j"][0]                            # the first frame is the model's, whatever follows


def test_missing_plug_is_one_message_on_the_command_line(monkeypatch, demo_root, tmp_path, capsys):
    file = tmp_path / "last.pth"
    save_checkpoint(file, {"model": vipmt.build(load_config(IPMT, MODEL)).state_dict(), "fold": 1})
    with pytest.raises(SystemExit), user_errors():
        run_test(monkeypatch, demo_root, tmp_path / "out", "propagation.plug=not_there:make", "--checkpoint", file)
    assert "propagation.plug: not_there:make: cannot import not_there" in capsys.readouterr().err
