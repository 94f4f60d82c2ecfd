"""Answering pictures: from a saved network or from an exported folder."""
