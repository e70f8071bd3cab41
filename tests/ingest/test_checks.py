"""What headers say of modality, body part, view, and text in the pixels, and what they say against it."""

import pytest
from dicom_maker import CR, dicom
from pydicom.dataset import Dataset
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from phenotype.ingest import checks
from phenotype.ingest.checks import body_part_of, burned_in_of, is_lossy, modality_of, view_of
from phenotype.ingest.contents import DicomFile
from phenotype.ingest.dicom import read_header, read_object
from phenotype.ingest.lexicon import table, words
from phenotype.stage import Refused

SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


def part(declared: str, *descriptions: str, code: str = "") -> tuple[str, str]:
    return body_part_of(declared, (code,) if code else (), descriptions)


def view(position: str, *descriptions: str, code: str = "", study: str = "", across: str = "", modality: str = "CR"):
    orientation = (across, "F") if across else ()
    return view_of(modality, position, (code,) if code else (), descriptions, (study,), orientation)


@pytest.mark.parametrize(
    ("sop_class", "declared", "expected"),
    [
        ("CTImageStorage", "CT", ("CT", "header")),
        ("CTImageStorage", "MR", ("CT", "class")),
        ("CTImageStorage", "", ("CT", "class")),
        ("CTImageStorage", " ct", ("CT", "header")),
        ("EnhancedMRImageStorage", "OT", ("MR", "class")),
        ("ComputedRadiographyImageStorage", "DX", ("DX", "header")),
        ("DigitalXRayImageStorageForPresentation", "CR", ("CR", "header")),
        ("DigitalXRayImageStorageForPresentation", "DR", ("DX", "header")),
        ("DigitalMammographyXRayImageStorageForPresentation", "CR", ("MG", "class")),
        ("XRayAngiographicImageStorage", "DSA", ("XA", "header")),
        ("PositronEmissionTomographyImageStorage", "PET", ("PT", "header")),
        ("UltrasoundMultiFrameImageStorageRetired", "US", ("US", "header")),
        ("SecondaryCaptureImageStorage", "CT", ("CT", "secondary")),
        ("MultiFrameTrueColorSecondaryCaptureImageStorage", "US", ("US", "secondary")),
        ("SecondaryCaptureImageStorage", "OT", ("OT", "header")),
        ("SecondaryCaptureImageStorage", "", ("OT", "class")),
        ("1.2.3.4", "MR", ("MR", "header")),
        ("1.2.3.4", "Doe^Jane", ("OT", "class")),
    ],
)
def test_modality_against_class(sop_class, declared, expected):
    assert modality_of(sop_class, declared) == expected


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("CHEST", "CHEST"),
        ("Thorax", "CHEST"),
        ("THORAX_AP", "CHEST"),
        ("Lunge", "CHEST"),
        ("SCHÄDEL", "SKULL"),
        ("Schaedel", "SKULL"),
        ("LWS", "LSPINE"),
        ("L SPINE", "LSPINE"),
        ("Knie li", "KNEE"),
        ("Kniegelenk rechts", "KNEE"),
        ("Handgelenk", "WRIST"),
        ("ABDOMEN&PELVIS", "ABDOMENPELVIS"),
        ("CHEST_TO_PELVIS", ""),
        ("TSPINE", "TSPINE"),
        ("CHESTABDPELVIS", "CHESTABDPELVIS"),
        ("Thorax/Abdomen/Becken", "CHESTABDPELVIS"),
        ("SPINE LUMBAR", "LSPINE"),
        ("Hüfte", "HIP"),
        ("FUSS", "FOOT"),
        ("Doe^Jane", ""),
        ("HEART", "HEART"),
    ],
)
def test_body_parts_in_any_spelling(declared, expected):
    assert part(declared) == ((expected, "header") if expected else ("", ""))


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("Thorax ap", "CHEST"),
        ("Röntgen Thorax p.a. und seitlich", "CHEST"),
        ("Thoraxaufnahme im Liegen", "CHEST"),
        ("CT Abdomen", "ABDOMEN"),
        ("CT Thorax Abdomen KM", "CHESTABDOMEN"),
        ("CT Schädel nativ", "SKULL"),
        ("cCT", "HEAD"),
        ("CCT nativ", "HEAD"),
        ("MRT Oberbauch mit MRCP", "LIVER"),
        ("LWS 2 Ebenen", "LSPINE"),
        ("BWS/LWS", "TLSPINE"),
        ("Knie li", "KNEE"),
        ("Sprunggelenk re. a.p.", "ANKLE"),
        ("MRI Brain w/o contrast", "BRAIN"),
        ("XR CHEST 2 VIEWS", "CHEST"),
        ("Herz/Lunge", "CHEST"),
        ("Head first supine", ""),
        ("localizer feet first", ""),
        ("C-arm", ""),
        ("temporal position", ""),
        ("Mammographie bds.", "BREAST"),
        ("Beckenübersicht", "PELVIS"),
        ("", ""),
    ],
)
def test_body_parts_in_descriptions(description, expected):
    assert part("", description) == ((expected, "description") if expected else ("", ""))


