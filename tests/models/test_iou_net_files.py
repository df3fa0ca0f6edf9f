"""IoUNet from another file: iou_net.weights of a training, test.py --iou-net; and which files are refused."""
from types import SimpleNamespace

import pytest
import torch
from material import TINY, command, result_line, results_of

import test as test_script
import train
from dataloaders import get_task
from models import get_method
from models.vipmt.build import build
from models.vipmt.iou_net_files import load_iou_net, with_iou_net
from utils.checkpoint import load_checkpoint, load_weights, save_checkpoint
from utils.config import load_config, to_dict
from utils.evaluation.results import describe_test, open_results

SETTINGS = [*TINY, "data.shots=1", "data.clip_length=3", "model.layers=1", "model.init=balanced", "iou_net.dim=8",
            "iou_net.hidden=16", "iou_net.init=fan_in", "memory.min_iou=0.5", "test.runs=1"]
PLAIN = ["iou_net.similarity_maps=false", "iou_net.dim=4", "iou_net.hidden=8"]      # an IoUNet of another shape


def config(*overrides):
    return load_config([], [*SETTINGS, *overrides])


def checkpoint(path, *overrides, fold=1, seed=1, without=()):
    """A checkpoint as train.py writes it, of an untrained model  ->  its path"""
    cfg = config(*overrides)
    torch.manual_seed(seed)
    save_checkpoint(path, {"model": build(cfg).state_dict(), "fold": fold, "config": to_dict(cfg), "epoch": 1})
    state = load_checkpoint(path)
    save_checkpoint(path, {name: value for name, value in state.items() if name not in without})
    return path


def judge_of(path):
    return {name: value for name, value in load_checkpoint(path)["model"].items() if name.startswith("iou_net.")}


def load(path, *overrides, fold=1):
    """As a training does  ->  the model"""
    return build(config(f"iou_net.weights={path}", *overrides), pretrained=True, split=fold)


# Which files may serve

@pytest.mark.parametrize("theirs", [["data.dataset=ytvis"], ["data.dataset=minivspw"]])
def test_an_iounet_of_video_serves_its_own_fold_only(theirs, tmp_path):
    path = checkpoint(tmp_path / "judge.pth", *theirs, fold=2)
    own = judge_of(path)
    model = load(path, *theirs, fold=2)
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items() if name in own)
    for fold in (1, 3, 4):
        with pytest.raises(ValueError, match=rf"iou_net.weights: .*judge.pth was trained on video \(\w+, fold 2\).*"
                                             rf"fold {fold}\).\n.*COCO"):
            load(path, *theirs, fold=fold)


def test_an_iounet_of_another_video_data_set_is_refused(tmp_path):
    path = checkpoint(tmp_path / "judge.pth", "data.dataset=ytvis", fold=2)
    with pytest.raises(ValueError, match=r"\(ytvis, fold 2\), with classes that are tested here \(minivspw, fold 2\)"):
        load(path, "data.dataset=minivspw", fold=2)


@pytest.mark.parametrize("dataset", ["coco20i", "coco20i_minivspw", "coco"])
def test_an_iounet_of_coco_serves_all_folds(dataset, tmp_path):
    path = checkpoint(tmp_path / "judge.pth", f"data.dataset={dataset}", fold=1)
    for fold in (1, 2, 3, 4):
        assert load(path, fold=fold) is not None


def test_weights_without_a_config_or_a_fold_are_taken_as_they_are(tmp_path):
    for name, arguments in (("no_config.pth", {"without": ["config"]}), ("no_fold.pth", {"fold": None})):
        assert load(checkpoint(tmp_path / name, **arguments), fold=3) is not None


@pytest.mark.parametrize("there, here", [
    ("iou_net.similarity=pooled_cosine", "iou_net.similarity=dot"),
    ("iou_net.similarity=dot", "iou_net.similarity=pooled_cosine"), ("model.high_level=c4", "model.high_level=c5"),
    ("iou_net.dim=4 iou_net.hidden=8", "iou_net.dim=8 iou_net.hidden=16"),
    ("iou_net.similarity_maps=false", "iou_net.similarity_maps=true")])
