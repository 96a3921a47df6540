"""What PostgreSQL has beyond what SQLAlchemy's tests take for granted."""

from typing import Any

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

HAS = (
    "array_type",
    "autocommit",
    "datetime_interval",
    "datetime_timezone",
    "infinity_floats",
    "isolation_level",
    "json_type",
    "precision_numerics_many_significant_digits",
    "precision_numerics_retains_significant_digits",
    "reflect_table_options",
    "regexp_match",
    "savepoints",
    "supports_distinct_on",
    "uuid_data_type",
)


class Requirements(SuiteRequirements):  # type: ignore[misc,unused-ignore]
    def get_isolation_levels(self, config: Any) -> dict[str, Any]:
        levels = config.db.dialect.get_isolation_level_values(None)
        return {"default": "READ COMMITTED", "supported": list(levels)}


for name in HAS:
    setattr(Requirements, name, property(lambda self: exclusions.open()))  # type: ignore[no-untyped-call,unused-ignore]
