"""One sort of selection per file, named like the kind it finds; `all.py` names them all."""
