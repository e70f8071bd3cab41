"""What a header says of modality, body part, view and text in the pixels, checked against what else it says.

Only codes come out: the words that were compared stay in the vault. The tables are data: a line is a code and the words
that mean it, English and German, as `Lexicon` reads them. Codes are the terms of DICOM: body parts of PS3.16 annex L,
modalities of PS3.3 C.7.3.1.1.1, views of C.8.1.1 and C.8.11.7.
"""

from __future__ import annotations

import functools
from collections.abc import Collection

from phenotype.ingest.lexicon import Lexicon, codes_of, table, words

_BODY_PARTS = """
HEAD            cranial cranium kopf neurocran* ncct cct cmrt kranial*
SKULL           schaedel* hirnschaedel* gehirnschaedel*
BRAIN           cerebr* cerebel* gehirn* hirn* zerebr* stroke hypophys* pituitary sella angio_head
FACE            facial gesicht* midface mittelgesicht* gesichtsschaedel* maxillofacial viscerocran*
ORBIT           orbit* augenhoehle*
EAR             ears iac mastoid* petrous felsenbein* innenohr* temporal_bone
SINUS           sinuses nnh nasennebenhoehle* paranasal*
NOSE            nasal nasenbein* nase
JAW             mandib* maxill* kiefer* unterkiefer* oberkiefer* opg panoramic* orthopantom*
TMJ             kiefergelenk* temporomandibular
TOOTH           teeth dental zahn* zaehne
NECK            hals* larynx kehlkopf* pharynx
THYROID         schilddruese*
CAROTID         carotid* karotis* karotid* supraaort*
CHEST           thorax* thorac* thorak* thx lung* pulmo* cxr hrct cardiopulm* brustkorb*
HEART           cardia* herz* kardio* kardia* coronar* koronar* echocard* echokard* ccta
AORTA           aortic aorten*
RIB             ribs rippe* hemithorax rippenthorax
STERNUM         brustbein*
BREAST          breasts mamma* mammo* tomosynth*
SPINE           spinal wirbelsaeule* ganzwirbelsaeule* myel* spinalkanal*
CSPINE          c_spine cervical_spine hws halswirbel* cervical_vertebra* hwk
TSPINE          t_spine thoracic_spine bws brustwirbel* dorsal_spine thoracic_vertebra*
LSPINE          l_spine lumbar_spine lumbal* lws lendenwirbel* lumbar lumbo*
SSPINE          sacrum kreuzbein* sakrum os_sacrum sacral
COCCYX          steissbein*
SIJOINT         sacroiliac* isg iliosakral* iliosacral* si_joint*
ABDOMEN         abdominal* abdo abd abdomen* bauch* kub oberbauch*
LIVER           leber* hepat* mrcp
GALLBLADDER     gallenblase*
PANCREAS        pancrea* pankrea*
SPLEEN          milz*
KIDNEY          kidneys renal niere* urogra* ivu ivp urinary_tract
ADRENAL         adrenal* nebenniere*
BLADDER         harnblase* cystogr* zystogr*
COLON           kolon* colono*
PELVIS          pelvic becken* unterbauch*
PROSTATE        prostat*
UTERUS          gebaermutter*
FETUS           fetal foetal obstetric* fetometr*
HIP             hips huefte* hueft* coxa* lauenstein*
SHOULDER        shoulders schulter*
CLAVICLE        clavic* schluesselbein* klavik*
SCAPULA         schulterblatt* skapula*
HUMERUS         oberarm* upper_arm
ELBOW           ellbogen* ellenbogen*
FOREARM         unterarm* radius ulna
WRIST           handgelenk* handwurzel* scaphoid* skaphoid*
HAND            hands haende mittelhand* bone_age
FINGER          fingers thumb* daumen*
FEMUR           thigh* oberschenkel*
KNEE            knees knie kniegelenk*
PATELLA         kniescheibe*
LEG             legs lower_leg tibia* fibula* unterschenkel* bein beine ganzbein* beinachse*
ANKLE           ankles sprunggelenk* osg knoechel*
FOOT            feet fuss fuesse vorfuss* mittelfuss* rueckfuss* forefoot hindfoot
CALCANEUS       calcan* fersenbein* kalkan* heel
TOE             toes zehe* grosszehe* hallux*
EXTREMITY       extremit* limb limbs
UPPEREXTREMITY  upper_extremit* upper_limb obere_extremit*
LOWEREXTREMITY  lower_extremit* lower_limb untere_extremit*
WHOLEBODY       whole_body ganzkoerper* total_body polytrauma* traumascan* skeletal_survey skelettstatus
-               head_first feet_first head_coil knee_coil spine_coil breast_coil foot_coil femoral_head radial_head
"""
_TOGETHER = """
HEADNECK          HEAD NECK
NECKCHEST         NECK CHEST
NECKCHESTABDOMEN  NECK CHEST ABDOMEN
NECKCHESTABDPELV  NECK CHEST ABDOMEN PELVIS
CHESTABDOMEN      CHEST ABDOMEN
CHESTABDPELVIS    CHEST ABDOMEN PELVIS
ABDOMENPELVIS     ABDOMEN PELVIS
CTSPINE           CSPINE TSPINE
TLSPINE           TSPINE LSPINE
LSSPINE           LSPINE SSPINE
"""
# A part of what: of the two the narrower says more
_WITHIN = """
HEAD            SKULL BRAIN FACE ORBIT EAR SINUS NOSE JAW TMJ TOOTH
SKULL           BRAIN FACE ORBIT EAR SINUS NOSE JAW TMJ TOOTH
FACE            ORBIT SINUS NOSE JAW TMJ TOOTH
JAW             TMJ TOOTH
NECK            THYROID CAROTID
CHEST           AORTA RIB STERNUM BREAST
SPINE           CSPINE TSPINE LSPINE SSPINE COCCYX SIJOINT CTSPINE TLSPINE LSSPINE
ABDOMEN         LIVER GALLBLADDER PANCREAS SPLEEN KIDNEY ADRENAL COLON AORTA
PELVIS          BLADDER PROSTATE UTERUS
HAND            FINGER
KNEE            PATELLA
FOOT            TOE CALCANEUS
EXTREMITY       UPPEREXTREMITY LOWEREXTREMITY SHOULDER HUMERUS ELBOW FOREARM WRIST HAND FINGER CLAVICLE SCAPULA HIP
EXTREMITY       FEMUR KNEE PATELLA LEG ANKLE FOOT TOE CALCANEUS
UPPEREXTREMITY  SHOULDER HUMERUS ELBOW FOREARM WRIST HAND FINGER CLAVICLE SCAPULA
LOWEREXTREMITY  HIP FEMUR KNEE PATELLA LEG ANKLE FOOT TOE CALCANEUS
"""
# Neighbours that one image shows both of: whoever names the one does not contradict whoever names the other
_BESIDE = """
CHEST           HEART RIB TSPINE CLAVICLE SCAPULA NECK
NECK            CSPINE HEAD
ABDOMEN         PELVIS LSPINE KIDNEY BLADDER FETUS
PELVIS          HIP SSPINE SIJOINT COCCYX FETUS LSPINE
SHOULDER        CLAVICLE SCAPULA HUMERUS
LSPINE          SSPINE
WRIST           HAND FOREARM
HIP             FEMUR
KNEE            FEMUR LEG
ANKLE           LEG FOOT CALCANEUS
"""
# Of AnatomicRegionSequence: SNOMED CT and the SNOMED RT identifiers used before (PS3.16 CID 4009, 4031)
_ANATOMY = """
CHEST 816094009 51185008 T-D3000|ABDOMEN 818981001 113345001 T-D4000|PELVIS 816092008 12921003 T-D6000
ABDOMENPELVIS 818982008|CHESTABDOMEN 416550000 R-FAB55|CHESTABDPELVIS 416775004 R-FAB56|NECKCHEST 417437006 R-FAB52
NECKCHESTABDOMEN 416152001 R-FAB53|NECKCHESTABDPELV 416319003 R-FAB54|HEAD 69536005 T-D1100|HEADNECK 774007 T-D1000
SKULL 89546000 T-11100|FACE 91397008 T-11196|BRAIN 12738006 T-A0100|NECK 45048000 T-D1600|ORBIT 363654007 T-D14AE
SINUS 2095001 T-22000|NOSE 74386004 T-11149|JAW 661005 T-D1213 91609006 T-11180 70925003 T-11170
TMJ 53620006 T-15290|SPINE 421060004 T-D04FF|CSPINE 122494005 T-11501|TSPINE 122495006 T-11502
LSPINE 122496007 T-11503|SSPINE 54735007 T-11AD0|COCCYX 64688005 T-11BF0|SIJOINT 39723000 T-15680|TLSPINE 1217256009
LSSPINE 1217253001|HEART 80891009 T-32000|AORTA 15825003 T-42000|RIB 113197003 T-11300|STERNUM 56873002 T-11210
BREAST 76752008 T-04000|LIVER 10200004 T-62000|GALLBLADDER 28231008 T-63000|PANCREAS 15776009 T-65000
KIDNEY 64033007 T-71000|SPLEEN 78961009 T-C3000|BLADDER 89837001 T-74000|COLON 71854001 T-59300
PROSTATE 41216001 T-92000|HIP 24136001 T-15710 29836001 T-D2500|SHOULDER 16982005 T-D2220|CLAVICLE 51299004 T-12310
SCAPULA 79601000 T-12280|HUMERUS 85050009 T-12410 40983000 T-D8200|ELBOW 16953009 T-15430|FOREARM 14975008 T-D8500
WRIST 74670003 T-15460|HAND 85562004 T-D8700|FINGER 7569003 T-D8800 76505004 T-D8810
FEMUR 71341001 T-12710 68367000 T-D9100|KNEE 72696002 T-D9200|PATELLA 64234005 T-12730
LEG 30021000 T-D9400 87342007 T-12750 12611008 T-12740|ANKLE 70258002 T-15750|FOOT 56459004 T-D9700
CALCANEUS 80144004 T-12770|TOE 29707007 T-D9800|EXTREMITY 66019005 T-D0300|UPPEREXTREMITY 53120007 T-D8000
LOWEREXTREMITY 61685007 T-D9000|WHOLEBODY 38266002 T-D0010
"""
# Of ViewCodeSequence (PS3.16 CID 4010, 4014)
_VIEW_CODES = """
PA 272479007 R-40888 R-10214|AP 399348003 R-10206|LATERAL 399173006 R-10236 399198007 R-10232 399067008 R-102CD
OBLIQUE 399059000 R-10216 399312000 R-10208 399038007 R-10210 399006002 R-10212 399356000 R-40985 399135007 R-10220
OBLIQUE 399182000 R-102C1 260427002 R-40783 260426006 R-40782 399236003 R-10234 399184004 R-10238
AXIAL 399061009 R-10241|CC 399162004 R-10242|MLO 399368009 R-10226|ML 399260004 R-10224|LM 399352003 R-10228
LMO 399099002 R-10230|XCCL 399192008 R-1024A|XCCM 399101009 R-1024B|FB 399196006 R-10244|SIO 399188001 R-102D0
ISO 441555000 R-40AAA
"""
_VIEWS = """
PA       posteroanterior* posterior_anterior postero_anterior pa
AP       anteroposterior* anterior_posterior antero_posterior ap
LATERAL  lat seitlich* seitl laterolateral* profil latero_lateral
OBLIQUE  obl schraeg*
AXIAL    axial* tangential* sunrise merchant lauenstein*
LLD      left_lateral_decubitus linksseitenlage*
RLD      right_lateral_decubitus rechtsseitenlage*
"""
_POSITIONS = {"LL": "LATERAL", "RL": "LATERAL", "L": "LATERAL", "RLO": "OBLIQUE", "LLO": "OBLIQUE", "RAO": "OBLIQUE"}
_POSITIONS |= {"LAO": "OBLIQUE", "RPO": "OBLIQUE", "LPO": "OBLIQUE"}  # in a description they may mean something else
_BREAST_VIEWS = frozenset({"CC", "MLO", "ML", "LM", "LMO", "XCC", "XCCL", "XCCM", "FB", "SIO", "ISO"})
_RADIOGRAPHS = frozenset({"CR", "DX", "RG", "MG"})
_FRONTAL, _SIDEWAYS = frozenset({"PA", "AP"}), frozenset({"LATERAL"})

