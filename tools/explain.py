"""One HTML page about one test episode: what VIPMT attends to, believes and remembers, beside Figures 2 and 3.

    python -m tools.explain --config config/demo/ytvis.yaml --fold 1 --video demo_0000
    python -m tools.explain --config config/vipmt/ytvis.yaml --fold 1 [--checkpoint FILE] [--episode N]
    python -m tools.explain --config config/demo/ytvis.yaml --fold 1 --video NAME [--class NAME] [--run R] [--clip N]

The whole video is segmented just as test.py does it, with the supports and memory draws of that run; one clip is shown
in full: attention of the support, clip, memory and frame prototypes, prior, masks of every iteration, similarity maps.
Episodes, runs and clips are counted from 0. The page needs nothing but itself; a browser opens it from the disk. It
replaces an older one of the same clip, whatever that was made with: to compare settings, give each its --output.
"""
import difflib
import re
from functools import partial
from pathlib import Path

from utils.command_line import Parser, say
from utils.config import add_config_arguments, load_config, user_errors


def parse_arguments():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--fold", "--group", type=int, choices=(1, 2, 3, 4), required=True)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: output/NAME/foldK/*.pth")
    parser.add_argument("--iou-net", metavar="FILE", help="short for iou_net.replace=FILE: another file's IoUNet")
    parser.add_argument("--episode", type=int, metavar="N", help="position among the fold's test episodes; default 0")
    parser.add_argument("--video", metavar="NAME", help="instead: the episode of this video")
    parser.add_argument("--class", metavar="NAME", help="where the video is tested for several classes")
    parser.add_argument("--run", type=int, default=0, metavar="R", help="whose supports; default 0")
    parser.add_argument("--clip", type=int, metavar="N", help="the clip in detail; default: the last that has memory")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: output/NAME/foldK/explain")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    args = parser.parse_intermixed_args()
    args.overrides += [f"iou_net.replace={args.iou_net}"] if args.iou_net else []
    return args


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()
    say("loading PyTorch")

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
import torch
from tqdm import tqdm

from dataloaders import build_index
from dataloaders.fewshot.streaming import EpisodeStream, TestEpisodes
from models import get_method
from models.trained import trained_model
from tools.explanation.capture import capture
from tools.explanation.page import build_page, why_without_memory
from utils.evaluation.results import warn_of_other_config
from utils.files import atomic_file, fingerprint
from utils.logger import get_logger
from utils.pictures.overlay import as_pixels
from utils.runtime import choose_device, prepare_runtime
from utils.seeds import rng_for

# -- which episode --------------------------------------------------------------------------------------------------

def find_episode(episodes, number=None, video=None, class_name=None):
    """TestEpisodes, what the user asked for  ->  its position; ValueError with what there is instead"""
    if number is not None and (video or class_name):
        raise ValueError("--episode and --video or --class: give the episode's number or its names, not both")
    if not len(episodes):
        raise ValueError(f"{episodes.index.path}: this fold has no test episodes; check data.root and --fold")
    if number is not None:
        if not 0 <= number < len(episodes):
            raise ValueError(f"--episode {number}: the fold has {len(episodes)} test episodes; "
                             f"give 0 to {len(episodes) - 1}, or --video NAME")
        return number
    found = range(len(episodes))
    if class_name:
        found = matching(found, lambda i: episodes.index.class_name(episodes.pairs[i][0]), class_name, "--class",
                         "test class of this fold")
    if video:
        what = f"test video of class {class_name}" if class_name else "test video of this fold"
        found = matching(found, lambda i: episodes.key(i)[1], video, "--video", what)
    if video and len(found) > 1:
        names = ", ".join(episodes.index.class_name(episodes.pairs[i][0]) for i in found)
        raise ValueError(f"--video {video}: it is tested for {len(found)} classes; add --class with one of: {names}")
    return found[0]


