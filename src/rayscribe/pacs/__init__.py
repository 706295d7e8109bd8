"""The loop next to an archive (PACS): images come in, a draft report goes back as a DICOM SR; a kill loses nothing."""
