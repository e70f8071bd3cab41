-- The views as of migration 0003. db/views.py has today's.

CREATE VIEW current_run AS SELECT r.id, r.stage, r.label FROM run r
WHERE NOT EXISTS (
  SELECT 1 FROM run newer WHERE newer.stage = r.stage AND newer.label = r.label
  AND (newer.opened_at > r.opened_at OR (newer.opened_at = r.opened_at AND newer.id < r.id))
);

CREATE VIEW run_view AS SELECT r.id AS run, r.stage, r.label, r.state, r.started_at, r.opened_at, r.finished_at,
  (SELECT count(*) FROM task t WHERE t.run_id = r.id AND t.state = 'done') AS done,
  (SELECT count(*) FROM task t WHERE t.run_id = r.id AND t.state = 'failed') AS failed,
  CASE WHEN EXISTS (SELECT 1 FROM current_run c WHERE c.id = r.id) THEN 1 ELSE 0 END AS is_current
FROM run r;

CREATE VIEW failure_view AS SELECT r.stage, r.label, t.subject_id AS subject, t.reason, t.traceback, t.finished_at AS failed_at
FROM task t JOIN current_run r ON r.id = t.run_id WHERE t.state = 'failed';

CREATE VIEW file_view AS SELECT f.id AS file, f.export_id AS export, f.kind, f.state, f.reason, f.size AS bytes, f.same_as
FROM export_file f;

CREATE VIEW study_view AS SELECT s.id AS study, s.patient_id AS patient, p.sex, s.age_years, s.shifted_date, p.fold,
  (SELECT min(e.modality) FROM series e WHERE e.study_id = s.id) AS modality,
  (SELECT count(*) FROM series e WHERE e.study_id = s.id) AS series,
  (SELECT count(*) FROM image i JOIN current_run c ON c.id = i.run_id WHERE i.study_id = s.id) AS images,
  (SELECT count(*) FROM report r WHERE r.study_id = s.id) AS reports
FROM study s JOIN patient p ON p.id = s.patient_id;

CREATE VIEW image_view AS SELECT i.id AS image, i.study_id AS study, s.patient_id AS patient, i.kind, i.modality, i.view, i.slices, i.rows,
  i.columns, i.spacing AS spacing_mm, i.left_out
FROM image i JOIN current_run c ON c.id = i.run_id JOIN study s ON s.id = i.study_id;

CREATE VIEW series_view AS SELECT e.id AS series, e.study_id AS study, s.patient_id AS patient, e.modality, e.modality_basis, e.body_part,
  e.body_part_basis, (SELECT count(*) FROM instance n JOIN export_file x ON x.id = n.file_id
   WHERE n.series_id = e.id AND x.state = 'ingested') AS instances,
  (SELECT count(*) FROM image i JOIN current_run c ON c.id = i.run_id WHERE i.series_id = e.id) AS images,
  (SELECT max(t.reason) FROM task t JOIN current_run c ON c.id = t.run_id
   WHERE c.stage = 'assemble' AND t.subject_id = e.id AND t.state = 'failed') AS refused
FROM series e JOIN study s ON s.id = e.study_id;

CREATE VIEW transfer_view AS SELECT t.id AS transfer, t.export_id AS export, t.state, t.reason, t.expected, t.received, t.attempts, t.changed_at
FROM transfer t;

CREATE VIEW current_report AS SELECT r.id, r.study_id, r.thread, r.ordinal, r.status FROM report r
WHERE r.status <> 'cancelled' AND NOT EXISTS (
  SELECT 1 FROM report n WHERE n.thread = r.thread AND n.id <> r.id AND (
    (n.ordinal > r.ordinal AND n.status IN ('', 'final', 'corrected', 'cancelled'))
    OR (n.ordinal > r.ordinal AND n.status = 'preliminary' AND r.status = 'preliminary')
    OR (r.status = 'preliminary' AND n.status IN ('', 'final', 'corrected'))
  )
);

CREATE VIEW unmatched_report_view AS SELECT r.id AS report, r.kind, r.match, r.status, r.length AS characters, r.file_id AS file
FROM report r JOIN current_report c ON c.id = r.id WHERE r.match <> 'matched';

