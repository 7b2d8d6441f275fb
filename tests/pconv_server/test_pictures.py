import io
import struct

import numpy as np
import pytest
from pconv_server import decoding, deep_files
from pconv_server.decoding import ORIENTATION
from pconv_server.deep_files import encode_tiff
from pconv_server.errors import PictureError
from pconv_server.pictures import Photo, read_mask, read_photo, write_photo
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2
from serving import picture

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation=None):
    found = Image.Exif()
    found[0x010F] = "Maker"
    found.get_ifd(0x8769)[0x8827] = 400  # ISO, in the Exif directory
    found.get_ifd(0x8825)[1] = "N"  # GPS
    if orientation:
        found[ORIENTATION] = orientation
    return found


def long_exif():
    found = Image.Exif()
    found[0x010E] = "x" * 70_000
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize(
    ("ending", "dtype"),
    [
        (".png", np.uint8),
        (".png", np.uint16),
        (".tif", np.uint8),
        (".tif", np.uint16),
        (".tif", np.float32),
        (".webp", np.uint8),
    ],
)
def test_lossless_files_keep_everything(tmp_path, ending, dtype, channels, has_alpha):
    if ending == ".webp" and channels == 1:
        pytest.skip("WebP has no gray")
    if ending == ".tif" and dtype != np.uint8 and channels == 1 and has_alpha:
        pytest.skip("OpenCV does not read them; there is a sentence, below")
    pixels = picture(channels=channels, dtype=dtype)
    alpha = picture(channels=1, dtype=dtype, seed=1)[..., 0] if has_alpha else None
    path = tmp_path / f"photo{ending}"
    write_photo(path, Photo(pixels, alpha, ICC, exif(), (300, 300)))
    back = read_photo(path)
    assert back.pixels.dtype == dtype
    assert back.pixels.tobytes() == pixels.tobytes()
    assert (back.alpha is None) == (alpha is None)
    assert alpha is None or back.alpha.tobytes() == alpha.tobytes()
    assert back.icc == ICC
    assert back.exif[0x010F] == "Maker"
    assert back.exif.get_ifd(0x8769)[0x8827] == 400
    assert back.exif.get_ifd(0x8825)[1] == "N"
    if ending != ".webp":
        assert back.dpi == pytest.approx((300, 300), rel=1e-3)
    if dtype != np.float32:  # Pillow has no colours in float
        with Image.open(path) as image:
            image.load()  # it, too, takes it for a good file


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_orientation_is_as_pillow_turns_it(tmp_path, orientation, ending):
    path = tmp_path / f"turned{ending}"
    Image.fromarray(picture(24, 40)).save(path, exif=exif(orientation))
    with Image.open(path) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    photo = read_photo(path)
    assert np.array_equal(photo.pixels, wanted)
    write_photo(tmp_path / "again.png", photo)
    with Image.open(tmp_path / "again.png") as image:
        assert image.getexif().get(ORIENTATION, 1) == 1
        assert image.getexif()[0x010F] == "Maker"


def test_jpeg_keeps_profile_and_exif(tmp_path):
    write_photo(tmp_path / "a.jpg", Photo(picture(), None, ICC, exif(), (72, 72)))
    back = read_photo(tmp_path / "a.jpg")
    assert back.icc == ICC
    assert back.exif.get_ifd(0x8769)[0x8827] == 400


def test_sixteen_bit_files_of_others_are_read_in_full(tmp_path):
    cv2 = pytest.importorskip("cv2")
    pixels = picture(dtype=np.uint16)
    for ending in (".png", ".tif"):  # OpenCV compresses TIFF by LZW
        cv2.imwrite(str(tmp_path / f"a{ending}"), pixels[..., ::-1])
        assert np.array_equal(read_photo(tmp_path / f"a{ending}").pixels, pixels)


def test_palettes_and_bilevel_become_rgb_and_gray(tmp_path):
    Image.fromarray(picture()).quantize(8).save(tmp_path / "p.png")
    assert read_photo(tmp_path / "p.png").pixels.shape == (40, 56, 3)
    Image.fromarray(picture()).convert("1").save(tmp_path / "b.png")
    assert read_photo(tmp_path / "b.png").pixels.shape == (40, 56, 1)


