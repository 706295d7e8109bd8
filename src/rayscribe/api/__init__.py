"""The functions of `import rayscribe as rs`; heavy imports stand inside them, so that the import itself is light."""
