"""What experts drew: out of tables, NIfTI and DICOM SEG, onto images; compared with maps of known agreement."""

import json
from pathlib import Path

import numpy as np
import pytest
from expert_world import accession, boxes, fill, image_id, kind, lesion
from sqlalchemy import select
from typer.testing import CliRunner

from db.session import open_database
from db.tables import Agreement, ExpertRecord, ExpertRegion
from phenotype.cli import app
from phenotype.executors import Refused
from phenotype.linking.expert import Plane, Target, concept_of, lay_box, lay_mask, reader_of, slice_of
from phenotype.linking.expert_masks import LabelMap, lay_labels, nearest_slice, read_mask, read_segmentation

SEG = Path(__file__).parents[2] / "../shared/data/dicom/robyoung_dicom_test_files/liver_expb.dcm"
ORGANS = Path(__file__).parents[2] / "../shared/data/ct_series"
RADIOGRAPH = Target("x", 100, 200, (Plane(None, None, None),))
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
VOLUME = Target("v", 16, 24, tuple(Plane((-10.0, -20.0, 30.0 + 5 * k), AXIAL, (2.0, 1.0)) for k in range(3)))


@pytest.fixture
def place(tmp_path):
    url = f"sqlite:///{tmp_path / 'x.db'}"
    database = open_database(url)
    fill(database)
    yield url, tmp_path, database
    database.close()


def ask(url, *words, code=0):
    ended = CliRunner().invoke(app, ["--db", url, "expert", *map(str, words), "--json"])
    assert ended.exit_code == code, ended.output
    return json.loads(ended.stdout)


def kept(database, table=ExpertRegion):
    with database.reading() as session:
        return list(session.scalars(select(table).order_by(*table.__table__.primary_key)))


# ---------------------------------------------------------------- one thing, laid on an image


def test_boxes_in_pixels_and_in_fractions_are_the_same():
    assert lay_box(RADIOGRAPH, None, (10, 20, 50, 100)).box == lay_box(RADIOGRAPH, 0, (0.1, 0.1, 0.5, 0.5)).box


def test_boxes_are_cut_off_at_the_edge():
    assert lay_box(RADIOGRAPH, None, (-5, 150, 50, 220)).box == (0.0, 0.75, 0.5, 1.0)


@pytest.mark.parametrize(
    ("target", "index", "box", "code", "says"),
    [
        (RADIOGRAPH, None, (50, 20, 10, 100), "empty_box", "top 50, left 20, bottom 10"),
        (RADIOGRAPH, None, (200, 20, 300, 100), "outside", "100 rows and 200 columns"),
        (VOLUME, None, (0, 0, 1, 1), "no_slice", "3 slices: say which"),
        (VOLUME, 3, (0, 0, 1, 1), "slice", "slice 3 of an image that has 3"),
    ],
)
def test_what_cannot_be_laid_names_the_value(target, index, box, code, says):
    with pytest.raises(Refused, match=says) as refused:
        lay_box(target, index, box)
    assert refused.value.code == code


def test_masks_have_the_size_of_the_image_and_their_box():
    mask = np.zeros((100, 200), bool)
    mask[10:30, 50:60] = True
    drawn = lay_mask(RADIOGRAPH, None, mask)
    assert drawn.box == pytest.approx((0.1, 0.25, 0.3, 0.3))
    assert lay_mask(RADIOGRAPH, None, np.zeros((100, 200), bool)) is None
    with pytest.raises(Refused, match="200 x 100, the image 100 x 200"):
        lay_mask(RADIOGRAPH, None, mask.T)


def test_large_masks_are_thinned_and_small_dots_survive():
    large = Target("x", 3000, 2400, (Plane(None, None, None),))
    mask = np.zeros((3000, 2400), bool)
    mask[1501, 601] = True
    drawn = lay_mask(large, None, mask)
    assert drawn.mask.shape == (512, 512)
    assert drawn.mask.sum() == 1


@pytest.mark.parametrize(
    ("name", "label"), [("A", "A"), ("R2", "R2"), ("Reader-12", "Reader-12"), ("expert", "expert")]
)
def test_roles_stay_labels(name, label):
    assert reader_of(name, "p") == label


@pytest.mark.parametrize("name", ["Dr. Wimmelbach", "wimmelbach", "Meier, A.", "", "R2 Meier", "1234567"])
def test_names_become_pseudonyms(name):
    assert reader_of(name, "p") == "p"


def test_concepts_by_id_name_and_code_and_a_hint_for_the_rest():
    known = {"nodule": "nodule", "lung nodule": "nodule", "4711": "nodule"}
    assert concept_of("Lung Nodule", known) == concept_of("whatever", known, "4711") == "nodule"
    with pytest.raises(Refused, match="did you mean 'nodule'") as refused:
        concept_of("nodul", known)
    assert "'nodul'" not in str(refused.value)  # a column that was shifted may hold a name


