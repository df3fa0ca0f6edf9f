"""The released network's numbers (tests/parity, made with the released code) against ours, in float32, and the tool
that compares them: python -m tools.workshop.check_parity runs on any folder of golden files, in float64 as well.

Cases whose golden numbers are not here (two episodes at once, empty and full masks, empty predictions) are compared
with the reference mode and with slow loops, on a small network.
"""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_network import RELEASED, model_of

from tools.convert_released import convert, name_table
from tools.workshop import check_parity
from tools.workshop.parity import Case, Found, Limit, vipmt
from tools.workshop.reference_mode import ReferenceNetwork
from utils.checkpoint import load_checkpoint

FOLDER = Path(__file__).parents[1] / "parity"
GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "parity"


def run(folder, *arguments, capsys):
    code = check_parity.main([str(folder), *arguments])
    return code, capsys.readouterr().out


def test_released_forward_passes_are_reproduced(capsys):
    code, printed = run(FOLDER, "--dtype", "float32", "--cases", "e", "f", capsys=capsys)
    assert code == 0, printed
    for case in ("e", "f"):
        compared = {line.split()[1] for line in printed.splitlines() if line.startswith(f"eval_{case} ")}
        assert compared == set(np.load(FOLDER / f"eval_{case}.npz").files)       # every array was really compared


def test_wrong_weights_are_noticed(capsys, monkeypatch):
    """The check can fail: swap two weights of the same shape and it does."""
    honest = vipmt.convert

    def swapped(state, back=False):
        state = honest(state, back)
        a, b = "layers.0.clip_attention.to_v.weight", "layers.0.frame_attention.to_v.weight"
        state[a], state[b] = state[b], state[a]
        return state
    monkeypatch.setattr(vipmt, "convert", swapped)
    code, printed = run(FOLDER, "--dtype", "float32", "--cases", "f", capsys=capsys)
    assert code == 1 and "FAIL" in printed


# -- cases without golden numbers -------------------------------------------------------------------------------------

SIZE = (40, 56)


def episodes(batch, frames, memory, shots=3, seed=3):
    """Query (B, T, 3, H, W), support and memory frames, their masks (B, K + M, H, W)"""
    generator = torch.Generator().manual_seed(seed)
    query, guides = (torch.randn(batch, n, 3, *SIZE, generator=generator) for n in (frames, shots + memory))
    masks = torch.zeros(batch, shots + memory, *SIZE, dtype=torch.bool)
    for b in range(batch):
        for s in range(shots + memory):
            masks[b, s, 3 + 2 * s:25 + b, 4 + s:30 + 5 * b] = True
    return query, guides + masks[:, :, None].to(guides), masks


def with_bias(model, value):
    """Both classifiers see nothing but background."""
    with torch.no_grad():
        for head in (model.activation.initial_classifier, model.final_classifier):
            head[-1].bias.copy_(torch.tensor([value, -value]))
    return model


@pytest.mark.parametrize("kind", ["two episodes", "empty and full masks", "empty predictions"])
def test_cases_without_golden_numbers_equal_the_released_manner(kind, exact):
    """Batch c, masks g and predictions h of fill.CASES, on a small network of the released settings."""
    model = model_of(**RELEASED)
    query, guides, masks = episodes(2 if kind == "two episodes" else 1, 1 if "masks" in kind else 3,
                                    0 if "predictions" in kind else 2)
    if kind == "empty and full masks":
        masks[:, 1], masks[:, 2], masks[:, 3] = False, True, False
    if kind == "empty predictions":
        with_bias(model, 50.0)
    found = vipmt.every_part(model, query, guides, masks, 3)
    network = ReferenceNetwork(model)
    clip, levels = network.encode(query), network.encode(guides)
    out = network(clip, levels, masks, 3, SIZE)
    small = masks[..., ::8, ::8]
    expected = {
        "prior": network.prior(clip[-1], levels[-1], small), "out_low": out.low_logits, "mask": out.masks,
        "out_full": out.logits.flatten(0, 1), "query_feat23": out.reduced.flatten(0, 1),
        "aug_supp_feat": network.guidance(levels, small)[0].mT.flatten(0, 1).unflatten(-1, small.shape[-2:]),
        "score": network.iou_logits(out, clip, levels, masks, 3).sigmoid(),
        "ssm": network.similarity_maps(clip[-1], out.low_logits.argmax(2) > 0, levels[-1], small),
        "proto_clip": torch.stack([layer.clip_inter for layer in out.layers]),
        **{f"backbone_q{i}": x.flatten(0, 1) for i, x in enumerate(clip)},
        **{name: torch.stack([getattr(layer, name) for layer in out.layers])
           for name in ("clip_logits", "frame_logits", "support_logits")}}
    for name, value in expected.items():
        scale = max(float(value.double().abs().max()), 1)
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-8 * scale, msg=name)
    assert found["mask"].any() != (kind == "empty predictions")


