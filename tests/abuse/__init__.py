"""The plan of abuse: faults made on purpose, in small counts by pytest, in large ones by `python -m tests.abuse`.

Modules here import each other as `abuse.X`, with tests/ on the path: pytest puts it there, and so does __main__.
"""

import sys
from pathlib import Path

# the small DICOM objects and reports of other tests
sys.path.append(str(Path(__file__).resolve().parents[1] / "ingest"))