CREATE VIEW report_view AS SELECT r.id AS report, r.study_id AS study, r.match, r.matched_by, r.kind, r.thread, r.ordinal, r.status,
  CASE WHEN EXISTS (SELECT 1 FROM current_report c WHERE c.id = r.id) THEN 1 ELSE 0 END AS is_current,
  coalesce((SELECT max(g.language) FROM reading g JOIN current_run c ON c.id = g.run_id WHERE g.report_id = r.id),
    r.language) AS language,
  r.length AS characters,
  (SELECT count(*) FROM finding f JOIN current_run c ON c.id = f.run_id WHERE f.report_id = r.id) AS findings
FROM report r;

CREATE VIEW finding_view AS SELECT r.study_id AS study, s.patient_id AS patient, f.report_id AS report, k.name AS finding, k.category,
  k.region, f.assertion, f.temporality, f.experiencer, f.certainty, f.implied, f.side, f.site, p.name AS site_name,
  f.severity, f.size_mm, f.prior_size_mm, f.count, f.change, f.section, f.start AS text_start, f."end" AS text_end,
  f.cue_start, f.cue_end, f.rule, f.concept_id AS concept, k.radlex, k.mesh, k.snomed
FROM finding f JOIN current_run c ON c.id = f.run_id JOIN concept k ON k.id = f.concept_id
JOIN report r ON r.id = f.report_id JOIN current_report v ON v.id = r.id
LEFT JOIN study s ON s.id = r.study_id LEFT JOIN site p ON p.id = f.site;

CREATE VIEW modifier_view AS SELECT r.study_id AS study, s.patient_id AS patient, m.report_id AS report, k.name AS finding, m.kind, m.value,
  m.start AS words_start, m."end" AS words_end, m.finding_start AS text_start, m.concept_id AS concept
FROM modifier m JOIN current_run c ON c.id = m.run_id JOIN concept k ON k.id = m.concept_id
JOIN report r ON r.id = m.report_id JOIN current_report v ON v.id = r.id
LEFT JOIN study s ON s.id = r.study_id;

CREATE VIEW site_view AS SELECT p.id AS site, p.name, p.kind, p.parent, q.name AS parent_name, p.radlex, p.snomed
FROM site p LEFT JOIN site q ON q.id = p.parent;

CREATE VIEW site_ancestor_view AS WITH RECURSIVE above (site, ancestor, steps) AS (
  SELECT p.id, p.id, 0 FROM site p
  UNION ALL
  SELECT a.site, p.parent, a.steps + 1 FROM above a JOIN site p ON p.id = a.ancestor
  WHERE p.parent <> '' AND a.steps < 20
)
SELECT a.site, a.ancestor, p.name AS ancestor_name, a.steps FROM above a JOIN site p ON p.id = a.ancestor;

CREATE VIEW finding_site_view AS SELECT DISTINCT r.study_id AS study, s.patient_id AS patient, f.report_id AS report, k.name AS finding, f.assertion,
  f.temporality, f.experiencer, p.id AS site, p.name AS site_name, p.kind, f.side, f.start AS text_start,
  f.concept_id AS concept
FROM finding f JOIN current_run c ON c.id = f.run_id JOIN concept k ON k.id = f.concept_id
JOIN report r ON r.id = f.report_id JOIN current_report v ON v.id = r.id
LEFT JOIN study s ON s.id = r.study_id
JOIN modifier m ON m.run_id = f.run_id AND m.report_id = f.report_id AND m.finding_start = f.start
  AND m.concept_id = f.concept_id AND m.kind = 'site'
JOIN site p ON p.id = m.value;

CREATE VIEW note_nlp AS SELECT row_number() OVER (ORDER BY f.report_id, f.start, f.concept_id) AS note_nlp_id, f.report_id AS note_id,
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
JOIN current_report v ON v.id = f.report_id JOIN concept k ON k.id = f.concept_id;

