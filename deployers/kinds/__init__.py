"""One kind of target per file; `all.py` names them all.

Empty, so that a deployer's artifact carries its own kind and no other.
"""
