"""From files to studies, images and batches."""
