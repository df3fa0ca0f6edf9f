"""One synthetic video for the demo data: objects move over a cluttered background and hide one another.

In: a category and a random generator. Out: RGB frames and, pixel for pixel, which object is seen there.
A category is a shape with a texture: neither suffices alone. Each texture has its range of hues, since a network that
has minutes finds those first; size, place, brightness and saturation say nothing about the category.
`demo.py` writes the result in YouTube-VIS layout.
"""
import colorsys
from dataclasses import dataclass, replace
from itertools import product

import cv2
import numpy as np

SHAPES = ("disc", "star", "ring", "capsule")
TEXTURES = ("striped", "checkered", "speckled", "shaded")
HUES = {"striped": 0.07, "checkered": 0.32, "speckled": 0.57, "shaded": 0.82,     # mean; neighbours just overlap,
        "zigzag": 0.195, "meshed": 0.445, "dotted": 0.695, "ringed": 0.945}       # these lie between, for other layouts
UNIT_AREA = {"disc": 2.75, "star": 1.54, "ring": 2.46, "capsule": 1.33,    # at radius 1; all shapes get equal areas
             "cross": 2.20, "triangle": 1.40, "crescent": 1.60, "clover": 2.21, "block": 2.20}
LEAVING = 0.1                  # of the objects leave the frame or enter it
NARROWEST = 0.55               # width of an object that is seen from its side, of its width
AREA_RANGE = (0.08, 0.20)      # of the frame, per object, before it is cut or hidden
PAN = 24                       # pixels of background beyond each border, for the camera's movement
GRAIN_SIZE = 128               # side of the noise from which speckles are read


@dataclass(frozen=True)
class Category:
    """Shape and texture, and the middle of its range of hues where that is not the texture's own."""
    id: int
    shape: str
    texture: str
    hue: float | None = None

    @property
    def name(self):
        return f"{self.texture}_{self.shape}" + (f"_hue_{self.hue:.2f}" if self.hue is not None else "")


# Fold f tests the ids with (id - 1) % 4 == f - 1: here each shape once and each texture once, so that all four of
# both also occur among the 12 training categories, in other combinations.
CATEGORIES = tuple(Category(4 * s + fold + 1, shape, TEXTURES[(s + fold) % 4])
                   for s, shape in enumerate(SHAPES) for fold in range(4))

# What the demo's encoder learns on (pretrain_model/README.md): no shape and no texture of these is tested anywhere, and
# each comes in every hue, so that shape, texture and hue all have to be told apart.
ENCODER_CATEGORIES = tuple(Category(number, *look) for number, look in enumerate(product(
    ("triangle", "crescent", "clover", "block"), ("zigzag", "meshed", "ringed"), [n / 6 for n in range(1, 7)]), 1))


@dataclass
class Thing:
    """One object over T frames: all that is random about it, drawn beforehand."""
    category: Category
    path: np.ndarray           # (T, 2) centre: row, column
    radius: np.ndarray         # (T,) pixels
    angle: np.ndarray          # (T,) radians
    wobble: np.ndarray         # (2, 3) per harmonic of the outline: amplitude, phase, speed
    form: float                # [0, 1], the variant within its shape
    tones: np.ndarray          # (2, 3) RGB, 0 to 255: the dark and the bright colour of the texture
    period: float              # pixels, of the texture
    phase: float               # radians, of the texture
    grain: np.ndarray          # (GRAIN_SIZE, GRAIN_SIZE) noise for speckles
    turn: np.ndarray | None = None       # (T,) [0, 1]: how far its back is turned to the camera
    back: "Thing | None" = None          # whose texture and tones the back has


@dataclass
class Bar:
    """A plain post or beam that passes in front of everything: straight, across the whole frame, never annotated."""
    normal: np.ndarray         # (2,) unit vector: row, column
    offset: np.ndarray         # (T,) pixels along the normal
    half_width: float
    colour: np.ndarray         # (3,) RGB, 0 to 255


