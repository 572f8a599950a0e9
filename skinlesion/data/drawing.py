"""Draw lesions that look somewhat like dermoscopy, from the signs of a class (demo.yaml).

The colours follow from what absorbs the light: a lesion is maps of melanin, blood and scattering
tissue on one sheet of skin (`Sheet`), and each photograph of it is another framing of that sheet.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

ZOOM = (1.05, 1.4)  # of a photograph against its sheet
SHIFT = 0.05  # of its middle, in heights
# How strongly each pigment absorbs red, green and blue, then the colours of bare skin, of what
# scatters all light, and of hair. Melanin deep in the skin looks blue-grey, because the tissue
# above it scatters the short wavelengths back.
MELANIN, DEEP, BLOOD = np.array([(0.42, 0.88, 1.05), (0.98, 0.86, 0.66), (0.20, 1.00, 0.66)])
SKIN, WHITE, HAIR = np.array([(0.97, 0.86, 0.85), (0.92, 0.85, 0.84), (0.2, 0.14, 0.12)])

Field = npt.NDArray[np.floating]


class Sheet:
    """A square of skin: one map (side, side) per thing that changes the light.

    Lengths are in heights of a photograph, so that a drawing does not depend on its resolution.
    """

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        self.rng, self.unit = rng, size[1]
        # Wide enough for every framing.
        self.side = 2 * math.ceil(math.hypot(*size) / 2 / ZOOM[0] + 1.5 * SHIFT * size[1])
        axis = (np.arange(self.side, dtype=np.float32) - (self.side - 1) / 2) / self.unit
        self.x, self.y = np.meshgrid(axis, axis)
        self.everywhere, self.deep = np.ones_like(self.x), np.zeros_like(self.x)
        freckles = self.spots(self.everywhere, rng.choice([0, 5, 25]), (0.01, 0.05))
        self.melanin = 0.12 + 0.015 * self.noise(0.2, 5) + rng.uniform(0.1, 0.4) * freckles
        self.blood = 0.08 + 0.02 * self.noise(0.5, 5) + rng.uniform(0.01, 0.03) * self.noise(0.06)
        self.white = rng.uniform(0.02, 0.06) * self.noise(0.03, 2)

    def noise(self, feature: float, octaves: int = 3) -> Field:
        """Return fractal noise of zero mean and unit variance, coarsest feature as given."""
        cells = max(3, round(self.side / self.unit / feature) + 2)
        field = np.zeros((cells, cells), np.float32)
        for octave in range(octaves):
            field = _resized(field, cells * 2**octave)
            field += 0.6**octave * self.rng.standard_normal(field.shape, dtype=np.float32)
        return _resized((field - field.mean()) / field.std(), self.side)

    def network(self, cell: float) -> Field:
        """Return a honeycomb: 0.6 on its lines, -0.4 in its holes; it fades here and there."""
        first = self.rng.uniform(0, math.pi)
        u, v = (axis + 0.45 * cell * self.noise(4 * cell, 2) for axis in (self.x, self.y))
        angles = [first + third * math.pi / 3 for third in range(3)]
        waves = np.stack([u * math.cos(angle) + v * math.sin(angle) for angle in angles])
        lines = smooth((1.3 - np.cos(math.tau / cell * waves).sum(axis=0)) / 3)
        return smooth(0.7 + 0.6 * self.noise(5 * cell, 2)) * (lines - 0.4)

    def points(self, weight: Field, count: float) -> Field:
        """Return points (count, 2), x and y, drawn where `weight` is large."""
        mass = np.cumsum(np.clip(weight, 0, None), dtype=np.float64)
        cell = np.searchsorted(mass, self.rng.random(round(count)) * mass[-1])
        cell = cell.clip(max=mass.size - 1)
        return np.stack([self.x.flat[cell], self.y.flat[cell]], axis=1)

    def patch(self, weight: Field, radius: float) -> Field:
        """Return one soft patch, 1 inside, around a point where `weight` is large."""
        ((x, y),) = self.points(weight, 1)
        distance = np.hypot(self.x - x, self.y - y) / radius
        return smooth(1.1 - distance + 0.25 * self.noise(radius * 0.6))

    def spots(self, weight: Field, count: float, radii: tuple[float, float]) -> Field:
        """Return soft round spots, 1 inside, where `weight` is large."""
        field = np.zeros_like(self.x)
        for x, y in self.points(weight, count):
            radius = self.rng.uniform(*radii)
            reach = np.add.outer([y, x], [-1.3 * radius, 1.3 * radius])
            rows, columns = (self.side / 2 + self.unit * reach).astype(int).clip(0)
            window = slice(*rows), slice(*columns)
            distance = np.hypot(self.x[window] - x, self.y[window] - y) / radius
            field[window] = np.maximum(field[window], smooth((1 - distance) / 0.9))
        return field

    def hair(self) -> Field:
        """Return hairs, 1 on a hair; most of them are combed one way."""
        count = self.rng.choice([0, 4, 12, 50], p=[0.45, 0.3, 0.17, 0.08])
        image, combed = Image.new("L", (3 * self.side, 3 * self.side)), self.rng.uniform(0, 360)
        for at in 3 * self.side * self.rng.random((count, 2)):
            start, length = combed + self.rng.normal(0, 30), self.rng.uniform(0.3, 1.3)
            reach = 3 * self.unit * self.rng.uniform(0.5, 4)  # of the circle that it is an arc of
            middle = at - reach * np.array([np.cos(np.radians(start)), np.sin(np.radians(start))])
            end = start + np.degrees(3 * self.unit * length / reach)
            width = max(1, round(3 * self.unit * self.rng.uniform(0.003, 0.007)))
            box = (*(middle - reach), *(middle + reach))
            ImageDraw.Draw(image).arc(box, start, end, 255, width)
        return np.asarray(image.reduce(3), np.float32) / 255

    def light(self) -> Field:
        """Return the light that comes back (side, side, 3), in [0, 1] (Beer and Lambert's law)."""
        skin, white, melanin = (
            (colour * self.rng.normal(1, spread, 3)).astype(np.float32)
            for colour, spread in ((SKIN, 0.03), (WHITE, 0.03), (MELANIN, 0.1))
        )
        pigments = np.stack([self.melanin, self.deep, self.blood], axis=-1)
        light = skin * np.exp(-pigments @ np.stack([melanin, DEEP, BLOOD], dtype=np.float32))
        light += np.clip(self.white, 0, 1)[..., None] * (white - light)
        cover = self.hair()[..., None] * self.rng.uniform(0.5, 0.9)
        return light + cover * (HAIR * self.rng.uniform(0.6, 2) - light)


def draw_lesion(
    signs: Mapping[str, tuple[float, float]], size: tuple[int, int], rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """Return a square sheet of skin with one lesion, and its mask.

    It is for photographs of a size, width and height in pixels. The signs are how much of each,
    from lowest to highest; what is absent is 0.
    """
    s, uniform = Sheet(size, rng), rng.uniform
    of = defaultdict(float, {sign: uniform(*ends) for sign, ends in signs.items()})
    radius, angle, stretch = of["radius"], uniform(0, math.pi), uniform(0.8, 1.25)
    along = (s.x * math.cos(angle) + s.y * math.sin(angle)) / stretch
    across = (s.y * math.cos(angle) - s.x * math.sin(angle)) * stretch
    depth = 1 - np.hypot(along, across) / radius  # 1 at the centre, 0 on the border
    depth += of["lobes"] * s.noise(radius, 1) + of["ragged"] * s.noise(radius / 4)
    body = smooth(depth / of["border"])
    inner = body * (depth > 0.1)

    tone = of["tone"] * (1 + of["mottled"] * s.noise(0.15)) + of["centre"] * depth
    if of["network"]:
        tone += of["network"] * s.network(uniform(0.02, 0.034))
    if of["ridges"]:
        ridges = np.exp(-((s.noise(uniform(0.035, 0.07), 2) / 0.8) ** 2))
        tone *= 1 + of["ridges"] * (ridges - 0.5)
    if of["scar"]:  # in the place of what surrounds it
        scar = smooth((depth - uniform(0.25, 0.5) + 0.1 * s.noise(0.12, 4)) / 0.6)
        s.white += of["scar"] * scar * (1 + 0.2 * s.noise(0.08, 4))
        tone *= 1 - scar
    s.melanin += body * (tone + of["tan"] * smooth(0.4 + 0.6 * s.noise(0.15)))
    s.blood += body * of["red"] * (1 + 0.25 * s.noise(0.08))
    s.white += body * of["pearly"] * smooth(0.5 + 0.5 * s.noise(0.15))
    for _ in range(round(of["blotches"])):
        s.melanin += uniform(0.5, 1.4) * body * s.patch(body, uniform(0.3, 0.7) * radius)
    for _ in range(round(of["nests"])):
        s.deep += uniform(0.3, 0.8) * s.patch(inner, uniform(0.04, 0.13))
    if of["veil"]:
        veil = of["veil"] * body * s.patch(body, uniform(0.4, 0.8) * radius)
        s.melanin *= 1 - 0.4 * veil
        s.deep += 0.9 * veil
        s.white += 0.3 * veil
    s.melanin += 0.9 * s.spots(inner, of["dots"], (0.007, 0.022))
    s.white += uniform(0.25, 0.6) * s.spots(inner, of["cysts"], (0.01, 0.026))
    if of["vessels"]:
        vessels = np.exp(-((s.noise(0.3) / 0.05) ** 2)) * smooth(s.noise(0.2))
        s.blood += of["vessels"] * vessels * smooth(depth * 3 + 0.6)
    if of["strawberry"]:
        follicles = body * of["strawberry"] * (0.6 - s.network(uniform(0.05, 0.08)))
        s.blood *= 1 - 0.6 * follicles
        scales = smooth((s.noise(0.06, 4) - uniform(0.5, 2.0)) / 1.3) * smooth(2 * depth)
        s.white += 0.35 * follicles + of["scales"] * scales
    if of["lacunae"]:
        lacunae = s.spots(body * (0.3 + depth), of["lacunae"], (0.12 * radius, 0.4 * radius))
        s.blood += uniform(0.3, 1.0) * lacunae
        clotted = uniform(0, 1) ** 3 * lacunae * smooth(0.6 + 0.6 * s.noise(radius))
        s.deep += uniform(0.8, 2.6) * clotted
    return _image(s.light()), Image.fromarray(body > 0.5)


def photograph(
    sheet: Image.Image,
    mask: Image.Image,
    size: tuple[int, int],
    camera: Mapping[str, Any],
    rng: np.random.Generator,
) -> tuple[Image.Image, Image.Image]:
    """Return one photograph of `sheet`, its own framing, focus, light and view, and its mask."""
    width, height = size
    zoom, middle = rng.uniform(*ZOOM), rng.uniform(-SHIFT, SHIFT, 2) * height + sheet.width / 2
    reach = np.array(size) / 2 / zoom
    angle, box = rng.normal(0, 23), (*(middle - reach), *(middle + reach))
    rotated = sheet.rotate(angle, Image.Resampling.BICUBIC, center=tuple(middle))
    framed = rotated.resize(size, Image.Resampling.BICUBIC, box)
    masked = mask.rotate(angle, center=tuple(middle)).resize(size, Image.Resampling.NEAREST, box)
    blurred = framed.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 0.9) * height / 225))
    y, x = (np.mgrid[:height, :width] - np.array([height, width])[:, None, None] / 2) / height
    slopes, radius = rng.normal(0, 0.06, 2), np.hypot(x, y)
    shade = rng.uniform(0.9, 1.08) * (1 + slopes[0] * x + slopes[1] * y)
    shade *= 1 - rng.uniform(0, 0.35) * radius**2
    if rng.random() < camera["round"]:
        shade *= smooth((rng.uniform(0.7, 0.88) - radius) / rng.uniform(0.02, 0.12))
    tint = (camera["tint"] * rng.normal(1, 0.02, 3)).astype(np.float32)
    light = np.asarray(blurred, np.float32) / 255 * tint * shade[..., None].astype(np.float32)
    grain = rng.standard_normal(light.shape, dtype=np.float32)
    return _image(light + rng.uniform(0.004, 0.015) * grain), masked


def smooth(field: Field) -> Field:
    """Return a smooth step: 0 below 0, 1 above 1."""
    field = np.clip(field, 0, 1)
    return field * field * (3 - 2 * field)


def _image(light: Field) -> Image.Image:
    return Image.fromarray((255 * np.clip(light, 0, 1)).astype(np.uint8))


def _resized(field: Field, side: int) -> Field:
    return np.array(Image.fromarray(field).resize((side, side), Image.Resampling.BICUBIC))
