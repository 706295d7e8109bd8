"""Phrases that name one of the 14 observations in a chest X-ray report.

A phrase is a sequence of canonical words (see `spellings`: one spelling, singular). The longest phrase at a position wins; a
phrase of `NOT_MEANT` suppresses the shorter ones inside it. Where its output shows a habit, the mapping from findings to
observations follows the CheXpert labeler: scarring and interstitial markings are Lung Opacity, pulmonary fibrosis is Pleural
Other; a calcified nodule or granuloma is not a Lung Lesion, clips and stents are not Support Devices, blunting of an angle is
not an effusion.
"""

from __future__ import annotations

OTHER = "other finding"
"Not an observation: a finding that rules out `No Finding` without being one of the other thirteen."

FINDINGS: dict[str, str] = {
    "Enlarged Cardiomediastinum": "mediastinal widening; mediastinal enlargement; cardiomediastinal enlargement",
    "Cardiomegaly": "cardiomegaly; cardiac enlargement; enlargement of heart; cardiac dilatation; megalocardia",
    "Lung Lesion": """
        nodule; nodular opacity; nodular density; nodular infiltrate; nodularity; mass; mass lesion; masslike; mass
        like; lesion; lung cancer; neoplasm; tumor; malignancy; carcinoma; metastasis; metastatic disease; cavitation;
        reticulonodular; reticular nodular; lump""",
    "Lung Opacity": """
        opacity; opacification; infiltrate; airspace disease; airspace process; airspace density; airspace
        abnormality; interstitial marking; interstitial disease; interstitial lung disease; interstitial change;
        interstitial lung change; interstitial process; interstitial abnormality; interstitial infiltrate;
        reticulation; scar; pleural parenchymal scar; pleuroparenchymal scar; parenchymal disease; ground glass;
        haziness; hazy density; parenchymal scar; reticulonodular; lung density; reticular marking; ground glass opacity""",
    "Edema": """
        edema; heart failure; cardiac failure; chf; congestive failure; fluid overload; volume overload; cardiac
        decompensation""",
    "Consolidation": "consolidation; consolidative; consolidated",
    "Pneumonia": "pneumonia; infection; infectious process; infectious infiltrate; bronchopneumonia; infectious",
    "Atelectasis": """
        atelectasis; collapse; collapse of lung; collapse of left; collapse of right; collapse of the left; collapse of the
        right; lobe is collapsed; lung is collapsed; lobar collapse; lobe collapse; lung collapse; collapsed lung""",
    "Pneumothorax": "pneumothorax; hydropneumothorax; hemopneumothorax",
    "Pleural Effusion": """
        effusion; pleural effusion; pleural fluid; hydrothorax; hemothorax; hydropneumothorax; hemopneumothorax;
        empyema; fluid in pleural space; fluid in the pleural space; fluid in the right pleural space; fluid in the left
        pleural space""",
    "Pleural Other": """
        pleural thickening; pleural scar; pleural plaque; plaque; fibrosis; fibrothorax; pleural fibrosis; pleural
        abnormality; pleural disease; pleural calcification; pleural based thickening; apical cap; mesothelioma""",
    "Fracture": "fracture; fractured",
    "Support Devices": """
        tube; catheter; picc; picc line; central line; venous line; arterial line; dialysis line; ij line; jugular
        line; subclavian line; femoral line; line tip; tip of line; support line; line and tube; central venous
        access; pacemaker; pacer; icd; aicd; defibrillator; generator; port; mediport; portacath; port a cath;
        infusaport; valve; hardware; device; cannula; coil; screw; orthopedic plate; fixation plate; metallic plate;
        arthroplasty; sternal wire; sternotomy wire; pacing wire; pacemaker lead; pacer lead; pacing lead; icd lead;
        cabg marker; nipple marker; surgical marker; marker; swan ganz; drain; stimulator; balloon pump; ecmo;
        tracheostomy; closure device; guidewire""",
    OTHER: """
        degenerative; calcified; calcification; calcific; granuloma; granulomatous; atherosclerosis; atherosclerotic;
        tortuous; hyperinflation; hyperinflated; hyperlucent; scoliosis; levoscoliosis; dextroscoliosis; kyphosis;
        deformity; hernia; elevation; eventration; emphysema; emphysematous; copd; bulla; bleb; blunting; blunted;
        flattening; flattened; prominent; prominence; density; pectus; fat pad; epicardial fat; arthritic; osteopenia;
        demineralization; bullet; lymphadenopathy; adenopathy; aneurysm; osteoarthritis; thickening; bronchiectasis;
        bronchial wall; calcified nodule; calcified lung nodule; calcified pulmonary nodule; calcified mass;
        obstructive; sequela; cyst; ectatic; ectasia; shrapnel; rounded; adhesion; lipoma; mastectomy; elevated;
        overexpanded; air trapping; hyperexpansion; tuberculosis; sarcoidosis; lucency; crowding of marking""",
}

