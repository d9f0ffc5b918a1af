"""Whose keys go to the provider: the operator's are put in, the client's stay behind."""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.auth import sign
from kong_ai_proxy.auth.identity import BearerToken, Credential
from kong_ai_proxy.config import Auth
from kong_ai_proxy.exchange import privacy
from kong_ai_proxy.exchange.errors import SERVER_ERROR, Refused
from kong_ai_proxy.exchange.messages import ClientRequest

_SHORTEST_KEY = 8
"""Characters. What is shorter is no key but a placeholder, and would be found in any text."""


def secrets_of(credential: Credential | None) -> tuple[str, ...]:
    """What of a cloud's credential must be seen by nobody."""
    if credential is None:
        return ()
    if isinstance(credential, BearerToken):
        return (credential.token,)
    parts = (credential.access_key_id, credential.secret_access_key, credential.session_token)
    return tuple(text for text in parts if text and len(text) >= _SHORTEST_KEY)


class Keys:
    """The credentials of one request to one target."""

    def __init__(
        self,
        auth: Auth,
        request: ClientRequest,
        body: Mapping[str, object],
        *,
        has_identity: bool,
    ) -> None:
        """`has_identity`: a cloud's identity signs, or has a token."""
        self._auth = auth
        self._request = request
        self._body = body
        self.is_configured = has_identity or sign.is_configured(auth)
        """Whether the operator brings a credential, so that the client's own stays behind."""
        self.overridden = self._overridden()
        """Names under which the client may bring its own, in lower case."""

    def _overridden(self) -> frozenset[str]:
        auth = self._auth
        if not auth.allow_override:
            return frozenset()
        return frozenset(name.lower() for name in (auth.header_name, auth.param_name) if name)

    def credentials(self, credential: Credential | None) -> sign.Credentials:
        """What to set. A signature is not among it: it comes last. Raises Refused."""
        found = self._static()
        if isinstance(credential, BearerToken):
            headers = {**found.headers, "authorization": f"Bearer {credential.token}"}
            return found._replace(headers=headers)
        return found

    def _static(self) -> sign.Credentials:
        auth, headers, query = self._auth, self._request.headers, self._request.query
        try:
            if not auth.allow_override:
                return sign.static(auth, (), (), ())
            return sign.static(
                auth,
                [name for name, values in headers.items() if any(values)],
                [name for name, value in privacy.query_values(query).items() if value],
                [name for name, value in self._body.items() if value],
            )
        except sign.AuthError as error:
            raise Refused(SERVER_ERROR, str(error)) from None

    def dropped_query(self, own: str) -> set[str]:
        """The operator's parameters replace the client's; the client's credentials stay here."""
        dropped = set(privacy.query_values(own))
        if self.is_configured:
            dropped |= privacy.CREDENTIAL_QUERY - self.overridden
        return dropped

    def dropped_headers(self, replaced: Mapping[str, str]) -> frozenset[str]:
        """What of the client's headers does not go up; an empty value in `replaced` drops too."""
        dropped = privacy.dropped_headers(
            self._request.headers,
            credentials=self.is_configured,
            kept=self.overridden,
            replaced=replaced,
        )
        emptied = {name for name, value in replaced.items() if not value}
        return dropped - replaced.keys() | emptied

    def subprotocols(self) -> dict[str, str]:
        """Browsers offer the key as a WebSocket subprotocol, having no other way."""
        offered = self._request.headers.get("sec-websocket-protocol")
        if not offered or not self.is_configured or self._auth.allow_override:
            return {}
        kept = privacy.subprotocols(offered)
        return {} if kept == ", ".join(offered) else {"sec-websocket-protocol": kept}

    def secret_headers(self, headers: Mapping[str, str]) -> frozenset[str]:
        """Those that are set, and the client's own credentials where they pass."""
        client = privacy.CREDENTIAL_HEADERS | self.overridden
        return frozenset(headers.keys() | (client & self._request.headers.keys()))

    def secret_query(
        self, credentials: sign.Credentials, query: str, upstream_url: str | None
    ) -> frozenset[str]:
        """What is set, what the operator wrote into the URL, and the client's own that pass."""
        if not query:
            return frozenset()
        url = upstream_url or ""
        own = credentials.query.keys() | privacy.query_values(url.partition("?")[2]).keys()
        client = privacy.CREDENTIAL_QUERY | {self._auth.param_name or ""}
        return frozenset(own | (privacy.query_values(query).keys() & client))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts of the operator's that must be in no log."""
        auth = self._auth
        values = [(value or "").strip() for value in (auth.header_value, auth.param_value)]
        keys = [value.rpartition(" ")[2] for value in values]  # what follows "Bearer"
        return tuple(key for key in keys if len(key) >= _SHORTEST_KEY)
