"""The options by which commands reach a server that wants a token or is encrypted."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from helpers.errors import InputError

if TYPE_CHECKING:
    from helpers.client.endpoint import Access

# Seconds that the server of a command outlives that command when it is killed: nobody comes back to it, as a restarted notebook does.
COMMAND_GRACE_S = 2.0

_TOKEN_VARIABLE = "COURSE_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument(
        "--token",
        help=f"what the server's owner gave out. Others on this machine can see what you type here, and cannot see the variable "
        f"{_TOKEN_VARIABLE}, which is taken when the option is left out",
    )
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="a further header for every request")
    parser.add_argument("--ca", metavar="FILE", help="certificate of the authority that signed the server's, for grpcs:// and https://")


def access(args: argparse.Namespace) -> Access:
    """Return the access that the options give.

    Raises:
        InputError: a header or the CA file cannot be used.
    """
    from helpers.client.endpoint import access_for

    headers = {}
    for text in args.header:
        name, colon, value = text.partition(":")
        if not colon:
            raise InputError(
                "A --header without a colon was given.", "Expected NAME:VALUE.", 'Type for example: --header "authorization:…"'
            )
        headers[name.strip()] = value.strip()
    token = os.environ.get(_TOKEN_VARIABLE, "") if args.token is None else args.token
    return access_for(token, headers, args.ca)
