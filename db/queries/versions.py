"""Which version of each report counts."""

from sqlalchemy import String, column, table

CURRENT = table("current_report", column("id", String))  # the view
