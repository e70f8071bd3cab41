"""What we know, in SQL: tables, views and every question asked of them. Knows nothing above it."""
