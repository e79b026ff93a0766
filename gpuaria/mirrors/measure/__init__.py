"""Measurement of mirrors from DNS to file bytes within one time budget. See survey.py."""
