"""A device: it wakes in its one directory, discovers its owner's choice, proves itself, obtains, attaches, connects."""