def test_body_part_and_description_agree_or_not():
    assert part("CHEST", "Thorax ap") == ("CHEST", "both")
    assert part("EXTREMITY", "Knie links") == ("KNEE", "both")
    assert part("HEAD", "MRI Brain") == ("BRAIN", "both")
    assert part("BRAIN", "CT Kopf") == ("BRAIN", "both")
    assert part("CHEST", "CT Thorax/Abdomen") == ("CHEST", "both")
    assert part("ABDOMEN", "", "LWS") == ("ABDOMEN", "both")  # one image shows both
    assert part("CHESTABDOMEN", "Thorax") == ("CHESTABDOMEN", "both")
    assert part("WHOLEBODY", "PET Thorax") == ("WHOLEBODY", "both")
    assert part("CHEST", "Knie li") == ("KNEE", "contradicted")
    assert part("HAND", "", "", "CT Abdomen") == ("ABDOMEN", "contradicted")
    assert part("CHEST", "", "t2_tse", "Thorax") == ("CHEST", "both")
    assert part("SKULL", "serie 1", "Schädel") == ("SKULL", "both")
    assert part("CHEST", "Hand und Fuss") == ("CHEST", "contradicted")  # which of the two, nobody knows
    assert part("CHEST", code="T-D4000") == ("ABDOMEN", "header")
    assert part("", code="72696002") == ("KNEE", "header")
    every = [name for name, _ in table(checks._BODY_PARTS) if name != "-"] + [n for n, _ in table(checks._TOGETHER)]
    for one in every:  # every term is known by itself, and every pair has an answer
        assert part(one) == (one, "header")
        assert {part(one, other)[1] for other in every} <= {"both", "contradicted"}
        assert part(one, one) == (one, "both")


def test_views():
    assert view("PA") == ("PA", "header")
    assert view("LL") == view("RL") == view("Lat") == view("LATERAL") == ("LATERAL", "header")
    assert view("LLO") == ("OBLIQUE", "header")
    assert view("Doe^Jane") == ("", "")
    assert view("", "Thorax p.a.") == view("", "Thorax p. a.") == view("", "W034 Chest PA") == ("PA", "description")
    assert view("", "Thorax seitlich") == view("", "seitl.") == view("", "LAT") == ("LATERAL", "description")
    assert view("", "PA and lateral") == ("", "")
    assert view("", code="R-10206") == view("", code="399348003") == ("AP", "code")
    assert view("AP", code="R-10206") == ("AP", "header")
    assert view("PA", "Thorax seitlich") == ("LATERAL", "contradicted")
    assert view("PA", code="399173006") == ("LATERAL", "contradicted")
    assert view("PA", across="A") == ("PA", "contradicted") and view("LL", across="L") == ("LATERAL", "contradicted")
    assert view("PA", across="L") == ("PA", "header") and view("LL", across="P") == ("LATERAL", "header")
    assert view("LL", study="Thorax p.a.") == ("LATERAL", "header")  # the study speaks of its other image
    assert view("", study="Chest PA") == ("PA", "description")
    assert view("PA", modality="CT") == ("", "")
    assert view("MLO", modality="MG") == view("mlo", modality="MG") == ("MLO", "header")
    assert view("", "R CC", modality="MG") == ("CC", "description")
    assert view("CC", code="R-10226", modality="MG") == ("MLO", "contradicted")
    assert view("", "CC", modality="CR") == ("", "")
    assert words("P.A., große Höhle") == ["pa", "grosse", "hoehle"]


