"""A small shop in FastAPI with sessions in sessiond."""

from html import escape
from typing import Annotated

from fastapi import Depends, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from sessiond_client.contrib import fastapi as sessiond
from sessiond_client.contrib.fastapi import CurrentUser, csrf_token, current_subject, requires, safe_path

app = FastAPI(default_response_class=HTMLResponse)
app.add_middleware(sessiond.SessiondMiddleware, target="127.0.0.1:7443")
Field = Annotated[str, Form()]


async def form(request: Request, action: str, button: str, fields: str = "") -> str:
    hidden = f'<input type="hidden" name="csrf_token" value="{await csrf_token(request)}">'
    return f'<form method="post" action="{action}">{hidden}{fields}<button>{button}</button></form>'


@app.get("/")
async def shop(request: Request):
    cart = ", ".join(map(escape, request.session.get("cart", []))) or "nothing"
    user = f"You are {escape(current_subject(request) or 'a guest')}. In your cart: {cart}."
    links = '<a href="/login">Log in</a> <a href="/payment">Pay</a> <a href="/devices">Your devices</a>'
    add = await form(request, "/cart", "Add to cart", '<input name="item" value="teapot">')
    return user + links + add + await form(request, "/logout", "Log out")


@app.post("/cart")
async def add(request: Request, item: Field):
    request.session.setdefault("cart", []).append(item)
    return RedirectResponse("/", 303)


@app.get("/login")
async def login_page(request: Request, next: str = "/"):
    asked = 'Code <input name="code">' if current_subject(request) else 'User <input name="user"> '
    asked += "" if current_subject(request) else 'Password <input name="password" type="password">'
    return await form(request, "/login", "Log in", f'<input type="hidden" name="next" value="{escape(next)}">{asked}')


@app.post("/login")
async def log_in(request: Request, user: Field = "", password: Field = "", code: Field = "", next: Field = "/"):
    known = current_subject(request)
    if known and code == "123456":  # your own check of a second factor
        await sessiond.login(request, known, level=2, methods=("pwd", "otp"))
    elif (user, password) == ("alice", "teapot"):  # your own check of a password
        await sessiond.login(request, user)
    else:
        return HTMLResponse("That is not right.", 403)
    return RedirectResponse(safe_path(next), 303)


@app.get("/payment", dependencies=[Depends(requires(level=2))])
async def payment():
    return "Thank you for your payment."


@app.get("/devices")
async def devices(request: Request, user: CurrentUser):
    rows = []
    for row in await sessiond.devices(request):
        text = f"{escape(row.description)} since {row.login_time:%c}{' (this one)' if row.is_current else ''}"
        rows.append(text + await form(request, f"/devices/{row.session_id}/end", "End this device"))
    return "".join(rows)


@app.post("/devices/{session_id}/end")
async def end(request: Request, session_id: str):
    await sessiond.end_device(request, session_id)
    return RedirectResponse("/devices", 303)


@app.post("/logout")
async def log_out(request: Request):
    await sessiond.logout(request)
    return RedirectResponse("/", 303)
