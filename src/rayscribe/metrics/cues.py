"""Cues of negation, uncertainty and scope, in the manner of NegEx (Chapman et al., 2001).

A forward cue applies to what follows it, a backward cue to what precedes it. The longest cue at a position wins, so that
"no change in" and "cannot exclude" are not read as negations.
"""

from __future__ import annotations

from rayscribe.metrics.phrases import word_set

NO = "deny what follows"
MAYBE = "doubt what follows, even inside a negation"
LINK = "doubt what follows, unless it is denied"
SURE = "join what follows without changing it"
IDLE = "look like a negation and are none"
STOP = "end the reach of every cue"
WAS_NO = "deny what stands before"
WAS_MAYBE = "doubt what stands before"
EITHER = "doubt both sides"
PURPOSE = "name a question, not a finding"
PAST = "name what once was, not what the images show"

BYGONE = 4
"The state of a finding that a sentence names only as history; no state of `rayscribe.labels`."

CUES: dict[str, str] = {
    NO: """
        does not show; do not show; does not demonstrate; do not demonstrate; does not reveal; do not reveal; no; not;
        without; without evidence of; without any; no evidence of; no evidence for; no definite; no sign of; no signs
        of; no suggestion of; no indication of; no typical finding of; no typical findings of; negative for; free of;
        free from; clear of; absence of; absent; resolution of; interval resolution of; complete resolution of;
        clearing of; interval clearing of; removal of; interval removal of; removed; status post removal of; no
        longer; no longer any; no further; never; neither; none of; denies; lack of; rather than; instead of; exclude
        the presence of; rules out; ruled out for; fails to reveal; fails to show; failed to demonstrate; no
        radiographic evidence of; devoid of; no concern for; no concern of; no suspicion for; no suspicion of; low
        suspicion for; unlikely; unlikely to represent; not likely; not likely to represent; not suggestive of; not
        consistent with; not compatible with; not typical of; not typical for; not suspicious for; not concerning for;
        no findings to suggest; no finding to suggest; no findings of; nothing to suggest; no evidence to suggest; no
        possible; no probable; argues against; argue against; nonvisualization of; no recurrence of; no reaccumulation
        of; no development of; resolved; no history of; no definite evidence of; no convincing evidence of; does not
        represent; do not represent; ruled out; no evidence; no longer has; no longer have; no longer demonstrates; no
        longer shows; no more; not due to; not related to; no reason to suspect; resolution of the; resolution of
        previously seen; : no; is negative for; are negative for; is unlikely to represent; are unlikely to represent;
        unlikely that; is unlikely to be; unlikely to be; unlikely to reflect; is unlikely to reflect; unlikely due
        to; is not likely to represent; unlikely representing; is unlikely that; is not likely that; it is unlikely
        that; cannot see; do not see; does not see; no longer seen is; no longer seen are; no longer visualized is; no
        longer visualized are; less likely; not clearly visualized; not clearly seen; never had; no h/o; no known; no
        known history of; no prior history of; no past history of; no hx of""",
    MAYBE: """
        possible; possibly; probable; probably; likely; most likely; very likely; may; may be; may represent; may
        reflect; might; might be; might represent; could; could be; could represent; could reflect; questionable;
        question; question of; query; suspected; suspect; suspicion of; suspicion for; presumed; presumably;
        presumptive; perhaps; cannot exclude; can not exclude; cannot rule out; can not rule out; cannot entirely
        exclude; cannot completely exclude; cannot definitively exclude; cannot fully exclude; difficult to exclude;
        hard to exclude; unable to exclude; unable to rule out; does not exclude; not exclude; not rule out; does not
        rule out; not excluded; without excluding; can be seen with; can be seen in; equivocal; equivocal for; concern
        for; concerned for; worry for; worried about; worried for; c/f; raising concern for; raises concern for; raise
        concern for; raising the possibility of; raises the possibility of; raise the possibility of; possibility of;
        suggestion of; suggests possible; either; differential includes; differential considerations include;
        differential diagnosis includes; considerations include; conceivably; potentially; potential; whether;
        uncertain; unclear if; unclear whether; would be difficult to exclude; not certain; indeterminate for; cannot
        be certain; maybe; may also be; may still be; no definite evidence to exclude; mimic; mimics; mimicking;
        simulate; simulates; simulating; not definitively exclude; some concern for; suspicion; thought to represent;
        may indicate; could indicate; not entirely exclude; there may; there may be; there may also be; there might
        be; there could be; may have; may be due to; could obscure; favored to be; cannot exclude a; suggestive of
        possible; not entirely excluding; questioned; can not entirely exclude; cannot confidently exclude; not able
        to exclude; may mask; may obscure; difficult to rule out; concern about; would have to consider; consider;
        considered; suggests the possibility of; suggesting the possibility of; suggesting possible; suggest possible;
        versus possible; not possible to exclude; impossible to exclude; it is not possible to exclude; is not
        possible to exclude; not possible to rule out; would not exclude; cannot be sure of; has the possibility of;
        ?; is likely; are likely; is possibly; are possibly; is probably; are probably; likely represents; likely
        represent; likely representing; likely reflects; likely reflect; likely reflecting; likely due to; likely
        related to; likely secondary to; probably represents; probably represent; probably reflects; probably reflect;
        probably due to; probably related to; possibly due to; possibly related to; possibly represents; possibly
        representing; if any; little if any; doubt; most likely represents; most likely represent; most likely
        reflects; most likely due to; is most likely; are most likely; is favored to represent; are favored to
        represent; is difficult to exclude; it is difficult to exclude; it is hard to exclude""",
    LINK: """
        suspicious for; suspicious of; concerning for; worrisome for; which could represent; which may represent;
        which might represent; that could represent; that may represent; that might represent; that would suggest;
        which would suggest; to indicate; that could be; that may be; which could be; which may be""",
    SURE: """
        consistent with; compatible with; in keeping with; to suggest; suggest; suggests; suggesting; suggestive of;
        indicating; indicative of; representing; represents; represent; reflecting; reflects; due to; secondary to;
        diagnostic of; characteristic of; typical of; c/w; not only; associated; because of; most consistent with""",
    IDLE: """
        no change in; no change of; no change; no changes in; no interval change in; no interval change; no
        significant change in; no significant change; no significant interval change in; no significant interval
        change; without change; without change in; without significant change; without significant change in; without
        interval change; without interval change in; without significant interval change; without significant interval
        change in; no substantial change in; no substantial change; no appreciable change in; no appreciable change;
        no definite change in; no definite interval change in; no acute change in; no major change in; no marked
        change in; no relevant change in; no large change in; no real change in; no change from; no change since; no
        increase in; no significant increase in; no interval increase in; no decrease in; no significant decrease in;
        no interval decrease in; no improvement in; no significant improvement in; no interval improvement in; no
        worsening of; no progression of; no interval worsening of; no interval progression of; no enlargement of the
        previously; not significantly changed; not changed; not significantly different; not appreciably changed; not
        substantially changed; has not changed; have not changed; no different; not well seen; not well visualized;
        not well evaluated; not well demonstrated; not well appreciated; not fully evaluated; not clearly evaluated;
        not necessarily; not resolved; has not resolved; have not resolved; has not cleared; have not cleared; not yet
        resolved; not yet cleared; not completely resolved; not completely cleared; not entirely resolved; not
        entirely cleared; not fully resolved; not increased; not significantly increased; not decreased; not
        significantly decreased; not progressed; not improved; not significantly improved; not removed; has not been
        removed; have not been removed; not enlarging; no longer small; not worse; no worse; not larger; no larger;
        not smaller; no smaller; no better; no interval; no substantial interval change in; no substantial interval
        change; no difference in; no resolution of; without resolution of; no clearing of; no evidence of resolution
        of; no removal of; not unchanged; incompletely resolved; partially resolved; nearly resolved; almost
        completely resolved; nearly completely resolved; has almost completely resolved; has nearly completely
        resolved; has nearly resolved; has almost resolved; has partially resolved; mostly resolved; not measured; not
        small; not insignificant; not entirely clear; not completely clear; no doubt; without doubt; no comparison; no
        prior; no previous; no comparison studies; not seen previously; not seen on prior; not seen on previous; not
        seen on the prior; not seen on the previous; not present on prior; not present on the prior; not present
        previously; not previously seen; not seen on previous exam; not described previously; not previously present;
        not previously noted; not previously described; not included; normally; not rotated; not evident on the
        lateral; not seen on the lateral; not seen on the frontal; not obviously calcified; not calcified; not
        optimal; not displaced; without displacement; not significantly enlarged from; no distinct change in; no new
        change in; no progression in; no worsening in; without worsening of; without increase in; without progression
        of; not without; never resolving; never resolved; never cleared; never clearing; without a prior; without
        prior; without priors; without any prior; without a comparison; without comparison; without old; without the
        prior; in the absence of a prior; in the absence of prior; no one; near complete resolution of; nearly
        complete resolution of; almost complete resolution of; partial resolution of; incomplete resolution of; none
        on the; none on; no acute cardiopulmonary abnormality; no acute abnormality; no acute cardiopulmonary disease;
        no acute cardiopulmonary process; no acute disease; no active disease""",
    STOP: """
        but; however; although; though; except; except for; with the exception of; with exception of; aside from;
        apart from; other than; otherwise; yet; nevertheless; nonetheless; whereas; while; there is; there are; there
        was; there were; there has been; there have been; there appears; there appear; demonstrates; demonstrate;
        shows; show; showing; again noted is; noted is; seen is; which; despite; in spite of; on the other hand;
        besides; because; with only; with residual; with persistent; with stable; with unchanged; with small; with
        mild; with minimal; with moderate; with a; with new; with large; with increasing; with trace; positive for;
        save for; excluding; developed; has developed; have developed; following; after; status post; s/p; on follow
        up; on followup; at follow up; since follow up""",
    WAS_NO: """
        : no; : none; not seen; is not seen; are not seen; not identified; is not identified; are not identified; not
        visualized; is not visualized; are not visualized; not visible; not present; is not present; are not present;
        not evident; is not evident; are not evident; not demonstrated; not appreciated; not noted; not observed; not
        detected; not apparent; not found; not definitely seen; not definitely identified; not confirmed; not
        suspected; not favored; has resolved; have resolved; resolved; is resolved; are resolved; has completely
        resolved; have completely resolved; completely resolved; has since resolved; have since resolved; has now
        resolved; have now resolved; has cleared; have cleared; cleared; has disappeared; have disappeared; is absent;
        are absent; absent; ruled out; is ruled out; are ruled out; has been ruled out; is excluded; are excluded; has
        been excluded; excluded; none; none seen; none identified; is unlikely; are unlikely; unlikely; is not likely;
        considered unlikely; thought unlikely; felt to be unlikely; less likely; no longer seen; no longer present; no
        longer visualized; no longer identified; no longer visible; no longer evident; no longer apparent; no longer
        demonstrated; is no longer seen; are no longer seen; is no longer present; is no longer visualized; is no
        longer identified; is no longer visible; is no longer evident; is gone; are gone; gone; has been removed; have
        been removed; was removed; were removed; is removed; removed; have been discontinued; has been discontinued;
        not found on; not convincingly seen; negative; is negative; are negative; not convincingly demonstrated; not
        clearly seen; not clearly identified; not clearly visualized; is not clearly seen; not there; is not there; is
        not apparent; is not demonstrated; is not appreciated; is not noted; is not detected; is not suspected; is not
        visible; are not visible; is not found; not readily identified; not readily apparent; has not developed; have
        not developed; has not recurred; have not recurred; not recurred; not developed; considered less likely; is
        considered less likely; are considered less likely; felt less likely; thought less likely; is less likely; are
        less likely; seems unlikely; appears unlikely; is felt unlikely; is thought unlikely; is considered unlikely;
        no longer appreciated; is no longer appreciated; are no longer appreciated; are no longer present; are no
        longer visualized; are no longer identified; are no longer visible; are no longer evident; not there anymore;
        cannot be seen; cannot be identified; could not be seen; could not be identified; not discernible; less likely
        than; is less likely than; felt to be less likely than; is felt to be less likely than; considered less likely
        than; thought to be less likely than; is felt to be less likely; none is seen; none are seen; none was seen;
        none is identified; none are identified; none is evident; none is present; none are present; none is visible;
        none are visible; none is noted; none is visualized; none was found; none is found; none is detected; none is
        apparent; none is demonstrated""",
    WAS_MAYBE: """
        can not be entirely excluded; can not be completely excluded; can not be fully excluded; possible; is
        possible; are possible; is possibly present; possibly present; is probable; is likely; are likely; likely; is
        suspected; are suspected; suspected; is questioned; are questioned; questioned; questionable; is questionable;
        cannot be excluded; can not be excluded; cannot be entirely excluded; cannot be completely excluded; cannot
        entirely be excluded; cannot completely be excluded; cannot be fully excluded; cannot be totally excluded;
        cannot be definitively excluded; cannot be definitely excluded; cannot be ruled out; can not be ruled out;
        cannot be entirely ruled out; cannot be completely ruled out; cannot be confidently excluded; could not be
        excluded; could not be ruled out; not excluded; is not excluded; are not excluded; not entirely excluded; not
        completely excluded; is not entirely excluded; is not completely excluded; not definitively excluded; not
        definitely excluded; not fully excluded; not ruled out; is not ruled out; are not ruled out; not entirely
        ruled out; not completely ruled out; is difficult to exclude; difficult to exclude; difficult to rule out;
        hard to exclude; is hard to exclude; should be considered; to be considered; must be considered; is a
        consideration; would be a consideration; in the differential; is in the differential; is not certain; not
        certain; is uncertain; uncertain; is equivocal; equivocal; may be present; might be present; could be present;
        may also be present; may exist; could be considered; is a possibility; remains possible; remain possible;
        remains a possibility; is favored; favored; is presumed; presumed; not totally excluded; is not totally
        excluded; cannot be discounted; not confidently excluded; ?; would be difficult to exclude; if present; would
        be hard to exclude; is doubtful; doubtful; is most likely; would not be excluded; would be hard to rule out""",
    EITHER: """
        versus; as opposed to; favored over; is favored over; more likely than; is more likely than; cannot be
        distinguished from; indistinguishable from""",
    PURPOSE: """
        evaluate for; evaluation for; evaluation of; evaluate; eval for; assess for; assessment for; assessment of;
        rule out; r/o; to rule out; to exclude; to evaluate for; to assess for; to evaluate; looking for; please
        evaluate for; check for; screening for; screen for; monitor for; query regarding; in order to exclude;
        exclude; clinical concern for; asked to evaluate for; correlate for; correlate clinically for; follow up for;
        followup for; workup for; surveillance for; to look for; further evaluation of; further evaluation for;
        question regarding; document resolution of; ensure resolution of; confirm resolution of; until resolution of;
        documenting resolution of; ensure clearing of; document clearing of; to exclude underlying; follow up of; for
        resolution of; ro; follow up; followup; f/u; f/u for; f/u of; followup of; clinical suspicion of; clinical
        suspicion for; clinically suspected; indication is; indication was; the indication is; clinical question is;
        clinical question of; clinical concern is; reason for exam is; reason for the exam is; reason for study is;
        please rule out; please exclude; please assess for; please assess; pls eval for; eval; asked to exclude; asked
        to rule out; referred for; sent for; at risk for; at risk of; risk of; risk for""",
    PAST: """
        history of; a history of; with a history of; known history of; past history of; prior history of; previous
        history of; remote history of; recent history of; distant history of; family history of; past medical history
        of; medical history of; history significant for; history notable for; history includes; hx; hx of; h/o; pmh;
        pmhx; pmh of; year old; yo; treated for; being treated for; recently treated for; previously treated for; is
        being treated for; was treated for; admitted for; admitted with; hospitalized for; hospitalized with; prior
        episode of; prior episodes of; previous episode of; previous episodes of; prior bout of; prior study showed;
        prior exam showed; prior film showed; prior radiograph showed; prior ct showed; previous study showed;
        previous exam showed; previous film showed; previous radiograph showed; previous ct showed; prior study
        demonstrated; prior exam demonstrated; prior radiograph demonstrated; prior ct demonstrated; previous study
        demonstrated; previous exam demonstrated; previously diagnosed with; formerly had; once had; previously had""",
}