def test_logits_of_other_episodes_equal_a_loop_over_positions(exact):
    """In (B, L (B - 1), T, h, w) layers go before the other episodes, the query features are the reduced ones."""
    model, (query, guides, masks) = model_of(**RELEASED), episodes(3, 2, 2)
    found = vipmt.every_part(model, query, guides, masks, 3)
    filters, features = found["proto_clip"], found["query_feat23"].unflatten(0, (3, 2))
    layers, batch, _ = filters.shape
    ours = found["cross_sample"]
    assert ours.shape == (batch, layers * (batch - 1), 2, *features.shape[-2:])
    for b in range(batch):
        others = [j for j in range(batch) if j != b]
        for layer in range(layers):
            for place, j in enumerate(others):
                slow = sum(filters[layer, j, c] * features[b, :, c] for c in range(features.shape[2]))
                torch.testing.assert_close(ours[b, layer * (batch - 1) + place], slow)


def test_an_episode_in_a_batch_says_what_it_says_alone(exact):
    model, (query, guides, masks) = model_of(**RELEASED), episodes(2, 3, 2)
    together = vipmt.every_part(model, query, guides, masks, 3)
    for b in range(2):
        alone = vipmt.every_part(model, query[b:b + 1], guides[b:b + 1], masks[b:b + 1], 3)
        for name in ("prior", "init_out", "out_low", "ssm", "score", "mask"):
            torch.testing.assert_close(together[name][b:b + 1], alone[name], msg=name)


def test_only_flips_of_rounding_noise_are_excused(fill):
    """In float32 one position whose logit is noise may be read or not; a clear one may not differ."""
    golden = np.full((2, 1, 1, 3, 3), 4.0)
    golden[0, 0, 0, 0, 0] = 2e-4
    ours = {name: torch.from_numpy(golden.copy()) for name in ("clip_logits", "frame_logits")}
    case = Case("eval_c", FOLDER, fill, "float32", {"clip_logits": golden, "frame_logits": golden})
    assert vipmt.flips_of_noise(case, ours) == 0
    ours["clip_logits"][0, 0, 0, 0, 0] = -1e-4
    assert vipmt.flips_of_noise(case, ours) == 1
    ours["frame_logits"][1, 0, 0, 1, 1] = -4.0
    assert vipmt.flips_of_noise(case, ours) == 2              # may follow from the first
    ours["clip_logits"][0, 0, 0, 2, 2] = -4.0
    assert vipmt.flips_of_noise(case, ours) == 0


# -- the tool ---------------------------------------------------------------------------------------------------------

class Toy:
    """A checker of one case; `computes` is what it says."""
    INPUTS, SOURCES = ("made_of",), ()

    def __init__(self, **computes):
        self.CASES = {"eval_.": lambda case: {name: Found(value, Limit(rms=1e-6)) for name, value in computes.items()}}


@pytest.fixture(scope="module")
def fill():
    return check_parity.load_fill(FOLDER)


def verdicts(checker, fill, **golden):
    report = check_parity.Report()
    check_parity.check(report, checker, Case("eval_a", FOLDER, fill, "float64", golden))
    return report


def test_samples_and_summaries_of_any_name_are_compared(fill):
    """Also of a name that itself ends in _sample; per row where the golden file has rows."""
    x, rows = np.random.default_rng(0).normal(size=(2, 5, 40)), np.arange(12.0).reshape(3, 4)
    golden = {"cross_sample_summary": fill.summary(x), "cross_sample_sample": fill.sample(x, 9), "cross_sample": x,
              "row_summary": np.stack([fill.summary(r) for r in rows]), "made_of": np.ones(3)}
    report = verdicts(Toy(cross_sample=x, row=rows), fill, **golden)
    assert report.compared == 4 and report.failed == []
    wrong = verdicts(Toy(cross_sample=x + 1e-3, row=rows + 1e-3), fill, **golden)
    assert wrong.compared == 4 and len(wrong.failed) == 4


@pytest.mark.parametrize("golden, ours", [
    (np.array([1.0, 2.0]), np.array([1.0, np.nan])), (np.array([np.nan, 2.0]), np.array([1.0, 2.0])),
    (np.array([1.0, 2.0]), np.array([1.0, np.inf])), (np.array([1.0, 2.0]), np.array([1.0, 2.0, 3.0])),
    (np.array(["a", "b"]), np.array(["b", "a"])), (np.packbits([1, 0, 1]), np.array([True, False, False])),
    (np.zeros(3), np.array([0, 1e-300, 0])), (np.array([1.0]), None)],
    ids=["nan", "not nan", "infinite", "shape", "text", "mask", "not zero", "unknown"])
