"""Built-in scenarios of the post-visit stage, one file each."""
