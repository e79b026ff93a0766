"""Moving the bytes: large files through aria2, small ones through the metadata client, all of them verified."""