def render_video(category, num_frames, size, rng, pool=CATEGORIES, leaving=LEAVING, turning=0.0):
    """Category, T, (H, W), generator  ->  frames (T, H, W, 3) uint8 RGB, labels (T, H, W) uint8, [Category per label]

    Label 0 is background, label i the visible pixels of object i, whose category is the list's entry i - 1.
    pool: the categories of the distractors; leaving: the share of objects that are out of the frame for a while.
    turning: the share of videos whose objects turn; their backs look like another category.
    """
    things = [make_thing(c, anchor, num_frames, size, rng, leaving)
              for c, anchor in place(choose_categories(category, rng, pool), size, rng)]
    if turning and rng.random() < turning:
        things = [turned(thing, num_frames, rng) for thing in things]
    depth = rng.permutation(len(things))                  # the last one is nearest to the camera
    bar = make_bar(num_frames, size, rng) if rng.random() < 0.15 else None
    backdrop = paint_backdrop(size, rng)
    pan = PAN * wander(num_frames, rng)                   # (T, 2)
    light = 1 + 0.08 * wander(num_frames, rng)[:, 0]      # (T,)
    noise = rng.uniform(2, 7)
    frames = np.empty((num_frames, *size, 3), np.uint8)
    labels = np.zeros((num_frames, *size), np.uint8)
    for t in range(num_frames):
        image = crop(backdrop, pan[t], size)
        for i in depth:
            draw_thing(image, labels[t], things[i], t, label=i + 1)
        if bar:
            draw_bar(image, labels[t], bar, t)
        image = image * light[t] + rng.normal(0, noise, image.shape)
        frames[t] = image.clip(0, 255)
    return frames, labels, [thing.category for thing in things]


# What is in the video

def choose_categories(category, rng, pool=CATEGORIES):
    """One or two targets and one or two distractors, of which about one in eight shares the shape or the texture."""
    others = [c for c in pool if c != category]
    unlike = [c for c in others if c.shape != category.shape and c.texture != category.texture]
    targets = 1 + (rng.random() < 0.2)
    distractors = rng.choice((1, 2), p=(0.6, 0.4))
    pools = [unlike if rng.random() < 0.7 else others for _ in range(distractors)]
    return [category] * targets + [pool[rng.integers(len(pool))] for pool in pools]


def place(categories, size, rng):
    """Pair each category with an anchor (row, column): of ten random points the one farthest from those taken."""
    taken = []
    for category in categories:
        points = rng.uniform(0.2, 0.8, (10, 2)) * size
        gaps = [min((np.linalg.norm(p - q) for q in taken), default=0) for p in points]
        taken.append(points[int(np.argmax(gaps))])
        yield category, taken[-1]


def make_thing(category, anchor, num_frames, size, rng, leaving=LEAVING):
    """Everything random about one object; size and movement are drawn alike for all categories."""
    area = np.exp(rng.uniform(*np.log(AREA_RANGE))) * size[0] * size[1]
    radius = np.sqrt(area / UNIT_AREA[category.shape]) * (1 + 0.15 * wander(num_frames, rng)[:, 0])
    spin = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.12, 0.12) * np.arange(num_frames)
    grain = cv2.GaussianBlur(rng.normal(0, 1, (GRAIN_SIZE, GRAIN_SIZE)).astype(np.float32), (0, 0), 1.2)
    return Thing(
        category, move(anchor, radius, size, rng, leaving), radius, spin,
        wobble=np.stack([rng.uniform(0.02, 0.07, 2), rng.uniform(0, 2 * np.pi, 2), rng.uniform(-0.4, 0.4, 2)], axis=1),
        form=rng.random(), tones=draw_tones(category.hue or HUES[category.texture], rng), period=rng.uniform(10, 13),
        phase=rng.uniform(0, 2 * np.pi), grain=grain / grain.std())


