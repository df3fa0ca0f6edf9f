"""A network of timm in the ResNet's place. With a stand-in for timm, which need not be installed; then with timm."""
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from material import MODEL, TINY, command, results_of
from torch import nn

import test
import train
from models.backbone import Backbone
from models.dan import build as build_dan
from models.vipmt import build
from models.vipmt.similarity import gather_foreground, max_similarity
from utils.checkpoint import load_checkpoint, load_weights
from utils.config import load_config

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.5, 0.5)}
NETWORKS = {"vit": [14] * 8, "vit16": [16] * 12, "pyramid": [2, 4, 8, 16, 32], "two_levels": [4, 8]}


class Network(nn.Module):
    """As timm's: one convolution per level, whose kernel is its stride; `sized` takes one size of input"""

    def __init__(self, strides, size=None):
        super().__init__()
        self.feature_info = [{"reduction": s, "num_chs": 4 + i} for i, s in enumerate(strides)]
        self.convs = nn.ModuleList(nn.Conv2d(3, 4 + i, s, s) for i, s in enumerate(strides))
        self.pretrained_cfg, self.size, self.dynamic_img_size = HALF | {"fixed_input_size": True}, size, size is None

    def prune_intermediate_layers(self, indices, prune_norm):
        self.convs = self.convs[:indices[-1] + 1]

    def forward_intermediates(self, x, indices, norm, intermediates_only):
        assert self.size in (None, list(x.shape[-2:]))
        return [self.convs[i](x) for i in indices]


def create_model(name, pretrained=False, pretrained_cfg_overlay=None, dynamic_img_size=None, img_size=None):
    if name == "sized" and dynamic_img_size:
        raise TypeError("got an unexpected keyword argument 'dynamic_img_size'")
    net = Network(NETWORKS.get(name, NETWORKS["pyramid"]), img_size)
    if pretrained and pretrained_cfg_overlay is None:
        raise OSError("no connection")
    if pretrained:
        net.load_state_dict(pretrained_cfg_overlay["state_dict"])
    return net


@pytest.fixture
def timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(
        create_model=create_model, is_model=lambda name: name in (*NETWORKS, "sized"), __version__="1"))


def public_weights(path, name="vit", seed=7):
    torch.manual_seed(seed)
    torch.save(create_model(name).state_dict(), path)
    return path


def frames(height=35, width=50, count=3):
    return torch.rand(1, count, 3, height, width, generator=torch.Generator().manual_seed(1))


# -- levels ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, channels", [
    ("vit", (5, 7, 9, 11)), ("vit16", (6, 9, 12, 15)), ("pyramid", (5, 6, 7, 8)), ("sized", (5, 6, 7, 8))])
