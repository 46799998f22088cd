"""Make the model slow: `mendstream inject slow-model` into the house of mendstream.toml. With --off: out again."""

from demo_controller import inject

if __name__ == "__main__":
    raise SystemExit(inject("slow-model"))
