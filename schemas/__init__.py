"""The contracts: what travels on each topic, and what search reads from Redis.

| module          | topic or key                    | written by       |
|-----------------|---------------------------------|------------------|
| `listing_event` | `listing.events`                | the marketplace  |
|                 | `listing.events.retry`          | the scorer       |
|                 | `listing.events.backfill`       | `backfill`       |
| `image_score`   | `image.scores` (compacted)      | the scorer       |
| `redis_record`  | Redis `image_score:{<listing>}` | the scorer       |
| `dead_letter`   | `listing.events.dlq`            | the scorer       |
| `seller_hint`   | `seller.hints`                  | the hints app    |
| `seller_notice` | `seller.notices`                | the notices app  |
| `hint_feedback` | `seller.hint_feedback`          | the marketplace  |

`json/` holds the JSON Schema of each message (`image-score schemas export`).
"""

from schemas.base import Message, MessageError
from schemas.dead_letter import DeadLetter, DeadLetterType, FailedAttempt, Stage
from schemas.hint_feedback import HintFeedback
from schemas.image_score import FailedPhoto, ImageScore, PhotoError, PhotoErrorType, ScoredPhoto
from schemas.listing_event import ListingEvent, ListingEventType, ListingPhoto
from schemas.redis_record import RedisRecord, record_key, tombstone_key
from schemas.seller_hint import SellerHint, Tip
from schemas.seller_notice import SellerNotice
from schemas.vocabulary import ASPECTS, ISSUES, Aspect, Issue

MESSAGES: tuple[type[Message], ...] = (ListingEvent, ImageScore, SellerHint, SellerNotice, HintFeedback, DeadLetter)
"""The messages that travel on Kafka."""

__all__ = [
    "ASPECTS",
    "ISSUES",
    "MESSAGES",
    "Aspect",
    "DeadLetter",
    "DeadLetterType",
    "FailedAttempt",
    "FailedPhoto",
    "HintFeedback",
    "ImageScore",
    "Issue",
    "ListingEvent",
    "ListingEventType",
    "ListingPhoto",
    "Message",
    "MessageError",
    "PhotoError",
    "PhotoErrorType",
    "RedisRecord",
    "ScoredPhoto",
    "SellerHint",
    "SellerNotice",
    "Stage",
    "Tip",
    "record_key",
    "tombstone_key",
]
