"""Scores: functions from (hypotheses, references) to numbers."""
