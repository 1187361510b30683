"""What a reader of a file will want next, guessed from what it has read: nothing here fetches or decodes."""
