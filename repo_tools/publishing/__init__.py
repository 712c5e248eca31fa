"""From signed roles to a live repository, rehearsed first with the device's own code."""
