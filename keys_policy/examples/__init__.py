"""Policies ready to copy."""