def turned(thing, num_frames, rng):
    """The same object, which turns once on its way: at first its front is seen, at last its back.

    The back's texture and hue are drawn anew for every object, so that no other video tells what it will look like.
    """
    texture = rng.choice([name for name in TEXTURES if name != thing.category.texture])
    middle, speed = rng.uniform(0.3, 0.6) * num_frames, rng.uniform(0.08, 0.2) * num_frames
    turn = 1 / (1 + np.exp((middle - np.arange(num_frames)) / speed * 2))
    back = replace(thing, category=replace(thing.category, texture=texture), tones=draw_tones(rng.random(), rng))
    return replace(thing, turn=turn, back=back)


def draw_tones(hue, rng):
    """A dark and a bright colour of hues near the given one  ->  (2, 3) RGB, 0 to 255"""
    hue = hue + rng.normal(0, 0.07)
    dark = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.5, 1), rng.uniform(0.1, 0.35))
    bright = colorsys.hsv_to_rgb((hue + rng.uniform(-0.05, 0.05)) % 1, rng.uniform(0.3, 0.8), rng.uniform(0.85, 1))
    return 255 * np.array([dark, bright])


def make_bar(num_frames, size, rng):
    """A bar that crosses the middle of the frame at some time, steep in most videos."""
    slant = rng.normal(0, 0.3)
    normal = np.array([np.sin(slant), np.cos(slant)])
    middle = normal @ (rng.uniform(0.3, 0.7, 2) * size)
    shift = rng.uniform(-3, 3) * (np.arange(num_frames) - num_frames / 2)
    colour = 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.2, 0.9)))
    return Bar(normal, middle + shift, rng.uniform(0.03, 0.06) * min(size), colour)


# How it moves

def wander(num_frames, rng):
    """Two smooth random curves in [-1, 1]  ->  (T, 2)"""
    speed = rng.uniform(0.1, 0.35, 2)
    return np.sin(speed * np.arange(num_frames)[:, None] + rng.uniform(0, 2 * np.pi, 2))


def move(anchor, radius, size, rng, leaving):
    """Drift and sway about the anchor, turned back at the borders; a share leaves or enters  ->  (T, 2)"""
    time = np.arange(len(radius))[:, None] - len(radius) / 2
    scale = min(size) / 96
    path = anchor + scale * (rng.uniform(-2.2, 2.2, 2) * time + rng.uniform(0, 6) * wander(len(radius), rng))
    low = 0.5 * radius.mean()
    span = np.array(size) - 2 * low
    path = low + span - np.abs((path - low) % (2 * span) - span)      # reflected: a triangle wave
    if rng.random() < leaving:
        leave(path, radius, size, rng)
    return path


def leave(path, radius, size, rng):
    """In place: the object is beyond the nearer side border for about three frames around a random one."""
    away = np.abs(np.arange(len(path)) - rng.integers(len(path)))
    share = np.clip((3.5 - away) / 2.5, 0, 1)                         # 0 on its way, 1 outside
    outside = np.where(path[:, 1] < size[1] / 2, -1.4 * radius, size[1] + 1.4 * radius)
    path[:, 1] += share * (outside - path[:, 1])


# How it is drawn

def draw_thing(image, labels, thing, t, label):
    """In place: blend object into image (H, W, 3) float; labels (H, W) becomes `label` where it covers half a pixel."""
    centre, radius = thing.path[t], thing.radius[t]
    low = np.maximum(np.floor(centre - 1.35 * radius), 0).astype(int)
    high = np.minimum(np.ceil(centre + 1.35 * radius) + 1, labels.shape).astype(int)
    if (low >= high).any():
        return                                            # wholly outside the frame
    area = np.s_[low[0]:high[0], low[1]:high[1]]
    rows, cols = np.ogrid[area]
    dy, dx = (rows - centre[0]) / radius, (cols - centre[1]) / radius
    cos, sin = np.cos(thing.angle[t]), np.sin(thing.angle[t])
    u, v = bend_outline(cos * dx + sin * dy, cos * dy - sin * dx, thing.wobble, t)
    turn = 0 if thing.turn is None else thing.turn[t]
    u = u / (1 - (1 - NARROWEST) * 4 * turn * (1 - turn))
    cover = np.clip(0.5 - radius * OUTLINES[thing.category.shape](u, v, thing.form), 0, 1)
    base = thing.radius.mean()                            # the texture is attached to the surface, and grows with it
    colour = paint(thing, base * u, base * v)
    if turn:
        colour = colour + turn * (paint(thing.back, base * u, base * v) - colour)
    image[area] += cover[..., None] * (colour - image[area])
    labels[area][cover > 0.5] = label


