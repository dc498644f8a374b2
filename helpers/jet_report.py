"""What a jet tagger says about real jets, as text for a terminal, beside their true classes."""

from __future__ import annotations

import numpy as np

from helpers.client import Client
from helpers.physics import jets
from helpers.tables import as_text

# Jets that are tagged unless told otherwise, and the classes that are printed for each.
_JETS, _CLASSES = 8, 3


def report(client: Client, model: str, n_jets: int = _JETS, classes: int = _CLASSES) -> str:
    """Tag the first jets of the course's sample, in one request, and write down the most probable classes.

    Args:
        client: the connection to the server.
        model: name of a jet tagger.
        n_jets: how many jets.
        classes: how many classes of each jet.

    Raises:
        CourseError: the model takes no jets, or the request came to no answer.
    """
    tagger = jets.Tagger(client, model)
    name = jets.sample_for(tagger)
    sample = jets.read(name)[:n_jets]
    scores = tagger.tag(sample, batch=len(sample))
    true = np.asarray(sample["jet_class"].to_list())
    right = int((scores.best == true).sum())
    way = "gRPC" if client.protocol == "grpc" else "HTTP"
    return "\n".join(
        [
            f"Model {model} at {client.address} over {way}: {len(sample)} simulated {name.upper()} jets that its training never saw.",
            as_text(scores.rows(sample, n=len(sample), classes=classes)),
            f"The most probable of the {len(scores.labels)} classes is the true one for {right} of {len(true)} jets.",
        ]
    )
