"""Kill an agent: `mendstream inject dead-agent` into the house of mendstream.toml (--param target=feature-0 for another)."""

from demo_controller import inject

if __name__ == "__main__":
    raise SystemExit(inject("dead-agent"))