def test_text_in_the_pixels():
    def burned(annotation: str = "", kind: str = "CTImageStorage", modality: str = "CT", **more: str) -> str:
        types = tuple(more.get("types", "ORIGINAL PRIMARY AXIAL").split())
        meaning = more.get("meaning", "MONOCHROME2")
        return burned_in_of(annotation, more.get("face", ""), kind, modality, types, meaning)

    assert burned() == "" and burned("YES") == "declared" and burned("NO") == "denied"
    assert burned(face="YES") == burned("NO", face="YES") == "likely"
    assert burned(kind="SecondaryCaptureImageStorage") == "likely"
    assert burned(types="DERIVED SECONDARY SCREEN SAVE") == burned(meaning="RGB") == "likely"
    for modality in ("US", "ES", "XC", "GM", "OT"):
        assert burned(kind="x", modality=modality, meaning="RGB") == "likely"
        assert burned("NO", kind="x", modality=modality) == "denied"


def test_loss():
    assert is_lossy("1.2.840.10008.1.2.4.50", "") and is_lossy("1.2.840.10008.1.2.1", "01")
    assert not is_lossy("1.2.840.10008.1.2.4.70", "") and not is_lossy("1.2.840.10008.1.2.1", "00")
    assert not is_lossy("1.2.840.10008.1.2.4.90", "") and is_lossy("1.2.840.10008.1.2.4.91", "")


def test_the_checks_read_the_header_that_they_are_about():
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399173006", "SCT", "left lateral"
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator = "51185008", "SCT"
    head = read_header(
        dicom(
            SOPClassUID=CR, Modality="CR", ViewCodeSequence=[code], AnatomicRegionSequence=[region], ViewPosition="PA"
        )
    )
    assert (head.view, head.view_basis, head.body_part, head.body_part_basis) == (
        "LATERAL",
        "contradicted",
        "CHEST",
        "header",
    )
    lies = dicom(BodyPartExamined="HAND", StudyDescription="Schädel", SpecificCharacterSet="ISO_IR 100")
    assert (read_header(lies).body_part, read_header(lies).body_part_basis) == ("SKULL", "contradicted")
    screen = read_header(dicom(SOPClassUID=SECONDARY, Modality="CT", LossyImageCompression="01"))
    assert (screen.modality, screen.modality_basis, screen.burned_in, screen.lossy) == (
        "CT",
        "secondary",
        "likely",
        True,
    )
    named = read_header(dicom(BodyPartExamined="JANE", ViewPosition="DOE", Modality="JANE"))
    assert (named.body_part, named.view) == ("", "")  # free text is no code


def test_every_code_is_one_of_the_standard():
    def listed(*groups: int) -> set[str]:
        names = {name for group in groups for name in cid_concepts[group]["SCT"]}
        found = {code for name in names for code in concepts["SCT"].get(name, ())}
        return found | {old for old, new in mapping["SRT"].items() if new in found}

    # outside the two lists: older codes of the trunk, organs, the tibia, and a synonym of postero-anterior
    older = {"51185008", "T-D3000", "113345001", "T-D4000", "12921003", "T-D6000", "12738006", "T-A0100", "15825003"}
    older |= {"T-42000", "10200004", "T-62000", "64033007", "T-71000", "78961009", "T-C3000", "12611008", "T-12740"}
    anatomy = {code for _, codes in table(checks._ANATOMY) for code in codes}
    assert anatomy - listed(4009, 4031) == older
    assert {code for code in older if not code.startswith("T-")} <= {c for by in concepts["SCT"].values() for c in by}
    assert all(mapping["SRT"][code] in anatomy for code in anatomy if code.startswith("T-"))
    assert {code for _, codes in table(checks._VIEW_CODES) for code in codes} - listed(4010, 4014) == {"R-10214"}


def test_real_headers_are_not_contradicted(shared_data):
    found: dict[str, set[str]] = {}
    for path in sorted(p for p in (shared_data / "dicom").rglob("*") if p.is_file()):
        try:
            head = read_object(path.read_bytes())[1]
        except Refused:
            continue
        if isinstance(head, DicomFile):
            found.setdefault(f"{head.body_part_basis}", set()).add(head.body_part)
            assert "contradicted" not in (head.body_part_basis, head.view_basis)
            assert head.modality_basis in ("header", "secondary")
    assert {"WRIST", "LSPINE", "SHOULDER", "ANKLE", "KNEE", "THYROID"} <= found["description"]
    assert {"LEG", "ABDOMEN", "WHOLEBODY"} <= found["both"]
