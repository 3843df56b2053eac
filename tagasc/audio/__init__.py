"""Packed audio and how it is read."""
