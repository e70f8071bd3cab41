"""HL7 v2 results, as the standard writes them and as senders do."""

import hl7 as oracle
import pytest
from report_maker import STUDY, form, hl7, obx, pdf

from phenotype.ingest.contents import Ignored, Record
from phenotype.ingest.reports.hl7 import read_hl7
from phenotype.ingest.reports.hl7_syntax import Syntax
from phenotype.stage import Refused

HEADER = "MSH|^~\\&|RIS|H|R|H|20200102030405||ORU^R01|1|P|2.5.1"


def one(data: bytes) -> Record:
    (row,) = read_hl7(data).rows
    return row


def text(*lines: str, **options) -> str:
    row = one(hl7(*obx(*lines, **options)))
    assert not row.refusal
    return row.text


def test_where_the_values_stand():
    order = "OBR|1|PL1|FI1|71020^Chest^C|||20200101101500|||||||||||AC1||||20200102111213||CR|C"
    row = one(
        hl7(
            "PID|1||X9^^^B^PI~P1^^^H&1.2&ISO^MR||Doe^Jane^M||19600101|F",
            order,
            *obx("Clear."),
            f"ZDS|{STUDY}^R^Application^DICOM",
        )
    )
    assert row == Record(
        1, accession="AC1", study_uid=STUDY, patient="P1", issuer="H", name="Doe^Jane^M", birth="19600101", sex="F",
        date="2020-01-01", modality="CR", text="Clear.", key="FI1", status="corrected", issued="2020-01-02T11:12:13",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("segments", "accession"),
    [
        (["IPC|A0^H", "OBR|1|A2|A3|x||||||||||||||A18"], "A0"),
        (["OBR|1|A2|A3|x||||||||||||||A18"], "A18"),
        (["OBR|1|A2|A3^RIS|x"], "A3"),
        (["OBR|1|A2||x"], "A2"),
        (["ORC|RE|B2|B3", "OBR|1|||x"], "B3"),
        (["ORC|RE|B2", "OBR|1|||x"], "B2"),
        (["ORC|RE|B2|B3", "OBR|1|A2||x"], "B3"),
        (['OBR|1|""|""|x'], ""),
    ],
)
def test_the_accession_number(segments, accession):
    order = sorted(segments, key=lambda s: s[:3] == "IPC")
    data = "\r".join([HEADER, "PID|1||P1", *order, *obx("Clear.")]).encode()
    row = one(data)
    assert (row.accession, row.refusal) == (accession, "" if accession else "no_key")


@pytest.mark.parametrize(
    ("declared", "observed", "status"),
    [
        ("F", "F", "final"), ("P", "F", "preliminary"), ("R", "", "preliminary"), ("I", "", "preliminary"),
        ("C", "F", "corrected"), ("A", "F", "addendum"), ("X", "F", "cancelled"), ("", "F", "final"),
        ("", "P", "preliminary"),
        ("", "C", "corrected"), ("", "", ""), ("?", "F", ""),
    ],
)  # fmt: skip
def test_statuses(declared, observed, status):
    data = hl7(f"OBR|1|A1|A1|x|||||||||||||||||||||{declared}", *obx("Clear.", status=observed))
    assert one(data).status == status


