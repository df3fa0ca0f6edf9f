"""Episode lists: what is written is what a test draws, what is replayed is what is written, and every bad file."""
import json
import random
import re

import numpy as np
import pytest
import torch
from material import DEMO, GONE, FakeIndex, changed, command, results_of, small_config, with_few_videos

import test as test_script
from dataloaders import build_index
from dataloaders.datasets.minivspw import MiniVSPWIndex
from dataloaders.fewshot.episode_list import (
    annotation_record,
    check_header,
    drawn_entries,
    list_header,
    list_text,
    parse_episode_list,
    read_episode_list,
    replay,
    result_entries,
)
from dataloaders.fewshot.loaders import test_videos
from dataloaders.fewshot.streaming import EpisodeStream, RunsTogether, TestEpisodes
from models import get_method
from tools import episodes as tool
from tools.demo_data.minivspw import write_demo_minivspw
from utils.checkpoint import save_checkpoint
from utils.config import load_config, to_dict, user_errors
from utils.records import read_json_lines

COUNTS = {1: 6, 5: 4}


@pytest.fixture
def cfg():
    return small_config(shots=2)


@pytest.fixture
def index():
    return FakeIndex(COUNTS, length=7)


def runs_of(cfg, index, runs=2):
    return [TestEpisodes(index, [1, 5], cfg, run) for run in range(runs)]


def content_of(cfg, index, runs=2):
    """What the file of a drawn list holds, parsed."""
    entries = [entry for episodes in runs_of(cfg, index, runs) for entry in drawn_entries(episodes)]
    return json.loads(list_text(list_header(cfg, index, 1), entries))


def replayed(content, cfg, index):
    listed = parse_episode_list(content, "list.json")
    check_header(listed, cfg, 1)
    return replay(listed, cfg, index, [1, 5])


def all_of(runs):
    """Every run of every video and its clips that a stream gives, in its order: facts, size, sums of tensors, masks."""
    together, found = RunsTogether(runs), []
    for video in EpisodeStream(together, range(len(together))):
        clips = [(clip.images.sum().item(), clip.masks.tolist()) for clip in video.clips]
        found += [(*one.facts, video.original_size, one.images.sum().item(), one.masks.tolist(), clips)
                  for one in video.references]
    return found


# -- replay is the drawn test

@pytest.mark.parametrize("protocol", ["I", "II"])
def test_replayed_list_is_the_drawn_test(cfg, index, protocol):
    cfg.test.protocol = protocol
    content = content_of(cfg, index, runs=3)
    drawn, listed = (all_of(runs) for runs in (runs_of(cfg, index, 3), replayed(content, cfg, index)))
    assert listed == drawn and len(listed) == 3 * (10 if protocol == "II" else 6)


def test_header_says_what_was_drawn(cfg, tmp_path):
    index = FakeIndex(COUNTS)
    index.path = tmp_path / "train.json"
    index.path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"      # FIPS 180-2, appendix B.1
    assert {key: value for key, value in content_of(cfg, index).items() if key not in ("episodes", "frame_names")} == {
        "format": "few-shot video episodes", "version": 1, "dataset": "ytvis", "fold": 1, "protocol": "II", "shots": 2,
        "seed": 42, "annotations": {"file": "train.json", "bytes": 3, "sha256": digest}}


def test_writing_decodes_no_image_and_a_line_is_an_episode(cfg, index):
    entries = list(drawn_entries(runs_of(cfg, index)[0]))
    assert index.read == [] and len(entries) == 10
    lines = list_text(list_header(cfg, index, 1), entries).splitlines()
    assert [json.loads(line.strip().rstrip(",")) for line in lines[-12:-2]] == entries
    assert entries[0]["frames"] == [f"v100/{t:05d}.jpg" for t in range(2, 9)]


