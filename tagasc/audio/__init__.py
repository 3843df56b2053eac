"""Packed audio: writing it, and reading windows of it on a device."""
