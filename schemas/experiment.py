"""Which users see which arm of which experiment: a file that search services in any language read, and its rule.

The rule uses whole numbers alone, so that Python, Go and Java agree on every user. For text t, let h(t) be the first
seven bytes of SHA-256 of its UTF-8 bytes, as a big-endian number. In a layer, a user has bucket
h(layer salt + "/" + user) mod 10000 and may be in the one experiment that owns that bucket: experiments of one layer
exclude each other, experiments of different layers do not. The user is in it when
h(salt + "/ramp/" + user) mod 10000 < ramp, so a ramp that grows only adds users, and has the arm that
h(salt + "/arm/" + user) mod (sum of weights) falls on, counting weights from the first arm.
A user who is forced into an arm is in that experiment, the first of the layer's, and no other of the layer; excluded
users are in none.
"""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from schemas.base import Message

BUCKETS = 10_000
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
User = Annotated[str, Field(min_length=1, max_length=256)]


def user_hash(text: str) -> int:
    """Return the first seven bytes of the text's SHA-256 as a number, 0..2^56-1."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


class Arm(Message):
    name: Name
    weight: int = Field(1, ge=0, le=1_000_000)


class Experiment(Message):
    """Owns the buckets `first` to `last` of its layer, both included; `ramp` is in 1/10000 of its users."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    salt: Name
    first: int = Field(0, ge=0, lt=BUCKETS)
    last: int = Field(BUCKETS - 1, ge=0, lt=BUCKETS)
    ramp: int = Field(BUCKETS, ge=0, le=BUCKETS)
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=100)
    exclude: frozenset[User] = frozenset()
    force: dict[User, Name] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"the arms' names {names} are not all different")
        if not sum(arm.weight for arm in self.arms):
            raise ValueError("one arm needs a weight above 0")
        if self.last < self.first:
            raise ValueError(f"buckets {self.first} to {self.last} are none: last must not be below first")
        if unknown := sorted(set(self.force.values()) - set(names)):
            raise ValueError(f"users are forced into {unknown}, which is no arm of {names}")
        return self

    def arm_of(self, user: str, bucket: int) -> str | None:
        """Return the arm of a user who is not forced into one; None: not in this experiment."""
        if user in self.exclude or not self.first <= bucket <= self.last:
            return None
        if user_hash(f"{self.salt}/ramp/{user}") % BUCKETS >= self.ramp:
            return None
        left = user_hash(f"{self.salt}/arm/{user}") % sum(arm.weight for arm in self.arms)
        for arm in self.arms:
            if left < arm.weight:
                return arm.name
            left -= arm.weight
        raise AssertionError("unreachable")


class Layer(Message):
    """Experiments that exclude each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    salt: Name
    experiments: tuple[Experiment, ...] = Field(default=(), max_length=1000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for one, other in combinations(self.experiments, 2):
            if one.first <= other.last and other.first <= one.last:
                raise ValueError(f"experiments {one.name} and {other.name} share buckets: in one layer they cannot")
        return self


class Experiments(Message):
    """The file: `{"layers": [{"name", "salt", "experiments": [{"name", "salt", "arms", ...}]}], "exclude": [...]}`.

    `exclude` holds users who are in no experiment at all, unless they are forced.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[Layer, ...] = Field(max_length=100)
    exclude: frozenset[User] = frozenset()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for names in (
            [layer.name for layer in self.layers],
            [experiment.name for layer in self.layers for experiment in layer.experiments],
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"the names {names} are not all different")
        return self

    def assign(self, user: str) -> dict[str, str]:
        """Return the user's arm in each experiment that the user is in."""
        found = {}
        for layer in self.layers:
            forced = next((one for one in layer.experiments if user in one.force), None)
            if forced:
                found[forced.name] = forced.force[user]
            elif user not in self.exclude:
                bucket = user_hash(f"{layer.salt}/{user}") % BUCKETS
                for experiment in layer.experiments:
                    if (arm := experiment.arm_of(user, bucket)) is not None:
                        found[experiment.name] = arm
        return found