# The beginning of a SOP class, the modality that it stands for, and which others a header may name in its place
_CLASSES = """
ComputedRadiography CR DX RG PX IO MG|DigitalXRay DX CR RG PX IO MG|DigitalMammography MG|DigitalIntraOral IO DX CR PX
BreastTomosynthesis MG|BreastProjection MG|CTImage CT|EnhancedCT CT|LegacyConvertedEnhancedCT CT|MRImage MR
EnhancedMR MR|MRSpectroscopy MR|LegacyConvertedEnhancedMR MR|Ultrasound US IVUS|EnhancedUSVolume US IVUS
XRayAngiographic XA RF|EnhancedXA XA RF|XRay3DAngiographic XA RF CT|XRayRadiofluoroscopic RF XA
EnhancedXRF RF XA|NuclearMedicine NM PT
PositronEmission PT|EnhancedPET PT|LegacyConvertedEnhancedPET PT|IntravascularOpticalCoherence IVOCT
OphthalmicTomography OPT OCT|OphthalmicPhotography OP XC|VLEndoscopic ES GM XC|VideoEndoscopic ES GM XC
VLMicroscopic GM SM|VLSlideCoordinates SM GM|VLWholeSlideMicroscopy SM|VLPhotographic XC ES DMS GM OP
VideoPhotographic XC ES|VideoMicroscopic GM SM|DermoscopicPhotography DMS XC
"""
_MODALITIES = """
AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DSC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER
KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE
RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TG US VA XA XC
"""
# Retired terms and those that were never any
_SPELLINGS = {"PET": "PT", "MRI": "MR", "MA": "MR", "MS": "MR", "DS": "XA", "DSA": "XA", "DF": "RF", "CF": "RF"}
_SPELLINGS |= {"VF": "RF", "EC": "US", "DD": "US", "CD": "US", "ST": "NM", "XR": "DX", "DR": "DX", "CP": "XC"}

