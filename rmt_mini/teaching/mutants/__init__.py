"""Wrong answers to the exercises, as learners write them: a room for each lesson's.

Each is right in everything but one slip, and says in its docstring, to the learner, what the slip is. A check names the
one that behaves like the learner's function; tests hold that every one fails its check and is told from the others.
"""
