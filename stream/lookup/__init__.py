"""Reads scores at search time: needs `redis` and `schemas` alone.

    reader = ScoreReader("redis://cache:6379/0")          # in threads
    reader.get("m123").score                              # 0..1; 0.5 when there is none
    answer = reader.get_many(["m123", "m124"])            # one round trip, within 20 ms
    answer.scores()                                       # [0.83, 0.5]

`AsyncScoreReader` is the same for asyncio. Neither raises because Redis is slow or away: what has no answer in time is
in `answer.late`, and has the neutral score.
"""

from stream.lookup.answer import Answer, Score
from stream.lookup.reader import AsyncScoreReader
from stream.lookup.threads import ScoreReader

__all__ = ["Answer", "AsyncScoreReader", "Score", "ScoreReader"]