_TEXT_DRAWN = frozenset({"US", "IVUS", "ES", "XC", "GM", "OP", "OT", "DOC", "ECG"})  # by the systems themselves
_GREY = frozenset({"CT", "MR", "CR", "DX", "MG", "PT", "XA", "RF"})
_SCREENS = ("SCREEN", "DOSE", "SUMMARY", "REPORT", "CAPTURE")  # in ImageType
# The transfer syntaxes that allow loss, though not every file in them has lost something
_LOSSY = frozenset(
    f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 52, 53, 54, 55, 56, 59, 60, 61, 62, 63, 64, 81, 91, 93, 112, 203)
)


@functools.lru_cache(maxsize=256)
def modality_of(sop_class: str, declared: str) -> tuple[str, str]:
    """The modality and what it rests on: "header"; "class" where the SOP class says otherwise, and counts; "secondary"
    where a secondary capture (a screen, a dose page, a film) names the modality of what it was captured from."""
    declared = declared.strip().upper()
    declared = _SPELLINGS.get(declared, declared)
    known = declared in _MODALITIES.split()
    own = _class_modalities(sop_class)
    if own and declared not in own:
        return own[0], "class"
    if "SecondaryCapture" in sop_class and known and declared != "OT":
        return declared, "secondary"
    return (declared, "header") if known else ("OT", "class")


