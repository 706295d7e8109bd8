"""A draft in hospital formats: text, PDF, DICOM SR and Encapsulated PDF, FHIR. No output is ever marked final."""
