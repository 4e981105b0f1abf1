"""What a file becomes: formats, colours, sizes, damages."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sam_jax import checks, errors
from sam_jax.data import pictures
from tests.data import images

GREY = images.pixels(0)[..., 0]
COLOUR = images.pixels(1)


def decoded(image, path, how=None, **options):
    image.save(path, **options)
    return pictures.decode(str(path), how or pictures.How())


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "gif", "jpg"])
def test_every_format_in_grey_and_colour(suffix, tmp_path):
    lossless = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    options = lossless.get(suffix, {})
    # WebP has no grey; JPEG is lossy.
    channels, tolerance = (3 if suffix == "webp" else 1), (4 if suffix == "jpg" else 0)
    found = decoded(Image.fromarray(GREY), tmp_path / f"g.{suffix}", **options)
    assert found.dtype == np.uint8 and found.shape == (4, 4, channels)
    np.testing.assert_allclose(found[..., 0].astype(int), GREY, atol=tolerance)
    found = decoded(Image.fromarray(COLOUR), tmp_path / f"c.{suffix}", **options)
    assert found.shape == (4, 4, 3)
    np.testing.assert_allclose(found.astype(int), COLOUR, atol=5 * tolerance)


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    wide = np.array([[0, 255, 256], [40_000, 65_279, 65_535]], np.uint16)
    found = decoded(Image.fromarray(wide), tmp_path / "a.png")
    np.testing.assert_array_equal(found[..., 0], [[0, 0, 1], [156, 254, 255]])


def test_bits_are_black_and_white(tmp_path):
    found = decoded(Image.fromarray(GREY > 127), tmp_path / "a.png")
    np.testing.assert_array_equal(found[..., 0], np.where(GREY > 127, 255, 0))


def test_cmyk_becomes_rgb(tmp_path):
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = decoded(ink, tmp_path / "a.jpg", quality=100)
    assert found.shape == (8, 8, 3)
    np.testing.assert_allclose(
        found.astype(int), np.full((8, 8, 3), [255, 0, 0]), atol=4
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])  # the palette has colours
def test_what_is_transparent_is_laid_on_white(mode, tmp_path):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 90, 255) if mode == "P" else (0, 0, 0, 255))
    found = decoded(image.convert(mode), tmp_path / "a.png")
    np.testing.assert_array_equal(found[0, :, 0], [255, 0])
    assert found.shape[2] == (1 if mode == "LA" else 3)


def test_half_transparent_is_half_white(tmp_path):
    found = decoded(Image.new("RGBA", (1, 1), (0, 100, 200, 128)), tmp_path / "a.png")
    np.testing.assert_allclose(found[0, 0].astype(int), [127, 177, 227], atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_followed(orientation, tmp_path):
    upright = np.zeros((2, 3), np.uint8)
    upright[0] = 50, 100, 150
    # EXIF: what the first row and column of the file are in the upright picture.
    flips = {2: "h", 3: "hv", 4: "v", 5: "t", 6: "th", 7: "thv", 8: "tv"}
    stored = upright
    for flip in reversed(flips.get(orientation, "")):
        stored = {"h": stored[:, ::-1], "v": stored[::-1], "t": stored.T}[flip]
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoded(Image.fromarray(stored), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(found[..., 0], upright)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_taken(suffix, tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    found = decoded(
        frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:]
    )
    np.testing.assert_allclose(found[0, 0].astype(int), [255, 0, 0], atol=3)


def halves(width, height):
    """Black on the left, white on the right."""
    columns = np.where(np.arange(width) < width // 2, 0, 255).astype(np.uint8)
    return Image.fromarray(np.tile(columns, (height, 1)))


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@given(st.tuples(*2 * [st.integers(1, 40)]), st.integers(1, 20))
@settings(max_examples=15, deadline=None)
def test_every_size_becomes_a_square(tmp_path_factory, resize, sides, size):
    how = pictures.How(image_size=size, resize=resize)
    path = tmp_path_factory.getbasetemp() / "sized.png"
    assert decoded(Image.new("RGB", sides), path, how).shape == (size, size, 3)


def test_the_ways_to_a_square(tmp_path):
    def of(resize, image):
        how = pictures.How(image_size=8, resize=resize)
        return decoded(image, tmp_path / "a.png", how)[..., 0]

    wide = halves(32, 16)
    for resize in ("squash", "crop"):  # both keep the middle in the middle
        found = of(resize, wide)
        assert found[:, 0].max() == 0 and found[:, -1].min() == 255
    found = of("pad", wide)  # 8 x 4, black above and below
    assert found[:2].max() == found[-2:].max() == 0
    assert found[2:6, -1].min() == 255
    quarters = Image.fromarray(np.repeat(np.arange(4, dtype=np.uint8) * 80, 4)[None])
    strip = quarters.resize((16, 8))
    assert set(of("crop", strip)[0]) >= {80, 160} and of("crop", strip).max() < 200
    assert of("squash", strip).max() == 240


def test_a_large_jpeg_is_scaled_as_a_small_one(tmp_path):
    waves = 128 + 100 * np.sin(np.arange(256) * (2 * np.pi / 16))
    image = Image.fromarray(np.tile(waves.astype(np.uint8), (256, 1)))
    how = pictures.How(image_size=64)  # 4 pixels a wave
    found = decoded(image, tmp_path / "a.jpg", how, quality=95)
    exact = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found[..., 0].astype(int), exact, atol=10)
    assert np.ptp(exact) > 80


# ── Damages ──────────────────────────────────────────────────────────────────────────


def damaged(path, content):
    path.write_bytes(content)
    return str(path)


def test_damaged_files_are_named_in_one_sentence(tmp_path):
    noise = Image.fromarray(images.pixels(3, 32))
    whole = {}
    for suffix in ("png", "jpg", "webp", "bmp", "gif"):
        noise.save(tmp_path / f"a.{suffix}")
        whole[suffix] = (tmp_path / f"a.{suffix}").read_bytes()
    contents = [whole[suffix][: len(whole[suffix]) // 2] for suffix in whole]
    contents += [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n", whole["png"][:40]]
    for content in contents:
        path = damaged(tmp_path / "b.png", content)
        with pytest.raises(errors.UserError) as caught:
            pictures.decode(path, pictures.How())
        message = str(caught.value)
        assert message.startswith(f"{path} cannot be read: ") and "\n" not in message
        found = [pictures.attempt(path, pictures.How(skip_broken=True), content)]
        assert "io." not in message + found[0] and " at 0x" not in message + found[0]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_is_an_image_or_one_sentence(tmp_path_factory, data):
    root = tmp_path_factory.getbasetemp()
    suffix = data.draw(st.sampled_from(["png", "jpg", "webp", "bmp", "gif"]))
    exif = {} if suffix in ("bmp", "gif") else {"exif": Image.Exif()}
    Image.fromarray(images.pixels(1, 9)).save(root / f"a.{suffix}", **exif)
    content = bytearray((root / f"a.{suffix}").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = damaged(root / "b.png", content[: data.draw(st.integers(0, len(content)))])
    how = pictures.How(image_size=4, cache_dir="", skip_broken=True)
    found, kept = pictures.read([path], "here", how)
    assert len(found) == len(kept) and found.shape[1:3] in {(4, 4), (0, 0)}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_damaged_exif_data_do_not_matter(suffix, tmp_path):
    image = Image.new("L", (4, 4), 7)
    found = decoded(image, tmp_path / f"a.{suffix}", exif=b"Exif\0\0garbage")
    np.testing.assert_allclose(found, 7, atol=2)


@pytest.mark.parametrize("limit", [15, 7])
def test_a_decompression_bomb_is_refused(limit, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    path = images.write(tmp_path / "a.png", GREY)  # of 16, Pillow warns or raises
    with pytest.raises(errors.UserError, match=r"a\.png cannot be read: .* bomb"):
        pictures.read([str(path)], str(tmp_path), pictures.How(cache_dir=""))
    with warnings.catch_warnings():  # as a stream reads it
        warnings.simplefilter("ignore")
        with pytest.raises(errors.UserError, match=r"a\.png cannot be read: .* bomb"):
            pictures.decode(str(path), pictures.How())


def files(root, *arrays):
    return [str(images.write(root / f"{k}.png", a)) for k, a in enumerate(arrays)]


def test_one_in_colour_makes_all_of_them_colour(tmp_path):
    found, kept = pictures.read(
        files(tmp_path, GREY, COLOUR, GREY), "here", pictures.How(cache_dir="")
    )
    np.testing.assert_array_equal(found[1], COLOUR)
    for index in (0, 2):
        np.testing.assert_array_equal(found[index], np.stack(3 * [GREY], axis=-1))
    np.testing.assert_array_equal(kept, range(3))


def test_broken_files_are_left_out_and_counted(tmp_path, caplog):
    many = files(tmp_path, *(images.pixels(k) for k in range(70)))
    for index in (0, 33, 69):
        damaged(tmp_path / f"{index}.png", b"no image")
    with pytest.raises(errors.UserError, match=r"/0.png cannot be .*skip_broken=True"):
        pictures.read(many, "here", pictures.How(cache_dir=""))
    how = pictures.How(cache_dir=str(tmp_path / "cache"), skip_broken=True)
    for _ in range(2):  # decoded, and from the cache
        found, kept = pictures.read(many, str(tmp_path / "here"), how)
        np.testing.assert_array_equal(kept, np.delete(np.arange(70), [0, 33, 69]))
        for place, index in enumerate(kept):
            np.testing.assert_array_equal(found[place], images.pixels(index))
        (said,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert said.startswith("3 of 70 files of ") and "/0.png" in said
        caplog.clear()
    strict = pictures.How(cache_dir=how.cache_dir)
    with pytest.raises(errors.UserError, match=r"/0.png cannot be .*skip_broken=True"):
        pictures.read(many, str(tmp_path / "here"), strict)


def test_a_file_that_may_not_be_read_is_no_broken_image(tmp_path, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", path)

    refuse.__code__ = refuse.__code__.replace(co_filename="site-packages/PIL/Image.py")
    monkeypatch.setattr(Image, "open", refuse)
    how = pictures.How(skip_broken=True, cache_dir="")
    with pytest.raises(errors.UserError, match=r"0\.png cannot be .* denied"):
        pictures.read(files(tmp_path, GREY), "here", how)


def test_a_mistake_in_the_program_is_no_broken_image(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_as_bytes", lambda image: image.nothing)
    how = pictures.How(skip_broken=True, cache_dir="")
    with pytest.raises(AttributeError):
        pictures.read(files(tmp_path, GREY), "here", how)


def test_images_of_different_sizes_need_a_size(tmp_path):
    pair = files(tmp_path, images.pixels(0, 4), images.pixels(1, 5))
    with pytest.raises(
        errors.UserError, match=r"0\.png 4x4, .*1\.png 5x5.*image_size="
    ):
        pictures.read(pair, "here", pictures.How(cache_dir=""))
    found, _ = pictures.read(pair, "here", pictures.How(image_size=3, cache_dir=""))
    assert found.shape == (2, 3, 3, 3)


def test_images_that_do_not_fit_in_memory(tmp_path, monkeypatch):
    def refuse(*_):
        raise MemoryError

    one = files(tmp_path, COLOUR)
    monkeypatch.setattr(np, "empty", lambda shape, *_: refuse() if shape[0] else COLOUR)
    with pytest.raises(errors.UserError, match="1 images of 4x4 do not fit in memory"):
        pictures.read(one, "here", pictures.How(cache_dir=""))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": 0}, "image_size must be an integer >= 1, got 0"),
        ({"image_size": 5000}, "image_size must be at most 4096, got 5000"),
        ({"resize": "stretch"}, "resize must be one of 'squash', 'crop', 'pad'"),
        ({"resize": "crop"}, "resize=crop needs image_size"),
    ],
)
def test_settings_out_of_range(wrong, message):
    with pytest.raises(checks.BadValue, match=message):
        pictures.How(**wrong).check()


# ── Cache ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def decodings(monkeypatch):
    """The files that are decoded."""
    seen, decode = [], pictures.decode
    monkeypatch.setattr(
        pictures,
        "decode",
        lambda path, *how: (seen.append(path), decode(path, *how))[1],
    )
    return seen


def test_files_are_decoded_once(tmp_path, decodings):
    source, cache = tmp_path / "images", tmp_path / "cache"
    listed = files(source, COLOUR, COLOUR)
    how = pictures.How(cache_dir=str(cache))
    first, _ = pictures.read(listed, str(source), how)
    second, _ = pictures.read(listed, str(source), how)
    np.testing.assert_array_equal(first, second)
    assert len(decodings) == 2
    pictures.read(listed, str(source), pictures.How(image_size=2, cache_dir=str(cache)))
    assert len(decodings) == 4  # another size is another cache
    images.write(source / "1.png", images.pixels(7))
    third, _ = pictures.read(listed, str(source), how)
    assert len(decodings) == 6
    np.testing.assert_array_equal(third[1], images.pixels(7))
    pictures.read(listed[:1], str(source), how)
    assert len(decodings) == 7  # a file less
    assert len(list(cache.iterdir())) == 2  # the newer state replaces the older one
    assert sorted(p.name for p in source.iterdir()) == ["0.png", "1.png"]


def test_a_damaged_cache_is_written_again(tmp_path, decodings):
    listed = files(tmp_path / "images", COLOUR, GREY)
    how = pictures.How(cache_dir=str(tmp_path / "cache"))
    first, _ = pictures.read(listed, str(tmp_path / "images"), how)
    (stored,) = (tmp_path / "cache").iterdir()
    whole = stored.read_bytes()
    bad_bit = bytearray(whole)
    bad_bit[len(whole) // 2] ^= 1
    for times, content in enumerate([b"", whole[:100], bytes(bad_bit)], start=2):
        stored.write_bytes(content)
        again, _ = pictures.read(listed, str(tmp_path / "images"), how)
        np.testing.assert_array_equal(again, first)
        assert len(decodings) == 2 * times, content[:20]
        assert stored.read_bytes()[:2] == b"PK"


def test_a_cache_that_cannot_be_written_is_reported(tmp_path, caplog):
    (tmp_path / "file").touch()
    listed = files(tmp_path / "images", COLOUR)
    for cache_dir, number in itertools.product([str(tmp_path / "file"), ""], [1]):
        caplog.clear()
        found, _ = pictures.read(
            listed, str(tmp_path / "images"), pictures.How(cache_dir=cache_dir)
        )
        assert len(found) == number
        said = [r for r in caplog.records if r.levelname == "WARNING"]
        assert len(said) == bool(cache_dir)


def test_nothing_is_written_among_the_images(tmp_path):
    listed = files(tmp_path / "images", COLOUR)
    inside = pictures.How(cache_dir=str(tmp_path / "images" / "cache"))
    with pytest.raises(errors.UserError, match=r"cache_dir=.* is inside"):
        pictures.read(listed, str(tmp_path / "images"), inside)
