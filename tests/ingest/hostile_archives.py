"""Archives that mean harm, or were made by something broken, each with what must become of it.

`CASES` maps a name to the file's suffix, its bytes and the outcomes: how often each reason is given ("read" for members
that are read whole). All are made here, and small.
"""

import bz2
import gzip
import io
import lzma
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from tempfile import gettempdir

MAX_MEMBERS, MAX_BYTES, RATIO = 1000, 64 << 20, 200
BODY = b"a body " * 20
OUTSIDE = f"{gettempdir()}/escaped"

Case = tuple[str, bytes, Counter[str]]


# ---------------------------------------------------------------- how they are made


def make_zip(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with these members, doubled names and all."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(stream, "w", method) as z:
            for name, data in members:
                z.writestr(name, data)
    return stream.getvalue()


def unix_zip(mode: int, target: bytes = b"/etc/passwd") -> bytes:
    """A zip whose one member has a Unix mode."""
    info = zipfile.ZipInfo("entry")
    info.create_system, info.external_attr = 3, mode << 16
    return make_zip((info, target))


def named_zip(name: bytes, data: bytes = BODY, flags: int = 0) -> bytes:
    """A zip whose member is called by these bytes."""
    return raw_zip([(name, data, {"flags": flags})])


def raw_zip(entries: list[tuple[bytes, bytes, dict[str, int]]], comment: bytes = b"", **end: int) -> bytes:
    """A zip written by hand: of each entry and of the end any number can be told wrong."""
    body, directory = bytearray(), bytearray()
    for name, data, told in entries:
        method = told.get("method", 0)
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = deflate.compress(data) + deflate.flush() if method == 8 else data
        flags, crc = told.get("flags", 0), told.get("crc", zlib.crc32(data))
        offset = told.get("offset", len(body))
        if "offset" not in told:
            body += struct.pack(
                "<4s5H3L2H", b"PK\3\4", 20, flags, method, 0, 0, crc, len(packed), len(data), len(name), 0
            )
            body += name + packed
        sizes = told.get("packed", len(packed)), told.get("size", len(data))
        extra = told.get("extra", b"")
        numbers = (len(name), len(extra), 0, 0, 0, 0, offset)
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, flags, method, 0, 0, crc, *sizes, *numbers)
        directory += name + extra
    count = end.get("count", len(entries))
    size, offset = end.get("size", len(directory)), end.get("offset", len(body))
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, size, offset, len(comment))
    return bytes(body + directory + last + comment)


def block(name: bytes, size: int | bytes, kind: bytes = b"0", magic: bytes = b"ustar\x0000", **fields: bytes) -> bytes:
    """A header of a tar."""
    number = size if isinstance(size, bytes) else b"%011o\0" % size
    head = bytearray(512)
    for at, value in ((0, name[:100]), (100, b"0000644\0"), (124, number), (136, b"00000000000\0"), (156, kind)):
        head[at : at + len(value)] = value
    head[157 : 157 + len(fields.get("link", b""))] = fields.get("link", b"")
    head[257:265] = magic
    head[345 : 345 + len(fields.get("prefix", b""))] = fields.get("prefix", b"")
    for at in (482, 504):
        head[at] = fields.get("more", b"\0")[0] if kind in (b"S", b"more") else 0
    head[148:156] = fields.get("sum", b"%06o\0 " % (sum(head) - sum(head[148:156]) + 256))
    return bytes(head)


def member(name: bytes, data: bytes = BODY, kind: bytes = b"0", **fields: bytes) -> bytes:
    """A member of a tar."""
    return block(name, len(data), kind, **fields) + data + bytes(-len(data) % 512)


def pax(*records: tuple[str, str], kind: bytes = b"x") -> bytes:
    """A pax header."""
    return member(b"PaxHeaders/x", b"".join(record(key, value) for key, value in records), kind)


def record(key: str, value: str) -> bytes:
    """A record of a pax header, its length included in its length."""
    text = f" {key}={value}\n".encode()
    size = len(text)
    while len(str(size)) + len(text) != size:
        size = len(str(size)) + len(text)
    return str(size).encode() + text


END = bytes(1024)
GOOD = member(b"good")


# ---------------------------------------------------------------- zips


