"""How bytes reach the device. Nothing here is trusted: every byte is verified elsewhere."""
