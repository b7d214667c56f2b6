"""The same method on more than one machine: a thin layer on TRL's GRPOTrainer and accelerate.

    positions   texts, step -> the set C with its budgets, drawn alike on every process; who reads which document
    thoughts    a position -> thought, closing tag, cue, answer, sampled by the engine that TRL drives
    trainer     GRPOTrainer with these, our rewards and the next-token loss
    callback    step, budget and curriculum; state beside TRL's checkpoints; metrics.jsonl
    settings    RMTConfig -> GRPOConfig; what TRL does not support is refused in one line
    train       one process of a run: ``accelerate launch -m rmt_mini.scale.train PRESET``
    launch      the accelerate command of a preset
    planner     time, memory and traffic before a run, here and on GPUs elsewhere

Difference from the document tree: every rollout is a row with its own copy of its prefix, as everywhere in TRL.
"""