def matching(numbers, name_of, wanted, flag, what, most=10):
    """Those of `numbers` whose name is `wanted`; ValueError with names that are near."""
    found = [i for i in numbers if name_of(i) == wanted]
    if not found:
        names = sorted({name_of(i) for i in numbers})
        near = [n for n in names if wanted in n] or difflib.get_close_matches(wanted, names, n=most) or names
        some = near[:most] if len(names) > most else names
        raise ValueError(f"{flag} {wanted}: no such {what}.\n  There are {len(names)}, among them: {', '.join(some)}")
    return found


def load_video(cfg, args, cache):
    """The test video asked for, with its clips on their way; ValueError for a clip that it does not have"""
    if args.run < 0:
        raise ValueError(f"--run {args.run}: runs are counted from 0")
    index, novel = build_index(cfg, cache).side(args.fold, "test")
    episodes = TestEpisodes(index, novel, cfg, args.run)
    number = find_episode(episodes, args.episode, args.video, getattr(args, "class"))
    clips = episodes.num_clips(number)
    if args.clip is not None and not 0 <= args.clip < clips:
        raise ValueError(f"--clip {args.clip}: video {episodes.key(number)[1]} has {clips} clips of "
                         f"{cfg.data.clip_length} frames; give 0 to {clips - 1}, or leave it out")
    return number, clips, next(iter(EpisodeStream(episodes, [number])))


# -- the page -------------------------------------------------------------------------------------------------------

def load_model(cfg, file, fold):
    """The trained model of test.py  ->  its method, the model"""
    if cfg.model.method != "vipmt":
        raise ValueError(f"model.method: {cfg.model.method}: only vipmt is explained; use a config of it")
    model, content = trained_model(cfg, file, fold)
    warn_of_other_config(content.get("config", cfg), cfg, file)
    return get_method(cfg.model.method), model


def facts_of(cfg, args, file, video, number):
    """What the page says about itself, {name: value}"""
    facts, iou_net = video.references[0].facts[0], cfg.iou_net.replace
    return {
        "episode": f"{facts['class']} in video {facts['video']}",
        "number": f"{number} of fold {args.fold}, run {facts['run']}, protocol {cfg.test.protocol}",
        "config": " ".join([*args.config, *args.overrides]) or "config/vipmt/ytvis.yaml",
        "checkpoint": f"{file}, SHA-256 {fingerprint(file)[:12]}",
        **({"IoUNet": f"{iou_net}, SHA-256 {fingerprint(iou_net)[:12]}"} if iou_net != "none" else {}),
        "input": f"{' x '.join(map(str, cfg.data.size))}, {cfg.data.shots} shots, clips of {cfg.data.clip_length}",
        "query frames": f"{len(video.frames)}, {video.frames[0]} to {video.frames[-1]}"}


def explain(args, cfg):
    """The page that the command line asks for  ->  its path"""
    base, device = Path("output", cfg.name, f"fold{args.fold}"), torch.device(choose_device(args.device))
    file = args.checkpoint or base / f"{cfg.checkpoint.select}.pth"
    method, model = load_model(cfg, file, args.fold)
    number, clips, video = load_video(cfg, args, (args.output or base) / "cache")
    reference, = video.references
    facts = reference.facts[0]
    segmenter = method.Segmenter(model.to(device), reference, cfg, rng=rng_for(cfg.seed, "memory", *reference.key),
                                 amp=prepare_runtime(cfg.speed, device))
    progress = partial(tqdm, total=clips, desc=video.id, unit="clip", disable=None)
    view = capture(model, video, segmenter, args.clip, progress)
    if model.iou_net is not None and not view.detail.memory:
        get_logger().warning("clip %d: %s", view.detail.number, why_without_memory(view.detail, cfg))
    supports = list(zip(as_pixels(reference.images), reference.masks.numpy(), facts["support_frames"], strict=True))
    page = build_page(view, supports, facts_of(cfg, args, file, video, number), cfg)
    name = f"{facts['class']}_{facts['video']}_run{facts['run']}_clip{view.detail.number}"
    path = (args.output or base / "explain") / (re.sub(r"[^\w-]", "_", name) + ".html")
    with atomic_file(path) as out:
        out.write(page.encode("utf-8"))
    return path


if __name__ == "__main__":
    with user_errors():
        print(explain(arguments, load_config(arguments.config, arguments.overrides)))