@functools.lru_cache(maxsize=4096)
def body_part_of(declared: str, codes: tuple[str, ...], descriptions: tuple[str, ...]) -> tuple[str, str]:
    """The body part and what it rests on: "header", "description" (the header is silent), "both", or "contradicted"
    (then the description counts); two empty strings where nothing is said.

    declared      BodyPartExamined in any spelling; codes: of AnatomicRegionSequence, which count before it
    descriptions  from the one nearest to the image to the one of the whole study
    """
    header = next((part for code in codes if (part := _anatomy().get(code, ""))), "") or _united(_parts(declared))
    told = [parts for text in descriptions if (parts := _parts(text))]
    if not header:
        part = next((part for parts in told if (part := _united(parts))), "")
        return (part, "description") if part else ("", "")
    if not told:
        return header, "header"
    for parts in told:
        part = _united(parts)
        if part and part in _wider_than().get(header, ()):
            return part, "both"  # EXTREMITY is no contradiction to a knee, but says less
        if any(_agree(header, one) for one in (part, *sorted(parts)) if one) or _members(header) & parts:
            return header, "both"
    part = next((part for parts in told if (part := _united(parts))), "")
    return (part, "contradicted") if part else (header, "contradicted")


@functools.lru_cache(maxsize=4096)
def view_of(
    modality: str,
    position: str,
    codes: tuple[str, ...],
    descriptions: tuple[str, ...],
    study: tuple[str, ...],
    orientation: tuple[str, ...],
) -> tuple[str, str]:
    """The view of a radiograph and what it rests on: "header" (ViewPosition), "code" (ViewCodeSequence), "description",
    or "contradicted" (then the code counts more than the description, and that more than ViewPosition); two empty
    strings where nothing is said, or where it is no radiograph.

    descriptions  of the image and its series
    study         descriptions of the study: they may speak of another image of it, so they are asked last
    orientation   PatientOrientation, where rows and columns run to: it tells frontal views from lateral ones
    """
    if modality not in _RADIOGRAPHS:
        return "", ""
    breast = modality == "MG"
    code = next((view for code in codes if (view := _view_codes().get(code, ""))), "")
    if not breast and code in ("ML", "LM"):
        code = "LATERAL"  # of a limb
    told = next((view for text in descriptions if (view := _view(text, breast))), "")
    header = _POSITIONS.get(position.strip().upper(), "") if not breast else ""
    header = header or _view(position, breast)
    view = code or told or header
    if not view:
        view = next((view for text in study if (view := _view(text, breast))), "")
        return (view, "description") if view else ("", "")
    if len({code, told, header} - {""}) > 1 or (not breast and _seen_otherwise(view, orientation)):
        return view, "contradicted"
    return view, "header" if header else "code" if code else "description"