@pytest.mark.parametrize(
    ("name", "photo", "sentence"),
    [
        ("a.jpg", Photo(picture(dtype=np.uint16)), "holds 8 bits"),
        ("a.jpg", Photo(picture(), picture(channels=1)[..., 0]), "holds no transparency"),
        ("a.png", Photo(picture(dtype=np.float32)), "only TIFF holds floating-point"),
        ("a.xyz", Photo(picture()), "unknown ending '.xyz'"),
        ("a.jpg", Photo(picture(1, 65_501)), "holds up to 65500 px a side, it would have 65501 × 1 px"),
        ("a.webp", Photo(picture(16_384, 1)), "holds up to 16383 px a side"),
        ("a.jpg", Photo(picture(), exif=long_exif()), "EXIF data is too long; another format may hold it"),
        ("a.png", Photo(picture(), dpi=(1e9, 1e9)), "cannot write"),
        ("a.png", Photo(picture(dtype=np.uint16), dpi=(1e9, 1e9)), "cannot write"),
    ],
)
def test_a_format_that_would_lose_something_is_refused(tmp_path, name, photo, sentence):
    with pytest.raises(PictureError, match=sentence):
        write_photo(tmp_path / name, photo)
    assert not (tmp_path / name).exists()


def test_bad_files_get_a_sentence(tmp_path):
    with pytest.raises(PictureError, match="there is no picture at"):
        read_photo(tmp_path / "none.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(PictureError, match="cannot read"):
        read_photo(tmp_path / "bad.png")
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:2000])
    with pytest.raises(PictureError, match="cannot read"):
        read_photo(tmp_path / "cut.png")
    write_photo(
        tmp_path / "deep.tif", Photo(picture(channels=1, dtype=np.uint16), picture(channels=1, dtype=np.uint16)[..., 0])
    )
    with pytest.raises(PictureError, match="gray with transparency and 16 bits: save it as RGB"):
        read_photo(tmp_path / "deep.tif")
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "cmyk.tif")
    with pytest.raises(PictureError, match="CMYK: expected gray or RGB"):
        read_photo(tmp_path / "cmyk.tif")


def test_a_mask_is_filled_where_it_is_at_least_half_white(tmp_path):
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", (4, 1)).tolist() == [[False, False, True, True]]
    with pytest.raises(PictureError, match=r"is 4 × 1 px, the picture 1 × 4 px"):
        read_mask(tmp_path / "m.png", (1, 4))


def test_half_of_a_float_mask_is_one_half(tmp_path):
    mask = np.array([[0, 0.4, 0.5, 0.99, 1]], np.float32)[..., None]
    write_photo(tmp_path / "m.tif", Photo(mask))
    assert read_mask(tmp_path / "m.tif", (5, 1)).tolist() == [[False, False, True, True, True]]


def test_a_resolution_that_is_no_number_is_none(tmp_path):
    nothing = IFDRational(0, 0)
    Image.fromarray(picture()).save(tmp_path / "a.tif", tiffinfo={282: nothing, 283: nothing, 296: 2})
    photo = read_photo(tmp_path / "a.tif")
    assert photo.dpi is None
    for ending in (".png", ".tif", ".jpg"):
        write_photo(tmp_path / f"again{ending}", photo)