def test_slices_need_no_name_where_there_is_one():
    assert slice_of(RADIOGRAPH, None) == 0


# ---------------------------------------------------------------- masks


def test_labels_are_laid_by_millimetres_whatever_their_grid():
    # the same box in mm, on a grid that is finer, shifted, and has its slices the other way round
    labels = np.zeros((6, 64, 48), np.int32)  # slices, rows, columns of 2.5, 0.5 and 0.5 mm
    matrix = np.diag([0.5, 0.5, -2.5, 1.0])
    matrix[:3, 3] = (-10.0, -20.0, 42.5)
    z, y, x = np.meshgrid(
        42.5 - 2.5 * np.arange(6), -20 + 0.5 * np.arange(64), -10 + 0.5 * np.arange(48), indexing="ij"
    )
    inside = (z > 33) & (z < 37) & (y >= -12) & (y < -4) & (x >= -5) & (x < 5)
    labels[inside] = 2
    (drawn,) = lay_labels(LabelMap(labels, matrix), VOLUME, 2)
    assert drawn.slice == 1
    assert drawn.box == pytest.approx((4 / 16, 5 / 24, 8 / 16, 15 / 24))
    with pytest.raises(Refused, match="no voxel of the mask lies in the image"):
        lay_labels(LabelMap(labels, matrix + _shift(500)), VOLUME, 2)


def _shift(mm):
    shift = np.zeros((4, 4))
    shift[0, 3] = mm
    return shift


def test_pictures_of_labels(tmp_path):
    from PIL import Image

    picture = np.zeros((100, 200), np.uint8)
    picture[50:, :50] = 255
    Image.fromarray(picture).save(tmp_path / "m.png")
    (drawn,) = lay_labels(read_mask(tmp_path / "m.png"), RADIOGRAPH, None)
    assert drawn.box == (0.5, 0.0, 1.0, 0.25)
    (tmp_path / "n.nii").write_bytes(b"nothing")
    with pytest.raises(Refused, match="no NIfTI"):
        read_mask(tmp_path / "n.nii")


def test_frames_find_the_nearest_slice():
    assert nearest_slice(VOLUME, (0.0, 0.0, 36.0)) == 1
    with pytest.raises(Refused, match="mm beside"):
        nearest_slice(VOLUME, (0.0, 0.0, 90.0))


def test_organs_of_a_real_series_lie_where_their_nifti_says():
    if not ORGANS.is_dir():
        pytest.skip("../shared/data/ct_series is not here")
    import pydicom

    found = read_mask(ORGANS / "organs.nii.gz")
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in (ORGANS / "dicom").iterdir()]
    headers.sort(key=lambda h: h.ImagePositionPatient[2])
    planes = tuple(
        Plane(
            tuple(map(float, h.ImagePositionPatient)),
            tuple(map(float, h.ImageOrientationPatient)),
            tuple(map(float, h.PixelSpacing)),
        )
        for h in headers
    )
    target = Target("ct", int(headers[0].Rows), int(headers[0].Columns), planes)
    drawn = lay_labels(found, target, 5)
    # the NIfTI has its rows the other way round: on the DICOM grid every voxel is found again
    assert sum(int(one.mask.sum()) for one in drawn) == int((found.labels == 5).sum())
    volume = np.zeros((20, 512, 512), bool)
    for one in drawn:
        volume[one.slice] |= one.mask
    np.testing.assert_array_equal(volume, (found.labels == 5)[:, ::-1])


def test_a_real_segmentation_is_read():
    if not SEG.is_file():
        pytest.skip("../shared/data/dicom is not here")
    frames = read_segmentation(SEG)
    assert [(f.number, f.name, f.code) for f in frames] == [(k, "Liver", "T-62000") for k in (1, 2, 3)]
    assert all(f.source and f.series and f.mask.shape == (512, 512) for f in frames)
    assert 30_000 < frames[0].mask.sum() < 40_000


# ---------------------------------------------------------------- files, into the database


def write(path, rows, header="accession,concept,reader,slice,top,left,bottom,right"):
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


