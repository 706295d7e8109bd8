"""The spellings of a report's words: plurals, variants, frequent misspellings and near misses of long words."""

from __future__ import annotations

from functools import lru_cache

_VARIANTS = """
opacity: opacities ggo ggos opac opacites opacitiy oppacity oppacities opasity opcity opacties opacifies
opacification: opacifications opacified opacifying
infiltrate: infiltrates infiltration infiltrations infiltrative infiltrated infiltrat infilitrate
consolidation: consolidations consol consolidating consolodation consolidaton consolidaiton consoldation
consolidative: consolidatory
effusion: effusions eff effs effussion effussions efusion efusions effusin effison
pneumothorax: pneumothoraces pneumothoracies pneumothoraxes pnuemothorax pneumothroax pneumathorax ptx ptxs
pneumonia: pneumonias pna pnas pnuemonia pneumona neumonia pneumonic
atelectasis: atelectases atel atelectatic atelectesis atelectasia atelactasis atelectsis atelecasis atelectais
cardiomegaly: cardiomegally cardiomegaley cardiomegely cardiomegalia cardomegaly megacardia
edema: oedema edemas edematous edma
nodule: nodules nodues
nodular: noduler
mass: masses
lesion: lesions
tumor: tumors tumour tumours
neoplasm: neoplasms neoplastic neoplasia
malignancy: malignancies malignant
metastasis: metastases mets
collapse: collapsed collapses collapsing
tuberculosis: tb
vertebral: vertebra vertebrae
vessel: vessels
hilum: hila
spur: spurs
osteophyte: osteophytes
cephalization: cephalisation cephalized
engorgement: engorged
vasculature: vascularity
cavity: cavities
bilateral: b/l
scar: scars scarring scarrings scarred
marking: markings
change: changes
process: processes
abnormality: abnormalities
infection: infections
fracture: fractures fx fxs fractue frature
tube: tubes tubing ngt ett endotube
catheter: catheters cath catherter
line: lines
lead: leads
wire: wires
valve: valves
port: ports
device: devices
drain: drains
plate: plates
screw: screws
coil: coils
marker: markers
pacemaker: pacemakers
prosthesis: prostheses
picc: piccs
contour: contours countour
silhouette: silhouettes sillhouette silhoutte silouette silhouete silhouettte
structure: structures
border: borders
mediastinal: mediastinial mediastina mediastial mediastianl
cardiomediastinal: cardiomediastial cardiomedistinal
limit: limits
lung: lungs
lobe: lobes
heart: hearts
cardiac: cardia
plaque: plaques
thickening: thickened
granuloma: granulomas granulomata
calcification: calcifications
deformity: deformities
density: densities
bulla: bullae
bleb: blebs
sequela: sequelae sequel
hernia: hernias
cyst: cysts
angle: angles
loop: loops
base: bases
sign: signs
and: &
or: nor andor
versus: vs
not: isn't aren't wasn't weren't doesn't didn't hasn't haven't don't isnt arent wasnt werent doesnt didnt hasnt
  havent dont
cannot: can't cant couldn't couldnt
without: w/o wo
hazy: haze
mask: xxxx unk xxx xxxxx
reticulation: reticulations
enlarged: enlargd enlaged
unremarkable: unremarkble unremarkabe unremarkablle
normal: nomal normla noraml nomral
"""
"Canonical word: its plural, its spelling variants, its frequent misspellings."

_FUZZY = """
opacification infiltrate consolidation consolidative effusion pneumothorax pneumonia atelectasis cardiomegaly
mediastinum mediastinal cardiomediastinal silhouette granuloma calcified fracture catheter pacemaker thickening
fibrosis emphysema congestion degenerative unremarkable hydropneumothorax interstitial
"""
"Long words for which a near miss (one letter; two from eleven letters on) still counts."

_LOOKALIKES = """
calcific calcification catheterization confusion consolidated degenerating degeneration diffusion emphysematous
fibroses fibrotic fractional fractured granulomatous infiltrates infiltrating infusion infusions
mediastinoscopy mediastinotomy opacify perfusion pneumonitis profusion suffusion
"""
"Similar words that mean something else or have an entry of their own."

_GLUED = """
opacity infiltrate consolidation effusion pneumothorax pneumonia atelectasis edema nodule mass lesion scar infection
fracture thickening fibrosis granuloma hemothorax crowding
"""
"Words that reports join with a slash."


@lru_cache(maxsize=1 << 16)
def canonical(word: str) -> str:
    """The singular spelling that the phrases use."""
    if word in _CANONICAL:
        return _CANONICAL[word]
    if word[0] == "_":
        return "mask"
    if word[0] in "-–—":  # a dash between spaces separates statements
        return ";"
    if len(word) < 7 or word in _KNOWN:
        return word
    return _near_miss(word) or (_near_miss(word[:-1]) if word[-1] == "s" else "") or word


def _near_miss(word: str) -> str:
    for known in _LONG:
        most = 2 if len(known) >= 11 else 1
        if word[0] == known[0] and abs(len(word) - len(known)) <= most and _distance(word, known, most) <= most:
            return known
    return ""


@lru_cache(maxsize=1 << 16)
def glued(word: str) -> int:
    """Where a word splits into two known ones, else 0: cleaning that drops "/" leaves "scarringatelectasis"."""
    if len(word) < 11 or word in _KNOWN or word in _CANONICAL:
        return 0
    cuts = range(4, len(word) - 3)
    return next((cut for cut in cuts if _is_finding(word[:cut]) and _is_finding(word[cut:])), 0)


def _is_finding(word: str) -> bool:
    return _CANONICAL.get(word, word) in _ALTERNATIVES


def _distance(first: str, second: str, most: int) -> int:
    """Edit distance, swaps of neighbours included; anything above `most` is returned as `most` + 1."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        older, before, row = before, row, [i]
        for j, b in enumerate(second, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == second[j - 2] and first[i - 2] == b:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return row[-1]


def _read_variants() -> dict[str, str]:
    canonical_of: dict[str, str] = {}
    word = ""
    for part in _VARIANTS.split():
        if part.endswith(":"):
            word = part[:-1]
        else:
            canonical_of[part] = word
    return canonical_of


_CANONICAL = _read_variants()
_LONG = tuple(_FUZZY.split())
_KNOWN = frozenset((*_LOOKALIKES.split(), *_LONG, *_CANONICAL.values()))
_ALTERNATIVES = frozenset(_GLUED.split())
