"""Built-in scenarios of the in-visit stage, one file each."""
