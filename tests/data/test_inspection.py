import io
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from data.encoders import bmp, deep_tiff, png, tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageOps

from u2pl.data.description import Description, read_mask
from u2pl.data.inspection import (
    BadFile,
    colors_of_indices,
    decoded,
    opened,
    orientation_of,
    read_picture,
    upright,
)
from u2pl.data.pictures import Finder, read_image, read_indices, write_png

COLORS = [(0, 0, 0), (200, 30, 30), (30, 200, 30), (30, 30, 200)]
FOUR = Description(name="four", classes=["ground", "red", "green", "blue"])
COLORED = Description(name="four", classes=FOUR.classes, colors=COLORS, ignore_color=(224, 224, 192))
MASK = np.random.default_rng(0).integers(0, 4, (9, 14), dtype=np.uint8)
PICTURE = np.random.default_rng(1).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def palette_picture(indices: NDArray[np.uint8], colors: list[tuple[int, int, int]]) -> Image.Image:
    picture = Image.fromarray(indices)
    picture.putpalette([value for color in colors for value in color])
    return picture


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def saved(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- Masks of indices


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_png_mask_is_read_as_its_indices_whatever_its_depth(tmp_path: Path, bits: int) -> None:
    indices = MASK % min(4, 2**bits)
    assert np.array_equal(read_mask(written(tmp_path / "m.png", png(indices, bits, 0)), FOUR), indices)


def test_a_picture_of_few_bits_is_seen_as_it_is_shown(tmp_path: Path) -> None:
    pixels = read_image(written(tmp_path / "p.png", png(MASK, 2, 0)))
    assert np.array_equal(pixels[..., 0], MASK * 85)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_grey_tiff_mask_is_read_as_its_indices_unless_white_is_zero(tmp_path: Path, bits: int) -> None:
    indices = MASK % min(4, 2**bits)
    assert np.array_equal(read_mask(written(tmp_path / "m.tif", tiff(indices, bits, 1)), FOUR), indices)
    upside_down = written(tmp_path / "m.tif", tiff(indices, bits, 0))
    with pytest.raises(BadFile, match="upside down"):
        read_mask(upside_down, FOUR)
    shown = 255 - indices.astype(int) * (255 // (2**bits - 1))
    assert np.array_equal(read_image(upside_down)[..., 0], shown)


@pytest.mark.parametrize("count", [2, 16, 256])
def test_a_bmp_with_a_palette_is_read_right_at_every_depth(tmp_path: Path, count: int) -> None:
    bits = {2: 1, 16: 4, 256: 8}[count]
    colors = [(k, 255 - k, 7) for k in range(count)]
    indices = MASK % min(4, count)
    path = written(tmp_path / "m.bmp", bmp(indices, bits, colors))
    assert np.array_equal(read_mask(path, FOUR), indices)
    assert np.array_equal(read_image(path), np.array(colors, np.uint8)[indices])


@pytest.mark.parametrize(("bits", "count"), [(4, 2), (8, 2), (4, 16)])
def test_a_bmp_whose_grey_palette_pillow_misreads_is_refused(tmp_path: Path, bits: int, count: int) -> None:
    colors = [(k, k, k) for k in range(count)] if count > 2 else [(0, 0, 0), (255, 255, 255)]
    path = written(tmp_path / "m.bmp", bmp(MASK % 2, bits, colors))
    for read in (read_image, lambda path: read_mask(path, FOUR)):
        with pytest.raises(BadFile, match="BMP in greys of few bits"):
            read(path)


def test_a_bmp_of_plain_greys_is_read(tmp_path: Path) -> None:
    ramp = [(k, k, k) for k in range(256)]
    assert np.array_equal(read_mask(written(tmp_path / "m.bmp", bmp(MASK, 8, ramp)), FOUR), MASK)
    two = [(0, 0, 0), (255, 255, 255)]
    assert np.array_equal(read_mask(written(tmp_path / "m.bmp", bmp(MASK % 2, 1, two)), FOUR), MASK % 2)


# --- What is lost in saving


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("m.jpg", {}, "JPEG"),
        ("m.png", {"format": "JPEG"}, "JPEG"),
        ("m.webp", {}, "lossy WebP"),
        ("m.webp", {"exif": tagged(1)}, "lossy WebP"),
        ("m.tif", {"compression": "jpeg"}, "TIFF with compression jpeg"),
    ],
)
@pytest.mark.parametrize("colored", [False, True])
def test_a_mask_saved_with_loss_is_refused_and_an_image_is_not(
    tmp_path: Path, name: str, options: dict[str, object], said: str, colored: bool
) -> None:
    mask = Image.fromarray(np.array(COLORS, np.uint8)[MASK] if colored else MASK)
    path = saved(tmp_path / name, mask, **options)
    with pytest.raises(BadFile, match=f"saved with loss.*as PNG.*{said}"):
        read_mask(path, COLORED)
    assert read_image(path).shape == (9, 14, 3)


