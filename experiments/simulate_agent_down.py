"""Kill an agent: `mendstream inject dead-agent` into the house of mendstream.toml.

Another than model-0: `--param target=feature-0`.
"""

from demo_controller import inject

if __name__ == "__main__":
    raise SystemExit(inject("dead-agent"))
