"""The relay against a featureless proxy, both pinned to one core, in the same run."""
