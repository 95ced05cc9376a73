"""The page's application, which Airflow's API server mounts: one page, two forms, and the runbooks that it links to.

Nothing here is a coroutine that waits: handlers run in the API server's threads, and none of them waits for long.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from monitoring.airflow_page import access, deciding, pages, runbooks
from monitoring.airflow_page.access import Visitor, VisitorDep
from monitoring.airflow_page.genuine import Tokens, check
from monitoring.airflow_page.house import House, Unavailable
from monitoring.airflow_page.view import Filter, view

_HERE = Path(__file__).parent
#: The longest form that is read: a hundred numbers and a reason.
_FORM_BYTES = 64 * 1024

HEADERS = {
    # everything comes from here; Airflow's UI alone may frame it
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # without a referrer a form would have no origin either
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def application(house: House | None = None) -> FastAPI:
    """The application.

    Args:
        house: what the page sees; None for what the configuration names.
    """
    made = FastAPI(title="careloom", docs_url=None, redoc_url=None, openapi_url=None)
    made.state.house = house or House(access.runnable_dags)
    made.state.tokens = Tokens(access.signing_key())
    made.mount("/static", StaticFiles(directory=_HERE / "static"))
    made.get("/", response_class=HTMLResponse)(_page)
    made.get("/runbooks/{name}", response_class=HTMLResponse)(_runbook)
    made.post("/switch")(_switch)
    made.post("/dead-letters")(_decide)
    made.middleware("http")(_guarded)
    made.exception_handler(Unavailable)(_unavailable)
    made.exception_handler(StarletteHTTPException)(_refused)
    return made


async def _guarded(request: Request, serve: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await serve(request)
    if request.url.path.startswith(f"{request.scope.get('root_path', '')}/static/"):
        response.headers["X-Content-Type-Options"] = "nosniff"
    else:
        response.headers.update(HEADERS)
    return response


# --- looking ----------------------------------------------------------------------------------------------------------


def _page(
    request: Request,
    visitor: VisitorDep,
    scenario: Annotated[str, Query(max_length=200)] = "",
    class_: Annotated[str, Query(alias="class", max_length=100)] = "",
    done: Annotated[str, Query(max_length=40)] = "",
    n: Annotated[int, Query(ge=0)] = 0,
) -> HTMLResponse:
    """Everything at once."""
    house: House = request.app.state.house
    chosen = Filter(scenario, class_)
    seen = house.seen()
    shown = view(house.inside(), seen, visitor, chosen)
    token = request.app.state.tokens.make(visitor.name)
    return pages.html(request, "page.html", shown=shown, token=token, done=pages.done(done, n))


def _runbook(request: Request, visitor: VisitorDep, name: str) -> HTMLResponse:
    """What to do about one thing that is wrong."""
    if not visitor.reads_dags():
        raise access.refuse("Runbooks are for who may look at DAGs.")
    found = runbooks.read(name)
    if found is None:
        raise HTTPException(404, "There is no runbook of that name.")
    return pages.html(request, "runbook.html", name=name, content=found)


# --- acting -----------------------------------------------------------------------------------------------------------


class Form:
    """What a form of the page brought, checked to be from our page."""

    def __init__(self, fields: dict[str, list[str]], visitor: Visitor) -> None:
        self._fields = fields
        self.visitor = visitor

    def one(self, name: str) -> str:
        """A field, "" where it is missing."""
        return self._fields.get(name, [""])[0].strip()

    def all(self, name: str) -> list[str]:
        """All values of a field."""
        return self._fields.get(name, [])


async def _form(request: Request, visitor: VisitorDep) -> Form:
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise HTTPException(415, "Only the page's own forms are taken.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            raise HTTPException(413, "This is more than the page's forms hold.")
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=500, keep_blank_values=True)
    except ValueError:
        raise HTTPException(400, "This is no form.") from None
    form = Form(fields, visitor)
    own = {str(request.base_url.replace(path="")).rstrip("/"), access.own_origin()} - {None}
    check(request, [origin for origin in own if origin], request.app.state.tokens, form.one("token"), visitor.name)
    return form


FormDep = Annotated[Form, Depends(_form)]


def _switch(request: Request, form: FormDep) -> RedirectResponse:
    """Switch a scenario, a model or everything off or on."""
    house: House = request.app.state.house
    said = deciding.switch(
        house, form.visitor, kind=form.one("kind"), name=form.one("name"), to=form.one("to"), why=form.one("why")
    )
    return _back(request, said, form, "scenarios" if form.one("kind") == "scenario" else "switches")


def _decide(request: Request, form: FormDep) -> RedirectResponse:
    """Retry or discard dead letters: those that are ticked, or all that the filter shows."""
    house: House = request.app.state.house
    said = deciding.decide(
        house,
        form.visitor,
        deciding.Wanted(
            poison=form.one("kind") == "poison",
            verb=form.one("verb"),
            ids=tuple(form.all("id")),
            everything=form.one("which") == "all",
            expected=form.one("expected"),
            chosen=Filter(form.one("scenario"), form.one("class")),
            why=form.one("why"),
        ),
    )
    return _back(request, said, form, "poison" if form.one("kind") == "poison" else "letters")


def _back(request: Request, said: deciding.Said, form: Form, section: str) -> RedirectResponse:
    """To the page, as it was filtered; reloading it does nothing twice."""
    kept = {name: value for name in ("scenario", "class") if (value := form.one(f"at-{name}"))}
    query = urlencode({**kept, "done": said.what, "n": said.number})
    return RedirectResponse(f"{request.scope.get('root_path', '')}/?{query}#{section}", status_code=303)


# --- what cannot be shown ---------------------------------------------------------------------------------------------


def _unavailable(request: Request, error: Any) -> HTMLResponse:
    """503: the page has nothing to show, and says what to do; the rest of Airflow does not notice."""
    return pages.html(
        request, "trouble.html", status=503, title="Not available", message=str(error), runbook=error.runbook, login=""
    )


def _refused(request: Request, error: Any) -> HTMLResponse:
    login = access.login_url() if error.status_code == 401 else ""
    return pages.html(
        request,
        "trouble.html",
        status=error.status_code,
        title={401: "Log in", 403: "Not permitted", 404: "Not found", 409: "Something has changed"}.get(
            error.status_code, "Refused"
        ),
        message="Log in to Airflow; then this page opens." if login else str(error.detail),
        runbook="",
        login=login,
    )
