"""The guards that come with careloom: one a file, each a plugin that uses nothing an outside one could not.

What each has been seen to catch, and what it does not, stands in docs/guards.md.
"""
