"""Your own video: a few images with masks say what to look for, every frame of the video gets its mask.

    python segment.py --support dog/ --video park.mp4 --checkpoint fold1.pth --output output/park
    python segment.py ... --every 5 --start 10 --end 20       every fifth frame of ten seconds
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

In Python, and in docs/segment_your_video.ipynb:

    segmenter = Segmenter.from_checkpoint("fold1.pth", device="cuda")
    segmenter.set_support(images, masks)
    for mask in segmenter("park.mp4"):
        ...

To follow objects: segmenter.set_masks({0: labels}), then the same loop, whose masks have the objects' numbers.
"""
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

from utils.command_line import EveryMinute, Parser, bar_hidden, say
from utils.config import apply_overrides, check_config, load_config, user_errors


def parse_arguments():
    parser = Parser(__doc__)
    parser.add_argument("--support", metavar="FOLDER", help="images with masks: what to segment")
    parser.add_argument("--method", metavar="NAME", help="of the checkpoint, e.g. lwl; or one that needs none")
    parser.add_argument("--init-mask", metavar="FILE",
                        help="PNG whose values number the objects in the first frame, or a folder of them, named after "
                             "their frames")
    parser.add_argument("--init-box", action="append", default=[], metavar="X,Y,W,H",
                        help="of an object in the first frame, in pixels; repeat it for the objects 2, 3, ...")
    parser.add_argument("--text", metavar="SENTENCE", help="what to segment in the video, where the method reads it")
    parser.add_argument("--support-text", metavar="SENTENCE", help="what the supports' masks show, likewise")
    parser.add_argument("--video", required=True, help="film, folder of frames, or number of a camera")
    parser.add_argument("--checkpoint", metavar="FILE", help="of train.py or tools/convert_released.py")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the result")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th frame")
    parser.add_argument("--start", metavar="TIME", help="first frame: seconds (12.5), or a frame's number (300f)")
    parser.add_argument("--end", metavar="TIME", help="the frame before which it ends, as --start")
    parser.add_argument("--fps", type=float, help="frames per second of a folder of frames (6), or of a film that lies")
    parser.add_argument("--shots", type=int, metavar="K", help="only the first K images of the support folder")
    parser.add_argument("--object", type=int, metavar="N", help="object number in the masks; default: all but 0")
    parser.add_argument("--category", metavar="NAME", help="label in files of LabelMe or COCO with several")
    parser.add_argument("--threshold", type=float, default=0.5, metavar="P",
                        help="probability above which a pixel is object (0.5); memory is always cut at 0.5")
    parser.add_argument("--soft", action="store_true", help="also probabilities, soft/00000.png: grey, 255 is certain")
    parser.add_argument("--max-side", type=int, default=1280, metavar="PIXELS",
                        help="longer side of the film at most (1280; 0: as the video); masks keep the video's size")
    parser.add_argument("--no-film", action="store_true", help="no overlay film; in HD it takes most of the time")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    parser.add_argument("--config", action="append", default=[], metavar="FILE",
                        help="instead of the config in the checkpoint; repeat it to lay one over the other")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="changes a key, e.g. memory.min_iou=0.6")
    args = parser.parse_intermixed_args()
    if sum(map(bool, (args.support, args.init_mask, args.init_box))) != 1:
        raise ValueError("what shall be segmented?\n  Give one of --support FOLDER, --init-mask FILE and --init-box "
                         "X,Y,W,H")
    args.overrides += [f"model.method={args.method}"] if args.method else []
    if args.max_side < 0:
        raise ValueError(f"--max-side {args.max_side}: expected pixels, or 0 for the size of the video")
    return args


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()
    say("loading PyTorch")

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
import numpy as np
import torch
from tqdm import tqdm

from dataloaders.datasets.refytvos import normalised
from dataloaders.episode import Clip, FirstMasks, ReferringSupport, SupportSet
from dataloaders.images import as_mask, as_picture
from dataloaders.own.first_masks import HOW, Given, given_boxes, given_masks, read_first_masks
from dataloaders.own.supports import read_supports
from dataloaders.own.video import Frame, as_frames, clips_of, open_video
from dataloaders.referring.transforms import ClipTransform
from dataloaders.transforms import TestTransform, undo_letterbox
from models import METHODS, get_method
from utils.checkpoint import load_checkpoint
from utils.evaluation.results import warn_of_other_config
from utils.files import atomic_file, fingerprint
from utils.logger import get_logger, setup_logger
from utils.pictures.result_folder import ResultFolder
from utils.runtime import choose_device, prepare_runtime
from utils.seeds import rng_for

