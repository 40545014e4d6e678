"""Imported late."""

ONE = 1.0
