"""What the operations do to a picture, and what broken pictures do."""

import io
import random
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import get_args

import pytest
from PIL import Image, ImageChops, ImageCms, ImageStat

from effects import editing
from effects.editing import process
from effects.pictures import ImageError, ImageTooLarge, NotAnImage, Operation

FORMATS = ["JPEG", "PNG", "WEBP", "GIF"]
GPS = 0x8825
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **saving: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **saving)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def processed(data: bytes, *operations: Operation) -> Image.Image:
    return opened(process(data, operations)[0])


def photo(width: int = 320, height: int = 200) -> Image.Image:
    """Something with gradients and noise, as a camera would deliver."""
    noise = Image.effect_noise((width, height), 30)
    gradient = Image.linear_gradient("L").resize((width, height))
    return Image.merge(
        "RGB", [noise, gradient, gradient.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
    )


def exif(orientation: int = 1) -> Image.Exif:
    data = Image.Exif()
    data[ORIENTATION] = orientation
    data[0x010F] = "SECRETMAKER"
    data.get_ifd(GPS)[1] = "N"
    return data


def header_only_png(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 99) + b"IDAT"


@pytest.mark.parametrize("kind", FORMATS)
def test_the_format_stays(kind: str) -> None:
    data, extension = process(encoded(photo(), kind), ["resize", "compress", "watermark"])
    assert (opened(data).format, extension) == (kind, kind.lower())


def test_every_operation_has_its_function() -> None:
    assert set(editing.OPERATIONS) == set(get_args(Operation))
    assert set(editing.ENCODING) == set(editing.SMALLER) == set(editing.FORMATS)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "PPM", "PDF"])
def test_another_format_is_not_an_image(kind: str) -> None:
    with pytest.raises(NotAnImage):
        process(encoded(photo(), kind), [])


@pytest.mark.parametrize(
    "data",
    [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a", b"\xff\xd8\xff", bytes(99)],
)
def test_something_else_is_not_an_image(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        process(data, [])


def test_an_animation_keeps_its_first_frame() -> None:
    red, blue = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
    for kind in ("GIF", "WEBP", "PNG", "MPO"):
        result = processed(encoded(red, kind, save_all=True, append_images=[blue]), "resize")
        assert getattr(result, "n_frames", 1) == 1
        assert result.convert("RGB").getpixel((4, 4)) == pytest.approx((255, 0, 0), abs=9)


def test_photos_of_several_pictures_become_jpeg() -> None:
    data = encoded(photo(), "MPO", save_all=True, append_images=[photo()])
    assert opened(data).format == "MPO"
    assert process(data, [])[1] == "jpeg"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (5, 5)), (3, (75, 35)), (6, (35, 5)), (8, (5, 75))]
)
def test_exif_turns_the_picture(kind: str, orientation: int, corner: tuple[int, int]) -> None:
    image = Image.new("RGB", (80, 40), "black")
    image.paste("white", (0, 0, 20, 20))
    result = processed(encoded(image, kind, exif=exif(orientation)))
    assert result.size == ((80, 40) if orientation in (1, 3) else (40, 80))
    assert result.convert("L").getpixel(corner) == pytest.approx(255, abs=9)
    assert ORIENTATION not in result.getexif()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("operations", [[], ["resize"], ["compress"], ["watermark"]])
def test_no_metadata_comes_through(kind: str, operations: list[Operation]) -> None:
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>SECRETXMP</x:xmpmeta>"
    source = encoded(photo(), kind, exif=exif(6), xmp=xmp, comment=b"SECRETCOMMENT")
    assert b"SECRETMAKER" in source
    result = process(source, operations)[0]
    assert b"SECRET" not in result
    assert not opened(result).getexif()
    assert not opened(result).getexif().get_ifd(GPS)


def test_no_gif_comment_comes_through() -> None:
    source = encoded(photo(), "GIF", comment=b"SECRETCOMMENT")
    assert b"SECRET" in source
    assert b"SECRET" not in process(source, [])[0]


def test_the_colour_profile_comes_through() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("JPEG", "PNG", "WEBP"):
        assert (
            processed(encoded(photo(), kind, icc_profile=profile), "watermark").info["icc_profile"]
            == profile
        )


@pytest.mark.parametrize("kind", FORMATS)
def test_resize_fits_within_1024_pixels(kind: str) -> None:
    assert processed(encoded(photo(2048, 1000), kind), "resize").size == (1024, 500)
    assert processed(encoded(photo(300, 3000), kind), "resize").size == (102, 1024)


@pytest.mark.parametrize("size", [(1024, 1024), (1, 1), (1024, 3)])
def test_resize_never_enlarges(size: tuple[int, int]) -> None:
    assert processed(encoded(photo(*size), "PNG"), "resize").size == size


