"""DAN: one frame is the agent, the encoder stays, online learning changes a copy; numbers of the release: workshop/."""
import copy

import pytest
import torch
from material import batch_of, command, episode_of, results_of, same_weights, segmented

import test
import train
from dataloaders.episode import SupportSet
from models.dan import Segmenter, TrainStep, build, losses, online, parameter_groups
from models.dan.encoder import Encoder
from utils.config import load_config

SMALL = ["model.method=dan", "backbone.name=tiny", "backbone.width=8", "backbone.weights=none", "model.key_dim=4",
         "model.value_dim=8", "model.dim=8", "train.amp=off"]
LEARNING = ["online.learning=true", "online.rounds=3", "online.check_every=2", "online.lr=1.0e-3", "online.stop=1.0"]
SIZE = (36, 44)


def config(*overrides):
    return load_config([], [*SMALL, *overrides])


def model_of(*overrides):
    torch.manual_seed(3)
    return build(config(*overrides)).eval()


def outputs(model, images, masks, shots=2):
    """images (B, S + T, 3, H, W), masks (B, S, H, W)  ->  logits (B, T, H, W)"""
    features = model.encode(images)
    supports = model.read_supports(features.frames(slice(0, shots)), masks)
    return model(features.frames(slice(shots, None)), supports, images.shape[-2:])


def inputs(batch=1, frames=5, shots=2):
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(batch, shots + frames, 3, *SIZE, generator=generator, dtype=torch.float32)
    masks = torch.zeros(batch, shots + frames, *SIZE, dtype=torch.bool)
    masks[:, :, 8:28, 10:30] = True
    return images.to(torch.get_default_dtype()), masks


def supports_of(episode):
    return SupportSet(episode.support_images, episode.support_masks)


# -- the network ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("frames, middle", [(5, 2), (4, 2), (2, 1), (1, 0)])
def test_frames_read_the_supports_by_way_of_the_middle_one(frames, middle, exact):
    """Another frame speaks for itself only; the middle one for all."""
    model, (images, masks) = model_of(), inputs(frames=frames)
    before = outputs(model, images, masks[:, :2])
    for t in range(frames):
        changed = images.clone()
        changed[:, 2 + t] += 1
        moved = (outputs(model, changed, masks[:, :2]) != before).flatten(2).any(2)[0]
        assert moved.all() if t == middle else moved.nonzero().flatten().tolist() == [t]


def test_attention_equals_a_loop_over_positions(exact):
    model, (images, masks) = model_of(), inputs(frames=3)
    seen = []
    model.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    outputs(model, images, masks[:, :2])
    c4 = model.encode(images).c4[0]
    small = torch.nn.functional.interpolate(masks[:, :2].double(), c4.shape[-2:], mode="bilinear", align_corners=True)

    def positions(conv, maps):
        return conv(maps).permute(0, 2, 3, 1).flatten(0, 2)                  # one row per frame and position

    marked = c4[:2] * small[0][:, None]
    keys, values = positions(model.support_key, marked), positions(model.support_value, marked)
    queries, agent_keys = positions(model.query_query, c4[2:]), positions(model.query_key, c4[3:4])
    count = len(agent_keys)

    def read(query, keys, values):
        weights = [torch.exp(sum(query * key) / 4 ** 0.5) for key in keys]
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    agents = [read(queries[count + i], keys, values) for i in range(count)]
    for position in (0, 17, count, 2 * count + 5):
        frame, place = divmod(position, count)
        found = seen[0][frame, :8].flatten(1)[:, place]
        torch.testing.assert_close(found, read(queries[position], agent_keys, agents))


def test_a_batch_of_episodes_says_what_each_says_alone(exact):
    model, (images, masks) = model_of(), inputs(batch=2)
    together = outputs(model, images, masks[:, :2])
    for b in range(2):
        torch.testing.assert_close(together[b:b + 1], outputs(model, images[b:b + 1], masks[b:b + 1, :2]))


def test_biases_of_the_keys_change_nothing_and_are_not_trained(exact):
    model, (images, masks) = model_of(), inputs()
    before = outputs(model, images, masks[:, :2])
    for conv in (model.support_key, model.query_key):
        assert not any(p is conv.bias for group in parameter_groups(model, config()) for p in group["params"])
        conv.bias += 3
    torch.testing.assert_close(outputs(model, images, masks[:, :2]), before)


