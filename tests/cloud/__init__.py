"""Tests of the release side as a function of a cloud."""