def test_resize_leaves_every_side_a_pixel() -> None:
    assert processed(encoded(photo(5000, 1), "PNG"), "resize").size == (1024, 1)


def test_resize_mixes_a_palettes_colours() -> None:
    stripes = Image.new("P", (2048, 16), 0)
    stripes.putpalette([0, 0, 0, 255, 255, 255])
    for x in range(0, 2048, 2):
        stripes.paste(1, (x, 0, x + 1, 16))
    assert processed(encoded(stripes, "PNG"), "resize").convert("L").getpixel(
        (500, 4)
    ) == pytest.approx(128, abs=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_compress_makes_a_smaller_file(kind: str) -> None:
    source = encoded(photo(), kind, quality=90)
    assert len(process(source, ["compress"])[0]) < 0.8 * len(process(source, [])[0])


def test_compress_makes_a_gif_no_larger() -> None:
    source = encoded(photo(), "GIF")
    assert len(process(source, ["compress"])[0]) <= len(process(source, [])[0])


def test_compress_gives_pngs_a_transparent_palette() -> None:
    image = photo()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    result = processed(encoded(image, "PNG"), "compress")
    assert result.mode == "P"
    alpha = result.convert("RGBA").getchannel("A")
    assert ImageStat.Stat(ImageChops.difference(alpha, image.getchannel("A"))).mean[0] < 20


def sources() -> Iterator[tuple[str, bytes]]:
    """Every mode in which Pillow reads one of the formats, on black."""
    black = Image.new("RGB", (400, 300))
    transparent = Image.new("RGBA", (400, 300))
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
        yield f"PNG {mode}", encoded(Image.new(mode, (400, 300)), "PNG")
    for mode in ("L", "RGB"):
        yield f"JPEG {mode}", encoded(black.convert(mode), "JPEG")
    yield "JPEG CMYK", encoded(Image.new("CMYK", (400, 300), (0, 0, 0, 255)), "JPEG")
    yield "PNG transparent colour", encoded(black, "PNG", transparency=(1, 2, 3))
    yield "PNG transparent grey", encoded(black.convert("L"), "PNG", transparency=9)
    yield "PNG transparent palette", encoded(transparent.quantize(4), "PNG")
    yield "WEBP RGB", encoded(black, "WEBP")
    yield "WEBP RGBA", encoded(transparent, "WEBP")
    yield "GIF P", encoded(black, "GIF")
    yield "GIF transparent", encoded(transparent, "GIF")


SOURCES = dict(sources())


def on_grey(image: Image.Image) -> Image.Image:
    ground = Image.new("RGBA", image.size, (60, 60, 60, 255))
    if image.mode == "I;16":
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("L")


@pytest.mark.parametrize("data", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize(
    "operations", [["watermark"], ["compress", "watermark"], ["watermark", "compress"]]
)
def test_watermarks_show_only_lower_right(data: bytes, operations: list[Operation]) -> None:
    before, after = on_grey(processed(data)), on_grey(processed(data, *operations))
    changed = ImageChops.difference(before, after).point([0] * 40 + [255] * 216).getbbox()
    assert changed is not None
    left, top, right, bottom = changed
    assert left > 200
    assert top > 150
    assert (right - left) > 40
    assert (bottom - top) > 8
    assert 395 <= right <= 400
    assert 290 <= bottom <= 300


@pytest.mark.parametrize("ground", ["black", "white", "gray"])
def test_watermarks_are_legible_on_any_ground(ground: str) -> None:
    data = encoded(Image.new("L", (400, 300), ground), "PNG")
    shades = processed(data, "watermark").convert("L").getcolors() or []
    darkest, lightest = min(shade for _, shade in shades), max(shade for _, shade in shades)
    assert float(str(lightest)) - float(str(darkest)) > 100


def test_a_watermark_can_be_seen_through() -> None:
    stripes = Image.linear_gradient("L").resize((400, 300)).point([0] * 128 + [255] * 128)
    both = ImageChops.difference(
        stripes, processed(encoded(stripes, "PNG"), "watermark").convert("L")
    )
    extremes = both.getextrema()
    assert extremes[1] == pytest.approx(editing.OPACITY, abs=2)


def test_a_watermark_grows_with_the_picture() -> None:
    heights = []
    for size in ((300, 200), (3000, 2000)):
        bbox = processed(encoded(Image.new("L", size), "PNG"), "watermark").getbbox()
        assert bbox is not None
        heights.append(bbox[3] - bbox[1])
    assert heights[1] > 5 * heights[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (16, 16), (60, 8)])
@pytest.mark.parametrize("kind", FORMATS)
def test_watermarks_fit_the_smallest_picture(kind: str, size: tuple[int, int]) -> None:
    assert processed(encoded(photo(*size), kind), "watermark").size == size


def test_the_order_of_the_operations_matters() -> None:
    data = encoded(photo(4000, 200), "PNG")
    drawn_small, drawn_large = (
        processed(data, "watermark", "resize"),
        processed(data, "resize", "watermark"),
    )
    plain = processed(data, "resize")
    first, second = (
        ImageChops.difference(plain, image).getbbox() for image in (drawn_small, drawn_large)
    )
    assert first is not None
    assert second is not None
    assert second[2] - second[0] > 2 * (first[2] - first[0])


def test_equal_orders_give_equal_pictures() -> None:
    data = encoded(photo(1500, 1000), "JPEG")
    assert process(data, ["watermark", "resize"]) == process(data, ["watermark", "resize"])


@pytest.mark.parametrize(
    ("kind", "mode", "size"),
    [
        ("JPEG", "L", (4000, 4000)),
        ("JPEG", "CMYK", (4000, 2500)),
        ("PNG", "1", (4000, 3000)),
        ("GIF", "L", (4000, 3000)),
        ("WEBP", "RGB", (2000, 2000)),
        ("PNG", "1", (16_384, 1)),
    ],
)
def test_so_many_pixels_are_taken(kind: str, mode: str, size: tuple[int, int]) -> None:
    width, height = size
    assert max(processed(encoded(Image.new(mode, size), kind), "resize").size) == 1024
    with pytest.raises(ImageTooLarge):
        process(encoded(Image.new(mode, (width + 1, height)), kind), ["resize"])


@pytest.mark.parametrize(
    "size", [(4000, 3001), (4001, 4000), (9000, 9000), (65535, 65535), (2**31 - 1, 1), (1, 16_385)]
)
@pytest.mark.parametrize("warned", ["error", "ignore"])
def test_too_many_pixels_are_never_decoded(size: tuple[int, int], warned: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error" if warned == "error" else "ignore", Image.DecompressionBombWarning
        )
        with pytest.raises(ImageTooLarge):
            process(header_only_png(*size), ["resize"])


def test_repeated_operations_are_done_once() -> None:
    data = encoded(photo(), "PNG")
    once = process(data, ["watermark", "resize"])
    assert process(data, ["watermark", "resize", "watermark", "resize"]) == once
    assert process(data, ["resize"]) != once


def test_too_long_results_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(), "PNG")
    length = len(process(data, [])[0])
    monkeypatch.setattr(editing, "MAX_RESULT", length)
    assert survives(data, [])
    monkeypatch.setattr(editing, "MAX_RESULT", length - 1)
    with pytest.raises(ImageTooLarge):
        process(data, [])


