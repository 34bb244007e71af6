"""`python -m demo`: exit code 0 if every step had the expected result, otherwise 1."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from demo.stage import Authority, Tail, Teller
from demo.story import APPLICATION, Story
from sessiond_client import Client, SessiondError


def main() -> int:
    """Play the story, and clean up in any case. Returns the exit code."""
    teller = Teller()
    with ExitStack() as stack:
        authority = stack.enter_context(Authority(APPLICATION))
        try:
            authority.wait_until_serving()
            teller.heading(
                f"A temporary server is running at {authority.target}; `sessionctl watch` follows its events."
            )
            tail = stack.enter_context(Tail(authority.target, teller))
            tail.wait_until_following()
            client = stack.enter_context(Client(authority.target, application=APPLICATION))
            Story(client, tail, teller).tell(authority)
        except (AssertionError, SessiondError, TimeoutError) as error:
            teller.failure(f"the demo stopped: {error}")
            teller.aside(authority.log_tail())
            return 1
    teller.heading("Every step was checked. The server and its data are deleted.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