GET_CHECKPOINT = """`make demo` trains a small one within minutes, for its synthetic videos: output/demo/fold1/last.pth.
  For real ones train on YouTube-VIS (python train.py --config config/vipmt/ytvis.yaml --fold 1), or convert the weights
  of the released code: python -m tools.convert_released model_best.pth ours.pth --fold 1"""


@dataclass(eq=False)
class FramePrediction:
    """What is known of one frame.

    index: its number in the video; mask (H, W) bool and margin (H, W) float32, object minus background logit, at the
    frame's own size; of several objects their numbers, uint8, and the margin of the best one; values: what else the
    method says of it, {name: number}; frame: dataloaders.own.video.Frame, with its time and image
    """
    index: int
    mask: np.ndarray
    margin: np.ndarray
    values: dict
    frame: Frame

    @property
    def iou(self):
        """As the method predicts it, None where it does not"""
        return self.values.get("pred_iou")

    @property
    def remembered(self):
        """Whether later clips may read it from memory"""
        return bool(self.values.get("remembered", False))

    @property
    def probability(self):
        """(H, W) float32 in [0, 1]: the sigmoid of the margin, without overflow"""
        return 0.5 + 0.5 * np.tanh(0.5 * self.margin)


class Segmenter:
    """A trained model for any video: NumPy or torch in, NumPy out. It sees what test.py sees, clip by clip.

    model: of cfg.model.method, with its weights, on its device, in eval mode; threshold: of the object's probability,
    for the masks that are given out. What enters memory is not changed by it: it is cut at 0.5, as in every test.
    """

    def __init__(self, model, cfg, threshold=0.5, amp=None):
        if not 0 < threshold < 1:
            raise ValueError(f"--threshold {threshold}: expected a probability between 0 and 1, both excluded")
        check_config(cfg, truth=False)
        self.model, self.cfg, self.amp, self.support, self.given = model, cfg, amp, None, None
        task = get_method(cfg.model.method).TASK
        self.follows, self.reads, self.texts = task == "vos", task == "referring", None
        self.least_margin = math.log(threshold / (1 - threshold))            # 0 for 0.5: a tie is background
        self.transform = (None if self.follows else ClipTransform(cfg.data.test_size) if self.reads else
                          TestTransform(cfg.data.size, cfg.data.mask_resize))
        self.restore = self.transform.restore if self.reads else undo_letterbox

    @classmethod
    def from_checkpoint(cls, path, device="cpu", *, config=(), overrides=(), threshold=0.5):
        """A file of train.py or tools/convert_released.py  ->  Segmenter

        device: cpu | cuda; config: YAML files instead of the config in the checkpoint; overrides: "key.sub=value", ...
        """
        cfg = read_config(path, config, overrides)
        method, device = get_method(cfg.model.method), torch.device(choose_device(device))
        model = method.build(cfg, pretrained=path is None)
        if path is not None:
            method.load(model, path, cfg, split=None)      # what it was trained on does not matter here
        if cfg.speed.compile:
            method.compile_parts(model)
        return cls(model.to(device).eval(), cfg, threshold, amp=prepare_runtime(cfg.speed, device))

    def set_masks(self, masks):
        """Which objects to follow, from now on: {number of a frame: (H, W) with the objects' numbers, 0 is background}

        Frames are counted from 0; most often there is one, 0. A bool mask is object 1.
        """
        self.follow(given_masks(masks))

    def set_boxes(self, boxes):
        """The same from boxes (x, y, w, h) in the first frame, in pixels: the objects 1, 2, ..."""
        self.follow(given_boxes(boxes))

    def follow(self, given):
        """given: dataloaders.own.first_masks.Given"""
        if not self.follows:
            raise ValueError(f"model.method {self.cfg.model.method} looks for what supports show, and follows no "
                             "masks.\n  Give it supports (--support, set_support), or take another checkpoint")
        given.check()
        self.given = given

    def set_support(self, images, masks, names=None):
        """What to look for, from now on: K images and their masks, whose sizes may differ from pair to pair.

        images: (H, W, 3) uint8 RGB, (3, H, W) as well where they are tensors, or float in [0, 1]; PIL's will do
        masks: (H, W), bool or numbers, of which all but 0 are object; names: of the images, for messages
        """
        if self.follows:
            raise ValueError(f"model.method {self.cfg.model.method} follows masks, not supports.\n  {HOW}")
        names = [f"support {k}" for k in range(len(images))] if names is None else names
        if len(images) != len(masks) or len(images) == 0:
            raise ValueError(f"set_support: {len(images)} images and {len(masks)} masks; give one mask for each image, "
                             "and one pair at least")
        pictures = [as_picture(image, name) for image, name in zip(images, names, strict=True)]
        masks = [as_mask(*pair) for pair in zip(masks, pictures, names, strict=True)]
        images, masks = self.transform(pictures, masks)
        for mask, name in zip(masks, names, strict=True):
            if not mask.any():
                rows, cols = images.shape[-2:]
                raise ValueError(f"{name}: its object is too small: nothing is left of it at {rows} x {cols} pixels, "
                                 "which is what the model sees (data.size).\n  Cut the image to the object's "
                                 "surroundings, or leave it out")
        usual = self.cfg.data.support_frames if self.reads else self.cfg.data.shots
        if len(images) != usual:
            get_logger().info("%d supports; the model was trained with %d", len(images), usual)
        self.support = images, masks

    def set_texts(self, text, support_text):
        """What to segment in the video, and what the supports show: a sentence each, from now on"""
        if not self.reads:
            raise ValueError(f"model.method {self.cfg.model.method} reads no sentences.\n  Leave --text and "
                             "--support-text out, or take another checkpoint")
        texts = normalised(text or ""), normalised(support_text or "")
        if not all(texts):
            raise ValueError(f"model.method {self.cfg.model.method} reads two sentences.\n  Say what to segment in the "
                             "video (--text) and what the supports show (--support-text, or sentence.txt beside them)")
        self.texts = texts

    def __call__(self, video):
        """Any video, as `predictions` takes it  ->  one mask (H, W) bool after the other, at the frame's own size"""
        return (prediction.mask for prediction in self.predictions(video))

    def predictions(self, video, rng=None):
        """A video  ->  FramePredictions, one after the other; no more than two clips of frames exist at a time

        video: what open_video takes or gives, or frames one after the other: (H, W, 3) uint8 arrays, tensors (3, H, W),
        float in [0, 1], or all of them in one array or tensor
        rng: NumPy generator of the memory draws; None: that of the config's seed, the same for every video
        """
        if self.support is None and self.given is None:
            raise ValueError("Segmenter: what shall be segmented?\n  Call "
                             f"{'set_masks(masks)' if self.follows else 'set_support(images, masks)'} first")
        if self.reads and self.texts is None:
            self.set_texts(None, None)                   # says what is missing
        rng = rng_for(self.cfg.seed, "memory", "segment") if rng is None else rng
        reference = (FirstMasks(self.given.object_ids, from_boxes=bool(self.given.boxes)) if self.follows else
                     ReferringSupport(*self.support, *self.texts[::-1]) if self.reads else SupportSet(*self.support))
        segmenter = get_method(self.cfg.model.method).Segmenter(self.model, reference, self.cfg, rng=rng, amp=self.amp)
        frames = as_frames(video)
        clips = clips_of(frames, self.cfg.test.window if self.reads else self.cfg.data.clip_length)     # 0: one clip
        if not self.follows:
            return self._stream(segmenter, ((clip, self._as_clip(clip)) for clip in clips))
        self.given.check(len(frames.files) if hasattr(frames, "files") else None)      # of films nobody is sure
        return self._stream(segmenter, self.given.clips(clips), np.array(self.given.object_ids, np.uint8))

    def _as_clip(self, frames):
        images, _ = self.transform([f.image for f in frames], [np.zeros(f.image.shape[:2], bool) for f in frames])
        return Clip(images, original_size=frames[0].image.shape[:2])

    def _stream(self, segmenter, clips, numbers=None):
        """Pairs (Frames, Clip)  ->  FramePredictions; numbers: of the objects, which have the frames' size already"""
        for frames, clip in clips:
            prediction = segmenter(segmenter.prepare(clip), clip)
            for t, frame in enumerate(frames):
                margins = prediction.margins[:, t]
                margins = self.restore(margins, frame.image.shape[:2]) if numbers is None else margins
                margin, best = (x.cpu().numpy() for x in margins.max(dim=0))
                mask = margin > self.least_margin
                values = {name: column[t].item() for name, column in prediction.per_frame.items() if column.ndim == 1}
                labels = mask if numbers is None else np.where(mask, numbers[best], np.uint8(0))
                yield FramePrediction(frame.index, labels, margin, values, frame)


