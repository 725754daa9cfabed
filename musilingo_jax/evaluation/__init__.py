"""Answers → scores → report."""
