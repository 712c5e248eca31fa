"""The whole processes that are measured."""
