"""Reports to findings, findings to labels, labels to cohorts."""
