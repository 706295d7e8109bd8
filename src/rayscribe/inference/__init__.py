"""A model folder to draft reports."""
