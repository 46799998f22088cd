"""The ground floor: records, topics, knobs, ports, errors. Imports nothing of the house; everybody imports it."""
