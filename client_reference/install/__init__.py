"""Putting verified bytes where the device boots from, and taking them back if they fail."""
