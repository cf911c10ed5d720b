"""The built-in cohorts: seeded, procedural stand-ins for the paper's three data sets.

Each phantom has the counts and the size of the paper's Table 1 and is drawn from nothing, so
that a demo, a test or a first study needs no patient.
They look like what they stand for, but they are no model of disease: a result on a phantom
says that the software works, never that it would on patients.

None is trivial.
Every picture is windowed to mean 0 and deviation 1 before it is given a random grey level,
contrast and noise, and what the lesion adds in one class (brightness in the middle, edges) is
matched by something else in the other.
What is left to tell the classes apart is structure, which has to be learned.

A picture is drawn in coordinates from -1 to 1, x to the right and y down, so that it can be drawn
at any size; lengths are in these half sides.
`size` is the side in pixels throughout, and pictures are of shape (size, size).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random import Generator, default_rng

Floats = npt.NDArray[np.float64]

SMALLEST_SIZE = 16
WHITE = 4095  # twelve bits, as scanners and detectors store them


# Textures


def _windowed(picture: Floats) -> Floats:
    return np.asarray((picture - picture.mean()) / picture.std())


def _filtered_noise(rng: Generator, size: int, gain: Callable[[Floats], Floats]) -> Floats:
    """Gaussian noise of mean 0 and deviation 1 whose amplitude at frequency f goes as gain(f).

    Frequencies are in cycles per side; the noise is periodic.
    """
    frequency = size * np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf  # the mean is taken out below; a power law has no value there
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * gain(frequency)
    return _windowed(np.fft.irfft2(spectrum, s=(size, size)))


def power_law_texture(rng: Generator, size: int, *, beta: float = 3.0) -> Floats:
    r"""Noise with power spectrum :math:`1 / f^\beta`; (size, size), mean 0, deviation 1.

    Mammographic background follows it with beta near 3 (Burgess, Jacobson and Judy, *Human
    observer detection experiments with mammograms and power-law noise*, Med. Phys. 28, 2001).

    Examples
    --------
    >>> power_law_texture(np.random.default_rng(0), 64).shape
    (64, 64)
    """
    return _filtered_noise(rng, size, lambda f: f ** (-beta / 2))


def _mottle(rng: Generator, size: int, cycles: float) -> Floats:
    """Blotches, about `cycles` of them to a side; mean 0, deviation 1."""
    return _filtered_noise(rng, size, lambda f: np.exp(-((2 * f / cycles - 2) ** 2)))


# Shapes


def _axes(size: int) -> tuple[Floats, Floats]:
    """Pixel centres: x and y, each (size, size), from -1 to 1."""
    centres = (2 * np.arange(size) + 1.0) / size - 1
    x, y = np.meshgrid(centres, centres)
    return x, y


def _polar(x: Floats, y: Floats, centre: Floats) -> tuple[Floats, Floats]:
    """Distance and angle (radians) of each pixel from `centre`, an (x, y) of shape (2,)."""
    return np.hypot(x - centre[0], y - centre[1]), np.arctan2(y - centre[1], x - centre[0])


def _inside(depth: Floats, softness: float) -> Floats:
    """1 where `depth` is well above 0, 0 where well below, and a smooth edge between."""
    return 0.5 + 0.5 * np.tanh(depth / (2 * softness))


def _ridge(distance: Floats, width: float) -> Floats:
    """1 where `distance` is 0, falling to nothing over `width`."""
    return np.exp(-((distance / width) ** 2))


def _lobed_radius(rng: Generator, angle: Floats, radius: float, lobulation: float) -> Floats:
    """Radius of a closed irregular outline at each angle, with 2 to 7 lobes around it."""
    lobes = np.arange(2, 8)
    heights = lobulation * rng.standard_normal(lobes.size) / lobes
    phases = rng.uniform(0, 2 * np.pi, lobes.size)
    return radius * np.exp(np.cos(lobes * angle[..., None] + phases) @ heights)


def _clumps(
    rng: Generator, depth: Floats, cycles: float, fullness: float, softness: float
) -> Floats:
    """Patches and gaps, 0 to 1, wherever `depth` is above 0: a region without a shape of its own.

    At `fullness` 0, half of the region is patch; it is in deviations of the mottle.
    """
    patches = _inside(_mottle(rng, len(depth), cycles) + fullness, softness)
    return _inside(depth, 0.1) * patches


# The breast MRI patch


def _draw_mri(rng: Generator, minority: bool, size: int) -> Floats:
    """Draw an enhancing lesion in parenchyma, or clumped enhancement without a lesion.

    The lesion is as large on average as its patch (paper, 2.4), so it often leaves the frame.
    """
    x, y = _axes(size)
    parenchyma = 0.35 * power_law_texture(rng, size, beta=2)
    # The surface coil sees the near side better.
    bearing, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6)
    parenchyma += strength * (x * np.cos(bearing) + y * np.sin(bearing))
    enhancement = rng.uniform(1.5, 2.2)
    # Tissue is kept nearer the middle than a lesion, whose outline fills it: so both classes
    # are, on average, equally brighter there.
    reach = 0.15 if minority else 0.25
    distance, angle = _polar(x, y, rng.uniform(-reach, reach, 2))
    if minority:
        depth = _lobed_radius(rng, angle, rng.uniform(0.55, 0.85), 0.25) - distance
        cycles, fullness = rng.uniform(2.5, 4), rng.uniform(0, 0.4)
        return parenchyma + enhancement * _clumps(rng, depth, cycles, fullness, 0.25)
    depth = _lobed_radius(rng, angle, rng.uniform(0.5, 0.95), 0.25) - distance
    washout = rng.uniform(0, 0.8) * _inside(depth - 0.2, 0.05)
    uneven = 0.18 * _mottle(rng, size, 6)
    return parenchyma + enhancement * _inside(depth, 0.025) * (1 - washout + uneven)


# The mammographic patch


def _spicules(rng: Generator, distance: Floats, angle: Floats, depth: Floats) -> Floats:
    """Thin bright lines that leave the margin (`depth` 0) of a mass in all directions."""
    count = rng.integers(12, 24)
    directions = rng.uniform(-np.pi, np.pi, count)
    strengths = rng.uniform(0.2, 1, count)
    off_axis = 2 * distance[..., None] * np.sin((angle[..., None] - directions) / 2)
    lines: Floats = np.max(strengths * _ridge(off_axis, 0.035), axis=-1)
    return lines * _inside(0.08 - depth, 0.03) * _inside(depth + 0.25, 0.05)


def _draw_ffdm(rng: Generator, minority: bool, size: int) -> Floats:
    """Draw a lobulated, spiculated mass in parenchyma, or dense tissue without a mass."""
    x, y = _axes(size)
    parenchyma = 0.36 * power_law_texture(rng, size)
    density = rng.uniform(1.4, 2)
    # As in the MRI patch: dense tissue lies nearer the middle than a mass, but with gaps.
    reach = 0.1 if minority else 0.3
    distance, angle = _polar(x, y, rng.uniform(-reach, reach, 2))
    if minority:
        depth = _lobed_radius(rng, angle, rng.uniform(0.45, 0.7), 0.2) - distance
        cycles, fullness = rng.uniform(2.9, 4.3), rng.uniform(0.1, 0.6)
        return parenchyma + density * _clumps(rng, depth, cycles, fullness, 0.45)
    depth = _lobed_radius(rng, angle, rng.uniform(0.4, 0.8), 0.22) - distance
    # Grain in the mass and lines about it make up for the many edges of the gaps.
    uneven = 0.18 * power_law_texture(rng, size, beta=1.75)
    mass = density * _inside(depth, 0.02) * (1 + uneven)
    return parenchyma + mass + 1.4 * _spicules(rng, distance, angle, depth)


# The chest film, in which the patient's right is on the left


def _posed(rng: Generator, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Stand the patient a little aside, turned, nearer or farther: x and y in the body's frame."""
    tilt = rng.normal(0, 0.03)
    wide, tall = rng.uniform(0.92, 1.12, 2)
    aside, down = rng.normal(0, 0.04, 2)
    x, y = x - aside, y - down
    return (x + tilt * y) / wide, (y - tilt * x) / tall


