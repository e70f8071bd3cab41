"""Commands that only ask the database import nothing that takes seconds to import."""

import json
import subprocess
import sys

import pytest

from db.session import open_database

HEAVY = ("torch", "spacy", "pandas", "sklearn", "matplotlib", "lightning_fabric", "nlp.pipeline")
PROGRAM = """
import json, sys
sys.argv[0] = "phenotype"
from phenotype.cli import main
codes = []
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        codes.append(main())
    except SystemExit as ended:
        codes.append(ended.code)
told = {"codes": codes, "modules": sorted(sys.modules)}
print("\\n" + json.dumps(told), file=sys.stderr)
"""
QUESTIONS = (
    ["--help"],
    ["status"],
    ["status", "--json"],
    ["files"],
    ["failures"],
    ["findings"],
    ["findings", "--help"],
    ["findings", "--concept", "pleural_effusion", "--json"],
    ["disagreements"],
    ["sql", "SELECT count(*) AS n FROM finding_view"],
    ["sql", "SELECT concept FROM finding_view LIMIT 3", "--csv"],
    ["extract", "--help"],
    ["read", "--help"],
)


def run(commands, cwd, program=PROGRAM):
    process = [sys.executable, "-c", program, json.dumps(commands)]
    ended = subprocess.run(process, cwd=cwd, capture_output=True, text=True, check=False)
    told = json.loads(ended.stderr.splitlines()[-1])
    assert not any(told["codes"]), ended.stderr
    return told


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("light")
    open_database(f"sqlite:///{folder / 'phenotype.db'}")
    return folder


def test_questions_import_nothing_heavy(home):
    assert not set(HEAVY) & set(run(QUESTIONS, home)["modules"])


def test_the_check_sees_what_is_imported(home):
    told = run([["status"]], home, "import nlp.pipeline\n" + PROGRAM)
    assert {"spacy", "nlp.pipeline"} <= set(told["modules"])
