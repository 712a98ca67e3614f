"""Who owns which device of a batch: a binary trie over the index bits, in pages.

The trie over ``size`` indices has depth ⌈log₂ size⌉; an index's bits, most significant first, lead to its tenure's
number. A subtree that is all of one tenure is one node, so the root is a function of the map alone and a sale
costs what it takes to say which devices are sold. Indices from ``size`` on are tenure 0, nobody's.
"""

from firstlight.trees.ownership.nodes import MAX_TENURE, NOBODY, PAGE_BITS, PAGE_SIZE, depth_of
from firstlight.trees.ownership.proof import OwnershipProof, Split, Uniform, verify
from firstlight.trees.ownership.selection import MAX_RUNS, Selection
from firstlight.trees.ownership.source import PageCache, PageSource
from firstlight.trees.ownership.trie import Assigned, Trie

__all__ = [
    "MAX_RUNS",
    "MAX_TENURE",
    "NOBODY",
    "PAGE_BITS",
    "PAGE_SIZE",
    "Assigned",
    "OwnershipProof",
    "PageCache",
    "PageSource",
    "Selection",
    "Split",
    "Trie",
    "Uniform",
    "depth_of",
    "verify",
]
