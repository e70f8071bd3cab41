"""Which version of each report counts."""

from sqlalchemy import column, table

CURRENT = table("current_report", column("id"))  # the view