def test_whatever_differs_is_a_failure(fill, golden, ours, capsys):
    report = verdicts(Toy(x=ours) if ours is not None else Toy(), fill, x=golden)
    assert report.failed == ["eval_a x"] and "FAIL" in capsys.readouterr().out


def test_equal_arrays_of_every_kind_pass(fill):
    golden = {"a": np.array([np.nan, 1.0]), "b": np.array(["x"]), "c": np.packbits([1, 0, 1]), "d": np.zeros(2)}
    ours = {"a": np.array([np.nan, 1.0]), "b": np.array(["x"]), "c": np.array([True, False, True]), "d": np.zeros(2)}
    assert verdicts(Toy(**ours), fill, **golden).failed == []


def test_a_folder_names_its_method_and_hides_no_file(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="no method.txt"):
        check_parity.check_folder(tmp_path, "float32")
    (tmp_path / "method.txt").write_text("unknown\n")
    with pytest.raises(ValueError, match=r"no checker for the method 'unknown'; there is .*vipmt"):
        check_parity.check_folder(tmp_path, "float32")
    (tmp_path / "method.txt").write_text("vipmt\n")
    with pytest.raises(FileNotFoundError, match="no golden file"):
        check_parity.check_folder(tmp_path, "float32")
    shutil.copy(FOLDER / "fill.py", tmp_path)
    np.savez(tmp_path / "new_golden.npz", x=np.ones(3))
    (tmp_path / "odd.bin").write_bytes(b"x")
    report = check_parity.check_folder(tmp_path, "float32")
    assert report.failed == ["new_golden the file", "odd.bin the file"]


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden vectors (../shared/parity) are not beside the project")
def test_metrics_and_preprocessing_are_compared_too(capsys):
    code, printed = run(GOLDEN, "--cases", "metrics_golden", "preprocess_golden", capsys=capsys)
    assert code == 0 and "metrics_golden  blackswan/F" in printed and "training_windows/table/36/windows" in printed


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden vectors (../shared/parity) are not beside the project")
def test_compact_set_is_cut_from_the_golden_vectors(fill):
    full, compact = np.load(GOLDEN / "eval_f.npz"), np.load(FOLDER / "eval_f.npz")
    assert np.array_equal(compact["frame_logits_sample"], fill.sample(full["frame_logits"], 256))
    assert np.array_equal(compact["score"], full["score"])


# -- released names ---------------------------------------------------------------------------------------------------

def test_every_released_name_converts_there_and_back():
    names = [entry["name"] for entry in json.loads((FOLDER / "official_parameters.json").read_text())]
    ours = name_table(names)
    assert len(set(ours.values())) == len(names) == 565
    assert name_table(ours.values(), back=True) == {v: k for k, v in ours.items()}
    state = {name: torch.full((2,), float(i)) for i, name in enumerate(names)}
    again = convert(convert(state), back=True)
    assert list(again) == names and all(torch.equal(again[n], state[n]) for n in names)


def test_foreign_checkpoint_is_refused_by_name():
    with pytest.raises(ValueError, match="encoder.weight: not a name of a released VIPMT"):
        convert({"encoder.weight": torch.zeros(1)})


def test_conversion_writes_a_checkpoint_that_our_model_loads(tmp_path, monkeypatch):
    from models import get_method
    from tools import convert_released
    from utils.checkpoint import save_checkpoint
    from utils.config import load_config
    entries = json.loads((FOLDER / "official_parameters.json").read_text())
    small = {e["name"]: torch.zeros(e["shape"]) for e in entries}
    small["prototype.weight" if "prototype.weight" in small else "transformer.prototype.weight"] += 3
    source, target = tmp_path / "released.pth", tmp_path / "ours.pth"
    save_checkpoint(source, small)
    monkeypatch.setattr("sys.argv", ["convert_released.py", str(source), str(target), "--fold", "2"])
    convert_released.main()
    checkpoint = load_checkpoint(target)
    model = get_method("vipmt").build(load_config(["config/vipmt/released.yaml"]))
    model.load_state_dict(checkpoint["model"], strict=True)
    assert checkpoint["fold"] == 2 and (model.prototype == 3).all()

    incomplete = {k: v for k, v in small.items() if k != "cls.3.bias"}
    save_checkpoint(source, incomplete)
    with pytest.raises(ValueError, match="final_classifier.3.bias"):
        convert_released.main()
