from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GetRequest(_message.Message):
    __slots__ = ("listing_id", "budget_ms")
    LISTING_ID_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    listing_id: str
    budget_ms: int
    def __init__(self, listing_id: _Optional[str] = ..., budget_ms: _Optional[int] = ...) -> None: ...

class GetManyRequest(_message.Message):
    __slots__ = ("listing_ids", "budget_ms")
    LISTING_IDS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    listing_ids: _containers.RepeatedScalarFieldContainer[str]
    budget_ms: int
    def __init__(self, listing_ids: _Optional[_Iterable[str]] = ..., budget_ms: _Optional[int] = ...) -> None: ...

class ListingScore(_message.Message):
    __slots__ = ("listing_id", "score", "scored", "late", "cover_score", "best_position", "event_version", "scored_at_ms", "model_version")
    LISTING_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    COVER_SCORE_FIELD_NUMBER: _ClassVar[int]
    BEST_POSITION_FIELD_NUMBER: _ClassVar[int]
    EVENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCORED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    listing_id: str
    score: float
    scored: bool
    late: bool
    cover_score: float
    best_position: int
    event_version: int
    scored_at_ms: int
    model_version: int
    def __init__(self, listing_id: _Optional[str] = ..., score: _Optional[float] = ..., scored: _Optional[bool] = ..., late: _Optional[bool] = ..., cover_score: _Optional[float] = ..., best_position: _Optional[int] = ..., event_version: _Optional[int] = ..., scored_at_ms: _Optional[int] = ..., model_version: _Optional[int] = ...) -> None: ...

class GetManyResponse(_message.Message):
    __slots__ = ("scores", "late")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    late: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., late: _Optional[_Iterable[str]] = ...) -> None: ...
