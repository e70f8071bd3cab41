"""The views an analyst queries: names instead of ids, the current run of each stage, no personal data.

They are made by migrations (`db.session.create_views`) and documented, with worked queries, in docs/sql.md. A recipe is
searched as text for the run that it builds upon: under `trusted_schema = OFF` a view may not call `->>`.
"""

from typing import Final

# The run that was started or continued last, for each stage and label.
_CURRENT_RUN = """
SELECT r.id, r.stage, r.label FROM run r
WHERE NOT EXISTS (
  SELECT 1 FROM run newer WHERE newer.stage = r.stage AND newer.label = r.label
  AND (newer.opened_at > r.opened_at OR (newer.opened_at = r.opened_at AND newer.id < r.id))
)
"""

# What OMOP's NOTE_NLP asks for, as far as it can be said without a word of a report. A term "exists" in OMOP only if
# nothing (a denial, a doubt, another time or person) stands against it.
_NOTE_NLP = """
SELECT row_number() OVER (ORDER BY f.report_id, f.start, f.concept_id) AS note_nlp_id, f.report_id AS note_id,
  0 AS section_concept_id, NULL AS snippet, f.start AS "offset", k.name AS lexical_variant, 0 AS note_nlp_concept_id,
  0 AS note_nlp_source_concept_id, 'phenotype ' || f.run_id AS nlp_system,
  substr(CAST(r.opened_at AS TEXT), 1, 10) AS nlp_date, substr(CAST(r.opened_at AS TEXT), 1, 19) AS nlp_datetime,
  CASE WHEN f.assertion = 'present' AND f.temporality = 'current' AND f.experiencer = 'patient' THEN 'Y' ELSE 'N' END
    AS term_exists,
  CASE f.temporality WHEN 'current' THEN 'present' WHEN 'historical' THEN 'past' ELSE f.temporality END
    AS term_temporal,
  'concept=' || f.concept_id || CASE k.radlex WHEN '' THEN '' ELSE ';radlex=' || k.radlex END
    || CASE k.snomed WHEN '' THEN '' ELSE ';snomed=' || k.snomed END
    || CASE k.mesh WHEN '' THEN '' ELSE ';mesh=' || k.mesh END
    || CASE f.assertion WHEN 'absent' THEN ';negation=yes' ELSE '' END
    || CASE f.assertion WHEN 'uncertain' THEN ';certainty=' || CAST(f.certainty AS TEXT) ELSE '' END
    || CASE f.experiencer WHEN 'other' THEN ';subject=other' ELSE '' END || ';section=' || f.section
    || CASE f.side WHEN '' THEN '' ELSE ';side=' || f.side END
    || CASE f.site WHEN '' THEN '' ELSE ';site=' || f.site END
    || CASE f.severity WHEN '' THEN '' ELSE ';severity=' || f.severity END
    || coalesce(';size_mm=' || CAST(f.size_mm AS TEXT), '')
    || coalesce(';prior_size_mm=' || CAST(f.prior_size_mm AS TEXT), '')
    || CASE f.count WHEN '' THEN '' ELSE ';count=' || f.count END
    || CASE f.change WHEN '' THEN '' ELSE ';change=' || f.change END AS term_modifiers
FROM finding f JOIN current_run c ON c.id = f.run_id JOIN run r ON r.id = f.run_id
JOIN current_report v ON v.id = f.report_id JOIN concept k ON k.id = f.concept_id
"""

# The version of each report that counts: the last whole one, a preliminary one only until there is a better, with the
# addenda written after it; none of a report that was cancelled last.
_CURRENT_REPORT = """
SELECT r.id, r.study_id, r.thread, r.ordinal, r.status FROM report r
WHERE r.status <> 'cancelled' AND NOT EXISTS (
  SELECT 1 FROM report n WHERE n.thread = r.thread AND n.id <> r.id AND (
    (n.ordinal > r.ordinal AND n.status IN ('', 'final', 'corrected', 'cancelled'))
    OR (n.ordinal > r.ordinal AND n.status = 'preliminary' AND r.status = 'preliminary')
    OR (r.status = 'preliminary' AND n.status IN ('', 'final', 'corrected'))
  )
)
"""

