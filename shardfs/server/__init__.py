"""The HTTP remote: many repositories below one directory, served by a process of its own."""