UNSURE: dict[str, str] = {
    "Edema": "vascular congestion; venous congestion; pulmonary congestion; vascular prominence; central congestion",
}
"Phrases that do not assert the observation: uncertain unless negated (the CheXpert labeler's habit)."

PLAIN_FINDINGS: dict[str, str] = {
    "Lung Opacity": """
        base density; basal density; basilar density; bibasilar density; lobe density; patchy density; density in
        base; density in left base; density in right base; density in the base; density in the left base; density in
        the right base; density at base; density at left base; density at right base; density at the base; density at
        the left base; density at the right base; density in lung; density in left lung; density in right lung;
        density in the lung; density in the left lung; density in the right lung; density at lung; density at left
        lung; density at right lung; density at the lung; density at the left lung; density at the right lung; ild;
        white out; whiteout""",
    "Edema": "failure; decompensated",
    "Pneumonia": "vap; pneumonitis",
    "Support Devices": """
        iabp; uvc; uac; umbilical line; cvc; cvl; hd line; pa line; central access; ij; rij; lij; shunt; lvad; rvad;
        bivad; vad; impella; ppm; trach; dobhoff; dobbhoff; dht; corpak; ogt; peg; mainstem intubation; main stem
        intubation; main stem bronchus intubation; mainstem bronchus intubation; bronchial intubation; esophageal
        intubation; intubated; intubation; swan""",
    OTHER: """
        free air; free intraperitoneal air; free peritoneal air; free abdominal air; free subdiaphragmatic air;
        intraperitoneal air; extraluminal air; subdiaphragmatic air; subdiaphragmatic gas; free gas; pneumoperitoneum;
        air is seen under; air seen under; air is seen beneath; air beneath; air beneath the diaphragm; air below the
        diaphragm; tracheal collapse; airway collapse; radiation pneumonitis; enlarged right hilum; enlarged left
        hilum; hilum is enlarged; right hilum is enlarged; hilum are enlarged; air under the diaphragm; air under the
        hemidiaphragm; air under the right hemidiaphragm; air under the left hemidiaphragm; pneumomediastinum;
        mediastinal air; mediastinal gas; pneumopericardium; subcutaneous air; subcutaneous gas; soft tissue air; soft
        tissue gas; chest wall air; pneumatosis; portal venous gas; pneumatocele; interstitial air; air leak; ards;
        acute respiratory distress syndrome; respiratory distress syndrome; adult respiratory distress syndrome; rds;
        acute lung injury; hyaline membrane disease; hyaline membrane; surfactant deficiency; bronchopulmonary
        dysplasia; bpd; chronic lung disease; transient tachypnea of newborn; transient tachypnea of the newborn;
        transient tachypnea; ttn; meconium aspiration; aspiration; pulmonary hypoplasia; lung hypoplasia; hypoplastic
        lung; agenesis; dextrocardia; dextroposition; dextroversion; situs inversus; situs ambiguus; heterotaxy; right
        aortic arch; right sided aortic arch; double aortic arch; coarctation; rib notching; scimitar; sequestration;
        arteriovenous malformation; avm; pulmonary embolism; pulmonary embolus; pulmonary infarct; pulmonary
        infarction; infarct; infarction; dissection; pseudoaneurysm; transection; pulmonary hypertension; arterial
        hypertension; pulmonary arterial hypertension; cor pulmonale; hilar enlargement; enlarged hilum; enlarged
        hila; hilar fullness; enlarged pulmonary artery; enlarged main pulmonary artery; bilateral hilar enlargement;
        enlarged node; enlarged lymph node; pericardial effusion; pericardial fluid; oligemia; overcirculation; shunt
        vascularity; increased pulmonary vascularity; kerley b line; kerley line; kerley; septal line; septal
        thickening; peribronchial cuffing; bronchial cuffing; bronchiolitis; bronchitis; asthma; air bronchogram; tree
        in bud; honeycombing; silicosis; asbestosis; pneumoconiosis; alveolar proteinosis; cystic fibrosis;
        lymphangitic spread; lymphangitic; abscess; lung abscess; cavity; mucus plug; mucus plugging; mucous plug;
        mucous plugging; mucoid impaction; foreign body; tracheal deviation; tracheal narrowing; tracheal stenosis;
        airway narrowing; subglottic narrowing; subglottic stenosis; croup; steeple sign; thumb sign; mediastinal
        shift; shift of mediastinum; shift of the mediastinum; volume loss; loss of volume; lobectomy; pneumonectomy;
        paralysis of diaphragm; diaphragmatic paralysis; diaphragmatic rupture; ruptured diaphragm; diaphragmatic
        injury; achalasia; megaesophagus; dilated esophagus; esophageal dilatation; esophageal perforation; bowel
        obstruction; small bowel obstruction; dilated bowel; dilated loop of bowel; dilated loop; ileus; volvulus;
        gastric distention; distended stomach; gastric distension; ascites; hepatomegaly; splenomegaly;
        hepatosplenomegaly; goiter; enlarged thyroid; gallstone; cholelithiasis; nephrolithiasis; dislocation;
        dislocated; subluxation; osteophyte; osteophytosis; spondylosis; spurring; spur; osteoporosis; osteoporotic;
        avascular necrosis; osteonecrosis; osteomyelitis; cervical rib; bone lesion; bony lesion; osseous lesion; rib
        lesion; lytic lesion; blastic lesion; sclerotic lesion; destructive lesion; bony metastasis; osseous
        metastasis; bone metastasis; lytic or blastic lesion; erosion; bone destruction; breast mass; soft tissue
        mass; chest wall mass; abdominal mass; axillary mass; thyroid mass; renal mass; liver lesion; situs
        abnormality; misplaced; malpositioned; malposition; malpositioning; nondiagnostic; non diagnostic; not
        diagnostic; uninterpretable; deep sulcus; deep sulcus sign; meniscus sign; rigler sign; football sign; hampton
        hump; westermark sign; westermark; golden s sign; luftsichel sign; luftsichel; double wall sign; continuous
        diaphragm sign; silhouette sign; spine sign; water bottle; air crescent sign; finger in glove; calcified
        density; calcific density; rounded density""",
}
"Phrases that the CheXpert labeler does not know: they count in the plain reading only."

