"""Exports of a PACS and a RIS become studies, series, images and reports; every file ends in one state."""