def paint(thing, x, y):
    """Coordinates in pixels  ->  colours (..., 3), RGB, 0 to 255"""
    blend = SURFACES[thing.category.texture](x, y, thing)
    return thing.tones[0] + blend[..., None] * (thing.tones[1] - thing.tones[0])


def bend_outline(u, v, wobble, t):
    """Undo the low-frequency radial deformation of frame t: object coordinates -> those of the ideal shape."""
    theta = np.arctan2(v, u)
    stretch = 1 + sum(a * np.cos(k * theta + phase + speed * t) for k, (a, phase, speed) in enumerate(wobble, start=2))
    return u / stretch, v / stretch


def disc(u, v, form):
    """Each outline: coordinates in radii, variant in [0, 1]  ->  about the distance to the border, negative inside."""
    return np.hypot(u, v / (0.75 + 0.25 * form)) - 1


def star(u, v, form, outer=1.05, inner=0.5):
    points = 5 if form < 0.5 else 6
    half = np.pi / points                                 # angle between a tip and the notch beside it
    phi = np.abs((np.arctan2(v, u) + half) % (2 * half) - half)
    border = outer * inner * np.sin(half) / (outer * np.sin(phi) + inner * np.sin(half - phi))
    return 0.6 * (np.hypot(u, v) - border)                # 0.6: the border runs obliquely to the radius


def ring(u, v, form):
    return np.abs(np.hypot(u, v) - 0.7) - 0.26 - 0.04 * form


def capsule(u, v, form):
    bent = v + (form - 0.5) * 0.5 * (u ** 2 - 0.3)
    return np.hypot(np.maximum(np.abs(u) - 0.64, 0), bent) - 0.36


def cross(u, v, form):
    arm = 0.29 + 0.08 * form
    u, v = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(u - 1, v - arm), np.maximum(v - 1, u - arm))


def triangle(u, v, form):
    v = v / (0.85 + 0.3 * form)
    return np.maximum(-u, 0.5 * u + np.sqrt(0.75) * np.abs(v)) - 0.52


def crescent(u, v, form):
    return np.maximum(np.hypot(u, v) - 1, 0.8 - np.hypot(u - 0.5 - 0.1 * form, v))


def clover(u, v, form):
    leaves = 3 if form < 0.5 else 4
    half = np.pi / leaves
    phi = (np.arctan2(v, u) + half) % (2 * half) - half       # from the middle of the nearest leaf
    radius = np.hypot(u, v)
    return np.hypot(radius * np.cos(phi) - 0.54, radius * np.sin(phi)) - 0.46


def block(u, v, form):
    return np.maximum(np.abs(u) - 0.85, np.abs(v) - 0.5 - 0.3 * form)


def striped(x, y, thing):
    """Each surface: coordinates in pixels  ->  [0, 1], 0 the dark and 1 the bright tone."""
    bent = y + 1.5 * np.sin(x / 9 + thing.phase)
    return 0.5 + 0.5 * np.tanh(3 * np.sin(2 * np.pi * bent / thing.period + thing.phase))


def checkered(x, y, thing):
    cell = 0.75 * thing.period
    return 0.5 + 0.5 * np.tanh(5 * np.sin(np.pi * x / cell + thing.phase) * np.sin(np.pi * y / cell + thing.phase))


