"""Why a connection to a server could not be made, as far as TLS is the reason. Pure: reads what gRPC says.

gRPC has no codes for this, only words, which are BoringSSL's and its own: tests/integration/test_tls_errors.py makes
each of them happen. Where the words change, the error is the general one, with gRPC's words in it.
"""

from __future__ import annotations

from lading._address import Address
from lading._errors import LadingError, Unavailable, Untrusted

# What every failure to connect begins with; a connection that breaks later says the rest alone.
_NOT_CONNECTED = "failed to connect"
# Of grpcio 1.85, and of 1.62.
_OTHER_NAME = ("Hostname Verification", "is not in peer certificate")
_HUNG_UP = ("Socket closed", "Connection reset by peer")


def handshake_error(details: str, address: Address) -> LadingError | None:
    """Return the error for a connection that TLS kept from being made; None when it was something else.

    Args:
        details: What gRPC says.
        address: The server that was dialed.
    """
    if _NOT_CONNECTED not in details:
        return None
    there = address.target
    if any(words in details for words in _HUNG_UP):
        # A server that is just ending does the same, so this is worth another try.
        return Unavailable(_hung_up(address))
    if "WRONG_VERSION_NUMBER" in details:
        return Untrusted(f"{there} has no TLS. Write grpc://{there}, if whoever is on the way may read everything.")
    if any(words in details for words in _OTHER_NAME):
        return Untrusted(
            f"The certificate of {there} is not for the name {address.bare_host}. Use the name that it is for, or have "
            "one issued for this name too (subjectAltName)."
        )
    if "certificate has expired" in details or "certificate is not yet valid" in details:
        return Untrusted(
            f"The certificate of {there} is not valid today. Tell its operator; or set this machine's clock right."
        )
    if "CERTIFICATE_VERIFY_FAILED" in details:
        # An old gRPC does not say why.
        perhaps = "" if "CERTIFICATE_VERIFY_FAILED:" in details else ", or has expired"
        return Untrusted(
            f"The certificate of {there} was issued by nobody that this machine trusts{perhaps}. Name the file with "
            "the issuer's certificate: LADING_CA_FILE, ca_file=, or lading login --ca-file."
        )
    return None


def _hung_up(address: Address) -> str:
    there = address.target
    if address.tls:
        return (
            f"{there} hung up in the TLS handshake. If it asks for client certificates, name one that it trusts: "
            "LADING_CLIENT_CERT and LADING_CLIENT_KEY."
        )
    return f"{there} hung up at once. If it has TLS, write grpcs://{there}."