PLAIN_UNSURE: dict[str, str] = {
    "Edema": """
        hilar congestion; cephalization; cephalization of flow; vascular redistribution; flow redistribution;
        redistribution of flow; redistribution of vessel; vascular engorgement; venous engorgement; vessel
        engorgement; engorgement of vessel; pulmonary venous hypertension; venous hypertension; vascular
        indistinctness; vascular indistinct; indistinct vessel; indistinct vasculature""",
    "Fracture": """
        compression deformity; wedge deformity; vertebral deformity; vertebral body deformity; anterior wedging;
        vertebral wedging; vertebral body height loss; vertebral height loss; loss of vertebral body height; loss of
        vertebral height; loss of height""",
    "Pneumothorax": "deep sulcus; deep sulcus sign; visceral pleural line",
    "Atelectasis": "luftsichel sign; luftsichel; golden s sign",
}
"The same, of phrases that do not assert the observation."

NOT_MEANT = """
    joint effusion; pericardial effusion; knee effusion; soft tissue edema; subcutaneous edema; breast mass; abdominal
    mass; soft tissue mass; axillary mass; pleural line; lung line; fissure line; midclavicular line; skin fold;
    breast tissue density; bone density; bony density; body mass; mass effect; disc disease; joint disease; bone
    lesion; bony lesion; osseous lesion; rib lesion; lytic lesion; blastic lesion; sclerotic lesion; bony metastasis;
    osseous metastasis; bone metastasis; valve plane; fluid level; aggressive lesion; aggressive osseous lesion;
    destructive lesion; destructive bony lesion; skin lesion; vertebral lesion; spinal lesion; liver lesion; renal
    mass; thyroid mass; pleural scar; pleural parenchymal scar; pleuroparenchymal scar; breast prosthesis; breast
    implant; soft tissue lesion; air fluid level; focal bony lesion; chest wall mass; adnexal mass; lytic or blastic
    lesion; paratracheal line; kerley line; septal line; kerley b line; plate like; line of; tube feeding; peripheral
    edema; leg edema; extremity edema; urinary tract infection; renal failure; respiratory failure; liver failure;
    hepatic failure; kidney failure; failure to; lead failure; hardware failure; failure of; treatment failure;
    multiorgan failure; radiation pneumonitis; radiation change; needle aspiration; aspiration precaution; nasal
    congestion; silhouette sign; joint space; shunt vascularity; nodular density; calcified density; calcific density;
    rounded density; vascular engorgement appear within; vascular engorgement appears within; vascular engorgement is
    within"""
