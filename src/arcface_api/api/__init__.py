"""HTTP: the app that joins everything (`app`), its routes, what it reads and writes, and how errors are told."""
