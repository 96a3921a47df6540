"""Serves WSGI and ASGI applications over HTTP: `python -m iokernel serve module:app`. See docs/serve.md.

`iokernel.serve.gunicorn` has the same as worker classes of gunicorn.
"""
