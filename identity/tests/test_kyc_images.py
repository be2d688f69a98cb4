"""What becomes of images: anything may come in, only a JPEG of our own goes on."""

import io
import random
import struct
import time
import zipfile
from threading import Thread

import pytest
from PIL import Image, ImageOps

from identity.domain.ports import ImagesBusy, InvalidImage
from identity.infrastructure import images
from identity.infrastructure.images import LONGEST, PillowCleaner
from identity.tests.images import a_photo, a_png_bomb, a_scan_bomb, a_text_bomb, chunk, with_gps

clean = PillowCleaner().clean


def an_archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("payload.php", "<?php system($_GET['c']); ?>")
    return out.getvalue()


HTML = b"<html><script>alert(document.cookie)</script></html>"
PHP = b"<?php system($_GET['c']); ?>"
PNG, JPEG = a_photo(kind="PNG"), a_photo()
IN_COMMENT = b"\xff\xd8\xff\xfe" + struct.pack(">H", 2 + len(HTML)) + HTML + JPEG[2:]


def darkest(image: Image.Image, at: tuple[int, int]) -> int:
    return min(image.convert("L").crop((*at, at[0] + 4, at[1] + 4)).tobytes())


def brightest(image: Image.Image, at: tuple[int, int]) -> int:
    return max(image.convert("L").crop((*at, at[0] + 4, at[1] + 4)).tobytes())


def opened(raw: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(raw))
    image.load()
    return image


@pytest.mark.parametrize(
    "raw",
    [
        JPEG,
        PNG,
        a_photo(progressive=True),
        a_photo(mode="L"),
        a_photo(mode="CMYK"),
        a_photo(mode="P", kind="PNG"),
        a_photo(mode="RGBA", kind="PNG"),
        a_photo(mode="LA", kind="PNG"),
        a_photo(mode="1", kind="PNG"),
        a_photo(mode="I;16", kind="PNG"),
    ],
)
def test_jpeg_and_png_of_all_kinds_become_a_jpeg_with_the_same_picture(raw):
    cleaned = clean(raw)

    image = opened(cleaned.content)
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (640, 480))
    assert (cleaned.width, cleaned.height) == (640, 480)
    assert brightest(image, (100, 240)) < 30
    assert darkest(image, (540, 240)) > 225


def test_what_is_clear_becomes_white():
    raw = io.BytesIO()
    Image.new("RGBA", (300, 300), (0, 0, 0, 0)).save(raw, "PNG")

    assert darkest(opened(clean(raw.getvalue()).content), (150, 150)) > 250


def test_nothing_but_pixels_is_kept_of_a_photo():
    raw = with_gps()
    assert opened(raw).getexif().get_ifd(0x8825)
    assert raw.count(b"CANARY") >= 4

    content = clean(raw).content

    image = opened(content)
    assert dict(image.getexif()) == {}
    assert dict(image.getexif().get_ifd(0x8825)) == {}
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert b"CANARY" not in content


@pytest.mark.parametrize("orientation", range(10))
def test_a_photo_is_turned_upright_before_what_says_so_is_lost(orientation):
    raw = with_gps(orientation=orientation)
    expected = ImageOps.exif_transpose(opened(raw)).convert("L")

    image = opened(clean(raw).content).convert("L")

    assert image.size == expected.size
    for at in [(30, 30), (image.width - 30, 30), (30, image.height - 30), (image.width - 30, image.height - 30)]:
        assert abs(darkest(image, at) - darkest(expected, at)) < 20


def test_a_photo_whose_exif_nobody_can_read_stays_as_it_is():
    raw = with_gps(orientation=3)
    start = raw.index(b"Exif\0\0") + 6
    broken = raw[:start] + b"\xff" * 40 + raw[start + 40 :]

    assert opened(clean(broken).content).size == (640, 480)


def test_a_phones_two_pictures_in_one_file_are_one_picture():
    out = io.BytesIO()
    first, second = opened(JPEG), Image.new("RGB", (320, 240), "red")
    first.save(out, "MPO", save_all=True, append_images=[second])

    content = clean(out.getvalue()).content

    assert (opened(content).format, opened(content).size) == ("JPEG", (640, 480))
    assert content.count(b"\xff\xd8\xff") == 1


