"""Transfer of file bytes: large files by aria2, small ones by gpuaria's HTTP client, all verified before publishing."""
