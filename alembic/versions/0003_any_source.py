"""any source: live PACS, versions of reports, and what tells instances apart

Revision: 0003, after 0002; 2026-11-23
"""

import sqlalchemy as sa
from alembic import op

from db.session import create_views, drop_views
from db.types import UtcTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TEXT, _EMPTY = sa.String(), "''"
_ADDED: dict[
    str, dict[str, tuple[sa.types.TypeEngine, str]]
] = {  # table -> column -> its type, and what older rows get
    "vault_export": {"origin": (_TEXT, _EMPTY)},
    "series": {"modality_basis": (_TEXT, _EMPTY), "body_part_basis": (_TEXT, _EMPTY)},
    "instance": {
        "transfer_syntax": (_TEXT, _EMPTY),
        "pixel_hash": (_TEXT, "NULL"),
        "acquisition": (_TEXT, _EMPTY),
        "lossy": (sa.Boolean(), "false"),
        "burned_in": (_TEXT, _EMPTY),
        "view_basis": (_TEXT, _EMPTY),
    },
    "report": {
        "matched_by": (_TEXT, _EMPTY),
        "kind": (_TEXT, "'table'"),
        "thread": (sa.String(length=16), "id"),
        "ordinal": (sa.Integer(), "0"),
        "status": (_TEXT, _EMPTY),
    },
    "vault_report": dict.fromkeys(
        ("study_uid", "issuer", "name", "birth_date", "study_date", "modality", "key", "issued"), (_TEXT, _EMPTY)
    ),
}
_STATUS = "status IN ('', 'preliminary', 'final', 'corrected', 'addendum', 'cancelled')"


def upgrade() -> None:
    """To this version."""
    drop_views(op.get_bind())
    op.create_table(
        "transfer",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("export_id", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("expected", sa.Integer(), nullable=True),
        sa.Column("received", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("changed_at", UtcTime(), nullable=False),
        sa.CheckConstraint("state IN ('wanted', 'received', 'failed')", name=op.f("ck_transfer_state")),
        sa.ForeignKeyConstraint(["export_id"], ["export.id"], name=op.f("fk_transfer_export_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transfer")),
    )
    op.create_index(op.f("ix_transfer_export_id"), "transfer", ["export_id"])
    op.create_table(
        "vault_transfer",
        sa.Column("transfer_id", sa.String(length=16), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("series_uid", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["transfer_id"], ["transfer.id"], name=op.f("fk_vault_transfer_transfer_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("transfer_id", name=op.f("pk_vault_transfer")),
    )
    op.create_table(
        "vault_access",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("way", sa.String(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vault_access")),
    )
    op.create_index(op.f("ix_vault_access_at"), "vault_access", ["at"])

    for table, columns in _ADDED.items():
        for name, (kind, _) in columns.items():
            op.add_column(table, sa.Column(name, kind, nullable=True))
        values = ", ".join(f'"{name}" = {value}' for name, (_, value) in columns.items())
        op.execute(f"UPDATE {table} SET {values}")  # noqa: S608
        with op.batch_alter_table(table) as changed:
            for name, (kind, value) in columns.items():
                changed.alter_column(name, existing_type=kind, nullable=value == "NULL")
            if table == "report":
                changed.create_check_constraint(op.f("ck_report_status"), _STATUS)
    op.create_index("ix_report_thread_ordinal", "report", ["thread", "ordinal"])
    op.create_index(op.f("ix_vault_report_study_uid"), "vault_report", ["study_uid"])
    create_views(op.get_bind(), "0003")


def downgrade() -> None:
    """Back to the version before."""
    drop_views(op.get_bind())
    op.drop_index(op.f("ix_vault_report_study_uid"), "vault_report")
    op.drop_index("ix_report_thread_ordinal", "report")
    for table, columns in _ADDED.items():
        with op.batch_alter_table(table) as changed:
            if table == "report":
                changed.drop_constraint(op.f("ck_report_status"), type_="check")
            for name in columns:
                changed.drop_column(name)
    op.drop_table("vault_access")
    op.drop_table("vault_transfer")
    op.drop_table("transfer")
    create_views(op.get_bind(), "0002")
