"""What careloom says of itself beside metrics: logs, spans, an event's waterfall, what is watched live."""