def _body(rng: Generator, x: Floats, y: Floats) -> Floats:
    """Soft tissue, 0 to 1: neck, sloping shoulders, and flanks below the arms."""
    across = np.abs(x)
    shoulder = rng.normal(-0.92, 0.03) + 0.35 * np.maximum(across - 0.25, 0)
    flank = rng.normal(0.93, 0.03) + 0.25 * _inside(-0.3 - y, 0.15)
    return _inside(y - shoulder, 0.03) * _inside(flank - across, 0.02)


def _lungs(rng: Generator, x: Floats, y: Floats) -> Floats:
    """Air, 0 to 1: two fields, wider below, that end on the domes of the diaphragm."""
    apex = rng.normal(-0.74, 0.04)
    inner, outer = rng.normal(0.12, 0.02), rng.normal(0.76, 0.03)
    middle, half_width = (inner + outer) / 2, (outer - inner) / 2
    # 0 at the apex, 1 where the field is widest; the walls close upwards as an ellipse does.
    descent = np.clip((y - apex) / (0.2 - apex), 0, 1)
    reach = half_width * np.sqrt(descent * (2 - descent)) - 0.02
    air = np.zeros_like(x)
    # The liver lifts the right dome.
    for side, floor in ((-1, rng.normal(0.42, 0.06)), (1, rng.normal(0.5, 0.06))):
        from_middle = side * x - middle
        wall = reach - np.abs(from_middle + 0.08 * (1 - descent))
        dome = floor + 1.1 * (from_middle + 0.05) ** 2
        air += _inside(wall, 0.018) * _inside(dome - y, 0.012)
    return air * _inside(y - apex, 0.012)