def zips() -> dict[str, tuple[bytes, dict[str, int]]]:
    """By name: the bytes, and what must become of them."""
    good = (b"good", BODY, {})
    large = bytes(2 << 20)
    sound = make_zip(("a", BODY), ("b", BODY * 2))
    wrong_crc = bytearray(make_zip(("a", BODY), ("b", BODY * 2), method=zipfile.ZIP_STORED))
    wrong_crc[wrong_crc.index(BODY) + 3] ^= 1
    far = struct.pack("<HHQQQ", 1, 24, 1 << 62, 1 << 62, 1 << 62)
    unknown = {"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF, "offset": 0xFFFFFFFF}
    nested = make_zip(*((f"{i}.zip", sound) for i in range(3)))
    overlapping = raw_zip(
        [(b"%04d" % i, bytes(9000) + b"x", {"method": 8} | ({"offset": 0} if i else {})) for i in range(500)]
    )
    read = {"archive": 1, "read": 1}
    return {
        "sound": (sound, {"archive": 1, "read": 2}),
        "sound, stored": (make_zip(("a", BODY), method=zipfile.ZIP_STORED), read),
        "sound, bzip2": (make_zip(("a", BODY), method=zipfile.ZIP_BZIP2), read),
        "sound, lzma": (make_zip(("a", BODY), method=zipfile.ZIP_LZMA), read),
        "after a program": (b"MZ" + bytes(3000) + sound, {"archive": 1, "read": 2}),
        "with a comment": (raw_zip([good], comment=b"PK\5\6" * 3), {"bad_archive": 1}),  # which end is meant?
        "slip": (make_zip(("../../../escaped", BODY)), read),
        "slip with backslashes": (named_zip(b"..\\..\\escaped"), read),
        "slip within": (make_zip(("a/b/../../../../escaped", BODY)), read),
        "absolute": (make_zip((OUTSIDE, BODY)), read),
        "drive letter": (named_zip(b"C:\\escaped"), read),
        "share": (named_zip(b"\\\\server\\share\\escaped"), read),
        "device of Windows": (make_zip(("CON", BODY), ("nul.dcm", BODY)), {"archive": 1, "read": 2}),
        "stream of NTFS": (named_zip(b"a.dcm::$DATA"), read),
        "NUL in the name": (named_zip(b"good.dcm\0.exe"), {"archive": 1, "viewer_file": 1}),
        "no name": (named_zip(b""), read),
        "dots": (make_zip((".", BODY), ("..", BODY)), {"archive": 1, "read": 2}),
        "only folders": (make_zip(("a/", b""), ("a/b/", b"")), {"archive": 1}),
        "folder with content": (raw_zip([(b"folder/", BODY, {})]), {"archive": 1}),
        "name that turns round": (make_zip(("\u202egpj.exe", BODY)), {"archive": 1, "viewer_file": 1}),
        "name in full width": (make_zip(("\uff0e\uff0e\uff0f\uff0e\uff0e\uff0fescaped", BODY)), read),
        "name that is no UTF-8": (named_zip(b"\xff\xfe\xc0\xaf..", flags=0x800), read),
        "overlong slash": (named_zip(b"..\xc0\xaf..\xc0\xafescaped", flags=0x800), read),
        "newline and escapes in the name": (named_zip(b"a\n\x1b[2Jb"), read),
        "name of 60,000": (named_zip(b"n" * 60_000), {"archive": 1, "name_too_long": 1}),
        "the same name twice": (make_zip(("a", BODY), ("a", BODY + b"other")), {"archive": 1, "read": 2}),
        "names that differ by case": (make_zip(("a", BODY), ("A", BODY)), {"archive": 1, "read": 2}),
        "symlink": (unix_zip(0o120777), {"archive": 1, "link": 1}),
        "device": (unix_zip(0o020666), {"archive": 1, "special_file": 1}),
        "pipe": (unix_zip(0o010666), {"archive": 1, "special_file": 1}),
        "socket": (unix_zip(0o140666), {"archive": 1, "special_file": 1}),
        "setuid": (unix_zip(0o104777, BODY), read),
        "encrypted": (raw_zip([(b"a", BODY, {"flags": 1}), good]), {"archive": 1, "encrypted": 1, "read": 1}),
        "strongly encrypted": (raw_zip([(b"a", BODY, {"flags": 0x41})]), {"archive": 1, "encrypted": 1}),
        "method unknown": (raw_zip([(b"a", BODY, {"method": 97})]), {"archive": 1, "zip_method": 1}),
        "method deflate64": (raw_zip([(b"a", BODY, {"method": 9})]), {"archive": 1, "zip_method": 1}),
        "bomb": (make_zip(("bomb", large), ("a", BODY)), {"archive": 1, "archive_ratio": 1, "read": 1}),
        "bomb that says it is small": (
            raw_zip([(b"bomb", large, {"method": 8, "size": 100, "crc": 0}), good]),
            {"archive": 1, "bad_archive_member": 1, "read": 1},
        ),
        "says it is larger": (
            raw_zip([(b"a", BODY, {"method": 8, "size": 1000})]),
            {"archive": 1, "bad_archive_member": 1},
        ),
        "stored, and says it is larger": (
            raw_zip([(b"a", BODY, {"size": 1000})]),
            {"archive": 1, "bad_archive_member": 1},
        ),
        "says it is 3 GiB": (raw_zip([(b"a", BODY, {"method": 8, "size": 3 << 30})]), {"archive_too_large": 1}),
        "more in all than may be": (
            raw_zip([(b"%d" % i, BODY, {"method": 8, "size": 8 << 20}) for i in range(9)]),
            {"archive_too_large": 1},
        ),
        "packed beyond the end": (raw_zip([(b"a", BODY, {"method": 8, "packed": 5000})]), {"archive_overlap": 1}),
        "one body under 500 names": (overlapping, {"archive_overlap": 1}),
        "wrong checksum": (bytes(wrong_crc), {"archive": 1, "bad_archive_member": 1, "read": 1}),
        "broken stream": (
            raw_zip([(b"a", b"\xff" * 50, {"method": 0}), good]).replace(
                b"PK\1\2\x14\0\x14\0\0\0\0\0", b"PK\1\2\x14\0\x14\0\0\0\x08\0", 1
            ),
            {"archive": 1, "bad_archive_member": 1, "read": 1},
        ),
        "offset outside": (
            b"MZ" + bytes(3000) + raw_zip([(b"a", BODY, {"offset": 0xFFFFFF}), good]),
            {"archive": 1, "missing": 1, "read": 1},
        ),
        "offset into another": (raw_zip([good, (b"a", BODY, {"offset": 40})]), {"archive_overlap": 1}),
        "zip64 that lies": (raw_zip([(b"a", BODY, unknown | {"extra": far})]), {"archive_too_large": 1}),
        "zip64 without its field": (raw_zip([(b"a", BODY, unknown)]), {"archive_too_large": 1}),
        "zip64 cut": (raw_zip([(b"a", BODY, unknown | {"extra": far[:12]})]), {"bad_archive": 1}),
        "extra field that loops": (raw_zip([(b"a", BODY, {"extra": bytes(40)})]), read),
        "count that lies": (raw_zip([good], count=60_000), read),
        "directory that lies": (raw_zip([good], size=1 << 30), {"bad_archive": 1}),
        "directory before the file": (raw_zip([good], offset=1 << 30), {"bad_archive": 1}),
        "directory of garbage": (sound.replace(b"PK\1\2", b"PK\7\7"), {"bad_archive": 1}),
        "directory is the body": (raw_zip([good], size=10), {"bad_archive": 1}),
        "empty": (make_zip(), {"archive": 1}),
        "nothing but its end": (b"PK\5\6" + bytes(18), {"archive": 1}),
        "no zip": (b"PK\3\4" + bytes(100), {"bad_archive": 1}),
        "nested": (nested, {"archive": 1, "nested_archive": 3}),
        "nested, under other names": (make_zip(("a.TGZ", sound), ("b.7z", sound)), {"archive": 1, "nested_archive": 2}),
        "too many members": (
            raw_zip([(b"%d" % i, b"x", {}) for i in range(MAX_MEMBERS + 1)]),
            {"archive_too_large": 1},
        ),
        "empty member": (make_zip(("a", b"")), {"archive": 1, "empty": 1}),
    }


# ---------------------------------------------------------------- tars


def tars() -> dict[str, tuple[bytes, dict[str, int]]]:
    """As `zips`."""
    read = {"archive": 1, "read": 1}
    both = {"archive": 1, "read": 2}
    long_name = b"d/" * 2500 + b"x"
    links = member(b"a", b"", b"2", link=b"/etc") + member(b"a/passwd") + member(b"b", b"", b"2", link=b"a")
    sparse = block(b"s", 512, b"S", magic=b"ustar  \0", more=b"\1") + block(b"", 0, b"more", more=b"\0") + bytes(512)
    with_holes = (("GNU.sparse.major", "1"), ("GNU.sparse.realsize", str(1 << 40)))
    digits = b"9" * 11 + b"\0"
    return {
        "sound": (GOOD + member(b"b") + END, both),
        "sound, of 1979": (member(b"v7", magic=bytes(8)) + END, read),
        "slip": (member(b"../../../escaped") + END, read),
        "absolute": (member(OUTSIDE.encode()) + END, read),
        "slip in the prefix": (member(b"escaped", prefix=b"../..") + END, read),
        "slip in a pax name": (pax(("path", "../../escaped")) + GOOD + END, read),
        "slip in a long name": (member(b"././@LongLink", b"../../escaped\0", b"L") + GOOD + END, read),
        "symlink out, then through it": (links + END, {"archive": 1, "read": 1, "link": 2}),
        "hard link": (GOOD + member(b"h", b"", b"1", link=b"/etc/passwd") + END, {"archive": 1, "read": 1, "link": 1}),
        "hard link with a size": (block(b"h", 5000, b"1") + GOOD + END, {"archive": 1, "read": 1, "link": 1}),
        "devices": (member(b"c", b"", b"3") + member(b"b", b"", b"4") + END, {"archive": 1, "special_file": 2}),
        "pipe": (member(b"p", b"", b"6") + GOOD + END, {"archive": 1, "special_file": 1, "read": 1}),
        "unknown kind": (member(b"u", BODY, b"Q") + GOOD + END, {"archive": 1, "special_file": 1, "read": 1}),
        "folder": (member(b"f", b"", b"5") + member(b"g/", b"") + GOOD + END, read),
        "part of a set": (member(b"m", BODY, b"M") + GOOD + END, {"archive": 1, "multi_volume": 1, "read": 1}),
        "sparse": (sparse + GOOD + END, {"archive": 1, "sparse_member": 1, "read": 1}),
        "sparse in pax": (pax(*with_holes) + GOOD + END, {"archive": 1, "sparse_member": 1}),
        "sparse without end": (block(b"s", 0, b"S", more=b"\1") * 3, {"sparse_member": 1, "truncated_archive": 1}),
        "name twice": (GOOD + GOOD + END, both),
        "no name": (member(b"") + END, read),
        "name of NUL": (pax(("path", "a\0b.exe")) + GOOD + END, {"archive": 1, "viewer_file": 1}),
        "name that is no UTF-8": (member(b"\xff\xfe\xc0\xaf") + END, read),
        "name of 5,000": (member(b"L", long_name, b"L") + GOOD + END, {"archive": 1, "name_too_long": 1}),
        "name of 2 MiB": (member(b"L", b"n" * (2 << 20), b"L") + GOOD + END, {"archive_header_too_large": 1}),
        "name of 1 TiB": (block(b"L", b"\x80" + (1 << 40).to_bytes(11, "big"), b"L"), {"archive_header_too_large": 1}),
        "pax bomb": (pax(("comment", "c" * (2 << 20))) + GOOD + END, {"archive_header_too_large": 1}),
        "pax of a million keys": (pax(*((f"k{i}", "") for i in range(60_000))) + GOOD + END, read),
        "many pax headers": (pax(("path", "x")) * 3000 + GOOD + END, read),
        "pax record that lies": (member(b"x", b"99999 path=x\n", b"x") + GOOD + END, {"bad_archive": 1}),
        "pax record of length 0": (member(b"x", b"0 path=x\n", b"x") + GOOD + END, {"bad_archive": 1}),
        "pax record without length": (member(b"x", b"path=x\n" * 9, b"x") + GOOD + END, {"bad_archive": 1}),
        "pax size that lies": (
            pax(("size", str(1 << 60))) + GOOD + END,
            {"truncated_member": 1, "truncated_archive": 1},
        ),
        "pax size that is negative": (pax(("size", "-512")) + GOOD + END, {"bad_archive": 1}),
        "pax size that is huge": (pax(("size", "9" * 500)) + GOOD + END, {"bad_archive": 1}),
        "pax for all": (pax(("path", "../x"), kind=b"g") + GOOD + END, read),
        "size that lies": (block(b"a", 1 << 30) + GOOD + END, {"truncated_member": 1, "truncated_archive": 1}),
        "size that is negative": (block(b"a", b"\xff" * 12) + GOOD + END, {"bad_archive": 1}),
        "size that is no number": (block(b"a", b"zzzzzzzzzzz\0") + GOOD + END, {"bad_archive": 1}),
        "size that is not octal": (block(b"a", digits) + GOOD + END, {"bad_archive": 1}),
        "size of 12 bytes": (
            block(b"a", b"\x80" + b"\x7f" * 11) + END,
            {"truncated_member": 1, "truncated_archive": 1},
        ),
        "checksum that is wrong": (GOOD + block(b"a", 0, sum=b"0000001\0") + END, {"read": 1, "bad_archive": 1}),
        "garbage after a member": (GOOD + b"\x07" * 2048, {"read": 1, "bad_archive": 1}),
        "members after the end": (GOOD + END + member(b"hidden") + END, both),
        "nothing but an end": (END * 10, {"archive": 1}),
        "no end": (GOOD, {"read": 1, "truncated_archive": 1}),
        "nested": (member(b"a.tar", GOOD + END) + member(b"b.zip", BODY) + END, {"archive": 1, "nested_archive": 2}),
        "too many members": (
            b"".join(member(b"%d" % i, b"x") for i in range(MAX_MEMBERS + 5)) + END,
            {"read": MAX_MEMBERS, "archive_too_large": 1},
        ),
        "empty member": (member(b"a", b"") + END, {"archive": 1, "empty": 1}),
    }


# ---------------------------------------------------------------- compressed tars


def compressed() -> dict[str, tuple[str, bytes, dict[str, int]]]:
    """By name: suffix, bytes, and what must become of them."""
    sound = GOOD + member(b"b") + END
    both = {"archive": 1, "read": 2}
    zeros = member(b"zeros", bytes(MAX_BYTES + (1 << 20))) + END
    packed = gzip.compress(sound, mtime=0)
    wrong = bytearray(packed)
    wrong[-6] ^= 1
    huge_dictionary = bytearray(lzma.compress(sound))
    return {
        "gz": (".tar.gz", packed, both),
        "tgz": (".TGZ", packed, both),
        "bz2": (".tar.bz2", bz2.compress(sound), both),
        "xz": (".txz", lzma.compress(sound), both),
        "gz in two members": (".tgz", gzip.compress(sound[:700]) + gzip.compress(sound[700:]), both),
        "xz in two streams": (".txz", lzma.compress(sound[:700]) + bytes(8) + lzma.compress(sound[700:]), both),
        "bz2 under the name of gz": (".tar.gz", bz2.compress(sound), both),
        "tar under the name of gz": (".tar.gz", sound, both),
        "zip under the name of tar": (".tar", make_zip(("a", BODY), ("b", BODY)), both),
        "gz of no tar": (".tgz", gzip.compress(b"a table\n" * 1000), {"archive_format": 1}),
        "gz of a single file": (".gz", gzip.compress(b"a table\n" * 1000), {"read": 1}),
        "single file, cut": (".gz", gzip.compress(b"a table\n" * 1000)[:-9], {"truncated": 1}),
        "single file, bomb": (".gz", gzip.compress(zeros), {"archive_ratio": 1}),
        "gz of gz": (".tar.gz", gzip.compress(packed), {"archive_format": 1}),
        "gz bomb": (".tgz", gzip.compress(zeros), {"archive_ratio": 1}),
        "bz2 bomb": (".tbz", bz2.compress(zeros), {"archive_ratio": 1}),
        "xz bomb": (".txz", lzma.compress(zeros), {"archive_ratio": 1}),
        "gz of a gz bomb": (".tgz", gzip.compress(gzip.compress(zeros)), {"archive_format": 1}),
        "gz with a wrong checksum": (".tgz", bytes(wrong), {"bad_archive": 1}),
        "gz with something after it": (".tgz", packed + b"something", {"bad_archive": 1}),
        "xz broken": (".txz", bytes(huge_dictionary[:40]) + bytes(200), {"bad_archive": 1}),
        "zstandard": (".tar.zst", b"\x28\xb5\x2f\xfd" + bytes(100), {"archive_format": 1}),
        "rar": (".rar", b"Rar!\x1a\x07\x01\0" + bytes(100), {"archive_format": 1}),
        "7z": (".7z", b"7z\xbc\xaf\x27\x1c" + bytes(100), {"archive_format": 1}),
        "nothing in it": (".tgz", gzip.compress(b""), {"archive_format": 1}),
    }


def cases() -> dict[str, Case]:
    """All of them."""
    found: dict[str, Case] = {}
    for kind, made in (("zip", zips()), ("tar", tars())):
        found |= {f"{kind}: {name}": (f".{kind}", data, _counted(told)) for name, (data, told) in made.items()}
    found |= {
        f"compressed: {name}": (suffix, data, _counted(told)) for name, (suffix, data, told) in compressed().items()
    }
    return found


def _counted(told: dict[str, int]) -> Counter[str]:
    return +Counter(told)


CASES: dict[str, Case] = cases()
