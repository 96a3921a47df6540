"""Django over iokernel: `"ENGINE": "iokernel.compat.django"` in DATABASES.

It is Django's own backend of PostgreSQL, whose connections are leases of an endpoint. `OPTIONS` are the endpoint's.
psycopg 3 must be there, as that backend imports it: it writes Python's values, its exceptions are raised, and it
connects nowhere.
"""
