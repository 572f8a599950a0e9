"""Draw lesions that look somewhat like dermoscopy, one painter a class.

What is drawn for each class follows what a dermatologist looks for; the colours follow from what
absorbs the light: a lesion is a few maps of melanin, blood and scattering tissue on one sheet of
skin (see `Sheet`), and each photograph of it is another framing of the same sheet.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

ZOOM = (1.05, 1.4)  # of a photograph against its sheet
SHIFT = 0.05  # of its middle, in heights

Field = npt.NDArray[np.floating]
Line = tuple[list[tuple[float, float]], float]

# How strongly each pigment absorbs red, green and blue, then the colours of bare skin, of what
# scatters all light, and of hair. Melanin deep in the skin looks blue-grey,
# because the tissue above it scatters the short wavelengths back.
MELANIN = np.array([0.42, 0.88, 1.05], np.float32)
DEEP = np.array([0.98, 0.86, 0.66], np.float32)
BLOOD = np.array([0.20, 1.00, 0.66], np.float32)
SKIN = np.array([0.97, 0.86, 0.85], np.float32)
WHITE = np.array([0.92, 0.85, 0.84], np.float32)
HAIR = np.array([0.16, 0.11, 0.10], np.float32)

# What each source's camera does to the colours, and how often its round field of view is seen.
CAMERAS = {
    "rosendahl": (np.array([1.0, 0.97, 0.96]), 0.15),
    "vidir_modern": (np.array([0.93, 0.93, 0.98]), 0.4),
    "vidir_molemax": (np.array([1.02, 0.91, 0.93]), 0.0),
    "vienna_dias": (np.array([1.0, 0.92, 0.84]), 0.1),
}


class Sheet:
    """A square of skin with its lesion at the centre: one map per thing that changes the light.

    Coordinates and lengths are in heights of a photograph, so that a drawing does not depend on
    its resolution.
    """

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        """Lay out bare skin, wide enough for every framing of a `size` photograph."""
        self.rng = rng
        self.unit = size[1]
        self.side = 2 * math.ceil(math.hypot(*size) / 2 / ZOOM[0] + 1.5 * SHIFT * size[1])
        axis = (np.arange(self.side, dtype=np.float32) - (self.side - 1) / 2) / self.unit
        self.x, self.y = axis[None, :], axis[:, None]
        self.warped_x = self.x + 0.007 * self.noise(0.08, 2)
        self.warped_y = self.y + 0.007 * self.noise(0.08, 2)
        self.melanin, self.deep, self.blood, self.white = (
            np.zeros((self.side, self.side), np.float32) for _ in range(4)
        )

    def noise(self, feature: float, octaves: int = 3) -> Field:
        """Return fractal noise of zero mean and unit variance, coarsest feature as given."""
        cells = max(3, round(self.side / self.unit / feature) + 2)
        field = np.zeros((cells, cells), np.float32)
        for octave in range(octaves):
            field = _resize(field, cells * 2**octave)
            field += 0.6**octave * self.rng.standard_normal(field.shape, dtype=np.float32)
        return _resize((field - field.mean()) / field.std(), self.side)

    def body(self, radius: float, stretch: float, lobes: float, ragged: float) -> Field:
        """Return a lesion's depth: 1 at its centre, 0 on its border, negative outside."""
        angle = self.rng.uniform(0, math.pi)
        along = (self.x * math.cos(angle) + self.y * math.sin(angle)) / stretch
        across = (self.y * math.cos(angle) - self.x * math.sin(angle)) * stretch
        depth = 1 - np.hypot(along, across) / radius
        return depth + lobes * self.noise(radius, 1) + ragged * self.noise(radius / 4, 3)

    def network(self, cell: float, warp: float) -> Field:
        """Return a honeycomb: 1 on its lines, 0 in its holes; it fades here and there."""
        angle = self.rng.uniform(0, math.pi)
        u, v = (axis + warp * cell * self.noise(4 * cell, 2) for axis in (self.x, self.y))
        waves = np.zeros_like(u)
        for turn in (angle, angle + math.pi / 3, angle - math.pi / 3):
            waves += np.cos((math.tau / cell) * (u * math.cos(turn) + v * math.sin(turn)))
        fade = smooth(0.7 + 0.6 * self.noise(5 * cell, 2))
        return 0.4 + fade * (smooth((1.3 - waves) / 3) - 0.4)

    def patch(self, weight: Field, radius: float, ragged: float = 0.3) -> Field:
        """Return one soft patch, 1 inside, around a point where `weight` is large."""
        ((x, y),) = self.scatter(weight, 1)
        distance = np.hypot(self.x - x, self.y - y) / radius
        return smooth(1.1 - distance + ragged * self.noise(radius * 0.6))

    def anywhere(self, count: int | np.integer) -> npt.NDArray[np.float64]:
        """Return `count` points (x, y) of the sheet."""
        return self.rng.uniform(self.x[0, 0], self.x[0, -1], (count, 2))

    def scatter(self, weight: Field, count: int | np.integer) -> npt.NDArray[np.float64]:
        """Return `count` points (x, y), drawn where `weight` is large."""
        mass = np.cumsum(np.clip(weight, 0, None), dtype=np.float64)
        cell = np.searchsorted(mass, self.rng.random(count) * mass[-1])
        row, column = np.divmod(np.minimum(cell, mass.size - 1), self.side)
        return np.stack([self.x[0, column], self.y[row, 0]], axis=1)

    def spots(self, centres: npt.NDArray[np.float64], radii: Field, soft: float) -> Field:
        """Return round spots, 1 inside; `soft` is the part of the radius over which they fade."""
        field = np.zeros((self.side, self.side), np.float32)
        for (x, y), radius in zip(centres, radii, strict=True):
            left, right = np.searchsorted(self.x[0], [x - 1.3 * radius, x + 1.3 * radius])
            top, bottom = np.searchsorted(self.y[:, 0], [y - 1.3 * radius, y + 1.3 * radius])
            window = np.s_[top:bottom, left:right]
            distance = np.hypot(self.warped_x[window] - x, self.warped_y[window] - y)
            field[window] = np.maximum(field[window], smooth((1 - distance / radius) / soft))
        return field

    def strokes(self, lines: list[Line]) -> Field:
        """Return smooth lines (their points and width), 1 on the line."""
        scale = 3
        image = Image.new("L", (scale * self.side, scale * self.side))
        draw = ImageDraw.Draw(image)
        for points, width in lines:
            pixels = [
                (scale * (self.side / 2 + x * self.unit), scale * (self.side / 2 + y * self.unit))
                for x, y in points
            ]
            draw.line(
                pixels, fill=255, width=max(1, round(scale * width * self.unit)), joint="curve"
            )
        return np.asarray(image.reduce(scale), np.float32) / 255

    def colour(self, skin: Field, white: Field, melanin: Field) -> Field:
        """Return the light that comes back, RGB in [0, 1] (Beer and Lambert's law).

        `skin` is the colour of bare skin, `white` that of scar, keratin and veil.
        """
        cover = np.clip(self.white, 0, 1)
        light = np.empty((self.side, self.side, 3), np.float32)
        for c in range(3):  # one plane at a time stays in the cache
            absorbed = melanin[c] * self.melanin + DEEP[c] * self.deep + BLOOD[c] * self.blood
            plane = skin[c] * np.exp(-absorbed)
            light[..., c] = plane + cover * (white[c] - plane)
        return light


