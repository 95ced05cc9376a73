"""Every metric in one file, the exporter, and what Prometheus is configured with."""
