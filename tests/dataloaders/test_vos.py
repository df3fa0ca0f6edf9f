"""The vos task: what indexes find, which samples are drawn, what a test video gives, and what bad data say."""
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from vos_material import LATE, SIZE, squares, write_coco, write_davis, write_video, write_ytvos

from dataloaders import build_index, get_task
from dataloaders.datasets.davis import DavisIndex
from dataloaders.datasets.palette import read_labels
from dataloaders.datasets.ytvos import YouTubeVosIndex
from dataloaders.vos import test_videos as streamed
from dataloaders.vos import train_batches
from dataloaders.vos.sampling import Batches, VosSamples, can_start, draw_frames
from dataloaders.vos.streaming import VosVideos
from utils.config import load_config
from utils.pictures.overlay import palette, save_palette_mask

VAL = "ImageSets/2017/val.txt"


def config(root, *more):
    return load_config([], ["model.method=first_mask", f"data.root={root}", "data.workers=0", "data.size=[32, 48]",
                            "data.clip_length=3", *more])


@pytest.fixture
def davis(tmp_path):
    return tmp_path, write_davis(tmp_path)


# -- masks ----------------------------------------------------------------------------------------------------------

def save(path, array, **options):
    Image.fromarray(np.asarray(array, np.uint8), **options).save(path)
    return path


def test_index_pictures_are_taken_as_they_are(tmp_path):
    labels = squares(5, numbers=(3, 9))
    save_palette_mask(tmp_path / "palette.png", labels)
    assert np.array_equal(read_labels(tmp_path / "palette.png"), labels)
    assert np.array_equal(read_labels(save(tmp_path / "grey.png", labels)), labels)


def test_colours_become_numbers_where_that_is_plain(tmp_path):
    labels = squares(5, numbers=(3, 9))
    assert np.array_equal(read_labels(save(tmp_path / "davis.png", palette()[labels])), labels)
    white = np.repeat(255 * (labels > 0)[..., None], 3, axis=2)
    assert np.array_equal(read_labels(save(tmp_path / "white.png", white)), labels > 0)
    assert np.array_equal(read_labels(save(tmp_path / "grey.png", white[..., 0])), labels > 0)          # DAVIS 2016
    photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3))
    with pytest.raises(ValueError, match=r"photo.png is a picture of \d+ colours.*not those of the DAVIS palette"):
        read_labels(save(tmp_path / "photo.png", photo))


def test_void_beside_objects_is_background_and_more_objects_than_the_palette_has_are_refused(tmp_path):
    labels = squares(5)
    labels[0] = 255
    assert np.array_equal(read_labels(save(tmp_path / "void.png", labels)), squares(5))
    Image.fromarray(np.full(SIZE, 300, np.uint16)).save(tmp_path / "many.png")
    with pytest.raises(ValueError, match="many.png has the number 300; a palette has room for the objects 1 to 254"):
        read_labels(tmp_path / "many.png")


