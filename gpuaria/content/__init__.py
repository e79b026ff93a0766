"""What the bytes of a file are, whatever its name says: pickles, safetensors headers, signatures. Local files only."""
