"""What the invented radiologists write: "concepts|sentence", with the truth of the sentence in front of it.

A concept without a mark is asserted, with "?" doubted, with "-" denied. {side} is the patient's side, {place} a part of
a lung with its side, {size} a length, {grade} small, moderate or large.
"""

PRESENT: dict[str, tuple[str, ...]] = {
    "nodule": (
        "nodule|there is a {size} nodule in the {place}.",
        "nodule|{size} pulmonary nodule in the {place}.",
        "nodule|a well-defined nodule measuring {size} projects over the {place}.",
        "nodule|nodule in the {place}, approximately {size} in diameter, not previously described.",
    ),
    "consolidation": (
        "consolidation|there is consolidation in the {place}.",
        "consolidation|dense airspace consolidation involving the {place}.",
        "consolidation+air_bronchogram|consolidation is seen within the {place} with air bronchograms.",
        "airspace_disease|there is airspace disease in the {place}.",
        "opacity|a hazy opacity is present in the {place}.",
        "infiltrate|new infiltrate in the {place}.",
        "consolidation+pneumonia|consolidation in the {place} consistent with pneumonia.",
    ),
    "pleural_effusion": (
        "pleural_effusion|{grade} {side} pleural effusion.",
        "pleural_effusion|there is a {grade} pleural effusion on the {side}.",
        "pleural_effusion|a {grade} {side}-sided pleural effusion is noted.",
        "pleural_effusion|pleural fluid on the {side}, {grade} in amount.",
    ),
    "pneumothorax": (
        "pneumothorax|there is a {side} pneumothorax measuring {size} at its widest.",
        "pneumothorax|{side} apical pneumothorax with a visible pleural line ({size}).",
        "pneumothorax+mediastinal_shift-|{side}-sided pneumothorax of about {size} without mediastinal shift.",
    ),
    "cardiomegaly": (
        "cardiomegaly|the heart is enlarged.",
        "cardiomegaly|the cardiac silhouette is enlarged.",
        "cardiomegaly|there is cardiomegaly.",
        "cardiomegaly|moderate cardiomegaly is again demonstrated.",
        "cardiomegaly|enlarged heart with prominent left ventricle.",
    ),
    "hyperinflation": (
        "hyperinflation+diaphragm_flattening|the lungs are hyperinflated with flattened diaphragms.",
        "hyperinflation|hyperexpanded lungs.",
        "hyperinflation+emphysema|hyperinflation and emphysema of both lungs.",
        "hyperinflation|there is marked hyperinflation of both lungs.",
    ),
    "fibrosis_ild": (
        "fibrosis_ild|bibasilar pulmonary fibrosis.",
        "fibrosis_ild|interstitial fibrosis at both lung bases.",
        "fibrosis_ild|fibrotic changes are seen in both lower lungs.",
        "fibrosis_ild|appearances are those of interstitial lung disease, predominantly basal.",
    ),
    "edema_congestion": (
        "vascular_congestion|there is pulmonary vascular congestion.",
        "pulmonary_edema|mild pulmonary edema.",
        "opacity+pulmonary_edema|perihilar haze in keeping with pulmonary oedema.",
    ),
    "pacemaker": (
        "pacemaker|{side} chest wall pacemaker.",
        "pacemaker|a pacemaker is in place on the {side} with its tip in the ventricle.",
        "pacemaker|single chamber pacemaker on the {side}.",
    ),
    "central_line": (
        "central_line|{side} central venous catheter with its tip in the superior vena cava.",
        "central_line|{side} internal jugular central line, tip over the SVC.",
    ),
}

UNCERTAIN: dict[str, tuple[str, ...]] = {
    "nodule": (
        "nodule?|possible {size} nodule in the {place}.",
        "nodule?|a nodule of {size} in the {place} cannot be excluded.",
    ),
    "consolidation": (
        "consolidation?|questionable consolidation in the {place}.",
        "opacity+pneumonia?|faint opacity in the {place} which may represent pneumonia.",
    ),
    "pleural_effusion": (
        "pleural_effusion?|possible {grade} {side} pleural effusion.",
        "pleural_effusion?|a {grade} {side} pleural effusion cannot be excluded.",
    ),
    "pneumothorax": ("pneumothorax?|suspected {side} apical pneumothorax.",),
    "cardiomegaly": ("cardiomegaly?|the heart may be enlarged, allowing for projection.",),
    "hyperinflation": ("hyperinflation?|possible hyperinflation.",),
    "fibrosis_ild": ("fibrosis_ild?|findings may represent early interstitial fibrosis.",),
    "edema_congestion": ("pulmonary_edema?|mild pulmonary edema is possible.",),
}