def smooth(field: Field) -> Field:
    """Return a smooth step: 0 below 0, 1 above 1."""
    field = np.clip(field, 0, 1)
    return field * field * (3 - 2 * field)


def _image(light: Field) -> Image.Image:
    return Image.fromarray((255 * np.clip(light, 0, 1)).astype(np.uint8))


def _resize(field: Field, side: int) -> Field:
    return np.array(Image.fromarray(field).resize((side, side), Image.Resampling.BICUBIC))


def _between(rng: np.random.Generator, low: float, high: float, count: int | np.integer) -> Field:
    return rng.uniform(low, high, count).astype(np.float32)


def _walk(
    rng: np.random.Generator,
    start: tuple[float, float],
    heading: float,
    length: float,
    wander: float,
) -> list[tuple[float, float]]:
    """Return a bent line of twelve steps; `wander` is by how many radians each goes astray."""
    turns = rng.normal(0, 0.07) + rng.normal(0, wander, 12)
    headings = heading + np.cumsum(turns)
    x = start[0] + np.cumsum(np.cos(headings)) * length / 12
    y = start[1] + np.cumsum(np.sin(headings)) * length / 12
    return [start, *zip(x.tolist(), y.tolist(), strict=True)]


def _tree(
    rng: np.random.Generator,
    start: tuple[float, float],
    heading: float,
    length: float,
    width: float,
) -> Iterator[Line]:
    """Yield an arborising vessel: a stem that forks into ever finer branches."""
    stem = _walk(rng, start, heading, length, 0.14)
    yield stem, width
    if width > 0.004:
        for fork in rng.integers(4, 13, size=3):
            turn = rng.choice([-1, 1]) * rng.uniform(0.3, 0.9)
            yield from _tree(rng, stem[fork], heading + turn, 0.55 * length, 0.6 * width)


