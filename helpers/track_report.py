"""One shipped event through a server, in words: what ``python -m helpers infer -m ExaTrk`` prints."""

from __future__ import annotations

import time

from helpers.client import Client
from helpers.errors import CourseError
from helpers.physics.tracks import TARGET_MIN_HITS, TARGET_MIN_PT_GEV, check_labels, load_events, match, quality
from helpers.tables import as_text

# The models that take the hits of an event and return a label for each.
MODELS = ("ExaTrk", "ExaTrk_bls")
# The event that is shown, and tracks in the list.
_EVENT, _SHOWN = 0, 8


def report(client: Client, model: str) -> str:
    """Send a shipped event and compare the answer with the truth.

    Args:
        client: connected to a server that has the model.
        model: one of :data:`MODELS`.

    Raises:
        CourseError: the request came to no answer, or the answer is not one label for each hit.
    """
    if model not in MODELS:
        raise CourseError(f"The model {model!r} finds no tracks.", f"Expected one of {MODELS}.")
    event = load_events()[_EVENT]
    start = time.perf_counter()
    labels = check_labels(event, client.infer(model, FEATURES=event.features)["LABELS"])
    milliseconds = 1000 * (time.perf_counter() - start)
    found, matching = quality(event, labels), match(event, labels)
    longest = sorted(range(matching.n_hits.size), key=lambda track: -event.pt[matching.particle[track]])[:_SHOWN]
    rows = [
        {
            "track": track,
            "hits": int(matching.n_hits[track]),
            "of its particle": f"{matching.majority[track]} of {event.hits_of_particle[matching.particle[track]]}",
            "pT [GeV]": round(float(event.pt[matching.particle[track]]), 2),
            "eta": round(float(event.eta[matching.particle[track]]), 2),
            "particle code": int(event.pdg[matching.particle[track]]),
        }
        for track in longest
    ]
    return "\n".join(
        [
            f"{event.n_hits} hits in, {matching.n_hits.size} tracks out in {milliseconds:.0f} ms;",
            f"{(labels < 0).sum()} hits are on no track.",
            "",
            f"The {len(rows)} tracks of highest momentum, with the truth about their particles:",
            as_text(rows),
            "",
            f"Particles with pT > {TARGET_MIN_PT_GEV} GeV and {TARGET_MIN_HITS} hits or more, found: efficiency {found.efficiency}.",
            f"Fakes {found.fake_rate}; duplicates {found.duplicate_rate}.",
        ]
    )
