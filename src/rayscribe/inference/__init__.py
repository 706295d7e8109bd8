"""From a model folder to draft reports."""
