"""Chest X-rays to radiology reports: the published methods under one training loop, decoder and evaluation."""

__version__ = "0.4.0"
