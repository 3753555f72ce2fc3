"""One module for each step of the schema. Each says all that it needs itself, and imports nothing of ours."""