def test_an_iounet_of_other_maps_or_sizes_is_refused_with_the_keys_to_set(there, here, tmp_path):
    path = checkpoint(tmp_path / "judge.pth", *there.split())
    with pytest.raises(ValueError, match=f"judge.pth was trained with {there}; the config says {here}.\n.*Set it"):
        load(path, *here.split())
    assert load(path, *here.split(), *there.split()) is not None


def test_without_maps_it_does_not_matter_how_they_are_computed(tmp_path):
    path = checkpoint(tmp_path / "judge.pth", "iou_net.similarity=pooled_cosine", "iou_net.similarity_maps=false")
    assert load(path, "iou_net.similarity=dot", "iou_net.similarity_maps=false") is not None


def test_files_without_iounet_or_with_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no IoUNet.*\n.*iou_net.weights=none"):
        load(checkpoint(tmp_path / "none.pth", "model.memory_prototype=false"))
    with pytest.raises(ValueError, match="holds another IoUNet.*\n.*similarity_maps"):
        load(checkpoint(tmp_path / "plain.pth", *PLAIN, without=["config"]))
    with pytest.raises(FileNotFoundError, match="iou_net.weights: no file"):
        load(tmp_path / "gone.pth")
    assert load(tmp_path / "none.pth", "model.memory_prototype=false").iou_net is None       # nobody needs the file


def test_a_training_refuses_it_before_it_starts(monkeypatch, demo_root, tmp_path):
    path = checkpoint(tmp_path / "judge.pth", fold=2)
    with pytest.raises(ValueError, match="trained on video"):
        command(monkeypatch, train, "--fold", 1, "--output", tmp_path / "run", *SETTINGS, f"data.root={demo_root}",
                f"iou_net.weights={path}", config=())
    assert not (tmp_path / "run" / "last.pth").exists()


# In place of the checkpoint's

def test_only_iounet_is_replaced_and_the_rest_stays_strict(tmp_path):
    main, other = checkpoint(tmp_path / "main.pth"), checkpoint(tmp_path / "other.pth", *PLAIN, seed=2)
    cfg, state = config(*PLAIN), load_checkpoint(main)["model"]
    model = build(cfg)
    load_weights(model, with_iou_net(model, state, other, cfg, 1), main)
    own, loaded = judge_of(other), model.state_dict()
    assert own.keys() == {name for name in loaded if name.startswith("iou_net.")}
    assert all(torch.equal(value, own.get(name, state.get(name))) for name, value in loaded.items())
    for wrong in ({k: v for k, v in state.items() if k != "prototype"}, state | {"prototipe": state["prototype"]}):
        with pytest.raises(ValueError, match="do not fit.*\n.*protot"):
            load_weights(model, with_iou_net(model, wrong, other, cfg, 1), main)
    without = build(config("model.memory_prototype=false"))
    with pytest.raises(ValueError, match="has no IoUNet.*\n.*Leave it out"):
        with_iou_net(without, state, other, cfg, 1)


def test_an_iounet_that_learned_on_another_encoder_is_told_of(tmp_path, caplog):
    cfg, state = config(), load_checkpoint(checkpoint(tmp_path / "main.pth"))["model"]
    with_iou_net(build(cfg), state, checkpoint(tmp_path / "same.pth"), cfg, 1)
    assert not caplog.text
    with_iou_net(build(cfg), state, checkpoint(tmp_path / "other.pth", seed=2), cfg, 1)
    assert "other.pth" in caplog.text and "another encoder" in caplog.text


def run(monkeypatch, demo_root, output, file, *arguments):
    """test.py on fold 1  ->  the lines of its results, without times"""
    command(monkeypatch, test_script, "--fold", 1, "--output", output, "--checkpoint", file, *SETTINGS,
            f"data.root={demo_root}", *arguments, config=())
    return results_of(output)


