"""Pure: what a repository holds and how it may change."""