VIEWS: Final[dict[str, str]] = {
    "current_run": _CURRENT_RUN,
    "run_view": """
SELECT r.id AS run, r.stage, r.label, r.state, r.started_at, r.opened_at, r.finished_at,
  (SELECT count(*) FROM task t WHERE t.run_id = r.id AND t.state = 'done') AS done,
  (SELECT count(*) FROM task t WHERE t.run_id = r.id AND t.state = 'failed') AS failed,
  CASE WHEN EXISTS (SELECT 1 FROM current_run c WHERE c.id = r.id) THEN 1 ELSE 0 END AS is_current
FROM run r
""",
    "failure_view": """
SELECT r.stage, r.label, t.subject_id AS subject, t.reason, t.traceback, t.finished_at AS failed_at
FROM task t JOIN current_run r ON r.id = t.run_id WHERE t.state = 'failed'
""",
    "file_view": """
SELECT f.id AS file, f.export_id AS export, f.kind, f.state, f.reason, f.size AS bytes, f.same_as
FROM export_file f
""",
    "study_view": """
SELECT s.id AS study, s.patient_id AS patient, p.sex, s.age_years, s.shifted_date, p.fold,
  (SELECT min(e.modality) FROM series e WHERE e.study_id = s.id) AS modality,
  (SELECT count(*) FROM series e WHERE e.study_id = s.id) AS series,
  (SELECT count(*) FROM image i JOIN current_run c ON c.id = i.run_id WHERE i.study_id = s.id) AS images,
  (SELECT count(*) FROM report r WHERE r.study_id = s.id) AS reports
FROM study s JOIN patient p ON p.id = s.patient_id
""",
    "image_view": """
SELECT i.id AS image, i.study_id AS study, s.patient_id AS patient, i.kind, i.modality, i.view, i.slices, i.rows,
  i.columns, i.spacing AS spacing_mm, i.left_out
FROM image i JOIN current_run c ON c.id = i.run_id JOIN study s ON s.id = i.study_id
""",
    "series_view": """
SELECT e.id AS series, e.study_id AS study, s.patient_id AS patient, e.modality, e.modality_basis, e.body_part,
  e.body_part_basis, (SELECT count(*) FROM instance n JOIN export_file x ON x.id = n.file_id
   WHERE n.series_id = e.id AND x.state = 'ingested') AS instances,
  (SELECT count(*) FROM image i JOIN current_run c ON c.id = i.run_id WHERE i.series_id = e.id) AS images,
  (SELECT max(t.reason) FROM task t JOIN current_run c ON c.id = t.run_id
   WHERE c.stage = 'assemble' AND t.subject_id = e.id AND t.state = 'failed') AS refused
FROM series e JOIN study s ON s.id = e.study_id
""",
    "transfer_view": """
SELECT t.id AS transfer, t.export_id AS export, t.state, t.reason, t.expected, t.received, t.attempts, t.changed_at
FROM transfer t
""",
    "current_report": _CURRENT_REPORT,
    "unmatched_report_view": """
SELECT r.id AS report, r.kind, r.match, r.status, r.length AS characters, r.file_id AS file
FROM report r JOIN current_report c ON c.id = r.id WHERE r.match <> 'matched'
""",
    "report_view": """
SELECT r.id AS report, r.study_id AS study, r.match, r.matched_by, r.kind, r.thread, r.ordinal, r.status,
  CASE WHEN EXISTS (SELECT 1 FROM current_report c WHERE c.id = r.id) THEN 1 ELSE 0 END AS is_current,
  coalesce((SELECT max(g.language) FROM reading g JOIN current_run c ON c.id = g.run_id WHERE g.report_id = r.id),
    r.language) AS language,
  r.length AS characters,
  (SELECT count(*) FROM finding f JOIN current_run c ON c.id = f.run_id WHERE f.report_id = r.id) AS findings
FROM report r
""",
    "finding_view": """
SELECT r.study_id AS study, s.patient_id AS patient, f.report_id AS report, k.name AS finding, k.category,
  k.region, f.assertion, f.temporality, f.experiencer, f.certainty, f.implied, f.side, f.site, p.name AS site_name,
  f.severity, f.size_mm, f.prior_size_mm, f.count, f.change, f.section, f.start AS text_start, f."end" AS text_end,
  f.cue_start, f.cue_end, f.rule, f.concept_id AS concept, k.radlex, k.mesh, k.snomed
FROM finding f JOIN current_run c ON c.id = f.run_id JOIN concept k ON k.id = f.concept_id
JOIN report r ON r.id = f.report_id JOIN current_report v ON v.id = r.id
LEFT JOIN study s ON s.id = r.study_id LEFT JOIN site p ON p.id = f.site
""",
    "modifier_view": """
SELECT r.study_id AS study, s.patient_id AS patient, m.report_id AS report, k.name AS finding, m.kind, m.value,
  m.start AS words_start, m."end" AS words_end, m.finding_start AS text_start, m.concept_id AS concept
FROM modifier m JOIN current_run c ON c.id = m.run_id JOIN concept k ON k.id = m.concept_id
JOIN report r ON r.id = m.report_id JOIN current_report v ON v.id = r.id
LEFT JOIN study s ON s.id = r.study_id
""",
    "site_view": """
SELECT p.id AS site, p.name, p.kind, p.parent, q.name AS parent_name, p.radlex, p.snomed
FROM site p LEFT JOIN site q ON q.id = p.parent
""",
    "site_ancestor_view": """
WITH RECURSIVE above (site, ancestor, steps) AS (
  SELECT p.id, p.id, 0 FROM site p
  UNION ALL
  SELECT a.site, p.parent, a.steps + 1 FROM above a JOIN site p ON p.id = a.ancestor
  WHERE p.parent <> '' AND a.steps < 20
)
SELECT a.site, a.ancestor, p.name AS ancestor_name, a.steps FROM above a JOIN site p ON p.id = a.ancestor
""",
    "finding_site_view": """
SELECT DISTINCT r.study_id AS study, s.patient_id AS patient, f.report_id AS report, k.name AS finding, f.assertion,
  f.temporality, f.experiencer, p.id AS site, p.name AS site_name, p.kind, f.side, f.start AS text_start,
  f.concept_id AS concept
FROM finding f JOIN current_run c ON c.id = f.run_id JOIN concept k ON k.id = f.concept_id
JOIN report r ON r.id = f.report_id JOIN current_report v ON v.id = r.id
LEFT JOIN study s ON s.id = r.study_id
JOIN modifier m ON m.run_id = f.run_id AND m.report_id = f.report_id AND m.finding_start = f.start
  AND m.concept_id = f.concept_id AND m.kind = 'site'
JOIN site p ON p.id = m.value
""",
    "note_nlp": _NOTE_NLP,
    "disagreement_view": """
SELECT r.study_id AS study, s.patient_id AS patient, t.report_id AS report, k.name AS finding,
  CASE t.said WHEN '' THEN 'not mentioned' ELSE t.said END AS said, t.probability,
  CASE t.said WHEN 'present' THEN 1 - t.probability ELSE t.probability END AS surprise, t.concept_id AS concept
FROM text_score t JOIN current_run c ON c.id = t.run_id JOIN concept k ON k.id = t.concept_id
JOIN report r ON r.id = t.report_id JOIN current_report v ON v.id = r.id
LEFT JOIN study s ON s.id = r.study_id
WHERE (t.said IN ('', 'absent') AND t.probability >= 0.3) OR (t.said = 'present' AND t.probability < 0.1)
""",
    "label_view": """
SELECT l.study_id AS study, s.patient_id AS patient, k.name AS finding, k.category, l.value, l.confidence, l.side,
  l.mentions, l.implied, l.concept_id AS concept
FROM label l JOIN current_run c ON c.id = l.run_id JOIN concept k ON k.id = l.concept_id
JOIN study s ON s.id = l.study_id
""",
    "cohort_view": """
SELECT h.name AS cohort, m.study_id AS study, s.patient_id AS patient, m.split
FROM cohort h JOIN current_run c ON c.id = h.id JOIN cohort_study m ON m.cohort_id = h.id
JOIN study s ON s.id = m.study_id
""",
    "anomaly_view": """
SELECT c.label AS model, a.image_id AS image, i.study_id AS study, s.patient_id AS patient, a.score, a.p_value,
  a.peak_slice, a.peak_row, a.peak_column
FROM anomaly a JOIN current_run c ON c.id = a.run_id JOIN image i ON i.id = a.image_id
JOIN study s ON s.id = i.study_id
""",
    "term_map_view": """
SELECT t.image_id AS image, i.study_id AS study, s.patient_id AS patient, k.name AS finding, t.score, t.side,
  t.peak_slice, t.peak_row, t.peak_column,
  (SELECT l.value FROM label l JOIN current_run cl ON cl.id = l.run_id
   WHERE l.study_id = i.study_id AND l.concept_id = t.concept_id) AS reported,
  t.probability, t.call, t.deletion, t.deletion_random, e.verdict, e.local, e.auroc, t.concept_id AS concept
FROM term_map t JOIN current_run c ON c.id = t.run_id JOIN run r ON r.id = t.run_id
JOIN image i ON i.id = t.image_id JOIN study s ON s.id = i.study_id JOIN concept k ON k.id = t.concept_id
LEFT JOIN term_evidence e ON e.concept_id = t.concept_id AND CAST(r.recipe AS TEXT) LIKE '%"' || e.run_id || '"%'
""",
    "term_evidence_view": """
SELECT k.name AS finding, e.positives, e.studies, e.auroc, e.auroc_low, e.auroc_high, e.verdict, e.local,
  e.location_auroc, e.threshold, e.deletion_ratio, e.concept_id AS concept
FROM term_evidence e JOIN current_run c ON c.id = e.run_id JOIN concept k ON k.id = e.concept_id
""",
    "alignment_view": """
SELECT a.image_id AS image, i.study_id AS study, s.patient_id AS patient, a.route, a.quality, a.accepted, a.reason,
  a.low AS seen_from, a.high AS seen_to
FROM alignment a JOIN current_run c ON c.id = a.run_id JOIN image i ON i.id = a.image_id
JOIN study s ON s.id = i.study_id
""",
    "organ_view": """
SELECT o.image_id AS image, i.study_id AS study, s.patient_id AS patient, o.organ, o.volume_ml, o.share,
  o.low AS box_from, o.high AS box_to
FROM organ o JOIN current_run c ON c.id = o.run_id JOIN image i ON i.id = o.image_id
JOIN study s ON s.id = i.study_id
""",
    "follow_up_view": """
SELECT f.image_id AS image, f.earlier_id AS earlier_image, s.patient_id AS patient, f.days, f.route, f.quality,
  f.accepted
FROM follow_up f JOIN current_run c ON c.id = f.run_id JOIN image i ON i.id = f.image_id
JOIN study s ON s.id = i.study_id
""",
    "track_view": """
SELECT t.image_id AS image, t.earlier_id AS earlier_image, s.patient_id AS patient, k.name AS finding, t.number,
  t.slice AS at_slice, t."row" AS at_row, t."column" AS at_column, t.earlier_slice, t.earlier_row, t.earlier_column,
  t.size_mm, t.earlier_size_mm, t.score, t.earlier_score, t.concept_id AS concept
FROM track t JOIN current_run c ON c.id = t.run_id JOIN image i ON i.id = t.image_id
JOIN study s ON s.id = i.study_id JOIN concept k ON k.id = t.concept_id
""",
    "weak_label_view": """
SELECT w.study_id AS study, s.patient_id AS patient, k.name AS finding, w.state, w.probability, w.concept_id AS concept
FROM weak_label w JOIN current_run c ON c.id = w.run_id JOIN study s ON s.id = w.study_id
JOIN concept k ON k.id = w.concept_id
""",
    "labeller_view": """
SELECT k.name AS finding, b.labeller, b.sensitivity, b.specificity, b.coverage, b.concept_id AS concept
FROM labeller b JOIN current_run c ON c.id = b.run_id JOIN concept k ON k.id = b.concept_id
""",
    "emission_view": """
SELECT k.name AS finding, e.state, e.if_present, e.if_absent, e.concept_id AS concept
FROM emission e JOIN current_run c ON c.id = e.run_id JOIN concept k ON k.id = e.concept_id
""",
    "expert_region_view": """
SELECT x.image_id AS image, i.study_id AS study, s.patient_id AS patient, k.name AS finding, x.reader,
  x.slice AS at_slice, x.top, x."left" AS left_edge, x.bottom, x."right" AS right_edge,
  CASE WHEN x.mask IS NULL THEN 'box' ELSE 'mask' END AS shape, x.concept_id AS concept
FROM expert_region x JOIN image i ON i.id = x.image_id JOIN study s ON s.id = i.study_id
JOIN concept k ON k.id = x.concept_id
""",
    "agreement_view": """
SELECT k.name AS finding, a.reader, a.against, a.figure, a.value, a.low, a.high, a.count AS cases,
  a.concept_id AS concept
FROM agreement a JOIN current_run c ON c.id = a.run_id JOIN concept k ON k.id = a.concept_id
""",
    "phenotype_view": """
SELECT p.id AS phenotype, p.number, p.name, p.size AS studies, p.stability, p.stable
FROM phenotype p JOIN current_run c ON c.id = p.run_id
""",
    "membership_view": """
SELECT p.number AS phenotype_number, p.name AS phenotype_name, m.study_id AS study, s.patient_id AS patient,
  m.probability, m.split, m.phenotype_id AS phenotype
FROM membership m JOIN current_run c ON c.id = m.run_id JOIN phenotype p ON p.id = m.phenotype_id
JOIN study s ON s.id = m.study_id
""",
    "enrichment_view": """
SELECT p.number AS phenotype_number, p.name AS phenotype_name, k.name AS finding, e.cases, e.expected, e.fold,
  e.p_value, e.q_value, e.replicated, e.phenotype_id AS phenotype, e.concept_id AS concept
FROM enrichment e JOIN current_run c ON c.id = e.run_id JOIN phenotype p ON p.id = e.phenotype_id
JOIN concept k ON k.id = e.concept_id
""",
}