def test_the_photograph_of_a_camera_s_jpeg_is_its_first_picture(tmp_path):
    first, preview = picture(), picture(20, 28)
    for name, kind in (("a.jpg", "MPO"), ("pages.tif", "TIFF")):
        others = [Image.fromarray(preview)]
        Image.fromarray(first).save(tmp_path / name, kind, save_all=True, append_images=others)
    photo = read_photo(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
        assert np.array_equal(photo.pixels, np.asarray(image))
    with pytest.raises(PictureError, match="has 2 pages or frames"):
        read_photo(tmp_path / "pages.tif")


def with_second_directory(data, kind):
    """A TIFF with one more directory, whose NewSubfileType is `kind`."""
    second = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    second[254] = kind
    end = 10 + 12 * struct.unpack_from("<H", data, 8)[0]
    data += b"\0" * (len(data) % 2)
    return data[:end] + struct.pack("<I", len(data)) + data[end + 4 :] + second.tobytes(len(data))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_second_page_is_refused_and_a_thumbnail_is_not(tmp_path, dtype):
    pixels, path = picture(dtype=dtype), tmp_path / "a.tif"
    path.write_bytes(with_second_directory(encode_tiff(pixels), 1))
    assert np.array_equal(read_photo(path).pixels, pixels)
    path.write_bytes(with_second_directory(encode_tiff(pixels), 0))
    with pytest.raises(PictureError, match="has 2 pages or frames"):
        read_photo(path)


def test_a_format_that_might_be_cut_to_eight_bits_is_refused(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.ppm")
    with pytest.raises(PictureError, match="is PPM: save it as PNG or TIFF"):
        read_photo(tmp_path / "a.ppm")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_too_large_for_one_chunk_or_a_plain_tiff_is_written_in_full(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(deep_files, "_LONGEST_CHUNK", 1000)
    monkeypatch.setattr(deep_files, "_LONGEST_STRIP", 1000)
    photo = Photo(picture(dtype=dtype), None, ICC, exif(), (300, 300))
    write_photo(tmp_path / "a.tif", photo)
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II+\0"
    (tmp_path / "a.png").write_bytes(deep_files.encode_png(photo.pixels.astype(np.uint16)))
    assert (tmp_path / "a.png").read_bytes().count(b"IDAT") > 5
    assert np.array_equal(read_photo(tmp_path / "a.png").pixels, photo.pixels)
    back = read_photo(tmp_path / "a.tif")
    assert back.pixels.dtype == dtype
    assert np.array_equal(back.pixels, photo.pixels)
    assert back.icc == ICC
    assert back.exif.get_ifd(0x8769)[0x8827] == 400
    assert back.dpi == (300, 300)


@pytest.mark.parametrize(
    ("tag", "value", "sentence"),
    [(262, 8, "save it as RGB"), (284, 2, "interleaved"), (338, 1, "unassociated alpha")],
)
def test_deep_tiff_that_would_be_read_wrongly_is_refused(tmp_path, tag, value, sentence):
    write_photo(tmp_path / "a.tif", Photo(picture(dtype=np.uint16), picture(channels=1, dtype=np.uint16)[..., 0]))
    data = bytearray((tmp_path / "a.tif").read_bytes())
    place = data.index(struct.pack("<HHI", 338 if tag == 284 else tag, 3, 1))  # 284 need not be written
    data[place : place + 10] = struct.pack("<HHIH", tag, 3, 1, value)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(PictureError, match=sentence):
        read_photo(tmp_path / "a.tif")


def test_whatever_a_decoder_raises_is_a_sentence(tmp_path, monkeypatch):
    write_photo(tmp_path / "a.tif", Photo(picture(dtype=np.uint16)))
    monkeypatch.setattr(decoding, "_decode_deep", lambda *_: struct.unpack("I", b""))
    with pytest.raises(PictureError, match=r"cannot read .*a\.tif"):
        read_photo(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gray_whose_white_is_zero_is_turned(tmp_path, dtype):
    full = 1 if dtype is np.float32 else np.iinfo(dtype).max
    stored = np.array([[0, full / 4, full]]).astype(dtype)[..., None]
    black_is_zero, white_is_zero = (struct.pack("<HHII", 262, 3, 1, value) for value in (1, 0))
    data = encode_tiff(stored)
    assert black_is_zero in data
    (tmp_path / "a.tif").write_bytes(data.replace(black_is_zero, white_is_zero))
    photo = read_photo(tmp_path / "a.tif")
    assert photo.pixels.dtype == dtype
    assert np.array_equal(photo.pixels, full - stored)
    write_photo(tmp_path / "again.tif", photo)
    assert np.array_equal(read_photo(tmp_path / "again.tif").pixels, photo.pixels)
