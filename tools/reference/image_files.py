"""Image files of every kind, and what Pillow makes of them: the parts `decode`, `kinds` and `refused` of
data_fixtures.py.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw, ImageOps


def picture(width, height, seed=0):
    """A picture with smooth parts, edges, fine texture and saturated colours."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = x / width, y / height
    planes = [
        0.5 + 0.45 * np.sin(6.3 * (x * rng.uniform(0.5, 2) + y * rng.uniform(-1, 1)) + rng.uniform(0, 6))
        for _ in range(3)
    ]
    rgb = np.stack(planes, axis=-1) * 255 + rng.normal(0, 6, (height, width, 3))
    image = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        r = rng.uniform(0.05, 0.2) * min(width, height)
        draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image


def expected_rgb(image):
    """Pillow's RGB, but 16-bit grey by its high byte: Pillow clips at 255."""
    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return Image.fromarray(np.repeat(grey[..., None], 3, axis=-1))
    return image.convert("RGB")


def save_png(image, path):
    image.save(path, optimize=True)


def png16(array, colour_type, path):
    """Pillow writes no 16-bit RGB; a PNG of one IDAT is little work."""
    height, width = array.shape[:2]
    rows = array.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    )


def interlaced_png(image, path):
    """An RGB PNG with Adam7 interlacing, which Pillow reads and does not write."""
    array = np.asarray(image)
    height, width = array.shape[:2]
    raw = b""
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        for row in array[y0::dy, x0::dx]:
            if len(row):
                raw += b"\0" + row.tobytes()

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    )


def ycck_jpeg(image, path):
    """The CMYK JPEG with the samples of a YCCK one: the Adobe marker's transform says 2, not 0.

    The colours are not those of `image`; that they are decoded alike is what counts.
    """
    buffer = io.BytesIO()
    image.convert("CMYK").save(buffer, "JPEG", quality=90)
    data = bytearray(buffer.getvalue())
    at = data.index(b"Adobe")
    data[at + 11] = 2
    path.write_bytes(bytes(data))