def test_a_soft_edge_in_a_data_set_is_refused_and_a_small_object_beside_void_is_none(tmp_path):
    disc = np.hypot(*(np.mgrid[:40, :50] - np.array([20, 25])[:, None, None])) < 12
    edge = cv2.blur(disc * np.uint8(255), (3, 3))
    for name, mask in (("many", edge), ("few", (edge.astype(int) + 42) // 85 * 85)):
        with pytest.raises(ValueError, match=f"{name}.png has .* as the soft edge of one object"):
            read_labels(save(tmp_path / f"{name}.png", mask))
    for area in (1, 2, 3):
        labels = 255 * disc.astype(np.uint8)
        labels[20:20 + area, 25:25 + area] = 7                    # within void
        labels[2:2 + area, 2:2 + area] = 1                        # apart
        assert set(np.unique(read_labels(save(tmp_path / "small.png", labels)))) == {0, 1, 7}


# -- indexes --------------------------------------------------------------------------------------------------------

def test_davis_knows_objects_starts_and_truth(davis):
    root, labels = davis
    index = DavisIndex(root, VAL, root / "cache")
    assert index.names == ["one", "two"] and index.objects("one") == [1, 2]
    assert index.starts("one") == {1: 0, 2: LATE} and index.truths("one") == list(range(8))
    assert index.areas["one"][2] == {t: 100 for t in range(LATE, 8)}
    assert np.array_equal(index.read_labels("one", 4), labels["one"][4]) and index.size("one") == SIZE
    again = DavisIndex(root, VAL, root / "cache")
    again._count = None                                                    # from the cache
    assert again.areas == index.areas


def test_davis_2016_has_one_object_and_lists_of_frames(davis):
    root, labels = davis
    (root / "2016.txt").write_text("".join(f"/JPEGImages/480p/two/{t:05d}.jpg /Annotations/480p/two/{t:05d}.png\n"
                                           for t in range(8)))
    index = DavisIndex(root, "2016.txt", merge=True)
    assert index.names == ["two"] and index.objects("two") == [1]
    assert np.array_equal(index.read_labels("two", 4), labels["two"][4] > 0)


def test_youtube_vos_asks_for_the_frames_of_its_meta_json_and_takes_lists(tmp_path):
    write_ytvos(tmp_path, asked=[0, 2, 4])
    index = YouTubeVosIndex(tmp_path, "meta.json")
    assert index.names == ["a1", "b2"] and index.asked("a1") == {"00000", "00010", "00020"}
    assert index.category("a1", 2) == "hat" and index.starts("a1") == {1: 0, 2: LATE}
    assert index.truths("a1") == []                                        # first masks alone are no truth
    (tmp_path / "jjvalid.txt").write_text("b2\n")
    assert YouTubeVosIndex(tmp_path, tmp_path / "jjvalid.txt").names == ["b2"]
    (tmp_path / "other.txt").write_text("c3\n")
    with pytest.raises(ValueError, match="other.txt: lists 'c3', which .*meta.json does not know"):
        YouTubeVosIndex(tmp_path, "other.txt")


def test_what_is_wrong_with_a_data_set_is_said_with_its_place(davis):
    root, _ = davis
    (root / "gone.txt").write_text("one\nthree\n")
    with pytest.raises(FileNotFoundError, match=r"gone.txt: lists 'three', but there is no folder .*480p/three"):
        DavisIndex(root, "gone.txt")
    (root / "out.txt").write_text("../480p/one\n")
    with pytest.raises(FileNotFoundError, match="out.txt: lists"):
        DavisIndex(root, "out.txt")
    with pytest.raises(FileNotFoundError, match="no file none.txt"):
        DavisIndex(root, "none.txt")
    save_palette_mask(root / "Annotations/480p/two/00099.png", squares(0))
    with pytest.raises(FileNotFoundError, match="00099.png: this frame does not exist"):
        DavisIndex(root, VAL).objects("two")
    save_palette_mask(root / "Annotations/480p/one/00002.png", squares(2)[:-1])
    with pytest.raises(ValueError, match="one/00002.png has 39 x 56 pixels, its frame 40 x 56"):
        DavisIndex(root, VAL).read_labels("one", 2)
    (root / "meta.json").write_text('{"videos": {"a": {"objects": 3}}}')
    with pytest.raises(ValueError, match="not the meta.json of YouTube-VOS"):
        YouTubeVosIndex(root, "meta.json")


# -- training -------------------------------------------------------------------------------------------------------

def test_frames_of_a_sample_follow_the_rule():
    shown = [(place, 10 * place) for place in (0, 2, 3, 5, 6, 7, 8, 9, 10)]
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        first, *later = draw_frames(shown, 11, 3, 3, rng)
        assert later == sorted(later) and first < 80 and all(0 < t - first < 30 + 50 for t in later) and len(later) == 3
        seen |= {(first, t) for t in later}
    near = {(a, b) for a, b in seen if b - a < 30}
    assert {a for a, _ in seen} == {0, 20, 30, 50, 60, 70} and (0, 10) not in seen and near == seen
    sparse = [(0, 0), (40, 1), (41, 2)]                    # nothing near: the gap grows until it reaches
    assert set(draw_frames(sparse, 50, 2, 3, rng)[1:]) <= {1, 2}
    assert not can_start([(9, 9)], 10, 3) and can_start([(9, 9)], 10, 0) and not can_start([(2, 2)], 10, 3)


def sources(root):
    return [f"sources.davis={root}", f"sources.davis_list={VAL}", "sources.ytvos_weight=0", "data.min_frames=4",
            "data.samples=8", "train.batch_size=4"]


def test_training_batches_show_one_object_and_come_again_exactly(davis):
    root, _ = davis
    cfg = config(root, *sources(root), "data.rotation=0", "data.brightness=0")
    index = build_index(cfg, root / "cache", get_task("vos"))
    batches = list(train_batches(cfg, index, None, epoch=0))
    assert len(batches) == 2 and batches[0].images.shape == (4, 4, 3, 32, 48) and batches[0].images.max() <= 1
    assert batches[0].masks.dtype == torch.bool and batches[0].masks[:, 0].flatten(1).any(dim=1).all()
    assert all(name.startswith("davis/") for name in batches[0].ids) and batches[1].keys[0] == ("train", 0, 4)
    # Red and green objects on grey: where a sample's mask is, its colour dominates.
    images, masks = batches[0].images, batches[0].masks
    spread = (images.amax(dim=2) - images.amin(dim=2))
    assert masks.any() and spread[masks].median() > 0.3 > spread[~masks].median()
    again, = train_batches(cfg, index, None, epoch=0, start=1)
    assert torch.equal(again.images, batches[1].images) and again.ids == batches[1].ids
    other = next(iter(train_batches(cfg, index, None, epoch=1)))
    assert not torch.equal(other.images, batches[0].images)
    halves = [next(iter(train_batches(cfg, index, None, epoch=0, part=(rank, 2)))) for rank in range(2)]
    assert torch.equal(torch.cat([half.images for half in halves]), batches[0].images)


def test_sources_are_drawn_by_their_weights_and_say_what_they_lack(davis):
    root, _ = davis

    class Named:
        def __init__(self, name):
            self.name = name

        def draw(self, rng):
            return [(np.zeros((*SIZE, 3), np.uint8), squares(4))] * 4, self.name
    cfg = config(root)
    samples = VosSamples([(6, Named("y")), (1, Named("d"))], cfg)
    drawn = [samples[0, n].id for n in range(280)]
    assert 220 <= drawn.count("y") <= 260                  # 240 expected
    with pytest.raises(ValueError, match="sources.davis: no object of .*val.txt is annotated in 9 frames"):
        next(iter(
            train_batches(config(root, *sources(root)[:3]), _index(cfg), None, 0)))
    with pytest.raises(ValueError, match="sources: all weights are 0"):
        train_batches(config(root, "sources.davis_weight=0", "sources.ytvos_weight=0"), _index(cfg), None, 0)
    with pytest.raises(ValueError, match="cannot share it evenly"):
        Batches(8, 4, 0, part=(0, 3))


def _index(cfg):
    return DavisIndex(cfg.data.root, cfg.data.annotations)


def test_pictures_of_coco_are_moved_by_the_augmentation(tmp_path, davis):
    root, _ = davis
    folder = tmp_path / "coco"
    write_coco(folder, root / "JPEGImages/480p/one/00004.jpg")
    cfg = config(root, "sources.ytvos_weight=0", "sources.davis_weight=0", "sources.coco_weight=1",
                 f"sources.coco={folder}", "sources.coco_list=i.json", "sources.coco_images=images", "data.samples=4",
                 "train.batch_size=2", "data.grey=0")
    for batch in train_batches(cfg, _index(cfg), None, 0):
        assert batch.ids == ["coco/4.jpg annotation 1"] * 2 and batch.masks[:, 0].flatten(1).any(dim=1).all()
        assert not torch.equal(batch.images[:, 0], batch.images[:, 1])
        red = batch.images[:, :, 2] - batch.images[:, :, 0]          # cv2.imwrite took its colours for BGR
        assert red[batch.masks].median() > 0.4


# -- tests ----------------------------------------------------------------------------------------------------------

def clips_of(root, *more):
    cfg = config(root, *more)
    return {video.id: (video, list(video.clips)) for video in streamed(cfg, build_index(
        cfg, None, get_task("vos")), None)}


def test_a_test_video_gives_masks_once_and_truth_where_it_is_scored(davis):
    root, labels = davis
    video, clips = clips_of(root)["one"]
    assert [len(clip.images) for clip in clips] == [3, 3, 2] and clips[0].images.shape[-2:] == SIZE
    assert video.references[0].object_ids == [1, 2] and len(video.frames) == 8
    given, truth, scored = (torch.cat([getattr(clip, name) for clip in clips], dim=1).numpy()
                            for name in ("given", "masks", "scored"))
    assert [given[o].any(axis=(1, 2)).nonzero()[0].tolist() for o in (0, 1)] == [[0], [LATE]]
    assert np.array_equal(given[1, LATE], labels["one"][LATE] == 2)
    assert scored[0].nonzero()[0].tolist() == list(range(1, 7))            # neither the first nor the last frame
    assert scored[1].nonzero()[0].tolist() == list(range(LATE + 1, 7))
    assert np.array_equal(truth[1, LATE + 1], labels["one"][LATE + 1] == 2)
    assert [fact["frames"][0] for fact in video.references[0].facts] == ["one/00001", f"one/{LATE + 1:05d}"]
    _, clips = clips_of(root, "metrics.skip_ends=first")["one"]
    assert clips[-1].scored[:, -1].all()


def test_first_masks_alone_are_no_truth_unless_a_folder_has_it(tmp_path):
    labels = write_ytvos(tmp_path / "valid")
    kind = ("data.dataset=ytvos", "data.annotations=meta.json", "metrics.skip_ends=first")
    video, clips = clips_of(tmp_path / "valid", *kind)["a1"]
    assert all(clip.masks is None for clip in clips) and clips[1].given[1, 0].any()
    for t, one in enumerate(labels["a1"]):
        save_palette_mask(tmp_path / "truth" / "a1" / f"{5 * t:05d}.png", one)
    both = clips_of(tmp_path / "valid", *kind, f"data.truth={tmp_path / 'truth'}")
    assert both["a1"][1][0].masks is not None and both["b2"][1][0].masks is None
    assert both["a1"][0].references[0].facts[1]["frames"] == [f"a1/{5 * t:05d}" for t in range(LATE + 1, 8)]


def test_one_frame_and_late_objects_and_no_object(tmp_path):
    write_davis(tmp_path, names=("short", "later"), frames=1)
    write_video(tmp_path, "later", 5, given_only=True, late=3)
    (tmp_path / "Annotations/480p/later/00000.png").unlink()               # object 2 appears in frame 3, no other one
    videos = clips_of(tmp_path)
    assert videos["short"][0].references[0].facts[0]["frames"] == []       # nothing is left to score
    assert videos["later"][0].references[0].object_ids == [2]
    assert not videos["later"][1][0].given.any() and videos["later"][1][1].given[0, 0].any()
    for file in (tmp_path / "Annotations/480p").rglob("*.png"):
        save_palette_mask(file, np.zeros(SIZE, np.uint8))
    with pytest.raises(ValueError, match="no object is marked in any video"):
        clips_of(tmp_path)


def test_videos_that_are_done_are_left_out(davis):
    root, _ = davis
    cfg = config(root)
    index = _index(cfg)
    keys = VosVideos(index, cfg).keys()
    assert keys == [(0, 1, "one"), (0, 2, "one"), (0, 1, "two"), (0, 2, "two")]
    assert VosVideos(index, cfg, frozenset(keys[:2])).names == ["two"]
    assert VosVideos(index, cfg, frozenset(keys[:1])).names == ["one", "two"]
