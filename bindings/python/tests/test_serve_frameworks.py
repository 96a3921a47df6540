"""Applications of Flask, Django, Starlette and FastAPI, as their manuals have them."""

from __future__ import annotations

import json

from support.serving import Served
from websockets.sync.client import connect

FLASK = """
from flask import Flask, Response, jsonify, request, send_file, stream_with_context

app = Flask(__name__)

@app.get("/")
def hello():
    return "Hello, World!"

@app.get("/json/<name>")
def as_json(name):
    return jsonify(name=name, query=request.args.get("q"), remote=request.remote_addr)

@app.get("/stream")
def stream():
    @stream_with_context
    def rows():
        for number in range(100):
            yield f"{request.args['prefix']}{number}\\n"
    return Response(rows(), mimetype="text/csv")

@app.post("/upload")
def upload():
    file = request.files["file"]
    return {"name": file.filename, "bytes": len(file.read()), "field": request.form["field"]}

@app.get("/file")
def file():
    return send_file("/etc/passwd", mimetype="text/plain")

@app.get("/fails")
def fails():
    raise ValueError("on purpose")
"""

MULTIPART = (
    b'--b\r\nContent-Disposition: form-data; name="field"\r\n\r\nvalue\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + b"x" * 300_000 + b"\r\n--b--\r\n"
)


def test_flask() -> None:
    with Served(FLASK, "--threads", "2") as served:
        assert served.get("/").text == "Hello, World!"
        assert json.loads(served.get("/json/caf%C3%A9?q=1%202").body) == {
            "name": "café",
            "query": "1 2",
            "remote": "127.0.0.1",
        }
        assert served.get("/stream?prefix=row").text == "".join(f"row{number}\n" for number in range(100))
        told = served.request("POST", "/upload", MULTIPART, Content_Type="multipart/form-data; boundary=b").body
        assert json.loads(told) == {"name": "a.bin", "bytes": 300_000, "field": "value"}
        with open("/etc/passwd", "rb") as file:
            assert served.get("/file").body == file.read()
        assert (served.get("/fails").status, served.get("/missing").status) == (500, 404)
        assert "ValueError: on purpose" in served.text()


DJANGO = """
import json
from django.conf import settings

settings.configure(
    DEBUG=False, SECRET_KEY="x", ROOT_URLCONF="app", ALLOWED_HOSTS=["*"], USE_TZ=True,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.gzip.GZipMiddleware"],
)

import django
django.setup()

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

def hello(request):
    return HttpResponse("Hello, Django!")

def show(request, name):
    query, secure = request.GET.get("q"), request.is_secure()
    return JsonResponse({"name": name, "query": query, "body": len(request.body), "secure": secure})

def stream(request):
    return StreamingHttpResponse(f"row{number}\\n" for number in range(100))

async def later(request):
    import asyncio
    await asyncio.sleep(0.01)
    return HttpResponse("later")

async def stream_later(request):
    async def rows():
        for number in range(100):
            yield f"row{number}\\n"
    return StreamingHttpResponse(rows())

def file(request):
    return FileResponse(open("/etc/passwd", "rb"))

urlpatterns = [
    path("", hello), path("show/<name>", show), path("stream", stream), path("later", later),
    path("stream_later", stream_later), path("file", file),
]
wsgi, asgi = get_wsgi_application(), get_asgi_application()
"""


def check_django(served: Served) -> None:
    assert served.get("/").text == "Hello, Django!"
    told = json.loads(served.request("PUT", "/show/caf%C3%A9?q=1", b"x" * 200_000).body)
    assert told == {"name": "café", "query": "1", "body": 200_000, "secure": False}
    assert served.get("/later").text == "later"
    with open("/etc/passwd", "rb") as file:
        assert served.get("/file").body == file.read()


def test_django() -> None:
    with Served(DJANGO, "--threads", "2", app="app:wsgi") as served:
        check_django(served)
        assert served.get("/stream").text == "".join(f"row{number}\n" for number in range(100))
        assert json.loads(served.get("/show/x", X_Forwarded_Proto="https").body)["secure"], "127.0.0.1 is believed"
    with Served(DJANGO, app="app:asgi") as served:
        check_django(served)
        assert served.get("/stream_later").text == "".join(f"row{number}\n" for number in range(100))


