"""Self-contained HTML pages: no script, no network, readable on a phone and in the dark."""