def test_the_paper_s_network_has_the_released_sizes():
    """18.8 M trained; the release counts 5.9 M more that reach no output, and the two biases of the keys."""
    with torch.device("meta"):
        model = build(load_config([], ["model.method=dan"]))
    unused = 9 * 1024 * (128 + 512) + 128 + 512
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained + unused + 2 * 128 == pytest.approx(24.71e6, abs=5e3)
    stage = model.encoder.body.layer3
    assert all(block.conv2.dilation == (2, 2) and block.conv2.stride == (1, 1) for block in stage)
    assert model.encoder.body.layer2[0].conv2.stride == (2, 2)


# -- training -------------------------------------------------------------------------------------------------------

def test_losses_by_hand():
    prob = torch.tensor([[[[0.2, 0.9]], [[0.5, 0.0]]]], dtype=torch.float64)
    truth = torch.tensor([[[[False, True]], [[True, False]]]])
    logs = torch.tensor([0.801, 0.901, 0.501, 1.001], dtype=torch.float64).log()
    assert losses.cross_entropy(prob, truth).item() == pytest.approx(-logs.mean().item())
    weighted = -(0.1 * logs[0] + logs[1] + logs[2] + 0.1 * logs[3]) / 4
    assert losses.cross_entropy(prob, truth, background=0.1).item() == pytest.approx(weighted.item())
    assert losses.iou_loss(prob, truth).item() == pytest.approx(1 - (0.9 / 1.2 + 0.5) / 2)
    assert losses.iou_loss(torch.zeros_like(prob), truth & False).item() == 1
    assert losses.mean_j(prob > 0.3, truth).item() == 1 and losses.mean_j(truth & False, truth & False).item() == 0


def test_training_moves_everything_but_the_encoder_and_learns():
    torch.manual_seed(0)
    step, (images, masks) = TrainStep(build(config()), config()).train(), inputs(batch=2, frames=6)
    batch, before = batch_of(images, masks, 2, 3), copy.deepcopy(step.model.state_dict())
    optimizer = torch.optim.Adam(parameter_groups(step.model, config())[0]["params"], 1e-2)
    totals = []
    for _ in range(8):
        optimizer.zero_grad()
        named = [step(*unit)[0] for unit in step.units(batch)]
        assert len(named) == 2 and set(named[0]) == {"cross_entropy", "soft_iou"}
        totals.append(sum(sum(one.values()) for one in named))
        totals[-1].backward()
        optimizer.step()
    same = {name for name, value in step.model.state_dict().items() if torch.equal(value, before[name])}
    assert totals[-1] < totals[0] and {name for name in before if name.startswith("encoder.")} <= same
    assert same - {"support_key.bias", "query_key.bias"} == {name for name in before if name.startswith("encoder.")}


def test_normalisation_is_frozen_unless_the_release_is_asked_for():
    """The statistics of a batch are used, and remembered, in training only; checkpoints have the same names."""
    images = inputs()[0]
    torch.manual_seed(0)
    frozen, running = Encoder(stem="deep"), Encoder(stem="deep", released_bn=True)
    running.load_state_dict(frozen.state_dict())
    for encoder in (frozen, running):
        encoder.train()(images)
        assert not any(p.requires_grad for p in encoder.parameters())
    start, now = Encoder(stem="deep").state_dict(), running.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in frozen.state_dict().items() if "running" in name)
    moved = {name for name, value in now.items() if "running" in name and not torch.equal(value, start[name])}
    assert moved == {name for name in now if "running" in name}
    running.eval()(images)
    assert same_weights(running.state_dict(), now)


@pytest.mark.parametrize("overrides", [["backbone.name=resnet50", "backbone.cache_frames=9"], []])
def test_running_statistics_need_batches_and_normalisations(overrides):
    with pytest.raises(ValueError, match="released_bn"):
        config("backbone.released_bn=true", *overrides)


# -- tests ----------------------------------------------------------------------------------------------------------