STARLETTE = """
import anyio
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

done = []

async def hello(request):
    return PlainTextResponse("Hello, Starlette!")

def in_a_thread(request):
    return PlainTextResponse("from a thread")

async def echo(request):
    return PlainTextResponse(await request.body())

async def stream(request):
    async def rows():
        for number in range(100):
            yield f"row{number}\\n"
            await anyio.sleep(0)
    return StreamingResponse(rows(), media_type="text/csv")

async def groups(request):
    found = []
    async def add(number):
        await anyio.sleep(0.001 * number)
        found.append(number)
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(add, number)
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep(10)
    return JSONResponse([found, scope.cancelled_caught])

async def file(request):
    return FileResponse("/etc/passwd", media_type="text/plain")

async def background(request):
    async def later():
        await anyio.sleep(0.05)
        done.append(1)
    return PlainTextResponse(str(len(done)), background=BackgroundTask(later))

async def state(request):
    return PlainTextResponse(request.state.greeting)

async def websocket(socket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())

class Adds(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["x-added"] = "1"
        return response

@asynccontextmanager
async def lifespan(app):
    yield {"greeting": "from the lifespan"}

names = [hello, in_a_thread, stream, groups, file, background, state]
routes = [Route(f"/{one.__name__}", one) for one in names]
routes += [Route("/echo", echo, methods=["POST"]), WebSocketRoute("/websocket", websocket)]
app = Starlette(routes=routes, lifespan=lifespan)
wrapped = Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(Adds), Middleware(GZipMiddleware)])
"""


def check_starlette(served: Served) -> None:
    client = served.client()

    def get(path: str) -> str:
        client.request("GET", path)
        return client.getresponse().read().decode()

    assert get("/hello") == "Hello, Starlette!"
    assert get("/in_a_thread") == "from a thread"
    assert get("/stream") == "".join(f"row{number}\n" for number in range(100))
    assert get("/groups") == "[[0,1,2],true]"
    assert get("/state") == "from the lifespan"
    with open("/etc/passwd") as file:
        assert get("/file") == file.read()
    assert served.request("POST", "/echo", b"z" * 300_000).body == b"z" * 300_000
    assert get("/background") == "0"
    while get("/background") == "0":
        pass
    client.close()
    with connect(f"ws://127.0.0.1:{served.port}/websocket") as socket:
        socket.send("hello")
        assert socket.recv(20) == "HELLO"
    assert "Traceback" not in served.text(), served.text()


def test_starlette() -> None:
    with Served(STARLETTE, "--loop", "asyncio") as served:
        check_starlette(served)
    with Served(STARLETTE, app="app:wrapped") as served:
        check_starlette(served)
        assert served.get("/hello").headers["x-added"] == "1"


FASTAPI = """
from typing import Annotated
from fastapi import Depends, FastAPI, HTTPException, UploadFile, WebSocket
from pydantic import BaseModel

app = FastAPI()

class Item(BaseModel):
    name: str
    price: float

async def resource():
    yield "resource"

@app.get("/")
async def hello():
    return {"hello": "world"}

@app.get("/sync/{number}")
def sync(number: int, found: Annotated[str, Depends(resource)]):
    return {"number": number, "found": found}

@app.post("/items")
async def items(item: Item):
    return item

@app.post("/upload")
async def upload(file: UploadFile):
    return {"name": file.filename, "bytes": len(await file.read())}

@app.get("/teapot")
async def teapot():
    raise HTTPException(418, "short and stout")

@app.websocket("/ws/{name}")
async def websocket(socket: WebSocket, name: str):
    await socket.accept()
    while True:
        await socket.send_json({name: await socket.receive_json()})
"""


def test_fastapi() -> None:
    with Served(FASTAPI) as served:
        assert json.loads(served.get("/").body) == {"hello": "world"}
        assert json.loads(served.get("/sync/7").body) == {"number": 7, "found": "resource"}
        item = b'{"name": "x", "price": 1.5}'
        assert json.loads(served.request("POST", "/items", item, Content_Type="application/json").body)["price"] == 1.5
        assert served.request("POST", "/items", b"{}", Content_Type="application/json").status == 422
        told = served.request("POST", "/upload", MULTIPART, Content_Type="multipart/form-data; boundary=b").body
        assert json.loads(told) == {"name": "a.bin", "bytes": 300_000}
        assert (served.get("/teapot").status, served.get("/openapi.json").status) == (418, 200)
        with connect(f"ws://127.0.0.1:{served.port}/ws/it") as socket:
            socket.send("[1, 2]")
            assert json.loads(socket.recv(20)) == {"it": [1, 2]}
        assert "Traceback" not in served.text(), served.text()