IMPRESSION: dict[str, tuple[str, ...]] = {
    "nodule": ("nodule|{side} lung nodule. CT is recommended.", "nodule|{size} {side} pulmonary nodule."),
    "consolidation": ("pneumonia|{side} pneumonia.", "consolidation|consolidation in the {place}."),
    "pleural_effusion": ("pleural_effusion|{side} pleural effusion.",),
    "pneumothorax": ("pneumothorax|{side} pneumothorax.",),
    "cardiomegaly": ("cardiomegaly|cardiomegaly.",),
    "hyperinflation": ("hyperinflation|hyperinflated lungs.", "emphysema|changes of emphysema."),
    "fibrosis_ild": ("fibrosis_ild|pulmonary fibrosis.", "fibrosis_ild|interstitial lung disease."),
    "edema_congestion": ("vascular_congestion|pulmonary congestion.",),
}

DENIALS = (
    "consolidation-+pleural_effusion-+pneumothorax-|no focal consolidation, pleural effusion or pneumothorax.",
    "pleural_effusion-+pneumothorax-|no pleural effusion or pneumothorax is seen.",
    "pleural_effusion-+pneumothorax-|negative for pneumothorax or pleural effusion.",
    "pneumothorax-|there is no evidence of pneumothorax.",
    "pneumothorax-|no pneumothorax.",
    "pleural_effusion-|there is no pleural effusion.",
    "pleural_effusion-|no pleural effusion on either side.",
    "consolidation-|there is no focal consolidation.",
    "consolidation-|the lungs are without consolidation.",
    "pneumonia-|no evidence of pneumonia.",
    "nodule-+mass-|no suspicious pulmonary nodule or mass.",
    "pulmonary_edema-|no pulmonary edema.",
    "fracture-|no acute fracture.",
)

NORMAL_HEART = (
    "cardiomegaly-|no cardiomegaly.",
    "cardiomegaly-|heart size is normal.",
    "cardiomegaly-|the cardiomediastinal silhouette is within normal limits.",
    "cardiomegaly-|cardiac and mediastinal contours are unremarkable.",
)

CLEAR = ("|the lungs are clear.", "|lungs are well expanded and clear.", "|both lungs are clear.")

NORMAL_IMPRESSION = (
    "|no acute cardiopulmonary abnormality.",
    "|normal chest.",
    "|no acute cardiopulmonary process.",
    "|unremarkable examination of the chest.",
)

ASIDES = (  # said, but not to be seen in the phantom
    "spine_degenerative|mild degenerative changes of the thoracic spine.",
    "osteophyte|osteophytes of the thoracic spine.",
    "aortic_tortuosity|the aorta is tortuous.",
    "atherosclerosis|atherosclerotic aorta.",
    "scoliosis|mild scoliosis of the thoracic spine.",
    "granuloma|calcified granuloma in the {place}.",
    "|the visualized bony structures are unremarkable.",
    "|no acute osseous abnormality.",
    "|the trachea is midline.",
)

RESOLVED = (  # on a second study
    "pleural_effusion-|the previously described {side} pleural effusion has resolved.",
    "consolidation-|previously seen consolidation in the {place} is no longer present.",
)

INDICATIONS = (  # questions and history, which say nothing of this picture
    "cough and fever, evaluate for pneumonia",
    "rule out pneumothorax after fall",
    "shortness of breath, question of pleural effusion",
    "history of heart failure",
    "history of pneumonia last year",
    "follow-up of a nodule seen elsewhere",
    "chest pain",
    "preoperative assessment",
    "positive tuberculin test",
    "known COPD, worsening dyspnea",
    "family history of lung cancer",
    "weight loss, exclude mass",
)

TECHNIQUE = {
    "CR": ("PA view of the chest", "single frontal radiograph of the chest", "frontal chest radiograph, upright"),
    "CT": ("CT of the chest without contrast", "low-dose CT of the thorax"),
}
