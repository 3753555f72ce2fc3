"""What a user would pick instead, on the same inputs, in the same minutes, on the same machine.

__main__.py    `make bench-peers`: takes turns, and prints the table with the ratios
environments.py  an environment of its own for each peer that comes from PyPI
process.py     a contender as a child process that does what it is told, and says how long it took
talk.py        the other end of that: what every contender's program begins and ends with
*_peer.py      the contenders' programs; each runs in the environment of its peer and imports nothing of the project
"""
