"""The scope of cues inside one sentence: which findings are negated, which are uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rayscribe.labels import NEGATIVE, POSITIVE, UNCERTAIN
from rayscribe.metrics import cues
from rayscribe.metrics.clauses import LASTING, LASTING_VERBS, lasts
from rayscribe.metrics.cues import BYGONE, CUES, NOW, RESTART, SIZES, SOFT_RESTART, VERBS
from rayscribe.metrics.organs import Reach
from rayscribe.metrics.phrases import longest, phrase_table


class NamedFinding(NamedTuple):
    """A finding that a sentence names with the words `first` up to, not including, `end`."""

    first: int
    end: int
    observation: str
    is_unsure: bool
    "The words alone leave the observation uncertain."
    is_plain_only: bool
    "Only a plain reading counts the words."


class Sweep:
    """Scans a sentence from left to right with the cue in force; backward cues revise earlier verdicts."""

    def __init__(self, texts: Sequence[str], named: Sequence[NamedFinding]) -> None:
        self.texts = texts
        self.named = named
        self.verdicts: list[Reach] = []
        self.reaches: list[Reach | None] = []
        "The cue in force before each word."
        self.stops: list[int] = []
        self._reach: Reach | None = None
        self._covers = False
        "The cue in force has already met a finding."
        self._has_verb = False
        "A verb came after the last finding."
        self._clause = 0
        "The first finding that a backward cue may change."
        self._has_one = not _SAME.isdisjoint(texts)

    def run(self) -> None:
        """Fills `verdicts`, one per named finding, `reaches`, one per word, and `stops`."""
        upcoming = 0
        at = cue_end = 0
        while at < len(self.texts):
            if at >= cue_end and (match := longest(_CUES, self.texts, at)):
                cue_end = match[0]
                self.reaches += [self._reach] * (cue_end - at)
                self._cue(at, cue_end, match[1])
                for k in range(at, cue_end):
                    while upcoming < len(self.named) and self.named[upcoming].first == k:
                        self._finding(upcoming)
                        upcoming += 1
                at = cue_end
                continue
            self.reaches.append(self._reach)
            while upcoming < len(self.named) and self.named[upcoming].first == at:
                self._finding(upcoming)
                upcoming += 1
            text = self.texts[at]
            if text in NOW and self._reach and self._reach.state == BYGONE:
                self._set(None)
            if text in VERBS:
                self._has_verb = True
            elif text in ("or", "/"):
                self._alternative(at)
            elif text == ";" or (text == ":" and not (self.verdicts and self.named[len(self.verdicts) - 1].end == at)):
                self._stop(at)
            self._splice(at + 1)
            self._restart(at + 1)
            at += 1

    def _finding(self, index: int) -> None:
        if self._has_verb and index > self._clause:
            self._clause = index
            if self._reach and self._covers and not self._or_follows(self.named[index - 1].end):
                self._reach = None
        self._has_verb = False
        if self._reach is None:
            self.verdicts.append(Reach(BYGONE if self._is_bygone(index) else POSITIVE, ""))
        else:
            self.verdicts.append(self._reach)
            self._covers = True
        if self.named[index].is_unsure and self.verdicts[-1].state == POSITIVE:
            words = self.texts[self.named[index].first : self.named[index].end]
            self.verdicts[-1] = Reach(UNCERTAIN, " ".join(words))

    def _cue(self, at: int, end: int, kinds: frozenset[str]) -> None:
        said = " ".join(self.texts[at:end])
        forward = kinds & {cues.NO, cues.MAYBE, cues.LINK, cues.PURPOSE, cues.PAST}
        backward = kinds & {cues.WAS_NO, cues.WAS_MAYBE}
        if backward and (not forward or not self._looks_forward(end)):
            if not self._of_another(at):
                state = NEGATIVE if cues.WAS_NO in backward else UNCERTAIN
                if state == NEGATIVE and self._answers(at):
                    self.verdicts[-1] = Reach(state, said)
                self._backward(state, said)
        elif cues.NO in forward:
            self._set(Reach(NEGATIVE, said))
        elif cues.MAYBE in forward:
            if not (self._reach and self._reach.state == NEGATIVE and not self._covers):
                self._set(Reach(UNCERTAIN, said))
        elif cues.PAST in forward:
            # "Opacities consistent with the patient's history of fibrosis" affirms it.
            is_denied = bool(self._reach and self._reach.state == NEGATIVE and not self._covers)
            if not is_denied and _MATCHING.isdisjoint(self.texts[max(0, at - _MATCHED) : at]):
                self._set(Reach(BYGONE, said))
        elif forward:
            if not (self._reach and self._reach.state == NEGATIVE):
                self._set(Reach(UNCERTAIN, said))
        elif cues.IDLE in kinds:
            self._set(Reach(POSITIVE, ""))
        elif cues.EITHER in kinds:
            self._either(at, said)
        elif cues.STOP in kinds:
            self._stop(at)
        if set(self.texts[at:end]) & VERBS:
            self._has_verb = True

    def _set(self, reach: Reach | None) -> None:
        self._reach, self._covers = reach, False

    def _stop(self, at: int) -> None:
        self._set(None)
        self._clause = len(self.verdicts)
        self._has_verb = False
        self.stops.append(at)

    def _looks_forward(self, end: int) -> bool:
        if self._clause == len(self.verdicts):
            return True
        following = len(self.verdicts)
        if following == len(self.named):
            return False
        first = self.named[following].first
        return first - end <= _DUAL_REACH and not {";", ",", "and", "but"} & set(self.texts[end:first])

    def _of_another(self, at: int) -> bool:
        """Whether the cue has a subject of its own, as in "the right pneumothorax is smaller, the left one has resolved"."""
        if not self._has_verb or not self.verdicts:
            return False
        between = self.texts[self.named[len(self.verdicts) - 1].end : at]
        return "," in between and between[-1] != ","

    def _answers(self, at: int) -> bool:
        """Whether a clause without a finding opens with the cue: "concern for pneumothorax; none is seen"."""
        has_doubt = bool(self.verdicts) and self.verdicts[-1].state in (UNCERTAIN, BYGONE)
        return has_doubt and self._clause == len(self.verdicts) and self.texts[at - 1] in _CLAUSE_STARTS

    def _is_bygone(self, index: int) -> bool:
        """Whether a finding that can pass is only called prior, as in "prior pneumonia"."""
        one = self.named[index]
        if one.observation not in _PASSING:
            return False
        before = one.first - 1
        while before > 0 and self.texts[before] in _SIDED:
            before -= 1
        if before < 0 or self.texts[before] not in _PRIOR:
            return False
        rest = self.texts[one.end :]
        return VERBS.isdisjoint(rest) and LASTING.isdisjoint(rest) and LASTING_VERBS.isdisjoint(rest)

    def _backward(self, state: int, said: str) -> None:
        if self._clause == len(self.verdicts) and state == UNCERTAIN and self.verdicts and self._has_one:
            self.verdicts[-1] = Reach(state, said)  # "no pneumothorax, but a small one cannot be excluded"
        # A list shares one verdict; an earlier finding with another verdict stands alone.
        shared = self.verdicts[-1].state if self.verdicts else state
        for index in range(len(self.verdicts) - 1, self._clause - 1, -1):
            is_last = self.named[index].end == self.named[len(self.verdicts) - 1].end
            before = self.verdicts[index].state
            if before != shared:
                break
            was_alternative = self.verdicts[index].cue in ("or", "/")  # "A or B is not seen" denies both
            if before == POSITIVE or (state == NEGATIVE and (is_last or was_alternative)):
                self.verdicts[index] = Reach(state, said)
        self._clause = len(self.verdicts)
        self._set(None)

    def _alternative(self, at: int) -> None:
        """Makes both findings of "scar or atelectasis" uncertain."""
        if self._reach is not None or not self.verdicts:
            return
        last, following = len(self.verdicts) - 1, len(self.verdicts)
        behind = at - 1
        while behind >= 0 and self.texts[behind] in ("and", ",", "/"):
            behind -= 1
        if self.named[last].end != behind + 1 or following == len(self.named):
            return
        if self.named[following].first - at > _OR_REACH:
            return
        if self.texts[at] == "/" and (self._is_pair(last) or self._is_pair(following)):
            return
        self._doubt_last(self.texts[at])
        self._set(Reach(UNCERTAIN, self.texts[at]))

    def _is_pair(self, index: int) -> bool:
        """Whether a slash beside the finding means "and", as in "collapse/consolidation" and "atelectasis/effusion"."""
        one = self.named[index]
        return one.observation == "Pleural Effusion" or "collapse" in self.texts[one.first : one.end]

    def _either(self, at: int, said: str) -> None:
        if self._reach and self._reach.state == NEGATIVE:
            return
        if self._clause < len(self.verdicts):
            self._doubt_last(said)
        self._set(Reach(UNCERTAIN, said))

    def _doubt_last(self, said: str) -> None:
        end = self.named[len(self.verdicts) - 1].end
        for index, verdict in enumerate(self.verdicts):
            if self.named[index].end == end and verdict.state == POSITIVE:
                self.verdicts[index] = Reach(UNCERTAIN, said)

    def _splice(self, at: int) -> None:
        """Ends a scope where a new clause affirms a finding, as in "no pneumothorax, effusions are unchanged"."""
        if self._reach is None or at >= len(self.texts) or self.texts[at] == "and":
            return
        is_joined = self.texts[at - 1] in (",", "and")
        if not is_joined and not (self.verdicts and self.named[len(self.verdicts) - 1].end == at):
            return
        following = len(self.verdicts)
        if following < len(self.named) and self._affirms(at, self.named[following]):
            self._end_list(at)

    def _affirms(self, at: int, finding: NamedFinding) -> bool:
        """Whether the clause that starts at word `at` says of its first findings that they last."""
        if finding.first - at > _MODIFIERS or not _SEPARATE.isdisjoint(self.texts[at : finding.first]):
            return False
        end = finding.end
        for other in self.named[len(self.verdicts) + 1 :]:
            if other.first >= end and self.texts[end : other.first] not in (["and"], ["and", "the"]):
                break
            end = max(end, other.end)
        return lasts(self.texts, end, is_bare=True)

    def _restart(self, at: int) -> None:
        """Ends the scope over a negated or uncertain list where a new statement starts."""
        if not (self._reach and self._covers) or at >= len(self.texts) or self._or_follows(at):
            return
        behind = self.texts[at - 1]
        text = self.texts[at]
        if text in SIZES and self._reach.state == NEGATIVE and behind not in _BEFORE_SIZES:
            self._end_list(at)
            return
        if self.named[len(self.verdicts) - 1].end != at and behind not in (",", "and"):
            return
        if self._reach.state not in (NEGATIVE, BYGONE) and behind == ",":
            self._set(None)
        if text in RESTART and not (text in SOFT_RESTART and not VERBS & set(self.texts[at:])):
            self._end_list(at)

    def _or_follows(self, at: int) -> bool:
        """Whether an "or" later in the list keeps its scope open."""
        rest = self.texts[at:]
        return "or" in rest and _ENDS.isdisjoint(rest[: rest.index("or")])

    def _end_list(self, at: int) -> None:
        self._set(None)
        self.stops.append(at)
        self._clause = len(self.verdicts)


_CUES = phrase_table(CUES)
_PASSING = frozenset(("Edema", "Pneumonia", "Pneumothorax", "Pleural Effusion"))
"Observations that heal without a trace."
_PRIOR = frozenset(("prior", "previous", "past", "former", "recent"))
_MATCHING = frozenset(("consistent", "compatible", "keeping", "c/w"))
_MATCHED = 4
"Words before a cue of history that may compare the images with it."
_SIDED = frozenset(("left", "right", "bilateral"))
_CLAUSE_STARTS = frozenset((";", ",", "and", "but", "however", "although", "though"))
_MODIFIERS = 4
"A new clause names its finding within this many words."
_SEPARATE = frozenset(("or", "nor", "no", "not", "without", ",", ";", ":", "but", "/"))
_BEFORE_SIZES = frozenset(("or", "and", "a", "an", "of", "in", "the", "with", "no", "any", "even", "than", "very"))
_ENDS = frozenset((";", "but", "no", "not", "without", "however", "although", "though", "except", "there", "while"))
_SAME = frozenset(("one", "amount", "component"))
"Words that refer to the finding named before."
_OR_REACH = 6
"The second of two alternatives must follow within this many words."
_DUAL_REACH = 4
"A finding must follow within this many words for a two-way cue to look forward."
