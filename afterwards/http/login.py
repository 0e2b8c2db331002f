"""The pages by which a browser logs in as an operator, and out again."""

import base64
import re
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from afterwards.http import sessions
from afterwards.http.forms import read_form
from afterwards.http.operators import ELSEWHERE, Operator, Operators
from afterwards.http.origins import is_from_elsewhere
from afterwards.problems import Problem

HERE = Path(__file__).parent
STYLE = (HERE / "login.css").read_text()
PAGE = Template((HERE / "login.html").read_text())

HASH = base64.b64encode(sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{HASH}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    # With none at all a browser's form would say that it comes from nowhere.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

# Below which path: that of a page, without what these routes add to it.
OWN_PART = re.compile(r"/(login|logout|changes|task-[^/]*(/arguments|/retry)?)?/?$")

ASK = """\
<p class="soft">For whoever looks after this service&rsquo;s tasks</p>
$complaint<input class="vh" type="text" name="username" value="operator" autocomplete="username" \
tabindex="-1" aria-hidden="true" readonly>
<input type="hidden" name="next" value="$following">
<div>
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus \
aria-describedby="hint">
</div>
<button class="main">Sign in</button>
<p class="soft" id="hint">It is the value of <code>ADMIN_TOKEN</code>, or of \
<code>ADMIN_READ_TOKEN</code>, in the deployment. You stay signed in for 12 hours.</p>"""

AGAIN = """<meta http-equiv="refresh" content="0"><p><a href="">Go on</a></p>"""
LINKS = """\
<p><a href="$base/">The tasks</a> and <a href="$base/changes">what operators changed</a></p>"""
SIGNED_IN = f"""\
<p>You are signed in as <b>$name</b>.</p>
{LINKS}
<input type="hidden" name="csrf" value="$form_token">
<button>Sign out</button>"""
THIS_MACHINE = f"""\
<p>No token is set, and this is a machine for development: whoever is on it is an operator.</p>
{LINKS}"""


class Login:
    """The endpoints; the login holds wherever else the same `Operators` are asked."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    async def login(self, request: Request) -> Response:
        """Show who is logged in, or ask for the token; log in whoever gives it."""
        if not self._operators.tokens:
            self._operators.admit(request)
            return _page(request, "This machine", THIS_MACHINE)
        if request.method == "POST":
            return await self._log_in(request)
        following = request.query_params.get("next", "")
        if self._operators.session(request) is None:
            return _arriving(request) or _asking(request, following)
        operator = self._operators.admit(request)
        return (
            RedirectResponse(_own(request, following), 303)
            if following
            else _signed_in(request, operator)
        )

    async def logout(self, request: Request) -> Response:
        """Log out; a link only leads to the button."""
        answer = RedirectResponse(quote(f"{below(request)}/login"), 303)
        if request.method == "POST" and (session := self._operators.session(request)):
            fields = await read_form(request)
            self._operators.admit(request, form_token=fields.get("csrf", ""))
            sessions.end(request, answer, session.token)
        return answer

    async def _log_in(self, request: Request) -> Response:
        if is_from_elsewhere(request.headers):
            raise Problem(403, ELSEWHERE)
        fields = await read_form(request)
        following = fields.get("next", "")
        try:
            token = self._operators.token(request, fields.get("token", ""))
        except Problem as problem:
            return _asking(request, following, problem)
        answer = RedirectResponse(_own(request, following), 303, {"Cache-Control": "no-store"})
        sessions.begin(request, answer, token)
        return answer


def instead_of(problem: Problem, request: Request) -> HTTPException:
    """Lead a browser that is not logged in to the login, and then back; others get the problem."""
    if (
        problem.status_code != 401
        or request.method != "GET"
        or "text/html" not in request.headers.get("accept", "")
    ):
        return problem
    asked = request.scope["path"] + (f"?{request.url.query}" if request.url.query else "")
    where = f"{quote(below(request))}/login?{urlencode({'next': asked})}"
    return HTTPException(303, problem.detail, {"Location": where})


def below(request: Request) -> str:
    """Return the path below which the route of this request and its siblings are."""
    return OWN_PART.sub("", request.scope["path"])


def _own(request: Request, path: str) -> str:
    """Return the path if it leads to a page of ours, else that of the login."""
    base = below(request)
    is_ours = re.fullmatch(re.escape(base) + r"([/?][^\\\s]*)?", path) and path[:2] != "//"
    return path if path and is_ours else f"{base}/login"


def _arriving(request: Request) -> Response | None:
    """Have a browser ask again that follows another site's link: for that it withholds cookies."""
    if request.headers.get("sec-fetch-site") != "cross-site":
        return None
    return _page(request, "Sign in", AGAIN)


def _asking(request: Request, following: str, problem: Problem | None = None) -> Response:
    values = {"following": following, "complaint": ""}
    if problem is None:
        return _page(request, "Sign in", ASK, **values)
    values["complaint"] = f'<p class="bad" role="alert">{escape(problem.detail)}</p>\n'
    answer = _page(request, "Sign in", ASK, **values)
    answer.status_code = problem.status_code
    answer.headers.update(problem.headers or {})
    return answer


def _signed_in(request: Request, operator: Operator) -> Response:
    name = operator.name.partition(",")[0]
    values = {"name": name, "form_token": operator.form_token}
    return _page(request, "Signed in", SIGNED_IN, action="logout", **values)


def _page(
    request: Request, title: str, content: str, *, action: str = "login", **values: str
) -> Response:
    base = quote(below(request))
    escaped = {name: each if name == "complaint" else escape(each) for name, each in values.items()}
    html = PAGE.substitute(
        title=title,
        style=STYLE,
        action=escape(f"{base}/{action}"),
        content=Template(content).substitute(escaped, base=escape(base)),
    )
    return HTMLResponse(html, headers=HEADERS)