# --- the seven kinds ------------------------------------------------------------------------------


def nv(sheet: Sheet) -> None:
    """Draw a nevus: symmetric, one or two browns, a regular network that thins out outwards."""
    rng = sheet.rng
    depth = sheet.body(
        rng.uniform(0.15, 0.42), rng.uniform(0.82, 1.2), rng.uniform(0.03, 0.14), 0.05
    )
    body = smooth(depth / rng.uniform(0.3, 0.8))
    tone = rng.uniform(0.4, 1.5) * (1 + 0.15 * sheet.noise(0.15)) + rng.uniform(-0.2, 0.6) * depth
    network = sheet.network(rng.uniform(0.02, 0.032), rng.uniform(0.3, 0.45))
    sheet.melanin += body * (tone + rng.uniform(0.1, 0.75) * (network - 0.4))
    sheet.blood += body * rng.uniform(0, 0.4)
    if rng.random() < 0.3:
        globules = sheet.scatter(body * (depth > 0.1), rng.integers(15, 60))
        sheet.melanin += 0.5 * sheet.spots(
            globules, _between(rng, 0.008, 0.018, len(globules)), 0.9
        )
    if rng.random() < 0.2:
        sheet.melanin += rng.uniform(0.3, 0.9) * body * sheet.patch(body, rng.uniform(0.06, 0.15))


def mel(sheet: Sheet) -> None:
    """Draw a melanoma: asymmetric, ragged, several colours, blue-white veil, dots, regression."""
    rng = sheet.rng
    radius = rng.uniform(0.18, 0.46)
    depth = sheet.body(
        radius, rng.uniform(0.75, 1.3), rng.uniform(0.1, 0.22), rng.uniform(0.04, 0.1)
    )
    body = smooth(depth / rng.uniform(0.12, 0.5))
    network = sheet.network(rng.uniform(0.024, 0.042), rng.uniform(0.45, 0.8))
    tone = rng.uniform(0.4, 1.3) + rng.uniform(0.15, 0.35) * sheet.noise(radius * 0.7)
    sheet.melanin += body * (tone + rng.uniform(0.1, 0.8) * (network - 0.4))
    for _ in range(rng.integers(1, 4)):
        blotch = sheet.patch(body, rng.uniform(0.3, 0.7) * radius)
        sheet.melanin += rng.uniform(0.5, 1.4) * body * blotch
    sheet.blood += body * rng.uniform(0.1, 0.7) * sheet.patch(body, radius)
    veil = body * sheet.patch(body, rng.uniform(0.4, 0.8) * radius) * rng.uniform(0.1, 1)
    sheet.melanin *= 1 - 0.4 * veil
    sheet.deep += 0.9 * veil
    sheet.white += 0.3 * veil * (1 + 0.3 * sheet.noise(0.05))
    dots = sheet.scatter(body * (depth < 0.5), rng.integers(5, 40))
    sheet.melanin += 0.9 * sheet.spots(dots, _between(rng, 0.007, 0.018, len(dots)), 0.8)
    if rng.random() < 0.4:
        regression = body * sheet.patch(body, rng.uniform(0.3, 0.6) * radius)
        sheet.melanin *= 1 - 0.7 * regression
        sheet.white += 0.25 * regression


