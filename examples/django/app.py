"""A small shop in Django: a guest's cart, login, a page behind a step-up, the user's devices, logout."""

from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import path
from django.views.decorators.http import require_POST

from sessiond_client.contrib.django import devices, end_device, requires, safe_path, sessiond_login


def shop(request):
    if request.method == "POST":
        request.session.setdefault("cart", []).append(request.POST["item"])
    return render(request, "shop.html", {"cart": request.session.get("cart", [])})


def log_in(request):
    target = safe_path(request.GET.get("next"))
    if request.user.is_authenticated:  # a step-up
        if request.POST.get("code") == "123456":  # a stand-in for your second factor
            sessiond_login(request, request.user, level=2, methods=("pwd", "otp"))
            return redirect(target)
        return render(request, "code.html")
    if (request.POST.get("user"), request.POST.get("password")) == ("alice", "teapot"):  # a stand-in: authenticate()
        user, _ = User.objects.get_or_create(username="alice")
        login(request, user)
        return redirect(target)
    return render(request, "login.html")


@require_POST
def log_out(request):
    logout(request)
    return redirect("/")


@requires(level=2)
def account(request):
    return HttpResponse("Your address and your invoices")


@requires()
def your_devices(request):
    if request.method == "POST":
        end_device(request, request.POST["id"])
    return render(request, "devices.html", {"devices": devices(request)})


urlpatterns = [
    path("", shop),
    path("login", log_in),
    path("logout", log_out),
    path("account", account),
    path("devices", your_devices),
]