def _heart(rng: Generator, x: Floats, y: Floats) -> Floats:
    """Heart and great vessels, 0 to 1, more to the patient's left."""
    wide, tall = rng.normal(0.34, 0.04), rng.normal(0.34, 0.03)
    across, down = x - rng.normal(0.13, 0.03), y - rng.normal(0.3, 0.03)
    heart = _inside(1 - np.hypot((across - 0.35 * down) / wide, down / tall), 0.05)
    aorta = _inside(1 - np.hypot((x - 0.1) / 0.12, (y + 0.25) / 0.25), 0.1)
    return np.maximum(heart, aorta)


def _spine(rng: Generator, x: Floats, y: Floats) -> Floats:
    """Vertebral column, about 1, with the dark windpipe over its upper part."""
    column = _inside(rng.normal(0.12, 0.015) - np.abs(x), 0.02)
    vertebrae = 0.15 * np.cos(2 * np.pi * y / 0.16) * _ridge(x, 0.09)
    windpipe = _ridge(x - rng.normal(0, 0.02), 0.05) * _inside(-0.35 - y, 0.05)
    return column + vertebrae - 0.5 * windpipe


def _ribs(rng: Generator, x: Floats, y: Floats) -> Floats:
    """Posterior ribs that fall away from the spine, fainter anterior ones that fall towards it."""
    across = np.abs(x)
    spacing, offset = rng.normal(0.18, 0.01), rng.uniform(0, 1)

    def bars(level: Floats) -> Floats:
        return np.maximum(np.cos(2 * np.pi * (level / spacing + offset)) + 0.2, 0)

    posterior = bars(y - 0.75 * across + 0.9 * across**2)
    anterior = bars(y + 0.8 * across) * _inside(across - 0.4, 0.05)
    cage = _inside(0.86 - across, 0.02) * _inside(y + 0.85, 0.05) * _inside(0.75 - y, 0.1)
    return cage * (posterior + 0.3 * anterior)


def _clavicles(rng: Generator, x: Floats, y: Floats) -> Floats:
    """Two bars, 0 to 1, rising to the shoulders."""
    across = np.abs(x)
    bar = _ridge(y - rng.normal(-0.58, 0.03) + 0.25 * (across - 0.1), 0.035)
    return bar * _inside(across - 0.08, 0.02) * _inside(0.8 - across, 0.03)


def _vessels(rng: Generator, x: Floats, y: Floats) -> Floats:
    """Strands, 0 to 1, about the root of each lung."""
    strands = np.exp(-np.abs(_mottle(rng, len(x), 7)) / 0.3)
    return strands * _ridge(np.hypot(np.abs(x) - 0.15, 0.7 * y), 0.3)


def _breasts(rng: Generator, x: Floats, y: Floats) -> Floats:
    """Veil of soft tissue, 0 to 1, over the lower part of both lungs."""
    across = np.abs(x) - rng.normal(0.42, 0.05)
    return _ridge(across, 0.35) * _ridge(y - rng.normal(0.2, 0.1), 0.4)


def _opacities(rng: Generator, x: Floats, y: Floats) -> Floats:
    """Patchy consolidation, 0 to 1: two to four irregular clouds anywhere in the lungs."""
    filled = np.zeros_like(x)
    for _ in range(rng.integers(2, 5)):
        side = rng.choice((-1, 1))
        centre = np.array([side * rng.uniform(0.3, 0.7), rng.uniform(-0.5, 0.45)])
        distance, angle = _polar(x, y, centre)
        depth = _lobed_radius(rng, angle, rng.uniform(0.1, 0.25), 0.4) - distance
        filled = np.maximum(filled, rng.uniform(0.3, 0.8) * _inside(depth, 0.04))
    return np.clip(filled * (1 + 0.25 * _mottle(rng, len(x), 8)), 0, 1)


def _draw_chest(rng: Generator, minority: bool, size: int) -> Floats:
    """Draw a frontal chest film, with patchy opacities in the lungs for the minority."""
    x, y = _posed(rng, *_axes(size))
    air = _lungs(rng, x, y) * (1 - 0.9 * _heart(rng, x, y))
    air *= 1 - 0.35 * _vessels(rng, x, y)
    # Opacities take the place of part of the veil, so that they whiten the lungs no more than it.
    air *= 1 - rng.uniform(0, 0.2 if minority else 0.5) * _breasts(rng, x, y)
    if minority:
        air *= 1 - _opacities(rng, x, y)
    film = 0.75 - rng.uniform(0.5, 0.75) * air
    film += 0.2 * _spine(rng, x, y) + 0.1 * _clavicles(rng, x, y)
    film += rng.uniform(0.06, 0.12) * _ribs(rng, x, y)
    film += 0.04 * power_law_texture(rng, size)
    return film * _body(rng, x, y)


