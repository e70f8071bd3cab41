"""Files to arrays, arrays to patches and regions. Knows no database."""
