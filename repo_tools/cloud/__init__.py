"""The release side as a function of a cloud."""
