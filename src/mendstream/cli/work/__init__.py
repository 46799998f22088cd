"""What the verbs do. Imports are free here; the modules above only declare options, so `--help` loads none of this."""
