"""Settings of a small shop, whose database is told by the environment."""

import os

DATABASES = {
    "default": {
        "ENGINE": os.environ["ENGINE"],
        "HOST": "127.0.0.1",
        "PORT": os.environ["PGPORT"],
        "USER": "app",
        "PASSWORD": os.environ["PGPASSWORD"],
        "NAME": os.environ.get("PGDATABASE", "postgres"),
        "OPTIONS": {"application_name": "shop"},
    }
}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ROOT_URLCONF = "shop.urls"
SECRET_KEY = "of a test"
TIME_ZONE = "Europe/Berlin"
USE_TZ = os.environ.get("USE_TZ", "1") == "1"
