"""Models by name, tiles, the self-ensemble, and photographs."""
