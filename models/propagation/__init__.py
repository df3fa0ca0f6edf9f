"""Table 3's competitors: the model segments the first frame, a propagation method carries its mask through the video.

`propagation.plug` is one of

    matching                our own propagator (matching.py), which trains nothing
    lwl, llb, ...           any method of the vos task, by its name or module, with propagation.weights=CHECKPOINT
    sam2, xmem              others' networks, with propagation.weights, once their code can be imported
    module:factory          yours, without a change here

`module` has to be importable (PYTHONPATH), and factory(cfg, model, device), called once per video and run, returns an
object with

    begin(image, mask)      the first frame, (3, H, W), and its mask, (H, W) bool, never empty; nothing is returned
    propagate(images)       the next frames in their order, (T, 3, H, W), T at least 1, the last call's may be fewer
                            ->  margins (T, H, W), floating point: object minus background, > 0 is object
    encode(images, features), optional   what begin (its [0]) and propagate shall get instead of the images, indexed by
                            frame; computed once for all runs over a video. features() are the model's own maps of these
                            images (models.backbone.Features, B = 1), computed when first asked for.

    own_size = True, optional    it gets the frames as large as the video has them, where they are at hand (segment.py);
                            its masks and margins are as large

factory.check(cfg.propagation), optional, raises ValueError for what cannot work before any video is read.

Images are on the model's device, otherwise letterboxed to data.size, RGB in [0, 1].
Calls come in inference mode. Several runs go through a video at a time: state belongs to the object, weights to the
module.

xmem.py is an adapter of a method that is driven one frame at a time.
"""
from models.propagation.build import TrainStep, build
from models.propagation.config import Config
from models.propagation.follower import follower
from models.propagation.inference import Segmenter
from models.vipmt import compile_parts, load, parameter_groups

TASK = "fewshot"

__all__ = ["TASK", "Config", "Segmenter", "TrainStep", "build", "compile_parts", "follower", "load",
           "parameter_groups"]
