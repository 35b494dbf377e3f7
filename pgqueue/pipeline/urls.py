"""One spelling per address, so that the same article is stored once."""

from __future__ import annotations

from urllib.parse import unquote_plus, urlsplit, urlunsplit

import httpx2

# Exact names and unambiguous prefixes only: courlan's pattern also drops `id`-like and
# `source`-like parameters, which would melt different articles of one site into one.
_TRACKING_PREFIXES = ("utm_", "mtm_", "pk_", "itm_", "hsa_", "vero_", "oly_", "mkt_")
_TRACKING_NAMES = frozenset(
    {
        "_ga", "_gl", "_hsenc", "_hsmi", "_openstat", "at_campaign", "at_medium", "dclid",
        "fb_action_ids", "fb_source", "fbclid", "gad_source", "gbraid", "gclid", "gclsrc", "igsh",
        "igshid", "mc_cid", "mc_eid", "mkt_tok", "msclkid", "ncid", "ns_campaign", "ns_mchannel",
        "ns_source", "rb_clickid", "s_cid", "smid", "srsltid", "ttclid", "twclid", "wbraid",
        "wickedid", "xtor", "yclid", "ysclid",
    }
)  # fmt: skip
_DEFAULT_PORTS = {"http": 80, "https": 443}


def canonical(url: str) -> str | None:
    """The address without what does not change the page, or None if it is no address of a page.

    Scheme and host in lower case, host in IDNA form; default port, user, password, fragment and
    tracking parameters dropped; parameters ordered by name. Idempotent. `file:` addresses keep
    their path alone.
    """
    scheme, _, rest = "".join(url.split()).partition(":")
    scheme = scheme.lower()
    if scheme not in ("http", "https", "file"):
        return None
    try:
        parsed = httpx2.URL(f"{scheme}:{rest}")
    except (httpx2.InvalidURL, ValueError):
        return None
    path = parsed.raw_path.partition(b"?")[0].decode("ascii")
    if scheme == "file":
        return urlunsplit(("file", "", path, "", "")) if path.startswith("/") else None
    host = parsed.raw_host.decode("ascii").lower().rstrip(".")
    if not host:
        return None
    netloc = _netloc(host, parsed.port, scheme)
    return urlunsplit((scheme, netloc, path or "/", _query(parsed.query.decode("ascii")), ""))


def without_password(url: str) -> str:
    """The address as it may be logged and stored: user and password taken out."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("://")[0] + "://…" if "@" in url else url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def is_front_page(canonical_url: str) -> bool:
    """Whether it names a site and not one page; feeds link to it for lack of better."""
    parts = urlsplit(canonical_url)
    return parts.path in ("", "/") and not parts.query


def _netloc(host: str, port: int | None, scheme: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port in (None, _DEFAULT_PORTS[scheme]) else f"{shown}:{port}"


def _query(query: str) -> str:
    kept = [pair for pair in query.split("&") if pair and not _is_tracking(pair)]
    return "&".join(sorted(kept, key=_name))


def _name(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0])


def _is_tracking(pair: str) -> bool:
    name = _name(pair).lower()
    return name in _TRACKING_NAMES or name.startswith(_TRACKING_PREFIXES)