@pytest.mark.parametrize("protocol", ["I", "II"])
def test_supports_are_those_that_loading_ends_with(cfg, protocol):
    """A support too small at input size is replaced when it is written, not when it is replayed."""
    cfg.test.protocol = protocol
    tiny = [(100 + video, frame) for video in range(6) for frame in range(2, 7)]
    index = FakeIndex(COUNTS, length=7, tiny=tiny)
    content = content_of(cfg, index)
    named = {s["frame"] for entry in content["episodes"] for s in entry["supports"] if entry["class_id"] == 1}
    assert named and all(name[-9:-4] in ("00007", "00008") for name in named)
    assert index.read and all(video < 500 for video, _ in index.read)      # class 5 is never too small
    assert all_of(replayed(content, cfg, index)) == all_of(runs_of(cfg, index))


def test_few_videos_are_said_to_share(cfg):
    cfg, index = with_few_videos(cfg, shots=5), FakeIndex({1: 1, 5: 3})
    content = content_of(cfg, index)
    assert all(entry["supports_share_video"] for entry in content["episodes"])
    assert all_of(replayed(content, cfg, index)) == all_of(runs_of(cfg, index))


def test_frames_without_the_class_are_listed_and_replayed(cfg, index):
    index.scored_frames = lambda video, class_id: np.arange(9)
    content = content_of(cfg, index)
    assert content["episodes"][0]["frames"][0] == "v100/00000.jpg" and len(content["episodes"][0]["frames"]) == 9
    assert all_of(replayed(content, cfg, index)) == all_of(runs_of(cfg, index))


# -- lists edited by hand

def test_fewer_episodes_other_supports_and_frames_work(cfg, index):
    content = content_of(cfg, index, runs=4)
    by_key = {(e["run"], e["video"]): e for e in content["episodes"]}
    kept = [by_key[key] for key in ((3, "v501"), (3, "v100"), (0, "v100"), (1, "v100"))]
    kept[1]["frames"] = kept[1]["frames"][1::2]
    kept[2]["supports"] = [{"video": f"v10{n}", "frame": f"v10{n}/00005.jpg"} for n in (4, 3)]
    kept[3]["frames"] = ["v100/00000.jpg", *kept[3]["frames"]]      # one without the class
    runs = replayed(content | {"episodes": kept, "protocol": None}, cfg, index)
    assert [episodes.run for episodes in runs] == [0, 1, 3]
    found = {(f["run"], f["video"]): (f["frames"], f["support_frames"], clips) for f, *_, clips in all_of(runs)}
    assert found.keys() == {(e["run"], e["video"]) for e in kept}
    for entry in kept:
        frames, supports, clips = found[entry["run"], entry["video"]]
        assert frames == entry["frames"] and supports == [s["frame"] for s in entry["supports"]]
        shown = [np.any(mask) for _, (masks,) in clips for mask in masks]
        assert shown == [frame[-9:] not in ("00000.jpg", "00001.jpg") for frame in frames]


def test_other_frames_of_a_video_are_another_group(cfg, index):
    content = content_of(cfg, index)
    changed = next(e for e in content["episodes"] if (e["run"], e["video"]) == (1, "v103"))
    changed["frames"] = changed["frames"][:3]
    together = RunsTogether(replayed(content, cfg, index))
    assert len(together) == 11 and together.num_runs(0) == 2
    stream = EpisodeStream(together, range(11))
    assert stream.frames == 19 * 7 + 3


def test_support_that_shows_nothing_at_input_size_is_an_error_not_replaced(cfg, index):
    runs = replayed(content_of(cfg, index), cfg, index)
    video, frame = runs[0].plan(0).supports[1]
    index.tiny.add((video, frame))
    with pytest.raises(ValueError, match=rf"list.json: support 'v{video}/{frame:05d}.jpg' shows nothing of class cla"):
        next(iter(EpisodeStream(runs[0], [0])))


