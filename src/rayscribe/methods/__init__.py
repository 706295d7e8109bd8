"""The published methods: one paper, one file."""
