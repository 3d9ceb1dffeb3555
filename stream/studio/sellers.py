"""The sellers' page: drop photos in, see what they are worth and why, and what would make them better."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import PurePath
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from schemas import ListingPhoto
from schemas.base import Identifier
from stream.errors import PhotoRejected
from stream.fetch import PhotoFetcher
from stream.fixes.advise import opened
from stream.settings import Settings
from stream.studio.cards import card, heat_text, level
from stream.studio.guard import Guard, Refused
from stream.studio.heat import Heat, heat
from stream.studio.live import LiveFeed
from stream.studio.pages import Pages
from stream.studio.scoring import Studio, StudioPhoto, order, total
from stream.studio.sessions import Session, Sessions
from stream.tips import Policy

_NAME_LENGTH = 60


class Sellers:
    """The routes, over the sessions' photos."""

    def __init__(
        self,
        settings: Settings,
        guard: Guard,
        pages: Pages,
        studio: Studio,
        policy: Policy,
        fetcher: PhotoFetcher,
        feed: LiveFeed | None,
    ) -> None:
        self._settings = settings
        self._guard = guard
        self._pages = pages
        self._studio = studio
        self._policy = policy
        self._fetcher = fetcher
        self._feed = feed
        self.sessions = Sessions(settings.studio_minutes, settings.studio_memory)

    def router(self) -> APIRouter:
        router = APIRouter()
        router.get("/")(self.show)
        router.post("/photos")(self.add)
        router.post("/photos/{photo_id}/remove")(self.remove)
        router.post("/listing")(self.open_listing)
        router.post("/forget")(self.forget)
        router.get("/photos/{photo_id}/view.jpg")(self.view)
        router.get("/photos/{photo_id}/heat", response_class=EventSourceResponse)(self.find_heat)
        router.get("/photos/{photo_id}/heat.jpg")(self.heat_picture)
        router.get("/photos/{photo_id}/{version}.jpg")(self.version)
        router.get("/photos/{photo_id}/{version}/download")(self.download)
        return router

    async def show(self, request: Request) -> HTMLResponse:
        words = self._pages.words(request)
        session = self.sessions.get(self._guard.session_of(request)) or Session()
        photos = list(session.photos.values())
        cards = [card(p, i + 1, words, self._policy, self._settings.tip_threshold) for i, p in enumerate(photos)]
        numbers = {photo.photo_id: i + 1 for i, photo in enumerate(photos)}
        best = [(photo, numbers[photo.photo_id]) for photo in order(photos)]
        now, then = (total(photos), total(order(photos))) if photos else (0.0, 0.0)
        problems = [(name, words(f"photo_{kind}")) for name, kind in session.problems]
        session.problems.clear()
        return self._pages.page(
            "photos.html",
            request,
            cards=cards,
            best=best,
            total=now,
            total_level=level(now),
            best_total=then,
            problems=problems,
            listing=session.listing,
        )

    async def add(
        self,
        request: Request,
        files: list[UploadFile],
        token: Annotated[str, Form()],
        script: Annotated[str, Form()] = "",
    ) -> Response:
        """Take photos; a script is told how each went, and a form goes back to the page."""
        key = self._guard.session_of(request)
        self._guard.check_token(key, token)
        self._guard.check_rate(request, cost=len(files))
        session = self.sessions.open(key)
        if session.listing:
            session.photos.clear()
            session.listing = ""
        for file in files:
            await self._take(session, file)
        self.sessions.sweep()
        return JSONResponse({}) if script else RedirectResponse("/", 303)

    async def _take(self, session: Session, file: UploadFile) -> None:
        name = PurePath(file.filename or "").name[:_NAME_LENGTH]
        if not name and not file.size:
            return  # a form that was sent without a photo
        if len(session.photos) >= self._settings.studio_photos:
            session.problems.append((name, "too_many"))
        elif (file.size or 0) > self._settings.max_photo_bytes:
            session.problems.append((name, "too_large"))
        else:
            await self._score(session, name, await file.read())

    async def _score(self, session: Session, name: str, data: bytes) -> None:
        try:
            photo = await self._studio.photo(name, data)
        except PhotoRejected as rejection:
            session.problems.append((name, rejection.error.type.value))
        else:
            session.photos[photo.photo_id] = photo

    async def open_listing(
        self, request: Request, listing_id: Annotated[Identifier, Form()], token: Annotated[str, Form()]
    ) -> Response:
        """Show the photos of a listing that the running stack scored."""
        key = self._guard.session_of(request)
        self._guard.check_token(key, token)
        photos = self._feed.photos_of(listing_id) if self._feed else []
        if not photos:
            raise Refused("refused_listing", 404)
        self._guard.check_rate(request, cost=len(photos))
        self.sessions.end(key)
        session = self.sessions.open(key)
        session.listing = listing_id
        for photo in photos[: self._settings.studio_photos]:
            await self._fetch(session, photo)
        return RedirectResponse("/", 303)

    async def _fetch(self, session: Session, photo: ListingPhoto) -> None:
        try:
            async with self._fetcher.photo(photo) as data:
                await self._score(session, photo.photo_id, data)
        except PhotoRejected as rejection:
            session.problems.append((photo.photo_id, rejection.error.type.value))

    async def remove(self, request: Request, photo_id: str, token: Annotated[str, Form()]) -> Response:
        key = self._guard.session_of(request)
        self._guard.check_token(key, token)
        self.sessions.open(key).photos.pop(photo_id, None)
        return RedirectResponse("/", 303)

    async def forget(self, request: Request, token: Annotated[str, Form()]) -> Response:
        """End the session, and forget its photos."""
        key = self._guard.session_of(request)
        self._guard.check_token(key, token)
        self.sessions.end(key)
        return RedirectResponse("/", 303)

    def _photo(self, request: Request, photo_id: str) -> StudioPhoto:
        session = self.sessions.get(self._guard.session_of(request))
        photo = session.photos.get(photo_id) if session else None
        if photo is None:
            raise Refused("refused_gone", 404)
        return photo

    def _jpeg(self, request: Request, photo_id: str, version: str) -> bytes:
        found = self._photo(request, photo_id).versions().get(version)
        if found is None:
            raise Refused("refused_gone", 404)
        return found

    async def view(self, request: Request, photo_id: str) -> Response:
        return Response(self._photo(request, photo_id).view, media_type="image/jpeg")

    async def version(self, request: Request, photo_id: str, version: str) -> Response:
        return Response(self._jpeg(request, photo_id, version), media_type="image/jpeg")

    async def download(self, request: Request, photo_id: str, version: str) -> Response:
        """A fixed version as large as the photo came."""
        self._jpeg(request, photo_id, version)
        async with self._studio.busy:
            data = await asyncio.to_thread(self._photo(request, photo_id).in_full, version)
        headers = {"Content-Disposition": f'attachment; filename="photo-{version}.jpg"'}
        return Response(data, media_type="image/jpeg", headers=headers)

    async def find_heat(self, request: Request, photo_id: str) -> AsyncIterator[ServerSentEvent]:
        """Tell how far the heat map is; at last, what it shows, or why there is none."""
        words = self._pages.words(request)
        try:
            photo = self._photo(request, photo_id)
            if photo.heat is None:
                self._guard.check_rate(request)
                async for share in self._make_heat(photo):
                    yield ServerSentEvent(event="progress", data=share)
        except Refused as refusal:
            yield ServerSentEvent(event="refused", data=words(refusal.kind))
            return
        assert photo.heat is not None
        yield ServerSentEvent(event="found", data={"text": heat_text(photo.heat, words), "red": photo.heat.found})

    async def _make_heat(self, photo: StudioPhoto) -> AsyncIterator[float]:
        """Yield the share done."""
        async with self._studio.busy:
            view = await asyncio.to_thread(opened, photo.view)
            async for step in heat(self._studio.model, view):
                if isinstance(step, Heat):
                    photo.heat = step
                else:
                    yield round(step, 3)

    async def heat_picture(self, request: Request, photo_id: str) -> Response:
        photo = self._photo(request, photo_id)
        if photo.heat is None:
            raise Refused("refused_gone", 404)
        view = await asyncio.to_thread(opened, photo.view)
        return Response(await asyncio.to_thread(photo.heat.laid_over, view), media_type="image/jpeg")