@pytest.mark.parametrize(
    "raw",
    [
        JPEG + HTML,
        JPEG + PHP,
        JPEG + an_archive(),
        JPEG + b"\n%PDF-1.7\n%%EOF",
        IN_COMMENT,
        PNG + an_archive(),
        PNG[:33] + chunk(b"tEXt", b"Comment\0" + PHP) + PNG[33:],
        JPEG + a_photo(kind="GIF"),
    ],
)
def test_a_polyglot_loses_its_other_half(raw):
    content = clean(raw).content

    assert opened(content).size == (640, 480)
    assert not any(part in content for part in (b"<script", b"<?php", b"PK\x03\x04", b"%PDF", b"GIF8"))
    assert not zipfile.is_zipfile(io.BytesIO(content))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        a_photo(kind="GIF"),
        a_photo(kind="BMP"),
        a_photo(kind="TIFF"),
        a_photo(kind="WEBP"),
        b"GIF89a/*\x01\x00\x01\x00*/=1;alert(1)",
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"%PDF-1.7\n1 0 obj\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 300 300\n(/etc/passwd) run\n",
        b"P6 300 300 255\n" + bytes(270_000),
        HTML,
        PHP,
        an_archive(),
    ],
)
def test_what_is_neither_is_refused_whatever_it_is_called(raw):
    with pytest.raises(InvalidImage) as refused:
        clean(raw)
    assert refused.value.code in {"not_an_image", "damaged_image"}


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("raw", [JPEG, PNG, a_photo(progressive=True)])
def test_a_truncated_image_is_refused(raw, part):
    with pytest.raises(InvalidImage):
        clean(raw[: int(len(raw) * part)])


def test_a_bomb_is_refused_by_its_header_at_once():
    bomb = a_png_bomb()
    assert len(bomb) < 10_000
    started = time.monotonic()

    with pytest.raises(InvalidImage) as refused:
        clean(bomb)

    assert refused.value.code in {"too_many_pixels", "not_an_image"}
    assert time.monotonic() - started < 1


def test_just_too_many_pixels_are_told_so():
    with pytest.raises(InvalidImage) as refused:
        clean(a_png_bomb(6000, 5000))
    assert refused.value.code == "too_many_pixels"


def test_a_compressed_text_and_endless_scans_are_refused_before_they_cost_anything():
    text, scans = a_text_bomb(), a_scan_bomb()
    started = time.monotonic()

    for bomb in (text, scans):
        with pytest.raises(InvalidImage):
            clean(bomb)

    assert time.monotonic() - started < 2


@pytest.mark.parametrize("size", [(199, 1000), (1000, 199), (1, 1)])
def test_too_small_to_be_read_is_refused(size):
    with pytest.raises(InvalidImage) as refused:
        clean(a_photo(size))
    assert refused.value.code == "too_few_pixels"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_photo_is_stored_smaller(kind):
    cleaned = clean(a_photo((5000, 4000), kind=kind))

    assert max(cleaned.width, cleaned.height) <= LONGEST
    assert cleaned.width / cleaned.height == pytest.approx(1.25, abs=0.01)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("raw", [JPEG, PNG, with_gps(), a_photo(progressive=True)])
def test_damaged_bytes_anywhere_are_read_or_refused_and_raise_nothing_else(raw):
    chance = random.Random(7)
    for _ in range(150):
        damaged = bytearray(raw)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            clean(bytes(damaged))
        except InvalidImage:
            continue


def test_images_take_turns_and_who_waits_too_long_is_told(monkeypatch):
    monkeypatch.setattr(images, "WAIT_S", 0.05)
    with images._a_turn():
        refusals: list[ImagesBusy] = []

        def ask() -> None:
            try:
                clean(JPEG)
            except ImagesBusy as refused:
                refusals.append(refused)

        other = Thread(target=ask)
        other.start()
        other.join()

    assert [refused.code for refused in refusals] == ["images_busy"]
    assert clean(JPEG).width == 640
