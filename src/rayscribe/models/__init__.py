"""Backbones, layers and the report model that methods plug into."""
