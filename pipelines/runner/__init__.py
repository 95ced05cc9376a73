"""What an Airflow task does with the rows of one run: from their events to drafts at the FHIR server."""
