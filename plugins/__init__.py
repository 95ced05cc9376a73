"""What a plugin author sees: hooks, the scenario API, its test kit, and the built-in scenarios."""