def test_query_video_gives_supports_only_where_the_list_says_so(cfg, index):
    content = content_of(cfg, index)
    entry = content["episodes"][0]
    entry["supports"][0] = {"video": "v100", "frame": "v100/00004.jpg"}
    with pytest.raises(ValueError, match=r'episodes\[0\]: a support comes from the query video.*"supports_share_vid'):
        replayed(content, cfg, index)
    entry["supports_share_video"] = True
    assert RunsTogether(replayed(content, cfg, index)).video(0).references[0].facts[0]["supports_share_video"]


def test_other_annotations_are_reported_once(cfg, index, tmp_path, caplog):
    index.path = tmp_path / "train.json"
    index.path.write_bytes(b"abc")
    content = content_of(cfg, index)
    replayed(content, cfg, index)
    assert not caplog.records
    index.path.write_bytes(b"abcd")
    replayed(content, cfg, index)
    assert "another train.json (SHA-256 ba7816bf8f01..., here 88d4266fd4e6...)" in caplog.text
    assert len(caplog.records) == 1


def test_results_give_the_list_of_their_test(cfg, index):
    lines = [{"fold": 1, **facts, "j": [0.5]} for facts, *_ in all_of(runs_of(cfg, index))]
    assert result_entries(lines, index, [1, 5], "results.jsonl") == content_of(cfg, index)["episodes"]
    for change, message in (({"support_frames": ["v900/00002.jpg"]}, "line 2: no video of test class 1 .* 'v900/00002"),
                            ({"class_id": 7}, "line 2: no video of test class 7"),
                            ({"support_frames": 3}, "line 2: support_frames is an integer, expected a list"),
                            ({"run": "x"}, "line 2: run is text, expected an integer")):
        with pytest.raises(ValueError, match=message):
            result_entries([lines[0], lines[1] | change], index, [1, 5], "results.jsonl")


# -- bad files

ENTRY = "episodes.3"
BAD_ENTRIES = [
    ("format", GONE, "the top level has no 'format'"),
    ("version", 2, "version 2; this program reads 'few-shot video episodes', version 1"),
    ("version", True, "version is true or false, expected an integer"),
    ("fold", 5, "fold: expected an integer <= 4"),
    ("fold", 2, "have --fold 2, the test has 1.\n  Give --fold 2"),
    ("dataset", "minivspw", "have data.dataset minivspw, the test has ytvis"),
    ("protocol", "I", "Give test.protocol=I"),
    ("protocol", "III", "protocol: expected \"I\", \"II\" or null, got 'III'"),
    ("shots", 5, "have data.shots 5, the test has 2"),
    ("shots", 0, "shots: expected an integer >= 1"),
    ("annotations", {}, "annotations has no 'sha256'"),
    ("episodes", [], "episodes: expected a list of length >= 1"),
    (ENTRY, None, "episodes[3] is null, expected an object"),
    (f"{ENTRY}.run", -1, "episodes[3].run: expected an integer >= 0"),
    (f"{ENTRY}.run", 1, "episodes[3] and episodes[13] are both of run 1, class 1, video 'v103'"),
    (f"{ENTRY}.class_id", 3, "episodes[3]: class 3 is no test class of the fold; these are 1, 5"),
    (f"{ENTRY}.class_id", 5, "no video 'v103' of class 5 (class5) in fake.json"),
    (f"{ENTRY}.class", "dog", "class 1 is 'class1' here, not 'dog'"),
    (f"{ENTRY}.class", 1, "episodes[3].class is an integer, expected text"),
    (f"{ENTRY}.video", "../../v103", "episodes[3]: no video '../../v103' of class 1"),
    (f"{ENTRY}.frames", [], "episodes[3].frames: expected a list of length >= 1"),
    (f"{ENTRY}.frames.1", "v104/00003.jpg", "video v103 has no frame 'v104/00003.jpg'"),
    (f"{ENTRY}.frames.1", "/etc/passwd", "video v103 has no frame '/etc/passwd'"),
    (f"{ENTRY}.frames.1", "v103/00008.jpg", "frames: a frame is named twice"),
    (f"{ENTRY}.frames", ["v103/00005.jpg", "v103/00004.jpg"], "not in the order of the video"),
    (f"{ENTRY}.supports.1", GONE, "has 1 supports, but data.shots is 2"),
    (f"{ENTRY}.supports.1.frame", "../x.jpg", "has no frame '../x.jpg'"),
    (f"{ENTRY}.supports.1.video", "v500", "supports[1]: no video 'v500' of class 1"),
    (f"{ENTRY}.supports.1", {"video": "v104", "frame": "v104/00001.jpg"}, "does not show class class1"),
]