def bkl(sheet: Sheet) -> None:
    """Draw a benign keratosis: sharp border, stuck on, milia-like cysts, brain-like ridges."""
    rng = sheet.rng
    radius = rng.uniform(0.18, 0.44)
    depth = sheet.body(
        radius, rng.uniform(0.75, 1.3), rng.uniform(0.06, 0.2), rng.uniform(0.03, 0.09)
    )
    body = smooth(depth / rng.uniform(0.08, 0.3))
    ridges = np.exp(-((sheet.noise(rng.uniform(0.035, 0.07), 2) / 0.8) ** 2))
    tone = rng.uniform(0.25, 1.2) * (1 + 0.25 * sheet.noise(0.15))
    sheet.melanin += body * tone * (1 + rng.uniform(0.1, 0.7) * (ridges - 0.5))
    sheet.blood *= 1 - 0.5 * body
    sheet.deep += body * rng.uniform(0, 0.4) * sheet.patch(body, radius)
    sheet.white += body * rng.uniform(0, 0.2) * smooth(0.5 + 0.4 * sheet.noise(0.1))
    cysts = sheet.scatter(body * (depth > 0.1), rng.integers(3, 26))
    sheet.white += rng.uniform(0.25, 0.6) * sheet.spots(
        cysts, _between(rng, 0.01, 0.026, len(cysts)), 1
    )
    plugs = sheet.scatter(body * (depth > 0.1), rng.integers(0, 14))
    sheet.melanin += 0.9 * sheet.spots(plugs, _between(rng, 0.01, 0.026, len(plugs)), 0.8)


def bcc(sheet: Sheet) -> None:
    """Draw a basal cell carcinoma: pink and pearly, arborising vessels, blue-grey ovoid nests."""
    rng = sheet.rng
    radius = rng.uniform(0.2, 0.44)
    depth = sheet.body(
        radius, rng.uniform(0.8, 1.25), rng.uniform(0.08, 0.2), rng.uniform(0.03, 0.08)
    )
    body = smooth(depth / rng.uniform(0.25, 0.6))
    sheet.blood += body * (rng.uniform(0.15, 0.5) + 0.1 * sheet.noise(0.12))
    sheet.melanin += body * rng.uniform(0, 0.4) * smooth(0.5 + 0.6 * sheet.noise(0.2))
    sheet.white += body * rng.uniform(0.05, 0.35) * smooth(0.5 + 0.5 * sheet.noise(0.15))
    for _ in range(rng.integers(0, 6)):
        nest = sheet.patch(body * (depth > 0.15), rng.uniform(0.04, 0.13), 0.15)
        sheet.deep += rng.uniform(0.4, 1.1) * nest
        sheet.melanin += rng.uniform(0, 0.3) * nest
    lines: list[Line] = []
    for x, y in sheet.scatter(body * (depth < 0.5), rng.integers(1, 5)):
        inward = math.atan2(-y, -x) + rng.normal(0, 0.6)
        lines += _tree(
            rng, (x, y), inward, rng.uniform(0.5, 1.2) * radius, rng.uniform(0.005, 0.011)
        )
    sheet.blood += rng.uniform(0.35, 0.9) * sheet.strokes(lines) * smooth(depth * 3 + 0.6)
    if rng.random() < 0.35:
        ulcer = body * sheet.patch(body, rng.uniform(0.2, 0.4) * radius)
        sheet.blood += rng.uniform(0.5, 1.2) * ulcer
        sheet.melanin += rng.uniform(0.2, 0.8) * ulcer * smooth(sheet.noise(0.05))


def akiec(sheet: Sheet) -> None:
    """Draw an actinic keratosis: ill-defined red, a strawberry of pale follicles, scales."""
    rng = sheet.rng
    radius = rng.uniform(0.24, 0.5)
    depth = sheet.body(
        radius, rng.uniform(0.8, 1.25), rng.uniform(0.1, 0.25), rng.uniform(0.06, 0.12)
    )
    body = smooth(depth / rng.uniform(0.5, 1.1))
    sheet.blood += body * rng.uniform(0.25, 0.75) * (1 + 0.3 * sheet.noise(0.08))
    follicles = 1 - sheet.network(rng.uniform(0.05, 0.08), 0.45)
    strawberry = body * rng.uniform(0.1, 0.8) * follicles
    sheet.blood *= 1 - 0.6 * strawberry
    sheet.white += 0.35 * strawberry
    sheet.melanin += body * rng.uniform(0, 0.6) * smooth(0.3 + 0.6 * sheet.noise(0.15))
    scales = smooth((sheet.noise(0.06, 4) - rng.uniform(0.5, 2.0)) / 1.3) * smooth(2 * depth)
    sheet.white += rng.uniform(0.4, 0.9) * scales * (1 + 0.3 * sheet.noise(0.02, 1))
    if rng.random() < 0.4:
        crust = body * sheet.patch(body, rng.uniform(0.06, 0.15)) * smooth(0.5 + sheet.noise(0.05))
        sheet.melanin += rng.uniform(0.4, 1) * crust
        sheet.blood += rng.uniform(0.2, 0.8) * crust


