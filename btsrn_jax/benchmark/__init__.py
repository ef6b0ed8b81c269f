"""Speed and memory, measured; whether a config fits a device."""
