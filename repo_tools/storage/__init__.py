"""Where a repository lives: read, create once, replace if unchanged."""