@pytest.mark.parametrize("options", [{}, {"exif": tagged(1)}])
def test_a_webp_without_loss_is_a_mask(tmp_path: Path, options: dict[str, object]) -> None:
    mask = Image.fromarray(np.array(COLORS, np.uint8)[MASK])
    path = saved(tmp_path / "m.webp", mask, lossless=True, **options)
    assert np.array_equal(read_mask(path, COLORED), MASK)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "lzma", "zstd"])
def test_a_tiff_without_loss_is_a_mask(tmp_path: Path, compression: str) -> None:
    path = saved(tmp_path / "m.tif", Image.fromarray(MASK), compression=compression)
    assert np.array_equal(read_mask(path, FOUR), MASK)


# --- More than 8 bits

DEEP = np.random.default_rng(2).integers(0, 4096, (9, 14, 4), dtype=np.uint16)


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_picture_of_more_than_eight_bits_is_never_cut(tmp_path: Path, kind: int, channels: int) -> None:
    path = written(tmp_path / "p.png", png(DEEP[..., :channels], 16, kind))
    with pytest.raises(BadFile, match="more than 8 bits a channel"):
        read_image(path)
    if kind:
        with pytest.raises(BadFile, match="mask in colours of more than 8 bits"):
            read_mask(path, FOUR)


def test_a_tiff_of_sixteen_bits_is_never_cut(tmp_path: Path) -> None:
    path = written(tmp_path / "p.tif", deep_tiff(DEEP[..., :3]))
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
    with pytest.raises(BadFile, match="more than 8 bits a channel"):
        read_image(path)
    with pytest.raises(BadFile, match="mask in colours of more than 8 bits"):
        read_mask(path, FOUR)


@pytest.mark.parametrize("mode", ["F", "I", "I;16"])
def test_greys_of_more_than_eight_bits_are_no_picture(tmp_path: Path, mode: str) -> None:
    with pytest.raises(BadFile, match="more than 8 bits a channel"):
        read_image(saved(tmp_path / "p.tif", Image.fromarray(MASK).convert("I").convert(mode)))


def test_masks_of_lab_and_float_and_pictures_of_lab_are_refused(tmp_path: Path) -> None:
    for picture in (Image.new("LAB", (3, 2)), Image.new("F", (3, 2)), Image.new("CMYK", (3, 2))):
        with pytest.raises(BadFile, match="neither an index nor an RGB picture"):
            read_mask(saved(tmp_path / "m.tif", picture), FOUR)
    with pytest.raises(BadFile, match="colours that are not read"):
        read_image(saved(tmp_path / "p.tif", Image.new("LAB", (3, 2))))


# --- Several pages, and other formats


