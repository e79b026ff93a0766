"""Content checks of local files: pickles, safetensors headers, signatures. They do not trust the file name."""
