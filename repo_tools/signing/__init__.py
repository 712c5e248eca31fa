"""Keys, their secrets, and signing by several people: the ceremony."""