def test_withdrawn_observations_are_no_text():
    assert one(hl7(*obx("Clear."), *obx("of another patient", status="W"))).text == "Clear."
    gone = one(hl7("OBR|1|A1|A1|x|||||||||||||||||||||", *obx("Clear.", status="X")))
    assert (gone.text, gone.status, gone.refusal) == ("", "cancelled", "no_text")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a\T\b", "a&b"), (r"a\F\b", "a|b"), (r"a\S\b", "a^b"), (r"a\R\b", "a~b"), (r"a\E\b", "a\\b"),
        (r"a\.br\b", "a\nb"), (r"a\.BR\b", "a\nb"), (r"a\.sp\b", "a\nb"), (r"a\.sp2\b", "a\n\nb"),
        (r"a\.sp+1\b", "a\nb"),
        (r"a\.sk3\b", "a   b"), (r"a\.in+4\b", "a    b"), (r"a\.ti-2\b", "a  b"), (r"a\.ce\b", "a\nb"),
        (r"a\.fi\b\.nf\c", "abc"),
        (r"\H\a\N\ b", "a b"), (r"a\X41\b", "aAb"), (r"a\X0D0A\b", "a\nb"), (r"a\X0D\\X0A\b", "a\nb"), (r"\Zxy\a", "a"),
        (r"\C2842\a", "a"), (r"a\b", "a\\b"), (r"C:\temp\F", "C:\\temp\\F"), (r"a\b\F\c", "a\\b|c"),
        (r"a\\F\b", "a\\|b"),
        (r"a\E\.br\E\b", "a\nb"), (r"a\E\T\E\b", r"a\T\b"), (r"a\.sp99999\b", r"a\.sp99999\b"), ("a\\", "a\\"),
        (r"\\", "\\\\"),
        ("a~b", "a\nb"), ("a~~b", "a\n\nb"), ("of ~5 mm", "of ~5 mm"), ("(~5 mm)", "(~5 mm)"), ("a^b&c", "a^b&c"),
        (r"a \X4\ b", r"a \X4\ b"), (r"\.br\a\.br\ ", "a"), (r"a\Xc3a4\b", "aÃ¤b"), ("<b>&lt;</b>", "<b>&lt;</b>"),
    ],
)  # fmt: skip
def test_escapes(written, meant):
    assert text(written) == meant


def test_escapes_of_the_oracle():
    """python-hl7 resolves the escapes of its own where it is asked to."""
    written = r"a\F\b\S\c\T\d\R\e\E\f \X41\ end"
    message = oracle.parse(hl7(*obx(written)).decode().strip())
    assert text(written) == message.unescape(str(message.segment("OBX")[5])).strip()


@pytest.mark.parametrize("signs", ["^~\\&", "@~!&", "#%$*", "^~\\&#", ":;?."])
@pytest.mark.parametrize("field", ["|", "$", "\x01", "¦"])
def test_delimiters(signs, field):
    component, repetition, escape, sub = signs[:4]
    if field in signs:
        pytest.skip("a sign has one meaning")
    segments = [
        f"MSH|{signs}|RIS|H|R|H|20200102030405||ORU{component}R01|1|P|2.5.1|||||UNICODE UTF-8",
        f"PID|1||P1{component}{component}{component}H{sub}9{component}MR{repetition}P2||Doe{component}Jane",
        "OBR|1|A1|A1",
        f"OBX|1|TX|x||a{escape}T{escape}b{escape}F{escape}c||||||F",
    ]
    row = one("\r".join(segments).replace("|", field).encode())
    assert (row.text, row.patient, row.issuer, row.name) == (
        f"a{sub}b{field}c".replace("\x01", ""),
        "P1",
        "H",
        "Doe^Jane",
    )


def test_a_message_without_escape_character():
    header = "MSH|^~|RIS|H|R|H|2020||ORU^R01|1|P|2.3"
    assert one(hl7(*obx("a\\F\\b"), header=header)).text == "a\\F\\b"


TEXT = "Größe normal, kein Erguß."