def df(sheet: Sheet) -> None:
    """Draw a dermatofibroma: a white scar-like centre, a delicate network around it."""
    rng = sheet.rng
    radius = rng.uniform(0.2, 0.44)
    depth = sheet.body(radius, rng.uniform(0.82, 1.2), rng.uniform(0.05, 0.16), 0.05)
    body = smooth(depth / rng.uniform(0.4, 0.9))
    scar = smooth((depth - rng.uniform(0.25, 0.5) + 0.1 * sheet.noise(0.12, 4)) / 0.6)
    network = sheet.network(rng.uniform(0.02, 0.032), 0.4)
    ring = body * (1 - scar)
    tone = rng.uniform(0.25, 0.9) * (1 + 0.2 * sheet.noise(0.2))
    sheet.melanin += ring * (tone + rng.uniform(0.1, 0.5) * (network - 0.4))
    sheet.blood += body * rng.uniform(0.05, 0.5)
    sheet.white += scar * rng.uniform(0.25, 0.65) * (1 + 0.2 * sheet.noise(0.08, 4))


def vasc(sheet: Sheet) -> None:
    """Draw a vascular lesion: red, purple or black lacunae, well apart from each other."""
    rng = sheet.rng
    radius = rng.uniform(0.12, 0.34)
    depth = sheet.body(radius, rng.uniform(0.85, 1.2), rng.uniform(0.04, 0.16), 0.05)
    body = smooth(depth / rng.uniform(0.15, 0.4))
    centres = sheet.scatter(body * (0.3 + depth), rng.integers(8, 60))
    sizes = _between(rng, 0.12, rng.uniform(0.25, 0.5), len(centres)) * radius
    lacunae = sheet.spots(centres, sizes, rng.uniform(0.4, 0.9))
    clotted = rng.random() ** 3 * lacunae * smooth(0.6 + 0.6 * sheet.noise(radius))
    sheet.blood += body * rng.uniform(0.5, 1.3) + lacunae * rng.uniform(0.3, 1.0)
    sheet.blood += 0.15 * body * sheet.noise(0.06)
    sheet.deep += clotted * rng.uniform(0.8, 2.6) + body * rng.uniform(0, 0.35)
    sheet.white += body * (1 - lacunae) * rng.uniform(0, 0.3) + 0.1 * lacunae
    sheet.white += 0.4 * clotted * smooth(sheet.noise(0.06) - 0.8)
    sheet.blood += rng.uniform(0, 0.3) * np.exp(-((np.minimum(depth, 0) / 0.5) ** 2))


PAINTERS: dict[str, Callable[[Sheet], None]] = {
    painter.__name__: painter for painter in (akiec, bcc, bkl, df, mel, nv, vasc)
}

# --- skin, hair and camera ------------------------------------------------------------------------


def _skin(sheet: Sheet) -> None:
    """Mottle the skin around the lesion: flush, tan, freckles, fine furrows."""
    rng = sheet.rng
    sheet.blood += 0.08 + rng.uniform(0.005, 0.03) * sheet.noise(0.5, 5)
    sheet.blood += float(rng.choice([0.01, 0.015, 0.03])) * sheet.noise(0.06, 3)
    sheet.melanin += 0.12 + rng.uniform(0.005, 0.025) * sheet.noise(0.2, 5)
    sheet.white += rng.uniform(0.02, 0.06) * sheet.noise(0.03, 2)
    freckles = sheet.anywhere(rng.poisson(rng.choice([0, 3, 25])))
    sheet.melanin += rng.uniform(0.1, 0.4) * sheet.spots(
        freckles, _between(rng, 0.01, 0.05, len(freckles)), 1
    )