def decode_fixtures(out):
    base = picture(61, 47)
    alpha = Image.fromarray((np.mgrid[0:47, 0:61][1] * 4).astype(np.uint8))
    rgba = base.copy()
    rgba.putalpha(alpha)
    la = base.convert("LA")
    la.putalpha(alpha)
    rng = np.random.default_rng(1)
    wide = rng.integers(0, 65536, (19, 23, 4))

    base.save(out / "rgb_444.jpg", quality=92, subsampling=0)
    base.save(out / "rgb_422.jpg", quality=92, subsampling=1)
    base.save(out / "rgb_420.jpg", quality=92, subsampling=2)
    base.save(out / "progressive.jpg", quality=92, progressive=True)
    base.save(out / "restart.jpg", quality=92, restart_marker_rows=1)
    base.convert("L").save(out / "grey.jpg", quality=92)
    base.convert("CMYK").save(out / "cmyk.jpg", quality=92)
    ycck_jpeg(base, out / "ycck.jpg")
    small = picture(40, 24, seed=2)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        small.save(out / f"exif_{orientation}.jpg", quality=92, subsampling=0, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 6
    small.save(out / "exif_6.png", exif=exif)
    small.save(out / "exif_6.webp", exif=exif, lossless=True)
    small.save(out / "exif_6.tiff", tiffinfo={0x0112: 6})

    base.save(out / "rgb.png")
    rgba.save(out / "rgba.png")
    la.save(out / "grey_alpha.png")
    base.convert("L").save(out / "grey.png")
    base.convert("1").save(out / "one_bit.png")
    interlaced_png(base, out / "interlaced.png")
    palette = base.quantize(32)
    palette.save(out / "palette.png")
    palette.save(out / "palette_transparency.png", transparency=3)
    base.quantize(4).save(out / "palette_2_bits.png", bits=2)
    png16(wide[..., :1], 0, out / "grey_16.png")
    png16(wide[..., :2], 4, out / "grey_alpha_16.png")
    png16(wide[..., :3], 2, out / "rgb_16.png")
    png16(wide, 6, out / "rgba_16.png")

    frames = [picture(61, 47, seed=s).quantize(64) for s in (0, 5, 6)]
    frames[0].save(out / "animated.gif", save_all=True, append_images=frames[1:], duration=50)
    palette.save(out / "transparent.gif", transparency=5)
    base.save(out / "rgb.bmp")
    palette.save(out / "palette.bmp")
    base.convert("1").save(out / "one_bit.bmp")
    base.save(out / "lossless.webp", lossless=True)
    base.save(out / "lossy.webp", quality=90)
    rgba.save(out / "lossy_alpha.webp", quality=90)
    base.save(out / "rgb.tiff")
    base.save(out / "lzw.tiff", compression="tiff_lzw")
    base.save(out / "deflate.tiff", compression="tiff_adobe_deflate")
    base.convert("L").save(out / "grey.tiff", compression="tiff_lzw")
    base.convert("CMYK").save(out / "cmyk.tiff", compression="tiff_lzw")
    base.convert("1").save(out / "fax.tiff", compression="group4")

    for path in sorted(out.iterdir()):
        with Image.open(path) as image:
            save_png(expected_rgb(image), out / f"{path.name}.expected.png")


SHORT, LONG, RATIONAL = 3, 4, 5


def tiff(width, height, chunks, tags, order="<", tiles=None):
    """A TIFF of these strips or tiles. A value of `tags` is a number, a list, or a kind and a list."""
    entries = {256: width, 257: height, 259: 1, 277: 1, **tags}
    data = b"II*\0" if order == "<" else b"MM\0*"
    data += struct.pack(order + "I", 0)
    offsets = []
    for chunk in chunks:
        offsets.append(len(data))
        data += chunk + b"\0" * (len(chunk) % 2)
    lengths = [len(chunk) for chunk in chunks]
    if tiles:
        entries |= {322: tiles[0], 323: tiles[1], 324: (LONG, offsets), 325: (LONG, lengths)}
    else:
        entries |= {273: (LONG, offsets), 279: (LONG, lengths)}
    directory = b""
    for tag, value in sorted(entries.items()):
        if value is None:
            continue
        if not isinstance(value, tuple):
            value = (SHORT, value if isinstance(value, list) else [value])
        kind, numbers = value
        letter = {1: "B", SHORT: "H", LONG: "I", RATIONAL: "I"}[kind]
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        count = len(numbers) // (2 if kind == RATIONAL else 1)
        if len(packed) > 4:
            packed, at = struct.pack(order + "I", len(data)), packed
            data += at + b"\0" * (len(at) % 2)
        directory += struct.pack(order + "HHI", tag, kind, count) + packed.ljust(4, b"\0")
    start = struct.pack(order + "I", len(data))
    count = struct.pack(order + "H", len(directory) // 12)
    return data[:4] + start + data[8:] + count + directory + b"\0" * 4


def packed_bits(levels, bits):
    """Rows of small numbers, the highest bits of a byte first."""
    rows = b""
    for row in levels:
        text = "".join(f"{level:0{bits}b}" for level in row)
        text += "0" * (-len(text) % 8)
        rows += bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    return rows


def differences(samples):
    """Predictor 2: each sample less that of the pixel before."""
    samples = samples.astype(int)
    samples[:, 1:] -= samples[:, :-1].copy()
    return samples.astype(np.uint8)


def reversed_bits(data):
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)


def exif_block(number, order=">", kind=SHORT, prefix=b""):
    head = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + ("HH" if kind == SHORT else "I"), *([number, 0] if kind == SHORT else [number]))
    entry = struct.pack(order + "HHI", 0x0112, kind, 1) + value
    return prefix + head + struct.pack(order + "IH", 8, 1) + entry + b"\0" * 4


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(image, chunk, behind=False):
    """A PNG with one more chunk in front of the pixels or behind them."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = buffer.getvalue()
    at = data.index(b"IEND" if behind else b"IDAT") - 4
    return data[:at] + chunk + data[at:]


def jpeg_with(image, segment):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    data = buffer.getvalue()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def webp_with(image, name, data):
    """A lossless WebP with a header that announces the chunk, and the chunk."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True)
    pixels = buffer.getvalue()[12:]
    width, height = image.size
    flags = {b"EXIF": 8, b"XMP ": 4}[name]
    header = struct.pack("<II", flags, width - 1)[:7] + struct.pack("<I", height - 1)[:3]

    def chunk(name, data):
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    body = b"WEBP" + chunk(b"VP8X", header) + pixels + chunk(name, data)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(canvas, palette, frames, background=0, bits=4):
    """A GIF of frames: left, top, indices, transparent index or None, own palette or None, interlaced."""

    def table(colours):
        return b"".join(bytes(colour) for colour in colours).ljust(3 << bits, b"\0")

    data = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80 | bits - 1 if palette else 0, background, 0)
    if palette:
        data += table(palette)
    for left, top, indices, transparent, own, interlaced in frames:
        if transparent is not None:
            data += b"!\xf9\4" + struct.pack("<BHB", 1, 0, transparent) + b"\0"
        height, width = indices.shape
        flags = (0x80 | bits - 1 if own else 0) | (0x40 if interlaced else 0)
        data += b"," + struct.pack("<HHHHB", left, top, width, height, flags)
        if own:
            data += table(own)
        if interlaced:
            rows = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
            indices = indices[rows]
        # Codes of one length: the table is cleared before it grows out of it.
        codes = []
        for i, index in enumerate(indices.reshape(-1)):
            if i % (2**bits - 2) == 0:
                codes.append(1 << bits)
            codes.append(int(index))
        codes.append((1 << bits) + 1)
        text = "".join(f"{code:0{bits + 1}b}" for code in reversed(codes))
        text = "0" * (-len(text) % 8) + text
        packed = bytes(int(text[i : i + 8], 2) for i in range(len(text) - 8, -1, -8))
        data += bytes([bits])
        for i in range(0, len(packed), 255):
            data += bytes([len(packed[i : i + 255])]) + packed[i : i + 255]
        data += b"\0"
    return data + b";"


