"""A small shop in Flask with sessions in sessiond."""

from flask import Flask, flash, redirect, render_template, request, session

from sessiond_client.contrib.flask import Sessiond, current_subject, end_device, login, logout, requires, safe_path
from sessiond_client.contrib.flask import devices as own_devices

app = Flask(__name__)
Sessiond(app, "127.0.0.1:7443")


@app.get("/")
def shop():
    return render_template("shop.html", cart=session.get("cart", []))


@app.post("/cart")
def add():
    session.setdefault("cart", []).append(request.form["item"])
    return redirect("/", 303)


@app.get("/login")
def login_page():
    return render_template("login.html")


@app.post("/login")
def log_in():
    form, user = request.form, current_subject()
    if user and form.get("code") == "123456":  # your own check of a second factor
        login(user, level=2, methods=("pwd", "otp"))
    elif (form.get("user"), form.get("password")) == ("alice", "teapot"):  # your own check of a password
        login(form["user"])
    else:
        flash("That is not right.")
        return redirect(request.full_path, 303)
    return redirect(safe_path(request.args.get("next")), 303)


@app.get("/payment")
@requires(level=2)
def payment():
    return "Thank you for your payment."


@app.get("/devices")
@requires()
def devices():
    return render_template("devices.html", devices=own_devices())


@app.post("/devices/<session_id>/end")
@requires()
def end(session_id):
    end_device(session_id)
    return redirect("/devices", 303)


@app.post("/logout")
def log_out():
    logout()
    return redirect("/", 303)
