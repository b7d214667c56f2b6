"""The same method on more than one machine: a thin layer on TRL's GRPOTrainer and accelerate.

One process of a run is ``train``; ``trainer`` is TRL's with our ``sampling`` and a callback. The command that starts it
is in ``launch``, and an estimate of a run in ``planner``. Difference from the document tree: every rollout is a row
with its own copy of its prefix, as everywhere in TRL.
"""