def read_config(path, config, overrides):
    """-> EasyDict: the checkpoint's own config unless files of another are given"""
    if path is None and any(text.startswith("model.method=") for text in overrides):
        cfg = load_config(config, overrides)
        if getattr(get_method(cfg.model.method), "UNTRAINED", False):
            return cfg
    if path is None or not Path(path).is_file():
        raise FileNotFoundError(f"--checkpoint: {'none was named' if path is None else f'no file {path}'}.\n"
                                f"  {GET_CHECKPOINT}")
    content = load_checkpoint(path)
    if not isinstance(content.get("model"), dict):
        raise ValueError(f"{path}: no entry 'model': not a checkpoint of train.py or tools/convert_released.py.\n"
                         f"  {GET_CHECKPOINT}")
    trained = content.get("config")
    if not config and not isinstance(trained, dict):
        raise ValueError(f"{path}: the checkpoint does not say its config.\n  Name it: --config config/....yaml")
    own = ((trained or {}).get("model") or {}).get("method")
    asked = ([text.partition("=")[2] for text in overrides if text.startswith("model.method=")] or [own])[-1]
    if own in METHODS and asked in METHODS and get_method(own).TASK != get_method(asked).TASK:
        raise ValueError(f"{path}: a checkpoint of model.method {own}, which cannot serve {asked}.\n  Leave --method "
                         "out, or name a checkpoint of that method")
    cfg = load_config(config, overrides) if config else apply_overrides(trained, overrides)
    warn_of_other_config(trained or cfg, cfg, path)
    return cfg


