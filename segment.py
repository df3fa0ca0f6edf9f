"""Your own video: a few images with masks say what to look for, every frame of the video gets its mask.

    python segment.py --support dog/ --video park.mp4 --checkpoint fold1.pth --output output/park
    python segment.py ... --support dog/ --support cat/       several categories in one pass; or a folder of folders
    python segment.py ... --support car/ --instances          every car with a number of its own, tracks.json
    python segment.py ... --save-support dog.support          the supports as one file, for --support the next time
    python segment.py ... --every 5 --start 10 --end 20       every fifth frame of ten seconds
    python segment.py ... --continue output/park              masks drawn into output/park/corrected/ count: from there
    python segment.py ... --video frames/ --fps 24            a folder of pictures
    python segment.py ... --video 0 --end 30                  a camera, for thirty seconds (Ctrl-C ends it earlier)
    python segment.py --method lwl --init-mask first.png --video park.mp4 --checkpoint lwl.pth --output output/park
    python segment.py --method lwl --init-box 120,40,64,80 --init-box 300,20,50,90 ...

    python segment.py --method cma --text "the dog that jumps" --support dog/ --support-text "a dog in the snow" ...

A method that reads sentences (CMA) takes two: on the video, and on the supports (or sentence.txt among them); these are
frames of one video.

Methods that follow objects (LWL) take their masks in the first frame instead of a support folder: a PNG in which every
object has its number, or a folder with 00000.png, 00012.png, ... for objects that appear later; or boxes.

The support folder holds images and masks of the same name: dog.jpg with dog.png or dog_mask.png (palette, grey or
transparent PNG), or with dog.json of LabelMe; or one COCO file. Into --output come masks/00000.png ... (palette, size
of the video, numbered as its frames), overlay.mp4 (H.264; .webm where PyAV has no such encoder), frames.csv
and summary.json. A result that lies there already is replaced.
In Python: class Segmenter, docs/segment_your_video.ipynb.
"""
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from dataloaders.own.arguments import checked, segment_parser
from utils.command_line import EveryMinute, bar_hidden, say
from utils.config import check_config, user_errors


def parse_arguments():
    parser = segment_parser(__doc__)
    return checked(parser.parse_intermixed_args(), parser)


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()
    say("loading PyTorch")

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
import torch
from tqdm import tqdm

from dataloaders.own.corrections import continued, read_corrected, read_result
from dataloaders.own.doubts import agreement, doubts
from dataloaders.own.frame_prediction import columns, frame_prediction, split
from dataloaders.own.support_file import write_support_file
from dataloaders.own.tracks import Tracks
from dataloaders.own.video import as_frames, open_video
from dataloaders.own.wanted import Wanted, set_reference
from models import get_method
from models.instances import Instances
from models.trained import read_config, trained_model, weights_id
from utils.evaluation.presence import judged, limit_of
from utils.files import owned
from utils.logger import get_logger, setup_logger
from utils.pictures.result_folder import ResultFolder
from utils.pictures.summary import sentence, summarise
from utils.runtime import choose_device, prepare_runtime
from utils.seeds import rng_for


