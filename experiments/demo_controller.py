"""Keys 1 to 4 hurt the house of mendstream.toml: latency, bad model, agent down, drift; capitals of no key heal it."""
