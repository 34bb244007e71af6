"""A shop in Django: its views twice, synchronous and below `/async/` asynchronous."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import aauthenticate, alogin, alogout, authenticate, login, logout
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import CsrfViewMiddleware, get_token
from django.template import engines
from django.urls import include, path
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from sessiond_client import ConcurrencyLimitReached
from sessiond_client.contrib.django import (
    acsrf_token,
    adevices,
    aend_device,
    alogout_everywhere,
    arecent_activity,
    asessiond_login,
    csrf_protect,
    csrf_token,
    current_session,
    devices,
    end_device,
    end_other_devices,
    logout_everywhere,
    recent_activity,
    requires,
    safe_path,
    sessiond_login,
)

__all__ = ["hooks", "urlpatterns"]

PAGE = '{{ user }}<form method="post">{% csrf_token %}</form>'


class Hooks:
    """What a test has a view do."""

    before_login: Callable[[], None] = staticmethod(lambda: None)
    in_view: Callable[[Any], Any] = staticmethod(lambda request: None)
    in_stream: Callable[[], Any] = staticmethod(lambda: None)


hooks = Hooks()


def rows(found: Any) -> JsonResponse:
    """Device rows as JSON."""
    return JsonResponse([[row.session_id, row.description, row.is_current] for row in found], safe=False)


def orders(request: Any) -> StreamingHttpResponse:
    """An event stream that ends by itself after ten seconds."""

    def lines() -> Iterator[str]:
        yield f"data: {request.user.username}\n\n"
        hooks.in_stream()
        for _ in range(500):
            time.sleep(0.02)
            yield ":\n\n"
        yield "data: the end\n\n"

    request.user.username  # noqa: B018 - the session is read before the stream begins
    return StreamingHttpResponse(lines(), content_type="text/event-stream")


async def async_orders(request: Any) -> StreamingHttpResponse:
    """The same for asynchronous views."""
    user = await request.auser()

    async def lines() -> AsyncIterator[str]:
        yield f"data: {user.username}\n\n"
        await asyncio.to_thread(hooks.in_stream)
        for _ in range(500):
            await asyncio.sleep(0.02)
            yield ":\n\n"
        yield "data: the end\n\n"

    return StreamingHttpResponse(lines(), content_type="text/event-stream")


def plain(request: Any) -> HttpResponse:
    return HttpResponse("no session here")


def home(request: Any) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(PAGE).render({"user": request.user.username}, request))


def cart(request: Any) -> HttpResponse:
    if request.method == "POST":
        request.session.setdefault("cart", []).append(request.POST["item"])
    return JsonResponse({"user": request.user.username, "cart": request.session.get("cart", [])})


def log_in(request: Any) -> HttpResponse:
    if request.method != "POST":
        return home(request)
    user = authenticate(request, username=request.POST["user"], password=request.POST["password"])
    if user is None:
        return HttpResponse(status=401)
    hooks.before_login()
    try:
        login(request, user)
    except ConcurrencyLimitReached:
        return HttpResponse("too many devices", status=409)
    return HttpResponseRedirect(safe_path(request.GET.get("next")), status=303)


def log_out(request: Any) -> HttpResponse:
    logout(request)
    return HttpResponseRedirect("/", status=303)


def step_up(request: Any) -> HttpResponse:
    sessiond_login(request, request.user, level=2, methods=("pwd", "otp"))
    return HttpResponse("stepped up")


@requires(level=2)
def secret(request: Any) -> HttpResponse:
    return HttpResponse("the secret")


@requires(max_age=timedelta(minutes=5))
def recent(request: Any) -> HttpResponse:
    return HttpResponse("recent")


@requires(guests=True, level=2)
def open_house(request: Any) -> HttpResponse:
    return HttpResponse("come in")


@requires(csrf=True)
def strict(request: Any) -> HttpResponse:
    return HttpResponse("with token")


def list_devices(request: Any) -> HttpResponse:
    return rows(devices(request))


def activity(request: Any) -> HttpResponse:
    return JsonResponse([row.event for row in recent_activity(request, most=2)], safe=False)


def end(request: Any) -> HttpResponse:
    return JsonResponse({"ended": end_device(request, request.POST["id"])})


def end_others(request: Any) -> HttpResponse:
    return JsonResponse({"ended": end_other_devices(request)})


def everywhere(request: Any) -> HttpResponse:
    count = logout_everywhere(request)
    logout(request)
    return JsonResponse({"ended": count})


def whoami(request: Any) -> HttpResponse:
    session = current_session(request)
    return JsonResponse(
        {"subject": session.subject if session else None, "level": session.authentication.level}
        if session and session.authentication
        else {"subject": session.subject if session else None}
    )


def script_token(request: Any) -> HttpResponse:
    return JsonResponse({"token": csrf_token(request), "of_django": get_token(request)})


@csrf_exempt  # type: ignore[untyped-decorator]  # Django has no types
def hook(request: Any) -> HttpResponse:
    return HttpResponse("hooked")


@csrf_exempt  # type: ignore[untyped-decorator]  # Django has no types
@csrf_protect  # type: ignore[untyped-decorator]
def protected_inside(request: Any) -> HttpResponse:
    return HttpResponse("protected")


@csrf_exempt  # type: ignore[untyped-decorator]
def own_check(request: Any) -> HttpResponse:
    check = CsrfViewMiddleware(lambda request: HttpResponse())
    check.process_request(request)
    return HttpResponse("failed" if check.process_view(request, None, (), {}) else "passed")


def run_hook(request: Any) -> HttpResponse:
    found = hooks.in_view(request)
    return found if found is not None else HttpResponse("hook")


@requires(level=1)
class Orders(View):  # type: ignore[misc]  # Django has no types
    def get(self, request: Any, number: int = 0) -> HttpResponse:
        return HttpResponse(f"order {number}")


async def acart(request: Any) -> HttpResponse:
    user = await request.auser()
    if request.method == "POST":
        (await request.session.asetdefault("cart", [])).append(request.POST["item"])
    return JsonResponse({"user": user.username, "cart": await request.session.aget("cart", [])})


async def ahome(request: Any) -> HttpResponse:
    user = await request.auser()
    await acsrf_token(request)
    page = engines["django"].from_string(PAGE)
    return HttpResponse(await sync_to_async(page.render)({"user": user.username}, request))


async def alog_in(request: Any) -> HttpResponse:
    if request.method != "POST":
        return await ahome(request)
    user = await aauthenticate(request, username=request.POST["user"], password=request.POST["password"])
    if user is None:
        return HttpResponse(status=401)
    await asyncio.to_thread(hooks.before_login)
    try:
        await alogin(request, user)
    except ConcurrencyLimitReached:
        return HttpResponse("too many devices", status=409)
    return HttpResponseRedirect(safe_path(request.GET.get("next")), status=303)


async def alog_out(request: Any) -> HttpResponse:
    await alogout(request)
    return HttpResponseRedirect("/", status=303)


async def astep_up(request: Any) -> HttpResponse:
    user = await request.auser()
    await asessiond_login(request, await User.objects.aget(pk=user.pk), level=2, methods=("pwd", "otp"))
    return HttpResponse("stepped up")


@requires(level=2)
async def asecret(request: Any) -> HttpResponse:
    return HttpResponse("the secret")


@requires(max_age=timedelta(minutes=5))
async def arecent(request: Any) -> HttpResponse:
    return HttpResponse("recent")


@requires(guests=True, level=2)
async def aopen_house(request: Any) -> HttpResponse:
    return HttpResponse("come in")


@requires(csrf=True)
async def astrict(request: Any) -> HttpResponse:
    return HttpResponse("with token")


async def alist_devices(request: Any) -> HttpResponse:
    return rows(await adevices(request))


async def aactivity(request: Any) -> HttpResponse:
    return JsonResponse([row.event for row in await arecent_activity(request, most=2)], safe=False)


async def aend(request: Any) -> HttpResponse:
    return JsonResponse({"ended": await aend_device(request, request.POST["id"])})


async def aeverywhere(request: Any) -> HttpResponse:
    count = await alogout_everywhere(request)
    await alogout(request)
    return JsonResponse({"ended": count})


@requires(level=1)
class AsyncOrders(View):  # type: ignore[misc]  # Django has no types
    async def get(self, request: Any, number: int = 0) -> HttpResponse:
        return HttpResponse(f"order {number}")


async def aplain(request: Any) -> HttpResponse:
    return HttpResponse("no session here")


@csrf_exempt  # type: ignore[untyped-decorator]  # Django has no types
async def ahook(request: Any) -> HttpResponse:
    return HttpResponse("hooked")


_BOTH = {
    "": (home, ahome),
    "plain": (plain, aplain),
    "cart": (cart, acart),
    "login": (log_in, alog_in),
    "logout": (log_out, alog_out),
    "step-up": (step_up, astep_up),
    "secret": (secret, asecret),
    "recent": (recent, arecent),
    "open-house": (open_house, aopen_house),
    "strict": (strict, astrict),
    "devices": (list_devices, alist_devices),
    "devices/end": (end, aend),
    "activity": (activity, aactivity),
    "everywhere": (everywhere, aeverywhere),
    "orders/<int:number>": (Orders.as_view(), AsyncOrders.as_view()),
    "hook": (hook, ahook),
    "own-check": (own_check, own_check),
    "run": (run_hook, run_hook),
}
urlpatterns = [
    *(path(route, views[0]) for route, views in _BOTH.items()),
    path("async/", include([path(route, views[1]) for route, views in _BOTH.items()])),
    path("devices/end-others", end_others),
    path("orders", orders),
    path("async/orders", async_orders),
    path("whoami", whoami),
    path("token", script_token),
    path("protected-inside", protected_inside),
    path("accounts/login/", LoginView.as_view()),
]


def waiting(count: int) -> Callable[[], None]:
    """A function that returns when so many threads have called it."""
    barrier = threading.Barrier(count, timeout=20)
    return lambda: (barrier.wait(), None)[1]
