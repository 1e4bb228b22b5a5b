"""From a folder of photos to batches."""
