"""Classifiers of findings, trained by the same loop as the report models."""