class Segmenter(Wanted):
    """A trained model for any video: NumPy or torch in, NumPy out. It sees what test.py sees, clip by clip.

    model: of cfg.model.method, with its weights, on its device, in eval mode; threshold: of the object's probability,
    for the masks that are given out. What enters memory is not changed by it: it is cut at 0.5, as in every test.
    absent: never | auto | the presence below which an object counts as absent (utils/evaluation/presence.py)
    instances: masks have the numbers of objects (models/instances.py); follow: what follows them, PLUG or PLUG=WEIGHTS,
    of propagation.plug; None: their motion
    What it shall segment is set by the methods of Wanted: set_support, set_supports, set_masks, set_boxes, set_texts.
    """

    def __init__(self, model, cfg, threshold=0.5, amp=None, absent="never", instances=False, follow=None):
        if not 0 < threshold < 1:
            raise ValueError(f"--threshold {threshold}: expected a probability between 0 and 1, both excluded")
        check_config(cfg, truth=False)
        super().__init__(cfg, get_method(cfg.model.method).TASK)
        self.model, self.amp, self.absent = model, amp, limit_of(absent)
        self.instances, self.follower = instances, follow and get_method("propagation").follower(follow, cfg, model)
        for flag in ["--absent"] * (self.absent is not None) + ["--instances"] * instances:
            if self.follows or self.reads:
                raise ValueError(f"{flag} is for few-shot methods, which look for what supports show; leave it out")
        self.least_margin = math.log(threshold / (1 - threshold))            # 0 for 0.5: a tie is background

    @classmethod
    def from_checkpoint(cls, path, device="cpu", *, config=(), overrides=(), **settings):
        """A file of train.py or tools/convert_released.py  ->  Segmenter

        device: cpu | cuda; config: YAML files instead of the config in the checkpoint; overrides: "key.sub=value", ...
        settings: threshold, absent, instances, follow
        """
        cfg, device = read_config(path, config, overrides), torch.device(choose_device(device))
        model, _ = trained_model(cfg, path)                # what it was trained on does not matter here
        if cfg.speed.compile:
            get_method(cfg.model.method).compile_parts(model)
        segmenter = cls(model.to(device), cfg, amp=prepare_runtime(cfg.speed, device), **settings)
        segmenter.made_by = path and weights_id(path, cfg)
        return segmenter

    def save_support(self, path, supports):
        """Supports  ->  a file for read_supports, with their features; warns of one that the others do not find"""
        seen = self.as_seen(supports)
        found, known = self.agreement(seen), self._segmenter(seen)
        for text in doubts(supports.names, found):
            get_logger().warning("%s", text)
        encoded = known.encoded() if hasattr(known, "encoded") else {}
        encoded = {name: (x.float() if x.is_floating_point() else x).numpy() for name, x in encoded.items()}
        write_support_file(path, replace(supports, agreement=found or None, encoded=encoded), self.made_by)

    def agreement(self, seen):
        """SupportSet  ->  for each support the IoU with which the others find its object; [] of fewer than three"""
        return agreement(seen, self._segmenter)

    def doubts(self, names):
        """Names of all supports, in order  ->  sentences about those that the others of their category do not find"""
        found, names = [], list(names)
        for seen in self.supports.values() if not self.reads else ():
            own, names = names[:len(seen.images)], names[len(seen.images):]
            found += doubts(own, self.agreement(seen)) if not seen.encoded else []       # a file's were judged before
        return found

    def _segmenter(self, reference, rng=None):
        """The method's, for one video"""
        rng = rng_for(self.cfg.seed, "memory", "segment") if rng is None else rng
        return get_method(self.cfg.model.method).Segmenter(self.model, reference, self.cfg, rng=rng, amp=self.amp)

    def __call__(self, video):
        """Any video, as `predictions` takes it  ->  one mask (H, W) bool after the other, at the frame's own size"""
        return (prediction.mask for prediction in self.predictions(video))

    def predictions(self, video, rng=None, known=None):
        """A video  ->  FramePredictions, one after the other; no more than two clips of frames exist at a time

        video: what open_video takes or gives, or frames one after the other: (H, W, 3) uint8 arrays, tensors (3, H, W),
        float in [0, 1], or all of them in one array or tensor
        rng: NumPy generator of the memory draws; None: that of the config's seed, the same for every video
        known: dataloaders.own.corrections.Known, of frames before these, or None
        """
        segmenters = []
        for o, reference in enumerate(self.references()):
            start = partial(judged, self._segmenter, limit=self.absent, most=min(self.least_margin, 0),
                            rng=rng_for(self.cfg.seed, "memory", "segment", o) if o else rng)
            number = self.numbers[o] if self.numbers else 0
            segmenters.append(known.told(start, reference, self.transform, number) if known else start(reference))
        found = self._stream(segmenters, self.clips(as_frames(video)))
        least = self.cfg.get("memory", {}).get("min_iou", 0)
        return split(found, Instances(self.follower), least) if self.instances else found

    def _stream(self, segmenters, clips):
        """Pairs (Frames, Clip)  ->  FramePredictions; each frame is encoded once for all categories"""
        for frames, clip in clips:
            prepared = segmenters[0].prepare(clip)
            found = [segmenter(prepared, clip) for segmenter in segmenters]
            for t, frame in enumerate(frames):
                margins = self.restore(torch.cat([one.margins[:, t] for one in found]), frame.image.shape[:2])
                values = [{name: column[t].item() for name, column in one.per_frame.items() if column.ndim == 1}
                          for one in found]
                yield frame_prediction(frame, margins, values, self.least_margin, self.numbers, self.categories)


def run(args):
    """All of it  ->  what is said at the end; an error goes up once what was computed is kept"""
    segmenter = Segmenter.from_checkpoint(args.checkpoint, args.device, config=args.config, overrides=args.overrides,
                                          threshold=args.threshold, absent=args.absent, instances=args.instances,
                                          follow=args.follow)
    names = set_reference(segmenter, args)
    if not args.video:
        return f"{args.save_support}: {len(names)} supports; --support {args.save_support} takes them"
    video = open_video(args.video, args.every, args.start, args.end, args.fps)
    failure, started, film_fps = None, time.perf_counter(), max(video.fps / args.every, 0.01)
    memory = segmenter.cfg.get("memory", {})
    trust = memory.min_iou if memory.get("select") == "predicted" else None
    tracks = Tracks(video) if args.instances else None
    written = columns(segmenter.categories, segmenter.absent is not None, args.instances, args.go_on)
    with owned(args.output), ResultFolder(args.output, film_fps, args.soft, args.max_side, not args.no_film, written,
                                          trust) as results:
        try:
            bar = tqdm(segmented(segmenter, video, args.go_on), Path(video.name).name, video.expected, unit="frame",
                       disable=bar_hidden())
            minute = EveryMinute(bar.disable)
            for prediction in bar:
                results.add(prediction.frame, prediction)
                if tracks:
                    tracks.add(prediction)
                if minute.over():
                    get_logger().info("%d of %s frames", results.frames, video.expected or "unknown")
        except KeyboardInterrupt as error:
            failure = None if video.endless and results.frames else error    # so cameras are stopped
        except (ValueError, OSError) as error:
            failure = error
    seconds = time.perf_counter() - started
    objects = tracks and tracks.write(args.output, [*segmenter.supports])
    summary = summarise(results, args, names, segmenter.categories, video, seconds, failure, objects)
    if failure:
        raise failure
    doubtful = segmenter.doubts(names)
    if summary["mean_predicted_iou"] is not None and not summary["remembered"] and trust is not None:
        doubtful.append(f"No frame is trusted: the model expects an IoU below {trust} (memory.min_iou) of all "
                        "its masks, so look at them")
    return "\n".join([sentence(summary, args.output), *doubtful])


def segmented(segmenter, video, earlier):
    """-> FramePredictions; earlier: folder of a result whose corrected masks count, or None"""
    if not earlier:
        return segmenter.predictions(video)
    return continued(segmenter, video, read_result(earlier), read_corrected(earlier))


def main(args=None):
    args = args or parse_arguments()
    setup_logger()
    print(run(args))


if __name__ == "__main__":
    with user_errors():
        main(arguments)
