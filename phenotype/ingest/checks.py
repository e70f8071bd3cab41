"""What a header says of modality, body part, view and text in the pixels, checked against what else it says.

Only codes come out: the words that were compared stay in the vault. The tables are data: a line is a code and the words
that mean it, in English and German, written as `_folded` leaves them; a word with a star is the beginning of one.
Codes are the terms of DICOM PS3.16 annex L (body parts), PS3.3 C.7.3.1.1.1 (modalities), C.8.1.1 and C.8.11.7 (views).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

_BODY_PARTS = """
HEAD            head cranial cranium kopf schaedel* neurocran* hirnschaedel gehirnschaedel ccu
SKULL           skull
BRAIN           brain cerebr* cereb* gehirn* hirn* neuro* zerebr* kranial* cct cmrt stroke hypophys* pituitary sella
FACE            face facial gesicht* midface mittelgesicht gesichtsschaedel maxillofacial viscerocran*
ORBIT           orbit* augenhoehle*
EAR             ear iac mastoid* petrous felsenbein* innenohr* temporal
SINUS           sinus sinuses nnh nasennebenhoehle* paranasal*
NOSE            nasal nose nasenbein* nase
JAW             jaw mandib* maxill* kiefer* unterkiefer* oberkiefer* opg opt panoramic* orthopantom* dvt
TMJ             tmj kiefergelenk*
TOOTH           tooth teeth dental zahn* zaehne
NECK            neck hals* larynx kehlkopf* pharynx soft_tissue_neck halsweichteil* cervic_soft
THYROID         thyroid* schilddruese*
CAROTID         carot* karot* supraaort*
CHEST           chest thorax* thoracic_cage thorak* thx lung* lunge* pulmo* rippenthorax cxr hrct tx_thorax cardiopulm*
HEART           heart cardia* herz* kardio* coronar* koronar* echocard* echokard* ccta
AORTA           aorta* aortic
RIB             rib ribs rippe* hemithorax rippenthorax
STERNUM         sternum brustbein*
BREAST          breast* mamma* mammo* brust tomosynth*
SPINE           spine spinal whole_spine wirbelsaeule* ganzwirbelsaeule* ws myel* spinalkanal
CSPINE          cspine c_spine cervical_spine hws halswirbel* cervic*_spine cwk dens
TSPINE          tspine t_spine thoracic_spine bws brustwirbel* dorsal_spine
LSPINE          lspine l_spine lumbar_spine lumbal* lws lendenwirbel* lumbar lumbo*
SSPINE          sspine sacrum kreuzbein* sakrum os_sacrum sacral
COCCYX          coccyx steissbein*
SIJOINT         sacroiliac* isg iliosakral* iliosacral* si_joint*
ABDOMEN         abdomen* abdominal* abdo abd bauch* kub upper_abdomen oberbauch* abdomenuebersicht* leeraufnahme
LIVER           liver leber* hepat* mrcp
GALLBLADDER     gallbladder gallenblase*
PANCREAS        pancrea* pankrea*
SPLEEN          spleen milz*
KIDNEY          kidney* renal niere* urogr* ivu ivp urinary_tract
ADRENAL         adrenal* nebenniere*
BLADDER         bladder harnblase* cystogr* zystogr*
COLON           colon* kolon* colonogr*
PELVIS          pelvis* pelvic becken* beckenuebersicht* unterbauch*
PROSTATE        prostat*
UTERUS          uterus gebaermutter*
FETUS           fetus fetal foetal obstetric* fetometr*
HIP             hip hips huefte* hueft* coxa* lauenstein*
SHOULDER        shoulder* schulter*
CLAVICLE        clavic* schluesselbein* klavik*
SCAPULA         scapula* schulterblatt* skapula*
HUMERUS         humerus* oberarm* upper_arm
ELBOW           elbow* ellbogen* ellenbogen*
FOREARM         forearm* unterarm* radius ulna
WRIST           wrist* handgelenk* handwurzel* scaphoid* skaphoid*
HAND            hand hands haende mittelhand* bone_age
FINGER          finger* thumb* daumen* thumbs
FEMUR           femur* thigh* oberschenkel*
KNEE            knee* knie* kniegelenk*
PATELLA         patella* kniescheibe*
LEG             leg legs lower_leg tibia* fibula* unterschenkel* bein beine ganzbein* beinachse*
ANKLE           ankle* sprunggelenk* osg knoechel*
FOOT            foot feet fuss fuesse vorfuss* mittelfuss* rueckfuss* forefoot hindfoot
CALCANEUS       calcan* fersenbein* kalkan* heel
TOE             toe toes zehe* grosszehe* hallux*
EXTREMITY       extremit* limb limbs
UPPEREXTREMITY  upper_extremit* arm arms obere_extremit*
LOWEREXTREMITY  lower_extremit* untere_extremit*
WHOLEBODY       wholebody whole_body ganzkoerper* total_body polytrauma* traumascan* skeletal_survey skelettstatus
"""

# A part of what: whoever names the one does not contradict whoever names the other
_WITHIN = {
    "HEAD": "SKULL BRAIN FACE ORBIT EAR SINUS NOSE JAW TMJ TOOTH",
    "SKULL": "BRAIN FACE ORBIT EAR SINUS NOSE JAW TMJ TOOTH",
    "FACE": "ORBIT SINUS NOSE JAW TMJ TOOTH",
    "JAW": "TMJ TOOTH",
    "NECK": "THYROID CAROTID CSPINE",
    "CHEST": "HEART AORTA RIB STERNUM BREAST CLAVICLE SCAPULA TSPINE",
    "SPINE": "CSPINE TSPINE LSPINE SSPINE COCCYX SIJOINT",
    "LSPINE": "SSPINE",
    "ABDOMEN": "LIVER GALLBLADDER PANCREAS SPLEEN KIDNEY ADRENAL BLADDER COLON AORTA LSPINE PELVIS FETUS",
    "PELVIS": "HIP BLADDER PROSTATE UTERUS SSPINE SIJOINT COCCYX FETUS",
    "SHOULDER": "CLAVICLE SCAPULA HUMERUS",
    "HAND": "FINGER WRIST",
    "KNEE": "PATELLA",
    "HIP": "FEMUR",
    "ANKLE": "LEG FOOT",
    "FOOT": "TOE CALCANEUS",
    "EXTREMITY": "SHOULDER HUMERUS ELBOW FOREARM WRIST HAND FINGER HIP FEMUR KNEE PATELLA LEG ANKLE FOOT CALCANEUS TOE "
    "UPPEREXTREMITY LOWEREXTREMITY",
    "UPPEREXTREMITY": "SHOULDER HUMERUS ELBOW FOREARM WRIST HAND FINGER CLAVICLE SCAPULA",
    "LOWEREXTREMITY": "HIP FEMUR KNEE PATELLA LEG ANKLE FOOT CALCANEUS TOE",
}

_TOGETHER = {
    "HEAD NECK": "HEADNECK",
    "CHEST NECK": "NECKCHEST",
    "ABDOMEN CHEST NECK": "NECKCHESTABDOMEN",
    "ABDOMEN CHEST NECK PELVIS": "NECKCHESTABDPELV",
    "ABDOMEN CHEST": "CHESTABDOMEN",
    "ABDOMEN CHEST PELVIS": "CHESTABDPELVIS",
    "ABDOMEN PELVIS": "ABDOMENPELVIS",
    "CSPINE TSPINE": "CTSPINE",
    "LSPINE TSPINE": "TLSPINE",
    "CSPINE LSPINE TSPINE": "SPINE",
    "LSPINE SSPINE": "LSSPINE",
    "FOREARM WRIST": "FOREARM",
    "HAND WRIST": "HAND",
    "HIP PELVIS": "PELVIS",
    "FINGER HAND": "HAND",
    "FOOT TOE": "FOOT",
    "ANKLE FOOT": "ANKLE",
    "KNEE PATELLA": "KNEE",
    "BRAIN HEAD": "BRAIN",
    "HEAD SKULL": "SKULL",
    "CHEST HEART": "HEART",
    "CHEST RIB": "RIB",
    "BREAST CHEST": "BREAST",
    "AORTA CHEST": "AORTA",
    "ABDOMEN AORTA": "AORTA",
    "ABDOMEN LIVER": "LIVER",
    "ABDOMEN KIDNEY": "KIDNEY",
    "FACE HEAD": "FACE",
    "HEAD SINUS": "SINUS",
    "PELVIS PROSTATE": "PROSTATE",
}

# Of AnatomicRegionSequence: SNOMED CT and the older SNOMED RT identifiers of the same (PS3.16 CID 4009, 4031)
_ANATOMY = """
CHEST 51185008 T-D3000|ABDOMEN 818981001 113345001 T-D4000|PELVIS 816092008 12921003 T-D6000|HEAD 69536005 T-D1100
BRAIN 12738006 T-A0100|NECK 45048000 T-D1600|SPINE 421060004 51282000 T-D04FF|CSPINE 122494005 T-11501
TSPINE 122495006 T-11502|LSPINE 122496007 T-11503|SSPINE 54735007 T-11AD0|BREAST 76752008 T-04000|HEART 80891009 T-32000
HIP 24136001 T-15710|KNEE 72696002 T-D9200|SHOULDER 16982005 T-D2220|ELBOW 16953009 T-D8300|WRIST 8205005 T-15460
HAND 85562004 T-D8700|FINGER 7569003 T-D8800|FOOT 56459004 T-D9700|ANKLE 70258002 T-15750|FEMUR 71341001 T-12710
HUMERUS 85050009 T-12410|FOREARM 14975008 T-D8500|LEG 30021000 T-D9400|CLAVICLE 51299004 T-12310|RIB 113197003 T-11300
SKULL 89546000 T-11100|JAW 661005 T-D1213|LIVER 10200004 T-62000|KIDNEY 64033007 T-71000|WHOLEBODY 38266002 T-D0010
AORTA 15825003 T-42000|PROSTATE 41216001 T-92000|CALCANEUS 80144004 T-12770|TOE 29707007 T-D9800|PATELLA 64234005 T-12730
SCAPULA 79601000 T-12280|STERNUM 56873002 T-11210|CHESTABDPELVIS 416775004|CHESTABDOMEN 416550000|ABDOMENPELVIS 416949008
"""

_VIEWS = """
PA      pa p_a posteroanterior posterior_anterior postero_anterior
AP      ap a_p anteroposterior anterior_posterior antero_posterior
LATERAL lateral lat ll rl seitlich seitl seite laterolateral latero_lateral l_l profil sag
OBLIQUE oblique obl schraeg rlo llo rao lao rpo lpo
LLD     lld left_lateral_decubitus linksseitenlage
RLD     rld right_lateral_decubitus rechtsseitenlage
"""
# Mammography, where the words would mean something else elsewhere
_BREAST_VIEWS = frozenset("CC MLO ML LM LMO XCC XCCL XCCM FB SIO ISO CV AT RM RL SPECIMEN".split())
# Of ViewCodeSequence (PS3.16 CID 4010, 4014)
_VIEW_CODES = """
PA R-10214 R-10212 399348003 272479007|AP R-10206 R-10202 399067008 272460009 R-10208|CC R-10242 399162004
LATERAL R-10236 R-10232 R-10238 399198007 399173006 399296001 399142001 272455002 399182000
OBLIQUE R-10216 R-10218 R-10220 R-10222 R-10224 399033003 399135006 399108007 399132009|MLO R-10226 399368009
ML R-10224 399260004|LM R-10228 399352003|LMO R-10230 399099002|XCC R-1024A 399011000|XCCL Y-X1770 399265009
XCCM Y-X1771 399101009
"""
_RADIOGRAPHS = frozenset({"CR", "DX", "RG", "MG"})
_FRONTAL = frozenset({"PA", "AP"})

# The beginning of a SOP class: the modality that it stands for, and which others a header may name beside it
_CLASSES = """
ComputedRadiography CR DX RG PX IO MG
DigitalXRay DX CR RG PX IO MG
DigitalMammography MG
DigitalIntraOral IO DX CR
BreastTomosynthesis MG
BreastProjection MG
CTImage CT
EnhancedCT CT
LegacyConvertedEnhancedCT CT
MR MR
EnhancedMR MR
LegacyConvertedEnhancedMR MR
Ultrasound US IVUS ES
EnhancedUSVolume US
XRayAngiographic XA RF
EnhancedXA XA RF
XRay3DAngiographic XA RF CT
XRayRadiofluoroscopic RF XA
EnhancedXRF RF XA
NuclearMedicine NM PT
PositronEmissionTomography PT
EnhancedPET PT
LegacyConvertedEnhancedPET PT
IntravascularOpticalCoherenceTomography IVOCT
OphthalmicTomography OPT OCT
OphthalmicPhotography OP XC
VLEndoscopic ES GM XC
VideoEndoscopic ES GM XC
VLMicroscopic GM SM
VLSlideCoordinatesMicroscopic SM GM
VLWholeSlideMicroscopy SM
VLPhotographic XC ES DMS DSC GM OP
VideoPhotographic XC ES
"""
_MODALITIES = frozenset(
    "AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DSC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS "
    "KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE "
    "RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XC".split()
)
_MODALITY_SPELLINGS = {"PET": "PT", "MRI": "MR", "MA": "MR", "MS": "MR", "DS": "XA", "DSA": "XA", "DF": "RF", "CF": "RF"}
_MODALITY_SPELLINGS |= {"VF": "RF", "EC": "US", "DD": "US", "CD": "US", "ST": "NM", "XR": "DX", "DR": "DX", "CP": "XC"}

_TEXT_IN_PIXELS = frozenset({"US", "IVUS", "ES", "XC", "GM", "OP", "OT", "DOC", "PX", "ECG"})  # systems that draw text
_SCREEN = ("SCREEN", "DOSE", "SCANOGRAM", "SUMMARY", "REPORT", "CAPTURE", "PASTED")  # in ImageType

_LOSSY = frozenset(
    "1.2.840.10008.1.2.4." + end for end in "50 51 52 53 54 55 56 59 60 61 62 63 64 81 91 93 112 203".split()
)  # those that allow loss, though some files in them have none


def modality_of(sop_class: str, declared: str) -> tuple[str, str]:
    """The modality and what it rests on: "header"; "class" where the SOP class says otherwise; "secondary" where the
    header names the modality of a secondary capture (a screen, a dose page, a film), which the pixels are not of."""
    declared = declared.strip().upper()
    declared = _MODALITY_SPELLINGS.get(declared, declared)
    if sop_class.startswith("SecondaryCapture") or "SecondaryCapture" in sop_class:
        return (declared, "secondary") if declared in _MODALITIES - {"OT"} else ("OT", "header" if declared else "class")
    own = _class_modalities(sop_class)
    if own and declared not in own:
        return own[0], "class"
    return (declared, "header") if declared in _MODALITIES else ("OT", "header" if declared else "class")


@functools.lru_cache(maxsize=4096)
def body_part_of(declared: str, codes: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, str]:
    """The body part and what it rests on: "header", "description" (the header is silent), "both", or "contradicted"
    (then the description counts); two empty strings where nothing is said.

    declared  BodyPartExamined, any spelling        codes  of AnatomicRegionSequence
    words     descriptions, from the one nearest to the image to the one of the whole study
    """
    header = _anatomy().get(codes[0], "") if codes else ""
    header = header or _part(declared)
    told = next((part for part in map(_part, words) if part), "")
    if not told or not header:
        return (header, "header") if header else (told, "description") if told else ("", "")
    for text in words:
        mentioned = _parts(text)
        for part in sorted(mentioned, key=lambda p: p != header):
            if part == header or header in _inside(part) or part in _inside(header):
                # the narrower of the two says more
                return (part if part in _inside(header) and len(mentioned) == 1 else header), "both"
    united = _together(frozenset(_members(header)))
    if any(_members(header) <= _parts(text) for text in words if united):
        return header, "both"
    return told, "contradicted"


@functools.lru_cache(maxsize=4096)
def view_of(
    modality: str, position: str, codes: tuple[str, ...], words: tuple[str, ...], orientation: tuple[str, ...]
) -> tuple[str, str]:
    """The view of a radiograph and what it rests on: "header" (ViewPosition), "code" (ViewCodeSequence), "description",
    or "contradicted" (then the code counts more than the description, and that more than ViewPosition); two empty
    strings where nothing is said, or where it is no radiograph.

    orientation  PatientOrientation: where rows and columns run to; tells only whether the view is frontal
    """
    if modality not in _RADIOGRAPHS:
        return "", ""
    breast = modality == "MG"
    said = {
        "code": next((view for code in codes if (view := _view_codes().get(code, ""))), ""),
        "description": next((view for text in words if (view := _one_view(text, breast))), ""),
        "header": _one_view(position, breast),
    }
    heard = [(view, basis) for basis, view in said.items() if view]
    if not heard:
        return "", ""
    view = heard[0][0]
    if len({other for other, _ in heard}) > 1 or (not breast and _seen_from_elsewhere(view, orientation)):
        return view, "contradicted"
    return view, "header" if said["header"] else heard[0][1]


def burned_in_of(
    annotation: str, recognisable: str, sop_class: str, modality: str, image_type: tuple[str, ...], photometric: str
) -> str:
    """Whether there is text in the pixels: "declared" or "denied" by BurnedInAnnotation; "likely" where the kind of
    object mostly has some (ultrasound, photographs, screen captures, colour out of a grey modality), or where a person
    can be recognised; else empty, which is no promise."""
    if annotation.upper() == "YES":
        return "declared"
    if recognisable.upper() == "YES":
        return "likely"
    if annotation.upper() == "NO":
        return "denied"
    kinds = " ".join(image_type).upper()
    likely = (
        "SecondaryCapture" in sop_class
        or modality in _TEXT_IN_PIXELS
        or any(word in kinds for word in _SCREEN)
        or (modality in ("CT", "MR", "CR", "DX", "MG", "RF", "XA", "NM", "PT") and not photometric.startswith("MONO"))
    )
    return "likely" if likely else ""


def is_lossy(transfer_syntax: str, flag: str, ratio: str = "") -> bool:
    """Whether the pixels were compressed with loss at some time, as the header tells or the transfer syntax allows."""
    return flag.strip() == "01" or bool(ratio) or transfer_syntax in _LOSSY


@functools.lru_cache(maxsize=256)
def _class_modalities(sop_class: str) -> tuple[str, ...]:
    lines = (line.split() for line in _CLASSES.strip().splitlines())
    return next((tuple(rest) for start, *rest in lines if sop_class.startswith(start)), ())


def _folded(text: str) -> list[str]:
    """The words of a text in small plain letters."""
    text = text.casefold()
    for letter, plain in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss")):
        text = text.replace(letter, plain)
    text = re.sub(r"\b([ap])\.\s?([ap])\b\.?", r"\1\2", text)  # a.p., p. a.
    return re.findall(r"[a-z]+", text)


class _Words:
    """A table of codes and the words that mean them: single words, beginnings of words, and phrases."""

    def __init__(self, table: str) -> None:
        self.whole: dict[str, str] = {}
        self.begin: dict[str, str] = {}
        self.phrase: dict[tuple[str, ...], str] = {}
        for line in table.strip().splitlines():
            code, *words = line.split()
            for word in [code.lower(), *words]:
                parts = tuple(word.rstrip("*").split("_"))
                if len(parts) > 1:
                    self.phrase[parts] = code
                elif word.endswith("*"):
                    self.begin[parts[0]] = code
                else:
                    self.whole[word] = code

    def find(self, words: Iterable[str]) -> frozenset[str]:
        """The codes that these words mean; of phrases and words, and of beginnings, the longest."""
        rest, found = list(words), set()
        for parts, code in self.phrase.items():
            for i in range(len(rest) - len(parts) + 1):
                here = rest[i : i + len(parts)]
                if here[:-1] == list(parts[:-1]) and here[-1].startswith(parts[-1]):
                    found.add(code)
                    rest[i : i + len(parts)] = [""] * len(parts)
        for word in rest:
            code = self.whole.get(word, "")
            for size in range(len(word), 2, -1):
                code = code or self.begin.get(word[:size], "")
            if code:
                found.add(code)
        return frozenset(found)


@functools.cache
def _body_words() -> _Words:
    return _Words(_BODY_PARTS)


@functools.cache
def _view_words() -> _Words:
    return _Words(_VIEWS)


@functools.cache
def _anatomy() -> dict[str, str]:
    return _codes(_ANATOMY)


@functools.cache
def _view_codes() -> dict[str, str]:
    return _codes(_VIEW_CODES)


def _codes(table: str) -> dict[str, str]:
    lines = (line.split() for line in table.replace("|", "\n").strip().splitlines())
    return {code: term for term, *codes in lines for code in codes}
