"""richer readings: places, modifiers, languages, and a second opinion

Revision: 0002, after 0001; 2026-11-23
"""

import sqlalchemy as sa
from alembic import op

from db.session import create_views, drop_views

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_FINDING = ["run_id", "report_id", "finding_start", "concept_id"]
_ADDED = {  # column of finding -> its type, and what older findings get
    "experiencer": (sa.String(), "'patient'"),
    "implied": (sa.Boolean(), "false"),
    "prior_size_mm": (sa.Double(), "NULL"),
    "count": (sa.String(), "''"),
    "change": (sa.String(), "''"),
}
_TIMES = ("temporality IN ('current', 'historical')", "temporality IN ('current', 'historical', 'hypothetical')")
_EXPERIENCER = "experiencer IN ('patient', 'other')"


def upgrade() -> None:
    """To this version."""
    drop_views(op.get_bind())
    op.create_table(
        "site",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("radlex", sa.String(), nullable=False),
        sa.Column("snomed", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_site")),
    )
    op.create_table(
        "reading",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("report_id", sa.String(length=16), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["report_id"], ["report.id"], name=op.f("fk_reading_report_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_reading_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "report_id", name=op.f("pk_reading")),
    )
    op.create_index(op.f("ix_reading_report_id"), "reading", ["report_id"])
    op.create_table(
        "text_score",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("report_id", sa.String(length=16), nullable=False),
        sa.Column("concept_id", sa.String(), nullable=False),
        sa.Column("said", sa.String(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.CheckConstraint("said IN ('', 'present', 'absent', 'uncertain')", name=op.f("ck_text_score_said")),
        sa.ForeignKeyConstraint(
            ["concept_id"], ["concept.id"], name=op.f("fk_text_score_concept_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["report_id"], ["report.id"], name=op.f("fk_text_score_report_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_text_score_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "report_id", "concept_id", name=op.f("pk_text_score")),
    )
    op.create_index(op.f("ix_text_score_report_id"), "text_score", ["report_id"])
    op.create_table(
        "modifier",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("report_id", sa.String(length=16), nullable=False),
        sa.Column("finding_start", sa.Integer(), nullable=False),
        sa.Column("concept_id", sa.String(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            _FINDING,
            ["finding.run_id", "finding.report_id", "finding.start", "finding.concept_id"],
            name=op.f("fk_modifier_run_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(*_FINDING, "start", "kind", "value", name=op.f("pk_modifier")),
    )
    op.create_index("ix_modifier_kind_value", "modifier", ["kind", "value"])

    op.add_column("concept", sa.Column("region", sa.String(), nullable=True))
    op.execute("UPDATE concept SET region = ''")
    with op.batch_alter_table("concept") as concept:
        concept.alter_column("region", existing_type=sa.String(), nullable=False)

    for name, (kind, _) in _ADDED.items():
        op.add_column("finding", sa.Column(name, kind, nullable=True))
    op.execute(f"UPDATE finding SET {', '.join(f'{name} = {value}' for name, (_, value) in _ADDED.items())}")  # noqa: S608
    with op.batch_alter_table("finding") as finding:
        for name, (kind, value) in _ADDED.items():
            finding.alter_column(name, existing_type=kind, nullable=value == "NULL")
        finding.drop_constraint(op.f("ck_finding_temporality"), type_="check")
        finding.create_check_constraint(op.f("ck_finding_temporality"), _TIMES[1])
        finding.create_check_constraint(op.f("ck_finding_experiencer"), _EXPERIENCER)

    # nobody said so: it was the default. Reports of which nothing is known are read in the language they are in.
    op.execute("UPDATE report SET language = '' WHERE language = 'en'")
    # runs had a label for each language, and views showed the newest of each; one run now reads all languages
    op.execute("UPDATE run SET label = '' WHERE stage = 'extract'")
    create_views(op.get_bind(), "0002")


def downgrade() -> None:
    """Back to the version before."""
    drop_views(op.get_bind())
    runs = sa.table("run", sa.column("id"), sa.column("stage"), sa.column("label"), sa.column("recipe", sa.JSON()))
    for run, recipe in (
        op.get_bind().execute(sa.select(runs.c.id, runs.c.recipe).where(runs.c.stage == "extract")).all()
    ):
        op.execute(runs.update().where(runs.c.id == run).values(label=recipe.get("language", "")))
    op.execute("UPDATE report SET language = 'en' WHERE language = ''")

    op.drop_table("modifier")
    op.drop_table("text_score")
    op.drop_table("reading")
    op.drop_table("site")
    # the older version has no word for these
    op.execute("DELETE FROM finding WHERE temporality = 'hypothetical' OR experiencer = 'other'")
    with op.batch_alter_table("finding") as finding:
        finding.drop_constraint(op.f("ck_finding_experiencer"), type_="check")
        finding.drop_constraint(op.f("ck_finding_temporality"), type_="check")
        finding.create_check_constraint(op.f("ck_finding_temporality"), _TIMES[0])
        for name in _ADDED:
            finding.drop_column(name)
    with op.batch_alter_table("concept") as concept:
        concept.drop_column("region")
    create_views(op.get_bind(), "0001")
