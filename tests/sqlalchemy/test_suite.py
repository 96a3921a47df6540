from typing import Any

from sqlalchemy.testing import suite
from sqlalchemy.testing.suite import *  # noqa: F403


class ServerSideCursorsTest(suite.ServerSideCursorsTest):  # type: ignore[misc,no-redef,unused-ignore]
    def _is_server_side(self, cursor: Any) -> Any:
        """The test knows the cursors of SQLAlchemy's own drivers alone."""
        found = super()._is_server_side(cursor)  # type: ignore[no-untyped-call,unused-ignore]
        return found or getattr(cursor, "server_side", False)
