"""From a verified target to verified bytes in a sink, one verified segment at a time."""
