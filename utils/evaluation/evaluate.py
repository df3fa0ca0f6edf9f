"""evaluate: every test episode through a method, its masks through the metrics, one JSON line per video.

All of it goes clip by clip, so that memory does not depend on how long a video is. Network and metrics overlap: while
it segments the next clip, threads measure the last ones. Lines come in the order of the episodes and each is handed on
as soon as it is complete.
"""
import json
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from utils.checkpoint import atomic_file, fingerprint
from utils.command_line import bar_hidden
from utils.config import differences, flatten, to_dict
from utils.distributed import is_main, rank, wait_for_all, world_size
from utils.evaluation.measuring import MeasuredVideo, MetricsPool, Stopwatch
from utils.evaluation.metrics import aggregate
from utils.logger import JsonLines, get_logger, read_json_lines

# Config keys that change no number of a test: a change of these still continues results.jsonl.
HARMLESS = ("name", "train.", "loss.", "validate.", "checkpoint.", "iou_net.training", "iou_net.loss",
            "iou_net.weights", "test.runs", "data.workers", "data.clips", "data.samples_per_class", "data.augmentation",
            "data.first_frame_augmented", "data.short_video", "backbone.cache_frames", "backbone.weights",
            "speed.compile", "speed.deterministic")

SAME_AS_TRAINED = ("model.", "backbone.name", "backbone.stem", "backbone.stride", "iou_net.similarity", "data.dataset",
                   "data.size", "data.shots", "data.clip_length", "data.mask_resize", "memory.length")


def evaluate(start, episodes, cfg, fold, on_result, restore=None, record=None, workers=2):
    """Run and measure every TestEpisode, clip by clip; on_result is called with one dict per video and run, in order.

    Runs over the same video go through it together. Of their lines the first has the time that was spent for all.

    start(episode)  ->  a function that is called with clip after clip and gives objects with margins (T, H, W)
        (> 0 is object), ious (T,) or None, remembered (T,) bool
    restore(margins, original_size)  ->  margins at the video's own size; needed for test.resolution: original
    record(episode), optional  ->  context manager around the video; its value is called with each clip and its masks,
        a (T, H, W) bool array at the resolution that is measured
    workers: threads for the metrics, 0 measures inline

    Returns the list of dicts. An exception of the data, the network or a metric goes up after every video that was
    segmented so far has been measured and handed on.
    """
    if cfg.test.resolution == "original" and restore is None:
        raise ValueError("test.resolution: original needs restore(margins, original_size)")
    results, segmented, data = [], deque(), Stopwatch()

    def hand_on(everything=False):
        while segmented and (everything or segmented[0].is_measured()):
            results.append(segmented.popleft().line())
            on_result(results[-1])
            progress.count_video(results)

    with MetricsPool(workers) as submit, _Progress(episodes, fold) as progress:
        try:
            for episode in data.around(episodes):
                videos = [MeasuredVideo(run, fold, cfg.metrics, submit) for run in episode.runs]
                with ExitStack() as stack:
                    writers = [stack.enter_context(record(run)) for run in episode.runs] if record else []
                    for clip, masks in _segmented(start, episode, videos, data, cfg, restore):
                        for write, run_masks in zip(writers, masks, strict=False):
                            write(clip, run_masks)
                        hand_on()
                        progress.count_frames(sum(map(len, masks)))
                videos[0].data_seconds = data.reset()
                segmented.extend(videos)
                hand_on()
        finally:
            hand_on(everything=True)
    return results


def open_results(output, header):
    """results.jsonl of a test, continued if it is of the same test  ->  (JsonLines, lines already there)

    header: what the numbers depend on, from `describe_test`. It is kept in test.json beside them.
    ValueError if the folder holds results of something else.
    """
    output = Path(output)
    note, lines = output / "test.json", output / "results.jsonl"
    if is_main():
        _refuse_another_test(note, lines, header, output)
        output.mkdir(parents=True, exist_ok=True)
        with atomic_file(note, "w") as file:
            json.dump(header, file, indent=1)
        _collect(output)
        JsonLines(lines).close()
    wait_for_all()
    done = read_json_lines(lines)
    wait_for_all()
    return JsonLines(lines if world_size() == 1 else output / f"results.rank{rank()}.jsonl"), done


def collect_results(output, order):
    """Once every process has written its lines: all of them, without a double one, also in results.jsonl

    order: keys (run, class id, video) as one process would have come upon them
    """
    wait_for_all()
    if is_main():
        _collect(Path(output), {key: position for position, key in enumerate(order)})
    wait_for_all()
    return read_json_lines(Path(output) / "results.jsonl")


def key_of(line):
    """What identifies a line: (run, class id, video)"""
    return line["run"], line["class_id"], line["video"]


