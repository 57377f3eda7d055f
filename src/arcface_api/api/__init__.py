"""HTTP: `app` joins everything and has the operations; `protocol` serves one connection."""
