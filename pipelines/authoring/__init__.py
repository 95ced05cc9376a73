"""What helps the author of a plugin: a package to begin with, checks, and a trial without any service."""
