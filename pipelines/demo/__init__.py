"""The demo: patients loaded into the hospital's FHIR server, their journeys played, what came of it counted."""
