"""What is run again: events, their bytes where Kafka has them no more, and poison that can be read by now."""