def speckled(x, y, thing):
    zoom = 9 / thing.period
    at = [(GRAIN_SIZE / 2 + zoom * c).astype(np.float32) for c in np.broadcast_arrays(x, y)]
    return 0.5 + 0.5 * np.tanh(2.5 * cv2.remap(thing.grain, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))


def shaded(x, y, thing):
    return 0.5 + 0.5 * np.sin((x * np.cos(thing.phase) + y * np.sin(thing.phase)) / (2.5 * thing.period) + thing.phase)


def zigzag(x, y, thing):
    wave = np.abs((x / thing.period + thing.phase) % 2 - 1)                    # a triangle wave in [0, 1]
    return 0.5 + 0.5 * np.tanh(3 * np.sin(2 * np.pi * (y / thing.period + wave) + thing.phase))


def meshed(x, y, thing):
    lines = [np.cos(2 * np.pi * c / thing.period + thing.phase) for c in np.broadcast_arrays(x, y)]
    return 0.5 + 0.5 * np.tanh(4 * (np.maximum(*lines) - 0.7))


def dotted(x, y, thing):
    waves = [np.cos(2 * np.pi * c / thing.period + thing.phase) for c in np.broadcast_arrays(x, y)]
    return 0.5 + 0.5 * np.tanh(4 * (sum(waves) - 0.7))


def ringed(x, y, thing):
    return 0.5 + 0.5 * np.tanh(3 * np.sin(2 * np.pi * np.hypot(x, y) / thing.period + thing.phase))


OUTLINES = {f.__name__: f for f in (disc, star, ring, capsule, cross, triangle, crescent, clover, block)}
SURFACES = {f.__name__: f for f in (striped, checkered, speckled, shaded, zigzag, meshed, dotted, ringed)}


def draw_bar(image, labels, bar, t):
    """In place: the bar covers what is behind it, and what it covers is background."""
    rows, cols = np.ogrid[:labels.shape[0], :labels.shape[1]]
    distance = np.abs(bar.normal[0] * rows + bar.normal[1] * cols - bar.offset[t]) - bar.half_width
    cover = np.clip(0.5 - distance, 0, 1)
    image += cover[..., None] * (bar.colour - image)
    labels[cover >= 0.5] = 0


def paint_backdrop(size, rng):
    """Noise of two low frequencies and small plain scraps  ->  (H + 2 PAN, W + 2 PAN, 3) uint8

    Its colours are muted: with as vivid a background a small network spends its few minutes on finding objects at all.
    """
    rows, cols = size[0] + 2 * PAN, size[1] + 2 * PAN
    canvas = np.full((rows, cols, 3), rng.uniform(80, 170) + rng.uniform(-15, 15, 3), np.float32)
    for cell, strength in ((28, 18), (9, 8)):
        grid = (rows // cell + 2, cols // cell + 2)
        coarse = strength * (rng.normal(0, 1, (*grid, 1)) + rng.normal(0, 0.35, (*grid, 3)))     # light, some colour
        canvas += cv2.resize(coarse.astype(np.float32), (cols, rows), interpolation=cv2.INTER_CUBIC)
    canvas = canvas.clip(0, 255).astype(np.uint8)
    for _ in range(rng.integers(6, 16)):
        corners = rng.uniform(0, 1, 2) * (cols, rows) + rng.normal(0, 0.045 * min(size), (rng.integers(3, 7), 2))
        colour = rng.uniform(50, 205) + rng.uniform(-30, 30, 3)
        cv2.fillPoly(canvas, [corners.round().astype(np.int32)], colour.tolist(), cv2.LINE_AA)
    return canvas


def crop(backdrop, shift, size):
    """The part of the backdrop that the camera sees, to a fraction of a pixel  ->  (H, W, 3) float32"""
    centre = (backdrop.shape[1] / 2 - 0.5 + float(shift[1]), backdrop.shape[0] / 2 - 0.5 + float(shift[0]))
    return cv2.getRectSubPix(backdrop, (size[1], size[0]), centre).astype(np.float32)
