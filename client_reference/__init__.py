"""The device side of firmroot: what it trusts, fetches, installs and confirms.

It imports nothing else of firmroot; its code alone defines what a device accepts, which is why the
release side imports it to rehearse a publish.
"""
