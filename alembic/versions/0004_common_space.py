"""common space and term maps: how images lie in it, weak labels, what maps are worth, what experts drew

Revision: 0004, after 0003; 2026-11-28
"""

import sqlalchemy as sa
from alembic import op

from db.session import create_views, drop_views
from db.types import Array

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LOCAL = "local IN ('', 'local', 'not local')"
_CALL = "call IN ('', 'here', 'not here', 'undecided')"
_NUMBER = sa.Double()
_ADDED = (  # table, its new word, its new numbers, what the word may be
    ("term_evidence", "local", ("location_auroc", "threshold", "deletion_ratio"), _LOCAL),
    ("term_map", "call", ("probability", "deletion", "deletion_random"), _CALL),
)


def upgrade() -> None:
    """To this version."""
    drop_views(op.get_bind())
    op.create_table(
        "expert_record",
        sa.Column("file_id", sa.String(length=16), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("reader", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.CheckConstraint("state IN ('ingested', 'quarantined')", name=op.f("ck_expert_record_state")),
        sa.PrimaryKeyConstraint("file_id", "number", name=op.f("pk_expert_record")),
    )
    op.create_table(
        "agreement",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("concept_id", sa.String(), nullable=False),
        sa.Column("reader", sa.String(), nullable=False),
        sa.Column("against", sa.String(), nullable=False),
        sa.Column("figure", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["concept_id"], ["concept.id"], name=op.f("fk_agreement_concept_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_agreement_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "concept_id", "reader", "against", "figure", name=op.f("pk_agreement")),
    )
    op.create_table(
        "emission",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("concept_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("if_present", sa.Double(), nullable=False),
        sa.Column("if_absent", sa.Double(), nullable=False),
        sa.CheckConstraint("state IN ('present', 'possible', 'denied', 'unmentioned')", name=op.f("ck_emission_state")),
        sa.ForeignKeyConstraint(
            ["concept_id"], ["concept.id"], name=op.f("fk_emission_concept_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_emission_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "concept_id", "state", name=op.f("pk_emission")),
    )
    op.create_table(
        "labeller",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("concept_id", sa.String(), nullable=False),
        sa.Column("labeller", sa.String(), nullable=False),
        sa.Column("sensitivity", sa.Double(), nullable=False),
        sa.Column("specificity", sa.Double(), nullable=False),
        sa.Column("coverage", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["concept_id"], ["concept.id"], name=op.f("fk_labeller_concept_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_labeller_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "concept_id", "labeller", name=op.f("pk_labeller")),
    )
    op.create_table(
        "weak_label",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("study_id", sa.String(length=16), nullable=False),
        sa.Column("concept_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "state IN ('present', 'possible', 'denied', 'unmentioned')", name=op.f("ck_weak_label_state")
        ),
        sa.ForeignKeyConstraint(
            ["concept_id"], ["concept.id"], name=op.f("fk_weak_label_concept_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_weak_label_run_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_weak_label_study_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "study_id", "concept_id", name=op.f("pk_weak_label")),
    )
    op.create_index(op.f("ix_weak_label_concept_id_state"), "weak_label", ["concept_id", "state"])
    op.create_index(op.f("ix_weak_label_study_id"), "weak_label", ["study_id"])
    op.create_table(
        "alignment",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("quality", sa.Double(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("forward", Array(), nullable=False),
        sa.Column("backward", Array(), nullable=False),
        sa.Column("low", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("high", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_alignment_image_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_alignment_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "image_id", name=op.f("pk_alignment")),
    )
    op.create_index(op.f("ix_alignment_image_id"), "alignment", ["image_id"])
    op.create_table(
        "expert_region",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("file_id", sa.String(length=16), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("concept_id", sa.String(), nullable=False),
        sa.Column("reader", sa.String(), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("top", sa.Double(), nullable=False),
        sa.Column("left", sa.Double(), nullable=False),
        sa.Column("bottom", sa.Double(), nullable=False),
        sa.Column("right", sa.Double(), nullable=False),
        sa.Column("mask", Array(), nullable=True),
        sa.ForeignKeyConstraint(
            ["concept_id"], ["concept.id"], name=op.f("fk_expert_region_concept_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_expert_region_image_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expert_region")),
    )
    op.create_index(op.f("ix_expert_region_concept_id"), "expert_region", ["concept_id"])
    op.create_index(op.f("ix_expert_region_file_id"), "expert_region", ["file_id"])
    op.create_index(op.f("ix_expert_region_image_id"), "expert_region", ["image_id"])
    op.create_table(
        "follow_up",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("earlier_id", sa.String(length=16), nullable=False),
        sa.Column("days", sa.Integer(), nullable=True),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("quality", sa.Double(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["earlier_id"], ["image.id"], name=op.f("fk_follow_up_earlier_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_follow_up_image_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_follow_up_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "image_id", name=op.f("pk_follow_up")),
    )
    op.create_index(op.f("ix_follow_up_earlier_id"), "follow_up", ["earlier_id"])
    op.create_index(op.f("ix_follow_up_image_id"), "follow_up", ["image_id"])
    op.create_table(
        "organ",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("organ", sa.String(), nullable=False),
        sa.Column("volume_ml", sa.Double(), nullable=True),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("low", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("high", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_organ_image_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_organ_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "image_id", "organ", name=op.f("pk_organ")),
    )
    op.create_index(op.f("ix_organ_image_id"), "organ", ["image_id"])
    op.create_table(
        "track",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("concept_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("earlier_id", sa.String(length=16), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("row", sa.Double(), nullable=False),
        sa.Column("column", sa.Double(), nullable=False),
        sa.Column("earlier_slice", sa.Integer(), nullable=False),
        sa.Column("earlier_row", sa.Double(), nullable=False),
        sa.Column("earlier_column", sa.Double(), nullable=False),
        sa.Column("size_mm", sa.Double(), nullable=True),
        sa.Column("earlier_size_mm", sa.Double(), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("earlier_score", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["concept_id"], ["concept.id"], name=op.f("fk_track_concept_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["earlier_id"], ["image.id"], name=op.f("fk_track_earlier_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_track_image_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_track_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "image_id", "concept_id", "number", name=op.f("pk_track")),
    )
    op.create_index(op.f("ix_track_earlier_id"), "track", ["earlier_id"])
    op.create_index(op.f("ix_track_image_id"), "track", ["image_id"])

    op.add_column("region", sa.Column("labels", Array(), nullable=True))
    for table, word, numbers, rule in _ADDED:
        for name in numbers:
            op.add_column(table, sa.Column(name, _NUMBER, nullable=True))
        op.add_column(table, sa.Column(word, sa.String(), nullable=True))
        op.execute(f"UPDATE {table} SET {word} = ''")  # noqa: S608
        with op.batch_alter_table(table) as changed:
            changed.alter_column(word, existing_type=sa.String(), nullable=False)
            changed.create_check_constraint(op.f(f"ck_{table}_{word}"), rule)
    create_views(op.get_bind())


def downgrade() -> None:
    """Back to the version before."""
    drop_views(op.get_bind())
    for table, word, numbers, _ in _ADDED:
        with op.batch_alter_table(table) as changed:
            changed.drop_constraint(op.f(f"ck_{table}_{word}"), type_="check")
            for name in (word, *numbers):
                changed.drop_column(name)
    with op.batch_alter_table("region") as changed:
        changed.drop_column("labels")
    for table in (
        "track",
        "organ",
        "follow_up",
        "expert_region",
        "alignment",
        "weak_label",
        "labeller",
        "emission",
        "agreement",
        "expert_record",
    ):
        op.drop_table(table)
    create_views(op.get_bind(), "0003")
