"""The tutorial on real images: `make demo`, `lading demo`. Needs what `lading[demo]` installs.

Modules:
    story     the tutorial itself, over the public SDK alone
    digits    the data set: handwritten digits as PNG files
    network   the classifier, trained epoch by epoch, kept without pickle
    pages     lineage and registry page as text
    server    a server of the demo's own, where none is given
"""
