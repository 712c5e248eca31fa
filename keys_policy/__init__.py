"""Key policy as code: who may sign what, with how many keys, for how long.

It imports nothing else of firmroot.
"""