def test_the_test_is_that_of_a_checkpoint_with_this_iounet(monkeypatch, demo_root, tmp_path, no_pages):
    """Put together by hand: all of one file, IoUNet of the other. The run says nothing of iou_net's keys."""
    main, other = checkpoint(tmp_path / "main.pth"), checkpoint(tmp_path / "other.pth", *PLAIN, seed=2)
    weights = {k: v for k, v in load_checkpoint(main)["model"].items() if not k.startswith("iou_net.")}
    both = {"model": weights | judge_of(other), "fold": 1, "config": to_dict(config(*PLAIN))}
    save_checkpoint(tmp_path / "both.pth", both)
    swapped = run(monkeypatch, demo_root, tmp_path / "swapped", main, *PLAIN, "--iou-net", other, "memory.length=4")
    by_hand = run(monkeypatch, demo_root, tmp_path / "by_hand", tmp_path / "both.pth", *PLAIN, "memory.length=4")
    assert swapped == by_hand and len(swapped) > 4
    remarks = [line for line in (tmp_path / "swapped" / "run.log").read_text().splitlines() if "trained with" in line]
    assert len(remarks) == 1 and "memory.length 5, tested with 4" in remarks[0]
    before = (tmp_path / "swapped" / "results.jsonl").read_bytes()
    third = checkpoint(tmp_path / "third.pth", *PLAIN, seed=3)
    for wrong, message in (((), "do not fit"), (("--iou-net", third), "iou_net.replace was sha256 .*, is sha256")):
        with pytest.raises(ValueError, match=message):
            run(monkeypatch, demo_root, tmp_path / "swapped", main, *PLAIN, "memory.length=4", *wrong)
    assert (tmp_path / "swapped" / "results.jsonl").read_bytes() == before


def test_a_wrong_file_is_found_before_the_first_video(monkeypatch, demo_root, tmp_path):
    main = checkpoint(tmp_path / "main.pth")
    for file, message in ((checkpoint(tmp_path / "fold2.pth", fold=2), "fold2.pth was trained on video"),
                          (main.with_name("gone.pth"), "no file .*gone.pth")):
        with pytest.raises((ValueError, FileNotFoundError), match=f"iou_net.replace: .*{message}"):
            run(monkeypatch, demo_root, tmp_path / "out", main, "--iou-net", file)
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_one_file_serves_all_folds_and_several_are_one_per_fold(tmp_path):
    cfg, folds, method = config(), (1, 2, 3, 4), get_method("vipmt")
    coco = checkpoint(tmp_path / "coco.pth", "data.dataset=coco20i")
    own = [checkpoint(tmp_path / f"video{fold}.pth", fold=fold) for fold in folds]

    def judges(files):
        args = SimpleNamespace(fold="all", episodes=[], checkpoint=own, iou_net=files, output=tmp_path / "out")
        tests = test_script.plan(args, cfg, get_task(method.TASK))[1]
        for test in tests:
            test_script.trained_model(test.cfg, test.checkpoint, test.split)
        return [test.cfg.iou_net.replace for test in tests]
    assert judges([coco]) == [str(coco)] * 4 and judges(own) == list(map(str, own)) and judges([]) == ["none"] * 4
    with pytest.raises(ValueError, match="2 files for 4 folds"):
        judges(own[:2])
    with pytest.raises(ValueError, match="video1.pth was trained on video"):
        judges(own[:1])


def test_results_belong_to_their_iounet(tmp_path):
    """To the content of its file, which may lie elsewhere later."""
    main, judge = checkpoint(tmp_path / "main.pth"), tmp_path / "judge.pth"

    def start(file):
        cfg = config(f"iou_net.replace={file}")
        writer, lines = open_results(tmp_path / "out", describe_test(main, cfg, 1), [(0, 1, "a")])
        with writer:
            writer.append(result_line("a"))
        return len(lines)
    judge.write_bytes(b"one")
    assert start(judge) == 0 and start(judge.rename(tmp_path / "moved.pth")) == 1
    with pytest.raises(ValueError, match="iou_net.replace was sha256 .*, is none"):
        start("none")
    judge.write_bytes(b"another")
    with pytest.raises(ValueError, match=r"iou_net.replace was sha256 (\w+), is sha256 (?!\1)"):
        start(judge)


def test_a_state_dict_of_its_own_is_a_file_too(tmp_path):
    model = build(config())
    own = {name: torch.randn_like(value) for name, value in model.iou_net.state_dict().items()}
    save_checkpoint(tmp_path / "own.pth", own)
    load_iou_net(model.iou_net, tmp_path / "own.pth", config(), 1)
    assert all(torch.equal(value, own[name]) for name, value in model.iou_net.state_dict().items())
