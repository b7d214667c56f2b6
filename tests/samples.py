"""Write data/WORLD/samples.txt: ``python -m tests.samples WORLD > data/WORLD/samples.txt``."""

import sys

from rmt_mini.engine.prompt import Continuation
from rmt_mini.stages.pretrain import Reader
from rmt_mini.worlds import micro


def samples(world: micro.World, count: int = 6) -> str:
    """Return the first ``count`` documents of each of a world's texts, as the model reads them."""
    reader = Reader(Continuation(micro.make_tokenizer(world)), 0, world)
    parts = []
    titles = {"Pre-training": world.pretrain, "Mid-training": world.midtrain, "Exam": world.exam}
    for title, habits in titles.items():
        parts.append(f"{title}\n{'=' * len(title)}")
        for made in (micro.page(habits, 0, number) for number in range(count)):
            spoken = reader.form.tokenizer.decode(reader.read(made)[0][:-1])
            parts.append(spoken if habits is world.pretrain else made.document.text)
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(samples(micro.WORLDS[sys.argv[1]]))