@pytest.mark.parametrize(
    ("declared", "encoding", "words"),
    [
        ("UNICODE UTF-8", "utf-8", TEXT), ("UTF-8", "utf-8", TEXT), ("8859/1", "latin-1", TEXT),
        ("8859/15", "iso8859-15", TEXT + " €"),
        ("8859/2", "iso8859-2", "Łódź, żółty"), ("8859/5", "iso8859-5", "Лёгкие чистые"),
        ("8859/7", "iso8859-7", "Πνεύμονες"),
        ("8859/9", "iso8859-9", "Akciğer doğal"), ("ISO IR14", "shift_jis", "胸部に異常なし"),
        ("~ISO IR87", "iso2022_jp", "胸部に異常なし"), ("8859/1~ISO IR87", "iso2022_jp", "肺野は清"),
        ("GB 18030-2000", "gb18030", "双肺清晰"),
        ("KS X 1001", "euc_kr", "정상 흉부"), ("BIG-5", "big5", "肺部正常"), ("ASCII", "ascii", "Clear."),
        ("", "ascii", "Clear."),
        ("WINDOWS-1252", "cp1252", TEXT + " „€“"), ("ISO_IR 100", "latin-1", TEXT), ("UNICODE", "utf-8", TEXT),
    ],
)  # fmt: skip
def test_charsets(declared, encoding, words):
    data = hl7(*obx(words), header=f"{HEADER}||||||{declared}", encoding=encoding)
    records = read_hl7(data)
    assert records.rows[0].text == words and " for " not in records.told


@pytest.mark.parametrize(
    ("declared", "encoding", "told"),
    [
        ("8859/1", "utf-8", "utf-8 for iso8859-1"), ("UNICODE UTF-8", "cp1252", "cp1252 for utf-8"),
        ("", "utf-8", "utf-8 for nothing"),
        ("", "cp1252", "cp1252 for nothing"), ("ASCII", "latin-1", "cp1252 for ascii"),
        ("KLINGON", "utf-8", "utf-8 for ascii"),
        ("", "cp850", "cp850 for nothing"), ("", "mac-roman", "mac-roman for nothing"),
    ],
)  # fmt: skip
def test_a_charset_declared_wrongly_is_told(declared, encoding, told):
    records = read_hl7(hl7(*obx(TEXT), header=f"{HEADER}||||||{declared}", encoding=encoding))
    assert records.rows[0].text == TEXT and f"1 messages in {told}" in records.told


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_files_in_wide_characters(encoding):
    message = hl7(*obx(TEXT), header=f"{HEADER}||||||UNICODE UTF-16")
    assert one(message.decode().encode(encoding)).text == TEXT


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r\n", "\n\n"])
@pytest.mark.parametrize(
    "framing",
    ["{0}{1}", "\x0b{0}\x1c\r\x0b{1}\x1c\r", "FHS|^~\\&|x\rBHS|^~\\&|x\r{0}{1}BTS|2\rFTS|1\r", "\r\n {0}\r\n\r\n{1}"],
)
def test_many_messages_in_a_file(end, framing):
    first, second = (hl7(f"OBR|1|{a}|{a}|x", *obx("one", "two")).decode() for a in ("A1", "A2"))
    data = framing.format(first, second).replace("\r\n", "\r").replace("\r", end)
    rows = read_hl7(data.encode()).rows
    assert [(r.number, r.accession, r.text, r.refusal) for r in rows] == [
        (1, "A1", "one\ntwo", ""),
        (2, "A2", "one\ntwo", ""),
    ]


def test_a_line_end_inside_a_field():
    assert text("first\nsecond | with a bar") == "first\nsecond"
    assert one(hl7(*obx("first\n\nMSHA second\r\nOBX third"))).text == "first\n\nMSHA second\nOBX third"


def test_order_of_observations():
    lines = ["OBX|2|TX|x||two||||||F", "OBX|10|TX|x||ten||||||F", "OBX|1|TX|x||one||||||F"]
    assert one(hl7(*lines)).text == "one\ntwo\nten"
    lines = ["OBX|1|TX|&GDT|2|b||||||F", "OBX|1|TX|&IMP|1|c||||||F", "OBX|1|TX|&GDT|1|a||||||F"]
    assert one(hl7(*lines)).text == "FINDINGS: a\nb\nIMPRESSION: c"
    lines = ["OBX|1|TX|x||a||||||F", "OBX|1|TX|x||b||||||F", "OBX||TX|x||c||||||F"]
    assert one(hl7(*lines)).text == "a\nb\nc"  # as they came


