"""Predictions to scores with their protocol, intervals, floors and tests."""
