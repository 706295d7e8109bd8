"""Self-contained HTML pages: no scripts, no network, readable on a phone and in dark mode."""