HEADINGS = """
    indication; indications; clinical indication; history; clinical history; clinical information; reason for exam;
    reason for examination; reason for study; reason for the exam; reason; technique; procedure; comparison;
    comparisons; exam; examination; study; patient history; clinical data; clinical statement; medical history; past
    medical history; hx; clinical question; procedure comments; request"""
"A sentence that opens with one of these and a colon states a reason or a technique, not a finding."

HEADING_WORDS = word_set(
    """reason reasons indication indications history hx pmh complaint complaints symptom symptoms ordering requested
    requesting request referring technique provider"""
)
"A short heading with one of these does so as well, such as 'reason for this examination:'."

RESTART = word_set(
    """a an the there this these small mild mildly moderate moderately minimal minimally trace tiny stable unchanged
    persistent chronic again heart lung bilateral severe increased improved interval new right left old healed
    healing prior residual bibasilar cardiac mediastinum mediastinal cardiomediastinal bony osseous low patchy
    streaky postsurgical status subsegmental linear calcified slight slightly improving worsening large only just
"""
)
"Right after a negated finding, with no `or` to come, these start a new statement."

SOFT_RESTART = word_set("""large new bony osseous increased old prior focal acute""")
"The subset that also occurs inside lists of negated findings: these restart only before a verb."

VERBS = word_set(
    """is are was were be appears appear appeared has have had seen noted remains remain shows show demonstrates
    demonstrate projects overlies overlie extends measures persists"""
)

SIZES = word_set("small mild mildly moderate moderately minimal trace tiny severe persistent")
"After a negated list these start a new statement wherever they occur."

NOW = word_set("now today currently presently presents presenting")
"These end the reach of history."

SAYS_NOTHING = word_set(
    """unchanged stable change changes no not interval significant significantly since prior previous study exam examination
    radiograph film x ray xray chest from in the as a an of is are has have been there compared comparison to with and
    on today appearance similar appears remains again seen final report wet read preliminary am pm mask findings
    impression conclusion narrative or any substantial relevant above below see same clinical correlation recommended
    none available date time signed electronically by dr md radiologist attending"""
)
"Words of sentences that neither name a finding nor call anything normal."

HISTORY_WORDS = word_set("history hx h/o pmh pmhx year yo treated admitted hospitalized")
NORMAL_WORDS = word_set("clear normal unremarkable negative expanded aerated within")
"A sentence about the past says something of these images only with such a word."
