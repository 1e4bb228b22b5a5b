import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from kerastk.datasets import images
from kerastk.errors import PhotoError

ORIENTATION = 0x0112


def difference(one, other):
    return np.abs(one.astype(int) - other.astype(int)).mean()


def kind_of(data):
    with pytest.raises(PhotoError) as caught:
        images.decode(data, 8)
    return caught.value.kind


def png(width, height, *, bits=1, colour=0, body=b""):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


# Turned photos.

CONTAINERS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "MPO": {"save_all": True, "quality": 95},
}


def turned_pair(picture, encode, format, orientation):
    """A photo with an EXIF turn, and the same as a PNG whose pixels are turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = dict(CONTAINERS[format])
    if format == "MPO":
        options["append_images"] = [Image.fromarray(picture(9, width=96, height=64))]
    data = encode(picture(0, width=96, height=64), format, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    return data, encode(upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", CONTAINERS)
def test_an_exif_turn_gives_what_the_turned_pixels_give(picture, encode, format, orientation):
    data, upright = turned_pair(picture, encode, format, orientation)
    for size in (32, 33):
        for resize in images.RESIZES:
            got, expected = images.decode(data, size, resize=resize), images.decode(upright, size, resize=resize)
            # JPEG is decoded at half its size here, hence the tolerance; a wrong turn differs by 40 or more.
            assert difference(got, expected) < 3, (size, resize)
    box = (0.1, 0.2, 0.5, 0.9)
    assert difference(images.decode(data, 32, box=box), images.decode(upright, 32, box=box)) < 1
    assert np.array_equal(images.whole(data), images.whole(upright))
    head = images.header(data)
    assert (head.width, head.height) == ((96, 64) if orientation < 5 else (64, 96))


def test_the_turns_differ_from_one_another(picture, encode):
    turned = [images.decode(turned_pair(picture, encode, "PNG", each)[0], 32) for each in range(1, 9)]
    assert all(difference(a, b) > 10 for i, a in enumerate(turned) for b in turned[:i])


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_exif_block_does_not_cost_the_photo(picture, encode):
    data = encode(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff rubbish")
    plain = encode(picture(), "JPEG")
    assert np.array_equal(images.decode(data, 16), images.decode(plain, 16))


# What part of the photo is kept.


def striped(width, height, border):
    """Green, with a red border of `border` pixels at both ends of the longer side."""
    pixels = np.full((height, width, 3), (0, 255, 0), np.uint8)
    ends = pixels if height >= width else pixels.transpose(1, 0, 2)
    ends[:border] = ends[-border:] = (255, 0, 0)
    return pixels


@pytest.mark.parametrize(("width", "height"), [(80, 40), (40, 80)])
def test_crop_keeps_the_largest_centred_square(encode, width, height):
    # The filter reaches a pixel or two beyond the square.
    assert (images.decode(encode(striped(width, height, 18)), 20) == (0, 255, 0)).all()
    edges = images.decode(encode(striped(width, height, 24)), 20)
    edges = edges if height >= width else edges.transpose(1, 0, 2)
    assert (edges[[0, -1]] == (255, 0, 0)).all()
    assert (edges[3:-3] == (0, 255, 0)).all()


@pytest.mark.parametrize(("width", "height"), [(80, 40), (40, 80)])
def test_pad_keeps_the_whole_photo_between_black_borders(encode, width, height):
    got = images.decode(encode(np.full((height, width, 3), 200, np.uint8)), 40, resize="pad")
    rows = got if width > height else got.transpose(1, 0, 2)
    assert (rows[:10] == 0).all()
    assert (rows[10:30] == 200).all()
    assert (rows[30:] == 0).all()


def test_stretch_keeps_the_whole_photo(encode):
    got = images.decode(encode(striped(80, 40, 20)), 40, resize="stretch")
    assert (got[:, :9] == (255, 0, 0)).all()
    assert (got[:, 11:29] == (0, 255, 0)).all()
    assert (got[:, 31:] == (255, 0, 0)).all()


def test_a_box_is_another_part_of_the_photo(encode):
    data = encode(striped(80, 40, 20))
    assert (images.decode(data, 16, box=(0, 0, 0.2, 1)) == (255, 0, 0)).all()
    assert (images.decode(data, 16, box=(0.3, 0.5, 0.7, 0.75)) == (0, 255, 0)).all()


@pytest.mark.parametrize("resize", images.RESIZES)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (500, 1), (3, 2), (224, 224)])
def test_any_shape_becomes_a_square_of_uint8(encode, resize, width, height):
    for format in ("PNG", "JPEG"):
        got = images.decode(encode(np.full((height, width, 3), 90, np.uint8), format), 24, resize=resize)
        assert got.shape == (24, 24, 3)
        assert got.dtype == np.uint8
        assert abs(int(got.max()) - 90) <= 1


@pytest.mark.parametrize("format", ["JPEG", "MPO"])
def test_a_reduced_decode_is_close_to_the_full_one(picture, encode, format):
    data = encode(picture(3, width=800, height=600), format, quality=90)
    full = Image.fromarray(images.whole(data)).crop((100, 0, 700, 600)).resize((96, 96), Image.Resampling.BILINEAR)
    assert difference(images.decode(data, 96), np.asarray(full)) < 1.5


def test_a_large_jpeg_is_decoded_at_a_reduced_scale(picture, encode, monkeypatch):
    loaded = []
    to_rgb = images._to_rgb
    monkeypatch.setattr(images, "_to_rgb", lambda image: loaded.append(image.size) or to_rgb(image))
    data = encode(picture(3, width=800, height=600), "JPEG")
    images.decode(data, 64)
    images.decode(data, 64, box=(0.0, 0.0, 0.25, 0.25))
    images.decode(data, 500)
    assert loaded == [(100, 75), (400, 300), (800, 600)]


# Colour.


def test_transparency_lies_over_white(encode):
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert images.decode(encode(half), 4)[0, 0].tolist() == [255, 127, 127]
    assert images.decode(encode(half, "WEBP", lossless=True), 4)[0, 0].tolist() == [255, 127, 127]
    assert images.decode(encode(Image.new("LA", (4, 4), (0, 0))), 4)[0, 0].tolist() == [255, 255, 255]
    assert images.decode(encode(Image.new("LA", (4, 4), (0, 255))), 4)[0, 0].tolist() == [0, 0, 0]


def test_one_transparent_colour_is_white(encode):
    for mode, colour, key in (("RGB", (9, 9, 9), (9, 9, 9)), ("L", 9, 9), ("1", 0, 0)):
        data = encode(Image.new(mode, (4, 4), colour), transparency=key)
        assert images.decode(data, 4)[0, 0].tolist() == [255, 255, 255], mode
    opaque = encode(Image.new("RGB", (4, 4), (9, 9, 8)), transparency=(9, 9, 9))
    assert images.decode(opaque, 4)[0, 0].tolist() == [9, 9, 8]


def paletted():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    return image


def test_palettes(encode):
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        got = images.decode(encode(paletted(), format), 4)
        assert got[0, 0].tolist() == [10, 20, 30], format
        assert got[3, 3].tolist() == [200, 100, 50], format
    for format in ("PNG", "GIF"):
        got = images.decode(encode(paletted(), format, transparency=0), 4)
        assert got[0, 0].tolist() == [255, 255, 255], format
        assert got[3, 3].tolist() == [200, 100, 50], format


def test_a_palette_with_an_alpha_channel():
    image = Image.new("PA", (4, 4))
    image.putpalette([10, 20, 30])
    image.putalpha(0)
    assert image.mode == "PA"
    assert images.from_pil(image, 4)[0, 0].tolist() == [255, 255, 255]


def test_one_bit_and_grey(encode):
    bits = Image.new("1", (8, 8), 1)
    bits.paste(0, (0, 0, 4, 8))
    for format in ("PNG", "BMP", "TIFF"):
        got = images.decode(encode(bits, format), 8)
        assert (got[:, :4] == 0).all(), format
        assert (got[:, 4:] == 255).all(), format
    for format in ("PNG", "JPEG", "WEBP"):
        assert images.decode(encode(Image.new("L", (8, 8), 77), format), 8)[0, 0].tolist() == [77, 77, 77], format


def test_cmyk_jpeg(encode):
    for ink, expected in (
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 0, 0), (255, 255, 255)),
    ):
        data = encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
        assert images.header(data).mode == "CMYK"
        assert difference(images.decode(data, 16), np.full((16, 16, 3), expected)) < 3


def test_sixteen_bits_are_scaled_exactly(encode):
    values = np.array([[0, 128, 129, 256], [257, 32767, 32768, 32896], [43690, 65280, 65406, 65407], [1, 2, 3, 65535]])
    expected = np.floor(values / 257 + 0.5).astype(np.uint8)
    assert expected[3, 3] == 255
    assert expected[1, 2] == 128
    little = Image.fromarray(values.astype(np.uint16))
    big = Image.frombytes("I;16B", (4, 4), values.astype(">u2").tobytes())
    for data in (encode(little), encode(little, "TIFF"), encode(big, "TIFF")):
        assert np.array_equal(images.decode(data, 4), np.stack([expected] * 3, axis=-1))
        assert np.array_equal(images.whole(data), np.stack([expected] * 3, axis=-1))


def test_sixteen_bits_of_colour(encode):
    body = zlib.compress(b"\0" + struct.pack(">6H", 0, 32768, 65535, 65535, 0, 257 * 9))
    got = images.whole(png(2, 1, bits=16, colour=2, body=body))
    assert got.tolist() == [[[0, 128, 255], [255, 0, 9]]]


def test_pixels_without_a_fixed_range_are_refused(encode):
    assert kind_of(encode(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF")) == "unsupported"
    assert kind_of(encode(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF")) == "unsupported"


# Formats.


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(encode, format):
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(red, format, save_all=True, append_images=[blue], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert (images.decode(data, 8) == (255, 0, 0)).all()


def test_every_format_gives_the_same_picture(picture, encode):
    pixels = picture(1, width=48, height=48)
    for format, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        data = encode(pixels, format, **options)
        assert np.array_equal(images.decode(data, 48), pixels), format
        assert images.header(data) == images.Header(format, 48, 48, "RGB")
        assert images.looks_like_image(data)
    for format in ("JPEG", "MPO"):
        data = encode(pixels, format, quality=95, subsampling=0)
        assert difference(images.decode(data, 48), pixels) < 3, format
        assert images.header(data).format == "JPEG"


def test_formats_outside_the_list_are_no_photos(encode):
    for format in ("PPM", "ICO", "TGA", "PCX"):
        assert kind_of(encode(Image.new("RGB", (16, 16)), format)) == "not-image", format


def test_to_png_gives_the_pixels_back(picture):
    assert np.array_equal(images.whole(images.to_png(picture())), picture())
    grey = picture()[..., 0]
    assert np.array_equal(images.whole(images.to_png(grey))[..., 0], grey)


@pytest.mark.parametrize("resize", images.RESIZES)
def test_a_pillow_image_is_read_like_its_file(picture, encode, resize):
    data, _ = turned_pair(picture, encode, "PNG", 6)
    image = Image.open(io.BytesIO(data))
    assert difference(images.from_pil(image, 32, resize=resize), images.decode(data, 32, resize=resize)) < 1
    assert image.size == (96, 64)
    assert images.from_pil(Image.new("RGBA", (9, 5), (255, 0, 0, 128)), 4)[2, 2].tolist() == [255, 127, 127]


# What is no photo.


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", "empty", "empty"),
        (bytes(500), "not-image", "zeros"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not-image", "HTML"),
        (b"\n  <HTML>", "not-image", "HTML"),
        (b"<?xml version='1.0'?><svg/>", "not-image", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported", "HEIC"),
        (b"some text", "not-image", "unknown"),
        (b"\xff\xd8\xff", "damaged", "header"),
        (b"\x89PNG\r\n\x1a\n", "damaged", "header"),
        (b"GIF89a", "damaged", "header"),
        (b"RIFF\0\0\0\0WEBP", "damaged", "header"),
    ],
)
def test_bytes_that_are_no_photo_are_named(data, kind, words):
    for read in (lambda: images.decode(data, 8), lambda: images.header(data), lambda: images.whole(data)):
        with pytest.raises(PhotoError, match=words) as caught:
            read()
        assert caught.value.kind == kind


def test_a_decompression_bomb_is_refused_by_its_header():
    rows = zlib.compressobj(1)
    body = b"".join(rows.compress(bytes(5001 * 400)) for _ in range(100)) + rows.flush()
    bomb = png(40_000, 40_000, body=body)
    assert len(bomb) < 2**20
    assert kind_of(bomb) == "oversized"


@pytest.mark.parametrize(("side", "kind"), [(9435, "oversized"), (9433, "damaged")])
def test_the_cap_on_pixels(side, kind):
    assert kind_of(png(side, side, body=zlib.compress(b"\0"))) == kind


def test_the_cap_on_bytes(picture, encode, monkeypatch):
    data = encode(picture())
    monkeypatch.setattr(images, "MAX_BYTES", len(data))
    images.decode(data, 8)
    monkeypatch.setattr(images, "MAX_BYTES", len(data) - 1)
    assert kind_of(data) == "oversized"


EVERY_FORMAT = {
    "JPEG": {}, "progressive": {"format": "JPEG", "progressive": True}, "PNG": {}, "GIF": {}, "WEBP": {},
    "lossless": {"format": "WEBP", "lossless": True}, "BMP": {}, "TIFF": {},
    "lzw": {"format": "TIFF", "compression": "tiff_lzw"}, "MPO": {},
}  # fmt: skip


def encoded(picture, encode, name):
    options = dict(EVERY_FORMAT[name])
    format = options.pop("format", name)
    return encode(picture(2, width=60, height=40), format, **options)


def decode_or_refuse(data):
    """True where the bytes were decoded; fails on any error but PhotoError."""
    try:
        got = images.decode(data, 16)
        assert got.shape == images.decode(data, 16, resize="pad").shape == (16, 16, 3)
        assert images.whole(data).dtype == np.uint8
    except PhotoError as error:
        text = str(error)
    else:
        return True
    assert text
    assert "\n" not in text
    return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_a_photo_cut_anywhere_is_refused_or_decoded(picture, encode, name):
    data = encoded(picture, encode, name)
    assert decode_or_refuse(data)
    for end in sorted({*range(0, 64, 3), *range(64, len(data), max(1, len(data) // 60)), len(data) - 1}):
        decode_or_refuse(data[:end])
    assert not decode_or_refuse(data[: len(data) // 2])
    assert not decode_or_refuse(data[:40])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_a_photo_with_wrong_bytes_is_refused_or_decoded(picture, encode, name):
    data = encoded(picture, encode, name)
    draw = random.Random(name)
    for _ in range(120):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 3, 20))):
            # Headers are where decoders break, so half of the damage goes there.
            damaged[draw.randrange(len(data) if draw.random() < 0.5 else min(len(data), 200))] = draw.randrange(256)
        decode_or_refuse(bytes(damaged))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "WEBP", "lzw"])
def test_a_photo_whose_pixels_are_overwritten_is_refused(picture, encode, name):
    data = encoded(picture, encode, name)
    middle = len(data) // 2
    damaged = data[: middle - 100] + b"\xff" * 200 + data[middle + 100 :]
    for read in (lambda: images.decode(damaged, 16), lambda: images.whole(damaged)):
        with pytest.raises(PhotoError, match="damaged"):
            read()


def test_a_damaged_pillow_image_is_refused_like_its_file(picture, encode):
    data = encode(picture(width=400, height=300), "JPEG", quality=95)
    with pytest.raises(PhotoError, match="damaged"):
        images.from_pil(Image.open(io.BytesIO(data[: len(data) // 2])), 16)
