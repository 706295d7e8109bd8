"""The loop beside an archive (PACS): images come in, a draft report goes back as a DICOM SR, and a kill loses nothing."""
