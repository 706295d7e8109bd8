"""A draft in the formats of hospitals: text, PDF, DICOM SR and Encapsulated PDF, FHIR. Nothing here is ever called final."""
