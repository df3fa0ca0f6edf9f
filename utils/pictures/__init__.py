"""Masks and frames as pictures and films."""
