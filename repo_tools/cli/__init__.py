"""The  command, one file per command group: parse, call, print."""
