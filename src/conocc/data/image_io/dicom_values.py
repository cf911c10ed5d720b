"""What the stored numbers of a DICOM image mean: rescaled, windowed, inverted, looked up.

Letters: h and w pixels.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conocc.data.image_io.dicom_pixels import Layout
from conocc.data.image_io.elements import Elements
from conocc.data.image_io.pixels import Pixels


def grey_values(header: Elements, layout: Layout, stored: Pixels, voi: str) -> Pixels:
    """Rescale, take the window, invert MONOCHROME1: in this order; (h, w) -> (h, w)."""
    values, (low, high) = _rescaled(header, layout, stored)
    if voi != "none":
        values, (low, high) = _of_interest(header, layout, values, voi), (0, 1)
    if layout.photometric == "MONOCHROME1":
        # Around what can be stored, not what is, so that images stay comparable.
        values = _inverted(values, low, high)
    if values.dtype == np.float64 and stored.dtype.itemsize <= 2:
        with np.errstate(over="ignore"):  # infinite, and refused as that
            return values.astype(np.float32)
    return values


def _inverted(values: Pixels, low: float, high: float) -> Pixels:
    if values.dtype.kind == "f":
        inverted: Pixels = (low + high) - values
    else:
        # Which for integers, of all bits that there are or fewer, cannot overflow.
        inverted = (values.dtype.type(high) - values) + values.dtype.type(low)
    return inverted


def _rescaled(
    header: Elements, layout: Layout, stored: Pixels
) -> tuple[Pixels, tuple[float, float]]:
    """Give the values that the scanner meant, and the limits that they can reach."""
    low, high = layout.limits()
    if tables := header.items("ModalityLUTSequence"):
        table = _table(tables[0], signed=layout.signed)
        return table.of(stored), (0, table.highest)
    group = _group(header, "RescaleSlope", "PixelValueTransformationSequence")
    slope = _only(group, "RescaleSlope", 1.0)
    intercept = _only(group, "RescaleIntercept", 0.0)
    if slope == 0:
        raise ValueError("its DICOM RescaleSlope is 0, which leaves no image")
    if (slope, intercept) == (1, 0):
        return stored, (low, high)
    with np.errstate(over="ignore"):
        values = stored.astype(np.float64) * slope + intercept
    return values, (low * slope + intercept, high * slope + intercept)


def _group(header: Elements, tag: str, sequence: str) -> Elements:
    """Find where `tag` stands: in the header itself, or, of enhanced objects, in `sequence`."""
    if tag in header:
        return header
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in header.items(groups)[:1]:
            for item in group.items(sequence)[:1]:
                return item
    return header


def _only(group: Elements, tag: str, default: float) -> float:
    values = group.decimals(tag) or (default,)
    if len(values) != 1 or not np.isfinite(values[0]):
        raise ValueError(f"its DICOM {tag} is not one finite number")
    return values[0]


@dataclass(frozen=True)
class _Table:
    """A look-up table: the value of `first` and of each number after it."""

    first: int
    values: NDArray[np.uint16]
    highest: int

    def of(self, numbers: Pixels) -> Pixels:
        """Look numbers up; those beyond an end of the table take the value there."""
        offset = np.rint(numbers.astype(np.float64)) - self.first
        found: Pixels = self.values[np.clip(offset, 0, len(self.values) - 1).astype(np.intp)]
        return found


def _table(
    item: Elements, descriptor: str = "LUTDescriptor", data: str = "LUTData", *, signed: bool
) -> _Table:
    described, values = item.value(descriptor), item.value(data)
    if len(described) != 6:
        raise ValueError(f"its DICOM {descriptor} is missing or damaged")
    entries, first, bits = struct.unpack(f"{item.order}H{'h' if signed else 'H'}H", described)
    entries = entries or 2**16
    # Some pack 8 bits into words of 16, and some do not.
    words = len(values) >= 2 * entries
    if len(values) < entries or not 1 <= bits <= 16:
        raise ValueError(f"its DICOM {data} has {len(values)} bytes for {entries} entries")
    table = np.frombuffer(values, f"{item.order}u2" if words else "u1", entries).astype(np.uint16)
    return _Table(first, table, max(2**bits - 1, int(table.max())))


def _of_interest(header: Elements, layout: Layout, values: Pixels, voi: str) -> Pixels:
    """Spread the values of interest over 0 to 1; (h, w) -> (h, w) of float64."""
    if voi != "file":
        center, width = map(float, voi.split(","))
        return _windowed(values, center, width, "LINEAR")
    if tables := header.items("VOILUTSequence"):
        # The first number is of the rescaled values, which may be below zero.
        signed = layout.signed or float(values.min()) < 0
        table = _table(tables[0], signed=signed)
        looked_up: Pixels = table.of(values) / table.highest
        return looked_up
    group = _group(header, "WindowCenter", "FrameVOILUTSequence")
    centers, widths = group.decimals("WindowCenter"), group.decimals("WindowWidth")
    if not centers or not widths:
        raise ValueError(
            "it has no window of its own; read it with voi='none' or 'CENTER,WIDTH' (--voi)"
        )
    return _windowed(values, centers[0], widths[0], group.text("VOILUTFunction") or "LINEAR")


def _windowed(values: Pixels, center: float, width: float, function: str) -> Pixels:
    """Apply PS3.3 C.11.2.1.2.1 or C.11.2.1.3, from 0 to 1."""
    least = 1 if function == "LINEAR" else 0
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError("its DICOM VOILUTFunction is none that is read")
    if not (np.isfinite([center, width]).all() and width >= least and width > 0):
        raise ValueError(f"its DICOM window is {center:g},{width:g}, where a width is above 0")
    x = values.astype(np.float64)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            spread: Pixels = 1 / (1 + np.exp(-4 * (x - center) / width))
    elif function == "LINEAR_EXACT":
        spread = np.clip((x - center) / width + 0.5, 0, 1)
    elif width == 1:
        spread = (x > center - 0.5).astype(np.float64)
    else:
        spread = np.clip((x - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    return spread


def palette_colours(header: Elements, stored: Pixels) -> Pixels:
    """Look the numbers of a palette up; (h, w) -> (h, w, 3)."""
    if "RedPaletteColorLookupTableData" not in header:
        raise ValueError("its palette is missing or in segments, which are not read")
    tables = [
        _table(
            header,
            f"{colour}PaletteColorLookupTableDescriptor",
            f"{colour}PaletteColorLookupTableData",
            signed=stored.dtype.kind == "i",
        )
        for colour in ("Red", "Green", "Blue")
    ]
    image = np.stack([table.of(stored) for table in tables], axis=-1)
    return image.astype(np.uint8) if max(table.highest for table in tables) < 256 else image
