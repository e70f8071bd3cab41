"""From a PACS export to findings in SQL, image features, term maps and phenotypes: one room per verb."""

__version__ = "0.1.0"
