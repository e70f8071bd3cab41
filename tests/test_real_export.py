"""The whole pipeline on real radiographs and readings, through the command line; personal data planted in both.

None of the planted names, record numbers, dates and phone numbers may be found afterwards in any table but the vault's,
in what the program printed, in a file or on the page.
"""

import base64
import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from sqlalchemy import text
from support import contents

from db.session import open_database
from db.tables import VAULT

STUDIES = 60
STEPS = {"f-anogan": 60, "cae": 80}


@pytest.fixture(scope="module")
def done(shared, tmp_path_factory):
    """The folder after `phenotype run` and `phenotype page` over 60 studies, half of them with tuberculosis."""
    folder = tmp_path_factory.mktemp("real")
    tool = shared / "tools" / "make_pacs_export.py"
    subprocess.run([sys.executable, tool, folder / "all", "--phi"], check=True, capture_output=True)
    with (folder / "all" / "reports.csv").open(encoding="utf-8", newline="") as file:
        reports = list(csv.DictReader(file))
    sick = {row["accession_number"] for row in truth(folder) if row["tuberculosis"] == "1"}
    kept = [r for r in reports if r["accession_number"] in sick][: STUDIES // 2]
    kept += [r for r in reports if r["accession_number"] not in sick][: STUDIES - len(kept)]
    export = folder / "OUT"
    export.mkdir()
    for row in kept:
        shutil.copytree(folder / "all" / "dicom" / row["patient_id"], export / row["patient_id"])
    with (export / "reports.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, reports[0])
        writer.writeheader()
        writer.writerows(kept)
    said = [run(folder, "init", "OUT")]
    pipeline = (folder / "pipeline.toml").read_text(encoding="utf-8")
    for model, steps in STEPS.items():
        pipeline = pipeline.replace(f'model = "{model}"', f'model = "{model}"\nsteps = {steps}')
    (folder / "pipeline.toml").write_text(pipeline.replace('run = "link"', 'run = "link"\nleast = 5'), encoding="utf-8")
    said += [run(folder, *words) for words in (["run", "pipeline.toml"], ["page", "page.html"], ["status"], ["files"])]
    return folder, said


def run(folder, *arguments):
    done = subprocess.run([sys.executable, "-m", "phenotype", *arguments], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout + done.stderr


def truth(folder):
    with (folder / "all.truth" / "truth.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def ask(folder, query):
    asked = subprocess.run(
        [sys.executable, "-m", "phenotype", "sql", query, "--json"], cwd=folder, capture_output=True, check=True
    )
    return json.loads(asked.stdout)


def test_every_stage_has_done_its_work(done):
    folder, _ = done
    counted = {
        "studies": "study_view",
        "images": "image_view",
        "reports": "report_view WHERE match = 'matched'",
        "anomalies": "anomaly_view WHERE model = 'f-anogan-image'",
        "members": "membership_view",
    }
    queries = ", ".join(f"(SELECT count(*) FROM {view}) AS {name}" for name, view in counted.items())
    (counts,) = ask(folder, f"SELECT {queries}, (SELECT count(*) FROM failure_view) AS failures")
    assert counts == dict.fromkeys(counted, STUDIES) | {"failures": 0}
    mapped = "(SELECT count(DISTINCT image) FROM term_map_view) AS mapped"
    (places,) = ask(folder, f"SELECT {mapped}, (SELECT sum(accepted) FROM alignment_view) AS accepted")
    assert places["mapped"] == places["accepted"] >= STUDIES - 3  # what has no place in the common space has no map


def test_findings_agree_with_the_readings(done):
    """Every study with tuberculosis is read as such, but where the reading says so in no word, and no other is."""
    folder, _ = done
    rows = ask(folder, "SELECT study, value FROM label_view WHERE concept = 'tuberculosis' AND value <> 'absent'")
    found = {row["study"] for row in rows}
    database = open_database(f"sqlite:///{folder / 'phenotype.db'}")
    with database.reading() as session:
        query = "SELECT s.study_id, s.accession, r.text FROM vault_study s JOIN vault_report r USING (accession)"
        rows = session.execute(text(query)).all()
    sick = {row["accession_number"]: row["tuberculosis"] == "1" for row in truth(folder)}
    expected = {r.study_id for r in rows if sick[r.accession] and re.search("TB|tubercul", r.text, re.I)}
    assert len(expected) >= 20
    assert found == expected
    database.close()


def test_the_planted_personal_data_is_in_the_vault_and_nowhere_else(done):
    folder, said = done
    words = (folder / "all.truth" / "planted_phi.txt").read_text(encoding="utf-8").splitlines()
    planted = [word for word in words if len(word) > 4]  # four letters also occur by chance
    database = open_database(f"sqlite:///{folder / 'phenotype.db'}")
    tables = contents(database)
    database.close()
    vault = "\n".join(row for name in VAULT for row in tables[name])
    assert sum(word in vault for word in planted) >= 3 * STUDIES, "the control: the vault has them"
    rest = "\n".join(row for name, rows in tables.items() if name not in VAULT for row in rows)
    elsewhere = {"tables": rest.encode()} | {f"output {n}": output for n, output in enumerate(said)}
    files = [path for path in [*(folder / "phenotype.files").rglob("*"), folder / "page.html"] if path.is_file()]
    assert len(files) > 8
    elsewhere |= {str(path.relative_to(folder)): path.read_bytes() for path in files}
    elsewhere["names"] = "\n".join(elsewhere).encode()
    elsewhere["page.html"] = re.sub(rb"data:image/[a-z]+;base64,[^\"')]+", b"", elsewhere["page.html"])
    assert leaks(elsewhere, planted) == set()
    for n, (way, spelled) in enumerate(spellings(planted[-1]).items()):  # the control of the search: it would be found
        place = list(elsewhere)[n % len(elsewhere)]
        assert (place, way) in leaks({place: elsewhere[place] + b" " + spelled}, planted[-1:])
    assert leaks({"log": b'{"loss": 0.119650203}'}, ["19650203"]) == set()
    assert leaks({"log": b'{"born": 19650203}'}, ["19650203"]) != set()


def leaks(places, words):
    """Where which spelling of any of the words is found."""
    forms = {form for word in words for form in spellings(word).items()}
    return {
        (place, way)
        for place, content in places.items()
        for way, spelled in begun(content, forms)
        if spelled in content and (not spelled.isdigit() or stands_alone(spelled, content))
    }


def begun(content, forms):
    """Those whose first four bytes are there: few, so that not all of them need be looked for one by one."""
    starts = np.unique(np.frombuffer(b"".join(spelled[:4] for _, spelled in forms), "<u4"))
    there = set()
    for offset in range(min(4, len(content))):
        windows = np.frombuffer(content, "<u4", count=(len(content) - offset) // 4, offset=offset)
        places = np.clip(np.searchsorted(starts, windows), 0, len(starts) - 1)
        there.update(np.unique(windows[starts[places] == windows]).tolist())
    return [(way, spelled) for way, spelled in forms if int.from_bytes(spelled[:4], "little") in there]


def stands_alone(number, content):
    """Whether a number is there as such: eight digits of a date also occur within the decimals of a loss."""
    return re.search(rb"(?<![0-9.])%b(?![0-9])" % number, content) is not None


def spellings(word):
    """A word as it could be written down."""
    ways = {e: word.encode(e) for e in ("utf-8", "latin-1", "utf-16-le", "utf-16-be")}
    ways |= {"lower": word.lower().encode(), "upper": word.upper().encode(), "hex": word.encode().hex().encode()}
    ways |= {"base64": base64.b64encode(word.encode()).rstrip(b"=")[:-1], "reversed": word[::-1].encode()}
    ways |= {"escaped": word.encode("unicode_escape"), "json": json.dumps(word)[1:-1].encode()}
    if re.fullmatch(r"\d{8}", word):
        year, month, day = word[:4], word[4:6], word[6:]
        ways |= {"iso": f"{year}-{month}-{day}".encode(), "dots": f"{day}.{month}.{year}".encode()}
    return ways
