"""A real browser: Debian's Chromium without a window, driven by Playwright.

Playwright's own browsers are not downloaded. Where there is no Chromium, tests skip with `WHY_NOT` as the reason.
"""

from __future__ import annotations

import os
import shutil
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.async_api import Browser, async_playwright

__all__ = ["PROGRAM", "WHY_NOT", "chromium", "needs_browser", "trusting"]

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
"""The path of Chromium; empty if it is not installed."""
WHY_NOT = "Chromium is not installed (Debian: apt install chromium)"
needs_browser = pytest.mark.skipif(not PROGRAM, reason=WHY_NOT)
"""The mark of tests with a browser."""


def trusting(certificate: bytes) -> str:
    """Return the argument that makes Chromium accept a server's certificate (PEM), and no other unknown one.

    Chromium without a window keeps secure cookies of `http://localhost` too, so few tests need TLS.
    """
    public = x509.load_pem_x509_certificate(certificate).public_key()
    digest = sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return f"--ignore-certificate-errors-spki-list={b64encode(digest).decode('ascii')}"


@asynccontextmanager
async def chromium(arguments: Sequence[str] = (), *, keeps_pages: bool = False) -> AsyncIterator[Browser]:
    """Run Chromium. Each `new_context()` of it is a device of its own: cookies, storage and cache.

    `arguments`: further ones for its command line. `keeps_pages`: whether the back button may show pages as they were
    left (the back/forward cache), as it does for users; Playwright switches that off.
    """
    isolation = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=PROGRAM,
            args=[*isolation, "--disable-quic", *arguments],
            ignore_default_args=["--disable-back-forward-cache"] if keeps_pages else None,
        )
        try:
            yield browser
        finally:
            await browser.close()
