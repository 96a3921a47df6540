"""SQLAlchemy's own tests of dialects, over ours; `test_compat_sqlalchemy.py` runs them."""

import iokernel.compat.sqlalchemy  # noqa: F401 - registers the dialect
import pytest

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403