def test_a_table_is_taken_in_row_by_row_and_again_without_change(place):
    url, folder, database = place
    table = write(
        folder / "r.csv",
        [
            f"{accession(0)},Nodule,A,,10,20,50,100",
            f"{accession(1)},nodule,Wimmelbach,,0.1,0.1,0.5,0.5",
            f"{accession(2)},nodule,A,,,,,",
            f"{accession(40)},nodule,A,2,0,0,8,12",
            f"{accession(40)},nodule,A,7,0,0,8,12",
            "ACC-FOREIGN,nodule,A,,1,1,5,5",
            f"{accession(3)},gout,A,,1,1,5,5",
            f"{accession(3)},nodule,A,,1,1,five,5",
            f"{accession(3)},nodule,,,1,1,5,5",
        ],
    )
    told = ask(url, "import", table, code=3)
    assert {row["state"]: row["things"] for row in told if row["state"] == "ingested"} == {"ingested": 4}
    reasons = {row["reason"].split(":")[0] for row in told if row["state"] == "quarantined"}
    assert reasons == {"slice", "image", "concept", "number", "reader"}
    regions, records = kept(database), kept(database, ExpertRecord)
    assert len(regions) == 4
    assert len(records) == 9
    assert {r.reader for r in regions} - {"A"} == {next(r.reader for r in regions if r.reader.startswith("reader-"))}
    first = next(r for r in regions if r.image_id == image_id(0))
    assert (first.top, first.left, first.bottom, first.right) == (0.1, 0.1, 0.5, 0.5)
    assert {r.slice for r in regions if r.image_id == image_id(40)} == {2}
    everything = json.dumps([[str(v) for v in vars(r).values()] for r in (*regions, *records)])
    assert "immelbach" not in everything
    assert "FOREIGN" not in everything
    ask(url, "import", table, code=3)
    assert [r.id for r in kept(database)] == [r.id for r in regions]
    assert len(kept(database, ExpertRecord)) == 9


def test_tables_without_what_is_needed_are_refused_and_recorded(place):
    url, folder, database = place
    table = write(folder / "r.csv", ["1,2"], "here,there")
    (row,) = ask(url, "import", table, code=3)
    assert "no column says which image" in row["reason"]
    assert [r.state for r in kept(database, ExpertRecord)] == ["quarantined"]


def test_masks_beside_a_table_and_alone(place):
    import SimpleITK as sitk

    url, folder, database = place
    labels = np.zeros((3, 16, 24), np.uint8)
    labels[1, 4:8, 5:15], labels[2, 0:2, 0:2] = 1, 2
    nifti = sitk.GetImageFromArray(labels)
    nifti.SetSpacing((1.0, 2.0, 5.0))
    nifti.SetOrigin((-10.0, -20.0, 30.0))
    sitk.WriteImage(nifti, str(folder / f"{accession(40)}.nii.gz"))
    alone = ask(url, "import", folder / f"{accession(40)}.nii.gz", "--reader", "B", "--name", "1=nodule", code=3)
    assert [(r["state"], r["regions"]) for r in alone] == [("ingested", 1), ("quarantined", 0)]
    assert "--name 2=CONCEPT" in alone[1]["reason"]
    table = write(folder / "m.csv", [f"9.1,nodule,B,{accession(40)}.nii.gz,1"], "image,concept,reader,mask,label")
    ask(url, "import", table)
    (region,) = kept(database)  # the same region delivered twice is one
    assert (region.slice, region.mask.sum()) == (1, 40)
    assert (region.top, region.left, region.bottom, region.right) == pytest.approx((0.25, 5 / 24, 0.5, 15 / 24))
    outside = write(folder / "o.csv", ["9.1,nodule,B,../x.nii.gz"], "image,concept,reader,mask")
    assert "beside the table" in ask(url, "import", outside, code=3)[0]["reason"]


def test_a_segmentation_finds_its_slices_and_its_concept(place):
    url, folder, database = place
    write_seg(folder / "s.dcm", sources=["9.2", "9.0"], positions=[40.0, 30.0])
    (row,) = ask(url, "import", folder / "s.dcm", "--reader", "A")
    assert (row["state"], row["things"], row["regions"]) == ("ingested", 2, 2)
    assert sorted((r.slice, int(r.mask.sum()), r.concept_id) for r in kept(database)) == [
        (0, 2, "nodule"),
        (2, 1, "nodule"),
    ]
    # without references to objects, the series and the position tell
    write_seg(folder / "t.dcm", sources=["", ""], positions=[40.0, 30.0])
    ask(url, "import", folder / "t.dcm", "--reader", "A")
    assert len(kept(database)) == 2
    (folder / "no.dcm").write_bytes(b"\0" * 200)
    assert "no DICOM" in ask(url, "import", folder / "no.dcm", "--reader", "A", code=3)[0]["reason"]


