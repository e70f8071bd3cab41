"""${message}

Revision: ${up_revision}, after ${down_revision or "nothing"}; ${create_date.date()}
"""

import sqlalchemy as sa
from alembic import op

import db.types
from db.session import create_views, drop_views

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this version."""
    drop_views(op.get_bind())
    ${upgrades if upgrades else "pass"}
    create_views(op.get_bind())


def downgrade() -> None:
    """Back to the version before."""
    drop_views(op.get_bind())
    ${downgrades if downgrades else "pass"}
