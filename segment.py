"""Your own video: a few images with masks say what to look for, every frame of the video gets its mask.

    python segment.py --support dog/ --video park.mp4 --checkpoint fold1.pth --output output/park
    python segment.py ... --support dog/ --support cat/       several categories in one pass; or a folder of folders
    python segment.py ... --save-support dog.support          the supports as one file, for --support the next time
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
import hashlib
import json
import math
import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from utils.command_line import EveryMinute, Parser, bar_hidden, say
from utils.config import (
    Affects,
    affected,
    apply_overrides,
    check_config,
    flatten,
    load_config,
    to_dict,
    user_errors,
)


def parse_arguments():
    parser = Parser(__doc__)
    parser.add_argument("--support", action="append", default=[], metavar="FOLDER",
                        help="images with masks, or a file of --save-support; several, or a folder of folders: as many")
    parser.add_argument("--save-support", metavar="FILE", help="keep the supports as one file, with what the model "
                                                               "computes of them; without --video that is all")
    parser.add_argument("--method", metavar="NAME", help="of the checkpoint, e.g. lwl; or one that needs none")
    parser.add_argument("--init-mask", metavar="FILE",
                        help="PNG that numbers the objects in the first frame, or a folder of them by frame")
    parser.add_argument("--init-box", action="append", default=[], metavar="X,Y,W,H",
                        help="of an object in the first frame, in pixels; repeat it for the objects 2, 3, ...")
    parser.add_argument("--text", metavar="SENTENCE", help="what to segment in the video, where the method reads it")
    parser.add_argument("--support-text", metavar="SENTENCE", help="what the supports' masks show, likewise")
    parser.add_argument("--video", help="film, folder of frames, or number of a camera")
    parser.add_argument("--checkpoint", metavar="FILE", help="of train.py or tools/convert_released.py")
    parser.add_argument("--output", metavar="DIR", help="folder of the result")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th frame")
    parser.add_argument("--start", metavar="TIME", help="first frame: seconds (12.5), or a frame's number (300f)")
    parser.add_argument("--end", metavar="TIME", help="the frame before which it ends, as --start")
    parser.add_argument("--fps", type=float, help="frames per second of a folder of frames (6), or of a film that lies")
    parser.add_argument("--shots", type=int, metavar="K", help="only the first K images of the support folder")
    parser.add_argument("--object", type=int, metavar="N", help="object number in the masks; default: all but 0")
    parser.add_argument("--category", metavar="NAME", help="label in files of LabelMe or COCO with several")
    parser.add_argument("--threshold", type=float, default=0.5, metavar="P",
                        help="probability above which a pixel is object (0.5); memory is always cut at 0.5")
    parser.add_argument("--absent", default="never", metavar="auto|never|P",
                        help="auto: nothing is marked where the object seems not to be there; P: below this presence "
                             "(of auto 0.86), which frames.csv then has; three times the work behind the encoder")
    parser.add_argument("--soft", action="store_true", help="also probabilities, soft/00000.png: grey, 255 is certain")
    parser.add_argument("--max-side", type=int, default=1280, metavar="PIXELS",
                        help="longer side of the film at most (1280; 0: as the video); masks keep the video's size")
    parser.add_argument("--no-film", action="store_true", help="no overlay film; in HD it takes most of the time")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    parser.add_argument("--config", action="append", default=[], metavar="FILE",
                        help="instead of the config in the checkpoint; repeat it to lay one over the other")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="changes a key, e.g. memory.min_iou=0.6")
    return checked(parser.parse_intermixed_args(), parser)


def checked(args, parser):
    """The same; an error where what is given does not go together"""
    if not (args.video and args.output) and (args.video or args.output or not args.save_support):
        parser.error(f"--{'output' if args.video else 'video'} is missing")
    if sum(map(bool, (args.support, args.init_mask, args.init_box))) != 1:
        raise ValueError("what to segment?\n  Give one of --support FOLDER, --init-mask FILE, --init-box X,Y,W,H")
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
from dataloaders.own.first_masks import HOW, Given, given_boxes, given_masks, read_first_masks
from dataloaders.own.support_file import write_support_file
from dataloaders.own.supports import Supports, as_seen, read_categories
from dataloaders.own.video import Frame, as_frames, clips_of, open_video
from dataloaders.referring.transforms import ClipTransform
from dataloaders.transforms import TestTransform, undo_letterbox
from models import METHODS, get_method
from utils.checkpoint import load_checkpoint, some_names
from utils.evaluation.presence import Presence, limit_of
from utils.evaluation.results import warn_of_other_config
from utils.files import atomic_file, fingerprint, owned
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
    frame's own size; of several objects or categories their numbers, uint8, and the margin of the best one; values:
    what else the method says of it, {name: number}, of several categories the means; frame:
    dataloaders.own.video.Frame, with its time and image; more: {"NAME area": ..., "NAME predicted_iou": ...} of these
    """
    index: int
    mask: np.ndarray
    margin: np.ndarray
    values: dict
    frame: Frame
    more: dict = field(default_factory=dict)

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
    absent: never | auto | the presence below which an object counts as absent (utils/evaluation/presence.py)
    """

    def __init__(self, model, cfg, threshold=0.5, amp=None, absent="never"):
        if not 0 < threshold < 1:
            raise ValueError(f"--threshold {threshold}: expected a probability between 0 and 1, both excluded")
        check_config(cfg, truth=False)
        self.model, self.cfg, self.amp, self.given, self.supports, self.made_by = model, cfg, amp, None, {}, None
        task = get_method(cfg.model.method).TASK
        self.absent = limit_of(absent)
        if self.absent is not None and task != "fewshot":
            raise ValueError("--absent is for few-shot methods, which look for what supports show; leave it out")
        self.follows, self.reads, self.texts = task == "vos", task == "referring", None
        self.least_margin = math.log(threshold / (1 - threshold))            # 0 for 0.5: a tie is background
        self.transform = (None if self.follows else ClipTransform(cfg.data.test_size) if self.reads else
                          TestTransform(cfg.data.size, cfg.data.mask_resize))
        self.restore = self.transform.restore if self.reads else undo_letterbox

    @classmethod
    def from_checkpoint(cls, path, device="cpu", *, config=(), overrides=(), threshold=0.5, absent="never"):
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
        segmenter = cls(model.to(device).eval(), cfg, threshold, prepare_runtime(cfg.speed, device), absent)
        segmenter.made_by = path and weights_id(path, cfg)
        return segmenter

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
        self.set_supports({"object": Supports(images, masks, names or [f"support {k}" for k in range(len(images))])})

    def set_supports(self, categories):
        """Several categories at once, {name: dataloaders.own.supports.Supports}: masks have their numbers 1, 2, ...

        What a file of supports brings of this very model's features is not computed again.
        """
        if self.follows:
            raise ValueError(f"model.method {self.cfg.model.method} follows masks, not supports.\n  {HOW}")
        if self.reads and len(categories) > 1:
            raise ValueError(f"model.method {self.cfg.model.method} looks for one object; name one --support")
        self.supports = {name: self._as_seen(supports) for name, supports in categories.items()}

    def _as_seen(self, supports):
        """Supports as people have them  ->  SupportSet, as the network sees them"""
        images, masks = as_seen(supports, self.transform)
        usual = self.cfg.data.support_frames if self.reads else self.cfg.data.shots
        if len(images) != usual:
            get_logger().info("%d supports; the model was trained with %d", len(images), usual)
        own = supports.encoded if supports.made_by and supports.made_by == self.made_by else None
        return SupportSet(images, masks, encoded={k: torch.from_numpy(x) for k, x in (own or {}).items()})

    def save_support(self, path, supports):
        """Supports  ->  a file for read_supports, with their features; warns of one that the others do not find"""
        seen = self._as_seen(supports)
        agreement, known = self.agreement(seen), self._segmenter(seen)
        for text in doubts(supports.names, agreement):
            get_logger().warning("%s", text)
        encoded = known.encoded() if hasattr(known, "encoded") else {}
        encoded = {name: (x.float() if x.is_floating_point() else x).numpy() for name, x in encoded.items()}
        write_support_file(path, replace(supports, agreement=agreement or None, encoded=encoded), self.made_by)

    def agreement(self, seen):
        """SupportSet of K  ->  for each the IoU with which the others find its object; [] of fewer than three"""
        found, numbers = [], range(len(seen.images))
        for k in numbers if len(numbers) > 2 else ():
            others = [i for i in numbers if i != k]
            one, clip = self._segmenter(SupportSet(seen.images[others], seen.masks[others])), Clip(seen.images[k:k + 1])
            mask, truth = one(one.prepare(clip), clip).masks[0, 0].cpu(), seen.masks[k]
            found.append(((mask & truth).sum() / (mask | truth).sum()).item())
        return found

    def _judged(self, reference, rng):
        """The method's Segmenter, which also says whether the object is there, where that is wanted"""
        whole = self._segmenter(reference, rng)
        if self.absent is None:
            return whole
        count = len(reference.images)
        parts = [slice(0, count // 2), slice(count // 2, None)] if count > 1 else []
        return Presence(whole, [self._segmenter(SupportSet(reference.images[part], reference.masks[part]))
                                for part in parts])

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
        if not self.supports and self.given is None:
            raise ValueError("Segmenter: what shall be segmented?\n  Call "
                             f"{'set_masks(masks)' if self.follows else 'set_support(images, masks)'} first")
        if self.reads and self.texts is None:
            self.set_texts(None, None)                   # says what is missing
        references = ([FirstMasks(self.given.object_ids, from_boxes=bool(self.given.boxes))] if self.follows else
                      [ReferringSupport(one.images, one.masks, *self.texts[::-1]) if self.reads else one
                       for one in self.supports.values()])
        segmenters = [self._judged(one, rng_for(self.cfg.seed, "memory", "segment", o) if o else rng)
                      for o, one in enumerate(references)]
        frames = as_frames(video)
        clips = clips_of(frames, self.cfg.test.window if self.reads else self.cfg.data.clip_length)     # 0: one clip
        if not self.follows:
            return self._stream(segmenters, ((clip, self._as_clip(clip)) for clip in clips))
        self.given.check(len(frames.files) if hasattr(frames, "files") else None)      # of films nobody is sure
        return self._stream(segmenters, self.given.clips(clips))

    def _as_clip(self, frames):
        images, _ = self.transform([f.image for f in frames], [np.zeros(f.image.shape[:2], bool) for f in frames])
        return Clip(images, original_size=frames[0].image.shape[:2])

    def _stream(self, segmenters, clips):
        """Pairs (Frames, Clip)  ->  FramePredictions; each frame is encoded once for all categories"""
        for frames, clip in clips:
            prepared = segmenters[0].prepare(clip)
            found = [segmenter(prepared, clip) for segmenter in segmenters]
            for t, frame in enumerate(frames):
                margins = torch.cat([one.margins[:, t] for one in found])
                margins = margins if self.follows else self.restore(margins, frame.image.shape[:2])
                values = [{name: column[t].item() for name, column in one.per_frame.items() if column.ndim == 1}
                          for one in found]
                yield self._prediction(margins, values, frame)

    def _prediction(self, margins, values, frame):
        """margins (O, H, W) of objects or categories, what each Segmenter says  ->  FramePrediction; the larger wins"""
        more, names = {}, self.categories
        for o, own in enumerate(values if self.absent else ()):
            here = own.pop("presence") >= self.absent
            margins[o] = margins[o] if here else margins[o].clamp(max=min(self.least_margin, 0))
            more[f"{names[o] if names else ''} present".strip()] = int(here)
        margin, best = (x.cpu().numpy() for x in margins.max(dim=0))
        mask = margin > self.least_margin
        numbers = np.array(self.given.object_ids if self.follows else range(1, len(names) + 1), np.uint8)
        labels = np.where(mask, numbers[best], np.uint8(0)) if self.follows or names else mask
        for number, name, own in zip(numbers, names, values, strict=False):
            more |= {f"{name} area": int((labels == number).sum())}
            more |= {f"{name} predicted_iou": round(own["pred_iou"], 4)} if "pred_iou" in own else {}
        if len(values) > 1:
            values = [{key: statistics.fmean(one[key] for one in values) for key in values[0]}]
        return FramePrediction(frame.index, labels, margin, values[0], frame, more)

    @property
    def categories(self):
        """Names of several categories, in the order of their numbers 1, 2, ...; [] of one"""
        return [*self.supports] if len(self.supports) > 1 and not self.follows else []

    @property
    def columns(self):
        """Names of what FramePrediction.more has"""
        names, present = self.categories, ["present"] * (self.absent is not None)
        return [f"{name} {what}" for name in names for what in ("area", "predicted_iou", *present)] or present


def doubts(names, agreement):
    """Names of supports, what Segmenter.agreement says of them  ->  sentences about outliers"""
    usual = statistics.median(agreement) if agreement else 0
    return [f"{name}: the other supports find its object with IoU {value:.2f}, theirs with {usual:.2f}: is it of the "
            "same kind, and its mask right?" for name, value in zip(names, agreement, strict=False)
            if value < usual / 2 and usual > 0.2]


def weights_id(path, cfg):
    """What two models share that compute the same of a support: the file's content, the config as far as it counts"""
    keys, flat = affected(cfg, Affects.WEIGHTS), flatten(to_dict(cfg))
    known = json.dumps([fingerprint(path), {key: flat[key] for key in sorted(keys)}])
    return hashlib.sha256(known.encode()).hexdigest()


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
        raise ValueError(f"{path}: no entry 'model', but {some_names(content)}: no checkpoint of train.py or "
                         "tools/convert_released.py.\n"
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
                                          threshold=args.threshold, absent=args.absent)
    names = set_reference(segmenter, args)
    if not args.video:
        return f"{args.save_support}: {len(names)} supports; --support {args.save_support} takes them"
    video = open_video(args.video, args.every, args.start, args.end, args.fps)
    failure, started, film_fps = None, time.perf_counter(), max(video.fps / args.every, 0.01)
    with owned(args.output), ResultFolder(args.output, film_fps, args.soft, args.max_side, not args.no_film,
                                          segmenter.columns) as results:
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
    seconds = time.perf_counter() - started
    summary = summarise(results, args, names, segmenter.categories, video, seconds, failure)
    if failure:
        raise failure
    doubtful, memory = segmenter.doubts(names), segmenter.cfg.get("memory", {})
    if summary["mean_predicted_iou"] is not None and not summary["remembered"] and memory.get("select") == "predicted":
        doubtful.append(f"No frame is trusted: the model expects an IoU below {memory.min_iou} (memory.min_iou) of all "
                        "its masks, so look at them")
    return "\n".join([sentence(summary, args.output), *doubtful])


def set_reference(segmenter, args):
    """What the command line gives to look for or to follow  ->  its names, for the summary"""
    if args.support:
        categories = read_categories(args.support, args.shots, args.object, args.category)
        first = next(iter(categories.values()))
        segmenter.set_supports(categories)
        if segmenter.reads or args.text or args.support_text:
            segmenter.set_texts(args.text, args.support_text or first.text)
        if args.save_support:
            if len(categories) > 1:
                raise ValueError("--save-support: one file holds one category; save each with a command of its own")
            segmenter.save_support(args.save_support, first)
        return [name for supports in categories.values() for name in supports.names]
    given: Given = read_first_masks(args.init_mask) if args.init_mask else given_boxes(args.init_box)
    segmenter.follow(given)
    return args.init_box or [str(name) for name in given.names.values()]


def summarise(results, args, names, categories, video, seconds, failure):
    """summary.json, written  ->  its content"""
    said = ("absent", "every", "start", "end", "shots", "object", "category", "threshold", "device", "overrides",
            "text", "support_text")
    summary = results.counts() | {
        "seconds": round(seconds, 3), "fps": round(results.frames / seconds, 2), "complete": failure is None,
        "stopped_by": failure and (str(failure) or type(failure).__name__),
        "video": video.name, "video_fps": video.fps, "supports": names,
        "categories": dict(enumerate(categories, start=1)), "checkpoint": str(args.checkpoint),
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
    judged += "; " * bool(summary["categories"]) + ", ".join(f"{n} {name}" for n, name in summary["categories"].items())
    if summary["absent"] is not None:
        judged += f"; absent in {summary['absent']} frames"
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