def write_seg(path, sources, positions):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.pixels import pack_bits
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

    def of(**values):
        data = Dataset()
        for name, value in values.items():
            setattr(data, name, Sequence([value]) if isinstance(value, Dataset) else value)
        return data

    seg = of(SOPClassUID=SegmentationStorage, SOPInstanceUID="7.7", Modality="SEG", Rows=16, Columns=24)
    seg.NumberOfFrames, seg.SegmentationType, seg.SamplesPerPixel = 2, "BINARY", 1
    seg.BitsAllocated = seg.BitsStored = 1
    seg.HighBit = seg.PixelRepresentation = 0
    seg.PhotometricInterpretation = "MONOCHROME2"
    kind_of = of(CodeValue="4711", CodingSchemeDesignator="SCT", CodeMeaning="x")
    seg.SegmentSequence = Sequence([of(SegmentNumber=1, SegmentLabel="?", SegmentedPropertyTypeCodeSequence=kind_of)])
    seg.ReferencedSeriesSequence = Sequence([of(SeriesInstanceUID="1.2.3.40.0")])
    frames = []
    for source, z in zip(sources, positions, strict=True):
        frame = of(SegmentIdentificationSequence=of(ReferencedSegmentNumber=1))
        frame.PlanePositionSequence = Sequence([of(ImagePositionPatient=[-10, -20, z])])
        if source:
            image = of(ReferencedSOPInstanceUID=source, ReferencedSOPClassUID="1.2")
            frame.DerivationImageSequence = Sequence([of(SourceImageSequence=image)])
        frames.append(frame)
    seg.PerFrameFunctionalGroupsSequence = Sequence(frames)
    pixels = np.zeros((2, 16, 24), np.uint8)
    pixels[0, 3, 3] = pixels[1, 4, 4] = pixels[1, 4, 5] = 1
    seg.PixelData = pack_bits(pixels.ravel())
    seg.file_meta = FileMetaDataset()
    seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    seg.file_meta.MediaStorageSOPClassUID, seg.file_meta.MediaStorageSOPInstanceUID = SegmentationStorage, "7.7"
    seg.save_as(path, enforce_file_format=True)


# ---------------------------------------------------------------- compared


def readings(folder, *, careless=()):
    """A draws the lesions as they are; B the same, but that `careless` images have a box in another place."""
    rows = []
    for number in range(40):
        where, concept = lesion(number), ("nodule", "pleural_effusion")[kind(number)]
        for reader in "AB":
            if where is None:
                rows.append(f"{accession(number)},nodule,{reader},,,,,")
                continue
            edges = boxes()[where]
            if reader == "B" and number in careless:
                edges = boxes()[(where + 20) % 64]
            rows.append(f"{accession(number)},{concept},{reader},," + ",".join(f"{edge:.4f}" for edge in edges))
    return write(folder / "r.csv", rows)


def test_agreement_and_contradictions_of_known_readers(place):
    url, folder, database = place
    ask(url, "import", readings(folder, careless=(0, 4, 8)))
    rows = ask(url, "compare")
    found = {(r["finding"], r["reader"], r["against"], r["figure"]): r for r in rows}
    own = found["Nodule", "A", "map", "iou"]
    assert own["value"] >= 0.9  # the threshold comes of other patients: it may cut into one of ten
    assert own["count"] == 10  # of the images 0, 4, 8 ... 36
    assert found["Nodule", "A", "map", "kappa"]["value"] == 1.0
    assert found["Nodule", "B", "map", "pointing"]["value"] == pytest.approx(0.7)
    between = found["Nodule", "A", "B", "iou"]
    assert between["value"] == pytest.approx(0.7)
    assert between["low"] < 0.7 < between["high"]
    assert found["Nodule", "A", "map", "extent_bias"]["value"] == pytest.approx(0, abs=1e-3)
    assert len(kept(database, Agreement)) == len(rows)
    ask(url, "compare")
    assert len(kept(database, Agreement)) == len(rows)
    contradictions = ask(url, "disagreements")
    assert {(r["kind"], r["finding"], r["reader"], r["image"]) for r in contradictions} == {
        ("elsewhere", "Nodule", "B", image_id(number)) for number in (0, 4, 8)
    }
    assert all(r["reported"] == "present" for r in contradictions)


def test_what_one_side_alone_sees_is_listed(place):
    url, folder, _ = place
    rows = [f"{accession(0)},nodule,A,,,,,", f"{accession(1)},nodule,A,,0.1,0.1,0.2,0.2"]
    ask(url, "import", write(folder / "r.csv", rows))
    found = ask(url, "disagreements")
    assert [(r["kind"], r["image"], r["drawn"]) for r in found] == [
        ("map only", image_id(0), 0),
        ("reader only", image_id(1), 1),
    ]
    assert [r["reported"] for r in found] == ["present", "absent"]


def test_compare_without_regions_says_what_to_do(place):
    ended = CliRunner().invoke(app, ["--db", place[0], "expert", "compare"])
    assert ended.exit_code == 1
    assert "expert import" in ended.output