"Shorter phrases inside these do not count. Most only resemble a finding; one that a finding also lists names it alone."

ORGANS: dict[str, str] = {
    "Cardiomegaly": """
        heart; heart size; cardiac size; size of heart; cardiac silhouette; cardiac silhouette size; heart silhouette;
        cardiac shadow; heart shadow; cardiac diameter; cardiac contour; heart contour; cardiac border; cardiac
        silhouette contour; cardiothoracic ratio; cardiac and mediastinal contour; cardiac and mediastinal silhouette""",
    "Enlarged Cardiomediastinum": """
        mediastinum; mediastinal contour; mediastinal silhouette; mediastinal width; mediastinal shadow; mediastinal
        configuration; mediastinal structure; mediastinal border; mediastinal size; superior mediastinum; upper
        mediastinum; cardiomediastinal silhouette; cardiomediastinal contour; cardiomediastinal size;
        cardiomediastinum; cardiomediastinal shadow; cardiomediastinal border; cardiomediastinal structure;
        cardiomediastinal configuration; cardiomediastinal; mediastinal and hilar contour; mediastinal and hilar
        silhouette; mediastinal and hilar structure; cardiac and mediastinal contour; cardiac and mediastinal
        silhouette; cardiac and mediastinal mask; cardiac mediastinal silhouette; cardiac mediastinal contour; cardiac
        and mediastinal structure; cardiac and mediastinal border; cardiac and mediastinal shadow; cardio mediastinal
        silhouette; cardio mediastinal contour; cardiac contour; heart contour; cardiac hilar and mediastinal contour;
        cardiac and hilar contour""",
}
"Structures judged by the words next to them: normal, enlarged or stable."

PREDICATES: dict[str, str] = {
    "normal": """
        normal; unremarkable; within normal limit; in normal limit; within normal; limit of normal; normal limit;
        within limit; upper normal; high normal; upper limit of normal; upper limit normal; top normal; high limit of
        normal; upper range of normal; upper limit; wnl; nonenlarged; non enlarged; not enlarged; not large; not
        widened; not prominent; not increased; not dilated; not significantly enlarged; not grossly enlarged; not
        wide; negative; not clearly enlarged; not definitely enlarged; not overtly enlarged; not remarkable; intact;
        unenlarged""",
    "abnormal": """
        enlarged; large; larger; increased; prominent; widened; wide; dilated; enlargement; widening; prominence;
        borderline; borderline normal; abnormal; big; globular; increase; megaly; fullness; enlarging; widen""",
    "stable": "stable; unchanged; similar; not changed; not significantly changed; no change; constant",
    "not of size": "clear; tortuous; obscured; shifted; deviated; midline; calcified; rotated",
}
"What a word next to an organ says about it; words of the last group describe something else and end the search."