# The cohorts


@dataclass(frozen=True)
class Phantom:
    """One built-in cohort: its row of the paper's Table 1, and how one image of it is drawn.

    Attributes
    ----------
    size : int
        Natural side in pixels.
    train, test_majority, test_minority : int
        Numbers of images.
    majority, minority : str
        Names of the classes.
    draw : callable
        ``draw(rng, minority, size)``, a picture in arbitrary units.
    """

    size: int
    train: int
    test_majority: int
    test_minority: int
    majority: str
    minority: str
    draw: Callable[[Generator, bool, int], Floats]


PHANTOMS = {
    "phantom-mri": Phantom(32, 1000, 946, 926, "tumour", "tissue", _draw_mri),
    "phantom-ffdm": Phantom(64, 200, 52, 52, "tumour", "tissue", _draw_ffdm),
    "phantom-chestx": Phantom(100, 1341, 234, 390, "normal", "pneumonia", _draw_chest),
}


@dataclass(frozen=True)
class PhantomImages:
    """Images of one phantom: majority in training, majority in testing, minority in testing.

    Attributes
    ----------
    images : ndarray of uint16, shape (n, size, size)
        Grey values from 0 to 4095.
    minority : ndarray of bool, shape (n,)
    split : ndarray of str, shape (n,)
        "train" or "test".
    """

    images: npt.NDArray[np.uint16]
    minority: npt.NDArray[np.bool_]
    split: npt.NDArray[np.str_]


def _exposed(rng: Generator, picture: Floats) -> npt.NDArray[np.uint16]:
    """Record a picture as grey values, at a random level, contrast and noise."""
    noise = rng.uniform(0.03, 0.12) * rng.standard_normal(picture.shape)
    level, contrast = rng.uniform(0.4, 0.6), rng.uniform(0.08, 0.14)
    grey = WHITE * (level + contrast * (_windowed(picture) + noise))
    return np.clip(np.rint(grey), 0, WHITE).astype(np.uint16)


def draw_phantom(
    name: str,
    *,
    size: int | None = None,
    train: int | None = None,
    test_majority: int | None = None,
    test_minority: int | None = None,
    seed: int = 0,
) -> PhantomImages:
    """Draw the images of a built-in cohort.

    Each of the three parts is drawn one image after the other, each image with a generator of
    its own: fewer images of a part are the first of more, and no part changes another.

    Parameters
    ----------
    name : str
        A key of `PHANTOMS`.
    size : int, optional
        Side in pixels, 16 or more; by default the phantom's own, the paper's.
    train, test_majority, test_minority : int, optional
        Numbers of images; by default those of the paper's Table 1.
    seed : int
        0 or more.

    Examples
    --------
    >>> phantom = draw_phantom("phantom-mri", train=2, test_majority=1, test_minority=1)
    >>> phantom.images.shape
    (4, 32, 32)
    >>> phantom.minority.tolist(), phantom.split.tolist()
    ([False, False, False, True], ['train', 'train', 'test', 'test'])
    """
    if name not in PHANTOMS:
        raise ValueError(f"No phantom is named {name!r}; there are {', '.join(PHANTOMS)}.")
    asked: dict[str, Any] = {"size": size, "train": train}
    asked |= {"test_majority": test_majority, "test_minority": test_minority}
    given = {parameter: value for parameter, value in asked.items() if value is not None}
    for parameter, value in {**given, "seed": seed}.items():
        smallest = SMALLEST_SIZE if parameter == "size" else 0
        if value < smallest:
            raise ValueError(
                f"The {parameter!r} of a phantom must be {smallest} or more. Got {value!r}."
            )
    phantom = replace(PHANTOMS[name], **given)
    counts = (phantom.train, phantom.test_majority, phantom.test_minority)
    minority = np.repeat((False, False, True), counts)
    images = np.empty((minority.size, phantom.size, phantom.size), dtype=np.uint16)
    places = [(part, k) for part, count in enumerate(counts) for k in range(count)]
    for i, place in enumerate(places):
        rng = default_rng((seed, zlib.crc32(name.encode()), *place))
        images[i] = _exposed(rng, phantom.draw(rng, bool(minority[i]), phantom.size))
    return PhantomImages(images, minority, np.repeat(("train", "test", "test"), counts))