def test_headers_without_pixels_are_no_image() -> None:
    with pytest.raises(NotAnImage):
        process(header_only_png(80, 50), ["resize"])


def survives(data: bytes, operations: Sequence[Operation]) -> bool:
    try:
        process(data, operations)
    except ImageError:
        return False
    return True


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files_are_not_images(kind: str) -> None:
    data = encoded(photo(64, 48), kind)
    assert survives(data, ["compress"])
    assert not any(survives(data[:end], ["compress"]) for end in range(0, len(data) * 9 // 10, 7))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells what it finds broken
@pytest.mark.parametrize("data", SOURCES.values(), ids=SOURCES)
def test_flipped_bits_raise_only_image_errors(data: bytes) -> None:
    chance = random.Random(1)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(chance.choice((1, 3, 9))):
            broken[chance.randrange(min(len(broken), chance.choice((64, 512, 9999))))] ^= (
                1 << chance.randrange(8)
            )
        survives(bytes(broken), ["resize", "watermark", "compress"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_exif_costs_no_picture() -> None:
    data = encoded(photo(), "JPEG", exif=exif(6))
    at = data.index(b"Exif\0\0") + 14
    assert survives(data[:at] + b"\xff" * 20 + data[at + 20 :], ["resize"])
    assert survives(data, ["resize"])


def test_palette_images_need_their_palette() -> None:
    data = bytearray(encoded(photo().quantize(9), "PNG"))
    at = data.index(b"PLTE")
    data[at : at + 4] = b"plTe"
    length = struct.unpack(">I", data[at - 4 : at])[0]
    data[at + 4 + length : at + 8 + length] = struct.pack(
        ">I", zlib.crc32(data[at : at + 4 + length])
    )
    with pytest.raises(NotAnImage):
        process(bytes(data), ["compress"])
