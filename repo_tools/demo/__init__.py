"""`firmroot demo`: the whole story on one terminal, with real commands, keys, bytes and attacks.

`story` tells it scene by scene, `stage` runs the commands and shows them, `network` is the loopback
server between publisher and device (honest or not), `thief` forges with stolen keys. Nothing is
staged in another sense: every line after a `$` is a command that was run as it stands there, and
the demo fails when one of them does not do what the story says.
"""
