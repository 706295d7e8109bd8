"""Blind comparison of two systems by radiologists."""
