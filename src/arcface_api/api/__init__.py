"""HTTP: `app` joins everything; `routes` lists the operations; `protocol` serves one connection."""