def _collect(output, order=None):
    """The lines of all processes into results.jsonl, sorted where the order is known."""
    parts, whole = sorted(output.glob("results.rank*.jsonl")), output / "results.jsonl"
    if not parts:
        return
    lines = {key_of(line): line for file in ([whole] if whole.is_file() else []) + parts
             for line in read_json_lines(file)}
    if order:
        lines = dict(sorted(lines.items(), key=lambda item: order.get(item[0], -1)))
    with atomic_file(whole, "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines.values())
    for part in parts:
        part.unlink()


def _refuse_another_test(note, lines, header, output):
    if note.is_file() and lines.is_file():
        try:
            changed = _changed(json.loads(note.read_text()), header)
        except (ValueError, RecursionError, AttributeError) as error:
            raise ValueError(f"{note}: damaged, so nobody knows what {lines.name} was measured with ({error}).\n"
                             f"  Choose another --output, or delete {output}") from None
        if changed:
            raise ValueError(f"{lines} belongs to another test: {'; '.join(changed)}.\n"
                             f"  Choose another --output, or delete {output}")
    elif lines.is_file():
        raise ValueError(f"{lines} has no test.json beside it, so nobody knows what it was measured with.\n"
                         f"  Choose another --output, or delete {output}")


def describe_test(checkpoint_path, cfg, fold, episodes=None, iou_net=None):
    """What the numbers of a test depend on, as plain values; episodes: the file of a list that is replayed.

    iou_net: the file whose IoUNet replaces that of the checkpoint
    """
    config = {key: value for key, value in flatten(to_dict(cfg)).items() if not key.startswith(HARMLESS)}
    return {"checkpoint": str(checkpoint_path), "sha256": fingerprint(checkpoint_path), "fold": fold,
            "episodes": fingerprint(episodes) if episodes else None,
            "iou_net": {"file": str(iou_net), "sha256": fingerprint(iou_net)} if iou_net else None, "config": config}


def warn_of_other_config(trained, cfg, source, own_iou_net=True):
    """Log the keys in which a checkpoint's config differs so that the same weights compute something else.

    Not model.method: several methods test the same weights. own_iou_net: False where another file's IoUNet is used
    """
    ignored = ("model.method", "model.dropout", "model.feature_dropout", *(() if own_iou_net else ("iou_net.",)))
    for key, (then, now) in differences(trained, cfg).items():
        if key.startswith(SAME_AS_TRAINED) and not key.startswith(ignored):
            get_logger().warning("%s: trained with %s %s, tested with %s", source, key, then, now)


def _changed(old, new):
    """What differs between two headers, in words."""
    changed = []
    if old.get("sha256") != new["sha256"]:
        changed.append(f"checkpoint {old.get('checkpoint')} (another content than {new['checkpoint']})")
    before, now = (x.get("iou_net") or {} for x in (old, new))
    if before.get("sha256") != now.get("sha256"):
        names = (f"that of {x['file']} ({x['sha256']:.12}...)" if x else "the checkpoint's" for x in (before, now))
        changed.append("IoUNet was {}, is {}".format(*names))
    if old.get("fold") != new["fold"]:
        changed.append(f"fold {old.get('fold')}, not {new['fold']}")
    if old.get("episodes") != new.get("episodes"):
        lists = [f"a list (SHA-256 {x['episodes']:.12}...)" if x.get("episodes") else "drawn" for x in (old, new)]
        changed.append(f"episodes were {lists[0]}, are {lists[1]}")
    before, now = old.get("config", {}), new["config"]
    keys = [key for key in before | now if before.get(key) != now.get(key)]
    changed += [f"{key} was {before.get(key)}, is {now.get(key)}" for key in keys[:5]]
    return changed + ([f"{len(keys) - 5} more keys"] if len(keys) > 5 else [])


def _segmented(start, episode, videos, data, cfg, restore):
    """Every clip through the network, run by run, and on to the metrics: yields clip, a (T, H, W) bool array per run"""
    original, segments = cfg.test.resolution == "original", []
    for run, video in zip(episode.runs, videos, strict=True):
        with video.network:
            segments.append(start(run))
    for clip in data.around(episode.clips):
        truth = clip.original_masks if original else clip.masks
        assert truth is not None, f"{episode.id}: test.resolution original needs original_masks"
        truth, masks = truth.cpu().numpy().astype(bool), []
        for segment, video in zip(segments, videos, strict=True):
            with video.network:
                said = segment(clip)
                margins = restore(said.margins, episode.original_size) if original else said.margins
                masks.append((margins > 0).cpu().numpy())
            video.add(said, masks[-1], truth)
        yield clip, masks
    count = len(videos[0].remembered)
    assert count == len(episode.frames), f"{episode.id}: {len(episode.frames)} frames, but {count} in its clips"


class _Progress:
    """The bar: counts videos, shows their mean J, F and VC so far, and how fast frames go through."""

    def __init__(self, episodes, fold):
        total = getattr(episodes, "results", len(episodes) if hasattr(episodes, "__len__") else None)
        self.bar = tqdm(total=total, desc=f"fold {fold}", unit="video", miniters=0, disable=bar_hidden(is_main()))
        self.frames, self.total_frames = 0, getattr(episodes, "frames", None)
        self.scores, self.started = "", time.perf_counter()

    def count_frames(self, count):
        """A clip is segmented: the bar of a long video moves, too."""
        self.frames += count
        of = f"/{self.total_frames}" if self.total_frames else ""
        rate = self.frames / (time.perf_counter() - self.started)
        self.bar.set_postfix_str(f"{self.scores}{self.frames}{of} frames, {rate:.1f}/s", refresh=False)
        self.bar.update(0)

    def count_video(self, results):
        """A line is handed on, the last one of results."""
        means = aggregate(results)
        self.scores = f"J {100 * means['j']:.1f} F {100 * means['f']:.1f} VC {100 * means['vc']:.1f}, "
        self.bar.update()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.count_frames(0)
        self.bar.close()