def test_sections():
    parts = [*obx("a", code="71020&GDT^X"), *obx("b", code="71020&IMP^X"), *obx("c", code="X&ADT")]
    assert one(hl7(*parts)).text == "FINDINGS: a\nIMPRESSION: b\nADDENDUM: c"
    assert one(hl7(*obx("a", "b", code="X&GDT"))).text == "a\nb"  # one kind of text needs no heading
    assert (
        one(hl7(*obx("Findings: a", code="59776-5^Findings^LN"), *obx("b", code="19005-8^x^LN"))).text
        == "Findings: a\nIMPRESSION: b"
    )
    assert (
        one(hl7(*obx("a", code="1^Fragestellung"), *obx("b", code="2^Beurteilung"))).text
        == "FRAGESTELLUNG: a\nBEURTEILUNG: b"
    )


def test_values_beside_text():
    parts = [
        "OBX|1|TX|x^Report||Nodule.||||||F", "OBX|2|NM|1^Diameter||8.5|mm|||||F",
        "OBX|3|CE|2^Side||24028007^Right^SCT||||||F",
        "OBX|4|DT|3^Compared with||20190203||||||F", "OBX|5|XCN|4^Read by||17^Secret^Doctor||||||F",
        "OBX|6|SN|5^Density||>^100|HU|||||F",
        "OBX|7|RP|6^Picture||\\\\server\\share^x||||||F", f"OBX|8|ST|113014^DICOM Study^DCM||{STUDY}||||||F",
        "NTE|1||a remark",
    ]  # fmt: skip
    row = one(hl7(*parts))
    assert row.text == "Nodule.\nDiameter: 8.5 mm\nSide: Right\nCompared with: 2019-02-03\nDensity: >100 HU\na remark"
    assert row.study_uid == STUDY


def test_notes():
    assert one(hl7("OBR|1|A1|A1|x", "NTE|1||one~two")).text == "one\ntwo"
    assert one(hl7("OBR|1|A1|A1|x", "NTE|1||for the clerk", *obx("Clear."))).text == "Clear."


@pytest.mark.parametrize(
    ("kind", "coding", "data", "expected"),
    [
        ("TEXT^PLAIN", "Base64", form("Clear.")["data"], "Clear."),
        ("TEXT^HTML", "Base64", form("<p>Clear.</p>")["data"], "Clear."),
        ("APPLICATION^PDF", "Base64", form(pdf("Clear chest."))["data"], "Clear chest."),
        ("TEXT^PLAIN", "A", r"a\T\b^c", "a&b^c"),
        ("TEXT^PLAIN", "Hex", "436c656172", "Clear"),
        ("Application^PDF", "Base64", form(pdf(""))["data"], "!no_text_layer"),
        ("TEXT^RTF", "Base64", form("{\\rtf1 Clear.}")["data"], "Clear."),
        ("APPLICATION^PDF", "Base64", "%%%", "!bad_base64"),
        ("APPLICATION^PDF", "Base64", form("no pdf")["data"], "!bad_pdf"),
        ("IM^JPEG", "Base64", form("x")["data"], "!media_type"),
        ("IM", "Base64", "", "!media_type"),
    ],
)  # fmt: skip
def test_attached_documents(kind, coding, data, expected):
    row = one(hl7(f"OBX|1|ED|x||H^{kind}^{coding}^{data}||||||F"))
    assert (f"!{row.refusal}" if row.refusal else row.text) == expected
    if not row.refusal:  # a text beside it counts
        assert one(hl7(f"OBX|1|ED|x||H^{kind}^{coding}^{data}||||||F", "OBX|2|TX|x||Beside.||||||F")).text == "Beside."


