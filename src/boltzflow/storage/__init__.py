"""Files and folders of a run: bytes on disk, no density."""
