"""The command line: what it prints where, its exit codes, and how fast it answers."""

import json
import os
import re
import subprocess
import sys

import pytest
from sqlalchemy import text

from db.session import open_database
from phenotype.pipeline import STAGES, STANDARD, make_stage, read_pipeline, stage_class
from phenotype.stage import Refused, stage_fields


def phenotype(*arguments, cwd, env=None):
    command = [sys.executable, "-m", "phenotype", *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | (env or {}), capture_output=True, text=True, check=False)


def test_help_imports_neither_torch_nor_spacy(tmp_path):
    program = (
        "import sys; sys.argv = ['phenotype', '--help']\n"
        "from phenotype.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'spacy', 'pandas', 'sklearn', 'matplotlib') if m in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "[]"
    for name in STAGES:
        assert re.search(rf"\b{name}\b", run.stdout)


def test_options_of_a_stage_are_its_fields(tmp_path):
    for name in ("train", "cohort"):
        shown = phenotype(name, "--help", cwd=tmp_path, env={"COLUMNS": "200"}).stdout
        for field in stage_fields(stage_class(name)):
            assert f"--{field.name.replace('_', '-')}" in shown
        assert "--upstream" not in shown
        assert "--members" not in shown


def test_every_field_says_what_it_is():
    for name in STAGES:
        for field in stage_fields(stage_class(name)):
            assert len(field.metadata["help"]) > 3, (name, field.name)


def test_data_to_stdout_messages_to_stderr(tmp_path):
    asked = phenotype("status", "--json", cwd=tmp_path)
    assert (asked.returncode, json.loads(asked.stdout), asked.stderr) == (0, [], "")
    assert (tmp_path / "phenotype.db").exists()
    counted = phenotype("sql", "SELECT count(*) AS n FROM study_view", "--json", cwd=tmp_path)
    assert json.loads(counted.stdout) == [{"n": 0}]


def test_the_database_is_a_global_option_or_the_environment(tmp_path):
    url = f"sqlite:///{tmp_path / 'deep' / 'x.db'}"
    assert phenotype("--db", url, "status", cwd=tmp_path).returncode == 0
    assert (tmp_path / "deep" / "x.db").exists()
    assert phenotype("files", cwd=tmp_path, env={"PHENOTYPE_DB": url}).returncode == 0
    assert not (tmp_path / "phenotype.db").exists()


def test_csv_cannot_carry_a_formula(tmp_path):
    asked = phenotype("sql", "SELECT '=cmd()' AS a, -1 AS b, '@x' AS c", "--csv", cwd=tmp_path)
    assert asked.stdout == "a,b,c\n'=cmd(),-1,'@x\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nonsense",), 2, "nonsense"),
        (("status", "--nonsense"), 2, "nonsense"),
        (("run", "missing.toml"), 2, "missing.toml"),
        (("sql", "DROP TABLE study"), 1, "only SELECT"),
        (("sql", "SELECT * FROM vault_patient"), 1, "personal data"),
        (("train",), 1, "phenotype cohort"),
        (("cohort",), 1, "no study fits"),
        (("cohort", "--images", "paintings"), 1, "paintings"),
        (("train", "--model", "oracle"), 1, "oracle"),
        (("--executor", "cloud", "extract"), 1, "cloud"),
    ],
)
def test_exit_codes_and_messages(command, arguments, code, message):
    asked = command(*arguments)
    assert asked.returncode == code, asked.stderr
    assert message in asked.stderr
    assert "Traceback" not in asked.stderr


def test_a_foreign_database_is_left_alone(tmp_path):
    import sqlite3

    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE precious (x)")
    connection.commit()
    connection.close()
    asked = phenotype("--db", f"sqlite:///{tmp_path / 'other.db'}", "status", cwd=tmp_path)
    assert asked.returncode == 1
    assert "something else" in asked.stderr


def test_upgrade_is_one_command(tmp_path):
    url = f"sqlite:///{tmp_path / 'x.db'}"
    asked = phenotype("--db", url, "db", "upgrade", cwd=tmp_path)
    assert (asked.returncode, asked.stderr) == (0, "from nothing to 0004\n")
    database = open_database(url)
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    strange = phenotype("--db", url, "status", cwd=tmp_path)
    assert strange.returncode == 1
    assert "version 0000" in strange.stderr


def test_init_writes_a_pipeline_that_is_read_back(tmp_path):
    (tmp_path / 'O\'Hara "2024"').mkdir()
    assert phenotype("init", 'O\'Hara "2024"', cwd=tmp_path).returncode == 0
    steps = read_pipeline(tmp_path / "pipeline.toml")
    assert steps[0].sources == (str(tmp_path / 'O\'Hara "2024"'),)
    assert {step.stage.name for step in steps} == set(STAGES)
    assert phenotype("init", ".", cwd=tmp_path).returncode == 1, "a pipeline that is there is not overwritten"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[stage]]\nrun = 'extrakt'", "extrakt"),
        ("[[stage]]\nrun = 'train'\nsteps = 'many'", "must be a whole number"),
        ("[[stage]]\nrun = 'train'\nseed = true", "must be a whole number"),
        ("[[stage]]\nrun = 'train'\nupstream = 'x'", "no field 'upstream'"),
        ("[[stage]]\nrun = 'ingest'\nsources = 'x'", "list of paths"),
        ("stages = 1", "nothing else"),
        ("[[stage]", "not TOML"),
    ],
)
def test_a_pipeline_that_is_wrong_says_where(tmp_path, content, message):
    path = tmp_path / "p.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(Refused, match=message):
        read_pipeline(path)


def test_whole_numbers_are_numbers():
    assert make_stage("train", {"learning_rate": 1}).learning_rate == 1


def test_the_standard_pipeline_has_every_stage():
    assert all(f'run = "{name}"' in STANDARD for name in STAGES)