def test_a_video_is_segmented_clip_by_clip_whatever_its_masks():
    """Its last clip is short; the truth is not looked at; an empty support is no error."""
    model, episode = model_of(), episode_of()
    cfg = config()
    found = segmented(Segmenter(model, supports_of(episode), cfg, rng=None), episode.query_images, clip_length=5)
    assert found.margins.shape == (11, *episode.query_images.shape[-2:])
    last = segmented(Segmenter(model, supports_of(episode), cfg, rng=None), episode.query_images[10:], clip_length=5)
    torch.testing.assert_close(last.margins, found.margins[10:])
    told = segmented(Segmenter(model, supports_of(episode), cfg, rng=None), episode.query_images,
                     ~episode.query_masks, clip_length=5)
    assert torch.equal(told.margins, found.margins)
    episode.support_masks[:] = False
    empty = segmented(Segmenter(model, supports_of(episode), cfg, rng=None), episode.query_images, clip_length=5)
    assert empty.margins.isfinite().all()


def test_online_learning_changes_a_copy_of_stage_3_once_per_support_set():
    model, episode, cfg = model_of(), episode_of(), config(*LEARNING)
    before = copy.deepcopy(model.state_dict())
    plain = segmented(Segmenter(model, supports_of(episode), config(), rng=None), episode.query_images)
    first = segmented(Segmenter(model, supports_of(episode), cfg, rng=None), episode.query_images)
    stage, = model.learned.values()
    own = model.encoder.body.layer3.state_dict()
    changed = {name for name, value in stage.state_dict().items() if not torch.equal(value, own[name])}
    assert changed == {"conv.0.weight", "conv.3.weight", "shortcut.weight"}          # not its normalisations
    assert same_weights(model.state_dict(), before) and not torch.equal(first.margins, plain.margins)
    again = segmented(Segmenter(model, supports_of(episode), cfg, rng=None), episode.query_images)
    assert torch.equal(again.margins, first.margins) and [*model.learned.values()] == [stage]
    for n in range(cfg.test.runs):                                         # those of other runs push it out
        Segmenter(model, SupportSet(episode.support_images + n + 1, episode.support_masks), cfg, rng=None)
    assert stage not in model.learned.values() and len(model.learned) == cfg.test.runs


def test_online_learning_stops_where_the_supports_are_segmented_well():
    model, (images, masks) = model_of(), inputs()
    support, masks = model.encode(images[:, :2]), masks[:, :2]
    learned = online.learn(model, support, masks, config(*LEARNING).online)
    assert len(learned.losses) == 3 * 2 and len(learned.j) == 1 + 2        # before, after rounds 0 and 2
    assert learned.losses[-1][0] < learned.losses[0][0]
    assert learned.losses[0][0] == pytest.approx(sum(learned.losses[0][1:]))
    at_once = online.learn(model, support, masks, config(*LEARNING, f"online.stop={learned.j[0] / 2}").online)
    assert at_once.losses == [] and same_weights(at_once.stage.state_dict(), model.encoder.body.layer3.state_dict())
    later = online.learn(model, support, masks, config(*LEARNING, f"online.stop={learned.j[0]}").online)
    assert len(later.losses) in (2, 6) and (len(later.losses) == 2) == (later.j[1] > learned.j[0])


def test_it_trains_and_both_protocols_test_it(demo_root, tmp_path, monkeypatch, no_pages):
    keys = ["data.size=[48,80]", "data.shots=1", "data.clip_length=5", "data.samples_per_class=2", "data.workers=0",
            "data.few_videos=repeat", f"data.root={demo_root}", "train.batch_size=4", "train.epochs=1", "test.runs=2",
            *SMALL[1:], *LEARNING[1:]]
    config = ["config/dan/demo.yaml"]
    command(monkeypatch, train, "--fold", 1, "--output", tmp_path / "run", *keys, config=config)
    given = "--fold", 1, "--checkpoint", tmp_path / "run" / "last.pth", *keys
    for protocol, learning in (("I", "true"), ("II", "false")):
        command(monkeypatch, test, *given, "--output", tmp_path / protocol, f"test.protocol={protocol}",
                f"online.learning={learning}", config=config)
    supports = {}
    for line in results_of(tmp_path / "I"):
        supports.setdefault((line["run"], line["class"]), set()).add(tuple(line["support_frames"]))
    assert len(supports) == 8 and all(len(drawn) == 1 for drawn in supports.values())
    assert len({(line["run"], *line["support_frames"]) for line in results_of(tmp_path / "II")}) > 8