@pytest.mark.parametrize("name", ["p.png", "p.tif", "p.webp"])
def test_a_file_of_several_pages_is_refused(tmp_path: Path, name: str) -> None:
    first, second = Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1].copy())
    path = saved(tmp_path / name, first, save_all=True, append_images=[second])
    for read in (read_image, lambda path: read_mask(path, FOUR)):
        with pytest.raises(BadFile, match=r"several pages or frames.*2 of them"):
            read(path)


def test_a_gif_is_known_whatever_it_is_called(tmp_path: Path) -> None:
    frames = [palette_picture(MASK, COLORS), palette_picture(MASK[::-1].copy(), COLORS)]
    moving = saved(tmp_path / "m.png", frames[0], format="GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(BadFile, match="several pages or frames"):
        read_mask(moving, FOUR)
    assert np.array_equal(read_mask(saved(tmp_path / "n.png", frames[0], format="GIF"), COLORED), MASK)


def test_a_telephones_photograph_of_two_pictures_is_its_first(tmp_path: Path) -> None:
    first, second = Image.fromarray(PICTURE), Image.new("RGB", (5, 5))
    path = saved(tmp_path / "p.jpg", first, format="MPO", save_all=True, append_images=[second])
    with Image.open(path) as picture:
        assert picture.format == "MPO"
    assert read_image(path).shape == (9, 14, 3)


def test_a_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"format that is not read.*PPM"):
        read_image(saved(tmp_path / "p.png", Image.fromarray(PICTURE), format="PPM"))


# --- Transparency


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_transparent_pixels_are_refused_and_opaque_ones_are_not(
    tmp_path: Path, mode: str, suffix: str
) -> None:
    picture = Image.fromarray(np.array(COLORS, np.uint8)[MASK]).convert(mode)
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"p.{suffix}", picture, **options)
    assert np.array_equal(read_image(path), np.array(picture.convert("RGB")))
    if mode == "RGBA":
        assert np.array_equal(read_mask(path, COLORED), MASK)
    picture.putpixel((3, 2), (*picture.getpixel((3, 2))[:-1], 254))  # type: ignore[index]
    picture.save(path, **options)  # type: ignore[arg-type]
    for read in (read_image, lambda path: read_mask(path, COLORED)):
        with pytest.raises(BadFile, match="transparent pixels"):
            read(path)


def test_an_opaque_grey_mask_with_alpha_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", Image.fromarray(MASK).convert("LA"))
    assert np.array_equal(read_mask(path, FOUR), MASK)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (png(MASK, 8, 0, (b"tRNS", b"\0\2")), True),
        (png(MASK, 8, 0, (b"tRNS", b"\0\7")), False),
        (png(MASK, 2, 0, (b"tRNS", b"\0\2")), True),
        (png(MASK % 2, 2, 0, (b"tRNS", b"\0\2")), False),
        (png(MASK % 2, 1, 0, (b"tRNS", b"\0\1")), True),
        (png(MASK, 8, 3, (b"PLTE", bytes(range(12))), (b"tRNS", b"\xff\xff\0")), True),
        (png(MASK % 2, 8, 3, (b"PLTE", bytes(range(12))), (b"tRNS", b"\xff\xff\0")), False),
        (png(MASK, 4, 3, (b"PLTE", bytes(range(12))), (b"tRNS", b"\x80")), True),
    ],
)
def test_a_colour_that_is_declared_transparent_counts_where_it_is_used(
    tmp_path: Path, content: bytes, said: bool
) -> None:
    path = written(tmp_path / "m.png", content)
    for read in (read_image, lambda path: read_mask(path, FOUR)):
        if said:
            with pytest.raises(BadFile, match="transparent pixels"):
                read(path)
        else:
            read(path)