def test_levels_have_the_strides_of_the_resnet_at_any_size(timm, name, channels):
    backbone = Backbone(name=f"timm/{name}")
    assert backbone.channels == channels
    for height, width in ((40, 64), (35, 50), (33, 97)):
        levels = backbone(frames(height, width)).levels()
        small = (-(-height // 8), -(-width // 8))
        assert [x.shape[2:] for x in levels] == [
            (channels[0], -(-height // 4), -(-width // 4)), *((n, *small) for n in channels[1:])]
    shallow = Backbone(name=f"timm/{name}", high_level="c4")
    assert shallow(frames()).c5 is None and shallow.channels == channels[:3]


@pytest.mark.parametrize("name", ["vit", "pyramid"])
def test_a_position_sees_its_own_eight_pixels(timm, name):
    torch.manual_seed(0)
    backbone, images = Backbone(name=f"timm/{name}"), torch.full((1, 1, 3, 40, 64), 0.5)
    before = backbone(images).c4
    images[..., 16:24, 40:48] = 1
    change = (backbone(images).c4 - before).norm(dim=2)[0, 0]
    assert change.argmax() == 2 * 8 + 5
    far = F.max_pool2d((change[None] == change.max()).float(), 3, 1, 1)[0] == 0
    assert change[far].max() < 1e-5


def test_a_patch_of_fourteen_is_eight_pixels_enlarged(timm):
    """The network alone, on frames that divide evenly: what is enlarged, normalised and read where"""
    backbone, images = Backbone(name="timm/vit"), frames(40, 64)
    mean, std = (torch.tensor(HALF[part]).view(3, 1, 1) for part in ("mean", "std"))
    enlarged = F.interpolate((images[0] - mean) / std, (70, 112), mode="bilinear")
    x = backbone.body.net.convs[5](enlarged)
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(backbone(images).c4[0], expected)


@pytest.mark.parametrize("name", ["vit", "pyramid", "sized"])
def test_what_a_frame_lacks_is_black(timm, name):
    backbone, images = Backbone(name=f"timm/{name}"), frames()
    padded = F.pad(images, (0, 14, 0, 13))
    for small, large in zip(backbone(images).levels(), backbone(padded).levels(), strict=True):
        torch.testing.assert_close(small, large[..., :small.shape[-2], :small.shape[-1]], atol=1e-5, rtol=1e-5)


def test_a_frame_beside_others_or_from_the_cache_has_the_same_features(timm):
    plain = Backbone(name="timm/pyramid")
    cached = Backbone(name="timm/pyramid", cache_frames=3)
    cached.load_state_dict(plain.state_dict())
    images = frames()
    together, again = plain(images).levels(), [cached(images).levels() for _ in range(2)][1]
    for t in range(3):
        for level, alone, kept in zip(together, plain(images[:, t:t + 1]).levels(), again, strict=True):
            torch.testing.assert_close(level[:, t:t + 1], alone)
            torch.testing.assert_close(level, kept)


def test_similarities_do_not_depend_on_the_padding_of_the_mask():
    """Features of a transformer may be negative: a position outside the mask counts as a zero vector either way"""
    generator = torch.Generator().manual_seed(2)
    query, support = (torch.randn(1, 2, 3, 2, 3, generator=generator) for _ in range(2))
    masks = torch.tensor([[1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]], dtype=torch.bool).view(1, 2, 2, 3)
    keys = [gather_foreground(support[:, s], masks[:, s]) for s in (slice(0, 1), slice(0, 2))]
    alone, together = (max_similarity(query, one, cosine=True)[:, :, 0] for one in keys)
    torch.testing.assert_close(alone, together)
    assert (alone == 0).any() and (alone >= 0).all()


# -- weights --------------------------------------------------------------------------------------------------------

def config(*overrides):
    return load_config([], [*MODEL, "data.size=[48, 80]", "backbone.name=timm/vit", *overrides])


def test_public_weights_stay_out_of_the_state_dict(timm, tmp_path):
    file = public_weights(tmp_path / "vit.pth")
    for build_model, overrides in ((build, ()), (build_dan, ("model.method=dan",))):
        cfg = load_config([], [*(MODEL if not overrides else ()), "data.size=[48, 80]", "backbone.name=timm/vit",
                               f"backbone.weights={file}", *overrides])
        model = build_model(cfg)
        held = [name for name in model.state_dict() if ".body." in name]
        assert [name.rpartition(".")[2] for name in held] == ["sha256"]
        assert not [name for name, _ in model.named_parameters() if ".body." in name]
        load_weights(build_model(cfg), model.state_dict(), "checkpoint.pth")


def test_a_checkpoint_refuses_other_public_weights(timm, tmp_path):
    first, second = (public_weights(tmp_path / f"{seed}.pth", seed=seed) for seed in (1, 2))
    state = build(config(f"backbone.weights={first}")).state_dict()
    with pytest.raises(ValueError, match=r"backbone.body.sha256 is another one than .* on other frozen weights"):
        load_weights(build(config(f"backbone.weights={second}")), state, "checkpoint.pth")
    with pytest.raises(ValueError, match=r"leaves out a frozen backbone .* and backbone.weights=timm or its file"):
        load_weights(build(config()), state, "checkpoint.pth")
    with pytest.raises(ValueError, match=r"holds its backbone itself: .* backbone.weights=none"):
        load_weights(build(config(f"backbone.weights={first}")), build(config()).state_dict(), "checkpoint.pth")


def test_random_weights_are_part_of_the_checkpoint(timm):
    model, twin = build(config()), build(config())
    load_weights(twin, model.state_dict(), "checkpoint.pth")
    images = frames(48, 80)
    torch.testing.assert_close(model.encode(images).c5, twin.encode(images).c5)
    assert not any(p.requires_grad for p in model.backbone.parameters())


def test_a_network_outside_the_state_dict_moves_with_the_model(timm, tmp_path):
    file = public_weights(tmp_path / "vit.pth")
    backbone = Backbone(name="timm/vit", weights=str(file)).double()
    assert backbone(frames().double()).c4.dtype == torch.float64 and backbone.body.sha256.dtype == torch.uint8


def test_training_and_test_with_public_weights(timm, tmp_path, demo_root, monkeypatch, no_pages):
    """A test loads the encoder anew; a training goes on where it stopped, and not on other weights"""
    first, second = (public_weights(tmp_path / f"{seed}.pth", seed=seed) for seed in (1, 2))
    settings = [*TINY, f"data.root={demo_root}", "backbone.name=timm/vit", f"backbone.weights={first}",
                "backbone.trained=false", "train.epochs=1", "data.samples_per_class=1", "validate.classes=none",
                "test.runs=1"]
    command(monkeypatch, train, "--fold", 1, "--output", tmp_path / "run", *settings, config=())
    weights = load_checkpoint(tmp_path / "run" / "last.pth")["model"]
    assert [name for name in weights if name.startswith("backbone.")] == ["backbone.body.sha256"]
    command(monkeypatch, test, "--fold", 1, "--checkpoint", tmp_path / "run" / "last.pth", "--output",
            tmp_path / "test", *settings, config=())
    assert results_of(tmp_path / "test")
    command(monkeypatch, train, "--fold", 1, "--output", tmp_path / "run", "--resume", *settings, "train.epochs=2",
            config=())
    assert load_checkpoint(tmp_path / "run" / "last.pth")["epoch"] == 2
    with pytest.raises(ValueError, match=r"backbone.weights = .*1.pth, now it is .*2.pth"):
        command(monkeypatch, train, "--fold", 1, "--output", tmp_path / "run", "--resume", *settings,
                f"backbone.weights={second}", config=())


# -- mistakes -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, weights, message", [
    ("nothing", "none", "timm 1 knows no nothing"),
    ("two_levels", "none", "no levels at strides 4, 8, 16 and 32 of two_levels"),
    ("vit", "timm", "with backbone.weights=timm: OSError: no connection\n  Set backbone.weights=timm"),
    ("vit", "nowhere.pth", "no file nowhere.pth.\n  Set backbone.weights=timm"),
])
def test_mistakes_say_what_to_do(timm, name, weights, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Backbone(name=f"timm/{name}", weights=weights)


def test_a_file_of_another_network_is_refused(timm, tmp_path):
    file = public_weights(tmp_path / "pyramid.pth", "pyramid")
    with pytest.raises(ValueError, match=r"timm makes no vit with backbone.weights=.*pyramid.pth: RuntimeError"):
        Backbone(name="timm/vit", weights=str(file))


def test_a_frame_beyond_the_size_of_a_network_is_refused(timm):
    with pytest.raises(ValueError, match="at most 48 x 80, not 49 x 80"):
        Backbone(name="timm/sized", size=(48, 80))(frames(49, 80))


def test_a_missing_timm_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="timm/vit is a network of timm, which is not installed: pip install timm"):
        Backbone(name="timm/vit")


@pytest.mark.parametrize("overrides, message", [
    (["backbone.trained=true"], "timm/vit stays frozen"),
    (["model.method=dan", "online.learning=true"], "online.learning changes stage 3 of a ResNet, and timm/vit stays"),
    (["model.method=dan", "backbone.released_bn=true"], "timm/vit has no such batch normalisation"),
    *((["model.method=" + method], "expected one of resnet18, resnet50, resnet101, got 'timm/vit'")
      for method in ("lwl", "llb", "cma")),
])
def test_where_a_network_of_timm_cannot_stand(overrides, message):
    with pytest.raises(ValueError, match=message):
        load_config([], ["backbone.name=timm/vit", *overrides])


# -- timm itself ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "convnext_atto", "swin_tiny_patch4_window7_224",
                                  "sam2_hiera_tiny", "resnet18"])
def test_networks_of_timm_fill_the_four_levels(name):
    pytest.importorskip("timm")
    backbone, images = Backbone(name=f"timm/{name}"), frames(70, 91, count=2)
    levels = backbone(images).levels()
    assert [x.shape[2:] for x in levels] == [(n, *size) for n, size in zip(
        backbone.channels, [(18, 23), *[(9, 12)] * 3], strict=True)]
    for level, alone in zip(levels, backbone(images[:, 1:]).levels(), strict=True):
        torch.testing.assert_close(level[:, 1:], alone, atol=1e-4, rtol=1e-4)


def test_timm_reads_a_local_file_strictly(tmp_path):
    timm, name = pytest.importorskip("timm"), "convnext_atto"
    save_file = pytest.importorskip("safetensors.torch").save_file
    net = timm.create_model(name)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    torch.save(net.state_dict(), tmp_path / "model.pth")
    first, second = (Backbone(name=f"timm/{name}", weights=str(tmp_path / f"model.{end}"))
                     for end in ("safetensors", "pth"))
    torch.testing.assert_close(first.body.net.stages[2].blocks[0].mlp.fc1.weight,
                               net.stages[2].blocks[0].mlp.fc1.weight)
    assert torch.equal(first.body.sha256, second.body.sha256)
    torch.save(dict(list(net.state_dict().items())[:-5]), tmp_path / "short.pth")
    with pytest.raises(ValueError, match="Missing key"):
        Backbone(name=f"timm/{name}", weights=str(tmp_path / "short.pth"))
