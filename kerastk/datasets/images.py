"""The one decoder: bytes of a photo -> uint8 RGB. Training, evaluation and prediction all pass through `decode`.

Pillow reads the photo: its first frame, turned as EXIF says, transparency over white, 16-bit scaled to 8, CMYK and
palettes converted. Only the part of a photo that is wanted is resized, and JPEGs are decoded at the nearest smaller
scale that still suffices (`draft`), so that decoding, cropping and resizing are one cheap step.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import (  # the plugins register their formats when they are imported
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageOps,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from kerastk.errors import PhotoError

# A change of what `decode` returns for the same bytes changes this number; stored findings and caches carry it.
DECODER_VERSION = 1
MAX_PIXELS = 89_000_000
MAX_BYTES = 256 * 2**20
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # JPEG brings MPO, the format of many phones
SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".mpo": "JPEG", ".png": "PNG", ".webp": "WEBP",
    ".gif": "GIF", ".bmp": "BMP", ".dib": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
RESIZES = ("crop", "pad", "stretch")

_EXIF_ORIENTATION = 0x0112
_TURNED_SIDEWAYS = (5, 6, 7, 8)
# For each EXIF orientation, how a turned photo's coordinates become stored ones: (swap x and y, mirror x, mirror y).
_TO_STORED = {
    2: (False, True, False), 3: (False, True, True), 4: (False, False, True), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Header:
    """What a photo says of itself before its pixels are decoded; `width` and `height` are those of the turned photo."""

    format: str
    width: int
    height: int
    mode: str


def open_photo(data: bytes) -> Image.Image:
    """A Pillow image of the photo's header.

    Raises:
        PhotoError: no bytes, not a known image format, or over the limits on bytes and pixels.
    """
    if not data:
        raise PhotoError("the file is empty", "empty")
    if len(data) > MAX_BYTES:
        raise PhotoError(f"{len(data) / 2**20:.0f} MiB; the limit is {MAX_BYTES // 2**20} MiB", "oversized")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise PhotoError(f"more than {MAX_PIXELS // 10**6} megapixels", "oversized") from None
    except Exception:
        # Pillow's plugins raise anything on hostile headers: struct.error, ValueError, SyntaxError, IndexError.
        if looks_like_image(data):
            raise PhotoError("the header is damaged", "damaged") from None
        kind = "unsupported" if _is_other_photo(data) else "not-image"
        raise PhotoError(f"not an image kerastk reads ({_kind_of_bytes(data)})", kind) from None
    if image.width * image.height > MAX_PIXELS:
        raise PhotoError(
            f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS // 10**6} megapixels", "oversized"
        )
    if image.width == 0 or image.height == 0:
        raise PhotoError("the photo has no pixels", "damaged")
    return image


def header(data: bytes) -> Header:
    """Format, size and mode of a photo, without decoding its pixels. Raises PhotoError."""
    image = open_photo(data)
    width, height = image.size
    if _orientation(image) in _TURNED_SIDEWAYS:
        width, height = height, width
    return Header("JPEG" if image.format == "MPO" else image.format, width, height, image.mode)


def decode(data: bytes, size: int, *, resize: str = "crop", box: Box | None = None) -> np.ndarray:
    """The photo as a square, (size, size, 3) uint8 RGB.

    `resize` is `crop` (the largest centred square), `pad` (the whole photo between black borders) or `stretch`.
    `box` is the part to show, as (left, top, right, bottom) in shares of width and height: of the turned photo with
    `crop`, of the square that shows the whole of it with `pad` and `stretch`.

    Raises:
        PhotoError: the bytes are not a whole, readable photo.

    >>> decode(open("cat.jpg", "rb").read(), 224).shape
    (224, 224, 3)
    """
    return np.asarray(fit(open_photo(data), size, resize=resize, box=box))


def fit(image: Image.Image, size: int, *, resize: str = "crop", box: Box | None = None) -> Image.Image:
    """`decode` from an opened Pillow image to another one: size x size pixels in mode RGB. Raises PhotoError."""
    if box is not None and resize == "pad":
        left, top, right, bottom = box
        side = math.ceil(size / min(right - left, bottom - top))
        part = (left * side, top * side, right * side, bottom * side)
        return fit(image, side, resize="pad").resize((size, size), Image.Resampling.BILINEAR, box=part)
    try:
        orientation = _orientation(image)
        width, height = image.size
        left, top, right, bottom = _stored(box, orientation) if box is not None else _box(width, height, resize)
        target = (size, size)
        if resize == "pad" and box is None:
            scale = size / max(width, height)
            target = (max(1, round(width * scale)), max(1, round(height * scale)))
        # The smallest JPEG scale whose part is still as large as what is asked for.
        wanted = (int(target[0] / (right - left)), int(target[1] / (bottom - top)))
        image.draft(None, wanted)
        pixels = _to_rgb(image)
        scaled_width, scaled_height = pixels.size
        pixels = pixels.resize(
            target,
            Image.Resampling.BILINEAR,
            box=(left * scaled_width, top * scaled_height, right * scaled_width, bottom * scaled_height),
            reducing_gap=2.0,
        )
        if pixels.mode != "RGB":
            pixels = pixels.convert("RGB")
        pixels = _turned(pixels, orientation)
        if target != (size, size):
            border = Image.new("RGB", (size, size))
            border.paste(pixels, ((size - pixels.width) // 2, (size - pixels.height) // 2))
            pixels = border
        return pixels
    except (PhotoError, MemoryError):
        raise
    except Exception as error:
        raise PhotoError(f"the pixels are damaged ({str(error) or type(error).__name__})") from None


def whole(data: bytes) -> np.ndarray:
    """The photo at its full size, (height, width, 3) uint8 RGB. Raises PhotoError."""
    image = open_photo(data)
    try:
        return np.asarray(_turned(_to_rgb(image).convert("RGB"), _orientation(image)))
    except (PhotoError, MemoryError):
        raise
    except Exception as error:
        raise PhotoError(f"the pixels are damaged ({str(error) or type(error).__name__})") from None


def looks_like_image(data: bytes) -> bool:
    """Whether the first bytes are those of a format that kerastk reads, whatever follows."""
    return (
        data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*"))
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
    )  # fmt: skip


def _is_other_photo(data: bytes) -> bool:
    """Whether the bytes are a photo of a format that kerastk does not read: HEIC, AVIF or JPEG XL."""
    brands = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")
    in_container = data[4:8] == b"ftyp" and data[8:12] in brands
    return in_container or data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"))


def _kind_of_bytes(data: bytes) -> str:
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is HTML"
    if start.startswith((b"<svg", b"<?xml")):
        return "it is XML or SVG"
    if _is_other_photo(data):
        return "HEIC, AVIF or JPEG XL; convert it to JPEG"
    if not any(data[:512]):
        return "it is all zeros"
    return "unknown bytes"


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        # Pillow turns TIFFs itself (TiffImagePlugin.load_end), and gives the size they will have.
        return 1
    if image.format == "PNG":
        # Its EXIF may follow the pixels, so getexif() decodes them; where that fails, a second load() passes silently.
        _load(image)
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        # A damaged EXIF block does not make the pixels unreadable.
        return 1


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise PhotoError(f"the pixels are damaged ({str(error) or type(error).__name__})") from None


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    return image.transpose(turns[orientation]) if orientation in turns else image


def _stored(box: Box, orientation: int) -> Box:
    left, top, right, bottom = box
    swap, mirror_x, mirror_y = _TO_STORED.get(orientation, (False, False, False))
    if swap:
        left, top, right, bottom = top, left, bottom, right
    if mirror_x:
        left, right = 1 - right, 1 - left
    if mirror_y:
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def _box(width: int, height: int, resize: str) -> Box:
    """The part of the photo that `resize` keeps, in shares of width and height."""
    if resize != "crop" or width == height:
        return 0.0, 0.0, 1.0, 1.0
    side = min(width, height)
    across, down = side / width, side / height
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def _to_rgb(image: Image.Image) -> Image.Image:
    """The pixels in mode RGB, or L for 8-bit grey photos (their resize is three times cheaper)."""
    _load(image)
    if image.mode in ("RGB", "L", "1") and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGB", "L"):
        return image
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.mode == "F":
        raise PhotoError("32-bit float pixels have no fixed range; save it as 8 or 16 bit", "unsupported")
    if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image).convert("RGB")
    return image.convert("L" if image.mode == "1" else "RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """16-bit grey as 8-bit: 65535 becomes 255, rounded to the nearest."""
    values = values.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise PhotoError("32-bit grey has no fixed range; save it as 8 or 16 bit", "unsupported")
    return ((values * 255 + 32767) // 65535).astype(np.uint8)


def to_png(pixels: np.ndarray) -> bytes:
    """(height, width, 3) or (height, width) uint8 as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def to_jpeg(pixels: np.ndarray) -> bytes:
    """(height, width, 3) uint8 as the bytes of a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def thumbnail(pixels: np.ndarray, size: int) -> np.ndarray:
    """A square, (side, side, 3 or 1) uint8, at another size and in RGB."""
    image = Image.fromarray(_in_colours(pixels))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2))


def to_webp(pixels: np.ndarray) -> bytes:
    """(height, width, 3) uint8 as the bytes of a small WebP file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=75, method=4)
    return file.getvalue()


