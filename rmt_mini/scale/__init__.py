"""The same method on more than one machine: a thin layer on TRL's GRPOTrainer and accelerate.

TRL samples, shards, saves and steps the optimizer, with vLLM, DeepSpeed and PEFT where they are asked for. What is ours
is what it lacks, each in one room:

    positions   texts, step -> the set C with its budgets, drawn on every process alike
    thoughts    a position -> thought, closing, cue, answer, sampled by whatever engine TRL drives
    rewards     the two rewards as TRL wants them
    objective   which process reads which document for the next-token loss, and its share of the count
    trainer     GRPOTrainer with these four put in
    schedule    the callback: step, budget and curriculum; state beside TRL's checkpoints; metrics.jsonl
    settings    RMTConfig -> GRPOConfig; what is refused, in one line
    train       one process of a run: ``accelerate launch -m rmt_mini.scale.train PRESET``
    launch      the accelerate command of a preset; the configs stand in accelerate/
    shape       a model's size, from its configuration alone
    cost, clock memory, time and traffic before a run, for one to many GPUs; forecast says it, table for the docs

Of the package it uses ``config``, ``method``, and those rooms of ``engine`` and ``worlds`` that know text and no model.
Departure from the document tree: every rollout is a row with its own copy of its prefix, as everywhere in TRL.
docs/scale.md says what that costs.
"""
