"""Preference pairs from search logs, and a simulator of such logs."""