def run(args):
    """All of it  ->  what is said at the end; an error goes up once what was computed is kept"""
    segmenter = Segmenter.from_checkpoint(args.checkpoint, args.device, config=args.config, overrides=args.overrides,
                                          threshold=args.threshold)
    names = set_reference(segmenter, args)
    video = open_video(args.video, args.every, args.start, args.end, args.fps)
    failure, started, film_fps = None, time.perf_counter(), max(video.fps / args.every, 0.01)
    with ResultFolder(args.output, film_fps, args.soft, args.max_side, not args.no_film) as results:
        try:
            bar = tqdm(segmenter.predictions(video), Path(video.name).name, video.expected, unit="frame",
                       disable=bar_hidden())
            minute = EveryMinute(bar.disable)
            for prediction in bar:
                results.add(prediction.frame, prediction)
                if minute.over():
                    get_logger().info("%d of %s frames", results.frames, video.expected or "unknown")
        except KeyboardInterrupt as error:
            failure = None if video.endless and results.frames else error    # so cameras are stopped
        except (ValueError, OSError) as error:
            failure = error
    summary = summarise(results, args, names, video, time.perf_counter() - started, failure)
    if failure:
        raise failure
    return sentence(summary, args.output)


def set_reference(segmenter, args):
    """What the command line gives to look for or to follow  ->  its names, for the summary"""
    if args.support:
        supports = read_supports(args.support, args.shots, args.object, args.category)
        segmenter.set_support(*supports)
        if segmenter.reads or args.text or args.support_text:
            segmenter.set_texts(args.text, args.support_text or supports.text)
        return supports.names
    given: Given = read_first_masks(args.init_mask) if args.init_mask else given_boxes(args.init_box)
    segmenter.follow(given)
    return args.init_box or [str(name) for name in given.names.values()]


def summarise(results, args, names, video, seconds, failure):
    """summary.json, written  ->  its content"""
    said = ("every", "start", "end", "shots", "object", "category", "threshold", "device", "overrides", "text",
            "support_text")
    summary = results.counts() | {
        "seconds": round(seconds, 3), "fps": round(results.frames / seconds, 2), "complete": failure is None,
        "stopped_by": failure and (str(failure) or type(failure).__name__),
        "video": video.name, "video_fps": video.fps, "supports": names, "checkpoint": str(args.checkpoint),
        "sha256": fingerprint(args.checkpoint) if args.checkpoint else None,
        "settings": {name: getattr(args, name) for name in said}}
    with atomic_file(results.output / "summary.json", "w") as file:
        json.dump(summary, file, indent=1)
    return summary


def sentence(summary, output):
    """The line that is said at the end"""
    rows, cols = summary["size"]
    iou, film = summary["mean_predicted_iou"], summary["film"]
    judged = "no IoUNet" if iou is None else f"mean predicted IoU {iou:.3f}, {summary['remembered']} remembered"
    files = ["masks/", "frames.csv", "summary.json"]
    if film:
        files.insert(1, film if film.endswith(".mp4") else f"{film} (PyAV here has no H.264 encoder)")
    return (f"{summary['frames']} frames of {rows} x {cols} in {summary['seconds']:.1f} s, {summary['fps']:.1f} "
            f"frames/s; {judged}. {output}: {', '.join(files)}")


def main(args=None):
    args = args or parse_arguments()
    setup_logger()
    print(run(args))


if __name__ == "__main__":
    with user_errors():
        main(arguments)