def test_several_orders():
    two = hl7("OBR|1|A1|A1|x", *obx("one"), "OBR|2|A2|A2|x", *obx("two"))
    assert [(r.accession, r.text) for r in read_hl7(two).rows] == [("A1", "one"), ("A2", "two")]
    shared = hl7("OBR|1|A1|A1|x", "OBR|2|A2|A2|x", *obx("both"))
    assert [(r.accession, r.text) for r in read_hl7(shared).rows] == [("A1", "both"), ("A2", "both")]
    behind = hl7("OBR|1|A1|A1|x", *obx("both"), "OBR|2|A2|A2|x")
    assert [(r.accession, r.text) for r in read_hl7(behind).rows] == [("A1", "both"), ("A2", "both")]
    parts = hl7("OBR|1|A1|A1|x", *obx("one"), "OBR|2|A1|A1|x", *obx("two"))
    assert [(r.accession, r.text) for r in read_hl7(parts).rows] == [("A1", "one\ntwo")]


def test_a_report_is_never_shared_between_patients():
    lines = [HEADER, "PID|1||P1", "OBR|1|A1|A1|x", "PID|2||P2", "OBR|1|A2|A2|x", *obx("of P2"), f"ZDS|{STUDY}"]
    first, second = read_hl7("\r".join(lines).encode()).rows
    assert (first.patient, first.accession, first.text, first.study_uid, first.refusal) == (
        "P1",
        "A1",
        "",
        "",
        "no_text",
    )
    assert (second.patient, second.accession, second.text, second.study_uid) == ("P2", "A2", "of P2", STUDY)


def test_one_bad_message_spoils_no_other():
    good = hl7(*obx("Clear."))
    broken = b"MSH|^~\\&|no type\rOBX|1|TX|x||secret||||||F\r"
    records = read_hl7(
        good + broken + hl7("OBR|1||", *obx("x")) + hl7("OBR|1|A1|A1|x") + HEADER.encode() + b"\r" + good
    )
    assert [(r.number, r.refusal) for r in records.rows] == [
        (1, ""),
        (2, "bad_message"),
        (3, "no_key"),
        (4, "no_text"),
        (5, "bad_message"),
        (6, ""),
    ]
    assert "secret" not in records.told and "A1" not in records.told and "P1" not in records.told
    junk = read_hl7(b"something else\r" + good)
    assert [r.refusal for r in junk.rows] == ["bad_message", ""]


def test_other_messages():
    other = hl7(header=HEADER.replace("ORU^R01", "ADT^A08"))
    assert [r.text for r in read_hl7(other + hl7(*obx("Clear."))).rows] == ["Clear."]
    with pytest.raises(Ignored) as ignored:
        read_hl7(other)
    assert ignored.value.code == "not_a_report:ADT"
    with pytest.raises(Ignored) as ignored:
        read_hl7(hl7(header=HEADER.replace("ORU^R01", "DOE")))
    assert ignored.value.code == "not_a_report:other"
    with pytest.raises(Refused) as refused:
        read_hl7(b"")
    assert refused.value.code == "bad_message"


def test_values_agree_with_the_oracle():
    """python-hl7 splits the same message into the same parts."""
    data = hl7(*obx(*(f"line {i} \\T\\ more" for i in range(30))), f"ZDS|{STUDY}^R")
    message, row = oracle.parse(data.decode().strip()), one(data)
    lines = [message.unescape(str(segment[5])) for segment in message.segments("OBX")]
    assert row.text == "\n".join(lines).replace("\\T\\", "&")
    assert row.patient == str(message["PID.F3.R1.C1"]) and row.issuer == str(message["PID.F3.R1.C4"])
    assert row.accession == str(message["OBR.F3"]) and row.study_uid == str(message["ZDS.F1.R1.C1"])


def test_escaped_bytes_are_in_the_charset_of_the_message():
    assert one(hl7(*obx(r"Gr\XC3B6\\XC39F\e"), header=f"{HEADER}||||||UNICODE UTF-8")).text == "Größe"
    assert Syntax("|", "^", "~", "\\", "&", "utf-8").plain(r"\XFF\ ") == "ÿ "
