"""Converts released weights from one form to another."""
