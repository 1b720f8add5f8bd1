"""What the agent is compared with: uvicorn, and in it nothing but the cryptography of a message and of its answer."""

import sys

import uvicorn

from scalarizr.envelope import founding, sealed
from scalarizr.envelope.date import date_text
from scalarizr.envelope.key import ServerKey

ANSWER = b'{"result": [0.12, 0.34, 0.56], "id": "0123456789abcdef"}'


def application(key: ServerKey, envelope: str):  # type: ignore[no-untyped-def]
    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        body = (await receive())["body"]
        if envelope == "none":
            answer, sent = ANSWER * 2, []
        elif envelope == "founding":
            headers = dict(scope["headers"])
            date = headers[b"date"].decode()
            founding.open_body(key, body, date, headers[b"x-signature"].decode())
            now = date_text(0)
            answer, signature = founding.seal(key, ANSWER, now)
            sent = [(b"date", now.encode()), (b"x-signature", signature.encode())]
        else:
            header, _text = sealed.open_token(key, body)
            answer = sealed.seal(key, ANSWER, {"irt": header["jti"], "iat": 1, "jti": sealed.new_id()})
            sent = [(b"content-type", b"application/jose")]
        sent.append((b"content-length", str(len(answer)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": sent})
        await send({"type": "http.response.body", "body": answer})

    return app


if __name__ == "__main__":
    key_file, port, envelope, loop = sys.argv[1:5]
    with open(key_file, "rb") as file:
        server_key = ServerKey.from_text(file.read())
    uvicorn.run(
        application(server_key, envelope),
        host="127.0.0.1",
        port=int(port),
        loop=loop,  # type: ignore[arg-type]
        http="httptools",
        lifespan="off",
        log_level="error",
        access_log=False,
    )