def smaller(pixels: np.ndarray, size: int) -> np.ndarray:
    """(height, width, 3 or 1) uint8 in RGB, its longer side at most `size`."""
    image = Image.fromarray(_in_colours(pixels))
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _in_colours(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def from_pil(image: Image.Image, size: int, *, resize: str = "crop") -> np.ndarray:
    """A Pillow image as (size, size, 3) uint8 RGB: exactly as `decode` gives its file while it is not loaded yet.

    Once its pixels are loaded they are all there is; those of a large JPEG then differ a little from the file's, which
    is decoded at a smaller scale.
    """
    file = getattr(image, "fp", None)
    if file is not None and not file.closed and image.format in FORMATS and file.seekable() and image.tell() == 0:
        place = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(place)
        return decode(data, size, resize=resize)
    _load(image)
    return np.asarray(fit(ImageOps.exif_transpose(image), size, resize=resize))


def photo_grid(photos: Sequence[np.ndarray], columns: int = 8) -> np.ndarray:
    """Squares of one size side by side, (rows * size, columns * size, 3) uint8; gaps are white."""
    size = photos[0].shape[0]
    columns = min(columns, len(photos))
    rows = -(-len(photos) // columns)
    grid = np.full((rows * size, columns * size, 3), 255, np.uint8)
    for number, photo in enumerate(photos):
        row, column = divmod(number, columns)
        grid[row * size : (row + 1) * size, column * size : (column + 1) * size] = photo
    return grid
