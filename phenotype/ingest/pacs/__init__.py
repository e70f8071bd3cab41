"""A live PACS as a source: series pulled over DICOMweb, objects pushed by C-STORE. Both fill a folder beside the
database, which is a delivery like any other."""