def _hair(sheet: Sheet) -> list[Line]:
    """Return hairs over the whole sheet, most of them combed one way."""
    rng = sheet.rng
    combed = rng.uniform(0, math.tau)
    count = rng.choice([0, 4, 12, 50], p=[0.45, 0.3, 0.17, 0.08])
    lines: list[Line] = []
    for x, y in sheet.anywhere(count):
        heading = combed + rng.normal(0, 0.5)
        line = _walk(rng, (x, y), heading, rng.uniform(0.3, 1.3), 0.02)
        lines.append((line, rng.uniform(0.003, 0.007)))
    return lines


def draw_lesion(dx: str, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Return a square sheet of skin with one lesion of class `dx`, larger than a photograph."""
    sheet = Sheet(size, rng)
    _skin(sheet)
    PAINTERS[dx](sheet)
    skin, white, melanin = (
        (tone * rng.normal(1, spread, 3)).astype(np.float32)
        for tone, spread in ((SKIN, 0.03), (WHITE, 0.03), (MELANIN, 0.1))
    )
    light = sheet.colour(skin, white, melanin)
    strands = _hair(sheet)
    if strands:
        hair = sheet.strokes(strands)[..., None] * rng.uniform(0.5, 0.9)
        light += hair * (HAIR * rng.uniform(0.6, 2) - light)
    return _image(light)


def photograph(
    sheet: Image.Image, size: tuple[int, int], dataset: str, rng: np.random.Generator
) -> Image.Image:
    """Return one photograph of `sheet`: its own framing, focus, light and field of view."""
    width, height = size
    zoom, turn = rng.uniform(*ZOOM), rng.normal(0, 0.4)
    x0, y0 = rng.uniform(-SHIFT, SHIFT, 2) * height + sheet.width / 2
    a, b = math.cos(turn) / zoom, math.sin(turn) / zoom
    corner = (x0 - a * width / 2 - b * height / 2, y0 + b * width / 2 - a * height / 2)
    framed = sheet.transform(
        size,
        Image.Transform.AFFINE,
        (a, b, corner[0], -b, a, corner[1]),
        Image.Resampling.BICUBIC,
    ).filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 0.9) * height / 225))
    light = np.asarray(framed, np.float32) / 255
    tint, vignette = CAMERAS[dataset]
    x = (np.arange(width, dtype=np.float32) - width / 2)[None, :] / height
    y = (np.arange(height, dtype=np.float32) - height / 2)[:, None] / height
    slope_x, slope_y = rng.normal(0, 0.06), rng.normal(0, 0.06)
    shade = rng.uniform(0.9, 1.08) * (1 + slope_x * x + slope_y * y)
    radius = np.hypot(x, y)
    shade *= 1 - rng.uniform(0, 0.35) * radius**2
    if rng.random() < vignette:
        shade *= smooth((rng.uniform(0.7, 0.88) - radius) / rng.uniform(0.02, 0.12))
    light *= shade[..., None] * (tint * rng.normal(1, 0.02, 3)).astype(np.float32)
    light += rng.uniform(0.004, 0.015) * rng.standard_normal(light.shape, dtype=np.float32)
    picture = _image(light)
    if rng.random() < 0.15:
        _ruler(picture, rng)
    return picture


def _ruler(picture: Image.Image, rng: np.random.Generator) -> None:
    """Print the ticks of a millimetre scale across a corner."""
    width, height = picture.size
    step, tick = rng.uniform(0.05, 0.09) * height, rng.uniform(0.02, 0.04) * height
    across = rng.choice([-1, 1])
    x, y = width / 2 - across * rng.uniform(0.3, 0.48) * width, rng.uniform(0.02, 0.06) * height
    angle = rng.uniform(0.2, 0.9)
    draw = ImageDraw.Draw(picture)
    for k in range(12):
        along = (x - across * k * step * math.cos(angle), y + k * step * math.sin(angle))
        length = tick * (1.8 if k % 5 == 0 else 1)
        end = (along[0] + across * length * math.sin(angle), along[1] + length * math.cos(angle))
        draw.line([along, end], fill=(25, 22, 24), width=max(1, round(0.007 * height)))
