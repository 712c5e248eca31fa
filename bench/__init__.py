"""What the device client costs, beside `tuf.ngclient` and curl. Run: `python -m bench`."""