CREATE VIEW disagreement_view AS SELECT r.study_id AS study, s.patient_id AS patient, t.report_id AS report, k.name AS finding,
  CASE t.said WHEN '' THEN 'not mentioned' ELSE t.said END AS said, t.probability,
  CASE t.said WHEN 'present' THEN 1 - t.probability ELSE t.probability END AS surprise, t.concept_id AS concept
FROM text_score t JOIN current_run c ON c.id = t.run_id JOIN concept k ON k.id = t.concept_id
JOIN report r ON r.id = t.report_id JOIN current_report v ON v.id = r.id
LEFT JOIN study s ON s.id = r.study_id
WHERE (t.said IN ('', 'absent') AND t.probability >= 0.3) OR (t.said = 'present' AND t.probability < 0.1);

CREATE VIEW label_view AS SELECT l.study_id AS study, s.patient_id AS patient, k.name AS finding, k.category, l.value, l.confidence, l.side,
  l.mentions, l.implied, l.concept_id AS concept
FROM label l JOIN current_run c ON c.id = l.run_id JOIN concept k ON k.id = l.concept_id
JOIN study s ON s.id = l.study_id;

CREATE VIEW cohort_view AS SELECT h.name AS cohort, m.study_id AS study, s.patient_id AS patient, m.split
FROM cohort h JOIN current_run c ON c.id = h.id JOIN cohort_study m ON m.cohort_id = h.id
JOIN study s ON s.id = m.study_id;

CREATE VIEW anomaly_view AS SELECT c.label AS model, a.image_id AS image, i.study_id AS study, s.patient_id AS patient, a.score, a.p_value,
  a.peak_slice, a.peak_row, a.peak_column
FROM anomaly a JOIN current_run c ON c.id = a.run_id JOIN image i ON i.id = a.image_id
JOIN study s ON s.id = i.study_id;

CREATE VIEW term_map_view AS SELECT t.image_id AS image, i.study_id AS study, s.patient_id AS patient, k.name AS finding, t.score, t.side,
  t.peak_slice, t.peak_row, t.peak_column,
  (SELECT l.value FROM label l JOIN current_run cl ON cl.id = l.run_id
   WHERE l.study_id = i.study_id AND l.concept_id = t.concept_id) AS reported,
  e.verdict, e.auroc, t.concept_id AS concept
FROM term_map t JOIN current_run c ON c.id = t.run_id JOIN run r ON r.id = t.run_id
JOIN image i ON i.id = t.image_id JOIN study s ON s.id = i.study_id JOIN concept k ON k.id = t.concept_id
LEFT JOIN term_evidence e ON e.concept_id = t.concept_id AND CAST(r.recipe AS TEXT) LIKE '%"' || e.run_id || '"%';

CREATE VIEW term_evidence_view AS SELECT k.name AS finding, e.positives, e.studies, e.auroc, e.auroc_low, e.auroc_high, e.verdict,
  e.concept_id AS concept
FROM term_evidence e JOIN current_run c ON c.id = e.run_id JOIN concept k ON k.id = e.concept_id;

CREATE VIEW phenotype_view AS SELECT p.id AS phenotype, p.number, p.name, p.size AS studies, p.stability, p.stable
FROM phenotype p JOIN current_run c ON c.id = p.run_id;

CREATE VIEW membership_view AS SELECT p.number AS phenotype_number, p.name AS phenotype_name, m.study_id AS study, s.patient_id AS patient,
  m.probability, m.split, m.phenotype_id AS phenotype
FROM membership m JOIN current_run c ON c.id = m.run_id JOIN phenotype p ON p.id = m.phenotype_id
JOIN study s ON s.id = m.study_id;

CREATE VIEW enrichment_view AS SELECT p.number AS phenotype_number, p.name AS phenotype_name, k.name AS finding, e.cases, e.expected, e.fold,
  e.p_value, e.q_value, e.replicated, e.phenotype_id AS phenotype, e.concept_id AS concept
FROM enrichment e JOIN current_run c ON c.id = e.run_id JOIN phenotype p ON p.id = e.phenotype_id
JOIN concept k ON k.id = e.concept_id;