def kinds_fixtures(out):
    width, height = 13, 9
    base = picture(width, height, seed=7)
    rgb = np.asarray(base)
    grey = np.asarray(base.convert("L"))
    alpha = (np.mgrid[0:height, 0:width][1] * 21).astype(np.uint8)
    alpha[0] = 0
    colours = picture(16, 1, seed=8)
    few = np.asarray(base.quantize(16))
    palette = [int(v) * 257 for c in range(3) for v in np.asarray(colours)[0, :, c]]

    def save(name, data):
        (out / name).write_bytes(data)

    def plain(name, samples, tags, **options):
        bits = [samples.dtype.itemsize * 8] * samples.shape[2]
        tags = {258: bits, 277: samples.shape[2], **tags}
        save(name, tiff(width, height, [samples.tobytes()], tags, **options))

    # Palettes and few bits.
    base.quantize(32).save(out / "palette.tiff")
    base.quantize(32).save(out / "palette_lzw.tiff", compression="tiff_lzw")
    save("palette_4.tiff", tiff(width, height, [packed_bits(few, 4)], {258: 4, 262: 3, 320: palette}))
    two = [palette[i * 16 + j] for i in range(3) for j in range(2)]
    save("palette_1.tiff", tiff(width, height, [packed_bits(few % 2, 1)], {258: 1, 262: 3, 320: two}))
    save("grey_2.tiff", tiff(width, height, [packed_bits(grey >> 6, 2)], {258: 2, 262: 1}))
    save("grey_4.tiff", tiff(width, height, [packed_bits(grey >> 4, 4)], {258: 4, 262: 1}, order=">"))
    save("white_is_zero_4.tiff", tiff(width, height, [packed_bits(grey >> 4, 4)], {258: 4, 262: 0}))
    save("white_is_zero.tiff", tiff(width, height, [grey.tobytes()], {258: 8, 262: 0}))
    save("one_bit.tiff", tiff(width, height, [packed_bits(grey >> 7, 1)], {262: 1}))
    save("white_is_zero_1.tiff", tiff(width, height, [packed_bits(grey >> 7, 1)], {262: 0}))
    base.convert("1").save(out / "fax_white_is_zero.tiff", compression="group4", tiffinfo={262: 0})

    # Alpha and other samples behind the colours.
    la = Image.fromarray(np.dstack([grey, alpha]), "LA")
    la.save(out / "grey_alpha.tiff")
    la.save(out / "grey_alpha_lzw.tiff", compression="tiff_lzw")
    with_alpha = np.dstack([rgb, alpha])
    multiplied = (with_alpha[..., :3].astype(int) * alpha[..., None] // 255).astype(np.uint8)
    multiplied = np.dstack([multiplied, alpha])
    plain("alpha.tiff", with_alpha, {262: 2, 338: 2})
    plain("alpha_unnamed.tiff", with_alpha, {262: 2})
    plain("alpha_other.tiff", with_alpha, {262: 2, 338: 0})
    plain("premultiplied.tiff", multiplied, {262: 2, 338: 1})
    plain("premultiplied_and_more.tiff", np.dstack([multiplied, grey]), {262: 2, 338: [1, 0]})
    plain("premultiplied_16.tiff", multiplied.astype("<u2") * 257, {262: 2, 338: 1})
    plain("premultiplied_16_big_endian.tiff", multiplied.astype(">u2") * 256, {262: 2, 338: 1}, order=">")
    plain("palette_alpha.tiff", np.dstack([few, alpha]), {262: 3, 338: 2, 320: [
        palette[c * 16 + min(i, 15)] for c in range(3) for i in range(256)]})  # fmt: skip
    cmyk = np.asarray(base.convert("CMYK"))
    plain("cmyk_extra.tiff", np.dstack([cmyk, alpha]), {262: 5, 338: 0})
    plain("cmyk_16.tiff", cmyk.astype("<u2") * 257, {262: 5})
    plain("rgb_16_big_endian.tiff", rgb.astype(">u2") * 255, {262: 2}, order=">")

    # Order of samples, of bits and of parts.
    planes = [rgb[..., c].tobytes() for c in range(3)]
    save("planar.tiff", tiff(width, height, planes, {258: [8] * 3, 262: 2, 277: 3, 284: 2}))
    packed = [zlib.compress(differences(rgb[..., c : c + 1]).tobytes()) for c in range(3)]
    tags = {258: [8] * 3, 259: 8, 262: 2, 277: 3, 284: 2, 317: 2}
    save("planar_deflate.tiff", tiff(width, height, packed, tags))
    packed = [zlib.compress(differences(np.dstack([rgb, alpha])).tobytes())]
    save("predictor_alpha.tiff", tiff(width, height, packed, {258: [8] * 4, 259: 8, 262: 2, 277: 4, 317: 2, 338: 0}))
    plain("predictor_without_meaning.tiff", rgb, {262: 2, 317: 2})
    rows = [rgb[y : y + 4].tobytes() for y in range(0, height, 4)]
    save("strips.tiff", tiff(width, height, rows, {258: [8] * 3, 262: 2, 277: 3, 278: 4}))
    wide = np.zeros((16, 16, 3), np.uint8)
    wide[:height, :width] = rgb
    tiles = [zlib.compress(wide.tobytes())]
    save("tile.tiff", tiff(width, height, tiles, {258: [8] * 3, 259: 8, 262: 2, 277: 3}, tiles=(16, 16)))
    tiles = [wide[..., c].tobytes() for c in range(3)]
    save("planar_tile.tiff", tiff(width, height, tiles, {258: [8] * 3, 262: 2, 277: 3, 284: 2}, tiles=(16, 16)))
    # Two tiles across and down, of a picture that fills none of them; packed, Pillow reads them in full.
    large = np.asarray(picture(21, 19, seed=12))
    wide = np.zeros((32, 32, 3), np.uint8)
    wide[:19, :21] = large
    quarters = [wide[y : y + 16, x : x + 16, c] for c in range(3) for y in (0, 16) for x in (0, 16)]
    tiles = [zlib.compress(quarter.tobytes()) for quarter in quarters]
    tags = {258: [8] * 3, 259: 8, 262: 2, 277: 3, 284: 2}
    save("planar_tiles.tiff", tiff(21, 19, tiles, tags, tiles=(16, 16)))
    save("fill_order.tiff", tiff(width, height, [reversed_bits(grey.tobytes())], {258: 8, 262: 1, 266: 2}))
    save("fill_order_1.tiff", tiff(width, height, [reversed_bits(packed_bits(grey >> 7, 1))], {262: 0, 266: 2}))
    with Image.open(out / "fax_white_is_zero.tiff") as fax:
        (at,), (length,) = fax.tag_v2[273], fax.tag_v2[279]
    fax = (out / "fax_white_is_zero.tiff").read_bytes()[at : at + length]
    tags = {259: 4, 262: 0, 266: 2}
    save("fill_order_fax.tiff", tiff(width, height, [reversed_bits(fax)], tags))
    base.save(out / "packbits.tiff", compression="packbits")
    base.save(out / "big.tiff", big_tiff=True)
    base.save(out / "pages.tiff", save_all=True, append_images=[picture(5, 7)])

    # JPEG inside, and its colours.
    small = picture(40, 24, seed=2)
    small.save(out / "jpeg.tiff", compression="jpeg", quality=92)
    small.convert("L").save(out / "jpeg_grey.tiff", compression="jpeg", quality=92)
    small.convert("YCbCr").save(out / "jpeg_ycbcr.tiff", compression="jpeg", quality=92)
    base.convert("YCbCr").save(out / "ycbcr.tiff")

    # Orientations, wherever they are kept.
    prefix = b"Exif\0\0"
    plain("exif_long.tiff", rgb, {262: 2, 274: (LONG, [6])}, order=">")
    plain("exif_8.tiff", rgb, {262: 2, 274: 8}, order=">")
    big = picture(24, 17, seed=9)
    raw = prefix + exif_block(6)
    profile = b"Raw profile type exif\0"
    digits = b"\nexif\n%8d\n%s\n" % (len(raw), raw.hex().encode())
    xmp = b'<x><rdf tiff:Orientation="8"/></x>'
    save("exif_behind.png", png_with(big, png_chunk(b"eXIf", exif_block(6)), behind=True))
    save("exif_prefix.png", png_with(base, png_chunk(b"eXIf", exif_block(7, "<", LONG, prefix))))
    save("exif_text.png", png_with(base, png_chunk(b"tEXt", profile + digits)))
    save("exif_packed_text.png", png_with(base, png_chunk(b"zTXt", profile + b"\0" + zlib.compress(digits))))
    save("xmp.png", png_with(base, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)))
    save("exif_prefix.webp", webp_with(base, b"EXIF", exif_block(5, "<", SHORT, prefix)))
    save("exif_long.webp", webp_with(base, b"EXIF", exif_block(8, ">", LONG)))
    save("xmp.webp", webp_with(base, b"XMP ", xmp))
    save("exif_long.jpg", jpeg_with(base, prefix + exif_block(6, "<", LONG)))
    save("exif_twice.jpg", jpeg_with(base, prefix * 2 + exif_block(3)))
    save("xmp.jpg", jpeg_with(base, b"http://ns.adobe.com/xap/1.0/\0" + xmp))

    # First frames that are smaller or larger than their canvas.
    table = [tuple(int(v) for v in colour) for colour in np.asarray(colours)[0]]
    other = table[::-1]
    canvas = (width + 5, height + 4)
    save("offset.gif", gif(canvas, table, [(3, 2, few, None, None, False)], background=6))
    save("offset_transparent.gif", gif(canvas, table, [(3, 2, few, 5, None, False)], background=6))
    save("offset_own_palette.gif", gif(canvas, table, [(1, 4, few, 2, other, True)]))
    save("only_own_palette.gif", gif(canvas, None, [(0, 3, few, None, other, False)]))
    save("below.gif", gif((width, height + 4), table, [(0, 2, few, None, None, False)], background=3))
    save("larger.gif", gif((width - 4, height + 3), table, [(2, 1, few, 4, None, False)]))
    save("second_frame.gif", gif(canvas, table, [
        (2, 2, few, None, None, False), (0, 0, few[:, ::-1].copy(), None, None, False)]))  # fmt: skip
    greys = [(i, i, i) for i in range(16)]
    save("greys.gif", gif(canvas, greys, [(3, 2, few, 7, None, False)]))

    # What Pillow does not read to the end: premultiplied grey, and 16-bit grey whose zero is white.
    for path in sorted(out.iterdir()):
        with Image.open(path) as image:
            save_png(expected_rgb(image), out / f"{path.name}.expected.png")
    plain("premultiplied_grey.tiff", np.dstack([grey // 2, np.maximum(alpha, 128)]), {262: 1, 338: 1})
    with Image.open(out / "premultiplied_grey.tiff") as image:
        save_png(image.convert("LA").convert("RGB"), out / "premultiplied_grey.tiff.expected.png")
    plain("white_is_zero_16.tiff", grey[..., None].astype("<u2") * 257, {262: 0})
    save_png(Image.fromarray(255 - grey).convert("RGB"), out / "white_is_zero_16.tiff.expected.png")


def refused_fixtures(out):
    width, height = 13, 9
    base = picture(width, height, seed=7)
    lines = []

    def save(name, data, reason):
        (out / name).write_bytes(data)
        lines.append(f"{name}\t{reason}")

    def plain(name, reason, tags, samples=3, kind="u1", **options):
        data = np.zeros((height, width, samples), kind).tobytes()
        bits = [np.dtype(kind).itemsize * 8] * samples
        tags = {258: bits, 262: 2, 277: samples, **tags}
        save(name, tiff(width, height, [data], tags, **options), reason)

    def saved(name, reason, image, **options):
        image.save(out / name, **options)
        lines.append(f"{name}\t{reason}")

    plain("signed.tiff", "TIFF with signed 8-bit samples", {262: 1, 339: 2}, samples=1)
    plain("float.tiff", "TIFF with 32-bit floating-point samples", {262: 1, 339: 3}, samples=1, kind="<f4")
    plain("void.tiff", "TIFF with SampleFormat 4", {339: [4, 4, 4]})
    plain("mixed_formats.tiff", "TIFF with samples of different kinds", {339: [1, 2, 1]})
    plain("grey_32.tiff", "1 samples a pixel of 32 bits", {262: 1}, samples=1, kind="<u4")
    plain("mixed_bits.tiff", "TIFF with different bits a sample", {258: [8, 8, 4]})
    plain("rgb_4.tiff", "3 samples a pixel of 4 bits", {258: [4, 4, 4]})
    plain("two_samples.tiff", "2 samples a pixel for 3 colours", {}, samples=2)
    plain("many_samples.tiff", "9 samples a pixel", {}, samples=9)
    plain("mask.tiff", "a transparency mask", {262: 4}, samples=1)
    plain("lab.tiff", "CIE L*a*b* colours", {262: 8})
    plain("raw_photo.tiff", "the data of a raw photo", {262: 32803}, samples=1)
    plain("no_interpretation.tiff", "no PhotometricInterpretation", {262: None})
    plain("other_inks.tiff", "other inks than CMYK", {262: 5, 332: 2}, samples=4)
    plain("five_inks.tiff", "other inks than CMYK", {262: 5, 334: 5}, samples=5)
    plain("premultiplied_cmyk.tiff", "premultiplied alpha", {262: 5, 338: 1}, samples=5)
    plain("fill_order_3.tiff", "FillOrder 3", {266: 3})
    plain("ycbcr_subsampled.tiff", "YCbCr with fewer colours than pixels", {262: 6, 530: [2, 2]})
    plain("ycbcr_other.tiff", "YCbCr of other coefficients", {
        262: 6, 530: [1, 1], 529: (RATIONAL, [2126, 10000, 7152, 10000, 722, 10000])})  # fmt: skip
    plain("palette_16.tiff", "a palette of 16 bits", {262: 3}, samples=1, kind="<u2")
    plain("no_palette.tiff", "a palette of 0 values", {262: 3}, samples=1)
    plain("old_jpeg.tiff", "old-style JPEG compression", {259: 6})
    plain("unknown_compression.tiff", "compression 12345", {259: 12345})
    saved("group_3.tiff", "CCITT group 3 compression", base.convert("1"), compression="group3")
    buffer = io.BytesIO()
    base.save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    tags = {258: [8] * 3, 259: 7, 262: 6, 277: 3}
    save("jpeg_of_another_size.tiff", tiff(width + 1, height, [jpeg], tags), "JPEGs of another size")

    save("truncated.jpg", jpeg[: len(jpeg) // 2], "truncated")
    save("only_a_start.jpg", jpeg[:10], "truncated")
    save("empty.jpg", b"", "the file is empty")
    save("zeros.jpg", b"\0" * 64, 'begins with "\\x00')
    save("text.jpg", b"no picture at all", 'begins with "no picture at al')
    advice = "but an HTML page: the download failed"
    save("page.jpg", b"\n<!DOCTYPE html><html><head><title>404</title></head></html>", advice)
    # A page that is larger than what is looked at first.
    save("long_page.jpg", b"<html><body>" + b"Not Found " * 500 + b"</body></html>", advice)
    ftyp = b"\0\0\0\x1cftyp"
    save("photo_heic.jpg", ftyp + b"heic\0\0\0\0mif1heic", "but a HEIC or HEIF photo: convert it")
    save("photo_avif.jpg", ftyp + b"avif\0\0\0\0avifmif1", "but an AVIF image: convert it")
    save("video.jpg", ftyp + b"isom\0\0\2\0isomiso2", "but an MP4 or QuickTime video")
    save("icon.jpg", b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0", "but an ICO icon")
    save("photoshop.jpg", b"8BPS\0\1" + b"\0" * 20, "but a Photoshop file (PSD)")
    save("document.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "but a PDF document")
    save("jpeg_xl.jpg", b"\xff\x0a\xfa\x1f", "but a JPEG XL image")
    save("jpeg_2000.jpg", b"\0\0\0\x0cjP  \r\n\x87\n", "but a JPEG 2000 image")
    save("drawing.png", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "but an SVG drawing")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    save("pointer.png", pointer, "but a Git LFS pointer to the picture: run `git lfs pull`")
    save("archive.gif", b"PK\3\4\x14\0\0\0", "but a ZIP archive")
    save("double.jpg", b"\0\5\x16\7\0\2\0\0Mac OS X", "but an AppleDouble file")
    (out / "cases.txt").write_text("\n".join(lines) + "\n")