def test_a_transparent_colour_of_an_rgb_picture_counts(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.png", Image.fromarray(PICTURE), transparency=tuple(PICTURE[4, 5].tolist()))
    with pytest.raises(BadFile, match="transparent pixels"):
        read_image(path)
    path = saved(tmp_path / "p.png", Image.fromarray(PICTURE | 1), transparency=(0, 0, 0))
    assert np.array_equal(read_image(path), PICTURE | 1)


# --- Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_the_standard_says(orientation: int) -> None:
    picture = Image.fromarray(MASK)
    picture.getexif()[0x0112] = orientation
    turned = np.array(ImageOps.exif_transpose(picture))
    assert np.array_equal(upright(MASK, orientation), turned)


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.tif", "p.webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_a_picture_is_turned_and_says_how(tmp_path: Path, name: str, orientation: int) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    path = saved(tmp_path / name, Image.fromarray(PICTURE), exif=tagged(orientation), **options)
    plain = read_image(saved(tmp_path / f"plain-{name}", Image.fromarray(PICTURE), **options))
    found = read_picture(path)
    assert found.orientation == orientation == orientation_of(path)
    assert np.array_equal(found.pixels[..., 0], upright(plain[..., 0], orientation))


def test_an_orientation_behind_the_pixels_of_a_png_counts(tmp_path: Path) -> None:
    whole = saved(tmp_path / "m.png", Image.fromarray(MASK), exif=tagged(6)).read_bytes()
    start = whole.index(b"eXIf") - 4
    chunk = whole[start : start + 12 + struct.unpack(">I", whole[start : start + 4])[0]]
    end = whole.index(b"IEND") - 4
    path = written(tmp_path / "m.png", whole[:start] + whole[start + len(chunk) : end] + chunk + whole[end:])
    assert orientation_of(path) == 6
    assert np.array_equal(read_mask(path, FOUR), upright(MASK, 6))


# --- What OpenCV decodes in Pillow's place


def both_decoded(path: Path) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8]]:
    with opened(path, "image") as picture, Image.open(path) as reference:
        return decoded(picture), np.array(reference)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    "options", [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"keep_rgb": True}]
)
@pytest.mark.parametrize("size", [(1, 1), (9, 14), (37, 50), (64, 48)])
@pytest.mark.parametrize("smooth", [False, True])
def test_pixels_of_a_jpeg_are_those_of_pillow(
    tmp_path: Path, size: tuple[int, int], smooth: bool, options: dict[str, object], progressive: bool
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    if smooth:
        pixels = np.sort(pixels, axis=1)
    for quality in (30, 90):
        path = saved(
            tmp_path / "p.jpg", Image.fromarray(pixels), quality=quality, progressive=progressive, **options
        )
        ours, pillows = both_decoded(path)
        assert ours is not None and np.array_equal(ours, pillows) and ours.flags.writeable
        assert np.array_equal(read_image(path), pillows)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_jpeg_in_other_colours_is_converted_as_before(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path / "p.jpg", Image.fromarray(PICTURE).convert(mode))
    with Image.open(path) as picture:
        assert np.array_equal(read_image(path), np.array(picture.convert("RGB")))


def test_indices_of_a_prepared_mask_are_those_of_pillow(tmp_path: Path) -> None:
    for mask in (MASK, np.full((1, 1), 255, np.uint8), np.arange(256, dtype=np.uint8)[None].repeat(3, 0)):
        write_png(tmp_path / "m.png", mask)
        ours, pillows = both_decoded(tmp_path / "m.png")
        assert ours is not None and np.array_equal(ours, pillows) and np.array_equal(mask, pillows)
        assert np.array_equal(read_indices(tmp_path / "m.png"), mask)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_ends_too_soon_is_refused_wherever_it_ends(tmp_path: Path, progressive: bool) -> None:
    whole = saved(tmp_path / "p.jpg", Image.fromarray(PICTURE), progressive=progressive).read_bytes()
    for end in range(0, len(whole) - 1, 7):
        with pytest.raises(BadFile, match="truncated or damaged image"):
            read_image(written(tmp_path / "cut.jpg", whole[:end]))


def test_what_opencv_does_not_decode_is_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(encoded: object, flags: int) -> None:
        raise cv2.error("not enough memory")

    image = saved(tmp_path / "p.jpg", Image.fromarray(PICTURE))
    mask = saved(tmp_path / "m.png", Image.fromarray(MASK))
    before = read_image(image)
    for instead in (fail, lambda encoded, flags: None, lambda encoded, flags: MASK[:5]):
        monkeypatch.setattr(cv2, "imdecode", instead)
        assert np.array_equal(read_image(image), before) and np.array_equal(read_indices(mask), MASK)


# --- What is no file, or too much of one


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [pipe, listener, device, Path.mkdir])
def test_what_is_no_regular_file_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
    path = Path("x.png")
    make(path)
    for read in (read_image, read_indices, lambda path: read_mask(path, FOUR)):
        with pytest.raises(BadFile, match="no regular file"):
            read(path)
    assert Finder(tmp_path, "{name}").find("x") == [tmp_path / "x.png"]
    Image.fromarray(PICTURE).save("x.bmp")
    assert Finder(tmp_path, "{name}").find("x") == [tmp_path / "x.bmp"]


