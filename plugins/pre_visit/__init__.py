"""Built-in scenarios of the pre-visit stage, one file each."""
