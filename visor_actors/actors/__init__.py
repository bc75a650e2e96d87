"""The actors of the tree, the messages they exchange, and the tree itself.

``tree`` declares it on one page, ``messages`` is what they say to each other, ``reports`` what others may
see of them; ``application`` runs it all. Nothing is exported here: each actor is imported from its module.
"""
