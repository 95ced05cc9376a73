"""Kafka as careloom needs it: topics, envelopes, the way in, single records by their position, what is behind."""
