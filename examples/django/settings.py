DEBUG = True
SECRET_KEY = "change me"
ROOT_URLCONF = "app"
LOGIN_URL = "/login"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "users.db"}}
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": ["templates"],
        "OPTIONS": {"context_processors": ["django.contrib.auth.context_processors.auth"]},
    }
]

INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "sessiond_client.contrib.django"]
MIDDLEWARE = [
    "sessiond_client.contrib.django.middleware.SessiondMiddleware",
    "sessiond_client.contrib.django.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
SESSION_ENGINE = "sessiond_client.contrib.django.backend"
SESSIOND = {"TARGET": "127.0.0.1:7443"}