@pytest.mark.parametrize("path, value, message", BAD_ENTRIES)
def test_bad_entries_are_named(cfg, index, path, value, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        replayed(changed(content_of(cfg, index), path, value), cfg, index)
    assert str(error.value).startswith("list.json: ") and "\n  " in str(error.value) and index.read == []


def test_file_that_is_no_list_is_named(tmp_path):
    """What is no JSON, and in which words that is said: test_ytvis.py."""
    (tmp_path / "list.json").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"list.json: no valid JSON.*\n  .*-m tools.episodes"):
        read_episode_list(tmp_path / "list.json")
    with pytest.raises(FileNotFoundError, match=r"no file .*other.json.\n.*-m tools.episodes"):
        read_episode_list(tmp_path / "other.json")


def places(value, path=()):
    """Every place in nested dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


def test_whatever_stands_in_the_file_no_other_error_comes(cfg, index):
    """Values of the wrong kind at random places: a ValueError, or the list is right all the same."""
    content = content_of(cfg, index, runs=1)
    content["episodes"] = content["episodes"][:3]
    values = [None, True, -1, 0, 1, 3, 10**30, 1.5, float("nan"), "", "I", "v100", "\ud800", "../..", [], [[]], {}]
    draw, accepted = random.Random(0), 0
    for place in list(places(content)) * 4:
        broken = changed(content, ".".join(map(str, place)), draw.choice(values))
        try:
            RunsTogether(replayed(broken, cfg, index))
            accepted += 1
        except ValueError as error:
            assert str(error).encode() and "\n  " in str(error)
    assert 0 < accepted < 60 and index.read == []


# -- the tool and test.py

TINY = ["data.size=[48, 80]", "data.shots=2", "data.few_videos=repeat", "data.clip_length=4", "backbone.width=8",
        "model.dim=16", "model.layers=1", "model.heads=2", "model.ffn_dim=16", "iou_net.dim=4", "iou_net.hidden=8",
        "memory.min_iou=0.0"]


def untrained(folder, fold, overrides):
    """A checkpoint of a model as it is before training: its masks are neither empty nor full."""
    cfg = load_config([DEMO], overrides)
    torch.manual_seed(0)
    model = get_method(cfg.model.method).build(cfg)
    save_checkpoint(folder / "last.pth", {"model": model.state_dict(), "fold": fold, "config": to_dict(cfg)})
    return folder / "last.pth"


def test_replayed_test_writes_the_very_lines_of_the_drawn_one(monkeypatch, demo_root, tmp_path, capsys):
    settings = [f"data.root={demo_root}", *TINY]
    checkpoint = untrained(tmp_path, 1, settings)
    tested = ["--checkpoint", checkpoint, *settings]
    command(monkeypatch, test_script, *tested, "--fold", 1, "--output", tmp_path / "drawn", "--runs", 2)
    command(monkeypatch, tool, "--fold", 1, "--output", tmp_path / "list.json", *settings, "test.runs=2")
    command(monkeypatch, test_script, *tested, "--episodes", tmp_path / "list.json", "--output", tmp_path / "again")
    assert results_of(tmp_path / "again") == results_of(tmp_path / "drawn")
    lines = read_json_lines(tmp_path / "again" / "results.jsonl")
    assert {line["run"] for line in lines} == {0, 1} and any(0 < j < 1 for line in lines for j in line["j"])
    assert (tmp_path / "again" / "table.md").read_text() == (tmp_path / "drawn" / "table.md").read_text()

    command(monkeypatch, tool, "--from-results", tmp_path / "drawn" / "results.jsonl",
            "--output", tmp_path / "from.json", f"data.root={demo_root}")
    assert (tmp_path / "from.json").read_bytes() == (tmp_path / "list.json").read_bytes()

    results = tmp_path / "again" / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-300])          # interrupted: its last line is torn
    command(monkeypatch, test_script, *tested, "--episodes", tmp_path / "list.json", "--output", tmp_path / "again")
    assert results_of(tmp_path / "again") == results_of(tmp_path / "drawn")

    with monkeypatch.context() as patch, pytest.raises(SystemExit), user_errors():
        command(patch, test_script, *tested, "--fold", 1, "--output", tmp_path / "again")
    assert "episodes were a list (SHA-256 " in (said := capsys.readouterr().err) and "are drawn" in said
    shorter = json.loads((tmp_path / "list.json").read_text())
    shorter["episodes"] = shorter["episodes"][-3:]
    (tmp_path / "short.json").write_text(json.dumps(shorter))
    with pytest.raises(ValueError, match="belongs to another test: episodes were a list"):
        command(monkeypatch, test_script, *tested, "--episodes", tmp_path / "short.json",
                "--output", tmp_path / "again")
    command(monkeypatch, test_script, *tested, "--episodes", tmp_path / "short.json", "--output", tmp_path / "short")
    kept = [(line["run"], line["video"], line["j"]) for line in read_json_lines(tmp_path / "short" / "results.jsonl")]
    assert kept == [(line["run"], line["video"], line["j"]) for line in lines if line["run"] == 1][-3:]


def test_results_bring_protocol_seed_and_shots_of_their_test(cfg, tmp_path):
    file, note = tmp_path / "results.jsonl", tmp_path / "test.json"
    file.write_text('{"fold": 3}\n{"fold": 3}\n')
    assert tool.results_of(file, None, cfg) == ([{"fold": 3}] * 2, 3) and cfg.test.protocol == "II"
    header = {"config": {"test.protocol": "I", "seed": 7, "data.shots": 1}, "episodes": None}
    note.write_text(json.dumps(header))
    assert tool.results_of(file, 3, cfg)[1] == 3
    assert (cfg.test.protocol, cfg.seed, cfg.data.shots) == ("I", 7, 1)
    note.write_text(json.dumps(header | {"episodes": "0123"}))       # replayed, from a list by whatever rule
    tool.results_of(file, 3, cfg)
    assert cfg.test.protocol is None and cfg.seed is None


@pytest.mark.parametrize("lines, note, message", [
    ('{"fold": 3}\n{"fold": 1}\n', None, "of fold 1, 3, not one fold"), ("", None, "of fold nothing"),
    ("[]\n", None, r"of fold \?, not one fold"), ('{"fold": 9}\n', None, "of fold 9"),
    ('{"fold": 3}\n', "{}", "no description of a test .KeyError"), ('{"fold": 3}\n', "[", "no description of a test"),
    ('{"fold": 3}\n', "[]", "no description of a test .TypeError")])
def test_results_that_give_no_list_are_named(cfg, tmp_path, lines, note, message):
    (tmp_path / "results.jsonl").write_text(lines)
    if note:
        (tmp_path / "test.json").write_text(note)
    with pytest.raises(ValueError, match=message):
        tool.results_of(tmp_path / "results.jsonl", None, cfg)
    with pytest.raises(ValueError):
        tool.results_of(tmp_path / "results.jsonl", 2, cfg)


@pytest.mark.parametrize("arguments, message", [
    (["--episodes", "{list}", "--fold", 2, "--checkpoint", "{fold2}"], "have --fold 1, the test has 2"),
    (["--episodes", "{list}", "{list}", "--checkpoint", "{fold1}", "{fold1}"], "name one per fold"),
    (["--episodes", "{list}", "--runs", 1], "--runs: with --episodes"),
    (["--episodes", "{list}", "--checkpoint", "{fold1}", "test.protocol=I"], "Give test.protocol=II"),
    (["--episodes", "nowhere.json"], "no file nowhere.json"),
])
def test_arguments_that_do_not_fit_a_list_are_refused(monkeypatch, demo_root, tmp_path, arguments, message):
    settings = [f"data.root={demo_root}", *TINY]
    names = {"list": tmp_path / "list.json"} | {
        f"fold{fold}": untrained(tmp_path / str(fold), fold, settings) for fold in (1, 2)}
    command(monkeypatch, tool, "--fold", 1, "--output", names["list"], *settings, "test.runs=1")
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        command(monkeypatch, test_script, *settings, *(str(a).format(**names) for a in arguments),
             "--output", tmp_path / "out")
    assert not (tmp_path / "out" / "results.jsonl").exists()


@pytest.fixture(scope="module")
def vspw(tmp_path_factory):
    """A small data set like MiniVSPW: some listed frames lack a class that their video is tested with"""
    write_demo_minivspw(root := tmp_path_factory.mktemp("vspw") / "demo", videos_per_category=2, size=(48, 80),
                        frames=(4, 4))
    return root


def test_minivspw_is_listed_and_replayed_with_frames_that_lack_the_class(monkeypatch, vspw, tmp_path):
    settings = ["data.dataset=minivspw", f"data.root={vspw}", "data.annotations=minivspw_lists", *TINY]
    tested = ["--checkpoint", untrained(tmp_path, 2, settings), *settings]
    command(monkeypatch, tool, "--fold", 2, "--output", tmp_path / "list.json", *settings, "test.runs=1")
    content, (index, classes) = json.loads((tmp_path / "list.json").read_text()), MiniVSPWIndex(vspw).side(2, "test")
    assert content["dataset"] == "minivspw" and content["annotations"]["file"] == "test_1.txt"
    videos = {(c, index.video_name(v)): v for c in classes for v in index.videos(c)}
    assert [(entry["class_id"], entry["video"]) for entry in content["episodes"]] == list(videos)
    shown = {key: [index.file_name(v, t) for t in index.frames(v, key[0])] for key, v in videos.items()}
    for entry in content["episodes"]:
        video = videos[entry["class_id"], entry["video"]]
        assert entry["frames"] == [index.file_name(video, t) for t in range(index.length(video))]
        assert all(one["frame"] in shown[entry["class_id"], one["video"]] for one in entry["supports"])
    assert any(len(shown[key]) < index.length(video) for key, video in videos.items())
    command(monkeypatch, test_script, *tested, "--fold", 2, "--output", tmp_path / "drawn", "--runs", 1)
    command(monkeypatch, test_script, *tested, "--episodes", tmp_path / "list.json", "--output", tmp_path / "again")
    assert results_of(tmp_path / "again") == results_of(tmp_path / "drawn")
    assert len(results_of(tmp_path / "again")) == len(videos)


def test_no_list_of_stills_and_none_for_another_fold(cfg, vspw):
    cfg.data.update(dataset="minivspw", root=str(vspw), annotations="minivspw_lists", few_videos="repeat")
    index = build_index(cfg)
    index, classes = index.side(2, "test")
    assert annotation_record(index)["bytes"] == (vspw / "minivspw_lists" / "test_1.txt").stat().st_size
    entries = list(drawn_entries(TestEpisodes(index, classes, cfg, 0)))
    content = list_header(cfg, index, 2) | {"episodes": entries}
    listed = parse_episode_list(content, "list.json")
    stream = test_videos(cfg, index, 2, listed=listed)
    assert sum(len(video.references) for video in stream) == len(entries)
    with pytest.raises(ValueError, match="Give --fold 2"):
        test_videos(cfg, index, 3, listed=listed)
    cfg.data.dataset = "coco20i"
    with pytest.raises(ValueError, match="stills have no test episodes"):
        list_header(cfg, index, 1)
