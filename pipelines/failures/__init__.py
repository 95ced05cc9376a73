"""What each failure means, in one table; and what is down and therefore not asked."""