def test_a_file_one_may_not_read_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    saved(tmp_path / "p.png", Image.fromarray(PICTURE))
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(BadFile, match="image that may not be read"):
        read_image(tmp_path / "p.png")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged image"),
        (png(MASK, 8, 0, claimed=(3, 0)), "damaged image"),
        (png(MASK, 8, 0, claimed=(2**16, 2**16)), "too many pixels"),
    ],
)
def test_an_empty_or_forged_file_is_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(BadFile, match=said):
        read_image(written(tmp_path / "p.png", content))


def test_too_many_pixels_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(BadFile, match="image of too many pixels"):
        read_image(saved(tmp_path / "p.png", Image.fromarray(PICTURE)))


# --- Any lossless form


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.uint8]:
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    return draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 255])))


@settings(max_examples=150, deadline=None)
@given(masks(), st.data())
def test_an_index_mask_in_any_lossless_form_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, mask: NDArray[np.uint8], data: st.DataObject
) -> None:
    form = data.draw(st.sampled_from(["grey", "few bits", "sixteen bits", "own palette", "permuted", "rgb"]))
    orientation = data.draw(st.integers(1, 8))
    options: dict[str, object] = {"exif": tagged(orientation)}
    colors = [*COLORS, (224, 224, 192)]
    places = np.where(mask == 255, 4, mask)
    if form == "few bits":
        mask, options = np.where(mask == 255, 0, mask), {}
        bits = data.draw(st.sampled_from([2, 4]))
        picture = Image.open(io.BytesIO(png(mask, bits, 0)))
    elif form == "sixteen bits":
        picture = Image.fromarray(mask.astype(np.uint16))
    elif form == "own palette":
        void = data.draw(st.sampled_from([(0, 0, 0), (224, 224, 192), (1, 2, 3)]))
        picture = palette_picture(mask, [*COLORS, *[(9, 9, 9)] * 251, void])
    elif form == "permuted":
        order = np.array(data.draw(st.permutations(range(5))))
        picture = palette_picture(order[places].astype(np.uint8), [colors[k] for k in np.argsort(order)])
    elif form == "rgb":
        picture = Image.fromarray(np.array(colors, np.uint8)[places])
    else:
        picture = Image.fromarray(mask)
    suffix = "png" if form in ("few bits", "own palette") else data.draw(st.sampled_from(["png", "tif"]))
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    if form == "few bits":
        path.write_bytes(png(mask, bits, 0))
    else:
        picture.save(path, **options)  # type: ignore[arg-type]
    expected = upright(mask, orientation) if options else mask
    assert np.array_equal(read_mask(path, COLORED), expected)
    if form not in ("own palette", "permuted"):
        assert colors_of_indices(path) == {}
