"""Backbones, layers and the report model that the methods plug into."""