def burned_in_of(
    annotation: str, recognisable: str, sop_class: str, modality: str, image_type: tuple[str, ...], photometric: str
) -> str:
    """Whether there is text in the pixels: "declared" or "denied" by BurnedInAnnotation; "likely" where this kind of
    object mostly has some (ultrasound, photographs, captures of screens, colour out of a grey modality), or where a
    person can be recognised; else empty, which promises nothing."""
    if annotation.upper() == "YES":
        return "declared"
    if recognisable.upper() == "YES":
        return "likely"
    if annotation.upper() == "NO":
        return "denied"
    kinds = " ".join(image_type).upper()
    likely = (
        "SecondaryCapture" in sop_class
        or modality in _TEXT_DRAWN
        or any(word in kinds for word in _SCREENS)
        or (modality in _GREY and not photometric.startswith("MONOCHROME"))
    )
    return "likely" if likely else ""


def is_lossy(transfer_syntax: str, flag: str) -> bool:
    """Whether pixels were compressed with loss at some time, as the header says or the transfer syntax allows."""
    return flag == "01" or transfer_syntax in _LOSSY


def _parts(text: str) -> frozenset[str]:
    return _body_words().find(words(text))


def _united(parts: Collection[str]) -> str:
    """One term for all these; empty where there is none."""
    wider = _wider_than()
    left = {part for part in parts if not any(other in wider.get(part, ()) for other in parts)}  # the narrowest
    if "HEART" in left:  # "Herz und Lunge" is a chest
        left -= {"HEART"} if "CHEST" in left else set()
    if len(left) == 1:
        return next(iter(left))
    return next((term for term, members in table(_TOGETHER) if members == left), "")


def _members(part: str) -> frozenset[str]:
    return next((members for term, members in table(_TOGETHER) if term == part), frozenset({part}))


def _agree(one: str, other: str) -> bool:
    """Whether two terms can be meant of one image."""
    if one == other or "WHOLEBODY" in (one, other):
        return True
    both = [(a, b) for a in _members(one) for b in _members(other)]
    if both != [(one, other)]:
        return any(_agree(a, b) for a, b in both)
    wider = _wider_than()
    if one in wider.get(other, ()) or other in wider.get(one, ()):
        return True
    return any(a in beside for a, b in ((one, other), (other, one)) for name, beside in table(_BESIDE) if name == b)


def _view(text: str, breast: bool) -> str:
    """The one view that a text names."""
    named = words(text)
    found = {word.upper() for word in named} & _BREAST_VIEWS if breast else _view_words().find(named)
    return next(iter(found)) if len(found) == 1 else ""


def _seen_otherwise(view: str, orientation: tuple[str, ...]) -> bool:
    """Whether rows that run across the patient are called lateral, or rows that run through him frontal."""
    across = orientation[0][:1].upper() if len(orientation) == 2 else ""
    return (view in _SIDEWAYS and across in ("L", "R")) or (view in _FRONTAL and across in ("A", "P"))


@functools.cache
def _wider_than() -> dict[str, frozenset[str]]:
    """Term -> the narrower ones within it."""
    found: dict[str, frozenset[str]] = {}
    for name, within in table(_WITHIN):
        found[name] = found.get(name, frozenset()) | within
    return found


@functools.cache
def _body_words() -> Lexicon:
    return Lexicon(_BODY_PARTS, (term for term, _ in table(_TOGETHER)))


@functools.cache
def _view_words() -> Lexicon:
    return Lexicon(_VIEWS)


@functools.cache
def _anatomy() -> dict[str, str]:
    return codes_of(_ANATOMY)


@functools.cache
def _view_codes() -> dict[str, str]:
    return codes_of(_VIEW_CODES)


def _class_modalities(sop_class: str) -> tuple[str, ...]:
    lines = (line.split() for line in _CLASSES.replace("|", "\n").strip().splitlines())
    return next((tuple(rest) for start, *rest in lines if sop_class.startswith(start)), ())
